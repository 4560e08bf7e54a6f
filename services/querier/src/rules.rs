//! Rules: which groups this querier evaluates, and their running.
//!
//! Discovery says which groups there are and who evaluates them. Each group of this querier's runs in a task of its own
//! (see `runner`); a new configuration replaces the tasks of those groups alone that are not what they were, and hands
//! their state over.
//!
//! Invariants:
//! - a group that another querier gets is left as it is: its series go on;
//! - the series of a group that is gone are marked, two intervals later, so that one that was only renamed has taken
//!   them over by then;
//! - while discovery is away the groups last known are evaluated.

mod metrics;
mod runner;
mod schedule;
mod series;
mod shown;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::{Clock, Labels};
use parking_lot::Mutex;
use relabel::NameValidation;
use rpc::Channel;
use rpc::pb::discovery as pb;
use rpc::pb::discovery::discovery_client::DiscoveryClient;
use rpc::pb::querier::RuleGroup;
use rules::{Group, GroupSpec, Options, RestoreOptions};
use service_runtime::{Backoff, Shutdown, Task, Tasks};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{error, warn};

use crate::config::Config;
use crate::notifier::Notifier;
use crate::query::engine_options;
use crate::sources::Sources;
pub(crate) use metrics::RuleMetrics;
use runner::{Around, Runner};

/// Wait before a broken watch is opened again.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// What a group is known by: its file and its name.
type GroupKey = (String, String);

/// The groups that are evaluated here, as they are shown. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shown(Arc<Mutex<BTreeMap<GroupKey, Arc<RuleGroup>>>>);

impl Shown {
    /// All groups by file and name.
    pub(crate) fn groups(&self) -> Vec<Arc<RuleGroup>> {
        self.0.lock().values().cloned().collect()
    }
}

/// What the manager needs from outside.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) clock: Clock,
    pub(crate) tasks: Tasks,
    pub(crate) sources: Arc<Sources>,
    pub(crate) writer: group_writer::GroupWriter,
    pub(crate) metrics: RuleMetrics,
    pub(crate) notifier: Arc<Notifier>,
    pub(crate) member_name: String,
    pub(crate) discovery: Channel,
}

/// Runs the groups that discovery gives this querier.
pub(crate) struct Rules {
    config: Config,
    outside: Surroundings,
    shown: Shown,
    places: Arc<Semaphore>,
    running: BTreeMap<GroupKey, Running>,
}

/// A group that runs.
struct Running {
    spec: GroupSpec,
    epoch: u64,
    settings: Settings,
    stop: CancellationToken,
    state: Arc<Mutex<Option<Group>>>,
    task: Task,
}

/// What the configuration says for all groups.
#[derive(Debug, Clone, PartialEq)]
struct Settings {
    interval: Duration,
    query_offset: Duration,
    external_labels: Labels,
}

/// Everything that a watch tells at one time.
struct Told {
    settings: Settings,
    validation: NameValidation,
    files: Vec<pb::RuleFile>,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").field("running", &self.running.len()).finish_non_exhaustive()
    }
}

impl Rules {
    pub(crate) fn new(config: Config, outside: Surroundings) -> (Self, Shown) {
        let shown = Shown::default();
        let places = Arc::new(Semaphore::new(config.rule_concurrency_max));
        (Self { config, outside, shown: shown.clone(), places, running: BTreeMap::new() }, shown)
    }

    /// Follows discovery until told to stop; then lets evaluations that run come to their end.
    pub(crate) async fn run(mut self, shutdown: Shutdown) {
        let mut is_reported = false;
        loop {
            tokio::select! {
                () = shutdown.requested() => break,
                ended = self.watch() => {
                    if let Err(status) = ended && !std::mem::replace(&mut is_reported, true) {
                        warn!(error = status.message(), "watch of rule groups ended, trying again");
                    }
                }
            }
            tokio::select! {
                () = shutdown.requested() => break,
                () = tokio::time::sleep(RETRY_AFTER) => {}
            }
        }
        for running in self.running.values() {
            running.stop.cancel();
        }
        for (_, running) in std::mem::take(&mut self.running) {
            running.task.join().await;
        }
        // What was handed in is waited for: the group's next evaluator begins where this one ends.
        tokio::join!(self.outside.writer.drain(), self.outside.notifier.stop());
    }

    async fn watch(&mut self) -> Result<(), Status> {
        let client = DiscoveryClient::new(self.outside.discovery.clone());
        let mut client = client.max_decoding_message_size(rpc::MESSAGE_BYTES_MAX);
        let request = pb::WatchRulesRequest { querier: self.outside.member_name.clone() };
        let mut messages = client.watch_rules(request).await?.into_inner();
        let mut files = Vec::new();
        let mut alerting = None;
        while let Some(message) = messages.message().await? {
            files.extend(message.files);
            alerting = message.alerting.or(alerting);
            if message.is_partial {
                continue;
            }
            let settings = Settings {
                interval: Duration::from_millis(message.evaluation_interval_ms.max(1)),
                query_offset: Duration::from_millis(message.query_offset_ms),
                external_labels: rpc::convert::labels(message.external_labels.as_ref())?,
            };
            let validation =
                if message.is_legacy_names { NameValidation::Legacy } else { NameValidation::Utf8 };
            let alerting = alerting.take().unwrap_or_default();
            self.outside.notifier.apply(alerting, settings.external_labels.clone(), validation);
            let files = std::mem::take(&mut files);
            self.apply(Told { settings, validation, files }).await;
        }
        Ok(())
    }

    /// Makes what runs what discovery says.
    async fn apply(&mut self, told: Told) {
        let Told { settings, validation, files } = told;
        let known: BTreeSet<GroupKey> = files
            .iter()
            .flat_map(|file| file.groups.iter().map(|group| (file.path.clone(), group.name.clone())))
            .collect();
        let options = Options {
            validation,
            syntax: promql_syntax::Options::from_features(&self.config.features),
            ignore_unknown_fields: false,
        };
        let wanted = match tokio::task::spawn_blocking(move || wanted(files, &options)).await {
            Ok(Ok(wanted)) => wanted,
            Ok(Err(faults)) => {
                let faults = faults.join("; ");
                return error!(error = faults, "rule file cannot be read, the rules of before stay");
            }
            Err(error) => return error!(%error, "rule files cannot be read, the rules of before stay"),
        };
        let is_kept = |key: &GroupKey, running: &Running| {
            wanted.get(key).is_some_and(|(epoch, spec)| {
                *epoch == running.epoch && running.settings == settings && spec.is_same(&running.spec)
            })
        };
        let leaving: Vec<GroupKey> =
            self.running.iter().filter(|(key, r)| !is_kept(key, r)).map(|(key, _)| key.clone()).collect();
        let mut left: BTreeMap<GroupKey, (u64, Group)> = BTreeMap::new();
        for key in leaving {
            let Some(running) = self.running.remove(&key) else { continue };
            running.stop.cancel();
            running.task.join().await;
            let group = running.state.lock().take();
            self.shown.0.lock().remove(&key);
            self.outside.metrics.forget(&key);
            let Some(group) = group else { continue };
            if !known.contains(&key) {
                self.mark_later(&group, running.epoch);
            } else {
                left.insert(key, (running.epoch, group));
            }
        }
        for (key, (epoch, spec)) in wanted {
            if !self.running.contains_key(&key) {
                let before = left.remove(&key).filter(|(old, _)| *old == epoch).map(|(_, group)| group);
                self.start(key, spec, epoch, settings.clone(), before);
            }
        }
    }

    /// Starts a group; with the state of the one that stood in its place, where this querier has had it.
    fn start(
        &mut self,
        key: GroupKey,
        spec: GroupSpec,
        epoch: u64,
        settings: Settings,
        before: Option<Group>,
    ) {
        let defaults = (settings.interval, settings.query_offset);
        let mut group = Group::new(&key.0, spec.clone(), defaults, before.is_some());
        if let Some(before) = &before {
            group.take_state(before);
        }
        self.outside.metrics.started(&group);
        let state = Arc::new(Mutex::new(Some(group)));
        let stop = CancellationToken::new();
        let around = Arc::new(self.around(&settings));
        let (kept, stopping, fresh) = (Arc::clone(&state), stop.clone(), spec.clone());
        let (name, shown) = (key.clone(), self.shown.clone());
        // A panic in one group's evaluation costs that group its state and nobody else anything.
        let make = move || {
            let fallback = || Group::new(&name.0, fresh.clone(), defaults, false);
            let group = kept.lock().take().unwrap_or_else(fallback);
            let runner = Runner::new(Arc::clone(&around), group, epoch, shown.clone());
            let (kept, stopping) = (Arc::clone(&kept), stopping.clone());
            async move {
                let group = runner.run(stopping).await;
                *kept.lock() = Some(group);
                Ok(())
            }
        };
        let task = self.outside.tasks.spawn_restarting("rule group", Backoff::default(), make);
        self.running.insert(key, Running { spec, epoch, settings, stop, state, task });
    }

    fn around(&self, settings: &Settings) -> Around {
        let mut options = engine_options(&self.config);
        options.subquery_step = settings.interval;
        Around {
            clock: self.outside.clock.clone(),
            sources: Arc::clone(&self.outside.sources),
            writer: self.outside.writer.clone(),
            metrics: self.outside.metrics.clone(),
            notifier: Arc::clone(&self.outside.notifier),
            places: Arc::clone(&self.places),
            engine: promql_engine::Engine::new(options),
            external_labels: settings.external_labels.clone(),
            external_url: self.config.external_url.clone(),
            resend_delay: self.config.alert_resend_delay.0,
            is_concurrent: self.config.concurrent_rules,
            restore: RestoreOptions {
                outage_tolerance: self.config.alert_outage_tolerance.0,
                grace_period: self.config.alert_grace_period.0,
            },
        }
    }

    /// Marks the series of a group that is gone, as of now, after two of its intervals.
    fn mark_later(&self, group: &Group, epoch: u64) {
        let series = group.series();
        if series.is_empty() {
            return;
        }
        let now = self.outside.clock.now();
        let (writer, wait) = (self.outside.writer.clone(), group.interval * 2);
        let mut writing = series::Series::new(group, epoch);
        self.outside.tasks.spawn("mark series of a rule group", async move {
            tokio::time::sleep(wait).await;
            let count = series.len();
            if let Err(error) = writer.write(writing.markers(series, now), runner::WRITE_DEADLINE).await {
                warn!(%error, count, "series of a rule group that is gone were not marked");
            }
            Ok(())
        });
    }
}

/// The groups that this querier evaluates, each with its epoch.
fn wanted(
    files: Vec<pb::RuleFile>,
    options: &Options,
) -> Result<BTreeMap<GroupKey, (u64, GroupSpec)>, Vec<String>> {
    let mut wanted = BTreeMap::new();
    for file in files {
        let epochs: BTreeMap<&str, u64> = file
            .groups
            .iter()
            .filter(|group| group.epoch > 0)
            .map(|group| (group.name.as_str(), group.epoch))
            .collect();
        if epochs.is_empty() {
            continue;
        }
        for group in rules::parse(&file.text, options)?.groups {
            if let Some(epoch) = epochs.get(group.name.as_str()) {
                wanted.insert((file.path.clone(), group.name.clone()), (*epoch, group));
            }
        }
    }
    Ok(wanted)
}
