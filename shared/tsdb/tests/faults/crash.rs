//! A process is killed at every place where something stored changes, and another finds what it left.
//!
//! The process is this test binary once more, which lives through all that an ingester does (replay, writing, flush,
//! compaction, retention, clean-up, adoption, an orderly end) and notes what was acknowledged. Once it runs to the end,
//! to learn which places it comes by and how often; then it is killed at each of them.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use model::{Clock, Metadata, Tenant, Timestamp};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use parking_lot::Mutex;
use rustix::process::{Signal, getpid, kill_process};
use tokio::runtime::Handle;
use tsdb::merge::merge_rows;
use tsdb::series::{FloatColumn, SeriesRow, SeriesSamples};
use tsdb::table::{SelectLimits, Table, TableOptions};
use tsdb::{
    GroupId, LogOwner, LogStore, Maintenance, MaintenanceOptions, ObjectLogOptions, ObjectLogs, Storage,
    StorageOptions,
};

use crate::gated::{Fate, Gate, Gated};
use crate::simulation::PLANTING;
use crate::support::{MINUTE, START, Samples, copy, declaration, flatten, head_rows, labels, samples};
use crate::{count_in_files, is_soak, sites};

/// Says to the process what it is to do: see [`Order`].
const ORDER: &str = "TRIBUTARY_CRASH_ORDER";
/// Kills of a place in the long form.
const KILLS_OF_SOAK: u64 = 3;
const DAY: i64 = 24 * 60 * MINUTE;
/// The groups that are written, with their members. The last fills a file that is written in parts.
const GROUPS: [(&str, usize); 3] = [("before", 2), ("small", 2), ("large", 40)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Logs {
    Local,
    Objects,
}

/// What the process is to do.
#[derive(Debug, Clone)]
struct Order {
    folder: PathBuf,
    logs: Logs,
    /// Where it is to die, and the how manieth time.
    site: Option<(String, u64)>,
}

impl Order {
    fn encode(&self) -> String {
        let (site, times) = self.site.clone().unwrap_or_default();
        format!("{}|{:?}|{site}|{times}", self.folder.display(), self.logs)
    }

    fn decode(text: &str) -> Self {
        let parts: Vec<&str> = text.split('|').collect();
        let logs = if parts[1] == "Local" { Logs::Local } else { Logs::Objects };
        let site = (!parts[2].is_empty()).then(|| (parts[2].to_owned(), parts[3].parse().expect("a number")));
        Self { folder: PathBuf::from(parts[0]), logs, site }
    }
}

fn value(group: &str, member: usize, time: i64) -> f64 {
    let whole = (time - START + 10 * DAY) as f64 + member as f64 / 4.0;
    if group == "large" { (whole * 0.7).sin() } else { whole }
}

/// What was acknowledged, a line each; what is in it is in the file, whatever becomes of the process.
struct Ledger(Mutex<File>);

impl Ledger {
    fn open(folder: &Path) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(folder.join("ledger"));
        Self(Mutex::new(file.expect("a ledger")))
    }

    fn note(&self, group: &str, members: usize, time: i64) {
        self.0.lock().write_all(format!("{group} {members} {time}\n").as_bytes()).expect("noted");
    }

    fn read(folder: &Path) -> Samples {
        let mut all = Samples::new();
        for line in fs::read_to_string(folder.join("ledger")).expect("a ledger").lines() {
            let parts: Vec<&str> = line.split(' ').collect();
            let time = parts[2].parse().expect("a time");
            for member in 0..parts[1].parse().expect("a count") {
                let bits = value(parts[0], member, time).to_bits();
                all.entry(labels(parts[0], member).to_string()).or_default().insert(time, bits);
            }
        }
        all
    }
}

/// A place on this machine with a table and logs.
#[derive(Clone)]
struct Place {
    folder: PathBuf,
    store: Arc<dyn ObjectStore>,
    clock: Clock,
}

impl Place {
    fn new(folder: &Path, at: i64) -> Self {
        let store = LocalFileSystem::new_with_prefix(folder).expect("a store").with_fsync(true);
        Self { folder: folder.to_owned(), store: Arc::new(store), clock: Clock::fixed(Timestamp(at)) }
    }

    fn pass(&self, ms: i64) {
        self.clock.set(self.clock.now().add_ms(ms));
    }

    async fn table(&self, prefix: &str) -> Arc<Table> {
        let options = TableOptions {
            store: Arc::clone(&self.store),
            prefix: prefix.into(),
            clock: self.clock.clone(),
            runtime: Handle::current(),
            request_cost_bytes: 64 << 10,
            cache_bytes: 0,
        };
        Table::open(options).await.expect("a table")
    }

    async fn object_logs(&self, name: &str) -> Arc<ObjectLogs> {
        let owner = LogOwner { ingester: name.to_owned(), address: name.to_owned() };
        let options = ObjectLogOptions {
            seal_retention: Duration::ZERO,
            ..ObjectLogOptions::new(owner, self.clock.clone(), Handle::current())
        };
        ObjectLogs::on(Arc::clone(&self.store), &Key::default(), options).await.expect("logs")
    }

    /// A storage whose logs are in the place's own folder, or in its store.
    async fn storage(&self, logs: &LogStore) -> Arc<Storage> {
        let table = self.table("metrics").await;
        let options = StorageOptions {
            logs: logs.clone(),
            commit_delay: Duration::ZERO,
            file_bytes_max: 2_000,
            commits_in_flight_max: 2,
            ..StorageOptions::new(&self.folder, table, self.clock.clone(), Handle::current())
        };
        Storage::open(options).await.expect("an open storage")
    }

    async fn logs(&self, kind: Logs, name: &str) -> LogStore {
        match kind {
            Logs::Local => LogStore::Folder(self.folder.clone()),
            Logs::Objects => LogStore::Objects(self.object_logs(name).await),
        }
    }
}

async fn write(
    storage: &Storage,
    group: (&str, GroupId),
    members: usize,
    time: i64,
    ledger: Option<&Ledger>,
) {
    let values: Vec<f64> = (0..members).map(|m| value(group.0, m, time)).collect();
    let appended = storage.append(vec![samples(group.1, time, &values)], true).await.expect("acknowledged");
    assert_eq!(appended.stored, members as u64);
    if let Some(ledger) = ledger {
        ledger.note(group.0, members, time);
    }
}

/// What was left before the process begins: old files, logs of earlier lives, one torn, one damaged, one just born.
async fn prepare(folder: &Path, kind: Logs) {
    let (place, ledger) = (Place::new(folder, START - 50 * MINUTE), Ledger::open(folder));
    let table = place.table("metrics").await;
    let old = SeriesRow {
        labels: labels("old", 0),
        metadata: Arc::new(Metadata::default()),
        samples: SeriesSamples {
            floats: FloatColumn { timestamps: [START - 9 * DAY].into(), values: [1.0].into() },
            ..SeriesSamples::default()
        },
    };
    let files = table.write_files("seed", 0, vec![(Tenant::default(), vec![old])]).await.expect("written");
    table.commit_flush("seed", None, 0, files).await.expect("committed");
    // With these the process comes by a checkpoint.
    for n in 1..98 {
        table.commit_flush("seed", Some(n - 1), n, Vec::new()).await.expect("committed");
    }
    let (name, members) = GROUPS[0];
    for (life, is_damaged) in [false, true].into_iter().enumerate() {
        // Each in a place of its own, so that the next life does not take it over.
        let apart = tempfile::tempdir().expect("a folder");
        let own = match kind {
            Logs::Local => Place { folder: apart.path().to_owned(), ..place.clone() },
            Logs::Objects => place.clone(),
        };
        let storage = own.storage(&own.logs(kind, &format!("earlier-{life}")).await).await;
        let group = storage.declare(declaration(name, members)).expect("declared");
        for n in 0..4 {
            let time = START - 50 * MINUTE + 1_000 * life as i64 + n;
            let noted = (!is_damaged || n != 2).then_some(&ledger);
            write(&storage, (name, group), members, time, noted).await;
        }
        let log = storage.log().to_string();
        drop(storage);
        match kind {
            Logs::Local => {
                let file = segments(&apart.path().join("wal").join(&log)).swap_remove(0);
                if is_damaged {
                    damage_third_append(&file, true);
                } else {
                    // A header that was not written to its end.
                    OpenOptions::new()
                        .append(true)
                        .open(&file)
                        .expect("there")
                        .write_all(&[7; 30])
                        .expect("torn");
                }
                let to = folder.join("wal").join(&log);
                fs::create_dir_all(&to).expect("created");
                copy(&apart.path().join("wal").join(&log), &to);
                if is_damaged {
                    fs::create_dir(folder.join("wal/01JUNBORN00000000000000000")).expect("created");
                }
            }
            Logs::Objects if is_damaged => {
                damage_third_append(&segments(&folder.join("wal").join(&log)).swap_remove(1), false);
            }
            Logs::Objects => {}
        }
    }
}

/// The files of a log, the newest first.
fn segments(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.file_name().is_some_and(|name| name.len() == 20)).collect();
    files.sort_unstable();
    files.reverse();
    files
}

/// Flips a bit in the record of the third of four appends, each of which is a segment.
fn damage_third_append(file: &Path, has_all: bool) {
    let mut bytes = fs::read(file).expect("readable");
    let end = if has_all { segment_start(&bytes, 1) } else { bytes.len() };
    bytes[end - 2] ^= 0x10;
    fs::write(file, bytes).expect("written");
}

/// Where a segment begins, counted from the last: headers begin alike.
fn segment_start(bytes: &[u8], from_end: usize) -> usize {
    let starts: Vec<usize> = (0..bytes.len() - 4).filter(|at| bytes[*at..at + 4] == bytes[..4]).collect();
    starts[starts.len() - from_end]
}

/// All that an ingester does.
async fn live(order: &Order) {
    let (place, ledger) = (Place::new(&order.folder, START), Ledger::open(&order.folder));
    place.table("fresh").await;
    let logs = place.logs(order.logs, "a").await;
    let storage = place.storage(&logs).await;
    adopt_others(&place, &storage, &logs).await;
    let groups =
        GROUPS.map(|(name, members)| (name, storage.declare(declaration(name, members)).expect("declared")));
    let (small, large) = (groups[1], groups[2]);
    for n in 0..3 {
        write(&storage, small, GROUPS[1].1, START + n, Some(&ledger)).await;
    }
    for n in 0..60 {
        write(&storage, large, GROUPS[2].1, START + n, Some(&ledger)).await;
    }
    storage.flush().await.expect("flushed");
    // Behind a flush the log begins anew; what lies before is removed when its time has come.
    place.pass(130 * MINUTE);
    let second = place.clock.now().millis();
    for n in 0..3 {
        write(&storage, small, GROUPS[1].1, second + n, Some(&ledger)).await;
    }
    storage.maintain_once().await.expect("tidy");
    storage.maintain_once().await.expect("tidy");
    storage.flush().await.expect("flushed");
    place.pass(70 * MINUTE);
    write(&storage, small, GROUPS[1].1, second + 70 * MINUTE, Some(&ledger)).await;
    storage.maintain_once().await.expect("tidy");
    let options = MaintenanceOptions {
        retention_time: Some(Duration::from_secs(5 * 24 * 3600)),
        ..MaintenanceOptions::default()
    };
    let maintenance = Maintenance::new(place.table("metrics").await, options);
    maintenance.look(&|_| true, true).await.expect("looked after");
    // Replaced files go when nobody reads them any more.
    place.pass(120 * MINUTE);
    maintenance.look(&|_| true, true).await.expect("looked after");
    storage.maintain_once().await.expect("tidy");
    if let LogStore::Objects(logs) = &logs {
        seal_too_late(&place, &storage, logs).await;
        // Segments and ended logs are removed in the background.
        for _ in 0..3 {
            storage.maintain_once().await.expect("tidy");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    write(&storage, small, GROUPS[1].1, place.clock.now().millis(), Some(&ledger)).await;
    storage.close().await.expect("closed");
}

/// Brings the logs of others into the table.
async fn adopt_others(place: &Place, storage: &Storage, logs: &LogStore) {
    let LogStore::Objects(logs) = logs else { return };
    let own = storage.log().to_string();
    for log in logs.list().await.expect("listed") {
        if log != own && !logs.is_spare(&log) {
            storage
                .adopt(logs, &log)
                .await
                .unwrap_or_else(|e| panic!("{log} in {}: {e}", place.folder.display()));
        }
    }
}

/// A log is taken over, brought into the table and removed while another is about to seal it.
async fn seal_too_late(place: &Place, storage: &Arc<Storage>, logs: &Arc<ObjectLogs>) {
    let short = place.storage(&LogStore::Objects(place.object_logs("short-lived").await)).await;
    let log = short.log().to_string();
    drop(short);
    let gated = Gated::new(Arc::clone(&place.store));
    let gate = Gate::new();
    gated.plan(format!("{log}/{:020}", 1), Fate::Held(gate.clone()));
    let late = Place { store: gated, ..place.clone() };
    let late_logs = late.object_logs("late").await;
    let late_storage = late.storage(&LogStore::Objects(Arc::clone(&late_logs))).await;
    let sealing = late_storage.adopt(&late_logs, &log);
    let meanwhile = async {
        gate.reached().await;
        storage.adopt(logs, &log).await.expect("taken over");
        place.pass(61 * MINUTE);
        for _ in 0..20 {
            storage.maintain_once().await.expect("tidy");
            if !logs.list().await.expect("listed").contains(&log) {
                break;
            }
        }
        gate.open();
    };
    let (sealed, ()) = tokio::join!(sealing, meanwhile);
    drop(sealed);
}

/// The process that is killed; nothing when the tests are run.
#[test]
#[expect(clippy::disallowed_methods, reason = "the order comes from the process that starts this one")]
fn life_to_be_cut_short() {
    let Ok(order) = std::env::var(ORDER) else { return };
    let order = Order::decode(&order);
    let (site, reached) = (order.site.clone(), Mutex::new(BTreeMap::<&'static str, u64>::new()));
    let counts = order.folder.join("reached");
    let is_counting = site.is_none();
    tsdb::faults::on_reach(move |name| {
        let mut reached = reached.lock();
        let times = reached.entry(name).or_default();
        *times += 1;
        if site.as_ref().is_some_and(|(wanted, nth)| wanted == name && nth == times) {
            kill_process(getpid(), Signal::KILL).expect("one may kill oneself");
        }
        if is_counting {
            let text: String = reached.iter().map(|(name, times)| format!("{times} {name}\n")).collect();
            fs::write(&counts, text).expect("counted");
        }
    });
    crate::testing::run(live(&order));
}

/// Lives, and dies where it is told to.
fn run(order: &Order) {
    let output = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "crash::life_to_be_cut_short", "--nocapture"])
        .env(ORDER, order.encode())
        .stdin(Stdio::null())
        .output()
        .expect("started");
    let text = || {
        format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    match &order.site {
        Some(site) => assert_eq!(output.status.signal(), Some(9), "killed at {site:?}: {}", text()),
        None => assert!(output.status.success(), "{}", text()),
    }
}

/// What another process finds.
async fn check(folder: &Path, kind: Logs) {
    let place = Place::new(folder, START + 12 * 60 * MINUTE);
    let wanted = Ledger::read(folder);
    place.table("fresh").await;
    let logs = place.logs(kind, "a").await;
    let storage = place.storage(&logs).await;
    adopt_others(&place, &storage, &logs).await;
    compare(&place, Some(&storage), &wanted).await;
    storage.flush().await.expect("flushed");
    let table = place.table("metrics").await;
    Maintenance::new(table, MaintenanceOptions::default()).look(&|_| true, true).await.expect("looked after");
    storage.close().await.expect("closed");
    drop(storage);
    let found = compare(&place, None, &wanted).await;
    let count = count_in_files(&*place.table("metrics").await, &*place.store).await;
    assert_eq!(count, found.values().map(BTreeMap::len).sum::<usize>(), "nothing is there twice");
}

/// Everything acknowledged is there, and nothing that was not written.
async fn compare(place: &Place, storage: Option<&Storage>, wanted: &Samples) -> Samples {
    let head = storage.map(|s| head_rows(s, &Tenant::default())).unwrap_or_default();
    let snapshot = place.table("metrics").await.snapshot(None).await.expect("a snapshot");
    let table =
        snapshot.select(&Tenant::default(), &[], i64::MIN, i64::MAX, SelectLimits::NONE).await.expect("rows");
    let found = flatten(&merge_rows([head, table]).collect::<Vec<_>>());
    let missing = wanted.iter().flat_map(|(series, all)| all.iter().map(move |(t, bits)| (series, t, bits)));
    let missing: Vec<_> =
        missing.filter(|(s, t, bits)| found.get(*s).and_then(|f| f.get(t)) != Some(bits)).collect();
    assert!(
        missing.is_empty(),
        "{} acknowledged samples are missing or wrong: {:?}",
        missing.len(),
        missing.first()
    );
    for (name, members) in GROUPS {
        for member in 0..members {
            for (time, bits) in found.get(&labels(name, member).to_string()).into_iter().flatten() {
                assert_eq!(*bits, value(name, member, *time).to_bits(), "{name} {member} at {time}");
            }
        }
    }
    let known = GROUPS.iter().map(|(_, members)| members).sum::<usize>() + 1;
    assert!(found.len() <= known, "{:?}", found.keys());
    found
}

/// How often the process comes by each place.
fn rehearse(template: &Path, kind: Logs) -> BTreeMap<String, u64> {
    let folder = tempfile::tempdir().expect("a folder");
    copy(template, folder.path());
    run(&Order { folder: folder.path().to_owned(), logs: kind, site: None });
    crate::testing::run(check(folder.path(), kind));
    let counts = fs::read_to_string(folder.path().join("reached")).expect("counted");
    let count =
        |line: &str| line.split_once(' ').map(|(n, name)| (name.to_owned(), n.parse().expect("a number")));
    counts.lines().filter_map(count).collect()
}

/// Which of the times that the process comes by a place is the one: another for each round.
fn occurrence(name: &str, times: u64, round: u64) -> u64 {
    let hash = name.bytes().fold(round + 1, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    1 + (hash >> 8) % times
}

#[test]
fn nothing_acknowledged_is_lost_wherever_the_process_dies() {
    let _guard = PLANTING.read();
    let rounds = if is_soak() { KILLS_OF_SOAK } else { 1 };
    let mut reached = std::collections::BTreeSet::new();
    for kind in [Logs::Local, Logs::Objects] {
        let template = tempfile::tempdir().expect("a folder");
        crate::testing::run(prepare(template.path(), kind));
        let places = rehearse(template.path(), kind);
        reached.extend(places.keys().cloned());
        let kills = places
            .iter()
            .flat_map(|(name, times)| (0..rounds).map(move |r| (name.clone(), occurrence(name, *times, r))));
        let kills = Mutex::new(kills.collect::<Vec<_>>());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while let Some(site) = { kills.lock().pop() } {
                        let folder = tempfile::tempdir().expect("a folder");
                        copy(template.path(), folder.path());
                        let order =
                            Order { folder: folder.path().to_owned(), logs: kind, site: Some(site.clone()) };
                        run(&order);
                        println!("{kind:?}: killed at {site:?}");
                        crate::testing::run(check(folder.path(), kind));
                    }
                });
            }
        });
    }
    let missed: Vec<String> = sites::all().difference(&reached).cloned().collect();
    assert_eq!(missed, [""; 0], "places that no process comes by");
}
