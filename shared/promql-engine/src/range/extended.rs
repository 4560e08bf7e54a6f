//! `anchored` and `smoothed` ranges: `rate`, `increase` and `delta` without extrapolation, and a range as the result
//! of a query. The values at the edges are the last samples before them, or interpolated.

use std::sync::Arc;

use model::{CounterResetHint, FloatHistogram, Timestamp};
use promql_syntax::Edges;

use super::{Call, Notes, RangeFunction, is_gauge};
use crate::error::Error;
use crate::histogram::{Cells, IncompatibleSchemas, detect_reset};
use crate::points::Point;
use crate::select::{Slice, Window, interpolate, interpolate_histograms};

pub(super) fn rate(call: Call<'_>, window: &Window<'_>, notes: &mut Notes) -> Point {
    if !window.floats.is_empty() && !window.histograms.is_empty() {
        notes.mixed_floats_histograms = true;
        return Point::None;
    }
    let is_counter = call.function != RangeFunction::Delta;
    let is_smoothed = call.edges == Edges::Smoothed;
    let divisor = if call.function == RangeFunction::Rate { call.range_seconds } else { 1.0 };
    if window.histograms.is_empty() {
        return match float_change(window, is_counter, is_smoothed) {
            Some(change) => Point::Float(change / divisor),
            None => Point::None,
        };
    }
    match histogram_change(window, is_counter, is_smoothed, notes) {
        Ok(Some(mut cells)) => {
            cells.divide(divisor);
            cells.set_hint(CounterResetHint::Gauge);
            Point::histogram(cells.finish())
        }
        Ok(None) => Point::None,
        Err(IncompatibleSchemas) => {
            notes.mixed_schemas = true;
            Point::None
        }
    }
}

/// Returns the floats of a range that is a result by itself: one at each edge, and the samples between them.
///
/// # Errors
/// Where the window holds histograms, which have no values at the edges.
pub(crate) fn with_edges(window: &Window<'_>, edges: Edges) -> crate::Result<Vec<(Timestamp, f64)>> {
    let is_smoothed = edges == Edges::Smoothed;
    if !window.histograms.is_empty() {
        let modifier = if is_smoothed { "smoothed" } else { "anchored" };
        return Err(Error::Execution(format!("{modifier} modifier is not supported with histograms")));
    }
    let Slice { times, values, .. } = window.floats;
    if times.is_empty() {
        return Ok(Vec::new());
    }
    let Some(edges) = edge_samples(times, window, is_smoothed) else { return Ok(Vec::new()) };
    // Whether it is a counter is not known here, so nothing is taken to restart.
    let (left, right) = edge_values(window, edges, is_smoothed, false);
    let inside = times.iter().zip(values).filter(|(t, _)| (window.start + 1..window.end).contains(t));
    let start = std::iter::once((Timestamp(window.start), left));
    let end = std::iter::once((Timestamp(window.end), right));
    Ok(start.chain(inside.map(|(t, x)| (Timestamp(*t), *x))).chain(end).collect())
}

/// Chooses the samples that stand for the two edges; `None` when none lies within reach.
fn edge_samples(times: &[i64], window: &Window<'_>, is_smoothed: bool) -> Option<(usize, usize)> {
    let end = times.len() - 1;
    let first = times[..end].partition_point(|t| *t <= window.start).saturating_sub(1);
    let last = if is_smoothed { times[..end].partition_point(|t| *t < window.end) } else { end };
    let is_before = times[last] <= window.start;
    let is_after = is_smoothed && times[first] > window.end;
    (!is_before && !is_after).then_some((first, last))
}

/// Returns the values at the two edges, given the samples that stand for them.
fn edge_values(
    window: &Window<'_>,
    (first, last): (usize, usize),
    is_smoothed: bool,
    is_counter: bool,
) -> (f64, f64) {
    let Slice { times, values, .. } = window.floats;
    let at = |i: usize| (times[i], values[i]);
    let left = if is_smoothed && times[first] < window.start {
        interpolate(at(first), at(first + 1), window.start, is_counter)
    } else {
        values[first]
    };
    let right = if is_smoothed && last > 0 && times[last] > window.end {
        interpolate(at(last - 1), at(last), window.end, is_counter)
    } else {
        values[last]
    };
    (left, right)
}

fn float_change(window: &Window<'_>, is_counter: bool, is_smoothed: bool) -> Option<f64> {
    let Slice { times, values, .. } = window.floats;
    let (mut first, last) = edge_samples(times, window, is_smoothed)?;
    let (left, right) = edge_values(window, (first, last), is_smoothed, is_counter);
    let mut change = right - left;
    if is_counter {
        // The edges have taken resets around them into account; what is left are those between the samples inside.
        if times[first] <= window.start {
            first += 1;
        }
        let end = if times[last] >= window.end { last } else { last + 1 };
        let mut previous = left;
        for value in values.get(first..end.max(first)).unwrap_or(&[]) {
            if *value < previous {
                change += previous;
            }
            previous = *value;
        }
        if right < previous {
            change += previous;
        }
    }
    Some(change)
}

fn histogram_change(
    window: &Window<'_>,
    is_counter: bool,
    is_smoothed: bool,
    notes: &mut Notes,
) -> Result<Option<Cells>, IncompatibleSchemas> {
    let Slice { times, values, .. } = window.histograms;
    let Some((first, last)) = edge_samples(times, window, is_smoothed) else { return Ok(None) };
    let seen = &values[first..=last];
    if seen.iter().any(|h| h.uses_custom_buckets() != seen[0].uses_custom_buckets()) {
        return Err(IncompatibleSchemas);
    }
    notes.not_a_counter |= is_counter && seen.iter().any(|h| is_gauge(h));
    let at = |i: usize| (times[i], &*values[i]);
    let (interpolated_left, interpolated_right);
    let left: &FloatHistogram = if is_smoothed && times[first] < window.start {
        let pair = (at(first), at(first + 1));
        interpolated_left = interpolate_histograms(pair, window.start, is_counter, notes)?;
        &interpolated_left
    } else {
        &values[first]
    };
    let right: &FloatHistogram = if is_smoothed && last > 0 && times[last] > window.end {
        let pair = (at(last - 1), at(last));
        interpolated_right = interpolate_histograms(pair, window.end, is_counter, notes)?;
        &interpolated_right
    } else {
        &values[last]
    };
    let are_gauges = is_gauge(left) && is_gauge(right);
    notes.not_a_gauge |= !is_counter && !are_gauges;
    let mut change = Cells::new(right);
    notes.reconciled_subtraction |= change.subtract(left)?.was_reconciled;
    if is_counter {
        let spans_reset =
            is_smoothed && times[first] < window.start && detect_reset(&values[first + 1], &values[first]);
        add_resets(&mut change, values, (first, last), (left, right), spans_reset, notes)?;
    }
    Ok(Some(change))
}

/// Adds what was lost at resets between the samples that stand for the edges. A reset that the interpolation on
/// the left went across is in `left` already.
fn add_resets(
    change: &mut Cells,
    values: &[Arc<FloatHistogram>],
    (first, last): (usize, usize),
    (left, right): (&FloatHistogram, &FloatHistogram),
    spans_reset: bool,
    notes: &mut Notes,
) -> Result<(), IncompatibleSchemas> {
    let (mut previous, mut next) = (left, first + 1);
    if spans_reset {
        previous = &values[next];
        next += 1;
    }
    // The last sample stands for itself or is what `right` was interpolated towards: it takes no part here.
    if next > last {
        return Ok(());
    }
    let inside = values[next..last].iter().map(|h| &**h);
    for current in inside.chain(std::iter::once(right)) {
        if detect_reset(current, previous) {
            notes.reconciled_addition |= change.add(previous)?.was_reconciled;
        }
        previous = current;
    }
    Ok(())
}
