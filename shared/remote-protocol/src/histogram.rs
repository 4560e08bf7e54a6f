//! Native histograms between the wire and the model.
//!
//! The histogram of remote write 2.0 has the fields of that of 1.0 under the same numbers, and one more (its start
//! time, which is read apart), so one message serves both.

use std::ops::AddAssign;

use model::histogram::SCHEMA_MAX;
use model::{CounterResetHint, FloatHistogram, Histogram, IntegerHistogram, Span, Timestamp};
use prometheus_proto::prometheus as pb;
use prometheus_proto::prometheus::histogram::{Count, ResetHint, ZeroCount};

/// The finest schema that a sender may use; above [`SCHEMA_MAX`] the resolution is reduced on the way in.
const SENDER_SCHEMA_MAX: i32 = 52;

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
        reduce_float(FloatHistogram {
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
        reduce_integer(IntegerHistogram {
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
    (Timestamp(h.timestamp), histogram)
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

fn is_too_fine(schema: i32) -> bool {
    schema > SCHEMA_MAX && schema <= SENDER_SCHEMA_MAX
}

fn reduce_float(mut h: FloatHistogram) -> Histogram {
    if is_too_fine(h.schema) {
        let by = h.schema.abs_diff(SCHEMA_MAX);
        let positive = merge_buckets(&h.positive_spans, &h.positive_buckets, by);
        let negative = merge_buckets(&h.negative_spans, &h.negative_buckets, by);
        if let (Some(positive), Some(negative)) = (positive, negative) {
            (h.positive_spans, h.positive_buckets) = positive;
            (h.negative_spans, h.negative_buckets) = negative;
            h.schema = SCHEMA_MAX;
        }
    }
    Histogram::Float(h)
}

fn reduce_integer(mut h: IntegerHistogram) -> Histogram {
    if is_too_fine(h.schema) {
        let by = h.schema.abs_diff(SCHEMA_MAX);
        let merge = |spans: &[Span], deltas: &[i64]| {
            let (spans, populations) = merge_buckets(spans, &from_deltas(deltas), by)?;
            Some((spans, to_deltas(&populations)))
        };
        let positive = merge(&h.positive_spans, &h.positive_deltas);
        let negative = merge(&h.negative_spans, &h.negative_deltas);
        if let (Some(positive), Some(negative)) = (positive, negative) {
            (h.positive_spans, h.positive_deltas) = positive;
            (h.negative_spans, h.negative_deltas) = negative;
            h.schema = SCHEMA_MAX;
        }
    }
    Histogram::Integer(h)
}

fn from_deltas(deltas: &[i64]) -> Vec<i64> {
    let mut population = 0_i64;
    deltas
        .iter()
        .map(|delta| {
            population = population.wrapping_add(*delta);
            population
        })
        .collect()
}

fn to_deltas(populations: &[i64]) -> Vec<i64> {
    let mut previous = 0_i64;
    populations
        .iter()
        .map(|population| population.wrapping_sub(std::mem::replace(&mut previous, *population)))
        .collect()
}

/// Lays buckets out at a schema lower by `by`. `None` when spans and buckets disagree, which the check for storage
/// then reports, or an index leaves the range.
///
/// Bucket `i` ends at 2^(i * 2^-schema), so two neighbours with an even upper index become one.
fn merge_buckets<T: Copy + AddAssign>(spans: &[Span], buckets: &[T], by: u32) -> Option<(Vec<Span>, Vec<T>)> {
    let mut merged: Vec<(i64, T)> = Vec::with_capacity(buckets.len());
    let mut rest = buckets.iter();
    let mut index = 0_i64;
    for span in spans {
        index += i64::from(span.offset);
        for _ in 0..span.length {
            let population = *rest.next()?;
            let target = ((index - 1) >> by) + 1;
            match merged.last_mut() {
                Some((at, sum)) if *at == target => *sum += population,
                Some((at, _)) if *at > target => return None,
                _ => merged.push((target, population)),
            }
            index += 1;
        }
    }
    if rest.next().is_some() {
        return None;
    }
    let mut out: Vec<Span> = Vec::new();
    let mut end = 0_i64;
    for (at, _) in &merged {
        match out.last_mut() {
            Some(span) if *at == end => span.length += 1,
            _ => out.push(Span { offset: i32::try_from(at - end).ok()?, length: 1 }),
        }
        end = at + 1;
    }
    Some((out, merged.into_iter().map(|(_, population)| population).collect()))
}

#[cfg(test)]
mod tests;
