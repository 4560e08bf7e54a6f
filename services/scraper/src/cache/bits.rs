//! A growable set of member numbers.

/// A set of small numbers, a bit each.
#[derive(Debug, Clone, Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    /// Adds a number; returns whether it was new.
    pub(super) fn insert(&mut self, number: u32) -> bool {
        let (word, bit) = (number as usize / 64, 1_u64 << (number % 64));
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }

    /// Says whether a number is in the set.
    pub(super) fn contains(&self, number: u32) -> bool {
        self.0.get(number as usize / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// Empties the set, keeping its memory.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The numbers that are in this set and not in the other, ascending.
    pub(super) fn without<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = u32> + 'a {
        self.0.iter().enumerate().flat_map(|(i, word)| {
            let mut rest = word & !other.0.get(i).copied().unwrap_or(0);
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some(u32::try_from(i).expect("members are numbered with 32 bits") * 64 + bit)
            })
        })
    }

    /// The numbers in the set, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        const NONE: &Bits = &Bits(Vec::new());
        self.without(NONE)
    }

    /// The numbers below `len` that are not in the set, as a bitmap: lowest bit of the first byte first.
    pub(super) fn absent_below(&self, len: u32) -> Vec<u8> {
        let bytes = len.div_ceil(8) as usize;
        let mut bitmap = Vec::with_capacity(bytes + 8);
        for i in 0..(len as usize).div_ceil(64) {
            bitmap.extend((!self.0.get(i).copied().unwrap_or(0)).to_le_bytes());
        }
        bitmap.truncate(bytes);
        if let (Some(last), rest @ 1..) = (bitmap.last_mut(), len % 8) {
            *last &= (1 << rest) - 1;
        }
        bitmap
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::Bits;

    proptest! {
        #[test]
        fn bits_are_a_set(a in prop::collection::btree_set(0_u32..300, 0..80),
                          b in prop::collection::btree_set(0_u32..300, 0..80), len in 0_u32..310) {
            let (mut x, mut y) = (Bits::default(), Bits::default());
            prop_assert!(a.iter().all(|n| x.insert(*n)) && b.iter().all(|n| y.insert(*n)));
            prop_assert!(a.iter().all(|n| !x.insert(*n)));
            prop_assert_eq!(x.iter().collect::<BTreeSet<_>>(), a.clone());
            prop_assert_eq!(x.count(), a.len());
            prop_assert_eq!(x.without(&y).collect::<Vec<_>>(), a.difference(&b).copied().collect::<Vec<_>>());
            let bitmap = x.absent_below(len);
            prop_assert_eq!(bitmap.len(), len.div_ceil(8) as usize);
            for n in 0..bitmap.len() as u32 * 8 {
                let is_set = bitmap[n as usize / 8] >> (n % 8) & 1 == 1;
                prop_assert_eq!(is_set, n < len && !a.contains(&n), "{}", n);
            }
        }
    }
}
