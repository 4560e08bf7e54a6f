//! What follows what in a body; the order of checks is that of Prometheus, so the first error is the same.

use std::borrow::Cow;

use model::number::Quoted;
use model::{MetricType, Timestamp};

use super::lexer::{Dialect, Lexer, Token};
use super::series::{ExemplarRef, Series, unescape, unescape_help};
use super::{Entry, Parser, Sample, number};
use crate::error::{Error, Result};

impl<'a> Parser<'a> {
    /// Reads one entry; `None` at the end of the body.
    pub(super) fn parse_entry(&mut self) -> Result<Option<Entry<'a>>> {
        let is_open_metrics = self.lexer.dialect() == Dialect::OpenMetrics;
        loop {
            self.lexer.begin_entry();
            match self.lexer.next_token() {
                Token::Eof if is_open_metrics && !self.is_piece => return Err(Error::MissingEof),
                Token::Eof => return Ok(None),
                _ if self.has_ended => return Err(Error::DataAfterEof),
                Token::EofWord => {
                    self.has_ended = true;
                    return match self.lexer.next_token() {
                        Token::Eof => Ok(None),
                        _ => Err(Error::DataAfterEof),
                    };
                }
                // The text format allows empty lines.
                Token::Linebreak => {}
                token @ (Token::Help | Token::Type | Token::Unit) => return self.metadata(token).map(Some),
                Token::Comment => {
                    let text = self.lexer.token();
                    self.expect_linebreak("linebreak expected after comment")?;
                    return Ok(Some(Entry::Comment(text)));
                }
                Token::BraceOpen => return self.sample(None).map(Some),
                Token::MetricName => return self.sample(Some(self.lexer.token_end())).map(Some),
                token => return Err(self.lexer.unexpected("expected a valid start token", token)),
            }
        }
    }

    fn expect_linebreak(&mut self, expected: &str) -> Result<()> {
        match self.lexer.next_token() {
            Token::Linebreak => Ok(()),
            token => Err(self.lexer.unexpected(expected, token)),
        }
    }

    fn metadata(&mut self, word: Token) -> Result<Entry<'a>> {
        let got = self.lexer.next_token();
        if got != Token::MetricName {
            return Err(self.lexer.unexpected(&format!("expected metric name after {}", word.as_str()), got));
        }
        let name = self.name(self.lexer.token())?;
        let got = self.lexer.next_token();
        if got != Token::Text {
            let (word, got) = (word.as_str(), got.as_str());
            return Err(Error::Syntax(format!("expected text in {word}, got {got}")));
        }
        // The blank in front is not part of the text, nor the line feed that OpenMetrics's token includes.
        let is_open_metrics = self.lexer.dialect() == Dialect::OpenMetrics;
        let token = self.lexer.token();
        let text = token.strip_suffix(b"\n").unwrap_or(token).get(1..).unwrap_or_default();
        let entry = match word {
            Token::Type => {
                self.kind = metric_type(text, is_open_metrics)?;
                Entry::Type { name, kind: self.kind }
            }
            Token::Help => {
                let help = utf8(text, |quoted| format!("help text {quoted} is not a valid utf8 string"))?;
                let help = if is_open_metrics { unescape(help) } else { unescape_help(help) };
                Entry::Help { name, help }
            }
            _ => {
                let unit = utf8(text, |quoted| format!("unit {quoted} is not a valid utf8 string"))?;
                let is_suffix = name.strip_suffix(unit).is_some_and(|stem| stem.ends_with('_'));
                if !unit.is_empty() && !is_suffix {
                    let (unit, name) = (Quoted(unit), Quoted(&name));
                    return Err(Error::Syntax(format!("unit {unit} not a suffix of metric {name}")));
                }
                Entry::Unit { name, unit: Cow::Borrowed(unit) }
            }
        };
        if !is_open_metrics {
            self.expect_linebreak("linebreak expected after metadata")?;
        }
        Ok(entry)
    }

    /// A name in a metadata line, in quotes or not.
    fn name(&self, token: &'a [u8]) -> Result<Cow<'a, str>> {
        let bare = token.strip_prefix(b"\"").and_then(|t| t.strip_suffix(b"\"")).unwrap_or(token);
        let text = utf8(bare, |quoted| format!("metric name {quoted} is not a valid utf8 string"))?;
        Ok(unescape(text))
    }

    /// Reads a sample behind its name (which ends at `name_end`) or behind its opening brace.
    fn sample(&mut self, name_end: Option<usize>) -> Result<Entry<'a>> {
        let start = self.lexer.token_start();
        let (end, token) = match name_end {
            None => {
                self.labels(LabelsOf::Unnamed)?;
                (self.lexer.token_end(), self.lexer.next_token())
            }
            Some(name_end) => match self.lexer.next_token() {
                Token::BraceOpen => {
                    self.labels(LabelsOf::Named)?;
                    (self.lexer.token_end(), self.lexer.next_token())
                }
                token => (name_end, token),
            },
        };
        let text = self.lexer.slice(start, end);
        let text = utf8(text, |quoted| format!("invalid UTF-8 label value: {quoted}"))?;
        let series = Series::new(text, self.kind);
        let value = self.float(token, "metric")?;
        let (timestamp, exemplar) = match self.lexer.dialect() {
            Dialect::Text => (self.text_timestamp()?, None),
            Dialect::OpenMetrics => self.open_metrics_tail()?,
        };
        Ok(Entry::Sample(Sample { series, value, timestamp, exemplar }))
    }

    /// Checks what stands between braces, up to and with the closing one.
    fn labels(&mut self, of: LabelsOf) -> Result<()> {
        let mut has_name = of != LabelsOf::Unnamed;
        let mut token = self.lexer.next_token();
        loop {
            match token {
                Token::BraceClose => break,
                Token::LabelName | Token::QuotedString => {}
                _ => return Err(self.lexer.unexpected("expected label name", token)),
            }
            let is_quoted = token == Token::QuotedString;
            token = self.lexer.next_token();
            if is_quoted && matches!(token, Token::Comma | Token::BraceClose) {
                // A quoted string by itself is the metric's name.
                if of == LabelsOf::Exemplar {
                    return Err(self.lexer.unexpected("expected label name", token));
                }
                if has_name {
                    let so_far = self.lexer.entry_so_far();
                    return Err(Error::Syntax(format!(
                        "metric name already set while parsing: {}",
                        Quoted(&so_far)
                    )));
                }
                has_name = true;
                if token == Token::BraceClose {
                    break;
                }
                token = self.lexer.next_token();
                continue;
            }
            if token != Token::Equal {
                return Err(self.lexer.unexpected("expected equal", token));
            }
            token = self.lexer.next_token();
            if token != Token::LabelValue {
                return Err(self.lexer.unexpected("expected label value", token));
            }
            utf8(self.lexer.token(), |quoted| format!("invalid UTF-8 label value: {quoted}"))?;
            token = self.lexer.next_token();
            if token == Token::Comma {
                token = self.lexer.next_token();
            } else if token != Token::BraceClose && self.lexer.dialect() == Dialect::OpenMetrics {
                // The text format lets commas be left out altogether.
                return Err(self.lexer.unexpected("expected comma or brace close", token));
            }
        }
        if !has_name {
            let so_far = self.lexer.entry_so_far();
            return Err(Error::Syntax(format!("metric name not set while parsing: {}", Quoted(&so_far))));
        }
        Ok(())
    }

    fn float(&self, token: Token, after: &str) -> Result<f64> {
        if token != Token::Value {
            return Err(self.lexer.unexpected(&format!("expected value after {after}"), token));
        }
        number::float(self.number_text()).map_err(|message| self.number_error(message))
    }

    /// The current token without the space that OpenMetrics's tokens start with.
    fn number_text(&self) -> &'a [u8] {
        let token = self.lexer.token();
        match self.lexer.dialect() {
            Dialect::Text => token,
            Dialect::OpenMetrics => token.strip_prefix(b" ").unwrap_or(token),
        }
    }

    fn number_error(&self, message: String) -> Error {
        Error::Number { message, parsing: self.lexer.entry_so_far() }
    }

    fn text_timestamp(&mut self) -> Result<Option<Timestamp>> {
        match self.lexer.next_token() {
            Token::Linebreak => Ok(None),
            Token::Timestamp => {
                let ms = number::integer(self.number_text()).map_err(|m| self.number_error(m))?;
                self.expect_linebreak("expected next entry after timestamp")?;
                Ok(Some(Timestamp(ms)))
            }
            token => Err(self.lexer.unexpected("expected timestamp or new record", token)),
        }
    }

    fn open_metrics_tail(&mut self) -> Result<(Option<Timestamp>, Option<ExemplarRef<'a>>)> {
        match self.lexer.next_token() {
            Token::Eof => Err(Error::MissingEof),
            Token::Linebreak => Ok((None, None)),
            Token::Comment => Ok((None, Some(self.exemplar()?))),
            Token::Timestamp => {
                let timestamp = self.seconds("timestamp")?;
                match self.lexer.next_token() {
                    Token::Eof => Err(Error::MissingEof),
                    Token::Linebreak => Ok((Some(timestamp), None)),
                    Token::Comment => Ok((Some(timestamp), Some(self.exemplar()?))),
                    token => Err(self.lexer.unexpected("expected next entry after timestamp", token)),
                }
            }
            token => Err(self.lexer.unexpected("expected timestamp or # symbol", token)),
        }
    }

    /// Reads a time in seconds; digits below a millisecond are cut off.
    fn seconds(&self, what: &str) -> Result<Timestamp> {
        let seconds = number::float(self.number_text()).map_err(|m| self.number_error(m))?;
        if !seconds.is_finite() {
            let text = model::number::format_fixed(seconds);
            return Err(Error::Syntax(format!("invalid {what} {text}")));
        }
        #[expect(clippy::cast_possible_truncation, reason = "cuts off, and stays within the range")]
        Ok(Timestamp((seconds * 1000.0) as i64))
    }

    fn exemplar(&mut self) -> Result<ExemplarRef<'a>> {
        let start = self.lexer.token_end();
        self.labels(LabelsOf::Exemplar)?;
        let text = self.lexer.slice(start, self.lexer.token_end());
        let text = utf8(text, |quoted| format!("invalid UTF-8 label value: {quoted}"))?;
        let token = self.lexer.next_token();
        let value = self.float(token, "exemplar labels")?;
        let timestamp = match self.lexer.next_token() {
            Token::Eof => return Err(Error::MissingEof),
            Token::Linebreak => None,
            Token::Timestamp => {
                let timestamp = self.seconds("exemplar timestamp")?;
                self.expect_linebreak("expected next entry after exemplar timestamp")?;
                Some(timestamp)
            }
            token => return Err(self.lexer.unexpected("expected timestamp or comment", token)),
        };
        Ok(ExemplarRef { text, value, timestamp })
    }
}

/// Whose labels stand between the braces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LabelsOf {
    /// A series whose name stands in front.
    Named,
    /// A series whose name must be among them.
    Unnamed,
    /// An exemplar, which has no name.
    Exemplar,
}

fn utf8(bytes: &[u8], message: impl FnOnce(Quoted<'_>) -> String) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| Error::Syntax(message(Quoted(&Lexer::excerpt(bytes)))))
}

fn metric_type(text: &[u8], is_open_metrics: bool) -> Result<MetricType> {
    Ok(match text {
        b"counter" => MetricType::Counter,
        b"gauge" => MetricType::Gauge,
        b"histogram" => MetricType::Histogram,
        b"summary" => MetricType::Summary,
        b"untyped" if !is_open_metrics => MetricType::Unknown,
        b"unknown" if is_open_metrics => MetricType::Unknown,
        b"gaugehistogram" if is_open_metrics => MetricType::GaugeHistogram,
        b"info" if is_open_metrics => MetricType::Info,
        b"stateset" if is_open_metrics => MetricType::StateSet,
        _ => {
            let text = Lexer::excerpt(text);
            return Err(Error::Syntax(format!("invalid metric type {}", Quoted(&text))));
        }
    })
}
