//! The crate's own metrics. Names are Prometheus's where it has them.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// Labels of what belongs to a scrape job.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PoolLabels {
    /// The job's name.
    pub(crate) scrape_job: String,
}

/// Labels of what discovery finds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct DiscoveredLabels {
    /// What the targets are for; always `scrape`.
    pub(crate) name: &'static str,
    /// The job's name.
    pub(crate) config: String,
}

/// Labels of what is looked at time and again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RefreshLabels {
    /// The mechanism's name.
    pub(crate) mechanism: &'static str,
}

/// Labels of what happens to objects of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct KubernetesEventLabels {
    /// The kind of objects.
    pub(crate) role: &'static str,
    /// `add`, `update` or `delete`.
    pub(crate) event: &'static str,
}

/// Labels of a part of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct SectionLabels {
    /// The section's path.
    pub(crate) section: String,
}

/// Everything that is counted here.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    /// Whether the last reload succeeded.
    pub(crate) reload_successful: Gauge,
    /// When the last successful one was, Unix seconds.
    pub(crate) reload_success_seconds: Gauge<f64, AtomicU64>,
    /// Sections that are valid and not built yet; 1 each.
    pub(crate) ignored_sections: Family<SectionLabels, Gauge>,
    /// Files that could not be read.
    pub(crate) file_read_errors: Counter,
    /// Watches that failed.
    pub(crate) file_watcher_errors: Counter,
    /// Looks that failed, by mechanism.
    pub(crate) refresh_failures: Family<RefreshLabels, Counter>,
    /// Answers of `http_sd_configs` that could not be used.
    pub(crate) http_failures: Counter,
    /// Names that were looked up.
    pub(crate) dns_lookups: Counter,
    /// Names that could not be looked up.
    pub(crate) dns_lookup_failures: Counter,
    /// What happened to objects of Kubernetes.
    pub(crate) kubernetes_events: Family<KubernetesEventLabels, Counter>,
    /// Lists and watches that failed.
    pub(crate) kubernetes_failures: Counter,
    /// Targets found, by job.
    pub(crate) discovered_targets: Family<DiscoveredLabels, Gauge>,
    /// Targets after relabelling, by job.
    pub(crate) pool_targets: Family<PoolLabels, Gauge>,
    /// `target_limit` by job.
    pub(crate) pool_target_limit: Family<PoolLabels, Gauge>,
    /// How often a pool had too many targets.
    pub(crate) pool_exceeded_target_limit: Counter,
    /// How often the targets of a job were made.
    pub(crate) pool_syncs: Family<PoolLabels, Counter>,
    /// Targets that could not be made, by job.
    pub(crate) sync_failures: Family<PoolLabels, Counter>,
    /// Targets that no scraper has.
    pub(crate) unassigned_targets: Gauge,
}

impl Metrics {
    /// Makes and registers them.
    #[must_use]
    pub(crate) fn register(registry: &service_runtime::Metrics) -> Self {
        let metrics = Self::default();
        let m = metrics.clone();
        registry.register(|registry| {
            registry.register(
                "prometheus_config_last_reload_successful",
                "Whether the last configuration reload attempt was successful",
                m.reload_successful,
            );
            registry.register(
                "prometheus_config_last_reload_success_timestamp_seconds",
                "Timestamp of the last successful configuration reload",
                m.reload_success_seconds,
            );
            registry.register(
                "discovery_ignored_section",
                "Sections of the configuration that are valid and not built yet",
                m.ignored_sections,
            );
            registry.register(
                "prometheus_sd_file_read_errors",
                "The number of File-SD read errors",
                m.file_read_errors,
            );
            registry.register(
                "prometheus_sd_file_watcher_errors",
                "The number of File-SD errors caused by filesystem watch failures",
                m.file_watcher_errors,
            );
            registry.register(
                "prometheus_sd_refresh_failures",
                "Number of refresh failures for the given SD mechanism",
                m.refresh_failures,
            );
            registry.register(
                "prometheus_sd_http_failures",
                "Number of HTTP service discovery refresh failures",
                m.http_failures,
            );
            registry.register("prometheus_sd_dns_lookups", "The number of DNS-SD lookups", m.dns_lookups);
            registry.register(
                "prometheus_sd_dns_lookup_failures",
                "The number of DNS-SD lookup failures",
                m.dns_lookup_failures,
            );
            registry.register(
                "prometheus_sd_kubernetes_events",
                "The number of Kubernetes events handled",
                m.kubernetes_events,
            );
            registry.register(
                "prometheus_sd_kubernetes_failures",
                "The number of failed WATCH/LIST requests",
                m.kubernetes_failures,
            );
            registry.register(
                "prometheus_sd_discovered_targets",
                "Current number of discovered targets",
                m.discovered_targets,
            );
            registry.register(
                "prometheus_target_scrape_pool_targets",
                "Current number of targets in this scrape pool",
                m.pool_targets,
            );
            registry.register(
                "prometheus_target_scrape_pool_target_limit",
                "Maximum number of targets allowed in this scrape pool",
                m.pool_target_limit,
            );
            registry.register(
                "prometheus_target_scrape_pool_exceeded_target_limit",
                "Total number of times scrape pools hit the target limit, during sync or config reload",
                m.pool_exceeded_target_limit,
            );
            registry.register(
                "prometheus_target_scrape_pool_sync",
                "Total number of syncs that were executed on a scrape pool",
                m.pool_syncs,
            );
            registry.register(
                "prometheus_target_sync_failed",
                "Total number of target sync failures",
                m.sync_failures,
            );
            registry.register(
                "discovery_unassigned_targets",
                "Targets that no scraper has",
                m.unassigned_targets,
            );
        });
        metrics
    }
}
