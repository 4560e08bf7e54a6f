//! What an encoder written here packs comes out bit for bit, and broken bytes give errors.

use model::histogram::CUSTOM_BUCKETS_SCHEMA;
use model::{CounterResetHint, FloatHistogram, Histogram, IntegerHistogram, Span, stale_nan};
use proptest::prelude::*;

use super::*;

/// Packs bits, highest first: the formats read backwards from their description, one bit at a time.
#[derive(Default)]
struct Packer {
    bits: Vec<bool>,
}

impl Packer {
    fn number(&mut self, value: u64, count: u32) {
        self.bits.extend((0..count).rev().map(|i| value >> i & 1 == 1));
    }

    fn uvarint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.number(value & 0x7f | 0x80, 8);
            value >>= 7;
        }
        self.number(value, 8);
    }

    fn varint(&mut self, value: i64) {
        self.uvarint((value << 1 ^ value >> 63).cast_unsigned());
    }

    /// A prefix of ones and a zero, of which the longest has no zero, and a number of as many bits as it fits into.
    fn prefixed(&mut self, lengths: &[u32], value: u64, fits: impl Fn(u32) -> bool) {
        if value == 0 {
            return self.number(0, 1);
        }
        let place = lengths.iter().position(|length| fits(*length)).expect("the last fits all");
        let ones = u32::try_from(place).expect("few") + 1;
        self.number(u64::MAX, ones);
        if place + 1 < lengths.len() {
            self.number(0, 1);
        }
        self.number(value, lengths[place]);
    }

    fn signed(&mut self, lengths: &[u32], value: i64) {
        let fits = |n: u32| n == 64 || (-(1_i64 << (n - 1)) < value && value <= 1 << (n - 1));
        self.prefixed(lengths, value.cast_unsigned(), fits);
    }

    fn varbit_int(&mut self, value: i64) {
        self.signed(&[3, 6, 9, 12, 18, 25, 56, 64], value);
    }

    fn varbit_uint(&mut self, value: u64) {
        self.prefixed(&[3, 6, 9, 12, 18, 25, 56, 64], value, |n| n == 64 || value < 1 << n);
    }

    fn xor(&mut self, window: &mut Option<(u32, u32)>, before: f64, value: f64) {
        let change = before.to_bits() ^ value.to_bits();
        self.number(u64::from(change != 0), 1);
        if change == 0 {
            return;
        }
        let (leading, trailing) = (change.leading_zeros().min(31), change.trailing_zeros());
        match window {
            Some((l, t)) if leading >= *l && trailing >= *t => {
                self.number(0, 1);
                self.number(change >> *t, 64 - *l - *t);
            }
            _ => {
                *window = Some((leading, trailing));
                let significant = 64 - leading - trailing;
                self.number(1, 1);
                self.number(u64::from(leading), 5);
                self.number(u64::from(significant % 64), 6);
                self.number(change >> trailing, significant);
            }
        }
    }

    fn finish(self, head: &[u8]) -> Vec<u8> {
        let bytes = self
            .bits
            .chunks(8)
            .map(|c| c.iter().enumerate().fold(0, |b, (i, on)| b | u8::from(*on) << (7 - i)));
        head.iter().copied().chain(bytes).collect()
    }
}

fn count_of<T>(samples: &[T]) -> [u8; 2] {
    u16::try_from(samples.len()).expect("few").to_be_bytes()
}

pub(crate) fn pack_floats(samples: &[(i64, f64)]) -> Vec<u8> {
    let mut packer = Packer::default();
    let mut window = None;
    for (i, (t, v)) in samples.iter().enumerate() {
        let delta = |i: usize| samples[i].0.wrapping_sub(samples[i - 1].0);
        match i {
            0 => {
                packer.varint(*t);
                packer.number(v.to_bits(), 64);
                continue;
            }
            1 => packer.uvarint(delta(1).cast_unsigned()),
            _ => packer.signed(&[14, 17, 20, 64], delta(i).wrapping_sub(delta(i - 1))),
        }
        packer.xor(&mut window, samples[i - 1].1, *v);
    }
    packer.finish(&count_of(samples))
}

/// What histograms of a chunk share.
struct Shared<'a> {
    schema: i32,
    zero_threshold: f64,
    spans: [&'a [Span]; 2],
    custom_values: &'a [f64],
}

impl Shared<'_> {
    fn pack(&self, packer: &mut Packer) {
        if self.zero_threshold == 0.0 {
            packer.number(0, 8);
        } else if self.zero_threshold.log2().fract() == 0.0 {
            // A power of two.
            packer.number((self.zero_threshold.log2() + 244.0) as u64, 8);
        } else {
            packer.number(255, 8);
            packer.number(self.zero_threshold.to_bits(), 64);
        }
        packer.varbit_int(i64::from(self.schema));
        for spans in self.spans {
            packer.varbit_uint(spans.len() as u64);
            for span in spans {
                packer.varbit_uint(u64::from(span.length));
                packer.varbit_int(i64::from(span.offset));
            }
        }
        if self.schema == CUSTOM_BUCKETS_SCHEMA {
            packer.varbit_uint(self.custom_values.len() as u64);
            for value in self.custom_values {
                let thousandths = (value * 1000.0).round();
                if (0.0..=33_554_430.0).contains(&thousandths) && thousandths / 1000.0 == *value {
                    packer.varbit_uint(thousandths as u64 + 1);
                } else {
                    packer.number(0, 1);
                    packer.number(value.to_bits(), 64);
                }
            }
        }
    }
}

fn pack_integers(resets: u8, samples: &[(i64, IntegerHistogram)]) -> Vec<u8> {
    let mut packer = Packer::default();
    let first = &samples[0].1;
    let spans = [first.positive_spans.as_slice(), first.negative_spans.as_slice()];
    let (schema, zero_threshold, custom_values) = (first.schema, first.zero_threshold, &*first.custom_values);
    Shared { schema, zero_threshold, spans, custom_values }.pack(&mut packer);
    let numbers = |i: usize| {
        let (t, h) = &samples[i];
        let head = vec![*t, h.count.cast_signed(), h.zero_count.cast_signed()];
        (head, [h.positive_deltas.as_slice(), &h.negative_deltas].concat())
    };
    let mut window = None;
    let (mut head, mut buckets) = numbers(0);
    let (mut head_delta, mut bucket_delta) = (vec![0; head.len()], vec![0; buckets.len()]);
    packer.varbit_int(head[0]);
    packer.varbit_uint(head[1].cast_unsigned());
    packer.varbit_uint(head[2].cast_unsigned());
    packer.number(first.sum.to_bits(), 64);
    buckets.iter().for_each(|b| packer.varbit_int(*b));
    let change = |packer: &mut Packer, now: i64, before: &mut i64, delta: &mut i64| {
        let new = now.wrapping_sub(*before);
        packer.varbit_int(new.wrapping_sub(*delta));
        (*before, *delta) = (now, new);
    };
    for i in 1..samples.len() {
        let (new_head, new_buckets) = numbers(i);
        for ((new, before), delta) in new_head.iter().zip(&mut head).zip(&mut head_delta) {
            change(&mut packer, *new, before, delta);
        }
        packer.xor(&mut window, samples[i - 1].1.sum, samples[i].1.sum);
        for ((new, before), delta) in new_buckets.iter().zip(&mut buckets).zip(&mut bucket_delta) {
            change(&mut packer, *new, before, delta);
        }
    }
    packer.finish(&[&count_of(samples)[..], &[resets]].concat())
}

fn pack_float_histograms(resets: u8, samples: &[(i64, FloatHistogram)]) -> Vec<u8> {
    let mut packer = Packer::default();
    let first = &samples[0].1;
    let spans = [first.positive_spans.as_slice(), first.negative_spans.as_slice()];
    let (schema, zero_threshold, custom_values) = (first.schema, first.zero_threshold, &*first.custom_values);
    Shared { schema, zero_threshold, spans, custom_values }.pack(&mut packer);
    let numbers = |h: &FloatHistogram| {
        [&[h.count, h.zero_count, h.sum][..], &h.positive_buckets, &h.negative_buckets].concat()
    };
    let mut before = numbers(first);
    let mut windows = vec![None; before.len()];
    packer.varbit_int(samples[0].0);
    before.iter().for_each(|v| packer.number(v.to_bits(), 64));
    let mut delta = 0;
    for i in 1..samples.len() {
        let new = samples[i].0 - samples[i - 1].0;
        packer.varbit_int(new - delta);
        delta = new;
        let now = numbers(&samples[i].1);
        for ((value, before), window) in now.iter().zip(&mut before).zip(&mut windows) {
            packer.xor(window, *before, *value);
            *before = *value;
        }
    }
    packer.finish(&[&count_of(samples)[..], &[resets]].concat())
}

fn unpack(encoding: Encoding, bytes: &[u8]) -> Result<Samples, String> {
    let mut samples = Samples::default();
    decode(encoding, bytes, &mut samples).map(|()| samples)
}

fn bits(samples: &[(i64, f64)]) -> Vec<(i64, u64)> {
    samples.iter().map(|(t, v)| (*t, v.to_bits())).collect()
}

fn float() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (-1000_i32..1000).prop_map(f64::from),
        2 => any::<u64>().prop_map(f64::from_bits),
        1 => prop::sample::select(vec![stale_nan(), f64::NAN, f64::INFINITY, -0.0, f64::from_bits(0x7ff8_0000_0000_0007)]),
    ]
}

fn steps() -> impl Strategy<Value = Vec<i64>> {
    let step = prop_oneof![6 => Just(15_000_i64), 3 => 14_900_i64..15_100, 1 => 1_i64..1 << 40];
    prop::collection::vec(step, 1..150)
}

fn times(start: i64, steps: &[i64]) -> Vec<i64> {
    steps
        .iter()
        .scan(start, |t, step| {
            *t += step;
            Some(*t)
        })
        .collect()
}

fn span_lists() -> impl Strategy<Value = Vec<Span>> {
    let span = (0_i32..300, 1_u32..5).prop_map(|(offset, length)| Span { offset, length });
    prop::collection::vec(span, 0..4)
}

/// A schema, a zero threshold and custom values that go together.
fn shapes() -> impl Strategy<Value = (i32, f64, Vec<f64>, Vec<Span>, Vec<Span>)> {
    let threshold =
        prop::sample::select(vec![0.0, 2_f64.powi(-128), 1.0, 2_f64.powi(-243), 1024.0, 0.001, 3.5]);
    let exponential =
        (-4_i32..=8, threshold, span_lists(), span_lists()).prop_map(|(s, z, p, n)| (s, z, vec![], p, n));
    let bounds =
        prop::sample::select(vec![vec![0.005, 0.01, 0.1], vec![-1.5, 0.0, 33_554.43, 40_000.0, 1e18]]);
    let custom =
        bounds.prop_map(|b| (CUSTOM_BUCKETS_SCHEMA, 0.0, b, vec![Span { offset: 0, length: 3 }], vec![]));
    prop_oneof![3 => exponential, 1 => custom]
}

fn hint_of(resets: u8, number: usize) -> CounterResetHint {
    match (resets, number) {
        (0b1100_0000, _) => CounterResetHint::Gauge,
        (_, 1..) => CounterResetHint::NotReset,
        (0b1000_0000, _) => CounterResetHint::Reset,
        _ => CounterResetHint::Unknown,
    }
}

fn buckets_of(spans: &[Span]) -> usize {
    spans.iter().map(|s| s.length as usize).sum()
}

proptest! {
    #[test]
    fn floats_come_out_as_they_went_in(start in -1_i64 << 50..1 << 50, steps in steps(), values in prop::collection::vec(float(), 150)) {
        let samples: Vec<(i64, f64)> = times(start, &steps).into_iter().zip(values).collect();
        let unpacked = unpack(Encoding::Xor, &pack_floats(&samples)).expect("whole");
        prop_assert_eq!(bits(&unpacked.floats), bits(&samples));
    }

    #[test]
    fn integer_histograms_come_out_as_they_went_in(
        steps in steps(), (schema, zero_threshold, custom, positive_spans, negative_spans) in shapes(),
        seeds in prop::collection::vec((0_u64..1 << 30, float()), 150),
        resets in prop::sample::select(vec![0_u8, 0b0100_0000, 0b1000_0000, 0b1100_0000]), ends_stale in any::<bool>(),
    ) {
        let mut samples = Vec::new();
        for (i, (t, (seed, sum))) in times(1_700_000_000_000, &steps).into_iter().zip(seeds).enumerate() {
            let absolute = |count: usize| (0..count).map(|b| (seed >> (b % 9) & 0xffff).cast_signed()).collect::<Vec<_>>();
            let deltas = |absolute: &[i64]| absolute.iter().scan(0, |last, a| { let d = a - *last; *last = *a; Some(d) }).collect::<Vec<_>>();
            let (positive, negative) = (absolute(buckets_of(&positive_spans)), absolute(buckets_of(&negative_spans)));
            let zero_count = if schema == CUSTOM_BUCKETS_SCHEMA { 0 } else { seed & 0xff };
            let observed: i64 = positive.iter().chain(&negative).sum();
            samples.push((t, IntegerHistogram {
                counter_reset_hint: hint_of(resets, i), schema, zero_threshold, zero_count,
                count: observed.cast_unsigned() + zero_count,
                sum: if sum.is_nan() { 0.5 } else { sum },
                positive_spans: positive_spans.clone(), negative_spans: negative_spans.clone(),
                positive_deltas: deltas(&positive), negative_deltas: deltas(&negative),
                custom_values: custom.clone().into(),
            }));
        }
        if ends_stale && samples.len() > 1 {
            let (t, _) = samples.pop().expect("some");
            samples.push((t, IntegerHistogram { sum: stale_nan(), ..IntegerHistogram::default() }));
        }
        let unpacked = unpack(Encoding::Histogram, &pack_integers(resets, &samples)).expect("whole");
        prop_assert_eq!(unpacked.histograms.len(), samples.len());
        for ((t, got), (want_t, want)) in unpacked.histograms.iter().zip(&samples) {
            prop_assert_eq!(t, want_t);
            prop_assert!(got.bit_eq(&Histogram::Integer(want.clone())), "{got:?} {want:?}");
        }
    }

    #[test]
    fn float_histograms_come_out_as_they_went_in(
        steps in steps(), (schema, zero_threshold, custom, positive_spans, negative_spans) in shapes(),
        seeds in prop::collection::vec((0.0_f64..1e9, float()), 150),
        resets in prop::sample::select(vec![0_u8, 0b0100_0000, 0b1000_0000, 0b1100_0000]),
    ) {
        let mut samples = Vec::new();
        for (i, (t, (seed, sum))) in times(1_700_000_000_000, &steps).into_iter().zip(seeds).enumerate() {
            let buckets = |count: usize| (0..count).map(|b| (seed / (b + 1) as f64).floor()).collect::<Vec<_>>();
            let (positive, negative) = (buckets(buckets_of(&positive_spans)), buckets(buckets_of(&negative_spans)));
            let zero_count = if schema == CUSTOM_BUCKETS_SCHEMA { 0.0 } else { 1.5 };
            let count = positive.iter().chain(&negative).sum::<f64>() + zero_count;
            samples.push((t, FloatHistogram {
                counter_reset_hint: hint_of(resets, i), schema, zero_threshold, zero_count, count,
                sum: if sum.to_bits() == stale_nan().to_bits() { 0.5 } else { sum },
                positive_spans: positive_spans.clone(), negative_spans: negative_spans.clone(),
                positive_buckets: positive, negative_buckets: negative,
                custom_values: custom.clone().into(),
            }));
        }
        let unpacked = unpack(Encoding::FloatHistogram, &pack_float_histograms(resets, &samples)).expect("whole");
        prop_assert_eq!(unpacked.histograms.len(), samples.len());
        for ((t, got), (want_t, want)) in unpacked.histograms.iter().zip(&samples) {
            prop_assert_eq!(t, want_t);
            prop_assert!(got.bit_eq(&Histogram::Float(want.clone())), "{got:?} {want:?}");
        }
    }

    /// Behind a checksum this never happens; it must not end the process either way.
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for encoding in [Encoding::Xor, Encoding::Histogram, Encoding::FloatHistogram] {
            drop(unpack(encoding, &bytes));
        }
    }
}

/// What is cut off is an error: the count says how many samples there are.
#[test]
fn a_chunk_that_ends_early_is_an_error() {
    let samples: Vec<(i64, f64)> = (0..120).map(|i| (i * 15_000, (i * i) as f64)).collect();
    let whole = pack_floats(&samples);
    for length in 0..whole.len() {
        assert!(unpack(Encoding::Xor, &whole[..length]).is_err(), "{length}");
    }
    // As Prometheus's own encoder packs 1 at 1000 ms and 2 at 16000 ms, worked out by hand.
    let by_hand: Vec<u8> = [
        &[0, 2, 0xd0, 0x0f][..],
        &1.0_f64.to_bits().to_be_bytes(),
        &[0x98, 0x75],
        // 11, one leading zero, 11 significant bits, 0x7ff.
        &[0b1100_0010, 0b0101_1111, 0b1111_1111, 0b0000_0000],
    ]
    .concat();
    let unpacked = unpack(Encoding::Xor, &by_hand).expect("whole");
    assert_eq!(unpacked.floats, [(1_000, 1.0), (16_000, 2.0)]);
    assert_eq!(Encoding::of(0), None);
}
