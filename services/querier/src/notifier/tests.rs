//! Alerts to Alertmanagers that are fakes on free ports.

use coordination::{InMemory, Role};
use model::Clock;
use serde_json::{Value, json};
use service_runtime::Environment;
use test_kit::{Answer, FakeTarget};

use super::*;

const OPTIONS: Options = Options { queue_capacity: 10, batch_size: 4, drains: true };

struct World {
    notifier: Notifier,
    registry: service_runtime::Metrics,
}

impl World {
    fn new(options: Options) -> Self {
        let environment = Environment::alone(Role::Querier, Clock::System, Arc::new(InMemory::new()));
        let metrics = NotifierMetrics::register(&environment.metrics);
        let notifier = Notifier::new(options, environment.tasks, metrics);
        Self { notifier, registry: environment.metrics }
    }

    fn apply(&self, alert_relabel: Vec<pb::RelabelRule>, sets: Vec<pb::AlertmanagerSet>) {
        let external = Labels::from_pairs([("site", "north"), ("dropped", "x")]);
        self.notifier.apply(pb::Alerting { alert_relabel, sets }, external, NameValidation::Utf8);
    }

    /// The value of a metric, of one Alertmanager where there is a URL.
    fn metric(&self, name: &str, url: Option<&str>) -> Option<f64> {
        let label = url.map(|url| format!("{{alertmanager=\"{url}\"}}")).unwrap_or_default();
        let line = format!("prometheus_notifications_{name}{label} ");
        let text = self.registry.encode().expect("encoded");
        text.lines().find_map(|l| l.strip_prefix(&line)).map(|value| value.parse().expect("a number"))
    }
}

fn alert(name: &str) -> Notification {
    Notification {
        labels: Labels::from_pairs([("alertname", name), ("site", if name == "Own" { "own" } else { "" })]),
        annotations: Labels::from_pairs([("summary", "s")]),
        starts_at: Timestamp(1_500),
        ends_at: Timestamp(241_500),
        generator_url: "http://here/graph".to_owned(),
    }
}

fn set(urls: &[String]) -> pb::AlertmanagerSet {
    pb::AlertmanagerSet { timeout_ms: 10_000, urls: urls.to_vec(), ..Default::default() }
}

/// Drops alerts by their name.
fn drop_named(regex: &str) -> pb::RelabelRule {
    pb::RelabelRule {
        source_labels: vec!["alertname".to_owned()],
        separator: ";".to_owned(),
        regex: regex.to_owned(),
        replacement: "$1".to_owned(),
        action: "drop".to_owned(),
        ..Default::default()
    }
}

/// Drops a label.
fn drop_label(regex: &str) -> pb::RelabelRule {
    let action = "labeldrop".to_owned();
    pb::RelabelRule { source_labels: Vec::new(), action, ..drop_named(regex) }
}

/// The names of the alerts of each request.
fn names(target: &FakeTarget) -> Vec<Vec<String>> {
    let of = |body: &[u8]| {
        let alerts: Vec<Value> = serde_json::from_slice(body).expect("a list");
        alerts.iter().map(|alert| alert["labels"]["alertname"].as_str().expect("named").to_owned()).collect()
    };
    target.seen().iter().map(|seen| of(&seen.body)).collect()
}

async fn until(what: impl Fn() -> bool) {
    tokio::time::timeout(Duration::from_secs(20), async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("in time");
}

#[tokio::test]
async fn alerts_get_external_labels_and_are_relabelled_for_all_and_for_a_set() {
    let (all, some) =
        (FakeTarget::start(Answer::status(200)).await, FakeTarget::start(Answer::status(200)).await);
    let world = World::new(OPTIONS);
    let picky = pb::AlertmanagerSet {
        alert_relabel: vec![drop_named("B"), drop_label("site")],
        ..set(&[some.url("/b/api/v2/alerts")])
    };
    world.apply(
        vec![drop_label("dropped"), drop_named("Gone")],
        vec![set(&[all.url("/api/v2/alerts")]), picky],
    );
    world.notifier.send(["Own", "Gone", "B"].map(alert).into());
    all.wait_for(1).await;
    some.wait_for(1).await;
    let seen = &all.seen()[0];
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/api/v2/alerts"));
    assert_eq!(seen.header("content-type"), "application/json");
    assert_eq!(seen.header("user-agent"), "Prometheus/3.14.0");
    let posted = |name: &str, site: &str| {
        json!({
            "labels": {"alertname": name, "site": site}, "annotations": {"summary": "s"},
            "startsAt": "1970-01-01T00:00:01.500Z", "endsAt": "1970-01-01T00:04:01.500Z",
            "generatorURL": "http://here/graph",
        })
    };
    let body = |target: &FakeTarget| serde_json::from_slice::<Value>(&target.seen()[0].body).expect("JSON");
    assert_eq!(body(&all), json!([posted("Own", "own"), posted("B", "north")]));
    assert_eq!(some.seen()[0].path, "/b/api/v2/alerts");
    let mut own = posted("Own", "own");
    own["labels"].as_object_mut().expect("an object").remove("site");
    assert_eq!(body(&some), json!([own]));
    until(|| world.metric("sent_total", Some(&all.url("/api/v2/alerts"))) == Some(2.0)).await;
    assert_eq!(world.metric("alertmanagers_discovered", None), Some(2.0));
    world.notifier.stop().await;
}

#[tokio::test]
async fn an_alertmanager_that_hangs_loses_its_oldest_alerts_and_holds_up_nobody() {
    // Longer than a busy machine takes for what comes meanwhile.
    let hung = FakeTarget::start(Answer::status(200).after(Duration::from_secs(6))).await;
    let good = FakeTarget::start(Answer::status(200)).await;
    let world = World::new(OPTIONS);
    let urls = [hung.url("/"), good.url("/")];
    world.apply(Vec::new(), vec![set(&urls)]);
    world.notifier.send(vec![alert("first")]);
    hung.wait_for(1).await;
    good.wait_for(1).await;
    // Twelve for ten places, while the first is under way.
    world.notifier.send(vec![alert("a0")]);
    good.wait_for(2).await;
    for i in 1..12 {
        world.notifier.send(vec![alert(&format!("a{i}"))]);
    }
    assert_eq!(world.metric("queue_length", Some(&urls[0])), Some(10.0));
    assert_eq!(world.metric("dropped_total", Some(&urls[0])), Some(2.0));
    hung.answer(Answer::status(200));
    hung.wait_for(4).await;
    let expected =
        [vec!["first"], vec!["a2", "a3", "a4", "a5"], vec!["a6", "a7", "a8", "a9"], vec!["a10", "a11"]];
    assert_eq!(names(&hung), expected);
    world.notifier.stop().await;
    assert_eq!(world.metric("queue_length", Some(&urls[0])), None, "it is forgotten");
}

#[tokio::test]
async fn failures_are_counted_and_what_was_not_taken_is_lost() {
    let target = FakeTarget::start(Answer::status(500)).await;
    let world = World::new(OPTIONS);
    let (url, nowhere) = (target.url("/"), "http://127.0.0.1:1/".to_owned());
    let late = FakeTarget::start(Answer::status(200).after(Duration::from_secs(60))).await;
    let impatient = pb::AlertmanagerSet { timeout_ms: 50, ..set(&[late.url("/")]) };
    world.apply(Vec::new(), vec![set(&[url.clone(), nowhere.clone()]), impatient]);
    let alerts = (0..25).map(|i| alert(&format!("a{i}"))).collect();
    world.notifier.send(alerts);
    for url in [&url, &nowhere, &late.url("/")] {
        until(|| world.metric("errors_total", Some(url)) == Some(10.0)).await;
        assert_eq!(
            world.metric("dropped_total", Some(url)),
            Some(25.0),
            "15 for want of place, 10 not taken"
        );
        assert_eq!(world.metric("sent_total", Some(url)), Some(0.0));
    }
    assert_eq!(names(&target)[0], ["a15", "a16", "a17", "a18"]);
    world.notifier.stop().await;
}

#[tokio::test]
async fn a_configuration_that_changes_leaves_the_queues_of_others_alone() {
    let [kept, gone, new] = [
        FakeTarget::start(Answer::status(200).after(Duration::from_millis(300))).await,
        FakeTarget::start(Answer::status(200)).await,
        FakeTarget::start(Answer::status(200)).await,
    ];
    let world = World::new(OPTIONS);
    world.apply(
        Vec::new(),
        vec![set(&[gone.url("/")]), pb::AlertmanagerSet { timeout_ms: 9_000, ..set(&[kept.url("/")]) }],
    );
    world.notifier.send(vec![alert("one")]);
    kept.wait_for(1).await;
    gone.wait_for(1).await;
    world.notifier.send(vec![alert("two")]);
    gone.wait_for(2).await;
    world.apply(
        Vec::new(),
        vec![pb::AlertmanagerSet { timeout_ms: 9_000, ..set(&[kept.url("/"), new.url("/")]) }],
    );
    until(|| world.metric("sent_total", Some(&gone.url("/"))).is_none()).await;
    world.notifier.send(vec![alert("three")]);
    new.wait_for(1).await;
    until(|| names(&kept).concat() == ["one", "two", "three"]).await;
    assert_eq!(
        (names(&gone).concat(), names(&new).concat()),
        (vec!["one".into(), "two".into()], vec!["three".into()])
    );
    world.notifier.stop().await;
}

#[tokio::test]
async fn an_alertmanager_that_is_reached_in_another_way_keeps_its_metrics() {
    let target = FakeTarget::start(Answer::status(200).after(Duration::from_millis(300))).await;
    let world = World::new(OPTIONS);
    let url = target.url("/");
    world.apply(Vec::new(), vec![set(std::slice::from_ref(&url))]);
    world.notifier.send(vec![alert("one")]);
    target.wait_for(1).await;
    world.apply(
        Vec::new(),
        vec![pb::AlertmanagerSet { timeout_ms: 9_000, ..set(std::slice::from_ref(&url)) }],
    );
    until(|| world.metric("sent_total", Some(&url)) == Some(1.0)).await;
    world.notifier.send(vec![alert("two")]);
    until(|| world.metric("sent_total", Some(&url)) == Some(2.0)).await;
    world.notifier.stop().await;
    assert_eq!(world.metric("sent_total", Some(&url)), None);
}

#[tokio::test]
async fn what_waits_is_sent_before_the_end_where_that_is_wished() {
    for (drains, expected) in [(true, 9), (false, 1)] {
        let target = FakeTarget::start(Answer::status(200).after(Duration::from_millis(300))).await;
        let world = World::new(Options { drains, ..OPTIONS });
        world.apply(Vec::new(), vec![set(&[target.url("/")])]);
        world.notifier.send(vec![alert("first")]);
        target.wait_for(1).await;
        world.notifier.send((0..8).map(|i| alert(&format!("a{i}"))).collect());
        world.notifier.stop().await;
        assert_eq!(names(&target).concat().len(), expected, "{drains}");
    }
    // One that does not take them does not hold up the end.
    let target = FakeTarget::start(Answer::status(503).after(Duration::from_millis(300))).await;
    let world = World::new(OPTIONS);
    world.apply(Vec::new(), vec![set(&[target.url("/")])]);
    world.notifier.send(vec![alert("first")]);
    target.wait_for(1).await;
    world.notifier.send((0..8).map(|i| alert(&format!("a{i}"))).collect());
    world.notifier.stop().await;
    assert_eq!(names(&target).len(), 2);
}

#[tokio::test]
async fn what_cannot_be_used_is_left_out() {
    let target = FakeTarget::start(Answer::status(200)).await;
    let world = World::new(OPTIONS);
    let tls = pb::Tls { max_version: "TLS11".to_owned(), ..Default::default() };
    let http = Some(pb::HttpClient { tls: Some(tls), ..Default::default() });
    world.apply(
        Vec::new(),
        vec![pb::AlertmanagerSet { http, ..set(&[target.url("/a")]) }, set(&[target.url("/b")])],
    );
    assert_eq!(world.metric("alertmanagers_discovered", None), Some(1.0));
    // Rules that cannot be used leave the alerting of before.
    world.apply(vec![drop_named("(")], Vec::new());
    world.notifier.send(vec![alert("one")]);
    target.wait_for(1).await;
    assert_eq!(target.seen()[0].path, "/b");
    world.notifier.stop().await;
}
