//! The contract between Tributary and the store that coordinates it.
//!
//! Invariants every implementation keeps, checked by the suite in `conformance`:
//! - revisions only grow; each successful change of a key takes a new one, and an entry carries the revision of
//!   its last change;
//! - a watch yields every change under its prefix after a revision, in order, exactly once, or says
//!   [`Error::Compacted`] and ends;
//! - when a lease ends, for whatever reason, its keys are deleted and watchers are told;
//! - a refused swap changes nothing.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::{Error, Result};

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// The largest value, in bytes; etcd refuses requests above 1.5 MiB.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// The shortest lease: etcd counts in whole seconds and does not promise less than a few of them.
pub const LEASE_TTL_MIN: Duration = Duration::from_secs(1);
/// The longest lease: whoever is away for longer is gone.
pub const LEASE_TTL_MAX: Duration = Duration::from_secs(24 * 3600);

/// A point in the history of the whole store; zero is before its first change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lease(pub i64);

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A key with what is stored under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// What is stored.
    pub value: Bytes,
    /// The revision of the last change.
    pub revision: Revision,
    /// The lease that keeps the entry, if any.
    pub lease: Option<Lease>,
}

/// The entries under a prefix at one point in history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The entries, sorted by key.
    pub entries: Vec<Entry>,
    /// The point in history: a watch after it misses nothing.
    pub revision: Revision,
}

/// What a swap wants to find before it changes a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Whatever is there.
    Anything,
    /// No entry.
    Absent,
    /// The entry as it was last changed at this revision.
    Unchanged(Revision),
}

/// The outcome of a conditional change.
///
/// After a lost answer a repeated swap may meet its own first attempt: a conflict that holds the very value that
/// was to be written is a success. Values that must tell writers apart carry the writer's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swap {
    /// Done, at this revision.
    Done(Revision),
    /// Not done; this is what was found instead.
    Conflict(Option<Entry>),
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The key that changed.
    pub key: String,
    /// When it changed.
    pub revision: Revision,
    /// How it changed.
    pub change: Change,
}

/// How a key changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It was written.
    Put {
        /// The new value.
        value: Bytes,
        /// The lease that keeps it, if any.
        lease: Option<Lease>,
    },
    /// It was deleted, or its lease ended.
    Deleted,
}

/// The changes under a prefix. Ends after its first error; a reader that falls behind slows nobody but itself.
pub type EventStream = BoxStream<'static, Result<Event>>;

/// A small consistent store that all members see.
///
/// Every call may fail with [`Error::Unreachable`]; `get`, `list`, `keep_alive`, `revoke` and watches are safe to
/// repeat, and so are swaps (see [`Swap`]).
#[async_trait]
pub trait Coordinator: fmt::Debug + Send + Sync + 'static {
    /// Reads one key.
    async fn get(&self, key: &str) -> Result<Option<Entry>>;

    /// Reads everything under a prefix at one point in history.
    async fn list(&self, prefix: &str) -> Result<Snapshot>;

    /// Writes a key if it is as expected, kept by the lease if one is named.
    ///
    /// # Errors
    /// [`Error::KeySize`], [`Error::ValueSize`], [`Error::LeaseGone`], [`Error::Full`]. A key that is not as
    /// expected is no error but a [`Swap::Conflict`].
    async fn put(&self, key: &str, value: Bytes, expect: Expect, lease: Option<Lease>) -> Result<Swap>;

    /// Deletes a key if it is as expected. Deleting what is absent with [`Expect::Anything`] or
    /// [`Expect::Absent`] is done at once and changes nothing.
    async fn delete(&self, key: &str, expect: Expect) -> Result<Swap>;

    /// Opens a lease that ends when it is not kept alive for `ttl` (rounded up to whole seconds).
    ///
    /// # Errors
    /// [`Error::LeaseTtl`], [`Error::Full`].
    async fn grant(&self, ttl: Duration) -> Result<Lease>;

    /// Starts the lease's time anew.
    ///
    /// # Errors
    /// [`Error::LeaseGone`]: take a new lease and write what it kept again.
    async fn keep_alive(&self, lease: Lease) -> Result<()>;

    /// Ends a lease at once, with all it keeps. Ending one that is gone is done.
    async fn revoke(&self, lease: Lease) -> Result<()>;

    /// Follows the changes under a prefix that come after a revision, mostly that of a [`Snapshot`].
    fn watch(&self, prefix: &str, after: Revision) -> EventStream;
}

/// Checks a key's length.
///
/// # Errors
/// [`Error::KeySize`].
pub const fn check_key(key: &str) -> Result<()> {
    match key.len() {
        1..=KEY_BYTES_MAX => Ok(()),
        bytes => Err(Error::KeySize { bytes }),
    }
}

/// Checks a value's size.
///
/// # Errors
/// [`Error::ValueSize`].
pub fn check_value(key: &str, value: &[u8]) -> Result<()> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(Error::ValueSize { key: key.to_owned(), bytes: value.len() });
    }
    Ok(())
}

/// Checks a lease's time to live and rounds it up to whole seconds.
///
/// # Errors
/// [`Error::LeaseTtl`].
pub fn check_ttl(ttl: Duration) -> Result<Duration> {
    if !(LEASE_TTL_MIN..=LEASE_TTL_MAX).contains(&ttl) {
        return Err(Error::LeaseTtl { ttl_ms: ttl.as_millis() });
    }
    Ok(Duration::from_secs(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)))
}
