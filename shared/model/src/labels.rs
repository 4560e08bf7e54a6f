//! Label sets.
//!
//! A [`Labels`] is one shared string: for each label, in name order, the length of the name, the name, the
//! length of the value, the value. Cloning copies a pointer, equality and hashing look at the bytes once, and a
//! million label sets are a million small allocations rather than ten million.
//!
//! Invariants:
//! - names are sorted bytewise and unique;
//! - no value is empty (an empty value means that the label is absent, as in Prometheus);
//! - lengths are ASCII: one byte below 127, else byte 127 and four bytes of seven bits, so the buffer is UTF-8.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The label that holds the metric name.
pub const METRIC_NAME: &str = "__name__";
/// The label that holds the type where type-and-unit labels are on.
pub const METRIC_TYPE: &str = "__type__";
/// The label that holds the unit where type-and-unit labels are on.
pub const METRIC_UNIT: &str = "__unit__";
/// The label that names the scrape job.
pub const JOB: &str = "job";
/// The label that names the scraped instance.
pub const INSTANCE: &str = "instance";
/// The label in a scrape group's key that says that it is a rule group's, by the group's name. Its samples go to the
/// group's home alone, and the home takes none of an older assignment than the newest it has seen.
pub const RULE_GROUP: &str = "__rule_group__";
/// The label in a rule group's key that names its file.
pub const RULE_FILE: &str = "__rule_file__";

const LONG: u8 = 127;

/// The seed of [`Labels::series_id`], fixed for ever: stored ids depend on it.
const SERIES_ID_SEED: u64 = 0x7472_6962_7574_6172;

/// An immutable, sorted set of labels; cloning is cheap.
#[derive(Clone, PartialEq, Eq)]
pub struct Labels(Arc<str>);

impl Labels {
    /// Returns the empty label set.
    #[must_use]
    pub fn empty() -> Self {
        Self(Arc::from(""))
    }

    /// Builds a label set from pairs in any order; of two with one name the later wins, empty values vanish.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut builder = LabelsBuilder::default();
        for (name, value) in pairs {
            builder.set(name, value);
        }
        builder.build()
    }

    /// Builds a label set from pairs that are already sorted by name and unique, skipping empty values.
    ///
    /// Returns `None` when they are not sorted and unique.
    pub fn from_sorted<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let mut buffer = String::with_capacity(128);
        let mut previous: Option<&str> = None;
        for (name, value) in pairs {
            if previous.is_some_and(|p| p >= name) {
                return None;
            }
            previous = Some(name);
            if !value.is_empty() {
                push_field(&mut buffer, name);
                push_field(&mut buffer, value);
            }
        }
        Some(Self(Arc::from(buffer)))
    }

    /// Says whether there is no label at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Counts the labels; walks the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Bytes held by the shared buffer.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.0.len()
    }

    /// Returns the value of a label, or `None` when it is absent.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        for (n, v) in self.iter() {
            match n.cmp(name) {
                Ordering::Less => {}
                Ordering::Equal => return Some(v),
                Ordering::Greater => return None,
            }
        }
        None
    }

    /// Returns the value of a label, or the empty string: what a matcher compares with.
    #[must_use]
    pub fn value(&self, name: &str) -> &str {
        self.get(name).unwrap_or("")
    }

    /// Returns the metric name, or the empty string.
    #[must_use]
    pub fn metric_name(&self) -> &str {
        self.value(METRIC_NAME)
    }

    /// Compares by metric name, then by the whole label set: the order of series in lists and files.
    #[must_use]
    pub fn cmp_by_metric(&self, other: &Self) -> Ordering {
        // Nearly always the name is the first label of both, and the whole sets compare by it first.
        let is_first = |labels: &Self| labels.iter().next().is_some_and(|(name, _)| name == METRIC_NAME);
        if is_first(self) && is_first(other) {
            return self.cmp(other);
        }
        self.metric_name().cmp(other.metric_name()).then_with(|| self.cmp(other))
    }

    /// Says whether the label is there.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Iterates over (name, value) in name order.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        Iter { rest: &self.0 }
    }

    /// Starts a builder that holds these labels.
    #[must_use]
    pub fn to_builder(&self) -> LabelsBuilder {
        LabelsBuilder {
            pairs: self.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
            sorted: true,
        }
    }

    /// Returns the labels whose names the predicate accepts.
    #[must_use]
    pub fn filtered(&self, mut keep: impl FnMut(&str) -> bool) -> Self {
        let mut buffer = String::with_capacity(self.0.len());
        let mut dropped = false;
        for (name, value) in self.iter() {
            if keep(name) {
                push_field(&mut buffer, name);
                push_field(&mut buffer, value);
            } else {
                dropped = true;
            }
        }
        if dropped { Self(Arc::from(buffer)) } else { self.clone() }
    }

    /// Returns the labels without the metric name (and without the type and unit labels that go with it).
    #[must_use]
    pub fn without_metric_name(&self) -> Self {
        self.filtered(|n| n != METRIC_NAME && n != METRIC_TYPE && n != METRIC_UNIT)
    }

    /// Keeps only the named labels, as `by (...)` does.
    #[must_use]
    pub fn only(&self, names: &[String]) -> Self {
        self.filtered(|n| names.iter().any(|x| x == n))
    }

    /// Drops the named labels and the metric name, as `without (...)` does.
    #[must_use]
    pub fn without(&self, names: &[String]) -> Self {
        self.filtered(|n| n != METRIC_NAME && !names.iter().any(|x| x == n))
    }

    /// Returns the label set with one label set to a value; an empty value removes it.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut builder = self.to_builder();
        builder.set(name, value);
        builder.build()
    }

    /// The 64-bit hint that stands for this label set in files and maps. Collisions are possible: compare labels.
    #[must_use]
    pub fn series_id(&self) -> u64 {
        xxhash_rust::xxh64::xxh64(self.0.as_bytes(), SERIES_ID_SEED)
    }

    /// The bytes of the encoding described at the top of this file, for codecs that store label sets whole.
    #[must_use]
    pub fn as_encoded(&self) -> &str {
        &self.0
    }

    /// Reads back what [`Labels::as_encoded`] gave; `None` when the text breaks an invariant.
    #[must_use]
    pub fn from_encoded(text: &str) -> Option<Self> {
        let mut rest = text;
        let mut previous: Option<&str> = None;
        while !rest.is_empty() {
            let (name, after) = split_field(rest)?;
            let (value, after) = split_field(after)?;
            if value.is_empty() || previous.is_some_and(|p| p >= name) {
                return None;
            }
            previous = Some(name);
            rest = after;
        }
        Some(Self(Arc::from(text)))
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self::empty()
    }
}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0.as_bytes());
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Labels {
    /// Compares label by label, name before value; a prefix sorts first.
    fn cmp(&self, other: &Self) -> Ordering {
        // Labels of one target begin alike: what is equal byte for byte is passed over whole labels at a time.
        let same = common_prefix(self.0.as_bytes(), other.0.as_bytes());
        let mut differing = self.iter();
        loop {
            let mut next = differing.clone();
            if next.next().is_none() || self.0.len() - next.rest.len() > same {
                break;
            }
            differing = next;
        }
        let start = self.0.len() - differing.rest.len();
        differing.cmp(Iter { rest: &other.0[start..] })
    }
}

impl fmt::Display for Labels {
    /// Prints `{a="b", c="d"}`, quoting names that are not plain identifiers, as Prometheus does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            if is_legacy_label_name(name) {
                f.write_str(name)?;
            } else {
                write!(f, "{}", crate::number::Quoted(name))?;
            }
            write!(f, "={}", crate::number::Quoted(value))?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a str, &'a str);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Iterates over the labels of a set; see [`Labels::iter`].
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let (name, rest) = split_field(self.rest)?;
        let (value, rest) = split_field(rest)?;
        self.rest = rest;
        Some((name, value))
    }
}

/// Collects labels in any order and makes a [`Labels`] of them.
#[derive(Debug, Clone, Default)]
pub struct LabelsBuilder {
    pairs: Vec<(String, String)>,
    sorted: bool,
}

impl LabelsBuilder {
    /// Sets a label, replacing an earlier value; an empty value removes it.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) -> &mut Self {
        let (name, value) = (name.into(), value.into());
        match self.pairs.iter_mut().find(|(n, _)| *n == name) {
            Some(pair) => pair.1 = value,
            None => {
                self.pairs.push((name, value));
                self.sorted = false;
            }
        }
        self
    }

    /// Removes a label.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.pairs.retain(|(n, _)| n != name);
        self
    }

    /// Returns the value set so far, or `None`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(n, v)| n == name && !v.is_empty()).map(|(_, v)| v.as_str())
    }

    /// Iterates over what was set, in no particular order; empty values are skipped.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().filter(|(_, v)| !v.is_empty()).map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// Makes the label set.
    #[must_use]
    pub fn build(mut self) -> Labels {
        if !self.sorted {
            self.pairs.sort_by(|a, b| a.0.cmp(&b.0));
        }
        let mut buffer = String::with_capacity(self.pairs.iter().map(|(n, v)| n.len() + v.len() + 2).sum());
        for (name, value) in &self.pairs {
            if !value.is_empty() {
                push_field(&mut buffer, name);
                push_field(&mut buffer, value);
            }
        }
        Labels(Arc::from(buffer))
    }
}

/// Says whether a name is `[a-zA-Z_][a-zA-Z0-9_]*`, the label names of before UTF-8 support.
#[must_use]
pub fn is_legacy_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Says whether a name is `[a-zA-Z_:][a-zA-Z0-9_:]*`, the metric names of before UTF-8 support.
#[must_use]
pub fn is_legacy_metric_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_' || b == b':')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

/// How many bytes at the start are equal.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let (a_words, _) = a.as_chunks::<8>();
    let (b_words, _) = b.as_chunks::<8>();
    let words = a_words.iter().zip(b_words).take_while(|(a, b)| a == b).count();
    let start = 8 * words;
    start + a[start..].iter().zip(&b[start..]).take_while(|(a, b)| a == b).count()
}

fn push_field(buffer: &mut String, field: &str) {
    let mut push = |byte| buffer.push(char::from(byte));
    let length = field.len();
    if length < usize::from(LONG) {
        push(u8::try_from(length).expect("below 127"));
    } else {
        assert!(length < 1 << 28, "a label of 256 MiB or more");
        push(LONG);
        for shift in [0, 7, 14, 21] {
            push(u8::try_from(length >> shift & 0x7f).expect("seven bits"));
        }
    }
    buffer.push_str(field);
}

fn split_field(text: &str) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let first = *bytes.first()?;
    let (start, length): (usize, usize) = if first < LONG {
        (1, usize::from(first))
    } else if first == LONG {
        let part = bytes.get(1..5)?;
        (5, part.iter().rev().fold(0, |n, b| n << 7 | usize::from(*b)))
    } else {
        return None;
    };
    let end = start.checked_add(length)?;
    Some((text.get(start..end)?, text.get(end..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_sorted_and_empty_values_vanish() {
        let labels = Labels::from_pairs([("b", "2"), ("a", "1"), ("c", ""), ("b", "3")]);
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "3")]);
        assert_eq!(labels.to_string(), r#"{a="1", b="3"}"#);
        assert_eq!(labels.get("c"), None);
        assert_eq!(labels.value("c"), "");
    }

    #[test]
    fn long_values_keep_their_length() {
        for length in [0, 1, 126, 127, 128, 300, 20_000, 3_000_000] {
            let value = "v".repeat(length);
            let labels = Labels::from_pairs([("a", value.as_str()), ("é", "ü")]);
            assert_eq!(labels.value("a").len(), length);
            assert_eq!(labels.value("é"), "ü");
            assert_eq!(Labels::from_encoded(labels.as_encoded()), Some(labels));
        }
    }

    #[test]
    fn order_is_label_by_label_and_a_prefix_sorts_first() {
        let a = Labels::from_pairs([("a", "1")]);
        let ab = Labels::from_pairs([("a", "1"), ("b", "1")]);
        let a2 = Labels::from_pairs([("a", "2")]);
        let long = Labels::from_pairs([("a", "1".repeat(200))]);
        assert!(Labels::empty() < a && a < ab && ab < a2 && a < long && long < a2);
        // Against the definition, with lengths about those at which bytes are compared in words.
        let texts: Vec<String> =
            (0..40).map(|n| "x".repeat(n % 20) + if n < 20 { "" } else { "y" }).collect();
        let all: Vec<Labels> = texts
            .iter()
            .flat_map(|text| {
                [("a", "1"), ("b", "2")]
                    .map(|more| Labels::from_pairs([("n", text.as_str()), more, ("z", text)]))
            })
            .collect();
        for a in &all {
            for b in &all {
                assert_eq!(a.cmp(b), a.iter().cmp(b.iter()), "{a} and {b}");
            }
        }
    }

    #[test]
    fn broken_encodings_are_refused() {
        let good = Labels::from_pairs([("a", "1"), ("b", "2")]);
        assert!(Labels::from_encoded(&good.as_encoded()[..5]).is_none());
        assert!(Labels::from_encoded("\u{1}b\u{1}2\u{1}a\u{1}1").is_none(), "not sorted");
        assert!(Labels::from_encoded("\u{1}a\u{0}").is_none(), "empty value");
        assert!(Labels::from_encoded("\u{7f}").is_none());
        assert!(Labels::from_encoded("\u{5}é").is_none());
    }

    #[test]
    fn ids_never_change() {
        assert_eq!(Labels::empty().series_id(), xxhash_rust::xxh64::xxh64(b"", SERIES_ID_SEED));
        let up = Labels::from_pairs([("__name__", "up"), ("job", "node")]);
        assert_eq!(up.series_id(), up.with("job", "x").with("job", "node").series_id());
    }

    #[test]
    fn projections_follow_by_and_without() {
        let l = Labels::from_pairs([("__name__", "up"), ("job", "a"), ("zone", "z")]);
        assert_eq!(l.only(&["job".into()]).to_string(), r#"{job="a"}"#);
        assert_eq!(l.without(&["job".into()]).to_string(), r#"{zone="z"}"#);
        assert_eq!(l.without_metric_name().to_string(), r#"{job="a", zone="z"}"#);
        assert_eq!(l.with("job", "").to_string(), r#"{__name__="up", zone="z"}"#);
    }
}
