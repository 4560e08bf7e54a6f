//! Handlers: decode, one call, encode.

mod assignment;

use model::{Matcher, Timestamp};
use rpc::pb::scraper as pb;
use rpc::pb::scraper::scraper_server::{Scraper, ScraperServer};
use rpc::pb::scraper::target_state::Health;
use tonic::{Request, Response, Status};

use crate::targets::{Registry, Shown};
pub(crate) use assignment::Parts;

/// Most entries that one answer about metadata holds, so that it stays below the size of a message.
const METADATA_MAX: usize = 200_000;

/// The generated service over the registry of targets.
#[derive(Debug, Clone)]
pub(crate) struct Grpc {
    registry: Registry,
}

impl Grpc {
    pub(crate) fn new(registry: Registry) -> Self {
        Self { registry }
    }

    pub(crate) fn into_server(self) -> ScraperServer<Self> {
        ScraperServer::new(self)
            .max_decoding_message_size(rpc::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(rpc::MESSAGE_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl Scraper for Grpc {
    async fn targets(
        &self,
        request: Request<pb::TargetsRequest>,
    ) -> Result<Response<pb::TargetsResponse>, Status> {
        let pool = request.into_inner().scrape_pool;
        let mut targets: Vec<_> = self.registry.all();
        targets.retain(|shown| pool.is_empty() || shown.assignment().target.job == pool);
        targets.sort_by_cached_key(|shown| {
            let target = shown.assignment().target;
            (target.job.clone(), target.labels.clone())
        });
        Ok(Response::new(pb::TargetsResponse { targets: targets.iter().map(|shown| state(shown)).collect() }))
    }

    async fn metadata(
        &self,
        request: Request<pb::MetadataRequest>,
    ) -> Result<Response<pb::MetadataResponse>, Status> {
        let request = request.into_inner();
        let matchers = rpc::convert::matchers(&request.match_target)?;
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
        let most = limit.unwrap_or(METADATA_MAX + 1).min(METADATA_MAX + 1);
        let entries = metadata(&self.registry, &matchers, &request.metric, most);
        if entries.len() > METADATA_MAX {
            let text =
                format!("more than {METADATA_MAX} entries of metadata: ask for a metric or give a limit");
            return Err(rpc::status::status(fault::Kind::Limit, text));
        }
        Ok(Response::new(pb::MetadataResponse { entries }))
    }
}

fn state(shown: &Shown) -> pb::TargetState {
    let target = shown.assignment().target;
    let status = shown.status.lock();
    let (last_scrape, seconds, error) = status.last_scrape.clone().unwrap_or((Timestamp(0), 0.0, None));
    let health = match &status.last_scrape {
        None => Health::Unspecified,
        Some((_, _, None)) => Health::Up,
        Some((_, _, Some(_))) => Health::Down,
    };
    pb::TargetState {
        scrape_pool: target.job.clone(),
        labels: Some((&target.labels).into()),
        discovered_labels: Some((&target.discovered_labels).into()),
        scrape_url: target.url.clone(),
        last_error: error.unwrap_or_default(),
        last_scrape: last_scrape.millis(),
        last_scrape_duration_seconds: seconds,
        health: health.into(),
        scrape_interval_ms: u64::try_from(target.interval.as_millis()).unwrap_or(u64::MAX),
        scrape_timeout_ms: u64::try_from(target.timeout.as_millis()).unwrap_or(u64::MAX),
        epoch: target.epoch,
    }
}

fn metadata(registry: &Registry, matchers: &[Matcher], metric: &str, most: usize) -> Vec<pb::TargetMetadata> {
    let mut entries = Vec::new();
    for shown in registry.all() {
        let target = shown.assignment().target;
        if !Matcher::all_match(matchers, &target.labels) {
            continue;
        }
        let list = shown.status.lock().metadata.clone();
        let known = list.iter().filter(|(name, _)| metric.is_empty() || **name == *metric);
        for (name, metadata) in known {
            if entries.len() == most {
                return entries;
            }
            entries.push(pb::TargetMetadata {
                target: Some((&target.labels).into()),
                metric: name.to_string(),
                metadata: Some((&**metadata).into()),
            });
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::{Metadata, MetricType};

    use super::*;
    use crate::targets::tests::{job, shared, target};
    use crate::targets::{Targets, Update};

    /// Two targets of one job, each with two metrics.
    fn registry() -> Registry {
        let (registry, metrics) = (Registry::default(), service_runtime::Metrics::default());
        let metrics = crate::metrics::Metrics::register(&metrics);
        let start = Box::new(|_, _| {});
        let mut targets = Targets::new(start, shared(), metrics, registry.clone(), String::new());
        let listed = ["b", "a"].map(|id| target(id, 1)).to_vec();
        targets.apply(Update { jobs: vec![job("j")], targets: listed, ..Update::default() });
        for shown in registry.all() {
            let kind = |kind| Arc::new(Metadata { kind, ..Metadata::default() });
            let list = [("m", MetricType::Counter), ("n", MetricType::Gauge)];
            shown.status.lock().metadata = list.map(|(name, of)| (Arc::from(name), kind(of))).into();
        }
        registry
    }

    #[tokio::test]
    async fn targets_are_sorted_and_chosen_by_pool() {
        let grpc = Grpc::new(registry());
        for (pool, expected) in [("", vec!["a", "b"]), ("j", vec!["a", "b"]), ("other", vec![])] {
            let request = pb::TargetsRequest { scrape_pool: pool.into() };
            let targets = grpc.targets(Request::new(request)).await.unwrap().into_inner().targets;
            let instances: Vec<_> =
                targets.iter().map(|t| t.labels.as_ref().unwrap().pairs[1].as_str()).collect();
            assert_eq!(instances, expected);
            assert!(targets.iter().all(|t| t.health() == Health::Unspecified && t.last_scrape == 0));
        }
    }

    #[tokio::test]
    async fn metadata_is_chosen_by_target_and_metric() {
        let grpc = Grpc::new(registry());
        let of_b = Matcher::equal("instance", "b");
        for (metric, match_target, limit, expected) in [
            ("", vec![], 0, 4),
            ("m", vec![], 0, 2),
            ("", vec![(&of_b).into()], 0, 2),
            ("n", vec![(&of_b).into()], 0, 1),
            ("", vec![], 3, 3),
            ("none", vec![], 0, 0),
        ] {
            let request = pb::MetadataRequest { metric: metric.into(), match_target, limit };
            let entries = grpc.metadata(Request::new(request)).await.unwrap().into_inner().entries;
            assert_eq!(entries.len(), expected, "{metric}");
        }
        let broken = rpc::pb::model::Matcher::default();
        let request = pb::MetadataRequest { match_target: vec![broken], ..Default::default() };
        let status = grpc.metadata(Request::new(request)).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
    }

    #[tokio::test]
    async fn an_answer_that_would_be_too_large_is_refused() {
        let registry = registry();
        let none = Arc::<Metadata>::default();
        let list: Vec<_> = (0..METADATA_MAX).map(|n| (Arc::from(n.to_string()), none.clone())).collect();
        registry.all()[0].status.lock().metadata = list.into();
        let grpc = Grpc::new(registry);
        let status = grpc.metadata(Request::new(pb::MetadataRequest::default())).await.unwrap_err();
        assert_eq!(rpc::status::kind(&status), fault::Kind::Limit);
        let request = pb::MetadataRequest { limit: 5, ..Default::default() };
        assert_eq!(grpc.metadata(Request::new(request)).await.unwrap().into_inner().entries.len(), 5);
    }
}
