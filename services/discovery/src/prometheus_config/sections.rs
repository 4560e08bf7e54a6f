//! The sections of the file itself: `global`, scrape jobs, relabelling, alerting, remote write and read, storage,
//! tracing, OTLP. Service discovery is in `mechanisms`.
//!
//! Checks that Prometheus makes while it reads a section stand with the section; those that need `global` are in
//! `checks`.

mod checks;

use model::number::Quoted;

use self::checks::{
    check_alertmanager, check_alertmanager_version, check_config, check_global, check_job_alone, check_otlp,
    check_remote_read, check_remote_write, check_tracing, check_tracing_client, check_validation_scheme,
    no_nulls,
};
pub(super) use self::checks::{
    check_job, empty_config, lower_reserved_header, name_validation, static_targets,
};
use super::http::{HTTP, HTTP_WITHOUT_HTTP2, TLS};
use super::mechanisms::MECHANISMS;
use super::rules;
use super::schema::{Default, Kind, Schema, Value, field, no_check};

pub(super) static CONFIG: Schema = Schema {
    name: "config.plain",
    parts: &[&[
        field("global", Kind::Section(&GLOBAL)).always(),
        field("runtime", Kind::Section(&RUNTIME)).or(Default::Section),
        field("alerting", Kind::Section(&ALERTING)),
        field("rule_files", Kind::Files),
        field("scrape_config_files", Kind::Files),
        field("scrape_configs", Kind::List(&JOB)),
        field("storage", Kind::Section(&STORAGE)),
        field("tracing", Kind::Section(&TRACING)),
        field("remote_write", Kind::List(&REMOTE_WRITE)),
        field("remote_read", Kind::List(&REMOTE_READ)),
        field("otlp", Kind::Section(&OTLP)).or(Default::Section),
    ]],
    check: check_config,
};

/// A file that `scrape_config_files` names.
pub(super) static INCLUDED: Schema = Schema {
    name: "config.ScrapeConfigs",
    parts: &[&[field("scrape_configs", Kind::List(&JOB))]],
    check: no_check,
};

static GLOBAL: Schema = Schema {
    name: "config.plain",
    parts: &[&[
        field("scrape_interval", Kind::Duration),
        field("scrape_timeout", Kind::Duration),
        field("scrape_protocols", Kind::Words("config.ScrapeProtocol")),
        field("evaluation_interval", Kind::Duration),
        field("rule_query_offset", Kind::Duration),
        field("query_log_file", Kind::File),
        field("scrape_failure_log_file", Kind::File),
        field("external_labels", Kind::StringMap),
        field("body_size_limit", Kind::Bytes),
        field("sample_limit", Kind::Uint),
        field("target_limit", Kind::Uint),
        field("label_limit", Kind::Uint),
        field("label_name_length_limit", Kind::Uint),
        field("label_value_length_limit", Kind::Uint),
        field("keep_dropped_targets", Kind::Uint),
        field("metric_name_validation_scheme", Kind::Word("string", check_validation_scheme)),
        field("metric_name_escaping_scheme", Kind::Str),
        field("scrape_native_histograms", Kind::OptionalBool),
        field("convert_classic_histograms_to_nhcb", Kind::Bool),
        field("always_scrape_classic_histograms", Kind::Bool),
        field("extra_scrape_metrics", Kind::Bool),
    ]],
    check: |global, faults| faults.extend(check_global(global).err()),
};

static RUNTIME: Schema = Schema {
    name: "config.RuntimeConfig",
    parts: &[&[field("gogc", Kind::Int).or(Default::Int(75))]],
    check: no_check,
};

/// A scrape job.
pub(super) static JOB: Schema = Schema {
    name: "config.ScrapeConfig",
    parts: &[
        &[
            field("job_name", Kind::Str).always(),
            field("honor_labels", Kind::Bool),
            field("honor_timestamps", Kind::Bool).or(Default::Bool(true)).always(),
            field("track_timestamps_staleness", Kind::Bool).always(),
            field("params", Kind::ListMap),
            field("scrape_interval", Kind::Duration),
            field("scrape_timeout", Kind::Duration),
            field("scrape_protocols", Kind::Words("config.ScrapeProtocol")),
            field("fallback_scrape_protocol", Kind::Word("config.ScrapeProtocol", |_| Ok(()))),
            field("scrape_native_histograms", Kind::OptionalBool),
            field("always_scrape_classic_histograms", Kind::OptionalBool),
            field("convert_classic_histograms_to_nhcb", Kind::OptionalBool),
            field("scrape_failure_log_file", Kind::File),
            field("metrics_path", Kind::Str).or(Default::Str("/metrics")),
            field("scheme", Kind::Str).or(Default::Str("http")),
            field("enable_compression", Kind::Bool).or(Default::Bool(true)).always(),
            field("body_size_limit", Kind::Bytes),
            field("sample_limit", Kind::Uint),
            field("target_limit", Kind::Uint),
            field("label_limit", Kind::Uint),
            field("label_name_length_limit", Kind::Uint),
            field("label_value_length_limit", Kind::Uint),
            field("native_histogram_bucket_limit", Kind::Uint),
            field("native_histogram_min_bucket_factor", Kind::Float),
            field("keep_dropped_targets", Kind::Uint),
            field("metric_name_validation_scheme", Kind::Word("string", check_validation_scheme)),
            field("metric_name_escaping_scheme", Kind::Str),
            field("extra_scrape_metrics", Kind::OptionalBool),
        ],
        &HTTP,
        &[
            field("relabel_configs", Kind::List(&RELABEL)),
            field("metric_relabel_configs", Kind::List(&RELABEL)),
        ],
        &MECHANISMS,
    ],
    check: |job, faults| faults.extend(check_job_alone(job).err()),
};

pub(super) static RELABEL: Schema = Schema {
    name: "relabel.plain",
    parts: &[&[
        field("source_labels", Kind::LabelNames),
        field("separator", Kind::Str).or(Default::Str(relabel::RuleConfig::SEPARATOR)),
        field("regex", Kind::Regex).or(Default::Str(relabel::RuleConfig::REGEX)),
        field("modulus", Kind::Uint),
        field("target_label", Kind::Str),
        field("replacement", Kind::Str).or(Default::Str(relabel::RuleConfig::REPLACEMENT)),
        field("action", Kind::Word("string", rules::check_action)).or(Default::Str("replace")),
    ]],
    check: no_check,
};

static ALERTING: Schema = Schema {
    name: "config.plain",
    parts: &[&[
        field("alert_relabel_configs", Kind::List(&RELABEL)),
        field("alertmanagers", Kind::List(&ALERTMANAGER)),
    ]],
    check: |alerting, faults| {
        faults
            .extend(no_nulls(alerting, "alert_relabel_configs", "empty or null alert relabeling rule").err());
    },
};

static ALERTMANAGER: Schema = Schema {
    name: "config.AlertmanagerConfig",
    parts: &[
        &HTTP,
        &[
            field("sigv4", Kind::Optional(&SIGV4)),
            field("scheme", Kind::Str).or(Default::Str("http")),
            field("path_prefix", Kind::Str),
            field("timeout", Kind::Duration).or(Default::Seconds(10)),
            field("api_version", Kind::Word("config.AlertmanagerAPIVersion", check_alertmanager_version))
                .or(Default::Str("v2"))
                .always(),
            field("relabel_configs", Kind::List(&RELABEL)),
            field("alert_relabel_configs", Kind::List(&RELABEL)),
        ],
        &MECHANISMS,
    ],
    check: |alertmanager, faults| faults.extend(check_alertmanager(alertmanager).err()),
};

static SIGV4: Schema = Schema {
    name: "sigv4.plain",
    parts: &[&[
        field("region", Kind::Str),
        field("access_key", Kind::Str),
        field("secret_key", Kind::Secret),
        field("profile", Kind::Str),
        field("role_arn", Kind::Str),
        field("external_id", Kind::Str),
        field("use_fips_sts_endpoint", Kind::Bool),
        field("service_name", Kind::Str),
    ]],
    check: |sigv4, faults| {
        if sigv4.has("access_key") != sigv4.has("secret_key") {
            faults.push(
                "must provide a AWS SigV4 Access key and Secret Key if credentials are specified in the SigV4 config"
                    .to_owned(),
            );
        }
    },
};

static STORAGE: Schema = Schema {
    name: "config.StorageConfig",
    parts: &[&[field("tsdb", Kind::Optional(&TSDB)), field("exemplars", Kind::Optional(&EXEMPLARS))]],
    check: no_check,
};

static TSDB: Schema = Schema {
    name: "config.plain",
    parts: &[&[
        // Prometheus keeps the window in milliseconds beside the setting, and shows it under the field's name.
        field("outofordertimewindow", Kind::Int).always(),
        field("out_of_order_time_window", Kind::OptionalDuration),
        field("stale_series_compaction_threshold", Kind::Float),
        field("chunk_encoding", Kind::Optional(&CHUNK_ENCODING)),
        field("retention", Kind::Optional(&RETENTION)),
    ]],
    check: |tsdb, _| {
        let window = tsdb.duration("out_of_order_time_window").as_millis();
        tsdb.set("outofordertimewindow", Value::Int(i64::try_from(window).unwrap_or(i64::MAX)));
    },
};

static CHUNK_ENCODING: Schema = Schema {
    name: "config.TSDBChunkEncodingConfig",
    parts: &[&[field("floats", Kind::Str)]],
    check: |encoding, faults| {
        let floats = encoding.str("floats");
        if !matches!(floats, "" | "xor" | "xor2") {
            faults.push(format!(
                "'storage.tsdb.chunk_encoding.floats' must be 'xor' or 'xor2', or the field must be omitted entirely, got {}",
                Quoted(floats)
            ));
        }
    },
};

static RETENTION: Schema = Schema {
    name: "config.TSDBRetentionConfig",
    parts: &[&[field("time", Kind::Duration), field("size", Kind::Bytes), field("percentage", Kind::Float)]],
    check: |retention, faults| {
        if retention.int("size") < 0 {
            faults.push("'storage.tsdb.retention.size' must be greater than or equal to 0".to_owned());
        }
        if !(0.0..=100.0).contains(&retention.float("percentage")) {
            faults.push("'storage.tsdb.retention.percentage' must be in the range [0, 100]".to_owned());
        }
    },
};

static EXEMPLARS: Schema = Schema {
    name: "config.ExemplarsConfig",
    parts: &[&[field("max_exemplars", Kind::Int)]],
    check: no_check,
};

static TRACING: Schema = Schema {
    name: "config.plain",
    parts: &[&[
        field("client_type", Kind::Word("config.plain", check_tracing_client)).or(Default::Str("grpc")),
        field("endpoint", Kind::Str),
        field("sampling_fraction", Kind::Float),
        field("insecure", Kind::Bool),
        field("tls_config", Kind::Section(&TLS)),
        field("headers", Kind::StringMap),
        field("compression", Kind::Str),
        field("timeout", Kind::Duration),
    ]],
    check: |tracing, faults| faults.extend(check_tracing(tracing).err()),
};

static REMOTE_WRITE: Schema = Schema {
    name: "config.plain",
    parts: &[
        &[
            field("url", Kind::Url).always(),
            field("remote_timeout", Kind::Duration).or(Default::Seconds(30)),
            field("headers", Kind::StringMap),
            field("write_relabel_configs", Kind::List(&RELABEL)),
            field("name", Kind::Str),
            field("send_exemplars", Kind::Bool),
            field("send_native_histograms", Kind::Bool),
            field("round_robin_dns", Kind::Bool),
            field("failed_request_logging", Kind::Any),
            field("protobuf_message", Kind::Str).or(Default::Str("prometheus.WriteRequest")),
        ],
        &HTTP_WITHOUT_HTTP2,
        &[
            field("queue_config", Kind::Section(&QUEUE)).or(Default::Section),
            field("metadata_config", Kind::Section(&METADATA)).or(Default::Section),
            field("sigv4", Kind::Optional(&SIGV4)),
            field("azuread", Kind::Optional(&AZURE_AD)),
            field("google_iam", Kind::Optional(&GOOGLE_IAM)),
        ],
    ],
    check: |remote, faults| faults.extend(check_remote_write(remote).err()),
};

static QUEUE: Schema = Schema {
    name: "config.QueueConfig",
    parts: &[&[
        field("capacity", Kind::Int).or(Default::Int(10_000)),
        field("max_shards", Kind::Int).or(Default::Int(50)),
        field("min_shards", Kind::Int).or(Default::Int(1)),
        field("max_samples_per_send", Kind::Int).or(Default::Int(2000)),
        field("batch_send_deadline", Kind::Duration).or(Default::Seconds(5)),
        field("min_backoff", Kind::Duration).or(Default::Millis(30)),
        field("max_backoff", Kind::Duration).or(Default::Seconds(5)),
        field("retry_on_http_429", Kind::Bool),
        field("sample_age_limit", Kind::Duration),
    ]],
    check: no_check,
};

static METADATA: Schema = Schema {
    name: "config.MetadataConfig",
    parts: &[&[
        field("send", Kind::Bool).or(Default::Bool(true)).always(),
        field("send_interval", Kind::Duration).or(Default::Seconds(60)).always(),
        field("max_samples_per_send", Kind::Int).or(Default::Int(2000)),
    ]],
    check: no_check,
};

static AZURE_AD: Schema = Schema {
    name: "azuread.plain",
    parts: &[&[
        field("cloud", Kind::Str).or(Default::Str("AzurePublic")),
        field("managed_identity", Kind::Optional(&AZURE_AD_IDENTITY)),
        field("workload_identity", Kind::Optional(&AZURE_AD_IDENTITY)),
        field("oauth", Kind::Optional(&AZURE_AD_IDENTITY)),
        field("sdk", Kind::Optional(&AZURE_AD_IDENTITY)),
        field("scope", Kind::Str),
    ]],
    check: |azure, faults| {
        let methods = ["managed_identity", "workload_identity", "oauth", "sdk"];
        let count = methods.iter().filter(|name| azure.record(name).is_some()).count();
        if count == 0 {
            faults.push(
                "must provide an Azure Managed Identity, Azure Workload Identity, Azure OAuth or Azure SDK in the Azure AD config"
                    .to_owned(),
            );
        } else if count > 1 {
            faults.push("cannot provide multiple authentication methods in the Azure AD config".to_owned());
        }
    },
};

static AZURE_AD_IDENTITY: Schema = Schema {
    name: "azuread.Identity",
    parts: &[&[
        field("client_id", Kind::Str),
        field("client_secret", Kind::Secret),
        field("tenant_id", Kind::Str),
        field("token_file_path", Kind::Str),
    ]],
    check: no_check,
};

static GOOGLE_IAM: Schema =
    Schema { name: "googleiam.Config", parts: &[&[field("credentials_file", Kind::Str)]], check: no_check };

static REMOTE_READ: Schema = Schema {
    name: "config.plain",
    parts: &[
        &[
            field("url", Kind::Url).always(),
            field("remote_timeout", Kind::Duration).or(Default::Seconds(60)),
            field("chunked_read_limit", Kind::Uint).or(Default::Int(50_000_000)),
            field("headers", Kind::StringMap),
            field("read_recent", Kind::Bool),
            field("name", Kind::Str),
        ],
        &HTTP,
        &[
            field("required_matchers", Kind::LabelSet),
            field("filter_external_labels", Kind::Bool).or(Default::Bool(true)),
        ],
    ],
    check: |remote, faults| faults.extend(check_remote_read(remote).err()),
};

static OTLP: Schema = Schema {
    name: "config.plain",
    parts: &[&[
        field("promote_all_resource_attributes", Kind::Bool),
        field("promote_resource_attributes", Kind::Strings),
        field("ignore_resource_attributes", Kind::Strings),
        field("translation_strategy", Kind::Str).or(Default::Str("UnderscoreEscapingWithSuffixes")),
        field("keep_identifying_resource_attributes", Kind::Bool),
        field("convert_histograms_to_nhcb", Kind::Bool),
        field("promote_scope_metadata", Kind::Bool),
        field("label_name_underscore_sanitization", Kind::Bool).or(Default::Bool(true)),
        field("label_name_preserve_multiple_underscores", Kind::Bool).or(Default::Bool(true)),
    ]],
    check: |otlp, faults| faults.extend(check_otlp(otlp).err()),
};
