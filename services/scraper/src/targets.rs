//! The targets of this scraper: what discovery said, which loops run, and how each target is.
//!
//! [`Targets`] takes deltas one after the other and gives orders to the loops; [`Registry`] is what others look at.
//!
//! Invariants:
//! - there is at most one loop for a target, from its first delta until its markers are written;
//! - a removal of an older epoch than the one in force is ignored;
//! - only [`Removal::Gone`] leads to staleness markers. A target that a snapshot leaves out is treated as moved,
//!   since nobody said that it is gone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use model::{Labels, Timestamp};
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::warn;

use crate::cache::MetadataList;
use crate::client::{Client, Shared};
use crate::job::Job;
use crate::metrics::{IgnoredSetting, Metrics, ScrapeJob};
use crate::schedule::offset_seed;

/// One target, as discovery described it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Target {
    /// Identity over all deltas.
    pub(crate) id: String,
    /// The job, by name.
    pub(crate) job: String,
    /// Final labels.
    pub(crate) labels: Labels,
    /// Labels before relabelling.
    pub(crate) discovered_labels: Labels,
    /// What to scrape.
    pub(crate) url: String,
    /// How often.
    pub(crate) interval: Duration,
    /// How long a scrape may take.
    pub(crate) timeout: Duration,
    /// The assignment epoch.
    pub(crate) epoch: u64,
    /// Why the target cannot be scraped; empty when it can.
    pub(crate) error: String,
    /// Takes part in the offset.
    pub(crate) labels_hash: u64,
}

/// Why a target is not scraped any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    /// It is there no more: its series end.
    Gone,
    /// Its series go on elsewhere.
    Moved,
}

/// A delta, whole.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Update {
    pub(crate) revision: u64,
    /// What is not listed is not assigned any more.
    pub(crate) is_snapshot: bool,
    pub(crate) jobs: Vec<Job>,
    pub(crate) removed_jobs: Vec<String>,
    pub(crate) targets: Vec<Target>,
    /// Identity, reason, and the epoch that ends.
    pub(crate) removed: Vec<(String, Removal, u64)>,
    pub(crate) external_labels: Option<Labels>,
}

/// A job with its client.
#[derive(Debug)]
pub(crate) struct RunningJob {
    pub(crate) job: Job,
    pub(crate) client: Client,
}

/// A target with everything its loop needs.
#[derive(Debug, Clone)]
pub(crate) struct Assignment {
    pub(crate) target: Arc<Target>,
    pub(crate) job: Arc<RunningJob>,
    /// Takes part in the offset.
    pub(crate) offset_seed: u64,
}

/// What a loop is told to do.
#[derive(Debug, Clone)]
pub(crate) enum Order {
    Scrape(Assignment),
    Stop(Removal),
}

/// How a target is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    /// When the last scrape began, how many seconds it took, and what was wrong with it.
    pub(crate) last_scrape: Option<(Timestamp, f64, Option<String>)>,
    /// What the target says about its metrics.
    pub(crate) metadata: MetadataList,
    /// The loop has nothing left to do.
    pub(crate) has_ended: bool,
}

/// A target for others to look at.
#[derive(Debug)]
pub(crate) struct Shown {
    assignment: Mutex<Assignment>,
    pub(crate) status: Mutex<Status>,
}

impl Shown {
    pub(crate) fn assignment(&self) -> Assignment {
        self.assignment.lock().clone()
    }
}

/// The targets that are scraped, for others to look at. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry(Arc<Mutex<BTreeMap<String, Arc<Shown>>>>);

impl Registry {
    /// Returns all targets.
    pub(crate) fn all(&self) -> Vec<Arc<Shown>> {
        self.0.lock().values().cloned().collect()
    }
}

/// Starts the loop of a target; the loop ends when its orders do.
pub(crate) type Start = Box<dyn Fn(watch::Receiver<Order>, Arc<Shown>) + Send + Sync>;

#[derive(Debug)]
struct Loop {
    orders: watch::Sender<Order>,
    shown: Arc<Shown>,
    is_stopping: bool,
}

/// The targets of this scraper and their loops.
pub(crate) struct Targets {
    start: Start,
    shared: Shared,
    metrics: Metrics,
    registry: Registry,
    offset_host: String,
    offset_seed: u64,
    jobs: HashMap<String, Arc<RunningJob>>,
    loops: HashMap<String, Loop>,
    /// Jobs that a metric shows.
    counted: HashSet<String>,
}

impl std::fmt::Debug for Targets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Targets").field("loops", &self.loops.len()).finish_non_exhaustive()
    }
}

impl Targets {
    /// Starts without targets; `start` starts a loop.
    pub(crate) fn new(
        start: Start,
        shared: Shared,
        metrics: Metrics,
        registry: Registry,
        offset_host: String,
    ) -> Self {
        let offset_seed = offset_seed(&offset_host, &Labels::empty());
        let (jobs, loops, counted) = (HashMap::new(), HashMap::new(), HashSet::new());
        Self { start, shared, metrics, registry, offset_host, offset_seed, jobs, loops, counted }
    }

    /// Takes a delta.
    pub(crate) fn apply(&mut self, update: Update) {
        let listed_jobs: HashSet<String> = update.jobs.iter().map(|job| job.name.to_string()).collect();
        let mut changed_jobs = HashSet::new();
        for job in update.jobs {
            let name = job.name.to_string();
            if self.set_job(job) {
                changed_jobs.insert(name);
            }
        }
        let seed = update.external_labels.map(|labels| offset_seed(&self.offset_host, &labels));
        let is_new_seed = seed.is_some_and(|seed| std::mem::replace(&mut self.offset_seed, seed) != seed);

        let listed: HashSet<String> = update.targets.iter().map(|target| target.id.clone()).collect();
        for target in update.targets {
            self.scrape(target);
        }
        for (id, reason, epoch) in update.removed {
            self.stop(&id, reason, Some(epoch));
        }
        if update.is_snapshot {
            let left_out: Vec<String> =
                self.loops.keys().filter(|id| !listed.contains(*id)).cloned().collect();
            left_out.iter().for_each(|id| self.stop(id, Removal::Moved, None));
            let left_out: Vec<String> =
                self.jobs.keys().filter(|name| !listed_jobs.contains(*name)).cloned().collect();
            left_out.iter().for_each(|name| self.remove_job(name));
        }
        self.renew_orders(|target| {
            !listed.contains(&target.id) && (is_new_seed || changed_jobs.contains(&target.job))
        });
        for name in &update.removed_jobs {
            self.remove_job(name);
        }
        self.reap();
        self.count();
    }

    /// Lets go of loops that have written their markers.
    pub(crate) fn reap(&mut self) {
        self.loops.retain(|_, running| !(running.is_stopping && running.shown.status.lock().has_ended));
    }

    /// Takes a job; returns whether it is another than before.
    fn set_job(&mut self, job: Job) -> bool {
        let name = job.name.to_string();
        if self.jobs.get(&name).is_some_and(|known| known.job == job) {
            return false;
        }
        self.remove_job(&name);
        for &setting in &job.ignored {
            warn!(job = name, setting, "this setting is valid and not built yet");
            let labels = IgnoredSetting { scrape_job: name.clone(), setting };
            self.metrics.ignored_settings.get_or_create(&labels).set(1);
        }
        if let Some(refusal) = &job.refusal {
            warn!(job = name, error = refusal, "this job cannot be scraped");
        }
        let client = Client::new(&job, self.shared.clone());
        self.jobs.insert(name, Arc::new(RunningJob { job, client }));
        true
    }

    fn scrape(&mut self, target: Target) {
        let Some(job) = self.jobs.get(&target.job).cloned() else {
            warn!(job = target.job, target = target.id, "a target of an unknown job is left out");
            return;
        };
        let id = target.id.clone();
        let assignment = Assignment { target: Arc::new(target), job, offset_seed: self.offset_seed };
        if let Some(running) = self.loops.get_mut(&id) {
            let has_ended = running.shown.status.lock().has_ended;
            let is_same = {
                let known = running.shown.assignment.lock();
                known.target == assignment.target
                    && Arc::ptr_eq(&known.job, &assignment.job)
                    && known.offset_seed == assignment.offset_seed
            };
            if is_same && !running.is_stopping {
                return;
            }
            if !has_ended {
                *running.shown.assignment.lock() = assignment.clone();
                running.is_stopping = false;
                running.orders.send_replace(Order::Scrape(assignment));
                self.registry.0.lock().insert(id, running.shown.clone());
                return;
            }
        }
        let shown = Arc::new(Shown { assignment: Mutex::new(assignment.clone()), status: Mutex::default() });
        let (orders, receiver) = watch::channel(Order::Scrape(assignment));
        (self.start)(receiver, shown.clone());
        self.registry.0.lock().insert(id.clone(), shown.clone());
        self.loops.insert(id, Loop { orders, shown, is_stopping: false });
    }

    fn stop(&mut self, id: &str, reason: Removal, epoch: Option<u64>) {
        let Some(running) = self.loops.get_mut(id) else { return };
        let known = running.shown.assignment.lock().target.epoch;
        if running.is_stopping || epoch.is_some_and(|epoch| epoch < known) {
            return;
        }
        running.is_stopping = true;
        running.orders.send_replace(Order::Stop(reason));
        self.registry.0.lock().remove(id);
    }

    /// Tells the loops of some targets about their job or offset anew.
    fn renew_orders(&mut self, is_touched: impl Fn(&Target) -> bool) {
        for running in self.loops.values().filter(|running| !running.is_stopping) {
            let mut assignment = running.shown.assignment.lock();
            if !is_touched(&assignment.target) {
                continue;
            }
            let Some(job) = self.jobs.get(&assignment.target.job) else { continue };
            assignment.job = job.clone();
            assignment.offset_seed = self.offset_seed;
            running.orders.send_replace(Order::Scrape(assignment.clone()));
        }
    }

    /// Shows how many targets each job has.
    fn count(&mut self) {
        let mut counts: HashMap<String, i64> = self.jobs.keys().map(|name| (name.clone(), 0)).collect();
        for shown in self.registry.all() {
            *counts.entry(shown.assignment.lock().target.job.clone()).or_default() += 1;
        }
        let label = |job: &String| ScrapeJob { scrape_job: job.clone() };
        for job in self.counted.iter().filter(|job| !counts.contains_key(*job)) {
            self.metrics.targets.remove(&label(job));
        }
        for (job, count) in &counts {
            self.metrics.targets.get_or_create(&label(job)).set(*count);
        }
        self.counted = counts.into_keys().collect();
    }

    /// Lets go of a job.
    fn remove_job(&mut self, name: &str) {
        let Some(removed) = self.jobs.remove(name) else { return };
        for &setting in &removed.job.ignored {
            let labels = IgnoredSetting { scrape_job: name.to_owned(), setting };
            self.metrics.ignored_settings.remove(&labels);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
