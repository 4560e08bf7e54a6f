//! `/api/v1/targets`, `/api/v1/metadata` and what else is known of targets.

use std::collections::{BTreeMap, BTreeSet};
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
    let state = form.params.get("state");
    let mut targets = Targets::default();
    if !state.eq_ignore_ascii_case("dropped") {
        for state in target_states(gateway, pool).await? {
            targets.active_targets.push(active(state)?);
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
    if !state.eq_ignore_ascii_case("active") {
        for t in response.targets {
            let discovered_labels = LabelSet(labels(t.discovered_labels.as_ref())?);
            targets.dropped_targets.push(DroppedTarget { discovered_labels, scrape_pool: t.scrape_pool });
        }
    }
    Ok(targets)
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

fn active(t: scraper::TargetState) -> Result<ActiveTarget, ApiError> {
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
        global_url: t.scrape_url.clone(),
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
#[derive(Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
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
    let limit = form.params.limit("limit")?;
    let per_metric = form.params.limit("limit_per_metric")?;
    let entries = metadata_entries(gateway, form.params.get("metric"), Vec::new()).await?;
    let mut all: BTreeMap<String, BTreeSet<Entry>> = BTreeMap::new();
    for e in entries {
        all.entry(e.metric).or_default().insert(entry(e.metadata));
    }
    let lists = all.into_iter().take(rpc::convert::limit(limit));
    Ok(lists
        .map(|(name, set)| (name, set.into_iter().take(rpc::convert::limit(per_metric)).collect()))
        .collect())
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
    let limit = form.params.limit("limit")?;
    let matchers = match form.params.get("match_target") {
        "" => Vec::new(),
        text => promql_syntax::parse_selector(text).map_err(|e| ApiError::parameter("match_target", e))?,
    };
    let metric = form.params.get("metric");
    let entries = metadata_entries(gateway, metric, rpc::convert::matchers_to_pb(&matchers)).await?;
    let shown = entries.into_iter().take(rpc::convert::limit(limit)).map(|e| {
        Ok(TargetEntry {
            target: LabelSet(labels(e.target.as_ref())?),
            metric: if metric.is_empty() { e.metric } else { String::new() },
            entry: entry(e.metadata),
        })
    });
    shown.collect()
}
