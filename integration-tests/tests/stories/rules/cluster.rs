//! Rules in a cluster: its queriers share the groups, and need every ingester.

use std::collections::{BTreeMap, BTreeSet};

use integration_tests::{Http, Server, Store, eventually, now_ms, promql, write};
use model::{Labels, Timestamp};
use remote_protocol::SeriesOut;
use serde_json::Value;

use super::{evaluated_at, rule_file};

/// How many groups there are: both queriers have some with near certainty, and the rendezvous is fixed.
const GROUPS: usize = 8;

#[test]
fn groups_go_on_when_their_querier_dies() {
    let group = |i: usize| {
        format!(
            "- name: g{i}\n  interval: 2s\n  rules:\n  - {{record: 'rec{i}', expr: 'vector({i})'}}\n  \
             - {{alert: A{i}, expr: 'vector(1)', for: 1h}}\n"
        )
    };
    let (_folder, path) = rule_file(&format!("groups:\n{}", (0..GROUPS).map(group).collect::<String>()));
    let mut server = Server::start_cluster(&format!("rule_files: ['{path}']\n"), Store::Folder);
    let http = server.http();
    let active = || -> BTreeMap<String, String> {
        let alerts = http.try_get("/api/v1/alerts", &[]).filter(|reply| reply.status == 200);
        let alerts = alerts.map(|reply| reply.data()).unwrap_or_default();
        let one = |alert: &Value| {
            let since = alert["activeAt"].as_str()?.get(..19)?.to_owned();
            Some((alert["labels"]["alertname"].as_str()?.to_owned(), since))
        };
        alerts["alerts"].as_array().into_iter().flatten().filter_map(one).collect()
    };
    let owned = |server: &mut Server, name: &str| {
        let metrics = server.cluster().http(name).get("/metrics", &[]).body;
        metrics.lines().filter(|line| line.starts_with("prometheus_rule_group_rules{")).count()
    };
    eventually("every group is evaluated by one querier", || {
        let shares = ["querier-0", "querier-1"].map(|name| owned(&mut server, name));
        (shares[0] + shares[1] == GROUPS && shares.iter().all(|share| *share > 0)).then_some(())
    });
    // A gateway may still ask the querier that is dead.
    let has_all = |since: i64| {
        let time = promql::seconds(now_ms());
        let parameters = [("query", "{__name__=~\"rec.*\"}[10s]"), ("time", &time)];
        let reply = http.try_get("/api/v1/query", &parameters).filter(|reply| reply.status == 200);
        let data = reply.map(|reply| reply.data()).unwrap_or_default();
        let is_new = |series: &&Value| {
            let last = series["values"].as_array().and_then(|values| values.last());
            last.and_then(|last| last[0].as_f64()).is_some_and(|time| time * 1000.0 > since as f64)
        };
        data["result"].as_array().into_iter().flatten().filter(is_new).count() == GROUPS
    };
    let started = now_ms();
    eventually("all have recorded", || has_all(started).then_some(()));
    let before = eventually("all alerts wait", || Some(active()).filter(|all| all.len() == GROUPS));
    // Written from the third evaluation on.
    eventually("since when they do is written", || {
        let written = promql::single(&http, "count(ALERTS_FOR_STATE)", now_ms());
        written.filter(|count| *count == GROUPS as f64)
    });
    server.cluster().kill_9_member("querier-1");
    let killed = now_ms();
    eventually("all go on", || has_all(killed + 4_000).then_some(()));
    eventually("one querier has all", || (owned(&mut server, "querier-0") == GROUPS).then_some(()));
    // Taken over as they were: nobody waits anew.
    assert_eq!(
        eventually("all alerts are there", || Some(active()).filter(|all| all.len() == GROUPS)),
        before
    );
    // No time was written twice, and no value but the right one.
    for i in 0..GROUPS {
        let all = promql::instant(&http, &format!("rec{i}[5m]"), now_ms());
        assert_eq!(all.series.len(), 1, "{all:?}");
        let floats = &all.series[0].floats;
        assert!(floats.iter().all(|(_, v)| *v == i as f64), "{floats:?}");
        assert!(floats.windows(2).all(|pair| pair[1].0 > pair[0].0 && (pair[1].0 - pair[0].0) % 2_000 == 0));
    }
}

/// How many series there are, of as many scrape groups, so that both ingesters have some. Each is a power of two: no
/// part of them adds up to what all do.
const PARTS: i32 = 12;
const WHOLE: f64 = 4_095.0;
/// The rules that need every log, in their order.
const NEED_ALL: [&str; 3] = ["all:sum", "all:count", "Fewer"];

/// Writes all series at this time; again, and at a later one, where members had to find each other first.
fn write_parts(http: &Http, factor: f64) {
    let part = |i: i32| SeriesOut {
        labels: Labels::from_pairs([
            ("__name__", "part"),
            ("job", "parts"),
            ("instance", format!("i{i}").as_str()),
        ]),
        floats: vec![(Timestamp(now_ms()), factor * f64::powi(2.0, i))],
        ..SeriesOut::default()
    };
    eventually("a write is taken", || {
        let reply = write(http, &(0..PARTS).map(part).collect::<Vec<_>>()).expect("an answer");
        assert!(matches!(reply.status, 204 | 503), "{}", reply.body);
        (reply.status == 204).then_some(())
    });
}

/// When the rules that need every log were last evaluated, where all of them failed for an ingester.
fn failed_at(http: &Http, ingester: &str) -> Option<i64> {
    let data = http.get("/api/v1/rules", &[]).data();
    let rules = data["groups"][0]["rules"].as_array()?;
    let is_failed = |name: &&str| {
        let rule = rules.iter().find(|rule| rule["name"] == **name);
        rule.is_some_and(|rule| {
            let error = rule["lastError"].as_str().unwrap_or_default();
            rule["health"] == "err" && error.contains(&format!(" of {ingester}: "))
        })
    };
    evaluated_at(&rules[0]).filter(|_| NEED_ALL.iter().all(is_failed))
}

#[test]
fn rules_that_need_an_ingester_that_is_away_fail_and_record_nothing() {
    let (_folder, path) = rule_file(&format!(
        "groups:\n- name: g\n  interval: 1s\n  rules:\n  \
         - {{record: 'all:sum', expr: 'sum(last_over_time(part[1h]))'}}\n  \
         - {{record: 'all:count', expr: 'count(last_over_time(part[1h]))'}}\n  \
         - {{alert: Fewer, expr: 'count(last_over_time(part[1h])) < {PARTS}'}}\n"
    ));
    let mut server = Server::start_cluster(&format!("rule_files: ['{path}']\n"), Store::Folder);
    let http = server.http();
    let recorded = |name: &str| -> Vec<(i64, f64)> {
        let answer = promql::instant_once_answered(&http, &format!("{name}[10m]"), now_ms());
        answer.series.into_iter().flat_map(|series| series.floats).collect()
    };
    // From the first evaluation on that sees all, every one does.
    let wait_for = |sum: f64| {
        eventually(&format!("{sum} is recorded"), || {
            recorded("all:sum").into_iter().find(|(_, value)| *value == sum).map(|(time, _)| time)
        })
    };
    write_parts(&http, 1.0);
    let since = wait_for(WHOLE);

    server.cluster().pause("ingester-1");
    let mut failed = BTreeSet::new();
    eventually("evaluations fail, and say for whom", || {
        failed.extend(failed_at(&http, "ingester-1"));
        (failed.len() >= 2).then_some(())
    });
    let partial = [("query", "sum(last_over_time(part[1h]))"), ("partial_response", "true")];
    let partial = http.get("/api/v1/query", &partial).data();
    let partial = partial["result"][0]["value"][1].as_str().and_then(|sum| sum.parse::<f64>().ok());
    assert!(partial.is_some_and(|sum| sum < WHOLE), "both ingesters have some: {partial:?}");
    server.cluster().resume("ingester-1");

    let resumed = now_ms();
    eventually("recording goes on", || recorded("all:sum").pop().filter(|(time, _)| *time > resumed));
    let before = now_ms();
    write_parts(&http, 2.0);
    let after = wait_for(2.0 * WHOLE);
    let (sums, counts) = (recorded("all:sum"), recorded("all:count"));
    let wrong = |(time, value): &&(i64, f64)| match *time {
        time if time < since => false,
        time if time < before => *value != WHOLE,
        time if time < after => !(WHOLE..=2.0 * WHOLE).contains(value),
        _ => *value != 2.0 * WHOLE,
    };
    assert_eq!(sums.iter().find(wrong), None, "whole since {since}, written again at {before}, {sums:?}");
    let counts: Vec<_> = counts.into_iter().filter(|(time, _)| *time >= since).collect();
    assert!(counts.iter().all(|(_, count)| *count == f64::from(PARTS)), "{counts:?}");
    // What failed gave neither a sample nor a staleness marker.
    for time in &failed {
        assert!(sums.iter().chain(&counts).all(|(recorded, _)| recorded != time), "{time} in {sums:?}");
        assert_eq!(promql::single(&http, "all:sum", *time), Some(WHOLE), "at {time}");
    }
    let fired = recorded("ALERTS{alertname=\"Fewer\"}");
    assert!(fired.iter().all(|(time, _)| *time < since), "{fired:?}");
}
