//! The values of one series over consecutive positions of a timeline, without the times.
//!
//! Every position is one value, one staleness marker or nothing. Values are integers of a decimal scale, coded as
//! differences of differences, or raw bits, coded as the exclusive or with the value before. Both become one number,
//! small when the series is calm, written in whole bytes so that appending and reading stay a simple loop:
//!
//! | first byte | meaning |
//! |---|---|
//! | `00`-`7f` | the number itself |
//! | `80`-`be` | two bytes: 128 + 14 bits |
//! | `bf` | a length byte, then as many bytes, little endian |
//! | `c0`-`df` | 1 to 32 times the number 0 |
//! | `e0`-`ef` | 1 to 16 positions without a sample |
//! | `f0` | a staleness marker |
//! | `f1` | two bytes: that many positions without a sample |
//!
//! Invariants: decoding gives back the bits that went in; a [`Scale`] never changes within one run.

use model::{STALE_NAN_BITS, is_stale};

const TWO_BYTES: u8 = 0x80;
const MANY_BYTES: u8 = 0xbf;
const ZEROS: u8 = 0xc0;
const ZEROS_MAX: u8 = 0xdf;
const ABSENT: u8 = 0xe0;
const ABSENT_MAX: u8 = 0xef;
const STALE: u8 = 0xf0;
const ABSENT_MANY: u8 = 0xf1;

/// Integers beyond this are not exact in a float.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
const POWERS: [f64; 5] = [1.0, 10.0, 100.0, 1000.0, 10_000.0];

/// How the values of a run are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scale {
    /// Every value is `i / 10^scale` bit for bit.
    Decimal(u8),
    /// Raw bits.
    Raw,
}

impl Scale {
    /// The scale that fits any value at least as well as `self` and holds `value`.
    fn widened_for(self, value: f64) -> Self {
        let Self::Decimal(from) = self else { return Self::Raw };
        (from..=4).map(Self::Decimal).find(|s| s.integer(value).is_some()).unwrap_or(Self::Raw)
    }

    /// The integer that stands for the value, when that is exact.
    #[inline]
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "checked bit for bit")]
    fn integer(self, value: f64) -> Option<i64> {
        let Self::Decimal(scale) = self else { return None };
        let power = POWERS[usize::from(scale)];
        let scaled = if scale == 0 { value } else { (value * power).round() };
        let integer = scaled as i64;
        let is_exact = scaled.abs() < EXACT_MAX && (integer as f64 / power).to_bits() == value.to_bits();
        is_exact.then_some(integer)
    }
}

/// Writes one run.
#[derive(Debug)]
pub(crate) struct RunEncoder {
    pub(crate) scale: Scale,
    last: u64,
    delta: i64,
    /// True when the last byte is a repeat that may be counted up; a byte of a number may look like one.
    ends_in_zeros: bool,
    bytes: Vec<u8>,
}

impl RunEncoder {
    /// Starts a run whose first value is `value`, written at least as widely as `previous`.
    pub(crate) fn start(previous: Scale, value: f64) -> Self {
        let scale = if is_stale(value) { previous } else { previous.widened_for(value) };
        Self { scale, last: 0, delta: 0, ends_in_zeros: false, bytes: Vec::new() }
    }

    pub(crate) fn byte_len(&self) -> usize {
        self.bytes.capacity()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn finish(self) -> Box<[u8]> {
        self.bytes.into_boxed_slice()
    }

    /// Writes one value; false: it does not fit the run's scale and nothing was written.
    #[inline]
    #[expect(clippy::cast_sign_loss, clippy::cast_possible_wrap, reason = "zig-zag and storing bits")]
    pub(crate) fn push(&mut self, value: f64) -> bool {
        if is_stale(value) {
            self.bytes.push(STALE);
            self.ends_in_zeros = false;
            return true;
        }
        let number = if let Scale::Decimal(_) = self.scale {
            let Some(integer) = self.scale.integer(value) else { return false };
            let delta = integer.wrapping_sub(self.last as i64);
            let change = delta.wrapping_sub(self.delta);
            self.delta = delta;
            self.last = integer as u64;
            ((change << 1) ^ (change >> 63)) as u64
        } else {
            let bits = value.to_bits();
            let difference = bits ^ self.last;
            self.last = bits;
            // The low bytes of a mantissa are often zero: turned round they vanish.
            difference.swap_bytes()
        };
        self.push_number(number);
        true
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the ranges are checked")]
    fn push_number(&mut self, number: u64) {
        if number == 0 {
            match self.bytes.last_mut() {
                Some(last) if self.ends_in_zeros && *last < ZEROS_MAX => *last += 1,
                _ => self.bytes.push(ZEROS),
            }
            self.ends_in_zeros = true;
            return;
        }
        self.ends_in_zeros = false;
        if number < u64::from(TWO_BYTES) {
            self.bytes.push(number as u8);
        } else if number < u64::from(TWO_BYTES) + (0x3f << 8) {
            let rest = number - u64::from(TWO_BYTES);
            self.bytes.push(TWO_BYTES | (rest >> 8) as u8);
            self.bytes.push(rest as u8);
        } else {
            let length = 8 - number.leading_zeros() as usize / 8;
            self.bytes.push(MANY_BYTES);
            self.bytes.push(length as u8);
            self.bytes.extend_from_slice(&number.to_le_bytes()[..length]);
        }
    }

    /// Writes positions without a sample.
    pub(crate) fn push_absent(&mut self, count: u16) {
        if count == 0 {
            return;
        }
        self.ends_in_zeros = false;
        if count <= u16::from(ABSENT_MAX - ABSENT) + 1 {
            self.bytes.push(ABSENT + u8::try_from(count - 1).expect("at most 15"));
        } else {
            self.bytes.push(ABSENT_MANY);
            self.bytes.extend_from_slice(&count.to_le_bytes());
        }
    }
}

/// Reads a run back, adding one (position, value) for each sample; positions count from `start`.
///
/// The bytes come from a [`RunEncoder`] of this process, never from outside.
#[expect(
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "undoes push"
)]
pub(crate) fn decode(
    scale: Scale,
    start: u16,
    bytes: &[u8],
    positions: &mut Vec<u16>,
    values: &mut Vec<f64>,
) {
    let (mut at, mut position, mut last, mut delta) = (0, start, 0_u64, 0_i64);
    let mut emit = |number: u64, position: u16| {
        let value = if let Scale::Decimal(scale) = scale {
            delta = delta.wrapping_add((number >> 1) as i64 ^ -((number & 1) as i64));
            last = (last as i64).wrapping_add(delta) as u64;
            last as i64 as f64 / POWERS[usize::from(scale)]
        } else {
            last ^= number.swap_bytes();
            f64::from_bits(last)
        };
        positions.push(position);
        values.push(value);
    };
    let mut stale = Vec::new();
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            0..TWO_BYTES => emit(u64::from(byte), position),
            TWO_BYTES..MANY_BYTES => {
                emit(u64::from(TWO_BYTES) + (u64::from(byte & 0x3f) << 8 | u64::from(bytes[at])), position);
                at += 1;
            }
            MANY_BYTES => {
                let length = usize::from(bytes[at]);
                let mut number = [0; 8];
                number[..length].copy_from_slice(&bytes[at + 1..at + 1 + length]);
                at += 1 + length;
                emit(u64::from_le_bytes(number), position);
            }
            ZEROS..=ZEROS_MAX => {
                for _ in ZEROS..byte {
                    emit(0, position);
                    position += 1;
                }
                emit(0, position);
            }
            ABSENT..=ABSENT_MAX => {
                position += u16::from(byte - ABSENT) + 1;
                continue;
            }
            STALE => stale.push(position),
            _ => {
                position += u16::from_le_bytes([bytes[at], bytes[at + 1]]);
                at += 2;
                continue;
            }
        }
        position += 1;
    }
    // Markers are rare: they are put in afterwards so that the loop above needs to know one kind of value only.
    for position in stale {
        let i = positions.partition_point(|p| *p < position);
        positions.insert(i, position);
        values.insert(i, f64::from_bits(STALE_NAN_BITS));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Codes values with gaps, starting a new run where the encoder asks for one, and reads all back.
    fn round_trip(samples: &[Option<f64>], start: u16) -> Vec<(u16, u64)> {
        let mut runs: Vec<(u16, RunEncoder)> = Vec::new();
        let (mut end, mut position) = (0, start);
        for sample in samples {
            if let Some(value) = sample {
                if let Some((_, run)) = runs.last_mut() {
                    run.push_absent(position - end);
                }
                let fits = runs.last_mut().is_some_and(|(_, run)| run.push(*value));
                if !fits {
                    let previous = runs.last().map_or(Scale::Decimal(0), |(_, r)| r.scale);
                    let mut run = RunEncoder::start(previous, *value);
                    assert!(run.push(*value), "a run holds its first value");
                    runs.push((position, run));
                }
                end = position + 1;
            }
            position += 1;
        }
        let mut out = Vec::new();
        for (start, run) in runs {
            let (mut positions, mut values) = (Vec::new(), Vec::new());
            decode(run.scale, start, &run.finish(), &mut positions, &mut values);
            out.extend(positions.into_iter().zip(values.into_iter().map(f64::to_bits)));
        }
        out
    }

    fn wanted(samples: &[Option<f64>], start: u16) -> Vec<(u16, u64)> {
        (start..).zip(samples).filter_map(|(p, v)| v.map(|v| (p, v.to_bits()))).collect()
    }

    fn any_value() -> impl Strategy<Value = f64> {
        prop_oneof![
            (-50_i32..50).prop_map(f64::from),
            (0_i64..1 << 54).prop_map(|i| i as f64),
            (0_i32..100_000).prop_map(|i| f64::from(i) / 1000.0),
            any::<u64>().prop_map(f64::from_bits),
            Just(f64::from_bits(STALE_NAN_BITS)),
            Just(-0.0),
            Just(0.0),
        ]
    }

    proptest! {
        #[test]
        fn every_bit_comes_back(
            samples in prop::collection::vec(prop::option::weighted(0.8, any_value()), 0..300),
            start in 0_u16..100,
        ) {
            prop_assert_eq!(round_trip(&samples, start), wanted(&samples, start));
        }
    }

    #[test]
    fn calm_series_are_small() {
        // (first value that sets the scale, value at a position, bytes for 240 of them)
        type Case = (&'static str, f64, fn(u32) -> f64, usize);
        let cases: [Case; 4] = [
            ("constant", 7.0, |_| 7.0, 10),
            ("steady counter", 1000.0, |i| 1000.0 + f64::from(i) * 15.0, 16),
            ("decimal", 0.01, |i| f64::from(i % 7) / 100.0, 270),
            ("fraction", 1.0 / 3.0, |i| 1.0 / f64::from(i + 1), 2400),
        ];
        for (name, first, value, bytes_max) in cases {
            let mut run = RunEncoder::start(Scale::Decimal(0), first);
            assert!((0..240).all(|i| run.push(value(i))), "{name}");
            assert!(run.bytes().len() <= bytes_max, "{name}: {} bytes", run.bytes().len());
        }
    }

    #[test]
    fn long_gaps_and_many_markers_come_back() {
        let stale = Some(f64::from_bits(STALE_NAN_BITS));
        let mut samples = vec![Some(1.0)];
        samples.extend([None; 700]);
        samples.extend([stale, stale, Some(1.0), None, stale]);
        assert_eq!(round_trip(&samples, 3), wanted(&samples, 3));
    }
}
