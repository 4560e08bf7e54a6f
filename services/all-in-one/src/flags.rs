//! The flags of the all-in-one. Those that mean what one of Prometheus's means have its name, so that a service file
//! that starts Prometheus starts Tributary.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand};
use service_runtime::ConfigBytes;

/// A Prometheus-compatible metrics system: scrapes, stores as Parquet, answers PromQL, federates.
///
/// `tributary discovery|scraper|ingester|querier|gateway` runs one role by itself; see its own --help.
#[derive(Debug, Parser)]
#[command(name = "tributary", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Flags {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// The Prometheus configuration file.
    #[arg(long = "config.file", value_name = "FILE", default_value = "prometheus.yml")]
    pub(crate) config_file: String,
    /// Where HTTP is answered.
    #[arg(long = "web.listen-address", value_name = "HOST:PORT", default_value = "127.0.0.1:9090", value_parser = address)]
    pub(crate) web_address: SocketAddr,
    /// Base path of the data; Tributary's own lies below `tributary/` there.
    #[arg(long = "storage.tsdb.path", value_name = "DIR", default_value = "data/")]
    pub(crate) storage_path: PathBuf,
    /// Where the table lies instead: file:///folder or s3://bucket/prefix, the latter with the usual AWS_... variables.
    /// The log stays below --storage.tsdb.path.
    #[arg(long = "storage.url", value_name = "URL")]
    pub(crate) storage_url: Option<String>,
    /// How long samples are kept, counted from the newest; 15d when neither this nor a size is given.
    #[arg(long = "storage.tsdb.retention.time", value_name = "DURATION", value_parser = duration)]
    pub(crate) retention_time: Option<Duration>,
    /// Bytes that the table's files may take (B, KB, MB, GB, TB, PB, EB, of base 2): the oldest go beyond.
    #[arg(long = "storage.tsdb.retention.size", value_name = "BYTES", value_parser = size)]
    pub(crate) retention_size: Option<ConfigBytes>,
    /// Most samples in the answer to a remote read.
    #[arg(long = "storage.remote.read-sample-limit", value_name = "COUNT", default_value_t = 50_000_000)]
    pub(crate) read_sample_limit: u64,
    /// Remote reads that are answered at one time.
    #[arg(long = "storage.remote.read-concurrent-limit", value_name = "COUNT", default_value_t = 10)]
    pub(crate) read_concurrent_limit: usize,
    /// About how large a frame of a remote read's streamed answer is, in bytes.
    #[arg(long = "storage.remote.read-max-bytes-in-frame", value_name = "BYTES", default_value_t = 1 << 20)]
    pub(crate) read_max_bytes_in_frame: usize,
    /// The longest a query may take.
    #[arg(long = "query.timeout", value_name = "DURATION", default_value = "2m", value_parser = duration)]
    pub(crate) query_timeout: Duration,
    /// Most samples a query may hold in memory.
    #[arg(long = "query.max-samples", value_name = "COUNT", default_value_t = 50_000_000)]
    pub(crate) query_max_samples: u64,
    /// Queries that are evaluated at one time.
    #[arg(long = "query.max-concurrency", value_name = "COUNT", default_value_t = 20)]
    pub(crate) query_max_concurrency: usize,
    /// Rule groups that are evaluated at one time; with --enable-feature=concurrent-rule-eval independent rules of a
    /// group as well.
    #[arg(long = "rules.max-concurrent-evals", value_name = "N", default_value_t = 4)]
    pub(crate) rules_max_concurrent_evals: usize,
    /// How long rules may not have been evaluated for alerts to keep what they were before.
    #[arg(long = "rules.alert.for-outage-tolerance", value_name = "DURATION", default_value = "1h", value_parser = duration)]
    pub(crate) outage_tolerance: Duration,
    /// How long an alert that was restored waits at least before it fires.
    #[arg(long = "rules.alert.for-grace-period", value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub(crate) grace_period: Duration,
    /// How long an alert goes on before it is sent again.
    #[arg(long = "rules.alert.resend-delay", value_name = "DURATION", default_value = "1m", value_parser = duration)]
    pub(crate) resend_delay: Duration,
    /// Alerts that wait for one Alertmanager at most; the oldest go when there are more.
    #[arg(long = "alertmanager.notification-queue-capacity", value_name = "N", default_value_t = 10_000)]
    pub(crate) notification_queue_capacity: usize,
    /// Alerts that are sent in one request at most.
    #[arg(long = "alertmanager.notification-batch-size", value_name = "N", default_value_t = 256)]
    pub(crate) notification_batch_size: usize,
    /// Send the alerts that wait before the end; the default.
    #[arg(
        long = "alertmanager.drain-notification-queue-on-shutdown",
        overrides_with = "drops_notifications"
    )]
    pub(crate) drains_notifications: bool,
    /// Forget them.
    #[arg(
        long = "no-alertmanager.drain-notification-queue-on-shutdown",
        overrides_with = "drains_notifications"
    )]
    pub(crate) drops_notifications: bool,
    /// How old a sample may be that a query or /federate takes.
    #[arg(long = "query.lookback-delta", value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub(crate) lookback_delta: Duration,
    /// Answer /-/reload and /-/quit.
    #[arg(long = "web.enable-lifecycle")]
    pub(crate) enable_lifecycle: bool,
    /// Answer /api/v1/admin/...
    #[arg(long = "web.enable-admin-api")]
    pub(crate) enable_admin_api: bool,
    /// Accepted; remote write is always received.
    #[arg(long = "web.enable-remote-write-receiver")]
    pub(crate) enable_remote_write: bool,
    /// TLS and authentication of the web listener.
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub(crate) web_config: Option<PathBuf>,
    /// The URL under which Tributary is reached from outside.
    #[arg(long = "web.external-url", value_name = "URL")]
    pub(crate) external_url: Option<String>,
    /// What the paths of all routes begin with [default: the path of --web.external-url].
    #[arg(long = "web.route-prefix", value_name = "PATH")]
    pub(crate) route_prefix: Option<String>,
    /// Clients that follow /api/v1/notifications/live at one time.
    #[arg(long = "web.max-notifications-subscribers", value_name = "COUNT", default_value_t = 16)]
    pub(crate) notification_subscribers_max: usize,
    /// Most results of a request to /api/v1/search/...; 0 is no limit.
    #[arg(long = "web.search.max-limit", value_name = "COUNT", default_value_t = 10_000)]
    pub(crate) search_limit_max: usize,
    /// Origins whose pages may read the API: a regular expression for the whole of one.
    #[arg(long = "web.cors.origin", value_name = "REGEX", default_value = ".*")]
    pub(crate) cors_origin: String,
    /// Where OTLP over gRPC is taken; nowhere when empty.
    #[arg(long = "otlp.grpc-address", value_name = "HOST:PORT", default_value = "127.0.0.1:4317", value_parser = listener)]
    pub(crate) otlp_grpc: Listener,
    /// Where OTLP is taken over HTTP at /v1/metrics, beside the web listener's /api/v1/otlp/v1/metrics.
    #[arg(long = "otlp.http-address", value_name = "HOST:PORT", value_parser = address)]
    pub(crate) otlp_http: Option<SocketAddr>,
    /// Features to switch on; may be repeated, or a list with commas.
    #[arg(long = "enable-feature", value_name = "NAME", value_delimiter = ',', action = ArgAction::Append)]
    pub(crate) features: Vec<String>,
    /// What is logged: debug, info, warn or error.
    #[arg(long = "log.level", default_value = "info")]
    pub(crate) log_level: String,
    /// How log lines look: logfmt or json.
    #[arg(long = "log.format", default_value = "logfmt")]
    pub(crate) log_format: String,
    /// Where Tributary's own traces go (OTLP gRPC, as http://host:port); none without it.
    #[arg(long = "trace.endpoint", value_name = "URL")]
    pub(crate) trace_endpoint: Option<String>,
    /// How long a stop in order may take.
    #[arg(long = "shutdown.grace", value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(crate) grace: Duration,
}

/// What else the binary does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Checks files, as promtool does.
    Check(Check),
    /// Runs unit tests, as promtool does.
    Test(Test),
    /// Shows expressions, as promtool does.
    Promql(Promql),
    /// Works on the table, as promtool does on blocks.
    Tsdb(Tsdb),
}

/// What to do with the table.
#[derive(Debug, Args)]
pub(crate) struct Tsdb {
    #[command(subcommand)]
    pub(crate) action: TsdbAction,
}

/// What to do with the table.
#[derive(Debug, Subcommand)]
pub(crate) enum TsdbAction {
    /// Imports samples into the table.
    CreateBlocksFrom {
        #[command(subcommand)]
        format: ImportFormat,
        #[command(flatten)]
        target: ImportTarget,
    },
    /// Imports the data directory of a Prometheus server, or a snapshot of one, with its history. The server must not
    /// run.
    Import {
        /// The directory; nothing in it is changed.
        directory: PathBuf,
        /// Base path of the data, as the server's; Tributary's own lies below `tributary/` there [default: data/].
        #[arg(long = "storage.tsdb.path", value_name = "DIR")]
        path: Option<PathBuf>,
        /// Passes over what is damaged, names it, and imports the rest.
        #[arg(long)]
        skip_damaged: bool,
        #[command(flatten)]
        target: ImportTarget,
    },
}

/// What samples are imported from.
#[derive(Debug, Subcommand)]
pub(crate) enum ImportFormat {
    /// Imports samples from OpenMetrics text in which each has a timestamp.
    Openmetrics {
        /// OpenMetrics file to read samples from; - is standard input.
        #[arg(value_name = "INPUT FILE")]
        input: PathBuf,
        /// Base path of the data, as --storage.tsdb.path of the server; Tributary's own lies below `tributary/` there
        /// [default: data/].
        #[arg(value_name = "OUTPUT DIRECTORY")]
        output: Option<PathBuf>,
    },
}

/// Where samples are imported to, and how.
#[derive(Debug, Args)]
pub(crate) struct ImportTarget {
    /// Where the table lies instead: file:///folder or s3://bucket/prefix, the latter with the usual AWS_... variables.
    #[arg(long = "storage.url", value_name = "URL", global = true)]
    pub(crate) storage_url: Option<String>,
    /// An ingester's own file: its `path` and its section `storage` say where the table lies.
    #[arg(long = "service.config", value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Whose the samples become.
    #[arg(long, value_name = "NAME", default_value = "default", global = true)]
    pub(crate) tenant: String,
    /// Memory that samples may take, about (KB, MB, GB, of base 2).
    #[arg(long = "memory.max", value_name = "BYTES", default_value = "512MB", value_parser = size, global = true)]
    pub(crate) memory_max: ConfigBytes,
    /// Where what does not fit into memory is sorted [default: where Tributary's own data lies].
    #[arg(long = "scratch.path", value_name = "DIR", global = true)]
    pub(crate) scratch: Option<PathBuf>,
    /// Print human readable values.
    #[arg(short = 'r', long, global = true)]
    pub(crate) human_readable: bool,
    /// Do not print what is imported.
    #[arg(short = 'q', long, global = true)]
    pub(crate) quiet: bool,
}

/// What to do with an expression.
#[derive(Debug, Args)]
pub(crate) struct Promql {
    #[command(subcommand)]
    pub(crate) action: PromqlAction,
}

/// What to do with an expression.
#[derive(Debug, Subcommand)]
pub(crate) enum PromqlAction {
    /// Prints it in its standard form, over several lines where it is long.
    Format {
        /// The expression; experimental syntax is understood.
        #[arg(allow_hyphen_values = true)]
        query: String,
    },
}

/// What to check.
#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(subcommand)]
    pub(crate) what: What,
}

/// What to check.
#[derive(Debug, Subcommand)]
pub(crate) enum What {
    /// Configuration files.
    Config {
        /// The files.
        #[arg(required = true)]
        files: Vec<String>,
    },
    /// Rule files.
    Rules(CheckRules),
    /// Files for --web.config.file.
    WebConfig {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Whether a server answers.
    Healthy(Server),
    /// Whether a server is ready.
    Ready(Server),
}

/// How rule files are checked.
#[derive(Debug, Args)]
pub(crate) struct CheckRules {
    /// The files; standard input where there is none.
    pub(crate) files: Vec<String>,
    /// What is looked for beyond what is wrong.
    #[arg(long, value_enum, default_value_t = Lint::DuplicateRules)]
    pub(crate) lint: Lint,
    /// Ends with status 3 when that finds something.
    #[arg(long)]
    pub(crate) lint_fatal: bool,
    /// Passes over fields that nobody knows.
    #[arg(long)]
    pub(crate) ignore_unknown_fields: bool,
    /// Features of PromQL that are on, separated by commas.
    #[arg(long = "enable-feature", value_name = "FEATURES", value_delimiter = ',')]
    pub(crate) features: Vec<String>,
}

/// What is looked for in rule files beyond what is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Lint {
    /// Everything there is.
    All,
    /// Rules that are there twice.
    DuplicateRules,
    /// Nothing.
    None,
}

/// What to test.
#[derive(Debug, Args)]
pub(crate) struct Test {
    #[command(subcommand)]
    pub(crate) what: TestWhat,
}

/// What to test.
#[derive(Debug, Subcommand)]
pub(crate) enum TestWhat {
    /// Rules, by files of unit tests.
    Rules(TestRules),
}

/// How unit tests of rules are run.
#[derive(Debug, Args)]
pub(crate) struct TestRules {
    /// The files.
    #[arg(required = true)]
    pub(crate) files: Vec<String>,
    /// Runs only the test groups whose name matches; may be given more than once.
    #[arg(long, value_name = "REGEX")]
    pub(crate) run: Vec<regex::Regex>,
    /// Passes over fields that nobody knows.
    #[arg(long)]
    pub(crate) ignore_unknown_fields: bool,
    /// Features of PromQL that are on, separated by commas.
    #[arg(long = "enable-feature", value_name = "FEATURES", value_delimiter = ',')]
    pub(crate) features: Vec<String>,
}

/// A server of Tributary or Prometheus.
#[derive(Debug, Args)]
pub(crate) struct Server {
    /// Its URL.
    #[arg(long, default_value = "http://localhost:9090")]
    pub(crate) url: String,
}

fn duration(text: &str) -> Result<Duration, String> {
    model::time::parse_duration(text).map_err(|e| e.to_string())
}

fn size(text: &str) -> Result<ConfigBytes, String> {
    text.parse()
}

/// A listener that may be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listener(pub(crate) Option<SocketAddr>);

fn listener(text: &str) -> Result<Listener, String> {
    if text.is_empty() { Ok(Listener(None)) } else { address(text).map(|a| Listener(Some(a))) }
}

/// Reads `host:port`; as in Go, an empty host is every address of the machine.
fn address(text: &str) -> Result<SocketAddr, String> {
    if let Some(port) = text.strip_prefix(':') {
        let port = port.parse().map_err(|e| format!("port: {e}"))?;
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port));
    }
    let mut addresses = text.to_socket_addrs().map_err(|e| e.to_string())?;
    addresses.next().ok_or_else(|| format!("{text}: no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: &[&str]) -> Flags {
        Flags::try_parse_from(std::iter::once(&"tributary").chain(flags)).expect("known flags")
    }

    #[test]
    fn defaults_are_prometheus_ones_but_for_loopback() {
        let flags = parse(&[]);
        assert_eq!(flags.web_address.to_string(), "127.0.0.1:9090");
        assert_eq!(flags.config_file, "prometheus.yml");
        assert_eq!(flags.query_timeout, Duration::from_secs(120));
        assert_eq!(flags.lookback_delta, Duration::from_secs(300));
        assert_eq!(flags.otlp_grpc.0.map(|a| a.to_string()).as_deref(), Some("127.0.0.1:4317"));
        assert_eq!(parse(&["--otlp.grpc-address="]).otlp_grpc, Listener(None));
        assert_eq!((flags.query_max_samples, flags.query_max_concurrency), (50_000_000, 20));
    }

    #[test]
    fn a_service_file_of_prometheus_is_understood() {
        let flags = parse(&[
            "--config.file=/etc/prometheus/prometheus.yml",
            "--storage.tsdb.path=/var/lib/prometheus",
            "--storage.tsdb.retention.time=30d",
            "--storage.tsdb.retention.size=512MB",
            "--web.listen-address=:9091",
            "--web.enable-lifecycle",
            "--web.enable-admin-api",
            "--enable-feature=promql-experimental-functions,exemplar-storage",
            "--log.format=json",
        ]);
        assert_eq!(flags.web_address.to_string(), "0.0.0.0:9091");
        assert_eq!(flags.retention_time, Some(Duration::from_secs(30 * 86_400)));
        assert_eq!(flags.retention_size, Some(ConfigBytes(512 << 20)));
        assert_eq!(flags.features, ["promql-experimental-functions", "exemplar-storage"]);
        assert!(flags.enable_lifecycle && flags.enable_admin_api);
    }

    #[test]
    fn an_expression_is_an_argument() {
        let Some(Command::Promql(promql)) = parse(&["promql", "format", "-sum(a)by(b)"]).command else {
            panic!("not a command")
        };
        let PromqlAction::Format { query } = promql.action;
        assert_eq!(query, "-sum(a)by(b)");
    }

    #[test]
    fn imports_are_understood_as_promtool_has_them() {
        for flags in [
            ["tsdb", "create-blocks-from", "-r", "openmetrics", "in", "out"],
            ["tsdb", "create-blocks-from", "openmetrics", "in", "out", "-r"],
        ] {
            let Some(Command::Tsdb(Tsdb { action: TsdbAction::CreateBlocksFrom { format, target } })) =
                parse(&flags).command
            else {
                panic!("not an import")
            };
            let ImportFormat::Openmetrics { input, output } = format;
            assert_eq!((input, output), (PathBuf::from("in"), Some(PathBuf::from("out"))));
            assert!(target.human_readable && !target.quiet, "{flags:?}");
            assert_eq!((target.tenant.as_str(), target.memory_max), ("default", ConfigBytes(512 << 20)));
        }
        assert!(Flags::try_parse_from(["tributary", "tsdb", "create-blocks-from", "openmetrics"]).is_err());
    }

    #[test]
    fn wrong_values_are_refused() {
        for flag in [
            "--query.timeout=5",
            "--web.listen-address=nowhere",
            "--storage.tsdb.retention=1d",
            "--storage.tsdb.retention.size=512",
        ] {
            assert!(Flags::try_parse_from(["tributary", flag]).is_err(), "{flag}");
        }
    }
}
