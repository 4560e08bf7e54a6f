//! What can go wrong with the table, its catalogue and its files.

use fault::Kind;

/// A failure of the table of Parquet files or of its catalogue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The object store failed.
    #[error("{attempt}: {source}")]
    Store {
        /// What was tried, with the path.
        attempt: String,
        /// The store's own words.
        source: object_store::Error,
    },
    /// A live file is gone: the snapshot is older than what was cleaned up. A new snapshot no longer names it.
    #[error("read {path}: the file is gone; the table has moved on")]
    Gone {
        /// The file.
        path: String,
    },
    /// A commit of the catalogue cannot be understood.
    #[error("read commit {path}: {reason}")]
    CorruptCommit {
        /// The commit file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A Parquet file cannot be understood.
    #[error("read {path}: {reason}")]
    CorruptFile {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The table or a file uses something that this version does not understand.
    #[error("{path}: {feature} is not supported")]
    Unsupported {
        /// The commit, checkpoint or file.
        path: String,
        /// What it uses.
        feature: String,
    },
    /// The table's last transaction of the log is not the one that the flush was built on.
    #[error("commit flush of log {log} based on {base:?}: the table is at {found:?}")]
    BaseMismatch {
        /// The log.
        log: String,
        /// What the flush was built on.
        base: Option<u64>,
        /// What the table has.
        found: Option<u64>,
    },
    /// A file that was to be replaced is not live any more: somebody else has replaced or dropped it.
    #[error("replace {path}: somebody else has done so")]
    Overtaken {
        /// The file.
        path: String,
    },
    /// Work took so long that others may have cleaned up after it.
    #[error("{attempt}: took too long, begins anew")]
    Stalled {
        /// What was tried.
        attempt: &'static str,
    },
    /// Work was called off.
    #[error("{0}: called off")]
    Cancelled(&'static str),
    /// Every attempt to commit lost against other writers.
    #[error("commit to the table: {attempts} attempts lost against other writers")]
    Contended {
        /// Attempts made.
        attempts: u32,
    },
    /// The table has not reached the version that was asked for.
    #[error("the table is at version {found}, version {wanted} was asked for")]
    Behind {
        /// The newest version there is.
        found: u64,
        /// The version asked for.
        wanted: u64,
    },
    /// A query touches more than its limits allow.
    #[error("the query would load more than {limit} {unit} from files")]
    TooMuch {
        /// The limit.
        limit: usize,
        /// `series` or `samples`.
        unit: &'static str,
    },
    /// A row that cannot be stored.
    #[error("store series {series}: {reason}")]
    InvalidRow {
        /// Its labels.
        series: String,
        /// Why not.
        reason: String,
    },
    /// A number or name that the format has no room for.
    #[error("{0}")]
    Invalid(String),
    /// Parquet or Arrow refused what we built.
    #[error("encode a file: {0}")]
    Encode(String),
    /// A thread of ours died.
    #[error("{0}: the worker stopped")]
    Worker(&'static str),
}

impl Error {
    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Store { source, .. } => store_kind(source),
            Self::Gone { .. } | Self::Unsupported { .. } | Self::Behind { .. } => Kind::Unavailable,
            Self::CorruptCommit { .. } | Self::CorruptFile { .. } => Kind::Corrupt,
            Self::BaseMismatch { .. } | Self::Overtaken { .. } => Kind::AlreadyExists,
            Self::Stalled { .. } => Kind::Timeout,
            Self::Cancelled(_) => Kind::Cancelled,
            Self::Contended { .. } => Kind::Busy,
            Self::TooMuch { .. } => Kind::Limit,
            Self::InvalidRow { .. } | Self::Invalid(_) => Kind::Invalid,
            Self::Encode(_) | Self::Worker(_) => Kind::Internal,
        }
    }

    /// Wraps a failure of the store with what was tried.
    pub(crate) fn store(attempt: impl Into<String>) -> impl FnOnce(object_store::Error) -> Self {
        let attempt = attempt.into();
        move |source| Self::Store { attempt, source }
    }

    /// Says why a thread that read a file stopped: a decoder that panics has met bytes it did not expect.
    pub(crate) fn stopped(path: &str, error: &tokio::task::JoinError) -> Self {
        if error.is_panic() { Self::corrupt(path, "the decoder failed") } else { Self::Worker("read a file") }
    }

    /// Wraps what a Parquet or Arrow decoder says about a file.
    pub(crate) fn corrupt(path: &str, reason: impl std::fmt::Display) -> Self {
        Self::CorruptFile { path: path.to_owned(), reason: reason.to_string() }
    }
}

fn store_kind(error: &object_store::Error) -> Kind {
    match error {
        object_store::Error::NotFound { .. } => Kind::NotFound,
        object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => {
            Kind::AlreadyExists
        }
        object_store::Error::InvalidPath { .. }
        | object_store::Error::NotSupported { .. }
        | object_store::Error::NotImplemented { .. }
        | object_store::Error::UnknownConfigurationKey { .. } => Kind::Internal,
        _ => Kind::Unavailable,
    }
}

/// A result whose error is the table's.
pub type Result<T, E = Error> = std::result::Result<T, E>;
