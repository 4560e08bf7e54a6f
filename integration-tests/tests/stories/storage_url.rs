//! `--storage.url`: ingester and querier meet in a table that lies in neither's folder.

use std::fs;
use std::path::Path;
use std::process::Command;

use integration_tests::{
    Child, Http, Kind, Role, S3Server, Server, eventually, free_port, now_ms, promql, write,
};
use model::{Labels, Timestamp};
use remote_protocol::SeriesOut;

const SAMPLES: i64 = 10;
const QUERY: &str = "sum(sum_over_time(stored[10m]))";
/// 1 + 2 + ... + 10.
const SUM: f64 = 55.0;

fn series(now: i64) -> SeriesOut {
    SeriesOut {
        labels: Labels::from_pairs([("__name__", "stored"), ("job", "story"), ("instance", "i")]),
        floats: (1..=SAMPLES).map(|i| (Timestamp(now - (SAMPLES - i) * 15_000), i as f64)).collect(),
        ..SeriesOut::default()
    }
}

fn store(http: &Http, now: i64) {
    // The gateway is ready before it has found the ingester.
    eventually("a write is taken", || {
        write(http, &[series(now)]).filter(|reply| reply.status == 204).map(drop)
    });
    let reply = http.post_form("/api/v1/admin/tsdb/flush", &[]);
    assert_eq!(reply.status, 200, "{}", reply.body);
}

/// Roles write to a URL; a new ingester without any data of its own changes no answer.
fn tell(url: &str, variables: &[(&str, String)]) {
    let [ingester_port, querier_port, gateway_port] = [(); 3].map(|()| free_port());
    let peer = |role: &str, port: u16| format!("--cluster.peer={role}=127.0.0.1:{port}");
    let storage = format!("--storage.url={url}");
    let flags = [storage.clone(), format!("--otlp.grpc-address=127.0.0.1:{}", free_port())];
    let start_ingester = || Role::start("ingester", ingester_port, "path: own\n", &flags, variables);
    let ingester = start_ingester();
    let querier_flags = [storage.clone(), peer("ingester", ingester_port)];
    let querier = Role::start("querier", querier_port, "path: unused\n", &querier_flags, variables);
    let gateway_flags = [peer("ingester", ingester_port), peer("querier", querier_port)];
    let gateway = Role::start("gateway", gateway_port, "enable_admin_api: true\n", &gateway_flags, &[]);

    let now = now_ms();
    store(&gateway.http(), now);
    // As long as the querier has not found the ingester, it refuses rather than answers in part.
    let sum = || {
        let answer = promql::instant_once_answered(&gateway.http(), QUERY, now);
        answer.series.first().map(|series| series.floats[0].1)
    };
    assert_eq!(sum(), Some(SUM));
    assert!(ingester.folder().join("own/wal").is_dir(), "the log stays");
    assert!(!ingester.folder().join("own/metrics").exists(), "the table is elsewhere");
    assert!(!querier.folder().join("unused").exists(), "the querier needs no folder");

    ingester.stop();
    let ingester = start_ingester();
    assert_eq!(sum(), Some(SUM), "the table alone answers");
    drop((gateway, querier, ingester));
}

fn assert_table(folder: &Path) {
    let commit = folder.join("metrics/_delta_log/00000000000000000001.json");
    assert!(fs::read_to_string(&commit).expect("a flush").contains("parquet"), "{}", commit.display());
}

#[test]
fn roles_meet_in_a_shared_folder() {
    let shared = tempfile::tempdir().expect("a folder");
    tell(&format!("file://{}", shared.path().display()), &[]);
    assert_table(shared.path());
}

#[test]
fn roles_meet_in_a_bucket_of_s3() {
    let s3 = S3Server::start();
    s3.create_bucket("story");
    tell("s3://story/some/prefix", &s3.variables());
}

/// A copy of the table in a bucket is a table in the bucket, which nothing touches again.
#[test]
fn a_copy_in_a_bucket_is_a_table() {
    let s3 = S3Server::start();
    s3.create_bucket("story");
    let start = |prefix: &str| {
        let server = Server::stopped(Kind::Tributary, "");
        let mut command = server.command();
        command.arg(format!("--storage.url=s3://story/{prefix}"));
        command.envs(s3.variables());
        let mut child = Child::spawn("tributary", &mut command, &server.folder().join("log"));
        let http = server.http();
        child.wait_for("gets ready", || http.try_get("/-/ready", &[]).filter(|reply| reply.status == 200));
        (server, child)
    };
    let (server, mut child) = start("live");
    let (http, now) = (server.http(), now_ms());
    // One sample in files, nine in memory alone.
    let whole = series(now);
    let part =
        |range: std::ops::Range<usize>| SeriesOut { floats: whole.floats[range].to_vec(), ..whole.clone() };
    let send = |range| assert_eq!(write(&http, &[part(range)]).map(|reply| reply.status), Some(204));
    send(0..1);
    server.flush();
    send(1..9);
    let copy = |form: &[(&str, &str)]| {
        let reply = http.post_form("/api/v1/admin/tsdb/snapshot", form).data();
        reply["name"].as_str().expect("a name").to_owned()
    };
    let (of_table, of_all) = (copy(&[("skip_head", "true")]), copy(&[]));
    // What comes later is in neither, and that the table goes on touches none.
    send(9..10);
    server.flush();
    assert_eq!(http.post_form("/api/v1/admin/tsdb/compact", &[]).status, 200);
    assert_eq!(promql::single(&http, QUERY, now), Some(SUM));
    child.stop();
    for (name, sum) in [(of_table, 1.0), (of_all, SUM - 10.0)] {
        let (server, mut child) = start(&format!("live/snapshots/{name}"));
        assert_eq!(promql::single(&server.http(), QUERY, now), Some(sum), "{name}");
        child.stop();
    }
}

#[test]
fn the_all_in_one_keeps_its_log_and_moves_its_table() {
    let shared = tempfile::tempdir().expect("a folder");
    let server = Server::stopped(Kind::Tributary, "");
    let mut command = server.command();
    command.arg(format!("--storage.url=file://{}", shared.path().display()));
    let mut child = Child::spawn("tributary", &mut command, &server.folder().join("log"));
    let http = server.http();
    child.wait_for("gets ready", || http.try_get("/-/ready", &[]).filter(|reply| reply.status == 200));
    let now = now_ms();
    store(&http, now);
    assert_eq!(promql::single(&http, QUERY, now), Some(SUM));
    child.stop();
    assert_table(shared.path());
    assert!(server.data_folder().join("tributary/wal").is_dir());
    assert!(!server.table().exists());
}

#[test]
fn a_url_that_means_nothing_stops_the_start() {
    for (role, url, want) in [
        (Some("ingester"), "gs://bucket/x", "storage.url: gs:// is not supported"),
        (Some("querier"), "/var/lib", "storage.url: relative URL without a base"),
        (None, "s3://x", r#"storage.url: "x" is no name of a bucket"#),
    ] {
        let mut command = Command::new(Kind::Tributary.binary());
        let output = command.args(role).arg(format!("--storage.url={url}")).output().expect("runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && errors.contains(want), "{url}: {errors}");
    }
}
