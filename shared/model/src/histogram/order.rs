//! A total order of histograms by their bits: of two accounts of one sample the greater one stays.

use std::cmp::Ordering;

use super::{CounterResetHint, FloatHistogram, Histogram, IntegerHistogram, Span};

pub(super) fn compare(a: &Histogram, b: &Histogram) -> Ordering {
    match (a, b) {
        (Histogram::Integer(a), Histogram::Integer(b)) => compare_integer(a, b),
        (Histogram::Float(a), Histogram::Float(b)) => compare_float(a, b),
        (Histogram::Integer(_), Histogram::Float(_)) => Ordering::Less,
        (Histogram::Float(_), Histogram::Integer(_)) => Ordering::Greater,
    }
}

fn compare_integer(a: &IntegerHistogram, b: &IntegerHistogram) -> Ordering {
    (a.count, a.sum.to_bits(), a.schema, a.zero_count, a.zero_threshold.to_bits())
        .cmp(&(b.count, b.sum.to_bits(), b.schema, b.zero_count, b.zero_threshold.to_bits()))
        .then_with(|| compare_spans(&a.positive_spans, &b.positive_spans))
        .then_with(|| compare_spans(&a.negative_spans, &b.negative_spans))
        .then_with(|| a.positive_deltas.cmp(&b.positive_deltas))
        .then_with(|| a.negative_deltas.cmp(&b.negative_deltas))
        .then_with(|| compare_bits(&a.custom_values, &b.custom_values))
        .then_with(|| hint_rank(a.counter_reset_hint).cmp(&hint_rank(b.counter_reset_hint)))
}

fn compare_float(a: &FloatHistogram, b: &FloatHistogram) -> Ordering {
    let key = |h: &FloatHistogram| {
        (h.count.to_bits(), h.sum.to_bits(), h.schema, h.zero_count.to_bits(), h.zero_threshold.to_bits())
    };
    key(a)
        .cmp(&key(b))
        .then_with(|| compare_spans(&a.positive_spans, &b.positive_spans))
        .then_with(|| compare_spans(&a.negative_spans, &b.negative_spans))
        .then_with(|| compare_bits(&a.positive_buckets, &b.positive_buckets))
        .then_with(|| compare_bits(&a.negative_buckets, &b.negative_buckets))
        .then_with(|| compare_bits(&a.custom_values, &b.custom_values))
        .then_with(|| hint_rank(a.counter_reset_hint).cmp(&hint_rank(b.counter_reset_hint)))
}

fn compare_spans(a: &[Span], b: &[Span]) -> Ordering {
    a.iter().map(|s| (s.offset, s.length)).cmp(b.iter().map(|s| (s.offset, s.length)))
}

fn compare_bits(a: &[f64], b: &[f64]) -> Ordering {
    a.iter().map(|x| x.to_bits()).cmp(b.iter().map(|x| x.to_bits()))
}

fn hint_rank(hint: CounterResetHint) -> u8 {
    match hint {
        CounterResetHint::Unknown => 0,
        CounterResetHint::Reset => 1,
        CounterResetHint::NotReset => 2,
        CounterResetHint::Gauge => 3,
    }
}
