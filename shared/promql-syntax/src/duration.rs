//! Lengths of time in queries, and the little language of arithmetic in them: `[5m + step()]`.

use model::Timestamp;

use crate::ast::{BinaryOp, Expr, Span};

/// Why a duration expression has no usable value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DurationError {
    /// A range or a step that is zero or negative.
    #[error("duration must be greater than 0")]
    NotPositive,
    /// More than can be counted.
    #[error("duration is out of range")]
    OutOfRange,
    /// `/ 0`
    #[error("division by zero")]
    DivisionByZero,
    /// `% 0`
    #[error("modulo by zero")]
    ModuloByZero,
}

impl DurationError {
    /// The kind of failure: the query is at fault.
    #[must_use]
    pub const fn kind(self) -> fault::Kind {
        fault::Kind::Invalid
    }
}

/// A length of time as a query has it: known at once, or an expression that depends on the query's times.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TimeDelta {
    ms: Option<i64>,
    expr: Option<Box<DurationExpr>>,
}

impl TimeDelta {
    /// The length zero.
    pub const ZERO: Self = Self { ms: Some(0), expr: None };

    /// Makes a known length.
    #[must_use]
    pub const fn from_ms(ms: i64) -> Self {
        Self { ms: Some(ms), expr: None }
    }

    /// Makes a length from an expression; a plain literal is known at once.
    #[must_use]
    pub fn from_expr(expr: DurationExpr) -> Self {
        match expr {
            DurationExpr::Literal { seconds, .. } => Self::from_ms(literal_ms(seconds)),
            DurationExpr::Paren { expr, .. } if matches!(*expr, DurationExpr::Literal { .. }) => {
                Self::from_expr(*expr)
            }
            expr => Self { ms: None, expr: Some(Box::new(expr)) },
        }
    }

    /// Returns the length in milliseconds.
    ///
    /// # Panics
    /// When it is an expression and [`Expr::resolve_durations`] was not called.
    #[must_use]
    pub fn ms(&self) -> i64 {
        self.ms.expect("durations are resolved before they are read")
    }

    /// Returns the length in milliseconds, or `None` when it is an expression that was not resolved yet.
    #[must_use]
    pub const fn known_ms(&self) -> Option<i64> {
        self.ms
    }

    /// Returns the expression it was written as, if it is more than a literal.
    #[must_use]
    pub fn expr(&self) -> Option<&DurationExpr> {
        self.expr.as_deref()
    }

    /// Says whether anything was written that is not plainly zero.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.expr.is_some() || self.ms != Some(0)
    }

    fn resolve(&mut self, times: QueryTimes, sign: Sign) -> Result<(), DurationError> {
        let Some(expr) = &self.expr else { return Ok(()) };
        let seconds = expr.seconds(times)?;
        if sign == Sign::Positive && seconds <= 0.0 {
            return Err(DurationError::NotPositive);
        }
        if is_out_of_range(seconds) {
            return Err(DurationError::OutOfRange);
        }
        self.ms = Some(truncate(seconds * 1000.0));
        Ok(())
    }
}

/// The times of a query that duration expressions may depend on.
#[derive(Debug, Clone, Copy)]
struct QueryTimes {
    range_seconds: f64,
    step_seconds: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    Positive,
    Any,
}

/// An expression for a length of time, in seconds.
#[derive(Debug, Clone)]
pub enum DurationExpr {
    /// `5m`, `300`
    Literal {
        /// The value; negative where a minus stood before it.
        seconds: f64,
        /// Whether it was written as a duration (`5m`), and is printed as one.
        is_duration: bool,
        /// Where it stands.
        span: Span,
    },
    /// `step()`: the query's step, zero in an instant query.
    Step {
        /// Where it stands.
        span: Span,
    },
    /// `range()`: from the query's start to its end, zero in an instant query.
    Range {
        /// Where it stands.
        span: Span,
    },
    /// `-(...)`
    Negate {
        /// What is negated.
        expr: Box<DurationExpr>,
        /// Where it stands.
        span: Span,
    },
    /// `a + b`; the operators are `+ - * / % ^`.
    Binary {
        /// The operator.
        op: BinaryOp,
        /// The left operand.
        lhs: Box<DurationExpr>,
        /// The right operand.
        rhs: Box<DurationExpr>,
        /// Where it stands.
        span: Span,
    },
    /// `min_of(a, b)`
    MinOf {
        /// The first operand.
        lhs: Box<DurationExpr>,
        /// The second operand.
        rhs: Box<DurationExpr>,
        /// Where it stands.
        span: Span,
    },
    /// `max_of(a, b)`
    MaxOf {
        /// The first operand.
        lhs: Box<DurationExpr>,
        /// The second operand.
        rhs: Box<DurationExpr>,
        /// Where it stands.
        span: Span,
    },
    /// `(a)`
    Paren {
        /// What is inside.
        expr: Box<DurationExpr>,
        /// Where it stands.
        span: Span,
    },
}

impl PartialEq for DurationExpr {
    /// Compares structure and places, and literals bit for bit.
    fn eq(&self, other: &Self) -> bool {
        if self.span() != other.span() {
            return false;
        }
        match (self, other) {
            (Self::Literal { seconds: a, .. }, Self::Literal { seconds: b, .. }) => {
                a.to_bits() == b.to_bits()
            }
            (Self::Step { .. }, Self::Step { .. }) | (Self::Range { .. }, Self::Range { .. }) => true,
            (Self::Negate { expr: a, .. }, Self::Negate { expr: b, .. })
            | (Self::Paren { expr: a, .. }, Self::Paren { expr: b, .. }) => a == b,
            (Self::Binary { op: a, lhs: al, rhs: ar, .. }, Self::Binary { op: b, lhs: bl, rhs: br, .. }) => {
                a == b && al == bl && ar == br
            }
            (Self::MinOf { lhs: al, rhs: ar, .. }, Self::MinOf { lhs: bl, rhs: br, .. })
            | (Self::MaxOf { lhs: al, rhs: ar, .. }, Self::MaxOf { lhs: bl, rhs: br, .. }) => {
                al == bl && ar == br
            }
            _ => false,
        }
    }
}

impl DurationExpr {
    /// Returns where the expression stands in the text.
    #[must_use]
    pub const fn span(&self) -> Span {
        match self {
            Self::Literal { span, .. }
            | Self::Step { span }
            | Self::Range { span }
            | Self::Negate { span, .. }
            | Self::Binary { span, .. }
            | Self::MinOf { span, .. }
            | Self::MaxOf { span, .. }
            | Self::Paren { span, .. } => *span,
        }
    }

    fn seconds(&self, times: QueryTimes) -> Result<f64, DurationError> {
        Ok(match self {
            Self::Literal { seconds, .. } => *seconds,
            Self::Step { .. } => times.step_seconds,
            Self::Range { .. } => times.range_seconds,
            Self::Negate { expr, .. } => -expr.seconds(times)?,
            Self::Paren { expr, .. } => expr.seconds(times)?,
            Self::MinOf { lhs, rhs, .. } => lhs.seconds(times)?.min(rhs.seconds(times)?),
            Self::MaxOf { lhs, rhs, .. } => lhs.seconds(times)?.max(rhs.seconds(times)?),
            Self::Binary { op, lhs, rhs, .. } => {
                let (a, b) = (lhs.seconds(times)?, rhs.seconds(times)?);
                match op {
                    BinaryOp::Add => a + b,
                    BinaryOp::Sub => a - b,
                    BinaryOp::Mul => a * b,
                    BinaryOp::Div if b == 0.0 => return Err(DurationError::DivisionByZero),
                    BinaryOp::Div => a / b,
                    BinaryOp::Mod if b == 0.0 => return Err(DurationError::ModuloByZero),
                    BinaryOp::Mod => a % b,
                    BinaryOp::Pow => a.powf(b),
                    _ => unreachable!("the parser makes no other operator here"),
                }
            }
        })
    }
}

impl Expr {
    /// Gives every duration expression in the tree its value for a query over `start` to `end` in steps of
    /// `step_ms` (all zero-length for an instant query). Must run before [`TimeDelta::ms`] is read, and may run
    /// again for other times.
    ///
    /// # Errors
    /// The first expression without a usable value, in the order of the tree.
    pub fn resolve_durations(
        &mut self,
        start: Timestamp,
        end: Timestamp,
        step_ms: i64,
    ) -> Result<(), DurationError> {
        let step = Timestamp(step_ms);
        let times = QueryTimes {
            range_seconds: Timestamp(end.since_ms(start)).seconds(),
            step_seconds: step.seconds(),
        };
        let mut result = Ok(());
        self.walk_mut(&mut |e| {
            if result.is_ok() {
                result = resolve_one(e, times);
            }
        });
        result
    }
}

fn resolve_one(expr: &mut Expr, times: QueryTimes) -> Result<(), DurationError> {
    match expr {
        Expr::VectorSelector(e) => e.offset.resolve(times, Sign::Any),
        Expr::MatrixSelector(e) => {
            e.range.resolve(times, Sign::Positive)?;
            e.selector.offset.resolve(times, Sign::Any)
        }
        Expr::Subquery(e) => {
            e.offset.resolve(times, Sign::Any)?;
            if let Some(step) = &mut e.step {
                step.resolve(times, Sign::Positive)?;
            }
            e.range.resolve(times, Sign::Positive)
        }
        _ => Ok(()),
    }
}

/// The longest length either way: Go's durations are 64-bit nanoseconds.
const SECONDS_MAX: f64 = 9_223_372_036.854_776;

/// Says whether a number of seconds cannot be a length of time.
pub(crate) fn is_out_of_range(seconds: f64) -> bool {
    seconds.is_nan() || seconds.abs() > SECONDS_MAX
}

/// Turns a literal into milliseconds as Prometheus does: rounded to nanoseconds, then cut.
pub(crate) fn literal_ms(seconds: f64) -> i64 {
    truncate((seconds * 1e9).round() / 1e6)
}

#[expect(clippy::cast_possible_truncation, reason = "saturates, and the callers check the range")]
fn truncate(ms: f64) -> i64 {
    ms as i64
}
