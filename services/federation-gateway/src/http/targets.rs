//! `/api/v1/targets`, `/api/v1/metadata` and what else is known of targets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http_api::ApiError;
use model::time::PrometheusDuration;
use model::{Labels, MetricType, Timestamp};
use rpc::pb::{discovery, scraper};
use serde::Serialize;

use super::series::LabelSet;
use super::{Form, fail, from_status, succeed};
use crate::config::Config;
use crate::gateway::Gateway;
use crate::peers::LOOKUP_DEADLINE;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ActiveTarget {
    discovered_labels: LabelSet,
    labels: LabelSet,
    scrape_pool: String,
    scrape_url: String,
    global_url: String,
    last_error: String,
    last_scrape: String,
    last_scrape_duration: f64,
    health: &'static str,
    scrape_interval: String,
    scrape_timeout: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DroppedTarget {
    discovered_labels: LabelSet,
    scrape_pool: String,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Targets {
    active_targets: Vec<ActiveTarget>,
    dropped_targets: Vec<DroppedTarget>,
    dropped_target_counts: BTreeMap<String, u64>,
}

/// `GET /api/v1/targets`.
pub(super) async fn targets(State(gateway): State<Arc<Gateway>>, form: Form) -> Response {
    list(&gateway, &form).await.map_or_else(fail, |targets| succeed(&targets, &[]))
}

async fn list(gateway: &Gateway, form: &Form) -> Result<Targets, ApiError> {
    let pool = form.params.get("scrapePool");
    let state = form.params.get("state").to_lowercase();
    let is_wanted = |of: &str| ["", "any", of].contains(&state.as_str());
    let mut targets = Targets::default();
    if is_wanted("active") {
        let url = GlobalUrl::new(&gateway.config);
        for state in target_states(gateway, pool).await? {
            targets.active_targets.push(active(state, &url)?);
        }
        targets.active_targets.sort_by(|a, b| {
            (&a.scrape_pool, &a.labels.0, &a.scrape_url).cmp(&(&b.scrape_pool, &b.labels.0, &b.scrape_url))
        });
    }
    let mut client = gateway.peers.discovery();
    let request = discovery::DroppedTargetsRequest { scrape_pool: pool.to_owned() };
    let response = client.dropped_targets(rpc::with_deadline(request, LOOKUP_DEADLINE)).await;
    let response = response.map_err(|s| from_status(&s))?.into_inner();
    targets.dropped_target_counts = response.counts.into_iter().collect();
    if is_wanted("dropped") {
        for t in response.targets {
            let discovered_labels = LabelSet(labels(t.discovered_labels.as_ref())?);
            targets.dropped_targets.push(DroppedTarget { discovered_labels, scrape_pool: t.scrape_pool });
        }
    }
    Ok(targets)
}

/// Where a target of this machine is reached from outside.
#[derive(Debug)]
struct GlobalUrl<'a> {
    scheme: &'a str,
    /// With its port, where it has one.
    host: &'a str,
    own_port: u16,
}

impl<'a> GlobalUrl<'a> {
    fn new(config: &'a Config) -> Self {
        let (scheme, rest) = config.url.external.split_once("://").unwrap_or_default();
        Self { scheme, host: rest.split('/').next().unwrap_or_default(), own_port: config.web_port }
    }

    /// As Prometheus has it: this very server has its own URL, what else is at a loopback address the URL's host.
    fn of(&self, url: &str) -> String {
        let parts = || {
            let (scheme, rest) = url.split_once("://")?;
            let (address, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let (host, port) = address.rsplit_once(':')?;
            ["127.0.0.1", "localhost", "[::1]"].contains(&host).then_some((scheme, port, path))
        };
        let name = self.host.rsplit_once(':').map_or(self.host, |(name, _)| name);
        match parts() {
            None => url.to_owned(),
            Some((_, port, path)) if port.parse() == Ok(self.own_port) => {
                format!("{}://{}{path}", self.scheme, self.host)
            }
            Some((scheme, port, path)) => format!("{scheme}://{name}:{port}{path}"),
        }
    }
}

async fn target_states(gateway: &Gateway, pool: &str) -> Result<Vec<scraper::TargetState>, ApiError> {
    let mut all = Vec::new();
    for mut client in gateway.peers.scrapers().map_err(|s| from_status(&s))? {
        let request = scraper::TargetsRequest { scrape_pool: pool.to_owned() };
        let response = client.targets(rpc::with_deadline(request, LOOKUP_DEADLINE)).await;
        all.extend(response.map_err(|s| from_status(&s))?.into_inner().targets);
    }
    Ok(all)
}

fn labels(message: Option<&rpc::pb::model::Labels>) -> Result<Labels, ApiError> {
    rpc::convert::labels(message).map_err(|e| ApiError::new(http_api::ErrorType::Internal, e.to_string()))
}

fn active(t: scraper::TargetState, url: &GlobalUrl<'_>) -> Result<ActiveTarget, ApiError> {
    use scraper::target_state::Health;
    let duration = |ms| PrometheusDuration(Duration::from_millis(ms)).to_string();
    Ok(ActiveTarget {
        health: match t.health() {
            Health::Unspecified => "unknown",
            Health::Up => "up",
            Health::Down => "down",
        },
        discovered_labels: LabelSet(labels(t.discovered_labels.as_ref())?),
        labels: LabelSet(labels(t.labels.as_ref())?),
        scrape_interval: duration(t.scrape_interval_ms),
        scrape_timeout: duration(t.scrape_timeout_ms),
        last_scrape: rfc3339(Timestamp(t.last_scrape)),
        global_url: url.of(&t.scrape_url),
        scrape_pool: t.scrape_pool,
        scrape_url: t.scrape_url,
        last_error: t.last_error,
        last_scrape_duration: t.last_scrape_duration_seconds,
    })
}

/// A time as Go prints it in JSON; the zero time stands for "never".
pub(super) fn rfc3339(t: Timestamp) -> String {
    match jiff::Timestamp::from_millisecond(t.millis()) {
        Ok(time) if t.millis() != 0 => time.to_string(),
        _ => "0001-01-01T00:00:00Z".to_owned(),
    }
}

/// One metric's metadata as the API shows it.
#[derive(Debug, Clone, Serialize, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    r#type: &'static str,
    help: String,
    unit: String,
}

fn entry(metadata: Option<rpc::pb::model::Metadata>) -> Entry {
    let metadata = metadata.unwrap_or_default();
    let kind = MetricType::from(metadata.r#type()).as_str();
    Entry { r#type: kind, help: metadata.help, unit: metadata.unit }
}

/// `GET /api/v1/metadata`.
pub(super) async fn metadata(State(gateway): State<Arc<Gateway>>, form: Form) -> Response {
    by_metric(&gateway, &form).await.map_or_else(fail, |all| succeed(&all, &[]))
}

async fn by_metric(gateway: &Gateway, form: &Form) -> Result<BTreeMap<String, Vec<Entry>>, ApiError> {
    let limit = form.params.count("limit")?.unwrap_or(usize::MAX);
    let per_metric = form.params.count("limit_per_metric")?.filter(|n| *n > 0).unwrap_or(usize::MAX);
    let entries = metadata_entries(gateway, form.params.get("metric"), Vec::new()).await?;
    let mut all: BTreeMap<String, BTreeSet<Entry>> = BTreeMap::new();
    for e in entries {
        all.entry(e.metric).or_default().insert(entry(e.metadata));
    }
    let lists = all.into_iter().take(limit);
    Ok(lists.map(|(name, set)| (name, set.into_iter().take(per_metric).collect())).collect())
}

/// What one target says of each metric.
pub(super) async fn first_entries(gateway: &Gateway) -> Result<HashMap<String, Entry>, ApiError> {
    let entries = metadata_entries(gateway, "", Vec::new()).await?;
    Ok(entries.into_iter().map(|e| (e.metric, entry(e.metadata))).collect())
}

async fn metadata_entries(
    gateway: &Gateway,
    metric: &str,
    match_target: Vec<rpc::pb::model::Matcher>,
) -> Result<Vec<scraper::TargetMetadata>, ApiError> {
    let mut all = Vec::new();
    for mut client in gateway.peers.scrapers().map_err(|s| from_status(&s))? {
        let request = scraper::MetadataRequest {
            metric: metric.to_owned(),
            match_target: match_target.clone(),
            limit: 0,
        };
        let response = client.metadata(rpc::with_deadline(request, LOOKUP_DEADLINE)).await;
        all.extend(response.map_err(|s| from_status(&s))?.into_inner().entries);
    }
    Ok(all)
}

#[derive(Debug, Serialize)]
struct TargetEntry {
    target: LabelSet,
    #[serde(skip_serializing_if = "String::is_empty")]
    metric: String,
    #[serde(flatten)]
    entry: Entry,
}

/// `GET /api/v1/targets/metadata`.
pub(super) async fn target_metadata(State(gateway): State<Arc<Gateway>>, form: Form) -> Response {
    by_target(&gateway, &form).await.map_or_else(fail, |all| succeed(&all, &[]))
}

async fn by_target(gateway: &Gateway, form: &Form) -> Result<Vec<TargetEntry>, ApiError> {
    let limit = form.params.count("limit")?.unwrap_or(usize::MAX);
    let matchers = match form.params.get("match_target") {
        "" => Vec::new(),
        text => promql_syntax::parse_selector(text).map_err(|e| ApiError::parameter("match_target", e))?,
    };
    let metric = form.params.get("metric");
    let entries = metadata_entries(gateway, metric, rpc::convert::matchers_to_pb(&matchers)).await?;
    let shown = entries.into_iter().take(limit).map(|e| {
        Ok(TargetEntry {
            target: LabelSet(labels(e.target.as_ref())?),
            metric: if metric.is_empty() { e.metric } else { String::new() },
            entry: entry(e.metadata),
        })
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_of_this_machine_are_reached_by_its_name() {
        let url = GlobalUrl { scheme: "https", host: "m.example:9443", own_port: 9090 };
        for (of, expected) in [
            ("http://127.0.0.1:9090/metrics", "https://m.example:9443/metrics"),
            ("http://localhost:9100/metrics?a=b", "http://m.example:9100/metrics?a=b"),
            ("http://[::1]:9100/", "http://m.example:9100/"),
            ("http://other:9090/metrics", "http://other:9090/metrics"),
            ("http://localhost/metrics", "http://localhost/metrics"),
        ] {
            assert_eq!(url.of(of), expected);
        }
    }
}
