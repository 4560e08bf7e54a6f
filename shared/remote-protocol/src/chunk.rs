//! Samples in the chunk encodings of Prometheus's storage (its `tsdb/docs/format/chunks.md`), as remote read streams them.
//!
//! Invariants:
//! - a chunk has one encoding, ascending times and at most [`SAMPLES_PER_CHUNK`] samples;
//! - a reader takes every histogram but the first of a chunk for one without a counter reset (or, where the header says
//!   so, for a gauge): wherever that would be wrong, or the layout of the buckets changes, the next chunk begins;
//! - a staleness marker among histograms has a chunk of its own, so that the layout of its neighbours is not touched.

use model::{CounterResetHint, FloatHistogram, Histogram, IntegerHistogram, Span, Timestamp, is_stale};
use prometheus_proto::prometheus as pb;
use prometheus_proto::prometheus::chunk::Encoding;

use crate::encode::SeriesOut;

mod bits;
use bits::{Bits, Xor};

/// Most samples of one chunk, as Prometheus cuts them.
const SAMPLES_PER_CHUNK: u16 = 120;
/// A chunk of histograms is closed once it has this size.
const CHUNK_BYTES_MAX: usize = 64 << 10;

/// The chunks of a series, made as its samples come.
#[derive(Debug, Default)]
pub(crate) struct Chunks(Option<Open>);

impl Chunks {
    /// Adds samples that are later than those before, floats and histograms in the order of their times; returns the
    /// chunks that are full.
    pub(crate) fn add(&mut self, samples: &SeriesOut) -> impl Iterator<Item = pb::Chunk> {
        let mut floats = samples.floats.iter().peekable();
        let mut histograms = samples.histograms.iter().peekable();
        std::iter::from_fn(move || {
            loop {
                let is_float = match (floats.peek(), histograms.peek()) {
                    (Some((f, _)), Some((h, _))) => f <= h,
                    (Some(_), None) => true,
                    (None, Some(_)) => false,
                    (None, None) => return None,
                };
                let full = if is_float {
                    floats.next().and_then(|(t, x)| Open::add(&mut self.0, *t, Sample::Float(*x)))
                } else {
                    histograms.next().and_then(|(t, h)| Open::add(&mut self.0, *t, Sample::of(h)))
                };
                if full.is_some() {
                    return full;
                }
            }
        })
    }

    /// Returns the last chunk; none where there were no samples.
    pub(crate) fn finish(self) -> Option<pb::Chunk> {
        self.0.map(Open::finish)
    }
}

#[derive(Clone, Copy)]
enum Sample<'a> {
    Float(f64),
    Integers(&'a IntegerHistogram),
    Floats(&'a FloatHistogram),
}

impl<'a> Sample<'a> {
    fn of(histogram: &'a Histogram) -> Self {
        match histogram {
            Histogram::Integer(h) => Self::Integers(h),
            Histogram::Float(h) => Self::Floats(h),
        }
    }
}

/// A chunk that is being written.
#[derive(Debug)]
struct Open {
    bits: Bits,
    count: u16,
    first: Timestamp,
    last: Timestamp,
    delta: i64,
    state: State,
}

/// What the next sample is written against.
#[derive(Debug)]
enum State {
    Float(Xor),
    Integers(Box<Integers>),
    Floats(Box<Floats>),
}

#[derive(Debug)]
struct Integers {
    before: IntegerHistogram,
    count_delta: i64,
    zero_delta: i64,
    sum: Xor,
    /// What the deltas of the buckets changed by, positive ones first.
    buckets_delta: Vec<i64>,
}

#[derive(Debug)]
struct Floats {
    before: FloatHistogram,
    count: Xor,
    zero_count: Xor,
    sum: Xor,
    /// Positive ones first.
    buckets: Vec<Xor>,
}

impl Open {
    /// Adds a sample to the chunk, or closes it, returns it and begins the next one with the sample.
    fn add(open: &mut Option<Self>, t: Timestamp, sample: Sample<'_>) -> Option<pb::Chunk> {
        let mut has_reset = false;
        if let Some(chunk) = open {
            let follows = chunk.follows(sample);
            if follows == Follows::Yes && chunk.has_room() {
                chunk.push(t, sample);
                return None;
            }
            has_reset = follows == Follows::Reset;
        }
        open.replace(Self::begin(t, sample, has_reset)).map(Self::finish)
    }

    fn has_room(&self) -> bool {
        self.count < SAMPLES_PER_CHUNK && self.bits.len() < CHUNK_BYTES_MAX
    }

    /// Says whether a sample can stand behind the last one.
    fn follows(&self, sample: Sample<'_>) -> Follows {
        match (&self.state, sample) {
            (State::Float(_), Sample::Float(_)) => Follows::Yes,
            (State::Integers(state), Sample::Integers(h)) => {
                let is_same = Layout::of_integers(&state.before) == Layout::of_integers(h)
                    && !is_stale(state.before.sum)
                    && !is_stale(h.sum);
                let hints = (state.before.counter_reset_hint, h.counter_reset_hint);
                follows(is_same, hints, || integers_fell(&state.before, h))
            }
            (State::Floats(state), Sample::Floats(h)) => {
                let is_same = Layout::of_floats(&state.before) == Layout::of_floats(h)
                    && !is_stale(state.before.sum)
                    && !is_stale(h.sum);
                let hints = (state.before.counter_reset_hint, h.counter_reset_hint);
                follows(is_same, hints, || floats_fell(&state.before, h))
            }
            _ => Follows::No,
        }
    }

    fn begin(t: Timestamp, sample: Sample<'_>, has_reset: bool) -> Self {
        let mut bits = Bits::default();
        // The number of samples, known in the end.
        bits.write(0, 16);
        let state = match sample {
            Sample::Float(x) => {
                bits.write_varint(t.millis());
                bits.write(x.to_bits(), 64);
                State::Float(Xor::new(x))
            }
            Sample::Integers(h) => {
                write_head(&mut bits, t, h.counter_reset_hint, has_reset, &Layout::of_integers(h));
                bits.write_unsigned(h.count);
                bits.write_unsigned(h.zero_count);
                bits.write(h.sum.to_bits(), 64);
                let buckets = h.positive_deltas.iter().chain(&h.negative_deltas);
                buckets.for_each(|b| bits.write_signed(*b));
                State::Integers(Box::new(Integers {
                    count_delta: 0,
                    zero_delta: 0,
                    sum: Xor::new(h.sum),
                    buckets_delta: vec![0; h.positive_deltas.len() + h.negative_deltas.len()],
                    before: h.clone(),
                }))
            }
            Sample::Floats(h) => {
                write_head(&mut bits, t, h.counter_reset_hint, has_reset, &Layout::of_floats(h));
                let buckets = || h.positive_buckets.iter().chain(&h.negative_buckets).copied();
                [h.count, h.zero_count, h.sum]
                    .into_iter()
                    .chain(buckets())
                    .for_each(|x| bits.write(x.to_bits(), 64));
                State::Floats(Box::new(Floats {
                    count: Xor::new(h.count),
                    zero_count: Xor::new(h.zero_count),
                    sum: Xor::new(h.sum),
                    buckets: buckets().map(Xor::new).collect(),
                    before: h.clone(),
                }))
            }
        };
        Self { bits, count: 1, first: t, last: t, delta: 0, state }
    }

    fn push(&mut self, t: Timestamp, sample: Sample<'_>) {
        let bits = &mut self.bits;
        let delta = t.since_ms(self.last);
        let change = delta.wrapping_sub(self.delta);
        match (&mut self.state, sample) {
            (State::Float(value), Sample::Float(x)) => {
                if self.count == 1 {
                    bits.write_uvarint(delta.cast_unsigned());
                } else {
                    bits.write_change(change);
                }
                value.write(x, bits);
            }
            (State::Integers(state), Sample::Integers(h)) => {
                bits.write_signed(change);
                let count_delta = h.count.wrapping_sub(state.before.count).cast_signed();
                let zero_delta = h.zero_count.wrapping_sub(state.before.zero_count).cast_signed();
                bits.write_signed(count_delta.wrapping_sub(state.count_delta));
                bits.write_signed(zero_delta.wrapping_sub(state.zero_delta));
                state.sum.write(h.sum, bits);
                let buckets = h.positive_deltas.iter().chain(&h.negative_deltas);
                let before = state.before.positive_deltas.iter().chain(&state.before.negative_deltas);
                for ((now, before), known) in buckets.zip(before).zip(&mut state.buckets_delta) {
                    let delta = now.wrapping_sub(*before);
                    bits.write_signed(delta.wrapping_sub(*known));
                    *known = delta;
                }
                (state.count_delta, state.zero_delta) = (count_delta, zero_delta);
                state.before.clone_from(h);
            }
            (State::Floats(state), Sample::Floats(h)) => {
                bits.write_signed(change);
                state.count.write(h.count, bits);
                state.zero_count.write(h.zero_count, bits);
                state.sum.write(h.sum, bits);
                let buckets = h.positive_buckets.iter().chain(&h.negative_buckets);
                buckets.zip(&mut state.buckets).for_each(|(x, known)| known.write(*x, bits));
                state.before.clone_from(h);
            }
            _ => unreachable!("only what follows is pushed"),
        }
        self.count += 1;
        self.last = t;
        self.delta = delta;
    }

    fn finish(self) -> pb::Chunk {
        let encoding = match self.state {
            State::Float(_) => Encoding::Xor,
            State::Integers(_) => Encoding::Histogram,
            State::Floats(_) => Encoding::FloatHistogram,
        };
        let mut data = self.bits.into_bytes();
        data[..2].copy_from_slice(&self.count.to_be_bytes());
        pb::Chunk {
            min_time_ms: self.first.millis(),
            max_time_ms: self.last.millis(),
            r#type: encoding.into(),
            data: data.into(),
        }
    }
}

/// Whether a histogram can stand behind another in one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Follows {
    Yes,
    No,
    /// No, since the counter was reset in between.
    Reset,
}

fn follows(
    is_same_layout: bool,
    (before, now): (CounterResetHint, CounterResetHint),
    fell: impl Fn() -> bool,
) -> Follows {
    use CounterResetHint::{Gauge, NotReset, Reset, Unknown};
    match (before, now) {
        _ if !is_same_layout => Follows::No,
        (Gauge, Gauge) => Follows::Yes,
        (Gauge, _) | (_, Gauge) => Follows::No,
        (_, Reset) => Follows::Reset,
        (_, Unknown | NotReset) if fell() => Follows::Reset,
        (_, Unknown | NotReset) => Follows::Yes,
    }
}

/// What has to be equal in all histograms of a chunk.
#[derive(PartialEq)]
struct Layout<'a> {
    schema: i32,
    /// As bits.
    zero_threshold: u64,
    positive: &'a [Span],
    negative: &'a [Span],
    custom_values: &'a [f64],
}

impl<'a> Layout<'a> {
    fn of_integers(h: &'a IntegerHistogram) -> Self {
        Self {
            schema: h.schema,
            zero_threshold: h.zero_threshold.to_bits(),
            positive: &h.positive_spans,
            negative: &h.negative_spans,
            custom_values: &h.custom_values,
        }
    }

    fn of_floats(h: &'a FloatHistogram) -> Self {
        Self {
            schema: h.schema,
            zero_threshold: h.zero_threshold.to_bits(),
            positive: &h.positive_spans,
            negative: &h.negative_spans,
            custom_values: &h.custom_values,
        }
    }
}

/// Writes what stands before the first histogram's numbers.
fn write_head(bits: &mut Bits, t: Timestamp, hint: CounterResetHint, has_reset: bool, layout: &Layout<'_>) {
    let flags = match hint {
        CounterResetHint::Gauge => 0b1100_0000,
        CounterResetHint::Reset => 0b1000_0000,
        _ if has_reset => 0b1000_0000,
        CounterResetHint::NotReset => 0b0100_0000,
        CounterResetHint::Unknown => 0,
    };
    bits.write(flags, 8);
    let zero_threshold = f64::from_bits(layout.zero_threshold);
    match power_of_two(zero_threshold) {
        _ if layout.zero_threshold == 0 => bits.write(0, 8),
        Some(code) => bits.write(code, 8),
        None => {
            bits.write(255, 8);
            bits.write(layout.zero_threshold, 64);
        }
    }
    bits.write_signed(layout.schema.into());
    for spans in [layout.positive, layout.negative] {
        bits.write_unsigned(spans.len() as u64);
        for span in spans {
            bits.write_unsigned(span.length.into());
            bits.write_signed(span.offset.into());
        }
    }
    if layout.schema == model::histogram::CUSTOM_BUCKETS_SCHEMA {
        bits.write_unsigned(layout.custom_values.len() as u64);
        for bound in layout.custom_values {
            // Whole thousandths have a shorter form, which nobody has to use.
            bits.write_unsigned(0);
            bits.write(bound.to_bits(), 64);
        }
    }
    bits.write_signed(t.millis());
}

/// The byte for a threshold of 2^-243 to 2^10.
fn power_of_two(threshold: f64) -> Option<u64> {
    let (bits, exponent_bias) = (threshold.to_bits(), 1_023);
    let (exponent, mantissa) = (bits >> 52, bits & ((1 << 52) - 1));
    // The byte is the exponent of a number of 0.5 to 1, which is one more than that of 1 to 2, plus 243.
    let code = (exponent + 1 + 243).checked_sub(exponent_bias)?;
    (mantissa == 0 && (1..=254).contains(&code)).then_some(code)
}

fn integers_fell(before: &IntegerHistogram, now: &IntegerHistogram) -> bool {
    let fell = |before: &[i64], now: &[i64]| {
        let difference = before.iter().zip(now).map(|(b, n)| n.wrapping_sub(*b));
        let mut sums = difference.scan(0_i64, |sum, d| {
            *sum = sum.wrapping_add(d);
            Some(*sum)
        });
        sums.any(|gain| gain < 0)
    };
    now.count < before.count
        || now.zero_count < before.zero_count
        || fell(&before.positive_deltas, &now.positive_deltas)
        || fell(&before.negative_deltas, &now.negative_deltas)
}

fn floats_fell(before: &FloatHistogram, now: &FloatHistogram) -> bool {
    let fell = |before: &[f64], now: &[f64]| before.iter().zip(now).any(|(b, n)| n < b);
    now.count < before.count
        || now.zero_count < before.zero_count
        || fell(&before.positive_buckets, &now.positive_buckets)
        || fell(&before.negative_buckets, &now.negative_buckets)
}

#[cfg(test)]
mod tests;
