//! Series descriptions: the label set and values of one series in Prometheus's test language, as in
//! `http_requests{job="api"} 0+10x10 _ stale {{schema:1 count:2}}`.

use std::sync::Arc;

use model::number::Quoted;
use model::{CounterResetHint, FloatHistogram, Labels};

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
    let mut cursor = Cursor { text, pos: end, values: Vec::new() };
    match cursor.sequence() {
        Ok(()) => Ok((labels, cursor.values)),
        Err(error) => Err(ParseErrors(vec![error])),
    }
}

type Parse<T> = std::result::Result<T, ParseError>;

struct Cursor<'a> {
    text: &'a str,
    pos: usize,
    values: Vec<SequenceValue>,
}

impl<'a> Cursor<'a> {
    fn sequence(&mut self) -> Parse<()> {
        loop {
            let before = self.pos;
            self.take_while(is_space);
            if self.peek().is_none() {
                return Ok(());
            }
            if self.pos == before {
                return self.unexpected("series values", "");
            }
            self.item()?;
        }
    }

    fn item(&mut self) -> Parse<()> {
        if self.rest().starts_with("{{") {
            return self.histogram_item();
        }
        if self.accept('_') {
            let times = if self.accept('x') { self.repetition()? } else { 1 };
            return self.push_times(times, |_| SequenceValue::Omitted);
        }
        let first = self.series_value()?;
        let step = if matches!(self.peek(), Some('+' | '-')) { Some(self.signed_number()?) } else { None };
        if step.is_none() && self.peek() != Some('x') {
            return self.push_times(1, |_| SequenceValue::Float(first));
        }
        self.expect('x')?;
        let times = self.repetition()?;
        let mut next = first;
        // The value of the position before plus the step, so that rounding errors add up as in the reference.
        self.push_times(times.saturating_add(1), |_| {
            let value = next;
            next += step.unwrap_or(0.0);
            SequenceValue::Float(value)
        })
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

    fn push_times(&mut self, times: usize, mut value: impl FnMut(usize) -> SequenceValue) -> Parse<()> {
        if times > SEQUENCE_VALUES_MAX - self.values.len() {
            let message = format!("series has more than {SEQUENCE_VALUES_MAX} values");
            return self.error_at(self.pos, message);
        }
        self.values.extend((0..times).map(&mut value));
        Ok(())
    }

    fn histogram_item(&mut self) -> Parse<()> {
        let start = self.pos;
        let first = self.histogram()?;
        let (step, subtract) = match self.peek() {
            Some(sign @ ('+' | '-')) => {
                self.pos += 1;
                (Some(self.histogram()?), sign == '-')
            }
            _ => (None, false),
        };
        if step.is_none() && self.peek() != Some('x') {
            return self.push_times(1, |_| SequenceValue::Histogram(first.clone()));
        }
        if let Some(step) = &step
            && first.histogram.schema > step.histogram.schema
        {
            let message = format!(
                "error combining histograms: cannot merge from schema {} to {}",
                step.histogram.schema, first.histogram.schema
            );
            return self.error_at(start, message);
        }
        self.expect('x')?;
        let times = self.repetition()?;
        self.push_times(times.saturating_add(1), |i| match &step {
            Some(step) if i > 0 && subtract => SequenceValue::Minus(step.clone()),
            Some(step) if i > 0 => SequenceValue::Plus(step.clone()),
            _ => SequenceValue::Histogram(first.clone()),
        })
    }

    /// Reads `{{key:value ...}}`.
    fn histogram(&mut self) -> Parse<HistogramLiteral> {
        self.expect('{')?;
        self.expect('{')?;
        let mut draft = Draft::default();
        loop {
            self.take_while(is_space);
            if self.rest().starts_with("}}") {
                self.pos += 2;
                return Ok(draft.finish());
            }
            self.descriptor(&mut draft)?;
        }
    }

    fn descriptor(&mut self, draft: &mut Draft<'a>) -> Parse<()> {
        let start = self.pos;
        let key = self.take_while(is_alpha);
        if !KEYS.contains(&key) {
            let message = match self.peek() {
                c if key.is_empty() => {
                    format!("histogram description incomplete unexpected: {}", quote_char(c))
                }
                _ => format!("bad histogram descriptor found: {}", Quoted(key)),
            };
            return self.error_at(start, message);
        }
        if !self.accept(':') {
            return self.error_at(start, "missing `:` for histogram descriptor");
        }
        if draft.seen.contains(&key) {
            return self.error_at(start, format!("duplicate key \"{key}\" in histogram"));
        }
        draft.seen.push(key);
        let h = &mut draft.histogram;
        match key {
            "schema" => h.schema = self.integer()?,
            "offset" => draft.offset = self.integer()?,
            "n_offset" => draft.negative_offset = self.integer()?,
            "sum" => h.sum = self.signed_number()?,
            "count" => h.count = self.signed_number()?,
            "z_bucket" => h.zero_count = self.signed_number()?,
            "z_bucket_w" => h.zero_threshold = self.number()?,
            "custom_values" => h.custom_values = Arc::from(self.bucket_set()?),
            "buckets" => h.positive_buckets = self.bucket_set()?,
            "n_buckets" => h.negative_buckets = self.bucket_set()?,
            _ => h.counter_reset_hint = self.hint()?,
        }
        Ok(())
    }

    fn integer(&mut self) -> Parse<i32> {
        let start = self.pos;
        self.accept('-');
        self.take_while(|c| c.is_ascii_digit());
        match self.text[start..self.pos].parse() {
            Ok(value) => Ok(value),
            Err(_) => self.unexpected("histogram description", "integer"),
        }
    }

    fn bucket_set(&mut self) -> Parse<Vec<f64>> {
        self.expect('[')?;
        let mut values = Vec::new();
        loop {
            self.take_while(is_space);
            if self.accept(']') {
                return Ok(values);
            }
            values.push(self.signed_number()?);
        }
    }

    fn hint(&mut self) -> Parse<CounterResetHint> {
        let start = self.pos;
        match self.take_while(is_alpha) {
            "unknown" => Ok(CounterResetHint::Unknown),
            "reset" => Ok(CounterResetHint::Reset),
            "not_reset" => Ok(CounterResetHint::NotReset),
            "gauge" => Ok(CounterResetHint::Gauge),
            word => self
                .error_at(start, format!("error parsing counter_reset_hint: unknown value {}", Quoted(word))),
        }
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

const KEYS: [&str; 11] = [
    "schema",
    "offset",
    "n_offset",
    "sum",
    "count",
    "z_bucket",
    "z_bucket_w",
    "custom_values",
    "buckets",
    "n_buckets",
    "counter_reset_hint",
];

/// A histogram being read.
#[derive(Default)]
struct Draft<'a> {
    histogram: FloatHistogram,
    offset: i32,
    negative_offset: i32,
    seen: Vec<&'a str>,
}

impl Draft<'_> {
    fn finish(self) -> HistogramLiteral {
        let mut histogram = self.histogram;
        histogram.positive_spans = one_span(self.offset, histogram.positive_buckets.len());
        histogram.negative_spans = one_span(self.negative_offset, histogram.negative_buckets.len());
        let hint_is_set = self.seen.contains(&"counter_reset_hint");
        HistogramLiteral { histogram: Arc::new(histogram), hint_is_set }
    }
}

fn one_span(offset: i32, count: usize) -> Vec<model::Span> {
    let length = u32::try_from(count).expect("the text is shorter than 4 GiB");
    if length == 0 { Vec::new() } else { vec![model::Span { offset, length }] }
}

fn parse_word(word: &str) -> Option<f64> {
    match word.to_ascii_lowercase().as_str() {
        "inf" => Some(f64::INFINITY),
        "nan" => Some(model::number::canonical_nan()),
        _ => None,
    }
}
