//! What is wrong with a text, and where.

use std::fmt;

use crate::ast::Span;

/// One fault in a text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ParseError {
    /// The bytes at fault.
    pub span: Span,
    /// Line and column of the span's start, from one; `None` for an empty text, which has no positions.
    pub position: Option<(usize, usize)>,
    /// What is wrong.
    pub message: String,
}

impl ParseError {
    pub(crate) fn new(text: &str, span: Span, message: impl Into<String>) -> Self {
        let position = (!text.is_empty()).then(|| span.line_column(text));
        Self { span, position, message: message.into() }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some((line, column)) => write!(f, "{line}:{column}")?,
            None => f.write_str("unknown position")?,
        }
        write!(f, ": parse error: {}", self.message)
    }
}

/// How many faults of one text are kept: each costs a scan of the text for its position.
pub const ERRORS_MAX: usize = 50;

/// Adds a fault while there is room.
pub(crate) fn note(errors: &mut Vec<ParseError>, text: &str, span: Span, message: impl Into<String>) {
    if errors.len() < ERRORS_MAX {
        errors.push(ParseError::new(text, span, message));
    }
}

/// Everything that was found wrong with a text, up to [`ERRORS_MAX`] faults; never empty. Displays the first fault only,
/// as Prometheus does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseErrors(pub(crate) Vec<ParseError>);

impl ParseErrors {
    /// The faults in the order in which they were found.
    #[must_use]
    pub fn all(&self) -> &[ParseError] {
        &self.0
    }

    /// The kind of failure: the text is at fault.
    #[must_use]
    pub const fn kind(&self) -> fault::Kind {
        fault::Kind::Invalid
    }
}

impl fmt::Display for ParseErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.first() {
            Some(first) => first.fmt(f),
            None => f.write_str("parse error"),
        }
    }
}

impl std::error::Error for ParseErrors {}

/// The result of reading a text.
pub type Result<T> = std::result::Result<T, ParseErrors>;
