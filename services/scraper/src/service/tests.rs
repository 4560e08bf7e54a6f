//! From discovery over a real HTTP target to the ingester, in real time with short intervals.

use std::pin::Pin;
use std::time::Duration;

use coordination::{InMemory, membership};
use futures::{Stream, StreamExt as _};
use model::{Clock, Labels};
use rpc::pb::discovery as pb;
use rpc::pb::discovery::discovery_server::{Discovery, DiscoveryServer};
use rpc::pb::scraper as scraper_pb;
use rpc::pb::scraper::scraper_server::Scraper as _;
use rpc::pb::scraper::target_state::Health;
use service_runtime::ShutdownTrigger;
use test_kit::{Answer, FakeTarget};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::*;
use crate::fake_ingester::{FakeIngester, Stored};

const INTERVAL_MS: u64 = 50;

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Queue = mpsc::Sender<pb::WatchTargetsResponse>;

/// Discovery that says what a test tells it to.
#[derive(Clone)]
struct FakeDiscovery {
    streams: mpsc::Sender<(pb::WatchTargetsRequest, Queue)>,
}

#[tonic::async_trait]
impl Discovery for FakeDiscovery {
    type WatchConfigStream = Messages<pb::WatchConfigResponse>;
    type WatchTargetsStream = Messages<pb::WatchTargetsResponse>;
    type WatchRulesStream = Messages<pb::WatchRulesResponse>;

    async fn watch_config(
        &self,
        _: Request<pb::WatchConfigRequest>,
    ) -> Result<Response<Self::WatchConfigStream>, Status> {
        Err(Status::unimplemented("not used here"))
    }

    async fn watch_targets(
        &self,
        request: Request<pb::WatchTargetsRequest>,
    ) -> Result<Response<Self::WatchTargetsStream>, Status> {
        let (queue, messages) = mpsc::channel(8);
        self.streams.send((request.into_inner(), queue)).await.map_err(|_| Status::unavailable("over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(messages).map(Ok))))
    }

    async fn watch_rules(
        &self,
        _: Request<pb::WatchRulesRequest>,
    ) -> Result<Response<Self::WatchRulesStream>, Status> {
        Err(Status::unimplemented("not used here"))
    }

    async fn alertmanagers(
        &self,
        _: Request<pb::AlertmanagersRequest>,
    ) -> Result<Response<pb::AlertmanagersResponse>, Status> {
        Err(Status::unimplemented("not used here"))
    }

    async fn dropped_targets(
        &self,
        _: Request<pb::DroppedTargetsRequest>,
    ) -> Result<Response<pb::DroppedTargetsResponse>, Status> {
        Err(Status::unimplemented("not used here"))
    }

    async fn reload(&self, _: Request<pb::ReloadRequest>) -> Result<Response<pb::ReloadResponse>, Status> {
        Err(Status::unimplemented("not used here"))
    }
}

struct Story {
    service: Service,
    ingester: FakeIngester,
    streams: mpsc::Receiver<(pb::WatchTargetsRequest, Queue)>,
    stop: ShutdownTrigger,
    metrics: service_runtime::Metrics,
    scrapers: InMemory,
    _roster: Box<dyn Send>,
}

impl Story {
    async fn start() -> Self {
        let scrapers = InMemory::new();
        let mut environment = Environment::alone(Role::Scraper, Clock::System, Arc::new(scrapers.clone()));
        let (stop, shutdown) = Shutdown::new();
        environment.shutdown = shutdown;
        let ingester = FakeIngester::new();
        let (writer, driver, roster) = ingester.writer();
        environment.tasks.spawn("group writer", async move {
            driver.run().await;
            Ok(())
        });
        let (sender, streams) = mpsc::channel(8);
        let discovery = FakeDiscovery { streams: sender };
        let channel = rpc::Channel::new(DiscoveryServer::new(discovery));
        environment.member_name = "me".into();
        let service = Service::join(Config::default(), &environment, writer, channel);
        let (metrics, _roster) = (environment.metrics, Box::new(roster));
        Self { service, ingester, streams, stop, metrics, scrapers, _roster }
    }

    /// Waits for the scraper's next stream.
    async fn stream(&mut self) -> (pb::WatchTargetsRequest, Queue) {
        self.streams.recv().await.unwrap()
    }

    fn grpc(&self) -> Grpc {
        Grpc::new(self.service.registry.clone())
    }

    async fn states(&self) -> Vec<scraper_pb::TargetState> {
        self.grpc()
            .targets(Request::new(scraper_pb::TargetsRequest::default()))
            .await
            .unwrap()
            .into_inner()
            .targets
    }
}

fn job() -> pb::ScrapeJob {
    pb::ScrapeJob {
        name: "j".into(),
        honor_timestamps: true,
        enable_compression: true,
        escaping_scheme: "allow-utf-8".into(),
        scrape_protocols: vec!["PrometheusProto".into(), "PrometheusText0.0.4".into()],
        http: Some(pb::HttpClient {
            tls: Some(pb::Tls { min_version: "TLS10".into(), ..Default::default() }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn target(fake: &FakeTarget, epoch: u64) -> pb::Target {
    let labels = Labels::from_pairs([("instance", "h"), ("job", "j")]);
    pb::Target {
        id: "t".into(),
        job: "j".into(),
        labels: Some((&labels).into()),
        discovered_labels: Some((&labels).into()),
        url: fake.url("/metrics"),
        scrape_interval_ms: INTERVAL_MS,
        scrape_timeout_ms: 5_000,
        epoch,
        ..Default::default()
    }
}

fn snapshot(revision: u64, targets: Vec<pb::Target>) -> pb::WatchTargetsResponse {
    pb::WatchTargetsResponse { revision, is_snapshot: true, jobs: vec![job()], targets, ..Default::default() }
}

fn values<'a>(stored: &'a [Stored], metric: &str) -> Vec<&'a str> {
    let name = format!("__name__=\"{metric}\"");
    stored.iter().filter(|s| s.labels.contains(&name)).map(|s| s.value.as_str()).collect()
}

#[tokio::test]
async fn samples_go_from_target_to_ingester_and_end_when_the_target_is_gone() {
    let fake = FakeTarget::start(Answer::text("# HELP a first\na 1\nb{x=\"y\"} 2\n")).await;
    let mut story = Story::start().await;
    let (request, discovery) = story.stream().await;
    assert_eq!((request.scraper.as_str(), request.revision), ("me", 0));
    discovery.send(snapshot(1, vec![target(&fake, 7)])).await.unwrap();

    let stored = story.ingester.wait_for(|stored| values(stored, "up").len() >= 2).await;
    let first: Vec<&Stored> = stored.iter().filter(|s| s.append == 0).collect();
    assert_eq!(first.len(), 2 + 5);
    assert!(first.iter().all(|s| s.at == first[0].at && s.epoch == 7));
    let of = |name: &str| first.iter().find(|s| s.labels.contains(name)).unwrap();
    assert_eq!(of("\"a\"").labels, r#"{__name__="a", instance="h", job="j"}"#);
    assert_eq!(of("\"b\"").labels, r#"{__name__="b", instance="h", job="j", x="y"}"#);
    for (name, value) in [
        ("\"a\"", "1"),
        ("\"b\"", "2"),
        ("\"up\"", "1"),
        ("scrape_samples_scraped", "2"),
        ("scrape_samples_post_metric_relabeling", "2"),
        ("scrape_series_added", "2"),
    ] {
        assert_eq!(of(name).value, value, "{name}");
    }
    assert!(of("scrape_duration_seconds").value.parse::<f64>().unwrap() > 0.0);
    assert!(fake.seen()[0].header("accept").starts_with("application/vnd.google.protobuf"));

    let states = story.states().await;
    assert_eq!((states.len(), states[0].health(), states[0].last_error.as_str()), (1, Health::Up, ""));
    assert_eq!((states[0].scrape_pool.as_str(), states[0].epoch), ("j", 7));
    assert_eq!(states[0].scrape_url, fake.url("/metrics"));
    let metadata = story
        .grpc()
        .metadata(Request::new(scraper_pb::MetadataRequest::default()))
        .await
        .unwrap()
        .into_inner()
        .entries;
    assert_eq!((metadata.len(), metadata[0].metric.as_str()), (1, "a"));
    assert_eq!(metadata[0].metadata.as_ref().unwrap().help, "first");

    fake.answer(Answer::status(503));
    story.ingester.wait_for(|stored| values(stored, "a").contains(&"stale")).await;
    let states = story.states().await;
    assert_eq!(states[0].health(), Health::Down);
    assert_eq!(states[0].last_error, "server returned HTTP status 503 Service Unavailable");

    fake.answer(Answer::text("a 3\n"));
    story.ingester.wait_for(|stored| values(stored, "a").last() == Some(&"3")).await;
    let removed =
        pb::RemovedTarget { id: "t".into(), reason: pb::removed_target::Reason::Gone.into(), epoch: 7 };
    let gone = pb::WatchTargetsResponse { revision: 2, removed: vec![removed], ..Default::default() };
    discovery.send(gone).await.unwrap();
    let stored = story.ingester.wait_for(|stored| values(stored, "up").last() == Some(&"stale")).await;
    assert_eq!(values(&stored, "a").last(), Some(&"stale"));
    let last = stored.last().unwrap();
    assert!(stored.iter().all(|s| s.append == last.append || s.at < last.at));
    assert!(story.states().await.is_empty());

    let text = story.metrics.encode().unwrap();
    for line in [
        "scraper_scrapes_failed_total{reason=\"unavailable\"}",
        "scraper_targets{scrape_job=\"j\"} 0",
        "scraper_ignored_settings{scrape_job=\"j\",setting=\"tls_config: min_version below TLS12\"} 1",
        "scraper_following_discovery 1",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

#[tokio::test]
async fn targets_stay_while_discovery_is_away() {
    let fake = FakeTarget::start(Answer::text("a 1\n")).await;
    let mut story = Story::start().await;
    let (_, discovery) = story.stream().await;
    discovery.send(snapshot(5, vec![target(&fake, 1)])).await.unwrap();
    fake.wait_for(1).await;
    drop(discovery);
    // The scraper asks again at once and is left without an answer.
    let (request, discovery) = story.stream().await;
    assert_eq!(request.revision, 5);
    fake.wait_for(fake.seen().len() + 3).await;
    assert_eq!(story.states().await.len(), 1);
    discovery.send(snapshot(6, vec![])).await.unwrap();
    while !story.states().await.is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(!values(&story.ingester.stored(), "a").contains(&"stale"), "nobody said that it is gone");
}

#[tokio::test]
async fn a_stop_waits_for_what_was_handed_in() {
    let fake = FakeTarget::start(Answer::text("a 1\n")).await;
    let mut story = Story::start().await;
    let (_, discovery) = story.stream().await;
    discovery.send(snapshot(1, vec![target(&fake, 1)])).await.unwrap();
    fake.wait_for(2).await;
    story.stop.request();
    story.stop.drained();
    let (_, shutdown) = Shutdown::new();
    let run = service_runtime::Service::run(story.service, shutdown);
    tokio::time::timeout(Duration::from_secs(20), run).await.unwrap().unwrap();
    assert!(!values(&story.ingester.stored(), "a").contains(&"stale"));
}

#[tokio::test]
async fn a_stop_scrapes_on_until_another_scraper_has_the_targets() {
    let fake = FakeTarget::start(Answer::text("a 1\n")).await;
    let mut story = Story::start().await;
    membership::add_static(&story.scrapers, Role::Scraper, "other", "other:1").await.unwrap();
    story.service.scrapers.wait_for(|roster| !roster.members.is_empty()).await.unwrap();
    let (_, discovery) = story.stream().await;
    discovery.send(snapshot(1, vec![target(&fake, 1)])).await.unwrap();
    fake.wait_for(2).await;
    let (stop, shutdown) = Shutdown::new();
    stop.request();
    stop.drained();
    let ingester = story.ingester.clone();
    let run = service_runtime::Service::run(story.service, shutdown);
    let told = async {
        fake.wait_for(fake.seen().len() + 3).await;
        let removed =
            pb::RemovedTarget { id: "t".into(), reason: pb::removed_target::Reason::Moved.into(), epoch: 1 };
        let moved = pb::WatchTargetsResponse { revision: 2, removed: vec![removed], ..Default::default() };
        discovery.send(moved).await.unwrap();
    };
    let (ended, ()) =
        tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(run, told) }).await.unwrap();
    ended.unwrap();
    assert!(!values(&ingester.stored(), "a").contains(&"stale"), "its series go on elsewhere");
}

#[tokio::test]
async fn large_bodies_are_read_away_from_the_async_threads() {
    let body: String = (0..2_000).map(|i| format!("a{{i=\"{i}\"}} {i}\n")).collect();
    let fake = FakeTarget::start(Answer::text(body)).await;
    let mut story = Story::start().await;
    let (_, discovery) = story.stream().await;
    discovery.send(snapshot(1, vec![target(&fake, 1)])).await.unwrap();
    let stored = story.ingester.wait_for(|stored| values(stored, "scrape_series_added").len() >= 2).await;
    assert_eq!(values(&stored, "scrape_series_added"), ["2000", "0"]);
    assert_eq!(stored.iter().filter(|s| s.append == 1).count(), 2_005);
}
