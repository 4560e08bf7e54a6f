//! Reading: what has been acknowledged and is in memory, with a word on what is not.
//!
//! An answer is gathered in pieces, each under its own lock, so that appends go on in between. It is complete for what
//! was acknowledged when it began, together with a snapshot of the table of the version it names when it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{Exemplar, Labels, Matcher, Metadata, Tenant, Timestamp};
use roaring::RoaringBitmap;

use super::Storage;
use crate::error::{Error, Result};
use crate::head::TenantHead;
use crate::head::select::Wanted;
use crate::series::{SeriesRow, compare_labels};
use crate::table::SelectLimits;

/// What one log's part of an answer covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogState {
    /// The log's ULID.
    pub log: Arc<str>,
    /// The last acknowledged segment: everything through it is in the answer or in the table.
    pub acked_seq: u64,
    /// From this time on the answer has every acknowledged sample of the log.
    pub complete_since: Timestamp,
    /// What is older is in a snapshot of the table of this version or a newer one.
    pub table_version: u64,
}

/// What an answer covers: the own log first, then those of earlier lives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeadState {
    /// One entry a log.
    pub logs: Vec<LogState>,
}

impl HeadState {
    /// The version that a snapshot must have at least to go with the answer.
    #[must_use]
    pub fn table_version(&self) -> u64 {
        self.logs.iter().map(|l| l.table_version).max().unwrap_or(0)
    }
}

/// The series that matched.
#[derive(Debug, Clone, Default)]
pub struct HeadSelection {
    /// Sorted by metric name, then labels; equal timelines are one allocation.
    pub rows: Vec<SeriesRow>,
    /// What the rows cover.
    pub state: HeadState,
}

impl Storage {
    /// Says what an answer given now would cover.
    #[must_use]
    pub fn state(&self) -> HeadState {
        let coverage = self.read_head().coverage.clone();
        let own = (coverage.log, coverage.acknowledged);
        let held = std::iter::once(own).chain(coverage.adopted).map(|log| (log, coverage.complete_since));
        // Others bring samples into the table as well: who asks is to see them as soon as they are known here.
        let table_version = coverage.table_version.max(self.options.table.known_version());
        // Of these a reader finds everything in the table.
        let drained = coverage.drained.into_iter().map(|log| (log, i64::MAX));
        let logs = held.chain(drained).map(|((log, acked_seq), complete_since)| LogState {
            log,
            acked_seq,
            complete_since: Timestamp(complete_since),
            table_version,
        });
        HeadState { logs: logs.collect() }
    }

    /// What was acknowledged at `begin` and what has been dropped by now.
    fn state_since(&self, begin: &HeadState) -> HeadState {
        let mut state = self.state();
        // A log that has gone since the beginning was in the table by then.
        for log in &mut state.logs {
            if let Some(before) = begin.logs.iter().find(|b| b.log == log.log) {
                log.acked_seq = before.acked_seq;
            }
        }
        state
    }

    /// Reads the samples of the series that match, from `min_time` to `max_time` in milliseconds, both included.
    ///
    /// CPU work: to be called on a thread that may block.
    ///
    /// # Errors
    /// [`Error::TooMany`] beyond a limit.
    pub fn select(
        &self,
        tenant: &Tenant,
        matchers: &[Matcher],
        min_time: i64,
        max_time: i64,
        limits: SelectLimits,
    ) -> Result<HeadSelection> {
        let begin = self.state();
        let series = self.matching(tenant, &[matchers], min_time, max_time);
        if series.len() > limits.series {
            return Err(Error::TooMany { what: "series in one answer", limit: limits.series });
        }
        let wanted = Wanted::times(min_time, max_time);
        let rows = self.read_rows(tenant, &series, &wanted, limits.samples)?;
        Ok(HeadSelection { rows, state: self.state_since(&begin) })
    }

    /// Returns labels and metadata of every series that any of the sets accepts (none: every series) and that has
    /// samples about the time, sorted.
    #[must_use]
    pub fn labels(
        &self,
        tenant: &Tenant,
        any_of: &[Vec<Matcher>],
        min_time: i64,
        max_time: i64,
    ) -> Vec<(Labels, Arc<Metadata>)> {
        let series = self.matching(tenant, any_of, min_time, max_time);
        let head = self.read_head();
        let Some(tenant) = head.tenant(tenant) else { return Vec::new() };
        let metadata = |(labels, number): (Labels, u32)| {
            let metadata = Arc::clone(&tenant.series(number)?.metadata);
            Some((labels, metadata))
        };
        series.into_iter().filter_map(metadata).collect()
    }

    /// Returns the names of the labels of such series, sorted.
    #[must_use]
    pub fn label_names(
        &self,
        tenant: &Tenant,
        any_of: &[Vec<Matcher>],
        min_time: i64,
        max_time: i64,
    ) -> Vec<String> {
        let head = self.read_head();
        let Some(tenant) = head.tenant(tenant) else { return Vec::new() };
        let accepted = accepted(tenant, any_of, min_time, max_time);
        let is_used = |name: &&str| tenant.index.values(name).any(|(_, p)| !p.is_disjoint(&accepted));
        tenant.index.names().filter(is_used).map(str::to_owned).collect()
    }

    /// Returns the values of one label of such series, sorted.
    #[must_use]
    pub fn label_values(
        &self,
        tenant: &Tenant,
        name: &str,
        any_of: &[Vec<Matcher>],
        min_time: i64,
        max_time: i64,
    ) -> Vec<String> {
        let head = self.read_head();
        let Some(tenant) = head.tenant(tenant) else { return Vec::new() };
        let accepted = accepted(tenant, any_of, min_time, max_time);
        let values = tenant.index.values(name).filter(|(_, p)| !p.is_disjoint(&accepted));
        values.map(|(v, _)| v.to_owned()).collect()
    }

    /// Returns the metadata of every metric in memory, by name.
    #[must_use]
    pub fn metadata(&self, tenant: &Tenant) -> BTreeMap<String, BTreeSet<Arc<Metadata>>> {
        let head = self.read_head();
        let Some(tenant) = head.tenant(tenant) else { return BTreeMap::new() };
        let of = |postings: &RoaringBitmap| -> BTreeSet<Arc<Metadata>> {
            postings.iter().filter_map(|n| tenant.series(n)).map(|s| Arc::clone(&s.metadata)).collect()
        };
        let metrics = tenant.index.values(model::labels::METRIC_NAME);
        metrics.map(|(name, postings)| (name.to_owned(), of(postings))).collect()
    }

    /// Returns the exemplars, from `min_time` to `max_time`, of the series that any of the sets accepts, sorted.
    #[must_use]
    pub fn exemplars(
        &self,
        tenant: &Tenant,
        any_of: &[Vec<Matcher>],
        min_time: i64,
        max_time: i64,
    ) -> Vec<(Labels, Vec<Exemplar>)> {
        // An exemplar may be older or newer than any sample of its series.
        let series = self.matching(tenant, any_of, i64::MIN, i64::MAX);
        let head = self.read_head();
        let Some(tenant) = head.tenant(tenant) else { return Vec::new() };
        let exemplars = |(labels, number): (Labels, u32)| {
            let rare = tenant.series(number)?.rare.as_ref()?;
            let wanted = rare.exemplars.iter().filter(|e| (min_time..=max_time).contains(&e.time));
            let mut exemplars: Vec<Exemplar> = wanted.map(|e| e.item.clone()).collect();
            exemplars.sort_by(crate::merge::compare_exemplars);
            (!exemplars.is_empty()).then_some((labels, exemplars))
        };
        series.into_iter().filter_map(exemplars).collect()
    }

    /// The series that any of the sets accepts, sorted.
    fn matching<M: AsRef<[Matcher]>>(
        &self,
        tenant: &Tenant,
        any_of: &[M],
        min_time: i64,
        max_time: i64,
    ) -> Vec<(Labels, u32)> {
        let head = self.read_head();
        let Some(tenant) = head.tenant(tenant) else { return Vec::new() };
        let accepted = accepted(tenant, any_of, min_time, max_time);
        let mut series: Vec<(Labels, u32)> = accepted.iter().map(|n| (tenant.labels(n), n)).collect();
        drop(head);
        series.sort_by(|a, b| compare_labels(&a.0, &b.0));
        series
    }
}

fn accepted<M: AsRef<[Matcher]>>(
    tenant: &TenantHead,
    any_of: &[M],
    min_time: i64,
    max_time: i64,
) -> RoaringBitmap {
    if any_of.is_empty() {
        return tenant.matching(&[], min_time, max_time);
    }
    let sets = any_of.iter().map(|matchers| tenant.matching(matchers.as_ref(), min_time, max_time));
    sets.fold(RoaringBitmap::new(), |all, set| all | set)
}
