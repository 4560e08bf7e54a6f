//! What can go wrong with somebody else's files.

use std::io;
use std::path::{Path, PathBuf};

use fault::Kind;

/// A failure to read a data directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The disk failed, or what should be there is not.
    #[error("{attempt} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's own words.
        source: io::Error,
    },
    /// A file holds what it should not.
    #[error("{}: {reason}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file uses something that this crate does not understand.
    #[error("{}: {feature} is not supported", .path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it uses.
        feature: String,
    },
    /// A server works on the directory.
    #[error("{}: a server runs on this directory; stop it, or take a snapshot and import that", .0.display())]
    InUse(PathBuf),
    /// The directory is none of Prometheus's.
    #[error("{}: neither blocks nor a write-ahead log: not the data directory of a Prometheus", .0.display())]
    Empty(PathBuf),
    /// Whoever receives the samples wants no more.
    #[error("called off")]
    Cancelled,
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Kind::NotFound,
            Self::Io { .. } => Kind::Unavailable,
            Self::Damaged { .. } => Kind::Corrupt,
            Self::Unsupported { .. } | Self::Empty(_) => Kind::Invalid,
            Self::InUse(_) => Kind::Busy,
            Self::Cancelled => Kind::Cancelled,
        }
    }

    pub(crate) fn io(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { attempt, path, source }
    }

    pub(crate) fn damaged(path: &Path, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), reason: reason.into() }
    }
}
