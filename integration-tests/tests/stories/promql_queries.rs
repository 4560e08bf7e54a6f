//! The queries of the PromQL compliance test give what Prometheus 2.42 and 3.5 give, over one scraped fixture.
//!
//! The list lies outside of the repository, in `../shared/conformance/promql-queries`; it is expanded as its README
//! says. Every query is a range query; answers agree to 1e-5 with equal label sets and times.

use std::collections::BTreeMap;

use integration_tests::{Fixture, Kind, Server, promql};
use serde::Deserialize;

use crate::pair::{PATH, base_ms, config, family, serve_step, wait_for_step};

const TOLERANCE: f64 = 1e-5;
/// The demo service is scraped every 5 s.
const INTERVAL_MS: i64 = 5_000;
/// Steps in one body, and how many bodies there are: 20 minutes.
const STEPS_PER_BODY: usize = 30;
const BODIES: usize = 8;
/// Step of the range queries.
const STEP_MS: i64 = 10_000;

/// Queries that 2.42 and 3.x do not answer in the same way, and why.
const DIFFERENT_IN_2: [(&str, &str); 1] = [(
    "label_join(demo_num_cpus, \"~invalid\", \"-\", \"instance\")",
    "3.x takes every UTF-8 text for a label name; 2.42 refuses it",
)];

/// The file's cases.
#[derive(Deserialize)]
struct File {
    test_cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    query: String,
    #[serde(default)]
    variant_args: Vec<String>,
    #[serde(default)]
    should_fail: bool,
}

/// What stands for an argument of a template.
fn values(argument: &str) -> Vec<&'static str> {
    let list = match argument {
        "range" => "1s 15s 1m 5m 15m 1h",
        "offset" => "1m 5m 10m",
        "simpleAggrOp" => "sum avg max min count stddev stdvar",
        "simpleTimeAggrOp" => "sum avg max min count stddev stdvar absent last",
        "topBottomOp" => "topk bottomk",
        "quantile" => "-0.5 0.1 0.5 0.75 0.95 0.90 0.99 1 1.5",
        "arithBinOp" => "+ - * / % ^",
        "compBinOp" => "== != < > <= >=",
        "binOp" => "+ - * / % ^ == != < > <= >=",
        "simpleMathFunc" => "abs ceil floor exp sqrt ln log2 log10 round",
        "extrapolatedRateFunc" => "delta rate increase",
        "clampFunc" => "clamp_min clamp_max",
        "instantRateFunc" => "idelta irate",
        "dateFunc" => "day_of_month day_of_week days_in_month hour minute month year",
        other => panic!("unknown argument {other}"),
    };
    list.split(' ').collect()
}

/// Puts every combination of values into a template.
fn expand(template: &str, arguments: &[String]) -> Vec<String> {
    let Some((argument, rest)) = arguments.split_first() else { return vec![template.to_owned()] };
    let with = |value: &str| template.replace(&format!("{{{{.{argument}}}}}"), value);
    values(argument).into_iter().flat_map(|value| expand(&with(value), rest)).collect()
}

#[test]
fn the_compliance_queries_agree_with_prometheus() {
    let Some(path) = crate::conformance("promql-queries/promql-test-queries.yml") else { return };
    let text = std::fs::read_to_string(path).expect("the list");
    let file: File = serde_saphyr::from_str(&text).expect("the list's form");

    let fixture = Fixture::start();
    let config = config("demo", &fixture.address(), PATH, "  honor_labels: true\n");
    let kinds = [Kind::Tributary, Kind::Prometheus, Kind::Prometheus3];
    let servers = kinds.map(|kind| Server::start(kind, &config));
    let steps = STEPS_PER_BODY * BODIES;
    let base = base_ms(INTERVAL_MS * i64::try_from(steps).expect("few") + 60_000);
    let time = |step: usize| base + INTERVAL_MS * i64::try_from(step).expect("few");
    for body in 0..BODIES {
        let (first, last) = (body * STEPS_PER_BODY, (body + 1) * STEPS_PER_BODY - 1);
        let text: String = (first..=last).map(|step| demo(step, time(step))).collect();
        serve_step(&fixture, PATH, last, time(last), &text);
        for server in &servers {
            wait_for_step(server, "demo", last, time(last));
        }
    }

    // A range includes its left edge in 2.42, which is asked a millisecond off the samples' times.
    let [ours, second, third] = servers.each_ref().map(Server::http);
    let peers = [(&second, 1, &DIFFERENT_IN_2[..]), (&third, 0, &[])];
    for (theirs, off_ms, different) in peers {
        let (start, end) = (time(steps / 2) + off_ms, time(steps - 1) + off_ms);
        let (mut faults, mut asked) = (Vec::new(), 0);
        for case in &file.test_cases {
            for query in expand(&case.query, &case.variant_args) {
                asked += 1;
                let ask = |server| promql::try_range(server, &query, start, end, STEP_MS);
                let (got, want) = (ask(&ours), ask(theirs));
                let found = match (&got, &want) {
                    (Ok(got), Ok(want)) => promql::differences_within(TOLERANCE, got, want),
                    (Err(_), Err(_)) if case.should_fail => Vec::new(),
                    (got, want) => vec![format!("{:?}, not {:?}", got.as_ref().err(), want.as_ref().err())],
                };
                let is_known = different.iter().any(|(known, _)| *known == query);
                match (found.first(), is_known) {
                    (Some(text), false) => faults.push(format!("{query}: {text}")),
                    (None, true) => faults.push(format!("{query}: agrees, and is said not to")),
                    _ => {}
                }
            }
        }
        assert!(faults.is_empty(), "{} of {asked} differ:\n{}", faults.len(), faults.join("\n"));
        assert!(asked > 300, "{asked} queries are too few to be the whole list");
    }
}

/// Series as they are exposed, with their values.
type Samples = Vec<(String, f64)>;

/// The demo service's metrics at one step, of three instances.
fn demo(step: usize, at: i64) -> String {
    let mut families: BTreeMap<&str, (&str, Samples)> = BTreeMap::new();
    let mut add = |name: &'static str,
                   kind: &'static str,
                   series: &str,
                   instance: usize,
                   more: &str,
                   value: f64| {
        let labels = format!("instance=\"demo.promlabs.com:{}\",job=\"demo\"{more}", 10_000 + instance);
        families.entry(name).or_insert((kind, Vec::new())).1.push((format!("{series}{{{labels}}}"), value));
    };
    for i in 0..3 {
        let n = step as f64;
        for (j, kind) in ["free", "used", "cached", "buffers"].iter().enumerate() {
            // No two alike, so that there is one order.
            let value =
                1e6 * (j as f64 + 1.0) + ((step * (7 + i) * (j + 3)) % 101) as f64 * 1024.5 + i as f64;
            let name = "demo_memory_usage_bytes";
            add(name, "gauge", name, i, &format!(",type=\"{kind}\""), value);
        }
        for (j, mode) in ["idle", "system", "user"].iter().enumerate() {
            // Far from zero, so that nothing is cut where a counter would begin.
            let value = 1e6 + n * (1.25 + j as f64 + i as f64 / 8.0) + ((step * 13) % 7) as f64 / 16.0;
            let name = "demo_cpu_usage_seconds_total";
            add(name, "counter", name, i, &format!(",mode=\"{mode}\""), value);
        }
        let name = "demo_api_request_duration_seconds";
        for (j, (method, path)) in [("GET", "/api/foo"), ("POST", "/api/bar")].iter().enumerate() {
            for status in ["200", "500"] {
                let more = format!(",method=\"{method}\",path=\"{path}\",status=\"{status}\"");
                let observed = 1000.0 + n * (3.0 + i as f64 + j as f64);
                for (le, share) in [("0.1", 0.25), ("0.5", 0.5), ("1.0", 0.875), ("+Inf", 1.0)] {
                    let more = format!("{more},le=\"{le}\"");
                    let series = format!("{name}_bucket");
                    add(name, "histogram", &series, i, &more, (observed * share).floor());
                }
                add(name, "histogram", &format!("{name}_sum"), i, &more, observed * 0.375);
                add(name, "histogram", &format!("{name}_count"), i, &more, observed);
            }
        }
        add("demo_num_cpus", "gauge", "demo_num_cpus", i, "", 4.0);
        let name = "demo_disk_usage_bytes";
        add(name, "gauge", name, i, "", 1e9 + n * 4096.0 * (i as f64 + 1.0) + ((step * 31) % 17) as f64);
        let name = "demo_batch_last_success_timestamp_seconds";
        let success = at / 1000 - i64::try_from(step % (12 + i)).expect("small") * 5;
        add(name, "gauge", name, i, "", success as f64);
        if (step / 6).is_multiple_of(2) {
            add("demo_intermittent_metric", "gauge", "demo_intermittent_metric", i, "", 1.0);
        }
    }
    let mut body = String::new();
    for (name, (kind, samples)) in families {
        family(&mut body, name, kind, at, &samples);
    }
    body
}
