//! Three levels of federation: two sites with two infrastructure leaves each, a node for each site, one global server.
//!
//! With Prometheus 2.42 in each of the three places once, and Tributary in all others, the global server holds sample by
//! sample what it holds where all seven are Prometheus.

use integration_tests::{Fixture, Kind, Server, eventually, promql};

use crate::pair::{self, family, serve_step};

const INTERVAL_MS: i64 = 2_000;
const STEPS: usize = 9;
const LEAVES: [&str; 4] = ["a1", "a2", "b1", "b2"];
/// The leaf that is away for some steps, and the one that goes for good.
const RESTARTING: (usize, std::ops::Range<usize>) = (0, 3..6);
const DISAPPEARING: (usize, usize) = (3, 5);

fn is_up(leaf: usize, step: usize) -> bool {
    let is_away = leaf == RESTARTING.0 && RESTARTING.1.contains(&step);
    let is_gone = leaf == DISAPPEARING.0 && step >= DISAPPEARING.1;
    !is_away && !is_gone
}

/// A leaf, which scrapes the fixture.
fn leaf(kind: Kind, fixture: &Fixture, number: usize) -> Server {
    let name = LEAVES[number];
    let config = pair::config("app", &fixture.address(), &format!("/{name}"), "");
    Server::start(kind, &labelled(&config, "leaf", name))
}

fn labelled(config: &str, label: &str, value: &str) -> String {
    config.replace("global:\n", &format!("global:\n  external_labels:\n    {label}: {value}\n"))
}

/// What a job that federates adds to its target.
const HONORED: &str =
    "  honor_labels: true\n  params:\n    'match[]': ['{__name__=~\"app_.*|fixture_step\"}']\n";

fn site(kind: Kind, name: &str, leaves: [&Server; 2]) -> Server {
    let targets = format!("{}', '{}", leaves[0].address(), leaves[1].address());
    Server::start(kind, &labelled(&pair::config("federate", &targets, "/federate", HONORED), "site", name))
}

/// The top, which takes everything as it is, and some of it once more under labels of its own.
fn global(kind: Kind, sites: [&Server; 2]) -> Server {
    let [a, b] = sites.map(Server::address);
    let config = pair::config("federate", &format!("{a}', '{b}"), "/federate", HONORED);
    let relabelled = format!(
        "- job_name: own\n  metrics_path: /federate\n  params:\n    'match[]': ['app_requests_total', 'app_labelled']\n  \
         static_configs:\n  - targets: ['{a}']\n    labels: {{instance: site-a, team: global}}\n  \
         - targets: ['{b}']\n    labels: {{instance: site-b, team: global}}\n  \
         metric_relabel_configs:\n  - source_labels: [path]\n    regex: /1\n    action: drop\n  \
         - regex: note\n    action: labeldrop\n  \
         - source_labels: [__name__]\n    regex: app_labelled\n    target_label: __name__\n    replacement: renamed\n"
    );
    Server::start(kind, &(config + &relabelled))
}

fn body(leaf: usize, step: usize, at: i64) -> String {
    let mut body = String::new();
    let counters = (0..3).map(|i| {
        let name = format!("app_requests_total{{path=\"/{i}\",note=\"a \\\"quote\\\"\"}}");
        // A counter that starts anew now and then.
        (name, ((step + i) % 4) as f64 * (leaf as f64 + 1.1))
    });
    family(&mut body, "app_requests_total", "counter", at, &counters.collect::<Vec<_>>());
    let buckets = ["0.5", "1.0", "+Inf"].iter().enumerate();
    let histogram: Vec<_> = buckets
        .map(|(i, le)| (format!("app_seconds_bucket{{le=\"{le}\"}}"), (step * (i + 1)) as f64))
        .collect();
    family(&mut body, "app_seconds", "histogram", at, &histogram);
    // Labels of its own that those of leaf, site and global would take.
    let labels = format!("leaf=\"mine{leaf}\",site=\"mine\",team=\"app\",job=\"exported\"");
    family(
        &mut body,
        "app_labelled",
        "gauge",
        at,
        &[(format!("app_labelled{{{labels}}}"), step as f64 * 1e7)],
    );
    body
}

#[test]
fn prometheus_in_any_place_makes_no_difference() {
    use Kind::{Prometheus, Tributary};
    let fixture = Fixture::start();
    let mut old: Vec<Server> = (0..4).map(|number| leaf(Prometheus, &fixture, number)).collect();
    let mut our: Vec<Server> = (0..4).map(|number| leaf(Tributary, &fixture, number)).collect();
    let old_sites = [site(Prometheus, "a", [&old[0], &old[1]]), site(Prometheus, "b", [&old[2], &old[3]])];
    let our_sites = [site(Tributary, "a", [&our[0], &our[1]]), site(Tributary, "b", [&our[2], &our[3]])];
    let over_old_leaf = site(Tributary, "a", [&old[0], &our[1]]);
    let old_site = site(Prometheus, "a", [&our[0], &our[1]]);
    let reference = global(Prometheus, [&old_sites[0], &old_sites[1]]);
    let mixes = [
        ("Prometheus as a leaf", global(Tributary, [&over_old_leaf, &our_sites[1]])),
        ("Prometheus as a site", global(Tributary, [&old_site, &our_sites[1]])),
        ("Prometheus as the global one", global(Prometheus, [&our_sites[0], &our_sites[1]])),
    ];
    // All within the lookback of `/federate`, and never ahead of the clock.
    let base = pair::base_ms(60_000);
    let mut end = base;
    for step in 0..STEPS {
        for (leaf, from) in [(RESTARTING.0, RESTARTING.1.start), DISAPPEARING] {
            if step == from {
                old[leaf].stop();
                our[leaf].stop();
            }
        }
        if step == RESTARTING.1.end {
            old[RESTARTING.0].start_again();
            our[RESTARTING.0].start_again();
        }
        end = base + INTERVAL_MS * i64::try_from(step).expect("small");
        let up: Vec<usize> = (0..4).filter(|leaf| is_up(*leaf, step)).collect();
        for leaf in &up {
            serve_step(&fixture, &format!("/{}", LEAVES[*leaf]), step, end, &body(*leaf, step, end));
        }
        // Of both jobs at the top, since each scrapes by itself.
        let arrived = format!(
            "count(fixture_step == {step} and timestamp(fixture_step) == {0}) + count(timestamp(renamed{{job=\"own\"}}) == {0})",
            promql::seconds(end)
        );
        for server in mixes.iter().map(|(_, server)| server).chain([&reference]) {
            eventually(&format!("step {step} is at the top"), || {
                let count = promql::single(&server.http(), &arrived, end + 1);
                count.filter(|count| *count == 2.0 * up.len() as f64)
            });
        }
    }
    let everything = "{__name__=~\"app_.*|renamed|fixture_step\"}[10m]";
    let want = promql::instant(&reference.http(), everything, end + 1);
    // Of each leaf 3 counters, 3 buckets, its labelled gauge and the step; at the top 2 counters and the gauge anew.
    assert_eq!(want.series.len(), 4 * (8 + 3));
    let shown = |name: &str| {
        let found = want.series.iter().find(|s| s.labels["__name__"] == name && s.labels["job"] != "app");
        format!("{:?}", found.map(|s| &s.labels))
    };
    let renamed = shown("renamed");
    for part in [
        "exported_team\": \"app\"",
        "team\": \"global\"",
        "instance\": \"site-",
        "exported_job\": \"exported\"",
    ] {
        assert!(renamed.contains(part), "{part} in {renamed}");
    }
    for (mix, server) in &mixes {
        let got = promql::instant(&server.http(), everything, end + 1);
        assert_eq!(promql::differences(&got, &want), Vec::<String>::new(), "{mix}");
    }
}
