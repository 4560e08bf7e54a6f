//! Requests and answers of every endpoint are held against two OpenAPI documents: Prometheus's own, and the one that
//! Tributary serves.

use std::path::Path;

use integration_tests::{Fixture, Http, Kind, Reply, Server, eventually, now_ms, promql, python, write};
use model::{Exemplar, FloatHistogram, Histogram, Labels, Timestamp};
use remote_protocol::SeriesOut;
use serde_json::{Value, json};

use crate::pair;

/// Operations of Prometheus that Tributary answers 501, with why.
const NOT_BUILT: [(&str, &str); 2] = [
    ("POST /admin/tsdb/delete_series", "series cannot be deleted yet"),
    ("POST /admin/tsdb/clean_tombstones", "series cannot be deleted yet"),
];

/// Operations that have no JSON to be held against a document of Prometheus's, which has no shapes for them either.
const WITHOUT_JSON: [&str; 3] = ["POST /read", "POST /write", "POST /otlp/v1/metrics"];

/// Of Tributary alone.
const OWN: [&str; 3] = ["/admin/tsdb/flush", "/admin/tsdb/compact", "/openapi.yaml"];

type Pairs<'a> = &'a [(&'a str, &'a str)];

/// Asks, and keeps what was asked and answered.
struct Recorder {
    http: Http,
    exchanges: Vec<Value>,
}

impl Recorder {
    fn get(&mut self, path: &str, query: Pairs<'_>) -> u16 {
        let reply = self.http.get(&format!("/api/v1{path}"), query);
        self.keep("GET", path, &json!(query), &Value::Null, &reply)
    }

    fn post(&mut self, path: &str, form: Pairs<'_>) -> u16 {
        let reply = self.http.post_form(&format!("/api/v1{path}"), form);
        let form = if form.is_empty() { Value::Null } else { json!(form) };
        self.keep("POST", path, &json!([]), &form, &reply)
    }

    fn send(&mut self, path: &str, headers: Pairs<'_>, body: &[u8]) -> u16 {
        let reply = self.http.try_post(&format!("/api/v1{path}"), headers, body).expect("an answer");
        self.keep("POST", path, &json!([]), &Value::Null, &reply)
    }

    fn keep(&mut self, method: &str, path: &str, query: &Value, form: &Value, reply: &Reply) -> u16 {
        self.exchanges.push(json!({
            "method": method,
            "path": path,
            "query": query,
            "form": form,
            "status": reply.status,
            "content_type": reply.content_type,
            "body": reply.body,
        }));
        reply.status
    }
}

/// Both methods with the same parameters.
fn both(recorder: &mut Recorder, path: &str, parameters: Pairs<'_>) {
    assert_eq!(recorder.get(path, parameters), 200, "GET {path} {parameters:?}");
    assert_eq!(recorder.post(path, parameters), 200, "POST {path} {parameters:?}");
}

/// Asks for everything that there is.
fn ask(recorder: &mut Recorder, at: i64) {
    let (start, end) = (promql::seconds(at - 60_000), promql::seconds(at));
    let times = [("start", start.as_str()), ("end", end.as_str())];
    for query in [
        "asked",
        "asked_native",
        "asked[1m]",
        "scalar(asked)",
        "1+1",
        "sum(asked) without (job)",
        "absent(asked)",
    ] {
        both(recorder, "/query", &[("query", query), ("time", &end), ("stats", "true"), ("limit", "10")]);
    }
    both(
        recorder,
        "/query",
        &[
            ("query", "asked"),
            ("time", "2026-01-02T13:37:00Z"),
            ("timeout", "1m30s"),
            ("lookback_delta", "90"),
        ],
    );
    let range =
        [("query", "asked"), times[0], times[1], ("step", "15s"), ("stats", "all"), ("timeout", "90")];
    both(recorder, "/query_range", &range);
    both(recorder, "/query_range", &[("query", "asked_native"), times[0], times[1], ("step", "15")]);
    both(recorder, "/query_exemplars", &[("query", "rate(asked[1m])"), times[0], times[1]]);
    both(recorder, "/format_query", &[("query", "sum(asked)by(job)")]);
    both(recorder, "/parse_query", &[("query", "sum(rate(asked[1m])) > bool 0")]);
    both(recorder, "/labels", &[("match[]", "asked"), ("match[]", "up"), times[0], times[1], ("limit", "1")]);
    both(recorder, "/series", &[("match[]", "asked"), ("match[]", "up"), times[0], times[1], ("limit", "3")]);
    let search = [
        ("match[]", "{job=\"pushed\"}"),
        ("search[]", "asked"),
        ("search[]", "tiv"),
        ("limit", "5"),
        ("batch_size", "1"),
    ];
    let ways = [
        ("fuzz_threshold", "10"),
        ("fuzz_alg", "jarowinkler"),
        ("case_sensitive", "false"),
        ("sort_by", "score"),
        ("include_score", "true"),
    ];
    let all: Vec<(&str, &str)> = search.into_iter().chain(ways).chain(times).collect();
    both(recorder, "/search/metric_names", &[&all[..], &[("include_metadata", "true")]].concat());
    both(recorder, "/search/label_names", &[("sort_by", "alpha"), ("sort_dir", "dsc")]);
    both(recorder, "/search/label_values", &[&all[..], &[("label", "dotted.name")]].concat());
    for (path, query) in [
        ("/label/job/values", &[("match[]", "asked"), times[0], times[1], ("limit", "2")][..]),
        ("/label/U__dotted_2e_name/values", &[]),
        ("/metadata", &[("limit", "2"), ("limit_per_metric", "1")]),
        ("/metadata", &[("metric", "asked_too")]),
        ("/scrape_pools", &[]),
        ("/scrape_pools/config", &[("scrapePool", "fixture")]),
        ("/targets", &[("state", "active"), ("scrapePool", "fixture")]),
        ("/targets", &[("state", "any")]),
        (
            "/targets/metadata",
            &[("match_target", "{job=\"fixture\"}"), ("metric", "asked_too"), ("limit", "1")],
        ),
        ("/targets/metadata", &[]),
        ("/targets/relabel_steps", &[("scrapePool", "fixture"), ("labels", "{\"__address__\":\"a:1\"}")]),
        ("/rules", &[]),
        (
            "/rules",
            &[
                ("type", "alert"),
                ("rule_name[]", "Asked"),
                ("match[]", "{severity=\"page\"}"),
                ("group_limit", "1"),
            ],
        ),
        ("/alerts", &[]),
        ("/alertmanagers", &[]),
        ("/status/config", &[]),
        ("/status/runtimeinfo", &[]),
        ("/status/buildinfo", &[]),
        ("/status/flags", &[]),
        ("/status/tsdb", &[("limit", "5")]),
        ("/status/tsdb/blocks", &[]),
        ("/status/self_metrics", &[]),
        ("/status/self_metrics", &[("metric_name_pattern", "prometheus_build_info|process_.*")]),
        ("/status/walreplay", &[]),
        ("/notifications", &[]),
        ("/features", &[]),
    ] {
        assert_eq!(recorder.get(path, query), 200, "{path} {query:?}");
    }
    assert_eq!(recorder.post("/admin/tsdb/snapshot", &[]), 200);

    // What is wrong, each in its way.
    for (path, query) in [
        ("/query", &[("query", "sum(")][..]),
        ("/query", &[("query", "asked"), ("time", "soon")]),
        ("/query", &[("query", "asked * on () asked_too")]),
        ("/query_range", &[("query", "asked"), times[1], ("end", start.as_str()), ("step", "1")]),
        ("/query_exemplars", &[("query", "asked"), ("start", end.as_str()), ("end", start.as_str())]),
        ("/query_exemplars", &[("query", "asked{")]),
        ("/format_query", &[("query", "(")]),
        ("/labels", &[("match[]", "{}")]),
        ("/label/job/values", &[("limit", "-1")]),
        ("/series", &[]),
        ("/search/metric_names", &[("limit", "0")]),
        ("/search/label_names", &[("match[]", "{}")]),
        ("/search/label_values", &[]),
        ("/status/self_metrics", &[("metric_name_pattern", "(")]),
        ("/status/tsdb", &[("limit", "0")]),
        ("/status/tsdb", &[("limit", "10001")]),
        ("/scrape_pools/config", &[("scrapePool", "none")]),
        ("/targets/relabel_steps", &[("scrapePool", "fixture"), ("labels", "[]")]),
        ("/rules", &[("type", "none")]),
        ("/rules", &[("group_next_token", "none")]),
    ] {
        let status = recorder.get(path, query);
        assert!((400..500).contains(&status), "{path} {query:?}: {status}");
    }
    let reply = recorder.http.post_form("/api/v1/admin/tsdb/snapshot?skip_head=perhaps", &[]);
    assert_eq!(reply.status, 400, "{}", reply.body);
}

/// Asks without a parameter, by the method of an operation as `METHOD /path/{template}`.
fn probe(http: &Http, operation: &str) -> Reply {
    let (method, path) = operation.split_once(' ').expect("a method and a path");
    let path = format!("/api/v1{}", path.replace("{name}", "job"));
    http.raw(method, &path, &[], b"").unwrap_or_else(|| panic!("no answer: {operation}"))
}

/// Every operation that Prometheus documents is answered by somebody who knows it, or says why not.
fn nothing_is_missing(http: &Http, documented: &[String]) {
    for operation in documented {
        // An endless answer is followed elsewhere.
        if operation == "GET /notifications/live" {
            continue;
        }
        let reply = probe(http, operation);
        let post = operation.replace("PUT ", "POST ");
        match NOT_BUILT.iter().find(|(not_built, _)| *not_built == post) {
            Some((_, why)) => {
                assert!(reply.status == 501 && reply.body.contains(why), "{operation}: {}", reply.body);
            }
            None => assert!(![404, 405, 501].contains(&reply.status), "{operation}: {}", reply.status),
        }
    }
}

const RULES: &str = "groups:\n- name: asked\n  interval: 1s\n  rules:\n  - record: asked:sum\n    expr: sum(asked)\n  \
                     - alert: Asked\n    expr: asked_too > 0\n    labels: {severity: page}\n";

#[test]
fn requests_and_answers_are_as_documented() {
    let fixture = Fixture::start();
    fixture.serve(pair::PATH, "# HELP asked_too Of the fixture.\n# TYPE asked_too gauge\nasked_too{l=\"1\"} 2\nasked_too{l=\"2\"} 3\n");
    let more = "  relabel_configs:\n  - source_labels: [__address__]\n    regex: gone.*\n    action: drop\n  \
                - source_labels: [__address__]\n    target_label: host\n";
    let config = pair::config("fixture", &fixture.address(), pair::PATH, more)
        .replace("targets: ['", "targets: ['gone:1', '");
    let server = Server::stopped(Kind::Tributary, "");
    let rules = server.folder().join("rules.yml");
    std::fs::write(&rules, RULES).expect("a rule file");
    server.write_config(&format!("{config}rule_files: ['{}']\n", rules.display()));
    let mut server = server;
    server.start_again();
    let at = now_ms();
    let labels =
        |name: &str| Labels::from_pairs([("__name__", name), ("job", "pushed"), ("dotted.name", "x<y>")]);
    let series = [
        SeriesOut {
            labels: labels("asked"),
            floats: vec![(Timestamp(at - 20_000), 1.0), (Timestamp(at - 5_000), f64::INFINITY)],
            exemplars: vec![Exemplar {
                labels: Labels::from_pairs([("trace_id", "1")]),
                value: 0.5,
                timestamp: Some(Timestamp(at - 5_000)),
            }],
            ..SeriesOut::default()
        },
        SeriesOut {
            labels: labels("asked_native"),
            histograms: vec![(
                Timestamp(at - 5_000),
                Histogram::Float(FloatHistogram {
                    count: 2.0,
                    zero_count: 2.0,
                    zero_threshold: 0.5,
                    ..FloatHistogram::default()
                }),
            )],
            ..SeriesOut::default()
        },
    ];
    assert_eq!(write(&server.http(), &series).map(|reply| reply.status), Some(204));
    let http = server.http();
    eventually("an alert is active", || {
        http.get("/api/v1/alerts", &[]).data()["alerts"]
            .as_array()
            .is_some_and(|list| !list.is_empty())
            .then_some(())
    });
    let mut recorder = Recorder { http: http.clone(), exchanges: Vec::new() };
    ask(&mut recorder, at);
    // The head of an answer that does not end.
    let live = http.head_of("/api/v1/notifications/live").expect("an answer");
    recorder.keep("GET", "/notifications/live", &json!([]), &Value::Null, &live);
    let exchanges = server.folder().join("exchanges.json");
    let check = |document: &Path, recorder: &Recorder| -> Value {
        std::fs::write(&exchanges, json!(recorder.exchanges).to_string()).expect("a file");
        let printed = python("check_openapi.py", [document, &exchanges]);
        let checked: Value = serde_json::from_str(printed.trim()).expect("JSON");
        let faults = checked["faults"].as_array().expect("a list");
        assert!(faults.is_empty(), "{}:\n{faults:#?}", document.display());
        checked
    };
    let list = |checked: &Value, name: &str| -> Vec<String> {
        serde_json::from_value(checked[name].clone()).expect("a list of texts")
    };
    // Methods beside POST, and what is documented as not built, are not recorded.
    let missing = |checked: &Value| -> Vec<String> {
        let answered = list(checked, "answered");
        let mut missing = list(checked, "documented");
        missing.retain(|operation| {
            let is_not_built = NOT_BUILT.iter().any(|(not_built, _)| operation == not_built);
            !answered.contains(operation) && !operation.starts_with("PUT ") && !is_not_built
        });
        missing
    };

    // Of this kind of story alone: what has no JSON to it, and what only Tributary has.
    let mut own = Recorder { http, exchanges: recorder.exchanges.clone() };
    let snappy = [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")];
    let empty = remote_protocol::compress(b"").expect("small");
    assert_eq!(own.send("/read", &snappy, &empty), 200);
    assert_eq!(own.send("/write", &snappy, &empty), 204);
    assert_eq!(own.send("/write", &snappy, b"x"), 400);
    assert_eq!(own.send("/otlp/v1/metrics", &[("Content-Type", "application/x-protobuf")], b""), 200);
    assert_eq!(own.get("/query_exemplars", &[("query", "1")]), 204);
    assert_eq!(own.post("/admin/tsdb/flush", &[]), 200);
    assert_eq!(own.post("/admin/tsdb/compact", &[]), 200);
    assert_eq!(own.post("/admin/tsdb/delete_series", &[]), 501);
    assert_eq!(own.get("/openapi.yaml", &[("openapi_version", "3.2")]), 200);
    assert_eq!(own.http.get("/api/v1/openapi.yaml", &[("openapi_version", "2.0")]).status, 400);
    let served = own.http.get("/api/v1/openapi.yaml", &[]).body;
    let document = server.folder().join("openapi.yaml");
    std::fs::write(&document, &served).expect("a file");
    let left = missing(&check(&document, &own));
    assert_eq!(left, Vec::<String>::new(), "documented by us, and not asked for");

    let Some(reference) = crate::conformance("api/openapi_3.2.yaml") else { return };
    let checked = check(&reference, &recorder);
    let mut left = missing(&checked);
    left.retain(|operation| !WITHOUT_JSON.contains(&operation.as_str()));
    assert_eq!(left, Vec::<String>::new(), "documented by Prometheus, and not asked for");
    nothing_is_missing(&recorder.http, &list(&checked, "documented"));
    // Nothing is answered that is documented nowhere.
    let ours: Vec<&str> = served.lines().filter_map(|l| l.strip_prefix("  /")).collect();
    let documented = checked["documented"].to_string();
    for path in ours {
        let path = format!("/{}", path.trim_end_matches(':'));
        assert!(documented.contains(&format!(" {path}\"")) || OWN.contains(&path.as_str()), "{path}");
    }
}
