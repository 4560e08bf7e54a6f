//! Takes bytes apart: Go's varints, big-endian numbers, and strings with their length in front.

use model::Labels;

/// Fewer bytes than there should be, or a number that fits nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Short;

/// Why labels cannot be read.
pub(crate) const NOT_SORTED: &str = "labels are not sorted";
/// Why bytes cannot be read.
pub(crate) const SHORT: &str = "it ends too early, or a number is too large";

impl From<Short> for String {
    fn from(_: Short) -> Self {
        SHORT.to_owned()
    }
}

/// What is left of some bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decoder<'a>(pub(crate) &'a [u8]);

impl<'a> Decoder<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Short> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Short> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn be32(&mut self) -> Result<u32, Short> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn be64(&mut self) -> Result<u64, Short> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn be64_float(&mut self) -> Result<f64, Short> {
        self.be64().map(f64::from_bits)
    }

    pub(crate) fn uvarint(&mut self) -> Result<u64, Short> {
        uvarint(|| self.byte())
    }

    pub(crate) fn varint(&mut self) -> Result<i64, Short> {
        self.uvarint().map(zigzag)
    }

    /// A count of things that each take at least one byte of what is left.
    pub(crate) fn count(&mut self) -> Result<usize, Short> {
        usize::try_from(self.uvarint()?).ok().filter(|n| *n <= self.0.len()).ok_or(Short)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Short> {
        let length = self.count()?;
        self.take(length)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, String> {
        std::str::from_utf8(self.bytes()?).map_err(|_| "a text is not UTF-8".to_owned())
    }

    pub(crate) fn labels(&mut self) -> Result<Labels, String> {
        let count = self.count()?;
        let mut pairs = Vec::with_capacity(count);
        for _ in 0..count {
            pairs.push((self.text()?, self.text()?));
        }
        Labels::from_sorted(pairs).ok_or_else(|| NOT_SORTED.to_owned())
    }
}

/// Reads an unsigned varint from bytes wherever they come from.
pub(crate) fn uvarint(mut byte: impl FnMut() -> Result<u8, Short>) -> Result<u64, Short> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let next = byte()?;
        // The tenth byte has room for one bit.
        if shift == 63 && next > 1 {
            return Err(Short);
        }
        value |= u64::from(next & 0x7f) << shift;
        if next < 0x80 {
            return Ok(value);
        }
    }
    Err(Short)
}

/// The signed number that a varint stands for.
pub(crate) fn zigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}
