//! What can go wrong with a query, in Prometheus's words.

use promql_syntax::{DurationError, ParseErrors};

/// The result of preparing or running a query.
pub type Result<T> = std::result::Result<T, Error>;

/// A query that has no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The text is not PromQL.
    #[error("{0}")]
    Parse(#[from] ParseErrors),
    /// A duration expression has no usable value.
    #[error("{0}")]
    Duration(#[from] DurationError),
    /// The query's times or its type do not fit what was asked for.
    #[error("{0}")]
    Invalid(String),
    /// The evaluation came upon values it cannot go on with.
    #[error("{0}")]
    Execution(String),
    /// More samples than `query.max-samples` would have to be held at one time.
    #[error("query processing would load too many samples into memory in query execution")]
    TooManySamples,
    /// More memory than a query may take would have to be held at one time.
    #[error("query processing would hold more than the limit of {limit} bytes in memory in query execution")]
    TooMuchMemory {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The time allowed is used up.
    #[error("query timed out in expression evaluation")]
    Timeout,
    /// The caller gave up.
    #[error("query was canceled in expression evaluation")]
    Canceled,
    /// The parts of an aggregation do not go together without the order of the series in it: to be run without cuts.
    #[error("an aggregation in parts depends on the order of its series")]
    OrderMatters,
    /// The source could not give the series.
    #[error("expanding series: {0}")]
    Source(SourceError),
}

impl From<SourceError> for Error {
    /// What ends a source's work is the query's own: its limit of samples, its time, whoever asked.
    fn from(error: SourceError) -> Self {
        match error.kind {
            fault::Kind::Limit => Self::TooManySamples,
            fault::Kind::Timeout => Self::Timeout,
            fault::Kind::Cancelled => Self::Canceled,
            _ => Self::Source(error),
        }
    }
}

/// The API's `errorType` for an error, as Prometheus chooses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorType {
    /// The request is wrong.
    BadData,
    /// The evaluation failed.
    Execution,
    /// The time allowed is used up.
    Timeout,
    /// The caller gave up.
    Canceled,
    /// The storage failed.
    Internal,
    /// A part that is needed cannot be reached.
    Unavailable,
}

impl Error {
    pub(crate) fn execution(message: impl Into<String>) -> Self {
        Self::Execution(message.into())
    }

    /// Returns the kind of failure. Evaluation errors are `Limit`, the kind that becomes `execution` in the API.
    #[must_use]
    pub const fn kind(&self) -> fault::Kind {
        match self {
            Self::Parse(_) | Self::Duration(_) | Self::Invalid(_) => fault::Kind::Invalid,
            Self::Execution(_) | Self::TooManySamples | Self::TooMuchMemory { .. } => fault::Kind::Limit,
            Self::Timeout => fault::Kind::Timeout,
            Self::Canceled => fault::Kind::Cancelled,
            Self::OrderMatters => fault::Kind::Internal,
            Self::Source(error) => error.kind,
        }
    }

    /// Returns the API's `errorType`.
    #[must_use]
    pub const fn error_type(&self) -> ErrorType {
        match self.kind() {
            fault::Kind::Invalid | fault::Kind::AlreadyExists | fault::Kind::NotFound => ErrorType::BadData,
            fault::Kind::Limit => ErrorType::Execution,
            fault::Kind::Timeout => ErrorType::Timeout,
            fault::Kind::Cancelled => ErrorType::Canceled,
            fault::Kind::Unavailable | fault::Kind::Busy => ErrorType::Unavailable,
            fault::Kind::Corrupt | fault::Kind::Internal => ErrorType::Internal,
        }
    }
}

/// A failure of the source of series. One of kind `Limit` says that there are more samples than the query may hold,
/// one of kind `Timeout` or `Cancelled` that the query is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// What sort of failure it is.
    pub kind: fault::Kind,
    /// What failed, naming the part.
    pub message: String,
}

impl SourceError {
    /// Makes an error.
    pub fn new(kind: fault::Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}
