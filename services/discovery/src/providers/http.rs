//! `http_sd_configs`: target groups out of JSON that a server hands out.
//!
//! Invariants:
//! - an answer that is not a whole list of groups changes nothing: the groups of the last good one stay;
//! - a body has at most [`BODY_BYTES_MAX`] bytes and lists at most [`TARGETS_MAX`] targets.

use std::convert::Infallible;
use std::time::Duration;

use ::http::header::{ACCEPT, CONTENT_TYPE};
use ::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use http_client::{Client, status_text};
use model::number::{Quoted, format_fixed};
use service_runtime::BoxError;
use tracing::warn;

use super::{Context, Feed, TARGETS_MAX, Unwanted, client, refreshes};
use crate::metrics::RefreshLabels;
use crate::prometheus_config::{FILE_BYTES_MAX, HttpProvider};
use crate::target_group::{TargetGroup, json_groups};

/// The label that names the URL a target comes from.
const URL: &str = "__meta_url";
/// The largest answer, as for target files.
const BODY_BYTES_MAX: usize = FILE_BYTES_MAX as usize;
const REFRESH_HEADER: HeaderName = HeaderName::from_static("x-prometheus-refresh-interval-seconds");

/// Asks at the interval of the provider, for good.
///
/// # Errors
/// When the provider's client cannot be set up.
pub(super) async fn follow(
    provider: &HttpProvider,
    mut feed: Feed,
    context: &Context,
) -> Result<Result<Infallible, Unwanted>, BoxError> {
    let metrics = &context.metrics;
    let client = Client::new(client::settings(&provider.http)?, context.roots.clone());
    let mut refreshes = refreshes(provider.refresh_interval);
    loop {
        refreshes.tick().await;
        let offered = match refresh(provider, &client).await {
            Ok(groups) => feed.offer(groups).await,
            Err(error) => {
                warn!(error, url = provider.url, "unable to refresh target groups");
                metrics.http_failures.inc();
                metrics.refresh_failures.get_or_create(&RefreshLabels { mechanism: "http" }).inc();
                feed.skip().await
            }
        };
        if let Err(unwanted) = offered {
            return Ok(Err(unwanted));
        }
    }
}

/// Asks once. The interval is the deadline, too, as in Prometheus.
async fn refresh(provider: &HttpProvider, client: &Client) -> Result<Vec<TargetGroup>, String> {
    let asked = tokio::time::timeout(provider.refresh_interval, ask(provider, client));
    let body =
        asked.await.map_err(|_| format!("Get {}: context deadline exceeded", Quoted(&provider.url)))??;
    groups(&provider.url, &body)
}

async fn ask(provider: &HttpProvider, client: &Client) -> Result<Vec<u8>, String> {
    let headers = HeaderMap::from_iter([
        (ACCEPT, HeaderValue::from_static("application/json")),
        (REFRESH_HEADER, interval_header(provider.refresh_interval)),
    ]);
    let response = client.get(&provider.url, &headers).await;
    let response = response.map_err(|error| format!("Get {}: {error}", Quoted(&provider.url)))?;
    if response.status() != StatusCode::OK {
        return Err(format!("server returned HTTP status {}", status_text(&response)));
    }
    let kind = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let kind = String::from_utf8_lossy(kind);
    if !is_json(kind.trim()) {
        return Err(format!("unsupported content type {}", Quoted(&kind)));
    }
    let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
    let body = body.map_err(|error| match error.downcast::<LengthLimitError>() {
        Ok(_) => format!("body exceeds {BODY_BYTES_MAX} bytes"),
        Err(error) => format!("read body: {error}"),
    })?;
    Ok(body.to_bytes().into())
}

fn interval_header(interval: Duration) -> HeaderValue {
    HeaderValue::try_from(format_fixed(interval.as_secs_f64())).expect("digits and a point")
}

/// Says whether a content type is `application/json`, with or without the charset it has anyway.
fn is_json(content_type: &str) -> bool {
    let lower = content_type.to_ascii_lowercase();
    let Some(parameters) = lower.strip_prefix("application/json") else { return false };
    match parameters.strip_prefix(';').map(str::trim_start) {
        None => parameters.is_empty(),
        Some(parameter) => matches!(parameter, "charset=utf-8" | "charset=\"utf-8\""),
    }
}

fn groups(url: &str, body: &[u8]) -> Result<Vec<TargetGroup>, String> {
    let groups = json_groups(body)?;
    let count: usize = groups.iter().flatten().map(|group| group.targets.len()).sum();
    if count > TARGETS_MAX {
        return Err(format!("{url} lists {count} targets: at most {TARGETS_MAX} are allowed"));
    }
    let located = |(index, group): (usize, Option<TargetGroup>)| {
        let group = group.ok_or("nil target group item found")?;
        Ok(TargetGroup { source: format!("{url}:{index}"), labels: group.labels.with(URL, url), ..group })
    };
    groups.into_iter().enumerate().map(located).collect()
}

#[cfg(test)]
mod tests;
