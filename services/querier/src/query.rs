//! Queries: a place among those that run, the evaluation on a blocking thread, its end when nobody waits any more.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use model::query::{QueryAnswer, QueryValue};
use model::{Matcher, Tenant, Timestamp};
use parking_lot::Mutex;
use promql_engine::{Control, Engine, EngineOptions, Query, QueryOptions};
use rpc::convert::query::AnswerNotes;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::cut::Settings;
use crate::error::{Error, Result};
use crate::metrics::{Kind, Metrics, Reason};
use crate::source::Source;
use crate::sources::Sources;

/// What a sample takes while it is read: its time and its value. A source reads as many as fit into the query's
/// memory. How many are held at one time, which `query.max-samples` is about, the engine counts: of a selection that
/// is fewer, since it takes one series after the other.
pub(crate) const SAMPLE_BYTES: usize = 16;

/// How expressions are evaluated, those of rules as well.
pub(crate) fn engine_options(config: &Config) -> EngineOptions {
    let options = EngineOptions {
        lookback: config.lookback_delta.0,
        max_samples: usize::try_from(config.query_samples_max).unwrap_or(usize::MAX),
        max_memory_bytes: config.query_memory_bytes_max,
        timeout: config.query_timeout.0,
        ..EngineOptions::default()
    };
    options.with_features(&config.features)
}

/// When to evaluate.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Times {
    Instant(Timestamp),
    Range { start: Timestamp, end: Timestamp, step: Duration },
}

/// What is asked.
#[derive(Debug)]
pub(crate) struct QueryParams {
    pub(crate) tenant: Tenant,
    pub(crate) query: String,
    pub(crate) times: Times,
    pub(crate) lookback: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
    /// Most series in the answer.
    pub(crate) limit: usize,
    pub(crate) allow_partial: bool,
    /// Count samples by step as well; only with the feature `promql-per-step-stats`.
    pub(crate) per_step_stats: bool,
}

/// Evaluates queries, a bounded number at a time; those that wait are served in the order in which they came.
#[derive(Debug)]
pub(crate) struct Queries {
    pub(crate) sources: Arc<Sources>,
    options: EngineOptions,
    features: Vec<String>,
    partial_aggregation: bool,
    has_per_step_stats: bool,
    prometheus_config: config_watch::Latest,
    places: Arc<Semaphore>,
    metrics: Metrics,
}

impl Queries {
    pub(crate) fn new(
        config: &Config,
        sources: Arc<Sources>,
        prometheus_config: config_watch::Latest,
        metrics: Metrics,
    ) -> Self {
        let options = engine_options(config);
        let places = Arc::new(Semaphore::new(config.query_concurrency_max));
        let has_per_step_stats = config.features.iter().any(|f| f == "promql-per-step-stats");
        Self {
            sources,
            options,
            features: config.features.clone(),
            partial_aggregation: config.partial_aggregation,
            has_per_step_stats,
            prometheus_config,
            places,
            metrics,
        }
    }

    /// The matchers of each selector in an expression; `None` where there is none.
    ///
    /// # Errors
    /// When it does not parse.
    pub(crate) fn selectors(&self, query: &str) -> Result<Option<Vec<Vec<Matcher>>>> {
        let options = promql_syntax::Options::from_features(&self.features);
        let expr = promql_syntax::parse_expr(query, &options)
            .map_err(|e| Error::Query { kind: fault::Kind::Invalid, message: e.to_string() })?;
        let mut all = Vec::new();
        expr.walk_selectors(&mut |selector| all.push(selector.matchers.clone()));
        Ok((!all.is_empty()).then_some(all))
    }

    /// How many samples fit into a query's memory.
    pub(crate) fn samples_max(&self) -> usize {
        self.options.max_memory_bytes / SAMPLE_BYTES
    }

    /// The longest a query may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.options.timeout
    }

    /// Evaluates a query. Dropping the future cancels the evaluation.
    pub(crate) async fn run(&self, params: QueryParams) -> Result<(QueryAnswer, AnswerNotes)> {
        let started = Instant::now();
        let outcome = self.evaluate(params, started, Running::begin(&self.metrics)).await;
        self.metrics.seconds.observe(started.elapsed().as_secs_f64());
        // Counters return what they stood at, which nobody needs here.
        let _before: u64 = match &outcome {
            Ok((answer, _)) => self.metrics.samples.inc_by(answer.stats.samples_total),
            Err(error) => self.metrics.failures.get_or_create(&Kind { kind: error.kind().as_str() }).inc(),
        };
        outcome
    }

    async fn evaluate(
        &self,
        params: QueryParams,
        started: Instant,
        running: Running,
    ) -> Result<(QueryAnswer, AnswerNotes)> {
        let longest = self.options.timeout;
        let timeout = params.timeout.map_or(longest, |t| t.min(longest));
        let deadline = started + timeout;
        let options = self.options_now();
        let query = prepare(options.clone(), &params).map_err(|e| query_error(&e))?;
        let waiting = tokio::time::timeout(timeout, Arc::clone(&self.places).acquire_owned()).await;
        let place = waiting.map_err(|_| query_error(&promql_engine::Error::Timeout))?;
        let place = place.map_err(|_| query_error(&promql_engine::Error::Canceled))?;
        let queue_seconds = started.elapsed().as_secs_f64();

        let missing = Arc::new(Mutex::new(Vec::new()));
        let canceled = CancellationToken::new();
        let source = Source {
            runtime: Handle::current(),
            sources: Arc::clone(&self.sources),
            tenant: params.tenant,
            samples_max: self.samples_max() as u64,
            allow_partial: params.allow_partial,
            deadline,
            canceled: canceled.clone(),
            missing: Arc::clone(&missing),
            settings: Some(Arc::new(Settings {
                options,
                features: self.features.clone(),
                metrics: self.metrics.clone(),
            })),
        };
        let query_options = QueryOptions {
            lookback: params.lookback,
            per_step_stats: params.per_step_stats && self.has_per_step_stats,
            cuts: self.partial_aggregation,
            ..QueryOptions::default()
        };
        let control = Control::default();
        // The evaluation, and its waits for heads and files, end with the request that wants it. That it has gone is
        // noted first.
        let left = LeftOnDrop(Arc::clone(&running.left));
        let _cancel = (left, control.drop_guard(), canceled.drop_guard());
        let began = Instant::now();
        let evaluation = tokio::task::spawn_blocking(move || {
            let _held = (place, running);
            run(query, query_options, &source, &control)
        });
        let answer = evaluation.await.map_err(|e| Error::Query {
            kind: fault::Kind::Internal,
            message: format!("evaluation ended early: {e}"),
        })?;
        let mut answer = answer.map_err(|e| query_error(&e))?;
        let is_truncated = truncate(&mut answer.value, params.limit);
        let missing = std::mem::take(&mut *missing.lock());
        let eval_seconds = began.elapsed().as_secs_f64();
        Ok((
            answer,
            AnswerNotes { missing, is_truncated, queue_seconds, eval_seconds, ..AnswerNotes::default() },
        ))
    }

    /// The options as `prometheus.yml` has them at present.
    fn options_now(&self) -> EngineOptions {
        let mut options = self.options.clone();
        if let Some(revision) = &*self.prometheus_config.borrow() {
            options.subquery_step = Duration::from_millis(revision.message.evaluation_interval_ms.max(1));
        }
        options
    }
}

/// When whoever wanted a query went away.
type Left = Arc<OnceLock<Instant>>;

/// Notes that nobody wants the query any more, or that it is answered.
struct LeftOnDrop(Left);

impl Drop for LeftOnDrop {
    fn drop(&mut self) {
        self.0.get_or_init(Instant::now);
    }
}

/// Counts a query for as long as it waits or its evaluation goes on, whoever still wants it.
struct Running {
    metrics: Metrics,
    left: Left,
}

impl Running {
    fn begin(metrics: &Metrics) -> Self {
        metrics.running.inc();
        Self { metrics: metrics.clone(), left: Left::default() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.metrics.running.dec();
        if let Some(left) = self.left.get() {
            self.metrics.release_seconds.observe(left.elapsed().as_secs_f64());
        }
    }
}

fn prepare(options: EngineOptions, params: &QueryParams) -> promql_engine::Result<Query> {
    let engine = Engine::new(options);
    match params.times {
        Times::Instant(time) => engine.instant(&params.query, time),
        Times::Range { start, end, step } => engine.range(&params.query, start, end, step),
    }
}

/// Runs a query, and once more from whole series where parts do not do.
fn run(
    query: Query,
    options: QueryOptions,
    source: &Source,
    control: &Control,
) -> promql_engine::Result<QueryAnswer> {
    let timed = |options| {
        let remaining = source.deadline.saturating_duration_since(Instant::now());
        query.clone().with_options(QueryOptions { timeout: Some(remaining), ..options })
    };
    match timed(options).run(source, control) {
        Err(promql_engine::Error::OrderMatters) => {
            source.settings.iter().for_each(|settings| settings.metrics.whole(Reason::Order));
            source.missing.lock().clear();
            timed(QueryOptions { cuts: false, ..options }).run(source, control)
        }
        answer => answer,
    }
}

fn query_error(error: &promql_engine::Error) -> Error {
    Error::Query { kind: error.kind(), message: error.to_string() }
}

/// Cuts an answer to a number of series; says whether anything was cut.
fn truncate(value: &mut QueryValue, limit: usize) -> bool {
    let len = match value {
        QueryValue::Vector(elements) => elements.len(),
        QueryValue::Matrix(series) => series.len(),
        QueryValue::Scalar(..) | QueryValue::String(..) => 0,
    };
    match value {
        QueryValue::Vector(elements) => elements.truncate(limit),
        QueryValue::Matrix(series) => series.truncate(limit),
        QueryValue::Scalar(..) | QueryValue::String(..) => {}
    }
    len > limit
}
