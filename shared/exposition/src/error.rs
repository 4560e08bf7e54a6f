//! What can be wrong with a scrape body or its headers, in Prometheus's words.

use model::number::Quoted;

/// A body or header that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The body breaks the format's syntax.
    #[error("{0}")]
    Syntax(String),
    /// A number that is none, or does not fit.
    #[error("{message} while parsing: {}", Quoted(.parsing))]
    Number {
        /// What Go's parser says about it.
        message: String,
        /// The entry up to the number.
        parsing: String,
    },
    /// An OpenMetrics body that just ends.
    #[error("data does not end with # EOF")]
    MissingEof,
    /// An OpenMetrics body that goes on after its end.
    #[error("unexpected data after # EOF")]
    DataAfterEof,
    /// One label name twice in a series.
    #[error("label name {} is not unique: invalid sample", Quoted(.0))]
    DuplicateLabel(String),
    /// A protobuf body that does not decode.
    #[error("decode protobuf metric family: {0}")]
    Protobuf(String),
    /// A Content-Type from which no format follows, and no fallback.
    #[error("{0}")]
    ContentType(String),
    /// A name in `scrape_protocols` that does not exist.
    #[error("unknown scrape protocol {0}, supported: [{supported}]", supported = crate::ScrapeProtocol::all_names())]
    UnknownProtocol(String),
    /// A name of an escaping scheme that does not exist.
    #[error("unknown format scheme {0}")]
    UnknownEscaping(String),
}

impl Error {
    /// Says what sort of failure this is: always the sender's.
    #[must_use]
    pub const fn kind(&self) -> fault::Kind {
        fault::Kind::Invalid
    }
}

/// The result of reading a scrape.
pub type Result<T> = std::result::Result<T, Error>;
