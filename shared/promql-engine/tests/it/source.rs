//! A source in memory, and short ways to ask it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::matcher::Matcher;
use model::query::{PointValue, QueryAnswer, QueryValue};
use model::{FloatHistogram, Labels, Timestamp};
use promql_engine::{
    Column, Control, Engine, EngineOptions, Error, Selection, SeriesSamples, SeriesSet, SeriesSource,
    SourceError,
};
use promql_syntax::Options;

/// Series in memory.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    series: BTreeMap<Labels, SeriesSamples>,
}

impl Memory {
    /// Adds a series with a value every `interval` seconds from time 0 on; NaN leaves a gap.
    pub(crate) fn regular(mut self, labels: &[(&str, &str)], interval: i64, values: &[f64]) -> Self {
        let at = |i: usize| i64::try_from(i).expect("few values") * interval * 1_000;
        let samples = values.iter().enumerate().filter(|(_, x)| !x.is_nan());
        let (times, values): (Vec<i64>, Vec<f64>) = samples.map(|(i, x)| (at(i), *x)).unzip();
        self.add(labels, times.into(), values);
        self
    }

    pub(crate) fn add(&mut self, labels: &[(&str, &str)], timestamps: Arc<[i64]>, values: Vec<f64>) {
        let floats = Column::new(timestamps, values);
        let samples = SeriesSamples { floats, ..SeriesSamples::default() };
        self.series.insert(Labels::from_pairs(labels.iter().copied()), samples);
    }

    pub(crate) fn add_histograms(
        &mut self,
        labels: &[(&str, &str)],
        timestamps: Arc<[i64]>,
        values: Vec<Arc<FloatHistogram>>,
    ) {
        let histograms = Column::new(timestamps, values);
        let samples = SeriesSamples { histograms, ..SeriesSamples::default() };
        self.series.insert(Labels::from_pairs(labels.iter().copied()), samples);
    }
}

impl SeriesSource for Memory {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesSet>, SourceError> {
        let matching =
            self.series.iter().filter(|(labels, _)| Matcher::all_match(&selection.matchers, labels));
        let (labels, samples): (Vec<Labels>, Vec<SeriesSamples>) =
            matching.map(|(labels, samples)| (labels.clone(), samples.clone())).unzip();
        Ok(Box::new(Selected { labels, samples: samples.into_iter() }))
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

/// The options of a server without flags, but with the whole language.
pub(crate) fn options() -> EngineOptions {
    EngineOptions { syntax: Options::all(), ..EngineOptions::default() }
}

pub(crate) fn ask(
    options: EngineOptions,
    source: &dyn SeriesSource,
    query: &str,
    at: i64,
) -> Result<QueryAnswer, Error> {
    Engine::new(options).instant(query, Timestamp(at * 1_000))?.run(source, &Control::default())
}

/// An instant query's elements as text, `{labels} value`.
pub(crate) fn vector(source: &dyn SeriesSource, query: &str, at: i64) -> Vec<String> {
    let answer = ask(options(), source, query, at).unwrap_or_else(|e| panic!("{query}: {e}"));
    let QueryValue::Vector(elements) = answer.value else { panic!("{query}: not a vector") };
    let show = |value: &PointValue| match value {
        PointValue::Float(x) => model::number::format_fixed(*x),
        PointValue::Histogram(h) => format!("{h:?}"),
    };
    elements.iter().map(|e| format!("{} {}", e.labels, show(&e.value))).collect()
}

/// A range query's floats: for each series its labels and (seconds, value).
pub(crate) fn matrix(
    source: &dyn SeriesSource,
    query: &str,
    (start, end, step): (i64, i64, u64),
) -> Vec<(String, Vec<(i64, f64)>)> {
    let engine = Engine::new(options());
    let query = engine
        .range(query, Timestamp(start), Timestamp(end), Duration::from_millis(step))
        .unwrap_or_else(|e| panic!("{query}: {e}"));
    let answer = query.run(source, &Control::default()).unwrap_or_else(|e| panic!("{}: {e}", query.text()));
    let QueryValue::Matrix(series) = answer.value else { panic!("not a matrix") };
    let floats = |s: &model::query::MatrixSeries| s.floats.iter().map(|(t, x)| (t.millis(), *x)).collect();
    series.iter().map(|s| (s.labels.to_string(), floats(s))).collect()
}
