//! A request to samples, resource by resource.

use std::sync::Arc;

use model::{Exemplar, Labels, Metadata, MetricType, Timestamp, Value, stale_nan};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1 as otlp;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, DataPointFlags};

use crate::labels::{Fault, Pair, Shared, check_count, labels};
use crate::names::{Kind, metric_name, unit_name};
use crate::rejections::{Reason, Rejections};
use crate::settings::Settings;
use crate::{exemplars, histogram, identity, target_info};

/// What a request holds, in model terms.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Translation {
    /// Samples by resource, in the order of the request; resources without samples are left out.
    pub resources: Vec<Resource>,
    /// Data points of the request, rejected ones included.
    pub points: u64,
    /// What was not taken.
    pub rejected: Rejections,
    /// Exemplars that were not taken while their data points were.
    pub exemplars_dropped: u64,
}

/// The samples of one resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// The resource's identity: the key of its group.
    pub key: Labels,
    /// The samples, in the order of the request, `target_info` behind them.
    pub samples: Vec<Sample>,
}

/// One sample of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The series.
    pub labels: Labels,
    /// Type, unit and help of its metric.
    pub metadata: Arc<Metadata>,
    /// When it was taken.
    pub timestamp: Timestamp,
    /// What it is; a staleness marker for a point without a recorded value.
    pub value: Value,
    /// When the counting began; of cumulative series only.
    pub start: Option<Timestamp>,
    /// Examples of what was counted.
    pub exemplars: Vec<Exemplar>,
    /// The number of its data point within the request, from 0; `None` for `target_info`.
    pub point: Option<u32>,
}

/// Translates a request. CPU work: about a microsecond a sample.
#[must_use]
pub fn translate(request: &ExportMetricsServiceRequest, settings: &Settings) -> Translation {
    let mut translator = Translator { settings, label_bytes: 0, done: Translation::default() };
    for metrics in &request.resource_metrics {
        let attributes = metrics.resource.as_ref().map_or(&[] as &[_], |r| &r.attributes);
        let samples = translator.resource(metrics, attributes);
        if !samples.is_empty() {
            let key = identity::group_key(attributes, &settings.limits);
            translator.done.resources.push(Resource { key, samples });
        }
    }
    translator.done
}

struct Translator<'a> {
    settings: &'a Settings,
    /// Bytes of labels made so far.
    label_bytes: usize,
    done: Translation,
}

/// A metric whose points are being translated.
struct Metric<'a> {
    /// As the sender calls it, for messages.
    otlp_name: &'a str,
    name: String,
    metadata: Arc<Metadata>,
    shared: &'a Shared<'a>,
}

impl Translator<'_> {
    fn resource(&mut self, metrics: &otlp::ResourceMetrics, attributes: &[KeyValue]) -> Vec<Sample> {
        let mut samples = Vec::new();
        let shared = match Shared::of_resource(attributes, self.settings) {
            Ok(shared) => shared,
            Err(fault) => {
                metrics.scope_metrics.iter().for_each(|scope| self.reject_scope(scope, "resource", &fault));
                return samples;
            }
        };
        for scope in &metrics.scope_metrics {
            match shared.with_scope(scope, self.settings) {
                Ok(shared) => {
                    for metric in &scope.metrics {
                        self.metric(metric, &shared, &mut samples);
                    }
                }
                Err(fault) => self.reject_scope(scope, "scope", &fault),
            }
        }
        let earliest = samples.iter().map(|s| s.timestamp).min();
        let latest = samples.iter().map(|s| s.timestamp).max();
        if let Some(range) = earliest.zip(latest) {
            match target_info::samples(attributes, &shared, range, self.settings) {
                Ok(info) => samples.extend(info),
                Err(fault) => self.done.rejected.note(|| format!("no target_info: {}", fault.text)),
            }
        }
        samples
    }

    fn reject_scope(&mut self, scope: &otlp::ScopeMetrics, what: &str, fault: &Fault) {
        for metric in &scope.metrics {
            let points = point_count(metric);
            self.done.points += points;
            self.done.rejected.add(fault.reason, points, || format!("{what}: {}", fault.text));
        }
    }

    fn metric(&mut self, metric: &otlp::Metric, shared: &Shared<'_>, out: &mut Vec<Sample>) {
        let points = point_count(metric);
        let Some(data) = metric.data.as_ref().filter(|_| points > 0) else {
            // As the reference has it; nothing is lost, since nothing was sent.
            self.done.rejected.note(|| format!("empty data points. {} is dropped", metric.name));
            return;
        };
        let identified = self.identify(metric, data, shared);
        let metric = match identified {
            Ok(metric) => metric,
            Err(fault) => {
                self.done.points += points;
                self.done.rejected.add(fault.reason, points, || fault.text);
                return;
            }
        };
        match data {
            Data::Gauge(gauge) => {
                self.each(&metric, &gauge.data_points, out, |sink, p| sink.number(p, false))
            }
            Data::Sum(sum) => {
                self.each(&metric, &sum.data_points, out, |sink, p| sink.number(p, sum.is_monotonic));
            }
            Data::Histogram(h) if self.settings.converts_to_custom_buckets => {
                self.each(&metric, &h.data_points, out, |sink, p| sink.custom_buckets(p));
            }
            Data::Histogram(h) => {
                self.each(&metric, &h.data_points, out, |sink, p| sink.classic_histogram(p))
            }
            Data::ExponentialHistogram(h) => {
                self.each(&metric, &h.data_points, out, |sink, p| sink.exponential(p))
            }
            Data::Summary(s) => self.each(&metric, &s.data_points, out, |sink, p| sink.summary(p)),
        }
    }

    fn identify<'m>(
        &self,
        metric: &'m otlp::Metric,
        data: &Data,
        shared: &'m Shared<'m>,
    ) -> Result<Metric<'m>, Fault> {
        let (kind, metric_type, temporality) = match data {
            Data::Gauge(_) => (Kind::Gauge, MetricType::Gauge, None),
            Data::Sum(sum) if sum.is_monotonic => {
                (Kind::MonotonicSum, MetricType::Counter, Some(sum.aggregation_temporality))
            }
            Data::Sum(sum) => (Kind::Other, MetricType::Gauge, Some(sum.aggregation_temporality)),
            Data::Histogram(h) => (Kind::Other, MetricType::Histogram, Some(h.aggregation_temporality)),
            Data::ExponentialHistogram(h) => {
                (Kind::Other, MetricType::Histogram, Some(h.aggregation_temporality))
            }
            Data::Summary(_) => (Kind::Other, MetricType::Summary, None),
        };
        // Summed up here, a delta would be wrong after every restart and every retry.
        if temporality.is_some_and(|t| t != AggregationTemporality::Cumulative as i32) {
            let text = format!("invalid temporality and type combination for metric {:?}", metric.name);
            return Err(Fault::new(Reason::Temporality, text));
        }
        let name = metric_name(&metric.name, &metric.unit, kind, self.settings)
            .map_err(|e| Fault::new(Reason::InvalidName, e))?;
        let metadata = Metadata {
            kind: metric_type,
            unit: unit_name(&metric.unit).into(),
            help: metric.description.as_str().into(),
        };
        Ok(Metric { otlp_name: &metric.name, name, metadata: Arc::new(metadata), shared })
    }

    /// Translates points one by one: a point that fails leaves nothing behind and is counted.
    fn each<P>(
        &mut self,
        metric: &Metric<'_>,
        points: &[P],
        out: &mut Vec<Sample>,
        translate: impl Fn(&mut Sink<'_>, &P) -> Result<(), Fault>,
    ) {
        for point in points {
            let (samples_before, bytes_before) = (out.len(), self.label_bytes);
            let number = self.done.points;
            self.done.points += 1;
            let mut sink = Sink {
                settings: self.settings,
                metric,
                point: u32::try_from(number).ok(),
                label_bytes: &mut self.label_bytes,
                exemplars_dropped: &mut self.done.exemplars_dropped,
                out,
            };
            let max = self.settings.limits.points;
            let translated = if number < max {
                translate(&mut sink, point)
            } else {
                Err(Fault::new(Reason::Limit, format!("more than {max} data points in a request")))
            };
            if let Err(fault) = translated {
                out.truncate(samples_before);
                self.label_bytes = bytes_before;
                let name = metric.otlp_name;
                self.done.rejected.add(fault.reason, 1, || format!("metric {name:?}: {}", fault.text));
            }
        }
    }
}

fn point_count(metric: &otlp::Metric) -> u64 {
    let count = metric.data.as_ref().map_or(0, |data| match data {
        Data::Gauge(gauge) => gauge.data_points.len(),
        Data::Sum(sum) => sum.data_points.len(),
        Data::Histogram(h) => h.data_points.len(),
        Data::ExponentialHistogram(h) => h.data_points.len(),
        Data::Summary(s) => s.data_points.len(),
    });
    count as u64
}

/// Takes the samples of one data point.
struct Sink<'s> {
    settings: &'s Settings,
    metric: &'s Metric<'s>,
    point: Option<u32>,
    label_bytes: &'s mut usize,
    exemplars_dropped: &'s mut u64,
    out: &'s mut Vec<Sample>,
}

/// The times of a data point.
#[derive(Clone, Copy)]
struct Times {
    timestamp: Timestamp,
    start: Option<Timestamp>,
}

impl Sink<'_> {
    fn number(&mut self, point: &otlp::NumberDataPoint, is_monotonic: bool) -> Result<(), Fault> {
        let mut times = times(point.time_unix_nano, point.start_time_unix_nano)?;
        if !is_monotonic {
            // What goes up and down is a gauge, and nothing is counted from a start on.
            times.start = None;
        }
        let value = match point.value {
            _ if is_unrecorded(point.flags) => stale_nan(),
            Some(number_data_point::Value::AsDouble(x)) => x,
            Some(number_data_point::Value::AsInt(n)) => n as f64,
            None => return Err(Fault::new(Reason::Incomplete, "data point without a value")),
        };
        let base = self.base(&point.attributes)?;
        let examples = self.exemplars(&point.exemplars);
        self.push(&base, "", None, times, Value::Float(value), examples)
    }

    fn classic_histogram(&mut self, point: &otlp::HistogramDataPoint) -> Result<(), Fault> {
        let times = times(point.time_unix_nano, point.start_time_unix_nano)?;
        let is_unrecorded = is_unrecorded(point.flags);
        if !is_unrecorded {
            histogram::check_bounds(point)?;
        }
        self.check_classic(point.explicit_bounds.len())?;
        let value = |x: f64| Value::Float(if is_unrecorded { stale_nan() } else { x });
        let base = self.base(&point.attributes)?;
        let mut examples = self.exemplars(&point.exemplars);
        if let Some(sum) = point.sum {
            self.push(&base, "_sum", None, times, value(sum), Vec::new())?;
        }
        self.push(&base, "_count", None, times, value(point.count as f64), Vec::new())?;
        let mut cumulative = 0_u64;
        for (bound, count) in point.explicit_bounds.iter().zip(&point.bucket_counts) {
            cumulative = cumulative.saturating_add(*count);
            let within = examples.extract_if(.., |e| e.value <= *bound).collect();
            self.push(
                &base,
                "_bucket",
                Some(("le", &bound_text(*bound))),
                times,
                value(cumulative as f64),
                within,
            )?;
        }
        self.push(&base, "_bucket", Some(("le", "+Inf")), times, value(point.count as f64), examples)
    }

    fn custom_buckets(&mut self, point: &otlp::HistogramDataPoint) -> Result<(), Fault> {
        let times = times(point.time_unix_nano, point.start_time_unix_nano)?;
        let value = if is_unrecorded(point.flags) {
            histogram::stale()
        } else {
            histogram::custom_buckets(point, &self.settings.limits)?
        };
        let base = self.base(&point.attributes)?;
        let examples = self.exemplars(&point.exemplars);
        self.push(&base, "", None, times, Value::Histogram(Arc::new(value)), examples)
    }

    fn exponential(&mut self, point: &otlp::ExponentialHistogramDataPoint) -> Result<(), Fault> {
        let times = times(point.time_unix_nano, point.start_time_unix_nano)?;
        let value = if is_unrecorded(point.flags) {
            histogram::stale()
        } else {
            histogram::exponential(point, &self.settings.limits)?
        };
        let base = self.base(&point.attributes)?;
        let examples = self.exemplars(&point.exemplars);
        self.push(&base, "", None, times, Value::Histogram(Arc::new(value)), examples)
    }

    fn summary(&mut self, point: &otlp::SummaryDataPoint) -> Result<(), Fault> {
        let times = times(point.time_unix_nano, point.start_time_unix_nano)?;
        self.check_classic(point.quantile_values.len())?;
        let is_unrecorded = is_unrecorded(point.flags);
        let value = |x: f64| Value::Float(if is_unrecorded { stale_nan() } else { x });
        let base = self.base(&point.attributes)?;
        self.push(&base, "_sum", None, times, value(point.sum), Vec::new())?;
        self.push(&base, "_count", None, times, value(point.count as f64), Vec::new())?;
        // The value of a quantile is not counted from a start on.
        let times = Times { start: None, ..times };
        for quantile in &point.quantile_values {
            let text = bound_text(quantile.quantile);
            self.push(&base, "", Some(("quantile", &text)), times, value(quantile.value), Vec::new())?;
        }
        Ok(())
    }

    fn base<'p>(&self, attributes: &'p [KeyValue]) -> Result<Vec<Pair<'p>>, Fault>
    where
        Self: 'p,
    {
        check_count(attributes, &self.settings.limits)?;
        self.metric.shared.with_attributes(attributes.iter(), self.settings)
    }

    fn exemplars(&mut self, given: &[otlp::Exemplar]) -> Vec<Exemplar> {
        exemplars::convert(given, &self.settings.limits, self.exemplars_dropped)
    }

    fn check_classic(&self, series: usize) -> Result<(), Fault> {
        let max = self.settings.limits.classic_buckets;
        if series > max {
            let text = format!("data point with {series} buckets or quantiles: at most {max} are allowed");
            return Err(Fault::new(Reason::Limit, text));
        }
        Ok(())
    }

    fn push(
        &mut self,
        base: &[Pair<'_>],
        suffix: &str,
        extra: Option<(&str, &str)>,
        times: Times,
        value: Value,
        exemplars: Vec<Exemplar>,
    ) -> Result<(), Fault> {
        let labels = if suffix.is_empty() {
            labels(base, &self.metric.name, extra)
        } else {
            labels(base, &format!("{}{suffix}", self.metric.name), extra)
        };
        *self.label_bytes += labels.byte_len();
        let max = self.settings.limits.request_label_bytes;
        if *self.label_bytes > max {
            return Err(Fault::new(
                Reason::Limit,
                format!("labels of a request: at most {max} bytes are allowed"),
            ));
        }
        let Times { timestamp, start } = times;
        let metadata = Arc::clone(&self.metric.metadata);
        self.out.push(Sample { labels, metadata, timestamp, value, start, exemplars, point: self.point });
        Ok(())
    }
}

/// Nanoseconds to milliseconds, cut as in the reference. A start that is not before the time says nothing.
fn times(time_ns: u64, start_ns: u64) -> Result<Times, Fault> {
    if time_ns == 0 {
        return Err(Fault::new(Reason::Incomplete, "data point without a time"));
    }
    let millis = |ns: u64| i64::try_from(ns / 1_000_000).map_or(Timestamp::MAX, Timestamp);
    let timestamp = millis(time_ns);
    let start = Some(millis(start_ns)).filter(|start| start_ns > 0 && *start < timestamp);
    Ok(Times { timestamp, start })
}

const fn is_unrecorded(flags: u32) -> bool {
    flags & DataPointFlags::NoRecordedValueMask as u32 != 0
}

/// Writes a bound or a quantile without an exponent, as the reference does.
fn bound_text(x: f64) -> String {
    if x.is_infinite() { if x > 0.0 { "+Inf" } else { "-Inf" }.to_owned() } else { x.to_string() }
}

#[cfg(test)]
mod tests;
