//! Service discovery that Tributary runs, as types.

use std::time::Duration;

use super::schema::{Record, Value};
use super::typed::{HttpClient, http, unsupported};

/// Where targets come from that change by themselves; equal ones are one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Provider {
    /// An entry of `file_sd_configs`.
    Files(FileProvider),
    /// An entry of `http_sd_configs`.
    Http(HttpProvider),
    /// An entry of `dns_sd_configs`.
    Dns(DnsProvider),
}

/// An entry of `file_sd_configs`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileProvider {
    /// Patterns of paths.
    pub patterns: Vec<String>,
    /// How often the files are read though nothing was seen to change.
    pub refresh_interval: Duration,
}

/// An entry of `http_sd_configs`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HttpProvider {
    /// What to ask for.
    pub url: String,
    /// How often, and how long an answer may take.
    pub refresh_interval: Duration,
    /// How to reach it.
    pub http: Box<HttpClient>,
}

/// An entry of `dns_sd_configs`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DnsProvider {
    /// What to look up.
    pub names: Vec<String>,
    /// Which records.
    pub record: DnsRecord,
    /// The port of targets whose record has none.
    pub port: i64,
    /// How often.
    pub refresh_interval: Duration,
}

/// The records that `dns_sd_configs` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DnsRecord {
    /// Host and port.
    Srv,
    /// An IPv4 address.
    A,
    /// An IPv6 address.
    Aaaa,
    /// A mail server.
    Mx,
    /// A name server.
    Ns,
}

/// The mechanisms that are built.
pub(super) const BUILT: [&str; 4] =
    ["static_configs", "file_sd_configs", "http_sd_configs", "dns_sd_configs"];

/// The providers of a job, those of [`unsupported_settings`] left out.
pub(super) fn providers(job: &Record) -> Vec<Provider> {
    let of = |name: &'static str, make: fn(&Record) -> Provider| {
        records(job, name).filter(|record| unsupported_of_client(record).is_empty()).map(make)
    };
    of("file_sd_configs", |record| Provider::Files(files(record)))
        .chain(of("http_sd_configs", |record| Provider::Http(http_sd(record))))
        .chain(of("dns_sd_configs", |record| Provider::Dns(dns(record))))
        .collect()
}

/// Settings that keep entries of the built mechanisms from being used, since they are not built.
pub(super) fn unsupported_settings(job: &Record) -> Vec<String> {
    let of = |name: &'static str| {
        records(job, name).flat_map(unsupported_of_client).map(move |setting| format!("{name}.{setting}"))
    };
    ["http_sd_configs"].into_iter().flat_map(of).collect()
}

fn unsupported_of_client(record: &Record) -> Vec<&'static str> {
    if !record.schema.fields().any(|field| field.name == "oauth2") {
        return Vec::new();
    }
    unsupported(record).into_iter().chain(record.has("proxy_url").then_some("proxy_url")).collect()
}

fn records<'a>(job: &'a Record, name: &str) -> impl Iterator<Item = &'a Record> + use<'a> {
    job.list(name).iter().filter_map(|value| match value {
        Value::Record(record) => Some(&**record),
        _ => None,
    })
}

fn files(record: &Record) -> FileProvider {
    FileProvider { patterns: record.strings("files"), refresh_interval: record.duration("refresh_interval") }
}

fn http_sd(record: &Record) -> HttpProvider {
    HttpProvider {
        url: record.str("url").to_owned(),
        refresh_interval: record.duration("refresh_interval"),
        http: Box::new(http(record)),
    }
}

fn dns(record: &Record) -> DnsProvider {
    let kind = match record.str("type").to_uppercase().as_str() {
        "A" => DnsRecord::A,
        "AAAA" => DnsRecord::Aaaa,
        "MX" => DnsRecord::Mx,
        "NS" => DnsRecord::Ns,
        _ => DnsRecord::Srv,
    };
    DnsProvider {
        names: record.strings("names"),
        record: kind,
        port: record.int("port"),
        refresh_interval: record.duration("refresh_interval"),
    }
}
