//! Native histograms in computations: sums, differences, counter resets, quantiles, trimming, text.
//!
//! Everything works on buckets with absolute indexes. Sums run on `Cells`, an accumulator that keeps a Kahan
//! compensation for each number; what leaves it is compacted: no empty buckets, no adjacent spans.

mod cells;
mod quantile;
mod reset;
mod trim;

use std::fmt::Write as _;

use crate::faults::or_fault;
use model::number::format_general;
use model::{CounterResetHint, FloatHistogram, Span};

pub use cells::IncompatibleSchemas;
pub(crate) use cells::{Added, Cells};
pub(crate) use quantile::{NanEffect, fraction, linear_share_below, quantile, variance};
pub use reset::detect_reset;
pub(crate) use trim::{Keep, trim};

/// Returns the sum of two histograms as the operator `+` gives it.
///
/// # Errors
/// When one has exponential and the other custom buckets.
pub fn add(a: &FloatHistogram, b: &FloatHistogram) -> Result<FloatHistogram, IncompatibleSchemas> {
    let mut cells = Cells::new(a);
    cells.add(b)?;
    Ok(cells.finish())
}

/// Returns the difference of two histograms as the operator `-` gives it, a gauge.
///
/// # Errors
/// When one has exponential and the other custom buckets.
pub fn subtract(a: &FloatHistogram, b: &FloatHistogram) -> Result<FloatHistogram, IncompatibleSchemas> {
    let mut cells = Cells::new(a);
    cells.subtract(b)?;
    cells.set_hint(CounterResetHint::Gauge);
    Ok(cells.finish())
}

/// Walks buckets with their absolute indexes.
pub(crate) fn indexed<'a>(
    spans: &'a [Span],
    populations: &'a [f64],
) -> impl Iterator<Item = (i32, f64)> + 'a {
    let mut next = 0_i32;
    let indexes = spans.iter().flat_map(move |span| {
        let start = next.saturating_add(span.offset);
        next = start.saturating_add(i32::try_from(span.length).unwrap_or(i32::MAX));
        start..next
    });
    indexes.zip(populations.iter().copied())
}

/// Returns the index of the bucket that a bucket falls into when the resolution is reduced.
pub(crate) fn reduced_index(index: i32, from_schema: i32, to_schema: i32) -> i32 {
    let before = or_fault!(SchemaReduction, index - 1, index);
    (before >> (from_schema - to_schema)) + 1
}

/// Lays out buckets in ascending order of index as spans and populations, leaving out empty ones.
fn spans_of(buckets: impl Iterator<Item = (i32, f64)>) -> (Vec<Span>, Vec<f64>) {
    let (mut spans, mut populations): (Vec<Span>, Vec<f64>) = (Vec::new(), Vec::new());
    let mut next = 0_i32;
    for (index, population) in buckets.filter(|(_, population)| *population != 0.0) {
        match spans.last_mut() {
            Some(span) if index == next => span.length += 1,
            _ => spans.push(Span { offset: index.wrapping_sub(next), length: 1 }),
        }
        next = index.wrapping_add(1);
        populations.push(population);
    }
    (spans, populations)
}

/// Removes empty buckets.
pub fn compact(h: &mut FloatHistogram) {
    if h.positive_buckets.contains(&0.0) || is_loose(&h.positive_spans) {
        (h.positive_spans, h.positive_buckets) = spans_of(indexed(&h.positive_spans, &h.positive_buckets));
    }
    if h.negative_buckets.contains(&0.0) || is_loose(&h.negative_spans) {
        (h.negative_spans, h.negative_buckets) = spans_of(indexed(&h.negative_spans, &h.negative_buckets));
    }
}

/// Says whether spans could be fewer: empty ones, or ones without a gap between.
fn is_loose(spans: &[Span]) -> bool {
    spans.iter().any(|s| s.length == 0) || spans.iter().skip(1).any(|s| s.offset == 0)
}

/// Multiplies all populations. The layout stays; a negative factor makes a gauge.
pub(crate) fn scaled(h: &FloatHistogram, factor: f64) -> FloatHistogram {
    let mut out = h.clone();
    for_each_number(&mut out, |x| *x *= factor);
    if factor < 0.0 {
        out.counter_reset_hint = CounterResetHint::Gauge;
    }
    out
}

/// Divides all populations. Division by zero leaves no buckets; a negative divisor makes a gauge.
pub(crate) fn divided(h: &FloatHistogram, divisor: f64) -> FloatHistogram {
    let mut out = h.clone();
    for_each_number(&mut out, |x| *x /= divisor);
    if divisor == 0.0 {
        out.positive_spans.clear();
        out.positive_buckets.clear();
        out.negative_spans.clear();
        out.negative_buckets.clear();
    }
    if divisor < 0.0 {
        out.counter_reset_hint = CounterResetHint::Gauge;
    }
    out
}

fn for_each_number(h: &mut FloatHistogram, mut change: impl FnMut(&mut f64)) {
    change(&mut h.zero_count);
    change(&mut h.count);
    change(&mut h.sum);
    h.positive_buckets.iter_mut().for_each(&mut change);
    h.negative_buckets.iter_mut().for_each(&mut change);
}

/// Says whether two histograms are equal: layout and populations, empty buckets aside, but not the reset hint.
pub(crate) fn equals(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    let same = |x: f64, y: f64| x.to_bits() == y.to_bits();
    let side = |spans_a, buckets_a, spans_b, buckets_b| {
        let full = |spans, buckets| indexed(spans, buckets).filter(|(_, n)| *n != 0.0);
        full(spans_a, buckets_a)
            .map(|(i, n)| (i, n.to_bits()))
            .eq(full(spans_b, buckets_b).map(|(i, n)| (i, n.to_bits())))
    };
    a.schema == b.schema
        && same(a.count, b.count)
        && same(a.sum, b.sum)
        && (!a.uses_custom_buckets() || bounds_match(&a.custom_values, &b.custom_values))
        && same(a.zero_threshold, b.zero_threshold)
        && same(a.zero_count, b.zero_count)
        && side(&a.positive_spans, &a.positive_buckets, &b.positive_spans, &b.positive_buckets)
        && side(&a.negative_spans, &a.negative_buckets, &b.negative_spans, &b.negative_buckets)
}

pub(crate) fn bounds_match(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits())
}

/// Returns the bounds that stand in both lists, which ascend.
fn common_bounds(a: &[f64], b: &[f64]) -> Vec<f64> {
    let mut rest = b.iter().peekable();
    let mut common = Vec::with_capacity(a.len().min(b.len()));
    for bound in a {
        while rest.next_if(|other| **other < *bound).is_some() {}
        if rest.next_if(|other| **other == *bound).is_some() {
            common.push(*bound);
        }
    }
    common
}

/// Returns the index among `common` bounds that a bucket of a layout with more bounds falls into.
fn index_among(common: &[f64], bounds: &[f64], index: i32) -> i32 {
    let upper = usize::try_from(index).ok().and_then(|i| bounds.get(i));
    let target = upper.map_or(common.len(), |upper| common.partition_point(|bound| bound < upper));
    i32::try_from(target).unwrap_or(i32::MAX)
}

/// Prints a histogram as Prometheus does in `count_values`.
pub fn text(h: &FloatHistogram) -> String {
    let mut out = format!("{{count:{}, sum:{}", format_general(h.count), format_general(h.sum));
    for bucket in h.buckets().iter().filter(|b| b.count != 0.0) {
        let (open, close) = (
            if bucket.is_lower_inclusive { '[' } else { '(' },
            if bucket.is_upper_inclusive { ']' } else { ')' },
        );
        let [lower, upper, count] = [bucket.lower, bucket.upper, bucket.count].map(format_general);
        write!(out, ", {open}{lower},{upper}{close}:{count}").expect("writing to a string");
    }
    out.push('}');
    out
}

/// How many samples a histogram counts for: its size in samples of 16 bytes each.
pub(crate) fn size(h: &FloatHistogram) -> usize {
    /// What a histogram takes without its spans and buckets.
    const FIXED_BYTES: usize = 168;
    const SPAN_BYTES: usize = 8;
    const NUMBER_BYTES: usize = 8;
    let spans = h.positive_spans.len() + h.negative_spans.len();
    let numbers = h.positive_buckets.len() + h.negative_buckets.len() + h.custom_values.len();
    (FIXED_BYTES + SPAN_BYTES * spans + NUMBER_BYTES * numbers + 8) / 16
}

#[cfg(test)]
mod tests;
