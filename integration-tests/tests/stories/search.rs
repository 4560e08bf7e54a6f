//! `/api/v1/search/...`: names that fit what somebody types.

use integration_tests::{Child, Http, Kind, Server, eventually, now_ms, promql, write};
use model::{Labels, Timestamp};
use remote_protocol::SeriesOut;
use serde_json::{Value, json};

use crate::pair;

/// The lines of an answer: what was found, line by line, and how it ended.
fn search(http: &Http, what: &str, parameters: &[(&str, &str)]) -> (Vec<Value>, Value) {
    let path = format!("/api/v1/search/{what}");
    let reply = http.get(&path, parameters);
    assert_eq!(
        (reply.status, reply.content_type.as_str()),
        (200, "application/x-ndjson; charset=utf-8"),
        "{}",
        reply.body
    );
    assert_eq!(http.post_form(&path, parameters).body, reply.body, "{what} {parameters:?}");
    let mut lines: Vec<Value> =
        reply.body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let end = lines.pop().expect("a last line");
    (lines.into_iter().map(|line| line["results"].clone()).collect(), end)
}

fn series(name: &str, city: &str, at: i64) -> SeriesOut {
    SeriesOut {
        labels: Labels::from_pairs([("__name__", name), ("job", "pushed"), ("city.name", city)]),
        floats: vec![(Timestamp(at), 1.0)],
        ..SeriesOut::default()
    }
}

#[test]
fn names_are_found_by_what_is_typed() {
    let fixture = integration_tests::Fixture::start();
    fixture.serve(
        pair::PATH,
        "# HELP asked_total Of the <fixture>.\n# TYPE asked_total counter\nasked_total 1\n",
    );
    // What is old is taken whether or not something was scraped before.
    let config = pair::config("fixture", &fixture.address(), pair::PATH, "");
    let config = config.replace("out_of_order_time_window: 0s", "out_of_order_time_window: 3h");
    let server = Server::start(Kind::Tributary, &config);
    let http = server.http();
    let at = now_ms() - 60_000;
    let old = at - 2 * 3_600_000;
    let all = [
        series("http_requests_total", "Oslo", at),
        series("http_errors_total", "Bergen", at),
        series("requests", "Bern", at),
        series("old_requests", "Rome", old),
    ];
    assert_eq!(write(&http, &all).map(|reply| reply.status), Some(204));
    eventually("the fixture is scraped", || promql::single(&http, "asked_total", now_ms()));
    // What it says of its metrics is known a moment later.
    eventually("its metadata is known", || {
        let metadata = http.get("/api/v1/metadata", &[("metric", "asked_total")]).data();
        metadata.get("asked_total").is_some().then_some(())
    });

    let pushed = ("match[]", "{job=\"pushed\"}");
    let end = |has_more: bool| json!({ "status": "success", "has_more": has_more });
    // Everything of the last hour, in order.
    let names =
        json!([[{ "name": "http_errors_total" }, { "name": "http_requests_total" }, { "name": "requests" }]]);
    assert_eq!(
        search(&http, "metric_names", &[pushed]),
        (names.as_array().expect("a list").clone(), end(false))
    );
    let start = promql::seconds(old - 1);
    let (found, _) = search(&http, "metric_names", &[pushed, ("start", &start), ("search[]", "old")]);
    assert_eq!(found, [json!([{ "name": "old_requests" }])]);
    // In lines of two, cut.
    let (found, ended) = search(
        &http,
        "metric_names",
        &[pushed, ("sort_by", "alpha"), ("sort_dir", "dsc"), ("limit", "2"), ("batch_size", "1")],
    );
    assert_eq!(found, [json!([{ "name": "requests" }]), json!([{ "name": "http_requests_total" }])]);
    assert_eq!(ended, end(true));
    // By score: what begins with a term has 1, what contains it 0.9.
    let by_score = [
        pushed,
        ("search[]", "requests"),
        ("fuzz_alg", "jarowinkler"),
        ("sort_by", "score"),
        ("include_score", "true"),
    ];
    let (found, _) = search(&http, "metric_names", &by_score);
    assert_eq!(
        found,
        [json!([{ "name": "requests", "score": 1 }, { "name": "http_requests_total", "score": 0.9 }])]
    );
    // The letters in their order: runs of 1 and 3, a gap of 3 and another before, half of what is behind.
    let (found, _) =
        search(&http, "metric_names", &[pushed, ("search[]", "herr"), ("include_score", "true")]);
    assert_eq!(
        found,
        [json!([{ "name": "http_errors_total", "score": (10.0 - 4.0 / 17.0 - 9.0 / 17.0 / 2.0) / 16.0 }])]
    );
    assert_eq!(search(&http, "metric_names", &[pushed, ("search[]", "zz")]), (vec![json!([])], end(false)));
    // With what a target says of it; letters are not escaped but as Go does.
    let asked = [("search[]", "ASKED"), ("case_sensitive", "false"), ("include_metadata", "true")];
    assert_eq!(
        search(&http, "metric_names", &asked).0,
        [json!([{ "name": "asked_total", "type": "counter", "help": "Of the <fixture>.", "unit": "" }])]
    );
    let (found, _) = search(&http, "label_names", &[pushed, ("search[]", "name"), ("sort_by", "alpha")]);
    assert_eq!(found, [json!([{ "name": "__name__" }, { "name": "city.name" }])]);
    let (found, _) =
        search(&http, "label_values", &[("label", "city.name"), ("search[]", "Ber"), ("search[]", "lo")]);
    assert_eq!(found, [json!([{ "value": "Bergen" }, { "value": "Bern" }, { "value": "Oslo" }])]);
    let nobody = http.tenant("nobody");
    assert_eq!(search(&nobody, "metric_names", &[]), (vec![json!([])], end(false)));
}

#[test]
fn wrong_searches_say_what_is_wrong() {
    let server = Server::start(Kind::Tributary, "");
    let http = server.http();
    let many: Vec<(&str, &str)> = std::iter::repeat_n(("search[]", "a"), 33).collect();
    for (what, parameters, error) in [
        ("metric_names", &many[..], "too many search[] terms: got 33, maximum is 32"),
        ("metric_names", &[("fuzz_threshold", "101")], "invalid fuzz_threshold \"101\": must be 0-100"),
        (
            "metric_names",
            &[("fuzz_alg", "soundex")],
            "unsupported fuzz_alg \"soundex\": must be one of [subsequence jarowinkler]",
        ),
        (
            "metric_names",
            &[("case_sensitive", "perhaps")],
            "invalid case_sensitive \"perhaps\": must be boolean",
        ),
        ("metric_names", &[("include_metadata", "x")], "invalid include_metadata \"x\": must be boolean"),
        ("metric_names", &[("sort_dir", "asc")], "sort_dir is only valid when sort_by is set"),
        ("metric_names", &[("sort_by", "score")], "sort_by=score requires search[] to be set"),
        (
            "metric_names",
            &[("sort_by", "score"), ("sort_dir", "asc"), ("search[]", "a")],
            "sort_dir is not supported for sort_by=score",
        ),
        (
            "label_names",
            &[("sort_by", "size")],
            "invalid sort_by \"size\" for label_names: must be \"alpha\" or \"score\"",
        ),
        (
            "label_names",
            &[("sort_by", "alpha"), ("sort_dir", "down")],
            "invalid sort_dir \"down\": must be \"asc\" or \"dsc\"",
        ),
        (
            "label_names",
            &[("limit", "10001")],
            "limit 10001 exceeds the configured maximum (10000, see --web.search.max-limit)",
        ),
        ("label_names", &[("start", "2"), ("end", "1")], "end timestamp must not be before start timestamp"),
        ("label_names", &[("match[]", "{}")], "match[] must contain at least one non-empty matcher"),
        ("label_values", &[], "missing required parameter \"label\""),
    ] {
        let reply = http.get(&format!("/api/v1/search/{what}"), parameters);
        assert_eq!(
            (reply.status, reply.json()["error"].as_str()),
            (400, Some(error)),
            "{what} {parameters:?}"
        );
    }
}

#[test]
fn search_is_off_until_it_is_switched_on() {
    let server = Server::stopped(Kind::Tributary, "");
    let mut command = std::process::Command::new(Kind::Tributary.binary());
    let wanted = server.command();
    command.args(wanted.get_args().filter(|flag| !flag.to_string_lossy().starts_with("--enable-feature")));
    command.current_dir(server.folder());
    let mut child = Child::spawn("Tributary", &mut command, &server.folder().join("log"));
    let http = server.http();
    child.wait_for("gets ready", || http.try_get("/-/ready", &[]).filter(|reply| reply.status == 200));
    let reply = http.get("/api/v1/search/metric_names", &[]);
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (500, r#"{"status":"error","errorType":"unavailable","error":"search API disabled"}"#)
    );
    assert_eq!(http.get("/api/v1/features", &[]).data()["api"]["search"], json!(false));
    child.stop();
}
