//! What can go wrong in the storage engine.

use std::io;
use std::path::PathBuf;

use fault::Kind;

/// A failure of the log, the head or the table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system failed.
    #[error("{attempt} {}: {source}", path.display())]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Somebody else works in this folder.
    #[error("lock {}: held by another process", .0.display())]
    Locked(PathBuf),
    /// The disk has no room for a log.
    #[error("{}: {free} bytes are free, and a log needs {wanted}", path.display())]
    NoRoom {
        /// Where.
        path: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that should be.
        wanted: u64,
    },
    /// The log ended: nothing is written to it again and a new one needs a new start.
    #[error("log {log} has ended: {reason}")]
    LogEnded {
        /// The log.
        log: String,
        /// Why.
        reason: String,
    },
    /// The store does not take what is to be stored in the log: nothing is stored until it does, and then again.
    #[error("log {log} cannot be written: {reason}")]
    LogStalled {
        /// The log.
        log: String,
        /// What the store says.
        reason: String,
    },
    /// Acknowledged segments of a log are missing.
    #[error("log {log}: segments {from} to {to} are missing, though {acknowledged} was acknowledged")]
    Gap {
        /// The log.
        log: String,
        /// The first that is missing.
        from: u64,
        /// The last that is missing.
        to: u64,
        /// The highest contiguous acknowledged segment, as a later header has it.
        acknowledged: u64,
    },
    /// The queue before the log is full.
    #[error("append: {waiting} bytes already wait for the log, the limit is {limit}")]
    Busy {
        /// Bytes in the queue.
        waiting: usize,
        /// The limit.
        limit: usize,
    },
    /// A request that cannot be understood.
    #[error("{0}")]
    Invalid(String),
    /// A group that was never declared or has been forgotten.
    #[error("group {0} is not declared")]
    UnknownGroup(u64),
    /// A configured limit refuses the request.
    #[error("{what}: more than the limit of {limit}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// Work on a log took so long that others may have cleaned up after it.
    #[error("{what} log {log}: took too long, begins anew")]
    Stalled {
        /// What was done.
        what: &'static str,
        /// The log.
        log: String,
    },
    /// The table has lost what it had of a log.
    #[error("flush log {log} based on {base:?}: the table has gone back to {found:?}")]
    TableWentBack {
        /// The log.
        log: String,
        /// What the table had.
        base: Option<u64>,
        /// What it has now.
        found: Option<u64>,
    },
    /// The head let go of flushed samples while they were read.
    #[error("samples left memory while they were read")]
    Dropped,
    /// The storage is closed.
    #[error("the storage is closed")]
    Closed,
    /// The table failed.
    #[error(transparent)]
    Table(#[from] crate::table::Error),
    /// A thread of ours died.
    #[error("{0}: the worker stopped")]
    Worker(&'static str),
}

impl Error {
    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io { .. }
            | Self::Locked(_)
            | Self::NoRoom { .. }
            | Self::LogEnded { .. }
            | Self::LogStalled { .. }
            | Self::Dropped
            | Self::Closed => Kind::Unavailable,
            Self::Gap { .. } | Self::TableWentBack { .. } => Kind::Corrupt,
            Self::Stalled { .. } => Kind::Timeout,
            Self::Busy { .. } => Kind::Busy,
            Self::Invalid(_) => Kind::Invalid,
            Self::UnknownGroup(_) => Kind::NotFound,
            Self::TooMany { .. } => Kind::Limit,
            Self::Table(error) => error.kind(),
            Self::Worker(_) => Kind::Internal,
        }
    }

    /// Wraps a failure of the file system with what was tried.
    pub(crate) fn io(attempt: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { attempt, path, source }
    }
}

/// A result whose error is the storage's.
pub type Result<T, E = Error> = std::result::Result<T, E>;
