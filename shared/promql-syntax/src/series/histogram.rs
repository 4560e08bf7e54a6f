//! Native histogram literals: `{{schema:1 count:2 buckets:[1 1]}}`.

use std::sync::Arc;

use model::number::Quoted;
use model::{CounterResetHint, FloatHistogram};

use super::{Cursor, HistogramLiteral, Parse, SequenceValue};
use crate::lexer::{is_alpha, is_space};
use crate::literal::quote_char;

impl<'a> Cursor<'a> {
    pub(super) fn histogram_item(&mut self, values: &mut Vec<SequenceValue>) -> Parse<()> {
        let start = self.pos;
        let first = self.histogram()?;
        let (step, subtract) = match self.peek() {
            Some(sign @ ('+' | '-')) => {
                self.pos += 1;
                (Some(self.histogram()?), sign == '-')
            }
            _ => (None, false),
        };
        if let Some(step) = &step
            && first.histogram.schema > step.histogram.schema
        {
            let message = format!(
                "error combining histograms: cannot merge from schema {} to {}",
                step.histogram.schema, first.histogram.schema
            );
            return self.error_at(start, message);
        }
        let times = self.times(step.is_some())?;
        self.push_times(values, times, |i| match &step {
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
