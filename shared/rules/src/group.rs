//! A group of rules and its evaluation.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use model::labels::METRIC_NAME;
use model::query::{PointValue, QueryValue, VectorElement};
use model::{Labels, MatchOp, Matcher, Timestamp, is_stale, stale_nan};
use promql_engine::{Control, Engine, Error, Hints, Query, Selection, SeriesSource};

use crate::alert::{ALERT_NAME, ALERTS_FOR_STATE, Alert, AlertState, Alerts, Surroundings, ms};
use crate::dependency;
use crate::file::{GroupSpec, RuleKind, RuleSpec};
use crate::overlay::Overlay;
use crate::template::Context;

/// What a group is evaluated with.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    /// Evaluates expressions.
    pub engine: &'a Engine,
    /// Where series come from. An error of it fails the rule that asked.
    pub source: &'a dyn SeriesSource,
    /// Cancels what runs.
    pub control: &'a Control,
    /// `global.external_labels`, for templates.
    pub external_labels: &'a Labels,
    /// Where users reach the server, for templates.
    pub external_url: &'a str,
    /// Alerts that go on are sent again after so long.
    pub resend_delay: Duration,
    /// How many rules that are independent of all others may be evaluated at one time, each on a thread.
    pub concurrency: usize,
}

impl std::fmt::Debug for Environment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").field("external_labels", &self.external_labels).finish_non_exhaustive()
    }
}

/// How a rule's last evaluation went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// There was none.
    Unknown,
    /// Well.
    Good,
    /// It failed.
    Bad,
}

impl Health {
    /// Returns the name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Good => "ok",
            Self::Bad => "err",
        }
    }
}

/// The state of a rule.
#[derive(Debug, Clone)]
pub struct RuleState {
    /// The rule.
    pub spec: RuleSpec,
    /// How the last evaluation went.
    pub health: Health,
    /// Why it failed; empty when it did not.
    pub last_error: String,
    /// When it was last evaluated.
    pub last_evaluation: Option<Timestamp>,
    /// How long that took.
    pub took: Duration,
    pub(crate) alerts: Alerts,
    /// The series of the last evaluation that was stored.
    series: BTreeSet<Labels>,
}

impl RuleState {
    fn new(spec: RuleSpec) -> Self {
        Self {
            spec,
            health: Health::Unknown,
            last_error: String::new(),
            last_evaluation: None,
            took: Duration::ZERO,
            alerts: Alerts::default(),
            series: BTreeSet::new(),
        }
    }

    /// Returns the alerts that are pending or firing; those that were resolved are left out.
    pub fn active_alerts(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.active.values().filter(|alert| alert.state != AlertState::Inactive)
    }

    /// Returns the state of the rule: that of its furthest alert.
    #[must_use]
    pub fn alert_state(&self) -> AlertState {
        self.alerts.state()
    }

    fn fail(&mut self, error: String) {
        (self.health, self.last_error) = (Health::Bad, error);
    }
}

/// What an evaluation gave.
#[derive(Debug)]
pub struct Evaluation {
    /// The time of all samples.
    pub time: Timestamp,
    /// Series and their values, staleness markers of series that vanished included; sorted, each once.
    pub samples: BTreeMap<Labels, PointValue>,
    /// Alerts to send, with the expression of their rule.
    pub alerts: Vec<(String, Alert)>,
    /// Rules that failed: their number in the group and why.
    pub failures: Vec<(usize, String)>,
    /// Results dropped since another rule of the group gave the same series another value.
    pub duplicates: u64,
    /// How many samples the rules gave.
    pub sample_count: usize,
    /// What each rule gave, where it did not fail.
    series: Vec<Option<BTreeSet<Labels>>>,
}

/// How the past of alerts is restored.
#[derive(Debug, Clone, Copy)]
pub struct RestoreOptions {
    /// How long ago the last sample of an alert may be.
    pub outage_tolerance: Duration,
    /// How long a restored alert waits at least before it fires; alerts that wait less are not restored.
    pub grace_period: Duration,
}

/// A group of rules with its state.
#[derive(Debug, Clone)]
pub struct Group {
    /// The file that holds it.
    pub file: String,
    /// What it is.
    pub spec: GroupSpec,
    /// How often it is evaluated.
    pub interval: Duration,
    /// How long before its time it looks.
    pub query_offset: Duration,
    /// When it was last evaluated.
    pub last_evaluation: Option<Timestamp>,
    /// How long that took.
    pub took: Duration,
    rules: Vec<RuleState>,
    /// Which of them are independent of all others.
    independent: Vec<bool>,
    /// Series of rules that are gone, to be marked.
    stale: Vec<Labels>,
}

impl Group {
    /// Makes a group without a past; the defaults are those of `global`. When `is_restored`, its alerts have none to
    /// be restored either.
    #[must_use]
    pub fn new(file: &str, spec: GroupSpec, defaults: (Duration, Duration), is_restored: bool) -> Self {
        let mut rules: Vec<_> = spec.rules.iter().cloned().map(RuleState::new).collect();
        for rule in &mut rules {
            rule.alerts.is_restored = is_restored;
        }
        Self {
            file: file.to_owned(),
            independent: dependency::independent(&spec.rules),
            interval: spec.interval.unwrap_or(defaults.0),
            query_offset: spec.query_offset.unwrap_or(defaults.1),
            spec,
            last_evaluation: None,
            took: Duration::ZERO,
            rules,
            stale: Vec::new(),
        }
    }

    /// Returns the rules in order.
    #[must_use]
    pub fn rules(&self) -> &[RuleState] {
        &self.rules
    }

    /// Returns how many rules are independent of all others: what more of [`Environment::concurrency`] does nothing.
    #[must_use]
    pub fn independent_count(&self) -> usize {
        self.independent.iter().filter(|is_independent| **is_independent).count()
    }

    /// Says whether the past of some alert is not known yet.
    #[must_use]
    pub fn needs_restoring(&self) -> bool {
        let needs =
            |rule: &RuleState| matches!(rule.spec.kind, RuleKind::Alerting(_)) && !rule.alerts.is_restored;
        self.rules.iter().any(needs)
    }

    /// Takes over the state of the group that stood in its place: of rules with the same name and labels, the first
    /// of the first and so on. Series of rules that are gone will be marked.
    pub fn take_state(&mut self, from: &Self) {
        (self.took, self.last_evaluation) = (from.took, from.last_evaluation);
        let mut known: HashMap<(&str, &Labels), Vec<&RuleState>> = HashMap::new();
        for rule in from.rules.iter().rev() {
            known.entry((&rule.spec.name, &rule.spec.labels)).or_default().push(rule);
        }
        for rule in &mut self.rules {
            let Some(old) = known.get_mut(&(rule.spec.name.as_str(), &rule.spec.labels)).and_then(Vec::pop)
            else {
                continue;
            };
            rule.series.clone_from(&old.series);
            rule.alerts = old.alerts.clone();
        }
        self.stale = from.stale.clone();
        self.stale.extend(known.into_values().flatten().flat_map(|rule| rule.series.iter().cloned()));
    }

    /// Returns the series to mark when the group is gone.
    #[must_use]
    pub fn series(&self) -> BTreeSet<Labels> {
        self.rules.iter().flat_map(|rule| &rule.series).chain(&self.stale).cloned().collect()
    }

    /// Evaluates all rules at a time. Runs on the calling thread for as long as the queries take; call
    /// [`Group::stored`] or [`Group::not_stored`] once the samples are.
    pub fn evaluate(&mut self, at: Timestamp, environment: &Environment<'_>) -> Evaluation {
        let started = Instant::now();
        let time = at.add_ms(-ms(self.query_offset));
        let mut evaluation = Evaluation {
            time,
            samples: BTreeMap::new(),
            alerts: Vec::new(),
            failures: Vec::new(),
            duplicates: 0,
            sample_count: 0,
            series: Vec::with_capacity(self.rules.len()),
        };
        let queries: Vec<Prepared> = self.rules.iter().map(|rule| prepare(rule, time, environment)).collect();
        let selections: Vec<Selection> = queries.iter().flatten().flat_map(Query::selections).collect();
        let source = environment.source.read_ahead(&selections);
        let environment =
            &Environment { source: source.as_deref().unwrap_or(environment.source), ..*environment };
        let mut ahead = self.evaluate_ahead(&queries, (at, time), environment);
        for (i, (rule, query)) in self.rules.iter_mut().zip(&queries).enumerate() {
            let (outcome, took) = ahead[i].take().unwrap_or_else(|| {
                let work = (query, (at, time), self.spec.limit);
                timed(|| evaluate_rule(rule, work, environment, &evaluation.samples))
            });
            rule.took = took;
            rule.last_evaluation = Some(at);
            match outcome {
                Ok(vector) => {
                    (rule.health, rule.last_error) = (Health::Good, String::new());
                    let send = |alert: &mut Alert| {
                        alert.send(at, environment.resend_delay, self.interval).then(|| alert.clone())
                    };
                    let due = rule.alerts.active.values_mut().filter_map(send);
                    evaluation.alerts.extend(due.map(|alert| (rule.spec.expr.clone(), alert)));
                    evaluation.take(rule, vector);
                }
                Err(error) => {
                    rule.fail(error.clone());
                    evaluation.failures.push((i, error));
                    evaluation.series.push(None);
                }
            }
        }
        for labels in &self.stale {
            evaluation.mark(labels);
        }
        self.last_evaluation = Some(at);
        self.took = started.elapsed();
        evaluation
    }

    /// Evaluates the rules that are independent of all others, where several may be at one time. What becomes of their
    /// results is the same as if they had been evaluated in their turn.
    fn evaluate_ahead(
        &mut self,
        queries: &[Prepared],
        times: (Timestamp, Timestamp),
        environment: &Environment<'_>,
    ) -> Vec<Option<(Outcome, Duration)>> {
        let mut ahead: Vec<_> = self.rules.iter().map(|_| None).collect();
        let threads = environment.concurrency.min(self.independent_count());
        if threads < 2 {
            return ahead;
        }
        let (limit, nothing) = (self.spec.limit, BTreeMap::new());
        let rules = self.rules.iter_mut().zip(queries).zip(&mut ahead).zip(&self.independent);
        let work = Mutex::new(rules.filter(|(_, is_independent)| **is_independent).map(|(work, _)| work));
        let next = || work.lock().unwrap_or_else(PoisonError::into_inner).next();
        let evaluate = || {
            while let Some(((rule, query), outcome)) = next() {
                let work = (query, times, limit);
                *outcome = Some(timed(|| evaluate_rule(rule, work, environment, &nothing)));
            }
        };
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(evaluate);
            }
        });
        ahead
    }

    /// Takes note that an evaluation's samples are stored.
    pub fn stored(&mut self, evaluation: &Evaluation) {
        for (rule, series) in self.rules.iter_mut().zip(&evaluation.series) {
            if let Some(series) = series {
                rule.series.clone_from(series);
            }
        }
        self.stale.clear();
    }

    /// Takes note that an evaluation's samples could not be stored.
    pub fn not_stored(&mut self, evaluation: &Evaluation, error: &str) {
        for (rule, _) in self.rules.iter_mut().zip(&evaluation.series).filter(|(_, series)| series.is_some())
        {
            rule.fail(error.to_owned());
        }
    }

    /// Takes over the alerts that another evaluator, or this one before a short restart, wrote up to `recent` ago: they
    /// go on as if nothing had happened. Call before the first evaluation.
    ///
    /// # Errors
    /// When the source fails: those of the rules behind are not taken over.
    pub fn take_over(
        &mut self,
        now: Timestamp,
        recent: Duration,
        source: &dyn SeriesSource,
    ) -> Result<(), String> {
        for rule in &mut self.rules {
            if !matches!(rule.spec.kind, RuleKind::Alerting(_)) || rule.alerts.is_restored {
                continue;
            }
            let states = last_states(&rule.spec.name, now, recent, source)?;
            rule.alerts.is_restored = !states.is_empty();
            rule.alerts.taken_over = states.into_iter().map(|(labels, (_, since))| (labels, since)).collect();
        }
        Ok(())
    }

    /// Takes the times since when alerts are active from what was stored before a restart; from then on the series of
    /// alerts are written. Errors are returned by rule: that rule's alerts stay as they are.
    pub fn restore(
        &mut self,
        now: Timestamp,
        options: RestoreOptions,
        source: &dyn SeriesSource,
    ) -> Vec<(usize, String)> {
        let mut errors = Vec::new();
        for (i, rule) in self.rules.iter_mut().enumerate() {
            let RuleKind::Alerting(spec) = &rule.spec.kind else { continue };
            let hold = spec.hold;
            // What would wait for less than the grace period is not made to wait for that.
            if hold >= options.grace_period && !rule.alerts.active.is_empty() {
                match last_states(&rule.spec.name, now, options.outage_tolerance, source) {
                    Ok(states) => {
                        for alert in rule.alerts.active.values_mut() {
                            if let Some((down_at, active_at)) = states.get(&alert.labels) {
                                alert.active_at =
                                    restored(*active_at, *down_at, now, (hold, options.grace_period));
                            }
                        }
                    }
                    Err(error) => errors.push((i, error)),
                }
            }
            rule.alerts.is_restored = true;
        }
        errors
    }
}

/// Since when an alert counts as active that was so since `active_at` when the lights went out at `down_at`.
fn restored(
    active_at: Timestamp,
    down_at: Timestamp,
    now: Timestamp,
    (hold, grace): (Duration, Duration),
) -> Timestamp {
    let remaining = ms(hold) - down_at.since_ms(active_at);
    if remaining <= 0 {
        // It fired then, and fires again at once.
        active_at
    } else if remaining < ms(grace) {
        now.add_ms(ms(grace)).add_ms(-ms(hold))
    } else {
        active_at.add_ms(now.since_ms(down_at))
    }
}

/// The last sample of each alert's state series: by the alert's labels, its time and its value.
fn last_states(
    alert: &str,
    now: Timestamp,
    tolerance: Duration,
    source: &dyn SeriesSource,
) -> Result<HashMap<Labels, (Timestamp, Timestamp)>, String> {
    let matcher = |name: &str, value: &str| {
        Matcher::new(MatchOp::Equal, name, value).map_err(|error| error.to_string())
    };
    let selection = Selection {
        matchers: vec![matcher(METRIC_NAME, ALERTS_FOR_STATE)?, matcher(ALERT_NAME, alert)?],
        min_time: now.add_ms(-ms(tolerance)),
        max_time: now,
        hints: Hints::default(),
        cut: None,
    };
    let mut set = source.select(&selection).map_err(|error| error.to_string())?;
    let labels = set.labels().map_err(|error| error.to_string())?.to_vec();
    let mut states = HashMap::new();
    for labels in labels {
        let Some(samples) = set.next().map_err(|error| error.to_string())? else { break };
        let last = samples.floats.timestamps.last().zip(samples.floats.values.last());
        if let Some((time, value)) = last.filter(|(_, value)| !is_stale(**value)) {
            // The reference counts whole seconds here.
            #[expect(clippy::cast_possible_truncation, reason = "saturates")]
            let seconds = *value as i64;
            let down_at = Timestamp(time.div_euclid(1_000).saturating_mul(1_000));
            let active_at = Timestamp(seconds.saturating_mul(1_000));
            states.insert(labels.without_metric_name(), (down_at, active_at));
        }
    }
    Ok(states)
}

impl Evaluation {
    /// Takes what a rule gave, and marks what it gave before and does not any more.
    fn take(&mut self, rule: &RuleState, vector: Vec<(Labels, PointValue)>) {
        let mut returned = BTreeSet::new();
        self.sample_count += vector.len();
        for (labels, value) in vector {
            match self.samples.get(&labels) {
                Some(first) if !is_same(first, &value) => self.duplicates += 1,
                Some(_) => _ = returned.insert(labels),
                None => {
                    returned.insert(labels.clone());
                    self.samples.insert(labels, value);
                }
            }
        }
        for labels in rule.series.difference(&returned) {
            self.mark(labels);
        }
        self.series.push(Some(returned));
    }

    /// Marks a series as stale, unless a rule has given it.
    fn mark(&mut self, labels: &Labels) {
        self.samples.entry(labels.clone()).or_insert_with(|| PointValue::Float(stale_nan()));
    }
}

fn is_same(a: &PointValue, b: &PointValue) -> bool {
    match (a, b) {
        (PointValue::Float(a), PointValue::Float(b)) => a.to_bits() == b.to_bits(),
        (PointValue::Histogram(a), PointValue::Histogram(b)) => a.bit_eq(b),
        _ => false,
    }
}

/// Runs queries for a rule.
struct Queries<'a> {
    environment: &'a Environment<'a>,
    overlay: Overlay<'a>,
    at: Timestamp,
}

impl Queries<'_> {
    fn run(&self, query: &Query) -> Result<Vec<VectorElement>, String> {
        let answer = query.run(&self.overlay, self.environment.control);
        match answer.map_err(|error: Error| error.to_string())?.value {
            QueryValue::Vector(elements) => Ok(elements),
            QueryValue::Scalar(timestamp, x) => {
                Ok(vec![VectorElement { labels: Labels::empty(), timestamp, value: PointValue::Float(x) }])
            }
            _ => Err("rule result is not a vector or scalar".to_owned()),
        }
    }
}

impl Context for Queries<'_> {
    fn query(&mut self, expr: &str) -> Result<Vec<VectorElement>, String> {
        // Not earlier by the offset: the reference's templates look at the time of the evaluation.
        let query = self.environment.engine.instant(expr, self.at).map_err(|error| error.to_string())?;
        self.run(&query)
    }

    fn now(&self) -> Timestamp {
        self.at
    }

    fn external_url(&self) -> &str {
        self.environment.external_url
    }
}

/// A rule's query, made ready.
type Prepared = Result<Query, String>;

fn prepare(rule: &RuleState, time: Timestamp, environment: &Environment<'_>) -> Prepared {
    environment.engine.instant(&rule.spec.expr, time).map_err(|error| error.to_string())
}

/// What a rule gave.
type Outcome = Result<Vec<(Labels, PointValue)>, String>;

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    (work(), started.elapsed())
}

fn evaluate_rule(
    rule: &mut RuleState,
    (query, (at, time), limit): (&Prepared, (Timestamp, Timestamp), usize),
    environment: &Environment<'_>,
    so_far: &BTreeMap<Labels, PointValue>,
) -> Outcome {
    let overlay = Overlay { below: environment.source, time, samples: so_far };
    let mut queries = Queries { environment, overlay, at };
    let result = queries.run(query.as_ref().map_err(Clone::clone)?)?;
    match &rule.spec.kind {
        RuleKind::Recording => record(&rule.spec, result, limit),
        RuleKind::Alerting(spec) => {
            let around = Surroundings {
                external_labels: environment.external_labels,
                external_url: environment.external_url,
                limit,
            };
            let series = rule.alerts.update(&rule.spec, spec, result, at, (&around, &mut queries))?;
            Ok(series.into_iter().map(|(labels, x)| (labels, PointValue::Float(x))).collect())
        }
    }
}

/// Names the elements of a recording rule's result.
fn record(
    rule: &RuleSpec,
    result: Vec<VectorElement>,
    limit: usize,
) -> Result<Vec<(Labels, PointValue)>, String> {
    let count = result.len();
    let mut named = BTreeMap::new();
    for element in result {
        let mut labels = element.labels.to_builder();
        labels.set(METRIC_NAME, rule.name.as_str());
        for (name, value) in rule.labels.iter() {
            labels.set(name, value);
        }
        if named.insert(labels.build(), element.value).is_some() {
            return Err(
                "vector contains metrics with the same labelset after applying rule labels".to_owned()
            );
        }
    }
    if limit > 0 && count > limit {
        return Err(format!("exceeded limit of {limit} with {count} series"));
    }
    Ok(named.into_iter().collect())
}

#[cfg(test)]
mod tests;
