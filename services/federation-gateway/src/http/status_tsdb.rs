//! `/api/v1/status/tsdb` and `/api/v1/status/walreplay`: what ingesters have in memory, and whether they have read their
//! logs.
//!
//! Counts of series are sums over ingesters: a series that two have in memory, since its group moved lately, counts
//! twice. Values of labels are counted once.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http_api::{ApiError, ErrorType};
use model::{Matcher, Tenant};
use rpc::pb::ingester as pb;
use serde::Serialize;
use serde_json::json;
use tonic::Status;

use super::{Form, fail, from_status, succeed};
use crate::gateway::Gateway;
use crate::peers::LOOKUP_DEADLINE;

/// Entries of each list without a limit.
const LIMIT_DEFAULT: u64 = 10;
/// The highest limit; also what each ingester is asked for, so that sums over ingesters are whole.
const LIMIT_MAX: u64 = 10_000;

/// `GET /api/v1/status/tsdb`.
pub(super) async fn tsdb(State(gateway): State<Arc<Gateway>>, form: Form) -> Response {
    counted(&gateway, &form).await.map_or_else(fail, |found| succeed(&found, &[]))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    head_stats: HeadStats,
    series_count_by_metric_name: Vec<Entry>,
    label_value_count_by_label_name: Vec<Entry>,
    memory_in_bytes_by_label_name: Vec<Entry>,
    series_count_by_label_value_pair: Vec<Entry>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct HeadStats {
    num_series: u64,
    num_label_pairs: u64,
    chunk_count: u64,
    min_time: i64,
    max_time: i64,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Entry {
    name: String,
    value: u64,
}

async fn counted(gateway: &Gateway, form: &Form) -> Result<Shown, ApiError> {
    let limit = limit(form)?;
    let found = ask(gateway, &form.tenant).await.map_err(|s| from_status(&s))?;
    Ok(merge(&found, limit))
}

fn limit(form: &Form) -> Result<usize, ApiError> {
    let limit = match form.params.get("limit") {
        "" => LIMIT_DEFAULT,
        // In Prometheus's words.
        text => match text.parse::<u64>() {
            Ok(limit) if limit > LIMIT_MAX => {
                let message = format!("limit must not exceed {LIMIT_MAX}");
                return Err(ApiError::new(ErrorType::BadData, message));
            }
            Ok(limit) if limit > 0 => limit,
            _ => return Err(ApiError::new(ErrorType::BadData, "limit must be a positive number")),
        },
    };
    Ok(rpc::convert::limit(limit))
}

async fn ask(gateway: &Gateway, tenant: &Tenant) -> Result<Vec<pb::StatisticsResponse>, Status> {
    let message = pb::StatisticsRequest { tenant: tenant.as_str().to_owned(), limit: LIMIT_MAX };
    let asked = gateway.peers.ask_ingesters(|_, mut client| {
        let request = rpc::with_deadline(message.clone(), LOOKUP_DEADLINE);
        async move {
            let found = client.statistics(request).await?.into_inner();
            let logs = found.state.iter().flat_map(|s| &s.logs).map(|l| l.log.clone()).collect();
            Ok((found, logs))
        }
    });
    Ok(asked.await?.came)
}

fn merge(all: &[pb::StatisticsResponse], limit: usize) -> Shown {
    let mut hashes: HashMap<&str, HashSet<u64>> = HashMap::new();
    for label in all.iter().flat_map(|found| &found.labels) {
        hashes.entry(&label.name).or_default().extend(&label.hashes);
    }
    let values = hashes.into_iter().map(|(name, hashes)| (name, hashes.len() as u64));
    let values: HashMap<&str, u64> = values.collect();
    let bytes = all.iter().flat_map(|found| &found.labels).map(|l| (l.name.as_str(), l.bytes));
    let series = |list: fn(&pb::StatisticsResponse) -> &Vec<pb::SeriesCount>| {
        let counts = all.iter().flat_map(list).map(|c| (c.name.as_str(), c.series));
        largest(sums(counts), limit)
    };
    Shown {
        head_stats: HeadStats {
            num_series: all.iter().map(|found| found.series).sum(),
            num_label_pairs: match all {
                [one] => one.label_pairs,
                _ => values.values().sum(),
            },
            chunk_count: all.iter().map(|found| found.runs).sum(),
            // As Prometheus has them of an empty head.
            min_time: all.iter().filter_map(|found| found.min_time).min().unwrap_or(i64::MAX),
            max_time: all.iter().filter_map(|found| found.max_time).max().unwrap_or(i64::MIN),
        },
        series_count_by_metric_name: series(|found| &found.series_by_metric),
        memory_in_bytes_by_label_name: largest(sums(bytes), limit),
        series_count_by_label_value_pair: series(|found| &found.series_by_pair),
        label_value_count_by_label_name: largest(values, limit),
    }
}

fn sums<'a>(counts: impl Iterator<Item = (&'a str, u64)>) -> HashMap<&'a str, u64> {
    let mut all = HashMap::new();
    counts.for_each(|(name, count)| *all.entry(name).or_default() += count);
    all
}

/// The largest entries; equal ones by name.
fn largest(all: HashMap<&str, u64>, limit: usize) -> Vec<Entry> {
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_unstable_by_key(|(name, value)| (Reverse(*value), *name));
    all.truncate(limit);
    all.into_iter().map(|(name, value)| Entry { name: name.to_owned(), value }).collect()
}

/// `GET /api/v1/status/walreplay`: how many ingesters there are, and how many of them have read their logs. One that is
/// still reading, or cannot be reached, answers no look-up.
pub(super) async fn wal_replay(State(gateway): State<Arc<Gateway>>) -> Response {
    let ingesters = gateway.peers.ingesters().unwrap_or_default();
    // No series is without a name, so that nothing is looked for.
    let nothing = rpc::convert::matcher_sets_to_pb(&[vec![Matcher::equal(model::labels::METRIC_NAME, "")]]);
    let asked = ingesters.into_iter().map(|(_, mut client)| {
        let request = pb::LabelsRequest { any_of: nothing.clone(), ..pb::LabelsRequest::default() };
        async move { client.label_names(rpc::with_deadline(request, LOOKUP_DEADLINE)).await }
    });
    let answers = futures::future::join_all(asked).await;
    let current = answers.iter().filter(|answer| answer.is_ok()).count();
    succeed(&json!({ "min": 0, "max": answers.len(), "current": current }), &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_have_is_counted_together() {
        let count = |name: &str, series| pb::SeriesCount { name: name.to_owned(), series };
        let label = |name: &str, hashes: &[u64], bytes| pb::LabelStatistics {
            name: name.to_owned(),
            values: hashes.len() as u64,
            bytes,
            hashes: hashes.to_vec(),
        };
        let one = pb::StatisticsResponse {
            series: 5,
            label_pairs: 4,
            runs: 7,
            min_time: Some(10),
            max_time: Some(20),
            series_by_metric: vec![count("a", 3), count("b", 2)],
            labels: vec![label("job", &[1, 2, 3], 9), label("__name__", &[8], 5)],
            series_by_pair: vec![count("job=x", 4)],
            ..Default::default()
        };
        let other = pb::StatisticsResponse {
            series: 4,
            label_pairs: 3,
            runs: 4,
            min_time: Some(5),
            max_time: Some(15),
            series_by_metric: vec![count("b", 4)],
            labels: vec![label("job", &[2, 3], 2), label("__name__", &[9], 7)],
            series_by_pair: vec![count("job=x", 4), count("job=y", 1)],
            ..Default::default()
        };
        let entry = |name: &str, value| Entry { name: name.to_owned(), value };
        let shown = merge(&[one.clone(), other], 2);
        assert_eq!(shown.series_count_by_metric_name, [entry("b", 6), entry("a", 3)]);
        assert_eq!(shown.label_value_count_by_label_name, [entry("job", 3), entry("__name__", 2)]);
        assert_eq!(shown.memory_in_bytes_by_label_name, [entry("__name__", 12), entry("job", 11)]);
        assert_eq!(shown.series_count_by_label_value_pair, [entry("job=x", 8), entry("job=y", 1)]);
        let HeadStats { num_series, num_label_pairs, chunk_count, min_time, max_time } = shown.head_stats;
        assert_eq!((num_series, num_label_pairs, chunk_count, min_time, max_time), (9, 5, 11, 5, 20));
        assert_eq!(merge(&[one], 1).series_count_by_metric_name, [entry("a", 3)]);
    }
}
