//! Why a batch was not taken.

use std::time::Duration;

/// Why a batch was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The buffer is full: no ingester takes samples as fast as they come.
    #[error("write buffer is full: {waiting} of {limit} bytes wait for an ingester")]
    BufferFull {
        /// Bytes that wait.
        waiting: usize,
        /// The bound.
        limit: usize,
    },
    /// The ingester refuses the batch as a whole, or fails and there is no other; the kind says whether sending it
    /// again can help.
    #[error("append: {message}")]
    Refused {
        /// What sort of failure it is.
        kind: fault::Kind,
        /// The ingester's words.
        message: String,
    },
    /// Nobody answered for the batch in time. It may still be stored.
    #[error("append was not acknowledged within {0:?}")]
    Timeout(Duration),
    /// The writer is closed.
    #[error("the writer is closed")]
    Closed,
}

impl Error {
    /// Says what sort of failure this is.
    #[must_use]
    pub const fn kind(&self) -> fault::Kind {
        match self {
            Self::BufferFull { .. } => fault::Kind::Busy,
            Self::Refused { kind, .. } => *kind,
            Self::Timeout(_) => fault::Kind::Timeout,
            Self::Closed => fault::Kind::Unavailable,
        }
    }
}

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;
