//! A storage on a temporary folder with a table in memory, and short ways to use it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::{Clock, Labels, Tenant, Timestamp};
use object_store::memory::InMemory;
use tsdb::merge::merge_rows;
use tsdb::series::SeriesRow;
use tsdb::table::{SelectLimits, Table, TableOptions};
use tsdb::{
    Appended, GroupAppend, GroupDeclaration, GroupId, MemberDeclaration, Presence, Storage, StorageOptions,
};

/// The time at which every test begins: 2027-01-15 08:00 UTC.
pub(crate) const START: i64 = 1_800_000_000_000;
pub(crate) const MINUTE: i64 = 60_000;

/// What outlives a process: a folder, a store, the time.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Arc<InMemory>,
    pub(crate) clock: Clock,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a temporary folder"),
            store: Arc::new(InMemory::new()),
            clock: Clock::fixed(Timestamp(START)),
        }
    }

    /// The same store and time with a copy of the folder as it is now: what a machine finds after a crash.
    pub(crate) fn crashed(&self) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        copy(self.dir.path(), dir.path());
        Self { dir, store: Arc::clone(&self.store), clock: self.clock.clone() }
    }

    pub(crate) fn pass(&self, ms: i64) {
        self.clock.set(self.clock.now().add_ms(ms));
    }

    pub(crate) async fn table(&self) -> Arc<Table> {
        let options = TableOptions {
            store: Arc::clone(&self.store) as Arc<dyn object_store::ObjectStore>,
            prefix: "metrics".into(),
            clock: self.clock.clone(),
            runtime: tokio::runtime::Handle::current(),
            request_cost_bytes: 64 << 10,
        };
        Table::open(options).await.expect("a table")
    }

    pub(crate) async fn options(&self) -> StorageOptions {
        let runtime = tokio::runtime::Handle::current();
        let table = self.table().await;
        StorageOptions {
            commit_delay: Duration::ZERO,
            ..StorageOptions::new(self.dir.path(), table, self.clock.clone(), runtime)
        }
    }

    pub(crate) async fn open(&self) -> Arc<Storage> {
        Storage::open(self.options().await).await.expect("an open storage")
    }

    /// The table's samples.
    pub(crate) async fn table_rows(&self, tenant: &Tenant) -> Vec<SeriesRow> {
        let snapshot = self.table().await.snapshot(None).await.expect("a snapshot");
        snapshot.select(tenant, &[], i64::MIN, i64::MAX, SelectLimits::NONE).await.expect("rows")
    }

    /// Everything a reader sees: head and table, merged.
    pub(crate) async fn everything(&self, storage: &Storage) -> Samples {
        let tenant = Tenant::default();
        let head = head_rows(storage, &tenant);
        let table = self.table_rows(&tenant).await;
        flatten(&merge_rows([head, table]).collect::<Vec<_>>())
    }
}

pub(crate) fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir_all(&target).expect("created");
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("copied");
        }
    }
}

/// Float samples by series and time, as bits.
pub(crate) type Samples = BTreeMap<String, BTreeMap<i64, u64>>;

pub(crate) fn flatten(rows: &[SeriesRow]) -> Samples {
    let floats = |r: &SeriesRow| r.samples.floats.iter().map(|(t, v)| (t, v.to_bits())).collect();
    rows.iter().map(|r| (r.labels.to_string(), floats(r))).collect()
}

pub(crate) fn head_rows(storage: &Storage, tenant: &Tenant) -> Vec<SeriesRow> {
    storage.select(tenant, &[], i64::MIN, i64::MAX, SelectLimits::NONE).expect("no limit").rows
}

pub(crate) fn labels(group: &str, member: usize) -> Labels {
    let name = format!("m{member}");
    Labels::from_pairs([("__name__", name.as_str()), ("instance", group)])
}

pub(crate) fn declaration(group: &str, members: usize) -> GroupDeclaration {
    let member = |n| MemberDeclaration { labels: labels(group, n), metadata: Arc::default() };
    GroupDeclaration {
        tenant: Tenant::default(),
        key: Labels::from_pairs([("instance", group)]),
        sub_group: 0,
        epoch: 0,
        displaced: false,
        members: (0..members).map(member).collect(),
    }
}

pub(crate) fn samples(group: GroupId, t: i64, values: &[f64]) -> GroupAppend {
    GroupAppend {
        group,
        timestamp: Timestamp(t),
        absent: Presence::All,
        values: values.to_vec(),
        histograms: Vec::new(),
        start_timestamps: Vec::new(),
        exemplars: Vec::new(),
    }
}

pub(crate) async fn append(storage: &Storage, group: GroupId, t: i64, values: &[f64]) -> Appended {
    storage.append(vec![samples(group, t, values)], false).await.expect("appended")
}
