//! Rules in a cluster: its queriers share the groups.

use std::collections::BTreeMap;

use integration_tests::{Server, Store, eventually, now_ms, promql};
use serde_json::Value;

use super::rule_file;

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
    assert_eq!(owned(&mut server, "querier-0"), GROUPS);
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
