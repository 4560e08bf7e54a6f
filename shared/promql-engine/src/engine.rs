//! The engine: options, prepared queries, and the assembly of answers.
//!
//! A query is prepared (parsed, checked) and then run against a source, on the calling thread, to its end (on a
//! thread of its own, waited for, where the expression is so deep that the caller's stack might not do). Another
//! thread may cancel it through its [`Control`]; that and the timeout take effect within milliseconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use model::Timestamp;
use model::query::{MatrixSeries, PointValue, QueryAnswer, QueryValue, VectorElement};
use promql_syntax::{Edges, Expr, Options, ValueType, parse_expr};

use crate::context::{Context, STEPS_MAX};
use crate::error::{Error, Result};
use crate::merge::Merge;
use crate::partial::{Cut, Partial};
use crate::plan::{Around, Planner, QueryTimes};
use crate::points::{BoxOperator, Grid, Point, clear, row};
use crate::range::with_edges;
use crate::source::{Recorder, Selection, SeriesSource};

/// How queries are evaluated. The default is that of a Prometheus server without flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// Which parts of the language are on.
    pub syntax: Options,
    /// How long a sample stands for its series (`--query.lookback-delta`).
    pub lookback: Duration,
    /// The most samples a query may hold at one time (`--query.max-samples`).
    pub max_samples: usize,
    /// The most memory a query may take, in bytes: samples, labels, rows and accumulators.
    pub max_memory_bytes: usize,
    /// The longest time a query may take (`--query.timeout`).
    pub timeout: Duration,
    /// The step of a subquery that names none: the global evaluation interval.
    pub subquery_step: Duration,
    /// Metric names are dropped when the evaluation ends (`promql-delayed-name-removal`).
    pub delayed_name_removal: bool,
    /// Start timestamps tell of counter resets (`use-start-timestamps`).
    pub start_timestamps: bool,
    /// The type label decides whether something is a counter (`type-and-unit-labels`).
    pub type_and_unit_labels: bool,
    /// How many warnings and how many infos an answer has at most.
    pub annotations_max: usize,
}

impl EngineOptions {
    /// Switches on what the feature flags name; names of other things are passed over.
    #[must_use]
    pub fn with_features(self, features: &[String]) -> Self {
        let has = |feature: &str| features.iter().any(|f| f == feature);
        Self {
            syntax: Options::from_features(features),
            delayed_name_removal: has("promql-delayed-name-removal"),
            start_timestamps: has("use-start-timestamps"),
            type_and_unit_labels: has("type-and-unit-labels"),
            ..self
        }
    }
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            syntax: Options::default(),
            lookback: Duration::from_secs(300),
            max_samples: 50_000_000,
            max_memory_bytes: 2 << 30,
            timeout: Duration::from_secs(120),
            subquery_step: Duration::from_secs(60),
            delayed_name_removal: false,
            start_timestamps: false,
            type_and_unit_labels: false,
            annotations_max: 10,
        }
    }
}

/// What a caller may set for one query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueryOptions {
    /// Instead of the engine's lookback.
    pub lookback: Option<Duration>,
    /// Shortens the engine's timeout.
    pub timeout: Option<Duration>,
    /// Counts samples by step as well (`promql-per-step-stats`).
    pub per_step_stats: bool,
    /// Offers the source to compute aggregations in parts; not together with counts by step. A query that fails with
    /// [`Error::OrderMatters`] is to be run again without.
    pub cuts: bool,
}

/// Lets another thread cancel a running query; cloning gives another handle.
#[derive(Debug, Clone, Default)]
pub struct Control {
    canceled: Arc<AtomicBool>,
}

impl Control {
    /// Makes the query stop with [`Error::Canceled`].
    pub fn cancel(&self) {
        self.canceled.store(true, Ordering::Relaxed);
    }

    /// Cancels the query when the guard is dropped: with the request that wants it.
    #[must_use]
    pub fn drop_guard(&self) -> CancelOnDrop {
        CancelOnDrop(self.clone())
    }
}

/// Cancels a query when it is dropped; see [`Control::drop_guard`].
#[derive(Debug)]
pub struct CancelOnDrop(Control);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Prepares queries.
///
/// ```
/// use model::query::QueryValue;
/// use model::{Labels, Timestamp};
/// use promql_engine::{Control, Engine, Selection, SeriesSamples, SeriesSet, SeriesSource, SourceError};
///
/// struct Nothing;
///
/// impl SeriesSource for Nothing {
///     fn select(&self, _: &Selection) -> Result<Box<dyn SeriesSet>, SourceError> {
///         Ok(Box::new(Nothing))
///     }
/// }
///
/// impl SeriesSet for Nothing {
///     fn labels(&mut self) -> Result<&[Labels], SourceError> {
///         Ok(&[])
///     }
///
///     fn next(&mut self) -> Result<Option<SeriesSamples>, SourceError> {
///         Ok(None)
///     }
/// }
///
/// let query = Engine::default().instant("1 + scalar(vector(1))", Timestamp(0))?;
/// let answer = query.run(&Nothing, &Control::default())?;
/// assert_eq!(answer.value, QueryValue::Scalar(Timestamp(0), 2.0));
/// # Ok::<(), promql_engine::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Engine {
    options: Arc<EngineOptions>,
}

impl Engine {
    /// Makes an engine.
    #[must_use]
    pub fn new(options: EngineOptions) -> Self {
        Self { options: Arc::new(options) }
    }

    /// Returns how queries are evaluated.
    #[must_use]
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Prepares a query that is evaluated at one time.
    ///
    /// # Errors
    /// When the text is not a valid expression.
    pub fn instant(&self, text: &str, time: Timestamp) -> Result<Query> {
        let times = QueryTimes { start: time.millis(), end: time.millis(), step: 0 };
        self.prepare(text, times)
    }

    /// Prepares a query that is evaluated from `start` to `end`, both inclusive, at every `step`.
    ///
    /// # Errors
    /// When the text is not a valid expression of a type that a range query can have, the step is not positive or
    /// there would be too many steps.
    pub fn range(&self, text: &str, start: Timestamp, end: Timestamp, step: Duration) -> Result<Query> {
        let step = i64::try_from(step.as_millis()).unwrap_or(i64::MAX);
        if step <= 0 {
            return Err(Error::Invalid(
                "zero or negative query resolution step widths are not accepted".into(),
            ));
        }
        let times = QueryTimes { start: start.millis(), end: end.millis(), step };
        let query = self.prepare(text, times)?;
        let value_type = query.expr.value_type();
        if !matches!(value_type, ValueType::Vector | ValueType::Scalar) {
            return Err(Error::Invalid(format!(
                "invalid expression type \"{}\" for range query, must be Scalar or instant Vector",
                value_type.documented()
            )));
        }
        if query.grid().count > STEPS_MAX {
            return Err(Error::TooManySamples);
        }
        Ok(query)
    }

    /// Computes a part of an aggregation: over the series that the source has, which are all for this part. The
    /// engine's options must be those of the engine that made the cut.
    ///
    /// # Errors
    /// When the query has no such aggregation, and as for [`Query::run`].
    pub fn partial(&self, cut: &Cut, source: &dyn SeriesSource, control: &Control) -> Result<Partial> {
        let times = QueryTimes { start: cut.start.millis(), end: cut.end.millis(), step: cut.step_ms };
        let options = QueryOptions { lookback: Some(cut.lookback), ..QueryOptions::default() };
        let query = self.prepare(&cut.query, times)?.with_options(options);
        on_stack_for(&query.expr, || {
            let mut cx = query.context(source, control)?;
            Planner { times }.part(&mut cx, &query.expr, cut)
        })
    }

    fn prepare(&self, text: &str, times: QueryTimes) -> Result<Query> {
        let mut expr = parse_expr(text, &self.options.syntax)?;
        expr.resolve_durations(Timestamp(times.start), Timestamp(times.end), times.step)?;
        Ok(Query {
            engine: self.clone(),
            text: text.to_owned(),
            expr,
            times,
            options: QueryOptions::default(),
        })
    }
}

/// A prepared query.
#[derive(Debug, Clone)]
pub struct Query {
    engine: Engine,
    text: String,
    expr: Expr,
    times: QueryTimes,
    options: QueryOptions,
}

impl Query {
    /// Sets what is special to this query.
    #[must_use]
    pub fn with_options(mut self, options: QueryOptions) -> Self {
        self.options = options;
        self
    }

    /// Returns the text as it was given.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the expression.
    #[must_use]
    pub fn expr(&self) -> &Expr {
        &self.expr
    }

    fn grid(&self) -> Grid {
        match self.times.step {
            0 => Grid::single(self.times.start),
            step => Grid::new(self.times.start, self.times.end, step),
        }
    }

    /// Evaluates the query on this thread; may take as long as the timeout. Run it where blocking is allowed.
    ///
    /// # Errors
    /// When the evaluation fails, a limit is met, the time is up or the query is cancelled.
    pub fn run(&self, source: &dyn SeriesSource, control: &Control) -> Result<QueryAnswer> {
        on_stack_for(&self.expr, || self.run_here(source, control))
    }

    /// Returns what the query selects, as far as that does not depend on what is in other series. A query that cannot be
    /// planned selects nothing.
    #[must_use]
    pub fn selections(&self) -> Vec<Selection> {
        let (recorder, control) = (Recorder::default(), Control::default());
        let planned = on_stack_for(&self.expr, || {
            let mut cx = self.context(&recorder, &control)?;
            let (planner, grid, around) = (Planner { times: self.times }, self.grid(), Around::default());
            match self.expr.value_type() {
                ValueType::Scalar => drop(planner.scalar(&mut cx, &self.expr, grid, around)?),
                ValueType::Vector => drop(planner.vector(&mut cx, &self.expr, grid, around)?),
                ValueType::Matrix => drop(planner.range(&mut cx, &self.expr, grid, around)?),
                ValueType::String | ValueType::None => {}
            }
            Ok(())
        });
        planned.map_or_else(|_| Vec::new(), |()| recorder.finish())
    }

    fn context<'a>(&'a self, source: &'a dyn SeriesSource, control: &'a Control) -> Result<Context<'a>> {
        let options = &*self.engine.options;
        let lookback = self.options.lookback.unwrap_or(options.lookback);
        let timeout = self.options.timeout.map_or(options.timeout, |t| t.min(options.timeout));
        let mut cx = Context::new(
            source,
            options,
            (i64::try_from(lookback.as_millis()).unwrap_or(i64::MAX), self.grid().count),
            &control.canceled,
            Instant::now().checked_add(timeout),
        );
        cx.check()?;
        Ok(cx)
    }

    fn run_here(&self, source: &dyn SeriesSource, control: &Control) -> Result<QueryAnswer> {
        let options = &*self.engine.options;
        let mut cx = self.context(source, control)?;
        if self.options.per_step_stats {
            cx.count_steps(self.grid());
        } else if self.options.cuts {
            cx.text_to_cut = Some(&self.text);
        }
        let value = self.evaluate(&mut cx)?;
        cx.check()?;
        let (warnings, infos) =
            std::mem::take(&mut cx.annotations).finish(&self.text, options.annotations_max);
        Ok(QueryAnswer { value, warnings, infos, stats: cx.stats })
    }

    fn evaluate(&self, cx: &mut Context<'_>) -> Result<QueryValue> {
        let planner = Planner { times: self.times };
        let (grid, is_instant) = (self.grid(), self.times.step == 0);
        let time = Timestamp(self.times.start);
        match self.expr.value_type() {
            ValueType::String => match self.expr.unwrap_parens() {
                Expr::StringLiteral(literal) => Ok(QueryValue::String(time, literal.value.clone())),
                _ => Err(Error::Invalid("expected a string literal".into())),
            },
            ValueType::Scalar => {
                let values = planner.scalar(cx, &self.expr, grid, Around::default())?.values(cx)?;
                if is_instant {
                    return Ok(QueryValue::Scalar(time, values.at(0)));
                }
                cx.hold(grid.count)?;
                let point = |step| (Timestamp(grid.time(step)), values.at(step));
                let floats: Vec<_> = (0..grid.count).map(point).collect();
                let series = MatrixSeries { floats, ..MatrixSeries::default() };
                Ok(QueryValue::Matrix(if series.floats.is_empty() { Vec::new() } else { vec![series] }))
            }
            ValueType::Vector => {
                let mut operator = planner.vector(cx, &self.expr, grid, Around::default())?;
                if cx.options.delayed_name_removal {
                    operator = Box::new(Merge::at_the_end(operator, grid.count));
                }
                if is_instant { self.vector(cx, operator) } else { matrix(cx, operator, grid) }
            }
            ValueType::Matrix => self.samples(cx, &planner, grid),
            ValueType::None => Err(Error::Invalid("the expression has no value".into())),
        }
    }

    /// Collects the answer of an instant query, in the order the expression gives it.
    fn vector(&self, cx: &mut Context<'_>, mut operator: BoxOperator) -> Result<QueryValue> {
        let timestamp = Timestamp(self.times.start);
        let mut points = row(1);
        let mut elements = Vec::new();
        for meta in operator.series(cx)? {
            clear(&mut points);
            operator.next(cx, &mut points)?;
            cx.hold_row(&points)?;
            let value = match std::mem::take(&mut points[0]) {
                Point::None => continue,
                Point::Float(x) => PointValue::Float(x),
                Point::Histogram(h) => PointValue::Histogram(h),
            };
            elements.push(VectorElement { labels: meta.labels, timestamp, value });
        }
        Ok(QueryValue::Vector(elements))
    }

    /// Collects the samples of a range vector, with their own times.
    fn samples(&self, cx: &mut Context<'_>, planner: &Planner, grid: Grid) -> Result<QueryValue> {
        let mut input = planner.range(cx, &self.expr, grid, Around::default())?;
        let edges = input.edges();
        let mut all = Vec::new();
        for meta in input.series(cx)? {
            let series = input.next(cx)?;
            let window = series.window(0);
            let times = window.floats.times.iter().copied().map(Timestamp);
            let floats: Vec<_> = match edges {
                Edges::Plain => times.zip(window.floats.values.iter().copied()).collect(),
                Edges::Anchored | Edges::Smoothed => with_edges(&window, edges)?,
            };
            let times = window.histograms.times.iter().copied().map(Timestamp);
            let histograms: Vec<_> = times.zip(window.histograms.values.iter().cloned()).collect();
            let sizes = histograms.iter().map(|(_, h)| crate::histogram::size(h)).sum::<usize>();
            cx.hold(floats.len() + sizes)?;
            series.count(cx, 0);
            input.finish_if_done(cx);
            if !floats.is_empty() || !histograms.is_empty() {
                let labels = if meta.drop_name { meta.labels.without_metric_name() } else { meta.labels };
                all.push(MatrixSeries { labels, floats, histograms });
            }
        }
        cx.sort_by(&mut all, |a, b| a.labels.cmp(&b.labels))?;
        Ok(QueryValue::Matrix(all))
    }
}

/// Runs on this thread, or, where the expression is so deep that its stack might not do, on one of its own.
fn on_stack_for<T: Send>(expr: &Expr, run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    if height(expr) <= HEIGHT_ON_CALLERS_STACK {
        return run();
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("promql".into()).stack_size(STACK_BYTES);
        match thread.spawn_scoped(scope, run) {
            Ok(running) => running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(error) => Err(Error::Execution(format!("start a thread for a deep expression: {error}"))),
        }
    })
}

/// Operators call each other as deep as the tree is high. Up to this height the stack of any thread suffices.
const HEIGHT_ON_CALLERS_STACK: usize = 100;

/// The stack for higher trees, which the parser bounds; only what is used of it is ever touched.
const STACK_BYTES: usize = 64 << 20;

fn height(expr: &Expr) -> usize {
    1 + expr.children().into_iter().map(height).max().unwrap_or(0)
}

/// Collects the answer of a range query, sorted by labels.
fn matrix(cx: &mut Context<'_>, mut operator: BoxOperator, grid: Grid) -> Result<QueryValue> {
    let mut points = row(grid.count);
    let mut all = Vec::new();
    for meta in operator.series(cx)? {
        clear(&mut points);
        operator.next(cx, &mut points)?;
        // Only what is added to the answer is still held; the row is used again.
        cx.hold_row(&points)?;
        let mut series = MatrixSeries { labels: meta.labels, ..MatrixSeries::default() };
        for (step, point) in points.iter_mut().enumerate() {
            let time = Timestamp(grid.time(step));
            match std::mem::take(point) {
                Point::None => {}
                Point::Float(x) => series.floats.push((time, x)),
                Point::Histogram(h) => series.histograms.push((time, h)),
            }
        }
        if !series.floats.is_empty() || !series.histograms.is_empty() {
            all.push(series);
        }
    }
    cx.sort_by(&mut all, |a, b| a.labels.cmp(&b.labels))?;
    Ok(QueryValue::Matrix(all))
}
