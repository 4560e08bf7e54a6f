//! Aggregations in part, over the series of the head: evaluated as the querier would evaluate them, off the async
//! threads, a bounded number at a time.
//!
//! Invariants:
//! - what a part is made of is what was selected when it began, whatever is appended meanwhile;
//! - a part takes no longer than its querier waits, and ends when nobody wants it any more;
//! - nobody waits for a place while others wait for him: a place is held for the evaluation alone.

use std::sync::Arc;
use std::time::Duration;

use model::{Labels, Matcher, Tenant};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use promql_engine::partial::{Cut, Partial};
use promql_engine::{
    Column, Control, Engine, EngineOptions, Selection, SeriesSamples, SeriesSet, SeriesSource, SourceError,
};
use tokio::sync::Semaphore;
use tsdb::series::SeriesRow;

use crate::config::Config;
use crate::error::{Error, Result};

/// What is aggregated.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) tenant: Tenant,
    pub(crate) matchers: Vec<Matcher>,
    pub(crate) min_time: i64,
    pub(crate) max_time: i64,
    /// Most samples to read.
    pub(crate) samples_max: usize,
    pub(crate) cut: Cut,
    /// The querier's.
    pub(crate) options: EngineOptions,
}

/// Evaluates parts of aggregations.
#[derive(Debug, Clone)]
pub(crate) struct Aggregations {
    places: Arc<Semaphore>,
    memory_bytes_max: usize,
    running: Gauge,
}

/// Counts an evaluation for as long as it runs, which may be a moment longer than somebody wants it.
struct Running(Gauge);

impl Running {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Aggregations {
    pub(crate) fn new(config: &Config, running: Gauge) -> Self {
        Self {
            running,
            places: Arc::new(Semaphore::new(config.aggregations_max)),
            memory_bytes_max: config.aggregation_memory_bytes_max,
        }
    }

    /// Aggregates rows. Dropping the future cancels the evaluation.
    pub(crate) async fn run(&self, request: Request, mut rows: Vec<SeriesRow>) -> Result<Partial> {
        let mut options = request.options;
        options.max_memory_bytes = options.max_memory_bytes.min(self.memory_bytes_max);
        let waiting = tokio::time::timeout(options.timeout, Arc::clone(&self.places).acquire_owned()).await;
        let place = waiting.map_err(|_| Error::Query(promql_engine::Error::Timeout))?;
        let place = place.map_err(|_| Error::Query(promql_engine::Error::Canceled))?;
        let control = Control::default();
        let _cancel = control.drop_guard();
        let running = Running::new(&self.running);
        let evaluation = tokio::task::spawn_blocking(move || {
            let _held = (place, running);
            sort(&mut rows);
            Engine::new(options).partial(&request.cut, &Rows(Mutex::new(rows)), &control)
        });
        let ended = evaluation.await.map_err(|error| Error::Evaluation(error.to_string()))?;
        ended.map_err(Error::Query)
    }
}

/// Sorts rows as PromQL sorts series: by labels, where the head has the metric name first.
fn sort(rows: &mut [SeriesRow]) {
    // Only label names that sort before `__name__` make a difference.
    if !rows.is_sorted_by(|a, b| a.labels <= b.labels) {
        rows.sort_by(|a, b| a.labels.cmp(&b.labels));
    }
}

/// Divides rows into those at the places, which ascend, and the others.
pub(crate) fn divide(rows: Vec<SeriesRow>, places: &[u32]) -> (Vec<SeriesRow>, Vec<SeriesRow>) {
    let mut places = places.iter().peekable();
    let (mut at, mut others) = (Vec::with_capacity(places.len()), Vec::with_capacity(rows.len()));
    for (place, row) in (0..).zip(rows) {
        if places.next_if_eq(&&place).is_some() { at.push(row) } else { others.push(row) }
    }
    (at, others)
}

/// The rows as the one selection of a cut, which takes them away.
struct Rows(Mutex<Vec<SeriesRow>>);

impl SeriesSource for Rows {
    fn select(&self, _: &Selection) -> std::result::Result<Box<dyn SeriesSet>, SourceError> {
        let rows = std::mem::take(&mut *self.0.lock());
        let labels = rows.iter().map(|row| row.labels.clone()).collect();
        Ok(Box::new(Set { labels, rows: rows.into_iter() }))
    }
}

struct Set {
    labels: Vec<Labels>,
    rows: std::vec::IntoIter<SeriesRow>,
}

impl SeriesSet for Set {
    fn labels(&mut self) -> std::result::Result<&[Labels], SourceError> {
        Ok(&self.labels)
    }

    fn next(&mut self) -> std::result::Result<Option<SeriesSamples>, SourceError> {
        Ok(self.rows.next().map(|row| to_engine(row.samples)))
    }
}

fn to_engine(samples: tsdb::series::SeriesSamples) -> SeriesSamples {
    let tsdb::series::SeriesSamples { floats, histograms, start_timestamps: starts, .. } = samples;
    let values = histograms.values.iter().map(|h| Arc::new(h.to_float())).collect();
    SeriesSamples {
        floats: Column::new(floats.timestamps, floats.values.to_vec()).with_starts(&starts),
        histograms: Column::new(histograms.timestamps, values).with_starts(&starts),
    }
}

impl Request {
    /// How long the querier waits.
    pub(crate) fn timeout(&self) -> Duration {
        self.options.timeout
    }
}

#[cfg(test)]
mod tests {
    use model::Timestamp;
    use promql_engine::partial::{CutAround, CutGrid};
    use promql_syntax::Span;
    use tsdb::series::FloatColumn;

    use super::*;

    fn row(labels: &[(&str, &str)], values: Vec<f64>) -> SeriesRow {
        let times = (0..).take(values.len());
        let floats = FloatColumn { timestamps: times.collect(), values: values.into() };
        let samples = tsdb::series::SeriesSamples { floats, ..Default::default() };
        SeriesRow { labels: Labels::from_pairs(labels.iter().copied()), metadata: Arc::default(), samples }
    }

    /// A part of `sum(m)`, at time 0 and at as many milliseconds after it.
    fn request(count: u32, options: EngineOptions) -> Request {
        Request {
            tenant: Tenant::default(),
            matchers: vec![Matcher::equal("__name__", "m")],
            min_time: 0,
            max_time: 10,
            samples_max: usize::MAX,
            cut: Cut {
                query: "sum(m)".to_owned(),
                start: Timestamp(0),
                end: Timestamp(i64::from(count) - 1),
                step_ms: 1,
                span: Span::new(0, 6),
                grid: CutGrid { start: Timestamp(0), step_ms: 1, count },
                lookback: Duration::from_secs(300),
                keeps_names: true,
                around: CutAround::default(),
            },
            options,
        }
    }

    fn aggregations(config: Config) -> Aggregations {
        Aggregations::new(&config, Gauge::default())
    }

    #[tokio::test]
    async fn rows_are_added_up() {
        let rows =
            vec![row(&[("__name__", "m"), ("i", "1")], vec![1.0, 2.0]), row(&[("__name__", "m")], vec![5.0])];
        let partial = aggregations(Config::default()).run(request(2, EngineOptions::default()), rows).await;
        let partial = partial.expect("aggregated");
        assert_eq!(partial.groups.len(), 1);
        // A sum and its compensation for each of two steps; the lookback reaches the first sample from both.
        assert_eq!(partial.groups[0].numbers, [6.0, 0.0, 7.0, 0.0]);
        assert!(partial.is_order_free);
    }

    #[tokio::test]
    async fn limits_are_the_queriers_and_our_own() {
        let rows = || vec![row(&[("__name__", "m")], vec![1.0])];
        let too_few = EngineOptions { max_samples: 5, ..EngineOptions::default() };
        let error = aggregations(Config::default()).run(request(10, too_few), rows()).await;
        assert_eq!(error.expect_err("too many").kind(), fault::Kind::Limit);
        let small = Config { aggregation_memory_bytes_max: 100, ..Config::default() };
        let error = aggregations(small).run(request(10, EngineOptions::default()), rows()).await;
        assert_eq!(error.expect_err("too much").kind(), fault::Kind::Limit);
        let at_once = EngineOptions { timeout: Duration::ZERO, ..EngineOptions::default() };
        let error = aggregations(Config::default()).run(request(10, at_once), rows()).await;
        assert_eq!(error.expect_err("no time").kind(), fault::Kind::Timeout);
        let mut other = request(10, EngineOptions::default());
        other.cut.span = Span::new(1, 6);
        let error = aggregations(Config::default()).run(other, rows()).await;
        assert_eq!(error.expect_err("no aggregation").kind(), fault::Kind::Invalid);
    }

    /// With one place, the next part waits until the one before is dropped and its evaluation has ended.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_part_that_nobody_waits_for_ends() {
        let aggregations = aggregations(Config { aggregations_max: 1, ..Config::default() });
        let rows: Vec<SeriesRow> =
            (0..30_000).map(|i| row(&[("__name__", "m"), ("i", &format!("{i:05}"))], vec![1.0])).collect();
        let mut long = request(Cut::STEPS_MAX as u32, EngineOptions::default());
        long.cut.lookback = Duration::from_secs(1);
        let slow = aggregations.run(long, rows);
        let is_busy = async {
            while aggregations.running.get() == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            ended = slow => panic!("no time to give up: {ended:?}"),
            () = is_busy => {}
        }
        let quick = aggregations
            .run(request(1, EngineOptions::default()), vec![row(&[("__name__", "m")], vec![1.0])]);
        let quick = tokio::time::timeout(Duration::from_secs(20), quick).await.expect("in time");
        assert_eq!(quick.expect("aggregated").groups[0].numbers, [1.0, 0.0]);
    }

    #[test]
    fn rows_are_divided_by_place() {
        let rows = ["a", "b", "c", "d"].map(|n| row(&[("__name__", n)], vec![1.0]));
        let names =
            |rows: &[SeriesRow]| rows.iter().map(|r| r.labels.metric_name().to_owned()).collect::<Vec<_>>();
        let (at, others) = divide(rows.into(), &[0, 2]);
        assert_eq!(
            (names(&at), names(&others)),
            (vec!["a".into(), "c".into()], vec!["b".into(), "d".into()])
        );
        let mut odd =
            vec![row(&[("__name__", "a")], vec![1.0]), row(&[("Zone", "1"), ("__name__", "b")], vec![1.0])];
        sort(&mut odd);
        assert_eq!(odd[0].labels.metric_name(), "b");
    }
}
