//! Which aggregations can be computed in parts, and planning them.
//!
//! One can where each series counts for itself up to it: what becomes of a series depends on no other one. There is
//! one selection inside then, and a source that has some of the series whole can do with them what the query would.

use std::sync::Arc;
use std::time::Duration;

use model::Timestamp;
use promql_syntax::{Aggregate, AggregateOp, Call, Expr, ValueType};

use super::{Around, Planner};
use crate::aggregate::{Aggregation, Grouping};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::partial::{Cut, CutAround, CutGrid, Partial};
use crate::points::Grid;
use crate::range::RangeFunction;
use crate::vector::MapFunction;

/// An aggregation that is cut.
#[derive(Debug)]
pub(crate) struct OpenCut {
    /// Where in the context to say what came.
    pub(super) slot: usize,
    /// What the source is offered; nothing where this is a source's part already.
    offered: Option<Arc<Cut>>,
}

impl OpenCut {
    pub(super) fn offered(&self) -> Option<Arc<Cut>> {
        self.offered.clone()
    }
}

/// Says whether an aggregation can be computed in parts. Of the others `quantile` and `count_values` would have to
/// send everything, and `topk` and its like choose among series.
pub(super) fn is_cuttable(e: &Aggregate, grid: Grid) -> bool {
    use AggregateOp::{Avg, Count, Group, Max, Min, Stddev, Stdvar, Sum};
    matches!(e.op, Sum | Avg | Count | Min | Max | Group | Stddev | Stdvar)
        && (1..=Cut::STEPS_MAX).contains(&grid.count)
        && is_each_for_itself(&e.expr)
}

fn is_each_for_itself(expr: &Expr) -> bool {
    match expr {
        Expr::VectorSelector(_) | Expr::MatrixSelector(_) => true,
        Expr::Subquery(e) => is_each_for_itself(&e.expr),
        Expr::Paren(e) => is_each_for_itself(&e.expr),
        Expr::Unary(e) => is_each_for_itself(&e.expr),
        Expr::Call(e) => is_of_one_sample_or_range(e),
        Expr::Binary(e) => {
            !e.op.is_set()
                && (is_number(&e.lhs) && is_each_for_itself(&e.rhs)
                    || is_each_for_itself(&e.lhs) && is_number(&e.rhs))
        }
        Expr::Aggregate(_) | Expr::NumberLiteral(_) | Expr::StringLiteral(_) => false,
    }
}

fn is_of_one_sample_or_range(call: &Call) -> bool {
    let name = call.func.name;
    let is_known = RangeFunction::find(name).is_some() || MapFunction::find(name).is_some();
    let is_input = |e: &&Expr| matches!(e.value_type(), ValueType::Vector | ValueType::Matrix);
    let (inputs, others): (Vec<&Expr>, Vec<&Expr>) = call.args.iter().partition(is_input);
    is_known && inputs.len() == 1 && is_each_for_itself(inputs[0]) && others.into_iter().all(is_number)
}

/// Says whether an expression is a scalar in which no series plays a part.
fn is_number(expr: &Expr) -> bool {
    let mut has_selector = false;
    expr.walk(&mut |e| has_selector |= matches!(e, Expr::VectorSelector(_) | Expr::MatrixSelector(_)));
    expr.value_type() == ValueType::Scalar && !has_selector
}

impl Planner {
    /// Plans an aggregation that can be computed in parts, and offers to do so where that is wanted.
    pub(super) fn cuttable(
        &self,
        cx: &mut Context<'_>,
        e: &Aggregate,
        grid: Grid,
        around: Around<'_>,
    ) -> Result<Aggregation> {
        let cut = cx.text_to_cut.map(|text| {
            let offered = Some(Arc::new(self.offer(cx, text, e, grid, around)));
            OpenCut { slot: cx.open_cut(), offered }
        });
        self.aggregation(cx, e, grid, around, cut.as_ref())
    }

    fn aggregation(
        &self,
        cx: &mut Context<'_>,
        e: &Aggregate,
        grid: Grid,
        around: Around<'_>,
        cut: Option<&OpenCut>,
    ) -> Result<Aggregation> {
        let grouping = Grouping { labels: e.grouping.clone(), without: e.without };
        let inside = Around { cut, ..around.aggregate(e.op.as_str(), &e.grouping, !e.without) };
        let input = self.vector(cx, &e.expr, grid, inside)?;
        let span = e.expr.unwrap_parens().span();
        let aggregation = Aggregation::new(input, e.op, grouping, None, (span, e.span), grid.count);
        Ok(aggregation.with_cut(cut.map(|cut| cut.slot)))
    }

    fn offer(&self, cx: &Context<'_>, text: &str, e: &Aggregate, grid: Grid, around: Around<'_>) -> Cut {
        let keeps_names =
            cx.options.delayed_name_removal || matches!(e.expr.unwrap_parens(), Expr::VectorSelector(_));
        Cut {
            query: text.to_owned(),
            start: Timestamp(self.times.start),
            end: Timestamp(self.times.end),
            step_ms: self.times.step,
            span: e.span,
            grid: CutGrid {
                start: Timestamp(grid.start),
                step_ms: grid.step,
                count: u32::try_from(grid.count).expect("within Cut::STEPS_MAX"),
            },
            lookback: Duration::from_millis(cx.lookback_ms.unsigned_abs()),
            keeps_names,
            around: CutAround {
                detects_hints: around.detects_hints,
                needs_buckets: around.needs_buckets,
                counted: around.counted,
            },
        }
    }

    /// Computes a part of the aggregation that a cut names, over the series that the source has.
    pub(crate) fn part(&self, cx: &mut Context<'_>, expr: &Expr, cut: &Cut) -> Result<Partial> {
        let mut found = None;
        expr.walk(&mut |e| match e {
            Expr::Aggregate(e) if e.span == cut.span => found = Some(e),
            _ => {}
        });
        let grid =
            Grid { start: cut.grid.start.millis(), step: cut.grid.step_ms, count: cut.grid.count as usize };
        let last =
            i64::from(cut.grid.count).checked_mul(grid.step).and_then(|span| grid.start.checked_add(span));
        let is_sound = grid.step > 0 && last.is_some();
        let Some(e) = found.filter(|e| is_sound && is_cuttable(e, grid)) else {
            return Err(Error::Invalid("there is no such aggregation to be computed in parts".to_owned()));
        };
        let CutAround { detects_hints, needs_buckets, counted } = cut.around;
        let around = Around { detects_hints, needs_buckets, counted, ..Around::default() };
        let open = OpenCut { slot: cx.open_cut(), offered: None };
        self.aggregation(cx, e, grid, around, Some(&open))?.partial(cx)
    }
}
