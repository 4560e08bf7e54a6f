//! Service discovery that Tributary runs, as types.

use std::collections::BTreeMap;
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
    /// An entry of `kubernetes_sd_configs`.
    Kubernetes(KubernetesProvider),
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

/// An entry of `kubernetes_sd_configs`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KubernetesProvider {
    /// Whom to ask.
    pub cluster: Cluster,
    /// What to find.
    pub role: Role,
    /// The namespaces to look into; none is all of them.
    pub namespaces: Vec<String>,
    /// Looks into the namespace that discovery itself runs in, too.
    pub own_namespace: bool,
    /// Which objects of a role count.
    pub selectors: BTreeMap<Role, Selector>,
    /// What is looked up beside the role's own objects.
    pub attach: AttachMetadata,
}

/// A Kubernetes cluster, by the way to its API server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cluster {
    /// The one that discovery runs in, as its service account.
    Own,
    /// The current context of a kubeconfig file.
    Kubeconfig(String),
    /// A server.
    Server {
        /// Where it is.
        url: String,
        /// How to reach it.
        http: Box<HttpClient>,
    },
}

/// `role`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Each container port of each pod.
    Pod,
    /// Each port of each service.
    Service,
    /// Each address of each Endpoints object.
    Endpoints,
    /// Each address of each EndpointSlice.
    EndpointSlice,
    /// Each node.
    Node,
    /// Each path of each ingress.
    Ingress,
}

/// Which objects count; an empty text is all of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Selector {
    /// A label selector as Kubernetes reads it.
    pub label: String,
    /// A field selector as Kubernetes reads it.
    pub field: String,
}

/// `attach_metadata`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct AttachMetadata {
    /// Labels and annotations of the node.
    pub node: bool,
    /// Labels and annotations of the namespace.
    pub namespace: bool,
    /// The deployment that a pod belongs to.
    pub deployment: bool,
    /// The job that a pod belongs to.
    pub job: bool,
    /// The cron job that a pod belongs to.
    pub cronjob: bool,
}

/// The mechanisms that are built.
pub(super) const BUILT: [&str; 5] =
    ["static_configs", "file_sd_configs", "http_sd_configs", "dns_sd_configs", "kubernetes_sd_configs"];

/// The providers of a job, those of [`unsupported_settings`] left out.
pub(super) fn providers(job: &Record) -> Vec<Provider> {
    let of = |name: &'static str, make: fn(&Record) -> Provider| {
        records(job, name).filter(|record| unsupported_of_client(record).is_empty()).map(make)
    };
    of("file_sd_configs", |record| Provider::Files(files(record)))
        .chain(of("http_sd_configs", |record| Provider::Http(http_sd(record))))
        .chain(of("dns_sd_configs", |record| Provider::Dns(dns(record))))
        .chain(of("kubernetes_sd_configs", |record| Provider::Kubernetes(kubernetes(record))))
        .collect()
}

/// Settings that keep entries of the built mechanisms from being used, since they are not built.
pub(super) fn unsupported_settings(job: &Record) -> Vec<String> {
    let of = |name: &'static str| {
        records(job, name).flat_map(unsupported_of_client).map(move |setting| format!("{name}.{setting}"))
    };
    ["http_sd_configs", "kubernetes_sd_configs"].into_iter().flat_map(of).collect()
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

fn kubernetes(record: &Record) -> KubernetesProvider {
    let (server, file) = (record.str("api_server"), record.str("kubeconfig_file"));
    let cluster = if !server.is_empty() {
        Cluster::Server { url: server.to_owned(), http: Box::new(http(record)) }
    } else if file.is_empty() {
        Cluster::Own
    } else {
        Cluster::Kubeconfig(file.to_owned())
    };
    let namespaces = record.record("namespaces");
    let selectors = records(record, "selectors").map(|selector| {
        let texts =
            Selector { label: selector.str("label").to_owned(), field: selector.str("field").to_owned() };
        (role(selector.str("role")), texts)
    });
    let attach = record.record("attach_metadata");
    let is_attached = |name: &str| attach.is_some_and(|attach| attach.bool(name));
    KubernetesProvider {
        cluster,
        role: role(record.str("role")),
        namespaces: namespaces.map_or_else(Vec::new, |namespaces| namespaces.strings("names")),
        own_namespace: namespaces.is_some_and(|namespaces| namespaces.bool("own_namespace")),
        selectors: selectors.collect(),
        attach: AttachMetadata {
            node: is_attached("node"),
            namespace: is_attached("namespace"),
            deployment: is_attached("deployment"),
            job: is_attached("job"),
            cronjob: is_attached("cronjob"),
        },
    }
}

/// A role by its name, which was checked.
fn role(name: &str) -> Role {
    match name {
        "pod" => Role::Pod,
        "service" => Role::Service,
        "endpoints" => Role::Endpoints,
        "endpointslice" => Role::EndpointSlice,
        "node" => Role::Node,
        _ => Role::Ingress,
    }
}
