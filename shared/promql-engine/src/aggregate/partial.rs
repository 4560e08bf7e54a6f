//! Accumulators of groups on their way from a source that aggregates in part to the query that joins the parts.
//!
//! What the numbers of a step are: of `sum` the sum and its compensation; of `avg` the count, these two, and 1 where
//! they are a mean already; of `min`, `max` and `count` one number; of `stddev` and `stdvar` the count, the mean and
//! the sum of squares, each of the two with its compensation; of `group` none.
//!
//! Invariant: what would come out another way with the series in another order is not joined but reported
//! ([`Error::OrderMatters`]): floats beside histograms, schemas that do not fit, sums that may overflow on the way.

use std::collections::HashMap;

use model::Labels;

use super::Grouping;
use super::group::{Accumulators, Aggregation, Group, Histograms, keep_greatest, keep_least};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::faults::or_fault;
use crate::histogram::Cells;
use crate::kahan::{Mean, Sum, Variance};
use crate::partial::{Partial, PartialGroup, PartialHistogram};
use crate::points::{Operator as _, Point, SeriesMeta};
use crate::range::{Hints, HistogramMean, largest, reconciled};

/// Fewer than 2^32 numbers below this do not overflow when they are added up.
const HUGE: f64 = f64::MAX / 4_294_967_296.0;

/// Says whether a row holds a number so large that a sum may overflow in one order and not in another.
pub(super) fn has_huge(points: &[Point]) -> bool {
    points.iter().any(|point| match point {
        Point::None => false,
        Point::Float(x) => x.is_finite() && x.abs() > HUGE,
        Point::Histogram(h) => largest(h) > HUGE,
    })
}

/// The parts of an aggregation, by group.
#[derive(Debug, Default)]
pub(super) struct Parts {
    of_group: Vec<Vec<PartialGroup>>,
}

impl Parts {
    pub(super) fn is_empty(&self) -> bool {
        self.of_group.is_empty()
    }

    pub(super) fn take(&mut self, group: usize) -> Vec<PartialGroup> {
        self.of_group.get_mut(group).map(std::mem::take).unwrap_or_default()
    }
}

/// Puts the groups of the parts beside those of the series at hand; returns the parts, and all groups in the order in
/// which they would have been met without parts.
pub(super) fn join_groups(
    cx: &mut Context<'_>,
    cut: Option<usize>,
    grouping: &Grouping,
    metas: &mut Vec<SeriesMeta>,
) -> Result<(Parts, Vec<usize>)> {
    let partials = cut.map(|cut| cx.take_partials(cut)).unwrap_or_default();
    let Some(cut) = cut.filter(|_| !partials.is_empty()) else {
        return Ok((Parts::default(), (0..metas.len()).collect()));
    };
    let mut by_labels: HashMap<Labels, usize> =
        metas.iter().enumerate().map(|(group, meta)| (meta.labels.clone(), group)).collect();
    let mut firsts: Vec<Option<Labels>> = vec![None; metas.len()];
    for labels in cx.take_selected(cut) {
        // Whether names were dropped on the way shows in what groups there are.
        let group = by_labels.get(&grouping.of(&labels));
        let group = group.or_else(|| by_labels.get(&grouping.of(&labels.without_metric_name())));
        if let Some(first) = group.map(|group| &mut firsts[*group]) {
            first.get_or_insert(labels);
        }
    }
    let mut of_group: Vec<Vec<PartialGroup>> = Vec::new();
    of_group.resize_with(metas.len(), Vec::new);
    for partial in partials {
        if !partial.is_order_free {
            return Err(Error::OrderMatters);
        }
        cx.annotations.absorb(or_fault!(PartNotes, partial.notes, Vec::new()));
        cx.stats.samples_total += partial.stats.samples_total;
        cx.stats.samples_read += partial.stats.samples_read;
        cx.stats.samples_peak = cx.stats.samples_peak.max(partial.stats.samples_peak);
        for part in partial.groups {
            cx.hold_bytes(part.byte_len())?;
            cx.tick(part.numbers.len())?;
            let group = *by_labels.entry(part.labels.clone()).or_insert_with_key(|labels| {
                metas.push(SeriesMeta::new(labels.clone()));
                firsts.push(None);
                of_group.push(Vec::new());
                metas.len() - 1
            });
            metas[group].drop_name |= part.drop_name;
            if firsts[group].as_ref().is_none_or(|first| part.first < *first) {
                firsts[group] = Some(part.first.clone());
            }
            of_group[group].push(part);
        }
    }
    let mut order: Vec<usize> = (0..metas.len()).collect();
    if or_fault!(PartOrder, true, false) {
        cx.sort_by(&mut order, |a, b| firsts[*a].cmp(&firsts[*b]))?;
    }
    Ok((Parts { of_group }, order))
}

impl Aggregation {
    /// Aggregates everything and gives the accumulators away.
    pub(crate) fn partial(mut self, cx: &mut Context<'_>) -> Result<Partial> {
        let metas = self.series(cx)?;
        let selected = self.cut.map(|cut| cx.take_selected(cut)).unwrap_or_default();
        let inputs = self.groups.of_input.len();
        if selected.len() != inputs {
            return Err(Error::execution(format!(
                "{} series became {inputs} before they were aggregated",
                selected.len()
            )));
        }
        let mut groups: Vec<PartialGroup> = metas
            .into_iter()
            .map(|meta| PartialGroup {
                labels: meta.labels,
                drop_name: meta.drop_name,
                ..PartialGroup::default()
            })
            .collect();
        let (mut is_begun, mut is_order_free) = (vec![false; groups.len()], true);
        for (input, labels) in selected.into_iter().enumerate() {
            let group = self.groups.of_input[input];
            if !std::mem::replace(&mut is_begun[group], true) {
                groups[group].first = labels;
            }
            self.read_one(cx)?;
            is_order_free &= !has_huge(&self.buffer);
        }
        for (group, out) in groups.iter_mut().enumerate() {
            let Some(group) = self.running[group].take() else { continue };
            (out.steps, out.numbers) = group.accumulators.numbers();
            for (step, slot) in (0..).zip(group.histograms) {
                let Some(slot) = slot else { continue };
                match histogram(step, slot) {
                    Some(histogram) if out.steps.binary_search(&step).is_err() => {
                        out.histograms.push(histogram)
                    }
                    _ => is_order_free = false,
                }
            }
            cx.tick(out.numbers.len())?;
        }
        let notes = std::mem::take(&mut cx.annotations).into_partial();
        Ok(Partial { groups, notes, stats: std::mem::take(&mut cx.stats), is_order_free })
    }

    /// Adds what a source made of its series of a group.
    pub(super) fn add_part(&self, cx: &mut Context<'_>, group: &mut Group, part: PartialGroup) -> Result<()> {
        group.held_bytes += part.byte_len();
        let width = group.accumulators.width();
        if part.numbers.len() != part.steps.len() * width {
            return Err(misfit());
        }
        for (i, step) in part.steps.iter().enumerate() {
            let numbers = &part.numbers[i * width..][..width];
            group.accumulators.join(*step as usize, numbers).ok_or_else(misfit)?;
        }
        cx.tick(part.numbers.len())?;
        if !part.histograms.is_empty() {
            group.histograms.resize_with(self.steps, || None);
        }
        for part in part.histograms {
            let slot = group.histograms.get_mut(part.step as usize).ok_or_else(misfit)?;
            if join_histogram(slot, &part, &group.accumulators)? {
                cx.annotations.info(reconciled("aggregation"), self.span);
            }
        }
        Ok(())
    }
}

fn misfit() -> Error {
    Error::execution("a part of an aggregation does not fit the query")
}

impl Group {
    /// Says whether what becomes of the group depends on the order of its series.
    pub(super) fn depends_on_order(&self) -> bool {
        let mut slots = self.histograms.iter().enumerate();
        slots.any(|(step, slot)| match slot {
            None => false,
            Some(Histograms::Sum(..)) => self.accumulators.has_float(step),
            Some(Histograms::Avg(mean, _)) => mean.is_incremental() || self.accumulators.has_float(step),
            Some(Histograms::Incompatible { .. } | Histograms::AfterFloat) => true,
        })
    }
}

impl Accumulators {
    /// How many numbers a step's accumulator is.
    const fn width(&self) -> usize {
        match self {
            Self::Sum(_) => 2,
            Self::Avg(_) => 4,
            Self::Min(_) | Self::Max(_) | Self::Count(_) => 1,
            Self::Group(_) | Self::Quantile(_) => 0,
            Self::Spread(_) => 5,
        }
    }

    /// Returns the steps that have an accumulator, and the numbers of each.
    fn numbers(&self) -> (Vec<u32>, Vec<f64>) {
        let (mut steps, mut numbers) = (Vec::new(), Vec::new());
        let mut put = |step: u32, of_step: &[f64]| {
            steps.push(step);
            numbers.extend_from_slice(of_step);
        };
        match self {
            Self::Sum(row) => each(row, |step, sum| put(step, &[sum.value, sum.compensation])),
            Self::Avg(row) => each(row, |step, mean| put(step, &mean.to_numbers())),
            Self::Min(row) | Self::Max(row) => each(row, |step, x| put(step, &[*x])),
            Self::Spread(row) => each(row, |step, variance| put(step, &variance.to_numbers())),
            Self::Count(row) => {
                let counts = (0..).zip(row).filter(|(_, count)| **count > 0);
                counts.for_each(|(step, count)| put(step, &[f64::from(*count)]));
            }
            Self::Group(row) => {
                (0..).zip(row).filter(|(_, seen)| **seen).for_each(|(step, _)| put(step, &[]));
            }
            // Not computed in parts.
            Self::Quantile(_) => {}
        }
        (steps, numbers)
    }

    /// Joins a step's accumulator with another one of its sort; `None` when that is none.
    fn join(&mut self, step: usize, numbers: &[f64]) -> Option<()> {
        match (self, numbers) {
            (Self::Sum(row), [value, compensation]) => {
                let compensation = or_fault!(PartCompensation, *compensation, 0.0);
                let part = Sum { value: *value, compensation };
                match row.get_mut(step)? {
                    Some(sum) => sum.add_sum(part),
                    slot => *slot = Some(part),
                }
            }
            (Self::Avg(row), [count, value, compensation, is_incremental]) => {
                let part = Mean::from_numbers([*count, *value, *compensation, *is_incremental]);
                match row.get_mut(step)? {
                    Some(mean) => mean.join(part),
                    slot => *slot = Some(part),
                }
            }
            (Self::Min(row), [x]) => keep_least(row.get_mut(step)?, *x),
            (Self::Max(row), [x]) => keep_greatest(row.get_mut(step)?, *x),
            (Self::Count(row), [count]) => {
                let total = row.get_mut(step)?;
                *total = total.saturating_add(*count as u32);
            }
            (Self::Group(row), []) => *row.get_mut(step)? = true,
            (Self::Spread(row), [count, mean, lost_mean, squares, lost_squares]) => {
                let part = Variance::from_numbers([*count, *mean, *lost_mean, *squares, *lost_squares]);
                match row.get_mut(step)? {
                    Some(variance) => variance.join(part),
                    slot => *slot = Some(part),
                }
            }
            _ => return None,
        }
        Some(())
    }
}

fn each<T>(row: &[Option<T>], mut call: impl FnMut(u32, &T)) {
    for (step, slot) in (0..).zip(row) {
        if let Some(filled) = slot {
            call(step, filled);
        }
    }
}

/// Returns a step's histograms; `None` when the order of series had a say in what became of them.
fn histogram(step: u32, histograms: Histograms) -> Option<PartialHistogram> {
    let (count, cells, hints) = match histograms {
        Histograms::Sum(cells, hints) => (0.0, *cells, hints),
        Histograms::Avg(mean, hints) => {
            let (cells, count) = mean.into_sum()?;
            (count, cells, hints)
        }
        Histograms::Incompatible { .. } | Histograms::AfterFloat => return None,
    };
    let Hints { has_reset, has_not_reset } = hints;
    Some(PartialHistogram { step, count, has_reset, has_not_reset, sums: cells.into_sums() })
}

/// Adds a source's histograms at one step; says whether custom bounds had to be reconciled.
fn join_histogram(
    slot: &mut Option<Histograms>,
    part: &PartialHistogram,
    accumulators: &Accumulators,
) -> Result<bool> {
    let cells = Cells::from_sums(&part.sums).ok_or_else(misfit)?;
    let hints = Hints { has_reset: part.has_reset, has_not_reset: part.has_not_reset };
    let added = match (slot, accumulators) {
        (slot @ None, Accumulators::Sum(_)) => {
            *slot = Some(Histograms::Sum(Box::new(cells), hints));
            return Ok(false);
        }
        (slot @ None, Accumulators::Avg(_)) => {
            *slot = Some(Histograms::Avg(Box::new(HistogramMean::of_sum(cells, part.count)), hints));
            return Ok(false);
        }
        (Some(Histograms::Sum(sum, known)), _) => {
            known.join(hints);
            sum.add_cells(cells)
        }
        (Some(Histograms::Avg(mean, known)), _) => {
            known.join(hints);
            mean.add_sum(cells, part.count)
        }
        (Some(Histograms::Incompatible { .. } | Histograms::AfterFloat), _) => {
            return Err(Error::OrderMatters);
        }
        (None, _) => return Err(misfit()),
    };
    added.map(|added| added.was_reconciled).map_err(|_| Error::OrderMatters)
}
