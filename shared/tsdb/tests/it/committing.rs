//! Several writers share one catalogue: every flush is in it exactly once, whatever the store does to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray as _, RecordBatch};
use arrow::datatypes::Int32Type;
use model::{Labels, Tenant};
use object_store::ObjectStoreExt as _;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tsdb::Storage;
use tsdb::series::{FloatColumn, SeriesRow, SeriesSamples};
use tsdb::table::{SelectLimits, Snapshot, Table};

use super::support::{START, Samples, World, append, assert_gapless, commits, declaration, flatten, labels};
use super::unreliable::{Requests, Unreliable};
use crate::testing::{Kind, on_every_store};

const WRITERS: usize = 4;
const FLUSHES: u64 = 8;

fn row(writer: usize, flush: u64) -> SeriesRow {
    let t = START + i64::try_from(flush).expect("small") * 15_000;
    SeriesRow {
        labels: Labels::from_pairs([("__name__", "m"), ("instance", &writer.to_string())]),
        metadata: Arc::default(),
        samples: SeriesSamples {
            floats: FloatColumn { timestamps: [t].into(), values: [flush as f64].into() },
            ..SeriesSamples::default()
        },
    }
}

/// Writes one flush after the other, as an ingester does; returns the versions.
async fn write(table: Arc<Table>, writer: usize) -> Vec<u64> {
    let log = format!("log{writer}");
    let mut versions = Vec::new();
    for flush in 0..FLUSHES {
        let rows = vec![(Tenant::default(), vec![row(writer, flush)])];
        let files = table.write_files(&log, flush, rows).await.expect("written");
        let base = flush.checked_sub(1);
        versions.push(table.commit_flush(&log, base, flush, files).await.expect("committed"));
    }
    versions
}

async fn writers_of_one_catalogue_each_land_once(kind: Kind) {
    let world = World::on(kind);
    let mut tables = Vec::new();
    for _ in 0..WRITERS {
        tables.push(world.table().await);
    }
    let writing = tables.into_iter().enumerate().map(|(writer, table)| write(table, writer));
    let versions = futures::future::join_all(writing).await;
    for own in &versions {
        assert!(own.is_sorted(), "a writer's flushes stand in order: {own:?}");
    }
    let mut all: Vec<u64> = versions.into_iter().flatten().collect();
    all.sort_unstable();
    assert_eq!(all, (1..=WRITERS as u64 * FLUSHES).collect::<Vec<_>>(), "each version was one writer's");

    let mut want = Samples::new();
    for (writer, flush) in (0..WRITERS).flat_map(|w| (0..FLUSHES).map(move |f| (w, f))) {
        for (series, samples) in flatten(&[row(writer, flush)]) {
            want.entry(series).or_default().extend(samples);
        }
    }
    assert_eq!(flatten(&world.table_rows(&Tenant::default()).await), want);
    let snapshot = world.table().await.snapshot(None).await.expect("a snapshot");
    assert_eq!(samples_in_files(&world, &snapshot).await, want.values().map(BTreeMap::len).sum::<usize>());
    for writer in 0..WRITERS {
        let log = format!("log{writer}");
        assert_eq!(snapshot.last_transaction(&log), Some(FLUSHES - 1));
        assert_gapless(&commits(&world, &log).await);
    }
}

/// Float samples in the live files, as they stand there: nothing is merged.
async fn samples_in_files(world: &World, snapshot: &Snapshot) -> usize {
    let mut samples = 0;
    for file in snapshot.files(&Tenant::default()) {
        let path = format!("metrics/{}", file.path);
        let bytes = world.store.get(&object_store::path::Path::parse(path).expect("valid")).await;
        let bytes = bytes.expect("there").bytes().await.expect("read");
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|b| b.build());
        for batch in reader.expect("a file") {
            samples += samples_of(&batch.expect("rows"));
        }
    }
    samples
}

fn samples_of(batch: &RecordBatch) -> usize {
    let is_series = batch.column_by_name("metric").expect("a column");
    let counts = batch.column_by_name("count").expect("a column").as_primitive::<Int32Type>();
    let counts = counts.iter().enumerate().filter(|(i, _)| is_series.is_valid(*i)).filter_map(|(_, c)| c);
    counts.map(|c| usize::try_from(c).expect("not negative")).sum()
}

/// Appends and flushes; a flush that fails is tried again, as the ingester does at the next interval.
async fn live(storage: Arc<Storage>, name: String) {
    let group = storage.declare(declaration(&name, 2)).expect("declared");
    for n in 0..FLUSHES {
        let t = START + i64::try_from(n).expect("small") * 15_000;
        append(&storage, group, t, &[n as f64, -1.5 * n as f64]).await;
        let mut failures = 0;
        while let Err(error) = storage.flush().await {
            failures += 1;
            assert!(failures < 100, "{name}: flush {n}: {error}");
        }
    }
}

async fn ingesters_on_an_unreliable_store(kind: Kind, seed: u64) {
    let world = World::on(kind);
    let unreliable = Arc::new(Unreliable::new(Arc::clone(&world.store), seed, 8));
    let faulty = world.through(unreliable.clone());
    let mut lives = Vec::new();
    let folders: Vec<_> = (0..WRITERS).map(|_| tempfile::tempdir().expect("a folder")).collect();
    let mut logs = Vec::new();
    for (i, folder) in folders.iter().enumerate() {
        // Opening fails as well, and the process is started anew.
        let mut attempts = 0;
        let storage = loop {
            let table = faulty.try_table().await;
            let opened = match table {
                Ok(table) => {
                    let options = faulty.options_of(folder.path(), table);
                    Storage::open(options).await.map_err(|e| e.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            match opened {
                Ok(storage) => break storage,
                Err(error) => {
                    attempts += 1;
                    assert!(attempts < 100, "seed {seed}: {error}");
                }
            }
        };
        logs.push(storage.log().to_string());
        lives.push(live(storage, format!("i{i}")));
    }
    futures::future::join_all(lives).await;
    // What is still on its way arrives, and changes nothing.
    tokio::time::sleep(std::time::Duration::from_millis(250)).await;

    assert!(unreliable.faults() > 20, "seed {seed}: {} faults are no test", unreliable.faults());
    let world = faulty.through(unreliable.inner());
    let mut want = Samples::new();
    for (writer, n) in (0..WRITERS).flat_map(|w| (0..FLUSHES).map(move |n| (w, n))) {
        let t = START + i64::try_from(n).expect("small") * 15_000;
        for (member, value) in [n as f64, -1.5 * n as f64].into_iter().enumerate() {
            let series = labels(&format!("i{writer}"), member).to_string();
            want.entry(series).or_default().insert(t, value.to_bits());
        }
    }
    assert_eq!(flatten(&world.table_rows(&Tenant::default()).await), want, "seed {seed}: nothing is lost");
    let snapshot = world.table().await.snapshot(None).await.expect("a snapshot");
    let count = want.values().map(BTreeMap::len).sum::<usize>();
    assert_eq!(samples_in_files(&world, &snapshot).await, count, "seed {seed}: nothing is there twice");
    for log in logs {
        // The rest of a log that somebody else was faster with may hold no sample: a commit without files.
        let transactions = transactions(&world, &log).await;
        assert!(transactions.is_sorted_by(|a, b| a < b), "seed {seed}: {transactions:?}");
        for (base, through) in commits(&world, &log).await {
            let at = transactions.iter().position(|t| *t == through).expect("a transaction");
            let before = at.checked_sub(1).map(|i| transactions[i]);
            assert_eq!(base, before, "seed {seed}: {transactions:?}");
        }
    }
}

/// Every transaction of a log, as the commits have them, oldest first.
async fn transactions(world: &World, log: &str) -> Vec<u64> {
    let mut transactions = Vec::new();
    for version in 0..=world.table().await.snapshot(None).await.expect("a snapshot").version() {
        let path = format!("metrics/_delta_log/{version:020}.json");
        let commit = world.store.get(&object_store::path::Path::from(path)).await.expect("there");
        let commit = commit.bytes().await.expect("read");
        let lines = std::str::from_utf8(&commit).expect("text").lines();
        let lines = lines.map(|l| serde_json::from_str::<serde_json::Value>(l).expect("JSON"));
        let own = lines.filter(|l| l["txn"]["appId"] == log);
        transactions.extend(own.filter_map(|l| l["txn"]["version"].as_u64()));
    }
    transactions
}

async fn no_flush_is_lost_or_doubled_on_an_unreliable_store(kind: Kind) {
    let seeds = if kind == Kind::Memory { 0..12 } else { 100..102 };
    for seed in seeds {
        ingesters_on_an_unreliable_store(kind, seed).await;
    }
}

/// Requests are what an object store costs, in money and in time.
async fn requests_are_few(kind: Kind) {
    let world = World::on(kind);
    let counting = Arc::new(Unreliable::counting(Arc::clone(&world.store)));
    let world = world.through(counting.clone());
    let since = |before: Requests| {
        let now = counting.requests();
        let (puts, gets) = (now.puts - before.puts, now.gets - before.gets);
        Requests { puts, gets, lists: now.lists - before.lists }
    };
    let writer = world.table().await;
    for flush in 0..3 {
        let before = counting.requests();
        let rows = vec![(Tenant::default(), vec![row(0, flush)])];
        let files = writer.write_files("log", flush, rows).await.expect("written");
        writer.commit_flush("log", flush.checked_sub(1), flush, files).await.expect("committed");
        assert_eq!(since(before), Requests { puts: 2, gets: 0, lists: 1 }, "a file, a look, a commit");
    }
    let before = counting.requests();
    let reader = world.table().await;
    assert_eq!(since(before), Requests { puts: 0, gets: 5, lists: 1 }, "no checkpoint, each commit once");

    let before = counting.requests();
    let snapshot = reader.snapshot(None).await.expect("a snapshot");
    assert_eq!(since(before), Requests { lists: 1, ..Requests::default() }, "nothing new");
    reader.snapshot(Some(3)).await.expect("known");
    assert_eq!(since(before), Requests { lists: 1, ..Requests::default() }, "no need to look");

    let before = counting.requests();
    let tenant = Tenant::default();
    let rows = snapshot.select(&tenant, &[], i64::MIN, i64::MAX, SelectLimits::NONE).await.expect("rows");
    assert_eq!(rows[0].samples.sample_count(), 3);
    assert_eq!(since(before), Requests { gets: 3, ..Requests::default() }, "each small file once");
}

on_every_store!(
    writers_of_one_catalogue_each_land_once,
    no_flush_is_lost_or_doubled_on_an_unreliable_store,
    requests_are_few,
);
