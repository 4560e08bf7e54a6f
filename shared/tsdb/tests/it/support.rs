//! A storage on a temporary folder with a table in some store, and short ways to use it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::{Clock, Labels, Tenant, Timestamp};
use object_store::ObjectStore;
use tsdb::merge::merge_rows;
use tsdb::series::SeriesRow;
use tsdb::table::{SelectLimits, Table, TableOptions};
use tsdb::{
    Appended, GroupAppend, GroupDeclaration, GroupId, MemberDeclaration, Presence, Storage, StorageOptions,
};

use crate::testing::{Kind, TestStore};

/// The time at which every test begins: 2027-01-15 08:00 UTC.
pub(crate) const START: i64 = 1_800_000_000_000;
pub(crate) const MINUTE: i64 = 60_000;

/// What outlives a process: a folder, a store, the time.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) clock: Clock,
    /// Keeps what the store needs.
    kept: Arc<TestStore>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::on(Kind::Memory)
    }

    pub(crate) fn on(kind: Kind) -> Self {
        let kept = Arc::new(kind.store());
        Self {
            dir: tempfile::tempdir().expect("a temporary folder"),
            store: Arc::clone(&kept),
            clock: Clock::fixed(Timestamp(START)),
            kept,
        }
    }

    /// The same store and time with a copy of the folder as it is now: what a machine finds after a crash.
    pub(crate) fn crashed(&self) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        copy(self.dir.path(), dir.path());
        let (store, kept) = (Arc::clone(&self.store), Arc::clone(&self.kept));
        Self { dir, store, clock: self.clock.clone(), kept }
    }

    /// The same with another way to the store.
    pub(crate) fn through(self, store: Arc<dyn ObjectStore>) -> Self {
        Self { store, ..self }
    }

    /// A second one with another way to the same store, a folder of its own, and the same time.
    pub(crate) fn beside(&self, store: Arc<dyn ObjectStore>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        Self { dir, store, clock: self.clock.clone(), kept: Arc::clone(&self.kept) }
    }

    pub(crate) fn pass(&self, ms: i64) {
        self.clock.set(self.clock.now().add_ms(ms));
    }

    pub(crate) async fn table(&self) -> Arc<Table> {
        self.try_table().await.expect("a table")
    }

    pub(crate) async fn try_table(&self) -> tsdb::table::Result<Arc<Table>> {
        let options = TableOptions {
            store: Arc::clone(&self.store),
            prefix: "metrics".into(),
            clock: self.clock.clone(),
            runtime: tokio::runtime::Handle::current(),
            request_cost_bytes: 64 << 10,
            cache_bytes: 0,
        };
        Table::open(options).await
    }

    pub(crate) async fn options(&self) -> StorageOptions {
        self.options_of(self.dir.path(), self.table().await)
    }

    /// The options of an ingester with a folder of its own.
    pub(crate) fn options_of(&self, folder: &Path, table: Arc<Table>) -> StorageOptions {
        let runtime = tokio::runtime::Handle::current();
        StorageOptions {
            commit_delay: Duration::ZERO,
            ..StorageOptions::new(folder, table, self.clock.clone(), runtime)
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

/// The (base, through) of every file of a log, each once.
pub(crate) async fn commits(world: &World, log: &str) -> Vec<(Option<u64>, u64)> {
    let snapshot = world.table().await.snapshot(None).await.expect("a snapshot");
    let tenants = snapshot.tenants();
    let files = tenants.iter().flat_map(|t| snapshot.files(t).cloned().collect::<Vec<_>>());
    let origins = files.flat_map(|f| f.origins.clone());
    let mut commits: Vec<_> = origins.filter(|o| o.log == log).map(|o| (o.base, o.through)).collect();
    commits.sort_unstable();
    commits.dedup();
    commits
}

pub(crate) fn assert_gapless(commits: &[(Option<u64>, u64)]) {
    let mut base = None;
    for commit in commits {
        assert_eq!(commit.0, base, "{commits:?}");
        base = Some(commit.1);
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
