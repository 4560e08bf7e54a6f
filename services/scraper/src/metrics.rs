//! The scraper's own metrics, under Prometheus's names where there are such.

use std::time::Duration;

use group_writer::RefusalReason;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::cache::Tally;
use crate::error::Error;

/// Durations of scrapes, in seconds.
const SCRAPE_SECONDS: [f64; 8] = [0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0];

/// A label with the name of a job.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ScrapeJob {
    pub(crate) scrape_job: String,
}

/// A setting of a job that this build ignores.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct IgnoredSetting {
    pub(crate) scrape_job: String,
    pub(crate) setting: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// The scraper's own metrics. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// Targets by job.
    pub(crate) targets: Family<ScrapeJob, Gauge>,
    /// Settings that are ignored.
    pub(crate) ignored_settings: Family<IgnoredSetting, Gauge>,
    /// Samples dropped since too much waited for the ingesters.
    pub(crate) samples_dropped: Counter,
    /// Batches that no ingester took.
    pub(crate) batches_lost: Counter,
    /// Caches emptied since failing scrapes filled them.
    pub(crate) cache_flushes: Counter,
    /// Deltas taken from discovery.
    pub(crate) updates: Counter,
    /// Whether discovery is being followed.
    pub(crate) is_following: Gauge,
    refused: Family<Reason, Counter>,
    scrapes: Counter,
    failed: Family<Reason, Counter>,
    seconds: Histogram,
    timestamped: Counter,
    exemplars_dropped: Counter,
    over_sample_limit: Counter,
    over_bucket_limit: Counter,
    over_body_limit: Counter,
    over_label_limits: Counter,
    duplicates: Counter,
    out_of_order: Counter,
    out_of_bounds: Counter,
}

impl Metrics {
    pub(crate) fn register(metrics: &service_runtime::Metrics) -> Self {
        let all = Self {
            targets: Family::default(),
            ignored_settings: Family::default(),
            samples_dropped: Counter::default(),
            batches_lost: Counter::default(),
            cache_flushes: Counter::default(),
            updates: Counter::default(),
            is_following: Gauge::default(),
            refused: Family::default(),
            scrapes: Counter::default(),
            failed: Family::default(),
            seconds: Histogram::new(SCRAPE_SECONDS),
            timestamped: Counter::default(),
            exemplars_dropped: Counter::default(),
            over_sample_limit: Counter::default(),
            over_bucket_limit: Counter::default(),
            over_body_limit: Counter::default(),
            over_label_limits: Counter::default(),
            duplicates: Counter::default(),
            out_of_order: Counter::default(),
            out_of_bounds: Counter::default(),
        };
        metrics.register(|registry| all.add_to(registry));
        all
    }

    fn add_to(&self, registry: &mut Registry) {
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            registry.register(name, help, counter.clone());
        };
        counter("scraper_scrapes", "Scrapes that have ended", &self.scrapes);
        counter(
            "scraper_samples_dropped",
            "Samples dropped since too much waited for the ingesters",
            &self.samples_dropped,
        );
        counter("scraper_batches_lost", "Scrapes that no ingester took", &self.batches_lost);
        counter(
            "scraper_timestamped_samples",
            "Samples with a timestamp of their own, which are stored apart from their scrape",
            &self.timestamped,
        );
        counter(
            "scraper_exemplars_dropped",
            "Exemplars that break the rules of OpenMetrics",
            &self.exemplars_dropped,
        );
        counter("scraper_discovery_updates", "Deltas taken from discovery", &self.updates);
        counter(
            "prometheus_target_scrapes_exceeded_sample_limit",
            "Scrapes that failed since they held too many samples",
            &self.over_sample_limit,
        );
        counter(
            "prometheus_target_scrapes_exceeded_native_histogram_bucket_limit",
            "Scrapes that failed since a native histogram had too many buckets",
            &self.over_bucket_limit,
        );
        counter(
            "prometheus_target_scrapes_exceeded_body_size_limit",
            "Scrapes that failed since their bodies were too large",
            &self.over_body_limit,
        );
        counter(
            "prometheus_target_scrape_pool_exceeded_label_limits",
            "Scrapes that failed since a series exceeded a label limit",
            &self.over_label_limits,
        );
        counter(
            "prometheus_target_scrapes_sample_duplicate_timestamp",
            "Samples dropped since their series had one at the same time",
            &self.duplicates,
        );
        counter(
            "prometheus_target_scrapes_sample_out_of_order",
            "Samples dropped since their series had a newer one",
            &self.out_of_order,
        );
        counter(
            "prometheus_target_scrapes_sample_out_of_bounds",
            "Samples dropped since they were too far ahead or too old",
            &self.out_of_bounds,
        );
        counter(
            "prometheus_target_scrapes_cache_flush_forced",
            "Caches emptied since failing scrapes filled them",
            &self.cache_flushes,
        );
        registry.register(
            "scraper_targets",
            "Targets that this scraper scrapes, by job",
            self.targets.clone(),
        );
        registry.register(
            "scraper_ignored_settings",
            "Settings of jobs that are valid and not built yet",
            self.ignored_settings.clone(),
        );
        registry.register("scraper_samples_refused", "Samples not stored, by reason", self.refused.clone());
        registry.register("scraper_scrapes_failed", "Scrapes that failed, by kind", self.failed.clone());
        registry.register("scraper_scrape_seconds", "How long scrapes took", self.seconds.clone());
        registry.register(
            "scraper_following_discovery",
            "1 while discovery is reached",
            self.is_following.clone(),
        );
    }

    /// Counts a scrape.
    pub(crate) fn count_scrape(&self, tally: &Tally, error: Option<&Error>, took: Duration) {
        self.scrapes.inc();
        self.seconds.observe(took.as_secs_f64());
        self.duplicates.inc_by(tally.duplicates);
        self.out_of_bounds.inc_by(tally.out_of_bounds);
        self.timestamped.inc_by(tally.timestamped);
        self.exemplars_dropped.inc_by(tally.exemplars_dropped);
        let Some(error) = error else { return };
        self.failed.get_or_create(&Reason { reason: error.kind().as_str() }).inc();
        let limit = match error {
            Error::SampleLimit => &self.over_sample_limit,
            Error::BucketLimit => &self.over_bucket_limit,
            Error::BodySize => &self.over_body_limit,
            Error::LabelLimit(_) => &self.over_label_limits,
            _ => return,
        };
        limit.inc();
    }

    /// Counts samples that an ingester did not store.
    pub(crate) fn count_refusal(&self, reason: RefusalReason, count: u64) {
        let name = match reason {
            RefusalReason::Unspecified => "unspecified",
            RefusalReason::OutOfOrder => "out_of_order",
            RefusalReason::Duplicate => "duplicate",
            RefusalReason::TooOld => "too_old",
            RefusalReason::OutOfBounds => "out_of_bounds",
            RefusalReason::StaleEpoch => "stale_epoch",
            RefusalReason::InvalidHistogram => "invalid_histogram",
            RefusalReason::Limit => "limit",
        };
        self.refused.get_or_create(&Reason { reason: name }).inc_by(count);
        let known_to_prometheus = match reason {
            RefusalReason::OutOfOrder => &self.out_of_order,
            RefusalReason::Duplicate => &self.duplicates,
            RefusalReason::TooOld | RefusalReason::OutOfBounds => &self.out_of_bounds,
            _ => return,
        };
        known_to_prometheus.inc_by(count);
    }
}
