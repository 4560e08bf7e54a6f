//! What an operator does and sees over HTTP: counts of what is in memory, copies of the table, and what is switched off.

use std::path::PathBuf;

use integration_tests::{Child, Kind, Server, now_ms, promql, write};
use model::{Labels, Timestamp};
use remote_protocol::SeriesOut;
use serde_json::{Value, json};

fn series(name: &str, count: usize, at: i64) -> Vec<SeriesOut> {
    let one = |i: usize| SeriesOut {
        labels: Labels::from_pairs([
            ("__name__", name.to_owned()),
            ("job", format!("j{}", i % 2)),
            ("i", format!("{i:03}")),
        ]),
        floats: vec![(Timestamp(at), i as f64), (Timestamp(at + 1_000), i as f64 + 0.5)],
        ..SeriesOut::default()
    };
    (0..count).map(one).collect()
}

#[test]
fn what_is_in_memory_is_counted() {
    let mut server = Server::start(Kind::Tributary, "");
    let http = server.http();
    let at = now_ms() - 60_000;
    let all: Vec<SeriesOut> = [series("few", 3, at), series("many", 20, at)].concat();
    assert_eq!(write(&http, &all).map(|reply| reply.status), Some(204));
    let status = |query: &[(&str, &str)]| http.get("/api/v1/status/tsdb", query).data();
    let found = status(&[]);
    assert_eq!(found["headStats"]["numSeries"], 23, "{found}");
    // Names few and many, jobs j0 and j1, and 20 values of i.
    assert_eq!(found["headStats"]["numLabelPairs"], 24, "{found}");
    assert_eq!(
        (&found["headStats"]["minTime"], &found["headStats"]["maxTime"]),
        (&json!(at), &json!(at + 1_000))
    );
    let entry = |name: &str, value: u64| json!({ "name": name, "value": value });
    assert_eq!(found["seriesCountByMetricName"], json!([entry("many", 20), entry("few", 3)]));
    let values = json!([entry("i", 20), entry("__name__", 2), entry("job", 2)]);
    assert_eq!(found["labelValueCountByLabelName"], values);
    // 3 bytes of i and 2 of job for each of 23 series; 20 times "many" and 3 times "few".
    let bytes = json!([entry("__name__", 89), entry("i", 69), entry("job", 46)]);
    assert_eq!(found["memoryInBytesByLabelName"], bytes);
    let pairs = json!([entry("__name__=many", 20), entry("job=j0", 12), entry("job=j1", 11)]);
    let three = status(&[("limit", "3")]);
    assert_eq!(three["seriesCountByLabelValuePair"], pairs);
    assert_eq!(three["seriesCountByMetricName"], json!([entry("many", 20), entry("few", 3)]));
    // Another tenant has nothing.
    let nobody = http.tenant("nobody").get("/api/v1/status/tsdb", &[]).data();
    assert_eq!(
        (&nobody["headStats"]["numSeries"], &nobody["seriesCountByMetricName"]),
        (&json!(0), &json!([]))
    );

    let replay = http.get("/api/v1/status/walreplay", &[]).data();
    assert!(replay["max"].as_u64().is_some_and(|n| n > 0) && replay["current"] == replay["max"], "{replay}");
    server.restart();
    assert_eq!(promql::single(&server.http(), "count({i!=\"\"})", at + 2_000), Some(23.0));
}

/// Where a copy of the table lies.
fn copied(server: &Server, reply: &Value) -> PathBuf {
    let name = reply["name"].as_str().expect("a name");
    assert!(regex::Regex::new(r"^\d{8}T\d{6}Z-[0-9a-f]{16}$").expect("a pattern").is_match(name), "{name}");
    server.table().parent().expect("the table has a folder").join("snapshots").join(name)
}

#[test]
fn a_copy_of_the_table_is_a_table() {
    let server = Server::start(Kind::Tributary, "");
    let http = server.http();
    let at = now_ms() - 60_000;
    let send =
        |name: &str| assert_eq!(write(&http, &series(name, 10, at)).map(|reply| reply.status), Some(204));
    let snapshot =
        |form: &[(&str, &str)]| copied(&server, &http.post_form("/api/v1/admin/tsdb/snapshot", form).data());
    send("first");
    let empty = snapshot(&[("skip_head", "true")]);
    let first = snapshot(&[]);
    send("second");
    // What is written and compacted behind a copy does not touch it.
    server.flush();
    assert_eq!(http.post_form("/api/v1/admin/tsdb/compact", &[]).status, 200);
    let count = |folder: &PathBuf| {
        let copy = Server::stopped(Kind::Tributary, "");
        let mut command = copy.command();
        command.arg(format!("--storage.url=file://{}", folder.display()));
        let mut child = Child::spawn("copy", &mut command, &copy.folder().join("log"));
        let ready = || copy.http().try_get("/-/ready", &[]).filter(|reply| reply.status == 200);
        child.wait_for("gets ready", ready);
        let answer = promql::instant(&copy.http(), "count by (__name__) ({i!=\"\"})", at + 2_000);
        child.stop();
        answer.series.iter().map(|s| (s.labels["__name__"].clone(), s.floats[0].1)).collect::<Vec<_>>()
    };
    assert_eq!(count(&first), [("first".to_owned(), 10.0)]);
    assert_eq!(count(&empty), []);
    assert_eq!(
        promql::single(&http, "count({i!=\"\"})", at + 2_000),
        Some(20.0),
        "the server itself has both"
    );
}

#[test]
fn what_is_switched_off_says_so() {
    let server = Server::stopped(Kind::Tributary, "");
    let mut command = std::process::Command::new(Kind::Tributary.binary());
    let wanted = server.command();
    command.args(wanted.get_args().filter(|flag| !flag.to_string_lossy().starts_with("--web.enable")));
    command.current_dir(server.folder());
    let mut child = Child::spawn("Tributary", &mut command, &server.folder().join("log"));
    let http = server.http();
    child.wait_for("gets ready", || http.try_get("/-/ready", &[]).filter(|reply| reply.status == 200));
    for what in ["snapshot", "delete_series", "clean_tombstones", "flush", "compact"] {
        let reply = http.post_form(&format!("/api/v1/admin/tsdb/{what}"), &[]);
        assert_eq!(reply.status, 500, "{what}");
        assert_eq!(
            reply.body,
            r#"{"status":"error","errorType":"unavailable","error":"admin APIs disabled"}"#
        );
    }
    for what in ["reload", "quit"] {
        let reply = http.post_form(&format!("/-/{what}"), &[]);
        assert_eq!((reply.status, reply.body.as_str()), (403, "Lifecycle API is not enabled."), "{what}");
    }
    assert_eq!(http.get("/-/healthy", &[]).status, 200, "it goes on");
}

#[test]
fn a_server_quits_when_it_is_asked_to() {
    let server = Server::stopped(Kind::Tributary, "");
    let mut child = Child::spawn("Tributary", &mut server.command(), &server.folder().join("log"));
    let http = server.http();
    child.wait_for("gets ready", || http.try_get("/-/ready", &[]).filter(|reply| reply.status == 200));
    for what in ["reload", "quit"] {
        let reply = http.get(&format!("/-/{what}"), &[]);
        assert_eq!((reply.status, reply.body.as_str()), (405, "Only POST or PUT requests allowed"), "{what}");
    }
    for what in ["delete_series", "clean_tombstones"] {
        let reply = http.post_form(&format!("/api/v1/admin/tsdb/{what}"), &[("match[]", "up")]);
        assert_eq!(
            (reply.status, reply.json()["errorType"].as_str()),
            (501, Some("not_implemented")),
            "{what}"
        );
        assert_eq!(http.get(&format!("/api/v1/admin/tsdb/{what}"), &[]).status, 405, "{what}");
    }
    let reply = http.post_form("/-/quit", &[]);
    assert_eq!((reply.status, reply.body.as_str()), (200, "Requesting termination... Goodbye!"));
    assert!(child.wait().success());
}
