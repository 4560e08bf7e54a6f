//! Chunks of native histograms: the layout of the buckets once, then what changes from sample to sample.

use std::sync::Arc;

use model::histogram::{CUSTOM_BUCKETS_SCHEMA, SCHEMA_MAX, SCHEMA_MIN};
use model::{CounterResetHint, FloatHistogram, Histogram, IntegerHistogram, Span, is_stale};

use crate::bits::{Bits, Xor};
use crate::decoder::{SHORT, Short};

/// The bits of a chunk's third byte that say what is known of counter resets.
const RESET_MASK: u8 = 0b1100_0000;
const RESET: u8 = 0b1000_0000;
const GAUGE: u8 = 0b1100_0000;
/// A zero threshold of one byte is 2 to the power of it less 244; this makes it the exponent of a float.
const THRESHOLD_BIAS: u64 = 1023 - 244;

/// What all histograms of a chunk have in common.
struct Layout {
    resets: u8,
    schema: i32,
    zero_threshold: f64,
    positive_spans: Vec<Span>,
    negative_spans: Vec<Span>,
    custom_values: Arc<[f64]>,
    positive: usize,
    negative: usize,
}

impl Layout {
    fn read(resets: u8, bits: &mut Bits<'_>) -> Result<Self, String> {
        let zero_threshold = match bits.byte()? {
            0 => 0.0,
            255 => bits.float()?,
            exponent => f64::from_bits((u64::from(exponent) + THRESHOLD_BIAS) << 52),
        };
        let schema = bits.varbit_int()?;
        let schema = i32::try_from(schema)
            .ok()
            .filter(|s| (SCHEMA_MIN..=SCHEMA_MAX).contains(s) || *s == CUSTOM_BUCKETS_SCHEMA)
            .ok_or_else(|| format!("a histogram has schema {schema}"))?;
        let positive_spans = spans(bits)?;
        let negative_spans = spans(bits)?;
        let mut custom_values = Vec::new();
        if schema == CUSTOM_BUCKETS_SCHEMA {
            for _ in 0..count(bits)? {
                custom_values.push(custom_bound(bits)?);
            }
        }
        // Each bucket takes at least one bit of the first sample.
        let buckets = |spans: &[Span]| {
            let sum = spans.iter().try_fold(0_usize, |sum, span| sum.checked_add(span.length as usize));
            sum.filter(|n| *n <= bits.left()).ok_or(Short)
        };
        Ok(Self {
            resets: resets & RESET_MASK,
            schema,
            zero_threshold,
            positive: buckets(&positive_spans)?,
            negative: buckets(&negative_spans)?,
            positive_spans,
            negative_spans,
            custom_values: custom_values.into(),
        })
    }

    /// What is known of a reset in front of a histogram, by its number in the chunk.
    fn hint(&self, number: u16) -> CounterResetHint {
        match (self.resets, number) {
            (GAUGE, _) => CounterResetHint::Gauge,
            (_, 1..) => CounterResetHint::NotReset,
            (RESET, 0) => CounterResetHint::Reset,
            // The chunk before this one need not be there any more.
            (_, 0) => CounterResetHint::Unknown,
        }
    }
}

/// A count of things that each take at least one bit of what is left.
fn count(bits: &mut Bits<'_>) -> Result<usize, Short> {
    let count = bits.varbit_uint()?;
    usize::try_from(count).ok().filter(|n| *n <= bits.left()).ok_or(Short)
}

fn spans(bits: &mut Bits<'_>) -> Result<Vec<Span>, String> {
    let mut spans = Vec::new();
    for _ in 0..count(bits)? {
        let (length, offset) = (bits.varbit_uint()?, bits.varbit_int()?);
        match (u32::try_from(length), i32::try_from(offset)) {
            (Ok(length), Ok(offset)) => spans.push(Span { offset, length }),
            _ => return Err(SHORT.to_owned()),
        }
    }
    Ok(spans)
}

#[expect(clippy::cast_precision_loss, reason = "exact: what is larger is stored as a float")]
fn custom_bound(bits: &mut Bits<'_>) -> Result<f64, Short> {
    match bits.varbit_uint()? {
        0 => bits.float(),
        thousandths => Ok((thousandths - 1) as f64 / 1000.0),
    }
}

/// A time, or another number, of which the difference of differences is stored.
#[derive(Debug, Clone, Copy, Default)]
struct Delta {
    value: i64,
    delta: i64,
}

impl Delta {
    fn first(value: i64) -> Self {
        Self { value, delta: 0 }
    }

    fn read(&mut self, bits: &mut Bits<'_>) -> Result<(), Short> {
        self.delta = self.delta.wrapping_add(bits.varbit_int()?);
        self.value = self.value.wrapping_add(self.delta);
        Ok(())
    }
}

/// Checks a histogram and adds it.
fn add(time: i64, histogram: Histogram, into: &mut Vec<(i64, Histogram)>) -> Result<(), String> {
    histogram.validate().map_err(|e| e.to_string())?;
    into.push((time, histogram));
    Ok(())
}

pub(super) fn integers(count: u16, bytes: &[u8], into: &mut Vec<(i64, Histogram)>) -> Result<(), String> {
    let (resets, bytes) = bytes.split_first().ok_or(Short)?;
    if count == 0 {
        return Ok(());
    }
    let mut bits = Bits::new(bytes);
    let layout = Layout::read(*resets, &mut bits)?;
    let mut time = Delta::first(bits.varbit_int()?);
    let mut observed = Delta::first(bits.varbit_uint()?.cast_signed());
    let mut zero = Delta::first(bits.varbit_uint()?.cast_signed());
    let mut sum = Xor::new(bits.float()?);
    let mut first =
        |n: usize| (0..n).map(|_| bits.varbit_int().map(Delta::first)).collect::<Result<Vec<_>, _>>();
    let mut positive = first(layout.positive)?;
    let mut negative = first(layout.negative)?;
    for number in 0..count {
        if number > 0 {
            time.read(&mut bits)?;
            observed.read(&mut bits)?;
            zero.read(&mut bits)?;
            sum.read(&mut bits)?;
            // A staleness marker has no buckets.
            if !is_stale(sum.value()) {
                positive.iter_mut().chain(&mut negative).try_for_each(|bucket| bucket.read(&mut bits))?;
            }
        }
        let histogram = if is_stale(sum.value()) {
            IntegerHistogram { sum: sum.value(), ..IntegerHistogram::default() }
        } else {
            IntegerHistogram {
                counter_reset_hint: layout.hint(number),
                schema: layout.schema,
                zero_threshold: layout.zero_threshold,
                zero_count: zero.value.cast_unsigned(),
                count: observed.value.cast_unsigned(),
                sum: sum.value(),
                positive_spans: layout.positive_spans.clone(),
                negative_spans: layout.negative_spans.clone(),
                positive_deltas: positive.iter().map(|b| b.value).collect(),
                negative_deltas: negative.iter().map(|b| b.value).collect(),
                custom_values: Arc::clone(&layout.custom_values),
            }
        };
        add(time.value, Histogram::Integer(histogram), into)?;
    }
    Ok(())
}

pub(super) fn floats(count: u16, bytes: &[u8], into: &mut Vec<(i64, Histogram)>) -> Result<(), String> {
    let (resets, bytes) = bytes.split_first().ok_or(Short)?;
    if count == 0 {
        return Ok(());
    }
    let mut bits = Bits::new(bytes);
    let layout = Layout::read(*resets, &mut bits)?;
    let mut time = Delta::first(bits.varbit_int()?);
    let mut observed = Xor::new(bits.float()?);
    let mut zero = Xor::new(bits.float()?);
    let mut sum = Xor::new(bits.float()?);
    let mut first = |n: usize| (0..n).map(|_| bits.float().map(Xor::new)).collect::<Result<Vec<_>, _>>();
    let mut positive = first(layout.positive)?;
    let mut negative = first(layout.negative)?;
    for number in 0..count {
        if number > 0 {
            time.read(&mut bits)?;
            observed.read(&mut bits)?;
            zero.read(&mut bits)?;
            sum.read(&mut bits)?;
            if !is_stale(sum.value()) {
                positive.iter_mut().chain(&mut negative).try_for_each(|bucket| bucket.read(&mut bits))?;
            }
        }
        let histogram = if is_stale(sum.value()) {
            FloatHistogram { sum: sum.value(), ..FloatHistogram::default() }
        } else {
            FloatHistogram {
                counter_reset_hint: layout.hint(number),
                schema: layout.schema,
                zero_threshold: layout.zero_threshold,
                zero_count: zero.value(),
                count: observed.value(),
                sum: sum.value(),
                positive_spans: layout.positive_spans.clone(),
                negative_spans: layout.negative_spans.clone(),
                positive_buckets: positive.iter().map(Xor::value).collect(),
                negative_buckets: negative.iter().map(Xor::value).collect(),
                custom_values: Arc::clone(&layout.custom_values),
            }
        };
        add(time.value, Histogram::Float(histogram), into)?;
    }
    Ok(())
}
