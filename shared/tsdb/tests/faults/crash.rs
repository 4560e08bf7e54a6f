//! A process is killed at every place where something stored changes, and another finds what it left.
//!
//! The process is this test binary once more, which lives through all that an ingester does (replay, writing, flush,
//! compaction, retention, clean-up, adoption, an orderly end) and notes what was acknowledged. Once it runs to the end,
//! to learn which places it comes by and how often; then it is killed at each of them, or its disk loses power there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use model::{Clock, Metadata, Tenant, Timestamp};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt as _};
use parking_lot::Mutex;
use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tsdb::faults::Fault;
use tsdb::merge::merge_rows;
use tsdb::series::{FloatColumn, SeriesRow, SeriesSamples};
use tsdb::table::{SelectLimits, Table, TableOptions};
use tsdb::{
    GroupId, Location, LogOwner, LogStore, Maintenance, MaintenanceOptions, ObjectLogOptions, ObjectLogs,
    Storage, StorageOptions, StorageSettings,
};

use crate::gated::{Fate, Gate, Gated};
use crate::power::{self, Disk};
use crate::simulation::PLANTING;
use crate::support::{MINUTE, START, Samples, copy, declaration, flatten, head_rows, labels, samples};
use crate::testing::{BUCKET, s3_prefix, s3_server, s3_store};
use crate::{count_in_files, is_soak, sites};

/// Says to the process what it is to do: see [`Order`].
const ORDER: &str = "TRIBUTARY_CRASH_ORDER";
/// Kills of a place in the long form.
const KILLS_OF_SOAK: u64 = 3;
/// Deaths with a bucket, and with a disk that loses power, but in the long form.
const DEATHS_MAX: usize = 24;
const DAY: i64 = 24 * 60 * MINUTE;
/// The name of a copy of the table.
const SNAPSHOT: &str = "kept";
/// The groups that are written, with their members. The last fills a file that is written in parts.
const GROUPS: [(&str, usize); 3] = [("before", 2), ("small", 2), ("large", 40)];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Logs {
    Local,
    Objects,
}

/// Where a process works: its disk is a folder, beside which it notes what was acknowledged.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Ground {
    folder: PathBuf,
    logs: Logs,
    /// The table and the logs lie there, and not on the disk.
    bucket: Option<Bucket>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Bucket {
    endpoint: String,
    prefix: String,
}

impl Ground {
    fn on_disk(folder: &Path, logs: Logs) -> Self {
        Self { folder: folder.to_owned(), logs, bucket: None }
    }

    fn disk(&self) -> PathBuf {
        self.folder.join("disk")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Death {
    Kill,
    /// The disk forgets what was not synced.
    PowerCut,
}

/// What the process is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Order {
    ground: Ground,
    /// Where it is to die, and the how manieth time.
    site: Option<(String, u64)>,
    death: Death,
    /// The folder of the table is not synced.
    is_careless: bool,
}

impl Order {
    fn to_live(ground: Ground) -> Self {
        Self { ground, site: None, death: Death::Kill, is_careless: false }
    }

    fn to_die(ground: Ground, site: (String, u64), death: Death) -> Self {
        Self { site: Some(site), death, ..Self::to_live(ground) }
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

/// A place with a table and logs.
#[derive(Clone)]
struct Place {
    ground: Ground,
    location: Location,
    /// For a table at the side.
    aside: Location,
    /// The location's store, for the test's own eyes.
    store: Arc<dyn ObjectStore>,
    /// Stands before the store.
    gate: Option<Arc<dyn ObjectStore>>,
    clock: Clock,
}

impl Place {
    fn new(ground: &Ground, at: i64) -> Self {
        let disk = ground.disk();
        fs::create_dir_all(&disk).expect("a folder");
        let (location, aside, store): (_, _, Arc<dyn ObjectStore>) = match &ground.bucket {
            None => {
                let store = LocalFileSystem::new_with_prefix(&disk).expect("a store").with_fsync(true);
                (Location::folder(&disk), Location::folder(&disk.join("aside")), Arc::new(store))
            }
            Some(Bucket { endpoint, prefix }) => {
                let at = |prefix: &str| {
                    let settings = StorageSettings {
                        url: Some(format!("s3://{BUCKET}/{prefix}")),
                        endpoint: Some(endpoint.clone()),
                        access_key_id: Some(test_kit::S3Server::ACCESS_KEY_ID.to_owned()),
                        secret_access_key: Some(test_kit::S3Server::SECRET_ACCESS_KEY.into()),
                        allow_http: Some(true),
                        ..StorageSettings::default()
                    };
                    settings.location(&disk).expect("a location")
                };
                (at(prefix), at(&format!("{prefix}/aside")), Arc::new(s3_store(endpoint, prefix)))
            }
        };
        let clock = Clock::fixed(Timestamp(at));
        Self { ground: ground.clone(), location, aside, store, gate: None, clock }
    }

    fn pass(&self, ms: i64) {
        self.clock.set(self.clock.now().add_ms(ms));
    }

    async fn table(&self) -> Arc<Table> {
        match &self.gate {
            None => Table::open_in(&self.location, self.clock.clone()).await.expect("a table"),
            Some(gate) => self.table_at("metrics", gate).await,
        }
    }

    async fn table_at(&self, prefix: &str, store: &Arc<dyn ObjectStore>) -> Arc<Table> {
        let options = TableOptions {
            store: Arc::clone(store),
            prefix: prefix.into(),
            clock: self.clock.clone(),
            runtime: Handle::current(),
            request_cost_bytes: 64 << 10,
            cache_bytes: 0,
        };
        Table::open(options).await.expect("a table")
    }

    /// A table begins.
    async fn begin_table(&self) {
        Table::open_in(&self.aside, self.clock.clone()).await.expect("a table");
    }

    async fn object_logs(&self, name: &str) -> Arc<ObjectLogs> {
        let owner = LogOwner { ingester: name.to_owned(), address: name.to_owned() };
        let options = ObjectLogOptions {
            seal_retention: Duration::ZERO,
            ..ObjectLogOptions::new(owner, self.clock.clone(), Handle::current())
        };
        let opened = match &self.gate {
            Some(gate) => ObjectLogs::on(Arc::clone(gate), &Key::default(), options).await,
            None => ObjectLogs::open(&self.location, options).await,
        };
        opened.expect("logs")
    }

    /// A storage whose logs are in the place's own folder, or in its store.
    async fn storage(&self, logs: &LogStore) -> Arc<Storage> {
        let table = self.table().await;
        let options = StorageOptions {
            logs: logs.clone(),
            commit_delay: Duration::ZERO,
            file_bytes_max: 2_000,
            commits_in_flight_max: 2,
            ..StorageOptions::new(self.ground.disk(), table, self.clock.clone(), Handle::current())
        };
        Storage::open(options).await.expect("an open storage")
    }

    async fn logs(&self, name: &str) -> LogStore {
        match self.ground.logs {
            Logs::Local => LogStore::Folder(self.ground.disk()),
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
async fn prepare(ground: &Ground) {
    let (place, ledger) = (Place::new(ground, START - 50 * MINUTE), Ledger::open(&ground.folder));
    let (disk, kind) = (ground.disk(), ground.logs);
    let table = place.table().await;
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
            Logs::Local => Place { ground: Ground::on_disk(apart.path(), kind), ..place.clone() },
            Logs::Objects => place.clone(),
        };
        fs::create_dir_all(own.ground.disk()).expect("a folder");
        let storage = own.storage(&own.logs(&format!("earlier-{life}")).await).await;
        let group = storage.declare(declaration(name, members)).expect("declared");
        for n in 0..4 {
            let time = START - 50 * MINUTE + 1_000 * life as i64 + n;
            let noted = (!is_damaged || n != 2).then_some(&ledger);
            write(&storage, (name, group), members, time, noted).await;
        }
        let log = storage.log().to_string();
        drop(storage);
        let left = own.ground.disk().join("wal").join(&log);
        match kind {
            Logs::Local => {
                let file = segments(&left).swap_remove(0);
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
                let to = disk.join("wal").join(&log);
                fs::create_dir_all(&to).expect("created");
                copy(&left, &to);
                if is_damaged {
                    fs::create_dir(disk.join("wal/01JUNBORN00000000000000000")).expect("created");
                }
            }
            Logs::Objects if is_damaged => damage_third_append(&segments(&left).swap_remove(1), false),
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
    let (place, ledger) = (Place::new(&order.ground, START), Ledger::open(&order.ground.folder));
    place.begin_table().await;
    let logs = place.logs("a").await;
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
    let maintenance = Maintenance::new(place.table().await, options);
    maintenance.look(&|_| true, true).await.expect("looked after");
    place.table().await.copy(SNAPSHOT).await.expect("copied");
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
                .unwrap_or_else(|e| panic!("{log} in {}: {e}", place.ground.folder.display()));
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
    let late = Place { gate: Some(gated), ..place.clone() };
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
    let order: Order = serde_json::from_str(&order).expect("an order");
    // S3 takes no small parts.
    let has_small_parts = order.ground.bucket.is_none();
    let fault = if order.is_careless { Some(Fault::NoTableSync) } else { None };
    tsdb::faults::plant(fault.or(has_small_parts.then_some(Fault::SmallParts)));
    let (site, reached) = (order.site.clone(), Mutex::new(BTreeMap::<&'static str, u64>::new()));
    let (death, disk) = (order.death, order.ground.disk());
    let counts = order.ground.folder.join("reached");
    let is_counting = site.is_none();
    tsdb::faults::on_reach(move |name| {
        let mut reached = reached.lock();
        let times = reached.entry(name).or_default();
        *times += 1;
        if site.as_ref().is_some_and(|(wanted, nth)| wanted == name && nth == times) {
            if death == Death::PowerCut {
                Disk::cut_power(&disk);
            }
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
        .env(ORDER, serde_json::to_string(order).expect("JSON"))
        .stdin(Stdio::null())
        .output()
        .expect("started");
    let text = || {
        format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    match (&order.site, order.death) {
        (Some(site), Death::Kill) => {
            assert_eq!(output.status.signal(), Some(9), "killed at {site:?}: {}", text());
        }
        // A thread that meets the dead disk may end the process first.
        (Some(site), Death::PowerCut) => assert!(!output.status.success(), "dead at {site:?}: {}", text()),
        (None, _) => assert!(output.status.success(), "{}", text()),
    }
}

/// What another process finds.
async fn check(ground: &Ground) {
    let place = Place::new(ground, START + 12 * 60 * MINUTE);
    let wanted = Ledger::read(&ground.folder);
    place.begin_table().await;
    let logs = place.logs("a").await;
    let storage = place.storage(&logs).await;
    adopt_others(&place, &storage, &logs).await;
    compare(&place, Some(&storage), &wanted).await;
    storage.flush().await.expect("flushed");
    let table = place.table().await;
    Maintenance::new(table, MaintenanceOptions::default()).look(&|_| true, true).await.expect("looked after");
    storage.close().await.expect("closed");
    drop(storage);
    let found = compare(&place, None, &wanted).await;
    let count = count_in_files(&*place.table().await, &*place.store).await;
    assert_eq!(count, found.values().map(BTreeMap::len).sum::<usize>(), "nothing is there twice");
    check_snapshot(&place).await;
}

/// A copy of the table that was finished is whole.
async fn check_snapshot(place: &Place) {
    let prefix = format!("snapshots/{SNAPSHOT}/metrics");
    let last = Key::from(format!("{prefix}/_delta_log/_last_checkpoint"));
    if place.store.head(&last).await.is_err() {
        return;
    }
    let snapshot = place.table_at(&prefix, &place.store).await.snapshot(None).await.expect("a snapshot");
    let rows = snapshot.select(&Tenant::default(), &[], i64::MIN, i64::MAX, SelectLimits::NONE).await;
    let found = flatten(&rows.expect("every file is there"));
    assert!(!found.is_empty(), "what was flushed before");
    assert_written(&found);
}

/// Everything acknowledged is there, and nothing that was not written.
async fn compare(place: &Place, storage: Option<&Storage>, wanted: &Samples) -> Samples {
    let head = storage.map(|s| head_rows(s, &Tenant::default())).unwrap_or_default();
    let snapshot = place.table().await.snapshot(None).await.expect("a snapshot");
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
    assert_written(&found);
    found
}

/// Nothing but what was written.
fn assert_written(found: &Samples) {
    for (name, members) in GROUPS {
        for member in 0..members {
            for (time, bits) in found.get(&labels(name, member).to_string()).into_iter().flatten() {
                assert_eq!(*bits, value(name, member, *time).to_bits(), "{name} {member} at {time}");
            }
        }
    }
    let known = GROUPS.iter().map(|(_, members)| members).sum::<usize>() + 1;
    assert!(found.len() <= known, "{:?}", found.keys());
}

/// Lives to the end, and tells how often each place was come by.
fn rehearse(ground: &Ground) -> BTreeMap<String, u64> {
    run(&Order::to_live(ground.clone()));
    crate::testing::run(check(ground));
    let counts = fs::read_to_string(ground.folder.join("reached")).expect("counted");
    let count =
        |line: &str| line.split_once(' ').map(|(n, name)| (name.to_owned(), n.parse().expect("a number")));
    counts.lines().filter_map(count).collect()
}

/// What processes begin with, and how often each place is come by from there.
struct Template {
    folder: tempfile::TempDir,
    logs: Logs,
    places: BTreeMap<String, u64>,
}

impl Template {
    fn new(logs: Logs) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        crate::testing::run(prepare(&Ground::on_disk(folder.path(), logs)));
        let mut template = Self { folder, logs, places: BTreeMap::new() };
        let rehearsal = tempfile::tempdir().expect("a folder");
        template.places = rehearse(&template.copy_to(rehearsal.path()));
        template
    }

    fn copy_to(&self, folder: &Path) -> Ground {
        copy(self.folder.path(), folder);
        Ground::on_disk(folder, self.logs)
    }

    /// The same in a bucket.
    async fn copy_to_bucket(&self, folder: &Path) -> Ground {
        let mut ground = self.copy_to(folder);
        let from = LocalFileSystem::new_with_prefix(ground.disk()).expect("a store");
        let (endpoint, prefix) = (s3_server().endpoint(), s3_prefix());
        let to = s3_store(&endpoint, &prefix);
        let files: Vec<_> = from.list(None).try_collect().await.expect("listed");
        for file in files {
            let bytes = from.get(&file.location).await.expect("there").bytes().await.expect("read");
            to.put(&file.location, bytes.into()).await.expect("put");
        }
        ground.bucket = Some(Bucket { endpoint, prefix });
        ground
    }

    /// Where the process is to die, so often at each place that it comes by.
    fn deaths(&self, rounds: u64) -> Vec<(String, u64)> {
        let of = |(name, times): (&String, &u64)| {
            let (name, times) = (name.clone(), *times);
            (0..rounds).map(move |round| (name.clone(), occurrence(&name, times, round)))
        };
        self.places.iter().flat_map(of).collect()
    }

    /// Some of them: at each place once, before it or behind it, while there are few places; in the long form all.
    fn some_deaths(&self) -> Vec<(String, u64)> {
        if is_soak() {
            return self.deaths(KILLS_OF_SOAK);
        }
        let places: Vec<&str> = self.places.keys().filter_map(|name| name.strip_prefix("before ")).collect();
        let step = places.len().div_ceil(DEATHS_MAX);
        let death = |(n, place): (usize, &str)| {
            let name = format!("{} {place}", if n % 2 == 0 { "before" } else { "after" });
            let occurrence = occurrence(&name, self.places[&name], 0);
            (name, occurrence)
        };
        places.into_iter().step_by(step).enumerate().map(death).collect()
    }
}

/// Which of the times that the process comes by a place is the one: another for each round.
fn occurrence(name: &str, times: u64, round: u64) -> u64 {
    let hash = name.bytes().fold(round + 1, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    1 + (hash >> 8) % times
}

/// Does something for each of the deaths, three at a time.
fn for_each(deaths: Vec<(String, u64)>, die: impl Fn(&Path, (String, u64)) + Sync) {
    let deaths = Mutex::new(deaths);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some(site) = { deaths.lock().pop() } {
                    let folder = tempfile::tempdir().expect("a folder");
                    die(folder.path(), site);
                }
            });
        }
    });
}

#[test]
fn nothing_acknowledged_is_lost_wherever_the_process_dies() {
    let _guard = PLANTING.read();
    let rounds = if is_soak() { KILLS_OF_SOAK } else { 1 };
    let mut reached = BTreeSet::new();
    for logs in [Logs::Local, Logs::Objects] {
        let template = Template::new(logs);
        for_each(template.deaths(rounds), |folder, site| {
            println!("{logs:?}: dies at {site:?}");
            let ground = template.copy_to(folder);
            run(&Order::to_die(ground.clone(), site, Death::Kill));
            crate::testing::run(check(&ground));
        });
        reached.extend(template.places.into_keys());
    }
    let missed: Vec<String> = sites::all().difference(&reached).cloned().collect();
    assert_eq!(missed, [""; 0], "places that no process comes by");
}

#[test]
fn nothing_acknowledged_is_lost_when_all_lies_in_a_bucket() {
    let _guard = PLANTING.read();
    let mut template = Template::new(Logs::Objects);
    let rehearsal = tempfile::tempdir().expect("a folder");
    template.places = rehearse(&crate::testing::run(template.copy_to_bucket(rehearsal.path())));
    for_each(template.some_deaths(), |folder, site| {
        println!("dies at {site:?}");
        let ground = crate::testing::run(template.copy_to_bucket(folder));
        run(&Order::to_die(ground.clone(), site, Death::Kill));
        crate::testing::run(check(&ground));
    });
}

/// Loses power at a place, and starts the machine again.
fn lose_power(template: &Template, folder: &Path, site: (String, u64), is_careless: bool) -> (Disk, Ground) {
    fs::create_dir(folder.join("disk")).expect("a folder");
    let disk = Disk::mount(&folder.join("image"), &folder.join("disk")).expect("mounted before");
    let ground = template.copy_to(folder);
    // What the process begins with is there for good.
    disk.mount_again();
    run(&Order { is_careless, ..Order::to_die(ground.clone(), site, Death::PowerCut) });
    disk.mount_again();
    (disk, ground)
}

/// Says so where no disk can be made that loses power.
#[expect(clippy::print_stdout, reason = "it says that it is skipped")]
fn has_power_to_lose() -> bool {
    let reason = power::cannot_mount();
    if let Some(reason) = &reason {
        println!("SKIPPED: no disk can be made here that loses power ({reason})");
    }
    reason.is_none()
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_fails() {
    if !has_power_to_lose() {
        return;
    }
    let _guard = PLANTING.read();
    for logs in [Logs::Local, Logs::Objects] {
        let template = Template::new(logs);
        for_each(template.some_deaths(), |folder, site| {
            println!("{logs:?}: loses power at {site:?}");
            let (_disk, ground) = lose_power(&template, folder, site, false);
            crate::testing::run(check(&ground));
        });
    }
}

#[test]
fn a_table_that_is_not_synced_is_noticed() {
    if !has_power_to_lose() {
        return;
    }
    let _guard = PLANTING.read();
    for logs in [Logs::Local, Logs::Objects] {
        let template = Template::new(logs);
        let is_noticed = |site: &(String, u64)| {
            let folder = tempfile::tempdir().expect("a folder");
            let (_disk, ground) = lose_power(&template, folder.path(), site.clone(), true);
            std::panic::catch_unwind(|| crate::testing::run(check(&ground))).is_err()
        };
        let mut deaths = template.deaths(1);
        // Nothing is uploaded in small parts where another fault is planted.
        deaths.retain(|(name, _)| !name.contains("large data file"));
        let found = deaths.into_iter().find(is_noticed);
        println!("{logs:?}: noticed at {found:?}");
        assert!(found.is_some(), "{logs:?}");
    }
}
