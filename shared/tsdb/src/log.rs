//! The log: what makes an append durable before it is acknowledged.
//!
//! A log has one writer for life and is named by a ULID. It is a gapless sequence of segments, each of them one group
//! commit: a header and records. [`local::LocalLog`] keeps them in files, several to a file; a store that many machines
//! share implements the same contract: create, append in order, say what is no longer needed, seal, read.
//!
//! Invariants:
//! - a segment is durable when `append` returns, and a failed `append` is the last one of its log;
//! - segment 0 is the birth record and holds nothing else;
//! - what follows a seal is void.

pub(crate) mod committer;
pub(crate) mod local;
pub(crate) mod reader;
pub(crate) mod record;
pub(crate) mod segment;
mod wire;
