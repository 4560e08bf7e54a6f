//! The part of the file that Tributary acts upon, as types.

use std::sync::Arc;
use std::time::Duration;

use model::Labels;
use relabel::{NameValidation, Rule, RuleConfig};

use super::mechanisms::MECHANISMS;
use super::providers::{BUILT, Provider, providers, unsupported_settings};
use super::rules;
use super::schema::{Field, Record, Value, is_zero};
use super::sections::{name_validation, static_targets};
use crate::target_group::TargetGroup;

/// The whole file, checked, with its defaults filled in.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file with all defaults, secrets replaced: what `status/config` shows.
    pub yaml: String,
    /// `global.external_labels`, variables replaced.
    pub external_labels: Labels,
    /// `global.evaluation_interval`.
    pub evaluation_interval: Duration,
    /// `storage.tsdb.out_of_order_time_window`; `None` when the file does not set it.
    pub out_of_order_time_window: Option<Duration>,
    /// `storage.tsdb.retention.time`; zero when the file does not set it.
    pub retention_time: Duration,
    /// `storage.tsdb.retention.size`; zero when the file does not set it.
    pub retention_size_bytes: u64,
    /// `otlp`.
    pub otlp: Otlp,
    /// `alerting`.
    pub alerting: Alerting,
    /// `rule_files` as paths from where the process runs.
    pub rule_files: Vec<String>,
    /// `global.rule_query_offset`.
    pub rule_query_offset: Duration,
    /// `global.metric_name_validation_scheme` is `legacy`.
    pub is_legacy_names: bool,
    /// Scrape jobs in file order, those of `scrape_config_files` behind them.
    pub jobs: Vec<Arc<Job>>,
    /// Parts that are valid and not built yet, sorted.
    pub ignored_sections: Vec<String>,
}

/// How OTLP metrics are translated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Otlp {
    /// `translation_strategy`.
    pub translation_strategy: String,
    /// `promote_resource_attributes`.
    pub promoted_resource_attributes: Vec<String>,
    /// `promote_all_resource_attributes`.
    pub promotes_all_resource_attributes: bool,
    /// `ignore_resource_attributes`.
    pub ignored_resource_attributes: Vec<String>,
    /// `keep_identifying_resource_attributes`.
    pub keep_identifying_resource_attributes: bool,
    /// `convert_histograms_to_nhcb`.
    pub convert_histograms_to_nhcb: bool,
    /// `promote_scope_metadata`.
    pub promote_scope_metadata: bool,
    /// `label_name_underscore_sanitization`.
    pub label_name_underscore_sanitization: bool,
    /// `label_name_preserve_multiple_underscores`.
    pub label_name_preserve_multiple_underscores: bool,
}

/// Where alerts go.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Alerting {
    /// `alert_relabel_configs`.
    pub alert_relabel: Vec<RuleConfig>,
    /// `alertmanagers`, those left out that need what is not built yet.
    pub alertmanagers: Vec<Arc<Alertmanagers>>,
}

/// An entry of `alerting.alertmanagers`.
#[derive(Debug, Clone, PartialEq)]
pub struct Alertmanagers {
    /// `scheme`.
    pub scheme: String,
    /// `path_prefix`.
    pub path_prefix: String,
    /// `timeout`.
    pub timeout: Duration,
    /// `<http_config>`.
    pub http: HttpClient,
    /// `relabel_configs`, ready to run.
    pub relabel: Vec<Rule>,
    /// `alert_relabel_configs`.
    pub alert_relabel: Vec<RuleConfig>,
    /// `static_configs`.
    pub static_groups: Vec<TargetGroup>,
    /// Where others come from.
    pub providers: Vec<Provider>,
}

/// A scrape job.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// `job_name`.
    pub name: String,
    /// `honor_labels`.
    pub honor_labels: bool,
    /// `honor_timestamps`.
    pub honor_timestamps: bool,
    /// `track_timestamps_staleness`.
    pub track_timestamps_staleness: bool,
    /// `params`, sorted by name.
    pub params: Vec<(String, Vec<String>)>,
    /// `scrape_interval`.
    pub scrape_interval: Duration,
    /// `scrape_timeout`.
    pub scrape_timeout: Duration,
    /// `scrape_protocols` in order.
    pub scrape_protocols: Vec<String>,
    /// `fallback_scrape_protocol`; empty when there is none.
    pub fallback_scrape_protocol: String,
    /// `metrics_path`.
    pub metrics_path: String,
    /// `scheme`.
    pub scheme: String,
    /// `enable_compression`.
    pub enable_compression: bool,
    /// The limits; 0 is none.
    pub limits: Limits,
    /// `metric_name_validation_scheme`.
    pub name_validation: NameValidation,
    /// `metric_name_escaping_scheme`.
    pub escaping_scheme: String,
    /// Which histograms are scraped and how.
    pub histograms: Histograms,
    /// `extra_scrape_metrics`.
    pub extra_scrape_metrics: bool,
    /// `<http_config>`.
    pub http: HttpClient,
    /// `relabel_configs`, ready to run.
    pub relabel: Vec<Rule>,
    /// `metric_relabel_configs`.
    pub metric_relabel: Vec<RuleConfig>,
    /// `static_configs`.
    pub static_groups: Vec<TargetGroup>,
    /// Where other targets come from.
    pub providers: Vec<Provider>,
    /// Settings of `http` without which a scrape would do something else than asked, and that are not built yet.
    pub unsupported: Vec<&'static str>,
}

/// The limits of a job; 0 is no limit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// `body_size_limit`, bytes.
    pub body_bytes: u64,
    /// `sample_limit`.
    pub samples: u64,
    /// `target_limit`.
    pub targets: u64,
    /// `label_limit`.
    pub labels: u64,
    /// `label_name_length_limit`.
    pub label_name_length: u64,
    /// `label_value_length_limit`.
    pub label_value_length: u64,
    /// `keep_dropped_targets`.
    pub kept_dropped_targets: u64,
}

/// How a job treats histograms.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Histograms {
    /// `scrape_native_histograms`.
    pub scrape_native: bool,
    /// `convert_classic_histograms_to_nhcb`.
    pub convert_classic: bool,
    /// `always_scrape_classic_histograms`.
    pub always_scrape_classic: bool,
    /// `native_histogram_bucket_limit`; 0 is no limit.
    pub bucket_limit: u64,
    /// `native_histogram_min_bucket_factor`; 0 is off.
    pub min_bucket_factor: f64,
}

/// How to reach the targets of a job, or a server that knows of targets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct HttpClient {
    /// `basic_auth`.
    pub basic_auth: Option<BasicAuth>,
    /// `authorization`.
    pub authorization: Option<Authorization>,
    /// `tls_config`; `None` when it says nothing.
    pub tls: Option<Tls>,
    /// `follow_redirects`.
    pub follow_redirects: bool,
    /// `enable_http2`.
    pub enable_http2: bool,
    /// `http_headers`, sorted by name.
    pub headers: Vec<Header>,
    /// `proxy_url`, which may hold a password; empty is none.
    pub proxy_url: Secret,
}

/// A text that is not to be seen in logs.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<secret>")
    }
}

/// `basic_auth`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct BasicAuth {
    /// The user.
    pub username: String,
    /// A file that holds the user.
    pub username_file: String,
    /// The password.
    pub password: Secret,
    /// A file that holds the password.
    pub password_file: String,
}

/// `authorization`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Authorization {
    /// The header's first word.
    pub kind: String,
    /// The rest of it.
    pub credentials: Secret,
    /// A file that holds the rest.
    pub credentials_file: String,
}

/// `tls_config`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Tls {
    /// PEM text of the authorities to trust.
    pub ca: String,
    /// A file with the same.
    pub ca_file: String,
    /// PEM text of the client certificate.
    pub cert: String,
    /// A file with the same.
    pub cert_file: String,
    /// PEM text of the client's key.
    pub key: Secret,
    /// A file with the same.
    pub key_file: String,
    /// The name to verify instead of the host's.
    pub server_name: String,
    /// Trusts any certificate.
    pub insecure_skip_verify: bool,
    /// `TLS10` to `TLS13`; empty is the default.
    pub min_version: String,
    /// `TLS10` to `TLS13`; empty is the default.
    pub max_version: String,
}

/// A header to send with each scrape.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its values, secret ones behind the others.
    pub values: Vec<Secret>,
    /// Files that hold further values.
    pub files: Vec<String>,
}

/// Makes the configuration of the checked file and the jobs of the files it includes.
pub(super) fn config(main: &Record, included: &[Record], yaml: String) -> Result<Config, Vec<String>> {
    let mut faults = Vec::new();
    let main_jobs = main.list("scrape_configs").iter().filter_map(|value| match value {
        Value::Record(job) => Some(&**job),
        _ => None,
    });
    let mut jobs = Vec::new();
    let mut ignored = ignored_sections(main);
    for record in main_jobs.chain(included) {
        ignored.extend(ignored_in_job(record));
        match job(record) {
            Ok(job) => jobs.push(Arc::new(job)),
            Err(fault) => faults.push(fault),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let global = main.record("global");
    let validation = global.map_or(NameValidation::Utf8, name_validation);
    let alerting = main.record("alerting").map(|section| alerting(section, validation, &mut ignored));
    let alerting = alerting.transpose().map_err(|fault| vec![fault])?.unwrap_or_default();
    ignored.sort();
    ignored.dedup();
    let labels = global.map_or(&[] as &[_], |global| global.map("external_labels"));
    let tsdb = main.record("storage").and_then(|storage| storage.record("tsdb"));
    let retention = tsdb.and_then(|tsdb| tsdb.record("retention"));
    Ok(Config {
        yaml,
        external_labels: Labels::from_pairs(string_pairs(labels)),
        evaluation_interval: global.map_or(Duration::ZERO, |global| global.duration("evaluation_interval")),
        out_of_order_time_window: tsdb.and_then(|tsdb| tsdb.optional_duration("out_of_order_time_window")),
        retention_time: retention.map_or(Duration::ZERO, |retention| retention.duration("time")),
        retention_size_bytes: retention.map_or(0, |r| u64::try_from(r.int("size")).unwrap_or(0)),
        otlp: main.record("otlp").map(otlp).unwrap_or_default(),
        alerting,
        rule_files: main.strings("rule_files"),
        rule_query_offset: global.map_or(Duration::ZERO, |global| global.duration("rule_query_offset")),
        is_legacy_names: validation == NameValidation::Legacy,
        jobs,
        ignored_sections: ignored,
    })
}

fn string_pairs(pairs: &[(String, Value)]) -> impl Iterator<Item = (String, String)> {
    pairs.iter().filter_map(|(name, value)| match value {
        Value::Str(text) => Some((name.clone(), text.clone())),
        _ => None,
    })
}

fn otlp(record: &Record) -> Otlp {
    Otlp {
        translation_strategy: record.str("translation_strategy").to_owned(),
        promoted_resource_attributes: record.strings("promote_resource_attributes"),
        promotes_all_resource_attributes: record.bool("promote_all_resource_attributes"),
        ignored_resource_attributes: record.strings("ignore_resource_attributes"),
        keep_identifying_resource_attributes: record.bool("keep_identifying_resource_attributes"),
        convert_histograms_to_nhcb: record.bool("convert_histograms_to_nhcb"),
        promote_scope_metadata: record.bool("promote_scope_metadata"),
        label_name_underscore_sanitization: record.bool("label_name_underscore_sanitization"),
        label_name_preserve_multiple_underscores: record.bool("label_name_preserve_multiple_underscores"),
    }
}

/// What the main file asks for that is not built yet.
fn ignored_sections(main: &Record) -> Vec<String> {
    let mut ignored: Vec<String> = ["remote_write", "remote_read", "tracing"]
        .into_iter()
        .filter(|name| main.has(name))
        .map(str::to_owned)
        .collect();
    if let Some(storage) = main.record("storage") {
        if storage.record("exemplars").is_some() {
            ignored.push("storage.exemplars".to_owned());
        }
        let tsdb = ["chunk_encoding", "stale_series_compaction_threshold"];
        let set = |name: &&str| storage.record("tsdb").is_some_and(|tsdb| tsdb.has(name));
        ignored.extend(tsdb.into_iter().filter(set).map(|name| format!("storage.tsdb.{name}")));
        let retention = storage.record("tsdb").and_then(|tsdb| tsdb.record("retention"));
        if retention.is_some_and(|retention| retention.has("percentage")) {
            ignored.push("storage.tsdb.retention.percentage".to_owned());
        }
    }
    if let Some(global) = main.record("global") {
        let files = ["query_log_file", "scrape_failure_log_file"];
        ignored
            .extend(files.into_iter().filter(|name| global.has(name)).map(|name| format!("global.{name}")));
    }
    ignored
}

fn ignored_in_job(job: &Record) -> Vec<String> {
    let settings = unsupported(job)
        .into_iter()
        .chain(job.has("scrape_failure_log_file").then_some("scrape_failure_log_file"));
    let names = settings.map(str::to_owned).chain(ignored_mechanisms(job));
    names.map(|name| format!("scrape_configs.{name}")).collect()
}

/// Service discovery of a section that is not built, or that needs what is not.
fn ignored_mechanisms(section: &Record) -> impl Iterator<Item = String> {
    let is_built = |field: &&Field| BUILT.contains(&field.name);
    let mechanisms = MECHANISMS.iter().filter(move |field| !is_built(field) && section.has(field.name));
    mechanisms.map(|field| field.name.to_owned()).chain(unsupported_settings(section))
}

/// The `alerting` section; what is not built is added to the ignored parts.
fn alerting(
    record: &Record,
    validation: NameValidation,
    ignored: &mut Vec<String>,
) -> Result<Alerting, String> {
    let mut alerting = Alerting {
        alert_relabel: rules::configs(record.list("alert_relabel_configs"), validation)?,
        alertmanagers: Vec::new(),
    };
    rules::compile(&alerting.alert_relabel)?;
    for value in record.list("alertmanagers") {
        let Value::Record(entry) = value else { continue };
        // Without what the entry asks for, alerts would be refused or go another way: they are not sent.
        let lacking: Vec<_> = unsupported(entry)
            .into_iter()
            .chain(entry.has("proxy_url").then_some("proxy_url"))
            .chain(entry.record("sigv4").map(|_| "sigv4"))
            .map(str::to_owned)
            .collect();
        let is_usable = lacking.is_empty();
        let names = lacking.into_iter().chain(ignored_mechanisms(entry));
        ignored.extend(names.map(|name| format!("alerting.alertmanagers.{name}")));
        let alertmanagers = alertmanagers(entry, validation)?;
        if is_usable {
            alerting.alertmanagers.push(Arc::new(alertmanagers));
        }
    }
    Ok(alerting)
}

fn alertmanagers(record: &Record, validation: NameValidation) -> Result<Alertmanagers, String> {
    let alert_relabel = rules::configs(record.list("alert_relabel_configs"), validation)?;
    // Compiled here for the check alone: queriers compile them again.
    rules::compile(&alert_relabel)?;
    Ok(Alertmanagers {
        scheme: record.str("scheme").to_owned(),
        path_prefix: record.str("path_prefix").to_owned(),
        timeout: record.duration("timeout"),
        http: http(record),
        relabel: rules::compile(&rules::configs(record.list("relabel_configs"), validation)?)?,
        alert_relabel,
        static_groups: static_groups(record),
        providers: providers(record),
    })
}

/// Settings of an HTTP client that are not built, and without which it would do something else than asked.
pub(super) fn unsupported(record: &Record) -> Vec<&'static str> {
    let names = ["oauth2", "no_proxy", "proxy_from_environment", "proxy_connect_header"];
    names.into_iter().filter(|name| record.has(name) || record.record(name).is_some()).collect()
}

fn job(record: &Record) -> Result<Job, String> {
    let validation = name_validation(record);
    let relabel = rules::configs(record.list("relabel_configs"), validation)?;
    let metric_relabel = rules::configs(record.list("metric_relabel_configs"), validation)?;
    // Compiled here for the check alone: the scraper compiles them again.
    rules::compile(&metric_relabel)?;
    Ok(Job {
        name: record.str("job_name").to_owned(),
        honor_labels: record.bool("honor_labels"),
        honor_timestamps: record.bool("honor_timestamps"),
        track_timestamps_staleness: record.bool("track_timestamps_staleness"),
        params: params(record),
        scrape_interval: record.duration("scrape_interval"),
        scrape_timeout: record.duration("scrape_timeout"),
        scrape_protocols: record.strings("scrape_protocols"),
        fallback_scrape_protocol: record.str("fallback_scrape_protocol").to_owned(),
        metrics_path: record.str("metrics_path").to_owned(),
        scheme: record.str("scheme").to_owned(),
        enable_compression: record.bool("enable_compression"),
        limits: Limits {
            body_bytes: u64::try_from(record.int("body_size_limit")).unwrap_or(0),
            samples: record.uint("sample_limit"),
            targets: record.uint("target_limit"),
            labels: record.uint("label_limit"),
            label_name_length: record.uint("label_name_length_limit"),
            label_value_length: record.uint("label_value_length_limit"),
            kept_dropped_targets: record.uint("keep_dropped_targets"),
        },
        name_validation: validation,
        escaping_scheme: record.str("metric_name_escaping_scheme").to_owned(),
        histograms: Histograms {
            scrape_native: record.bool("scrape_native_histograms"),
            convert_classic: record.bool("convert_classic_histograms_to_nhcb"),
            always_scrape_classic: record.bool("always_scrape_classic_histograms"),
            bucket_limit: record.uint("native_histogram_bucket_limit"),
            min_bucket_factor: record.float("native_histogram_min_bucket_factor"),
        },
        extra_scrape_metrics: record.bool("extra_scrape_metrics"),
        http: http(record),
        relabel: rules::compile(&relabel)?,
        metric_relabel,
        static_groups: static_groups(record),
        providers: providers(record),
        unsupported: unsupported(record),
    })
}

fn params(record: &Record) -> Vec<(String, Vec<String>)> {
    let values = |value: &Value| match value {
        Value::List(items) => super::schema::strings(items),
        _ => Vec::new(),
    };
    record.map("params").iter().map(|(name, value)| (name.clone(), values(value))).collect()
}

/// The `<http_config>` of a section.
pub(super) fn http(record: &Record) -> HttpClient {
    HttpClient {
        basic_auth: record.record("basic_auth").map(|basic| BasicAuth {
            username: basic.str("username").to_owned(),
            username_file: basic.str("username_file").to_owned(),
            password: basic.str("password").into(),
            password_file: basic.str("password_file").to_owned(),
        }),
        authorization: record.record("authorization").map(|authorization| Authorization {
            kind: authorization.str("type").to_owned(),
            credentials: authorization.str("credentials").into(),
            credentials_file: authorization.str("credentials_file").to_owned(),
        }),
        tls: record.record("tls_config").filter(|tls| !tls.values.iter().all(is_zero)).map(tls),
        follow_redirects: record.bool("follow_redirects"),
        enable_http2: record.bool("enable_http2"),
        headers: headers(record),
        proxy_url: record.str("proxy_url").into(),
    }
}

fn tls(record: &Record) -> Tls {
    let text = |name| record.str(name).to_owned();
    Tls {
        ca: text("ca"),
        ca_file: text("ca_file"),
        cert: text("cert"),
        cert_file: text("cert_file"),
        key: record.str("key").into(),
        key_file: text("key_file"),
        server_name: text("server_name"),
        insecure_skip_verify: record.bool("insecure_skip_verify"),
        min_version: text("min_version"),
        max_version: text("max_version"),
    }
}

fn headers(record: &Record) -> Vec<Header> {
    let header = |(name, value): &(String, Value)| match value {
        Value::Record(header) => Some(Header {
            name: name.clone(),
            values: [header.strings("values"), header.strings("secrets")]
                .concat()
                .into_iter()
                .map(Secret)
                .collect(),
            files: header.strings("files"),
        }),
        _ => None,
    };
    record.map("http_headers").iter().filter_map(header).collect()
}

fn static_groups(job: &Record) -> Vec<TargetGroup> {
    let group = |(index, group): (usize, &Value)| match group {
        Value::Record(group) => Some(target_group(group, index.to_string())),
        _ => None,
    };
    job.list("static_configs").iter().enumerate().filter_map(group).collect()
}

/// A target group as it is written.
pub(super) fn target_group(group: &Record, source: String) -> TargetGroup {
    TargetGroup::new(source, static_targets(group), string_pairs(group.map("labels")))
}
