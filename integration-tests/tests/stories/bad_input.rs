//! Bad input gives a clear error in Prometheus's shape and words, and nothing else is lost.

use integration_tests::{Child, Http, Kind, Server, eventually, now_ms, promql, write};
use model::{Labels, Timestamp};
use remote_protocol::SeriesOut;

use crate::pair::{self, Pair, family};

/// A broken config and what is said about it; the texts are those of Prometheus 3.14's own tests.
const BROKEN: [(&str, &str); 4] = [
    ("foo: bar\n", "field foo not found in type config.plain"),
    ("scrape_configs:\n- job_name: a\n- job_name: a\n", "found multiple scrape configs with job name \"a\""),
    (
        "scrape_configs:\n- job_name: a\n  relabel_configs:\n  - action: dropequal\n    source_labels: [x]\n",
        "relabel configuration for dropequal action requires 'target_label' value",
    ),
    (
        "scrape_configs:\n- job_name: a\n  scrape_interval: 5s\n  scrape_timeout: 6s\n",
        "scrape timeout greater than scrape interval for scrape config with job name \"a\"",
    ),
];

#[test]
fn a_broken_config_is_refused_at_the_start() {
    for (text, wanted) in BROKEN {
        let server = Server::stopped(Kind::Tributary, text);
        let mut child = Child::spawn("Tributary", &mut server.command(), &server.folder().join("log"));
        let status = child.wait();
        let output = child.output();
        assert!(!status.success(), "{wanted}: {output}");
        assert!(output.replace("\\\"", "\"").contains(wanted), "{wanted:?} is not in: {output}");
    }
}

#[test]
fn a_reload_keeps_the_old_config() {
    let old = "global:\n  external_labels:\n    kept: yes\n";
    let server = Server::start(Kind::Tributary, old);
    let http = server.http();
    let in_use = || http.get("/api/v1/status/config", &[]).data()["yaml"].to_string();
    assert!(in_use().contains("kept: "), "{}", in_use());
    for (text, wanted) in BROKEN {
        server.write_config(text);
        let reply = http.post_form("/-/reload", &[]);
        assert_eq!(reply.status, 500, "{}", reply.body);
        assert!(reply.body.starts_with("failed to reload config: "), "{}", reply.body);
        assert!(reply.body.contains(wanted), "{wanted:?} is not in: {}", reply.body);
        assert!(in_use().contains("kept: "), "{}", in_use());
    }
    server.write_config("global:\n  external_labels:\n    fresh: yes\n");
    assert_eq!(http.post_form("/-/reload", &[]).status, 200);
    eventually("the new config is in use", || in_use().contains("fresh: ").then_some(()));
}

/// Requests that 2.42 and 3.14 refuse in the same words: path and parameters.
const REFUSED: [(&str, &[(&str, &str)]); 14] = [
    ("/api/v1/query", &[("query", "sum(")]),
    ("/api/v1/query", &[("query", "up{job=}")]),
    ("/api/v1/query", &[("query", "rate(up)")]),
    ("/api/v1/query", &[("query", "nonsense(up)")]),
    ("/api/v1/query", &[("query", "{job=\"\"}")]),
    ("/api/v1/query", &[("query", "up"), ("timeout", "soon")]),
    ("/api/v1/query_range", &[("query", "up"), ("start", "x"), ("end", "2"), ("step", "1")]),
    ("/api/v1/query_range", &[("query", "up"), ("start", "1"), ("end", "y"), ("step", "1")]),
    ("/api/v1/query_range", &[("query", "up"), ("start", "1"), ("end", "2"), ("step", "z")]),
    ("/api/v1/query_range", &[("query", "up"), ("start", "1"), ("end", "2"), ("step", "0")]),
    ("/api/v1/query_range", &[("query", "up"), ("start", "2"), ("end", "1"), ("step", "1")]),
    ("/api/v1/query_range", &[("query", "up"), ("start", "0"), ("end", "11001"), ("step", "1")]),
    ("/api/v1/series", &[]),
    ("/api/v1/series", &[("match[]", "up{")]),
];

/// Requests that 3.14 refuses in words of its own: path, parameters, status and `error`.
const REFUSED_ANEW: [Anew; 3] = [
    (
        "/api/v1/query",
        &[],
        400,
        "invalid parameter \"query\": unknown position: parse error: no expression found in input",
    ),
    (
        "/api/v1/query_range",
        &[("query", "up[5m]"), ("start", "1"), ("end", "2"), ("step", "1")],
        400,
        "invalid parameter \"query\": invalid expression type \"range vector\" for range query, must be Scalar or instant Vector",
    ),
    (
        "/api/v1/query",
        // 3.14 names the two in the order of their labels, 2.42 the later one first.
        &[("query", "left * on () left{job=\"fixture\"}")],
        422,
        "found duplicate series for the match group {} on the right hand-side of the operation: [{__name__=\"left\", a=\"1\", instance=\"INSTANCE\", job=\"fixture\"}, {__name__=\"left\", a=\"2\", instance=\"INSTANCE\", job=\"fixture\"}];many-to-many matching not allowed: matching labels must be unique on one side",
    ),
];

type Anew = (&'static str, &'static [(&'static str, &'static str)], u16, &'static str);

#[test]
fn bad_requests_are_refused_in_prometheus_words() {
    let pair = Pair::start(Kind::Prometheus);
    let at = pair::base_ms(60_000);
    let mut body = String::new();
    family(
        &mut body,
        "left",
        "gauge",
        at,
        &[("left{a=\"1\"}".to_owned(), 1.0), ("left{a=\"2\"}".to_owned(), 2.0)],
    );
    pair.step(0, at, &body);
    let (ours, theirs) = (pair.tributary.http(), pair.prometheus.http());
    let mut faults = Vec::new();
    let mut compare = |path: &str, form: &[(&str, &str)]| {
        let ask = |http: &Http| {
            let reply = http.get(path, form);
            (reply.status, reply.body.trim().to_owned())
        };
        let (got, want) = (ask(&ours), ask(&theirs));
        assert!(want.0 >= 400, "{path} {form:?}: the reference refuses it");
        if got != want {
            faults.push(format!("{path} {form:?}:\n  {got:?}, not\n  {want:?}"));
        }
    };
    for (path, form) in REFUSED {
        compare(path, form);
    }
    // Found by evaluation, not by parsing.
    let time = promql::seconds(at + 1);
    compare("/api/v1/query", &[("query", "label_replace(left, \"a\", \"\", \"\", \"(\")"), ("time", &time)]);
    compare("/federate", &[("match[]", "left[5m]")]);
    compare("/federate", &[("match[]", "-not-a-valid-metric-name")]);
    for (path, form, status, error) in REFUSED_ANEW {
        let reply = ours.get(path, form);
        let got = (reply.status, reply.json()["error"].as_str().unwrap_or_default().to_owned());
        let want = (status, error.replace("INSTANCE", &pair.fixture.address()));
        if got != want {
            faults.push(format!("{path} {form:?}:\n  {got:?}, not\n  {want:?}"));
        }
    }
    assert!(faults.is_empty(), "{} differences:\n{}", faults.len(), faults.join("\n"));
    assert_eq!(promql::single(&ours, "sum(left)", at + 1), Some(3.0), "what was stored is still there");
}

#[test]
fn a_bad_body_fails_its_own_target_alone() {
    let fixture = integration_tests::Fixture::start();
    let body = "ok 1\nnot a metric at all\n";
    fixture.serve("/bad", body);
    fixture.serve("/good", "good 7\n");
    let more = format!(
        "- job_name: bad\n  metrics_path: /bad\n  static_configs:\n  - targets: ['{0}']\n- job_name: gone\n  metrics_path: /gone\n  static_configs:\n  - targets: ['{0}']\n",
        fixture.address()
    );
    let server = Server::start(Kind::Tributary, &pair::config("good", &fixture.address(), "/good", &more));
    let http = server.http();
    let now = |query: &str| promql::single(&http, query, now_ms());
    // A busy machine may let any scrape run out of its time.
    eventually("all three were scraped, and the good one alone is up", || {
        let up = ["good", "bad", "gone"].map(|job| now(&format!("up{{job=\"{job}\"}}")));
        (up == [Some(1.0), Some(0.0), Some(0.0)] && now("good") == Some(7.0)).then_some(())
    });
    assert_eq!(now("ok"), None, "nothing of a bad body is kept");
    let wanted = [
        ("good", "up", ""),
        ("gone", "down", "server returned HTTP status 404 Not Found"),
        ("bad", "down", "strconv.ParseFloat: parsing \"a\": invalid syntax while parsing: \"not a\""),
    ];
    eventually(&format!("the targets are {wanted:?}"), || {
        let targets = http.get("/api/v1/targets", &[]).data();
        let all = targets["activeTargets"].as_array().expect("a list");
        let is_shown = |(job, health, error): &(&str, &str, &str)| {
            let target = all.iter().find(|target| target["labels"]["job"] == *job).expect("the target");
            target["health"] == *health && target["lastError"] == *error
        };
        wanted.iter().all(is_shown).then_some(())
    });
    assert_eq!(now("ok"), None, "nothing of a bad body is kept");

    // The target recovers with its next body.
    fixture.serve("/bad", "ok 2\n");
    eventually("the target is up again", || now("ok and on (job) up == 1").filter(|value| *value == 2.0));
}

#[test]
fn a_bad_remote_write_stores_nothing() {
    let server = Server::start(Kind::Tributary, "storage: {tsdb: {out_of_order_time_window: 0s}}\n");
    let http = server.http();
    let t = now_ms() - 10_000;
    let series = |name: &str, t: i64, value: f64| SeriesOut {
        labels: Labels::from_pairs([("__name__", name), ("job", "j"), ("instance", "i")]),
        floats: vec![(Timestamp(t), value)],
        ..SeriesOut::default()
    };
    let send = |list: &[SeriesOut]| {
        let reply = write(&http, list).expect("an answer");
        (reply.status, reply.body)
    };
    assert_eq!(send(&[series("kept", t, 1.0)]).0, 204);
    let refused = [
        ([series("kept", t - 5_000, 2.0), series("other", t, 1.0)], "out of order sample"),
        ([series("kept", t, 2.0), series("other", t, 1.0)], "duplicate sample for timestamp"),
        ([series("other", t, 1.0), series("kept", t + 3_600_000, 2.0)], "out of bounds"),
    ];
    for (request, wanted) in refused {
        let (status, body) = send(&request);
        assert_eq!(status, 400, "{wanted}: {body}");
        assert!(body.contains(wanted), "{wanted:?} is not in: {body}");
    }
    let plain = http.try_post("/api/v1/write", &[("Content-Type", "text/plain")], b"x").expect("an answer");
    assert_eq!(plain.status, 415, "{}", plain.body);
    let garbage = http.try_post("/api/v1/write", &[("Content-Type", "application/x-protobuf")], b"x");
    assert_eq!(garbage.expect("an answer").status, 400);
    assert_eq!(promql::single(&http, "kept", t + 1), Some(1.0));
    assert_eq!(promql::single(&http, "other", t + 1), None, "a refused request stores nothing");
    let raw = promql::instant(&http, "kept[10m]", t + 1);
    assert_eq!(raw.series[0].floats, [(t, 1.0)]);
}
