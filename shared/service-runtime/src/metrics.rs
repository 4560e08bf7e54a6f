//! The program's own metrics: the registry, the operating system's view, the build, and requests.

use std::fmt;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, MetricEncoder};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::summary::Summaries;

/// The media type of [`Metrics::encode`].
pub(crate) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The buckets Prometheus has for its HTTP requests, in seconds.
const HTTP_SECONDS: [f64; 9] = [0.1, 0.2, 0.4, 1.0, 3.0, 8.0, 20.0, 60.0, 120.0];
/// The buckets of gRPC calls, in seconds: they are mostly short.
const GRPC_SECONDS: [f64; 10] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0];

/// What this program was built from.
#[derive(Debug, Clone, Copy)]
pub struct Build {
    /// The version of all of Tributary's crates.
    pub version: &'static str,
    /// The commit, or `unknown` where the build was not told (`TRIBUTARY_REVISION`).
    pub revision: &'static str,
}

/// What this program was built from.
pub const BUILD: Build = Build {
    version: env!("CARGO_PKG_VERSION"),
    revision: match option_env!("TRIBUTARY_REVISION") {
        Some(revision) => revision,
        None => "unknown",
    },
};

/// The registry that all of a program's services share. Cheap to clone.
#[derive(Clone, Default)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    /// Beside it, since it knows of no summaries.
    summaries: Arc<Mutex<Vec<Summaries>>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Registers metrics. Counters are named without their `_total`, which the format adds.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.registry.lock())
    }

    /// Registers summaries.
    pub fn register_summaries(&self, summaries: Summaries) {
        self.summaries.lock().push(summaries);
    }

    /// Writes all metrics in the OpenMetrics text format.
    ///
    /// # Errors
    /// When a collector fails.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode_registry(&mut text, &self.registry.lock())?;
        for summaries in &*self.summaries.lock() {
            summaries.encode(Instant::now(), &mut text)?;
        }
        encode_eof(&mut text)?;
        Ok(text)
    }

    /// Registers what every program tells about itself.
    pub(crate) fn register_program(&self) {
        let labels = vec![("version", BUILD.version), ("revision", BUILD.revision)];
        self.register(|registry| {
            registry.register(
                "tributary_build",
                "What this program was built from",
                Info::new(labels.clone()),
            );
            // Dashboards and mixins join on Prometheus's name.
            registry.register("prometheus_build", "What this program was built from", Info::new(labels));
            registry.register_collector(Box::new(OperatingSystem::new()));
        });
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpRequest {
    handler: String,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpHandler {
    handler: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GrpcRequest {
    service: String,
    method: String,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GrpcMethod {
    service: String,
    method: String,
}

/// Counts requests. Its labels are bounded: handlers are routes, and a gRPC method is named only when it exists.
#[derive(Debug, Clone)]
pub(crate) struct RequestMetrics {
    http: Family<HttpRequest, Counter>,
    http_seconds: Family<HttpHandler, Histogram>,
    grpc: Family<GrpcRequest, Counter>,
    grpc_seconds: Family<GrpcMethod, Histogram>,
}

impl RequestMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let requests = Self {
            http: Family::default(),
            http_seconds: Family::new_with_constructor(|| Histogram::new(HTTP_SECONDS)),
            grpc: Family::default(),
            grpc_seconds: Family::new_with_constructor(|| Histogram::new(GRPC_SECONDS)),
        };
        metrics.register(|registry| {
            registry.register("prometheus_http_requests", "HTTP requests", requests.http.clone());
            registry.register(
                "prometheus_http_request_duration_seconds",
                "Time from an HTTP request to the end of its answer",
                requests.http_seconds.clone(),
            );
            registry.register("tributary_grpc_requests", "gRPC calls that have ended", requests.grpc.clone());
            registry.register(
                "tributary_grpc_request_duration_seconds",
                "Time from a gRPC call to the end of its answer",
                requests.grpc_seconds.clone(),
            );
        });
        requests
    }

    pub(crate) fn http(&self, handler: &str, code: u16, took: Duration) {
        let handler = handler.to_owned();
        self.http.get_or_create(&HttpRequest { handler: handler.clone(), code }).inc();
        self.http_seconds.get_or_create(&HttpHandler { handler }).observe(took.as_secs_f64());
    }

    pub(crate) fn grpc(&self, service: &str, method: &str, code: &'static str, took: Duration) {
        let (service, method) = (service.to_owned(), method.to_owned());
        let request = GrpcRequest { service: service.clone(), method: method.clone(), code };
        self.grpc.get_or_create(&request).inc();
        self.grpc_seconds.get_or_create(&GrpcMethod { service, method }).observe(took.as_secs_f64());
    }
}

/// Reads `/proc/self` at each scrape. What cannot be read is left out.
#[derive(Debug)]
struct OperatingSystem {
    ticks_per_second: f64,
    page_bytes: f64,
}

impl OperatingSystem {
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    fn new() -> Self {
        let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
        Self { ticks_per_second, page_bytes: rustix::param::page_size() as f64 }
    }
}

/// What `/proc/self/stat` says, in its units.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: f64,
    start_ticks: f64,
    virtual_bytes: f64,
    resident_pages: f64,
    threads: f64,
}

/// proc(5): fields are counted from 1, and the second one is a name in parentheses that may hold anything.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    Some(Stat {
        cpu_ticks: field(14)? + field(15)?,
        threads: field(20)?,
        start_ticks: field(22)?,
        virtual_bytes: field(23)?,
        resident_pages: field(24)?,
    })
}

fn parse_boot_seconds(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

impl Collector for OperatingSystem {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        let stat = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(parse_stat);
        if let Some(stat) = &stat {
            gauge(
                "process_resident_memory_bytes",
                "Memory that is held in RAM",
                stat.resident_pages * self.page_bytes,
            )?;
            gauge("process_virtual_memory_bytes", "Memory that is mapped", stat.virtual_bytes)?;
            gauge("process_threads", "Threads of the program", stat.threads)?;
            let boot = fs::read_to_string("/proc/stat").ok().as_deref().and_then(parse_boot_seconds);
            if let Some(boot) = boot {
                let started = boot + stat.start_ticks / self.ticks_per_second;
                gauge(
                    "process_start_time_seconds",
                    "When the program was started, since the epoch",
                    started,
                )?;
            }
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One of them is the folder being read.
            let open = u32::try_from(open.count().saturating_sub(1)).unwrap_or(u32::MAX);
            gauge("process_open_fds", "File descriptors in use", f64::from(open))?;
        }
        if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
            #[expect(clippy::cast_precision_loss, reason = "a limit of files is small")]
            gauge("process_max_fds", "File descriptors that may be in use", limit as f64)?;
        }
        if let Some(stat) = stat {
            let seconds = ConstCounter::new(stat.cpu_ticks / self.ticks_per_second);
            let kind = seconds.metric_type();
            let help = "CPU time, user and system";
            let metric: MetricEncoder<'_> =
                encoder.encode_descriptor("process_cpu_seconds", help, None, kind)?;
            seconds.encode(metric)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read_by_their_manual() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 7 0 12345 1048576 256 \
                    18446744073709551615 1 1 0 0 0 0 0 4096 0 0 0 0 17 1 0 0 0 0 0";
        let expected = Stat {
            cpu_ticks: 300.0,
            threads: 7.0,
            start_ticks: 12_345.0,
            virtual_bytes: 1_048_576.0,
            resident_pages: 256.0,
        };
        assert_eq!(parse_stat(stat), Some(expected));
        assert_eq!(parse_stat("42 (cut) S 1"), None);
        assert_eq!(parse_boot_seconds("cpu 1 2\nbtime 1700000000\nctxt 5\n"), Some(1_700_000_000.0));
    }

    #[test]
    fn every_program_tells_about_itself() {
        let metrics = Metrics::default();
        metrics.register_program();
        let text = metrics.encode().expect("encoded");
        for line in [
            "# TYPE process_cpu_seconds counter",
            "process_cpu_seconds_total ",
            "process_resident_memory_bytes ",
            "process_start_time_seconds ",
            "process_open_fds ",
            "process_max_fds ",
            "tributary_build_info{version=\"",
            "prometheus_build_info{version=\"",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
