//! The querier's own settings.

use std::path::PathBuf;

use serde::Deserialize;
use service_runtime::{ConfigDuration, Overrides};
use tsdb::StorageSettings;

/// The querier's own settings.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The folder that holds `metrics/` as long as no URL of storage says otherwise.
    pub path: PathBuf,
    /// Where the table lies.
    pub storage: StorageSettings,
    /// How old a sample may be that an instant query takes.
    pub lookback_delta: ConfigDuration,
    /// The longest a query may take.
    pub query_timeout: ConfigDuration,
    /// Most samples that one query may hold.
    pub query_samples_max: u64,
    /// Most memory that one query may take, in bytes: samples, labels, rows and accumulators.
    pub query_memory_bytes_max: usize,
    /// Memory for what was read of the table's files, in bytes, shared by all queries; with 0 every read goes to the
    /// storage.
    pub cache_bytes_max: usize,
    /// Queries that are evaluated at one time; more wait.
    pub query_concurrency_max: usize,
    /// Ingesters compute parts of aggregations where the result is the same.
    pub partial_aggregation: bool,
    /// Rule groups, and independent rules of one group, that are evaluated at one time; more groups wait.
    pub rule_concurrency_max: usize,
    /// Rules of a group that neither look at others of it nor are looked at are evaluated at the same time, where
    /// `rule_concurrency_max` leaves room.
    pub concurrent_rules: bool,
    /// Where users reach the web pages: templates and alerts name it.
    pub external_url: String,
    /// How long an alert goes on before it is sent again.
    pub alert_resend_delay: ConfigDuration,
    /// How long rules may not have been evaluated for alerts to keep what they were before.
    pub alert_outage_tolerance: ConfigDuration,
    /// How long an alert that was restored waits at least before it fires.
    pub alert_grace_period: ConfigDuration,
    /// Alerts that wait for one Alertmanager at most; the oldest go when there are more.
    pub notification_queue_capacity: usize,
    /// Alerts that are sent in one request at most.
    pub notification_batch_size: usize,
    /// Alerts that wait are sent before the querier stops.
    pub drain_notification_queue_on_shutdown: bool,
    /// PromQL features that are on, by the names of `--enable-feature`.
    pub features: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path: PathBuf::from("data/tributary"),
            storage: StorageSettings::default(),
            lookback_delta: ConfigDuration::from_secs(300),
            query_timeout: ConfigDuration::from_secs(120),
            query_samples_max: 50_000_000,
            query_memory_bytes_max: 2 << 30,
            cache_bytes_max: 256 << 20,
            query_concurrency_max: 20,
            partial_aggregation: true,
            rule_concurrency_max: 4,
            concurrent_rules: false,
            external_url: String::new(),
            alert_resend_delay: ConfigDuration::from_secs(60),
            alert_outage_tolerance: ConfigDuration::from_secs(3_600),
            alert_grace_period: ConfigDuration::from_secs(600),
            notification_queue_capacity: 10_000,
            notification_batch_size: 256,
            drain_notification_queue_on_shutdown: true,
            features: Vec::new(),
        }
    }
}

impl service_runtime::Config for Config {
    fn override_with(&mut self, overrides: &Overrides) {
        self.storage.override_with(overrides.storage_url.as_deref(), &overrides.variables);
    }

    fn validate(&self) -> Vec<String> {
        let mut faults = self.storage.validate();
        for (name, duration) in
            [("lookback_delta", self.lookback_delta), ("query_timeout", self.query_timeout)]
        {
            if duration.0.is_zero() {
                faults.push(format!("{name}: must be above 0s"));
            }
        }
        if self.query_samples_max == 0 {
            faults.push("query_samples_max: must be above 0".to_owned());
        }
        if self.query_memory_bytes_max == 0 {
            faults.push("query_memory_bytes_max: must be above 0".to_owned());
        }
        if self.query_concurrency_max == 0 {
            faults.push("query_concurrency_max: must be above 0".to_owned());
        }
        if self.rule_concurrency_max == 0 {
            faults.push("rule_concurrency_max: must be above 0".to_owned());
        }
        if self.notification_queue_capacity == 0 {
            faults.push("notification_queue_capacity: must be above 0".to_owned());
        }
        if self.notification_batch_size == 0 {
            faults.push("notification_batch_size: must be above 0".to_owned());
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_these() {
        let defaults = format!("{:#?}\n", Config::default());
        test_kit::golden(env!("CARGO_MANIFEST_DIR"), "default-config.txt", &defaults);
    }

    #[test]
    fn every_fault_is_reported() {
        let yaml = "lookback_delta: 0s\nquery_samples_max: 0\nquery_memory_bytes_max: 0\n\
                    query_concurrency_max: 0\nrule_concurrency_max: 0\nnotification_queue_capacity: 0\n\
                    notification_batch_size: 0\nstorage: {url: nowhere}\n";
        let faults = service_runtime::parse_config::<Config>(yaml).expect_err("eight faults");
        assert_eq!(faults.len(), 8, "{faults:?}");
        assert!(service_runtime::parse_config::<Config>("").is_ok());
    }
}
