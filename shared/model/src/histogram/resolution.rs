//! Native histograms of a lower resolution.

use std::ops::AddAssign;

use super::{FloatHistogram, Histogram, IntegerHistogram, SCHEMA_MAX, SCHEMA_MIN, Span};

/// The finest schema that a sender may use; above [`SCHEMA_MAX`] the resolution is reduced on the way in.
const SENDER_SCHEMA_MAX: i32 = 52;

impl Histogram {
    /// The schema.
    #[must_use]
    pub fn schema(&self) -> i32 {
        match self {
            Self::Integer(h) => h.schema,
            Self::Float(h) => h.schema,
        }
    }

    /// Number of buckets that are written out, empty ones among them; without the zero bucket.
    #[must_use]
    pub fn bucket_count(&self) -> usize {
        match self {
            Self::Integer(h) => h.positive_deltas.len() + h.negative_deltas.len(),
            Self::Float(h) => h.positive_buckets.len() + h.negative_buckets.len(),
        }
    }

    /// Reduces a schema that senders may use and nobody stores (9 to 52) to the finest that is stored.
    #[must_use]
    pub fn with_known_schema(self) -> Self {
        if self.schema() <= SENDER_SCHEMA_MAX { self.reduced(SCHEMA_MAX) } else { self }
    }

    /// Reduces the resolution to an exponential schema. What is not finer, or breaks a rule of its format, stays as
    /// it is.
    #[must_use]
    pub fn reduced(self, schema: i32) -> Self {
        match self {
            Self::Integer(h) => Self::Integer(reduce_integer(h, schema)),
            Self::Float(h) => Self::Float(reduce_float(h, schema)),
        }
    }
}

/// By how many steps a schema is finer than another; `None` when it is not, or has no exponential buckets.
fn steps(from: i32, to: i32) -> Option<u32> {
    (from > to && to >= SCHEMA_MIN).then(|| from.abs_diff(to))
}

fn reduce_float(mut h: FloatHistogram, schema: i32) -> FloatHistogram {
    let Some(by) = steps(h.schema, schema) else { return h };
    let positive = merge_buckets(&h.positive_spans, &h.positive_buckets, by);
    let negative = merge_buckets(&h.negative_spans, &h.negative_buckets, by);
    if let (Some(positive), Some(negative)) = (positive, negative) {
        (h.positive_spans, h.positive_buckets) = positive;
        (h.negative_spans, h.negative_buckets) = negative;
        h.schema = schema;
    }
    h
}

fn reduce_integer(mut h: IntegerHistogram, schema: i32) -> IntegerHistogram {
    let Some(by) = steps(h.schema, schema) else { return h };
    let merge = |spans: &[Span], deltas: &[i64]| {
        let (spans, populations) = merge_buckets(spans, &from_deltas(deltas), by)?;
        Some((spans, to_deltas(&populations)))
    };
    let positive = merge(&h.positive_spans, &h.positive_deltas);
    let negative = merge(&h.negative_spans, &h.negative_deltas);
    if let (Some(positive), Some(negative)) = (positive, negative) {
        (h.positive_spans, h.positive_deltas) = positive;
        (h.negative_spans, h.negative_deltas) = negative;
        h.schema = schema;
    }
    h
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
