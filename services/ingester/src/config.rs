//! The ingester's own settings.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use config_watch::Retention;
use serde::Deserialize;
use service_runtime::{Arguments, ConfigBytes, ConfigDuration, Overrides};
use tsdb::StorageSettings;

/// Where the ingester's own program takes OTLP unless told otherwise: OTLP's port.
const OTLP_GRPC_PORT: u16 = 4317;

/// The shortest time between two segments in an object store: each is a request that is paid for.
const SEGMENT_INTERVAL_MIN: Duration = Duration::from_millis(10);
/// The largest segment in an object store; one is held in memory by whoever replays it.
const SEGMENT_BYTES_LIMIT: usize = 64 << 20;

/// Where a log is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogPlace {
    /// In `wal/` below `path`, on a disk of the ingester's own.
    #[default]
    Local,
    /// In `wal/` below `storage.url`: the ingester needs no disk, and others take over what it leaves.
    ObjectStore,
}

/// The `log` section of the ingester's own file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// Where the log is kept.
    pub store: LogPlace,
    /// The longest an append waits for others that share its segment in an object store; 250ms when absent.
    pub segment_interval: Option<ConfigDuration>,
    /// A segment in an object store that is this large does not wait, in bytes; 4 MiB when absent.
    pub segment_bytes_max: Option<usize>,
    /// Segments that are put to an object store at one time; 4 when absent.
    pub segments_in_flight_max: Option<usize>,
}

impl LogSettings {
    /// The time between two segments in an object store.
    pub(crate) fn segment_interval(&self) -> Duration {
        self.segment_interval.map_or(Duration::from_millis(250), |interval| interval.0)
    }

    /// The size at which a segment in an object store does not wait.
    pub(crate) fn segment_bytes_max(&self) -> usize {
        self.segment_bytes_max.unwrap_or(4 << 20)
    }

    /// How many segments are put to an object store at one time.
    pub(crate) fn segments_in_flight_max(&self) -> usize {
        self.segments_in_flight_max.unwrap_or(4)
    }

    fn validate(&self, storage: &StorageSettings) -> Vec<String> {
        let mut faults = Vec::new();
        match self.store {
            LogPlace::Local => {
                let keys = [
                    ("segment_interval", self.segment_interval.is_some()),
                    ("segment_bytes_max", self.segment_bytes_max.is_some()),
                    ("segments_in_flight_max", self.segments_in_flight_max.is_some()),
                ];
                let fault = |name| format!("log.{name}: only a log with store: object_store has it");
                faults.extend(keys.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| fault(name)));
            }
            LogPlace::ObjectStore => {
                if storage.url.is_none() {
                    faults.push("log.store: object_store needs storage.url, or --storage.url".to_owned());
                }
                if self.segment_interval() < SEGMENT_INTERVAL_MIN {
                    faults.push(format!(
                        "log.segment_interval: must be at least {}ms",
                        SEGMENT_INTERVAL_MIN.as_millis()
                    ));
                }
                if !(1..=SEGMENT_BYTES_LIMIT).contains(&self.segment_bytes_max()) {
                    faults.push(format!("log.segment_bytes_max: must be from 1 to {SEGMENT_BYTES_LIMIT}"));
                }
                if !(1..=64).contains(&self.segments_in_flight_max()) {
                    faults.push("log.segments_in_flight_max: must be from 1 to 64".to_owned());
                }
            }
        }
        faults
    }
}

/// The ingester's own settings.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The folder that holds `wal/` unless the log is kept in an object store, and `metrics/` as long as no URL of
    /// storage says otherwise.
    pub path: PathBuf,
    /// Where the table lies.
    pub storage: StorageSettings,
    /// Where and how the log is kept.
    pub log: LogSettings,
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
    /// How old data may get; 15d when neither this nor `retention_size` is set, without end when only that is. What
    /// `prometheus.yml` says of either comes before.
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
            log: LogSettings::default(),
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
            aggregations_max: 20,
            aggregation_memory_bytes_max: 2 << 30,
            otlp_grpc_address: None,
            otlp_message_bytes_max: 16 << 20,
            otlp_requests_max: 128,
            otlp_buffer_bytes_max: 128 << 20,
        }
    }
}

impl Config {
    /// How much data is kept where `prometheus.yml` does not say.
    #[must_use]
    pub fn retention(&self) -> Retention {
        Retention { time: self.retention_time.map(|t| t.0), size: self.retention_size.map(|s| s.0) }
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
        arguments.refuse_otlp_http().into_iter().chain(arguments.refuse_web()).collect()
    }

    fn validate(&self) -> Vec<String> {
        let mut faults = self.storage.validate();
        faults.extend(self.log.validate(&self.storage));
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

    #[test]
    fn a_log_in_an_object_store_needs_one_and_only_it_has_segments_to_set() {
        let faults = |yaml: &str| service_runtime::parse_config::<Config>(yaml).err().unwrap_or_default();
        assert_eq!(
            faults("log: {store: object_store}\n"),
            ["log.store: object_store needs storage.url, or --storage.url"]
        );
        assert_eq!(
            faults("log: {segment_interval: 1s, segments_in_flight_max: 2}\n"),
            [
                "log.segment_interval: only a log with store: object_store has it",
                "log.segments_in_flight_max: only a log with store: object_store has it"
            ]
        );
        let objects = "storage: {url: 'file:///x'}\nlog: {store: object_store";
        assert!(faults(&format!("{objects}}}\n")).is_empty());
        assert_eq!(
            faults(&format!(
                "{objects}, segment_interval: 1ms, segment_bytes_max: 0, segments_in_flight_max: 65}}\n"
            )),
            [
                "log.segment_interval: must be at least 10ms",
                "log.segment_bytes_max: must be from 1 to 67108864",
                "log.segments_in_flight_max: must be from 1 to 64"
            ]
        );
    }
}
