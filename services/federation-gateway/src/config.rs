//! The gateway's own settings.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use config_watch::Retention;
use coordination::Role;
use model::matcher::Pattern;
use serde::Deserialize;
use service_runtime::{Arguments, ConfigBytes, ConfigDuration, Overrides, WebUrl};

/// The gateway's own settings.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The longest a query may take; `timeout` of a request may only shorten it.
    pub query_timeout: ConfigDuration,
    /// How old a sample may be that `/federate` exports.
    pub lookback_delta: ConfigDuration,
    /// `/federate` answers that are under way at one time, at most; more are refused.
    pub federations_max: usize,
    /// Whether `/-/reload` and `/-/quit` answer.
    pub enable_lifecycle: bool,
    /// Whether `/api/v1/admin/...` answers.
    pub enable_admin_api: bool,
    /// Features that are on, by the names of `--enable-feature`: `search-api`, and those of PromQL, where the querier
    /// decides on queries.
    pub features: Vec<String>,
    /// Bytes of remote write that may wait for ingesters.
    pub write_buffer_bytes_max: usize,
    /// Most samples in the answer to a remote read that is not streamed.
    pub read_samples_max: u64,
    /// Remote reads that are answered at one time; more wait.
    pub read_concurrency_max: usize,
    /// About how large a frame of a remote read's streamed answer is, in bytes. A larger series goes on in the next one,
    /// which Prometheus 3.5 as the reader takes for a series of its own.
    pub read_frame_bytes_max: usize,
    /// Where OTLP is taken over HTTP, at `/v1/metrics`, beside `/api/v1/otlp/v1/metrics`; nowhere by default.
    pub otlp_http_address: Option<SocketAddr>,
    /// The largest OTLP request over HTTP, as it comes and decompressed, in bytes.
    pub otlp_message_bytes_max: usize,
    /// Most results of a request to `/api/v1/search/...`; 0 is no limit.
    pub search_results_max: usize,
    /// Clients that follow `/api/v1/notifications/live` at one time.
    pub notification_subscribers_max: usize,
    /// Origins whose pages may read the API: a regular expression for the whole of one.
    pub cors_origin: String,
    /// Where users reach the gateway.
    #[serde(skip)]
    pub url: WebUrl,
    /// Where it answers HTTP itself.
    #[serde(skip)]
    pub web_port: u16,
    /// Shown in `/api/v1/status/flags`; what the program was started with.
    #[serde(skip)]
    pub flags: BTreeMap<String, String>,
    /// Shown in `/api/v1/status/runtimeinfo`; how old samples may get where `prometheus.yml` does not say.
    pub storage_retention_time: Option<ConfigDuration>,
    /// The same for the bytes of all files.
    pub storage_retention_size: Option<ConfigBytes>,
    /// Shown in `/api/v1/status/runtimeinfo`.
    pub working_directory: String,
    /// Shown in `/api/v1/status/runtimeinfo`.
    pub hostname: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            query_timeout: ConfigDuration::from_secs(120),
            lookback_delta: ConfigDuration::from_secs(300),
            federations_max: 64,
            enable_lifecycle: false,
            enable_admin_api: false,
            features: Vec::new(),
            write_buffer_bytes_max: 256 << 20,
            read_samples_max: 50_000_000,
            read_concurrency_max: 10,
            read_frame_bytes_max: 1 << 20,
            otlp_http_address: None,
            otlp_message_bytes_max: 16 << 20,
            search_results_max: 10_000,
            notification_subscribers_max: 16,
            cors_origin: ".*".to_owned(),
            url: WebUrl::default(),
            web_port: 0,
            flags: BTreeMap::new(),
            storage_retention_time: None,
            storage_retention_size: None,
            working_directory: String::new(),
            hostname: String::new(),
        }
    }
}

impl Config {
    /// How much data is kept where `prometheus.yml` does not say.
    pub(crate) fn retention(&self) -> Retention {
        Retention {
            time: self.storage_retention_time.map(|t| t.0),
            size: self.storage_retention_size.map(|s| s.0),
        }
    }

    /// Which parts of PromQL are on.
    pub(crate) fn syntax(&self) -> promql_syntax::Options {
        promql_syntax::Options::from_features(&self.features)
    }
}

impl service_runtime::Config for Config {
    fn override_with(&mut self, overrides: &Overrides) {
        self.flags.clone_from(&overrides.flags);
    }

    fn take_flags(&mut self, arguments: &Arguments) -> Vec<String> {
        self.otlp_http_address = arguments.otlp_http_address.or(self.otlp_http_address);
        self.web_port = arguments.web_address(Role::Gateway).port();
        // What is wrong with it is told by whoever puts the routes there.
        self.url = arguments.web_url(Role::Gateway).unwrap_or_default();
        arguments.refuse_otlp_grpc().into_iter().collect()
    }

    fn validate(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, duration) in
            [("query_timeout", self.query_timeout), ("lookback_delta", self.lookback_delta)]
        {
            if duration.0.is_zero() {
                faults.push(format!("{name}: must be above 0s"));
            }
        }
        if self.write_buffer_bytes_max < 1 << 20 {
            faults.push("write_buffer_bytes_max: must be at least 1048576".to_owned());
        }
        if self.read_samples_max == 0 {
            faults.push("read_samples_max: must be above 0".to_owned());
        }
        if self.read_concurrency_max == 0 {
            faults.push("read_concurrency_max: must be above 0".to_owned());
        }
        if self.read_frame_bytes_max == 0 {
            faults.push("read_frame_bytes_max: must be above 0".to_owned());
        }
        if self.federations_max == 0 {
            faults.push("federations_max: must be above 0".to_owned());
        }
        if let Err(error) = Pattern::new(&self.cors_origin) {
            faults.push(format!("cors_origin: {error}"));
        }
        if self.otlp_message_bytes_max == 0 {
            faults.push("otlp_message_bytes_max: must be above 0".to_owned());
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
        let yaml = "query_timeout: 0s\nlookback_delta: 0s\nwrite_buffer_bytes_max: 5\notlp_message_bytes_max: 0\n\
             read_samples_max: 0\nread_concurrency_max: 0\nread_frame_bytes_max: 0\nfederations_max: 0\ncors_origin: (\n";
        let faults = service_runtime::parse_config::<Config>(yaml).expect_err("nine faults");
        assert_eq!(faults.len(), 9, "{faults:?}");
        assert!(service_runtime::parse_config::<Config>("").is_ok());
    }
}
