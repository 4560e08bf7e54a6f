//! What every store of logs keeps to: one suite, run over a disk and over each kind of object store.
//!
//! With a file for each segment a log looks the same on a disk as in an object store, so what a test damages is named
//! the same way. `testdata/logs` holds damaged logs that both read.
//!
//! A disk has no requests whose answers are lost or that arrive late, and a lock keeps others out for as long as the
//! writer lives. What those do to the logs of an object store is in `tests/it/taking_over.rs`.

use std::fs;
use std::path::Path as FilePath;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use model::{Clock, Timestamp};
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use ulid::Ulid;

use super::local::{self, LocalLog};
use super::objects::{LogOwner, ObjectLogOptions, ObjectLogs};
use super::reader;
use super::record::{self, Record};
use super::segment::{self, HEADER_BYTES, Role};
use super::{Done, Writer};
use crate::error::{Error, Result};
use crate::table::{Table, TableOptions};
use crate::testing::{Kind, TestStore, run};

/// The time at which every test begins.
const START: Timestamp = Timestamp(1_800_000_000_000);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Disk,
    Objects(Kind),
}

/// A place for logs, empty at first.
struct Bench {
    place: Place,
    folder: tempfile::TempDir,
    store: TestStore,
    clock: Clock,
    table: Arc<Table>,
    logs: Arc<ObjectLogs>,
}

/// What a reader finds of a log.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// Segment and group of every record.
    records: Vec<(u64, u64)>,
    damages: Vec<String>,
    is_sealed: bool,
}

impl Bench {
    async fn new(place: Place) -> Self {
        let kind = match place {
            Place::Disk => Kind::Memory,
            Place::Objects(kind) => kind,
        };
        let (store, clock) = (kind.store(), Clock::fixed(START));
        let options = TableOptions {
            store: Arc::clone(&store),
            prefix: "metrics".into(),
            clock: clock.clone(),
            runtime: Handle::current(),
            request_cost_bytes: 1 << 16,
            cache_bytes: 1 << 20,
        };
        let table = Table::open(options).await.expect("a table");
        let owner = LogOwner { ingester: "ingester-0".to_owned(), address: "10.0.0.1:9603".to_owned() };
        let options = ObjectLogOptions::new(owner, clock.clone(), Handle::current());
        let logs = ObjectLogs::on(Arc::clone(&store), &Path::default(), options).await.expect("logs");
        let folder = tempfile::tempdir().expect("a folder");
        Self { place, folder, store, clock, table, logs }
    }

    async fn create(&self) -> Box<dyn Writer> {
        match self.place {
            Place::Disk => Box::new(LocalLog::create(self.folder.path(), Ulid(7), 99, 1).expect("a log")),
            Place::Objects(_) => {
                let born = self.logs.born().await.expect("born");
                Box::new(self.logs.writer(born))
            }
        }
    }

    /// Reads what lies behind the table's transaction, which is what a log is read for.
    async fn read(&self, id: Ulid) -> Result<Found> {
        let base = self.table.snapshot(None).await?.last_transaction(&id.to_string());
        let from = base.map_or(1, |base| base + 1);
        let mut found = Found { records: Vec::new(), damages: Vec::new(), is_sealed: false };
        match self.place {
            Place::Disk => {
                let folder = self.folder.path().join(id.to_string());
                let records = &mut found.records;
                let summary = reader::read(&folder, id, from, |seq, record| {
                    records.push((seq, group(&record)));
                    Ok(())
                })?;
                (found.damages, found.is_sealed) = (summary.damages, summary.is_sealed);
            }
            Place::Objects(_) => {
                let survey = self.logs.survey(id, &self.table).await?.expect("it is there");
                found.is_sealed = survey.sealed.is_some();
                let mut segments = pin!(self.logs.read(id, from, survey.end - 1));
                while let Some(segment) = segments.try_next().await? {
                    found.records.extend(segment.records.iter().map(|r| (segment.seq, group(r))));
                    found.damages.extend(segment.damages);
                }
            }
        }
        Ok(found)
    }

    /// Takes over from a writer that is gone.
    async fn seal(&self, id: Ulid) -> Result<()> {
        match self.place {
            Place::Disk => {
                let folder = self.folder.path().join(id.to_string());
                let summary = reader::read(&folder, id, 1, |_, _| Ok(()))?;
                let last = summary.last.expect("it was born");
                if summary.is_sealed {
                    return Ok(());
                }
                local::seal(&folder, id, &last, summary.torn.as_ref())
            }
            Place::Objects(_) => self.logs.seal(id, &self.table).await.map(drop),
        }
    }

    /// Changes a segment's bytes, or takes it away.
    async fn edit(&self, id: Ulid, seq: u64, edit: impl FnOnce(&mut Vec<u8>) -> bool) {
        let name = format!("{id}/{seq:020}");
        let (file, object) = (self.folder.path().join(&name), Path::from(format!("wal/{name}")));
        let mut bytes = match self.place {
            Place::Disk => fs::read(&file).unwrap_or_default(),
            Place::Objects(_) => match self.store.get(&object).await {
                Ok(found) => found.bytes().await.expect("readable").to_vec(),
                Err(_) => Vec::new(),
            },
        };
        let stays = edit(&mut bytes);
        match self.place {
            Place::Disk if stays => fs::write(&file, bytes).expect("written"),
            Place::Disk => fs::remove_file(&file).expect("removed"),
            Place::Objects(_) if stays => drop(self.store.put(&object, bytes.into()).await.expect("written")),
            Place::Objects(_) => self.store.delete(&object).await.expect("removed"),
        }
    }

    async fn is_there(&self, id: Ulid, seq: u64) -> bool {
        let name = format!("{id}/{seq:020}");
        match self.place {
            Place::Disk => self.folder.path().join(&name).exists(),
            Place::Objects(_) => self.store.head(&Path::from(format!("wal/{name}"))).await.is_ok(),
        }
    }
}

fn group(record: &Record) -> u64 {
    match record {
        Record::Forget { group } => *group,
        other => panic!("not a record of these tests: {other:?}"),
    }
}

/// A payload of records that forget these groups: the smallest records there are.
fn payload(groups: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    for group in groups {
        segment::put_record(&mut out, |out| record::put_forget(out, *group));
    }
    out
}

fn submit(log: &mut dyn Writer, role: Role, payload: &[u8], now: Timestamp) -> oneshot::Receiver<Result<()>> {
    let (tell, done) = oneshot::channel();
    let tell: Done = Box::new(move |outcome| drop(tell.send(outcome)));
    log.submit(role, payload, now, tell);
    done
}

async fn append(log: &mut dyn Writer, groups: &[u64]) -> Result<u64> {
    let done = submit(log, Role::Records, &payload(groups), START);
    let seq = log.last_seq();
    done.await.expect("answered").map(|()| seq)
}

async fn what_is_written_is_read_in_order(place: Place) {
    let bench = Bench::new(place).await;
    let mut log = bench.create().await;
    assert_eq!(bench.read(log.id()).await.expect("born").records, []);
    assert_eq!(append(&mut *log, &[10, 11]).await.expect("written"), 1);
    // Several at a time are done in order.
    let waiting: Vec<_> =
        (2..=9).map(|n| submit(&mut *log, Role::Records, &payload(&[n * 10]), START)).collect();
    for done in waiting {
        done.await.expect("answered").expect("written");
    }
    let mut wanted = vec![(1, 10), (1, 11)];
    wanted.extend((2..=9).map(|n| (n, n * 10)));
    let found = bench.read(log.id()).await.expect("intact");
    assert_eq!(found, Found { records: wanted, damages: Vec::new(), is_sealed: false });
    assert_eq!(log.last_seq(), 9);
}

async fn a_writer_that_ends_its_log_adds_nothing(place: Place) {
    let bench = Bench::new(place).await;
    let mut log = bench.create().await;
    append(&mut *log, &[1]).await.expect("written");
    submit(&mut *log, Role::Seal, &[], START).await.expect("answered").expect("sealed");
    let refused = append(&mut *log, &[2]).await.expect_err("it has ended");
    assert!(matches!(refused, Error::LogEnded { .. }), "{refused}");
    let found = bench.read(log.id()).await.expect("intact");
    assert_eq!((found.records, found.is_sealed), (vec![(1, 1)], true));
}

async fn a_log_is_sealed_once_by_whoever_comes_first(place: Place) {
    let bench = Bench::new(place).await;
    let mut log = bench.create().await;
    let id = log.id();
    append(&mut *log, &[1]).await.expect("written");
    append(&mut *log, &[2]).await.expect("written");
    drop(log);
    bench.seal(id).await.expect("sealed");
    bench.seal(id).await.expect("sealed already");
    let found = bench.read(id).await.expect("intact");
    assert_eq!((found.records, found.is_sealed), (vec![(1, 1), (2, 2)], true));
    assert!(bench.is_there(id, 3).await && !bench.is_there(id, 4).await);
}

async fn a_writer_that_is_sealed_out_acknowledges_nothing(place: Place) {
    let bench = Bench::new(place).await;
    let mut log = bench.create().await;
    append(&mut *log, &[1]).await.expect("written");
    bench.seal(log.id()).await.expect("sealed while the writer stood still");
    for group in [2, 3] {
        append(&mut *log, &[group]).await.expect_err("its place is taken");
    }
    let found = bench.read(log.id()).await.expect("intact");
    assert_eq!((found.records, found.is_sealed), (vec![(1, 1)], true));
}

async fn a_log_that_was_only_born_is_sealed_behind_its_birth(place: Place) {
    let bench = Bench::new(place).await;
    let id = bench.create().await.id();
    bench.seal(id).await.expect("sealed");
    let found = bench.read(id).await.expect("intact");
    assert_eq!((found.records, found.is_sealed), (vec![], true));
}

async fn a_flipped_bit_costs_one_record(place: Place) {
    let bench = Bench::new(place).await;
    let mut log = bench.create().await;
    for seq in 1..=3 {
        append(&mut *log, &[seq * 10, seq * 10 + 1]).await.expect("written");
    }
    bench
        .edit(log.id(), 2, |bytes| {
            *bytes.last_mut().expect("a record") ^= 1;
            true
        })
        .await;
    let found = bench.read(log.id()).await.expect("readable");
    assert_eq!(found.records, [(1, 10), (1, 11), (2, 20), (3, 30), (3, 31)]);
    assert!(found.damages.len() == 1 && found.damages[0].contains("segment 2 record 1"), "{found:?}");
}

async fn a_flipped_bit_in_a_header_costs_one_segment(place: Place) {
    for bit in [0, 5 * 8, 30 * 8, HEADER_BYTES * 8 - 1] {
        let bench = Bench::new(place).await;
        let mut log = bench.create().await;
        for seq in 1..=3 {
            append(&mut *log, &[seq * 10]).await.expect("written");
        }
        bench
            .edit(log.id(), 2, |bytes| {
                bytes[bit / 8] ^= 1 << (bit % 8);
                true
            })
            .await;
        let found = bench.read(log.id()).await.expect("readable");
        assert_eq!(found.records, [(1, 10), (3, 30)], "bit {bit}");
        assert_eq!(found.damages.len(), 1, "bit {bit}: {found:?}");
    }
}

async fn a_missing_segment_that_was_acknowledged_is_an_error(place: Place) {
    let bench = Bench::new(place).await;
    let mut log = bench.create().await;
    for seq in 1..=5 {
        append(&mut *log, &[seq]).await.expect("written");
    }
    bench.edit(log.id(), 2, |_| false).await;
    bench.edit(log.id(), 3, |_| false).await;
    let error = bench.read(log.id()).await.expect_err("samples are missing");
    assert!(matches!(error, Error::Gap { from: 2, to: 3, acknowledged: 4, .. }), "{error}");
    assert!(bench.seal(log.id()).await.is_err(), "nor can it be taken over");
}

async fn a_torn_end_is_no_error(place: Place) {
    let bench = Bench::new(place).await;
    let mut log = bench.create().await;
    let id = log.id();
    append(&mut *log, &[1]).await.expect("written");
    append(&mut *log, &[2, 3]).await.expect("written");
    drop(log);
    let whole = HEADER_BYTES + payload(&[2, 3]).len();
    bench
        .edit(id, 2, |bytes| {
            bytes.truncate(whole - 1);
            true
        })
        .await;
    bench.seal(id).await.expect("sealed");
    let found = bench.read(id).await.expect("readable");
    assert!(found.is_sealed);
    match place {
        // The writer died in the middle of it, so it was never acknowledged.
        Place::Disk => assert_eq!((found.records, found.damages.len()), (vec![(1, 1)], 0)),
        // A put is whole or not there: this was damaged later, and what is whole of it may have been acknowledged.
        Place::Objects(_) => assert_eq!((found.records, found.damages.len()), (vec![(1, 1), (2, 2)], 2)),
    }
}

async fn what_the_table_has_is_not_needed_and_goes_when_a_header_says_so(place: Place) {
    let bench = Bench::new(place).await;
    let mut log = bench.create().await;
    let id = log.id();
    for seq in 1..=4 {
        append(&mut *log, &[seq]).await.expect("written");
    }
    let through = 3;
    bench.table.commit_flush(&id.to_string(), None, through, Vec::new()).await.expect("committed");
    log.set_floor(through + 1);
    let later = START.add_ms(1000);
    log.remove_unneeded(later).expect("nothing to do");
    assert!(bench.is_there(id, 1).await, "no header says so yet");
    bench.clock.set(START.add_ms(500));
    let done = submit(&mut *log, Role::Records, &[], START.add_ms(500));
    done.await.expect("answered").expect("written");
    log.remove_unneeded(START.add_ms(499)).expect("nothing to do");
    assert!(bench.is_there(id, 1).await, "not for long enough");
    log.remove_unneeded(START.add_ms(500)).expect("removed");
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while bench.is_there(id, 3).await {
        assert!(std::time::Instant::now() < deadline, "segments stay");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for (seq, is_kept) in [(1, false), (2, false), (3, false), (4, true), (5, true)] {
        assert_eq!(bench.is_there(id, seq).await, is_kept, "segment {seq}");
    }
    let found = bench.read(id).await.expect("what is gone is not needed");
    assert_eq!(found.records, [(4, 4)]);
    append(&mut *log, &[6]).await.expect("it goes on");
    drop(log);
    bench.seal(id).await.expect("sealed");
    let found = bench.read(id).await.expect("what is gone is not needed");
    assert_eq!((found.records, found.is_sealed), (vec![(4, 4), (6, 6)], true));
}

/// Makes a module of tests for each place.
macro_rules! in_every_place {
    ($($test:ident),+ $(,)?) => {
        in_every_place!(mod disk, Place::Disk => $($test),+);
        in_every_place!(mod memory, Place::Objects(Kind::Memory) => $($test),+);
        in_every_place!(mod folder, Place::Objects(Kind::Folder) => $($test),+);
        in_every_place!(mod s3, Place::Objects(Kind::S3) => $($test),+);
    };
    (mod $module:ident, $place:expr => $($test:ident),+) => {
        mod $module {
            use super::*;
            $(
                #[test]
                fn $test() {
                    run(super::$test($place));
                }
            )+
        }
    };
}

in_every_place!(
    what_is_written_is_read_in_order,
    a_writer_that_ends_its_log_adds_nothing,
    a_log_is_sealed_once_by_whoever_comes_first,
    a_writer_that_is_sealed_out_acknowledges_nothing,
    a_log_that_was_only_born_is_sealed_behind_its_birth,
    a_flipped_bit_costs_one_record,
    a_flipped_bit_in_a_header_costs_one_segment,
    a_missing_segment_that_was_acknowledged_is_an_error,
    a_torn_end_is_no_error,
    what_the_table_has_is_not_needed_and_goes_when_a_header_says_so,
);

/// The logs of `testdata/logs`, one a folder, damaged as their names say.
const DAMAGED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/logs");
/// What all of them are called.
const LOG: &str = "01KDAMAGED0000000000000000";

fn damaged_logs() -> Vec<String> {
    let entries = fs::read_dir(DAMAGED).expect("the folder of damaged logs");
    let folders = entries.map(|entry| entry.expect("an entry")).filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> =
        folders.map(|entry| entry.file_name().to_str().expect("text").to_owned()).collect();
    names.sort();
    names
}

fn outcome(found: Result<Found>) -> String {
    match found {
        Ok(Found { records, mut damages, is_sealed }) => {
            // Local logs name the file, which lies elsewhere each time.
            for damage in &mut damages {
                if let Some(at) = damage.find(LOG) {
                    damage.replace_range(..at, "");
                }
            }
            let sealed = if is_sealed { "sealed" } else { "open" };
            let records: Vec<String> = records.iter().map(|(seq, group)| format!("{seq}:{group}")).collect();
            let mut text = format!("{sealed}, records {}\n", records.join(" "));
            for damage in damages {
                text.push_str(&format!("  damage: {damage}\n"));
            }
            text
        }
        Err(error) => format!("error: {error}\n"),
    }
}

#[test]
fn damaged_logs_come_to_what_is_written_beside_them() {
    run(async {
        let names = damaged_logs();
        assert!(names.len() >= 8, "{names:?}");
        for name in names {
            let mut text = String::new();
            for place in [Place::Disk, Place::Objects(Kind::Folder)] {
                let bench = Bench::new(place).await;
                let id = Ulid::from_string(LOG).expect("a name");
                let segments = FilePath::new(DAMAGED).join(&name).join(LOG);
                if place == Place::Disk {
                    fs::create_dir(bench.folder.path().join(LOG)).expect("created");
                }
                for entry in fs::read_dir(segments).expect("segments") {
                    let entry = entry.expect("a segment");
                    let seq = entry.file_name().to_str().and_then(|n| n.parse().ok()).expect("a number");
                    let bytes = fs::read(entry.path()).expect("readable");
                    bench
                        .edit(id, seq, |file| {
                            *file = bytes;
                            true
                        })
                        .await;
                }
                let label = if place == Place::Disk { "disk" } else { "objects" };
                let found = match bench.seal(id).await {
                    Ok(()) => bench.read(id).await,
                    Err(error) => Err(error),
                };
                text.push_str(&format!("{label}: {}", outcome(found)));
            }
            test_kit::golden(env!("CARGO_MANIFEST_DIR"), &format!("logs/{name}/expected.txt"), &text);
        }
    });
}
