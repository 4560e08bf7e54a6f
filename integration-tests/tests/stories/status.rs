//! What a server says of itself: features, flags, notifications, its files, its own metrics.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use integration_tests::{Kind, Server, eventually, now_ms, write};
use model::{Labels, Timestamp};
use remote_protocol::SeriesOut;
use serde_json::{Value, json};

#[test]
fn features_are_those_of_a_default_prometheus() {
    let Some(path) = crate::conformance("api/features.json") else { return };
    let text = std::fs::read_to_string(path).expect("the file");
    let want: Value = serde_json::from_str(&text).expect("JSON");
    let server = Server::start(Kind::Tributary, "");
    let got = server.http().get("/api/v1/features", &[]).data();
    for category in ["promql", "promql_functions", "promql_operators"] {
        assert_eq!(got[category], want[category], "{category}");
    }
    // The rest is not all built; what is there has Prometheus's names.
    for (category, features) in got.as_object().expect("categories") {
        for name in features.as_object().expect("features").keys() {
            assert!(want[category].get(name).is_some(), "{category}.{name}");
        }
    }
    let flags = server.http().get("/api/v1/status/flags", &[]).data();
    assert_eq!(flags["web.listen-address"], json!(server.address()));
    assert_eq!(flags["log.format"], "logfmt", "a default");
}

#[test]
fn a_refused_reload_is_a_notification() {
    let server = Server::start(Kind::Tributary, "");
    let http = server.http();
    let notifications = || http.get("/api/v1/notifications", &[]).data();
    assert_eq!(notifications(), json!([]));
    server.write_config("scrape_configs: 5\n");
    assert_eq!(http.post_form("/-/reload", &[]).status, 500);
    let shown =
        eventually("a notification", || notifications().as_array().and_then(|list| list.first().cloned()));
    assert_eq!(
        (&shown["text"], &shown["active"]),
        (&json!("Configuration reload has failed."), &json!(true))
    );
    server.write_config("");
    assert_eq!(http.post_form("/-/reload", &[]).status, 200);
    eventually("no notification", || (notifications() == json!([])).then_some(()));
}

/// How long an event is waited for.
const EVENT_MAX: Duration = Duration::from_secs(90);

/// Follows the notifications of a server; returns what comes behind the head.
fn follow(server: &Server) -> (String, BufReader<TcpStream>) {
    let mut stream = TcpStream::connect(server.address()).expect("a connection");
    stream.set_read_timeout(Some(EVENT_MAX)).expect("a timeout");
    let head = format!("GET /api/v1/notifications/live HTTP/1.1\r\nHost: {}\r\n\r\n", server.address());
    stream.write_all(head.as_bytes()).expect("a request");
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).expect("a line") > 0, "{head}");
    }
    (head, reader)
}

/// The next event: a line of data and an empty one, in a chunk of its own.
fn event(reader: &mut BufReader<TcpStream>) -> Value {
    loop {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).expect("a line in time") > 0, "the stream is over");
        if let Some(data) = line.strip_prefix("data: ") {
            return serde_json::from_str(data).expect("JSON");
        }
    }
}

#[test]
fn notifications_are_followed_live() {
    let mut server = Server::start(Kind::Tributary, "");
    let http = server.http();
    let (head, mut reader) = follow(&server);
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/event-stream"), "{head}");
    let refused = "Configuration reload has failed.";
    server.write_config("scrape_configs: 5\n");
    assert_eq!(http.post_form("/-/reload", &[]).status, 500);
    let begun = event(&mut reader);
    assert_eq!((&begun["text"], &begun["active"]), (&json!(refused), &json!(true)));
    // Who comes later hears what is so.
    let (_, mut late) = follow(&server);
    assert_eq!(event(&mut late), begun);
    assert_eq!(
        http.get("/api/v1/notifications", &[]).data(),
        json!([begun]),
        "the date is that of the event"
    );
    server.write_config("");
    assert_eq!(http.post_form("/-/reload", &[]).status, 200);
    let ended = event(&mut reader);
    assert_eq!(ended, json!({ "text": refused, "date": begun["date"], "active": false }));

    // Sixteen may follow, and places of those who left are given away again.
    let more: Vec<_> = (0..14).map(|_| follow(&server)).collect();
    assert!(more.iter().all(|(head, _)| head.starts_with("HTTP/1.1 200")));
    let (full, _) = follow(&server);
    assert!(full.starts_with("HTTP/1.1 204"), "{full}");
    drop(more);
    eventually("there is room again", || follow(&server).0.starts_with("HTTP/1.1 200").then_some(()));

    // The last thing that is told, before the end of the stream.
    server.stop();
    let last = event(&mut reader);
    assert_eq!(
        last["text"],
        json!("Prometheus is shutting down and gracefully stopping all operations."),
        "{last}"
    );
    let mut rest = String::new();
    reader.read_to_string(&mut rest).expect("the end, in order");
}

#[test]
fn the_files_of_the_table_are_listed() {
    let server = Server::start(Kind::Tributary, "");
    let http = server.http();
    let blocks = || http.get("/api/v1/status/tsdb/blocks", &[]).data()["blocks"].clone();
    assert_eq!(blocks(), json!([]));
    // Two days: a file each.
    let day = 86_400_000;
    let at = now_ms() / day * day - 2 * day + 3_600_000;
    let series = |name: &str, times: &[i64]| SeriesOut {
        labels: Labels::from_pairs([("__name__", name), ("job", "pushed")]),
        floats: times.iter().map(|t| (Timestamp(*t), 1.0)).collect(),
        ..SeriesOut::default()
    };
    let all = [series("one", &[at, at + 1_000, at + day]), series("two", &[at + 500])];
    assert_eq!(write(&http, &all).map(|reply| reply.status), Some(204));
    server.flush();
    let found = blocks();
    let shown: Vec<(i64, i64, u64)> = found
        .as_array()
        .expect("a list")
        .iter()
        .map(|block| {
            let number = |name: &str| block[name].as_i64().expect("a number");
            let rows = block["stats"]["numChunks"].as_u64().expect("a number");
            (number("minTime"), number("maxTime"), rows)
        })
        .collect();
    assert_eq!(shown, [(at, at + 1_001, 2), (at + day, at + day + 1, 1)], "{found}");
    for block in found.as_array().expect("a list") {
        let ulid = block["ulid"].as_str().expect("a name");
        assert_eq!(ulid.len(), 26, "{block}");
        assert_eq!(
            (&block["compaction"]["level"], &block["compaction"]["sources"]),
            (&json!(1), &json!([ulid]))
        );
    }
    let nobody = http.tenant("nobody").get("/api/v1/status/tsdb/blocks", &[]).data();
    assert_eq!(nobody, json!({ "blocks": [] }));
    // A day that is over becomes one file, of higher level.
    assert_eq!(http.post_form("/api/v1/admin/tsdb/compact", &[]).status, 200);
    let compacted = blocks();
    let levels: Vec<_> =
        compacted.as_array().expect("a list").iter().map(|b| &b["compaction"]["level"]).collect();
    assert!(levels.iter().any(|level| level.as_u64() > Some(1)), "{compacted}");
}

#[test]
fn own_metrics_are_those_of_the_scrape() {
    let server = Server::start(Kind::Tributary, "");
    let http = server.http();
    // The text comes first: what has its first series in between is in the other alone.
    let text = http.get("/metrics", &[]).body;
    let all = http.get("/api/v1/status/self_metrics", &[]).data();
    let names: Vec<&str> =
        all.as_array().expect("a list").iter().map(|f| f["name"].as_str().expect("a name")).collect();
    assert!(names.is_sorted(), "{names:?}");
    // Every family of the text is there, by the name that its series have.
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a name and a type");
        let shown = match kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        };
        // A family without series has none to show.
        let has_series = text.lines().any(|line| line.starts_with(&shown));
        assert!(!has_series || names.contains(&shown.as_str()), "{line}");
    }
    let one = http
        .get("/api/v1/status/self_metrics", &[("metric_name_pattern", "process_start_time_sec.*")])
        .data();
    let started = one[0]["metric"][0]["gauge"]["value"].as_f64().expect("a number");
    let line = text.lines().find_map(|l| l.strip_prefix("process_start_time_seconds ")).expect("the series");
    assert_eq!(started, line.parse::<f64>().expect("a number"));
    assert_eq!(one.as_array().map(Vec::len), Some(1), "a pattern is for the whole of a name");
    let requests = http
        .get(
            "/api/v1/status/self_metrics",
            &[("metric_name_pattern", "prometheus_http_request_duration_seconds")],
        )
        .data();
    let histogram = &requests[0]["metric"][0]["histogram"];
    let buckets = histogram["bucket"].as_array().expect("a list");
    let last = buckets.last().expect("buckets");
    assert_eq!(
        (&last["upperBound"], &last["cumulativeCount"]),
        (&json!("Infinity"), &histogram["sampleCount"])
    );
}
