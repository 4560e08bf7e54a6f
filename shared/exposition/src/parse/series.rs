//! A series as it is exposed: a slice of the body, taken apart on demand.
//!
//! Invariant: the text has passed the grammar, so it is UTF-8, quotes and braces are balanced, and there is exactly one
//! metric name; taking it apart cannot fail.

use std::borrow::Cow;

use model::labels::METRIC_NAME;
use model::{Labels, MetricType, Timestamp};

use super::number::normalise;
use crate::error::Result;
use crate::labels;

/// Name and labels of a sample, as exposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Series<'a> {
    text: &'a str,
    /// The label whose value is normalised: `le` below a histogram's `# TYPE`, `quantile` below a summary's.
    float_label: Option<&'static str>,
}

impl<'a> Series<'a> {
    pub(crate) fn new(text: &'a str, kind: MetricType) -> Self {
        let float_label = match kind {
            MetricType::Histogram => Some("le"),
            MetricType::Summary => Some("quantile"),
            _ => None,
        };
        Self { text, float_label }
    }

    /// The exposed text, from the name to the closing brace: a scrape's key for the series.
    ///
    /// One series may be exposed under several texts (labels in another order), and equal texts mean equal labels as
    /// long as the type of the family stays the same.
    #[must_use]
    pub const fn text(&self) -> &'a str {
        self.text
    }

    /// Returns the metric name, unescaped.
    #[must_use]
    pub fn metric_name(&self) -> Cow<'a, str> {
        match self.text.find(['{', ' ', '\t']) {
            Some(0) => {
                self.pieces().find(|(_, value)| value.is_none()).map(|(name, _)| name).unwrap_or_default()
            }
            Some(end) => Cow::Borrowed(&self.text[..end]),
            None => Cow::Borrowed(self.text),
        }
    }

    /// Iterates over the labels without the metric name, in the exposed order, unescaped; `le` and `quantile` are
    /// written as OpenMetrics does where the type of the family asks for it.
    pub fn labels(&self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> + use<'a> {
        let float_label = self.float_label;
        self.pieces().filter_map(move |(name, value)| {
            let value = value?;
            if float_label == Some(name.as_ref())
                && let Some(text) = normalise(&value)
            {
                return Some((name, Cow::Owned(text)));
            }
            Some((name, value))
        })
    }

    /// Builds the label set, metric name included.
    ///
    /// # Errors
    /// When a label name stands there twice.
    pub fn to_labels(&self) -> Result<Labels> {
        labels::build(std::iter::once((Cow::Borrowed(METRIC_NAME), self.metric_name())).chain(self.labels()))
    }

    fn pieces(&self) -> Pieces<'a> {
        let open = self.text.find('{').map_or(self.text.len(), |i| i + 1);
        Pieces { rest: &self.text[open..] }
    }
}

/// An exemplar behind a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExemplarRef<'a> {
    /// What stands between the braces, with the closing one.
    pub(super) text: &'a str,
    /// The observed value.
    pub value: f64,
    /// When it was observed, where the exposition says so.
    pub timestamp: Option<Timestamp>,
}

impl<'a> ExemplarRef<'a> {
    /// Iterates over the exemplar's labels in the exposed order, unescaped.
    pub fn labels(&self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> + use<'a> {
        Pieces { rest: self.text }.filter_map(|(name, value)| Some((name, value?)))
    }

    /// Copies the exemplar.
    ///
    /// # Errors
    /// When a label name stands there twice.
    pub fn to_exemplar(&self) -> Result<model::Exemplar> {
        let labels = labels::build(self.labels())?;
        Ok(model::Exemplar { labels, value: self.value, timestamp: self.timestamp })
    }
}

/// Takes apart what stands between braces; a piece without a value is the metric name.
struct Pieces<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = (Cow<'a, str>, Option<Cow<'a, str>>);

    fn next(&mut self) -> Option<Self::Item> {
        const BLANKS: [char; 2] = [' ', '\t'];
        let rest = self.rest.trim_start_matches([' ', '\t', ',']);
        let (name, rest) = if rest.starts_with('"') {
            split_quoted(rest)?
        } else {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|i| *i > 0)?;
            rest.split_at(end)
        };
        let after = rest.trim_start_matches(BLANKS);
        let (value, rest) = match after.strip_prefix('=') {
            Some(after) => {
                let (value, rest) = split_quoted(after.trim_start_matches(BLANKS))?;
                (Some(unescape(value)), rest)
            }
            None => (None, after),
        };
        self.rest = rest;
        Some((unescape(name), value))
    }
}

/// Splits a quoted string off and returns what stands between the quotes.
fn split_quoted(text: &str) -> Option<(&str, &str)> {
    let body = text.strip_prefix('"')?;
    let mut is_escaped = false;
    let end = body.bytes().position(|b| {
        let is_end = b == b'"' && !is_escaped;
        is_escaped = b == b'\\' && !is_escaped;
        is_end
    })?;
    Some((&body[..end], &body[end + 1..]))
}

/// Replaces `\"`, `\\` and `\n`; any other backslash stays.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    unescape_only(text, |c| matches!(c, '"' | '\\' | 'n'))
}

/// Replaces `\\` and `\n`, as the help texts of the text format have it.
pub(super) fn unescape_help(text: &str) -> Cow<'_, str> {
    unescape_only(text, |c| matches!(c, '\\' | 'n'))
}

fn unescape_only(text: &str, is_escape: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match chars.next_if(|next| c == '\\' && is_escape(*next)) {
            Some('n') => out.push('\n'),
            Some(escaped) => out.push(escaped),
            None => out.push(c),
        }
    }
    Cow::Owned(out)
}
