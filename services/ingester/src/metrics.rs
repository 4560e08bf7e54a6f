//! The ingester's own metrics. Names that Prometheus's users rely on are Prometheus's.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use tsdb::Appended;

use crate::grpc::Opened;
use crate::otlp::Outcome;
use crate::upkeep::Upkeep;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// Counts what appends bring.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    stored: Counter,
    refused: Family<Reason, Counter>,
    otlp_accepted: Counter,
    otlp_rejected: Family<Reason, Counter>,
    otlp_exemplars_dropped: Counter,
    pub(crate) aggregations_running: Gauge,
}

impl Metrics {
    pub(crate) fn register(registry: &service_runtime::Metrics, storage: &Opened, upkeep: &Upkeep) -> Self {
        let metrics = Self::default();
        registry.register(|r| {
            r.register(
                "prometheus_tsdb_head_samples_appended",
                "Samples stored, exact repetitions included",
                metrics.stored.clone(),
            );
            r.register(
                "ingester_samples_refused",
                "Samples that were not stored, by reason",
                metrics.refused.clone(),
            );
            r.register(
                "ingester_otlp_points_accepted",
                "OTLP data points stored",
                metrics.otlp_accepted.clone(),
            );
            r.register(
                "ingester_otlp_points_rejected",
                "OTLP data points reported as rejected, by reason",
                metrics.otlp_rejected.clone(),
            );
            r.register(
                "ingester_otlp_exemplars_dropped",
                "Exemplars of OTLP data points that were not taken",
                metrics.otlp_exemplars_dropped.clone(),
            );
            r.register(
                "ingester_aggregations_running",
                "Parts of aggregations that are computed at present",
                metrics.aggregations_running.clone(),
            );
            r.register_collector(Box::new(StorageCollector(storage.clone())));
            r.register_collector(Box::new(TableCollector(upkeep.clone())));
        });
        metrics
    }

    pub(crate) fn appended(&self, appended: &Appended) {
        self.stored.inc_by(appended.stored);
        for refusal in &appended.refused {
            self.refused.get_or_create(&Reason { reason: refusal.reason.as_str() }).inc_by(refusal.count);
        }
    }

    pub(crate) fn otlp_answered(&self, outcome: &Outcome) {
        self.otlp_accepted.inc_by(outcome.accepted);
        for (reason, points) in outcome.rejected.iter() {
            self.otlp_rejected.get_or_create(&Reason { reason: reason.as_str() }).inc_by(points);
        }
    }

    pub(crate) fn otlp_exemplars_dropped(&self, count: u64) {
        self.otlp_exemplars_dropped.inc_by(count);
    }
}

/// Asks storage for its numbers when the metrics are read.
struct StorageCollector(Opened);

impl fmt::Debug for StorageCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StorageCollector")
    }
}

impl Collector for StorageCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Ok(storage) = self.0.get() else { return Ok(()) };
        let stats = storage.stats();
        let gauge = |x: u64| ConstGauge::new(i64::try_from(x).unwrap_or(i64::MAX));
        for (name, help, value) in [
            ("prometheus_tsdb_head_series", "Series in memory", gauge(stats.head_series)),
            (
                "ingester_head_unflushed_bytes",
                "Memory of samples not flushed yet, about",
                gauge(stats.unflushed_bytes),
            ),
            ("ingester_groups", "Scrape groups declared at present", gauge(stats.groups)),
            ("ingester_log_bytes", "Bytes of the log's files", gauge(stats.log_bytes)),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, value.metric_type())?;
            value.encode(metric)?;
        }
        for (name, help, value) in [
            ("ingester_log_segments", "Group commits", stats.segments_total),
            ("ingester_log_damages", "Damaged places found in logs at the start", stats.log_damages_total),
            ("ingester_samples_replayed", "Samples replayed at the start", stats.samples_replayed_total),
            ("ingester_flushes", "Flushes committed", stats.flushes_total),
            (
                "ingester_flush_failures",
                "Flushes that failed and are tried again",
                stats.flush_failures_total,
            ),
            ("ingester_samples_loose", "Samples outside any group's timeline", stats.samples_loose_total),
        ] {
            let value = ConstCounter::new(value);
            let metric = encoder.encode_descriptor(name, help, None, value.metric_type())?;
            value.encode(metric)?;
        }
        Ok(())
    }
}

/// Asks the upkeep of the table for its numbers when the metrics are read.
#[derive(Debug)]
struct TableCollector(Upkeep);

impl Collector for TableCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Ok(maintenance) = self.0.get() else { return Ok(()) };
        let stats = maintenance.stats();
        for (name, help, value) in [
            ("prometheus_tsdb_storage_blocks_bytes", "Bytes of the table's live files", stats.file_bytes),
            ("ingester_table_files", "Live files of the table", stats.files),
            (
                "ingester_compaction_memory_peak_bytes",
                "The most memory that compactions held at one time, about",
                stats.compaction_bytes_peak,
            ),
        ] {
            let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let metric = encoder.encode_descriptor(name, help, None, value.metric_type())?;
            value.encode(metric)?;
        }
        for (name, help, value) in [
            ("prometheus_tsdb_compactions", "Compactions committed", stats.compactions_total),
            (
                "prometheus_tsdb_compactions_failed",
                "Compactions that failed and are tried again",
                stats.compaction_failures_total,
            ),
            (
                "prometheus_tsdb_time_retentions",
                "Times that files were dropped by their age",
                stats.time_retentions_total,
            ),
            (
                "prometheus_tsdb_size_retentions",
                "Times that files were dropped since all of them were too large",
                stats.size_retentions_total,
            ),
            (
                "ingester_compactions_overtaken",
                "Compactions dropped since somebody else had replaced their files",
                stats.compactions_overtaken_total,
            ),
            (
                "ingester_compaction_files_replaced",
                "Files that compactions replaced",
                stats.files_replaced_total,
            ),
            ("ingester_compaction_files_written", "Files that compactions wrote", stats.files_written_total),
            (
                "ingester_files_expired",
                "Files dropped since they were past the retention",
                stats.files_expired_by_time_total + stats.files_expired_by_size_total,
            ),
            ("ingester_files_vacuumed", "Dead files removed from the store", stats.files_vacuumed_total),
            ("ingester_table_checkpoints", "Checkpoints written", stats.checkpoints_total),
            (
                "ingester_table_log_files_removed",
                "Old commits and checkpoints removed from the store",
                stats.log_files_removed_total,
            ),
            (
                "ingester_table_upkeep_failures",
                "Steps of retention, checkpoints and clean-up that failed and are tried again",
                stats.failures_total,
            ),
        ] {
            let value = ConstCounter::new(value);
            let metric = encoder.encode_descriptor(name, help, None, value.metric_type())?;
            value.encode(metric)?;
        }
        #[expect(clippy::cast_precision_loss, reason = "seconds")]
        let seconds = ConstCounter::new(stats.compaction_ms_total as f64 / 1_000.0);
        let (name, help) = ("ingester_compaction_seconds", "Time that compactions took");
        let metric = encoder.encode_descriptor(name, help, None, seconds.metric_type())?;
        seconds.encode(metric)
    }
}
