//! Reads bits, highest first, as chunks are made of.

use crate::decoder::{self, Short, zigzag};

/// The lengths that a number of variable length can have behind as many ones and a zero as its place in this list says,
/// plus one. The last has no zero.
const VARBIT_LENGTHS: [u32; 8] = [3, 6, 9, 12, 18, 25, 56, 64];

/// What is left of the bits of some bytes.
#[derive(Debug)]
pub(crate) struct Bits<'a> {
    bytes: &'a [u8],
    /// In bits.
    position: usize,
}

impl<'a> Bits<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// How many are left.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len() * 8 - self.position
    }

    pub(crate) fn bit(&mut self) -> Result<bool, Short> {
        let byte = self.bytes.get(self.position / 8).ok_or(Short)?;
        let bit = byte >> (7 - self.position % 8) & 1;
        self.position += 1;
        Ok(bit == 1)
    }

    /// Up to 64 bits as the low end of a number.
    pub(crate) fn bits(&mut self, count: u32) -> Result<u64, Short> {
        if count as usize > self.left() {
            return Err(Short);
        }
        if count == 0 {
            return Ok(0);
        }
        let from = &self.bytes[self.position / 8..];
        let mut window = [0; 16];
        let length = from.len().min(16);
        window[..length].copy_from_slice(&from[..length]);
        let shifted = u128::from_be_bytes(window) << (self.position % 8);
        self.position += count as usize;
        Ok(u64::try_from(shifted >> (128 - count)).expect("at most 64 bits are left"))
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Short> {
        self.bits(8).map(|b| u8::try_from(b).expect("eight bits"))
    }

    pub(crate) fn float(&mut self) -> Result<f64, Short> {
        self.bits(64).map(f64::from_bits)
    }

    pub(crate) fn uvarint(&mut self) -> Result<u64, Short> {
        decoder::uvarint(|| self.byte())
    }

    pub(crate) fn varint(&mut self) -> Result<i64, Short> {
        self.uvarint().map(zigzag)
    }

    /// A number of so many bits that is not above half of its range, or as much below zero.
    pub(crate) fn signed(&mut self, count: u32) -> Result<i64, Short> {
        let bits = self.bits(count)?;
        if count == 64 {
            return Ok(bits.cast_signed());
        }
        let is_negative = bits > 1 << (count - 1);
        Ok(if is_negative { bits.wrapping_sub(1 << count) } else { bits }.cast_signed())
    }

    /// Counts ones up to a zero or a limit.
    pub(crate) fn ones(&mut self, limit: usize) -> Result<usize, Short> {
        for count in 0..limit {
            if !self.bit()? {
                return Ok(count);
            }
        }
        Ok(limit)
    }

    pub(crate) fn varbit_int(&mut self) -> Result<i64, Short> {
        match self.ones(VARBIT_LENGTHS.len())? {
            0 => Ok(0),
            n => self.signed(VARBIT_LENGTHS[n - 1]),
        }
    }

    pub(crate) fn varbit_uint(&mut self) -> Result<u64, Short> {
        match self.ones(VARBIT_LENGTHS.len())? {
            0 => Ok(0),
            n => self.bits(VARBIT_LENGTHS[n - 1]),
        }
    }
}

/// A float that is stored as what changed since the one before.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Xor {
    bits: u64,
    leading: u32,
    trailing: u32,
}

impl Xor {
    pub(crate) fn new(value: f64) -> Self {
        Self { bits: value.to_bits(), ..Self::default() }
    }

    pub(crate) fn value(&self) -> f64 {
        f64::from_bits(self.bits)
    }

    /// Takes in the next value.
    pub(crate) fn read(&mut self, bits: &mut Bits<'_>) -> Result<(), Short> {
        if !bits.bit()? {
            return Ok(());
        }
        if bits.bit()? {
            let leading = u32::try_from(bits.bits(5)?).expect("five bits");
            let significant = match u32::try_from(bits.bits(6)?).expect("six bits") {
                0 => 64,
                n => n,
            };
            self.trailing = 64_u32.checked_sub(leading + significant).ok_or(Short)?;
            self.leading = leading;
        }
        self.bits ^= bits.bits(64 - self.leading - self.trailing)? << self.trailing;
        Ok(())
    }
}
