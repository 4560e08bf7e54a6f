//! Remote write: from series that come one by one to scrape groups.
//!
//! A request's series belong to the group of their (job, instance); those without both are spread over buckets by
//! hash. A tenant's index of series is bounded; a request beyond the bound is refused as a whole.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fault::Kind;
use group_writer::{Batch, Filling, GroupWriter, Place, SeriesIndex, SeriesOf, TooManySeries, Written};
use model::{Clock, Labels, Metadata, Tenant};
use parking_lot::Mutex;

/// How long a request waits to be durable.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);
/// Most series in one tenant's index.
const SERIES_MAX: usize = 20_000_000;
/// Groups that series without job and instance are spread over.
const BUCKETS: u64 = 64;

/// Turns requests into batches and waits until they are durable.
#[derive(Debug)]
pub(crate) struct RemoteWriter {
    writer: GroupWriter,
    clock: Clock,
    tenants: Mutex<HashMap<Tenant, Arc<Mutex<SeriesIndex>>>>,
}

/// A request that was not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    TooManySeries(#[from] TooManySeries),
    #[error(transparent)]
    Writer(#[from] group_writer::Error),
}

impl Error {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::TooManySeries(_) => Kind::Busy,
            Self::Writer(error) => error.kind(),
        }
    }
}

impl RemoteWriter {
    pub(crate) fn new(writer: GroupWriter, clock: Clock) -> Self {
        Self { writer, clock, tenants: Mutex::default() }
    }

    /// Makes a batch of what is filled in; with `is_atomic` nothing is stored where anything is refused. CPU work: not
    /// for an async thread.
    pub(crate) fn batch<T>(
        &self,
        tenant: &Tenant,
        is_atomic: bool,
        fill: impl FnOnce(&mut Filling<'_>) -> Result<T, TooManySeries>,
    ) -> Result<(Batch, T), Error> {
        let mut tenants = self.tenants.lock();
        let index = tenants
            .entry(tenant.clone())
            .or_insert_with(|| Arc::new(Mutex::new(SeriesIndex::new(tenant.clone(), SERIES_MAX))));
        let index = Arc::clone(index);
        drop(tenants);
        let mut index = index.lock();
        let mut filling = index.fill(self.clock.now());
        let filled = fill(&mut filling)?;
        Ok((Batch { appends: filling.take(), is_atomic }, filled))
    }

    /// Stores a request; returns when what was not refused of it is durable.
    pub(crate) async fn store(&self, batch: Batch) -> Result<Written, Error> {
        Ok(self.writer.write(batch, WRITE_DEADLINE).await?)
    }
}

/// Finds a series' place, making one when it is new. `last` is the group of another series, which it mostly shares.
pub(crate) fn place(
    filling: &mut Filling<'_>,
    labels: &Labels,
    metadata: Option<&Arc<Metadata>>,
    last: &mut Labels,
) -> Result<Place, TooManySeries> {
    filling.place(SeriesOf { labels, source: 0, metadata }, || group_key(labels, last))
}

/// The identity of a series' group: its job and instance, or a bucket.
fn group_key(labels: &Labels, last: &mut Labels) -> Labels {
    let (job, instance) = (labels.value(model::labels::JOB), labels.value(model::labels::INSTANCE));
    if job.is_empty() && instance.is_empty() {
        // The name cannot stand in a request, since labels with a leading `__` other than the metric name do not.
        Labels::from_pairs([("__bucket__", (labels.series_id() % BUCKETS).to_string())])
    } else {
        let known = (last.value(model::labels::JOB), last.value(model::labels::INSTANCE));
        if known != (job, instance) {
            *last = Labels::from_pairs([(model::labels::JOB, job), (model::labels::INSTANCE, instance)]);
        }
        last.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn series_without_job_and_instance_spread_over_buckets() {
        let of_instance = Labels::from_pairs([("__name__", "a"), ("instance", "i"), ("job", "j")]);
        let mut last = Labels::from_pairs([("instance", "i"), ("job", "other")]);
        for _ in 0..2 {
            assert_eq!(group_key(&of_instance, &mut last).to_string(), r#"{instance="i", job="j"}"#);
        }
        let key = |i: i32| group_key(&Labels::from_pairs([("__name__", format!("m{i}"))]), &mut last);
        let keys: HashSet<Labels> = (0..1_000).map(key).collect();
        assert!((32..=BUCKETS as usize).contains(&keys.len()), "{} buckets", keys.len());
    }
}
