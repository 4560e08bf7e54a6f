//! What can go wrong with a request.

/// What can go wrong with a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A group number that the stream has not declared.
    #[error("group {0} is not declared on this stream")]
    UndeclaredGroup(u32),
    /// A group number that the stream declares twice.
    #[error("group {0} is declared on this stream already")]
    RedeclaredGroup(u32),
    /// The logs are still being replayed.
    #[error("the ingester is starting: its logs are being replayed")]
    Opening,
    /// Too many groups on one stream.
    #[error("more than {0} groups on one stream")]
    TooManyGroups(usize),
    /// An aggregation could not be evaluated.
    #[error("{0}")]
    Query(promql_engine::Error),
    /// An evaluation ended early.
    #[error("evaluation ended early: {0}")]
    Evaluation(String),
    /// Storage refused or failed.
    #[error(transparent)]
    Storage(#[from] tsdb::Error),
}

impl Error {
    /// Says what sort of failure this is.
    #[must_use]
    pub fn kind(&self) -> fault::Kind {
        match self {
            Self::UndeclaredGroup(_) | Self::RedeclaredGroup(_) => fault::Kind::Invalid,
            Self::Opening => fault::Kind::Unavailable,
            Self::TooManyGroups(_) => fault::Kind::Limit,
            Self::Query(error) => error.kind(),
            Self::Evaluation(_) => fault::Kind::Internal,
            Self::Storage(error) => error.kind(),
        }
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        rpc::status::status(error.kind(), error.to_string())
    }
}

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;
