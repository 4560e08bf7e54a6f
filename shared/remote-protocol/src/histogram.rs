//! Native histograms between the wire and the model.
//!
//! The histogram of remote write 2.0 has the fields of that of 1.0 under the same numbers, and one more (its start
//! time, which is read apart), so one message serves both.

use model::{CounterResetHint, FloatHistogram, Histogram, IntegerHistogram, Span, Timestamp};
use prometheus_proto::prometheus as pb;
use prometheus_proto::prometheus::histogram::{Count, ResetHint, ZeroCount};

/// Converts a received histogram. Rules of its format are not checked here, see [`Histogram::validate`].
pub(crate) fn from_message(h: pb::Histogram) -> (Timestamp, Histogram) {
    let counter_reset_hint = match h.reset_hint() {
        ResetHint::Unknown => CounterResetHint::Unknown,
        ResetHint::Yes => CounterResetHint::Reset,
        ResetHint::No => CounterResetHint::NotReset,
        ResetHint::Gauge => CounterResetHint::Gauge,
    };
    let spans = |spans: &[pb::BucketSpan]| {
        spans.iter().map(|s| Span { offset: s.offset, length: s.length }).collect()
    };
    let (positive_spans, negative_spans) = (spans(&h.positive_spans), spans(&h.negative_spans));
    let histogram = if let Some(Count::CountFloat(count)) = h.count {
        let zero_count = match h.zero_count {
            Some(ZeroCount::ZeroCountFloat(n)) => n,
            _ => 0.0,
        };
        Histogram::Float(FloatHistogram {
            counter_reset_hint,
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            zero_count,
            count,
            sum: h.sum,
            positive_spans,
            negative_spans,
            positive_buckets: h.positive_counts,
            negative_buckets: h.negative_counts,
            custom_values: h.custom_values.into(),
        })
    } else {
        let count = match h.count {
            Some(Count::CountInt(n)) => n,
            _ => 0,
        };
        let zero_count = match h.zero_count {
            Some(ZeroCount::ZeroCountInt(n)) => n,
            _ => 0,
        };
        Histogram::Integer(IntegerHistogram {
            counter_reset_hint,
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            zero_count,
            count,
            sum: h.sum,
            positive_spans,
            negative_spans,
            positive_deltas: h.positive_deltas,
            negative_deltas: h.negative_deltas,
            custom_values: h.custom_values.into(),
        })
    };
    (Timestamp(h.timestamp), histogram.with_known_schema())
}

/// Converts a histogram to send.
pub(crate) fn to_message(timestamp: Timestamp, histogram: &Histogram) -> pb::Histogram {
    let spans = |spans: &[Span]| {
        spans.iter().map(|s| pb::BucketSpan { offset: s.offset, length: s.length }).collect::<Vec<_>>()
    };
    let reset_hint = match histogram.counter_reset_hint() {
        CounterResetHint::Unknown => ResetHint::Unknown,
        CounterResetHint::Reset => ResetHint::Yes,
        CounterResetHint::NotReset => ResetHint::No,
        CounterResetHint::Gauge => ResetHint::Gauge,
    };
    let common = pb::Histogram {
        sum: histogram.sum(),
        reset_hint: reset_hint.into(),
        timestamp: timestamp.millis(),
        ..Default::default()
    };
    match histogram {
        Histogram::Integer(h) => pb::Histogram {
            count: Some(Count::CountInt(h.count)),
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            zero_count: Some(ZeroCount::ZeroCountInt(h.zero_count)),
            negative_spans: spans(&h.negative_spans),
            negative_deltas: h.negative_deltas.clone(),
            positive_spans: spans(&h.positive_spans),
            positive_deltas: h.positive_deltas.clone(),
            custom_values: h.custom_values.to_vec(),
            ..common
        },
        Histogram::Float(h) => pb::Histogram {
            count: Some(Count::CountFloat(h.count)),
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            zero_count: Some(ZeroCount::ZeroCountFloat(h.zero_count)),
            negative_spans: spans(&h.negative_spans),
            negative_counts: h.negative_buckets.clone(),
            positive_spans: spans(&h.positive_spans),
            positive_counts: h.positive_buckets.clone(),
            custom_values: h.custom_values.to_vec(),
            ..common
        },
    }
}

#[cfg(test)]
mod tests;
