//! What discovery tells others, and what changes between one state of it and the next.
//!
//! A stream holds the last state it has told and compares it with the newest, so a slow reader skips states instead
//! of piling them up.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use coordination::{Epoch, Member};
use model::{Labels, Timestamp};

use crate::alertmanagers::Found;
use crate::assignment::Assignments;
use crate::prometheus_config::{Config, Job};
use crate::rule_files::{RuleFile, RuleGroupId};
use crate::targets::{Pool, Target, TargetId};

/// A configuration that is in force.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Ascending from 1.
    pub(crate) revision: u64,
    /// What the file says.
    pub(crate) config: Config,
    /// The rule files that it names.
    pub(crate) rule_files: Arc<[RuleFile]>,
    /// When it was read.
    pub(crate) at: Timestamp,
}

/// A target with the epoch in which its scraper was given it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assigned {
    /// The target.
    pub(crate) target: Arc<Target>,
    /// The epoch.
    pub(crate) epoch: Epoch,
}

/// What one scraper scrapes.
pub(crate) type Share = BTreeMap<TargetId, Assigned>;

/// Everything there is to tell, at one moment.
#[derive(Debug)]
pub(crate) struct Published {
    /// Ascending from 1.
    pub(crate) revision: u64,
    /// The configuration.
    pub(crate) loaded: Arc<Loaded>,
    /// False when a reload after `loaded` was refused.
    pub(crate) is_last_reload_successful: bool,
    /// Targets by job.
    pub(crate) pools: BTreeMap<String, Arc<Pool>>,
    /// The scrapers that are there.
    pub(crate) members: Arc<[Member]>,
    /// Who scrapes what.
    pub(crate) assignments: Assignments<TargetId>,
    /// Who evaluates which rules.
    pub(crate) rule_assignments: Assignments<RuleGroupId>,
    /// The Alertmanagers of each entry of the configuration.
    pub(crate) alertmanagers: Arc<[Found]>,
    /// What scrapers scrape, by scraper.
    shares: BTreeMap<Arc<str>, Share>,
}

impl Published {
    /// Puts a state together, without Alertmanagers.
    #[must_use]
    pub(crate) fn new(
        revision: u64,
        loaded: Arc<Loaded>,
        is_last_reload_successful: bool,
        pools: BTreeMap<String, Arc<Pool>>,
        members: Arc<[Member]>,
        assignments: Assignments<TargetId>,
        rule_assignments: Assignments<RuleGroupId>,
    ) -> Self {
        let mut shares: BTreeMap<Arc<str>, Share> = BTreeMap::new();
        for target in pools.values().flat_map(|pool| &pool.targets) {
            if let Some(assignment) = assignments.get(&target.id) {
                let assigned = Assigned { target: target.clone(), epoch: assignment.epoch };
                shares.entry(assignment.worker.clone()).or_default().insert(target.id, assigned);
            }
        }
        Self {
            revision,
            loaded,
            is_last_reload_successful,
            pools,
            members,
            assignments,
            rule_assignments,
            alertmanagers: Arc::default(),
            shares,
        }
    }

    /// Says whether a scraper is there.
    #[must_use]
    pub(crate) fn has_member(&self, scraper: &str) -> bool {
        self.members.iter().any(|member| member.name == scraper)
    }

    fn share(&self, scraper: &str) -> Option<&Share> {
        self.shares.get(scraper)
    }
}

/// Why a scraper stops scraping a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RemovalReason {
    /// It is there no more: its series end.
    Gone,
    /// Its series go on: with another scraper, or at another URL.
    Moved,
}

/// A target that a scraper stops scraping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Removed {
    /// The target.
    pub(crate) id: TargetId,
    /// Why.
    pub(crate) reason: RemovalReason,
    /// The epoch that ends.
    pub(crate) epoch: Epoch,
}

/// What a scraper is to be told.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Delta {
    /// True when nothing was told before.
    pub(crate) is_snapshot: bool,
    /// New or changed jobs.
    pub(crate) jobs: Vec<Arc<Job>>,
    /// Jobs that are gone.
    pub(crate) removed_jobs: Vec<String>,
    /// New or changed targets.
    pub(crate) targets: Vec<Assigned>,
    /// Targets that end.
    pub(crate) removed: Vec<Removed>,
    /// External labels, if they changed.
    pub(crate) external_labels: Option<Labels>,
}

impl Delta {
    /// Says whether there is nothing to tell.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a scraper that was told `before` is to be told now.
#[must_use]
pub(crate) fn delta(scraper: &str, before: Option<&Published>, now: &Published) -> Delta {
    let empty = Share::new();
    let new = now.share(scraper).unwrap_or(&empty);
    let old = before.and_then(|before| before.share(scraper)).unwrap_or(&empty);
    let old_jobs = before.map_or(&[] as &[_], |before| &before.loaded.config.jobs);
    let new_jobs = &now.loaded.config.jobs;
    let external_labels = &now.loaded.config.external_labels;
    let is_same_config = before.is_some_and(|before| Arc::ptr_eq(&before.loaded, &now.loaded));
    let is_known =
        |job: &&Arc<Job>| is_same_config || old_jobs.iter().any(|old| Arc::ptr_eq(old, job) || old == *job);
    let is_there = |job: &Job| is_same_config || new_jobs.iter().any(|new| new.name == job.name);
    Delta {
        is_snapshot: before.is_none(),
        jobs: new_jobs.iter().filter(|job| !is_known(job)).cloned().collect(),
        removed_jobs: old_jobs.iter().filter(|job| !is_there(job)).map(|job| job.name.clone()).collect(),
        targets: new
            .iter()
            .filter(|(id, assigned)| old.get(id) != Some(*assigned))
            .map(|(_, assigned)| assigned.clone())
            .collect(),
        removed: removed(old, new, now),
        external_labels: (before.map(|before| &before.loaded.config.external_labels)
            != Some(external_labels))
        .then(|| external_labels.clone()),
    }
}

fn removed(old: &Share, new: &Share, now: &Published) -> Vec<Removed> {
    let gone: Vec<&Assigned> = old.iter().filter(|(id, _)| !new.contains_key(id)).map(|(_, a)| a).collect();
    // A target whose URL changed has a new identity and the same series.
    let jobs: HashSet<&str> = gone.iter().map(|assigned| assigned.target.job.as_str()).collect();
    let going_on: HashSet<(&str, &Labels)> = jobs
        .into_iter()
        .filter_map(|job| now.pools.get(job))
        .flat_map(|pool| pool.targets.iter().map(|target| (target.job.as_str(), &target.labels)))
        .collect();
    let removed = |assigned: &Assigned| {
        let target = &assigned.target;
        let is_moved = now.assignments.contains_key(&target.id)
            || going_on.contains(&(target.job.as_str(), &target.labels));
        let reason = if is_moved { RemovalReason::Moved } else { RemovalReason::Gone };
        Removed { id: target.id, reason, epoch: assigned.epoch }
    };
    gone.into_iter().map(removed).collect()
}

#[cfg(test)]
mod tests;
