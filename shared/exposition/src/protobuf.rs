//! Scrape bodies of delimited `MetricFamily` messages.
//!
//! [`Families`] hands out one family after the other; of each, [`Family::metrics`] decodes one metric at a time, so
//! memory is bounded by the largest metric rather than by what a body can be made to unfold to. [`Family::samples`]
//! lays a metric out as the series that a text exposition would have, native histograms whole.

use std::borrow::Cow;

use model::number::Quoted;
use model::{
    CounterResetHint, Exemplar, FloatHistogram, Histogram, IntegerHistogram, MetricType, Span, Timestamp,
    Value,
};
use prometheus_proto::client;
use prometheus_proto::wire::{Fields, Malformed, read_delimited};
use prost::Message as _;

use crate::error::{Error, Result};
use crate::labels;
use crate::owned::OwnedSample;
use crate::parse::format_open_metrics;

/// Iterates over the families of a body; ends after the first error.
#[derive(Debug)]
pub struct Families<'a> {
    rest: &'a [u8],
}

impl<'a> Families<'a> {
    /// Starts on a body.
    #[must_use]
    pub const fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }
}

impl<'a> Iterator for Families<'a> {
    type Item = Result<Family<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let family = read_delimited(&mut self.rest).map_err(Error::from).and_then(Family::read);
        if family.is_err() {
            self.rest = &[];
        }
        Some(family)
    }
}

/// A family: what is said of all its metrics, and their messages, not yet decoded.
#[derive(Debug)]
pub struct Family<'a> {
    /// Everything but the metrics.
    header: client::MetricFamily,
    message: &'a [u8],
}

/// The field of a family that holds its metrics.
const METRICS: u64 = 4;

impl<'a> Family<'a> {
    fn read(message: &'a [u8]) -> Result<Self> {
        let mut header = client::MetricFamily::default();
        for field in Fields::new(message) {
            let (number, payload) = field?;
            let text = || -> Result<Option<String>> {
                let bytes = payload.bytes().ok_or(Malformed("number where a text belongs"))?;
                let text = str::from_utf8(bytes).map_err(|_| Malformed("text is not valid UTF-8"))?;
                Ok(Some(text.to_owned()))
            };
            match number {
                1 => header.name = text()?,
                2 => header.help = text()?,
                3 => {
                    let number = payload.int64().ok_or(Malformed("text where a number belongs"))?;
                    // A number out of range is refused below, as is one without a name.
                    header.r#type = Some(i32::try_from(number).unwrap_or(i32::MAX));
                }
                METRICS if payload.bytes().is_none() => {
                    return Err(Malformed("number where a message belongs").into());
                }
                5 => header.unit = text()?,
                _ => {}
            }
        }
        check_family(&header)?;
        Ok(Self { header, message })
    }

    /// The name, without the suffixes of the series of histograms and summaries.
    #[must_use]
    pub fn name(&self) -> &str {
        self.header.name()
    }

    /// The help text, or empty.
    #[must_use]
    pub fn help(&self) -> &str {
        self.header.help()
    }

    /// The unit, or empty.
    #[must_use]
    pub fn unit(&self) -> &str {
        self.header.unit()
    }

    /// The type.
    #[must_use]
    pub fn kind(&self) -> MetricType {
        match self.header.r#type() {
            client::MetricType::Counter => MetricType::Counter,
            client::MetricType::Gauge => MetricType::Gauge,
            client::MetricType::Summary => MetricType::Summary,
            client::MetricType::Untyped => MetricType::Unknown,
            client::MetricType::Histogram => MetricType::Histogram,
            client::MetricType::GaugeHistogram => MetricType::GaugeHistogram,
        }
    }

    /// Decodes the metrics one after the other. Each item is a metric or what is wrong with it.
    pub fn metrics(&self) -> impl Iterator<Item = Result<client::Metric>> {
        Fields::checked(self.message).filter(|(number, _)| *number == METRICS).map(|(_, payload)| {
            let bytes = payload.bytes().unwrap_or_default();
            client::Metric::decode(bytes).map_err(|e| Error::Protobuf(e.to_string()))
        })
    }

    /// Lays one of the metrics out as samples.
    ///
    /// # Errors
    /// When an exemplar has one label name twice.
    pub fn samples(&self, metric: &client::Metric, options: Options) -> Result<Vec<OwnedSample>> {
        let mut out = Vec::new();
        add_metric(&mut out, &self.header, metric, options)?;
        Ok(out)
    }
}

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Self {
        Self::Protobuf(malformed.to_string())
    }
}

/// Which of the forms of a histogram are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Take native histograms; otherwise a histogram is laid out as a classic one, if need be with +Inf alone.
    pub native_histograms: bool,
    /// Take the classic form of a histogram along with its native one.
    pub classic_histograms_too: bool,
}

fn check_family(family: &client::MetricFamily) -> Result<()> {
    let name = family.name();
    if name.is_empty() {
        return Err(Error::Syntax("invalid metric name: ".to_owned()));
    }
    if family.r#type.is_some_and(|number| client::MetricType::try_from(number).is_err()) {
        let number = family.r#type.unwrap_or_default();
        return Err(Error::Syntax(format!("unknown metric type for metric {}: {number}", Quoted(name))));
    }
    let unit = family.unit();
    if unit.is_empty() {
        return Ok(());
    }
    let stem = match family.r#type() {
        client::MetricType::Counter => name.strip_suffix("_total"),
        _ => None,
    };
    let is_suffix = stem.unwrap_or(name).strip_suffix(unit).is_some_and(|s| s.ends_with('_'));
    if is_suffix {
        return Ok(());
    }
    let what = if stem.is_some() { "counter" } else { "metric" };
    Err(Error::Syntax(format!("unit {} not a suffix of {what} {}", Quoted(unit), Quoted(name))))
}

fn add_metric(
    out: &mut Vec<OwnedSample>,
    family: &client::MetricFamily,
    metric: &client::Metric,
    options: Options,
) -> Result<()> {
    let series = SeriesOf { family, metric };
    match family.r#type() {
        client::MetricType::Counter => {
            let counter = metric.counter.as_ref();
            let exemplars = exemplars(counter.and_then(|c| c.exemplar.as_ref()))?;
            let value = counter.map_or(0.0, client::Counter::value);
            out.push(OwnedSample { exemplars, ..series.sample("", None, value) });
        }
        client::MetricType::Gauge => {
            out.push(series.float("", metric.gauge.as_ref().map_or(0.0, client::Gauge::value)));
        }
        client::MetricType::Untyped => {
            out.push(series.float("", metric.untyped.as_ref().map_or(0.0, client::Untyped::value)));
        }
        client::MetricType::Summary => {
            let empty = client::Summary::default();
            let summary = metric.summary.as_ref().unwrap_or(&empty);
            out.push(series.float("_count", to_float(summary.sample_count())));
            out.push(series.float("_sum", summary.sample_sum()));
            for quantile in &summary.quantile {
                let label = Some(("quantile", quantile.quantile()));
                out.push(series.sample("", label, quantile.value()));
            }
        }
        client::MetricType::Histogram | client::MetricType::GaugeHistogram => {
            let empty = client::Histogram::default();
            let histogram = metric.histogram.as_ref().unwrap_or(&empty);
            let is_native = options.native_histograms && has_native_part(histogram);
            if is_native {
                out.push(series.native(histogram)?);
            }
            if !is_native || (options.classic_histograms_too && !histogram.bucket.is_empty()) {
                add_classic(out, &series, histogram)?;
            }
        }
    }
    Ok(())
}

fn add_classic(
    out: &mut Vec<OwnedSample>,
    series: &SeriesOf<'_>,
    histogram: &client::Histogram,
) -> Result<()> {
    let count = either(histogram.sample_count_float(), histogram.sample_count());
    out.push(series.float("_count", count));
    out.push(series.float("_sum", histogram.sample_sum()));
    let mut has_infinity = false;
    for bucket in &histogram.bucket {
        has_infinity |= bucket.upper_bound() == f64::INFINITY;
        let value = either(bucket.cumulative_count_float(), bucket.cumulative_count());
        let label = Some(("le", bucket.upper_bound()));
        let exemplars = exemplars(bucket.exemplar.as_ref())?;
        out.push(OwnedSample { exemplars, ..series.sample("_bucket", label, value) });
    }
    if !has_infinity {
        out.push(series.sample("_bucket", Some(("le", f64::INFINITY)), count));
    }
    Ok(())
}

/// A histogram has a native part when it has spans or a zero bucket; one without observations says so by an empty span.
fn has_native_part(histogram: &client::Histogram) -> bool {
    !histogram.positive_span.is_empty()
        || !histogram.negative_span.is_empty()
        || histogram.zero_threshold() > 0.0
        || histogram.zero_count() > 0
        || histogram.zero_count_float() > 0.0
}

struct SeriesOf<'a> {
    family: &'a client::MetricFamily,
    metric: &'a client::Metric,
}

impl SeriesOf<'_> {
    fn float(&self, suffix: &str, value: f64) -> OwnedSample {
        self.sample(suffix, None, value)
    }

    fn sample(&self, suffix: &str, bound: Option<(&str, f64)>, value: f64) -> OwnedSample {
        let value = if value.is_nan() { model::number::canonical_nan() } else { value };
        self.with_value(suffix, bound, Value::Float(value))
    }

    fn native(&self, histogram: &client::Histogram) -> Result<OwnedSample> {
        let hint = match self.family.r#type() {
            client::MetricType::GaugeHistogram => CounterResetHint::Gauge,
            _ => CounterResetHint::Unknown,
        };
        let from = if histogram.exemplars.is_empty() {
            histogram.bucket.iter().filter_map(|b| b.exemplar.as_ref()).collect()
        } else {
            histogram.exemplars.iter().collect::<Vec<_>>()
        };
        let exemplars = exemplars(from.into_iter().filter(|e| e.timestamp.is_some()))?;
        let value = Value::Histogram(native_histogram(histogram, hint).with_known_schema().into());
        Ok(OwnedSample { exemplars, ..self.with_value("", None, value) })
    }

    fn with_value(&self, suffix: &str, bound: Option<(&str, f64)>, value: Value) -> OwnedSample {
        let labels = self.metric.label.iter().map(|pair| (pair.name(), Cow::Borrowed(pair.value())));
        let bound = bound.map(|(name, bound)| (name, Cow::Owned(format_open_metrics(bound))));
        OwnedSample::new([self.family.name(), suffix], labels.chain(bound), value, self.timestamp())
    }

    /// Zero means that there is none, as in the reference.
    fn timestamp(&self) -> Option<Timestamp> {
        self.metric.timestamp_ms.filter(|ms| *ms != 0).map(Timestamp)
    }
}

fn pair(pair: &client::LabelPair) -> labels::Pair<'_> {
    (Cow::Borrowed(pair.name()), Cow::Borrowed(pair.value()))
}

fn exemplars<'a>(from: impl IntoIterator<Item = &'a client::Exemplar>) -> Result<Vec<Exemplar>> {
    from.into_iter()
        .map(|exemplar| {
            let labels = labels::build(exemplar.label.iter().map(pair))?;
            let timestamp = exemplar.timestamp.as_ref().map(|t| {
                Timestamp(t.seconds.saturating_mul(1000).saturating_add(i64::from(t.nanos / 1_000_000)))
            });
            Ok(Exemplar { labels, value: exemplar.value(), timestamp })
        })
        .collect()
}

fn native_histogram(h: &client::Histogram, counter_reset_hint: CounterResetHint) -> Histogram {
    let spans = |spans: &[client::BucketSpan]| {
        spans.iter().map(|s| Span { offset: s.offset(), length: s.length() }).collect::<Vec<_>>()
    };
    let (positive_spans, negative_spans) = (spans(&h.positive_span), spans(&h.negative_span));
    if h.sample_count_float() > 0.0 || h.zero_count_float() > 0.0 {
        return Histogram::Float(FloatHistogram {
            counter_reset_hint,
            schema: h.schema(),
            zero_threshold: h.zero_threshold(),
            zero_count: h.zero_count_float(),
            count: h.sample_count_float(),
            sum: h.sample_sum(),
            positive_spans,
            negative_spans,
            positive_buckets: h.positive_count.clone(),
            negative_buckets: h.negative_count.clone(),
            ..Default::default()
        });
    }
    Histogram::Integer(IntegerHistogram {
        counter_reset_hint,
        schema: h.schema(),
        zero_threshold: h.zero_threshold(),
        zero_count: h.zero_count(),
        count: h.sample_count(),
        sum: h.sample_sum(),
        positive_spans,
        negative_spans,
        positive_deltas: h.positive_delta.clone(),
        negative_deltas: h.negative_delta.clone(),
        ..Default::default()
    })
}

/// The float count where there is one, else the integer one.
fn either(float: f64, integer: u64) -> f64 {
    if float > 0.0 { float } else { to_float(integer) }
}

#[expect(clippy::cast_precision_loss, reason = "as Prometheus does; counts above 2^53 are rounded")]
fn to_float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
