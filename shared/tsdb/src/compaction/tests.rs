use std::collections::BTreeMap;

use model::{Clock, Labels, Metadata, Tenant, Timestamp};

use super::plan::{RUNS_MAX, Rules, plan, runs};
use super::*;
use crate::catalogue::state::State;
use crate::file::encode::FileStats;
use crate::file::{DAY_WINDOW_MS, WINDOW_MS};
use crate::series::{FloatColumn, SeriesRow, SeriesSamples};
use crate::table::tests::options;
use crate::table::{SelectLimits, TableOptions};
use crate::testing::{Kind, run};

const HOUR: i64 = 3_600_000;
/// 2026-11-23 00:00 UTC.
const DAY: i64 = 20_780 * 24 * HOUR;

/// A file whose newest sample lies at an hour of the day.
fn file(path: &str, hour: i64, size: u64) -> DataFile {
    DataFile {
        path: path.to_owned(),
        tenant: Tenant::default(),
        day: "2026-11-23".to_owned(),
        size,
        modified_ms: 0,
        stats: Some(FileStats { max_time: Some(DAY + hour * HOUR), ..FileStats::default() }),
        tail: None,
        window_ms: WINDOW_MS,
        part: None,
        origins: Vec::new(),
    }
}

fn part(path: &str, job: &str, number: u32, file: DataFile) -> DataFile {
    DataFile { path: path.to_owned(), part: Some(Part { job: job.to_owned(), number }), ..file }
}

fn long(file: DataFile) -> DataFile {
    DataFile { window_ms: DAY_WINDOW_MS, ..file }
}

/// The inputs of each job, by path, with the length of the windows in hours.
fn planned(files: &[DataFile], at_hour: i64, rules: &Rules) -> Vec<(i64, Vec<String>)> {
    let files: Vec<Arc<DataFile>> = files.iter().cloned().map(Arc::new).collect();
    let jobs = plan(files.iter(), Timestamp(DAY + at_hour * HOUR), rules);
    let paths = |job: &Job| job.inputs.iter().map(|f| f.path.clone()).collect();
    jobs.iter().map(|job| (job.window_ms / HOUR, paths(job))).collect()
}

#[test]
fn windows_and_days_are_compacted_when_they_are_over() {
    let rules = Rules { delay_ms: HOUR, bytes_max: 1_000, is_forced: false };
    let forced = Rules { is_forced: true, ..rules };
    let (a, b, c) = (file("a", 0, 10), file("b", 1, 10), file("c", 2, 10));
    let late = || file("late", 1, 1);
    let done = |n| part(&format!("done{n}"), "j", n, file("", 1, 300));
    let day = |n| long(part(&format!("day{n}"), "d", n, file("", 23, 300)));
    for (what, files, at_hour, rules, want) in [
        ("a window is not over before late samples are in", vec![a.clone(), b.clone()], 2, &rules, vec![]),
        ("it is then", vec![a.clone(), b.clone(), c.clone()], 3, &rules, vec![(2, vec!["a", "b"])]),
        ("or when somebody asks", vec![a.clone(), b.clone()], 1, &forced, vec![(2, vec!["a", "b"])]),
        ("one file is compact", vec![a.clone(), c.clone()], 5, &rules, vec![]),
        ("as are the parts of one compaction", vec![done(0), done(1)], 5, &forced, vec![]),
        ("a little that is late waits", vec![done(0), late()], 5, &rules, vec![]),
        ("unless somebody asks", vec![done(0), late()], 5, &forced, vec![(2, vec!["done0", "late"])]),
        ("or the day is over", vec![done(0), late()], 25, &rules, vec![(8, vec!["done0", "late"])]),
        ("a day of one file gets longer rows", vec![a.clone()], 25, &rules, vec![(8, vec!["a"])]),
        ("a day that has them is done", vec![day(0), day(1)], 99, &forced, vec![]),
        ("until something late comes", vec![day(0), late()], 99, &rules, vec![(8, vec!["day0", "late"])]),
        (
            "a large day is done in parts",
            vec![file("x", 1, 600), file("y", 7, 1), file("z", 8, 600), long(file("w", 23, 5))],
            25,
            &rules,
            vec![(8, vec!["x", "y"]), (8, vec!["z"])],
        ),
    ] {
        let want: Vec<(i64, Vec<String>)> = want
            .into_iter()
            .map(|(h, paths): (i64, Vec<&str>)| (h, paths.into_iter().map(str::to_owned).collect()))
            .collect();
        assert_eq!(planned(&files, at_hour, rules), want, "{what}");
    }
}

#[test]
fn many_files_of_a_window_are_not_waited_for() {
    let rules = Rules { delay_ms: HOUR, bytes_max: 1_000, is_forced: false };
    let files: Vec<DataFile> = (0..16).map(|i| file(&format!("f{i:02}"), 1, 10)).collect();
    assert_eq!(planned(&files[..15], 1, &rules), []);
    assert_eq!(planned(&files, 1, &rules)[0].1.len(), 16);
}

#[test]
fn more_runs_than_can_be_open_are_merged_in_steps() {
    let rules = Rules { delay_ms: 0, bytes_max: u64::MAX, is_forced: false };
    let files: Vec<DataFile> = (0..=RUNS_MAX as u64).map(|i| file(&format!("f{i:02}"), 1, 100 - i)).collect();
    let jobs = planned(&files, 30, &rules);
    assert_eq!((jobs.len(), jobs[0].0, jobs[0].1.len()), (1, 2, RUNS_MAX));
    assert!(!jobs[0].1.contains(&"f00".to_owned()), "the largest waits");
}

#[test]
fn tenants_and_days_are_compacted_by_themselves() {
    let rules = Rules { delay_ms: 0, bytes_max: 1_000, is_forced: false };
    let other = DataFile { tenant: Tenant::new("b").expect("valid"), ..file("x", 1, 1) };
    let strange = DataFile { day: "no day".to_owned(), ..file("y", 1, 1) };
    let files = [file("a", 1, 1), other, strange];
    let want = [(8, vec!["x".to_owned()]), (8, vec!["a".to_owned()])];
    assert_eq!(planned(&files, 30, &rules), want);
}

#[test]
fn parts_are_read_one_after_the_other() {
    let files = [part("p1", "j", 1, file("", 1, 1)), file("a", 1, 1), part("p0", "j", 0, file("", 1, 1))];
    let files: Vec<Arc<DataFile>> = files.into_iter().map(Arc::new).collect();
    let paths = |run: &Vec<Arc<DataFile>>| run.iter().map(|f| f.path.clone()).collect::<Vec<_>>();
    assert_eq!(runs(&files).iter().map(paths).collect::<Vec<_>>(), [vec!["a"], vec!["p0", "p1"]]);
}

const SERIES: usize = 3_000;
const SAMPLES: i64 = 60;
const FLUSHES: i64 = 8;

/// One flush of a quarter of an hour: as many series as there are, with values that compress badly.
fn flush_rows(flush: i64) -> Vec<SeriesRow> {
    let timestamps: crate::series::Timeline =
        (0..SAMPLES).map(|i| DAY + (flush * SAMPLES + i) * 15_000).collect();
    let row = |i: usize| SeriesRow {
        labels: Labels::from_pairs([("__name__", format!("m{:04}", i / 10)), ("i", format!("{i:06}"))]),
        metadata: Arc::new(Metadata::default()),
        samples: SeriesSamples {
            floats: FloatColumn {
                timestamps: Arc::clone(&timestamps),
                values: timestamps.iter().map(|t| (*t as f64 + i as f64).sin()).collect(),
            },
            ..SeriesSamples::default()
        },
    };
    (0..SERIES).map(row).collect()
}

async fn table_of_flushes(options: TableOptions) -> Arc<Table> {
    let table = Table::open(options).await.expect("opens");
    for flush in 0..FLUSHES {
        let rows = vec![(Tenant::default(), flush_rows(flush))];
        let through = u64::try_from(flush).expect("small");
        let files = table.write_files("log", through, rows).await.expect("written");
        table.commit_flush("log", through.checked_sub(1), through, files).await.expect("committed");
    }
    table
}

fn whole_day(state: &State) -> Job {
    let inputs = state.files.values().cloned().collect();
    Job { tenant: Tenant::default(), day: "2026-11-23".to_owned(), window_ms: DAY_WINDOW_MS, inputs }
}

/// What is held at one time does not grow with what there is; each file that comes out is bounded.
#[test]
fn memory_is_bounded() {
    run(async {
        let table = table_of_flushes(options(Arc::new(object_store::memory::InMemory::new()))).await;
        let state = table.log().known();
        let input_bytes = state.files.values().map(|f| f.size).sum::<u64>();
        let raw_bytes = SERIES * usize::try_from(SAMPLES * FLUSHES).expect("small") * 8;
        let limits = OutputLimits { rows_bytes: 1 << 20, rows: usize::MAX };
        let meter = Arc::new(Meter::default());
        let context = Context::new(Handle::current(), Arc::clone(&meter), Arc::default());
        let job = whole_day(&state);
        let work = {
            let table = Arc::clone(&table);
            move || merge_files(&table, &job, limits, &context)
        };
        let files = tokio::task::spawn_blocking(work).await.expect("runs").expect("merges");
        // A megabyte of rows, the file made of them, and of each input what is fetched and decoded at a time.
        let bound = 2 * limits.rows_bytes + usize::try_from(input_bytes).expect("small") + (8 << 20);
        assert!(raw_bytes > 11_000_000, "{raw_bytes}");
        assert!(meter.peak() > limits.rows_bytes, "{}", meter.peak());
        assert!(meter.peak() < bound, "{} of {bound}", meter.peak());
        assert_eq!(meter.now.load(Ordering::Relaxed), 0, "everything is given back");
        assert!(files.len() >= raw_bytes / limits.rows_bytes, "{}", files.len());

        let numbers: Vec<u32> = files.iter().map(|f| f.part.as_ref().expect("a part").number).collect();
        assert_eq!(numbers, (0..).take(files.len()).collect::<Vec<u32>>());
        let bounds: Vec<_> = files.iter().map(|f| f.stats.clone().expect("known")).collect();
        assert!(bounds.windows(2).all(|w| w[0].max_metric <= w[1].min_metric), "parts follow each other");
        let rows: u64 = bounds.iter().map(|s| s.rows - s.timelines).sum();
        assert_eq!(rows, SERIES as u64, "one row a series, each once");
        assert!(bounds.iter().all(|s| s.timelines == 1), "found anew by content, stored once a file");
        let origins: BTreeMap<_, _> =
            files.iter().flat_map(|f| &f.origins).map(|o| (&*o.log, (o.base, o.through))).collect();
        assert_eq!(origins, BTreeMap::from([("log", (None, 7))]));
    });
}

#[test]
fn work_that_is_called_off_ends_and_changes_nothing() {
    run(async {
        let table = table_of_flushes(TableOptions {
            clock: Clock::fixed(Timestamp(DAY)),
            ..options(Arc::new(object_store::memory::InMemory::new()))
        })
        .await;
        let state = table.log().known();
        let is_cancelled = Arc::new(AtomicBool::new(true));
        let context = Context::new(Handle::current(), Arc::default(), is_cancelled);
        let (work_on, job) = (Arc::clone(&table), whole_day(&state));
        let limits = OutputLimits { rows_bytes: 1 << 20, rows: usize::MAX };
        let done = tokio::task::spawn_blocking(move || merge_files(&work_on, &job, limits, &context));
        assert!(matches!(done.await.expect("runs"), Err(Error::Cancelled(_))));
        let snapshot = table.snapshot(None).await.expect("snapshot");
        assert_eq!(snapshot.version(), state.version);
        let rows = snapshot.select(&Tenant::default(), &[], i64::MIN, i64::MAX, SelectLimits::NONE).await;
        assert_eq!(rows.expect("rows").len(), SERIES);
    });
}

/// A file that cannot be read fails the whole, whichever of the inputs it is.
#[test]
fn a_damaged_input_fails_the_compaction() {
    run(async {
        use object_store::ObjectStoreExt as _;
        let store: Arc<dyn object_store::ObjectStore> = Kind::Memory.store().clone();
        let table = table_of_flushes(options(Arc::clone(&store))).await;
        let state = table.log().known();
        let paths: Vec<String> = state.files.keys().cloned().collect();
        for path in [&paths[0], &paths[7]] {
            let path = crate::table::location(&table.options().prefix, path).expect("valid");
            let good = store.get(&path).await.expect("there").bytes().await.expect("read");
            let mut bad = good.to_vec();
            let at = bad.len() - 20;
            bad[at] ^= 1;
            store.put(&path, bad.into()).await.expect("overwritten");
            let context = Context::new(Handle::current(), Arc::default(), Arc::default());
            let (work_on, job) = (Arc::clone(&table), whole_day(&state));
            let limits = OutputLimits { rows_bytes: 1 << 20, rows: usize::MAX };
            let done = tokio::task::spawn_blocking(move || merge_files(&work_on, &job, limits, &context));
            let error = done.await.expect("runs").expect_err("fails");
            assert!(
                matches!(&error, Error::CorruptFile { path: named, .. } if *named == path.to_string()),
                "{error}"
            );
            store.put(&path, good.into()).await.expect("mended");
        }
    });
}
