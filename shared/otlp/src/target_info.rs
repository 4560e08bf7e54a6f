//! `target_info`: the attributes of a resource as labels of a series that is 1.

use std::sync::Arc;

use model::{Metadata, MetricType, Timestamp, Value};
use opentelemetry_proto::tonic::common::v1::KeyValue;

use crate::labels::{self, Fault, SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_NAMESPACE, Shared, first};
use crate::settings::Settings;
use crate::translate::Sample;

const NAME: &str = "target_info";
/// Samples that one resource of one request gets at most, the latest ones: a single point with a time long ago does
/// not make millions.
const SAMPLES_MAX: i64 = 1_000;

/// Makes the samples from the earliest to the latest time of a resource's points: one every half of the lookback, so
/// that a query within the range always finds one, and one at the end. None when the resource has no attributes but
/// identifying ones, or neither job nor instance to join on.
pub(crate) fn samples(
    attributes: &[KeyValue],
    shared: &Shared<'_>,
    (earliest, latest): (Timestamp, Timestamp),
    settings: &Settings,
) -> Result<Vec<Sample>, Fault> {
    let identifying = [SERVICE_NAMESPACE, SERVICE_NAME, SERVICE_INSTANCE_ID];
    let identifying_count = identifying.iter().filter(|name| first(attributes, name).is_some()).count();
    if attributes.len() <= identifying_count || !shared.has_identity() {
        return Ok(Vec::new());
    }
    let is_kept =
        |a: &&KeyValue| settings.keeps_identifying_attributes || !identifying.contains(&a.key.as_str());
    let base = shared.identity_only().with_attributes(attributes.iter().filter(is_kept), settings)?;
    let labels = labels::labels(&base, NAME, None);
    let metadata = Arc::new(Metadata {
        kind: MetricType::Gauge,
        unit: Arc::from(""),
        help: Arc::from("Target metadata"),
    });
    let times = times(earliest, latest, settings.lookback_delta.as_millis());
    Ok(times
        .into_iter()
        .map(|timestamp| Sample {
            labels: labels.clone(),
            metadata: Arc::clone(&metadata),
            timestamp,
            value: Value::Float(1.0),
            start: None,
            exemplars: Vec::new(),
            point: None,
        })
        .collect())
}

fn times(earliest: Timestamp, latest: Timestamp, lookback_ms: u128) -> Vec<Timestamp> {
    let interval = i64::try_from(lookback_ms / 2).unwrap_or(i64::MAX).max(1);
    let steps = latest.since_ms(earliest).max(0) / interval;
    let skipped = (steps - SAMPLES_MAX).max(0);
    let mut times: Vec<Timestamp> =
        (skipped..=steps).map(|i| earliest.add_ms(i.saturating_mul(interval))).collect();
    if times.last() != Some(&latest) {
        times.push(latest);
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_stand_half_a_lookback_apart_and_at_the_end() {
        let at = |from, to| -> Vec<i64> {
            times(Timestamp(from), Timestamp(to), 300_000).into_iter().map(Timestamp::millis).collect()
        };
        assert_eq!(at(5, 5), [5]);
        assert_eq!(at(5, 6), [5, 6]);
        assert_eq!(at(0, 150_000), [0, 150_000]);
        assert_eq!(at(0, 400_000), [0, 150_000, 300_000, 400_000]);
        let many = at(1, 1_700_000_000_000);
        assert_eq!((many.len(), many.last()), (1_002, Some(&1_700_000_000_000)));
        assert!(many[0] > 1_699_000_000_000, "the latest ones");
    }
}
