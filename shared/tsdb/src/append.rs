//! What writers hand to a [`Storage`](crate::Storage): scrape groups, their changes, and samples.
//!
//! A group's members are numbered from 0 in the order of declaration; members added later take the numbers after
//! the highest one ever used, and the number of a removed member is not used again.

use std::fmt;
use std::sync::Arc;

use model::{Exemplar, Histogram, Labels, Metadata, Tenant, Timestamp};

/// One series of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDeclaration {
    /// The full label set, never empty.
    pub labels: Labels,
    /// Type, unit and help.
    pub metadata: Arc<Metadata>,
}

/// Declares a scrape group: whose it is and which series it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDeclaration {
    /// The owner of the series.
    pub tenant: Tenant,
    /// The group's identity: a target's final labels, a resource's identity, (job, instance).
    pub key: Labels,
    /// Which part of a large group this is; 0 for one that is not cut.
    pub sub_group: u32,
    /// Assignment epoch of the target; 0 for sources that are not assigned.
    pub epoch: u64,
    /// True when the group's home is another ingester.
    pub displaced: bool,
    /// The series.
    pub members: Vec<MemberDeclaration>,
}

/// Stands for a declared group; valid until it is forgotten, in the storage that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub(crate) u64);

/// Changes a declared group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupChange {
    /// New members.
    pub add: Vec<MemberDeclaration>,
    /// Numbers of members that are gone.
    pub remove: Vec<u32>,
    /// New metadata by member number.
    pub metadata: Vec<(u32, Arc<Metadata>)>,
    /// The new assignment epoch, where it changes.
    pub epoch: Option<u64>,
    /// The new displaced mark, where it changes.
    pub displaced: Option<bool>,
}

/// Which members of a group have a sample.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Presence {
    /// Every member that was not removed.
    #[default]
    All,
    /// One bit a member, lowest bit of the first byte first; a set bit is a member without a sample. Members beyond
    /// the end are present.
    Absent(Vec<u8>),
    /// The numbers of those that have one, ascending.
    Present(Vec<u32>),
}

/// One timestamp and the values of the members that have a sample there.
#[derive(Debug, Clone)]
pub struct GroupAppend {
    /// The group.
    pub group: GroupId,
    /// The time of every sample.
    pub timestamp: Timestamp,
    /// Which members have a sample.
    pub absent: Presence,
    /// One value for each present member that is not in `histograms`, in member order.
    pub values: Vec<f64>,
    /// Native histograms by member number, ascending.
    pub histograms: Vec<(u32, Arc<Histogram>)>,
    /// Start timestamps in milliseconds by member number, ascending; only of samples that have one.
    pub start_timestamps: Vec<(u32, i64)>,
    /// Exemplars by member number; one without a time takes the sample's.
    pub exemplars: Vec<(u32, Exemplar)>,
}

/// Where something stands in a log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LogPosition {
    /// The log's ULID.
    pub log: Arc<str>,
    /// The segment.
    pub seq: u64,
}

/// What became of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Everything stored is durable through here.
    pub position: LogPosition,
    /// Samples stored, exact repeats included.
    pub stored: u64,
    /// Samples that were not stored, by reason.
    pub refused: Vec<Refusal>,
}

/// Samples refused for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub reason: RefusalReason,
    /// How many; 0 where an append without samples asked whether a rule group is still its evaluator's.
    pub count: u64,
    /// The first of them, for people.
    pub example: String,
    /// All of them: which append of the request, counted from 0, and which member.
    pub samples: Vec<(u32, u32)>,
}

/// Why a sample is refused; displayed in Prometheus's words where it has any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalReason {
    /// Older than the newest sample of its series, and there is no out-of-order window.
    OutOfOrder,
    /// Another value at the time of the newest sample.
    Duplicate,
    /// Older than the out-of-order window.
    TooOld,
    /// Too far ahead of the clock, or without a window too far behind the newest sample of all.
    OutOfBounds,
    /// A staleness marker from an assignment that is over.
    StaleEpoch,
    /// A histogram that breaks a rule of its format.
    InvalidHistogram,
}

impl RefusalReason {
    /// Returns Prometheus's error text, or ours where it has none.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OutOfOrder => "out of order sample",
            Self::Duplicate => "duplicate sample for timestamp",
            Self::TooOld => "too old sample",
            Self::OutOfBounds => "out of bounds",
            Self::StaleEpoch => "sample of an older assignment",
            Self::InvalidHistogram => "invalid histogram",
        }
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
