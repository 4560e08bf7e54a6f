//! Whether a counter was reset between two histograms.

use std::collections::BTreeMap;

use model::histogram::exponential_bound;
use model::{CounterResetHint, FloatHistogram, Span};

use super::cells::settled_threshold;
use super::{bounds_match, common_bounds, index_among, indexed, reduced_index};
use crate::faults::or_fault;

/// Says whether there was a counter reset before `current`: its hint says so, or its layout is finer, or the
/// count or any bucket went down. The sum plays no part, since observations may be negative.
#[must_use]
pub fn detect_reset(current: &FloatHistogram, previous: &FloatHistogram) -> bool {
    match current.counter_reset_hint {
        CounterResetHint::Reset => return true,
        CounterResetHint::NotReset => return false,
        CounterResetHint::Unknown | CounterResetHint::Gauge => {}
    }
    if current.count < previous.count {
        return true;
    }
    if current.uses_custom_buckets() {
        if !previous.uses_custom_buckets() {
            return true;
        }
        if !bounds_match(&current.custom_values, &previous.custom_values) {
            return custom_bucket_went_down(current, previous);
        }
        return side_went_down(current, previous, Side::Positive, 0.0);
    }
    if current.schema > previous.schema || current.zero_threshold < previous.zero_threshold {
        return true;
    }
    let zero_count = match zero_count_at(previous, current.zero_threshold) {
        Some(count) => count,
        // The current zero bucket ends within a populated bucket of the previous histogram.
        None => return true,
    };
    current.zero_count < zero_count
        || side_went_down(current, previous, Side::Positive, current.zero_threshold)
        || side_went_down(current, previous, Side::Negative, current.zero_threshold)
}

#[derive(Clone, Copy)]
enum Side {
    Positive,
    Negative,
}

fn side(h: &FloatHistogram, side: Side) -> (&[Span], &[f64]) {
    match side {
        Side::Positive => (&h.positive_spans, &h.positive_buckets),
        Side::Negative => (&h.negative_spans, &h.negative_buckets),
    }
}

/// Returns what the zero bucket would hold with a wider threshold; `None` where that cuts a populated bucket.
fn zero_count_at(h: &FloatHistogram, threshold: f64) -> Option<f64> {
    if threshold == h.zero_threshold {
        return Some(h.zero_count);
    }
    let positive: Vec<(i32, f64)> = indexed(&h.positive_spans, &h.positive_buckets).collect();
    let negative: Vec<(i32, f64)> = indexed(&h.negative_spans, &h.negative_buckets).collect();
    if settled_threshold(h.schema, threshold, &positive, &negative) != threshold {
        return None;
    }
    let inside = positive.iter().chain(&negative);
    let inside = inside.filter(|(index, _)| exponential_bound(h.schema, index - 1) < threshold);
    Some(h.zero_count + inside.map(|(_, population)| population).sum::<f64>())
}

/// Says whether a bucket of one side went down or away, at the current resolution, beyond the zero bucket.
fn side_went_down(current: &FloatHistogram, previous: &FloatHistogram, of: Side, threshold: f64) -> bool {
    let (spans, buckets) = side(current, of);
    let (previous_spans, previous_buckets) = side(previous, of);
    if current.schema == previous.schema && spans == previous_spans {
        // With one layout populations stand opposite each other; what is below the threshold is there in both.
        let went_down = |(now, before): (&f64, &f64)| or_fault!(HistogramReset, now < before, false);
        return buckets.iter().zip(previous_buckets).any(went_down);
    }
    let mut now = indexed(spans, buckets).peekable();
    let is_outside =
        |index: i32| threshold == 0.0 || exponential_bound(previous.schema, index - 1) >= threshold;
    let target = |index: i32| match current.schema < previous.schema {
        true => reduced_index(index, previous.schema, current.schema),
        false => index,
    };
    let mut before = indexed(previous_spans, previous_buckets).filter(|(i, _)| is_outside(*i)).peekable();
    while let Some((index, mut population)) = before.next() {
        let index = target(index);
        while let Some((_, more)) = before.next_if(|(i, _)| target(*i) == index) {
            population += more;
        }
        while now.next_if(|(i, _)| *i < index).is_some() {}
        let current_population = now.next_if(|(i, _)| *i == index).map_or(0.0, |(_, p)| p);
        if current_population < population {
            return true;
        }
    }
    false
}

/// Compares populations between the bounds that both layouts have.
fn custom_bucket_went_down(current: &FloatHistogram, previous: &FloatHistogram) -> bool {
    let common = common_bounds(&current.custom_values, &previous.custom_values);
    let grouped = |h: &FloatHistogram| {
        let mut groups = BTreeMap::new();
        for (index, population) in indexed(&h.positive_spans, &h.positive_buckets) {
            *groups.entry(index_among(&common, &h.custom_values, index)).or_insert(0.0) += population;
        }
        groups
    };
    let now = grouped(current);
    grouped(previous)
        .iter()
        .any(|(index, before): (_, &f64)| now.get(index).copied().unwrap_or(0.0) < *before)
}
