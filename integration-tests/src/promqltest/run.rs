//! Running a script: loads into a store, evals against it, each in all the forms the reference runs.

use std::time::Duration;

use model::Timestamp;
use model::query::{QueryAnswer, QueryValue};
use promql_engine::memory::Store;
use promql_engine::{Control, Engine, EngineOptions, Error, Query, QueryOptions};
use promql_syntax::{AtModifier, Expr, Options, parse_expr};

use super::apart::Apart;
use super::compare;
use super::script::{Action, Eval, Expected, Load, Notes, TextMatch, When, parse};
use super::store;

/// How a script went.
#[derive(Debug, Default)]
pub struct Report {
    /// How many evals gave what was expected.
    pub passed: usize,
    /// Lines and what is wrong there.
    pub failures: Vec<(usize, String)>,
}

/// An answer, or the text of the error.
pub type Answer = Result<QueryAnswer, String>;

/// What a script runs against: something that takes samples and answers queries.
pub trait Backend {
    /// Throws everything away.
    fn clear(&mut self) -> Result<(), String>;

    /// Appends what a load names.
    fn load(&mut self, load: &Load) -> Result<(), String>;

    /// Answers a query at one time, in milliseconds.
    fn instant(&self, query: &str, time: i64) -> Answer;

    /// Answers a query at start, start + step and so on, in milliseconds.
    fn range(&self, query: &str, times: (i64, i64), step: Duration) -> Answer;

    /// Says whether each query is asked as it stands only: its other forms show more of an engine, not of a store.
    fn asks_once(&self) -> bool {
        false
    }
}

/// The engine over series in memory, with the settings that the scripts assume. Every query is answered twice: over
/// all series, and with aggregations computed in parts, over stores that each have some of them. Both must agree.
#[derive(Debug)]
pub struct InMemory {
    engine: Engine,
    store: Store,
}

/// How many stores the series are spread over.
const STORES: usize = 3;

/// Functions whose value changes with the time of the evaluation although all selectors are pinned.
const UNPINNABLE: [&str; 15] = [
    "days_in_month",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "hour",
    "minute",
    "month",
    "year",
    "predict_linear",
    "time",
    "timestamp",
    "start",
    "end",
    "range",
    "step",
];

impl Default for InMemory {
    fn default() -> Self {
        let engine = Engine::new(EngineOptions {
            syntax: Options::all(),
            lookback: Duration::from_secs(300),
            max_samples: 10_000,
            timeout: Duration::from_secs(100),
            subquery_step: Duration::from_secs(60),
            delayed_name_removal: true,
            start_timestamps: true,
            type_and_unit_labels: false,
            annotations_max: usize::MAX,
            ..EngineOptions::default()
        });
        Self { engine, store: Store::default() }
    }
}

impl Backend for InMemory {
    fn clear(&mut self) -> Result<(), String> {
        self.store = Store::default();
        Ok(())
    }

    fn load(&mut self, load: &Load) -> Result<(), String> {
        store::load(&mut self.store, load)
    }

    fn instant(&self, query: &str, time: i64) -> Answer {
        self.answer(self.engine.instant(query, Timestamp(time)))
    }

    fn range(&self, query: &str, (start, end): (i64, i64), step: Duration) -> Answer {
        self.answer(self.engine.range(query, Timestamp(start), Timestamp(end), step))
    }
}

impl InMemory {
    fn answer(&self, query: promql_engine::Result<Query>) -> Answer {
        let query = query.map_err(|e| e.to_string())?;
        let whole = query.run(&self.store, &Control::default());
        let cut = query.with_options(QueryOptions { cuts: true, ..QueryOptions::default() });
        let source = Apart::new(self.engine.clone(), self.store.spread(STORES));
        let is_same = match (&whole, &cut.run(&source, &Control::default())) {
            // To be run without cuts, or held at one place and not at several.
            (_, Err(Error::OrderMatters)) | (Err(Error::TooManySamples), Ok(_)) => Ok(()),
            (Ok(whole), Ok(in_parts)) => compare::answers(whole, in_parts),
            (Err(whole), Err(in_parts)) if whole.to_string() == in_parts.to_string() => Ok(()),
            (whole, in_parts) => Err(format!("{in_parts:?}, not {whole:?}")),
        };
        is_same.map_err(|e| format!("in parts: {e}"))?;
        whole.map_err(|e| e.to_string())
    }
}

/// Runs a script from top to bottom against an empty backend.
pub fn run_script(text: &str, backend: &mut dyn Backend) -> Report {
    let (commands, failures) = parse(text);
    let mut report = Report { passed: 0, failures };
    for command in commands {
        let outcome = match command.action {
            Action::Clear => backend.clear(),
            Action::Load(load) => backend.load(&load).map_err(|e| format!("load: {e}")),
            Action::Eval(eval) => {
                let outcome = Runner { backend, eval: &eval }.run();
                report.passed += usize::from(outcome.is_ok());
                outcome
            }
        };
        if let Err(message) = outcome {
            report.failures.push((command.line, message));
        }
    }
    report
}

struct Runner<'a> {
    backend: &'a dyn Backend,
    eval: &'a Eval,
}

impl Runner<'_> {
    fn run(&self) -> Result<(), String> {
        match self.eval.when {
            When::Range { start, end, step } => {
                let answer = self.range(&self.eval.query, start, end, step);
                self.check(&answer, "", |value| match (value, &self.eval.result) {
                    (QueryValue::Matrix(got), Expected::Series(expected)) => {
                        compare::matrix(expected, got, start, step)
                    }
                    (got, expected) => Err(format!("expected {expected:?}, got {got:?}")),
                })
            }
            When::Instant(time) => {
                let time = match self.eval.result {
                    Expected::RangeVector { end, .. } => end,
                    _ => time,
                };
                self.instant(&self.eval.query, time, "")?;
                if self.backend.asks_once() {
                    return Ok(());
                }
                if let Some((query, times)) = self.pinned(time)? {
                    for at in times {
                        self.instant(&query, at, &format!(" ({query} at {at}ms)"))?;
                    }
                }
                Ok(())
            }
        }
    }

    fn range(&self, query: &str, start: i64, end: i64, step: i64) -> Answer {
        let step = Duration::from_millis(u64::try_from(step).unwrap_or(0));
        self.backend.range(query, (start, end), step)
    }

    /// Runs a query at one time, and as a range query around it.
    fn instant(&self, query: &str, time: i64, form: &str) -> Result<(), String> {
        let answer = self.backend.instant(query, time);
        self.check(&answer, form, |value| self.compare_instant(value))?;
        let is_other_in_a_range = ["start()", "end()", "range()", "step()"].iter().any(|f| query.contains(f))
            || matches!(self.eval.result, Expected::Text(_) | Expected::RangeVector { .. })
            || self.eval.fail.is_some()
            || self.backend.asks_once();
        if is_other_in_a_range {
            return Ok(());
        }
        const MINUTE: i64 = 60_000;
        let form = format!("{form} (in a range query)");
        let answer =
            self.range(query, time - MINUTE, time + MINUTE, MINUTE).map_err(|e| format!("{e}{form}"))?;
        let QueryValue::Matrix(got) = answer.value else { return Err(format!("not a matrix{form}")) };
        compare::check_order(&got).map_err(|e| format!("{e}{form}"))?;
        if self.eval.is_ordered {
            return Ok(());
        }
        let elements = compare::at(&got, time);
        match &self.eval.result {
            Expected::Series(expected) => compare::vector(expected, &elements, false),
            Expected::Scalar(expected) => match &*elements {
                [only] => match only.value {
                    model::query::PointValue::Float(x) if compare::floats_equal(*expected, x) => Ok(()),
                    ref other => Err(format!("expected {expected}, got {other:?}")),
                },
                other => Err(format!("expected {expected}, got {other:?}")),
            },
            Expected::Text(_) | Expected::RangeVector { .. } => Ok(()),
        }
        .map_err(|e| format!("{e}{form}"))
    }

    fn compare_instant(&self, value: &QueryValue) -> Result<(), String> {
        match (value, &self.eval.result) {
            (QueryValue::Vector(got), Expected::Series(expected)) => {
                compare::vector(expected, got, self.eval.is_ordered)
            }
            (QueryValue::Scalar(_, got), Expected::Scalar(expected))
                if compare::floats_equal(*expected, *got) =>
            {
                Ok(())
            }
            (QueryValue::String(_, got), Expected::Text(expected)) if got == expected => Ok(()),
            (QueryValue::Matrix(got), Expected::RangeVector { start, step, series, .. }) => {
                compare::matrix(series, got, *start, *step)
            }
            (got, expected) => Err(format!("expected {expected:?}, got {got:?}")),
        }
    }

    fn check(
        &self,
        answer: &Answer,
        form: &str,
        compare: impl FnOnce(&QueryValue) -> Result<(), String>,
    ) -> Result<(), String> {
        let checked = match (answer, &self.eval.fail) {
            (Err(error), None) => Err(format!("failed: {error}")),
            (Ok(answer), Some(_)) => Err(format!("expected to fail, got {:?}", answer.value)),
            (Err(_), Some(None)) => Ok(()),
            (Err(error), Some(Some(expected))) => {
                if expected.is_match(error) {
                    Ok(())
                } else {
                    Err(format!("expected to fail with {expected:?}, failed with {error:?}"))
                }
            }
            (Ok(answer), None) => check_notes("warning", &self.eval.warnings, &answer.warnings)
                .and_then(|()| check_notes("info", &self.eval.infos, &answer.infos))
                .and_then(|()| compare(&answer.value)),
        };
        checked.map_err(|e| format!("{e}{form}"))
    }

    /// Returns the query with all selectors pinned to the time of the evaluation, and the times at which that has
    /// to give the same; nothing where it would not.
    fn pinned(&self, time: i64) -> Result<Option<(String, Vec<i64>)>, String> {
        let mut expr = parse_expr(&self.eval.query, &Options::all()).map_err(|e| e.to_string())?;
        let mut is_pinnable = true;
        expr.walk(&mut |e| {
            if let Expr::Call(call) = e {
                is_pinnable &= !UNPINNABLE.contains(&call.func.name);
            }
        });
        if !is_pinnable || matches!(self.eval.result, Expected::RangeVector { .. }) {
            return Ok(None);
        }
        pin(&mut expr, AtModifier::Timestamp(Timestamp(time)));
        let times = match time {
            0 => vec![-1_000, 0, 1_000],
            t => vec![-10 * t, 0, t / 5, t, 10 * t],
        };
        Ok(Some((expr.to_string(), times)))
    }
}

/// Adds `@` to selectors and subqueries that have none. The inside of a subquery runs at times of its own.
fn pin(expr: &mut Expr, at: AtModifier) {
    match expr {
        Expr::VectorSelector(e) => _ = e.at.get_or_insert(at),
        Expr::MatrixSelector(e) => _ = e.selector.at.get_or_insert(at),
        Expr::Subquery(e) => _ = e.at.get_or_insert(at),
        // The second argument of info names labels rather than samples.
        Expr::Call(call) if call.func.name == "info" => pin(&mut call.args[0], at),
        other => other.children_mut().into_iter().for_each(|child| pin(child, at)),
    }
}

fn check_notes(level: &str, expected: &Notes, got: &[String]) -> Result<(), String> {
    if expected.is_forbidden && !got.is_empty() {
        return Err(format!("expected no {level}, got {got:?}"));
    }
    if expected.wanted.is_empty() {
        return Ok(());
    }
    let matches =
        |want: &Option<TextMatch>, note: &String| want.as_ref().is_none_or(|text| text.is_match(note));
    if let Some(missing) = expected.wanted.iter().find(|want| !got.iter().any(|note| matches(want, note))) {
        return Err(format!("expected {level} {missing:?}, got {got:?}"));
    }
    match got.iter().find(|note| !expected.wanted.iter().any(|want| matches(want, note))) {
        Some(extra) => Err(format!("unexpected {level} {extra:?}")),
        None => Ok(()),
    }
}
