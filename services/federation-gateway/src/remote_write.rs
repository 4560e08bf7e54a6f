//! Remote write: from series that come one by one to scrape groups.
//!
//! A request's series belong to the group of their (job, instance); those without both are spread over buckets by
//! hash. A tenant's index of series is bounded; a request beyond the bound is refused as a whole.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fault::Kind;
use group_writer::{Append, Batch, GroupWriter, SeriesIndex, SeriesOf, TooManySeries, Written};
use model::{Clock, Exemplar, Histogram, Labels, Metadata, Tenant, Timestamp, Value};
use parking_lot::Mutex;
use remote_protocol::Sample;

/// How long a request waits to be durable.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);
/// Most series in one tenant's index.
const SERIES_MAX: usize = 20_000_000;
/// Groups that series without job and instance are spread over.
const BUCKETS: u64 = 64;

/// One series of a request, in model terms.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct WriteSeries {
    pub(crate) labels: Labels,
    /// Type, unit and help, where they are known.
    pub(crate) metadata: Option<Arc<Metadata>>,
    pub(crate) samples: Vec<Sample<f64>>,
    pub(crate) histograms: Vec<Sample<Arc<Histogram>>>,
    pub(crate) exemplars: Vec<Exemplar>,
}

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

    /// Finds the groups of a request's series; with `is_atomic` nothing is stored where anything is refused. CPU work:
    /// not for an async thread.
    pub(crate) fn group(
        &self,
        tenant: &Tenant,
        series: &[WriteSeries],
        is_atomic: bool,
    ) -> Result<Batch, Error> {
        let mut tenants = self.tenants.lock();
        let index = tenants
            .entry(tenant.clone())
            .or_insert_with(|| Arc::new(Mutex::new(SeriesIndex::new(tenant.clone(), SERIES_MAX))));
        let index = Arc::clone(index);
        drop(tenants);
        let appends = appends(&mut index.lock(), series, self.clock.now())?;
        Ok(Batch { appends, is_atomic })
    }

    /// Stores a request; returns when what was not refused of it is durable.
    pub(crate) async fn store(&self, batch: Batch) -> Result<Written, Error> {
        Ok(self.writer.write(batch, WRITE_DEADLINE).await?)
    }
}

fn appends(
    index: &mut SeriesIndex,
    series: &[WriteSeries],
    now: Timestamp,
) -> Result<Vec<Append>, TooManySeries> {
    let mut filling = index.fill(now);
    for one in series {
        let labels = &one.labels;
        let series = SeriesOf { labels, source: 0, metadata: one.metadata.as_ref() };
        let place = filling.place(series, || group_key(labels))?;
        for Sample { timestamp, value, start } in &one.samples {
            filling.sample(place, *timestamp, Value::Float(*value), *start);
        }
        for Sample { timestamp, value, start } in &one.histograms {
            filling.sample(place, *timestamp, Value::Histogram(Arc::clone(value)), *start);
        }
        let newest = one.samples.last().map(|s| s.timestamp).max(one.histograms.last().map(|s| s.timestamp));
        // Exemplars travel with the series' newest sample. Prometheus sends them as series of their own, without one:
        // they go at their own time then.
        let newest = newest.or(one.exemplars.last().and_then(|e| e.timestamp));
        if let Some(newest) = newest.filter(|_| !one.exemplars.is_empty()) {
            filling.exemplars(place, newest, one.exemplars.iter().cloned());
        }
    }
    Ok(filling.take())
}

/// The identity of a series' group: its job and instance, or a bucket.
fn group_key(labels: &Labels) -> Labels {
    let (job, instance) = (labels.value(model::labels::JOB), labels.value(model::labels::INSTANCE));
    if job.is_empty() && instance.is_empty() {
        // The name cannot stand in a request, since labels with a leading `__` other than the metric name do not.
        Labels::from_pairs([("__bucket__", (labels.series_id() % BUCKETS).to_string())])
    } else {
        Labels::from_pairs([(model::labels::JOB, job), (model::labels::INSTANCE, instance)])
    }
}

#[cfg(test)]
mod tests {
    use group_writer::Presence;

    use super::*;

    fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> WriteSeries {
        WriteSeries {
            labels: Labels::from_pairs(labels.iter().copied()),
            samples: samples
                .iter()
                .map(|(t, value)| Sample { timestamp: Timestamp(*t), value: *value, start: None })
                .collect(),
            ..WriteSeries::default()
        }
    }

    /// What the appends say: group key, time, presence, values.
    fn appends_of(series: &[WriteSeries]) -> Vec<(String, i64, Presence, Vec<f64>)> {
        let mut index = SeriesIndex::new(Tenant::default(), 10_000);
        let appends = appends(&mut index, series, Timestamp(0)).expect("below the bound");
        let said = |a: Append| {
            (a.group.identity().key.to_string(), a.timestamp.millis(), a.presence.clone(), a.values)
        };
        appends.into_iter().map(said).collect()
    }

    #[test]
    fn series_of_one_instance_become_one_append_a_time() {
        let a = [("__name__", "a"), ("instance", "i"), ("job", "j")];
        let b = [("__name__", "b"), ("instance", "i"), ("job", "j")];
        let other = [("__name__", "a"), ("instance", "k"), ("job", "j")];
        let got = appends_of(&[
            series(&a, &[(1, 1.0), (2, 2.0)]),
            series(&other, &[(1, 9.0)]),
            series(&b, &[(1, 5.0)]),
        ]);
        let key = r#"{instance="i", job="j"}"#.to_owned();
        assert_eq!(
            got,
            [
                (key.clone(), 1, Presence::All, vec![1.0, 5.0]),
                (key, 2, Presence::Absent(vec![0b1111_1110]), vec![2.0]),
                (r#"{instance="k", job="j"}"#.to_owned(), 1, Presence::All, vec![9.0]),
            ]
        );
    }

    #[test]
    fn exemplars_travel_with_the_newest_sample_or_alone() {
        let exemplar = Exemplar { labels: Labels::empty(), value: 1.0, timestamp: Some(Timestamp(1)) };
        let with = |samples: &[(i64, f64)]| WriteSeries {
            exemplars: vec![exemplar.clone()],
            ..series(&[("__name__", "a")], samples)
        };
        let mut index = SeriesIndex::new(Tenant::default(), 10);
        let two = appends(&mut index, &[with(&[(1, 1.0), (2, 2.0)])], Timestamp(0)).expect("room");
        assert_eq!(two.iter().map(|a| a.exemplars.len()).collect::<Vec<_>>(), [0, 1]);
        let alone = appends(&mut index, &[with(&[])], Timestamp(0)).expect("room");
        assert_eq!(
            alone.iter().map(|a| (a.timestamp, a.exemplars.len())).collect::<Vec<_>>(),
            [(Timestamp(1), 1)]
        );
        assert_eq!((&alone[0].presence, &alone[0].values[..]), (&Presence::Present(vec![]), &[][..]));
    }

    #[test]
    fn series_without_job_and_instance_spread_over_buckets() {
        let names: Vec<String> = (0..1_000).map(|i| format!("m{i}")).collect();
        let labels: Vec<_> = names.iter().map(|n| [("__name__", n.as_str())]).collect();
        let all: Vec<_> = labels.iter().map(|l| series(l, &[(1, 1.0)])).collect();
        let got = appends_of(&all);
        assert_eq!(got.iter().map(|(.., v)| v.len()).sum::<usize>(), 1_000);
        assert!((32..=BUCKETS as usize).contains(&got.len()), "{} buckets", got.len());
    }
}
