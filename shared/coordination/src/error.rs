//! What can go wrong with coordination.

use crate::coordinator::{KEY_BYTES_MAX, LEASE_TTL_MAX, LEASE_TTL_MIN, Lease, Revision, VALUE_BYTES_MAX};

/// A failure of the coordinator or of what is stored in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The key is empty or too long.
    #[error("key of {bytes} bytes: want 1 to {KEY_BYTES_MAX}")]
    KeySize {
        /// The key's length.
        bytes: usize,
    },
    /// The value is too large.
    #[error("value of {bytes} bytes for key {key:?}: at most {VALUE_BYTES_MAX} are allowed")]
    ValueSize {
        /// The key it was meant for.
        key: String,
        /// The value's length.
        bytes: usize,
    },
    /// The lease's time to live is out of range.
    #[error("lease of {ttl_ms} ms: want {} to {} ms", LEASE_TTL_MIN.as_millis(), LEASE_TTL_MAX.as_millis())]
    LeaseTtl {
        /// The refused time in milliseconds.
        ttl_ms: u128,
    },
    /// The lease ran out, was revoked, or never existed.
    #[error("lease {lease} is gone")]
    LeaseGone {
        /// The lease that was named.
        lease: Lease,
    },
    /// The changes a watch wanted to resume from are no longer kept: list again and watch from there.
    #[error("changes after revision {after} are no longer kept")]
    Compacted {
        /// The revision the watch had reached.
        after: Revision,
    },
    /// The store holds as much as it may.
    #[error("coordinator is full: {what} is limited to {limit}")]
    Full {
        /// What there is too much of.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// Others kept changing the key.
    #[error("key {key:?} changed {attempts} times while it was being updated")]
    Contended {
        /// The key in question.
        key: String,
        /// How many attempts were made.
        attempts: u32,
    },
    /// A stored value is not what this version writes.
    #[error("value of key {key:?} cannot be read: {cause}")]
    Unreadable {
        /// The key in question.
        key: String,
        /// What the decoder said.
        cause: String,
    },
    /// The coordinator answers, and does not do what was asked for; asking again does not help.
    #[error("coordinator refuses: {cause}")]
    Refused {
        /// What sort of refusal it is.
        kind: fault::Kind,
        /// What it said.
        cause: String,
    },
    /// The coordinator cannot be reached.
    #[error("coordinator cannot be reached: {cause}")]
    Unreachable {
        /// What the transport said.
        cause: String,
    },
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// What sort of failure this is.
    #[must_use]
    pub const fn kind(&self) -> fault::Kind {
        match self {
            Self::KeySize { .. } | Self::LeaseTtl { .. } => fault::Kind::Invalid,
            Self::ValueSize { .. } | Self::Full { .. } => fault::Kind::Limit,
            Self::LeaseGone { .. } => fault::Kind::NotFound,
            Self::Contended { .. } => fault::Kind::Busy,
            Self::Unreadable { .. } => fault::Kind::Corrupt,
            // Not retryable as it stands: the same watch fails again.
            Self::Compacted { .. } => fault::Kind::NotFound,
            Self::Refused { kind, .. } => *kind,
            Self::Unreachable { .. } => fault::Kind::Unavailable,
        }
    }
}
