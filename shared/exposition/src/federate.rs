//! What `/federate` answers: negotiation and the two formats.
//!
//! An [`Encoder`] takes series in order of their metric names, the newest sample of each, and appends to a buffer that
//! the caller sends on whenever it likes; nothing is kept but the family that is open.
//!
//! Invariants, all as in Prometheus's `web/federate.go`:
//! - floats are always `untyped`; no help, unit, exemplar or start time is written, and no `# EOF`;
//! - the labels of a series come first, then those external labels that it lacks, among them `instance=""`;
//! - exponential histograms exist in protobuf alone; custom-bucket histograms are written as classic ones;
//! - a name whose samples are of several kinds gives several families in a row.

mod message;
mod negotiate;
mod text;

use model::labels::{INSTANCE, METRIC_NAME};
use model::{CounterResetHint, FloatHistogram, Labels, Timestamp, Value};
pub use negotiate::{Negotiated, WireFormat};

/// Writes series in the negotiated format.
#[derive(Debug)]
pub struct Encoder {
    negotiated: Negotiated,
    /// Sorted by name; `instance` is always there, if need be with an empty value.
    external_labels: Vec<(String, String)>,
    family: Option<Family>,
    messages: message::Writer,
}

/// The family that is open: its unescaped name and what its samples are.
#[derive(Debug, PartialEq, Eq)]
struct Family {
    name: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Untyped,
    Histogram,
    GaugeHistogram,
}

/// One sample on its way out.
#[derive(Debug, Clone, Copy)]
struct Item<'a> {
    name: &'a str,
    labels: &'a Labels,
    external_labels: &'a [(String, String)],
    timestamp: Timestamp,
}

impl Item<'_> {
    /// The labels to write, without the name: the series' own, then the external ones it lacks.
    fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let own = self.labels.iter().filter(|(name, _)| *name != METRIC_NAME);
        let external = self.external_labels.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        own.chain(external.filter(|(name, _)| !self.labels.has(name)))
    }
}

impl Encoder {
    /// Makes an encoder for one answer.
    #[must_use]
    pub fn new(negotiated: Negotiated, external_labels: &Labels) -> Self {
        let mut external: Vec<(String, String)> =
            external_labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        // Without it the scraper would put its own instance label on series that have none.
        if !external_labels.has(INSTANCE) {
            external.push((INSTANCE.to_owned(), String::new()));
            external.sort();
        }
        Self { negotiated, external_labels: external, family: None, messages: message::Writer::default() }
    }

    /// Appends one series with its newest sample.
    ///
    /// Left out are staleness markers, series without a name, and exponential histograms in text. In protobuf a
    /// family is held back until it is complete or large.
    pub fn encode(&mut self, labels: &Labels, timestamp: Timestamp, value: &Value, out: &mut Vec<u8>) {
        let name = labels.metric_name();
        if name.is_empty() || value.is_stale() {
            return;
        }
        let is_text = self.negotiated.format == WireFormat::Text;
        let histogram = match value {
            Value::Float(_) => None,
            Value::Histogram(histogram) => Some(histogram.to_float()),
        };
        if is_text && histogram.as_ref().is_some_and(|h| !h.uses_custom_buckets()) {
            return;
        }
        let kind = match &histogram {
            None => Kind::Untyped,
            Some(h) if h.counter_reset_hint == CounterResetHint::Gauge => Kind::GaugeHistogram,
            Some(_) => Kind::Histogram,
        };
        let escaping = self.negotiated.escaping;
        if self.family.as_ref().is_none_or(|f| f.name != name || f.kind != kind) {
            if is_text {
                text::write_type(out, &escaping.escape(name), kind);
            } else {
                self.messages.open(&escaping.escape(name), kind, out);
            }
            self.family = Some(Family { name: name.to_owned(), kind });
        }
        let item = Item { name, labels, external_labels: &self.external_labels, timestamp };
        match (value, &histogram) {
            (Value::Float(x), _) if is_text => text::write_float(out, item, escaping, *x),
            (Value::Float(x), _) => self.messages.push_float(item, escaping, *x, out),
            (_, Some(h)) if is_text => text::write_histogram(out, item, escaping, h),
            (_, Some(h)) => self.messages.push_histogram(item, escaping, h, out),
            (Value::Histogram(_), None) => {}
        }
    }

    /// Appends what was held back; the answer is complete.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        self.messages.close(out);
    }
}

/// A custom-bucket histogram as classic buckets: each upper bound with everything at or below it, +Inf last.
fn classic_buckets(histogram: &FloatHistogram) -> impl Iterator<Item = (f64, f64)> {
    let mut populations = Vec::new();
    let mut index = 0_i64;
    let mut buckets = histogram.positive_buckets.iter();
    for span in &histogram.positive_spans {
        index += i64::from(span.offset);
        for population in buckets.by_ref().take(usize::try_from(span.length).unwrap_or(usize::MAX)) {
            populations.push((index, *population));
            index += 1;
        }
    }
    let mut populations = populations.into_iter().peekable();
    let mut cumulative = 0.0;
    let finite = histogram.custom_values.iter().zip(0_i64..).map(move |(bound, i)| {
        while let Some((_, population)) = populations.next_if(|(at, _)| *at <= i) {
            cumulative += population;
        }
        (*bound, cumulative)
    });
    finite.chain(std::iter::once((f64::INFINITY, histogram.count)))
}

#[cfg(test)]
mod tests;
