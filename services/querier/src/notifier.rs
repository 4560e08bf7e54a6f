//! Alerts to Alertmanagers.
//!
//! An alert gets the external labels, is relabelled as `alerting` says, and once more for each set of Alertmanagers;
//! then it waits in a queue for each Alertmanager of the set (see `send_loop`).
//!
//! Invariants:
//! - handing alerts in never waits: an Alertmanager that hangs costs its own queue the oldest alerts, and nobody else
//!   anything;
//! - an Alertmanager keeps its queue over changes of the configuration that do not concern it.

mod metrics;
mod send_loop;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http_client::{Client, HttpSettings, Roots};
use model::{Labels, Timestamp};
use parking_lot::Mutex;
use relabel::{NameValidation, Rule};
use rpc::pb::discovery as pb;
use service_runtime::{Backoff, Task, Tasks};
use tokio_util::sync::CancellationToken;
use tracing::error;

pub(crate) use metrics::NotifierMetrics;
use send_loop::SendLoop;

/// How alerts wait and go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Alerts that wait for one Alertmanager at most.
    pub(crate) queue_capacity: usize,
    /// Alerts in one request at most.
    pub(crate) batch_size: usize,
    /// What waits is sent before the end.
    pub(crate) drains: bool,
}

/// An alert as Alertmanagers get it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Notification {
    pub(crate) labels: Labels,
    pub(crate) annotations: Labels,
    pub(crate) starts_at: Timestamp,
    pub(crate) ends_at: Timestamp,
    pub(crate) generator_url: String,
}

/// Sends alerts.
#[derive(Debug)]
pub(crate) struct Notifier {
    options: Options,
    tasks: Tasks,
    roots: Roots,
    metrics: NotifierMetrics,
    state: Mutex<State>,
}

/// What the configuration says.
#[derive(Debug, Default)]
struct State {
    external_labels: Labels,
    relabel: Vec<Rule>,
    sets: Vec<Set>,
}

/// Alertmanagers that are reached in the same way.
#[derive(Debug)]
struct Set {
    /// What it is made of, without the Alertmanagers.
    config: pb::AlertmanagerSet,
    validation: NameValidation,
    relabel: Vec<Rule>,
    client: Arc<Client>,
    running: BTreeMap<String, Running>,
}

/// An Alertmanager that is sent to.
#[derive(Debug)]
struct Running {
    sending: Arc<SendLoop>,
    stop: CancellationToken,
    task: Task,
}

impl Notifier {
    pub(crate) fn new(options: Options, tasks: Tasks, metrics: NotifierMetrics) -> Self {
        metrics.queue_capacity.set(i64::try_from(options.queue_capacity).unwrap_or(i64::MAX));
        Self { options, tasks, roots: Roots::default(), metrics, state: Mutex::default() }
    }

    /// Takes what the configuration says, and which Alertmanagers there are now.
    pub(crate) fn apply(&self, alerting: pb::Alerting, external_labels: Labels, validation: NameValidation) {
        let relabel = match rules(alerting.alert_relabel, validation) {
            Ok(relabel) => relabel,
            Err(error) => {
                return error!(error, "alert_relabel_configs cannot be used, the alerting of before stays");
            }
        };
        let mut state = self.state.lock();
        let mut before = std::mem::take(&mut state.sets);
        for mut config in alerting.sets {
            let urls = std::mem::take(&mut config.urls);
            let known = before.iter().position(|set| set.config == config && set.validation == validation);
            let set = match known {
                Some(index) => Ok(before.swap_remove(index)),
                None => Set::new(config, validation, self.roots.clone()),
            };
            match set {
                Ok(mut set) => {
                    self.sync(&mut set, urls);
                    state.sets.push(set);
                }
                Err(error) => error!(error, ?urls, "Alertmanagers cannot be reached, they are sent nothing"),
            }
        }
        before.iter_mut().for_each(|set| self.sync(set, Vec::new()));
        (state.external_labels, state.relabel) = (external_labels, relabel);
        let count: usize = state.sets.iter().map(|set| set.running.len()).sum();
        self.metrics.discovered.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Sends to these Alertmanagers of a set and to no others.
    fn sync(&self, set: &mut Set, urls: Vec<String>) {
        set.running.retain(|url, running| {
            let is_kept = urls.contains(url);
            if !is_kept {
                running.stop.cancel();
            }
            is_kept
        });
        for url in urls {
            if !set.running.contains_key(&url) {
                let running = self.start(set, &url);
                set.running.insert(url, running);
            }
        }
    }

    fn start(&self, set: &Set, url: &str) -> Running {
        let timeout = Duration::from_millis(set.config.timeout_ms);
        let metrics = self.metrics.of(url);
        let sending = SendLoop::new(url, (set.client.clone(), timeout), self.options, metrics);
        let sending = Arc::new(sending);
        let stop = CancellationToken::new();
        let (of_task, stopping) = (sending.clone(), stop.clone());
        let task = self.tasks.spawn_restarting("send alerts", Backoff::default(), move || {
            let (sending, stopping) = (of_task.clone(), stopping.clone());
            async move {
                sending.run(&stopping).await;
                Ok(())
            }
        });
        Running { sending, stop, task }
    }

    /// Hands alerts in; where there are no Alertmanagers they go nowhere.
    pub(crate) fn send(&self, alerts: Vec<Notification>) {
        let state = self.state.lock();
        let with_external = |alert: Notification| {
            let mut labels = alert.labels.to_builder();
            for (name, value) in &state.external_labels {
                if !alert.labels.has(name) {
                    labels.set(name, value);
                }
            }
            relabelled(Notification { labels: labels.build(), ..alert }, &state.relabel)
        };
        let alerts: Vec<Arc<Notification>> =
            alerts.into_iter().filter_map(with_external).map(Arc::new).collect();
        for set in &state.sets {
            let of_set: Vec<Arc<Notification>> = if set.relabel.is_empty() {
                alerts.clone()
            } else {
                let relabelled = |alert: &Arc<Notification>| relabelled((**alert).clone(), &set.relabel);
                alerts.iter().filter_map(relabelled).map(Arc::new).collect()
            };
            for running in set.running.values() {
                running.sending.add(&of_set);
            }
        }
    }

    /// Sends what waits, where that is wished, and ends.
    pub(crate) async fn stop(&self) {
        let sets = std::mem::take(&mut self.state.lock().sets);
        let all: Vec<Running> = sets.into_iter().flat_map(|set| set.running.into_values()).collect();
        all.iter().for_each(|running| running.stop.cancel());
        for running in all {
            running.task.join().await;
        }
    }
}

impl Set {
    fn new(config: pb::AlertmanagerSet, validation: NameValidation, roots: Roots) -> Result<Self, String> {
        let relabel = rules(config.alert_relabel.clone(), validation)?;
        let settings = HttpSettings::from_message(config.http.clone().unwrap_or_default())?;
        let client = Arc::new(Client::new(settings, roots));
        Ok(Self { config, validation, relabel, client, running: BTreeMap::new() })
    }
}

/// An alert with other labels; `None` when a rule drops it.
fn relabelled(alert: Notification, rules: &[Rule]) -> Option<Notification> {
    let labels = relabel::apply(&alert.labels, rules)?;
    Some(Notification { labels, ..alert })
}

fn rules(messages: Vec<pb::RelabelRule>, name_validation: NameValidation) -> Result<Vec<Rule>, String> {
    let rule = |message| config_watch::relabel_rule(message, name_validation);
    messages.into_iter().map(rule).collect::<relabel::Result<_>>().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
