//! Scalar expressions: one number at every step.

use promql_syntax::{BinaryOp, UnaryOp};

use crate::binary;
use crate::context::Context;
use crate::error::Result;
use crate::points::{BoxOperator, Grid, Point, clear, row};

/// The values of a scalar expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scalars {
    /// The same at every step.
    Constant(f64),
    /// One for each step.
    Steps(Vec<f64>),
}

impl Scalars {
    #[inline]
    pub(crate) fn at(&self, step: usize) -> f64 {
        match self {
            Self::Constant(x) => *x,
            Self::Steps(values) => values[step],
        }
    }

    /// Returns the least and the greatest value, and whether any is NaN.
    pub(crate) fn extremes(&self) -> (f64, f64, bool) {
        let values = match self {
            Self::Constant(x) => std::slice::from_ref(x),
            Self::Steps(values) => values,
        };
        let start = (f64::INFINITY, f64::NEG_INFINITY, false);
        values.iter().fold(start, |(low, high, nan), x| (low.min(*x), high.max(*x), nan || x.is_nan()))
    }

    fn map(self, change: impl Fn(f64) -> f64) -> Self {
        match self {
            Self::Constant(x) => Self::Constant(change(x)),
            Self::Steps(values) => Self::Steps(values.into_iter().map(change).collect()),
        }
    }
}

/// A scalar expression, evaluated when its value is needed.
pub(crate) enum ScalarOperator {
    Constant(f64),
    /// `time()` on a grid.
    Time(Grid),
    /// `scalar(v)`
    Vector {
        operator: BoxOperator,
        steps: usize,
    },
    Unary(UnaryOp, Box<Self>),
    Binary(BinaryOp, Box<Self>, Box<Self>),
    MinOf(Box<Self>, Box<Self>),
    MaxOf(Box<Self>, Box<Self>),
    /// One value for all steps of a longer grid.
    Repeat(Box<Self>),
}

impl std::fmt::Debug for ScalarOperator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ScalarOperator")
    }
}

impl ScalarOperator {
    /// Evaluates the expression; call once.
    pub(crate) fn values(&mut self, cx: &mut Context<'_>) -> Result<Scalars> {
        let values = self.compute(cx)?;
        if let Scalars::Steps(steps) = &values {
            cx.tick(steps.len())?;
        }
        Ok(values)
    }

    #[expect(clippy::cast_precision_loss, reason = "PromQL's time is a float")]
    fn compute(&mut self, cx: &mut Context<'_>) -> Result<Scalars> {
        Ok(match self {
            Self::Constant(x) => Scalars::Constant(*x),
            Self::Time(grid) => Scalars::Steps(grid.times().map(|t| t as f64 / 1000.0).collect()),
            Self::Vector { operator, steps } => Scalars::Steps(only_float(cx, operator, *steps)?),
            Self::Unary(op, operand) => {
                let values = operand.values(cx)?;
                if *op == UnaryOp::Minus { values.map(|x| -x) } else { values }
            }
            Self::Binary(op, lhs, rhs) => {
                let op = *op;
                zip(lhs.values(cx)?, rhs.values(cx)?, |a, b| binary::scalar(op, a, b))
            }
            Self::MinOf(a, b) => zip(a.values(cx)?, b.values(cx)?, go_min),
            Self::MaxOf(a, b) => zip(a.values(cx)?, b.values(cx)?, go_max),
            Self::Repeat(inner) => Scalars::Constant(inner.values(cx)?.at(0)),
        })
    }
}

fn zip(a: Scalars, b: Scalars, join: impl Fn(f64, f64) -> f64) -> Scalars {
    match (a, b) {
        (Scalars::Constant(a), Scalars::Constant(b)) => Scalars::Constant(join(a, b)),
        (Scalars::Constant(a), b) => b.map(|b| join(a, b)),
        (a, Scalars::Constant(b)) => a.map(|a| join(a, b)),
        (Scalars::Steps(a), Scalars::Steps(b)) => {
            Scalars::Steps(a.into_iter().zip(b).map(|(a, b)| join(a, b)).collect())
        }
    }
}

/// The smaller of two numbers as Go's `math.Min` has it: NaN if any is NaN (but -Inf wins).
pub(crate) fn go_min(a: f64, b: f64) -> f64 {
    if a == f64::NEG_INFINITY || b == f64::NEG_INFINITY {
        f64::NEG_INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.min(b)
    }
}

/// The greater of two numbers as Go's `math.Max` has it: NaN if any is NaN (but +Inf wins).
pub(crate) fn go_max(a: f64, b: f64) -> f64 {
    -go_min(-a, -b)
}

/// `scalar(v)`: at each step the float of the only series that has one, else NaN.
fn only_float(cx: &mut Context<'_>, operator: &mut BoxOperator, steps: usize) -> Result<Vec<f64>> {
    let count = operator.series(cx)?.len();
    let mut values = vec![f64::NAN; steps];
    let mut found = vec![0_u8; steps];
    let mut points = row(steps);
    for _ in 0..count {
        clear(&mut points);
        operator.next(cx, &mut points)?;
        for (step, point) in points.iter().enumerate() {
            if let Point::Float(x) = point {
                found[step] = found[step].saturating_add(1);
                values[step] = if found[step] == 1 { *x } else { f64::NAN };
            }
        }
    }
    Ok(values)
}
