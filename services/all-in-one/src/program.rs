//! All five services in one process: in-memory coordination, local storage, one HTTP listener.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use coordination::InMemory;
use model::Clock;
use service_runtime::{
    BUILD, Config as _, ConfigDuration, Limits, Options, Overrides, Program, Reach, WebConfig, WebUrl,
};

use crate::flags::Flags;

/// The one listener.
const WEB: &str = "web";
/// Exit status of wrong flags or files.
const EXIT_USAGE: u8 = 2;
/// Features of Prometheus's that change PromQL and are known to the querier.
const PROMQL_FEATURES: [&str; 7] = [
    "promql-experimental-functions",
    "promql-extended-range-selectors",
    "promql-binop-fill-modifiers",
    "promql-delayed-name-removal",
    "promql-per-step-stats",
    "use-start-timestamps",
    "type-and-unit-labels",
];

/// The feature that evaluates independent rules of a group at the same time.
const CONCURRENT_RULES: &str = "concurrent-rule-eval";

/// The feature that switches `/api/v1/search/...` on.
const SEARCH: &str = "search-api";

/// The services' settings as the flags have them.
struct Settings {
    discovery: discovery::Config,
    scraper: scraper::Config,
    ingester: ingester::Config,
    querier: querier::Config,
    gateway: federation_gateway::Config,
    telemetry: telemetry::Options,
    web: Option<WebConfig>,
    url: WebUrl,
}

/// Runs the program to its end.
pub(crate) fn run(flags: &Flags, shown: BTreeMap<String, String>) -> ExitCode {
    let settings = match settings(flags, shown) {
        Ok(settings) => settings,
        Err(faults) => {
            let text: String = faults.iter().map(|f| format!("{f}\n")).collect();
            // For a person to read, before logs are set up; nobody is left to be told of a closed stderr.
            drop(std::io::stderr().write_all(text.as_bytes()));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let Settings { discovery, scraper, ingester, querier, gateway, telemetry, web, url } = settings;
    let options = Options {
        clock: Clock::System,
        coordinator: Arc::new(InMemory::new()),
        member_name: "tributary".to_owned(),
        reach: Reach::InProcess,
        grace: flags.grace,
        limits: Limits::default(),
    };
    let warnings = not_built(flags);
    service_runtime::run(&telemetry, &flags.config_file, async move || {
        for warning in &warnings {
            tracing::warn!(flag = warning.0, "{}", warning.1);
        }
        let program = Program::new(options).listen(WEB, flags.web_address).reached_at(WEB, url);
        let program = match web {
            Some(web) => program.secure(WEB, web),
            None => program,
        };
        // Stopped in the reverse order: what writes stops before what stores.
        Ok(program
            .service::<discovery::Service>(discovery, &[])
            .service::<ingester::Service>(ingester, &[])
            .service::<querier::Service>(querier, &[])
            .service::<federation_gateway::Service>(gateway, &[WEB])
            .service::<scraper::Service>(scraper, &[]))
    })
}

/// Turns flags into settings, or says everything that is wrong with them.
fn settings(flags: &Flags, shown: BTreeMap<String, String>) -> Result<Settings, Vec<String>> {
    let mut faults = Vec::new();
    let web = flags.web_config.as_deref().map(WebConfig::load).transpose();
    let web = web.map_err(|fault| faults.push(format!("--web.config.file: {fault}"))).unwrap_or_default();
    let url =
        WebUrl::new(flags.external_url.as_deref(), flags.route_prefix.as_deref(), flags.web_address.port());
    let url = url.map_err(|fault| faults.push(fault)).unwrap_or_default();
    let path = flags.storage_path.join("tributary");
    let lookback_delta = ConfigDuration(flags.lookback_delta);
    let query_timeout = ConfigDuration(flags.query_timeout);
    let overrides = Overrides::of_process(flags.storage_url.clone(), shown);
    let is_on = |wanted: &str| flags.features.iter().any(|feature| feature == wanted);
    let features: Vec<String> =
        flags.features.iter().filter(|f| PROMQL_FEATURES.contains(&f.as_str())).cloned().collect();
    let discovery = discovery::Config {
        config_file: flags.config_file.clone(),
        environment: overrides.variables.clone(),
        features: features.clone(),
        ..discovery::Config::default()
    };
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let ingester = ingester::Config {
        path: path.clone(),
        lookback_delta,
        otlp_grpc_address: flags.otlp_grpc.0,
        retention_time: flags.retention_time.map(ConfigDuration),
        retention_size: flags.retention_size,
        ..ingester::Config::default()
    };
    let mut settings = Settings {
        discovery,
        // As Prometheus, but for the fully qualified name, for which it asks DNS.
        scraper: scraper::Config { offset_host: hostname.clone(), ..scraper::Config::default() },
        querier: querier::Config {
            path,
            lookback_delta,
            query_timeout,
            query_samples_max: flags.query_max_samples,
            query_concurrency_max: flags.query_max_concurrency,
            rule_concurrency_max: flags.rules_max_concurrent_evals,
            concurrent_rules: is_on(CONCURRENT_RULES),
            external_url: url.external.clone(),
            alert_resend_delay: ConfigDuration(flags.resend_delay),
            alert_outage_tolerance: ConfigDuration(flags.outage_tolerance),
            alert_grace_period: ConfigDuration(flags.grace_period),
            notification_queue_capacity: flags.notification_queue_capacity,
            notification_batch_size: flags.notification_batch_size,
            drain_notification_queue_on_shutdown: !flags.drops_notifications,
            features: features.clone(),
            ..querier::Config::default()
        },
        gateway: federation_gateway::Config {
            query_timeout,
            lookback_delta,
            enable_lifecycle: flags.enable_lifecycle,
            enable_admin_api: flags.enable_admin_api,
            features: features.into_iter().chain(is_on(SEARCH).then(|| SEARCH.to_owned())).collect(),
            read_samples_max: flags.read_sample_limit,
            read_concurrency_max: flags.read_concurrent_limit,
            read_frame_bytes_max: flags.read_max_bytes_in_frame,
            otlp_http_address: flags.otlp_http,
            cors_origin: flags.cors_origin.clone(),
            search_results_max: flags.search_limit_max,
            notification_subscribers_max: flags.notification_subscribers_max,
            url: url.clone(),
            web_port: flags.web_address.port(),
            storage_retention_time: ingester.retention_time,
            storage_retention_size: ingester.retention_size,
            working_directory: std::env::current_dir().map(|d| d.display().to_string()).unwrap_or_default(),
            hostname,
            ..federation_gateway::Config::default()
        },
        ingester,
        web,
        url,
        telemetry: telemetry::Options {
            name: "tributary".to_owned(),
            version: BUILD.version.to_owned(),
            level: flags
                .log_level
                .parse()
                .map_err(|e| faults.push(format!("--log.level: {e}")))
                .unwrap_or_default(),
            format: flags
                .log_format
                .parse()
                .map_err(|e| faults.push(format!("--log.format: {e}")))
                .unwrap_or_default(),
            traces: flags.trace_endpoint.clone().map(|endpoint| telemetry::Traces { endpoint, ratio: 1.0 }),
            clock: Clock::System,
        },
    };
    settings.ingester.override_with(&overrides);
    settings.querier.override_with(&overrides);
    settings.gateway.override_with(&overrides);
    faults.extend(settings.discovery.validate());
    faults.extend(settings.ingester.validate());
    faults.extend(settings.querier.validate());
    faults.extend(settings.gateway.validate());
    faults.extend(settings.scraper.validate());
    if faults.is_empty() { Ok(settings) } else { Err(faults) }
}

/// Flags that are accepted and have no effect yet, with what that means.
fn not_built(flags: &Flags) -> Vec<(String, String)> {
    let mut warnings = Vec::new();
    let mut warn = |flag: &str, text: &str| warnings.push((flag.to_owned(), text.to_owned()));
    let is_built =
        |feature: &str| PROMQL_FEATURES.contains(&feature) || [CONCURRENT_RULES, SEARCH].contains(&feature);
    for feature in flags.features.iter().filter(|feature| !is_built(feature)) {
        warn("enable-feature", &format!("feature {feature:?} is unknown or not built yet"));
    }
    // Named so that a service file which sets them keeps working; they are the default here.
    let _ = (flags.enable_remote_write, flags.drains_notifications);
    warnings
}
