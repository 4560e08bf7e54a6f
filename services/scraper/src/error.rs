//! Why a scrape failed, in the words that users of Prometheus know.

use model::Labels;
use model::number::Quoted;

/// Why a scrape failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Error {
    /// The request did not come to an answer.
    #[error("Get {}: {cause}", Quoted(.url))]
    Request {
        /// What was asked for.
        url: String,
        /// What went wrong.
        cause: String,
    },
    /// The time allowed is over.
    #[error("context deadline exceeded")]
    Timeout,
    /// The answer was not 200.
    #[error("server returned HTTP status {0}")]
    Status(String),
    /// The answer ended in the middle.
    #[error("read body: {0}")]
    Body(String),
    /// The answer is not compressed in the way it says.
    #[error("gzip: {0}")]
    Gzip(String),
    /// The answer is larger than the job allows, or than one body may ever be.
    #[error("body size limit exceeded")]
    BodySize,
    /// Too much memory is held by bodies of other targets.
    #[error("bodies of other scrapes take up the {0} bytes there are for them")]
    BodyBudget(usize),
    /// The body or its type cannot be read.
    #[error(transparent)]
    Exposition(#[from] exposition::Error),
    /// `sample_limit` was exceeded.
    #[error("sample limit exceeded")]
    SampleLimit,
    /// `native_histogram_bucket_limit` was exceeded.
    #[error("histogram bucket limit exceeded")]
    BucketLimit,
    /// A native histogram breaks a rule of its format.
    #[error(transparent)]
    Histogram(#[from] model::histogram::HistogramError),
    /// One of the label limits was exceeded.
    #[error("{0}")]
    LabelLimit(String),
    /// Relabelling took the name away.
    #[error("missing metric name (__name__ label)")]
    NoName,
    /// A name is not valid under the job's scheme.
    #[error("invalid metric name or label names: {0}")]
    InvalidNames(Labels),
    /// Discovery or this build says that the target is not to be scraped.
    #[error("{0}")]
    Refused(String),
}

impl Error {
    /// Says what sort of failure this is.
    pub(crate) const fn kind(&self) -> fault::Kind {
        match self {
            Self::Request { .. } | Self::Status(_) | Self::Body(_) | Self::Refused(_) => {
                fault::Kind::Unavailable
            }
            Self::Timeout => fault::Kind::Timeout,
            Self::BodySize | Self::SampleLimit | Self::BucketLimit | Self::LabelLimit(_) => {
                fault::Kind::Limit
            }
            Self::BodyBudget(_) => fault::Kind::Busy,
            Self::Gzip(_)
            | Self::Exposition(_)
            | Self::Histogram(_)
            | Self::NoName
            | Self::InvalidNames(_) => fault::Kind::Invalid,
        }
    }
}

/// The crate's result.
pub(crate) type Result<T> = std::result::Result<T, Error>;
