//! The newest samples that files have beside what heads have answered: the table's part of `/federate`.
//!
//! Mostly there is none, since heads hold what is recent. What an ingester flushed that has left since is here.

use std::sync::Arc;

use model::last_samples::{INSTANCE, order};
use model::{Labels, LastSampleBuilder, LastSampleColumns, Matcher, MetricType, Tenant, Value};
use tsdb::table::{SelectLimits, Snapshot};

use crate::error::{Error, Result};
use crate::select::Held;
use crate::sources::Sources;

/// Series of one batch.
const SERIES_PER_BATCH: usize = 1_024;
/// Most series that files may have beside the heads, which are put in order in memory.
const SERIES_MAX: usize = 2_000_000;

/// What to look for.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) tenant: Tenant,
    /// A series is taken when any of the sets accepts it.
    pub(crate) any_of: Vec<Vec<Matcher>>,
    /// Earliest and latest time, both included.
    pub(crate) times: (i64, i64),
    /// What heads have answered.
    pub(crate) held: Held,
    /// Of the list of logs by which heads were asked.
    pub(crate) struck: u64,
    /// Most samples to read.
    pub(crate) samples_max: u64,
}

struct Last {
    labels: Labels,
    kind: MetricType,
    time: i64,
    value: Value,
}

/// Finds them, in the order of [`model::last_samples`].
pub(crate) async fn last_samples(sources: &Sources, request: &Request) -> Result<Vec<LastSampleColumns>> {
    let mut found = Vec::new();
    for matchers in &request.any_of {
        let read = |snapshot| read(snapshot, request, matchers);
        found.append(&mut sources.read_table(request.struck, request.held.at_least, read).await?);
    }
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let batches = tokio::task::spawn_blocking(move || batches(found)).await;
    batches.map_err(|_| Error::from(tsdb::table::Error::Worker("sort newest samples")))
}

async fn read(
    snapshot: Arc<Snapshot>,
    request: &Request,
    matchers: &[Matcher],
) -> tsdb::table::Result<Vec<Last>> {
    let samples = usize::try_from(request.samples_max).unwrap_or(usize::MAX);
    let limits = SelectLimits { series: SERIES_MAX, samples };
    let mut selection =
        snapshot.open(&request.tenant, matchers, request.times, limits, &request.held.logs).await?;
    let mut found = Vec::new();
    let mut series = 0;
    while let Some(samples) = selection.next().await? {
        if let Some((time, value)) = samples.last() {
            let (labels, kind) = (selection.labels()[series].clone(), selection.metadata()[series].kind);
            found.push(Last { labels, kind, time, value });
        }
        series += 1;
    }
    Ok(found)
}

/// Puts series in order, each once.
fn batches(mut found: Vec<Last>) -> Vec<LastSampleColumns> {
    found.sort_by_cached_key(|last| {
        let instance = last.labels.get(INSTANCE).unwrap_or_default();
        let order = order(instance, last.labels.series_id());
        (last.labels.metric_name().to_owned(), order, last.labels.clone())
    });
    // What several sets accept was read from the same files.
    found.dedup_by(|later, kept| later.labels == kept.labels);
    let batch = |batch: &[Last]| {
        let mut builder = LastSampleBuilder::default();
        for Last { labels, kind, time, value } in batch {
            builder.push(labels, *kind, *time, value.clone());
        }
        builder.finish()
    };
    found.chunks(SERIES_PER_BATCH).map(batch).collect()
}
