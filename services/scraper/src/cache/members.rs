//! The members of a target's scrape group.
//!
//! Invariants: a member's number is its place in the group and in `list`; two members never have equal labels; a
//! member that no text refers to is dead but for the marker it may still be due.

use std::collections::HashMap;
use std::sync::Arc;

use group_writer::{Group, GroupIdentity};
use model::labels::METRIC_NAME;
use model::{Labels, Metadata, MetricType};

use super::bits::Bits;
use super::{DROPPED, FastHash};

/// Dead members that are always tolerated; beyond it, a quarter of all.
const DEAD_SLACK: usize = 64;

/// Number of report series.
const REPORT_LEN: usize = 8;
/// Name, unit and help of the report series; the last three are written under `extra_scrape_metrics` only.
const REPORT: [(&str, &str, &str); REPORT_LEN] = [
    ("up", "", "1 when the last scrape of the target went well, 0 when it failed."),
    ("scrape_duration_seconds", "seconds", "How long the last scrape took."),
    ("scrape_samples_scraped", "", "Samples that the target exposed."),
    ("scrape_samples_post_metric_relabeling", "", "Samples that metric relabelling left."),
    ("scrape_series_added", "", "Series that the last scrape exposed for the first time, about."),
    ("scrape_timeout_seconds", "seconds", "The target's scrape timeout."),
    ("scrape_sample_limit", "", "The target's sample limit, 0 for none."),
    (
        "scrape_body_size_bytes",
        "bytes",
        "Size of the last body; -1 when it exceeded the limit, 0 when it failed.",
    ),
];

/// What is told about a scrape, as series of the target.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Report {
    /// The scrape went well.
    pub(crate) is_up: bool,
    /// How long it took.
    pub(crate) duration_seconds: f64,
    /// Samples in the body.
    pub(crate) samples_scraped: u64,
    /// Samples after relabelling.
    pub(crate) samples_post_relabel: u64,
    /// New series.
    pub(crate) series_added: u64,
    /// Timeout in seconds, sample limit, and body size, where they are asked for.
    pub(crate) extra: Option<(f64, u64, i64)>,
}

impl Report {
    #[expect(clippy::cast_precision_loss, reason = "samples are floats, and counts far below 2^53")]
    fn values(&self) -> impl Iterator<Item = f64> + use<> {
        let counts = [self.samples_scraped, self.samples_post_relabel, self.series_added];
        let [scraped, post_relabel, added] = counts.map(|n| n as f64);
        let basic = [f64::from(u8::from(self.is_up)), self.duration_seconds, scraped, post_relabel, added];
        let extra = self.extra.map(|(timeout, limit, size)| [timeout, limit as f64, size as f64]);
        basic.into_iter().chain(extra.into_iter().flatten())
    }
}

#[derive(Debug)]
struct Member {
    labels: Labels,
    metadata: Arc<Metadata>,
    /// How many texts stand for it; a report series counts as one.
    texts: u32,
}

/// The members of one target's group.
#[derive(Debug)]
pub(super) struct Members {
    identity: GroupIdentity,
    group: Group,
    list: Vec<Member>,
    by_labels: HashMap<Labels, u32, FastHash>,
    /// The numbers of the report series, in the order of [`REPORT`]; those not needed so far are absent.
    report: Vec<u32>,
    /// Members without a text.
    dead: usize,
    /// Shared by all series of which nothing is known.
    nothing: Arc<Metadata>,
}

impl Members {
    pub(super) fn new(identity: GroupIdentity) -> Self {
        Self {
            group: Group::new(identity.clone()),
            identity,
            list: Vec::new(),
            by_labels: HashMap::default(),
            report: Vec::with_capacity(REPORT_LEN),
            dead: 0,
            nothing: Arc::default(),
        }
    }

    pub(super) fn identity(&self) -> &GroupIdentity {
        &self.identity
    }

    pub(super) fn target(&self) -> &Labels {
        &self.identity.key
    }

    #[cfg(test)]
    pub(super) fn labels(&self, number: u32) -> (&Labels, &Metadata) {
        let member = &self.list[number as usize];
        (&member.labels, &member.metadata)
    }

    pub(super) fn group(&self) -> &Group {
        &self.group
    }

    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.list.len()).expect("a group has less than 2^32 series")
    }

    /// Returns the member with these labels, new or not, and counts one more text for it.
    pub(super) fn add(&mut self, labels: Labels, metadata: Option<Arc<Metadata>>) -> u32 {
        if let Some(&number) = self.by_labels.get(&labels) {
            let member = &mut self.list[number as usize];
            if member.texts == 0 {
                self.dead -= 1;
            }
            member.texts += 1;
            return number;
        }
        let metadata = metadata.unwrap_or_else(|| self.nothing.clone());
        self.push(Member { labels, metadata, texts: 1 })
    }

    /// Counts one text less for a member.
    pub(super) fn release(&mut self, number: u32) {
        if number == DROPPED {
            return;
        }
        let member = &mut self.list[number as usize];
        member.texts -= 1;
        if member.texts == 0 {
            self.dead += 1;
        }
    }

    /// Numbers and values of the report series. An exposed series with the same labels is the same member.
    pub(super) fn report(&mut self, report: &Report) -> Vec<(u32, f64)> {
        let values: Vec<f64> = report.values().collect();
        for i in self.report.len()..values.len() {
            let number = self.add_report(i);
            self.report.push(number);
        }
        self.report.iter().copied().zip(values).collect()
    }

    pub(super) fn report_members(&self) -> impl Iterator<Item = u32> + '_ {
        self.report.iter().copied()
    }

    fn add_report(&mut self, index: usize) -> u32 {
        let (name, unit, help) = REPORT[index];
        let metadata = Metadata { kind: MetricType::Gauge, unit: unit.into(), help: help.into() };
        let labels = self.identity.key.with(METRIC_NAME, name);
        self.add(labels, Some(Arc::new(metadata)))
    }

    /// Replaces the metadata of the members for which there is a new one.
    pub(super) fn update_metadata(&mut self, newer: impl Fn(&str) -> Option<Arc<Metadata>>) {
        for (number, member) in (0..).zip(&mut self.list) {
            if let Some(metadata) = newer(member.labels.metric_name()) {
                self.group.set_metadata(number, metadata.clone());
                member.metadata = metadata;
            }
        }
    }

    pub(super) fn has_too_many_dead(&self) -> bool {
        self.dead > self.list.len() / 4 + DEAD_SLACK
    }

    /// Changes the epoch; returns whether it was another one, after which the group has to be renewed.
    pub(super) fn set_epoch(&mut self, epoch: u64) -> bool {
        std::mem::replace(&mut self.identity.epoch, epoch) != epoch
    }

    /// Makes a new group without the members that are dead and not in `due`; returns each old member's new number.
    pub(super) fn renew(&mut self, due: &Bits) -> Vec<Option<u32>> {
        let old = std::mem::take(&mut self.list);
        self.group = Group::new(self.identity.clone());
        self.by_labels.clear();
        self.dead = 0;
        let mut numbers = Vec::with_capacity(old.len());
        for (number, member) in (0..).zip(old) {
            let is_kept = member.texts > 0 || due.contains(number);
            numbers.push(is_kept.then(|| self.push(member)));
        }
        for number in &mut self.report {
            *number = numbers[*number as usize].expect("a report series counts as a text");
        }
        numbers
    }

    fn push(&mut self, member: Member) -> u32 {
        let number = self.group.add(member.labels.clone(), member.metadata.clone());
        debug_assert_eq!(number as usize, self.list.len());
        if member.texts == 0 {
            self.dead += 1;
        }
        self.by_labels.insert(member.labels.clone(), number);
        self.list.push(member);
        number
    }
}
