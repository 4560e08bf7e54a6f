//! The ingester's own settings.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;
use service_runtime::{Arguments, ConfigDuration, Overrides};
use tsdb::StorageSettings;

/// Where the ingester's own program takes OTLP unless told otherwise: OTLP's port.
const OTLP_GRPC_PORT: u16 = 4317;

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
    /// Aggregations that are computed for queriers at one time; more wait.
    pub aggregations_max: usize,
    /// Most memory that one of them may take besides the samples it reads, in bytes.
    pub aggregation_memory_bytes_max: usize,
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
            unflushed_bytes_max: 1 << 30,
            queue_bytes_max: 32 << 20,
            series_max: 20_000_000,
            select_series_max: 10_000_000,
            select_samples_max: 2_000_000_000,
            aggregations_max: 20,
            aggregation_memory_bytes_max: 2 << 30,
            otlp_grpc_address: None,
            otlp_message_bytes_max: 16 << 20,
            otlp_requests_max: 128,
            otlp_buffer_bytes_max: 128 << 20,
        }
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
        ] {
            if duration.0.is_zero() {
                faults.push(format!("{name}: must be above 0s"));
            }
        }
        for (name, limit) in [
            ("unflushed_bytes_max", self.unflushed_bytes_max),
            ("queue_bytes_max", self.queue_bytes_max),
            ("series_max", self.series_max),
            ("select_series_max", self.select_series_max),
            ("select_samples_max", self.select_samples_max),
            ("aggregations_max", self.aggregations_max),
            ("aggregation_memory_bytes_max", self.aggregation_memory_bytes_max),
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
    fn every_fault_is_reported() {
        let yaml = "path: ''\nflush_interval: 0s\nseries_max: 0\nstorage: {url: nowhere}\n";
        let faults = service_runtime::parse_config::<Config>(yaml).expect_err("four faults");
        assert_eq!(faults.len(), 4, "{faults:?}");
        assert!(service_runtime::parse_config::<Config>("").is_ok());
    }
}
