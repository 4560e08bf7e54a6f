//! Which data points were not taken, and why.

use std::collections::BTreeMap;
use std::fmt;

/// How long one example may be, in bytes.
const EXAMPLE_BYTES_MAX: usize = 256;
/// Notes that are kept; more of them say nothing new.
const NOTES_MAX: usize = 8;

/// Why a data point is not taken. The first part is decided by translation, the second by whoever stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Delta temporality, or none.
    Temporality,
    /// The metric's name, or a label's, has nothing left when it is translated.
    InvalidName,
    /// No value, or no time.
    Incomplete,
    /// Buckets that contradict each other, or a scale that native histograms do not have.
    InvalidHistogram,
    /// A bound of the receiver.
    Limit,
    /// Older than the newest sample of its series, and there is no out-of-order window.
    OutOfOrder,
    /// Another value at the same time.
    Duplicate,
    /// Older than the out-of-order window.
    TooOld,
    /// Too far ahead of the clock, or too far behind.
    OutOfBounds,
    /// Refused by storage for another reason.
    Refused,
}

impl Reason {
    /// Returns the reason's name, as it stands in metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Temporality => "temporality",
            Self::InvalidName => "invalid_name",
            Self::Incomplete => "incomplete",
            Self::InvalidHistogram => "invalid_histogram",
            Self::Limit => "limit",
            Self::OutOfOrder => "out_of_order",
            Self::Duplicate => "duplicate",
            Self::TooOld => "too_old",
            Self::OutOfBounds => "out_of_bounds",
            Self::Refused => "refused",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Rejected data points by reason, with an example each, and notes about what held no points.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rejections {
    by_reason: BTreeMap<Reason, Rejected>,
    notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rejected {
    points: u64,
    example: String,
}

impl Rejections {
    /// Counts points; the example is asked for when it is the reason's first.
    pub fn add(&mut self, reason: Reason, points: u64, example: impl FnOnce() -> String) {
        if points == 0 {
            return;
        }
        self.by_reason
            .entry(reason)
            .or_insert_with(|| Rejected { points: 0, example: cut(example()) })
            .points += points;
    }

    /// Remembers something worth telling the sender that is no rejected point.
    pub fn note(&mut self, note: impl FnOnce() -> String) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(cut(note()));
        }
    }

    /// Counts all rejected points.
    #[must_use]
    pub fn points(&self) -> u64 {
        self.by_reason.values().map(|r| r.points).sum()
    }

    /// Lists reasons and how many points each has.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        self.by_reason.iter().map(|(reason, rejected)| (*reason, rejected.points))
    }

    /// Writes reasons, counts and examples for the sender; empty when there is nothing to tell. The length is bounded.
    #[must_use]
    pub fn message(&self) -> String {
        let rejected = self.by_reason.iter().map(|(reason, rejected)| {
            let Rejected { points, example } = rejected;
            let noun = if *points == 1 { "data point" } else { "data points" };
            format!("{points} {noun} rejected, {reason}: {example}")
        });
        rejected.chain(self.notes.iter().cloned()).collect::<Vec<_>>().join("; ")
    }
}

fn cut(mut text: String) -> String {
    if text.len() > EXAMPLE_BYTES_MAX {
        text.truncate(text.floor_char_boundary(EXAMPLE_BYTES_MAX));
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_each_reason_once_and_is_bounded() {
        let mut rejections = Rejections::default();
        assert_eq!((rejections.points(), rejections.message()), (0, String::new()));
        rejections.add(Reason::TooOld, 2, || "a".to_owned());
        rejections.add(Reason::Temporality, 1, || "é".repeat(1_000));
        rejections.add(Reason::TooOld, 3, || "not asked for".to_owned());
        rejections.add(Reason::Limit, 0, || "nothing".to_owned());
        for _ in 0..100 {
            rejections.note(|| "empty".to_owned());
        }
        assert_eq!(rejections.points(), 6);
        assert_eq!(rejections.iter().collect::<Vec<_>>(), [(Reason::Temporality, 1), (Reason::TooOld, 5)]);
        let message = rejections.message();
        let start = format!("1 data point rejected, temporality: {}...; ", "é".repeat(128));
        assert!(message.starts_with(&start), "{message}");
        assert!(message.contains("; 5 data points rejected, too_old: a; empty; empty"), "{message}");
        assert_eq!(message.matches("empty").count(), NOTES_MAX);
    }
}
