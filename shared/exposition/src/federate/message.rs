//! Delimited `MetricFamily` messages.
//!
//! A message has to be whole before its length is known, so the metrics of a family are held back. A family with more
//! than [`FAMILY_METRICS_MAX`] metrics is cut into several messages of the same name, which scrapers accept; the
//! reference holds back all of it, and with it unbounded memory.

use model::{FloatHistogram, Span};
use prometheus_proto::client;
use prost::Message as _;

use super::{Kind, classic_buckets};

/// Metrics in one message.
pub(super) const FAMILY_METRICS_MAX: usize = 8192;
/// What stands in front of the field `metric` of a family: number 4, with a length.
const METRIC: u8 = 4 << 3 | 2;
/// The same of the field `label` of a metric, which is its first: labels may stand in front of the others.
const LABEL: u8 = 1 << 3 | 2;
/// Why nothing fails here.
const GROWS: &str = "a vector grows as needed";

/// Collects the metrics of the open family.
#[derive(Debug, Default)]
pub(super) struct Writer {
    family: client::MetricFamily,
    /// The metrics as fields of the family.
    metrics: Vec<u8>,
    count: usize,
    metric: Vec<u8>,
}

impl Writer {
    /// Writes the open family out and starts another.
    pub(super) fn open(&mut self, name: &str, kind: Kind, out: &mut Vec<u8>) {
        self.close(out);
        let kind = match kind {
            Kind::Untyped | Kind::ClassicHistogram | Kind::Summary => client::MetricType::Untyped,
            Kind::Counter => client::MetricType::Counter,
            Kind::Gauge => client::MetricType::Gauge,
            Kind::Histogram => client::MetricType::Histogram,
            Kind::GaugeHistogram => client::MetricType::GaugeHistogram,
        };
        self.family.name = Some(name.to_owned());
        self.family.r#type = Some(kind.into());
    }

    /// Writes the open family out, if it holds anything.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) {
        if self.count == 0 {
            return;
        }
        prost::encode_length_delimiter(self.family.encoded_len() + self.metrics.len(), out).expect(GROWS);
        self.family.encode(out).expect(GROWS);
        out.append(&mut self.metrics);
        self.count = 0;
    }

    /// Adds a float; `labels` appends those of its series, each as [`write_label`] does.
    pub(super) fn push_float(
        &mut self,
        labels: impl FnOnce(&mut Vec<u8>),
        value: f64,
        timestamp: i64,
        out: &mut Vec<u8>,
    ) {
        let mut metric = client::Metric::default();
        match self.family.r#type() {
            client::MetricType::Counter => {
                metric.counter = Some(client::Counter { value: Some(value), ..Default::default() });
            }
            client::MetricType::Gauge => metric.gauge = Some(client::Gauge { value: Some(value) }),
            _ => metric.untyped = Some(client::Untyped { value: Some(value) }),
        }
        self.push(labels, metric, timestamp, out);
    }

    /// Adds a histogram.
    pub(super) fn push_histogram(
        &mut self,
        labels: impl FnOnce(&mut Vec<u8>),
        histogram: &FloatHistogram,
        timestamp: i64,
        out: &mut Vec<u8>,
    ) {
        let histogram = if histogram.uses_custom_buckets() { classic(histogram) } else { native(histogram) };
        self.push(
            labels,
            client::Metric { histogram: Some(histogram), ..Default::default() },
            timestamp,
            out,
        );
    }

    fn push(
        &mut self,
        labels: impl FnOnce(&mut Vec<u8>),
        mut metric: client::Metric,
        timestamp: i64,
        out: &mut Vec<u8>,
    ) {
        if self.count == FAMILY_METRICS_MAX {
            self.close(out);
        }
        metric.timestamp_ms = Some(timestamp);
        self.metric.clear();
        labels(&mut self.metric);
        metric.encode(&mut self.metric).expect(GROWS);
        self.metrics.push(METRIC);
        prost::encode_length_delimiter(self.metric.len(), &mut self.metrics).expect(GROWS);
        self.metrics.extend_from_slice(&self.metric);
        self.count += 1;
    }
}

/// Appends a label by its escaped name as a field of a metric.
pub(super) fn write_label(name: &str, value: &str, out: &mut Vec<u8>) {
    let pair = client::LabelPair { name: Some(name.to_owned()), value: Some(value.to_owned()) };
    out.push(LABEL);
    pair.encode_length_delimited(out).expect(GROWS);
}

fn classic(histogram: &FloatHistogram) -> client::Histogram {
    let bucket = classic_buckets(histogram)
        .map(|(bound, count)| client::Bucket {
            cumulative_count_float: Some(count),
            upper_bound: Some(bound),
            ..Default::default()
        })
        .collect();
    client::Histogram {
        sample_count_float: Some(histogram.count),
        sample_sum: Some(histogram.sum),
        bucket,
        ..Default::default()
    }
}

fn native(histogram: &FloatHistogram) -> client::Histogram {
    let spans = |spans: &[Span]| {
        spans
            .iter()
            .map(|s| client::BucketSpan { offset: Some(s.offset), length: Some(s.length) })
            .collect::<Vec<_>>()
    };
    client::Histogram {
        sample_count_float: Some(histogram.count),
        sample_sum: Some(histogram.sum),
        schema: Some(histogram.schema),
        zero_threshold: Some(histogram.zero_threshold),
        zero_count_float: Some(histogram.zero_count),
        negative_span: spans(&histogram.negative_spans),
        negative_count: histogram.negative_buckets.clone(),
        positive_span: spans(&histogram.positive_spans),
        positive_count: histogram.positive_buckets.clone(),
        ..Default::default()
    }
}
