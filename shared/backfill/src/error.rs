//! What can go wrong with an import.

use std::io;
use std::path::PathBuf;

use fault::Kind;

/// A failure to import.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The input cannot be read.
    #[error("read {}: {source}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// The system's own words.
        source: io::Error,
    },
    /// A line is no OpenMetrics.
    #[error("getting min and max timestamp: next: {0}")]
    Syntax(#[from] exposition::Error),
    /// A sample does not say when it was taken.
    #[error("getting min and max timestamp: expected timestamp for series got none: {0}")]
    NoTimestamp(String),
    /// The data directory cannot be read.
    #[error(transparent)]
    Directory(#[from] prometheus_tsdb::Error),
    /// The table or the scratch folder failed.
    #[error(transparent)]
    Table(#[from] tsdb::Error),
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Input { source, .. } if source.kind() == io::ErrorKind::NotFound => Kind::NotFound,
            Self::Input { .. } => Kind::Unavailable,
            Self::Syntax(_) | Self::NoTimestamp(_) => Kind::Invalid,
            Self::Directory(error) => error.kind(),
            Self::Table(error) => error.kind(),
        }
    }
}
