//! The protobuf wire format, read in place.
//!
//! A large message is walked rather than decoded into structs as a whole: a struct for each of many tiny messages takes
//! tens of times, in the worst case hundreds of times, the space of the body.

/// The payload of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Payload<'a> {
    /// Integers, enums and booleans.
    Varint(u64),
    /// Doubles and fixed 64-bit integers, as bits.
    Fixed64(u64),
    /// Floats and fixed 32-bit integers, as bits.
    Fixed32(u32),
    /// Texts, bytes, messages and packed lists.
    Bytes(&'a [u8]),
}

impl<'a> Payload<'a> {
    /// Returns the bytes of a length-delimited field.
    #[must_use]
    pub fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Returns the bytes of a length-delimited field.
    ///
    /// # Errors
    /// When it is a number.
    pub fn expect_bytes(self) -> Result<&'a [u8], Malformed> {
        self.bytes().ok_or(Malformed("number where a message or text belongs"))
    }

    /// Returns the value of a `double`.
    #[must_use]
    pub fn double(self) -> Option<f64> {
        match self {
            Self::Fixed64(bits) => Some(f64::from_bits(bits)),
            _ => None,
        }
    }

    /// Returns the value of an `int64`, whose negative numbers are ten bytes long.
    #[must_use]
    pub fn int64(self) -> Option<i64> {
        match self {
            Self::Varint(bits) => Some(bits.cast_signed()),
            _ => None,
        }
    }
}

/// Bytes that are no message, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

/// Iterates over the fields of a message; ends after an error.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Starts on a message.
    #[must_use]
    pub const fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// What is not read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Iterates over the fields of a message that has been walked before, or of another up to its first error.
    pub fn checked(message: &'a [u8]) -> impl Iterator<Item = (u64, Payload<'a>)> {
        Self::new(message).map_while(Result::ok)
    }

    #[inline]
    fn read(&mut self) -> Result<(u64, Payload<'a>), Malformed> {
        let key = read_varint(&mut self.rest)?;
        let number = key >> 3;
        if number == 0 {
            return Err(Malformed("field number 0"));
        }
        let payload = match key & 7 {
            0 => Payload::Varint(read_varint(&mut self.rest)?),
            1 => Payload::Fixed64(u64::from_le_bytes(self.read_array()?)),
            2 => Payload::Bytes(read_delimited(&mut self.rest)?),
            5 => Payload::Fixed32(u32::from_le_bytes(self.read_array()?)),
            _ => return Err(Malformed("unknown wire type")),
        };
        Ok((number, payload))
    }

    #[inline]
    fn read_array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(Malformed("number is cut off"))?;
        self.rest = rest;
        Ok(*array)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Payload<'a>), Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Reads a number of up to ten bytes off the front.
///
/// # Errors
/// When the bytes end within it or it has more than 64 bits.
#[inline]
pub fn read_varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    // Nearly all keys and lengths.
    if let Some((byte, rest)) = bytes.split_first()
        && *byte < 0x80
    {
        *bytes = rest;
        return Ok(u64::from(*byte));
    }
    read_long_varint(bytes)
}

fn read_long_varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(Malformed("number is cut off"))?;
        *bytes = rest;
        if shift == 63 && *byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed("number is longer than 64 bits"))
}

/// Reads a length and as many bytes off the front.
///
/// # Errors
/// When the length is none or goes beyond the end.
#[inline]
pub fn read_delimited<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = read_varint(bytes)?;
    let split = usize::try_from(length).ok().and_then(|n| bytes.split_at_checked(n));
    let (taken, rest) = split.ok_or(Malformed("length goes beyond the end"))?;
    *bytes = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<(u64, Payload<'_>)>, Malformed> {
        Fields::new(bytes).collect()
    }

    /// The first two are the examples of protobuf's encoding page.
    #[test]
    fn fields_are_read_in_place() {
        assert_eq!(read(&[0x08, 0x96, 0x01]), Ok(vec![(1, Payload::Varint(150))]));
        assert_eq!(read(b"\x12\x07testing"), Ok(vec![(2, Payload::Bytes(b"testing"))]));
        assert_eq!(read(&[0x0d, 1, 0, 0, 0]), Ok(vec![(1, Payload::Fixed32(1))]));
        assert_eq!(read(&[0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]).map(|f| f[0].1.double()), Ok(Some(1.0)));
        let minus_one = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(read(&minus_one).map(|f| f[0].1.int64()), Ok(Some(-1)));
        assert_eq!(read(&[0x82, 0x01, 0]), Ok(vec![(16, Payload::Bytes(b""))]));
        assert_eq!(read(&[]), Ok(vec![]));
    }

    #[test]
    fn malformed_bytes_are_refused() {
        for (bytes, expected) in [
            (&[0x08][..], "number is cut off"),
            (&[0x80], "number is cut off"),
            (&[0x09, 1, 2], "number is cut off"),
            (&[0x0d, 1, 2], "number is cut off"),
            (&[0x12, 2, 0], "length goes beyond the end"),
            (&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "length goes beyond the end"),
            (
                &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
                "number is longer than 64 bits",
            ),
            (
                &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x81, 1],
                "number is longer than 64 bits",
            ),
            (&[0x00, 0], "field number 0"),
            (&[0x0b], "unknown wire type"),
            (&[0x0f], "unknown wire type"),
        ] {
            assert_eq!(read(bytes), Err(Malformed(expected)), "{bytes:?}");
        }
    }
}
