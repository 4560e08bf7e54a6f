//! What `/federate` answers: negotiation and the two formats.
//!
//! An [`Encoder`] takes series in order of their metric names, the newest sample of each, batch by batch, and appends to
//! a buffer that the caller sends on whenever it likes; nothing is kept but the family that is open. Each label of a
//! batch is put into the answer's form once, by [`Encoder::prepare`].
//!
//! Invariants, all as in Prometheus's `web/federate.go`:
//! - floats are always `untyped`; no help, unit, exemplar or start time is written, and no `# EOF`;
//! - the labels of a series come first, then those external labels that it lacks, among them `instance=""`;
//! - exponential histograms exist in protobuf alone; custom-bucket histograms are written as classic ones;
//! - a name whose samples are of several kinds gives several families in a row.
//!
//! [`Encoder::typed`] departs from the first: families then have the types that are known.

mod kind;
mod message;
mod negotiate;
mod text;

use model::labels::{INSTANCE, METRIC_NAME};
use model::{FloatHistogram, Labels, LastSamples, Value};
pub use negotiate::{Negotiated, WireFormat};

use kind::Kind;

/// Writes series in the negotiated format.
#[derive(Debug)]
pub struct Encoder {
    negotiated: Negotiated,
    is_typed: bool,
    /// Sorted by name; `instance` is always there, if need be with an empty value.
    external: Vec<External>,
    family: Family,
    messages: message::Writer,
    text: text::Writer,
}

#[derive(Debug)]
struct External {
    name: String,
    /// The label in the answer's form.
    form: Vec<u8>,
    /// Whether the series at hand has a label of this name.
    is_there: bool,
}

/// The family that is open: its unescaped name and what its samples are.
#[derive(Debug, PartialEq, Eq)]
struct Family {
    name: String,
    kind: Kind,
}

/// The labels of a batch in the form of an answer.
#[derive(Debug, Default)]
pub struct Prepared {
    forms: Vec<u8>,
    labels: Vec<Label>,
}

#[derive(Debug)]
struct Label {
    /// Where its form ends.
    end: usize,
    role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    MetricName,
    /// By number, the external label that it keeps away.
    External(usize),
    Other,
}

impl Prepared {
    fn form(&self, label: u32) -> (&[u8], Role) {
        let label = label as usize;
        let start = label.checked_sub(1).map_or(0, |before| self.labels[before].end);
        let Label { end, role } = self.labels[label];
        (&self.forms[start..end], role)
    }
}

impl Encoder {
    /// Makes an encoder for one answer.
    #[must_use]
    pub fn new(negotiated: Negotiated, external_labels: &Labels) -> Self {
        let mut external: Vec<(&str, &str)> = external_labels.iter().collect();
        // Without it the scraper would put its own instance label on series that have none.
        if !external_labels.has(INSTANCE) {
            external.push((INSTANCE, ""));
            external.sort_unstable();
        }
        let external = external.into_iter().map(|(name, value)| {
            let mut form = Vec::new();
            write_label(negotiated, name, value, &mut form);
            External { name: name.to_owned(), form, is_there: false }
        });
        Self {
            negotiated,
            is_typed: false,
            external: external.collect(),
            // No series has the empty name, so that the first one opens a family.
            family: Family { name: String::new(), kind: Kind::Untyped },
            messages: message::Writer::default(),
            text: text::Writer::default(),
        }
    }

    /// Sets whether families have the types that are known, where Prometheus says `untyped`.
    ///
    /// The type is that of the first series of a name. What makes up a classic histogram or a summary is announced by
    /// the name they share in text, and stays untyped in protobuf.
    #[must_use]
    pub fn typed(mut self, is_typed: bool) -> Self {
        self.is_typed = is_typed;
        self
    }

    /// Puts the labels of a batch into the answer's form.
    #[must_use]
    pub fn prepare(&self, samples: &LastSamples) -> Prepared {
        let (mut forms, mut labels) = (Vec::new(), Vec::new());
        for (name, value) in samples.pairs() {
            let role = match self.external.iter().position(|external| external.name == name) {
                _ if name == METRIC_NAME => Role::MetricName,
                Some(number) => Role::External(number),
                None => Role::Other,
            };
            if role != Role::MetricName {
                write_label(self.negotiated, name, value, &mut forms);
            }
            labels.push(Label { end: forms.len(), role });
        }
        Prepared { forms, labels }
    }

    /// Appends one series of a batch with its newest sample.
    ///
    /// Left out are staleness markers, series without a name, and exponential histograms in text. In protobuf a
    /// family is held back until it is complete or large.
    pub fn encode(&mut self, samples: &LastSamples, prepared: &Prepared, series: usize, out: &mut Vec<u8>) {
        let (name, value) = (samples.metric_name(series), samples.value(series));
        if name.is_empty() || value.is_stale() {
            return;
        }
        let is_text = self.negotiated.format == WireFormat::Text;
        let histogram = match &value {
            Value::Float(_) => None,
            Value::Histogram(histogram) => Some(histogram.to_float()),
        };
        if is_text && histogram.as_ref().is_some_and(|h| !h.uses_custom_buckets()) {
            return;
        }
        if self.family.name != name || !self.family.kind.takes(histogram.as_ref()) {
            let known = if self.is_typed { samples.metric_type(series) } else { model::MetricType::Unknown };
            let kind = Kind::of(histogram.as_ref(), known);
            let escaped = self.negotiated.escaping.escape(name);
            if is_text {
                self.text.open(&escaped, kind, out);
            } else {
                self.messages.open(&escaped, kind, out);
            }
            name.clone_into(&mut self.family.name);
            self.family.kind = kind;
        }
        let timestamp = samples.timestamp(series);
        let labels = |out: &mut Vec<u8>| append_labels(&mut self.external, samples, prepared, series, out);
        match (&value, &histogram) {
            (Value::Float(x), _) if is_text => self.text.write_float(labels, *x, timestamp, out),
            (Value::Float(x), _) => self.messages.push_float(labels, *x, timestamp, out),
            (_, Some(h)) if is_text => self.text.write_histogram(labels, h, timestamp, out),
            (_, Some(h)) => self.messages.push_histogram(labels, h, timestamp, out),
            (Value::Histogram(_), None) => {}
        }
    }

    /// Appends what was held back; the answer is complete.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.messages.close(out);
    }
}

/// Appends a label in the answer's form.
fn write_label(negotiated: Negotiated, name: &str, value: &str, out: &mut Vec<u8>) {
    let name = negotiated.escaping.escape(name);
    match negotiated.format {
        WireFormat::Text => text::write_label(&name, value, out),
        WireFormat::Protobuf => message::write_label(&name, value, out),
    }
}

/// Appends the labels of a series: its own without the name, then the external ones it lacks.
fn append_labels(
    external: &mut [External],
    samples: &LastSamples,
    prepared: &Prepared,
    series: usize,
    out: &mut Vec<u8>,
) {
    for label in samples.labels_of(series) {
        let (form, role) = prepared.form(*label);
        out.extend_from_slice(form);
        if let Role::External(number) = role {
            external[number].is_there = true;
        }
    }
    for external in external {
        if !std::mem::take(&mut external.is_there) {
            out.extend_from_slice(&external.form);
        }
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
