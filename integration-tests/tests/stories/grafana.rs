//! What Grafana's Prometheus data source asks, in its own shapes: what it gets is what it understands.

use integration_tests::{Http, Kind, Server, eventually, now_ms, promql, write};
use model::{Exemplar, Labels, Timestamp};
use remote_protocol::SeriesOut;
use serde_json::{Value, json};

use crate::pair;

fn get(http: &Http, path: &str, parameters: &[(&str, &str)]) -> Value {
    http.get(&format!("/api/v1{path}"), parameters).data()
}

#[test]
fn the_data_source_works() {
    let fixture = integration_tests::Fixture::start();
    fixture.serve(
        pair::PATH,
        "# HELP shown_total Of the fixture.\n# TYPE shown_total counter\nshown_total{path=\"/\"} 1\n",
    );
    let server = Server::start(Kind::Tributary, &pair::config("fixture", &fixture.address(), pair::PATH, ""));
    let http = server.http();
    let at = now_ms() - 2_000;
    let exemplar = Exemplar {
        labels: Labels::from_pairs([("traceID", "a1b2")]),
        value: 0.25,
        timestamp: Some(Timestamp(at)),
    };
    let pushed = SeriesOut {
        labels: Labels::from_pairs([("__name__", "pushed_total"), ("job", "pushed"), ("dotted.name", "v")]),
        floats: (0..10).map(|i| (Timestamp(at - 150_000 + i * 15_000), i as f64)).collect(),
        exemplars: vec![exemplar],
        ..SeriesOut::default()
    };
    assert_eq!(write(&http, &[pushed]).map(|reply| reply.status), Some(204));
    eventually("the fixture was scraped", || promql::single(&http, "shown_total", now_ms()));

    // "Save & test": an expression by POST, and the version, without the features that only Mimir has.
    let health = http.post_form("/api/v1/query", &[("query", "1+1"), ("time", &promql::seconds(at))]).data();
    assert_eq!(health, json!({ "resultType": "scalar", "result": [at as f64 / 1e3, "2"] }));
    let build = get(&http, "/status/buildinfo", &[]);
    assert!(build["version"].as_str().is_some_and(|v| v.starts_with("3.")), "{build}");
    assert_eq!(build.get("features"), None, "{build}");

    // A panel: a range by POST, with the form's fields as strings, and an instant for a table.
    let (start, end) = (promql::seconds(at - 120_000), promql::seconds(at));
    let form = [
        ("query", "rate(pushed_total[1m])"),
        ("start", start.as_str()),
        ("end", end.as_str()),
        ("step", "15"),
    ];
    let panel = http.post_form("/api/v1/query_range", &form).data();
    let result = &panel["result"][0];
    assert_eq!(result["metric"], json!({ "job": "pushed", "dotted.name": "v" }));
    assert!(result["values"].as_array().is_some_and(|v| v.len() >= 5), "{panel}");
    let exemplars = http.post_form("/api/v1/query_exemplars", &form[..3]).data();
    assert_eq!(exemplars[0]["seriesLabels"]["__name__"], "pushed_total");
    assert_eq!(
        exemplars[0]["exemplars"],
        json!([{ "labels": { "traceID": "a1b2" }, "value": "0.25", "timestamp": at as f64 / 1e3 }])
    );

    // The query builder: names, values for a selector, and label names by POST, all within the dashboard's time.
    let (start, end) = (((at - 3_600_000) / 1_000).to_string(), (at / 1_000 + 60).to_string());
    let times = [("start", start.as_str()), ("end", end.as_str())];
    let with = |more: &[(&'static str, &'static str)]| -> Vec<(&str, &str)> {
        times.iter().chain(more).copied().collect()
    };
    let names = get(&http, "/label/__name__/values", &with(&[("limit", "40000")]));
    assert!(
        ["pushed_total", "shown_total", "up"].iter().all(|n| names.to_string().contains(&format!("\"{n}\""))),
        "{names}"
    );
    let some = get(
        &http,
        "/label/__name__/values",
        &with(&[("match[]", "{__name__=~\".*pushed.*\"}"), ("limit", "1000")]),
    );
    assert_eq!(some, json!(["pushed_total"]));
    let jobs = get(&http, "/label/job/values", &with(&[("match[]", "pushed_total"), ("limit", "10")]));
    assert_eq!(jobs, json!(["pushed"]));
    let dotted =
        get(&http, "/label/U__dotted_2e_name/values", &with(&[("match[]", "{\"dotted.name\"!=\"\"}")]));
    assert_eq!(dotted, json!(["v"]));
    let labels = http.post_form("/api/v1/labels", &with(&[("match[]", "{job=\"pushed\"}")])).data();
    assert_eq!(labels, json!(["__name__", "dotted.name", "job"]));
    let cut = http.get("/api/v1/label/__name__/values", &with(&[("limit", "1")])).json();
    assert_eq!(
        (cut["data"].as_array().map(Vec::len), &cut["warnings"]),
        (Some(1), &json!(["results truncated due to limit"]))
    );
    let series = http.post_form("/api/v1/series", &with(&[("match[]", "pushed_total")])).data();
    assert_eq!(series, json!([{ "__name__": "pushed_total", "dotted.name": "v", "job": "pushed" }]));

    // Hints: types and help of everything that is scraped.
    // They may come a little after the samples.
    let hint = eventually("what is scraped has a hint", || {
        let metadata = get(&http, "/metadata", &[("limit", "40000"), ("limit_per_metric", "1")]);
        metadata.get("shown_total").cloned()
    });
    assert_eq!(hint, json!([{ "type": "counter", "help": "Of the fixture.", "unit": "" }]));
    // Whether rules can be had, and whether this is Mimir's ruler: it is not.
    assert_eq!(get(&http, "/rules", &[])["groups"], json!([]));
    assert_eq!(http.get("/rules/test/test", &[]).status, 404);
    assert_eq!(http.get("/api/v1/rules/test/test", &[]).status, 404);

    // A browser that asks by itself sends where it comes from.
    let preflight = server.http().try_post(
        "/api/v1/query",
        &[("Origin", "http://grafana"), ("Content-Type", "application/x-www-form-urlencoded")],
        b"query=1",
    );
    let preflight = preflight.expect("an answer");
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (200, Some("*")));
}
