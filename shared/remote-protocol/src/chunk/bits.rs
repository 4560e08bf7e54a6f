//! Numbers of few bits, as chunks have them.

/// Bits that are written one behind the other, highest first.
#[derive(Debug, Default)]
pub(super) struct Bits {
    bytes: Vec<u8>,
    /// Bits of the last byte that are not used yet.
    free: u32,
}

/// The widths that a number of variable size is written in, each with as many ones before it and a zero; 64 bits have no
/// zero.
const WIDTHS: [u32; 8] = [3, 6, 9, 12, 18, 25, 56, 64];

impl Bits {
    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Writes the lowest bits of a number.
    pub(super) fn write(&mut self, value: u64, width: u32) {
        let mut left = width;
        while left > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let take = left.min(self.free);
            let piece = (value >> (left - take)) & ((1 << take) - 1);
            if let Some(last) = self.bytes.last_mut() {
                *last |= u8::try_from(piece << (self.free - take)).expect("no more than the free bits");
            }
            self.free -= take;
            left -= take;
        }
    }

    /// Writes a number as protobuf does.
    pub(super) fn write_uvarint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.write(value & 0x7f | 0x80, 8);
            value >>= 7;
        }
        self.write(value, 8);
    }

    /// Writes a signed number as protobuf's `sint64`.
    pub(super) fn write_varint(&mut self, value: i64) {
        self.write_uvarint(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    /// Writes how much the time between two floats changed.
    pub(super) fn write_change(&mut self, change: i64) {
        match [14, 17, 20].into_iter().zip(1..).find(|(width, _)| fits(change, *width)) {
            _ if change == 0 => self.write(0, 1),
            Some((width, ones)) => {
                self.write((1 << (ones + 1)) - 2, ones + 1);
                self.write(change.cast_unsigned(), width);
            }
            None => {
                self.write(0b1111, 4);
                self.write(change.cast_unsigned(), 64);
            }
        }
    }

    /// Writes a signed number in as few bits as it needs.
    pub(super) fn write_signed(&mut self, value: i64) {
        self.write_sized(value.cast_unsigned(), |width| fits(value, width));
    }

    /// Writes an unsigned number in as few bits as it needs.
    pub(super) fn write_unsigned(&mut self, value: u64) {
        self.write_sized(value, |width| value >> width == 0);
    }

    fn write_sized(&mut self, value: u64, fits: impl Fn(u32) -> bool) {
        if value == 0 {
            return self.write(0, 1);
        }
        let step = WIDTHS.iter().position(|width| *width == 64 || fits(*width)).expect("64 bits take all");
        let ones = u32::try_from(step + 1).expect("eight at most");
        match WIDTHS[step] {
            64 => self.write(0xff, 8),
            _ => self.write((1 << (ones + 1)) - 2, ones + 1),
        }
        self.write(value, WIDTHS[step]);
    }
}

/// Says whether a signed number can be told from so many of its bits: one more above zero than below, unlike two's
/// complement.
fn fits(value: i64, width: u32) -> bool {
    let half = 1_i64 << (width - 1);
    (1 - half..=half).contains(&value)
}

/// A float that is written by what it has in common with the one before.
#[derive(Debug)]
pub(super) struct Xor {
    before: u64,
    /// Leading and trailing zeros of the last window of bits, once there is one.
    window: Option<(u32, u32)>,
}

impl Xor {
    pub(super) fn new(value: f64) -> Self {
        Self { before: value.to_bits(), window: None }
    }

    pub(super) fn write(&mut self, value: f64, bits: &mut Bits) {
        let flipped = value.to_bits() ^ std::mem::replace(&mut self.before, value.to_bits());
        if flipped == 0 {
            return bits.write(0, 1);
        }
        bits.write(1, 1);
        // There are five bits for it.
        let leading = flipped.leading_zeros().min(31);
        let trailing = flipped.trailing_zeros();
        let (leading, trailing) = match self.window {
            Some(window) if window.0 <= leading && window.1 <= trailing => {
                bits.write(0, 1);
                window
            }
            _ => {
                bits.write(1, 1);
                bits.write(leading.into(), 5);
                // 64 does not fit and is written as 0, which stands for nothing else.
                bits.write((64 - leading - trailing).into(), 6);
                *self.window.insert((leading, trailing))
            }
        };
        bits.write(flipped >> trailing, 64 - leading - trailing);
    }
}
