//! Aggregations that make one series of each group.
//!
//! Series are added one after the other to their group's row of accumulators. Groups are given out in the order in
//! which they are met, as Prometheus has it: of equal values `topk` takes the first. A group is given out as soon as
//! its last series and those of the groups before were added, so only groups that are begun take memory.

use std::sync::Arc;

use model::FloatHistogram;
use promql_syntax::{AggregateOp, Span};

use super::partial::{Parts, has_huge, join_groups};
use super::{Grouping, Groups, ignored_histogram};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::histogram::{Cells, IncompatibleSchemas};
use crate::kahan::{Mean, Sum, Variance};
use crate::points::{BoxOperator, Operator, Point, SeriesMeta, clear, row};
use crate::range::{
    Hints, HistogramMean, conflicting_resets, invalid_quantile, mixed_schemas, quantile, reconciled,
};
use crate::scalar::{ScalarOperator, Scalars};

/// A row of accumulators of floats, one for each step.
pub(super) enum Accumulators {
    Sum(Vec<Option<Sum>>),
    Avg(Vec<Option<Mean>>),
    Min(Vec<Option<f64>>),
    Max(Vec<Option<f64>>),
    Count(Vec<u32>),
    Group(Vec<bool>),
    Spread(Vec<Option<Variance>>),
    Quantile(Vec<Vec<f64>>),
}

impl Accumulators {
    /// The memory that the row takes.
    fn bytes(&self) -> usize {
        match self {
            Self::Sum(row) => size_of_val(&**row),
            Self::Avg(row) => size_of_val(&**row),
            Self::Min(row) | Self::Max(row) => size_of_val(&**row),
            Self::Count(row) => size_of_val(&**row),
            Self::Group(row) => size_of_val(&**row),
            Self::Spread(row) => size_of_val(&**row),
            Self::Quantile(row) => size_of_val(&**row),
        }
    }

    /// Says whether a sum or mean holds a float at a step.
    pub(super) fn has_float(&self, step: usize) -> bool {
        match self {
            Self::Sum(row) => row[step].is_some(),
            Self::Avg(row) => row[step].is_some(),
            _ => false,
        }
    }
}

/// What became of a group's histograms at one step; for `sum` and `avg` only.
pub(super) enum Histograms {
    Sum(Box<Cells>, Hints),
    Avg(Box<HistogramMean>, Hints),
    /// Exponential and custom buckets were met; floats that come later are not looked at.
    Incompatible {
        has_float: bool,
    },
    /// A float came first, so nothing is added up any more.
    AfterFloat,
}

pub(super) struct Group {
    pub(super) accumulators: Accumulators,
    /// One for each step; made when the first histogram is met.
    pub(super) histograms: Vec<Option<Histograms>>,
    held: usize,
    pub(super) held_bytes: usize,
}

/// One of `sum`, `avg`, `min`, `max`, `count`, `group`, `stddev`, `stdvar`, `quantile`.
pub(crate) struct Aggregation {
    input: BoxOperator,
    op: AggregateOp,
    grouping: Grouping,
    param: Option<ScalarOperator>,
    param_values: Scalars,
    pub(super) span: Span,
    param_span: Span,
    pub(super) steps: usize,
    /// Where parts of the aggregation come from, if it is cut.
    pub(super) cut: Option<usize>,
    parts: Parts,
    pub(super) groups: Groups,
    names: Vec<model::Labels>,
    pub(super) running: Vec<Option<Group>>,
    order: std::vec::IntoIter<usize>,
    read: usize,
    pub(super) buffer: Vec<Point>,
}

impl Aggregation {
    pub(crate) fn new(
        input: BoxOperator,
        op: AggregateOp,
        grouping: Grouping,
        param: Option<ScalarOperator>,
        (span, param_span): (Span, Span),
        steps: usize,
    ) -> Self {
        Self {
            input,
            op,
            grouping,
            param,
            param_values: Scalars::Constant(f64::NAN),
            span,
            param_span,
            steps,
            cut: None,
            parts: Parts::default(),
            groups: Groups::default(),
            names: Vec::new(),
            running: Vec::new(),
            order: Vec::new().into_iter(),
            read: 0,
            buffer: row(steps),
        }
    }

    /// Names the cut through which parts of the aggregation come or go.
    pub(crate) fn with_cut(self, cut: Option<usize>) -> Self {
        Self { cut, ..self }
    }

    fn note_invalid_quantiles(&self, cx: &mut Context<'_>) {
        let (low, high, has_nan) = self.param_values.extremes();
        for (is_invalid, q) in [(has_nan, f64::NAN), (high > 1.0, high), (low < 0.0, low)] {
            if is_invalid {
                cx.annotations.warn(invalid_quantile(q), self.param_span);
            }
        }
    }

    /// Opens a group.
    fn begin(&self, cx: &mut Context<'_>) -> Result<Group> {
        let steps = self.steps;
        let accumulators = match self.op {
            AggregateOp::Avg => Accumulators::Avg(vec![None; steps]),
            AggregateOp::Min => Accumulators::Min(vec![None; steps]),
            AggregateOp::Max => Accumulators::Max(vec![None; steps]),
            AggregateOp::Count => Accumulators::Count(vec![0; steps]),
            AggregateOp::Group => Accumulators::Group(vec![false; steps]),
            AggregateOp::Stddev | AggregateOp::Stdvar => Accumulators::Spread(vec![None; steps]),
            AggregateOp::Quantile => Accumulators::Quantile(vec![Vec::new(); steps]),
            _ => Accumulators::Sum(vec![None; steps]),
        };
        let held_bytes = accumulators.bytes();
        cx.hold(steps)?;
        cx.hold_bytes(held_bytes)?;
        Ok(Group { accumulators, histograms: Vec::new(), held: steps, held_bytes })
    }

    /// Adds the next input series to its group.
    pub(super) fn read_one(&mut self, cx: &mut Context<'_>) -> Result<()> {
        clear(&mut self.buffer);
        self.input.next(cx, &mut self.buffer)?;
        if !self.parts.is_empty() && has_huge(&self.buffer) {
            return Err(Error::OrderMatters);
        }
        let group_index = self.groups.of_input[self.read];
        let mut group = match self.running[group_index].take() {
            Some(group) => group,
            None => self.begin(cx)?,
        };
        add_floats(&mut group.accumulators, &self.buffer);
        if matches!(self.op, AggregateOp::Quantile) {
            group.held += cx.hold_row(&self.buffer)?;
        }
        if self.buffer.iter().any(|p| matches!(p, Point::Histogram(_))) {
            self.add_histograms(cx, &mut group)?;
        }
        self.running[group_index] = Some(group);
        self.read += 1;
        cx.tick_row(&self.buffer)
    }

    fn add_histograms(&self, cx: &mut Context<'_>, group: &mut Group) -> Result<()> {
        match &group.accumulators {
            Accumulators::Sum(_) | Accumulators::Avg(_) => {}
            Accumulators::Count(_) | Accumulators::Group(_) => return Ok(()),
            _ => {
                cx.annotations.info(ignored_histogram(self.op), self.span);
                return Ok(());
            }
        }
        group.histograms.resize_with(self.steps, || None);
        for (step, (slot, point)) in group.histograms.iter_mut().zip(&self.buffer).enumerate() {
            let Point::Histogram(h) = point else { continue };
            let has_float = group.accumulators.has_float(step);
            if slot.is_none() && has_float {
                *slot = Some(Histograms::AfterFloat);
            }
            match add_histogram(slot, h, self.op) {
                Ok(false) => {}
                Ok(true) => cx.annotations.info(reconciled("aggregation"), self.span),
                Err(IncompatibleSchemas) => {
                    *slot = Some(Histograms::Incompatible { has_float });
                    let name = self.names[self.read].metric_name();
                    cx.annotations.warn(mixed_schemas(name), self.span);
                }
            }
            let size = point.size();
            group.held += size;
            cx.hold(size)?;
        }
        Ok(())
    }

    fn finish(&self, cx: &mut Context<'_>, mut group: Group, points: &mut [Point]) {
        finish_floats(&mut group.accumulators, self.op, &self.param_values, points);
        for (slot, point) in group.histograms.into_iter().zip(points) {
            let Some(histograms) = slot else { continue };
            if matches!(histograms, Histograms::Incompatible { has_float: false }) {
                *point = Point::None;
                continue;
            }
            if point.is_some() {
                let text = "encountered a mix of histograms and floats for aggregation";
                cx.annotations.warn(text, self.span);
                *point = Point::None;
                continue;
            }
            let (h, hints) = match histograms {
                Histograms::Sum(cells, hints) => (cells.finish(), hints),
                Histograms::Avg(mean, hints) => (mean.finish(), hints),
                Histograms::Incompatible { .. } | Histograms::AfterFloat => continue,
            };
            if hints.are_conflicting() {
                cx.annotations.warn(conflicting_resets("aggregation"), self.span);
            }
            *point = Point::histogram(h);
        }
        cx.release(group.held);
        cx.release_bytes(group.held_bytes);
    }
}

impl Operator for Aggregation {
    fn series(&mut self, cx: &mut Context<'_>) -> Result<Vec<SeriesMeta>> {
        if let Some(mut param) = self.param.take() {
            self.param_values = param.values(cx)?;
            self.note_invalid_quantiles(cx);
        }
        let inputs = self.input.series(cx)?;
        self.groups = Groups::new(cx, &inputs, &self.grouping)?;
        self.names = inputs.into_iter().map(|m| m.labels).collect();
        let (parts, order) = join_groups(cx, self.cut, &self.grouping, &mut self.groups.metas)?;
        self.parts = parts;
        self.running.resize_with(self.groups.metas.len(), || None);
        let metas = order.iter().map(|group| self.groups.metas[*group].clone()).collect();
        self.order = order.into_iter();
        Ok(metas)
    }

    fn next(&mut self, cx: &mut Context<'_>, points: &mut [Point]) -> Result<()> {
        let Some(wanted) = self.order.next() else { return Ok(()) };
        // A group that stands in parts alone has no input.
        while self.groups.last_input.get(wanted).is_some_and(|last| self.read <= *last) {
            self.read_one(cx)?;
        }
        let mut group = self.running[wanted].take();
        for part in self.parts.take(wanted) {
            let mut joined = match group {
                Some(group) => group,
                None => self.begin(cx)?,
            };
            self.add_part(cx, &mut joined, part)?;
            if joined.depends_on_order() {
                return Err(Error::OrderMatters);
            }
            group = Some(joined);
        }
        if let Some(group) = group {
            self.finish(cx, group, points);
        }
        cx.tick_row(points)
    }
}

/// Calls for each step that has a float.
fn each_float<T>(row: &mut [T], points: &[Point], mut add: impl FnMut(&mut T, f64)) {
    for (slot, point) in row.iter_mut().zip(points) {
        if let Point::Float(x) = point {
            add(slot, *x);
        }
    }
}

pub(super) fn keep_least(slot: &mut Option<f64>, x: f64) {
    if slot.is_none_or(|least| least > x || least.is_nan()) {
        *slot = Some(x);
    }
}

pub(super) fn keep_greatest(slot: &mut Option<f64>, x: f64) {
    if slot.is_none_or(|greatest| greatest < x || greatest.is_nan()) {
        *slot = Some(x);
    }
}

fn add_floats(accumulators: &mut Accumulators, points: &[Point]) {
    match accumulators {
        Accumulators::Sum(row) => each_float(row, points, |slot, x| match slot {
            Some(sum) => sum.add(x),
            None => *slot = Some(Sum::new(x)),
        }),
        Accumulators::Avg(row) => each_float(row, points, |slot, x| match slot {
            Some(mean) => mean.add(x),
            None => *slot = Some(Mean::new(x)),
        }),
        Accumulators::Min(row) => each_float(row, points, keep_least),
        Accumulators::Max(row) => each_float(row, points, keep_greatest),
        Accumulators::Spread(row) => {
            each_float(row, points, |slot, x| slot.get_or_insert_default().add(x));
        }
        Accumulators::Quantile(row) => each_float(row, points, |slot, x| slot.push(x)),
        Accumulators::Count(row) => {
            row.iter_mut().zip(points).for_each(|(count, point)| *count += u32::from(point.is_some()));
        }
        Accumulators::Group(row) => {
            row.iter_mut().zip(points).for_each(|(seen, point)| *seen |= point.is_some());
        }
    }
}

fn finish_floats(accumulators: &mut Accumulators, op: AggregateOp, param: &Scalars, points: &mut [Point]) {
    let float = |x: Option<f64>| x.map_or(Point::None, Point::Float);
    match accumulators {
        Accumulators::Sum(row) => {
            points.iter_mut().zip(row).for_each(|(p, s)| *p = float(s.map(Sum::total)));
        }
        Accumulators::Avg(row) => {
            points.iter_mut().zip(row).for_each(|(p, m)| *p = float(m.map(Mean::mean)));
        }
        Accumulators::Min(row) | Accumulators::Max(row) => {
            points.iter_mut().zip(row).for_each(|(p, x)| *p = float(*x));
        }
        Accumulators::Count(row) => points
            .iter_mut()
            .zip(row)
            .for_each(|(p, count)| *p = float((*count > 0).then(|| f64::from(*count)))),
        Accumulators::Group(row) => {
            points.iter_mut().zip(row).for_each(|(p, seen)| *p = float(seen.then_some(1.0)));
        }
        Accumulators::Spread(row) => points.iter_mut().zip(row).for_each(|(p, spread)| {
            let variance = spread.map(Variance::variance);
            *p = float(if op == AggregateOp::Stddev { variance.map(f64::sqrt) } else { variance });
        }),
        Accumulators::Quantile(row) => {
            for (step, (p, values)) in points.iter_mut().zip(row).enumerate() {
                if !values.is_empty() {
                    *p = Point::Float(quantile(param.at(step), values));
                }
            }
        }
    }
}

/// Adds a histogram; says whether custom bounds had to be reconciled.
fn add_histogram(
    slot: &mut Option<Histograms>,
    h: &Arc<FloatHistogram>,
    op: AggregateOp,
) -> std::result::Result<bool, IncompatibleSchemas> {
    match slot {
        None => {
            let mut hints = Hints::default();
            hints.meet(h.counter_reset_hint);
            *slot = Some(match op {
                AggregateOp::Avg => Histograms::Avg(Box::new(HistogramMean::new(h)), hints),
                _ => Histograms::Sum(Box::new(Cells::new(h)), hints),
            });
            Ok(false)
        }
        Some(Histograms::Incompatible { .. } | Histograms::AfterFloat) => Ok(false),
        Some(Histograms::Sum(cells, hints)) => {
            hints.meet(h.counter_reset_hint);
            Ok(cells.add(h)?.was_reconciled)
        }
        Some(Histograms::Avg(mean, hints)) => {
            hints.meet(h.counter_reset_hint);
            mean.add(h)
        }
    }
}
