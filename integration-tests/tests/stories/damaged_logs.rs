//! Flipped bits in a log, on a disk and in an object store: never a wrong value; what is damaged is named, everything
//! else is served, and writes go on.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;

use integration_tests::{Kind, S3Server, Server, Store, eventually};

use crate::diskless::wait_for_whole_answers;
use crate::ledger::{self, Floats};
use crate::writers::{SERIES, Writer, while_writing, writers};

/// What each client writes before the damage: enough for as many segments.
const BATCHES: i64 = 20;
/// Samples of a record: a group's of one batch.
const RECORD_SAMPLES_MAX: usize = SERIES as usize / 3;

/// A segment is a header and records, a record eight bytes and a body: `shared/tsdb/src/log/segment.rs`.
const HEADER_BYTES: usize = 76;
const RECORD_HEAD_BYTES: usize = 8;
/// The second byte of the body of a record of samples.
const SAMPLES: u8 = 4;

/// Where logs lie: a folder for each, with files of one or several segments.
enum Wal<'a> {
    Disk(PathBuf),
    Bucket(&'a S3Server),
}

/// A segment, by where it lies in a file.
struct Segment {
    file: String,
    start: usize,
    number: u64,
    /// The bodies of its records.
    records: Vec<Range<usize>>,
    has_samples_alone: bool,
}

impl Wal<'_> {
    fn list(&self, folder: &str) -> Vec<String> {
        match self {
            Self::Disk(root) => {
                let entries =
                    fs::read_dir(root.join(folder)).expect("a folder").map(|e| e.expect("an entry"));
                let mut names: Vec<_> =
                    entries.map(|e| e.file_name().into_string().expect("a name")).collect();
                names.sort();
                names
            }
            Self::Bucket(s3) => s3.list(&format!("metrics/table/wal/{folder}")),
        }
    }

    fn read(&self, file: &str) -> Vec<u8> {
        match self {
            Self::Disk(root) => fs::read(root.join(file)).expect("a file"),
            Self::Bucket(s3) => s3.read(&format!("metrics/table/wal/{file}")),
        }
    }

    fn flip_a_bit(&self, file: &str, at: usize) {
        let mut bytes = self.read(file);
        bytes[at] ^= 0x10;
        match self {
            Self::Disk(root) => fs::write(root.join(file), bytes).expect("written"),
            Self::Bucket(s3) => s3.write(&format!("metrics/table/wal/{file}"), &bytes),
        }
    }

    /// The log that holds most, and its segments; what lies behind a gap was never acknowledged.
    fn longest(&self) -> (String, Vec<Segment>) {
        let logs = self.list("").into_iter().filter(|name| name.len() == 26);
        let all = logs.map(|log| {
            let files = self.list(&log).into_iter().filter(|name| name.len() == 20);
            let segments = files.flat_map(|name| {
                let file = format!("{log}/{name}");
                segments(&self.read(&file), &file)
            });
            let segments = segments.zip(0..).take_while(|(s, n)| s.number == *n).map(|(s, _)| s).collect();
            (log, segments)
        });
        all.max_by_key(|(_, segments): &(_, Vec<_>)| segments.len()).expect("a log")
    }
}

/// Takes a file apart, as far as it was written.
fn segments(bytes: &[u8], file: &str) -> Vec<Segment> {
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let (mut found, mut start) = (Vec::new(), 0);
    while bytes.len() >= start + HEADER_BYTES {
        assert_eq!(bytes[start..start + 4], *b"TRLS");
        let end = start + HEADER_BYTES + usize::try_from(long(start + 64)).expect("small");
        if end > bytes.len() {
            break;
        }
        let (mut records, mut at) = (Vec::new(), start + HEADER_BYTES);
        while at < end {
            let length = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
            let body = at + RECORD_HEAD_BYTES;
            at = body + length as usize;
            records.push(body..at);
        }
        found.push(Segment {
            file: file.to_owned(),
            start,
            number: long(start + 24),
            has_samples_alone: !records.is_empty() && records.iter().all(|r| bytes[r.start + 1] == SAMPLES),
            records,
        });
        start = end;
    }
    found
}

/// What was damaged.
struct Damage {
    log: String,
    /// What the server has to say of it.
    names: [String; 3],
    samples_max: usize,
}

/// Flips a bit in the header of one segment, in a record in the middle of another, and in the last record of the last.
fn damage(wal: &Wal<'_>) -> Damage {
    let (log, all) = wal.longest();
    // A declaration that is damaged takes with it what refers to it.
    let whole: Vec<&Segment> = all.iter().filter(|segment| segment.has_samples_alone).collect();
    assert!(whole.len() >= 6, "{} segments of samples alone, of {}", whole.len(), all.len());
    let (first, middle, last) =
        (whole[whole.len() / 3], whole[whole.len() / 2], all.last().expect("the last"));
    wal.flip_a_bit(&first.file, first.start + 33);
    let record = middle.records.len() / 2;
    let middle_of = |body: &Range<usize>| usize::midpoint(body.start, body.end);
    wal.flip_a_bit(&middle.file, middle_of(&middle.records[record]));
    wal.flip_a_bit(&last.file, middle_of(&last.records[last.records.len() - 1]));
    let mismatch = |segment: &Segment, record: usize| {
        format!("segment {} record {record}: its checksum does not match", segment.number)
    };
    let header = match wal {
        Wal::Disk(_) => {
            let end = first.records.last().expect("records").end;
            format!("{} bytes {} to {end}: not a segment", first.file, first.start)
        }
        Wal::Bucket(_) => format!("segment {}: its header cannot be read", first.number),
    };
    Damage {
        log,
        names: [header, mismatch(middle, record), mismatch(last, last.records.len() - 1)],
        samples_max: RECORD_SAMPLES_MAX * (first.records.len() + 2),
    }
}

fn lost(server: &Server, clients: &[Writer]) -> Vec<BTreeSet<(i64, i64)>> {
    clients.iter().map(|client| client.lost(&server.http())).collect()
}

/// Waits until each client has written some more.
fn wait_for_each(clients: &[Writer]) {
    let before: Vec<i64> = clients.iter().map(Writer::acknowledged).collect();
    eventually("everybody writes", || {
        clients.iter().zip(&before).all(|(c, before)| c.acknowledged() >= before + BATCHES).then_some(())
    });
}

/// Returns what is not there any more, of each client.
fn survives(
    server: &mut Server,
    clients: &[Writer],
    wal: fn(&mut Server) -> Wal<'_>,
) -> Vec<BTreeSet<(i64, i64)>> {
    while_writing(server, clients, |server| {
        wait_for_each(clients);
        server.kill_9();
    });
    let damage = damage(&wal(server));
    server.start_again();
    wait_for_whole_answers(server);
    let gone = lost(server, clients);
    let count: usize = gone.iter().map(BTreeSet::len).sum();
    assert!(count <= damage.samples_max, "{count} samples, of at most {}", damage.samples_max);

    let printed = server.whole_output();
    for name in &damage.names {
        let is_told = printed.lines().any(|line| line.contains(&damage.log) && line.contains(name));
        assert!(is_told, "{}: {name}\n{}", damage.log, server.output());
    }
    let counted: f64 = server.ingesters().iter().map(|http| http.metric("ingester_log_damages_total")).sum();
    assert!(counted >= 2.0, "{counted} damaged places");

    while_writing(server, clients, |_| wait_for_each(clients));
    assert_eq!(lost(server, clients), gone);
    server.flush();
    wait_for_whole_answers(server);
    assert_eq!(lost(server, clients), gone);
    gone
}

#[test]
fn flipped_bits_on_a_disk_cost_what_they_hit() {
    let (mut server, clients) = (Server::start(Kind::Tributary, ""), writers());
    let wal = |server: &mut Server| Wal::Disk(server.data_folder().join("tributary/wal"));
    let gone = survives(&mut server, &clients, wal);
    let mut want = Floats::new();
    for (client, gone) in clients.iter().zip(gone) {
        want.extend(client.finish(&server.http()));
        for (batch, series) in gone {
            want.remove(&client.entry(batch, series).0);
        }
    }
    server.flush();
    server.stop();
    let got = ledger::read_table(&server).floats;
    assert_eq!(ledger::differences(&got, &want), Vec::<String>::new());
}

#[test]
fn flipped_bits_in_a_bucket_cost_what_they_hit() {
    let (mut server, clients) = (Server::start_cluster("", Store::S3WithLogs), writers());
    survives(&mut server, &clients, |server| Wal::Bucket(server.cluster().s3().expect("it is in S3")));
}
