//! Alerts reach Alertmanagers: as Prometheus 3.5 sends them, from the top of a tree, and once when their querier dies.

use std::collections::BTreeSet;
use std::fs;

use integration_tests::{Alertmanager, Fixture, Http, Kind, Notice, Server, eventually, now_ms, promql};
use serde_json::{Value, json};
use test_kit::{Answer, FakeTarget};

/// An alert that fires at once, with all that may be told of it.
const LOAD: &str = "
groups:
- name: g
  interval: 1s
  rules:
  - alert: Load
    expr: load > 3
    labels: {severity: page, secret: x}
    annotations: {summary: '{{ $labels.inst }} has {{ $value }}', url: '{{ externalURL }}'}
";

/// A server that sends alerts to a fake Alertmanager, and to none of those that relabelling drops.
struct Sender {
    server: Server,
    alertmanager: FakeTarget,
}

impl Sender {
    async fn start(kind: Kind, fixture: &Fixture, rules: &str) -> Self {
        let alertmanager = FakeTarget::start(Answer::status(200)).await;
        let config = format!(
            "global: {{scrape_interval: 500ms, scrape_timeout: 500ms, external_labels: {{site: north, severity: low}}}}\n\
             rule_files: ['{rules}']\n\
             alerting:\n  alert_relabel_configs: [{{regex: secret, action: labeldrop}}]\n  alertmanagers:\n  \
             - path_prefix: /am\n    authorization: {{credentials: token}}\n    \
             static_configs: [{{targets: ['{}', 'gone:1']}}]\n    \
             relabel_configs: [{{source_labels: [__address__], regex: 'gone:.*', action: drop}}]\n\
             scrape_configs: [{{job_name: fixture, static_configs: [{{targets: ['{}']}}]}}]\n",
            alertmanager.address(),
            fixture.address(),
        );
        Self { server: Server::start(kind, &config), alertmanager }
    }

    /// A text without what differs from server to server.
    fn without_ports(&self, text: &str) -> String {
        let address = self.server.address();
        let port = address.rsplit_once(':').expect("host and port").1;
        text.replace(&self.alertmanager.address().to_string(), "ALERTMANAGER").replace(port, "PORT")
    }

    /// Every alert that was posted; instead of times how long it stands, or that it is over.
    fn posted(&self) -> Vec<Value> {
        let time = |alert: &Value, name: &str| {
            let text = alert[name].as_str().expect("a time");
            text.parse::<jiff::Timestamp>().expect("RFC 3339").as_millisecond()
        };
        let mut alerts = Vec::new();
        for seen in self.alertmanager.seen() {
            assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/am/api/v2/alerts"));
            assert_eq!(seen.header("content-type"), "application/json");
            assert_eq!(seen.header("authorization"), "Bearer token");
            let body = self.without_ports(std::str::from_utf8(&seen.body).expect("text"));
            for mut alert in serde_json::from_str::<Vec<Value>>(&body).expect("a list of alerts") {
                let stands_ms = time(&alert, "endsAt") - time(&alert, "startsAt");
                alert["endsAt"] = if stands_ms < 200_000 { json!("over") } else { json!(stands_ms) };
                alert.as_object_mut().expect("an object").remove("startsAt");
                alerts.push(alert);
            }
        }
        alerts
    }

    fn alertmanagers(&self) -> String {
        self.without_ports(&self.server.http().get("/api/v1/alertmanagers", &[]).body)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_are_sent_as_prometheus_sends_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("r.yml");
    fs::write(&path, LOAD).expect("a rule file");
    let fixture = Fixture::start();
    // What tells its time is not taken for gone where a busy machine lets a scrape run out of its own.
    let serve = |load: u32| {
        let at = now_ms();
        fixture.serve("/metrics", format!("load{{inst=\"a\"}} {load} {at}\nload{{inst=\"b\"}} 1 {at}\n"));
    };
    serve(1);
    let rules = path.to_string_lossy();
    let prometheus = Sender::start(Kind::Prometheus3, &fixture, &rules).await;
    let tributary = Sender::start(Kind::Tributary, &fixture, &rules).await;
    let both = [&prometheus, &tributary];
    // What is sent before that reaches nobody.
    for sender in both {
        eventually("its Alertmanager is known", || {
            sender.alertmanagers().contains("ALERTMANAGER").then_some(())
        });
    }
    serve(5);
    for sender in both {
        eventually("it fires", || Some(sender.posted()).filter(|alerts| alerts.len() == 1));
    }
    serve(2);
    for sender in both {
        eventually("it is over", || Some(sender.posted()).filter(|alerts| alerts.len() == 2));
    }
    let [want, got] = both.map(Sender::posted);
    assert_eq!(got, want);
    // Four times the resend delay; what an alert says of itself goes before external labels.
    assert_eq!((&got[0]["endsAt"], &got[1]["endsAt"]), (&json!(240_000), &json!("over")));
    let labels = json!({
        "alertname": "Load", "inst": "a", "instance": fixture.address(), "job": "fixture",
        "severity": "page", "site": "north",
    });
    assert_eq!(got[0]["labels"], labels);
    assert_eq!(tributary.alertmanagers(), prometheus.alertmanagers());
    assert!(tributary.alertmanagers().contains("gone:1"), "{}", tributary.alertmanagers());
}

/// The metrics of rules and notifications, as types of families and as series without values.
fn metrics(sender: &Sender) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for http in sender.server.queriers() {
        let text = sender.without_ports(&http.get("/metrics", &[]).body);
        let lines = text.lines().filter(|line| {
            let name = line.strip_prefix("# TYPE ").unwrap_or(line);
            name.starts_with("prometheus_rule_") || name.starts_with("prometheus_notifications_")
        });
        for line in lines {
            found.insert(match line.strip_prefix("# TYPE ") {
                // In the one format a counter's family is named like its series, in the other without the end.
                Some(_) => line.replace("_total counter", " counter"),
                None => line.rsplit_once(' ').expect("a series and a value").0.to_owned(),
            });
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_of_rules_and_notifications_are_those_of_prometheus() {
    let (_folder, rules) = rule_file(LOAD);
    let fixture = Fixture::start();
    fixture.serve("/metrics", "load{inst=\"a\"} 5\n");
    let prometheus = Sender::start(Kind::Prometheus3, &fixture, &rules).await;
    let tributary = Sender::start(Kind::Tributary, &fixture, &rules).await;
    let [mut want, mut got] = [&prometheus, &tributary].map(|sender| {
        eventually("alerts were restored, and one was sent", || {
            let all = metrics(sender);
            let has = |begin: &str| all.iter().any(|line| line.starts_with(begin));
            let is_there = has("prometheus_rule_group_last_restore_duration_seconds{")
                && has("prometheus_notifications_latency_seconds{")
                && !sender.posted().is_empty();
            is_there.then_some(all)
        })
    });
    // Later versions than 3.5 tell the durations as histograms as well, and have a queue for each Alertmanager.
    for histogram in ["rule_evaluation_duration", "rule_group_duration", "notifications_latency"] {
        let name = format!("prometheus_{histogram}_histogram_seconds");
        assert!(got.remove(&format!("# TYPE {name} histogram")), "{name} in {got:?}");
        got.retain(|line| !line.starts_with(&name));
    }
    for of_queue in ["dropped_total", "queue_length"] {
        let name = format!("prometheus_notifications_{of_queue}");
        assert!(want.remove(&name), "{name} in {want:?}");
        want.insert(format!("{name}{{alertmanager=\"http://ALERTMANAGER/am/api/v2/alerts\"}}"));
    }
    assert_eq!(got, want);
    assert!(got.contains("# TYPE prometheus_rule_group_duration_seconds summary"), "{got:?}");
}

/// A rule file in a folder of its own, which lives as long as the value.
fn rule_file(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("r.yml");
    fs::write(&path, text).expect("a rule file");
    let path = path.to_string_lossy().into_owned();
    (folder, path)
}

const LEAVES: [&str; 2] = ["a", "b"];
const JOBS: [&str; 2] = ["web", "batch"];

/// A server that federates series of others, and has rules.
fn above(of: &[&Server], series: &str, global: &str, rules: &str, more: &str) -> Server {
    let targets: Vec<String> = of.iter().map(|server| format!("'{}'", server.address())).collect();
    Server::start(
        Kind::Tributary,
        &format!(
            "global: {{scrape_interval: 500ms, scrape_timeout: 500ms, external_labels: {{{global}}}}}\n\
             rule_files: ['{rules}']\n{more}scrape_configs:\n- job_name: federate\n  honor_labels: true\n  \
             metrics_path: /federate\n  params: {{'match[]': ['{{__name__=~\"{series}:.*\"}}']}}\n  \
             static_configs: [{{targets: [{}]}}]\n",
            targets.join(", ")
        ),
    )
}

/// The depth of each queue: of leaf, job and shard.
fn serve_queues(fixture: &Fixture, depth: impl Fn(usize, usize, usize) -> usize) {
    for (leaf, name) in LEAVES.iter().enumerate() {
        for (job, of_job) in JOBS.iter().enumerate() {
            let of_shard = |shard| format!("queue_length{{shard=\"{shard}\"}} {}\n", depth(leaf, job, shard));
            fixture.serve(&format!("/{name}/{of_job}"), (0..3).map(of_shard).collect::<String>());
        }
    }
}

#[test]
fn the_top_of_a_tree_alerts_on_what_its_leaves_record() {
    let rules = |record: &str, expr: &str| {
        rule_file(&format!(
            "groups:\n- name: g\n  interval: 500ms\n  rules: [{{record: '{record}', expr: '{expr}'}}]\n"
        ))
    };
    let (_of_leaf, leaf_rules) = rules("job:queue_length:sum", "sum by (job) (queue_length)");
    let (_of_site, site_rules) = rules("site:queue_length:sum", "sum by (job) (job:queue_length:sum)");
    let (_of_top, top_rules) = rule_file(
        "groups:\n- name: g\n  interval: 500ms\n  rules:\n  - alert: QueueLong\n    expr: site:queue_length:sum > 100\n    \
         for: 2s\n    labels: {severity: page}\n    annotations: {summary: '{{ $labels.job }}: {{ $value }}'}\n",
    );
    let fixture = Fixture::start();
    serve_queues(&fixture, |leaf, job, shard| 1 + leaf + job + shard);
    let leaves = LEAVES.map(|name| {
        let job = |job: &str| {
            format!(
                "- {{job_name: {job}, metrics_path: /{name}/{job}, static_configs: [{{targets: ['{}']}}]}}\n",
                fixture.address()
            )
        };
        let config = format!(
            "global: {{scrape_interval: 500ms, scrape_timeout: 500ms, external_labels: {{leaf: {name}}}}}\n\
             rule_files: ['{leaf_rules}']\nscrape_configs:\n{}",
            JOBS.map(job).concat()
        );
        Server::start(Kind::Tributary, &config)
    });
    let site = above(&leaves.each_ref(), "job", "site: north", &site_rules, "");
    let alertmanager = Alertmanager::start(&["alertname", "job"]);
    let alerting = format!(
        "alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{}']}}]}}]}}\n",
        alertmanager.address()
    );
    let top = above(&[&site], "site", "top: t", &top_rules, &alerting);

    // Every level holds the sums of what lies below it.
    let holds = |server: &Server, series: &str, value: usize| {
        eventually(&format!("{series} is {value}"), || {
            promql::single(&server.http(), series, now_ms()).filter(|v| *v == value as f64)
        });
    };
    holds(&leaves[1], "job:queue_length:sum{job=\"batch\"}", (1 + 1 + 1) * 3 + 3);
    holds(&site, "job:queue_length:sum{job=\"web\",leaf=\"a\"}", 3 + 3);
    holds(&top, "site:queue_length:sum{job=\"web\",site=\"north\"}", 3 + 3 + 6 + 3);
    assert_eq!(alertmanager.notices(), Vec::<Notice>::new());

    // The other leaf's are short before that: no sum on the way is long by what is over.
    serve_queues(&fixture, |leaf, job, shard| if leaf == 0 { 1 + job + shard } else { 1 });
    for (job, value) in [("web", 6 + 3), ("batch", 9 + 3)] {
        holds(&top, &format!("site:queue_length:sum{{job=\"{job}\",site=\"north\"}}"), value);
    }
    // Both jobs' queues are long, by what one leaf alone has.
    serve_queues(&fixture, |leaf, job, _| if leaf == 0 { 40 + job } else { 1 });
    let of_job = |job: &str| -> Vec<Notice> {
        alertmanager.notices().into_iter().filter(|notice| notice.group["job"] == job).collect()
    };
    for (job, value) in [("web", 123), ("batch", 126)] {
        let notices = eventually("it is told", || Some(of_job(job)).filter(|all| !all.is_empty()));
        assert_eq!(notices[0].status, "firing");
        let [alert] = &notices[0].alerts[..] else { panic!("one alert: {notices:?}") };
        let labels = json!({
            "alertname": "QueueLong", "job": job, "site": "north", "severity": "page", "top": "t",
        });
        assert_eq!(alert["labels"], labels);
        assert_eq!(alert["annotations"]["summary"], format!("{job}: {value}"));
    }
    serve_queues(&fixture, |_, _, _| 1);
    for job in JOBS {
        eventually("it is over", || of_job(job).last().filter(|last| last.status == "resolved").map(|_| ()));
    }
    // Nobody was told twice.
    for job in JOBS {
        let told: Vec<_> = of_job(job).into_iter().map(|notice| notice.status).collect();
        assert_eq!(told, ["firing", "resolved"], "{job}");
    }
}

/// A querier of a cluster goes away while an alert waits.
mod cluster {
    use integration_tests::{Cluster, Store};

    use super::*;

    const INTERVAL_MS: i64 = 10_000;
    /// How many intervals the alert waits: it fires at the fifth evaluation behind the one that found it.
    const FIRES_AFTER: i64 = 5;

    struct Story {
        server: Server,
        alertmanager: Alertmanager,
        _rules: tempfile::TempDir,
        /// The querier that has the group when the alert begins to wait.
        owner: &'static str,
        /// When the alert began to wait.
        active_at: i64,
        active_at_text: String,
    }

    impl Story {
        /// Starts a cluster with one group, up to when the third evaluation is written: from it on the alert is known
        /// to others.
        fn start() -> Self {
            let hold = INTERVAL_MS * FIRES_AFTER - INTERVAL_MS / 2;
            let (folder, rules) = rule_file(&format!(
                "groups:\n- name: g\n  interval: {INTERVAL_MS}ms\n  rules:\n  - {{record: rec, expr: 'vector(1)'}}\n  \
                 - {{alert: A, expr: 'vector(1)', for: {hold}ms}}\n"
            ));
            let alertmanager = Alertmanager::start(&["alertname"]);
            let config = format!(
                "rule_files: ['{rules}']\nalerting: {{alertmanagers: [{{static_configs: [{{targets: ['{}']}}]}}]}}\n",
                alertmanager.address()
            );
            let mut server = Server::start_cluster(&config, Store::Folder);
            let http = server.http();
            let written = eventually("since when the alert waits is written", || {
                promql::single(&http, "ALERTS_FOR_STATE", now_ms())
            });
            let owns = |name: &&str| {
                let metrics = server.cluster().http(name).get("/metrics", &[]).body;
                metrics.lines().any(|line| line.starts_with("prometheus_rule_group_rules{"))
            };
            let owner = ["querier-0", "querier-1"].into_iter().find(owns).expect("one has it");
            let active_at_text = alert(&http).expect("it waits").0;
            let first = evaluations(&http)[0];
            // Series remember whole seconds.
            assert_eq!(written, (first / 1000) as f64);
            Self { server, alertmanager, _rules: folder, owner, active_at: first, active_at_text }
        }

        /// Waits until the alert fires, which is at its time, once, and with nothing lost of its past.
        fn check_that_it_fires(&self) {
            let http = self.server.http();
            eventually("it is told", || Some(()).filter(|()| !self.alertmanager.notices().is_empty()));
            let firing = promql::instant(&http, "ALERTS{alertstate=\"firing\"}[5m]", now_ms());
            assert_eq!(firing.series[0].floats[0].0, self.active_at + INTERVAL_MS * FIRES_AFTER);
            // It is told before it is shown.
            let (active_at, _) =
                eventually("it is shown as firing", || alert(&http).filter(|(_, state)| state == "firing"));
            assert_eq!(active_at[..19], self.active_at_text[..19]);
            // The third was the last of the owner's; the one at which the alert fires is the latest that may be next.
            let times = evaluations(&http);
            let gaps: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let is_whole = |gap: &i64| (1..=FIRES_AFTER - 2).any(|count| *gap == count * INTERVAL_MS);
            assert!(gaps.iter().all(is_whole), "{gaps:?}");
        }

        /// Nobody was told twice, or that it is over.
        fn check_that_it_was_told_once(&self) {
            let told: Vec<_> =
                self.alertmanager.notices().into_iter().map(|n| (n.status, n.alerts.len())).collect();
            assert_eq!(told, [("firing".to_owned(), 1)]);
        }

        fn cluster(&mut self) -> &mut Cluster {
            self.server.cluster()
        }
    }

    /// The times of all evaluations.
    fn evaluations(http: &Http) -> Vec<i64> {
        let all = promql::instant(http, "rec[10m]", now_ms());
        all.series[0].floats.iter().map(|(time, _)| *time).collect()
    }

    /// Since when the alert is active, and its state; a gateway may still ask the querier that is away.
    fn alert(http: &Http) -> Option<(String, String)> {
        let data = http.try_get("/api/v1/alerts", &[]).filter(|reply| reply.status == 200)?.data();
        let alert = &data["alerts"][0];
        Some((alert["activeAt"].as_str()?.to_owned(), alert["state"].as_str()?.to_owned()))
    }

    #[test]
    fn an_alert_whose_querier_is_killed_fires_once_and_in_time() {
        let mut story = Story::start();
        let owner = story.owner;
        story.cluster().kill_9_member(owner);
        story.check_that_it_fires();
        story.check_that_it_was_told_once();
    }

    #[test]
    fn a_querier_that_wakes_up_writes_nothing_for_who_took_over() {
        let mut story = Story::start();
        let owner = story.owner;
        story.cluster().pause(owner);
        story.check_that_it_fires();
        let http = story.server.http();
        let before = evaluations(&http);
        let missed =
            before.windows(2).find(|pair| pair[1] - pair[0] > INTERVAL_MS).map(|pair| pair[0] + INTERVAL_MS);
        let missed = missed.expect("an evaluation fell out while nobody had the group");
        story.cluster().resume(owner);
        // It wakes up with the evaluation that it missed to do. Two later ones are waited for: whoever does them, the
        // missed one is over by then.
        let last = before[before.len() - 1];
        let after = eventually("evaluations go on", || {
            Some(evaluations(&http)).filter(|times| times[times.len() - 1] >= last + 2 * INTERVAL_MS)
        });
        assert!(!after.contains(&missed), "{missed} in {after:?}");
        story.check_that_it_was_told_once();
    }
}
