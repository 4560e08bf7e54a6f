//! `rate`, `increase`, `delta` with extrapolation, `irate` and `idelta`, `resets` and `changes`.

use std::sync::Arc;

use model::FloatHistogram;
use promql_syntax::Edges;

use super::histograms::{HistogramRate, histogram_rate};
use super::{Call, Notes, RangeFunction, is_gauge};
use crate::faults::or_fault;
use crate::histogram::{self, Cells, detect_reset, equals};
use crate::points::Point;
use crate::select::{Slice, Window};

/// Says whether a start timestamp tells of a counter reset between two samples.
pub(super) fn is_start_reset(previous_start: i64, previous_time: i64, start: i64, time: i64) -> bool {
    if start == 0 || start >= time || start < previous_time {
        // Unknown, or senseless, or the sample belongs to the same life of the counter.
        return false;
    }
    if start > previous_time {
        return true;
    }
    // It started exactly at the sample before. That is so in a delta series, and in a cumulative one whose start
    // is unknown; the latter says the same of the sample before.
    previous_start <= previous_time && previous_start != 0 && previous_start != previous_time
}

fn is_overlap(previous_start: i64, previous_time: i64, start: i64) -> bool {
    start != 0 && start < previous_time && start != previous_start
}

/// Says whether the slice's start timestamps tell of a reset before the sample with the index.
pub(super) fn has_start_reset<V>(slice: &Slice<'_, V>, index: usize) -> bool {
    !slice.starts.is_empty()
        && is_start_reset(
            slice.start(index - 1),
            slice.times[index - 1],
            slice.start(index),
            slice.times[index],
        )
}

pub(super) fn has_overlap<V>(slice: &Slice<'_, V>) -> bool {
    (1..slice.starts.len()).any(|i| is_overlap(slice.starts[i - 1], slice.times[i - 1], slice.starts[i]))
}

/// The change over the window, extrapolated to its edges where the samples come close to them.
#[expect(clippy::cast_precision_loss, reason = "differences of times are small")]
pub(super) fn extrapolated(call: Call<'_>, window: &Window<'_>, notes: &mut Notes) -> Point {
    let is_counter = call.function != RangeFunction::Delta;
    let (floats, histograms) = (window.floats, window.histograms);
    if !floats.is_empty() && !histograms.is_empty() {
        notes.mixed_floats_histograms = true;
        return Point::None;
    }
    let times = if floats.is_empty() { histograms.times } else { floats.times };
    let intervals = times.len() - 1;
    let (first, last) = (times[0], times[intervals]);
    let mut change = match change_of(call, &floats, &histograms, is_counter, notes) {
        Ok(change) => change,
        Err(()) => return Point::None,
    };
    let mut to_start = (first - window.start) as f64 / 1000.0;
    let mut to_end = (window.end - last) as f64 / 1000.0;
    let mut sampled = (last - first) as f64 / 1000.0;
    let average = if intervals > 0 { sampled / intervals as f64 } else { 0.0 };
    let threshold = or_fault!(Extrapolation, average * 1.1, f64::INFINITY);
    let first_start = if floats.is_empty() { histograms.start(0) } else { floats.start(0) };
    if is_counter && first_start != 0 && first_start > window.start && first_start < first {
        // The counter was zero at its start, within the window: nothing to extrapolate on that side.
        to_start = 0.0;
        sampled = (last - first_start) as f64 / 1000.0;
        if !change.add_first(&floats, &histograms, notes) {
            return Point::None;
        }
    } else if intervals == 0 {
        return Point::None;
    } else {
        if to_start >= threshold {
            to_start = average / 2.0;
        }
        if is_counter && let Some(share) = change.share_before(&floats, &histograms) {
            // A counter is not taken below zero.
            to_start = to_start.min(sampled * share);
        }
    }
    if to_end >= threshold {
        to_end = average / 2.0;
    }
    let mut factor = if sampled == 0.0 { 1.0 } else { (sampled + to_start + to_end) / sampled };
    if call.function == RangeFunction::Rate {
        factor /= call.range_seconds;
    }
    match change {
        Change::Float(x) => Point::Float(x * factor),
        Change::Histogram(h) => Point::histogram(histogram::scaled(&h, factor)),
        Change::NoHistogram => Point::None,
    }
}

enum Change {
    Float(f64),
    Histogram(Box<FloatHistogram>),
    /// A single histogram: there is no change without a start timestamp.
    NoHistogram,
}

impl Change {
    /// Adds the first sample: the change since the counter's start.
    fn add_first(
        &mut self,
        floats: &Slice<'_, f64>,
        histograms: &Slice<'_, Arc<FloatHistogram>>,
        notes: &mut Notes,
    ) -> bool {
        match self {
            Self::Float(x) => *x += floats.values[0],
            Self::NoHistogram => *self = Self::Histogram(Box::new((*histograms.values[0]).clone())),
            Self::Histogram(h) => {
                let mut cells = Cells::new(h);
                match cells.add(&histograms.values[0]) {
                    Ok(added) => notes.reconciled_addition |= added.was_reconciled,
                    Err(_) => {
                        notes.mixed_schemas = true;
                        return false;
                    }
                }
                **h = cells.finish();
            }
        }
        true
    }

    /// How long before the first sample the counter was at zero, as a multiple of the sampled time.
    fn share_before(
        &self,
        floats: &Slice<'_, f64>,
        histograms: &Slice<'_, Arc<FloatHistogram>>,
    ) -> Option<f64> {
        let (first, change) = match self {
            Self::Float(change) => (floats.values[0], *change),
            Self::Histogram(h) => (histograms.values[0].count, h.count),
            Self::NoHistogram => return None,
        };
        (change > 0.0 && first >= 0.0).then(|| first / change)
    }
}

fn change_of(
    call: Call<'_>,
    floats: &Slice<'_, f64>,
    histograms: &Slice<'_, Arc<FloatHistogram>>,
    is_counter: bool,
    notes: &mut Notes,
) -> Result<Change, ()> {
    if floats.is_empty() {
        if histograms.len() == 1 {
            return Ok(Change::NoHistogram);
        }
        return match histogram_rate(histograms, is_counter, notes) {
            HistogramRate::Change(h) => Ok(Change::Histogram(h)),
            HistogramRate::Incompatible => Err(()),
        };
    }
    let values = floats.values;
    let mut change = values[values.len() - 1] - values[0];
    if is_counter {
        if let Some(falls) = call.falls {
            for fall in falls {
                change += fall.from;
            }
        } else {
            notes.start_time_overlaps += u64::from(has_overlap(floats));
            for i in 1..values.len() {
                if values[i] < values[i - 1] || has_start_reset(floats, i) {
                    change += values[i - 1];
                }
            }
        }
    }
    Ok(Change::Float(change))
}

/// One of the last two samples.
#[derive(Clone, Copy)]
enum Sample<'a> {
    Float(f64),
    Histogram(&'a FloatHistogram),
}

/// `irate` and `idelta`: the change between the last two samples.
#[expect(clippy::cast_precision_loss, reason = "differences of times are small")]
pub(super) fn instant(window: &Window<'_>, is_rate: bool, notes: &mut Notes) -> Point {
    let mut last_two = merged_from_the_end(window);
    let (Some((to_time, to, to_start)), Some((from_time, from, from_start))) =
        (last_two.next(), last_two.next())
    else {
        return Point::None;
    };
    let seconds = (to_time - from_time) as f64 / 1000.0;
    if seconds == 0.0 {
        return Point::None;
    }
    let has_start_reset = is_start_reset(from_start, from_time, to_start, to_time);
    match (from, to) {
        (Sample::Float(from), Sample::Float(to)) => {
            let is_reset = is_rate && (to < from || has_start_reset);
            let change = if is_reset { to } else { to - from };
            Point::Float(if is_rate { change / seconds } else { change })
        }
        (Sample::Histogram(from), Sample::Histogram(to)) => {
            notes.not_a_counter |= is_rate && (is_gauge(from) || is_gauge(to));
            let are_gauges = is_gauge(from) && is_gauge(to);
            notes.not_a_gauge |= !is_rate && !are_gauges;
            let mut cells = Cells::new(to);
            if !is_rate || !(has_start_reset || detect_reset(to, from)) {
                match cells.subtract(from) {
                    Ok(added) => notes.reconciled_subtraction |= added.was_reconciled,
                    Err(_) => {
                        notes.mixed_schemas = true;
                        return Point::None;
                    }
                }
            }
            cells.set_hint(model::CounterResetHint::Gauge);
            if is_rate {
                cells.divide(seconds);
            }
            Point::histogram(cells.finish())
        }
        _ => {
            notes.mixed_floats_histograms = true;
            Point::None
        }
    }
}

/// Walks floats and histograms backwards in time, with their start timestamps.
fn merged_from_the_end<'a>(window: &Window<'a>) -> impl Iterator<Item = (i64, Sample<'a>, i64)> + use<'a> {
    let (floats, histograms) = (window.floats, window.histograms);
    let (mut f, mut h) = (floats.len(), histograms.len());
    std::iter::from_fn(move || {
        let is_float = match (f, h) {
            (0, 0) => return None,
            (_, 0) => true,
            (0, _) => false,
            _ => floats.times[f - 1] > histograms.times[h - 1],
        };
        Some(if is_float {
            f -= 1;
            (floats.times[f], Sample::Float(floats.values[f]), floats.start(f))
        } else {
            h -= 1;
            (histograms.times[h], Sample::Histogram(&histograms.values[h]), histograms.start(h))
        })
    })
}

/// Walks floats and histograms in time order, with their start timestamps.
fn merged<'a>(
    floats: Slice<'a, f64>,
    histograms: Slice<'a, Arc<FloatHistogram>>,
) -> impl Iterator<Item = (i64, Sample<'a>, i64)> {
    let (mut f, mut h) = (0, 0);
    std::iter::from_fn(move || {
        let is_float = match (floats.times.get(f), histograms.times.get(h)) {
            (None, None) => return None,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(a), Some(b)) => a < b,
        };
        Some(if is_float {
            f += 1;
            (floats.times[f - 1], Sample::Float(floats.values[f - 1]), floats.start(f - 1))
        } else {
            h += 1;
            (histograms.times[h - 1], Sample::Histogram(&histograms.values[h - 1]), histograms.start(h - 1))
        })
    })
}

/// What a window shows once the anchor is chosen.
type Anchored<'a> = (Slice<'a, f64>, Slice<'a, Arc<FloatHistogram>>);

/// Drops what lies before the anchor, the last sample at or before the range's start; `None` when no sample lies
/// after it.
fn anchored<'a>(window: &Window<'a>, edges: Edges) -> Option<Anchored<'a>> {
    let (floats, histograms) = (window.floats, window.histograms);
    if edges != Edges::Anchored {
        return Some((floats, histograms));
    }
    let after_floats = floats.times.partition_point(|t| *t <= window.start);
    let after_histograms = histograms.times.partition_point(|t| *t <= window.start);
    if after_floats == floats.len() && after_histograms == histograms.len() {
        return None;
    }
    let last_float = after_floats.checked_sub(1).map(|i| floats.times[i]);
    let last_histogram = after_histograms.checked_sub(1).map(|i| histograms.times[i]);
    Some(match (last_float, last_histogram) {
        (None, None) => (floats, histograms),
        (f, h) if f >= h => (floats.from(after_floats - 1), histograms.from(after_histograms)),
        _ => (floats.from(after_floats), histograms.from(after_histograms - 1)),
    })
}

#[expect(clippy::cast_precision_loss, reason = "a window has few samples")]
pub(super) fn resets(window: &Window<'_>, edges: Edges) -> Point {
    let Some((floats, histograms)) = anchored(window, edges) else { return Point::None };
    let samples = merged(floats, histograms);
    let resets = count_pairs(samples, |(from_time, from, from_start), (time, to, start)| {
        let has_start_reset = is_start_reset(from_start, from_time, start, time);
        match (from, to) {
            (Sample::Float(from), Sample::Float(to)) => to < from || has_start_reset,
            (Sample::Histogram(from), Sample::Histogram(to)) => has_start_reset || detect_reset(to, from),
            _ => true,
        }
    });
    Point::Float(resets as f64)
}

#[expect(clippy::cast_precision_loss, reason = "a window has few samples")]
pub(super) fn changes(window: &Window<'_>, edges: Edges) -> Point {
    let Some((floats, histograms)) = anchored(window, edges) else { return Point::None };
    let changes = count_pairs(merged(floats, histograms), |(_, from, _), (_, to, _)| match (from, to) {
        (Sample::Float(from), Sample::Float(to)) => from != to && !(from.is_nan() && to.is_nan()),
        (Sample::Histogram(from), Sample::Histogram(to)) => !equals(from, to),
        _ => true,
    });
    Point::Float(changes as f64)
}

fn count_pairs<T: Copy>(mut items: impl Iterator<Item = T>, counts: impl Fn(T, T) -> bool) -> usize {
    let Some(mut previous) = items.next() else { return 0 };
    let mut count = 0;
    for item in items {
        count += usize::from(counts(previous, item));
        previous = item;
    }
    count
}
