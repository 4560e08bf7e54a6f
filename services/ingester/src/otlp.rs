//! The receiver of OTLP metrics: from a request to samples at their homes, and to what became of each data point.
//!
//! Any ingester takes any request: samples go through a group writer to the homes of their resources, which may be
//! this very ingester. A request is answered once everything in it is durable or refused.
//!
//! Invariants:
//! - accepted and rejected points add up to what was sent; a point any of whose samples is refused is rejected;
//! - a request that fails as a whole may be sent again: what was stored of it is taken silently;
//! - one request becomes several batches when it is large, each well below the size of a message.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use config_watch::WatchConfigResponse;
use group_writer::{Batch, GroupWriter, Pending, RefusalReason, SeriesIndex, SeriesOf, Written};
use model::{Clock, Histogram, Labels, Tenant, Timestamp, Value};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use otlp::{Promotion, Reason, Rejections, Resource, Sample, Settings, Translation};
use parking_lot::{Mutex, RwLock};

use crate::metrics::Metrics;

/// How long a request waits to be durable.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);
/// Samples and their bytes after which a batch is closed.
const BATCH_SAMPLES: usize = 20_000;
const BATCH_BYTES: usize = 8 << 20;

/// Takes requests of all tenants.
#[derive(Debug)]
pub(crate) struct Receiver {
    writer: GroupWriter,
    clock: Clock,
    lookback_delta: Duration,
    series_max: usize,
    settings: RwLock<Arc<Settings>>,
    tenants: Mutex<HashMap<Tenant, Arc<Mutex<SeriesIndex>>>>,
    metrics: Metrics,
}

/// A request whose samples are on their way.
#[derive(Debug)]
pub(crate) struct UnderWay {
    translation: Translation,
    pending: Vec<Pending>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Outcome {
    /// Data points that are durable.
    pub(crate) accepted: u64,
    /// The others.
    pub(crate) rejected: Rejections,
}

impl Receiver {
    pub(crate) fn new(
        writer: GroupWriter,
        clock: Clock,
        lookback_delta: Duration,
        series_max: usize,
        metrics: Metrics,
    ) -> Self {
        let settings = Settings { lookback_delta, ..Settings::default() };
        let settings = RwLock::new(Arc::new(settings));
        Self { writer, clock, lookback_delta, series_max, settings, tenants: Mutex::default(), metrics }
    }

    /// Follows what `prometheus.yml` says; requests from now on are translated by it.
    pub(crate) fn configure(&self, message: &WatchConfigResponse) {
        let settings = settings(message, self.lookback_delta);
        let mut current = self.settings.write();
        if **current != settings {
            *current = Arc::new(settings);
        }
    }

    /// Translates a request and hands its samples to the writer. CPU work: not for an async thread.
    ///
    /// # Errors
    /// When too much waits for an ingester already.
    pub(crate) fn take(
        &self,
        tenant: &Tenant,
        request: &ExportMetricsServiceRequest,
    ) -> group_writer::Result<UnderWay> {
        let settings = Arc::clone(&self.settings.read());
        let mut translation = otlp::translate(request, &settings);
        self.metrics.otlp_exemplars_dropped(translation.exemplars_dropped);
        let batches = {
            let index = self.index(tenant);
            let mut index = index.lock();
            batches(&mut index, &mut translation, self.clock.now())
        };
        // In order: a group's samples are sent in the order in which they were handed in.
        let pending =
            batches.into_iter().map(|batch| self.writer.enqueue(batch)).collect::<Result<_, _>>()?;
        Ok(UnderWay { translation, pending })
    }

    /// Waits until every sample is durable or refused.
    ///
    /// # Errors
    /// When an ingester refuses a batch as a whole, or nobody answers in time. The samples may be stored all the same.
    pub(crate) async fn finish(&self, under_way: UnderWay) -> group_writer::Result<Outcome> {
        let UnderWay { mut translation, pending } = under_way;
        let all = futures::future::try_join_all(pending);
        let answered = tokio::time::timeout(WRITE_DEADLINE, all).await;
        let written = answered.unwrap_or(Err(group_writer::Error::Timeout(WRITE_DEADLINE)))?;
        reject_refused(&mut translation, &written);
        let Translation { points, rejected, .. } = translation;
        let outcome = Outcome { accepted: points - rejected.points().min(points), rejected };
        self.metrics.otlp_answered(&outcome);
        Ok(outcome)
    }

    fn index(&self, tenant: &Tenant) -> Arc<Mutex<SeriesIndex>> {
        let mut tenants = self.tenants.lock();
        let index = tenants
            .entry(tenant.clone())
            .or_insert_with(|| Arc::new(Mutex::new(SeriesIndex::new(tenant.clone(), self.series_max))));
        Arc::clone(index)
    }
}

/// What the configuration says, in the translation's terms.
fn settings(message: &WatchConfigResponse, lookback_delta: Duration) -> Settings {
    let default = Settings { lookback_delta, ..Settings::default() };
    let Some(otlp) = &message.otlp else { return default };
    let promotion = if otlp.promotes_all_resource_attributes {
        Promotion::AllBut(otlp.ignored_resource_attributes.iter().cloned().collect())
    } else {
        Promotion::Only(otlp.promoted_resource_attributes.iter().cloned().collect())
    };
    Settings {
        // Discovery refuses a file with any other name.
        strategy: otlp.translation_strategy.parse().unwrap_or_default(),
        promotion,
        keeps_identifying_attributes: otlp.keep_identifying_resource_attributes,
        converts_to_custom_buckets: otlp.convert_histograms_to_nhcb,
        promotes_scope: otlp.promote_scope_metadata,
        prefixes_underscores: otlp.label_name_underscore_sanitization,
        keeps_multiple_underscores: otlp.label_name_preserve_multiple_underscores,
        ..default
    }
}

/// Finds the group of each sample. A point for whose series there is no room is rejected with all of its samples.
fn batches(index: &mut SeriesIndex, translation: &mut Translation, now: Timestamp) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut filling = index.fill(now);
    let (mut samples, mut bytes) = (0, 0);
    for Resource { key, samples: of_resource } in &translation.resources {
        let source = key.series_id();
        for of_point in of_resource.chunk_by(|a, b| a.point == b.point) {
            let place = |sample: &Sample| {
                let metadata = Some(&sample.metadata);
                filling.place(SeriesOf { labels: &sample.labels, source, metadata }, || key.clone())
            };
            let places: Vec<_> = match of_point.iter().map(place).collect::<Result<_, _>>() {
                Ok(places) => places,
                Err(full) => {
                    let points = u64::from(of_point[0].point.is_some());
                    translation.rejected.add(Reason::Limit, points, || full.to_string());
                    continue;
                }
            };
            for (place, sample) in places.into_iter().zip(of_point) {
                filling.sample(place, sample.timestamp, sample.value.clone(), sample.start);
                filling.exemplars(place, sample.timestamp, sample.exemplars.iter().cloned());
                samples += 1;
                bytes += byte_len(sample);
            }
            if samples >= BATCH_SAMPLES || bytes >= BATCH_BYTES {
                batches.push(Batch { appends: filling.take(), is_atomic: false });
                (samples, bytes) = (0, 0);
            }
        }
    }
    if samples > 0 {
        batches.push(Batch { appends: filling.take(), is_atomic: false });
    }
    batches
}

/// What a sample takes in a message at most, about.
fn byte_len(sample: &Sample) -> usize {
    let value = match &sample.value {
        Value::Histogram(h) => match &**h {
            Histogram::Integer(h) => {
                128 + 10 * (h.positive_deltas.len() + h.negative_deltas.len() + h.custom_values.len())
            }
            Histogram::Float(_) => 128,
        },
        Value::Float(_) => 8,
    };
    let metadata = sample.metadata.help.len() + sample.metadata.unit.len();
    sample.labels.byte_len() + metadata + value + 256 * sample.exemplars.len()
}

/// Turns refused samples into rejected points.
fn reject_refused(translation: &mut Translation, written: &[Written]) {
    let refusals = || written.iter().flat_map(|written| &written.refusals);
    if refusals().next().is_none() {
        return;
    }
    let Translation { resources, rejected, .. } = translation;
    let mut points: HashMap<(&Labels, Timestamp), Vec<Option<u32>>> = HashMap::new();
    for sample in resources.iter().flat_map(|resource| &resource.samples) {
        points.entry((&sample.labels, sample.timestamp)).or_default().push(sample.point);
    }
    let mut seen = HashSet::new();
    for refusal in refusals() {
        let reason = match refusal.reason {
            RefusalReason::OutOfOrder => Reason::OutOfOrder,
            RefusalReason::Duplicate => Reason::Duplicate,
            RefusalReason::TooOld => Reason::TooOld,
            RefusalReason::OutOfBounds => Reason::OutOfBounds,
            RefusalReason::InvalidHistogram => Reason::InvalidHistogram,
            RefusalReason::Limit => Reason::Limit,
            RefusalReason::StaleEpoch | RefusalReason::Unspecified => Reason::Refused,
        };
        for (labels, timestamp) in &refusal.samples {
            // Of two points that are one sample, the later was refused. A refused target_info is no point.
            let point = points.get_mut(&(labels, *timestamp)).and_then(Vec::pop).flatten();
            if point.is_some_and(|point| seen.insert(point)) {
                rejected.add(reason, 1, || refusal.example.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests;
