//! Requests to send.

use std::collections::HashMap;

use model::{Exemplar, Histogram, Labels, Metadata, MetricType, Timestamp};
use prometheus_proto::prometheus as pb;
use prometheus_proto::write_v2 as pb2;
use prost::Message as _;

use crate::histogram::to_message;

/// One series to send, in a write or in the answer to a read.
#[derive(Debug, Clone, Default)]
pub struct SeriesOut {
    /// The labels, metric name included.
    pub labels: Labels,
    /// Float samples, oldest first.
    pub floats: Vec<(Timestamp, f64)>,
    /// Native histograms, oldest first.
    pub histograms: Vec<(Timestamp, Histogram)>,
    /// Exemplars.
    pub exemplars: Vec<Exemplar>,
    /// Type, unit and help; sent with the series in version 2.0 alone.
    pub metadata: Option<Metadata>,
}

/// Encodes a message of version 1.0, not yet compressed, with the metadata of families beside the series.
#[must_use]
pub fn encode_v1(series: &[SeriesOut], families: &[(String, Metadata)]) -> Vec<u8> {
    let timeseries = series.iter().map(to_series).collect();
    let metadata = families
        .iter()
        .map(|(name, metadata)| pb::MetricMetadata {
            r#type: type_number(metadata.kind),
            metric_family_name: name.clone(),
            help: metadata.help.to_string(),
            unit: metadata.unit.to_string(),
        })
        .collect();
    pb::WriteRequest { timeseries, metadata }.encode_to_vec()
}

/// Encodes a message of version 2.0, not yet compressed.
#[must_use]
pub fn encode_v2(series: &[SeriesOut]) -> Vec<u8> {
    let mut symbols = Symbols::default();
    symbols.reference("");
    let timeseries = series
        .iter()
        .map(|s| pb2::TimeSeries {
            labels_refs: symbols.references(&s.labels),
            samples: s
                .floats
                .iter()
                .map(|(t, value)| pb2::Sample {
                    value: present(*value),
                    timestamp: t.millis(),
                    start_timestamp: 0,
                })
                .collect(),
            histograms: s.histograms.iter().map(|(t, h)| to_message_v2(*t, h)).collect(),
            exemplars: s
                .exemplars
                .iter()
                .map(|e| pb2::Exemplar {
                    labels_refs: symbols.references(&e.labels),
                    value: e.value,
                    timestamp: e.timestamp.unwrap_or_default().millis(),
                })
                .collect(),
            metadata: s.metadata.as_ref().map(|m| pb2::Metadata {
                r#type: type_number(m.kind),
                help_ref: symbols.reference(&m.help),
                unit_ref: symbols.reference(&m.unit),
            }),
            created_timestamp: 0,
        })
        .collect();
    pb2::Request { symbols: symbols.list, timeseries }.encode_to_vec()
}

/// A series as version 1.0 and remote read have it.
pub(crate) fn to_series(series: &SeriesOut) -> pb::TimeSeries {
    let label = |(name, value): (&str, &str)| pb::Label { name: name.to_owned(), value: value.to_owned() };
    pb::TimeSeries {
        labels: series.labels.iter().map(label).collect(),
        samples: series
            .floats
            .iter()
            .map(|(t, value)| pb::Sample { value: present(*value), timestamp: t.millis() })
            .collect(),
        exemplars: series
            .exemplars
            .iter()
            .map(|e| pb::Exemplar {
                labels: e.labels.iter().map(label).collect(),
                value: e.value,
                timestamp: e.timestamp.unwrap_or_default().millis(),
            })
            .collect(),
        histograms: series.histograms.iter().map(|(t, h)| to_message(*t, h)).collect(),
    }
}

/// Leaves zero out, as proto3 does, but not negative zero.
fn present(value: f64) -> Option<f64> {
    (value.to_bits() != 0).then_some(value)
}

/// Each string once, with its index.
#[derive(Debug, Default)]
struct Symbols {
    list: Vec<String>,
    index: HashMap<String, u32>,
}

impl Symbols {
    fn reference(&mut self, text: &str) -> u32 {
        if let Some(index) = self.index.get(text) {
            return *index;
        }
        let index = u32::try_from(self.list.len()).expect("a request fits into 32 MiB");
        self.list.push(text.to_owned());
        self.index.insert(text.to_owned(), index);
        index
    }

    fn references(&mut self, labels: &Labels) -> Vec<u32> {
        labels.iter().flat_map(|(name, value)| [self.reference(name), self.reference(value)]).collect()
    }
}

/// The message of version 2.0 has the fields of that of 1.0 under the same numbers.
fn to_message_v2(timestamp: Timestamp, histogram: &Histogram) -> pb2::Histogram {
    let bytes = to_message(timestamp, histogram).encode_to_vec();
    pb2::Histogram::decode(&*bytes).expect("one message under two names")
}

/// The numbers of the types are the same in both versions.
fn type_number(kind: MetricType) -> i32 {
    use pb::metric_metadata::MetricType as Wire;
    let wire = match kind {
        MetricType::Unknown => Wire::Unknown,
        MetricType::Counter => Wire::Counter,
        MetricType::Gauge => Wire::Gauge,
        MetricType::Histogram => Wire::Histogram,
        MetricType::GaugeHistogram => Wire::Gaugehistogram,
        MetricType::Summary => Wire::Summary,
        MetricType::Info => Wire::Info,
        MetricType::StateSet => Wire::Stateset,
    };
    wire.into()
}
