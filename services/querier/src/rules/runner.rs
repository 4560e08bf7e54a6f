//! The running of one group: at its times, evaluate, store, send alerts, show.
//!
//! Invariants:
//! - evaluations of a group do not overlap: the next begins when the samples of the one before are durable or lost;
//! - an evaluation is one batch and one wait for it;
//! - evaluation runs on a blocking thread, and of all groups a bounded number at a time;
//! - every log is asked: what cannot be reached fails the rule.

use std::sync::Arc;
use std::time::{Duration, Instant};

use group_writer::{GroupWriter, RefusalReason, Written};
use model::{Clock, Labels, Tenant, Timestamp};
use parking_lot::Mutex;
use promql_engine::{Control, Engine};
use rules::{Alert, Environment, Evaluation, Group, RestoreOptions};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::metrics::RuleMetrics;
use super::schedule::{Schedule, Slot};
use super::series::Series;
use super::{Shown, shown};
use crate::notifier::{Notification, Notifier};
use crate::query::SAMPLE_BYTES;
use crate::source::Source;
use crate::sources::Sources;

/// How long the samples of an evaluation may take to become durable.
pub(super) const WRITE_DEADLINE: Duration = Duration::from_secs(60);
/// How far apart the clock is looked at while a group waits: it may be set. Thousands of groups do.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// An alert that was written at most so many intervals ago, or so long ago, had an evaluator that has just stopped: it
/// goes on as it was. The time is what a restart takes, or the noticing that a querier is gone.
const TAKE_OVER_INTERVALS: u32 = 3;
const TAKE_OVER_MIN: Duration = Duration::from_secs(60);
/// How many evaluations are left out while it cannot be seen what alerts there were.
const TAKE_OVER_TRIES: u32 = 5;

/// What a group's running needs from outside.
#[derive(Debug)]
pub(super) struct Around {
    pub(super) clock: Clock,
    pub(super) sources: Arc<Sources>,
    pub(super) writer: GroupWriter,
    pub(super) metrics: RuleMetrics,
    pub(super) notifier: Arc<Notifier>,
    pub(super) places: Arc<Semaphore>,
    pub(super) engine: Engine,
    pub(super) external_labels: Labels,
    pub(super) external_url: String,
    pub(super) resend_delay: Duration,
    pub(super) restore: RestoreOptions,
    /// Rules of a group that are independent of all others are evaluated at the same time.
    pub(super) is_concurrent: bool,
}

impl Around {
    fn environment<'a>(
        &'a self,
        source: &'a Source,
        control: &'a Control,
        concurrency: usize,
    ) -> Environment<'a> {
        Environment {
            engine: &self.engine,
            source,
            control,
            external_labels: &self.external_labels,
            external_url: &self.external_url,
            resend_delay: self.resend_delay,
            concurrency,
        }
    }
}

/// Runs one group.
#[derive(Debug)]
pub(super) struct Runner {
    around: Arc<Around>,
    group: Group,
    series: Series,
    shown: Shown,
    /// How many evaluations there were.
    count: u64,
    /// The group's home knows of this evaluator, and takes nothing of those before it.
    is_known: bool,
    /// How often it could not be seen what alerts there were.
    blind_tries: u32,
}

impl Runner {
    pub(super) fn new(around: Arc<Around>, group: Group, epoch: u64, shown: Shown) -> Self {
        let series = Series::new(&group, epoch);
        let runner = Self { around, group, series, shown, count: 0, is_known: false, blind_tries: 0 };
        runner.show();
        runner
    }

    /// Evaluates the group until told to stop; then returns it with its state.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Group {
        let schedule = Schedule::new(&self.group.file, &self.group.spec.name, self.group.interval);
        let mut slot = schedule.after(self.around.clock.now());
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.group,
                () = self.wait(slot) => {}
            }
            self = self.iterate(slot.timestamp(), &stop).await;
            let (next, missed) = schedule.following(slot, self.around.clock.now());
            if missed > 0 {
                self.around.metrics.missed(&self.group, missed);
            }
            slot = next;
        }
    }

    async fn wait(&self, slot: Slot) {
        loop {
            let left = slot.timestamp().since_ms(self.around.clock.now());
            match u64::try_from(left) {
                Ok(left) if left > 0 => {
                    tokio::time::sleep(LOOK_INTERVAL.min(Duration::from_millis(left))).await;
                }
                _ => return,
            }
        }
    }

    /// One evaluation with all that belongs to it.
    ///
    /// # Panics
    /// When the evaluation does: the group is lost with it, and the task is started anew.
    async fn iterate(self, at: Timestamp, stop: &CancellationToken) -> Self {
        let Ok(place) = Arc::clone(&self.around.places).acquire_owned().await else { return self };
        let control = Control::default();
        let source = self.source(stop);
        let (cancel, stopping) = (control.clone(), stop.clone());
        let evaluating = tokio::task::spawn_blocking(move || {
            let _place = place;
            let started = Instant::now();
            let mut this = self;
            if !this.before(at, &source) {
                return (this, None);
            }
            let around = Arc::clone(&this.around);
            let more = this.more_places();
            let environment = around.environment(&source, &control, 1 + more.len());
            let evaluation = this.group.evaluate(at, &environment);
            drop(more);
            this.count += 1;
            this.after(at, &source);
            (this, Some((evaluation, started.elapsed())))
        });
        tokio::pin!(evaluating);
        let evaluated = tokio::select! {
            evaluated = &mut evaluating => evaluated,
            () = stopping.cancelled() => {
                cancel.cancel();
                evaluating.await
            }
        };
        let (mut this, evaluated) = match evaluated {
            Ok(evaluated) => evaluated,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => panic!("evaluation of a rule group ended early: {error}"),
            },
        };
        let Some((evaluation, took)) = evaluated.filter(|_| !stopping.is_cancelled()) else {
            // What was cut off is not told: the next evaluator takes this time or the one behind it.
            return this;
        };
        this.around.metrics.evaluated(&this.group, &evaluation, took);
        this.tell(&evaluation);
        // A querier that was replaced without knowing tells nobody what it believes.
        if this.store(&evaluation).await != Stored::Superseded {
            this.around.notifier.send(this.notifications(&evaluation));
        }
        this.show();
        this
    }

    /// Before the first evaluation: alerts that somebody has had up to now are taken over. False when it cannot be seen
    /// whether there are any, and this evaluation is better left out.
    fn before(&mut self, at: Timestamp, source: &Source) -> bool {
        if self.count > 0 || !self.group.needs_restoring() {
            return true;
        }
        let recent = TAKE_OVER_MIN.max(self.group.interval * TAKE_OVER_INTERVALS);
        match self.group.take_over(at, recent, source) {
            Ok(()) => true,
            Err(error) => {
                self.blind_tries += 1;
                let goes_on = self.blind_tries > TAKE_OVER_TRIES;
                warn!(group = self.group.spec.name, error, goes_on, "alerts could not be taken over");
                goes_on
            }
        }
    }

    /// After the second: by then what alerts look at is there, and the past is looked for.
    fn after(&mut self, at: Timestamp, source: &Source) {
        if self.count < 2 || !self.group.needs_restoring() {
            return;
        }
        let started = Instant::now();
        for (rule, error) in self.group.restore(at, self.around.restore, source) {
            let alertname = &self.group.rules()[rule].spec.name;
            warn!(alertname, error, "Failed to restore 'for' state");
        }
        self.around.metrics.restored(&self.group, started.elapsed());
    }

    /// The places that are free, as many as the group's independent rules can use beside the one it has.
    fn more_places(&self) -> Vec<OwnedSemaphorePermit> {
        let count = if self.around.is_concurrent { self.group.independent_count() } else { 0 };
        (1..count).map_while(|_| Arc::clone(&self.around.places).try_acquire_owned().ok()).collect()
    }

    fn source(&self, stop: &CancellationToken) -> Source {
        let options = self.around.engine.options();
        Source {
            runtime: Handle::current(),
            sources: Arc::clone(&self.around.sources),
            tenant: Tenant::default(),
            samples_max: (options.max_memory_bytes / SAMPLE_BYTES) as u64,
            allow_partial: false,
            deadline: Instant::now() + options.timeout,
            canceled: stop.clone(),
            missing: Arc::new(Mutex::new(Vec::new())),
            settings: None,
        }
    }

    fn tell(&self, evaluation: &Evaluation) {
        let (file, group) = (&self.group.file, &self.group.spec.name);
        for (index, error) in &evaluation.failures {
            let name = &self.group.rules()[*index].spec.name;
            warn!(file, group, name, index, error, "Evaluating rule failed");
        }
        if evaluation.duplicates > 0 {
            let dropped = evaluation.duplicates;
            warn!(
                file,
                group,
                dropped,
                "Error on ingesting results from rule evaluation with different value but same timestamp"
            );
        }
    }

    /// The alerts that are due, as they are sent.
    fn notifications(&self, evaluation: &Evaluation) -> Vec<Notification> {
        let notification = |(expr, alert): &(String, Alert)| Notification {
            labels: alert.labels.clone(),
            annotations: alert.annotations.clone(),
            starts_at: alert.fired_at.unwrap_or(alert.active_at),
            ends_at: alert.resolved_at.unwrap_or(alert.valid_until),
            generator_url: format!("{}{}", self.around.external_url, rules::table_link(expr)),
        };
        evaluation.alerts.iter().map(notification).collect()
    }

    /// Stores what the evaluation gave and waits until it is durable.
    async fn store(&mut self, evaluation: &Evaluation) -> Stored {
        let is_empty = evaluation.samples.is_empty();
        if is_empty && evaluation.alerts.is_empty() && self.is_known {
            self.group.stored(evaluation);
            return Stored::Whole;
        }
        // Without samples as well, the home says whether the group is still this evaluator's, before alerts go out.
        let batch = self.series.batch(evaluation.samples.iter(), evaluation.time);
        let outcome = self.around.writer.write(batch, WRITE_DEADLINE).await;
        let (file, group) = (self.group.file.clone(), self.group.spec.name.clone());
        let (stored, error) = match outcome {
            Ok(written) if !is_superseded(&written) => {
                self.is_known = true;
                self.group.stored(evaluation);
                return Stored::Whole;
            }
            Err(error) if is_empty => {
                info!(file, group, %error, "home of a rule group without samples does not answer");
                self.group.stored(evaluation);
                return Stored::Lost;
            }
            Ok(_) => (Stored::Superseded, "another querier evaluates the group".to_owned()),
            Err(error) => (Stored::Lost, error.to_string()),
        };
        warn!(file, group, error, "Rule sample appending failed");
        self.around.metrics.not_stored(&self.group);
        self.group.not_stored(evaluation, &error);
        stored
    }

    fn show(&self) {
        let key = (self.group.file.clone(), self.group.spec.name.clone());
        self.shown.0.lock().insert(key, Arc::new(shown::group(&self.group)));
    }
}

/// What became of the samples of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    /// They are durable.
    Whole,
    /// Nobody took them.
    Lost,
    /// Another querier has the group.
    Superseded,
}

/// Says whether a newer evaluator of the group has written; tells of what else was refused.
fn is_superseded(written: &Written) -> bool {
    let mut is_superseded = false;
    for refusal in &written.refusals {
        let (count, example) = (refusal.count, &refusal.example);
        if refusal.reason == RefusalReason::StaleEpoch {
            is_superseded = true;
            info!(count, "samples of a rule group that another querier has were refused");
        } else {
            warn!(count, example, "Rule evaluation result discarded");
        }
    }
    is_superseded
}
