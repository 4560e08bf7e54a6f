//! The store behind a script: series in memory, appended in order, with counter-reset hints on read as Prometheus's
//! chunks give them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use model::matcher::Matcher;
use model::number::parse_float;
use model::query::PointValue;
use model::{CounterResetHint, FloatHistogram, Histogram, Labels, Span, is_stale};
use promql_engine::{
    Column, Selection, SeriesSamples, SeriesSet, SeriesSource, SourceError, histogram::detect_reset,
};

use super::script::{Load, SampleValue, samples};

/// One sample of a load.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Milliseconds since the epoch.
    pub time: i64,
    /// When its counter started, in milliseconds; 0 where that is unknown.
    pub start: i64,
    /// The value.
    pub value: PointValue,
}

/// Works out what a load appends: the samples of each series in time order.
fn loaded(load: &Load) -> Result<BTreeMap<Labels, Vec<Sample>>, String> {
    // Of two lines for one series the last wins.
    let mut by_labels: BTreeMap<Labels, Vec<Sample>> = BTreeMap::new();
    for series in &load.series {
        let mut out = Vec::new();
        for (i, value) in samples(&series.values)?.into_iter().enumerate() {
            let time = i64::try_from(i).map_err(|e| e.to_string())? * load.interval_ms;
            let start = series.starts.as_ref().and_then(|s| s[i]).map_or(0, |offset| time + offset);
            let value = match value {
                None => continue,
                Some(SampleValue::Float(x)) => PointValue::Float(x),
                Some(SampleValue::Histogram(literal)) => PointValue::Histogram(literal.histogram),
            };
            out.push(Sample { time, start, value });
        }
        by_labels.insert(series.labels.clone(), out);
    }
    if load.converts_classic {
        for (labels, converted) in convert_classic(&by_labels)? {
            by_labels.entry(labels).or_default().extend(converted);
        }
    }
    Ok(by_labels)
}

/// All series loaded so far, with reset hints as they are read.
#[derive(Debug, Default)]
pub struct Store {
    series: BTreeMap<Labels, Vec<Sample>>,
}

impl Store {
    /// Returns the samples of every series, in time order.
    pub fn series(&self) -> impl Iterator<Item = (&Labels, &[Sample])> {
        self.series.iter().map(|(labels, samples)| (labels, &**samples))
    }

    /// Spreads the series over several stores. Of every fourth, samples are in two of them by turns.
    pub fn spread(&self, count: usize) -> Vec<Self> {
        let mut stores: Vec<Self> = Vec::new();
        stores.resize_with(count, Self::default);
        for (labels, samples) in &self.series {
            let hash = usize::try_from(labels.series_id() >> 8).unwrap_or(0);
            let is_shared = hash % 4 == 3;
            for (i, sample) in samples.iter().enumerate() {
                let turn = if is_shared { i % 2 } else { 0 };
                let store = &mut stores[(hash / 4 + turn) % count];
                store.series.entry(labels.clone()).or_default().push(sample.clone());
            }
        }
        stores
    }

    /// Appends what a load names.
    ///
    /// # Errors
    /// When the load is inconsistent, or a sample is out of order or twice there.
    pub fn load(&mut self, load: &Load) -> Result<(), String> {
        for (labels, new) in loaded(load)? {
            let stored = self.series.entry(labels.clone()).or_default();
            for sample in new {
                append(stored, sample).map_err(|e| format!("{labels}: {e}"))?;
            }
        }
        self.series.retain(|_, samples| !samples.is_empty());
        Ok(())
    }
}

fn append(stored: &mut Vec<Sample>, mut sample: Sample) -> Result<(), String> {
    if let PointValue::Histogram(h) = &sample.value {
        Histogram::Float((**h).clone()).validate().map_err(|e| e.to_string())?;
    }
    if let Some(last) = stored.last() {
        if sample.time < last.time {
            return Err("out of order sample".to_owned());
        }
        if sample.time == last.time {
            let is_same = match (&last.value, &sample.value) {
                (PointValue::Float(a), PointValue::Float(b)) => a.to_bits() == b.to_bits(),
                (PointValue::Histogram(a), PointValue::Histogram(b)) => same_but_hint(a, b),
                _ => false,
            };
            let error = "duplicate sample for timestamp".to_owned();
            return if is_same { Ok(()) } else { Err(error) };
        }
    }
    if let PointValue::Histogram(h) = &mut sample.value {
        let previous = stored.last().and_then(|s| match &s.value {
            PointValue::Histogram(h) => Some(&**h),
            PointValue::Float(_) => None,
        });
        let hint = hint_on_read(h, previous);
        Arc::make_mut(h).counter_reset_hint = hint;
    }
    stored.push(sample);
    Ok(())
}

fn same_but_hint(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    FloatHistogram { counter_reset_hint: a.counter_reset_hint, ..b.clone() }.bit_eq(a)
}

/// The hint with which a sample is read: a new chunk begins where the sample cannot continue the one before.
fn hint_on_read(h: &FloatHistogram, previous: Option<&FloatHistogram>) -> CounterResetHint {
    use CounterResetHint::{Gauge, NotReset, Reset, Unknown};
    if h.counter_reset_hint == Gauge {
        return Gauge;
    }
    let Some(previous) = previous else { return Unknown };
    let undecided = FloatHistogram { counter_reset_hint: Unknown, ..h.clone() };
    let begins_chunk = h.counter_reset_hint == Reset
        || previous.counter_reset_hint == Gauge
        || is_stale(previous.sum)
        || h.schema != previous.schema
        || h.zero_threshold != previous.zero_threshold
        || h.custom_values != previous.custom_values
        || detect_reset(&undecided, previous);
    if begins_chunk { Unknown } else { NotReset }
}

/// The classic buckets of one histogram at one time, by upper bound, with count and sum.
#[derive(Default)]
struct Classic {
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: Option<f64>,
}

/// Makes histograms with custom buckets of classic ones.
fn convert_classic(series: &BTreeMap<Labels, Vec<Sample>>) -> Result<Vec<(Labels, Vec<Sample>)>, String> {
    let mut found: BTreeMap<Labels, BTreeMap<i64, Classic>> = BTreeMap::new();
    for (labels, samples) in series {
        let name = labels.metric_name();
        let upper = labels.get("le").and_then(parse_float);
        let (base, upper) = match (name.strip_suffix("_bucket"), upper) {
            (Some(base), Some(upper)) => (base, Some(upper)),
            _ => match name.strip_suffix("_count").or_else(|| name.strip_suffix("_sum")) {
                Some(base) => (base, None),
                None => continue,
            },
        };
        let labels = labels.filtered(|n| n != "le").with("__name__", base);
        let by_time = found.entry(labels).or_default();
        for sample in samples {
            let PointValue::Float(x) = sample.value else { continue };
            if is_stale(x) {
                continue;
            }
            let classic = by_time.entry(sample.time).or_default();
            match upper {
                Some(upper) => classic.buckets.push((upper, x)),
                None if name.ends_with("_count") => classic.count = Some(x),
                None => classic.sum = Some(x),
            }
        }
    }
    let mut out = Vec::new();
    for (labels, by_time) in found {
        let mut samples = Vec::new();
        for (time, classic) in by_time {
            if let Some(h) = classic.histogram().map_err(|e| format!("{labels}: {e}"))? {
                samples.push(Sample { time, start: 0, value: PointValue::Histogram(Arc::new(h)) });
            }
        }
        if !samples.is_empty() {
            out.push((labels, samples));
        }
    }
    Ok(out)
}

impl Classic {
    fn histogram(mut self) -> Result<Option<FloatHistogram>, String> {
        if self.buckets.is_empty() {
            return Ok(None);
        }
        self.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.buckets.dedup_by(|next, kept| next.0 == kept.0);
        let highest = self.buckets[self.buckets.len() - 1];
        let count = self.count.unwrap_or(highest.1);
        let bounds: Vec<f64> = self.buckets.iter().map(|b| b.0).filter(|b| b.is_finite()).collect();
        let cumulative = self.buckets.iter().filter(|b| b.0.is_finite()).map(|b| b.1);
        let mut before = 0.0;
        let mut populations = Vec::new();
        for total in cumulative.chain(std::iter::once(count)) {
            if total < before {
                return Err("bucket counts of a classic histogram must not descend".to_owned());
            }
            populations.push(total - before);
            before = total;
        }
        let length = u32::try_from(populations.len()).map_err(|e| e.to_string())?;
        let mut h = FloatHistogram {
            schema: model::histogram::CUSTOM_BUCKETS_SCHEMA,
            count,
            sum: self.sum.unwrap_or(0.0),
            positive_spans: vec![Span { offset: 0, length }],
            positive_buckets: populations,
            custom_values: bounds.into(),
            ..FloatHistogram::default()
        };
        promql_engine::histogram::compact(&mut h);
        Ok(Some(h))
    }
}

impl SeriesSource for Store {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesSet>, SourceError> {
        let (min, max) = (selection.min_time.millis(), selection.max_time.millis());
        let mut timelines = Timelines::default();
        let (mut labels, mut samples) = (Vec::new(), Vec::new());
        for (series, stored) in &self.series {
            if Matcher::all_match(&selection.matchers, series) {
                labels.push(series.clone());
                let seen = stored.iter().filter(|s| (min..=max).contains(&s.time));
                samples.push(columns(seen, &mut timelines));
            }
        }
        Ok(Box::new(Selected { labels, samples: samples.into_iter() }))
    }
}

/// Timelines by their content, so that equal ones are shared.
#[derive(Default)]
struct Timelines(HashMap<Vec<i64>, Arc<[i64]>>);

impl Timelines {
    fn shared(&mut self, times: Vec<i64>) -> Arc<[i64]> {
        Arc::clone(self.0.entry(times).or_insert_with_key(|times| times.as_slice().into()))
    }
}

fn columns<'a>(stored: impl Iterator<Item = &'a Sample>, timelines: &mut Timelines) -> SeriesSamples {
    let (mut floats, mut histograms) = (Parts::default(), Parts::default());
    for sample in stored {
        match &sample.value {
            PointValue::Float(x) => floats.push(sample, *x),
            PointValue::Histogram(h) => histograms.push(sample, Arc::clone(h)),
        }
    }
    SeriesSamples { floats: floats.column(timelines), histograms: histograms.column(timelines) }
}

struct Parts<V> {
    times: Vec<i64>,
    starts: Vec<i64>,
    values: Vec<V>,
}

impl<V> Default for Parts<V> {
    fn default() -> Self {
        Self { times: Vec::new(), starts: Vec::new(), values: Vec::new() }
    }
}

impl<V> Parts<V> {
    fn push(&mut self, sample: &Sample, value: V) {
        self.times.push(sample.time);
        self.starts.push(sample.start);
        self.values.push(value);
    }

    fn column(self, timelines: &mut Timelines) -> Column<V> {
        let mut column = Column::new(timelines.shared(self.times), self.values);
        if self.starts.iter().any(|start| *start != 0) {
            column.start_timestamps = Some(self.starts);
        }
        column
    }
}

struct Selected {
    labels: Vec<Labels>,
    samples: std::vec::IntoIter<SeriesSamples>,
}

impl SeriesSet for Selected {
    fn labels(&mut self) -> Result<&[Labels], SourceError> {
        Ok(&self.labels)
    }

    fn next(&mut self) -> Result<Option<SeriesSamples>, SourceError> {
        Ok(self.samples.next())
    }
}
