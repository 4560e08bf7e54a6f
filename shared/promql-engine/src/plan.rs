//! From the tree of an expression to operators.
//!
//! All selections are opened while the plan is made, so that a source can fetch them side by side; nothing is read.
//! Parts that do not depend on the step are planned for a single step and repeated.

mod call;
mod cut;

use model::Timestamp;
use promql_syntax::{
    Aggregate, AggregateOp, AtModifier, Binary, BinaryOp, Cardinality, Edges, Expr, MatrixSelector, Subquery,
    UnaryOp, ValueType, VectorSelector,
};

use self::call::label_name;
use self::cut::OpenCut;
use crate::aggregate::{Aggregation, Best, CountValues, Grouping, Limit, Limited};
use crate::binary::{SetOperator, VectorScalar, VectorVector};
use crate::context::{Context, SAMPLE_BYTES, STEPS_MAX};
use crate::error::{Error, Result};
use crate::faults::or_fault;
use crate::merge::{Merge, Repeat, SAME_LABELSET};
use crate::partial::Counted;
use crate::points::{BoxOperator, Grid, Operator, Point, SeriesMeta};
use crate::scalar::ScalarOperator;
use crate::select::{Give, InstantSelector, OpenSet, RangeInput, SmoothedSelector, When};
use crate::source::{Hints, Selection};
use crate::vector::{Map, MapFunction};

/// The query's own times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueryTimes {
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// Zero in an instant query.
    pub(crate) step: i64,
}

/// What stands around an expression, as far as selections want to know.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Around<'a> {
    function: &'a str,
    grouping: Option<(&'a [String], bool)>,
    /// Only count and sum of histograms are used, so resets are told from sample to sample.
    detects_hints: bool,
    /// Something around needs whole histograms, whatever stands further inside.
    needs_buckets: bool,
    counted: Counted,
    /// The aggregation that is cut here, if any.
    cut: Option<&'a OpenCut>,
}

impl<'a> Around<'a> {
    fn call(self, function: &'a str) -> Self {
        let needs_buckets = self.needs_buckets
            || matches!(function, "histogram_quantile" | "histogram_quantiles" | "histogram_fraction");
        let is_statistic = matches!(function, "histogram_count" | "histogram_sum" | "histogram_avg");
        let detects_hints = self.detects_hints || is_statistic;
        Self { function, grouping: None, detects_hints, needs_buckets, ..self }
    }

    const fn aggregate(self, function: &'a str, grouping: &'a [String], by: bool) -> Self {
        Self { function, grouping: Some((grouping, by)), ..self }
    }

    /// Inside of an operator that is neither function nor aggregation.
    const fn operator(self) -> Self {
        Self { function: "", grouping: None, ..self }
    }

    const fn subquery(self) -> Self {
        let counted = Counted::Inside;
        Self { function: "", grouping: None, detects_hints: false, needs_buckets: true, counted, ..self }
    }

    /// Inside of what is evaluated once for all steps.
    const fn once(self) -> Self {
        match self.counted {
            Counted::AtStep => Self { counted: Counted::AtEvery, ..self },
            Counted::AtEvery | Counted::Inside => self,
        }
    }
}

/// Gives nothing; for a subquery without any step.
struct Empty;

impl Operator for Empty {
    fn series(&mut self, _: &mut Context<'_>) -> Result<Vec<SeriesMeta>> {
        Ok(Vec::new())
    }

    fn next(&mut self, _: &mut Context<'_>, _: &mut [Point]) -> Result<()> {
        Ok(())
    }
}

/// Says whether a function's value depends on the time of the evaluation even when its arguments do not.
pub(crate) fn depends_on_time(function: &str) -> bool {
    matches!(
        function,
        "days_in_month"
            | "day_of_month"
            | "day_of_week"
            | "day_of_year"
            | "hour"
            | "minute"
            | "month"
            | "year"
            | "predict_linear"
            | "time"
            | "timestamp"
    )
}

/// Says whether an expression has the same value at every step.
fn is_invariant(expr: &Expr) -> bool {
    match expr {
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => true,
        Expr::VectorSelector(e) => e.at.is_some(),
        Expr::MatrixSelector(e) => e.selector.at.is_some(),
        Expr::Subquery(e) => e.at.is_some(),
        Expr::Call(e) => !depends_on_time(e.func.name) && e.args.iter().all(is_invariant),
        Expr::Aggregate(e) => is_invariant(&e.expr) && e.param.as_deref().is_none_or(is_invariant),
        Expr::Binary(e) => is_invariant(&e.lhs) && is_invariant(&e.rhs),
        Expr::Unary(e) => is_invariant(&e.expr),
        Expr::Paren(e) => is_invariant(&e.expr),
    }
}

/// Makes the operators of one query.
pub(crate) struct Planner {
    pub(crate) times: QueryTimes,
}

impl Planner {
    /// Plans an instant vector expression.
    pub(crate) fn vector(
        &self,
        cx: &mut Context<'_>,
        expr: &Expr,
        grid: Grid,
        around: Around<'_>,
    ) -> Result<BoxOperator> {
        if grid.count == 0 {
            return Ok(Box::new(Empty));
        }
        // An operator has a row of points to work on.
        cx.hold_bytes(grid.count.saturating_mul(SAMPLE_BYTES))?;
        if grid.count > 1 && is_invariant(expr) {
            let single = self.vector(cx, expr, Grid::single(grid.start), around.once())?;
            return Ok(Box::new(Repeat::new(single)));
        }
        match expr {
            Expr::Paren(e) => self.vector(cx, &e.expr, grid, around),
            Expr::VectorSelector(e) => self.instant_selector(cx, e, grid, around, Give::Value),
            Expr::Call(e) => self.call(cx, e, grid, around),
            Expr::Aggregate(e) => self.aggregate(cx, e, grid, around),
            Expr::Binary(e) => self.binary(cx, e, grid, around.operator()),
            Expr::Unary(e) => {
                let input = self.vector(cx, &e.expr, grid, around.operator())?;
                match e.op {
                    UnaryOp::Plus => Ok(input),
                    UnaryOp::Minus => {
                        let map = Map::new(input, MapFunction::Negate, Vec::new(), grid);
                        Ok(without_names(cx, Box::new(map), grid))
                    }
                }
            }
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::MatrixSelector(_) | Expr::Subquery(_) => {
                Err(Error::Invalid(format!(
                    "expected an instant vector, got {}",
                    expr.value_type().documented()
                )))
            }
        }
    }

    fn when(&self, at: Option<AtModifier>, offset: i64, grid: Grid) -> When {
        let (start, end) = (Timestamp(self.times.start), Timestamp(self.times.end));
        When { grid, at: at.map(|at| at.resolve(start, end).millis()), offset }
    }

    /// Opens the selection of the samples in `(time - before, time + after]` for all times.
    #[expect(clippy::too_many_arguments, reason = "all of it goes into one request")]
    fn open(
        &self,
        cx: &Context<'_>,
        selector: &VectorSelector,
        when: When,
        before: i64,
        after: i64,
        range_ms: i64,
        around: Around<'_>,
    ) -> Result<OpenSet> {
        let (first, last) = when.bounds();
        let (grouping, by) = around.grouping.unwrap_or((&[], false));
        let selection = Selection {
            matchers: selector.matchers.clone(),
            min_time: Timestamp(first.saturating_sub(before).saturating_add(1)),
            max_time: Timestamp(last.saturating_add(after)),
            hints: Hints {
                step_ms: if when.grid.count > 1 { when.grid.step } else { 0 },
                range_ms,
                function: around.function.to_owned(),
                grouping: grouping.to_vec(),
                by,
            },
            cut: around.cut.and_then(OpenCut::offered),
        };
        let detects_hints = around.detects_hints && !around.needs_buckets;
        Ok(OpenSet::new(cx.source.select(&selection)?, detects_hints, around.cut.map(|cut| cut.slot)))
    }

    fn instant_selector(
        &self,
        cx: &mut Context<'_>,
        e: &VectorSelector,
        grid: Grid,
        around: Around<'_>,
        give: Give,
    ) -> Result<BoxOperator> {
        let when = self.when(e.at, e.offset.ms(), grid);
        let lookback = cx.lookback_ms;
        if e.edges == Edges::Smoothed {
            let set = self.open(cx, e, when, lookback, lookback, 0, around)?;
            let input = RangeInput::selector(set, when, (0, e.edges), around.counted, cx);
            return Ok(Box::new(SmoothedSelector::new(input, when, e.span)));
        }
        let set = self.open(cx, e, when, lookback, 0, 0, around)?;
        Ok(Box::new(InstantSelector::new(set, when, lookback, give, around.counted)))
    }

    /// Plans a range selector or subquery.
    pub(crate) fn range(
        &self,
        cx: &mut Context<'_>,
        expr: &Expr,
        grid: Grid,
        around: Around<'_>,
    ) -> Result<RangeInput> {
        match expr.unwrap_parens() {
            Expr::MatrixSelector(MatrixSelector { selector, range, .. }) => {
                let when = self.when(selector.at, selector.offset.ms(), grid);
                let range = range.ms();
                let (before, after) = match selector.edges {
                    Edges::Plain => (0, 0),
                    Edges::Anchored => (cx.lookback_ms, 0),
                    Edges::Smoothed => (cx.lookback_ms, cx.lookback_ms),
                };
                let set =
                    self.open(cx, selector, when, range.saturating_add(before), after, range, around)?;
                Ok(RangeInput::selector(set, when, (range, selector.edges), around.counted, cx))
            }
            Expr::Subquery(e) => self.subquery(cx, e, grid, around),
            other => Err(Error::Invalid(format!(
                "expected a range vector, got {}",
                other.value_type().documented()
            ))),
        }
    }

    fn subquery(
        &self,
        cx: &mut Context<'_>,
        e: &Subquery,
        grid: Grid,
        around: Around<'_>,
    ) -> Result<RangeInput> {
        let when = self.when(e.at, e.offset.ms(), grid);
        let range = e.range.ms();
        let step = match &e.step {
            Some(step) => step.ms(),
            None => i64::try_from(cx.options.subquery_step.as_millis()).unwrap_or(i64::MAX),
        };
        let step = step.max(1);
        let (first, last) = when.bounds();
        // Steps are multiples of the step's length, whatever the query's times; the range is open on the left.
        let left = first.saturating_sub(range);
        let aligned = left.div_euclid(step).saturating_add(1).saturating_mul(step);
        let start = or_fault!(SubqueryAlignment, aligned, left + step);
        let inner = Grid::new(start, last, step);
        if inner.count > STEPS_MAX {
            return Err(Error::TooManySamples);
        }
        let operator = self.vector(cx, &e.expr, inner, around.subquery())?;
        Ok(RangeInput::subquery(operator, inner, when, range, around.counted))
    }

    /// Plans a scalar expression.
    pub(crate) fn scalar(
        &self,
        cx: &mut Context<'_>,
        expr: &Expr,
        grid: Grid,
        around: Around<'_>,
    ) -> Result<ScalarOperator> {
        let around = Around { counted: around.counted, ..Around::default() };
        cx.hold_bytes(grid.count.saturating_mul(size_of::<f64>()))?;
        if grid.count > 1 && is_invariant(expr) && !matches!(expr, Expr::NumberLiteral(_)) {
            let single = self.scalar(cx, expr, Grid::single(grid.start), around.once())?;
            return Ok(ScalarOperator::Repeat(Box::new(single)));
        }
        let both = |cx: &mut Context<'_>, a: &Expr, b: &Expr| -> Result<_> {
            Ok((Box::new(self.scalar(cx, a, grid, around)?), Box::new(self.scalar(cx, b, grid, around)?)))
        };
        Ok(match expr {
            Expr::NumberLiteral(e) => ScalarOperator::Constant(e.value),
            Expr::Paren(e) => self.scalar(cx, &e.expr, grid, around)?,
            Expr::Unary(e) => ScalarOperator::Unary(e.op, Box::new(self.scalar(cx, &e.expr, grid, around)?)),
            Expr::Binary(e) => {
                let (lhs, rhs) = both(cx, &e.lhs, &e.rhs)?;
                ScalarOperator::Binary(e.op, lhs, rhs)
            }
            Expr::Call(e) => {
                let seconds = |ms: i64| ScalarOperator::Constant(Timestamp(ms).seconds());
                match (e.func.name, &*e.args) {
                    ("time", _) => ScalarOperator::Time(grid),
                    ("pi", _) => ScalarOperator::Constant(std::f64::consts::PI),
                    ("start", _) => seconds(self.times.start),
                    ("end", _) => seconds(self.times.end),
                    ("step", _) => seconds(self.times.step),
                    ("range", _) => seconds(self.times.end - self.times.start),
                    ("scalar", [vector]) => ScalarOperator::Vector {
                        operator: self.vector(cx, vector, grid, around.call("scalar"))?,
                        steps: grid.count,
                    },
                    ("min_of", [a, b]) => {
                        let (a, b) = both(cx, a, b)?;
                        ScalarOperator::MinOf(a, b)
                    }
                    ("max_of", [a, b]) => {
                        let (a, b) = both(cx, a, b)?;
                        ScalarOperator::MaxOf(a, b)
                    }
                    (name, _) => return Err(unsupported(name)),
                }
            }
            other => {
                let got = other.value_type().documented();
                return Err(Error::Invalid(format!("expected a scalar, got {got}")));
            }
        })
    }

    fn scalars(
        &self,
        cx: &mut Context<'_>,
        args: &[Expr],
        grid: Grid,
        around: Around<'_>,
    ) -> Result<Vec<ScalarOperator>> {
        args.iter().map(|arg| self.scalar(cx, arg, grid, around)).collect()
    }

    fn aggregate(
        &self,
        cx: &mut Context<'_>,
        e: &Aggregate,
        grid: Grid,
        around: Around<'_>,
    ) -> Result<BoxOperator> {
        let grouping = Grouping { labels: e.grouping.clone(), without: e.without };
        let op = e.op;
        if op == AggregateOp::CountValues {
            let label = match e.param.as_deref().map(Expr::unwrap_parens) {
                Some(Expr::StringLiteral(label)) => label_name(label)?,
                _ => return Err(unsupported("count_values")),
            };
            let input =
                self.vector(cx, &e.expr, grid, around.aggregate(op.as_str(), &e.grouping, !e.without))?;
            return Ok(Box::new(CountValues::new(input, grouping, label, grid.count)));
        }
        if cut::is_cuttable(e, grid) {
            return Ok(Box::new(self.cuttable(cx, e, grid, around)?));
        }
        let param = e.param.as_deref().map(|param| self.scalar(cx, param, grid, around)).transpose()?;
        let param_span = e.param.as_deref().map_or(e.span, |param| param.unwrap_parens().span());
        let input = self.vector(cx, &e.expr, grid, around.aggregate(op.as_str(), &e.grouping, !e.without))?;
        let span = e.expr.unwrap_parens().span();
        Ok(match (op, param) {
            (AggregateOp::Topk | AggregateOp::Bottomk, Some(param)) => {
                Box::new(Best::new(input, op, grouping, param, e.span, grid.count))
            }
            (AggregateOp::Limitk, Some(param)) => {
                Box::new(Limited::new(input, Limit::Count, grouping, param, param_span, grid.count))
            }
            (AggregateOp::LimitRatio, Some(param)) => {
                Box::new(Limited::new(input, Limit::Ratio, grouping, param, param_span, grid.count))
            }
            (_, param) => {
                Box::new(Aggregation::new(input, op, grouping, param, (span, param_span), grid.count))
            }
        })
    }

    fn binary(
        &self,
        cx: &mut Context<'_>,
        e: &Binary,
        grid: Grid,
        around: Around<'_>,
    ) -> Result<BoxOperator> {
        let is_scalar = |e: &Expr| e.value_type() == ValueType::Scalar;
        let steps = grid.count;
        if is_scalar(&e.lhs) || is_scalar(&e.rhs) {
            let is_swapped = is_scalar(&e.lhs);
            let (vector, scalar) = if is_swapped { (&e.rhs, &e.lhs) } else { (&e.lhs, &e.rhs) };
            let operands = (self.vector(cx, vector, grid, around)?, self.scalar(cx, scalar, grid, around)?);
            let operator = VectorScalar::new(operands, e.op, is_swapped, e.return_bool, e.span);
            return Ok(without_names(cx, Box::new(operator), grid));
        }
        let lhs = self.vector(cx, &e.lhs, grid, around)?;
        let rhs = self.vector(cx, &e.rhs, grid, around)?;
        let matching = e.matching.clone().unwrap_or_default();
        if e.op.is_set() {
            let is_union = e.op == BinaryOp::Or;
            let sets: BoxOperator = Box::new(SetOperator::new(lhs, rhs, e.op, matching, steps));
            return Ok(if is_union { Box::new(Merge::new(sets, steps, SAME_LABELSET)) } else { sets });
        }
        let is_grouped = matching.card != Cardinality::OneToOne;
        let joined = Box::new(VectorVector::new(lhs, rhs, e.op, matching, e.return_bool, (e.span, steps)));
        let message = if is_grouped {
            "multiple matches for labels: grouping labels must ensure unique matches"
        } else {
            SAME_LABELSET
        };
        Ok(Box::new(Merge::new(joined, steps, message)))
    }
}

/// Joins series that lost their names at once; with delayed removal that is done in the end.
fn without_names(cx: &Context<'_>, operator: BoxOperator, grid: Grid) -> BoxOperator {
    if cx.options.delayed_name_removal {
        operator
    } else {
        Box::new(Merge::new(operator, grid.count, SAME_LABELSET))
    }
}

fn unsupported(function: &str) -> Error {
    Error::Invalid(format!("function {function}() is not supported yet"))
}
