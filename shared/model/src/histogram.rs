//! Native histograms: exponential (schema -4 to 8) and custom buckets (schema -53), of integers and of floats.
//!
//! Integer histograms are kept as they were received (deltas between buckets); everything that computes works on
//! [`FloatHistogram`], whose populations are absolute. Arithmetic lives in `promql-engine`.

mod order;
mod resolution;

use std::cmp::Ordering;
use std::sync::Arc;

/// The schema of histograms with custom bucket boundaries.
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;
/// The coarsest exponential schema.
pub const SCHEMA_MIN: i32 = -4;
/// The finest exponential schema.
pub const SCHEMA_MAX: i32 = 8;

/// A run of consecutive buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// Gap to the end of the previous span, or for the first span the index of the first bucket.
    pub offset: i32,
    /// Number of buckets.
    pub length: u32,
}

/// What is known about counter resets between a histogram and the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CounterResetHint {
    /// Has to be found by comparing.
    #[default]
    Unknown,
    /// A reset happened.
    Reset,
    /// No reset happened.
    NotReset,
    /// A gauge: resets have no meaning.
    Gauge,
}

/// A histogram whose populations are integers.
#[derive(Debug, Clone, PartialEq)]
pub struct IntegerHistogram {
    /// Reset hint.
    pub counter_reset_hint: CounterResetHint,
    /// -4 to 8, or -53.
    pub schema: i32,
    /// Width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: u64,
    /// Observations in all.
    pub count: u64,
    /// Sum of the observations.
    pub sum: f64,
    /// Layout of the positive buckets (all buckets with custom boundaries).
    pub positive_spans: Vec<Span>,
    /// Layout of the negative buckets.
    pub negative_spans: Vec<Span>,
    /// The first positive population, then differences to the bucket before.
    pub positive_deltas: Vec<i64>,
    /// The same for negative buckets.
    pub negative_deltas: Vec<i64>,
    /// Upper bounds for schema -53, ascending, without +Inf.
    pub custom_values: Arc<[f64]>,
}

/// A histogram whose populations are floats, absolute per bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct FloatHistogram {
    /// Reset hint.
    pub counter_reset_hint: CounterResetHint,
    /// -4 to 8, or -53.
    pub schema: i32,
    /// Width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// Observations in all.
    pub count: f64,
    /// Sum of the observations.
    pub sum: f64,
    /// Layout of the positive buckets (all buckets with custom boundaries).
    pub positive_spans: Vec<Span>,
    /// Layout of the negative buckets.
    pub negative_spans: Vec<Span>,
    /// Populations of the positive buckets.
    pub positive_buckets: Vec<f64>,
    /// Populations of the negative buckets.
    pub negative_buckets: Vec<f64>,
    /// Upper bounds for schema -53, ascending, without +Inf.
    pub custom_values: Arc<[f64]>,
}

impl Default for FloatHistogram {
    fn default() -> Self {
        Self {
            counter_reset_hint: CounterResetHint::Unknown,
            schema: 0,
            zero_threshold: 0.0,
            zero_count: 0.0,
            count: 0.0,
            sum: 0.0,
            positive_spans: Vec::new(),
            negative_spans: Vec::new(),
            positive_buckets: Vec::new(),
            negative_buckets: Vec::new(),
            custom_values: Arc::from([]),
        }
    }
}

impl Default for IntegerHistogram {
    fn default() -> Self {
        Self {
            counter_reset_hint: CounterResetHint::Unknown,
            schema: 0,
            zero_threshold: 0.0,
            zero_count: 0,
            count: 0,
            sum: 0.0,
            positive_spans: Vec::new(),
            negative_spans: Vec::new(),
            positive_deltas: Vec::new(),
            negative_deltas: Vec::new(),
            custom_values: Arc::from([]),
        }
    }
}

/// A native histogram of either sort, as it was received.
#[derive(Debug, Clone, PartialEq)]
pub enum Histogram {
    /// Integer populations.
    Integer(IntegerHistogram),
    /// Float populations.
    Float(FloatHistogram),
}

/// A histogram that breaks a rule of its format, in Prometheus's words.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HistogramError {
    /// Spans and buckets disagree.
    #[error(
        "{side} side: spans need {spans} buckets, have {buckets} buckets: histogram spans specify different number of buckets than provided"
    )]
    SpansBucketsMismatch {
        /// `positive` or `negative`.
        side: &'static str,
        /// Buckets that the spans need.
        spans: usize,
        /// Buckets that are there.
        buckets: usize,
    },
    /// A span other than the first starts before the one before it ends.
    #[error(
        "{side} side: span number {index} with offset {offset}: histogram has a span whose offset is negative"
    )]
    SpanNegativeOffset {
        /// `positive` or `negative`.
        side: &'static str,
        /// 1-based number of the span.
        index: usize,
        /// Its offset.
        offset: i32,
    },
    /// A population is below zero.
    #[error(
        "{side} side: bucket number {index} has observation count of {count}: histogram has a bucket whose observation count is negative"
    )]
    NegativeBucketCount {
        /// `positive` or `negative`.
        side: &'static str,
        /// 1-based number of the bucket.
        index: usize,
        /// Its population.
        count: f64,
    },
    /// The count is not the sum of the buckets.
    #[error(
        "{observed} observations found in buckets, but the Count field is {count}: histogram's observation count should equal the number of observations found in the buckets (in absence of NaN)"
    )]
    CountMismatch {
        /// What the buckets add up to.
        observed: u64,
        /// The count field.
        count: u64,
    },
    /// The count is less than the buckets hold.
    #[error(
        "{observed} observations found in buckets, but the Count field is {count}: histogram's observation count should be at least the number of observations found in the buckets"
    )]
    CountNotBigEnough {
        /// What the buckets add up to.
        observed: u64,
        /// The count field.
        count: u64,
    },
    /// Custom boundaries that are not ascending, or an infinite one.
    #[error("histogram custom bounds must be in strictly increasing order")]
    CustomBoundsInvalid,
    /// Fewer custom boundaries than the buckets need.
    #[error(
        "only {have} custom bounds defined which is insufficient to cover total span length of {need}: histogram custom bounds are too few"
    )]
    CustomBoundsMismatch {
        /// Boundaries there are.
        have: usize,
        /// Buckets that the spans cover.
        need: usize,
    },
    /// Custom buckets together with a zero bucket or negative buckets.
    #[error("custom buckets: must have zero count, zero threshold and negative buckets of 0")]
    CustomBucketsWithZeroOrNegative,
    /// Boundaries on an exponential histogram.
    #[error("histogram with exponential schema must not have custom bounds")]
    ExponentialWithCustomBounds,
    /// A schema outside of -4 to 8 that is not -53.
    #[error(
        "histogram has an invalid schema {0}, which must be between -4 and 8 for exponential buckets, or -53 for custom buckets"
    )]
    InvalidSchema(i32),
}

impl Histogram {
    /// The sum of the observations; the staleness marker's bits in a marker.
    #[must_use]
    pub fn sum(&self) -> f64 {
        match self {
            Self::Integer(h) => h.sum,
            Self::Float(h) => h.sum,
        }
    }

    /// The reset hint.
    #[must_use]
    pub fn counter_reset_hint(&self) -> CounterResetHint {
        match self {
            Self::Integer(h) => h.counter_reset_hint,
            Self::Float(h) => h.counter_reset_hint,
        }
    }

    /// Returns the histogram with absolute float populations.
    #[must_use]
    pub fn to_float(&self) -> FloatHistogram {
        match self {
            Self::Float(h) => h.clone(),
            Self::Integer(h) => h.to_float(),
        }
    }

    /// Compares by bits, in a total order: equal means equal bit for bit.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Ordering {
        order::compare(self, other)
    }

    /// Compares bit for bit, NaN payloads included.
    #[must_use]
    pub fn bit_eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a.bit_eq(b),
            (Self::Float(a), Self::Float(b)) => a.bit_eq(b),
            _ => false,
        }
    }

    /// Checks the rules that storage relies on.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), HistogramError> {
        match self {
            Self::Integer(h) => h.validate(),
            Self::Float(h) => h.validate(),
        }
    }
}

fn bits_eq(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits())
}

impl IntegerHistogram {
    /// Returns the histogram with absolute float populations.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "as Prometheus does; counts above 2^53 are rounded")]
    pub fn to_float(&self) -> FloatHistogram {
        let absolute = |deltas: &[i64]| {
            let mut population = 0_i64;
            deltas
                .iter()
                .map(|d| {
                    population = population.wrapping_add(*d);
                    population as f64
                })
                .collect()
        };
        FloatHistogram {
            counter_reset_hint: self.counter_reset_hint,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count as f64,
            count: self.count as f64,
            sum: self.sum,
            positive_spans: self.positive_spans.clone(),
            negative_spans: self.negative_spans.clone(),
            positive_buckets: absolute(&self.positive_deltas),
            negative_buckets: absolute(&self.negative_deltas),
            custom_values: Arc::clone(&self.custom_values),
        }
    }

    /// Compares bit for bit, NaN payloads included.
    #[must_use]
    pub fn bit_eq(&self, other: &Self) -> bool {
        self.counter_reset_hint == other.counter_reset_hint
            && self.schema == other.schema
            && self.zero_threshold.to_bits() == other.zero_threshold.to_bits()
            && self.zero_count == other.zero_count
            && self.count == other.count
            && self.sum.to_bits() == other.sum.to_bits()
            && self.positive_spans == other.positive_spans
            && self.negative_spans == other.negative_spans
            && self.positive_deltas == other.positive_deltas
            && self.negative_deltas == other.negative_deltas
            && bits_eq(&self.custom_values, &other.custom_values)
    }

    fn validate(&self) -> Result<(), HistogramError> {
        check_layout(
            self.schema,
            &self.custom_values,
            [
                (&self.positive_spans, self.positive_deltas.len()),
                (&self.negative_spans, self.negative_deltas.len()),
            ],
            self.zero_count != 0 || self.zero_threshold != 0.0,
        )?;
        let positive = sum_of_deltas("positive", &self.positive_deltas)?;
        let negative = sum_of_deltas("negative", &self.negative_deltas)?;
        let observed = positive.wrapping_add(negative).wrapping_add(self.zero_count);
        // Observations of NaN are in no bucket, but make the sum NaN.
        if self.sum.is_nan() {
            if observed > self.count {
                return Err(HistogramError::CountNotBigEnough { observed, count: self.count });
            }
        } else if observed != self.count {
            return Err(HistogramError::CountMismatch { observed, count: self.count });
        }
        Ok(())
    }
}

/// One bucket with its boundaries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// Lower boundary.
    pub lower: f64,
    /// Upper boundary.
    pub upper: f64,
    /// Whether an observation equal to the lower boundary is in it.
    pub is_lower_inclusive: bool,
    /// Whether an observation equal to the upper boundary is in it.
    pub is_upper_inclusive: bool,
    /// Observations.
    pub count: f64,
}

/// Returns the upper boundary of the positive bucket with an index under an exponential schema, to the bit as Prometheus
/// has it (`model/histogram`).
///
/// The last bucket of numbers ends at the greatest of them: what is infinite is counted in the next.
#[must_use]
pub fn exponential_bound(schema: i32, index: i32) -> f64 {
    // The boundary is 2^(index / 2^schema).
    let fraction_bits = schema.clamp(0, 30);
    let octave = match schema {
        0.. => i64::from(index >> fraction_bits),
        _ => i64::from(index) << schema.unsigned_abs().min(31),
    };
    let mut fraction = 1.0;
    // The bounds of a schema halve the buckets of the one before: each is the lower end times a root of two.
    for bit in (0..fraction_bits).rev().filter(|bit| index >> bit & 1 == 1) {
        let halvings = fraction_bits - bit;
        fraction *=
            if halvings == 1 { 2.0 / std::f64::consts::SQRT_2 } else { f64::from(-halvings).exp2().exp2() };
    }
    if (octave, fraction) == (1_024, 1.0) {
        return f64::MAX;
    }
    scale_by_power_of_two(fraction, octave.clamp(-1_100, 1_100) as i32)
}

/// Multiplies by 2^power in two steps, so that neither factor overflows while the product is finite.
fn scale_by_power_of_two(x: f64, power: i32) -> f64 {
    let half = power / 2;
    x * f64::from(half).exp2() * f64::from(power - half).exp2()
}

impl FloatHistogram {
    /// Lists all buckets, from the most negative one over the zero bucket to the most positive one, empty ones
    /// included; the zero bucket only when it holds something.
    #[must_use]
    pub fn buckets(&self) -> Vec<Bucket> {
        let is_custom = self.uses_custom_buckets();
        let mut all: Vec<Bucket> = indexed(&self.negative_spans, &self.negative_buckets)
            .map(|(index, count)| Bucket {
                lower: -exponential_bound(self.schema, index),
                upper: -exponential_bound(self.schema, index.saturating_sub(1)),
                is_lower_inclusive: true,
                is_upper_inclusive: false,
                count,
            })
            .collect();
        all.reverse();
        if self.zero_count != 0.0 {
            all.push(Bucket {
                lower: -self.zero_threshold,
                upper: self.zero_threshold,
                is_lower_inclusive: true,
                is_upper_inclusive: true,
                count: self.zero_count,
            });
        }
        all.extend(indexed(&self.positive_spans, &self.positive_buckets).map(|(index, count)| {
            let bound = |i: i32| {
                if is_custom { self.custom_bound(i) } else { exponential_bound(self.schema, i) }
            };
            let lower = bound(index.saturating_sub(1));
            Bucket {
                lower,
                upper: bound(index),
                // The first custom bucket reaches down to and includes -Inf.
                is_lower_inclusive: lower == f64::NEG_INFINITY,
                is_upper_inclusive: true,
                count,
            }
        }));
        all
    }

    /// The upper boundary of a custom bucket: -Inf below the first, +Inf above the last.
    fn custom_bound(&self, index: i32) -> f64 {
        match usize::try_from(index) {
            Ok(i) => self.custom_values.get(i).copied().unwrap_or(f64::INFINITY),
            Err(_) => f64::NEG_INFINITY,
        }
    }

    /// Says whether the buckets have custom boundaries.
    #[must_use]
    pub fn uses_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    /// Compares bit for bit, NaN payloads included.
    #[must_use]
    pub fn bit_eq(&self, other: &Self) -> bool {
        self.counter_reset_hint == other.counter_reset_hint
            && self.schema == other.schema
            && self.zero_threshold.to_bits() == other.zero_threshold.to_bits()
            && self.zero_count.to_bits() == other.zero_count.to_bits()
            && self.count.to_bits() == other.count.to_bits()
            && self.sum.to_bits() == other.sum.to_bits()
            && self.positive_spans == other.positive_spans
            && self.negative_spans == other.negative_spans
            && bits_eq(&self.positive_buckets, &other.positive_buckets)
            && bits_eq(&self.negative_buckets, &other.negative_buckets)
            && bits_eq(&self.custom_values, &other.custom_values)
    }

    fn validate(&self) -> Result<(), HistogramError> {
        check_layout(
            self.schema,
            &self.custom_values,
            [
                (&self.positive_spans, self.positive_buckets.len()),
                (&self.negative_spans, self.negative_buckets.len()),
            ],
            self.zero_count != 0.0 || self.zero_threshold != 0.0,
        )?;
        for (side, buckets) in [("positive", &self.positive_buckets), ("negative", &self.negative_buckets)] {
            if let Some(i) = buckets.iter().position(|b| *b < 0.0) {
                return Err(HistogramError::NegativeBucketCount { side, index: i + 1, count: buckets[i] });
            }
        }
        Ok(())
    }
}

/// Walks buckets with their indexes.
fn indexed<'a>(spans: &'a [Span], buckets: &'a [f64]) -> impl Iterator<Item = (i32, f64)> + 'a {
    let mut next = 0_i32;
    let indexes = spans.iter().flat_map(move |span| {
        let start = next.saturating_add(span.offset);
        let length = i32::try_from(span.length).unwrap_or(i32::MAX);
        next = start.saturating_add(length);
        start..next
    });
    indexes.zip(buckets.iter().copied())
}

fn sum_of_deltas(side: &'static str, deltas: &[i64]) -> Result<u64, HistogramError> {
    let mut population = 0_i64;
    let mut total = 0_u64;
    for (i, delta) in deltas.iter().enumerate() {
        population = population.wrapping_add(*delta);
        #[expect(clippy::cast_precision_loss, reason = "only shown in the message")]
        let bad = HistogramError::NegativeBucketCount { side, index: i + 1, count: population as f64 };
        total = total.wrapping_add(u64::try_from(population).map_err(|_| bad)?);
    }
    Ok(total)
}

fn check_layout(
    schema: i32,
    custom_values: &[f64],
    sides: [(&[Span], usize); 2],
    has_zero_bucket: bool,
) -> Result<(), HistogramError> {
    for (name, (spans, buckets)) in ["positive", "negative"].into_iter().zip(sides) {
        check_spans(name, spans, buckets)?;
    }
    if schema == CUSTOM_BUCKETS_SCHEMA {
        let is_ascending = custom_values.windows(2).all(|w| w[0] < w[1]);
        let is_finite = custom_values.iter().all(|b| !b.is_nan() && *b != f64::INFINITY);
        if !is_ascending || !is_finite {
            return Err(HistogramError::CustomBoundsInvalid);
        }
        let (positive, _) = sides[0];
        let need = positive.iter().fold(0_i64, |n, s| n + i64::from(s.offset) + i64::from(s.length));
        let need = usize::try_from(need).unwrap_or(0);
        if need > custom_values.len() + 1 {
            return Err(HistogramError::CustomBoundsMismatch { have: custom_values.len(), need });
        }
        if has_zero_bucket || !sides[1].0.is_empty() || sides[1].1 > 0 {
            return Err(HistogramError::CustomBucketsWithZeroOrNegative);
        }
    } else if !(SCHEMA_MIN..=SCHEMA_MAX).contains(&schema) {
        return Err(HistogramError::InvalidSchema(schema));
    } else if !custom_values.is_empty() {
        return Err(HistogramError::ExponentialWithCustomBounds);
    }
    Ok(())
}

fn check_spans(side: &'static str, spans: &[Span], buckets: usize) -> Result<(), HistogramError> {
    if let Some(i) = spans.iter().skip(1).position(|s| s.offset < 0) {
        return Err(HistogramError::SpanNegativeOffset { side, index: i + 2, offset: spans[i + 1].offset });
    }
    let needed = spans.iter().fold(0_usize, |n, s| n.saturating_add(s.length as usize));
    if needed == buckets {
        Ok(())
    } else {
        Err(HistogramError::SpansBucketsMismatch { side, spans: needed, buckets })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn integer() -> IntegerHistogram {
        IntegerHistogram {
            count: 8,
            zero_count: 1,
            zero_threshold: 0.001,
            sum: 12.5,
            positive_spans: vec![Span { offset: 0, length: 2 }, Span { offset: 1, length: 1 }],
            positive_deltas: vec![1, 1, 2],
            ..IntegerHistogram::default()
        }
    }

    #[test]
    fn deltas_become_absolute_populations() {
        let float = Histogram::Integer(integer()).to_float();
        assert_eq!(float.positive_buckets, [1.0, 2.0, 4.0]);
        assert_eq!((float.count, float.zero_count), (8.0, 1.0));
        assert_eq!(Histogram::Integer(integer()).validate(), Ok(()));
    }

    #[test]
    fn boundaries_are_powers_of_the_base() {
        for (schema, index, expected) in [
            (0, 0, 1.0),
            (0, 3, 8.0),
            (0, -3, 0.125),
            // These as Prometheus 3.5 prints them.
            (1, 1, 14.142_135_623_730_95 / 10.0),
            (2, -1, 0.840_896_415_253_714_4),
            (3, -1, 0.917_004_043_204_671_1),
            (3, -129, 0.000_013_992_371_264_719_713),
            (4, 7, 2.0 * 0.677_127_773_468_446_3),
            (8, 1, 2.0 * 0.501_355_637_525_101_3),
            (1, 2, 2.0),
            (1, -1, 7.071_067_811_865_475 / 10.0),
            (-1, 2, 16.0),
            (-4, 1, 65_536.0),
            (8, 256, 2.0),
            (8, -256 * 1_074, f64::from_bits(1)),
            (0, 1_024, f64::MAX),
            (-4, 64, f64::MAX),
            (8, 256 * 1_024, f64::MAX),
            (0, 1_025, f64::INFINITY),
            (8, 256 * 1_024 + 1, f64::INFINITY),
            (-4, i32::MAX, f64::INFINITY),
            (0, -1_074, f64::from_bits(1)),
        ] {
            assert_eq!(exponential_bound(schema, index), expected, "schema {schema}, index {index}");
        }
    }

    #[test]
    fn buckets_come_in_ascending_order() {
        let custom = FloatHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            positive_spans: vec![Span { offset: 0, length: 1 }, Span { offset: 1, length: 1 }],
            positive_buckets: vec![1.0, 2.0],
            custom_values: Arc::from([5.0, 10.0]),
            ..FloatHistogram::default()
        };
        let bounds: Vec<_> =
            custom.buckets().iter().map(|b| (b.lower, b.upper, b.is_lower_inclusive)).collect();
        assert_eq!(bounds, [(f64::NEG_INFINITY, 5.0, true), (10.0, f64::INFINITY, false)]);
        let mut both = Histogram::Integer(integer()).to_float();
        both.negative_spans = vec![Span { offset: 0, length: 2 }];
        both.negative_buckets = vec![1.0, 2.0];
        let uppers: Vec<f64> = both.buckets().iter().map(|b| b.upper).collect();
        assert_eq!(uppers, [-1.0, -0.5, 0.001, 1.0, 2.0, 8.0]);
    }

    #[test]
    fn broken_histograms_are_named() {
        let check = |change: fn(&mut IntegerHistogram)| {
            let mut h = integer();
            change(&mut h);
            Histogram::Integer(h).validate().expect_err("broken").to_string()
        };
        assert!(check(|h| h.count = 9).contains("observation count should equal"));
        assert!(check(|h| h.positive_deltas.push(1)).contains("spans need 3 buckets, have 4"));
        assert!(check(|h| h.positive_deltas[1] = -2).contains("bucket number 2 has observation count of -1"));
        assert!(check(|h| h.positive_spans[1].offset = -1).contains("span number 2 with offset -1"));
        assert!(check(|h| h.schema = 9).contains("invalid schema 9"));
        assert!(check(|h| h.custom_values = Arc::from([1.0])).contains("must not have custom bounds"));
        assert!(check(|h| h.schema = CUSTOM_BUCKETS_SCHEMA).contains("custom bounds are too few"));
        assert!(
            check(|h| {
                h.schema = CUSTOM_BUCKETS_SCHEMA;
                h.custom_values = Arc::from([1.0, 1.0, 2.0]);
            })
            .contains("strictly increasing")
        );
        assert!(
            check(|h| {
                h.schema = CUSTOM_BUCKETS_SCHEMA;
                h.custom_values = Arc::from([1.0, 2.0, 3.0]);
            })
            .contains("must have zero count")
        );
        let nan = IntegerHistogram { sum: f64::NAN, count: 9, ..integer() };
        assert_eq!(Histogram::Integer(nan).validate(), Ok(()), "an observed NaN is in no bucket");
    }
}
