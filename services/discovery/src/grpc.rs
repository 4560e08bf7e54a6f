//! Handlers: decode, one call, encode.
//!
//! Invariants:
//! - a stream holds one state it has told and the parts of one message, however slow its reader is;
//! - a scraper that the member list does not know yet is told nothing, rather than to scrape nothing;
//! - streams end when the service is asked to stop.

mod rules;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use prost::Message as _;
use relabel::{NameValidation, RuleConfig};
use rpc::pb::discovery as pb;
use rpc::pb::discovery::discovery_server::{Discovery, DiscoveryServer};
use service_runtime::Shutdown;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tracing::info;

use self::rules::RuleWatch;
use crate::director::{Handle, Publication};
use crate::error::Error;
use crate::prometheus_config::{Header, HttpClient, Job, Otlp, Tls};
use crate::published::{Assigned, Delta, Published, RemovalReason, Removed, delta};
use crate::targets::{Pool, Target};

/// How many bytes of targets go into one message, well below what a message may have.
const PART_BYTES_MAX: usize = rpc::MESSAGE_BYTES_MAX / 8;
/// How many bytes of dropped targets one answer lists; all of them are counted.
const DROPPED_BYTES_MAX: usize = rpc::MESSAGE_BYTES_MAX / 2;

/// The generated service over the director.
#[derive(Debug, Clone)]
pub(crate) struct Grpc {
    handle: Handle,
    shutdown: Shutdown,
}

impl Grpc {
    pub(crate) fn server(handle: Handle, shutdown: Shutdown) -> DiscoveryServer<Self> {
        DiscoveryServer::new(Self { handle, shutdown })
            .max_decoding_message_size(rpc::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(rpc::MESSAGE_BYTES_MAX)
    }

    fn states(&self) -> States {
        let mut published = self.handle.published.clone();
        published.mark_changed();
        States { published, shutdown: self.shutdown.clone() }
    }
}

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Discovery for Grpc {
    type WatchConfigStream = Messages<pb::WatchConfigResponse>;
    type WatchTargetsStream = Messages<pb::WatchTargetsResponse>;
    type WatchRulesStream = Messages<pb::WatchRulesResponse>;

    async fn watch_config(
        &self,
        _: Request<pb::WatchConfigRequest>,
    ) -> Result<Response<Self::WatchConfigStream>, Status> {
        let stream = futures::stream::unfold((self.states(), None), |(mut states, told)| async move {
            loop {
                let now = states.next().await?;
                let version = Some((now.loaded.revision, now.is_last_reload_successful));
                if version != told {
                    return Some((Ok(config(&now)), (states, version)));
                }
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn watch_targets(
        &self,
        request: Request<pb::WatchTargetsRequest>,
    ) -> Result<Response<Self::WatchTargetsStream>, Status> {
        let scraper = request.into_inner().scraper;
        if scraper.is_empty() {
            return Err(Error::Empty("scraper").into());
        }
        let watch = TargetWatch { states: self.states(), scraper, told: None, parts: VecDeque::new() };
        let stream = futures::stream::unfold(watch, |mut watch| async move {
            let message = watch.next().await?;
            Some((Ok(message), watch))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn watch_rules(
        &self,
        request: Request<pb::WatchRulesRequest>,
    ) -> Result<Response<Self::WatchRulesStream>, Status> {
        let querier = request.into_inner().querier;
        if querier.is_empty() {
            return Err(Error::Empty("querier").into());
        }
        let watch = RuleWatch { states: self.states(), querier, told: None, parts: VecDeque::new() };
        let stream = futures::stream::unfold(watch, |mut watch| async move {
            let message = watch.next().await?;
            Some((Ok(message), watch))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn alertmanagers(
        &self,
        _: Request<pb::AlertmanagersRequest>,
    ) -> Result<Response<pb::AlertmanagersResponse>, Status> {
        let published = self.handle.published.borrow().clone();
        let found = published.as_ref().map_or(&[] as &[_], |state| &state.alertmanagers);
        Ok(Response::new(pb::AlertmanagersResponse {
            active: fitting(found.iter().flat_map(|found| &found.urls)),
            dropped: fitting(found.iter().flat_map(|found| &found.dropped)),
        }))
    }

    async fn dropped_targets(
        &self,
        request: Request<pb::DroppedTargetsRequest>,
    ) -> Result<Response<pb::DroppedTargetsResponse>, Status> {
        let wanted = request.into_inner().scrape_pool;
        let published = self.handle.published.borrow().clone();
        Ok(Response::new(dropped(published.iter().flat_map(|state| &state.pools), &wanted)))
    }

    async fn reload(&self, _: Request<pb::ReloadRequest>) -> Result<Response<pb::ReloadResponse>, Status> {
        let revision = self.handle.reload().await?;
        Ok(Response::new(pb::ReloadResponse { revision }))
    }
}

/// The states that are published, the present one first, until the service stops.
struct States {
    published: watch::Receiver<Publication>,
    shutdown: Shutdown,
}

impl States {
    async fn next(&mut self) -> Option<Arc<Published>> {
        loop {
            tokio::select! {
                () = self.shutdown.requested() => return None,
                changed = self.published.changed() => changed.ok()?,
            }
            if let Some(state) = self.published.borrow_and_update().clone() {
                return Some(state);
            }
        }
    }
}

/// What one scraper is told.
struct TargetWatch {
    states: States,
    scraper: String,
    told: Option<Arc<Published>>,
    parts: VecDeque<pb::WatchTargetsResponse>,
}

impl TargetWatch {
    async fn next(&mut self) -> Option<pb::WatchTargetsResponse> {
        loop {
            if let Some(part) = self.parts.pop_front() {
                return Some(part);
            }
            let now = self.states.next().await?;
            // A scraper that asks before the member list knows it would be told to scrape nothing.
            if self.told.is_none() && !now.has_member(&self.scraper) {
                info!(scraper = self.scraper, "scraper waits for targets until the member list knows it");
                continue;
            }
            let delta = delta(&self.scraper, self.told.as_deref(), &now);
            if !delta.is_empty() {
                self.parts = parts(now.revision, &delta);
            }
            self.told = Some(now);
        }
    }
}

/// Cuts a delta into messages of bounded size; all but the last are partial.
fn parts(revision: u64, delta: &Delta) -> VecDeque<pb::WatchTargetsResponse> {
    let part = || pb::WatchTargetsResponse {
        revision,
        is_snapshot: delta.is_snapshot,
        is_partial: true,
        ..Default::default()
    };
    let mut parts = VecDeque::new();
    let mut current = pb::WatchTargetsResponse {
        jobs: delta.jobs.iter().map(|job| scrape_job(job)).collect(),
        removed_jobs: delta.removed_jobs.clone(),
        removed: delta.removed.iter().map(removed).collect(),
        external_labels: delta.external_labels.as_ref().map(Into::into),
        ..part()
    };
    let mut bytes = current.encoded_len();
    for assigned in &delta.targets {
        let target = target(assigned);
        let target_bytes = target.encoded_len();
        if bytes + target_bytes > PART_BYTES_MAX && !current.targets.is_empty() {
            parts.push_back(std::mem::replace(&mut current, part()));
            bytes = 0;
        }
        bytes += target_bytes;
        current.targets.push(target);
    }
    current.is_partial = false;
    parts.push_back(current);
    parts
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn config(state: &Published) -> pb::WatchConfigResponse {
    let config = &state.loaded.config;
    pb::WatchConfigResponse {
        revision: state.loaded.revision,
        yaml: config.yaml.clone(),
        external_labels: Some((&config.external_labels).into()),
        evaluation_interval_ms: millis(config.evaluation_interval),
        out_of_order_time_window_ms: config.out_of_order_time_window.map(millis),
        retention_time_ms: millis(config.retention_time),
        retention_size_bytes: config.retention_size_bytes,
        loaded_at: state.loaded.at.millis(),
        is_last_reload_successful: state.is_last_reload_successful,
        scrape_pools: config.jobs.iter().map(|job| job.name.clone()).collect(),
        rule_files: config.rule_files.clone(),
        ignored_sections: config.ignored_sections.clone(),
        otlp: Some(otlp(&config.otlp)),
    }
}

fn otlp(otlp: &Otlp) -> pb::Otlp {
    pb::Otlp {
        translation_strategy: otlp.translation_strategy.clone(),
        promoted_resource_attributes: otlp.promoted_resource_attributes.clone(),
        promotes_all_resource_attributes: otlp.promotes_all_resource_attributes,
        ignored_resource_attributes: otlp.ignored_resource_attributes.clone(),
        keep_identifying_resource_attributes: otlp.keep_identifying_resource_attributes,
        convert_histograms_to_nhcb: otlp.convert_histograms_to_nhcb,
        promote_scope_metadata: otlp.promote_scope_metadata,
        label_name_underscore_sanitization: otlp.label_name_underscore_sanitization,
        label_name_preserve_multiple_underscores: otlp.label_name_preserve_multiple_underscores,
    }
}

/// As many texts as may be listed in an answer.
fn fitting<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut bytes = 0;
    let fits = |text: &&String| {
        bytes += text.len() + 8;
        bytes <= DROPPED_BYTES_MAX / 2
    };
    texts.take_while(fits).cloned().collect()
}

/// What one pool has dropped, or all have where none is named; counts are those of all.
fn dropped<'a>(
    pools: impl Iterator<Item = (&'a String, &'a Arc<Pool>)>,
    wanted: &str,
) -> pb::DroppedTargetsResponse {
    let mut response = pb::DroppedTargetsResponse::default();
    let mut bytes = 0;
    for (name, pool) in pools {
        response.counts.insert(name.clone(), pool.dropped_count);
        if !wanted.is_empty() && name != wanted {
            continue;
        }
        for labels in &pool.dropped {
            let discovered_labels = Some(labels.into());
            let target = pb::DroppedTarget { scrape_pool: name.clone(), discovered_labels };
            bytes += target.encoded_len();
            if bytes > DROPPED_BYTES_MAX {
                break;
            }
            response.targets.push(target);
        }
    }
    response
}

fn target(Assigned { target, epoch }: &Assigned) -> pb::Target {
    let Target {
        id,
        job,
        labels,
        discovered_labels,
        url,
        scrape_interval,
        scrape_timeout,
        error,
        labels_hash,
    } = &**target;
    pb::Target {
        id: id.to_string(),
        job: job.clone(),
        labels: Some(labels.into()),
        discovered_labels: Some(discovered_labels.into()),
        url: url.clone(),
        scrape_interval_ms: millis(*scrape_interval),
        scrape_timeout_ms: millis(*scrape_timeout),
        epoch: epoch.0,
        error: error.clone(),
        labels_hash: *labels_hash,
    }
}

fn removed(removed: &Removed) -> pb::RemovedTarget {
    let reason = match removed.reason {
        RemovalReason::Gone => pb::removed_target::Reason::Gone,
        RemovalReason::Moved => pb::removed_target::Reason::Moved,
    };
    pb::RemovedTarget { id: removed.id.to_string(), reason: reason.into(), epoch: removed.epoch.0 }
}

fn scrape_job(job: &Job) -> pb::ScrapeJob {
    pb::ScrapeJob {
        name: job.name.clone(),
        honor_labels: job.honor_labels,
        honor_timestamps: job.honor_timestamps,
        track_timestamps_staleness: job.track_timestamps_staleness,
        scrape_protocols: job.scrape_protocols.clone(),
        fallback_scrape_protocol: job.fallback_scrape_protocol.clone(),
        enable_compression: job.enable_compression,
        body_size_limit: job.limits.body_bytes,
        sample_limit: job.limits.samples,
        label_limit: job.limits.labels,
        label_name_length_limit: job.limits.label_name_length,
        label_value_length_limit: job.limits.label_value_length,
        metric_relabel: job.metric_relabel.iter().map(rule).collect(),
        http: Some(http(&job.http)),
        is_legacy_names: job.name_validation == NameValidation::Legacy,
        escaping_scheme: job.escaping_scheme.clone(),
        scrape_native_histograms: job.histograms.scrape_native,
        convert_classic_histograms_to_nhcb: job.histograms.convert_classic,
        always_scrape_classic_histograms: job.histograms.always_scrape_classic,
        extra_scrape_metrics: job.extra_scrape_metrics,
        native_histogram_bucket_limit: job.histograms.bucket_limit,
        native_histogram_min_bucket_factor: job.histograms.min_bucket_factor,
        target_limit: job.limits.targets,
    }
}

fn rule(rule: &RuleConfig) -> pb::RelabelRule {
    pb::RelabelRule {
        source_labels: rule.source_labels.clone(),
        separator: rule.separator.clone(),
        regex: rule.regex.clone(),
        modulus: rule.modulus,
        target_label: rule.target_label.clone(),
        replacement: rule.replacement.clone(),
        action: rule.action.to_string(),
    }
}

/// How to connect, as others are told.
pub(crate) fn http(http: &HttpClient) -> pb::HttpClient {
    pb::HttpClient {
        basic_auth: http.basic_auth.as_ref().map(|basic| pb::BasicAuth {
            username: basic.username.clone(),
            username_file: basic.username_file.clone(),
            password: basic.password.expose().to_owned(),
            password_file: basic.password_file.clone(),
        }),
        authorization: http.authorization.as_ref().map(|authorization| pb::Authorization {
            r#type: authorization.kind.clone(),
            credentials: authorization.credentials.expose().to_owned(),
            credentials_file: authorization.credentials_file.clone(),
        }),
        tls: http.tls.as_ref().map(tls),
        follow_redirects: http.follow_redirects,
        enable_http2: http.enable_http2,
        headers: http.headers.iter().map(header).collect(),
        proxy_url: http.proxy_url.expose().to_owned(),
    }
}

fn tls(tls: &Tls) -> pb::Tls {
    pb::Tls {
        ca: tls.ca.clone(),
        ca_file: tls.ca_file.clone(),
        cert: tls.cert.clone(),
        cert_file: tls.cert_file.clone(),
        key: tls.key.expose().to_owned(),
        key_file: tls.key_file.clone(),
        server_name: tls.server_name.clone(),
        insecure_skip_verify: tls.insecure_skip_verify,
        min_version: tls.min_version.clone(),
        max_version: tls.max_version.clone(),
    }
}

fn header(header: &Header) -> pb::Header {
    pb::Header {
        name: header.name.clone(),
        values: header.values.iter().map(|value| value.expose().to_owned()).collect(),
        files: header.files.clone(),
    }
}

#[cfg(test)]
mod tests;
