//! Hierarchical federation: two leaves, and a global server that scrapes their `/federate`.
//!
//! Every mix of Tributary and Prometheus 2.42 holds at the top, sample by sample, what a global 2.42 over 2.42 leaves
//! holds.

use integration_tests::{Fixture, Kind, Server, promql};

use crate::pair::{self, family, serve_step, wait_for_step};

const INTERVAL_MS: i64 = 2_000;
const STEPS: usize = 20;
const DATACENTRES: [&str; 2] = ["a", "b"];

/// Two leaves of a kind, which scrape the fixture.
fn leaves(kind: Kind, fixture: &Fixture) -> [Server; 2] {
    DATACENTRES.map(|dc| {
        let config = pair::config("app", &fixture.address(), &format!("/{dc}"), "");
        let external = format!("global:\n  external_labels:\n    dc: {dc}\n");
        Server::start(kind, &config.replace("global:\n", &external))
    })
}

/// A server that federates from leaves.
fn global(kind: Kind, leaves: &[Server; 2]) -> Server {
    let targets = format!("{}', '{}", leaves[0].address(), leaves[1].address());
    let more = "  honor_labels: true\n  params:\n    'match[]': ['{__name__=~\"app_.*|fixture_step\"}', '{job=\"nobody\"}']\n";
    Server::start(kind, &pair::config("federate", &targets, "/federate", more))
}

fn body(dc: usize, step: usize, at: i64) -> String {
    let mut body = String::new();
    let counters = (0..4).map(|i| {
        let name = format!("app_requests_total{{path=\"/{i}\",note=\"a \\\"quote\\\" and \\\\\"}}");
        (name, ((step + i) % 13) as f64 * (dc as f64 + 1.1))
    });
    family(&mut body, "app_requests_total", "counter", at, &counters.collect::<Vec<_>>());
    let buckets = ["0.5", "1.0", "+Inf"].iter().enumerate();
    let mut histogram: Vec<_> = buckets
        .map(|(i, le)| (format!("app_seconds_bucket{{le=\"{le}\"}}"), (step * (i + 1)) as f64))
        .collect();
    histogram.push(("app_seconds_sum".to_owned(), step as f64 / 3.0));
    histogram.push(("app_seconds_count".to_owned(), (step * 3) as f64));
    family(&mut body, "app_seconds", "histogram", at, &histogram);
    // Own labels that the leaf's and the global's target labels would take.
    let labelled = [("app_labelled{dc=\"mine\",job=\"exported\"}".to_owned(), step as f64 * 1e7 + 0.5)];
    family(&mut body, "app_labelled", "gauge", at, &labelled);
    if (step / 4).is_multiple_of(2) {
        family(&mut body, "app_flapping", "gauge", at, &[("app_flapping".to_owned(), -1e-7 * step as f64)]);
    }
    body
}

#[test]
fn every_mix_holds_what_the_reference_holds() {
    let fixture = Fixture::start();
    let old_leaves = leaves(Kind::Prometheus, &fixture);
    let our_leaves = leaves(Kind::Tributary, &fixture);
    let reference = global(Kind::Prometheus, &old_leaves);
    let mixes = [
        ("Tributary over Tributary", global(Kind::Tributary, &our_leaves)),
        ("Tributary over Prometheus", global(Kind::Tributary, &old_leaves)),
        ("Prometheus over Tributary", global(Kind::Prometheus, &our_leaves)),
    ];
    // All within the lookback of `/federate`, and never ahead of the clock.
    let base = pair::base_ms(60_000);
    let mut end = base;
    for step in 0..STEPS {
        end = base + INTERVAL_MS * i64::try_from(step).expect("small");
        for (number, dc) in DATACENTRES.iter().enumerate() {
            serve_step(&fixture, &format!("/{dc}"), step, end, &body(number, step, end));
        }
        for server in mixes.iter().map(|(_, server)| server).chain([&reference]) {
            for dc in DATACENTRES {
                wait_for_step(server, &format!("app\",dc=\"{dc}"), step, end);
            }
        }
    }
    let everything = "{__name__=~\"app_.*|fixture_step\"}[10m]";
    let want = promql::instant(&reference.http(), everything, end + 1);
    // Per leaf 4 counters, 3 buckets, sum, count, the flapping and the step; of both the one with a `dc` of its own.
    assert_eq!(want.series.len(), 2 * 11 + 1);
    let most = want.series.iter().map(|s| s.floats.len()).max();
    assert_eq!(most, Some(STEPS), "the reference missed no step");
    for (mix, server) in &mixes {
        let got = promql::instant(&server.http(), everything, end + 1);
        assert_eq!(promql::differences(&got, &want), Vec::<String>::new(), "{mix}");
        // A counter that starts anew at a leaf has done so at the top.
        let resets =
            |server: &Server| promql::instant(&server.http(), "resets(app_requests_total[1m])", end + 1);
        let want = resets(&reference);
        assert!(want.series.len() == 8 && want.series.iter().all(|s| s.floats[0].1 > 0.0), "{want:?}");
        assert_eq!(promql::differences(&resets(server), &want), Vec::<String>::new(), "{mix}");
        // The sum over the datacentres is the sum over the leaves.
        let total = promql::single(&server.http(), "sum(app_requests_total)", end + 1);
        let parts =
            our_leaves.iter().map(|leaf| promql::single(&leaf.http(), "sum(app_requests_total)", end + 1));
        let parts = parts.sum::<Option<f64>>();
        let is_same = total.zip(parts).is_some_and(|(total, parts)| promql::is_same(total, parts));
        assert!(is_same, "{mix}: {total:?}, not {parts:?}");
    }
}
