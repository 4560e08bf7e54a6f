//! Groups, and the batches of samples that refer to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::{Exemplar, Histogram, Labels, Metadata, Tenant, Timestamp};
use parking_lot::Mutex;
use rpc::pb::ingester as pb;

/// Whose a group is and what it is called.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GroupIdentity {
    /// The tenant.
    pub tenant: Tenant,
    /// A target's final labels, a resource's identity, or (job, instance).
    pub key: Labels,
    /// Which part of a large group this is; 0 for a group that is not cut.
    pub sub_group: u32,
    /// Assignment epoch; 0 for a source that is not assigned.
    pub epoch: u64,
}

/// A scrape group: a list of series that are sampled together. Clones share it.
///
/// Members only grow. A source whose members have mostly died makes a new group of the live ones; the old group is
/// forgotten by the ingester once its last clone and its last batch are gone.
#[derive(Debug, Clone)]
pub struct Group(pub(crate) Arc<Shared>);

#[derive(Debug)]
pub(crate) struct Shared {
    /// Unique in this process.
    pub(crate) id: u64,
    pub(crate) identity: GroupIdentity,
    pub(crate) members: Mutex<Members>,
}

#[derive(Debug, Default)]
pub(crate) struct Members {
    pub(crate) list: Vec<(Labels, Arc<Metadata>)>,
    /// Members whose metadata was replaced, oldest first; a stream remembers how many it has passed on.
    pub(crate) metadata_changes: Vec<u32>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Group {
    /// Makes a group without members.
    #[must_use]
    pub fn new(identity: GroupIdentity) -> Self {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Self(Arc::new(Shared { id, identity, members: Mutex::default() }))
    }

    /// Adds a series and returns its number.
    pub fn add(&self, labels: Labels, metadata: Arc<Metadata>) -> u32 {
        let mut members = self.0.members.lock();
        let number = u32::try_from(members.list.len()).expect("a group has less than 2^32 series");
        members.list.push((labels, metadata));
        number
    }

    /// Replaces a member's metadata; does nothing when it is the same or the member is unknown.
    pub fn set_metadata(&self, member: u32, metadata: Arc<Metadata>) {
        let mut members = self.0.members.lock();
        let Some((_, present)) = members.list.get_mut(member as usize) else { return };
        if *present != metadata {
            *present = metadata;
            members.metadata_changes.push(member);
        }
    }

    /// Number of members ever added.
    #[must_use]
    pub fn len(&self) -> u32 {
        u32::try_from(self.0.members.lock().list.len()).expect("checked when they were added")
    }

    /// Says whether there is no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A member's labels; `None` when there is no such member.
    #[must_use]
    pub fn labels(&self, member: u32) -> Option<Labels> {
        self.0.members.lock().list.get(member as usize).map(|(labels, _)| labels.clone())
    }

    /// The group's identity.
    #[must_use]
    pub fn identity(&self) -> &GroupIdentity {
        &self.0.identity
    }
}

/// Which of the members that [`Append::members`] counts have a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// All of them.
    All,
    /// All but those whose bit is set, lowest bit of the first byte first.
    Absent(Vec<u8>),
    /// Only these, ascending.
    Present(Vec<u32>),
}

/// One timestamp of a group and the values there.
#[derive(Debug, Clone)]
pub struct Append {
    /// The group.
    pub group: Group,
    /// How many members the group had when `presence` was worked out: others may add to it at any time.
    pub members: u32,
    /// The time of all samples.
    pub timestamp: Timestamp,
    /// Which members have one.
    pub presence: Presence,
    /// One value for each present member that has no histogram, in member order.
    pub values: Vec<f64>,
    /// Histograms by member, ascending.
    pub histograms: Vec<(u32, Arc<Histogram>)>,
    /// Start timestamps by member, ascending.
    pub starts: Vec<(u32, Timestamp)>,
    /// Exemplars by member.
    pub exemplars: Vec<(u32, Exemplar)>,
}

impl Append {
    /// An estimate of the memory the append holds, in bytes.
    pub(crate) fn byte_len(&self) -> usize {
        let presence = match &self.presence {
            Presence::All => 0,
            Presence::Absent(bits) => bits.len(),
            Presence::Present(list) => 4 * list.len(),
        };
        128 + presence
            + 8 * self.values.len()
            + 512 * self.histograms.len()
            + 16 * self.starts.len()
            + 256 * self.exemplars.len()
    }
}

/// Samples that are acknowledged together.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// The samples.
    pub appends: Vec<Append>,
    /// True: when any sample is refused, none is stored (by the ingester that refuses it).
    pub is_atomic: bool,
}

/// Samples that an ingester did not store, by reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub reason: pb::RefusalReason,
    /// How many.
    pub count: u64,
    /// One of them: the error in Prometheus's words, and the series.
    pub example: String,
    /// How many of them are histograms.
    pub histograms: u64,
    /// Each of them: its series and time.
    pub samples: Vec<(Labels, Timestamp)>,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Written {
    /// Samples stored.
    pub stored: u64,
    /// Samples refused; with `is_atomic` any entry means that its ingester stored nothing.
    pub refusals: Vec<Refusal>,
}
