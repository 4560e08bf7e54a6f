//! The one task that owns the state of discovery: it loads the configuration, follows providers and scrapers, makes
//! and assigns targets, and publishes the result.
//!
//! Invariants:
//! - nothing else changes what is published, so there are no locks;
//! - a configuration that is refused changes nothing but `is_last_reload_successful`;
//! - a configuration is published with the first results of its providers, since a scraper must not take an unfinished
//!   list for the truth; a provider that takes longer than [`FIRST_LOOK_TIMEOUT`] holds up nobody else's targets.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use coordination::membership::Roster;
use coordination::{Coordinator, Epoch, epoch};
use http_client::Roots;
use model::Clock;
use service_runtime::{Backoff, Latch, Reload, Shutdown, Task, Tasks};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::alertmanagers::{self, Found};
use crate::assignment::{Assignments, assign};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::metrics::{DiscoveredLabels, Metrics, PoolLabels, SectionLabels};
use crate::prometheus_config::{self, Alertmanagers, Job, Provider, check_config};
use crate::providers::{self, Clusters, Feed, Update};
use crate::published::{Loaded, Published};
use crate::rule_files::{self, RuleFile, RuleGroupId};
use crate::target_group::TargetGroup;
use crate::targets::{Pool, TargetId, build_pool};

/// How many requests and updates of providers may wait.
const COMMANDS_MAX: usize = 16;
const UPDATES_MAX: usize = 64;
/// How long the first look of new providers may hold up a configuration.
const FIRST_LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the coordinator may take to hand out an epoch before the clock does.
const EPOCH_TIMEOUT: Duration = Duration::from_secs(2);
/// The name under which assignment epochs are handed out.
const EPOCHS: &str = "targets";

/// What is published; `None` until the first targets are known.
pub(crate) type Publication = Option<Arc<Published>>;

/// Asks for a reload; the answer is the new revision.
pub(crate) struct ReloadRequest(oneshot::Sender<Result<u64>>);

/// What the director needs from outside.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    /// Tells the time.
    pub(crate) clock: Clock,
    /// Hands out epochs.
    pub(crate) coordinator: Arc<dyn Coordinator>,
    /// Starts provider tasks.
    pub(crate) tasks: Tasks,
    /// The scrapers.
    pub(crate) scrapers: watch::Receiver<Roster>,
    /// The queriers, which evaluate rules.
    pub(crate) queriers: watch::Receiver<Roster>,
    /// Counts.
    pub(crate) metrics: Metrics,
}

/// See the module.
pub(crate) struct Director {
    config: Config,
    outside: Surroundings,
    loaded: Arc<Loaded>,
    is_last_reload_successful: bool,
    warned_sections: BTreeSet<String>,
    followed: HashMap<Arc<Provider>, Followed>,
    context: providers::Context,
    generation: u64,
    pools: BTreeMap<String, Arc<Pool>>,
    stale_pools: BTreeSet<String>,
    /// The Alertmanagers of each entry of the configuration; `None` when they are to be found anew.
    alertmanagers: Option<Arc<[Found]>>,
    assignments: Assignments<TargetId>,
    rule_assignments: Assignments<RuleGroupId>,
    last_epoch: Epoch,
    last_sync: Instant,
    revision: u64,
    published: watch::Sender<Publication>,
    reloads: mpsc::Receiver<ReloadRequest>,
    updates: mpsc::Receiver<Update>,
    update_sender: mpsc::Sender<Update>,
}

/// Reaches the director from request handlers. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    reloads: mpsc::Sender<ReloadRequest>,
    /// What is published.
    pub(crate) published: watch::Receiver<Publication>,
}

/// A provider that is followed.
struct Followed {
    /// What it found; empty until it could look.
    groups: Arc<Vec<TargetGroup>>,
    has_looked: bool,
    /// Tells its updates from those of an earlier follower of the same provider that are still under way.
    generation: u64,
    task: Task,
}

impl std::fmt::Debug for Director {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Director").field("config", &self.config).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ReloadRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReloadRequest")
    }
}

impl Handle {
    /// Reads the configuration file again and returns the revision then in force.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason, [`Error::Stopping`].
    pub(crate) async fn reload(&self) -> Result<u64> {
        let (answer, answered) = oneshot::channel();
        self.reloads.send(ReloadRequest(answer)).await.map_err(|_| Error::Stopping)?;
        answered.await.map_err(|_| Error::Stopping)?
    }
}

impl Director {
    /// Loads the configuration for the first time.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub(crate) async fn load(config: Config, outside: Surroundings) -> Result<(Self, Handle)> {
        let read = read_config(&config).await?;
        let (read, rule_files) = read;
        let loaded = Arc::new(Loaded { revision: 1, config: read, rule_files, at: outside.clock.now() });
        let (published, publications) = watch::channel(None);
        let (reload_sender, reloads) = mpsc::channel(COMMANDS_MAX);
        let (update_sender, updates) = mpsc::channel(UPDATES_MAX);
        let context = providers::Context {
            metrics: outside.metrics.clone(),
            tasks: outside.tasks.clone(),
            roots: Roots::default(),
            clusters: Clusters::default(),
        };
        let mut director = Self {
            config,
            outside,
            loaded,
            is_last_reload_successful: true,
            warned_sections: BTreeSet::new(),
            followed: HashMap::new(),
            context,
            generation: 0,
            pools: BTreeMap::new(),
            stale_pools: BTreeSet::new(),
            alertmanagers: None,
            assignments: Assignments::new(),
            rule_assignments: Assignments::new(),
            last_epoch: Epoch::default(),
            last_sync: Instant::now(),
            revision: 0,
            published,
            reloads,
            updates,
            update_sender,
        };
        director.note_reload();
        Ok((director, Handle { reloads: reload_sender, published: publications }))
    }

    /// Works until told to stop. The latch falls when the first targets are known.
    pub(crate) async fn run(mut self, mut reload: Reload, shutdown: Shutdown, latch: Latch) {
        self.follow_providers().await;
        self.sync().await;
        drop(latch);
        let mut next_sync: Option<Instant> = None;
        loop {
            let due = async {
                match next_sync {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.requested() => break,
                () = due => {
                    next_sync = None;
                    self.sync().await;
                }
                Some(update) = self.updates.recv() => {
                    if self.take_update(update) {
                        next_sync.get_or_insert(self.last_sync + self.config.target_update_interval.0);
                    }
                }
                Some(ReloadRequest(answer)) = self.reloads.recv() => {
                    let outcome = self.reload().await;
                    next_sync = next_sync.filter(|_| outcome.is_err());
                    // Whoever asked may have gone away; the reload stands.
                    drop(answer.send(outcome));
                }
                () = reload.wished() => {
                    if let Err(error) = self.reload().await {
                        error!(%error, "reload failed, the last configuration stays");
                    } else {
                        next_sync = None;
                    }
                }
                Ok(()) = self.outside.scrapers.changed() => self.sync().await,
                Ok(()) = self.outside.queriers.changed() => self.sync().await,
            }
        }
        for followed in self.followed.values() {
            followed.task.abort();
        }
    }

    async fn reload(&mut self) -> Result<u64> {
        let (read, rule_files) = match read_config(&self.config).await {
            Ok(read) => read,
            Err(error) => {
                self.is_last_reload_successful = false;
                self.outside.metrics.reload_successful.set(0);
                self.publish();
                return Err(error);
            }
        };
        let revision = self.loaded.revision + 1;
        self.loaded = Arc::new(Loaded {
            revision,
            config: with_kept_jobs(read, &self.loaded),
            rule_files,
            at: self.outside.clock.now(),
        });
        self.is_last_reload_successful = true;
        self.note_reload();
        self.follow_providers().await;
        self.sync().await;
        info!(revision, "configuration loaded");
        Ok(revision)
    }

    /// Tells of what is new in a configuration, marks all its pools stale and forgets those of jobs that are gone.
    fn note_reload(&mut self) {
        let metrics = &self.outside.metrics;
        let config = &self.loaded.config;
        metrics.reload_successful.set(1);
        metrics.reload_success_seconds.set(self.loaded.at.seconds());
        metrics.ignored_sections.clear();
        for section in &config.ignored_sections {
            metrics.ignored_sections.get_or_create(&SectionLabels { section: section.clone() }).set(1);
            if self.warned_sections.insert(section.clone()) {
                warn!(section, "section of the configuration is not built yet and has no effect");
            }
        }
        self.stale_pools = config.jobs.iter().map(|job| job.name.clone()).collect();
        for gone in self.pools.keys().filter(|name| !self.stale_pools.contains(*name)) {
            let labels = PoolLabels { scrape_job: gone.clone() };
            metrics.pool_syncs.remove(&labels);
            metrics.sync_failures.remove(&labels);
        }
        self.pools.retain(|name, _| self.stale_pools.contains(name));
        for family in [&metrics.pool_targets, &metrics.pool_target_limit] {
            family.clear();
        }
        metrics.discovered_targets.clear();
        self.alertmanagers = None;
    }

    /// Follows the providers that are new, leaves those that are gone, and waits for the first results.
    async fn follow_providers(&mut self) {
        let config = &self.loaded.config;
        let of_jobs = config.jobs.iter().flat_map(|job| &job.providers);
        let of_alertmanagers = config.alerting.alertmanagers.iter().flat_map(|entry| &entry.providers);
        let wanted: HashSet<Provider> = of_jobs.chain(of_alertmanagers).cloned().collect();
        self.followed.retain(|provider, followed| {
            let is_kept = wanted.contains(&**provider);
            if !is_kept {
                followed.task.abort();
            }
            is_kept
        });
        for provider in wanted {
            if !self.followed.contains_key(&provider) {
                self.follow(Arc::new(provider));
            }
        }
        let deadline = Instant::now() + FIRST_LOOK_TIMEOUT;
        while self.followed.values().any(|followed| !followed.has_looked) {
            match tokio::time::timeout_at(deadline, self.updates.recv()).await {
                Ok(Some(update)) => {
                    self.take_update(update);
                }
                Ok(None) | Err(_) => {
                    let late = self.followed.values().filter(|followed| !followed.has_looked).count();
                    warn!(late, "providers have no first result yet, their targets come later");
                    return;
                }
            }
        }
    }

    fn follow(&mut self, provider: Arc<Provider>) {
        self.generation += 1;
        let generation = self.generation;
        let feed = Feed::new(provider.clone(), generation, self.update_sender.clone());
        let context = self.context.clone();
        let task = self.outside.tasks.spawn_restarting("follow provider", Backoff::default(), move || {
            providers::follow(feed.clone(), context.clone())
        });
        let followed = Followed { groups: Arc::default(), has_looked: false, generation, task };
        self.followed.insert(provider, followed);
    }

    /// Takes what a provider found; false when that changes nothing.
    fn take_update(&mut self, update: Update) -> bool {
        let Update { provider, generation, groups } = update;
        let followed = self.followed.get_mut(&provider).filter(|followed| followed.generation == generation);
        let Some(followed) = followed else { return false };
        followed.has_looked = true;
        let Some(groups) = groups else { return false };
        followed.groups = Arc::new(groups);
        let config = &self.loaded.config;
        let uses = |job: &&Arc<Job>| job.providers.contains(&provider);
        self.stale_pools.extend(config.jobs.iter().filter(uses).map(|job| job.name.clone()));
        if config.alerting.alertmanagers.iter().any(|entry| entry.providers.contains(&provider)) {
            self.alertmanagers = None;
        }
        true
    }

    /// Makes stale pools anew, assigns and publishes.
    async fn sync(&mut self) {
        let stale = std::mem::take(&mut self.stale_pools);
        let jobs: Vec<Arc<Job>> =
            self.loaded.config.jobs.iter().filter(|job| stale.contains(&job.name)).cloned().collect();
        for job in jobs {
            let found = self.found(&job.providers);
            let (name, of_job) = (job.name.clone(), job.clone());
            match tokio::task::spawn_blocking(move || pool(&of_job, &found)).await {
                Ok((pool, discovered)) => {
                    self.note_pool(&job, &pool, discovered);
                    self.pools.insert(name, Arc::new(pool));
                }
                Err(error) => {
                    error!(%error, job = name, "targets of a job could not be made, the last ones stay");
                }
            }
        }
        self.find_alertmanagers().await;
        let members = self.outside.scrapers.borrow_and_update().members.clone();
        let epoch = self.next_epoch().await;
        let ids = self.pools.values().flat_map(|pool| pool.targets.iter().map(|target| target.id));
        self.assignments = assign(ids, &members, &self.assignments, epoch);
        let queriers = self.outside.queriers.borrow_and_update().members.clone();
        let of_file = |file: &RuleFile| {
            let id = |name: &Arc<str>| RuleGroupId { file: file.path.clone(), name: name.clone() };
            file.groups.iter().map(id).collect::<Vec<_>>()
        };
        let groups = self.loaded.rule_files.iter().flat_map(of_file);
        self.rule_assignments = assign(groups, &queriers, &self.rule_assignments, epoch);
        let count: usize = self.pools.values().map(|pool| pool.targets.len()).sum();
        let unassigned = count.saturating_sub(self.assignments.len());
        self.outside.metrics.unassigned_targets.set(i64::try_from(unassigned).unwrap_or(i64::MAX));
        self.last_sync = Instant::now();
        self.publish();
    }

    /// What providers have found.
    fn found(&self, providers: &[Provider]) -> Vec<Arc<Vec<TargetGroup>>> {
        let found = providers.iter().filter_map(|provider| self.followed.get(provider));
        found.map(|followed| followed.groups.clone()).collect()
    }

    /// Finds the Alertmanagers anew where something has changed.
    async fn find_alertmanagers(&mut self) {
        if self.alertmanagers.is_some() {
            return;
        }
        let entries = self.loaded.config.alerting.alertmanagers.iter();
        let entries: Vec<_> = entries.map(|entry| (entry.clone(), self.found(&entry.providers))).collect();
        let find = move || {
            let of_entry = |(entry, found): &(Arc<Alertmanagers>, Vec<Arc<Vec<TargetGroup>>>)| {
                let groups = found.iter().flat_map(|groups| groups.iter());
                alertmanagers::find(entry, entry.static_groups.iter().chain(groups))
            };
            entries.iter().map(of_entry).collect::<Arc<[Found]>>()
        };
        let found = match tokio::task::spawn_blocking(find).await {
            Ok(found) => found,
            Err(error) => return error!(%error, "Alertmanagers could not be found, alerts go nowhere"),
        };
        for (index, found) in found.iter().enumerate() {
            let labels = DiscoveredLabels { name: "notify", config: format!("config-{index}") };
            let count = i64::try_from(found.discovered).unwrap_or(i64::MAX);
            self.outside.metrics.discovered_targets.get_or_create(&labels).set(count);
            if let Some(example) = found.failures.first() {
                let failures = found.failures.len();
                error!(index, failures, error = example, "Creating alertmanagers failed");
            }
        }
        self.alertmanagers = Some(found);
    }

    fn note_pool(&self, job: &Job, pool: &Pool, discovered: usize) {
        let metrics = &self.outside.metrics;
        let labels = PoolLabels { scrape_job: job.name.clone() };
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.pool_targets.get_or_create(&labels).set(count(pool.targets.len()));
        let limit = i64::try_from(job.limits.targets).unwrap_or(i64::MAX);
        metrics.pool_target_limit.get_or_create(&labels).set(limit);
        metrics.pool_syncs.get_or_create(&labels).inc();
        let discovered_labels = DiscoveredLabels { name: "scrape", config: job.name.clone() };
        metrics.discovered_targets.get_or_create(&discovered_labels).set(count(discovered));
        if pool.is_limit_exceeded {
            metrics.pool_exceeded_target_limit.inc();
        }
        let failures = pool.failures.len();
        metrics.sync_failures.get_or_create(&labels).inc_by(failures as u64);
        if let Some(example) = pool.failures.first() {
            error!(job = job.name, failures, error = example, "creating targets failed");
        }
    }

    async fn next_epoch(&mut self) -> Epoch {
        let now = self.outside.clock.now();
        let asked = epoch::next(&*self.outside.coordinator, EPOCHS, now);
        let refusal = match tokio::time::timeout(EPOCH_TIMEOUT, asked).await {
            Ok(Ok(epoch)) => {
                self.last_epoch = epoch.max(Epoch(self.last_epoch.0.saturating_add(1)));
                return self.last_epoch;
            }
            Ok(Err(error)) => error.to_string(),
            Err(elapsed) => elapsed.to_string(),
        };
        warn!(error = refusal, "coordinator gives no epoch, the clock does");
        self.last_epoch = Epoch::following(self.last_epoch, now);
        self.last_epoch
    }

    fn publish(&mut self) {
        self.revision += 1;
        let members = self.outside.scrapers.borrow().members.clone();
        let mut state = Published::new(
            self.revision,
            self.loaded.clone(),
            self.is_last_reload_successful,
            self.pools.clone(),
            members,
            self.assignments.clone(),
            self.rule_assignments.clone(),
        );
        state.alertmanagers = self.alertmanagers.clone().unwrap_or_default();
        self.published.send_replace(Some(Arc::new(state)));
    }
}

/// Uses the jobs of before where nothing changed, so that comparing them is comparing pointers.
fn with_kept_jobs(mut read: prometheus_config::Config, before: &Loaded) -> prometheus_config::Config {
    for job in &mut read.jobs {
        if let Some(kept) = before.config.jobs.iter().find(|kept| *kept == job) {
            *job = kept.clone();
        }
    }
    read
}

async fn read_config(config: &Config) -> Result<(prometheus_config::Config, Arc<[RuleFile]>)> {
    let own = config.clone();
    let refused = |faults| Error::Refused { path: config.config_file.clone(), faults };
    let read = move || {
        let checked = check_config(&own.config_file, &own.environment)?;
        let files = rule_files::load(&checked, &own.features).map_err(|fault| vec![fault])?;
        Ok((checked, files))
    };
    let checked = tokio::task::spawn_blocking(read).await;
    checked.map_err(|error| refused(vec![error.to_string()]))?.map_err(refused)
}

/// The pool of a job, and how many targets its providers found.
fn pool(job: &Job, found: &[Arc<Vec<TargetGroup>>]) -> (Pool, usize) {
    let found = found.iter().flat_map(|groups| groups.iter());
    let groups: Vec<&TargetGroup> = job.static_groups.iter().chain(found).collect();
    let discovered = groups.iter().map(|group| group.targets.len()).sum();
    (build_pool(job, groups), discovered)
}
