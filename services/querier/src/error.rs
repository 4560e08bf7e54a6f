//! What can go wrong with a request.

use fault::Kind;
use tonic::Status;

/// What can go wrong with a request.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// An ingester failed or cannot be reached.
    #[error("{source_name}: {message}")]
    Peer {
        /// Which one.
        source_name: String,
        /// What sort of failure it is.
        kind: Kind,
        /// Its words.
        message: String,
    },
    /// Not all ingesters that are needed answered.
    #[error("{message}")]
    Heads {
        /// What sort of failure it is.
        kind: Kind,
        /// Which log or ingester failed, and why.
        message: String,
    },
    /// The table failed.
    #[error("table: {message}")]
    Table {
        /// What sort of failure it is.
        kind: Kind,
        /// Its words.
        message: String,
    },
    /// The query is wrong or failed.
    #[error("{message}")]
    Query {
        /// What sort of failure it is.
        kind: Kind,
        /// The engine's words, which are Prometheus's.
        message: String,
    },
}

impl Error {
    /// Names the ingester that failed.
    pub(crate) fn peer(source: &str, status: &Status) -> Self {
        Self::Peer {
            source_name: source.to_owned(),
            kind: rpc::status::kind(status),
            message: status.message().to_owned(),
        }
    }

    /// As asking all ingesters says it.
    pub(crate) fn heads(status: &Status) -> Self {
        Self::Heads { kind: rpc::status::kind(status), message: status.message().to_owned() }
    }

    /// Says what sort of failure this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Peer { kind, .. }
            | Self::Heads { kind, .. }
            | Self::Table { kind, .. }
            | Self::Query { kind, .. } => *kind,
        }
    }
}

impl From<tsdb::table::Error> for Error {
    fn from(error: tsdb::table::Error) -> Self {
        Self::Table { kind: error.kind(), message: error.to_string() }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        rpc::status::status(error.kind(), error.to_string())
    }
}

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;
