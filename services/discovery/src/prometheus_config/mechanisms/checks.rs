//! What Prometheus checks when it reads the section of a mechanism.

use std::collections::HashSet;

use model::number::Quoted;

use super::PLAIN_HTTP;
use crate::prometheus_config::http::{HTTP, check_http};
use crate::prometheus_config::scalar::parse_url;
use crate::prometheus_config::schema::{Record, Value};

pub(super) fn http_only(record: &mut Record, faults: &mut Vec<String>) {
    faults.extend(check_http(record).err());
}

pub(super) fn one_of(text: &str, allowed: &[&str], fault: &str) -> Result<(), String> {
    if allowed.contains(&text) { Ok(()) } else { Err(format!("{fault} {}", Quoted(text))) }
}

/// Checks that fields are there; `text` turns a field's name in messages into the fault.
pub(super) fn require(
    record: &Record,
    needed: &[(&str, &str)],
    text: impl Fn(&str) -> String,
) -> Result<(), String> {
    match needed.iter().find(|(name, _)| !record.has(name)) {
        Some((_, what)) => Err(text(what)),
        None => Ok(()),
    }
}

pub(super) fn require_role(record: &Record, roles: &str) -> Result<(), String> {
    require(record, &[("role", "")], |_| format!("role missing (one of: {roles})"))
}

fn check_secret_key(record: &Record) -> Result<(), String> {
    match (record.has("secret_key"), record.has("secret_key_file")) {
        (false, false) => Err("one of secret_key & secret_key_file must be configured".to_owned()),
        (true, true) => Err("at most one of secret_key & secret_key_file must be configured".to_owned()),
        _ => Ok(()),
    }
}

pub(super) fn check_aws_role(text: &str) -> Result<(), String> {
    one_of(text, &["ec2", "ecs", "lightsail", "msk", "rds", "elasticache"], "unknown AWS SD role")
}

pub(super) fn check_aws(aws: &mut Record) -> Result<(), String> {
    check_aws_role(aws.str("role"))?;
    check_http(aws)
}

pub(super) fn check_ec2(ec2: &mut Record) -> Result<(), String> {
    let is_empty = |filter: &Value| matches!(filter, Value::Record(filter) if !filter.has("values"));
    if ec2.list("filters").iter().any(is_empty) {
        return Err("EC2 SD configuration filter values cannot be empty".to_owned());
    }
    check_http(ec2)
}

pub(super) fn check_azure(azure: &mut Record) -> Result<(), String> {
    let text = |what: &str| format!("azure SD configuration requires a {what}");
    require(azure, &[("subscription_id", "subscription_id")], text)?;
    let method = azure.str("authentication_method");
    if method == "OAuth" {
        let needed =
            [("tenant_id", "tenant_id"), ("client_id", "client_id"), ("client_secret", "client_secret")];
        require(azure, &needed, text)?;
    }
    if !matches!(method, "OAuth" | "ManagedIdentity" | "SDK" | "WorkloadIdentity") {
        return Err(format!(
            "unknown authentication_type {}. Supported types are \"OAuth\", \"ManagedIdentity\", \"SDK\" or \"WorkloadIdentity\"",
            Quoted(method)
        ));
    }
    check_http(azure)
}

pub(super) fn check_consul(consul: &mut Record) -> Result<(), String> {
    if consul.str("server").trim().is_empty() {
        return Err("consul SD configuration requires a server address".to_owned());
    }
    let has_user = consul.has("username") || consul.has("password");
    if has_user && consul.record("basic_auth").is_some() {
        return Err(
            "at most one of consul SD configuration username and password and basic auth can be configured"
                .to_owned(),
        );
    }
    let has_other = consul.record("authorization").is_some() || consul.record("oauth2").is_some();
    if consul.has("token") && has_other {
        return Err("at most one of consul SD token, authorization, or oauth2 can be configured".to_owned());
    }
    check_http(consul)
}

pub(super) fn check_dns(dns: &mut Record) -> Result<(), String> {
    if !dns.has("names") {
        return Err("DNS-SD config must contain at least one SRV record name".to_owned());
    }
    match dns.str("type").to_uppercase().as_str() {
        "SRV" => Ok(()),
        "A" | "AAAA" | "MX" | "NS" if dns.int("port") == 0 => {
            Err("a port is required in DNS-SD configs for all record types except SRV".to_owned())
        }
        "A" | "AAAA" | "MX" | "NS" => Ok(()),
        _ => Err(format!("invalid DNS-SD records type {}", dns.str("type"))),
    }
}

pub(super) fn check_docker(docker: &mut Record) -> Result<(), String> {
    require(docker, &[("host", "")], |_| "host missing".to_owned())?;
    parse_url(docker.str("host"))?;
    check_http(docker)
}

pub(super) fn check_dockerswarm(swarm: &mut Record) -> Result<(), String> {
    require(swarm, &[("host", "")], |_| "host missing".to_owned())?;
    parse_url(swarm.str("host"))?;
    match swarm.str("role") {
        "services" | "nodes" | "tasks" => check_http(swarm),
        "" => Err("role missing (one of: tasks, services, nodes)".to_owned()),
        other => Err(format!("invalid role {other}, expected tasks, services, or nodes")),
    }
}

pub(super) fn check_eureka(eureka: &mut Record) -> Result<(), String> {
    require(eureka, &[("server", "")], |_| "eureka_sd: empty or null eureka server".to_owned())?;
    let url = parse_url(eureka.str("server"))?;
    if url.scheme.is_empty() || url.host.is_empty() {
        return Err("eureka_sd: invalid eureka server URL".to_owned());
    }
    check_http(eureka)
}

pub(super) fn check_http_url(record: &Record) -> Result<(), String> {
    require(record, &[("url", "")], |_| "URL is missing".to_owned())?;
    let url = parse_url(record.str("url"))?;
    if !matches!(url.scheme, "http" | "https") {
        return Err("URL scheme must be 'http' or 'https'".to_owned());
    }
    if url.host.is_empty() {
        return Err("host is missing in URL".to_owned());
    }
    Ok(())
}

pub(super) fn check_kubernetes(kubernetes: &mut Record) -> Result<(), String> {
    require_role(kubernetes, "endpointslice, endpoints, node, pod, service, ingress")?;
    let has_own_client = HTTP
        .iter()
        .any(|field| kubernetes.get(field.name) != Record::with_defaults(&PLAIN_HTTP).get(field.name));
    check_http(kubernetes)?;
    let (has_server, has_file) = (kubernetes.has("api_server"), kubernetes.has("kubeconfig_file"));
    let has_own_namespace =
        kubernetes.record("namespaces").is_some_and(|namespaces| namespaces.bool("own_namespace"));
    let fault = if has_server && has_file {
        "cannot use 'kubeconfig_file' and 'api_server' simultaneously"
    } else if has_file && has_own_client {
        "cannot use a custom HTTP client configuration together with 'kubeconfig_file'"
    } else if !has_server && has_own_client {
        "to use custom HTTP client configuration please provide the 'api_server' URL explicitly"
    } else if has_server && has_own_namespace {
        "cannot use 'api_server' and 'namespaces.own_namespace' simultaneously"
    } else if has_file && has_own_namespace {
        "cannot use 'kubeconfig_file' and 'namespaces.own_namespace' simultaneously"
    } else {
        return check_selectors(kubernetes);
    };
    Err(fault.to_owned())
}

fn check_selectors(kubernetes: &Record) -> Result<(), String> {
    let role = kubernetes.str("role");
    let allowed: &[&str] = match role {
        "pod" => &["pod", "node"],
        "endpoints" => &["pod", "service", "endpoints"],
        "endpointslice" => &["pod", "service", "endpointslice"],
        "service" => &["service"],
        "node" => &["node"],
        _ => &["ingress"],
    };
    let has_node = kubernetes.record("attach_metadata").is_some_and(|metadata| metadata.bool("node"));
    let mut seen = HashSet::new();
    for selector in kubernetes.list("selectors") {
        let Value::Record(selector) = selector else { continue };
        let of = selector.str("role");
        if !seen.insert(of) {
            return Err(format!("duplicated selector role: {of}"));
        }
        let is_allowed = allowed.contains(&of) || (has_node && of == "node");
        if !is_allowed {
            return Err(format!("{role} role supports only {} selectors", allowed.join(", ")));
        }
    }
    Ok(())
}

pub(super) fn check_kuma(kuma: &mut Record) -> Result<(), String> {
    let server = kuma.str("server");
    if server.is_empty() {
        return Err(format!("kuma SD server must not be empty: {server}"));
    }
    let url = parse_url(server)?;
    if url.scheme.is_empty() || url.host.is_empty() {
        return Err(format!("kuma SD server must not be empty and have a scheme: {server}"));
    }
    check_http(kuma)
}

pub(super) fn check_marathon(marathon: &mut Record) -> Result<(), String> {
    require(marathon, &[("servers", "")], |_| {
        "marathon_sd: must contain at least one Marathon server".to_owned()
    })?;
    let (has_token, has_file) = (marathon.has("auth_token"), marathon.has("auth_token_file"));
    if has_token && has_file {
        return Err("marathon_sd: at most one of auth_token & auth_token_file must be configured".to_owned());
    }
    if has_token || has_file {
        let others = if marathon.record("basic_auth").is_some() {
            "basic_auth, auth_token & auth_token_file"
        } else if marathon.has("bearer_token") || marathon.has("bearer_token_file") {
            "bearer_token, bearer_token_file, auth_token & auth_token_file"
        } else if marathon.record("authorization").is_some() {
            "auth_token, auth_token_file & authorization"
        } else {
            return check_http(marathon);
        };
        return Err(format!("marathon_sd: at most one of {others} must be configured"));
    }
    check_http(marathon)
}

pub(super) fn check_zookeeper(record: &Record, what: &str) -> Result<(), String> {
    let needed = [("servers", "Zookeeper server"), ("paths", "path")];
    require(record, &needed, |item| format!("{what} SD config must contain at least one {item}"))?;
    match record.strings("paths").iter().find(|path| !path.starts_with('/')) {
        Some(path) => Err(format!("{what} SD config paths must begin with '/': {path}")),
        None => Ok(()),
    }
}

pub(super) fn check_openstack(openstack: &Record) -> Result<(), String> {
    let availability = openstack.str("availability");
    if !matches!(availability, "public" | "internal" | "admin") {
        return Err(format!("unknown availability {availability}, must be one of admin, internal or public"));
    }
    require_role(openstack, "instance, hypervisor, loadbalancer")?;
    require(openstack, &[("region", "")], |_| "openstack SD configuration requires a region".to_owned())
}

pub(super) fn check_outscale(outscale: &mut Record) -> Result<(), String> {
    let needed = [("region", "a region"), ("access_key", "an access_key")];
    require(outscale, &needed, |what| format!("outscale SD configuration requires {what}"))?;
    check_secret_key(outscale)?;
    if !outscale.has("endpoint") {
        let endpoint = format!("https://api.{}.outscale.com/api/v1", outscale.str("region"));
        outscale.set("endpoint", Value::Str(endpoint));
    }
    check_http(outscale)
}

pub(super) fn check_ovhcloud(ovh: &Record) -> Result<(), String> {
    let needed = [
        ("endpoint", "endpoint"),
        ("application_key", "application key"),
        ("application_secret", "application secret"),
        ("consumer_key", "consumer key"),
        ("service", "service"),
    ];
    require(ovh, &needed, |what| format!("{what} can not be empty"))?;
    match ovh.str("service") {
        "vps" | "dedicated_server" => Ok(()),
        other => Err(format!("unknown service: {other}")),
    }
}

pub(super) fn check_puppetdb(puppetdb: &mut Record) -> Result<(), String> {
    check_http_url(puppetdb)?;
    require(puppetdb, &[("query", "")], |_| "query missing".to_owned())?;
    check_http(puppetdb)
}

pub(super) fn check_scaleway(scaleway: &mut Record) -> Result<(), String> {
    require_role(scaleway, "instance, baremetal")?;
    let needed = [("project_id", "project_id"), ("access_key", "access_key")];
    require(scaleway, &needed, |what| format!("{what} is mandatory"))?;
    check_secret_key(scaleway)?;
    check_http(scaleway)
}

pub(super) fn check_stackit(stackit: &mut Record) -> Result<(), String> {
    let endpoint = stackit.str("endpoint");
    if endpoint.is_empty() && !stackit.has("region") {
        return Err("endpoint or region missing".to_owned());
    }
    parse_url(endpoint).map_err(|error| format!("invalid endpoint {}: {error}", Quoted(endpoint)))?;
    check_http(stackit)
}

pub(super) fn check_triton(triton: &Record) -> Result<(), String> {
    let needed = [("account", "an account"), ("dns_suffix", "a dns_suffix"), ("endpoint", "an endpoint")];
    require(triton, &needed, |what| format!("triton SD configuration requires {what}"))?;
    require(triton, &[("refresh_interval", "")], |_| {
        "triton SD configuration requires RefreshInterval to be a positive integer".to_owned()
    })
}

pub(super) fn check_uyuni(uyuni: &mut Record) -> Result<(), String> {
    let needed = [("server", "server host"), ("username", "a username"), ("password", "a password")];
    require(uyuni, &needed, |what| format!("Uyuni SD configuration requires {what}"))?;
    parse_url(uyuni.str("server"))?;
    check_http(uyuni)
}

/// `dir/tg_*.json`: a path with at most one wildcard, in its last element, and a known ending.
pub(super) fn is_file_pattern(name: &str) -> bool {
    let stem = ["json", "yml", "yaml", "JSON", "YML", "YAML"]
        .iter()
        .find_map(|ending| name.strip_suffix(ending)?.strip_suffix('.'));
    stem.is_some_and(|stem| stem.split_once('*').is_none_or(|(_, after)| !after.contains(['*', '/'])))
}
