//! Delimited `MetricFamily` messages.
//!
//! A message has to be whole before its length is known, so the metrics of a family are held back. A family with more
//! than [`FAMILY_METRICS_MAX`] metrics is cut into several messages of the same name, which scrapers accept; the
//! reference holds back all of it, and with it unbounded memory.

use model::{FloatHistogram, Span};
use prometheus_proto::client;
use prost::Message as _;

use super::{Item, Kind, classic_buckets};
use crate::escaping::EscapingScheme;

/// Metrics in one message.
pub(super) const FAMILY_METRICS_MAX: usize = 8192;

/// Collects the metrics of the open family.
#[derive(Debug, Default)]
pub(super) struct Writer {
    family: client::MetricFamily,
}

impl Writer {
    /// Writes the open family out and starts another.
    pub(super) fn open(&mut self, name: &str, kind: Kind, out: &mut Vec<u8>) {
        self.close(out);
        let kind = match kind {
            Kind::Untyped => client::MetricType::Untyped,
            Kind::Histogram => client::MetricType::Histogram,
            Kind::GaugeHistogram => client::MetricType::GaugeHistogram,
        };
        self.family.name = Some(name.to_owned());
        self.family.r#type = Some(kind.into());
    }

    /// Writes the open family out, if it holds anything.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) {
        if self.family.metric.is_empty() {
            return;
        }
        self.family.encode_length_delimited(out).expect("a vector grows as needed");
        self.family.metric.clear();
    }

    pub(super) fn push_float(
        &mut self,
        item: Item<'_>,
        escaping: EscapingScheme,
        value: f64,
        out: &mut Vec<u8>,
    ) {
        let untyped = Some(client::Untyped { value: Some(value) });
        self.push(client::Metric { untyped, ..metric(item, escaping) }, out);
    }

    pub(super) fn push_histogram(
        &mut self,
        item: Item<'_>,
        escaping: EscapingScheme,
        histogram: &FloatHistogram,
        out: &mut Vec<u8>,
    ) {
        let histogram =
            Some(if histogram.uses_custom_buckets() { classic(histogram) } else { native(histogram) });
        self.push(client::Metric { histogram, ..metric(item, escaping) }, out);
    }

    fn push(&mut self, metric: client::Metric, out: &mut Vec<u8>) {
        if self.family.metric.len() == FAMILY_METRICS_MAX {
            self.close(out);
        }
        self.family.metric.push(metric);
    }
}

fn metric(item: Item<'_>, escaping: EscapingScheme) -> client::Metric {
    let label = item
        .labels()
        .map(|(name, value)| client::LabelPair {
            name: Some(escaping.escape(name).into_owned()),
            value: Some(value.to_owned()),
        })
        .collect();
    client::Metric { label, timestamp_ms: Some(item.timestamp.millis()), ..Default::default() }
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
