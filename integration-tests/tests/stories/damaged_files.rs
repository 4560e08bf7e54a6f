//! Flipped bits in a file: never a wrong value; the file is named, and everything else is served.

use std::fs;
use std::path::PathBuf;

use integration_tests::{Kind, Server, now_ms, promql, write};
use model::{Labels, Timestamp};
use remote_protocol::SeriesOut;

fn files(server: &Server) -> Vec<PathBuf> {
    let mut folders = vec![server.table()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "parquet") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_damaged_file_is_named_and_others_are_served() {
    let mut server = Server::start(Kind::Tributary, "");
    let base = now_ms() - 60_000;
    let mut before = Vec::new();
    for name in ["spoiled", "sound"] {
        let labels = Labels::from_pairs([("__name__", name), ("job", "j"), ("instance", "i")]);
        let floats = (0..100).map(|i| (Timestamp(base + i * 100), i as f64 / 3.0)).collect();
        let reply = write(&server.http(), &[SeriesOut { labels, floats, ..SeriesOut::default() }]);
        assert_eq!(reply.expect("an answer").status, 204);
        server.flush();
        before.push(files(&server));
    }
    let spoiled = before[0][0].clone();
    let sound = promql::instant(&server.http(), "sound[10m]", now_ms());
    assert_eq!(sound.series[0].floats.len(), 100);
    let intact = fs::read(&spoiled).expect("a file");
    for at in [intact.len() / 3, intact.len() - 20] {
        server.stop();
        let mut bytes = intact.clone();
        bytes[at] ^= 4;
        fs::write(&spoiled, bytes).expect("damaged");
        server.start_again();
        let http = server.http();
        assert_eq!(promql::instant(&http, "sound[10m]", now_ms()).series, sound.series);
        let time = (now_ms() / 1_000).to_string();
        let reply = http.get("/api/v1/query", &[("query", "spoiled[10m]"), ("time", &time)]);
        let name = spoiled.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(
            reply.status == 500 && reply.body.contains(&name),
            "byte {at}: {} {}",
            reply.status,
            reply.body
        );
        // Of what was selected no line is answered, be it sound or not.
        let reply = http.get("/federate", &[("match[]", "sound"), ("match[]", "spoiled")]);
        let is_refused = reply.status == 500 && reply.body.contains(&name) && !reply.body.contains("sound{");
        assert!(is_refused, "byte {at}: {} {}", reply.status, reply.body);
        // Samples are taken, and read back.
        let labels = Labels::from_pairs([("__name__", "new"), ("job", "j"), ("instance", "i")]);
        let floats = vec![(Timestamp(now_ms()), at as f64)];
        let reply = write(&http, &[SeriesOut { labels, floats, ..SeriesOut::default() }]);
        assert_eq!(reply.expect("an answer").status, 204);
        assert_eq!(promql::instant(&http, "new", now_ms()).series.len(), 1);
    }
    server.stop();
    fs::write(&spoiled, intact).expect("restored");
    server.start_again();
    let whole = promql::instant(&server.http(), "spoiled[10m]", now_ms());
    assert_eq!(whole.series[0].floats.len(), 100, "nothing was made of the damage");
}
