//! Templates of labels and annotations: the part of Go's `text/template` that Prometheus's rules use, with its
//! functions and its texts.
//!
//! What is left out of Go's language: complex numbers, hexadecimal floats, and methods of values (`toTime` gives a
//! time that prints, and nothing more).
//!
//! Invariants:
//! - an expansion is bounded: its nesting, its steps, its text, the templates it calls;
//! - parsing looks at the text alone; only `query` reaches anything, through a [`Context`].

mod exec;
mod format;
mod functions;
mod lexer;
mod literal;
mod parser;
mod tree;
mod value;

use std::collections::BTreeMap;
use std::sync::Arc;

use model::query::{PointValue, VectorElement};
use model::{Labels, Timestamp};

pub(crate) use functions::link;
pub(crate) use value::show_duration;

/// The longest text that an expansion, or one value in it, may have, in bytes.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// Defined before every text of a rule.
const PRELUDE: &str = "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}\
                       {{$externalURL := .ExternalURL}}{{$value := .Value}}";

/// What an expansion may ask for.
pub trait Context {
    /// Evaluates an expression at the time of the evaluation.
    ///
    /// # Errors
    /// What the query failed with.
    fn query(&mut self, expr: &str) -> Result<Vec<VectorElement>, String>;

    /// Returns the time of the evaluation.
    fn now(&self) -> Timestamp;

    /// Returns the URL under which users reach the server; empty when there is none.
    fn external_url(&self) -> &str;
}

/// A text of an alerting rule, ready to be expanded.
#[derive(Debug, Clone)]
pub struct Template {
    name: String,
    source: String,
    /// `None` for a text without an action, which stands for itself.
    templates: Option<parser::Templates>,
}

/// What an alert's texts are expanded with.
#[derive(Debug, Clone)]
pub struct AlertData(Arc<value::Alert>);

impl AlertData {
    /// Makes it of an element of the rule's result; `labels` hold the metric name.
    #[must_use]
    pub fn new(labels: &Labels, external_labels: &Labels, external_url: &str, value: &PointValue) -> Self {
        let value = match value {
            PointValue::Float(x) => value::Value::Float(*x),
            PointValue::Histogram(histogram) => value::Value::text(promql_engine::histogram::text(histogram)),
        };
        Self(Arc::new(value::Alert {
            labels: value::Value::Labels(Arc::new(label_map(labels))),
            external_labels: value::Value::Labels(Arc::new(label_map(external_labels))),
            external_url: value::Value::text(external_url),
            value,
        }))
    }
}

fn label_map(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

impl Template {
    /// Parses a text of the alerting rule `alert`.
    ///
    /// # Errors
    /// In Go's words: `template: __alert_a:1: undefined variable "$x"`.
    pub fn parse(alert: &str, text: &str) -> Result<Self, String> {
        let name = format!("__alert_{alert}");
        if text.len() > TEXT_BYTES_MAX {
            return Err(format!("template: {name}: text of more than {TEXT_BYTES_MAX} bytes"));
        }
        if !text.contains("{{") {
            return Ok(Self { name, source: text.to_owned(), templates: None });
        }
        let source = format!("{PRELUDE}{text}");
        let templates = parser::parse(&name, &source)?;
        Ok(Self { name, source, templates: Some(templates) })
    }

    /// Expands the text.
    ///
    /// # Errors
    /// In Go's words, with where in the text: `error executing template __alert_a: template: __alert_a:1:112: ...`.
    pub fn expand(&self, data: &AlertData, context: &mut dyn Context) -> Result<String, String> {
        let Some(templates) = &self.templates else { return Ok(self.source.clone()) };
        exec::run(&self.name, &self.source, templates, Arc::clone(&data.0), context)
            .map_err(|error| format!("error executing template {}: {error}", self.name))
    }
}

#[cfg(test)]
mod tests;
