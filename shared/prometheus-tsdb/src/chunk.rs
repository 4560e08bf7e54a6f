//! Chunks: up to some hundred samples of one series, packed bit by bit.

mod histogram;

use model::Histogram;

use crate::bits::{Bits, Xor};
use crate::decoder::Short;

/// How the samples of a chunk are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Floats, as differences of differences and of bits.
    Xor,
    /// Histograms of integers.
    Histogram,
    /// Histograms of floats.
    FloatHistogram,
}

impl Encoding {
    /// Reads the byte that a chunk has for it; `None` for one that is not known.
    #[must_use]
    pub fn of(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Xor),
            2 => Some(Self::Histogram),
            3 => Some(Self::FloatHistogram),
            _ => None,
        }
    }
}

/// Samples of one series: times in milliseconds, and what was measured.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    /// Floats.
    pub floats: Vec<(i64, f64)>,
    /// Native histograms.
    pub histograms: Vec<(i64, Histogram)>,
}

impl Samples {
    /// Says whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.floats.is_empty() && self.histograms.is_empty()
    }

    /// Drops the samples at times that the predicate does not accept.
    pub fn retain(&mut self, mut keep: impl FnMut(i64) -> bool) {
        self.floats.retain(|(t, _)| keep(*t));
        self.histograms.retain(|(t, _)| keep(*t));
    }
}

/// Unpacks a chunk and adds what it holds.
///
/// # Errors
/// What is wrong with it; samples read up to there may have been added.
pub fn decode(encoding: Encoding, bytes: &[u8], into: &mut Samples) -> Result<(), String> {
    let (count, bytes) = bytes.split_first_chunk().ok_or(Short)?;
    let count = u16::from_be_bytes(*count);
    match encoding {
        Encoding::Xor => floats(count, bytes, &mut into.floats).map_err(String::from),
        Encoding::Histogram => histogram::integers(count, bytes, &mut into.histograms),
        Encoding::FloatHistogram => histogram::floats(count, bytes, &mut into.histograms),
    }
}

fn floats(count: u16, bytes: &[u8], into: &mut Vec<(i64, f64)>) -> Result<(), Short> {
    let mut bits = Bits::new(bytes);
    let (mut time, mut delta) = (0_i64, 0_i64);
    let mut value = Xor::default();
    for number in 0..count {
        match number {
            0 => {
                time = bits.varint()?;
                value = Xor::new(bits.float()?);
            }
            1 => {
                delta = bits.uvarint()?.cast_signed();
                time = time.wrapping_add(delta);
                value.read(&mut bits)?;
            }
            _ => {
                let change = match bits.ones(4)? {
                    0 => 0,
                    1 => bits.signed(14)?,
                    2 => bits.signed(17)?,
                    3 => bits.signed(20)?,
                    _ => bits.signed(64)?,
                };
                delta = delta.wrapping_add(change);
                time = time.wrapping_add(delta);
                value.read(&mut bits)?;
            }
        }
        into.push((time, value.value()));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
