//! `dns_sd_configs`: targets out of DNS records.
//!
//! A name is looked up as `resolv.conf` says, which is read anew each time: the variants of the name that its search
//! list makes are asked for one after the other, each at one name server after the other.
//!
//! Invariants: a name that cannot be looked up keeps the targets it last had; one that does not exist has none.

use std::collections::BTreeMap;
use std::convert::Infallible;

use futures::future::join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use model::Labels;
use model::number::Quoted;
use tracing::{error, warn};

use super::{Feed, Unwanted, join_host_port, refreshes};
use crate::metrics::Metrics;
use crate::prometheus_config::{DnsProvider, DnsRecord};
use crate::target_group::{ADDRESS, TargetGroup};

const RESOLV_CONF: &str = "/etc/resolv.conf";

const NAME: &str = "__meta_dns_name";
const SRV_TARGET: &str = "__meta_dns_srv_record_target";
const SRV_PORT: &str = "__meta_dns_srv_record_port";
const MX_TARGET: &str = "__meta_dns_mx_record_target";
const NS_TARGET: &str = "__meta_dns_ns_record_target";

/// Looks the names up at the interval of the provider, for good.
pub(super) async fn follow(
    provider: &DnsProvider,
    mut feed: Feed,
    metrics: &Metrics,
) -> Result<Infallible, Unwanted> {
    let mut refreshes = refreshes(provider.refresh_interval);
    let mut groups = BTreeMap::new();
    loop {
        refreshes.tick().await;
        let system = NameServers::of_system().await;
        refresh(provider, &system, &mut groups, metrics).await;
        if groups.is_empty() {
            feed.skip().await?;
        } else {
            feed.offer(groups.values().cloned().collect()).await?;
        }
    }
}

/// Looks all names up and replaces the groups of those that were answered for.
async fn refresh(
    provider: &DnsProvider,
    servers: &Result<NameServers, String>,
    groups: &mut BTreeMap<String, TargetGroup>,
    metrics: &Metrics,
) {
    let look_up = |name: String| async {
        let records = match servers {
            Ok(servers) => servers.look_up(&name, record_type(provider.record)).await,
            Err(error) => Err(error.clone()),
        };
        (name, records)
    };
    for (name, records) in join_all(provider.names.iter().cloned().map(look_up)).await {
        metrics.dns_lookups.inc();
        match records {
            Ok(records) => {
                let group = group(&name, provider.port, &records);
                groups.insert(name, group);
            }
            Err(error) => {
                error!(error, name, "error refreshing DNS targets");
                metrics.dns_lookup_failures.inc();
            }
        }
    }
}

const fn record_type(record: DnsRecord) -> RecordType {
    match record {
        DnsRecord::Srv => RecordType::SRV,
        DnsRecord::A => RecordType::A,
        DnsRecord::Aaaa => RecordType::AAAA,
        DnsRecord::Mx => RecordType::MX,
        DnsRecord::Ns => RecordType::NS,
    }
}

/// The targets of a name, with the labels that Prometheus gives them.
fn group(name: &str, port: i64, records: &[Record]) -> TargetGroup {
    let targets = records.iter().filter_map(|record| {
        let (address, extra) = match &record.data {
            RData::SRV(srv) => {
                let port = srv.port.to_string();
                (
                    join_host_port(&host(&srv.target), &port),
                    vec![(SRV_TARGET, srv.target.to_string()), (SRV_PORT, port)],
                )
            }
            RData::MX(mx) => (
                join_host_port(&host(&mx.exchange), &port.to_string()),
                vec![(MX_TARGET, mx.exchange.to_string())],
            ),
            RData::NS(ns) => {
                (join_host_port(&host(&ns.0), &port.to_string()), vec![(NS_TARGET, ns.0.to_string())])
            }
            RData::A(a) => (join_host_port(&a.0.to_string(), &port.to_string()), Vec::new()),
            RData::AAAA(aaaa) => (join_host_port(&aaaa.0.to_string(), &port.to_string()), Vec::new()),
            // A step on the way to the records asked for.
            RData::CNAME(_) => return None,
            other => {
                warn!(name, record = %other, "invalid record");
                return None;
            }
        };
        let common = [(ADDRESS, address), (NAME, name.to_owned())];
        Some(Labels::from_pairs(common.into_iter().chain(extra)))
    });
    TargetGroup { source: name.to_owned(), targets: targets.collect(), labels: Labels::empty() }
}

/// A name without its final dot.
fn host(name: &Name) -> String {
    name.to_string().trim_end_matches('.').to_owned()
}

/// Whom to ask, and for which variants of a name.
struct NameServers {
    /// One for each server: a resolver of several servers takes the first one's failure for an answer.
    resolvers: Vec<TokioResolver>,
    search: Vec<Name>,
    ndots: usize,
}

/// What a name server knows of a name.
enum Reply {
    /// It exists; it may have no such records.
    Records(Vec<Record>),
    /// It does not exist.
    Absent,
}

impl NameServers {
    async fn of_system() -> Result<Self, String> {
        let fail = |error: String| format!("could not load resolv.conf: {error}");
        let text = tokio::fs::read(RESOLV_CONF).await;
        let text = text.map_err(|error| fail(format!("open {RESOLV_CONF}: {error}")))?;
        let (config, options) = parse_resolv_conf(text).map_err(|error| fail(error.to_string()))?;
        Self::new(config, options)
    }

    fn new(config: ResolverConfig, mut options: ResolverOpts) -> Result<Self, String> {
        let (_, search, servers) = config.into_parts();
        let ndots = options.ndots;
        // Each look-up is to see what is true now.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        let resolver = |server| {
            let config = ResolverConfig::from_name_servers(vec![server]);
            let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            builder.with_options(options.clone()).build().map_err(|error| error.to_string())
        };
        Ok(Self { resolvers: servers.into_iter().map(resolver).collect::<Result<_, _>>()?, search, ndots })
    }

    /// The records of the first variant of a name that exists; none when no variant does.
    async fn look_up(&self, name: &str, kind: RecordType) -> Result<Vec<Record>, String> {
        let mut is_known_absent = true;
        for variant in self.variants(name)? {
            match self.look_up_variant(variant, kind).await {
                Some(Reply::Records(records)) => return Ok(records),
                Some(Reply::Absent) => {}
                None => is_known_absent = false,
            }
        }
        if is_known_absent {
            return Ok(Vec::new());
        }
        Err(format!(
            "could not resolve {}: all servers responded with errors to at least one search domain",
            Quoted(name)
        ))
    }

    /// The reply of the first server that has one.
    async fn look_up_variant(&self, variant: Name, kind: RecordType) -> Option<Reply> {
        for resolver in &self.resolvers {
            let error = match resolver.lookup(variant.clone(), kind).await {
                Ok(found) => return Some(Reply::Records(found.answers().to_vec())),
                Err(error) => error,
            };
            if let NetError::Dns(DnsError::NoRecordsFound(none)) = &error {
                match none.response_code {
                    ResponseCode::NoError => return Some(Reply::Records(Vec::new())),
                    ResponseCode::NXDomain => return Some(Reply::Absent),
                    _ => {}
                }
            }
            warn!(%error, name = %variant, "DNS resolution failed");
        }
        None
    }

    /// The full names that a name may stand for, the likeliest first.
    fn variants(&self, name: &str) -> Result<Vec<Name>, String> {
        let bad = |error: &dyn std::fmt::Display| format!("could not resolve {}: {error}", Quoted(name));
        let mut full = Name::from_utf8(name).map_err(|error| bad(&error))?;
        if full.is_fqdn() {
            return Ok(vec![full]);
        }
        let is_long = usize::from(full.num_labels()) > self.ndots;
        let mut variants = Vec::new();
        for domain in &self.search {
            variants.push(full.clone().append_domain(domain).map_err(|error| bad(&error))?);
        }
        full.set_fqdn(true);
        variants.insert(if is_long { 0 } else { variants.len() }, full);
        Ok(variants)
    }
}

#[cfg(test)]
mod tests;
