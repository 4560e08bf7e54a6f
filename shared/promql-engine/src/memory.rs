//! Series in memory: a source for scripts and rule tests.
//!
//! Samples are appended in time order under the rules of a Prometheus head, and read with the counter-reset hints that
//! its chunks give them. Nothing is ever dropped.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use model::query::PointValue;
use model::{CounterResetHint, FloatHistogram, Histogram, Labels, Matcher, is_stale};
use promql_syntax::{HistogramLiteral, SequenceValue};

use crate::error::SourceError;
use crate::histogram::{IncompatibleSchemas, add, detect_reset, subtract};
use crate::source::{Column, Selection, SeriesSamples, SeriesSet, SeriesSource};

/// One sample.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Milliseconds since the epoch.
    pub time: i64,
    /// When its counter started, in milliseconds; 0 where that is unknown.
    pub start: i64,
    /// The value.
    pub value: PointValue,
}

/// All series appended so far, with reset hints as they are read.
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
    #[must_use]
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

    /// Appends samples of one series.
    ///
    /// # Errors
    /// When a sample is not valid, out of order, or another one stands at its time already; those before it stay.
    pub fn append(
        &mut self,
        labels: &Labels,
        samples: impl IntoIterator<Item = Sample>,
    ) -> Result<(), String> {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let stored = self.series.entry(labels.clone()).or_default();
        let appended = samples.try_for_each(|sample| append(stored, sample));
        if stored.is_empty() {
            self.series.remove(labels);
        }
        appended
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

/// A value at one position of a sequence, additions done.
#[derive(Debug, Clone)]
pub enum SampleValue {
    /// A float.
    Float(f64),
    /// A histogram, and whether its hint was written.
    Histogram(HistogramLiteral),
}

/// Works out a sequence: what stands at each position.
///
/// # Errors
/// When histograms cannot be added or there is none to add to.
pub fn sequence(values: &[SequenceValue]) -> Result<Vec<Option<SampleValue>>, String> {
    let mut out: Vec<Option<SampleValue>> = Vec::with_capacity(values.len());
    for value in values {
        let previous = || match out.last() {
            Some(Some(SampleValue::Histogram(before))) => Ok(before.clone()),
            _ => Err("nothing to add a histogram to".to_owned()),
        };
        let sum = |before: HistogramLiteral, result: Result<FloatHistogram, IncompatibleSchemas>| {
            let mut histogram = result.map_err(|e| e.to_string())?;
            histogram.counter_reset_hint = before.histogram.counter_reset_hint;
            let hint_is_set = before.hint_is_set;
            Ok::<_, String>(SampleValue::Histogram(HistogramLiteral {
                histogram: histogram.into(),
                hint_is_set,
            }))
        };
        let value = match value {
            SequenceValue::Omitted => None,
            SequenceValue::Float(x) => Some(SampleValue::Float(*x)),
            SequenceValue::Histogram(literal) => Some(SampleValue::Histogram(literal.clone())),
            SequenceValue::Plus(literal) => {
                let before = previous()?;
                let result = add(&before.histogram, &literal.histogram);
                Some(sum(before, result)?)
            }
            SequenceValue::Minus(literal) => {
                let before = previous()?;
                let result = subtract(&before.histogram, &literal.histogram);
                Some(sum(before, result)?)
            }
        };
        out.push(value);
    }
    Ok(out)
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
