//! What can be wrong with a request, and with a single series of it.

use model::Labels;
use model::number::Quoted;

use crate::frame::BODY_BYTES_MAX;
use crate::request::LABELS_PER_SERIES_MAX;

/// A request that is refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The headers name a message or compression that is not taken: HTTP 415.
    #[error("{0}")]
    UnsupportedMediaType(String),
    /// The body is larger than [`BODY_BYTES_MAX`] as it came: HTTP 413.
    #[error("compressed body of {0} bytes is larger than {BODY_BYTES_MAX}")]
    BodyTooLarge(usize),
    /// The body says that it is larger than [`BODY_BYTES_MAX`] once decompressed: HTTP 400.
    #[error("decompressed body of {0} bytes is larger than {BODY_BYTES_MAX}")]
    DecodedTooLarge(usize),
    /// The frame is not snappy: HTTP 400.
    #[error("decompress snappy body: {0}")]
    Snappy(String),
    /// The message is not what the headers say: HTTP 400.
    #[error("decode remote write message: {0}")]
    Message(String),
    /// The message of a remote read is malformed, or its matchers are: HTTP 400.
    #[error("decode remote read message: {0}")]
    ReadMessage(String),
    /// None of the response types that a remote read accepts is known: HTTP 400.
    #[error(
        "server does not support any of the requested response types; supported: SAMPLES, STREAMED_XOR_CHUNKS"
    )]
    UnsupportedResponseTypes,
    /// More of something than one request may have: HTTP 400.
    #[error("request has more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many it may have.
        max: usize,
    },
}

impl Error {
    /// Says what sort of failure this is.
    #[must_use]
    pub const fn kind(&self) -> fault::Kind {
        match self {
            Self::UnsupportedMediaType(_)
            | Self::Snappy(_)
            | Self::Message(_)
            | Self::ReadMessage(_)
            | Self::UnsupportedResponseTypes => fault::Kind::Invalid,
            Self::BodyTooLarge(_) | Self::DecodedTooLarge(_) | Self::TooMany { .. } => fault::Kind::Limit,
        }
    }
}

/// The result of reading a request.
pub type Result<T> = std::result::Result<T, Error>;

/// A series that cannot be stored. In remote write 1.0 it is skipped and counted, and the request succeeds; in 2.0
/// the rest is stored, and the request answered with 400 and this text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSeries {
    /// No metric name, or an empty label name.
    #[error("invalid metric name or labels, got {0}")]
    Name(Labels),
    /// One label name twice.
    #[error("invalid labels for series, duplicated label {0}")]
    DuplicateLabel(String),
    /// A name or value that is not UTF-8.
    #[error("invalid metric name or labels, {} is not valid UTF-8", Quoted(.0))]
    NotUtf8(String),
    /// More labels than [`LABELS_PER_SERIES_MAX`].
    #[error("series has more than {LABELS_PER_SERIES_MAX} labels")]
    TooManyLabels,
    /// A name without a value.
    #[error("invalid labelRefs length {0}")]
    OddReferences(usize),
    /// A reference behind the end of the symbols.
    #[error("labelRefs {reference} outside of symbols table (size {size})")]
    UnknownSymbol {
        /// The reference.
        reference: u64,
        /// How many symbols there are.
        size: usize,
    },
}

impl InvalidSeries {
    /// Says what sort of failure this is.
    #[must_use]
    pub const fn kind(&self) -> fault::Kind {
        match self {
            Self::TooManyLabels => fault::Kind::Limit,
            _ => fault::Kind::Invalid,
        }
    }
}
