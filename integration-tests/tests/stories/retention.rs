//! How long data is kept, as `prometheus.yml` says it, without a restart.

use integration_tests::{Kind, Server, eventually, now_ms, write};
use model::{Labels, Timestamp};
use remote_protocol::SeriesOut;

use crate::ledger;

const DAY_MS: i64 = 24 * 3_600_000;

fn config(retention: &str) -> String {
    format!("storage: {{tsdb: {{out_of_order_time_window: 5d{retention}}}}}\n")
}

/// How long data is kept, as the server says it.
fn told(server: &Server) -> String {
    let data = server.http().get("/api/v1/status/runtimeinfo", &[]).data();
    data["storageRetention"].as_str().unwrap_or_default().to_owned()
}

/// The ages in days of what is in the table.
fn ages(server: &Server, now: i64) -> Vec<i64> {
    ledger::read_table(server).floats.keys().map(|(_, _, t)| (now - t) / DAY_MS).collect()
}

#[test]
fn the_file_says_how_long_data_is_kept_and_may_change_its_mind() {
    let server = Server::start(Kind::Tributary, &config(""));
    let now = now_ms();
    let old_and_new = SeriesOut {
        labels: Labels::from_pairs([("__name__", "kept")]),
        floats: [3, 2, 0].map(|days| (Timestamp(now - days * DAY_MS), days as f64)).to_vec(),
        ..SeriesOut::default()
    };
    assert_eq!(write(&server.http(), &[old_and_new]).expect("an answer").status, 204);
    server.flush();
    assert_eq!((told(&server).as_str(), ages(&server, now)), ("15d", vec![3, 2, 0]));
    for (retention, text, left) in [
        (", retention: {time: 60h}", "60h", vec![2, 0]),
        (", retention: {size: 1B}", "1B", vec![0]),
        (", retention: {time: 1d, size: 1GB}", "1d or 1GiB", vec![0]),
        ("", "15d", vec![0]),
    ] {
        server.write_config(&config(retention));
        let reply = server.http().post_form("/-/reload", &[]);
        assert_eq!(reply.status, 200, "{}", reply.body);
        eventually("the file is known", || (told(&server) == text).then_some(()));
        eventually("what is too old is dropped", || {
            let reply = server.http().post_form("/api/v1/admin/tsdb/compact", &[]);
            assert_eq!(reply.status, 200, "{}", reply.body);
            (ages(&server, now) == left).then_some(())
        });
    }
}
