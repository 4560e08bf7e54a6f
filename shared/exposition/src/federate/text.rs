//! Prometheus text 0.0.4, byte for byte as `expfmt` of prometheus/common writes it.

use std::io::Write as _;

use model::FloatHistogram;
use model::labels::is_legacy_metric_name;
use model::number::{format_general, push_general};

use super::{Kind, classic_buckets};
use crate::escaping::write_escaped;

/// Writes the samples of the open family.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// The family's name, escaped.
    name: String,
    /// Whether the name stands in front of the braces.
    is_legacy: bool,
    /// What the last line with a type was about.
    announced: Option<(String, Kind)>,
    /// A time as text: most series of an answer were sampled when the one before was.
    time: (i64, Vec<u8>),
}

impl Writer {
    /// Begins a family.
    pub(super) fn open(&mut self, name: &str, kind: Kind, out: &mut Vec<u8>) {
        name.clone_into(&mut self.name);
        self.is_legacy = is_legacy_metric_name(name);
        let shared = kind.family_name(name);
        // The parts of a histogram or summary are one family.
        let is_announced = matches!(kind, Kind::ClassicHistogram | Kind::Summary)
            && self.announced.as_ref().is_some_and(|(name, of)| name == shared && *of == kind);
        if is_announced {
            return;
        }
        out.extend_from_slice(b"# TYPE ");
        write_name(out, shared);
        // The format has no word for a histogram whose counts go down.
        out.extend_from_slice(match kind {
            Kind::Untyped => b" untyped\n".as_slice(),
            Kind::Counter => b" counter\n",
            Kind::Gauge => b" gauge\n",
            Kind::Summary => b" summary\n",
            Kind::ClassicHistogram | Kind::Histogram | Kind::GaugeHistogram => b" histogram\n",
        });
        self.announced = Some((shared.to_owned(), kind));
    }

    /// Writes a float; `labels` appends those of its series, each as [`write_label`] does.
    pub(super) fn write_float(
        &mut self,
        labels: impl FnOnce(&mut Vec<u8>),
        value: f64,
        timestamp: i64,
        out: &mut Vec<u8>,
    ) {
        self.write_sample("", labels, value, timestamp, out);
    }

    /// Writes a histogram of custom buckets as a classic one.
    pub(super) fn write_histogram(
        &mut self,
        labels: impl FnOnce(&mut Vec<u8>),
        histogram: &FloatHistogram,
        timestamp: i64,
        out: &mut Vec<u8>,
    ) {
        let mut own = Vec::new();
        labels(&mut own);
        for (bound, count) in classic_buckets(histogram) {
            let with_bound = |out: &mut Vec<u8>| {
                out.extend_from_slice(&own);
                write_label("le", &format_general(positive_zero(bound)), out);
            };
            self.write_sample("_bucket", with_bound, count, timestamp, out);
        }
        let labels = |out: &mut Vec<u8>| out.extend_from_slice(&own);
        self.write_sample("_sum", labels, histogram.sum, timestamp, out);
        self.write_sample("_count", labels, histogram.count, timestamp, out);
    }

    fn write_sample(
        &mut self,
        suffix: &str,
        labels: impl FnOnce(&mut Vec<u8>),
        value: f64,
        timestamp: i64,
        out: &mut Vec<u8>,
    ) {
        if self.is_legacy {
            out.extend_from_slice(self.name.as_bytes());
            out.extend_from_slice(suffix.as_bytes());
        } else {
            out.extend_from_slice(b"{\"");
            write_escaped(out, &self.name);
            out.extend_from_slice(suffix.as_bytes());
            out.push(b'"');
        }
        let start = out.len();
        labels(out);
        if self.is_legacy && out.len() > start {
            // Labels come with a comma in front of each.
            out[start] = b'{';
        }
        if !self.is_legacy || out.len() > start {
            out.push(b'}');
        }
        out.push(b' ');
        push_general(out, positive_zero(value));
        out.push(b' ');
        if self.time.0 != timestamp || self.time.1.is_empty() {
            self.time.0 = timestamp;
            self.time.1.clear();
            write!(self.time.1, "{timestamp}").expect("a vector grows as needed");
        }
        out.extend_from_slice(&self.time.1);
        out.push(b'\n');
    }
}

/// The reference has a shortcut for zero, which takes negative zero along.
fn positive_zero(value: f64) -> f64 {
    if value == 0.0 { 0.0 } else { value }
}

/// Appends a label by its escaped name, with a comma in front.
pub(super) fn write_label(name: &str, value: &str, out: &mut Vec<u8>) {
    out.push(b',');
    write_name(out, name);
    out.extend_from_slice(b"=\"");
    write_escaped(out, value);
    out.push(b'"');
}

/// Writes a name, in quotes where it is none of the plain ones (which for labels include the colon, as in the reference).
fn write_name(out: &mut Vec<u8>, name: &str) {
    if is_legacy_metric_name(name) {
        out.extend_from_slice(name.as_bytes());
    } else {
        out.push(b'"');
        write_escaped(out, name);
        out.push(b'"');
    }
}
