//! Walks a text or OpenMetrics body entry by entry.
//!
//! The parser is a lexer with states (`lexer`) and a short grammar on top (`grammar`), in the shape of Prometheus's
//! own so that the same bodies pass and errors read the same. What it yields borrows from the body:
//!
//! - a sample costs no allocation; its labels are taken apart only when asked for ([`Series::to_labels`]), so a scraper
//!   that knows a series by its text ([`Series::text`]) never builds them again;
//! - after an error or the end nothing more is yielded.

mod grammar;
mod lexer;
mod number;
mod series;

use std::borrow::Cow;

use model::{MetricType, Timestamp};

use crate::error::{Error, Result};
use crate::protocol::Format;
use lexer::{Dialect, Lexer};
pub(crate) use number::format_open_metrics;
pub use series::{ExemplarRef, Series};

/// One line of a body, or two where an exemplar follows.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry<'a> {
    /// `# TYPE name type`
    Type {
        /// The family's name.
        name: Cow<'a, str>,
        /// Its type.
        kind: MetricType,
    },
    /// `# HELP name text`
    Help {
        /// The family's name.
        name: Cow<'a, str>,
        /// The text, unescaped.
        help: Cow<'a, str>,
    },
    /// `# UNIT name unit`, in OpenMetrics.
    Unit {
        /// The family's name.
        name: Cow<'a, str>,
        /// The unit; may be empty.
        unit: Cow<'a, str>,
    },
    /// Any other comment, with its `#`; it may be in any encoding.
    Comment(&'a [u8]),
    /// A sample.
    Sample(Sample<'a>),
}

/// A float of one series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample<'a> {
    /// Name and labels.
    pub series: Series<'a>,
    /// The value; every NaN is the canonical one.
    pub value: f64,
    /// The exposed time; `None` where the time of the scrape is meant.
    pub timestamp: Option<Timestamp>,
    /// The exemplar, in OpenMetrics.
    pub exemplar: Option<ExemplarRef<'a>>,
}

/// Walks a body; iterate to get its entries.
///
/// ```
/// use exposition::{Entry, Parser};
///
/// let body = b"# TYPE up gauge\nup{job=\"node\"} 1 1700000000000\n";
/// let samples: Vec<_> = Parser::text(body)
///     .filter_map(|entry| match entry {
///         Ok(Entry::Sample(sample)) => Some((sample.series.text(), sample.value)),
///         _ => None,
///     })
///     .collect();
/// assert_eq!(samples, [("up{job=\"node\"}", 1.0)]);
/// ```
#[derive(Debug)]
pub struct Parser<'a> {
    lexer: Lexer<'a>,
    /// The type of the latest `# TYPE` line, which decides whether `le` and `quantile` are normalised.
    kind: MetricType,
    /// Whether the body may end without `# EOF`, since more of it follows elsewhere.
    is_piece: bool,
    /// Whether `# EOF` was read.
    has_ended: bool,
    is_done: bool,
}

/// What is carried from one piece of an OpenMetrics body to the next; see [`Parser::open_metrics_piece`].
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenMetricsState {
    kind: MetricType,
    has_ended: bool,
}

impl OpenMetricsState {
    /// Says that no piece follows.
    ///
    /// # Errors
    /// When `# EOF` was not read.
    pub fn finish(self) -> Result<()> {
        if self.has_ended { Ok(()) } else { Err(Error::MissingEof) }
    }
}

impl<'a> Parser<'a> {
    /// Starts on a body of Prometheus text: versions 0.0.4 and 1.0.0 have one grammar.
    #[must_use]
    pub fn text(body: &'a [u8]) -> Self {
        Self::with_dialect(body, Dialect::Text)
    }

    /// Starts on a body of OpenMetrics text.
    #[must_use]
    pub fn open_metrics(body: &'a [u8]) -> Self {
        Self::with_dialect(body, Dialect::OpenMetrics)
    }

    /// Starts on a piece of an OpenMetrics body that is read bit by bit. A piece begins where the one before had been
    /// read to, with the state that was left behind ([`Parser::state`]).
    #[must_use]
    pub fn open_metrics_piece(piece: &'a [u8], state: OpenMetricsState) -> Self {
        let OpenMetricsState { kind, has_ended } = state;
        Self { kind, has_ended, is_piece: true, ..Self::open_metrics(piece) }
    }

    /// How much of the body was read: the end of the entry that was yielded last.
    #[must_use]
    pub fn position(&self) -> usize {
        self.lexer.token_end()
    }

    /// What the next piece begins with.
    #[must_use]
    pub fn state(&self) -> OpenMetricsState {
        OpenMetricsState { kind: self.kind, has_ended: self.has_ended }
    }

    /// Starts on a body of a format; `None` for protobuf, which [`crate::protobuf`] reads.
    #[must_use]
    pub fn new(body: &'a [u8], format: Format) -> Option<Self> {
        match format {
            Format::Text => Some(Self::text(body)),
            Format::OpenMetrics => Some(Self::open_metrics(body)),
            Format::Protobuf => None,
        }
    }

    fn with_dialect(body: &'a [u8], dialect: Dialect) -> Self {
        Self {
            lexer: Lexer::new(body, dialect),
            kind: MetricType::Unknown,
            is_piece: false,
            has_ended: false,
            is_done: false,
        }
    }
}

impl<'a> Iterator for Parser<'a> {
    type Item = Result<Entry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let entry = self.parse_entry().transpose();
        self.is_done = !matches!(entry, Some(Ok(_)));
        entry
    }
}

#[cfg(test)]
mod tests;
