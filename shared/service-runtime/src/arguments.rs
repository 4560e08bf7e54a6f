//! The arguments that every service's own program takes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches};
use coordination::{Endpoint, EtcdOptions, Role};

use crate::WebUrl;

/// The longest prefix of keys in etcd, in bytes.
const ETCD_PREFIX_BYTES_MAX: usize = 256;

/// The flags of a program that runs one service. Flags that mean what one of Prometheus's means have its name.
#[derive(Debug, Clone, clap::Parser)]
#[command(version)]
pub struct Arguments {
    /// The service's own file (YAML); all defaults without it.
    #[arg(long = "service.config", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where HTTP and gRPC are answered [default: 127.0.0.1 and the role's port].
    #[arg(long = "web.listen-address", value_name = "HOST:PORT")]
    pub web_address: Option<SocketAddr>,
    /// TLS and authentication of a gateway's web listener; the file is Prometheus's.
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub web_config: Option<PathBuf>,
    /// The URL under which a gateway is reached from outside.
    #[arg(long = "web.external-url", value_name = "URL")]
    pub external_url: Option<String>,
    /// What the paths of a gateway's HTTP routes begin with [default: the path of --web.external-url].
    #[arg(long = "web.route-prefix", value_name = "PATH")]
    pub route_prefix: Option<String>,
    /// Where gRPC is answered, if not on the same port as HTTP.
    #[arg(long = "grpc.listen-address", value_name = "HOST:PORT")]
    pub grpc_address: Option<SocketAddr>,
    /// Where an ingester takes OTLP over gRPC [default: 127.0.0.1:4317].
    #[arg(long = "otlp.grpc-address", value_name = "HOST:PORT")]
    pub otlp_grpc_address: Option<SocketAddr>,
    /// Where a gateway takes OTLP over HTTP, at /v1/metrics, beside its web listener's /api/v1/otlp/v1/metrics.
    #[arg(long = "otlp.http-address", value_name = "HOST:PORT")]
    pub otlp_http_address: Option<SocketAddr>,
    /// The address others reach this member at [default: the listener's].
    #[arg(long = "cluster.advertise-address", value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// The name of this member, the same after a restart [default: the address others reach it at].
    #[arg(long = "cluster.member-name", value_name = "NAME")]
    pub member_name: Option<String>,
    /// A member of another role, as ROLE=HOST:PORT; may be repeated. Beside etcd: until etcd has answered once.
    #[arg(long = "cluster.peer", value_name = "ROLE=HOST:PORT")]
    pub peers: Vec<String>,
    /// The etcd that coordinates the members, as http://HOST:PORT, separated by commas.
    #[arg(long = "etcd.endpoints", value_name = "URL", value_delimiter = ',')]
    pub etcd_endpoints: Vec<String>,
    /// What comes before every key in etcd; a cluster has one of its own.
    #[arg(long = "etcd.prefix", default_value = EtcdOptions::PREFIX)]
    pub etcd_prefix: String,
    /// Where the table lies: file:///folder or s3://bucket/prefix, the latter with the usual AWS_... variables. Of
    /// effect for ingester and querier; the other roles store nothing.
    #[arg(long = "storage.url", value_name = "URL")]
    pub storage_url: Option<String>,
    /// What is logged: debug, info, warn, error, or a list like info,ingester=debug.
    #[arg(long = "log.level", default_value = "info")]
    pub log_level: String,
    /// How log lines look: logfmt or json.
    #[arg(long = "log.format", default_value = "logfmt")]
    pub log_format: String,
    /// Where this program's own traces go (OTLP gRPC, as http://host:port); none without it.
    #[arg(long = "trace.endpoint", value_name = "URL")]
    pub trace_endpoint: Option<String>,
    /// The share of traces that are sent, 0 to 1.
    #[arg(long = "trace.ratio", default_value_t = 1.0)]
    pub trace_ratio: f64,
    /// How many seconds a stop in order may take.
    #[arg(long = "shutdown.grace-seconds", default_value_t = 30)]
    pub grace_seconds: u64,
}

/// Reads flags, and shows what every flag of the program is, defaults included, by its name without dashes.
///
/// # Errors
/// When they are wrong, or ask for help or the version.
pub fn parse_flags<F: CommandFactory + FromArgMatches>(
    name: &'static str,
    arguments: &[OsString],
) -> clap::error::Result<(F, BTreeMap<String, String>)> {
    let command = F::command().name(name);
    let matches = command.clone().try_get_matches_from(arguments)?;
    let flags = F::from_arg_matches(&matches)?;
    let shown = command.get_arguments().filter_map(|argument| {
        let values = matches.get_raw(argument.get_id().as_str()).into_iter().flatten();
        let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
        Some((argument.get_long()?.to_owned(), values.join(",")))
    });
    let shown = shown.collect();
    Ok((flags, shown))
}

/// Where a role is reached when nothing else is said: loopback, 9601 to 9604, and 9090 for the gateway.
#[must_use]
pub fn default_address(role: Role) -> SocketAddr {
    let port = match role {
        Role::Discovery => 9601,
        Role::Scraper => 9602,
        Role::Ingester => 9603,
        Role::Querier => 9604,
        Role::Gateway => 9090,
    };
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

impl Arguments {
    /// What is wrong when a role that takes no OTLP over gRPC is to listen for it.
    #[must_use]
    pub fn refuse_otlp_grpc(&self) -> Option<String> {
        self.otlp_grpc_address
            .map(|_| "--otlp.grpc-address: only an ingester takes OTLP over gRPC".to_owned())
    }

    /// What is wrong when a role that takes no OTLP over HTTP is to listen for it.
    #[must_use]
    pub fn refuse_otlp_http(&self) -> Option<String> {
        self.otlp_http_address.map(|_| "--otlp.http-address: only a gateway takes OTLP over HTTP".to_owned())
    }

    /// What is wrong when a role that faces nobody but members is told how it faces users.
    #[must_use]
    pub fn refuse_web(&self) -> Vec<String> {
        let told = [
            (self.web_config.is_some(), "--web.config.file", "TLS and authentication"),
            (self.external_url.is_some(), "--web.external-url", "a URL from outside"),
            (self.route_prefix.is_some(), "--web.route-prefix", "a prefix"),
        ];
        let told = told.into_iter().filter(|(is_told, ..)| *is_told);
        told.map(|(_, flag, what)| format!("{flag}: only a gateway's web listener has {what}")).collect()
    }

    /// Where a role answers HTTP.
    #[must_use]
    pub fn web_address(&self, role: Role) -> SocketAddr {
        self.web_address.unwrap_or_else(|| default_address(role))
    }

    /// Where users reach the role.
    ///
    /// # Errors
    /// As [`WebUrl::new`].
    pub fn web_url(&self, role: Role) -> Result<WebUrl, String> {
        let port = self.web_address(role).port();
        WebUrl::new(self.external_url.as_deref(), self.route_prefix.as_deref(), port)
    }

    /// How long a stop in order may take.
    #[must_use]
    pub const fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_seconds)
    }

    /// The members given by hand.
    ///
    /// # Errors
    /// All that are not of the form `role=host:port`.
    pub fn static_members(&self) -> Result<Vec<(Role, String)>, Vec<String>> {
        let (mut members, mut faults) = (Vec::new(), Vec::new());
        for peer in &self.peers {
            match parse_peer(peer) {
                Ok(member) => members.push(member),
                Err(cause) => faults.push(format!("--cluster.peer {peer:?}: {cause}")),
            }
        }
        if faults.is_empty() { Ok(members) } else { Err(faults) }
    }

    /// The etcd that was named; none without `--etcd.endpoints`.
    ///
    /// # Errors
    /// All endpoints that are none, and a prefix that is none.
    pub fn etcd(&self) -> Result<Option<EtcdOptions>, Vec<String>> {
        let (mut endpoints, mut faults) = (Vec::new(), Vec::new());
        for text in &self.etcd_endpoints {
            match text.parse::<Endpoint>() {
                Ok(endpoint) => endpoints.push(endpoint),
                Err(cause) => faults.push(format!("--etcd.endpoints {text:?}: {cause}")),
            }
        }
        let prefix = self.etcd_prefix.clone();
        // With its last character it ends at a name, so that no other prefix begins with it.
        if !prefix.starts_with('/') || !prefix.ends_with('/') || prefix.len() > ETCD_PREFIX_BYTES_MAX {
            let limit = ETCD_PREFIX_BYTES_MAX;
            faults.push(format!("--etcd.prefix {prefix:?}: want /NAME/ of at most {limit} bytes"));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok((!endpoints.is_empty()).then(|| EtcdOptions { prefix, ..EtcdOptions::new(endpoints) }))
    }

    /// What is logged and traced.
    ///
    /// # Errors
    /// All flags that are wrong.
    pub fn telemetry(&self, name: &str) -> Result<telemetry::Options, Vec<String>> {
        let mut faults = Vec::new();
        let mut fault = |flag: &str, error: telemetry::Error| faults.push(format!("{flag}: {error}"));
        let level = self.log_level.parse().map_err(|error| fault("--log.level", error)).unwrap_or_default();
        let format =
            self.log_format.parse().map_err(|error| fault("--log.format", error)).unwrap_or_default();
        if !(0.0..=1.0).contains(&self.trace_ratio) {
            fault("--trace.ratio", telemetry::Error::Ratio { ratio: self.trace_ratio });
        }
        let traces = self.trace_endpoint.clone();
        let traces = traces.map(|endpoint| telemetry::Traces { endpoint, ratio: self.trace_ratio });
        let version = crate::BUILD.version.to_owned();
        let clock = model::Clock::System;
        if faults.is_empty() {
            Ok(telemetry::Options { name: name.to_owned(), version, level, format, traces, clock })
        } else {
            Err(faults)
        }
    }
}

fn parse_peer(peer: &str) -> Result<(Role, String), String> {
    let (role, address) = peer.split_once('=').ok_or("want ROLE=HOST:PORT")?;
    let (host, port) = address.rsplit_once(':').ok_or("want HOST:PORT after the role")?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err("want HOST:PORT after the role".to_owned());
    }
    Ok((role.parse()?, address.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn flags_are_checked_all_at_once() {
        let good = Arguments::try_parse_from([
            "x",
            "--cluster.peer=ingester=h:1",
            "--cluster.peer=querier=[::1]:2",
            "--log.level=debug",
        ]);
        let good = good.expect("parsed");
        let members = vec![(Role::Ingester, "h:1".to_owned()), (Role::Querier, "[::1]:2".to_owned())];
        assert_eq!(good.static_members(), Ok(members));
        assert!(good.telemetry("x").is_ok());
        assert!(good.etcd().expect("no fault").is_none());

        let bad = Arguments::try_parse_from([
            "x",
            "--cluster.peer=h:1",
            "--cluster.peer=ruler=h:1",
            "--cluster.peer=querier=h",
            "--log.level=loud",
            "--log.format=xml",
            "--trace.ratio=2",
            "--etcd.endpoints=https://h:1,h",
            "--etcd.prefix=metrics",
        ]);
        let bad = bad.expect("parsed");
        assert_eq!(bad.static_members().expect_err("bad").len(), 3);
        assert_eq!(bad.telemetry("x").expect_err("bad").len(), 3);
        let faults = [
            "--etcd.endpoints \"https://h:1\": TLS to etcd is not built yet: want http://HOST:PORT",
            "--etcd.endpoints \"h\": want http://HOST:PORT",
            "--etcd.prefix \"metrics\": want /NAME/ of at most 256 bytes",
        ];
        assert_eq!(bad.etcd().expect_err("bad"), faults);
    }

    #[test]
    fn several_members_of_etcd_are_one_flag_or_many() {
        for flags in [
            &["x", "--etcd.endpoints=http://a:1,b:2", "--etcd.prefix=/team/metrics/"][..],
            &["x", "--etcd.endpoints=a:1", "--etcd.endpoints=http://b:2", "--etcd.prefix=/team/metrics/"],
        ] {
            let etcd = Arguments::try_parse_from(flags).expect("parsed").etcd();
            let etcd = etcd.expect("no fault").expect("named");
            let addresses: Vec<&str> = etcd.endpoints.iter().map(Endpoint::address).collect();
            assert_eq!((addresses, etcd.prefix.as_str()), (vec!["a:1", "b:2"], "/team/metrics/"));
        }
    }
}
