//! Histogram points to native histograms.
//!
//! OTLP's exponential bucket `i` holds `(base^i, base^(i+1)]`; the native histogram's bucket `i` ends at `base^i`.
//! So indexes are raised by one. A scale above 8 is reduced by merging: halving the scale merges the buckets whose
//! indexes are equal after a shift to the right, which is why no bound moves.

use model::histogram::{CUSTOM_BUCKETS_SCHEMA, SCHEMA_MAX, SCHEMA_MIN};
use model::{CounterResetHint, Histogram, IntegerHistogram, Span, stale_nan};
use opentelemetry_proto::tonic::metrics::v1 as otlp;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;

use crate::labels::Fault;
use crate::rejections::Reason;
use crate::settings::Limits;

/// The zero bucket's width, whatever the sender's is: the reference does not read it.
const ZERO_THRESHOLD: f64 = 1e-128;
/// A gap of at most so many empty buckets is filled rather than starting a new span.
const GAP_MAX: i64 = 2;

/// The marker for a series of histograms that has no value any more.
pub(crate) fn stale() -> Histogram {
    Histogram::Integer(IntegerHistogram { sum: stale_nan(), ..IntegerHistogram::default() })
}

/// Converts an exponential point.
pub(crate) fn exponential(
    point: &otlp::ExponentialHistogramDataPoint,
    limits: &Limits,
) -> Result<Histogram, Fault> {
    if point.scale < SCHEMA_MIN {
        let text = format!(
            "cannot convert exponential to native histogram. Scale must be >= {SCHEMA_MIN}, was {}",
            point.scale
        );
        return Err(Fault::new(Reason::InvalidHistogram, text));
    }
    let schema = point.scale.min(SCHEMA_MAX);
    let shift = (point.scale - schema).min(63);
    let side = |buckets: Option<&Buckets>| {
        let Some(buckets) = buckets else { return Ok(Layout::default()) };
        let offset = i64::from(buckets.offset);
        layout(&buckets.bucket_counts, |i| ((offset + i) >> shift) + 1, limits)
    };
    let (positive, negative) = (side(point.positive.as_ref())?, side(point.negative.as_ref())?);
    checked(IntegerHistogram {
        // Whether a reset happened is found by comparing: a wrong hint would not be.
        counter_reset_hint: CounterResetHint::Unknown,
        schema,
        zero_threshold: ZERO_THRESHOLD,
        zero_count: point.zero_count,
        count: point.count,
        sum: point.sum.unwrap_or_default(),
        positive_spans: positive.spans,
        negative_spans: negative.spans,
        positive_deltas: positive.deltas,
        negative_deltas: negative.deltas,
        ..IntegerHistogram::default()
    })
}

/// Converts a point with explicit bounds to custom buckets.
pub(crate) fn custom_buckets(point: &otlp::HistogramDataPoint, limits: &Limits) -> Result<Histogram, Fault> {
    check_bounds(point)?;
    // A point without buckets has one for everything.
    let whole = [point.count];
    let counts = if point.bucket_counts.is_empty() { &whole[..] } else { &point.bucket_counts };
    let layout = layout(counts, |i| i, limits)?;
    checked(IntegerHistogram {
        counter_reset_hint: CounterResetHint::Unknown,
        schema: CUSTOM_BUCKETS_SCHEMA,
        count: point.count,
        sum: point.sum.unwrap_or_default(),
        positive_spans: layout.spans,
        positive_deltas: layout.deltas,
        custom_values: point.explicit_bounds.as_slice().into(),
        ..IntegerHistogram::default()
    })
}

/// Checks that bounds ascend and that there is one bucket more than bounds, or none at all.
pub(crate) fn check_bounds(point: &otlp::HistogramDataPoint) -> Result<(), Fault> {
    let (bounds, counts) = (&point.explicit_bounds, point.bucket_counts.len());
    let fault = |text: String| Err(Fault::new(Reason::InvalidHistogram, text));
    if counts != 0 && counts != bounds.len() + 1 || counts == 0 && !bounds.is_empty() {
        return fault(format!("histogram with {} bounds and {counts} buckets", bounds.len()));
    }
    if !bounds.iter().all(|b| b.is_finite()) || !bounds.is_sorted_by(|a, b| a < b) {
        return fault(model::histogram::HistogramError::CustomBoundsInvalid.to_string());
    }
    Ok(())
}

fn checked(histogram: IntegerHistogram) -> Result<Histogram, Fault> {
    let histogram = Histogram::Integer(histogram);
    histogram.validate().map_err(|e| Fault::new(Reason::InvalidHistogram, e.to_string()))?;
    Ok(histogram)
}

#[derive(Debug, Default, PartialEq)]
struct Layout {
    spans: Vec<Span>,
    deltas: Vec<i64>,
}

impl Layout {
    fn push(&mut self, population: i64, before: &mut i64) {
        self.spans.last_mut().expect("a span was begun").length += 1;
        self.deltas.push(population - *before);
        *before = population;
    }
}

/// Lays dense buckets out as spans. `index` ascends; buckets of one index are merged, empty ones left out.
fn layout(counts: &[u64], index: impl Fn(i64) -> i64, limits: &Limits) -> Result<Layout, Fault> {
    let (given, max) = (counts.len(), limits.native_buckets);
    if given > max {
        return Err(Fault::new(
            Reason::Limit,
            format!("histogram with {given} buckets: at most {max} are allowed"),
        ));
    }
    let mut merged: Vec<(i64, u64)> = Vec::new();
    for (i, count) in (0..).zip(counts).filter(|(_, count)| **count > 0) {
        let index = index(i);
        match merged.last_mut() {
            Some((last, population)) if *last == index => *population = population.saturating_add(*count),
            _ => merged.push((index, *count)),
        }
    }
    let mut layout = Layout::default();
    let (mut next, mut before) = (0, 0);
    for (index, population) in merged {
        let out_of_range = || Fault::new(Reason::InvalidHistogram, "histogram with a bucket out of range");
        let population = i64::try_from(population).map_err(|_| out_of_range())?;
        i32::try_from(index).map_err(|_| out_of_range())?;
        let gap = index - next;
        if layout.spans.is_empty() || gap > GAP_MAX {
            let offset = i32::try_from(gap).map_err(|_| out_of_range())?;
            layout.spans.push(Span { offset, length: 0 });
        } else {
            for _ in 0..gap {
                layout.push(0, &mut before);
            }
        }
        layout.push(population, &mut before);
        next = index + 1;
    }
    Ok(layout)
}

#[cfg(test)]
mod tests;
