//! The OpenTelemetry SDK for Python, as it comes, exports over gRPC and HTTP to the real binary.

use std::process::Command;

use integration_tests::{Child, Http, Kind, Server, eventually, now_ms, part, promql, python, repository};
use serde_json::Value;

/// Exports of the second story, and after how many of them the server is killed.
const EXPORTS: u64 = 60;
const KILL_AFTER: [u64; 2] = [10, 30];
/// Of each export: a counter of 20 series and a gauge are taken, a histogram of deltas is not.
const ACCEPTED_POINTS: u64 = 21;

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number")).collect()
}

/// The quantile of observations that are sorted, by its definition.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

fn single(http: &Http, query: &str) -> f64 {
    promql::single(http, query, now_ms()).unwrap_or_else(|| panic!("{query}: one value is expected"))
}

#[test]
fn every_kind_of_instrument_comes_back_through_the_http_api() {
    let server = Server::start(Kind::Tributary, "otlp: {promote_resource_attributes: [host.name]}\n");
    let recorded = python("export_otlp.py", [&server.otlp_address(), "each"]);
    let recorded: Value = serde_json::from_str(recorded.trim()).expect("one line of JSON");
    assert_eq!(
        (recorded["points"].as_u64(), recorded["rejected"].as_u64()),
        (Some(6), Some(0)),
        "{recorded}"
    );
    let http = server.http();
    for (query, expected) in [
        (r#"cart_requests_total{http_method="GET",job="shop/cart",instance="each",host_name="h1"}"#, 5.0),
        (r#"cart_requests_total{http_method="PUT"}"#, 1.0),
        ("cart_items", 3.0),
        ("temperature_celsius", 21.5),
        ("latency_seconds_count", 1000.0),
        (r#"latency_seconds_bucket{le="+Inf"}"#, 1000.0),
        ("histogram_count(size_bytes)", 1000.0),
        (
            r#"target_info{job="shop/cart",instance="each",host_name="h1",telemetry_sdk_language="python"}"#,
            1.0,
        ),
        (r#"count({__name__=~"service_.*"}) or vector(0)"#, 0.0),
        (
            r#"cart_requests_total{http_method="GET"} * on (job, instance) group_left (telemetry_sdk_name) target_info"#,
            5.0,
        ),
    ] {
        assert_eq!(single(&http, query), expected, "{query}");
    }

    let (latencies, boundaries) = (floats(&recorded["latencies"]), floats(&recorded["boundaries"]));
    let sum = single(&http, "latency_seconds_sum");
    assert!((sum - latencies.iter().sum::<f64>()).abs() < 1e-9, "{sum}");
    for boundary in &boundaries {
        let below = latencies.iter().filter(|x| *x <= boundary).count() as f64;
        let bucket = format!(r#"latency_seconds_bucket{{le="{boundary}"}}"#);
        assert_eq!(single(&http, &bucket), below, "{bucket}");
    }
    for q in [0.1, 0.5, 0.9, 0.99] {
        let estimate = single(&http, &format!("histogram_quantile({q}, latency_seconds_bucket)"));
        let truth = quantile(&latencies, q);
        let upper = boundaries.iter().position(|b| truth <= *b).expect("below the highest boundary");
        let lower = if upper == 0 { 0.0 } else { boundaries[upper - 1] };
        assert!((lower..=boundaries[upper]).contains(&estimate), "{q}: {estimate} for {truth}");
    }

    let sizes = floats(&recorded["sizes"]);
    let sum = single(&http, "histogram_sum(size_bytes)");
    assert!((sum / sizes.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{sum}");
    let scale = recorded["scales"][0].as_i64().expect("a scale").min(8);
    let base = 2_f64.powf(2_f64.powi(-i32::try_from(scale).expect("small")));
    for q in [0.01, 0.5, 0.9, 0.99] {
        let estimate = single(&http, &format!("histogram_quantile({q}, size_bytes)"));
        let truth = quantile(&sizes, q);
        assert!(
            (truth / base..=truth * base).contains(&estimate),
            "{q}: {estimate} for {truth} in buckets that grow by {base}"
        );
    }
}

#[test]
fn accepted_and_rejected_points_add_up_across_crashes() {
    let mut server = Server::start(Kind::Tributary, "");
    let log = server.folder().join("sdk.log");
    // The last export waits for the last crash, so that none comes too late.
    let is_over = server.folder().join("over");
    let mut command = Command::new(part("venv/bin/python"));
    command
        .arg(repository().join("integration-tests/python/export_otlp.py"))
        .args([&server.otlp_address(), "many", &EXPORTS.to_string()])
        .arg(&is_over);
    let mut sender = Child::spawn("the SDK", &mut command, &log);
    let last = || -> Option<Value> {
        let output = std::fs::read_to_string(&log).ok()?;
        let line = output.lines().rev().find(|line| line.starts_with('{') && line.ends_with('}'))?;
        serde_json::from_str(line).ok()
    };
    let answered = |line: &Value| line["answered"].as_u64().expect("a count");
    for kill_after in KILL_AFTER {
        sender.wait_for("exports", || last().filter(|line| answered(line) >= kill_after));
        server.kill_9();
        server.start_again();
    }
    std::fs::write(&is_over, "").expect("a file");
    let status = sender.wait();
    let line = last().expect("a line for each export");
    assert!(status.success(), "{status}: {}", sender.output());

    let (sent, rejected) = (line["points"].as_u64(), line["rejected"].as_u64());
    assert_eq!(answered(&line), EXPORTS);
    assert_eq!((sent, rejected), (Some(EXPORTS * (ACCEPTED_POINTS + 1)), Some(EXPORTS)));
    let message = line["message"].as_str().expect("a text");
    let expected = "1 data point rejected, temporality: invalid temporality and type combination for metric \"duration\"";
    assert_eq!(message, expected);

    let http = server.http();
    let stored = eventually("every accepted point is there", || {
        let query = r#"sum(count_over_time({__name__=~"work_total|load",job="shop/cart"}[30m]))"#;
        promql::single(&http, query, now_ms() + 1_000).filter(|n| *n >= (EXPORTS * ACCEPTED_POINTS) as f64)
    });
    assert_eq!(stored, (EXPORTS * ACCEPTED_POINTS) as f64, "each once");
    // The last export has the whole sum: each of 20 workers did its number of units in each of the rounds.
    assert_eq!(single(&http, "sum(work_total)"), (EXPORTS * 210) as f64);
    assert_eq!(single(&http, r#"count({__name__=~"duration.*"}) or vector(0)"#), 0.0);
}

#[test]
fn metrics_come_over_http_too() {
    const PATH: &str = "/api/v1/otlp/v1/metrics";
    let server = Server::start(Kind::Tributary, "");
    let http = server.http();
    drop(python("export_otlp.py", [http.url(PATH).as_str(), "http"]));
    for (query, expected) in [
        (r#"cart_requests_total{http_method="GET",job="shop/cart",instance="http"}"#, 5.0),
        ("histogram_count(size_bytes)", 100.0),
        ("histogram_sum(size_bytes)", 5050.0),
    ] {
        assert_eq!(single(&http, query), expected, "{query}");
    }

    // A gauge is taken, a sum of deltas is not, and the answer says so, as OTLP specifies it in JSON.
    let point = format!(r#"{{"asDouble":1.5,"timeUnixNano":"{}000000"}}"#, now_ms());
    let body = format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"level","gauge":{{"dataPoints":[{point}]}}}},
        {{"name":"steps","sum":{{"aggregationTemporality":1,"isMonotonic":true,"dataPoints":[{point}]}}}}]}}]}}]}}"#
    );
    let json = [("content-type", "application/json")];
    let reply = http.try_post(PATH, &json, body.as_bytes()).expect("an answer");
    assert_eq!((reply.status, reply.content_type.as_str()), (200, "application/json"), "{}", reply.body);
    assert_eq!(reply.json()["partialSuccess"]["rejectedDataPoints"], "1", "{}", reply.body);
    assert_eq!(single(&http, "level"), 1.5);
    for (headers, body, status) in [
        ([("content-type", "application/json"), ("x-scope-orgid", "a")], "{", 400),
        ([("content-type", "text/plain"), ("x-scope-orgid", "a")], "", 400),
        ([("content-type", "application/json"), ("content-encoding", "snappy")], "", 400),
    ] {
        let reply = http.try_post(PATH, &headers, body.as_bytes()).expect("an answer");
        assert_eq!(reply.status, status, "{headers:?}: {}", reply.body);
    }
}
