//! Changes, sums and means of histograms within a window.

use std::sync::Arc;

use model::{CounterResetHint, FloatHistogram};

use super::rate::{has_overlap, has_start_reset};
use super::{Notes, is_gauge};
use crate::histogram::{Added, Cells, IncompatibleSchemas, detect_reset, divided};
use crate::select::Slice;

pub(super) enum HistogramRate {
    Change(Box<FloatHistogram>),
    /// Exponential and custom buckets; noted.
    Incompatible,
}

/// The change from the first to the last of at least two histograms, with counter resets added for counters.
pub(super) fn histogram_rate(
    histograms: &Slice<'_, Arc<FloatHistogram>>,
    is_counter: bool,
    notes: &mut Notes,
) -> HistogramRate {
    match try_rate(histograms, is_counter, notes) {
        Ok(h) => HistogramRate::Change(h),
        Err(IncompatibleSchemas) => {
            notes.mixed_schemas = true;
            HistogramRate::Incompatible
        }
    }
}

fn try_rate(
    histograms: &Slice<'_, Arc<FloatHistogram>>,
    is_counter: bool,
    notes: &mut Notes,
) -> Result<Box<FloatHistogram>, IncompatibleSchemas> {
    let values = histograms.values;
    let (first, second, last) = (&*values[0], &*values[1], &*values[values.len() - 1]);
    let is_reset = |i: usize, previous: &FloatHistogram| {
        has_start_reset(histograms, i) || detect_reset(&values[i], previous)
    };
    // When the counter was reset right after the first histogram, nothing of that one is left to look at, and its
    // layout must not matter.
    let empty;
    let from = if is_counter && is_reset(1, first) {
        empty = FloatHistogram {
            schema: second.schema,
            custom_values: Arc::clone(&second.custom_values),
            ..FloatHistogram::default()
        };
        &empty
    } else {
        first
    };
    // Where layouts do not go together there is nothing else to say, but that an end is no counter's.
    let mut found =
        Notes { not_a_counter: is_counter && (is_gauge(first) || is_gauge(last)), ..Notes::default() };
    let uses_custom = from.uses_custom_buckets();
    if last.uses_custom_buckets() != uses_custom {
        notes.not_a_counter |= found.not_a_counter;
        return Err(IncompatibleSchemas);
    }
    if is_counter {
        found.not_a_counter |= values[1..values.len() - 1].iter().any(|h| is_gauge(h));
        if values[1..].iter().any(|h| h.uses_custom_buckets() != uses_custom) {
            return Err(IncompatibleSchemas);
        }
    } else {
        found.not_a_gauge = !(is_gauge(first) && is_gauge(last));
    }
    let mut cells = Cells::new(last);
    found.reconciled_subtraction = cells.subtract(from)?.was_reconciled;
    if is_counter {
        found.start_time_overlaps = u64::from(has_overlap(histograms));
        let mut previous = from;
        for (i, current) in values.iter().enumerate().skip(1) {
            if is_reset(i, previous) {
                found.reconciled_addition |= cells.add(previous)?.was_reconciled;
            }
            previous = current;
        }
    }
    notes.add(found);
    cells.set_hint(CounterResetHint::Gauge);
    Ok(Box::new(cells.finish()))
}

/// Remembers which reset hints were met in an aggregation.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Hints {
    pub(crate) has_reset: bool,
    pub(crate) has_not_reset: bool,
}

impl Hints {
    pub(crate) fn meet(&mut self, hint: CounterResetHint) {
        self.has_reset |= hint == CounterResetHint::Reset;
        self.has_not_reset |= hint == CounterResetHint::NotReset;
    }

    pub(crate) fn join(&mut self, other: Self) {
        self.has_reset |= other.has_reset;
        self.has_not_reset |= other.has_not_reset;
    }

    pub(crate) const fn are_conflicting(self) -> bool {
        self.has_reset && self.has_not_reset
    }
}

pub(super) fn sum(
    values: &[Arc<FloatHistogram>],
    notes: &mut Notes,
) -> Result<FloatHistogram, IncompatibleSchemas> {
    let mut hints = Hints::default();
    hints.meet(values[0].counter_reset_hint);
    let mut cells = Cells::new(&values[0]);
    for h in &values[1..] {
        hints.meet(h.counter_reset_hint);
        notes.reconciled_aggregation |= cells.add(h)?.was_reconciled;
    }
    notes.conflicting_resets |= hints.are_conflicting();
    Ok(cells.finish())
}

pub(super) fn avg(
    values: &[Arc<FloatHistogram>],
    notes: &mut Notes,
) -> Result<FloatHistogram, IncompatibleSchemas> {
    let mut hints = Hints::default();
    hints.meet(values[0].counter_reset_hint);
    let mut mean = HistogramMean::new(&values[0]);
    for h in &values[1..] {
        hints.meet(h.counter_reset_hint);
        notes.reconciled_aggregation |= mean.add(h)?;
    }
    notes.conflicting_resets |= hints.are_conflicting();
    Ok(mean.finish())
}

/// A running mean of histograms: the sum divided in the end, or, once the sum would overflow, the mean itself.
#[derive(Debug)]
pub(crate) struct HistogramMean {
    cells: Cells,
    count: f64,
    is_incremental: bool,
}

impl HistogramMean {
    pub(crate) fn new(first: &FloatHistogram) -> Self {
        Self { cells: Cells::new(first), count: 1.0, is_incremental: false }
    }

    /// Adds a histogram; says whether custom bounds had to be reconciled.
    pub(crate) fn add(&mut self, h: &FloatHistogram) -> Result<bool, IncompatibleSchemas> {
        self.count += 1.0;
        if !self.is_incremental {
            // Only where numbers are huge the sum may have to be taken back.
            if self.cells.largest() < HUGE && largest(h) < HUGE {
                return Ok(self.cells.add(h)?.was_reconciled);
            }
            let mut sum = self.cells.clone();
            let added = sum.add(h)?;
            if !sum.has_overflow() {
                self.cells = sum;
                return Ok(added.was_reconciled);
            }
            self.is_incremental = true;
            self.cells.divide(self.count - 1.0);
        }
        self.cells.scale((self.count - 1.0) / self.count);
        Ok(self.cells.add(&divided(h, self.count))?.was_reconciled)
    }

    /// Says whether the sum would have overflown.
    pub(crate) const fn is_incremental(&self) -> bool {
        self.is_incremental
    }

    /// Makes the mean of so many histograms of their sum.
    pub(crate) fn of_sum(cells: Cells, count: f64) -> Self {
        Self { cells, count, is_incremental: false }
    }

    /// Returns the sum and how many histograms it is of; `None` once it would have overflown.
    pub(crate) fn into_sum(self) -> Option<(Cells, f64)> {
        (!self.is_incremental).then_some((self.cells, self.count))
    }

    /// Adds the sum of so many histograms, none of them huge.
    pub(crate) fn add_sum(&mut self, cells: Cells, count: f64) -> Result<Added, IncompatibleSchemas> {
        self.count += count;
        self.cells.add_cells(cells)
    }

    pub(crate) fn finish(mut self) -> FloatHistogram {
        if !self.is_incremental {
            self.cells.divide(self.count);
        }
        self.cells.finish()
    }
}

/// Two numbers below this do not overflow when added.
const HUGE: f64 = f64::MAX / 4.0;

/// The largest number of a histogram, by magnitude.
pub(crate) fn largest(h: &FloatHistogram) -> f64 {
    let buckets = h.positive_buckets.iter().chain(&h.negative_buckets);
    [h.zero_count, h.count, h.sum].iter().chain(buckets).fold(0.0, |m, x| x.abs().max(m))
}
