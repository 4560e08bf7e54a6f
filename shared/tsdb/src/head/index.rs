//! Which series there are: interned label pairs, postings, and the way from a label set to its series.
//!
//! A label pair (name, value) is stored once and has a number; a series' labels are a list of such numbers.
//!
//! Invariants:
//! - a pair exists as long as its postings are not empty, and its number is used again only after that;
//! - `last` names pairs that exist;
//! - the numbers of a series stand in the order of label names;
//! - `series` holds a number for every live series and for no other.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use hashbrown::HashTable;
use model::{Labels, MatchOp, Matcher};
use roaring::RoaringBitmap;

/// Label pairs, postings and series of one tenant.
#[derive(Debug, Default)]
pub(crate) struct Index {
    names: BTreeMap<Arc<str>, BTreeMap<Arc<str>, u32>>,
    pairs: Vec<Pair>,
    free_pairs: Vec<u32>,
    series: HashTable<u32>,
    all: RoaringBitmap,
    /// The pairs of the series that was added last: the next one mostly shares them.
    last: Vec<u32>,
}

#[derive(Debug)]
struct Pair {
    name: Arc<str>,
    value: Arc<str>,
    postings: RoaringBitmap,
}

/// The labels of a series as the index keeps them.
#[derive(Debug, Clone)]
pub(crate) struct InternedLabels {
    hash: u64,
    pairs: Box<[u32]>,
}

impl InternedLabels {
    pub(crate) fn byte_len(&self) -> usize {
        self.pairs.len() * size_of::<u32>()
    }

    /// The numbers of the label pairs, in the order of label names.
    pub(crate) fn pairs(&self) -> &[u32] {
        &self.pairs
    }
}

impl Index {
    /// Finds a series; `labels_of` gives the labels of a series number.
    pub(crate) fn find<'a>(
        &self,
        labels: &Labels,
        labels_of: impl Fn(u32) -> &'a InternedLabels,
    ) -> Option<u32> {
        let hash = labels.series_id();
        self.series
            .find(hash, |s| {
                let interned = labels_of(*s);
                interned.hash == hash && self.pairs_of(interned).eq(labels.iter())
            })
            .copied()
    }

    /// Adds a series that is not there yet.
    pub(crate) fn insert(
        &mut self,
        series: u32,
        labels: &Labels,
        hash_of: impl Fn(u32) -> u64,
    ) -> InternedLabels {
        let hash = labels.series_id();
        let last = std::mem::take(&mut self.last);
        let mut near = &*last;
        let pair =
            |(name, value)| self.known(&mut near, name, value).unwrap_or_else(|| self.intern(name, value));
        let pairs: Box<[u32]> = labels.iter().map(pair).collect();
        self.last = last;
        self.last.clear();
        self.last.extend_from_slice(&pairs);
        for pair in &pairs {
            self.pairs[*pair as usize].postings.insert(series);
        }
        self.all.insert(series);
        self.series.insert_unique(hash, series, |s| if *s == series { hash } else { hash_of(*s) });
        InternedLabels { hash, pairs }
    }

    /// Removes a series.
    pub(crate) fn remove(&mut self, series: u32, labels: &InternedLabels) {
        if let Ok(entry) = self.series.find_entry(labels.hash, |s| *s == series) {
            entry.remove();
        }
        self.all.remove(series);
        for number in &labels.pairs {
            let pair = &mut self.pairs[*number as usize];
            pair.postings.remove(series);
            if !pair.postings.is_empty() {
                continue;
            }
            if let Some(values) = self.names.get_mut(&pair.name) {
                values.remove(&pair.value);
                if values.is_empty() {
                    self.names.remove(&pair.name);
                }
            }
            self.free_pairs.push(*number);
            self.last.clear();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.series.len()
    }

    pub(crate) fn hash(labels: &InternedLabels) -> u64 {
        labels.hash
    }

    /// Puts the label set together again.
    pub(crate) fn labels(&self, interned: &InternedLabels) -> Labels {
        Labels::from_sorted(self.pairs_of(interned)).expect("interned in the order of label names")
    }

    /// Iterates over the (name, value) pairs of a series.
    pub(crate) fn pairs_of<'a>(
        &'a self,
        interned: &'a InternedLabels,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        interned.pairs.iter().map(|pair| self.pair(*pair))
    }

    /// Returns name and value of a label pair.
    pub(crate) fn pair(&self, number: u32) -> (&str, &str) {
        let pair = &self.pairs[number as usize];
        (&*pair.name, &*pair.value)
    }

    /// Returns the series that all matchers accept.
    pub(crate) fn postings(&self, matchers: &[Matcher]) -> RoaringBitmap {
        let mut found: Option<RoaringBitmap> = None;
        for matcher in matchers.iter().filter(|m| !m.matches_empty()) {
            let accepted = self.having(matcher, |m, v| m.matches(v));
            let joined = match found {
                None => accepted,
                Some(so_far) => so_far & accepted,
            };
            if joined.is_empty() {
                return joined;
            }
            found = Some(joined);
        }
        let mut found = found.unwrap_or_else(|| self.all.clone());
        // What accepts the empty value accepts series without the label too: take away the values it refuses.
        for matcher in matchers.iter().filter(|m| m.matches_empty()) {
            found -= self.having(matcher, |m, v| !m.matches(v));
        }
        found
    }

    /// Returns the series with a value of the matcher's label that the predicate wants.
    fn having(&self, matcher: &Matcher, is_wanted: impl Fn(&Matcher, &str) -> bool) -> RoaringBitmap {
        let Some(values) = self.names.get(matcher.name()) else { return RoaringBitmap::new() };
        let postings = |pair: &u32| &self.pairs[*pair as usize].postings;
        if matcher.op() == MatchOp::Equal && !matcher.matches_empty() {
            return values.get(matcher.value()).map(|p| postings(p).clone()).unwrap_or_default();
        }
        let mut found = RoaringBitmap::new();
        if matcher.op() == MatchOp::Regex && !matcher.matches_empty() {
            let pattern = matcher.pattern().expect("a regular expression matcher has a pattern");
            if let Some(literals) = pattern.literals() {
                for pair in literals.iter().filter_map(|l| values.get(l.as_str())) {
                    found |= postings(pair);
                }
                return found;
            }
            let from = (Bound::Included(pattern.prefix()), Bound::Unbounded);
            for (value, pair) in values.range::<str, _>(from) {
                if !value.starts_with(pattern.prefix()) {
                    break;
                }
                if is_wanted(matcher, value) {
                    found |= postings(pair);
                }
            }
            return found;
        }
        for (_, pair) in values.iter().filter(|(v, _)| is_wanted(matcher, v)) {
            found |= postings(pair);
        }
        found
    }

    /// Iterates over label names with their values and postings, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(|n| &**n)
    }

    /// Iterates over the values of a label with their series, in order.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = (&str, &RoaringBitmap)> {
        let values = self.names.get(name).into_iter().flatten();
        values.map(|(v, p)| (&**v, &self.pairs[*p as usize].postings))
    }

    /// As [`Index::values`], from the first value behind another.
    pub(crate) fn values_after<'a>(
        &'a self,
        name: &str,
        after: &str,
    ) -> impl Iterator<Item = (&'a str, &'a RoaringBitmap)> + use<'a> {
        let behind = (Bound::Excluded(after), Bound::Unbounded);
        let values = self.names.get(name).map(|values| values.range::<str, _>(behind));
        values.into_iter().flatten().map(|(v, p)| (&**v, &self.pairs[*p as usize].postings))
    }

    /// Returns the series with a value of a label.
    pub(crate) fn postings_of(&self, name: &str, value: &str) -> Option<&RoaringBitmap> {
        let pair = self.names.get(name)?.get(value)?;
        Some(&self.pairs[*pair as usize].postings)
    }

    /// Finds a pair among some that are sorted by name, and leaves of them those with later names.
    fn known(&self, near: &mut &[u32], name: &str, value: &str) -> Option<u32> {
        while let [first, rest @ ..] = *near {
            let pair = &self.pairs[*first as usize];
            let order = (*pair.name).cmp(name);
            if order.is_gt() {
                return None;
            }
            *near = rest;
            if order.is_eq() {
                return (*pair.value == *value).then_some(*first);
            }
        }
        None
    }

    fn intern(&mut self, name: &str, value: &str) -> u32 {
        if let Some(pair) = self.names.get(name).and_then(|values| values.get(value)) {
            return *pair;
        }
        let name: Arc<str> =
            self.names.get_key_value(name).map_or_else(|| Arc::from(name), |(n, _)| Arc::clone(n));
        let value: Arc<str> = Arc::from(value);
        let pair =
            Pair { name: Arc::clone(&name), value: Arc::clone(&value), postings: RoaringBitmap::new() };
        let number = if let Some(free) = self.free_pairs.pop() {
            self.pairs[free as usize] = pair;
            free
        } else {
            self.pairs.push(pair);
            u32::try_from(self.pairs.len() - 1).expect("fewer than 2^32 label pairs fit in memory")
        };
        self.names.entry(name).or_default().insert(value, number);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        index: Index,
        interned: Vec<InternedLabels>,
        labels: Vec<Labels>,
    }

    impl Fixture {
        fn new(sets: &[&[(&str, &str)]]) -> Self {
            let mut f = Self { index: Index::default(), interned: Vec::new(), labels: Vec::new() };
            for set in sets {
                let labels = Labels::from_pairs(set.iter().copied());
                let number = u32::try_from(f.interned.len()).expect("few");
                let interned = f.index.insert(number, &labels, |s| f.interned[s as usize].hash);
                f.interned.push(interned);
                f.labels.push(labels);
            }
            f
        }

        fn find(&self, labels: &Labels) -> Option<u32> {
            self.index.find(labels, |s| &self.interned[s as usize])
        }
    }

    fn matcher(op: MatchOp, name: &str, value: &str) -> Matcher {
        Matcher::new(op, name, value).expect("a valid pattern")
    }

    #[test]
    fn postings_agree_with_looking_at_every_series() {
        let f = Fixture::new(&[
            &[("__name__", "up"), ("job", "a"), ("zone", "eu-1")],
            &[("__name__", "up"), ("job", "b")],
            &[("__name__", "down"), ("job", "a"), ("zone", "eu-2")],
            &[("__name__", "down"), ("zone", "us-1")],
            &[("__name__", "down"), ("job", "ab")],
        ]);
        let mut matchers = Vec::new();
        for name in ["__name__", "job", "zone", "missing"] {
            for value in ["", "a", "up", "eu-1", "a|b", "eu-.*", ".*", ".+", "a?", "x"] {
                for op in [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex] {
                    matchers.push(matcher(op, name, value));
                }
            }
        }
        for a in &matchers {
            for b in &matchers {
                let pair = [a.clone(), b.clone()];
                let wanted: Vec<u32> =
                    (0..5).filter(|s| Matcher::all_match(&pair, &f.labels[*s as usize])).collect();
                assert_eq!(f.index.postings(&pair).iter().collect::<Vec<_>>(), wanted, "{a} {b}");
            }
        }
    }

    #[test]
    fn series_are_found_by_labels_until_removed() {
        let mut f = Fixture::new(&[&[("a", "1"), ("b", "2")], &[("a", "1")], &[]]);
        for (number, labels) in f.labels.iter().enumerate() {
            assert_eq!(f.find(labels), u32::try_from(number).ok());
            assert_eq!(f.index.labels(&f.interned[number]), *labels);
        }
        f.index.remove(0, &f.interned[0].clone());
        assert_eq!(f.find(&f.labels[0]), None);
        assert_eq!(f.find(&f.labels[1]), Some(1));
        assert_eq!(f.index.names().collect::<Vec<_>>(), ["a"], "names without series are gone");
        assert_eq!(f.index.postings(&[]).iter().collect::<Vec<_>>(), [1, 2]);
        let again = Labels::from_pairs([("c", "3")]);
        f.interned[0] = f.index.insert(0, &again, |s| f.interned[s as usize].hash);
        assert_eq!(f.find(&again), Some(0));
        assert_eq!(f.index.labels(&f.interned[1]).to_string(), r#"{a="1"}"#);
    }

    #[test]
    fn the_series_added_last_is_removed_and_added_again() {
        let mut f = Fixture::new(&[&[("a", "1"), ("b", "2")], &[("a", "1"), ("b", "3"), ("c", "4")]]);
        f.index.remove(1, &f.interned[1].clone());
        f.interned[1] = f.index.insert(1, &f.labels[1], |s| f.interned[s as usize].hash);
        assert_eq!(f.find(&f.labels[1]), Some(1));
        for (name, want) in [
            ("a", vec![("1", vec![0, 1])]),
            ("b", vec![("2", vec![0]), ("3", vec![1])]),
            ("c", vec![("4", vec![1])]),
        ] {
            let values = f.index.values(name).map(|(value, series)| (value, series.iter().collect()));
            assert_eq!(values.collect::<Vec<(&str, Vec<u32>)>>(), want, "{name}");
        }
    }
}
