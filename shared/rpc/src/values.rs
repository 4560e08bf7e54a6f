//! The values of a group on an append stream, as differences to those before.
//!
//! Most counters grow by a little or not at all, and most gauges stay: a value then takes a byte, where a plain float
//! takes eight. `GroupAppend.values` in `proto/ingester/v1/ingester.proto` describes the bytes.

use crate::error::{Error, Result};

/// One byte and, for the second, one more: integer differences of 7 and of 14 bits, zigzag.
const SHORT: u8 = 0x00;
const MEDIUM: u8 = 0x80;
/// With the number of bytes that follow: an integer difference, and bits that differ at the low and at the high end.
const LONG: u8 = 0xC0;
const LOW_BITS: u8 = 0xD0;
const HIGH_BITS: u8 = 0xE0;

/// Bytes of the longest integer difference: further ones are not shorter than their bits.
const LONG_BYTES_MAX: usize = 6;
/// Integers up to here are exact in a float.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// What one side of a stream remembers of a group: the values of its last append.
///
/// ```
/// use rpc::values::LastValues;
///
/// let (mut sender, mut receiver) = (LastValues::default(), LastValues::default());
/// for values in [[10.0, 0.1], [17.0, 0.1]] {
///     let bytes = sender.encode(&values);
///     assert_eq!(receiver.decode(&bytes, 2)?, values);
/// }
/// assert_eq!(sender.encode(&[18.0, 0.1]).len(), 2);
/// # Ok::<(), rpc::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct LastValues(Vec<f64>);

impl LastValues {
    /// Writes the values of the next append.
    pub fn encode(&mut self, values: &[f64]) -> Vec<u8> {
        let Self(last) = self;
        last.resize(values.len(), 0.0);
        let mut out = Vec::with_capacity(2 * values.len());
        for (last, value) in last.iter_mut().zip(values) {
            put(&mut out, *last, *value);
            *last = *value;
        }
        out
    }

    /// Reads the values of the next append, at most so many.
    ///
    /// # Errors
    /// When the bytes are no such list. What is remembered is then of no use; the stream has to end.
    pub fn decode(&mut self, mut bytes: &[u8], values_max: usize) -> Result<&[f64]> {
        let Self(last) = self;
        let mut count = 0;
        while !bytes.is_empty() {
            if count == values_max {
                return Err(Error::invalid("values", format!("more than {values_max}")));
            }
            if count == last.len() {
                last.push(0.0);
            }
            last[count] = take(&mut bytes, last[count])?;
            count += 1;
        }
        last.truncate(count);
        Ok(last)
    }
}

/// Writes a value by the one before it.
fn put(out: &mut Vec<u8>, last: f64, value: f64) {
    let differing = last.to_bits() ^ value.to_bits();
    if differing == 0 {
        return out.push(SHORT);
    }
    let low = 8 - differing.leading_zeros() as usize / 8;
    let high = 8 - differing.trailing_zeros() as usize / 8;
    let by_bits = low.min(high);
    if let Some(zigzag) = integer_difference(last, value) {
        let bytes = 8 - zigzag.leading_zeros() as usize / 8;
        match zigzag {
            ..0x80 => return out.push(zigzag as u8),
            ..0x4000 if by_bits > 1 => return out.extend([MEDIUM | (zigzag >> 8) as u8, zigzag as u8]),
            _ if bytes <= LONG_BYTES_MAX && bytes < by_bits => {
                out.push(LONG | bytes as u8);
                return out.extend(&zigzag.to_le_bytes()[..bytes]);
            }
            _ => {}
        }
    }
    let bits = differing.to_le_bytes();
    if low <= high {
        out.push(LOW_BITS | low as u8);
        out.extend(&bits[..low]);
    } else {
        out.push(HIGH_BITS | high as u8);
        out.extend(&bits[8 - high..]);
    }
}

/// The difference, zigzag, where adding it to the one gives exactly the other.
fn integer_difference(last: f64, value: f64) -> Option<u64> {
    let difference = integer(value)? - integer(last)?;
    Some(((difference << 1) ^ (difference >> 63)).cast_unsigned())
}

/// A float that is an integer, and no negative zero.
fn integer(x: f64) -> Option<i64> {
    let is_integer = x.abs() <= EXACT_MAX && (x as i64 as f64).to_bits() == x.to_bits();
    is_integer.then_some(x as i64)
}

/// Reads a value by the one before it.
fn take(bytes: &mut &[u8], last: f64) -> Result<f64> {
    let cut = || Error::invalid("values", "cut off");
    let (&first, mut rest) = bytes.split_first().ok_or_else(cut)?;
    let mut following = |count: usize| {
        let (now, later) = rest.split_at_checked(count).ok_or_else(cut)?;
        rest = later;
        let mut number = [0; 8];
        number[..count].copy_from_slice(now);
        Ok::<_, Error>(u64::from_le_bytes(number))
    };
    let count = usize::from(first & 0x0F);
    let value = match first {
        SHORT => last,
        1..MEDIUM => add(last, u64::from(first))?,
        MEDIUM..LONG => add(last, u64::from(first & 0x3F) << 8 | following(1)?)?,
        LONG..LOW_BITS if (1..=LONG_BYTES_MAX).contains(&count) => add(last, following(count)?)?,
        LOW_BITS..HIGH_BITS if (1..=8).contains(&count) => f64::from_bits(last.to_bits() ^ following(count)?),
        HIGH_BITS.. if (1..=8).contains(&count) => {
            f64::from_bits(last.to_bits() ^ following(count)? << (64 - 8 * count))
        }
        _ => return Err(Error::invalid("values", format!("no value begins with {first:#04x}"))),
    };
    *bytes = rest;
    Ok(value)
}

fn add(last: f64, zigzag: u64) -> Result<f64> {
    let difference = (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed();
    let last = integer(last).ok_or_else(|| Error::invalid("values", "a difference to what is no integer"))?;
    Ok((last + difference) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends lists one after the other; returns the bytes of the last.
    fn send(lists: &[&[f64]]) -> Vec<u8> {
        let (mut sender, mut receiver) = (LastValues::default(), LastValues::default());
        let mut bytes = Vec::new();
        for values in lists {
            bytes = sender.encode(values);
            let got: Vec<u64> = receiver
                .decode(&bytes, values.len())
                .expect("what was sent")
                .iter()
                .map(|x| x.to_bits())
                .collect();
            assert_eq!(got, values.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), "{lists:?}");
        }
        bytes
    }

    #[test]
    fn lengths_are_those_of_the_format() {
        for (from, to, length) in [
            (0.5, 0.5, 1),
            (1e300, 1e300, 1),
            (5.0, 68.0, 1),
            (5.0, -59.0, 1),
            (5.0, 69.0, 2),
            (1e9, 1e9 + 8191.0, 2),
            (1e9, 1e9 + 12_345_677.0, 5),
            // Round in base 2: the bits that differ are few.
            (4_194_304.0, 4_194_304.0 + 524_288.0, 3),
            (0.0, 0.5, 3),
            (1.0, 1.0 + f64::EPSILON, 2),
            (0.1, 0.2, 3),
            (f64::NAN, f64::NAN, 1),
            (0.0, -0.0, 2),
        ] {
            assert_eq!(send(&[&[from], &[to]]).len(), length, "{from} to {to}");
        }
    }

    #[test]
    fn every_list_comes_back_bit_for_bit() {
        let odd = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            f64::NAN,
            model::stale_nan(),
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MAX,
            f64::MIN_POSITIVE,
            5e-324,
            EXACT_MAX,
            -EXACT_MAX,
            EXACT_MAX + 2.0,
            0.1,
            123_456_789.0,
            1e17,
        ];
        for a in odd {
            for b in odd {
                send(&[&[a], &[b], &[a]]);
            }
        }
        // A generator of pseudo-random numbers: any bits, small integers, small steps, lists that grow and shrink.
        let mut state = 42_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 11
        };
        let mut lists: Vec<Vec<f64>> = vec![Vec::new()];
        for _ in 0..300 {
            let before = lists.last().cloned().unwrap_or_default();
            let length = usize::try_from(next() % 40).expect("small");
            let value = |i: usize, kind: u64, bits: u64| match kind % 4 {
                0 => f64::from_bits(bits << 11 | bits >> 42),
                1 => (bits % 100_000) as f64,
                2 => before.get(i).copied().unwrap_or(1.0) + (bits % 7) as f64,
                _ => before.get(i).copied().unwrap_or(0.1),
            };
            lists.push((0..length).map(|i| value(i, next(), next())).collect());
        }
        send(&lists.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let decode = |bytes: &[u8], max| LastValues::default().decode(bytes, max).map(<[f64]>::len);
        for bytes in [
            &[0x80][..],
            &[0xC0],
            &[0xC7, 0, 0, 0, 0, 0, 0, 0],
            &[0xC2, 1],
            &[0xD0],
            &[0xD9],
            &[0xE0],
            &[0xFF],
        ] {
            assert!(decode(bytes, 9).is_err(), "{bytes:x?}");
        }
        let mut last = LastValues::default();
        assert_eq!(last.decode(&[0xD1, 1], 9), Ok(&[5e-324][..]));
        assert!(last.decode(&[2], 9).is_err(), "5e-324 is no integer that 1 can be added to");
        assert_eq!((decode(&[0, 0], 2), decode(&[0, 0, 0], 2).is_err()), (Ok(2), true));
    }
}
