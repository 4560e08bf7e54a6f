//! A full disk: nothing is stored and the reason is told, everything acknowledged is read on, and once there is room
//! again samples are stored again, without a restart.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use integration_tests::{Http, Kind, Server, Store, eventually, now_ms, promql, write};
use model::{Labels, Timestamp};
use remote_protocol::SeriesOut;

use crate::ledger::{self, Floats, Table};

/// What the operator may expect, from the moment at which there is room.
const WRITABLE_WITHIN: Duration = Duration::from_secs(30);
const SERIES: usize = 200;

/// A small file system in memory, for as long as it is held.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Result<Self, String> {
        fs::create_dir_all(at).expect("a folder");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=40m", "tmpfs"]).arg(at).output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Self(at.to_owned())),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Takes all the room there is.
    fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).expect("a file");
        for size in [1 << 20, 4096, 1] {
            let piece = vec![1_u8; size];
            while file.write_all(&piece).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).expect("removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whoever still works in it keeps it until then.
        drop(Command::new("umount").arg("--lazy").arg(&self.0).output());
    }
}

fn series(time: i64) -> Vec<SeriesOut> {
    let one = |n: usize| {
        let labels = [("__name__", "kept".to_owned()), ("job", "j".to_owned()), ("n", n.to_string())];
        let value = time as f64 + n as f64;
        SeriesOut {
            labels: Labels::from_pairs(labels),
            floats: vec![(Timestamp(time), value)],
            ..SeriesOut::default()
        }
    };
    (0..SERIES).map(one).collect()
}

fn note(ledger: &mut Floats, written: &[SeriesOut]) {
    for one in written {
        let key = |t: Timestamp| ("default".to_owned(), ledger::json(&one.labels), t.millis());
        ledger.extend(one.floats.iter().map(|(t, x)| (key(*t), Some(x.to_bits()))));
    }
}

/// What PromQL finds of the last minutes.
fn read(http: &Http) -> Floats {
    let answer = promql::instant(http, "kept[15m]", now_ms() + 60_000);
    let mut found = Floats::new();
    for one in &answer.series {
        let labels = Labels::from_pairs(one.labels.iter().map(|(n, v)| (n.as_str(), v.as_str())));
        let key = |t: i64| ("default".to_owned(), ledger::json(&labels), t);
        found.extend(one.floats.iter().map(|(t, x)| (key(*t), Some(x.to_bits()))));
    }
    found
}

#[test]
fn a_full_disk_stores_nothing_and_loses_nothing() {
    stays_full_for_a_while(Server::stopped(Kind::Tributary, ""), ledger::read_table);
}

#[test]
fn a_full_object_store_takes_no_logs_and_loses_nothing() {
    stays_full_for_a_while(Server::stopped_cluster("", Store::FolderWithLogs), ledger::read_table_merged);
}

#[expect(clippy::print_stdout, reason = "it says that it is skipped")]
fn stays_full_for_a_while(mut server: Server, read_table: fn(&Server) -> Table) {
    let disk = match SmallDisk::mount(&server.data_folder()) {
        Ok(disk) => disk,
        Err(error) => {
            println!(
                "SKIPPED: no small file system can be mounted here ({error}); tsdb's own tests have the rest"
            );
            return;
        }
    };
    server.start_again();
    let http = server.http();
    let (mut acknowledged, mut time) = (Floats::new(), now_ms() - 5 * 60_000);
    let mut send = |acknowledged: &mut Floats| {
        time += 10;
        let batch = series(time);
        let reply = write(&http, &batch).expect("an answer");
        if reply.status == 204 {
            note(acknowledged, &batch);
        }
        reply
    };
    for _ in 0..20 {
        assert_eq!(send(&mut acknowledged).status, 204);
    }
    disk.fill();
    // The page that the log has begun may take a little yet.
    let refused = (0..50).map(|_| send(&mut acknowledged)).find(|reply| reply.status != 204);
    let refused = refused.expect("the disk is full");
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.body.contains("No space left on device"), "{}", refused.body);
    assert_eq!(ledger::differences(&read(&http), &acknowledged), Vec::<String>::new(), "read on");

    disk.free();
    let freed = Instant::now();
    while send(&mut acknowledged).status != 204 {
        assert!(freed.elapsed() < WRITABLE_WITHIN, "still read-only:\n{}", server.output());
    }
    assert!(freed.elapsed() < WRITABLE_WITHIN, "{:?}", freed.elapsed());
    for _ in 0..20 {
        assert_eq!(send(&mut acknowledged).status, 204);
    }
    let is_known = |found: &Floats| acknowledged.iter().all(|(key, bits)| found.get(key) == Some(bits));
    assert!(is_known(&read(&http)));
    server.kill_9();
    server.start_again();
    eventually("everything is answered for", || {
        http.try_get("/api/v1/query", &[("query", "kept")]).filter(|reply| reply.status == 200)
    });
    // What was refused may be there after all, as it was sent.
    assert!(is_known(&read(&http)));
    server.flush();
    server.stop();
    assert!(is_known(&read_table(&server).floats));
}
