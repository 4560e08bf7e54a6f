//! The ingester's own settings.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use service_runtime::{Arguments, ConfigBytes, ConfigDuration, Overrides};
use tsdb::StorageSettings;

/// Where the ingester's own program takes OTLP unless told otherwise: OTLP's port.
const OTLP_GRPC_PORT: u16 = 4317;

/// How long data is kept where neither an age nor a size is said: as Prometheus does.
const RETENTION: Duration = Duration::from_secs(15 * 86_400);

/// The ingester's own settings.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The folder that holds `wal/`, and `metrics/` as long as no URL of storage says otherwise.
    pub path: PathBuf,
    /// Where the table lies.
    pub storage: StorageSettings,
    /// How far behind the newest sample a sample may be; 0s keeps Prometheus's strict order.
    pub out_of_order_time_window: ConfigDuration,
    /// How old a sample may be that an instant query takes; the head keeps at least that much.
    pub lookback_delta: ConfigDuration,
    /// How often what is in memory is written to the table.
    pub flush_interval: ConfigDuration,
    /// How long what was flushed stays in memory.
    pub head_retention: ConfigDuration,
    /// How often it is looked what the table needs: compaction, retention, clean-up.
    pub compaction_interval: ConfigDuration,
    /// How long after its end a window or a day is compacted, beyond `out_of_order_time_window`; longer than
    /// `flush_interval`, or what comes late is merged once more.
    pub compaction_delay: ConfigDuration,
    /// Compactions at a time; each takes one core.
    pub compaction_concurrency: usize,
    /// Memory that all compactions together may take, about, in bytes.
    pub compaction_memory_bytes_max: usize,
    /// How old data may get; 15d when neither this nor `retention_size` is set, without end when only that is.
    pub retention_time: Option<ConfigDuration>,
    /// Bytes that the table's files may have, the oldest are dropped beyond; without a limit when not set.
    pub retention_size: Option<ConfigBytes>,
    /// Memory that samples not flushed yet may take before a flush starts early, in bytes.
    pub unflushed_bytes_max: usize,
    /// Bytes of appends that may wait for the log.
    pub queue_bytes_max: usize,
    /// Most series in memory.
    pub series_max: usize,
    /// Most series in the answer to one select.
    pub select_series_max: usize,
    /// Most samples in the answer to one select.
    pub select_samples_max: usize,
    /// Where OTLP over gRPC is taken; nowhere when not set, but on the loopback's port 4317 in the ingester's own
    /// program.
    pub otlp_grpc_address: Option<SocketAddr>,
    /// The largest OTLP request, decompressed, in bytes.
    pub otlp_message_bytes_max: usize,
    /// OTLP requests that are worked on at one time; further ones are told to come back.
    pub otlp_requests_max: usize,
    /// Bytes of OTLP samples that may wait for an ingester; requests beyond are told to come back.
    pub otlp_buffer_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path: PathBuf::from("data/tributary"),
            storage: StorageSettings::default(),
            out_of_order_time_window: ConfigDuration::from_secs(30 * 60),
            lookback_delta: ConfigDuration::from_secs(300),
            flush_interval: ConfigDuration::from_secs(15 * 60),
            head_retention: ConfigDuration::from_secs(2 * 3600),
            compaction_interval: ConfigDuration::from_secs(60),
            compaction_delay: ConfigDuration::from_secs(30 * 60),
            compaction_concurrency: 1,
            compaction_memory_bytes_max: 512 << 20,
            retention_time: None,
            retention_size: None,
            unflushed_bytes_max: 1 << 30,
            queue_bytes_max: 32 << 20,
            series_max: 20_000_000,
            select_series_max: 10_000_000,
            select_samples_max: 2_000_000_000,
            otlp_grpc_address: None,
            otlp_message_bytes_max: 16 << 20,
            otlp_requests_max: 128,
            otlp_buffer_bytes_max: 128 << 20,
        }
    }
}

impl Config {
    /// How long and how much data is kept: the age and the bytes, where there is a limit. As in Prometheus, 0 is none,
    /// and without any the age is 15 days.
    #[must_use]
    pub fn retention(&self) -> (Option<Duration>, Option<u64>) {
        let time = self.retention_time.map(|t| t.0).filter(|t| !t.is_zero());
        let size = self.retention_size.map(|s| s.0).filter(|s| *s > 0);
        (time.or(size.is_none().then_some(RETENTION)), size)
    }
}

impl service_runtime::Config for Config {
    fn override_with(&mut self, overrides: &Overrides) {
        self.storage.override_with(overrides.storage_url.as_deref(), &overrides.variables);
    }

    fn take_flags(&mut self, arguments: &Arguments) -> Vec<String> {
        let default = SocketAddr::from((Ipv4Addr::LOCALHOST, OTLP_GRPC_PORT));
        let given = arguments.otlp_grpc_address.or(self.otlp_grpc_address);
        self.otlp_grpc_address = Some(given.unwrap_or(default));
        Vec::new()
    }

    fn validate(&self) -> Vec<String> {
        let mut faults = self.storage.validate();
        if self.path.as_os_str().is_empty() {
            faults.push("path: must not be empty".to_owned());
        }
        for (name, duration) in [
            ("lookback_delta", self.lookback_delta),
            ("flush_interval", self.flush_interval),
            ("head_retention", self.head_retention),
            ("compaction_interval", self.compaction_interval),
        ] {
            if duration.0.is_zero() {
                faults.push(format!("{name}: must be above 0s"));
            }
        }
        for (name, limit) in [
            ("compaction_concurrency", self.compaction_concurrency),
            ("compaction_memory_bytes_max", self.compaction_memory_bytes_max),
            ("unflushed_bytes_max", self.unflushed_bytes_max),
            ("queue_bytes_max", self.queue_bytes_max),
            ("series_max", self.series_max),
            ("select_series_max", self.select_series_max),
            ("select_samples_max", self.select_samples_max),
            ("otlp_message_bytes_max", self.otlp_message_bytes_max),
            ("otlp_requests_max", self.otlp_requests_max),
            ("otlp_buffer_bytes_max", self.otlp_buffer_bytes_max),
        ] {
            if limit == 0 {
                faults.push(format!("{name}: must be above 0"));
            }
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
    fn data_is_kept_as_long_as_prometheus_does() {
        let days = |n: u64| Some(Duration::from_secs(n * 86_400));
        for (yaml, want) in [
            ("", (days(15), None)),
            ("retention_time: 30d", (days(30), None)),
            ("retention_size: 1GB", (None, Some(1 << 30))),
            ("retention_time: 1d\nretention_size: 1KiB", (days(1), Some(1_024))),
            ("retention_time: 0s\nretention_size: 0B", (days(15), None)),
        ] {
            let config = service_runtime::parse_config::<Config>(yaml).expect("valid");
            assert_eq!(config.retention(), want, "{yaml}");
        }
    }

    #[test]
    fn every_fault_is_reported() {
        let yaml = "path: ''\nflush_interval: 0s\nseries_max: 0\nstorage: {url: nowhere}\n";
        let faults = service_runtime::parse_config::<Config>(yaml).expect_err("four faults");
        assert_eq!(faults.len(), 4, "{faults:?}");
        assert!(service_runtime::parse_config::<Config>("").is_ok());
    }
}
