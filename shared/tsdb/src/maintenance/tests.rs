use std::collections::BTreeMap;
use std::fmt;

use futures::stream::BoxStream;
use model::{Clock, Exemplar, Histogram, Labels, Metadata, is_stale};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::*;
use crate::file::DAY_WINDOW_MS;
use crate::merge::compare_exemplars;
use crate::series::testing::{BASE, assert_rows_eq, restrict, rows};
use crate::series::{FloatColumn, HistogramColumn, SeriesRow, SeriesSamples};
use crate::table::tests::{assert_foreign_readers_find, expected_lines, options};
use crate::table::{SelectLimits, TableOptions};
use crate::testing::{Kind, on_every_store, run};

const DAY_MS: i64 = 24 * HOUR_MS;

fn everything(_: &str) -> bool {
    true
}

async fn open(store: &Arc<dyn ObjectStore>, clock: &Clock) -> Arc<Table> {
    let options = TableOptions { clock: clock.clone(), ..options(Arc::clone(store)) };
    Table::open(options).await.expect("opens")
}

async fn flush(table: &Table, through: u64, tenant: &Tenant, rows: Vec<SeriesRow>) {
    let files = table.write_files("log", through, vec![(tenant.clone(), rows)]).await.expect("written");
    let base = through.checked_sub(1);
    table.commit_flush("log", base, through, files).await.expect("committed");
}

async fn select(table: &Table, tenant: &Tenant) -> Vec<SeriesRow> {
    let snapshot = table.snapshot(None).await.expect("snapshot");
    snapshot.select(tenant, &[], i64::MIN, i64::MAX, SelectLimits::NONE).await.expect("select")
}

fn row(instance: &str, times: &[i64], value: f64) -> SeriesRow {
    SeriesRow {
        labels: Labels::from_pairs([("__name__", "m"), ("instance", instance)]),
        metadata: Arc::new(Metadata::default()),
        samples: SeriesSamples {
            floats: FloatColumn { timestamps: times.into(), values: vec![value; times.len()].into() },
            ..SeriesSamples::default()
        },
    }
}

/// Everything that was flushed, sample by sample: at one time the best one is kept.
#[derive(Debug, Clone, Default)]
struct Naive(BTreeMap<(String, Labels), Series>);

#[derive(Debug, Clone, Default)]
struct Series {
    samples: BTreeMap<i64, Sample>,
    exemplars: Vec<Exemplar>,
    metadata: Option<(Option<i64>, Arc<Metadata>)>,
}

#[derive(Debug, Clone)]
struct Sample {
    value: Result<f64, Arc<Histogram>>,
    start: Option<i64>,
}

impl Sample {
    fn is_better(&self, other: &Self) -> bool {
        let rank = |s: &Self| match &s.value {
            Ok(x) => (!is_stale(*x), false),
            Err(h) => (!is_stale(h.sum()), true),
        };
        let by_value = rank(self).cmp(&rank(other)).then_with(|| match (&self.value, &other.value) {
            (Ok(a), Ok(b)) => a.to_bits().cmp(&b.to_bits()),
            (Err(a), Err(b)) => a.compare(b),
            _ => unreachable!("the ranks differ"),
        });
        by_value.then_with(|| self.start.cmp(&other.start)).is_gt()
    }
}

impl Naive {
    fn add(&mut self, row: &SeriesRow) {
        let key = (row.labels.metric_name().to_owned(), row.labels.clone());
        let series = self.0.entry(key).or_default();
        let starts: BTreeMap<i64, i64> = row.samples.start_timestamps.iter().copied().collect();
        let floats = row.samples.floats.iter().map(|(t, x)| (t, Ok(x)));
        let histograms = row.samples.histograms.iter().map(|(t, h)| (t, Err(Arc::clone(h))));
        let mut last = None;
        for (t, value) in floats.chain(histograms) {
            let sample = Sample { value, start: starts.get(&t).copied() };
            last = last.max(Some(t));
            if series.samples.get(&t).is_none_or(|known| sample.is_better(known)) {
                series.samples.insert(t, sample);
            }
        }
        for exemplar in row.samples.exemplars.iter() {
            last = last.max(exemplar.timestamp.map(|t| t.millis()));
            if !series.exemplars.iter().any(|known| compare_exemplars(known, exemplar).is_eq()) {
                series.exemplars.push(exemplar.clone());
            }
        }
        series.metadata = series.metadata.take().max(Some((last, Arc::clone(&row.metadata))));
    }

    fn rows(&self) -> Vec<SeriesRow> {
        self.0.iter().map(|((_, labels), series)| series.row(labels)).collect()
    }
}

impl Series {
    fn row(&self, labels: &Labels) -> SeriesRow {
        let (mut floats, mut histograms, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        for (t, sample) in &self.samples {
            match &sample.value {
                Ok(x) => floats.push((*t, *x)),
                Err(h) => histograms.push((*t, Arc::clone(h))),
            }
            starts.extend(sample.start.map(|s| (*t, s)));
        }
        let (times, values): (Vec<i64>, Vec<f64>) = floats.into_iter().unzip();
        let floats = FloatColumn { timestamps: times.into(), values: values.into() };
        let (times, values): (Vec<i64>, Vec<Arc<Histogram>>) = histograms.into_iter().unzip();
        let histograms = HistogramColumn { timestamps: times.into(), values: values.into() };
        let mut exemplars = self.exemplars.clone();
        exemplars.sort_by(compare_exemplars);
        let samples = SeriesSamples {
            floats,
            histograms,
            start_timestamps: starts.into(),
            exemplars: exemplars.into(),
        };
        let metadata = self.metadata.clone().map(|m| m.1).unwrap_or_default();
        SeriesRow { labels: labels.clone(), metadata, samples }
    }
}

/// Flushes and compactions in any order: what is read is what the model holds, whole and in part.
async fn check_compactions(
    kind: Kind,
    steps: Vec<(Vec<SeriesRow>, Option<bool>)>,
    memory_bytes_max: usize,
    range: (i64, i64),
) -> Result<(), TestCaseError> {
    let store = kind.store();
    let clock = Clock::fixed(Timestamp(BASE));
    let table = open(&store, &clock).await;
    let options = MaintenanceOptions { memory_bytes_max, concurrency: 2, ..MaintenanceOptions::default() };
    let maintenance = Maintenance::new(Arc::clone(&table), options);
    let tenant = Tenant::default();
    let mut model = Naive::default();
    for (through, (rows, compaction)) in steps.into_iter().enumerate() {
        rows.iter().for_each(|r| model.add(r));
        flush(&table, through as u64, &tenant, rows).await;
        let Some(is_over) = compaction else { continue };
        // On the day itself, or when all days are over.
        clock.set(Timestamp(if is_over { BASE + 10 * DAY_MS } else { BASE + HOUR_MS }));
        maintenance.look(&everything, true).await.expect("compacts");
        let want = model.rows();
        let got = select(&table, &tenant).await;
        assert_rows_eq(&got, &want);
        let snapshot = table.snapshot(None).await.expect("snapshot");
        let (min, max) = range;
        let part = snapshot.select(&tenant, &[], min, max, SelectLimits::NONE).await.expect("select");
        // An exemplar without a time may come along or not.
        let timed = |rows: &[SeriesRow]| -> Vec<(Labels, SeriesSamples)> {
            let cut = rows.iter().map(|r| {
                let samples = restrict(&r.samples, min, max);
                let exemplars = samples.exemplars.iter().filter(|e| e.timestamp.is_some()).cloned().collect();
                (r.labels.clone(), SeriesSamples { exemplars, ..samples })
            });
            cut.filter(|(_, samples)| !samples.is_empty()).collect()
        };
        let (part, want) = (timed(&part), timed(&want));
        prop_assert_eq!(part.len(), want.len());
        prop_assert!(part.iter().zip(&want).all(|(a, b)| a.0 == b.0 && a.1.bit_eq(&b.1)));
        if is_over {
            prop_assert!(snapshot.files(&tenant).all(|f| f.window_ms == DAY_WINDOW_MS));
            prop_assert!(maintenance.look(&everything, true).await.expect("nothing").version.is_none());
        }
    }
    Ok(())
}

fn check_random_compactions(kind: Kind, cases: u32) {
    let compaction = prop_oneof![Just(None), any::<bool>().prop_map(Some)];
    let steps = prop::collection::vec((rows(10), compaction), 1..6);
    let memory = prop::sample::select(vec![1, 8 << 10, 512 << 20]);
    let random = (steps, memory, -4_000_i64..4_000, 0_i64..4_000);
    proptest!(ProptestConfig::with_cases(cases), |((steps, memory, from, length) in random)| {
        let range = (BASE + from * 1_000, BASE + (from + length) * 1_000);
        run(check_compactions(kind, steps, memory, range))?;
    });
}

#[test]
fn compactions_change_nothing_that_is_read_in_memory() {
    check_random_compactions(Kind::Memory, 96);
}

#[test]
fn compactions_change_nothing_that_is_read_in_a_folder() {
    check_random_compactions(Kind::Folder, 24);
}

#[test]
fn compactions_change_nothing_that_is_read_on_s3() {
    check_random_compactions(Kind::S3, 12);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the files are: what is young stays, what is read is what was written, the newest is never dropped.
    #[test]
    fn retention_drops_only_what_is_old(
        flushes in prop::collection::vec(rows(8), 1..5),
        compact: bool,
        minutes in 0_i64..60,
    ) {
        run(async {
            let clock = Clock::fixed(Timestamp(BASE + 20 * DAY_MS));
            let table = open(&Kind::Memory.store(), &clock).await;
            let tenant = Tenant::default();
            let mut model = Naive::default();
            for (through, rows) in flushes.into_iter().enumerate() {
                rows.iter().for_each(|r| model.add(r));
                flush(&table, through as u64, &tenant, rows).await;
            }
            if compact {
                let maintenance = Maintenance::new(Arc::clone(&table), MaintenanceOptions::default());
                maintenance.look(&everything, true).await.expect("compacts");
            }
            let kept = Duration::from_secs(60 * u64::try_from(minutes).expect("positive") + 1);
            let options = MaintenanceOptions { retention_time: Some(kept), ..MaintenanceOptions::default() };
            let before = table.snapshot(None).await.expect("snapshot");
            let files: Vec<Arc<DataFile>> = before.files(&tenant).cloned().collect();
            Maintenance::new(Arc::clone(&table), options).look(&|w: &str| w == "table", false).await.expect("looks");

            let newest = files.iter().map(|f| f.newest_time()).max().unwrap_or(0);
            let got = select(&table, &tenant).await;
            let of = |rows: &[SeriesRow], since: i64| -> Vec<(Labels, SeriesSamples)> {
                let cut = rows.iter().map(|r| (r.labels.clone(), restrict(&r.samples, since, i64::MAX)));
                let timed = cut.map(|(l, s)| (l, SeriesSamples { exemplars: Arc::from([]), ..s }));
                timed.filter(|(_, s)| !s.is_empty()).collect()
            };
            let since = newest - millis(kept) + 1;
            let (young, want) = (of(&got, since), of(&model.rows(), since));
            prop_assert_eq!(young.len(), want.len());
            prop_assert!(young.iter().zip(&want).all(|(a, b)| a.0 == b.0 && a.1.bit_eq(&b.1)));
            let after = table.snapshot(None).await.expect("snapshot");
            for file in &files {
                let is_live = after.files(&tenant).any(|f| f.path == file.path);
                let is_young = file.newest_time() >= since;
                prop_assert_eq!(is_live, is_young || files.len() == 1, "{:?}", file);
            }
            Ok(())
        })?;
    }
}

/// The oldest go first, by age and by size, and the newest stays whatever the limits say.
async fn the_oldest_files_go_first(kind: Kind) {
    let store = kind.store();
    let clock = Clock::fixed(Timestamp(BASE));
    let table = open(&store, &clock).await;
    let tenant = Tenant::default();
    for day in 0..5 {
        let rows = vec![row("a", &[BASE + day * DAY_MS], day as f64)];
        flush(&table, u64::try_from(day).expect("small"), &tenant, rows).await;
    }
    let size = table.log().known().files.values().next().expect("a file").size;
    clock.set(Timestamp(BASE + 30 * DAY_MS));
    let days_left =
        |rows: &[SeriesRow]| rows.iter().flat_map(|r| r.samples.floats.values.to_vec()).collect::<Vec<_>>();
    let days = |n: u64| Some(Duration::from_secs(n * 86_400));
    for (time, bytes, left, times, sizes) in [
        (None, None, vec![0.0, 1.0, 2.0, 3.0, 4.0], 0, 0),
        (days(5), Some(100 * size), vec![0.0, 1.0, 2.0, 3.0, 4.0], 0, 0),
        // A month of silence makes nothing old: age is counted from the newest sample.
        (days(4), None, vec![1.0, 2.0, 3.0, 4.0], 1, 0),
        (None, Some(3 * size + size / 2), vec![2.0, 3.0, 4.0], 0, 1),
        (days(2), Some(1), vec![4.0], 1, 1),
        (days(0), Some(1), vec![4.0], 0, 0),
    ] {
        let maintenance = Maintenance::new(Arc::clone(&table), MaintenanceOptions::default());
        maintenance.set_retention(time, bytes);
        maintenance.look(&|w: &str| w == "table", false).await.expect("looks");
        assert_eq!(days_left(&select(&table, &tenant).await), left);
        let stats = maintenance.stats();
        assert_eq!((stats.time_retentions_total, stats.size_retentions_total), (times, sizes));
    }
    let lines = store.get(&Path::from("metrics/_delta_log/00000000000000000006.json")).await.expect("there");
    let text = String::from_utf8(lines.bytes().await.expect("read").to_vec()).expect("text");
    assert!(text.contains(r#""operation":"DELETE""#) && text.contains(r#""dataChange":true"#), "{text}");
}

/// One sample from the future does not make everything old.
#[tokio::test]
async fn a_sample_from_the_future_drops_nothing() {
    let clock = Clock::fixed(Timestamp(BASE));
    let table = open(&Kind::Memory.store(), &clock).await;
    let tenant = Tenant::default();
    let rows = vec![row("a", &[BASE - HOUR_MS], 1.0), row("b", &[BASE + 400 * DAY_MS], 1.0)];
    flush(&table, 0, &tenant, rows).await;
    let retention_time = Some(Duration::from_secs(86_400));
    let options = MaintenanceOptions { retention_time, ..MaintenanceOptions::default() };
    let report = Maintenance::new(Arc::clone(&table), options).look(&|w: &str| w == "table", false).await;
    assert_eq!(report.expect("looks").files_expired, 0);
    assert_eq!(select(&table, &tenant).await.len(), 2);
}

async fn data_files(store: &Arc<dyn ObjectStore>) -> Vec<String> {
    let all: Vec<ObjectMeta> =
        futures::TryStreamExt::try_collect(store.list(Some(&Path::from("metrics")))).await.expect("listed");
    let mut paths: Vec<String> = all.into_iter().map(|m| m.location.to_string()).collect();
    paths.retain(|p| !p.contains("_delta_log"));
    paths.sort();
    paths
}

/// Replaced files stay an hour, and a reader that has not looked since is told so.
async fn removed_files_stay_for_an_hour_and_others_for_a_day(kind: Kind) {
    let store = kind.store();
    // Files that nobody names are judged by the store's own time.
    let now = Clock::System.now();
    let clock = Clock::fixed(now);
    let table = open(&store, &clock).await;
    let tenant = Tenant::default();
    for through in 0..3 {
        let rows = vec![row("a", &[now.millis() - 3 * DAY_MS + i64::try_from(through).expect("small")], 1.0)];
        flush(&table, through, &tenant, rows).await;
    }
    let old = table.snapshot(None).await.expect("snapshot");
    let before = data_files(&store).await;
    // Written by somebody who died before he committed.
    let orphan =
        table.write_files("log", 9, vec![(tenant.clone(), vec![row("z", &[now.millis()], 1.0)])]).await;
    let orphan = format!("metrics/{}", orphan.expect("written")[0].data_file().path);
    // Not ours: nobody touches it.
    let stranger = "metrics/tenant=default/day=2026-11-23/part-0.parquet".to_owned();
    store.put(&Path::from(stranger.as_str()), "x".into()).await.expect("put");

    let maintenance = Maintenance::new(Arc::clone(&table), MaintenanceOptions::default());
    let report = maintenance.look(&everything, false).await.expect("compacts");
    assert_eq!((report.compactions, report.files_replaced, report.files_written), (1, 3, 1));
    let new: Vec<String> = table.log().known().files.keys().map(|p| format!("metrics/{p}")).collect();
    let with = |lists: &[&[String]]| {
        let mut all = lists.concat();
        all.sort();
        all
    };
    let rest = [orphan.clone(), stranger.clone()];
    let all = with(&[&before, &new, &rest]);
    for (minutes, want) in [
        (59, all.clone()),
        (59 + 15, with(&[&new, &rest])),
        (23 * 60, with(&[&new, &rest])),
        (25 * 60, with(&[&new, std::slice::from_ref(&stranger)])),
    ] {
        clock.set(now.add_ms(minutes * 60_000));
        maintenance.look(&everything, false).await.expect("looks");
        assert_eq!(data_files(&store).await, want, "after {minutes} min");
        let read = old.select(&tenant, &[], i64::MIN, i64::MAX, SelectLimits::NONE).await;
        match read {
            Ok(rows) => assert_eq!((rows.len(), minutes), (1, 59)),
            Err(Error::Gone { .. }) => assert!(minutes > 59),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(select(&table, &tenant).await[0].samples.sample_count(), 3);
    }
}

/// A commit that was on its way for hours says that its files were removed hours ago; whoever reads them does not know.
async fn an_hour_counts_from_when_a_removal_was_seen(kind: Kind) {
    let store = kind.store();
    let now = Clock::System.now();
    let clock = Clock::fixed(now.add_ms(-5 * HOUR_MS));
    let late = open(&store, &clock).await;
    for through in 0..3 {
        flush(&late, through, &Tenant::default(), vec![row("a", &[now.millis() - 3 * DAY_MS], 1.0)]).await;
    }
    let before = data_files(&store).await;
    Maintenance::new(late, MaintenanceOptions::default()).look(&everything, true).await.expect("compacts");
    let first = Maintenance::new(open(&store, &clock).await, MaintenanceOptions::default());
    let next = Maintenance::new(open(&store, &clock).await, MaintenanceOptions::default());
    for (minutes, maintenance, is_there) in
        [(0, &first, true), (59, &first, true), (60, &next, true), (59 + 15, &first, false)]
    {
        clock.set(now.add_ms(minutes * 60_000));
        maintenance.look(&everything, false).await.expect("looks");
        let found = data_files(&store).await;
        assert!(before.iter().all(|file| found.contains(file) == is_there), "after {minutes} min");
    }
}

/// A checkpoint every hundred commits; what lies behind one goes after a day.
async fn the_log_of_commits_does_not_grow_for_ever(kind: Kind) {
    let store = kind.store();
    let now = Clock::System.now();
    let clock = Clock::fixed(now);
    let table = open(&store, &clock).await;
    let maintenance = Maintenance::new(Arc::clone(&table), MaintenanceOptions::default());
    for through in 0..99_u64 {
        table.commit_flush("log", through.checked_sub(1), through, vec![]).await.expect("committed");
    }
    maintenance.look(&everything, false).await.expect("looks");
    assert_eq!(maintenance.stats().checkpoints_total, 0);
    table.commit_flush("log", Some(98), 99, vec![]).await.expect("committed");
    maintenance.look(&everything, false).await.expect("looks");
    assert_eq!((maintenance.stats().checkpoints_total, maintenance.stats().log_files_removed_total), (1, 0));
    clock.set(now.add_ms(25 * HOUR_MS));
    maintenance.look(&everything, false).await.expect("looks");
    assert_eq!(
        (maintenance.stats().checkpoints_total, maintenance.stats().log_files_removed_total),
        (1, 100)
    );
    let again = open(&store, &clock).await;
    assert_eq!(again.log().known().transactions["log"], 99);
}

on_every_store!(
    the_oldest_files_go_first,
    removed_files_stay_for_an_hour_and_others_for_a_day,
    an_hour_counts_from_when_a_removal_was_seen,
    the_log_of_commits_does_not_grow_for_ever,
    compactors_that_work_at_the_same_time_do_no_harm,
);

/// Several days of flushes that overlap, of two tenants.
fn overlapping(flush: i64) -> Vec<SeriesRow> {
    let times = |shift: i64| -> Vec<i64> {
        (0..40).map(|i| BASE - DAY_MS + flush * 5 * HOUR_MS + i * 900_000 + shift).collect()
    };
    let rows =
        ["a", "b", "c"].into_iter().zip(0..).map(|(i, n)| row(i, &times(n % 2 * 3), (flush * 10 + n) as f64));
    rows.collect()
}

const OVERLAPS: i64 = 6;

async fn flush_overlapping(table: &Table) {
    for i in 0..OVERLAPS {
        flush(table, u64::try_from(i).expect("small"), &Tenant::default(), overlapping(i)).await;
    }
}

fn overlapping_merged() -> Vec<SeriesRow> {
    let mut model = Naive::default();
    (0..OVERLAPS).flat_map(overlapping).for_each(|r| model.add(&r));
    model.rows()
}

/// Whoever is first wins; the others drop what they made. No sample is lost or there twice.
async fn compactors_that_work_at_the_same_time_do_no_harm(kind: Kind) {
    let store = kind.store();
    let clock = Clock::fixed(Timestamp(BASE + 10 * DAY_MS));
    flush_overlapping(&*open(&store, &clock).await).await;
    let mut rivals = Vec::new();
    for _ in 0..4 {
        rivals.push(Maintenance::new(open(&store, &clock).await, MaintenanceOptions::default()));
    }
    let looks = futures::future::join_all(rivals.iter().map(|m| m.look(&everything, false))).await;
    let compactions: usize = looks.into_iter().map(|r| r.expect("looks").compactions).sum();
    let table = open(&store, &clock).await;
    let files = &table.log().known().files;
    assert_eq!(compactions, files.len(), "each day once");
    let rows: u64 = files.values().filter_map(|f| f.stats.as_ref()).map(|s| s.rows - s.timelines).sum();
    let windows = |r: &SeriesRow| {
        r.samples
            .floats
            .timestamps
            .iter()
            .map(|t| t.div_euclid(DAY_WINDOW_MS))
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    };
    assert_eq!(
        rows,
        overlapping_merged().iter().map(windows).sum::<usize>() as u64,
        "one row a series and window"
    );
    assert_rows_eq(&select(&table, &Tenant::default()).await, &overlapping_merged());
}

/// A store of a process that is killed: after so many writes and deletions nothing arrives any more.
#[derive(Debug)]
struct Mortal {
    inner: Arc<dyn ObjectStore>,
    left: Arc<AtomicI64>,
}

fn dead() -> object_store::Error {
    object_store::Error::Generic { store: "mortal", source: "killed".into() }
}

fn live_on(left: &AtomicI64) -> object_store::Result<()> {
    if left.fetch_sub(1, Ordering::Relaxed) > 0 { Ok(()) } else { Err(dead()) }
}

impl fmt::Display for Mortal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mortal")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Mortal {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        live_on(&self.left)?;
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        live_on(&self.left)?;
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        let left = Arc::clone(&self.left);
        let paths = paths.map(move |path| live_on(&left).and(path));
        self.inner.delete_stream(paths.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        live_on(&self.left)?;
        self.inner.copy_opts(from, to, options).await
    }
}

async fn copy_of(store: &Arc<dyn ObjectStore>) -> object_store::memory::InMemory {
    let copy = object_store::memory::InMemory::new();
    let all: Vec<ObjectMeta> = futures::TryStreamExt::try_collect(store.list(None)).await.expect("listed");
    for entry in all {
        let bytes = store.get(&entry.location).await.expect("there").bytes().await.expect("read");
        copy.put(&entry.location, bytes.into()).await.expect("copied");
    }
    copy
}

/// Killed behind every single write and deletion of compaction, retention, checkpoint and clean-up: whoever comes after
/// reads the same, and finishes the work.
#[test]
fn whoever_is_killed_leaves_a_correct_table() {
    run(async {
        let now = Clock::System.now();
        let clock = Clock::fixed(now);
        let whole: Arc<dyn ObjectStore> = Kind::Memory.store().clone();
        let table = open(&whole, &clock).await;
        flush_overlapping(&table).await;
        for through in 6..102_u64 {
            let rows = if through == 50 { vec![row("old", &[BASE - 40 * DAY_MS], 1.0)] } else { Vec::new() };
            flush(&table, through, &Tenant::default(), rows).await;
        }
        let mut writes = 0;
        loop {
            let store: Arc<dyn ObjectStore> = Arc::new(copy_of(&whole).await);
            let left = Arc::new(AtomicI64::new(writes));
            let mortal: Arc<dyn ObjectStore> =
                Arc::new(Mortal { inner: Arc::clone(&store), left: Arc::clone(&left) });
            let options = MaintenanceOptions {
                retention_time: Some(Duration::from_secs(20 * 86_400)),
                memory_bytes_max: 1,
                ..MaintenanceOptions::default()
            };
            let killed = Maintenance::new(open(&mortal, &clock).await, options.clone());
            let later = Clock::fixed(now.add_ms(26 * HOUR_MS));
            let first = killed.look(&everything, true).await;
            let second =
                Maintenance::new(open(&mortal, &later).await, options.clone()).look(&everything, true).await;

            let check = async |table: &Table, what: &str| {
                let rows = select(table, &Tenant::default()).await;
                let kept: Vec<SeriesRow> =
                    rows.into_iter().filter(|r| r.labels.value("instance") != "old").collect();
                assert_eq!(kept.len(), 3, "killed after {writes} writes, {what}");
                assert_rows_eq(&kept, &overlapping_merged());
            };
            let heir = open(&store, &later).await;
            check(&heir, "before").await;
            let finishes = Maintenance::new(Arc::clone(&heir), options.clone());
            finishes.look(&everything, true).await.expect("finishes");
            // An hour later for what was replaced only now, a day for what was never named.
            for hours in [2, 26] {
                later.set(later.now().add_ms(hours * HOUR_MS));
                finishes.look(&everything, true).await.expect("finishes");
            }
            check(&heir, "after").await;
            let live: Vec<String> = heir.log().known().files.keys().map(|p| format!("metrics/{p}")).collect();
            assert_eq!(data_files(&store).await, live, "killed after {writes} writes: no dead file is left");
            if first.is_ok() && second.is_ok() && left.load(Ordering::Relaxed) >= 0 {
                break;
            }
            // A hundred old commits go one by one: not every one of them is another step.
            writes += if (40..100).contains(&writes) { 9 } else { 1 };
        }
        assert!(writes > 100, "{writes}: files, commits, a checkpoint and its hint, a hundred commits");
    });
}

/// A compaction that fails is tried later and later, holds up no other, and is counted.
#[test]
fn a_compaction_that_fails_is_tried_later() {
    run(async {
        let store: Arc<dyn ObjectStore> = Kind::Memory.store().clone();
        let clock = Clock::fixed(Timestamp(BASE + 10 * DAY_MS));
        let table = open(&store, &clock).await;
        let (good, bad) = (Tenant::new("good").expect("valid"), Tenant::new("bad").expect("valid"));
        flush(&table, 0, &bad, vec![row("a", &[BASE], 1.0)]).await;
        flush(&table, 1, &good, vec![row("a", &[BASE], 1.0)]).await;
        let path = table.log().known().files.values().find(|f| f.tenant == bad).expect("there").path.clone();
        let path = crate::table::location(&table.options().prefix, &path).expect("valid");
        let bytes = store.get(&path).await.expect("there").bytes().await.expect("read");
        store.put(&path, vec![0; bytes.len()].into()).await.expect("overwritten");
        let maintenance = Maintenance::new(Arc::clone(&table), MaintenanceOptions::default());
        for (seconds, is_tried, failures) in
            [(0, true, 1), (59, false, 1), (61, true, 2), (180, false, 2), (182, true, 3)]
        {
            clock.set(Timestamp(BASE + 10 * DAY_MS + seconds * 1_000));
            let looked = maintenance.look(&everything, false).await;
            assert_eq!(looked.is_err(), is_tried, "{seconds}");
            assert_eq!(maintenance.stats().compaction_failures_total, failures, "{seconds}");
            assert_eq!(maintenance.stats().compactions_total, 1, "the other tenant's");
        }
        store.put(&path, bytes.into()).await.expect("mended");
        maintenance.look(&everything, true).await.expect("when somebody asks, at once");
        assert_eq!(maintenance.stats().compactions_total, 2);
    });
}

/// Work that is not for this process is left alone.
#[tokio::test]
async fn only_the_own_share_is_done() {
    let store = Kind::Memory.store();
    let clock = Clock::fixed(Timestamp(BASE + 10 * DAY_MS));
    let table = open(&store, &clock).await;
    flush_overlapping(&table).await;
    let maintenance = Maintenance::new(Arc::clone(&table), MaintenanceOptions::default());
    let report = maintenance.look(&|_: &str| false, true).await.expect("looks");
    assert_eq!(report, MaintenanceReport::default());
    let report = maintenance.look(&|w: &str| w == "compact/default/2026-11-23", true).await.expect("looks");
    assert_eq!(report.compactions, 1);
}

/// DuckDB and deltalake read a table that was compacted, vacuumed, and whose log was cleaned up behind a checkpoint.
#[test]
fn foreign_readers_see_the_same_bits_after_everything() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut models: BTreeMap<&str, Naive> = BTreeMap::new();
    run(async {
        let now = Clock::System.now();
        let clock = Clock::fixed(now);
        let location = crate::Location::folder(folder.path());
        let table = Table::open_in(&location, clock.clone()).await.expect("opens");
        for through in 0..104_u64 {
            let name = if through % 2 == 0 { "default" } else { "a*b'c!" };
            let rows = rows(60).new_tree(&mut runner).expect("generates").current();
            // Most commits have nothing: the log is what they are for.
            let rows = if through < 8 { rows } else { Vec::new() };
            rows.iter().for_each(|r| models.entry(name).or_default().add(r));
            flush(&table, through, &Tenant::new(name).expect("valid"), rows).await;
        }
        let options = MaintenanceOptions { memory_bytes_max: 64 << 10, ..MaintenanceOptions::default() };
        // The time of all samples has passed.
        clock.set(Timestamp(now.millis().max(BASE + 3 * DAY_MS)));
        let started = clock.now();
        for hours in [0, 2, 27] {
            clock.set(started.add_ms(hours * HOUR_MS));
            let table = Table::open_in(&location, clock.clone()).await.expect("opens");
            let maintenance = Maintenance::new(Arc::clone(&table), options.clone());
            maintenance.look(&everything, true).await.expect("looks");
            let expected: String = models
                .iter()
                .map(|(name, model)| expected_lines(&Tenant::new(name).expect("valid"), &model.rows()))
                .collect();
            assert!(expected.lines().count() > 1_000);
            assert_foreign_readers_find(&folder.path().join("metrics").display().to_string(), &expected);
        }
    });
    let commits = std::fs::read_dir(folder.path().join("metrics/_delta_log")).expect("a folder").count();
    assert!(commits < 30, "{commits}");
}

/// Services spawn these; it compiles or it does not.
#[tokio::test]
async fn futures_can_be_spawned() {
    fn is_send<T: Send>(future: T) -> T {
        future
    }
    let table = open(&Kind::Memory.store(), &Clock::fixed(Timestamp(BASE))).await;
    let maintenance = Maintenance::new(table, MaintenanceOptions::default());
    is_send(maintenance.look(&everything, true)).await.expect("looks");
    drop(is_send(maintenance.run(|_: &str| true)));
}
