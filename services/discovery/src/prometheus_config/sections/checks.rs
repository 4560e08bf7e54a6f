//! What Prometheus checks when it reads a section, and what sections take from `global`.

use std::collections::{BTreeSet, HashSet};

use model::number::Quoted;
use relabel::NameValidation;

use super::{CONFIG, GLOBAL, RUNTIME};
use crate::prometheus_config::decode::seconds;
use crate::prometheus_config::http::check_http;
use crate::prometheus_config::mechanisms::MECHANISMS;
use crate::prometheus_config::rules;
use crate::prometheus_config::schema::{Record, Value, strings};

/// Supported scrape protocols, sorted as messages list them.
const PROTOCOLS: [&str; 5] = [
    "OpenMetricsText0.0.1",
    "OpenMetricsText1.0.0",
    "PrometheusProto",
    "PrometheusText0.0.4",
    "PrometheusText1.0.0",
];

const DEFAULT_PROTOCOLS: [&str; 4] =
    ["OpenMetricsText1.0.0", "OpenMetricsText0.0.1", "PrometheusText1.0.0", "PrometheusText0.0.4"];

pub(super) fn check_validation_scheme(text: &str) -> Result<(), String> {
    match text {
        "" | "utf8" | "legacy" => Ok(()),
        _ => Err(format!("unrecognized ValidationScheme: {}", Quoted(text))),
    }
}

pub(super) fn check_alertmanager_version(text: &str) -> Result<(), String> {
    match text {
        "v2" => Ok(()),
        _ => Err(format!("expected Alertmanager api version to be one of [v2] but got {text}")),
    }
}

pub(super) fn check_tracing_client(text: &str) -> Result<(), String> {
    match text {
        "http" | "grpc" => Ok(()),
        _ => Err(format!("expected tracing client type to be to be http or grpc, but got {text}")),
    }
}

/// The name validation that a section asks for.
pub(in crate::prometheus_config) fn name_validation(record: &Record) -> NameValidation {
    match record.str("metric_name_validation_scheme") {
        "legacy" => NameValidation::Legacy,
        _ => NameValidation::Utf8,
    }
}

pub(super) fn no_nulls(record: &Record, list: &str, text: &str) -> Result<(), String> {
    if record.list(list).contains(&Value::Null) { Err(text.to_owned()) } else { Ok(()) }
}

pub(super) fn check_global(global: &mut Record) -> Result<(), String> {
    if !global.has("metric_name_validation_scheme") {
        global.set("metric_name_validation_scheme", Value::Str("utf8".to_owned()));
    }
    let validation = name_validation(global);
    for (name, _) in global.map("external_labels") {
        if !validation.is_label_name(name) {
            return Err(format!("{} is not a valid label name", Quoted(name)));
        }
    }
    if !global.has("scrape_interval") {
        global.set("scrape_interval", seconds(60));
    }
    let interval = global.duration("scrape_interval");
    if global.duration("scrape_timeout") > interval {
        return Err("global scrape timeout greater than scrape interval".to_owned());
    }
    if !global.has("scrape_timeout") {
        global.set("scrape_timeout", Value::Duration(interval.min(std::time::Duration::from_secs(10))));
    }
    if !global.has("evaluation_interval") {
        global.set("evaluation_interval", seconds(60));
    }
    if *global.get("scrape_native_histograms") == Value::Null {
        global.set("scrape_native_histograms", Value::Bool(false));
    }
    if *global.get("scrape_protocols") != Value::Null {
        check_protocols(global).map_err(|error| format!("{error} for global config"))?;
    }
    Ok(())
}

fn check_protocols(record: &Record) -> Result<(), String> {
    let protocols = record.strings("scrape_protocols");
    if protocols.is_empty() {
        return Err("scrape_protocols cannot be empty".to_owned());
    }
    let mut seen = HashSet::new();
    for protocol in &protocols {
        if !seen.insert(protocol.to_lowercase()) {
            return Err(format!("duplicated protocol in scrape_protocols, got [{}]", protocols.join(" ")));
        }
        check_protocol(protocol).map_err(|error| format!("scrape_protocols: {error}"))?;
    }
    Ok(())
}

fn check_protocol(protocol: &str) -> Result<(), String> {
    if PROTOCOLS.contains(&protocol) {
        return Ok(());
    }
    Err(format!("unknown scrape protocol {protocol}, supported: [{}]", PROTOCOLS.join(" ")))
}

/// What a job must keep to whatever `global` says.
pub(super) fn check_job_alone(job: &mut Record) -> Result<(), String> {
    check_mechanisms(job)?;
    if !job.has("job_name") {
        return Err("job_name is empty".to_owned());
    }
    check_http(job)?;
    check_static_targets(job)?;
    no_nulls(job, "relabel_configs", "empty or null target relabeling rule in scrape config")?;
    no_nulls(job, "metric_relabel_configs", "empty or null metric relabeling rule in scrape config")
}

fn check_mechanisms(record: &Record) -> Result<(), String> {
    for mechanism in &MECHANISMS {
        if record.list(mechanism.name).contains(&Value::Null) {
            return Err(format!("empty or null section in {}", mechanism.name));
        }
    }
    Ok(())
}

/// Finds URLs where host and port are wanted; relabelling might turn them into that, so only without rules.
fn check_static_targets(record: &Record) -> Result<(), String> {
    if !record.list("relabel_configs").is_empty() {
        return Ok(());
    }
    for group in record.list("static_configs") {
        let Value::Record(group) = group else { continue };
        if let Some(bad) = group.strings("targets").into_iter().find(|target| target.contains('/')) {
            return Err(format!("{} is not a valid hostname", Quoted(&bad)));
        }
    }
    Ok(())
}

/// Fills what a job takes from `global` and checks it with that.
pub(in crate::prometheus_config) fn check_job(job: &mut Record, global: &Record) -> Result<(), String> {
    let name = job.str("job_name").to_owned();
    let for_job = |error: String| format!("{error} for scrape config with job name {}", Quoted(&name));
    inherit(job, global, "scrape_interval");
    let interval = job.duration("scrape_interval");
    if job.duration("scrape_timeout") > interval {
        return Err(for_job("scrape timeout greater than scrape interval".to_owned()));
    }
    if !job.has("scrape_timeout") {
        job.set("scrape_timeout", Value::Duration(global.duration("scrape_timeout").min(interval)));
    }
    for field in [
        "body_size_limit",
        "sample_limit",
        "target_limit",
        "label_limit",
        "label_name_length_limit",
        "label_value_length_limit",
        "keep_dropped_targets",
        "scrape_failure_log_file",
    ] {
        inherit(job, global, field);
    }
    for field in [
        "scrape_native_histograms",
        "extra_scrape_metrics",
        "convert_classic_histograms_to_nhcb",
        "always_scrape_classic_histograms",
    ] {
        if *job.get(field) == Value::Null {
            job.set(field, Value::Bool(global.bool(field)));
        }
    }
    if *job.get("scrape_protocols") == Value::Null {
        job.set("scrape_protocols", default_protocols(job, global));
    }
    check_protocols(job).map_err(for_job)?;
    let fallback = job.str("fallback_scrape_protocol");
    if !fallback.is_empty() {
        check_protocol(fallback).map_err(|error| {
            format!(
                "invalid fallback_scrape_protocol for scrape config with job name {}: {error}",
                Quoted(&name)
            )
        })?;
    }
    check_schemes(job, global)?;
    let validation = name_validation(job);
    rules::check(job.list("relabel_configs"), validation)?;
    rules::check(job.list("metric_relabel_configs"), validation)
}

fn inherit(job: &mut Record, global: &Record, field: &str) {
    if !job.has(field) {
        job.set(field, global.get(field).clone());
    }
}

fn default_protocols(job: &Record, global: &Record) -> Value {
    if *global.get("scrape_protocols") != Value::Null {
        return global.get("scrape_protocols").clone();
    }
    let first = job.bool("scrape_native_histograms").then_some("PrometheusProto");
    Value::List(first.into_iter().chain(DEFAULT_PROTOCOLS).map(|p| Value::Str(p.to_owned())).collect())
}

const ESCAPING_SCHEMES: [&str; 4] = ["allow-utf-8", "underscores", "dots", "values"];

fn check_schemes(job: &mut Record, global: &Record) -> Result<(), String> {
    let unknown = |whose: &str, scheme: &str| {
        format!(
            "unknown {whose} name escaping method specified, must be one of 'allow-utf-8', 'underscores', 'dots', or 'values', got {}",
            Quoted(scheme)
        )
    };
    let default_escaping = |validation| match validation {
        NameValidation::Legacy => "underscores",
        NameValidation::Utf8 => "allow-utf-8",
    };
    let global_escaping = match global.str("metric_name_escaping_scheme") {
        "" => default_escaping(name_validation(global)),
        scheme if ESCAPING_SCHEMES.contains(&scheme) => scheme,
        scheme => return Err(unknown("global", scheme)),
    };
    let is_validation_open = !job.has("metric_name_validation_scheme");
    inherit(job, global, "metric_name_validation_scheme");
    if !job.has("metric_name_escaping_scheme") {
        let escaping =
            if is_validation_open { global_escaping } else { default_escaping(name_validation(job)) };
        job.set("metric_name_escaping_scheme", Value::Str(escaping.to_owned()));
    }
    match job.str("metric_name_escaping_scheme") {
        "allow-utf-8" if name_validation(job) != NameValidation::Utf8 => {
            Err("utf8 metric names requested but validation scheme is not set to UTF8".to_owned())
        }
        scheme if ESCAPING_SCHEMES.contains(&scheme) => Ok(()),
        scheme => Err(unknown("scrape config", scheme)),
    }
}

pub(super) fn check_alertmanager(alertmanager: &mut Record) -> Result<(), String> {
    check_mechanisms(alertmanager)?;
    check_http(alertmanager)?;
    let has_auth =
        ["basic_auth", "authorization", "oauth2"].iter().any(|name| alertmanager.record(name).is_some());
    if has_auth && alertmanager.record("sigv4").is_some() {
        return Err("at most one of basic_auth, authorization, oauth2, & sigv4 must be configured".to_owned());
    }
    check_static_targets(alertmanager)?;
    no_nulls(alertmanager, "relabel_configs", "empty or null Alertmanager target relabeling rule")?;
    no_nulls(alertmanager, "alert_relabel_configs", "empty or null Alertmanager alert relabeling rule")
}

/// Headers that requests of Prometheus set themselves.
pub(in crate::prometheus_config) fn lower_reserved_header(lower: &str) -> bool {
    matches!(
        lower,
        "host"
            | "content-encoding"
            | "content-length"
            | "content-type"
            | "user-agent"
            | "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "www-authenticate"
            | "accept-encoding"
            | "x-prometheus-remote-write-version"
            | "x-prometheus-remote-read-version"
            | "x-amz-date"
            | "x-amz-security-token"
            | "x-amz-content-sha256"
    )
}

fn check_headers(record: &Record, authorization_fault: &str) -> Result<(), String> {
    for (name, _) in record.map("headers") {
        let lower = name.to_lowercase();
        if lower == "authorization" {
            return Err(authorization_fault.to_owned());
        }
        if lower_reserved_header(&lower) {
            return Err(format!("{name} is a reserved header. It must not be changed"));
        }
    }
    Ok(())
}

const REMOTE_AUTHORIZATION: &str = "authorization header must be changed via the basic_auth, authorization, oauth2, sigv4, azuread or google_iam parameter";

pub(super) fn check_remote_write(remote: &mut Record) -> Result<(), String> {
    if *remote.get("url") == Value::Null {
        return Err("url for remote_write is empty".to_owned());
    }
    no_nulls(remote, "write_relabel_configs", "empty or null relabeling rule in remote write config")?;
    check_headers(remote, REMOTE_AUTHORIZATION)?;
    let message = remote.str("protobuf_message");
    if !matches!(message, "prometheus.WriteRequest" | "io.prometheus.write.v2.Request") {
        return Err(format!(
            "invalid protobuf_message value: unknown type for remote write protobuf message {message}, supported: prometheus.WriteRequest, io.prometheus.write.v2.Request"
        ));
    }
    check_http(remote)?;
    if let Some(queue) = remote.record("queue_config") {
        check_queue(queue)?;
    }
    let methods = ["basic_auth", "authorization", "oauth2", "sigv4", "azuread", "google_iam"];
    let used: Vec<&str> = methods.into_iter().filter(|name| remote.record(name).is_some()).collect();
    if used.len() > 1 {
        return Err(format!(
            "at most one of basic_auth, authorization, oauth2, sigv4, azuread or google_iam must be configured. Currently configured: [{}]",
            used.join(" ")
        ));
    }
    Ok(())
}

fn check_queue(queue: &Record) -> Result<(), String> {
    let fault = if queue.int("min_shards") <= 0 {
        "remote write queue min_shards must be positive"
    } else if queue.int("max_shards") <= 0 {
        "remote write queue max_shards must be positive"
    } else if queue.int("min_shards") > queue.int("max_shards") {
        "remote write queue min_shards must not be greater than max_shards"
    } else if queue.int("max_samples_per_send") <= 0 {
        "remote write queue max_samples_per_send must be positive"
    } else if queue.duration("max_backoff") < queue.duration("min_backoff") {
        "remote write queue max_backoff must not be less than min_backoff"
    } else {
        return Ok(());
    };
    Err(fault.to_owned())
}

pub(super) fn check_remote_read(remote: &mut Record) -> Result<(), String> {
    if *remote.get("url") == Value::Null {
        return Err("url for remote_read is empty".to_owned());
    }
    check_headers(remote, REMOTE_AUTHORIZATION)?;
    check_http(remote)
}

pub(super) fn check_tracing(tracing: &Record) -> Result<(), String> {
    check_headers(tracing, "custom authorization header configuration is not yet supported")?;
    if !tracing.has("endpoint") {
        return Err("tracing endpoint must be set".to_owned());
    }
    match tracing.str("compression") {
        "" | "gzip" => Ok(()),
        other => Err(format!("invalid compression type {other} provided, valid options: gzip")),
    }
}

pub(super) fn check_otlp(otlp: &mut Record) -> Result<(), String> {
    if otlp.bool("promote_all_resource_attributes") {
        if otlp.has("promote_resource_attributes") {
            return Err(
                "'promote_all_resource_attributes' and 'promote_resource_attributes' cannot be configured simultaneously"
                    .to_owned(),
            );
        }
        return trim_attributes(otlp, "ignore_resource_attributes", "ignored");
    }
    if otlp.has("ignore_resource_attributes") {
        return Err(
            "'ignore_resource_attributes' cannot be configured unless 'promote_all_resource_attributes' is true"
                .to_owned(),
        );
    }
    trim_attributes(otlp, "promote_resource_attributes", "promoted")
}

fn trim_attributes(otlp: &mut Record, name: &str, adjective: &str) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    let mut faults = Vec::new();
    for item in otlp.list_mut(name) {
        let Value::Str(text) = item else { continue };
        *text = text.trim().to_owned();
        if text.is_empty() {
            faults.push(format!("empty {adjective} OTel resource attribute"));
        } else if !seen.insert(text.clone()) {
            faults.push(format!("duplicated {adjective} OTel resource attribute {}", Quoted(text)));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(format!("invalid '{name}': {}", faults.join("\n"))) }
}

/// What must hold between the sections of the file.
pub(super) fn check_config(config: &mut Record, faults: &mut Vec<String>) {
    restore_defaults(config);
    for (list, what) in [("rule_files", "rule file"), ("scrape_config_files", "scrape config file")] {
        let is_bad = |pattern: &String| !is_path_pattern(pattern);
        faults.extend(
            config
                .strings(list)
                .iter()
                .filter(|p| is_bad(p))
                .map(|p| format!("invalid {what} path {}", Quoted(p))),
        );
    }
    let Some(global) = config.record("global").cloned() else { return };
    let mut job_names = HashSet::new();
    for job in config.list_mut("scrape_configs") {
        let Value::Record(job) = job else {
            faults.push("empty or null scrape config section".to_owned());
            continue;
        };
        faults.extend(check_job(job, &global).err());
        if !job_names.insert(job.str("job_name").to_owned()) {
            faults
                .push(format!("found multiple scrape configs with job name {}", Quoted(job.str("job_name"))));
        }
    }
    let validation = name_validation(&global);
    if let Some(alerting) = config.record("alerting") {
        faults.extend(rules::check(alerting.list("alert_relabel_configs"), validation).err());
        for alertmanager in alerting.list("alertmanagers") {
            let Value::Record(alertmanager) = alertmanager else { continue };
            faults.extend(rules::check(alertmanager.list("alert_relabel_configs"), validation).err());
            faults.extend(rules::check(alertmanager.list("relabel_configs"), validation).err());
        }
    }
    check_remotes(config, "remote_write", "remote write", validation, faults);
    check_remotes(config, "remote_read", "remote read", validation, faults);
    if let Some(otlp) = config.record("otlp") {
        faults.extend(check_translation(otlp.str("translation_strategy"), validation).err());
    }
}

/// A section that is opened and left empty counts as not opened.
fn restore_defaults(config: &mut Record) {
    let is_open = |config: &Record, name| !config.has(name);
    if is_open(config, "global") {
        let mut global = Record::with_defaults(&GLOBAL);
        check_global(&mut global).expect("an empty global section is valid");
        global.set("metric_name_escaping_scheme", Value::Str("allow-utf-8".to_owned()));
        config.set("global", Value::Record(Box::new(global)));
    }
    if is_open(config, "runtime") {
        config.set("runtime", Value::Record(Box::new(Record::with_defaults(&RUNTIME))));
    }
}

/// The sections as they are when the file is empty.
pub(in crate::prometheus_config) fn empty_config() -> Record {
    let mut config = Record::with_defaults(&CONFIG);
    restore_defaults(&mut config);
    config
}

/// Says whether wildcards stand in the last element only.
fn is_path_pattern(pattern: &str) -> bool {
    match pattern.split_once('*') {
        Some((_, after)) => !after.contains('/'),
        None => true,
    }
}

fn check_remotes(
    config: &Record,
    list: &str,
    what: &str,
    validation: NameValidation,
    faults: &mut Vec<String>,
) {
    let mut names = HashSet::new();
    for remote in config.list(list) {
        let Value::Record(remote) = remote else {
            faults.push(format!("empty or null {what} config section"));
            continue;
        };
        let name = remote.str("name");
        if !name.is_empty() && !names.insert(name.to_owned()) {
            faults.push(format!("found multiple {what} configs with job name {}", Quoted(name)));
        }
        faults.extend(rules::check(remote.list("write_relabel_configs"), validation).err());
    }
}

fn check_translation(strategy: &str, validation: NameValidation) -> Result<(), String> {
    match strategy {
        "" | "UnderscoreEscapingWithSuffixes" | "UnderscoreEscapingWithoutSuffixes" => Ok(()),
        "NoTranslation" | "NoUTF8EscapingWithSuffixes" if validation == NameValidation::Legacy => Err(
            format!("OTLP translation strategy {} is not allowed when UTF8 is disabled", Quoted(strategy)),
        ),
        "NoTranslation" | "NoUTF8EscapingWithSuffixes" => Ok(()),
        _ => Err(format!("unsupported OTLP translation strategy {}", Quoted(strategy))),
    }
}

/// The names in a list of strings, for messages and warnings.
pub(in crate::prometheus_config) fn static_targets(group: &Record) -> Vec<String> {
    strings(group.list("targets"))
}
