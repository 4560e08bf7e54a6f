//! What ends a query before its time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{FloatHistogram, Labels, Span, Timestamp};
use promql_engine::{
    Column, Control, Engine, EngineOptions, Error, ErrorType, QueryOptions, Selection, SeriesSamples,
    SeriesSet, SeriesSource, SourceError,
};
use proptest::prelude::*;

use crate::source::{Memory, ask, options};

fn thousand() -> Memory {
    Memory::default().regular(&[("__name__", "a")], 1, &[1.0; 1_000]).regular(
        &[("__name__", "b")],
        1,
        &[1.0; 1_000],
    )
}

#[test]
fn samples_held_are_limited() {
    let with = |max_samples| EngineOptions { max_samples, ..options() };
    let peak = ask(with(usize::MAX), &thousand(), "sum_over_time(a[1000s])", 999).expect("an answer").stats;
    // The samples of one series; the answer comes when they are gone.
    assert_eq!((peak.samples_peak, peak.samples_read), (1_000, 1_000));
    for (max, is_allowed) in [(999, false), (1_000, true)] {
        let answer = ask(with(max), &thousand(), "sum_over_time(a[1000s])", 999);
        assert_eq!(answer.is_ok(), is_allowed, "{max}");
    }
    // Series are read one after the other: two take no more than one, besides the answer.
    assert!(ask(with(1_010), &thousand(), "count(last_over_time({__name__=~'a|b'}[1000s]))", 999).is_ok());
    let error = ask(with(10), &thousand(), "a[1000s]", 999).expect_err("too many");
    assert_eq!(error, Error::TooManySamples);
    assert_eq!(
        error.to_string(),
        "query processing would load too many samples into memory in query execution"
    );
    assert_eq!(error.error_type(), ErrorType::Execution);
    let error = ask(options(), &thousand(), "sum_over_time(a[1y:1ms])", 999).expect_err("too many steps");
    assert_eq!(error, Error::TooManySamples);
}

#[test]
fn memory_is_limited() {
    let with = |max_memory_bytes| EngineOptions { max_memory_bytes, ..options() };
    // A thousand samples of 16 bytes, and little else.
    assert!(ask(with(20_000), &thousand(), "sum_over_time(a[1000s])", 999).is_ok());
    let error = ask(with(16_000), &thousand(), "sum_over_time(a[1000s])", 999).expect_err("too much");
    assert_eq!(
        error.to_string(),
        "query processing would hold more than the limit of 16000 bytes in memory in query execution"
    );
    assert_eq!(error.error_type(), ErrorType::Execution);
    // Rows count although they hold no sample: a hundred operators, two million steps.
    let nested = format!("count_over_time({}none{}[20d:1s])", "abs(".repeat(100), ")".repeat(100));
    let error = ask(with(1 << 30), &thousand(), &nested, 999).expect_err("too much");
    assert!(matches!(error, Error::TooMuchMemory { .. }), "{error}");
}

#[test]
fn samples_are_counted_by_step() {
    let engine = Engine::new(options());
    let count = |text: &str| {
        let (start, end) = (Timestamp(100_000), Timestamp(115_000));
        let query = engine.range(text, start, end, Duration::from_secs(5)).expect("valid");
        let query = query.with_options(QueryOptions { per_step_stats: true, ..QueryOptions::default() });
        let stats = query.run(&thousand(), &Control::default()).expect("an answer").stats;
        assert_eq!(stats.samples_total, stats.steps.iter().map(|s| s.samples_total).sum::<u64>(), "{text}");
        assert_eq!(stats.samples_read, stats.steps.iter().map(|s| s.samples_read).sum::<u64>(), "{text}");
        assert_eq!(stats.steps[3].time, end);
        stats.steps.iter().map(|s| (s.samples_total, s.samples_read)).collect::<Vec<_>>()
    };
    // Two series with a sample a second.
    assert_eq!(count("{__name__=~'a|b'}"), [(2, 2); 4]);
    // Windows of 10 samples, of which 5 are new from step to step.
    assert_eq!(count("sum_over_time(a[10s])"), [(10, 10), (10, 5), (10, 5), (10, 5)]);
    // Read once, seen at each step.
    assert_eq!(count("a @ 100"), [(1, 1), (1, 0), (1, 0), (1, 0)]);
    // A window shows four points of the subquery. Its inside reads at 92, 94, ... 114.
    let subquery = count("count_over_time(a[8s:2s])");
    assert_eq!(subquery.iter().map(|s| s.0).collect::<Vec<_>>(), [4; 4]);
    assert_eq!(subquery.iter().map(|s| s.1).sum::<u64>(), 11);
    assert!(ask(options(), &thousand(), "a", 10).expect("an answer").stats.steps.is_empty());
}

/// A source without end, which cancels the query after a while.
struct Endless {
    control: Control,
}

struct EndlessSet {
    control: Control,
    labels: Vec<Labels>,
    read: usize,
    timeline: Arc<[i64]>,
}

impl SeriesSource for Endless {
    fn select(&self, _: &Selection) -> Result<Box<dyn SeriesSet>, SourceError> {
        let labels: Vec<Labels> =
            (0..10_000).map(|i| Labels::from_pairs([("i", format!("{i:05}"))])).collect();
        let timeline = (0..1_000).collect();
        Ok(Box::new(EndlessSet { control: self.control.clone(), labels, read: 0, timeline }))
    }
}

impl SeriesSet for EndlessSet {
    fn labels(&mut self) -> Result<&[Labels], SourceError> {
        Ok(&self.labels)
    }

    fn next(&mut self) -> Result<Option<SeriesSamples>, SourceError> {
        self.read += 1;
        assert!(self.read < 200, "read on long after the cancellation");
        if self.read == 100 {
            self.control.cancel();
        }
        let floats = Column::new(Arc::clone(&self.timeline), vec![1.0; 1_000]);
        Ok(Some(SeriesSamples { floats, ..SeriesSamples::default() }))
    }
}

#[test]
fn a_cancelled_query_stops_soon() {
    let control = Control::default();
    let source = Endless { control: control.clone() };
    let query =
        Engine::new(options()).instant("sum(sum_over_time({i!=''}[1s]))", Timestamp(1_000)).expect("valid");
    let error = query.run(&source, &control).expect_err("cancelled");
    assert_eq!(error.to_string(), "query was canceled in expression evaluation");
    assert_eq!((error.kind(), error.error_type()), (fault::Kind::Cancelled, ErrorType::Canceled));
}

/// Many series that share their times.
struct Wide {
    series: usize,
    samples: i64,
    is_histogram: bool,
}

struct WideSet {
    labels: Vec<Labels>,
    sample: SeriesSamples,
    read: usize,
}

impl SeriesSource for Wide {
    fn select(&self, _: &Selection) -> Result<Box<dyn SeriesSet>, SourceError> {
        let labels = |i: usize| Labels::from_pairs([("__name__", "a".to_owned()), ("i", format!("{i:07}"))]);
        let labels = (0..self.series).map(labels).collect();
        let timeline: Arc<[i64]> = (0..self.samples).map(|i| i * 1_000).collect();
        let sample = if self.is_histogram {
            let histogram = |i: &i64| {
                Arc::new(FloatHistogram {
                    count: 100.0 * *i as f64,
                    positive_spans: vec![Span { offset: 1, length: 100 }],
                    positive_buckets: vec![*i as f64; 100],
                    ..FloatHistogram::default()
                })
            };
            let histograms = timeline.iter().map(histogram).collect();
            SeriesSamples { histograms: Column::new(timeline, histograms), ..SeriesSamples::default() }
        } else {
            let values = timeline.iter().map(|i| (i % 7_919) as f64).collect();
            SeriesSamples { floats: Column::new(timeline, values), ..SeriesSamples::default() }
        };
        Ok(Box::new(WideSet { labels, sample, read: 0 }))
    }
}

impl SeriesSet for WideSet {
    fn labels(&mut self) -> Result<&[Labels], SourceError> {
        Ok(&self.labels)
    }

    fn next(&mut self) -> Result<Option<SeriesSamples>, SourceError> {
        self.read += 1;
        Ok((self.read <= self.labels.len()).then(|| self.sample.clone()))
    }
}

/// Computations that would take from many seconds to many minutes, each busy in another place.
const LONG: [&str; 16] = [
    "sum(rate(a[30m]))",
    "sum by (i) (a) + 1",
    "topk(10, a)",
    "count_values('v', a)",
    "quantile(0.5, a)",
    "a + on (i) a",
    "a and on (i) a",
    "sort_by_label(label_replace(a, 'j', '$1', 'i', '(.*)'), 'i')",
    "absent(a > 1e9)",
    "quantile_over_time(0.3, a[1h])",
    "max_over_time(sum(a)[1h:1s])",
    "histogram_quantile(0.9, a)",
    "scalar(a) + time() + time() + time()",
    "-(a * 2) ^ 2",
    "stddev(deriv(a[1h]))",
    "limitk(5, a)",
];

/// Runs a long query and says how long it took to end after it was told to, by the caller or by the clock.
fn time_to_end(query: &str, source: &Wide, is_cancelled: bool) -> (Error, Duration) {
    const RUNS_FOR: Duration = Duration::from_millis(100);
    let engine = Engine::new(EngineOptions {
        max_samples: usize::MAX,
        max_memory_bytes: usize::MAX,
        timeout: if is_cancelled { Duration::from_secs(600) } else { RUNS_FOR },
        ..options()
    });
    let range = engine.range(query, Timestamp(0), Timestamp(3_600_000), Duration::from_millis(1_000));
    let (query, control) = (range.expect("valid"), Control::default());
    let began = Instant::now();
    let (error, ended) = std::thread::scope(|scope| {
        let running = scope.spawn(|| (query.run(source, &control), Instant::now()));
        std::thread::sleep(RUNS_FOR);
        if is_cancelled {
            control.cancel();
        }
        running.join().expect("no panic")
    });
    (error.expect_err(query.text()), ended - began.min(ended) - RUNS_FOR.min(ended - began))
}

#[test]
fn long_computations_end_soon_after_they_are_told_to() {
    let floats = Wide { series: 200_000, samples: 3_600, is_histogram: false };
    let histograms = Wide { series: 200_000, samples: 600, is_histogram: true };
    let all = LONG.iter().map(|query| (*query, &floats)).chain([
        ("sum(a)", &histograms),
        ("sum(rate(a[5m]))", &histograms),
        ("a * 2 + a", &histograms),
        ("histogram_quantile(0.9, avg_over_time(a[5m]))", &histograms),
    ]);
    for (query, source) in all {
        for (is_cancelled, expected) in [(true, Error::Canceled), (false, Error::Timeout)] {
            let is_soon = || {
                let (error, late) = time_to_end(query, source, is_cancelled);
                assert_eq!(error, expected, "{query}");
                // Far less than it would have gone on for; how soon in truth is for a benchmark to say.
                late < Duration::from_secs(2)
            };
            // A busy machine may hold it up, but not each time.
            assert!((0..3).any(|_| is_soon()), "{query}: goes on long after {expected:?}");
        }
    }
}

/// More metric names to be warned about than are kept.
#[test]
fn notes_are_limited() {
    let mut source = Memory::default();
    for i in 0..1_500 {
        source = source.regular(&[("__name__", &format!("m{i}"))], 60, &[1.0, 2.0]);
    }
    let with = EngineOptions { annotations_max: usize::MAX, delayed_name_removal: true, ..options() };
    let answer = ask(with, &source, "sum by (__name__) (rate({__name__=~'m.*'}[5m]))", 60).err();
    assert_eq!(
        answer.map(|e| e.to_string()),
        Some("vector cannot contain metrics with the same labelset".into())
    );
    let with = EngineOptions { annotations_max: usize::MAX, delayed_name_removal: true, ..options() };
    let answer = ask(with, &source, "count(rate({__name__=~'m.*'}[5m]))", 60).expect("an answer");
    assert_eq!(answer.infos.len(), 1_000);
    let answer = ask(
        EngineOptions { delayed_name_removal: true, ..options() },
        &source,
        "count(rate({__name__=~'m.*'}[5m]))",
        60,
    );
    let infos = answer.expect("an answer").infos;
    assert_eq!((infos.len(), &*infos[10]), (11, "990 more info annotations omitted"));
}

#[test]
fn the_shorter_timeout_counts() {
    let engine = Engine::new(options());
    let at_once = QueryOptions { timeout: Some(Duration::ZERO), ..QueryOptions::default() };
    let query = engine.instant("a", Timestamp(0)).expect("valid").with_options(at_once);
    let error = query.run(&thousand(), &Control::default()).expect_err("no time");
    assert_eq!(error.to_string(), "query timed out in expression evaluation");
    assert_eq!((error.kind(), error.error_type()), (fault::Kind::Timeout, ErrorType::Timeout));
    let engine = Engine::new(EngineOptions { timeout: Duration::ZERO, ..options() });
    let longer = QueryOptions { timeout: Some(Duration::from_secs(9)), ..QueryOptions::default() };
    let query = engine.instant("a", Timestamp(0)).expect("valid").with_options(longer);
    assert_eq!(query.run(&thousand(), &Control::default()), Err(Error::Timeout));
}

#[test]
fn a_query_may_look_back_differently() {
    let engine = Engine::new(options());
    let query = engine.instant("count(a)", Timestamp(1_500_000)).expect("valid");
    let lookback =
        |seconds| QueryOptions { lookback: Some(Duration::from_secs(seconds)), ..QueryOptions::default() };
    for (seconds, is_seen) in [(501, false), (502, true)] {
        let answer = query.clone().with_options(lookback(seconds)).run(&thousand(), &Control::default());
        let expected = if is_seen { 1 } else { 0 };
        let model::query::QueryValue::Vector(elements) = answer.expect("an answer").value else {
            panic!("vector")
        };
        assert_eq!(elements.len(), expected, "{seconds}");
    }
}

/// A source that fails.
struct Broken;

impl SeriesSource for Broken {
    fn select(&self, _: &Selection) -> Result<Box<dyn SeriesSet>, SourceError> {
        Err(SourceError::new(fault::Kind::Unavailable, "ingester-3 is away"))
    }
}

#[test]
fn a_failing_source_fails_the_query() {
    let error = ask(options(), &Broken, "a + b", 0).expect_err("broken");
    assert_eq!(error.to_string(), "expanding series: ingester-3 is away");
    assert_eq!((error.kind(), error.error_type()), (fault::Kind::Unavailable, ErrorType::Unavailable));
}

/// A source that has more samples than it may give.
struct TooMany;

impl SeriesSource for TooMany {
    fn select(&self, _: &Selection) -> Result<Box<dyn SeriesSet>, SourceError> {
        Err(SourceError::new(fault::Kind::Limit, "ingester-3: more than the limit of 1000"))
    }
}

#[test]
fn a_limit_that_the_source_meets_is_the_querys() {
    let error = ask(options(), &TooMany, "a", 0).expect_err("too many");
    assert_eq!(
        error.to_string(),
        "query processing would load too many samples into memory in query execution"
    );
}

#[test]
fn ranges_and_types_are_checked() {
    let engine = Engine::new(options());
    let (start, second) = (Timestamp(0), Duration::from_secs(1));
    let of = |text, end, step| {
        engine.range(text, start, Timestamp(end), step).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(
        of("a[5m]", 1, second),
        Err("invalid expression type \"range vector\" for range query, must be Scalar or instant Vector"
            .into())
    );
    assert!(of("a", 1, Duration::ZERO).is_err());
    assert!(of("a", i64::MAX, Duration::from_millis(1)).is_err());
    assert_eq!(of("a", -1, second), Ok(()));
}

/// As high as the parser lets a tree become, on a stack as small as that of a blocking thread.
#[test]
fn high_trees_fit_on_a_small_stack() {
    let run = || {
        for height in [99, 100, promql_syntax::TREE_HEIGHT_MAX - 10] {
            let sum = vec!["a"; height].join(" + ");
            assert!(ask(options(), &thousand(), &sum, 10).is_ok());
        }
        for depth in [99, 100, promql_syntax::NESTING_MAX - 10] {
            let signs = "-".repeat(depth) + "a";
            assert!(ask(options(), &thousand(), &signs, 10).is_ok());
            let calls = "abs(".repeat(depth) + "a" + &")".repeat(depth);
            assert!(ask(options(), &thousand(), &calls, 10).is_ok());
        }
    };
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(run).expect("a thread");
    thread.join().expect("no overflow");
}

proptest! {
    /// Whatever the times, a query ends with an answer or an error.
    #[test]
    fn extreme_times_do_no_harm(
        start in prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(0), any::<i64>()],
        query in prop::sample::select(vec![
            "a", "a offset 5m", "a offset -5m", "rate(a[5m])", "a[5m]", "sum_over_time(a[5m:1m])",
            "a @ 1e15", "minute()", "time()", "a smoothed", "increase(a[5m] anchored)", "year(vector(1e300))",
        ]),
    ) {
        let query = Engine::new(options()).instant(query, Timestamp(start)).expect("valid");
        query.run(&thousand(), &Control::default()).ok();
    }
}
