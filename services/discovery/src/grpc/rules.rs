//! The stream of rule groups of one querier, and of where their alerts go.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use prost::Message as _;
use rpc::pb::discovery as pb;

use super::{PART_BYTES_MAX, States, http, millis, rule};
use crate::assignment::Assignment;
use crate::published::Published;
use crate::rule_files::RuleGroupId;

/// What a stream holds: the state it has told, and the parts of a message that are still to be sent.
pub(super) struct RuleWatch {
    pub(super) states: States,
    pub(super) querier: String,
    pub(super) told: Option<Told>,
    pub(super) parts: VecDeque<pb::WatchRulesResponse>,
}

/// What decides whether there is news: the configuration, what the querier has, and which Alertmanagers there are.
#[derive(PartialEq)]
pub(super) struct Told {
    revision: u64,
    share: BTreeMap<RuleGroupId, Assignment>,
    alertmanagers: Vec<Vec<String>>,
}

impl RuleWatch {
    pub(super) async fn next(&mut self) -> Option<pb::WatchRulesResponse> {
        loop {
            if let Some(part) = self.parts.pop_front() {
                return Some(part);
            }
            let now = self.states.next().await?;
            let share: BTreeMap<_, _> = now
                .rule_assignments
                .iter()
                .filter(|(_, assignment)| *assignment.worker == *self.querier)
                .map(|(id, assignment)| (id.clone(), assignment.clone()))
                .collect();
            let alertmanagers = now.alertmanagers.iter().map(|found| found.urls.clone()).collect();
            let news = Told { revision: now.loaded.revision, share, alertmanagers };
            if self.told.as_ref() != Some(&news) {
                self.parts = messages(&now, &news.share);
                self.told = Some(news);
            }
        }
    }
}

/// Everything there is to tell, in parts that fit into messages.
fn messages(
    now: &Arc<Published>,
    share: &BTreeMap<RuleGroupId, Assignment>,
) -> VecDeque<pb::WatchRulesResponse> {
    let config = &now.loaded.config;
    let empty = || pb::WatchRulesResponse {
        revision: now.loaded.revision,
        external_labels: Some((&config.external_labels).into()),
        evaluation_interval_ms: millis(config.evaluation_interval),
        query_offset_ms: millis(config.rule_query_offset),
        is_legacy_names: config.is_legacy_names,
        ..Default::default()
    };
    let first = pb::WatchRulesResponse { alerting: Some(alerting(now)), ..empty() };
    let mut parts = VecDeque::from([first]);
    let mut bytes = 0;
    for file in now.loaded.rule_files.iter() {
        let epoch = |name: &Arc<str>| {
            let id = RuleGroupId { file: file.path.clone(), name: name.clone() };
            share.get(&id).map_or(0, |assignment| assignment.epoch.0)
        };
        let groups: Vec<_> = file
            .groups
            .iter()
            .map(|name| pb::RuleGroupAssignment { name: name.to_string(), epoch: epoch(name) })
            .collect();
        let is_wanted = groups.iter().any(|group| group.epoch > 0);
        let text = if is_wanted { file.text.to_string() } else { String::new() };
        let message = pb::RuleFile { path: file.path.to_string(), text, groups };
        let size = message.encoded_len();
        if bytes > 0 && bytes + size > PART_BYTES_MAX {
            if let Some(last) = parts.back_mut() {
                last.is_partial = true;
            }
            parts.push_back(empty());
            bytes = 0;
        }
        bytes += size;
        if let Some(last) = parts.back_mut() {
            last.files.push(message);
        }
    }
    parts
}

fn alerting(now: &Published) -> pb::Alerting {
    let alerting = &now.loaded.config.alerting;
    let sets = alerting.alertmanagers.iter().zip(now.alertmanagers.iter());
    pb::Alerting {
        alert_relabel: alerting.alert_relabel.iter().map(rule).collect(),
        sets: sets
            .map(|(entry, found)| pb::AlertmanagerSet {
                http: Some(http(&entry.http)),
                timeout_ms: millis(entry.timeout),
                alert_relabel: entry.alert_relabel.iter().map(rule).collect(),
                urls: found.urls.clone(),
            })
            .collect(),
    }
}
