//! Writes numbers as differences: Parquet's `DELTA_BINARY_PACKED`, laid out for the compression that follows.
//!
//! The encoding says how it is read, and leaves to the writer what decides the size of lists of samples:
//!
//! - **The base of a block**, which is added to each of its differences. Any number may be, since sums wrap around. We
//!   take what suits most of a row, and let the step to the next row or the reset of a counter wrap: one small part is
//!   as wide as can be then, and not the whole block.
//! - **The width of a part** of a block, which may be more than it needs. Where small numbers fill half a byte or a
//!   whole one, equal ones look equal to zstd, and frequent ones take it few bits.

use std::ops::Range;

/// Differences of a block, which have a base in common.
const BLOCK: usize = 128;
/// Differences of a part of a block, which have a width in common: the fewest that the encoding allows.
const PART: usize = 32;
/// Bases tried for a row, the lowest ones: what is odd in a row, as a reset is, is rare.
const BASES_MAX: usize = 16;
/// Wider differences take whole bytes: what makes them wide is one among many small ones, and the zeros beside it.
const WIDE_BITS: usize = 40;

/// Appends numbers, given where each row of them ends.
pub(crate) fn write_deltas(numbers: &[i64], row_ends: &[usize], into: &mut Vec<u8>) {
    put_varint(BLOCK as u64, into);
    put_varint((BLOCK / PART) as u64, into);
    put_varint(numbers.len() as u64, into);
    put_varint(zigzag(numbers.first().copied().unwrap_or(0)), into);
    let deltas: Vec<i64> = numbers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    let bases = row_bases(&deltas, row_ends);
    for (deltas, bases) in deltas.chunks(BLOCK).zip(bases.chunks(BLOCK)) {
        let base = bases.iter().flatten().min().copied().unwrap_or(deltas[0]);
        put_varint(zigzag(base), into);
        let widths = into.len();
        into.resize(widths + BLOCK / PART, 0);
        for (i, part) in deltas.chunks(PART).enumerate() {
            let above = part.iter().map(|delta| delta.wrapping_sub(base).cast_unsigned());
            let width = width(above.clone().fold(0, |all, n| all | n));
            into[widths + i] = u8::try_from(width).expect("64 bits at most");
            pack(above, width, into);
        }
    }
}

/// Finds for each difference the base that suits its row; none for a step from row to row.
fn row_bases(deltas: &[i64], row_ends: &[usize]) -> Vec<Option<i64>> {
    let mut bases = vec![None; deltas.len()];
    let mut start = 0;
    for end in row_ends {
        let own = start..end.saturating_sub(1).max(start);
        if let Some(base) = row_base(deltas, own.clone()) {
            bases[own].fill(Some(base));
        }
        start = *end;
    }
    bases
}

/// Finds the base with which a row's differences take the fewest bits.
fn row_base(deltas: &[i64], row: Range<usize>) -> Option<i64> {
    let mut bounds = Vec::with_capacity(row.len() / PART + 2);
    let mut start = row.start;
    while start < row.end {
        let end = row.end.min((start / PART + 1) * PART);
        let first = deltas[start];
        let both = |(min, max): (i64, i64), delta: &i64| (min.min(*delta), max.max(*delta));
        bounds.push(deltas[start..end].iter().fold((first, first), both));
        start = end;
    }
    let mut bases: Vec<i64> = bounds.iter().map(|(min, _)| *min).collect();
    bases.sort_unstable();
    bases.dedup();
    let cost = |base: &i64| -> usize {
        let bits = |(min, max): &(i64, i64)| {
            if min < base { 64 } else { bits(max.wrapping_sub(*base).cast_unsigned()) }
        };
        bounds.iter().map(bits).sum()
    };
    bases.into_iter().take(BASES_MAX).min_by_key(cost)
}

/// How many bits each number of a part takes, given all that are set in any of them.
fn width(all: u64) -> usize {
    match bits(all) {
        0 => 0,
        bits @ 1..=8 => bits.next_power_of_two(),
        // Multiples of a power of two, as pages of memory are.
        bits if all.trailing_zeros() >= 8 || bits > WIDE_BITS => bits.next_multiple_of(8),
        bits => bits,
    }
}

fn bits(number: u64) -> usize {
    (u64::BITS - number.leading_zeros()) as usize
}

/// Appends a part, filled up with zeros.
fn pack(numbers: impl Iterator<Item = u64>, width: usize, into: &mut Vec<u8>) {
    let end = into.len() + PART * width / 8;
    let (mut word, mut filled) = (0_u128, 0);
    for number in numbers {
        word |= u128::from(number) << filled;
        filled += width;
        if filled >= 64 {
            into.extend_from_slice(&word.to_le_bytes()[..8]);
            word >>= 64;
            filled -= 64;
        }
    }
    into.extend_from_slice(&word.to_le_bytes()[..8]);
    into.resize(end, 0);
}

/// Appends a number as bytes of seven bits, the lowest first.
pub(crate) fn put_varint(mut number: u64, into: &mut Vec<u8>) {
    while number >= 0x80 {
        into.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(rows: &[Vec<i64>]) -> Vec<u8> {
        let ends = rows.iter().scan(0, |end, row| {
            *end += row.len();
            Some(*end)
        });
        let mut bytes = Vec::new();
        write_deltas(&rows.concat(), &ends.collect::<Vec<_>>(), &mut bytes);
        bytes
    }

    #[test]
    fn nothing_and_one_number_have_a_head_alone() {
        // Blocks of 128 in 4 parts, the number of numbers, and the first one as a zigzag number.
        assert_eq!(written(&[]), [0x80, 1, 4, 0, 0]);
        assert_eq!(written(&[vec![-3]]), [0x80, 1, 4, 1, 5]);
    }

    #[test]
    fn parts_have_the_widths_that_suit_compression() {
        // One difference stands out above a base of 1.
        for (above, width) in [
            (0, 0),
            (1, 1),
            (3, 2),
            (7, 4),
            (15, 4),
            (16, 8),
            (255, 8),
            (257, 9),
            (0xffff, 16),
            (0x1_0000, 24),
            (0x1_0001, 17),
            (4_096 * 5, 16),
            ((1_i64 << 40) + 1, 48),
            ((1 << 39) + 1, 40),
        ] {
            let row = vec![0, 1, 2 + above];
            let bytes = written(&[row]);
            assert_eq!(bytes[..5], [0x80, 1, 4, 3, 0], "{above}");
            assert_eq!(bytes[5..10], [2, width, 0, 0, 0], "{above}");
            assert_eq!(bytes.len(), 10 + PART * usize::from(width) / 8, "{above}");
        }
    }

    #[test]
    fn a_step_to_the_next_row_and_a_reset_widen_one_part_each() {
        let counter = |first: i64| (first..first + 480).collect::<Vec<_>>();
        let rows: Vec<Vec<i64>> = (0..16).rev().map(|i| counter(i << 40)).collect();
        // 7,679 differences of 1 make 60 blocks of a base and four widths; 15 steps down wrap around.
        let head = 2 + 1 + 2 + 7;
        assert_eq!(written(&rows).len(), head + 60 * 5 + 15 * PART * 8);
        // A counter that begins again at 0 midway.
        let reset = [counter(1_000), counter(0)].concat();
        assert_eq!(written(&[reset]).len(), 2 + 1 + 2 + 2 + 8 * 5 + PART * 8);
    }
}
