//! Series descriptions: the label set and values of one series in Prometheus's test language, as in
//! `http_requests{job="api"} 0+10x10 _ stale {{schema:1 count:2}}`.
//!
//! The labels are read by the parser of expressions, the values by a cursor of their own: an `x` in them repeats, and
//! white space matters. Invariant: a text stands for at most [`SEQUENCE_VALUES_MAX`] values, however it is written.

mod histogram;

use std::sync::Arc;

use model::number::Quoted;
use model::{FloatHistogram, Labels};

use crate::ast::Span;
use crate::error::{ParseError, ParseErrors, Result};
use crate::lexer::{is_alpha, is_space};
use crate::literal::{parse_number, quote_char};
use crate::parser::{Options, Parser};

/// How many values one description may stand for.
pub const SEQUENCE_VALUES_MAX: usize = 1_000_000;

/// What stands at one position of a sequence.
#[derive(Debug, Clone, PartialEq)]
pub enum SequenceValue {
    /// No sample.
    Omitted,
    /// A float; the staleness marker is one of them.
    Float(f64),
    /// A histogram.
    Histogram(HistogramLiteral),
    /// The histogram of the position before plus this one; adding is not this crate's trade.
    Plus(HistogramLiteral),
    /// The histogram of the position before minus this one.
    Minus(HistogramLiteral),
}

/// A histogram as it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramLiteral {
    /// The histogram, unchecked: the count need not fit the buckets.
    pub histogram: Arc<FloatHistogram>,
    /// Whether `counter_reset_hint` was written, so that a comparison has to look at it.
    pub hint_is_set: bool,
}

/// Parses labels and values of one series.
///
/// # Errors
/// The first thing found wrong with the text.
pub fn parse_series_description(text: &str) -> Result<(Labels, Vec<SequenceValue>)> {
    let mut parser = Parser::new(text, Options::all())?;
    let labels = parser.labels();
    let end = parser.position();
    let labels = parser.finish(labels)?;
    let mut cursor = Cursor { text, pos: end };
    let values = cursor.sequence(Cursor::value_item).map_err(|error| ParseErrors(vec![error]))?;
    Ok((labels, values))
}

/// Parses a line of start timestamps: `series@st _ -1m 0-30sx2`. Each is the distance in milliseconds from the sample
/// at the same position, or `None`. Returns `None` when the line is no such line but a series description.
///
/// # Errors
/// The first thing found wrong with the text.
pub fn parse_start_timestamps(text: &str) -> Result<Option<(Labels, Vec<Option<i64>>)>> {
    let series_end = text.find(is_space).unwrap_or(text.len());
    let Some(series) = text[..series_end].strip_suffix("@st") else { return Ok(None) };
    let (labels, _) = parse_series_description(series)?;
    let mut cursor = Cursor { text, pos: series_end };
    let times = cursor.sequence(Cursor::start_item).map_err(|error| ParseErrors(vec![error]))?;
    Ok(Some((labels, times)))
}

type Parse<T> = std::result::Result<T, ParseError>;

struct Cursor<'a> {
    text: &'a str,
    pos: usize,
}

impl<'a> Cursor<'a> {
    /// Reads items, each after white space, to the end of the text.
    fn sequence<T>(&mut self, item: fn(&mut Self, &mut Vec<T>) -> Parse<()>) -> Parse<Vec<T>> {
        let mut values = Vec::new();
        loop {
            let before = self.pos;
            self.take_while(is_space);
            if self.peek().is_none() {
                return Ok(values);
            }
            if self.pos == before {
                return self.unexpected("series values", "");
            }
            item(self, &mut values)?;
        }
    }

    fn value_item(&mut self, values: &mut Vec<SequenceValue>) -> Parse<()> {
        if self.rest().starts_with("{{") {
            return self.histogram_item(values);
        }
        if let Some(times) = self.omitted()? {
            return self.push_times(values, times, |_| SequenceValue::Omitted);
        }
        let first = self.series_value()?;
        let step = if matches!(self.peek(), Some('+' | '-')) { Some(self.signed_number()?) } else { None };
        let times = self.times(step.is_some())?;
        let mut next = first;
        // The value of the position before plus the step, so that rounding errors add up as in the reference.
        self.push_times(values, times, |_| {
            let value = next;
            next += step.unwrap_or(0.0);
            SequenceValue::Float(value)
        })
    }

    fn start_item(&mut self, values: &mut Vec<Option<i64>>) -> Parse<()> {
        if let Some(times) = self.omitted()? {
            return self.push_times(values, times, |_| None);
        }
        let first = self.signed_duration()?;
        let step = if matches!(self.peek(), Some('+' | '-')) { Some(self.signed_duration()?) } else { None };
        let times = self.times(step.is_some())?;
        let mut next = first;
        self.push_times(values, times, |_| {
            let value = next;
            next = next.saturating_add(step.unwrap_or(0));
            Some(value)
        })
    }

    /// Reads `_` or `_xN`; returns how many positions it omits.
    fn omitted(&mut self) -> Parse<Option<usize>> {
        if !self.accept('_') {
            return Ok(None);
        }
        Ok(Some(if self.accept('x') { self.repetition()? } else { 1 }))
    }

    /// Reads `xN` behind a value; returns how many positions the value takes. A value with a step needs it.
    fn times(&mut self, is_required: bool) -> Parse<usize> {
        if !is_required && self.peek() != Some('x') {
            return Ok(1);
        }
        self.expect('x')?;
        Ok(self.repetition()?.saturating_add(1))
    }

    /// Reads a duration with or without a sign, in milliseconds.
    fn signed_duration(&mut self) -> Parse<i64> {
        let is_negative = self.accept('-');
        if !is_negative {
            self.accept('+');
        }
        let start = self.pos;
        let text = self.take_while(|c| c != 'x' && (is_alpha(c) || c.is_ascii_digit()));
        match model::time::parse_duration(text) {
            Ok(duration) => {
                let ms = i64::try_from(duration.as_millis()).expect("durations fit 64-bit nanoseconds");
                Ok(if is_negative { -ms } else { ms })
            }
            Err(error) => self.error_at(start, error.to_string()),
        }
    }

    fn series_value(&mut self) -> Parse<f64> {
        if self.peek().is_some_and(is_alpha) {
            let start = self.pos;
            let word = self.take_while(|c| is_alpha(c) || c.is_ascii_digit());
            return match (word, parse_word(word)) {
                ("stale", _) => Ok(model::stale_nan()),
                (_, Some(x)) => Ok(x),
                _ => {
                    let message = format!(
                        "unexpected identifier {} in series values, expected number or \"stale\"",
                        Quoted(word)
                    );
                    self.error_at(start, message)
                }
            };
        }
        self.signed_number()
    }

    fn signed_number(&mut self) -> Parse<f64> {
        let sign = if self.accept('-') {
            -1.0
        } else {
            self.accept('+');
            1.0
        };
        Ok(sign * self.number()?)
    }

    /// Reads a number. An `x` behind it repeats it, so hexadecimals are told apart by their letters only.
    fn number(&mut self) -> Parse<f64> {
        let start = self.pos;
        if self.peek().is_some_and(is_alpha) {
            let word = self.take_while(is_alpha);
            return match parse_word(word) {
                Some(x) => Ok(x),
                None => self.error_at(start, format!("bad number syntax: {}", Quoted(word))),
            };
        }
        let is_hex_letter = |c: char| c.is_ascii_hexdigit() && !c.is_ascii_digit();
        if let Some(hex) = self.rest().strip_prefix("0x") {
            let digits = hex.len() - hex.trim_start_matches(|c: char| c.is_ascii_hexdigit()).len();
            if hex[..digits].contains(is_hex_letter) {
                self.pos += 2 + digits;
                return self.parsed_number(start);
            }
        }
        let is_digit = |c: char| c.is_ascii_digit() || c == '_' || c == '.';
        self.take_while(is_digit);
        if self.pos > start && matches!(self.peek(), Some('e' | 'E')) {
            self.pos += 1;
            if !self.accept('+') {
                self.accept('-');
            }
            self.take_while(is_digit);
        }
        if self.pos == start {
            return self.unexpected("series values", "");
        }
        self.parsed_number(start)
    }

    fn parsed_number(&self, start: usize) -> Parse<f64> {
        let text = &self.text[start..self.pos];
        match parse_number(text) {
            Ok(x) => Ok(x),
            Err(error) => self.error_at(start, format!("error parsing number: {error}")),
        }
    }

    fn repetition(&mut self) -> Parse<usize> {
        let start = self.pos;
        let digits = self.take_while(|c| c.is_ascii_digit());
        match digits.parse::<usize>() {
            Ok(times) => Ok(times),
            Err(error) => self.error_at(start, format!("invalid repetition in series values: {error}")),
        }
    }

    fn push_times<T>(&self, values: &mut Vec<T>, times: usize, value: impl FnMut(usize) -> T) -> Parse<()> {
        if times > SEQUENCE_VALUES_MAX - values.len() {
            return self.error_at(self.pos, format!("series has more than {SEQUENCE_VALUES_MAX} values"));
        }
        values.extend((0..times).map(value));
        Ok(())
    }

    fn rest(&self) -> &'a str {
        &self.text[self.pos..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn accept(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.pos += wanted.len_utf8();
        }
        found
    }

    fn expect(&mut self, wanted: char) -> Parse<()> {
        if self.accept(wanted) { Ok(()) } else { self.unexpected("series values", &format!("\"{wanted}\"")) }
    }

    fn take_while(&mut self, accept: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.len() - rest.trim_start_matches(accept).len();
        self.pos += end;
        &rest[..end]
    }

    fn unexpected<T>(&self, context: &str, expected: &str) -> Parse<T> {
        let found = match self.peek() {
            Some(c) => format!("character {}", quote_char(Some(c))),
            None => "end of input".to_owned(),
        };
        let expected = if expected.is_empty() { String::new() } else { format!(", expected {expected}") };
        self.error_at(self.pos, format!("unexpected {found} in {context}{expected}"))
    }

    fn error_at<T>(&self, start: usize, message: impl Into<String>) -> Parse<T> {
        Err(ParseError::new(self.text, Span::new(start, self.text.len()), message))
    }
}

fn parse_word(word: &str) -> Option<f64> {
    match word.to_ascii_lowercase().as_str() {
        "inf" => Some(f64::INFINITY),
        "nan" => Some(model::number::canonical_nan()),
        _ => None,
    }
}
