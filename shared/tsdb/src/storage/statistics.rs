//! What a tenant has in memory, counted: how many series, and which names and labels make the most of them.

use std::cmp::Reverse;

use model::Tenant;
use model::labels::METRIC_NAME;
use xxhash_rust::xxh64::xxh64;

use super::Storage;

/// Series that are counted under one lock.
const SERIES_PER_LOCK: u32 = 4_096;
/// Seed of the hashes of label values.
const SEED: u64 = 0;

/// What a tenant has in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeadStatistics {
    /// Series.
    pub series: u64,
    /// Different pairs of a label and its value.
    pub label_pairs: u64,
    /// Runs of values; Prometheus would call them chunks.
    pub runs: u64,
    /// Times of the oldest and the newest sample, in milliseconds; `None` without any.
    pub times: Option<(i64, i64)>,
    /// The metrics with the most series.
    pub series_by_metric: Vec<(String, u64)>,
    /// The labels with the most values.
    pub labels: Vec<LabelStatistics>,
    /// The pairs, as `name=value`, that the most series have.
    pub series_by_pair: Vec<(String, u64)>,
}

/// One label of a tenant's series.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelStatistics {
    /// The name.
    pub name: String,
    /// Different values.
    pub values: u64,
    /// Bytes of its values, each counted for every series that has it.
    pub bytes: u64,
    /// A hash of each value, so that those of several heads can be counted together; the same everywhere.
    pub hashes: Vec<u64>,
}

impl Storage {
    /// Counts what a tenant has in memory; of each list the first `limit`, the largest first.
    ///
    /// CPU work, about 0.1 s for a million series; appends go on in between.
    #[must_use]
    pub fn statistics(&self, tenant: &Tenant, limit: usize) -> HeadStatistics {
        let mut found = self.count_labels(tenant, limit);
        let mut from = 0;
        loop {
            let head = self.read_head();
            let Some(tenant) = head.tenant(tenant) else { break };
            let end = u32::try_from(tenant.series_numbers()).unwrap_or(u32::MAX);
            if from >= end {
                break;
            }
            let to = end.min(from + SERIES_PER_LOCK);
            for series in (from..to).filter_map(|number| tenant.series(number)).filter(|s| !s.is_empty()) {
                found.runs += series.runs.len() as u64 + u64::from(series.open.is_some());
                let (min, max) = (series.min_time(&tenant.blocks), series.max_time);
                found.times = Some(found.times.map_or((min, max), |t| (t.0.min(min), t.1.max(max))));
            }
            from = to;
        }
        found
    }

    /// What the index alone knows.
    fn count_labels(&self, tenant: &Tenant, limit: usize) -> HeadStatistics {
        let head = self.read_head();
        let Some(tenant) = head.tenant(tenant) else { return HeadStatistics::default() };
        let mut found = HeadStatistics { series: tenant.index.len() as u64, ..HeadStatistics::default() };
        let mut pairs: Vec<((&str, &str), u64)> = Vec::new();
        for name in tenant.index.names() {
            let mut label = LabelStatistics { name: name.to_owned(), ..LabelStatistics::default() };
            for (value, postings) in tenant.index.values(name) {
                let series = postings.len();
                label.values += 1;
                label.bytes += value.len() as u64 * series;
                label.hashes.push(xxh64(value.as_bytes(), SEED));
                pairs.push(((name, value), series));
            }
            found.label_pairs += label.values;
            found.labels.push(label);
        }
        found.labels.sort_by(|a, b| (Reverse(a.values), &a.name).cmp(&(Reverse(b.values), &b.name)));
        found.labels.truncate(limit);
        pairs.sort_unstable_by(|a, b| (Reverse(a.1), a.0).cmp(&(Reverse(b.1), b.0)));
        let metrics = pairs.iter().filter(|((name, _), _)| *name == METRIC_NAME).take(limit);
        found.series_by_metric = metrics.map(|((_, metric), n)| ((*metric).to_owned(), *n)).collect();
        pairs.truncate(limit);
        found.series_by_pair =
            pairs.iter().map(|((name, value), n)| (format!("{name}={value}"), *n)).collect();
        found
    }
}
