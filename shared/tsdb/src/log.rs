//! The log: what makes an append durable before it is acknowledged.
//!
//! A log has one writer for life and is named by a ULID. It is a gapless sequence of segments, each of them one group
//! commit: a header and records. [`local::LocalLog`] keeps them in files, several to a file; [`objects::ObjectLogs`]
//! keeps each as an object in a store that all machines reach. Both are written through [`Writer`].
//!
//! Invariants:
//! - a segment is durable when it is done, in the order of numbers, and a failed one is the last of its log;
//! - segment 0 is the birth record and holds no samples;
//! - what follows a seal is void.

pub(crate) mod committer;
#[cfg(test)]
mod conformance;
pub(crate) mod local;
pub(crate) mod objects;
pub(crate) mod reader;
pub(crate) mod record;
pub(crate) mod segment;
mod wire;

use std::fmt;

use model::Timestamp;
use ulid::Ulid;

use crate::error::Result;
use segment::Role;

/// Told what became of a segment: it is durable and so is all before it, or the log has ended.
pub(crate) type Done = Box<dyn FnOnce(Result<()>) + Send>;

/// The writing end of a log; there is one in the log's life.
pub(crate) trait Writer: Send + fmt::Debug {
    /// The log's name.
    fn id(&self) -> Ulid;

    /// The last segment that was handed over.
    fn last_seq(&self) -> u64;

    /// Hands a segment over, which takes the next number, and returns without waiting for anything but a local disk.
    ///
    /// Segments are done in the order of their numbers. Any failure ends the log: all that come later fail as well.
    fn submit(&mut self, role: Role, payload: &[u8], now: Timestamp, done: Done);

    /// Begins a part of the log that can be kept when what lies before it is removed.
    fn start_part(&mut self);

    /// Says that segments below `floor` are no longer needed; the next header carries it.
    fn set_floor(&mut self, floor: u64);

    /// Removes segments below the highest floor that was durable at `before` or earlier, but never the newest segment.
    fn remove_unneeded(&mut self, before: Timestamp) -> Result<()>;

    /// Ends the log here: what is under way may still become durable, and is not tried again.
    fn abandon(&mut self);

    /// What hinders the segments under way, where something is known to; they go on being tried.
    fn hindrance(&self) -> Option<String>;

    /// Bytes of all segments that are kept.
    fn byte_len(&self) -> u64;
}
