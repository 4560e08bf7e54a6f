//! The accumulator behind every sum and difference of histograms.
//!
//! Before two histograms are added they are brought to one layout: the zero bucket to the wider of the two (and to
//! a bucket's edge, where the edge would cut a populated bucket), the resolution to the coarser, custom bounds to
//! those that both have.
//!
//! Invariant: cells ascend by index and each index stands once.

use std::sync::Arc;

use model::histogram::{CUSTOM_BUCKETS_SCHEMA, exponential_bound};
use model::{CounterResetHint, FloatHistogram};

use super::{bounds_match, common_bounds, index_among, indexed, reduced_index, spans_of};
use crate::kahan::Sum;
use crate::partial::HistogramSums;

/// Resolutions of exponential buckets.
const EXPONENTIAL_SCHEMAS: std::ops::RangeInclusive<i32> = -4..=8;

#[derive(Debug, Clone, Copy)]
struct Cell {
    index: i32,
    population: Sum,
}

/// A histogram being summed up.
#[derive(Debug, Clone)]
pub(crate) struct Cells {
    schema: i32,
    zero_threshold: f64,
    custom_values: Arc<[f64]>,
    hint: CounterResetHint,
    zero_count: Sum,
    count: Sum,
    sum: Sum,
    positive: Vec<Cell>,
    negative: Vec<Cell>,
}

/// Exponential and custom buckets cannot be brought together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("histograms with exponential and custom buckets cannot be combined")]
pub struct IncompatibleSchemas;

/// What was noticed during an addition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Added {
    /// One operand says that there was a counter reset, the other that there was none.
    pub(crate) has_reset_collision: bool,
    /// The operands had different custom bounds.
    pub(crate) was_reconciled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Plus,
    Minus,
}

impl Cells {
    pub(crate) fn new(h: &FloatHistogram) -> Self {
        let cells = |spans, buckets| {
            indexed(spans, buckets)
                .map(|(index, population)| Cell { index, population: Sum::new(population) })
                .collect()
        };
        Self {
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            custom_values: Arc::clone(&h.custom_values),
            hint: h.counter_reset_hint,
            zero_count: Sum::new(h.zero_count),
            count: Sum::new(h.count),
            sum: Sum::new(h.sum),
            positive: cells(&h.positive_spans, &h.positive_buckets),
            negative: cells(&h.negative_spans, &h.negative_buckets),
        }
    }

    /// Adds a histogram.
    ///
    /// # Errors
    /// When one has exponential and the other custom buckets; nothing is changed then.
    pub(crate) fn add(&mut self, h: &FloatHistogram) -> Result<Added, IncompatibleSchemas> {
        self.combine(h, Sign::Plus)
    }

    /// Subtracts a histogram; errors as in [`Cells::add`].
    pub(crate) fn subtract(&mut self, h: &FloatHistogram) -> Result<Added, IncompatibleSchemas> {
        self.combine(h, Sign::Minus)
    }

    pub(crate) fn scale(&mut self, factor: f64) {
        self.for_each(|sum| sum.scale(factor));
        if factor < 0.0 {
            self.hint = CounterResetHint::Gauge;
        }
    }

    pub(crate) fn divide(&mut self, divisor: f64) {
        self.for_each(|sum| sum.divide(divisor));
    }

    pub(crate) fn set_hint(&mut self, hint: CounterResetHint) {
        self.hint = hint;
    }

    /// The largest of count, sum and populations, by magnitude.
    pub(crate) fn largest(&self) -> f64 {
        let cells = self.positive.iter().chain(&self.negative).map(|c| c.population);
        [self.zero_count, self.count, self.sum]
            .into_iter()
            .chain(cells)
            .fold(0.0, |m, s| s.value.abs().max(m))
    }

    /// Says whether any number is infinite.
    pub(crate) fn has_overflow(&self) -> bool {
        let cells = self.positive.iter().chain(&self.negative).map(|c| c.population);
        [self.zero_count, self.count, self.sum].into_iter().chain(cells).any(|s| s.value.is_infinite())
    }

    /// Returns the compacted result.
    pub(crate) fn finish(self) -> FloatHistogram {
        let side = |cells: Vec<Cell>| spans_of(cells.iter().map(|c| (c.index, c.population.total())));
        let (positive_spans, positive_buckets) = side(self.positive);
        let (negative_spans, negative_buckets) = side(self.negative);
        FloatHistogram {
            counter_reset_hint: self.hint,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count.total(),
            count: self.count.total(),
            sum: self.sum.total(),
            positive_spans,
            negative_spans,
            positive_buckets,
            negative_buckets,
            custom_values: self.custom_values,
        }
    }

    fn for_each(&mut self, mut change: impl FnMut(&mut Sum)) {
        change(&mut self.zero_count);
        change(&mut self.count);
        change(&mut self.sum);
        self.positive.iter_mut().for_each(|c| change(&mut c.population));
        self.negative.iter_mut().for_each(|c| change(&mut c.population));
    }

    const fn uses_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    fn combine(&mut self, h: &FloatHistogram, sign: Sign) -> Result<Added, IncompatibleSchemas> {
        if self.uses_custom_buckets() != h.uses_custom_buckets() {
            return Err(IncompatibleSchemas);
        }
        let mut added =
            Added { has_reset_collision: self.adjust_hint(h.counter_reset_hint), ..Added::default() };
        if self.has_layout_of(h) {
            let signed = |x: f64| if sign == Sign::Minus { -x } else { x };
            self.zero_count.add(signed(h.zero_count));
            self.count.add(signed(h.count));
            self.sum.add(signed(h.sum));
            let pairs = |cells: &mut Vec<Cell>, buckets: &[f64]| {
                for (cell, population) in cells.iter_mut().zip(buckets) {
                    cell.population.add(signed(*population));
                }
            };
            pairs(&mut self.positive, &h.positive_buckets);
            pairs(&mut self.negative, &h.negative_buckets);
            return Ok(added);
        }
        let mut other = Self::new(h);
        added.was_reconciled = self.bring_together(&mut other);
        if sign == Sign::Minus {
            other.for_each(|sum| sum.scale(-1.0));
        }
        self.add_alike(other);
        Ok(added)
    }

    /// Adds another sum; errors as in [`Cells::add`].
    pub(crate) fn add_cells(&mut self, mut other: Self) -> Result<Added, IncompatibleSchemas> {
        if self.uses_custom_buckets() != other.uses_custom_buckets() {
            return Err(IncompatibleSchemas);
        }
        let has_reset_collision = self.adjust_hint(other.hint);
        let was_reconciled = self.bring_together(&mut other);
        self.add_alike(other);
        Ok(Added { has_reset_collision, was_reconciled })
    }

    /// Brings two sums to one layout; says whether custom bounds differed.
    fn bring_together(&mut self, other: &mut Self) -> bool {
        if self.uses_custom_buckets() {
            return self.reconcile_bounds(other);
        }
        self.reconcile_zero_buckets(other);
        let schema = self.schema.min(other.schema);
        self.reduce_to(schema);
        other.reduce_to(schema);
        false
    }

    /// Adds a sum of the same layout.
    fn add_alike(&mut self, other: Self) {
        self.zero_count.add_sum(other.zero_count);
        self.count.add_sum(other.count);
        self.sum.add_sum(other.sum);
        merge(&mut self.positive, other.positive);
        merge(&mut self.negative, other.negative);
    }

    /// Gives the sum away as it stands.
    pub(crate) fn into_sums(self) -> HistogramSums {
        let pair = |sum: Sum| [sum.value, sum.compensation];
        let side = |cells: Vec<Cell>| cells.into_iter().map(|c| (c.index, pair(c.population))).collect();
        HistogramSums {
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            custom_values: self.custom_values,
            hint: self.hint,
            zero_count: pair(self.zero_count),
            count: pair(self.count),
            sum: pair(self.sum),
            positive: side(self.positive),
            negative: side(self.negative),
        }
    }

    /// Takes up a sum; `None` when it is none.
    pub(crate) fn from_sums(sums: &HistogramSums) -> Option<Self> {
        let sum = |[value, compensation]: [f64; 2]| Sum { value, compensation };
        let side = |buckets: &[(i32, [f64; 2])]| -> Option<Vec<Cell>> {
            let is_ascending = buckets.is_sorted_by(|a, b| a.0 < b.0);
            let cells = buckets.iter().map(|(index, of)| Cell { index: *index, population: sum(*of) });
            is_ascending.then(|| cells.collect())
        };
        let is_known = sums.schema == CUSTOM_BUCKETS_SCHEMA || EXPONENTIAL_SCHEMAS.contains(&sums.schema);
        is_known.then_some(Self {
            schema: sums.schema,
            zero_threshold: sums.zero_threshold,
            custom_values: Arc::clone(&sums.custom_values),
            hint: sums.hint,
            zero_count: sum(sums.zero_count),
            count: sum(sums.count),
            sum: sum(sums.sum),
            positive: side(&sums.positive)?,
            negative: side(&sums.negative)?,
        })
    }

    /// Takes over another operand's hint as Prometheus does; says whether the two contradict each other.
    fn adjust_hint(&mut self, other: CounterResetHint) -> bool {
        use CounterResetHint::{Gauge, NotReset, Reset, Unknown};
        let (hint, is_collision) = match (self.hint, other) {
            (a, b) if a == b => (a, false),
            (Gauge, _) | (_, Gauge) => (Gauge, false),
            (Unknown, _) | (_, Unknown) => (Unknown, false),
            (Reset | NotReset, _) => (Unknown, true),
        };
        self.hint = hint;
        is_collision
    }

    fn has_layout_of(&self, h: &FloatHistogram) -> bool {
        let same = |cells: &[Cell], spans, buckets: &[f64]| {
            cells.len() == buckets.len()
                && indexed(spans, buckets).zip(cells).all(|((index, _), cell)| index == cell.index)
        };
        self.schema == h.schema
            && self.zero_threshold == h.zero_threshold
            && bounds_match(&self.custom_values, &h.custom_values)
            && same(&self.positive, &h.positive_spans, &h.positive_buckets)
            && same(&self.negative, &h.negative_spans, &h.negative_buckets)
    }

    /// Brings custom bounds to those that both have; says whether they differed.
    fn reconcile_bounds(&mut self, other: &mut Self) -> bool {
        if bounds_match(&self.custom_values, &other.custom_values) {
            return false;
        }
        let common: Arc<[f64]> = common_bounds(&self.custom_values, &other.custom_values).into();
        self.rebound(&common);
        other.rebound(&common);
        true
    }

    fn rebound(&mut self, common: &Arc<[f64]>) {
        let bounds = std::mem::replace(&mut self.custom_values, Arc::clone(common));
        regroup(&mut self.positive, |index| index_among(common, &bounds, index));
    }

    fn reduce_to(&mut self, schema: i32) {
        if schema < self.schema {
            let from = std::mem::replace(&mut self.schema, schema);
            regroup(&mut self.positive, |index| reduced_index(index, from, schema));
            regroup(&mut self.negative, |index| reduced_index(index, from, schema));
        }
    }

    fn reconcile_zero_buckets(&mut self, other: &mut Self) {
        // Each side in turn is widened to the other's threshold, which may push it beyond.
        loop {
            if self.zero_threshold < other.zero_threshold {
                self.widen_zero_bucket(other.zero_threshold);
            } else if other.zero_threshold < self.zero_threshold {
                other.widen_zero_bucket(self.zero_threshold);
            } else {
                return;
            }
        }
    }

    fn widen_zero_bucket(&mut self, threshold: f64) {
        let buckets = |cells: &[Cell]| -> Vec<(i32, f64)> {
            cells.iter().map(|c| (c.index, c.population.value)).collect()
        };
        let threshold =
            settled_threshold(self.schema, threshold, &buckets(&self.positive), &buckets(&self.negative));
        self.zero_threshold = threshold;
        for cells in [&mut self.positive, &mut self.negative] {
            let inside = cells.partition_point(|c| exponential_bound(self.schema, c.index - 1) < threshold);
            for cell in cells.drain(..inside) {
                self.zero_count.add_sum(cell.population);
            }
        }
    }
}

/// Returns the threshold at or above the one given that cuts no populated bucket. Buckets ascend by index.
pub(super) fn settled_threshold(
    schema: i32,
    mut threshold: f64,
    positive: &[(i32, f64)],
    negative: &[(i32, f64)],
) -> f64 {
    loop {
        let before = threshold;
        for side in [positive, negative] {
            for (index, population) in side {
                if exponential_bound(schema, index - 1) >= threshold {
                    break;
                }
                let upper = exponential_bound(schema, *index);
                if upper > threshold {
                    if *population != 0.0 {
                        threshold = upper;
                    }
                    break;
                }
            }
        }
        if threshold == before || threshold.is_nan() {
            return threshold;
        }
    }
}

/// Gives cells new indexes, which must not descend, and joins those that become one.
fn regroup(cells: &mut Vec<Cell>, new_index: impl Fn(i32) -> i32) {
    for cell in cells.iter_mut() {
        cell.index = new_index(cell.index);
    }
    cells.dedup_by(|next, kept| {
        let is_same = next.index == kept.index;
        if is_same {
            kept.population.add_sum(next.population);
        }
        is_same
    });
}

fn merge(into: &mut Vec<Cell>, from: Vec<Cell>) {
    let mut merged = Vec::with_capacity(into.len() + from.len());
    let mut left = std::mem::take(into).into_iter().peekable();
    for cell in from {
        while let Some(smaller) = left.next_if(|c| c.index < cell.index) {
            merged.push(smaller);
        }
        match left.next_if(|c| c.index == cell.index) {
            Some(mut same) => {
                same.population.add_sum(cell.population);
                merged.push(same);
            }
            None => merged.push(cell),
        }
    }
    merged.extend(left);
    *into = merged;
}
