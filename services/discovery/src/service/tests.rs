//! The service in process: real files, in-memory coordination, the generated client on the generated server.

use std::sync::Arc;
use std::time::Duration;

use coordination::{Coordinator, InMemory, membership};
use model::{Clock, Timestamp};
use rpc::pb::discovery as pb;
use rpc::pb::discovery::discovery_client::DiscoveryClient;
use rpc::pb::discovery::discovery_server::DiscoveryServer;
use service_runtime::{Service as _, ShutdownTrigger};
use test_kit::{Answer, FakeTarget};
use tonic::Streaming;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    folder: tempfile::TempDir,
    coordinator: Arc<InMemory>,
    environment: Environment,
    client: DiscoveryClient<DiscoveryServer<Grpc>>,
    trigger: ShutdownTrigger,
    running: service_runtime::Task,
}

impl World {
    async fn start(yaml: &str) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("prometheus.yml");
        std::fs::write(&path, yaml).expect("written");
        let coordinator = Arc::new(InMemory::new());
        let mut environment = Environment::alone(
            Role::Discovery,
            Clock::fixed(Timestamp(1_000)),
            coordinator.clone() as Arc<dyn Coordinator>,
        );
        let (trigger, shutdown) = Shutdown::new();
        environment.shutdown = shutdown.clone();
        let config = Config {
            config_file: path.to_string_lossy().into_owned(),
            target_update_interval: service_runtime::ConfigDuration(Duration::ZERO),
            ..Config::default()
        };
        let service = Service::build(config, &environment).await.expect("built");
        let client = DiscoveryClient::new(Grpc::server(service.handle.clone(), shutdown.clone()));
        let running = environment.tasks.spawn("service", async move { service.run(shutdown).await });
        Self { folder, coordinator, environment, client, trigger, running }
    }

    fn write(&self, name: &str, text: &str) {
        // As operators are told to: written aside, then moved into place.
        let aside = self.folder.path().join("aside.tmp");
        std::fs::write(&aside, text).expect("written");
        std::fs::rename(aside, self.folder.path().join(name)).expect("moved");
    }

    async fn add_scraper(&self, name: &str) {
        membership::add_static(&*self.coordinator, Role::Scraper, name, name).await.expect("added");
    }

    async fn watch(&mut self, scraper: &str) -> Streaming<pb::WatchTargetsResponse> {
        let request = pb::WatchTargetsRequest { scraper: scraper.to_owned(), revision: 0 };
        self.client.watch_targets(request).await.expect("stream").into_inner()
    }
}

async fn next<T>(stream: &mut Streaming<T>) -> T {
    tokio::time::timeout(PATIENCE, stream.message())
        .await
        .expect("in time")
        .expect("no error")
        .expect("not ended")
}

fn urls(response: &pb::WatchTargetsResponse) -> Vec<&str> {
    let mut urls: Vec<&str> = response.targets.iter().map(|target| target.url.as_str()).collect();
    urls.sort_unstable();
    urls
}

const FILES: &str = "global: {external_labels: {zone: eu}}\nscrape_configs:\n- job_name: f\n  file_sd_configs: [{files: ['*.json']}]\n- job_name: s\n  static_configs: [{targets: ['s:1']}]\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_target_file_becomes_a_delta() {
    let mut world = World::start(FILES).await;
    world.add_scraper("scraper-0").await;
    let mut targets = world.watch("scraper-0").await;
    let first = next(&mut targets).await;
    assert!(first.is_snapshot && !first.is_partial);
    assert_eq!(urls(&first), ["http://s:1/metrics"]);
    assert_eq!(first.jobs.iter().map(|job| job.name.as_str()).collect::<Vec<_>>(), ["f", "s"]);
    assert_eq!(first.external_labels.expect("set").pairs, ["zone", "eu"]);

    world.write("a.json", r#"[{"targets": ["f:1", "f:2"]}]"#);
    let added = next(&mut targets).await;
    assert_eq!(urls(&added), ["http://f:1/metrics", "http://f:2/metrics"]);
    assert!(!added.is_snapshot && added.revision > first.revision && added.jobs.is_empty());
    assert!(added.targets.iter().all(|target| target.epoch > first.targets[0].epoch));

    world.write("a.json", r#"[{"targets": ["f:2"]}]"#);
    let removed = next(&mut targets).await;
    assert!(removed.targets.is_empty());
    let gone = &removed.removed[0];
    assert_eq!(
        (gone.reason(), &gone.id),
        (
            pb::removed_target::Reason::Gone,
            &added.targets.iter().find(|t| t.url.contains("f:1")).expect("told").id
        )
    );

    world.trigger.request();
    assert!(
        tokio::time::timeout(PATIENCE, targets.message()).await.expect("in time").expect("ended").is_none()
    );
    tokio::time::timeout(PATIENCE, world.running.join()).await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_move_to_a_scraper_that_comes() {
    let addresses: Vec<String> = (0..40).map(|i| format!("'h{i}:1'")).collect();
    let yaml = format!(
        "scrape_configs: [{{job_name: s, static_configs: [{{targets: [{}]}}]}}]\n",
        addresses.join(", ")
    );
    let mut world = World::start(&yaml).await;
    let mut first = world.watch("scraper-0").await;
    world.add_scraper("scraper-0").await;
    let all = next(&mut first).await;
    assert_eq!((all.is_snapshot, all.targets.len()), (true, 40), "told once the scraper is known");
    world.add_scraper("scraper-1").await;
    let mut second = world.watch("scraper-1").await;
    let share = next(&mut second).await;
    let left = next(&mut first).await;
    assert!(share.is_snapshot && !share.targets.is_empty() && share.targets.len() < 40);
    let mut given: Vec<&str> = share.targets.iter().map(|target| target.id.as_str()).collect();
    let mut taken: Vec<&str> = left.removed.iter().map(|removed| removed.id.as_str()).collect();
    given.sort_unstable();
    taken.sort_unstable();
    assert_eq!(given, taken);
    assert!(left.removed.iter().all(|removed| removed.reason() == pb::removed_target::Reason::Moved));
    assert!(share.targets.iter().all(|target| target.epoch > left.removed[0].epoch));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_is_told_and_a_refused_one_leaves_the_old_configuration() {
    let mut world = World::start(FILES).await;
    world.add_scraper("scraper-0").await;
    let mut configs =
        world.client.watch_config(pb::WatchConfigRequest {}).await.expect("stream").into_inner();
    let first = next(&mut configs).await;
    assert_eq!((first.revision, first.loaded_at, first.is_last_reload_successful), (1, 1_000, true));
    assert_eq!(first.scrape_pools, ["f", "s"]);
    assert!(first.yaml.contains("zone: eu"));
    let mut targets = world.watch("scraper-0").await;
    assert_eq!(urls(&next(&mut targets).await), ["http://s:1/metrics"]);

    world.write("prometheus.yml", "scrape_configs: [{job_name: ''}]\n");
    let refused = world.client.reload(pb::ReloadRequest {}).await.expect_err("refused");
    let path = world.folder.path().join("prometheus.yml");
    let (path, kind) = (path.display(), rpc::status::kind(&refused));
    assert_eq!(
        refused.message(),
        format!(
            "couldn't load configuration (--config.file=\"{path}\"): parsing YAML file {path}: job_name is empty"
        )
    );
    assert_eq!(kind, fault::Kind::Invalid);
    let told = next(&mut configs).await;
    assert_eq!((told.revision, told.is_last_reload_successful), (1, false));
    let metric = |world: &World| world.environment.metrics.encode().expect("encoded");
    assert!(metric(&world).contains("prometheus_config_last_reload_successful 0\n"));

    world.write("prometheus.yml", "scrape_configs: [{job_name: s, consul_sd_configs: [{server: x}], static_configs: [{targets: ['s:2']}]}]\n");
    let revision = world.client.reload(pb::ReloadRequest {}).await.expect("reloaded").into_inner().revision;
    assert_eq!(revision, 2);
    let told = next(&mut configs).await;
    assert_eq!((told.revision, told.is_last_reload_successful), (2, true));
    assert_eq!(told.ignored_sections, ["scrape_configs.consul_sd_configs"]);
    let delta = next(&mut targets).await;
    assert_eq!(urls(&delta), ["http://s:2/metrics"]);
    assert_eq!((delta.removed_jobs.as_slice(), delta.removed.len()), (["f".to_owned()].as_slice(), 1));
    let text = metric(&world);
    for line in [
        "prometheus_config_last_reload_successful 1\n",
        "prometheus_config_last_reload_success_timestamp_seconds 1.0\n",
        "discovery_ignored_section{section=\"scrape_configs.consul_sd_configs\"} 1\n",
        "prometheus_target_scrape_pool_targets{scrape_job=\"s\"} 1\n",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_targets_are_listed_by_pool() {
    let yaml = "scrape_configs:\n- job_name: d\n  static_configs: [{targets: [a, b]}]\n  relabel_configs: [{source_labels: [__address__], regex: a, action: keep}]\n- job_name: e\n  static_configs: [{targets: [c]}]\n";
    let mut world = World::start(yaml).await;
    world.add_scraper("scraper-0").await;
    let mut targets = world.watch("scraper-0").await;
    assert_eq!(next(&mut targets).await.targets.len(), 2);
    for (pool, count, pools) in [("", 1, 2), ("d", 1, 2), ("e", 0, 2), ("none", 0, 2)] {
        let request = pb::DroppedTargetsRequest { scrape_pool: pool.to_owned() };
        let answer = world.client.dropped_targets(request).await.expect("answered").into_inner();
        assert_eq!((answer.targets.len(), answer.counts.len()), (count, pools), "{pool:?}");
    }
    let nameless = pb::WatchTargetsRequest { scraper: String::new(), revision: 0 };
    let refused = world.client.watch_targets(nameless).await.expect_err("refused");
    assert_eq!(refused.message(), "scraper must not be empty");
}

#[tokio::test(flavor = "multi_thread")]
async fn alertmanagers_are_found_and_told_with_the_rules() {
    let yaml = "alerting:\n  alert_relabel_configs: [{regex: a, action: labeldrop}]\n  alertmanagers:\n  - {file_sd_configs: [{files: [am.json]}], timeout: 3s, authorization: {credentials: t}}\n  - static_configs: [{targets: [b, c]}]\n    relabel_configs: [{source_labels: [__address__], regex: c, action: drop}]\n";
    let mut world = World::start(yaml).await;
    let request = pb::WatchRulesRequest { querier: "querier-0".to_owned() };
    let mut rules = world.client.watch_rules(request).await.expect("a stream").into_inner();
    let told = next(&mut rules).await.alerting.expect("the first part has it");
    let urls = |alerting: &pb::Alerting| -> Vec<Vec<String>> {
        alerting.sets.iter().map(|set| set.urls.clone()).collect()
    };
    assert_eq!(urls(&told), [vec![], vec!["http://b/api/v2/alerts".to_owned()]]);
    assert_eq!((told.alert_relabel[0].action.as_str(), told.sets[0].timeout_ms), ("labeldrop", 3_000));
    let http = told.sets[0].http.clone().expect("how to connect");
    assert_eq!(http.authorization.expect("who we are").credentials, "t");

    world.write("am.json", r#"[{"targets": ["d:1"], "labels": {"__scheme__": "https"}}]"#);
    let told = next(&mut rules).await.alerting.expect("the first part has it");
    assert_eq!(urls(&told)[0], ["https://d:1/api/v2/alerts"]);
    let all = world.client.alertmanagers(pb::AlertmanagersRequest {}).await.expect("answered").into_inner();
    assert_eq!(all.active, ["https://d:1/api/v2/alerts", "http://b/api/v2/alerts"]);
    assert_eq!(all.dropped, ["http://c/api/v2/alerts"]);
    let text = world.environment.metrics.encode().expect("encoded");
    for (entry, count) in [(0, 1), (1, 2)] {
        let line = format!(
            "prometheus_sd_discovered_targets{{name=\"notify\",config=\"config-{entry}\"}} {count}\n"
        );
        assert!(text.contains(&line), "{line} in\n{text}");
    }
}

#[tokio::test]
async fn a_broken_file_fails_the_build_with_all_faults() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("p.yml");
    std::fs::write(&path, "scrape_configs: [{job_name: a, scheme: [x]}, {job_name: ''}]\n").expect("written");
    let environment =
        Environment::alone(Role::Discovery, Clock::fixed(Timestamp(0)), Arc::new(InMemory::new()));
    let config = Config { config_file: path.to_string_lossy().into_owned(), ..Config::default() };
    let error = Service::build(config, &environment).await.expect_err("refused").to_string();
    assert!(
        error.contains("job_name is empty") && error.contains("cannot unmarshal !!seq into string"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_lists_stays_while_it_fails() {
    let list = |body: &str| Answer::ok("application/json", body.to_owned());
    let server = FakeTarget::start(list(r#"[{"targets": ["h:1", "h:2"]}]"#)).await;
    let yaml = format!(
        "scrape_configs:\n- job_name: h\n  http_sd_configs: [{{url: '{}', refresh_interval: 1s, basic_auth: {{username: u, password: p}}}}]\n",
        server.url("/targets")
    );
    let mut world = World::start(&yaml).await;
    world.add_scraper("scraper-0").await;
    let mut targets = world.watch("scraper-0").await;
    let first = next(&mut targets).await;
    assert_eq!(urls(&first), ["http://h:1/metrics", "http://h:2/metrics"], "known before anything is told");
    // RFC 7617: base64 of "u:p".
    assert_eq!(server.seen()[0].header("authorization"), "Basic dTpw");

    server.answer(Answer::status(500));
    server.wait_for(server.seen().len() + 2).await;
    server.answer(list(r#"[{"targets": ["h:2", "h:3"]}]"#));
    let changed = next(&mut targets).await;
    assert_eq!(urls(&changed), ["http://h:3/metrics"], "the failures changed nothing");
    assert_eq!((changed.removed.len(), changed.removed[0].reason()), (1, pb::removed_target::Reason::Gone));
    let text = world.environment.metrics.encode().expect("encoded");
    let count = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("there");
        line.trim().parse().expect("a number")
    };
    assert!(count("prometheus_sd_http_failures_total") >= 1, "{text}");
    assert!(count(r#"prometheus_sd_refresh_failures_total{mechanism="http"}"#) >= 1, "{text}");
}
