//! Samples that do not borrow from a body.

use model::{Exemplar, Timestamp, Value};

use crate::escaping::write_escaped;
use crate::parse::Series;

/// A sample that does not borrow from a body: one of a protobuf body, or a histogram made of classic series.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnedSample {
    /// The series as the text format would have it, all names quoted.
    pub(crate) text: String,
    /// The value; every NaN of a float is the canonical one.
    pub value: Value,
    /// The exposed time; `None` where the time of the scrape is meant.
    pub timestamp: Option<Timestamp>,
    /// Exemplars; those of native histograms without a time are left out.
    pub exemplars: Vec<Exemplar>,
}

impl OwnedSample {
    /// Makes a sample of a metric name and labels.
    pub(crate) fn new<N: AsRef<str>, V: AsRef<str>>(
        name: [&str; 2],
        labels: impl IntoIterator<Item = (N, V)>,
        value: Value,
        timestamp: Option<Timestamp>,
    ) -> Self {
        let mut text = Vec::with_capacity(64);
        text.extend_from_slice(b"{\"");
        name.iter().for_each(|part| write_escaped(&mut text, part));
        text.push(b'"');
        for (name, value) in labels {
            text.extend_from_slice(b",\"");
            write_escaped(&mut text, name.as_ref());
            text.extend_from_slice(b"\"=\"");
            write_escaped(&mut text, value.as_ref());
            text.push(b'"');
        }
        text.push(b'}');
        let text = String::from_utf8(text).expect("made of texts");
        Self { text, value, timestamp, exemplars: Vec::new() }
    }

    /// Name and labels.
    #[must_use]
    pub fn series(&self) -> Series<'_> {
        Series::new(&self.text, model::MetricType::Unknown)
    }
}
