use std::time::Duration;

use model::{Clock, stale_nan};
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::maintenance::{Maintenance, MaintenanceOptions};
use crate::series::testing::assert_rows_eq;
use crate::table::SelectLimits;

/// 2026-11-20 00:00 UTC.
const DAY: i64 = 20_777;
const START: i64 = DAY * DAY_MS;
const NOW: i64 = START + 5 * DAY_MS;

/// A table in a folder, imported into and read by a thread that may block.
struct Bench {
    runtime: Runtime,
    folder: TempDir,
    clock: Clock,
    table: Arc<Table>,
}

impl Bench {
    fn new() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Clock::fixed(Timestamp(NOW));
        let table = runtime.block_on(Table::open_in(&Location::folder(folder.path()), clock.clone()));
        Self { runtime, folder, clock, table: table.expect("opens") }
    }

    fn importer(&self, memory_bytes_max: usize) -> Importer {
        let options = ImportOptions {
            tenant: Tenant::default(),
            memory_bytes_max,
            scratch: self.folder.path().to_owned(),
        };
        self.runtime.block_on(Importer::new(Arc::clone(&self.table), options)).expect("opens")
    }

    fn rows(&self) -> Vec<SeriesRow> {
        self.runtime.block_on(async {
            let snapshot = self.table.snapshot(None).await.expect("a snapshot");
            let rows = snapshot.select(&Tenant::default(), &[], i64::MIN, i64::MAX, SelectLimits::NONE).await;
            rows.expect("selects")
        })
    }

    fn files(&self) -> Vec<Arc<DataFile>> {
        self.table.log().known().files.values().cloned().collect()
    }

    fn maintain(&self, options: MaintenanceOptions) {
        let maintenance = Maintenance::new(Arc::clone(&self.table), options);
        self.runtime.block_on(maintenance.look(&|_: &str| true, true)).expect("looks");
    }
}

fn labels(series: usize) -> Labels {
    // Sorts otherwise by name than by all labels.
    let name = if series.is_multiple_of(2) { "even" } else { "odd" };
    Labels::from_pairs([("__name__".to_owned(), name.to_owned()), ("Zone".to_owned(), series.to_string())])
}

fn push(importer: &mut Importer, series: usize, floats: &[(i64, f64)]) {
    let mut samples = Unsorted { floats: floats.to_vec(), ..Unsorted::default() };
    importer.push(&labels(series), None, &mut samples).expect("takes them");
    assert!(samples.is_empty());
}

fn commit_all(importer: &mut Importer, source: &str) -> Vec<Option<ImportedDay>> {
    importer.days().into_iter().map(|day| importer.commit(source, day).expect("commits")).collect()
}

/// What the table is to hold, as the rules of the merge say it of floats alone.
fn expected(samples: &[(usize, i64, f64)]) -> Vec<SeriesRow> {
    let mut series: BTreeMap<usize, BTreeMap<i64, f64>> = BTreeMap::new();
    for (number, t, v) in samples {
        let kept = series.entry(*number).or_default().entry(*t).or_insert(*v);
        let rank = |v: f64| (v.to_bits() != stale_nan().to_bits(), v.to_bits());
        if rank(*v) > rank(*kept) {
            *kept = *v;
        }
    }
    let mut rows: Vec<SeriesRow> = series
        .into_iter()
        .map(|(number, samples)| SeriesRow {
            labels: labels(number),
            metadata: Arc::default(),
            samples: SeriesSamples {
                floats: FloatColumn {
                    timestamps: samples.keys().copied().collect(),
                    values: samples.values().copied().collect(),
                },
                ..SeriesSamples::default()
            },
        })
        .collect();
    rows.sort_by(|a, b| compare_labels(&a.labels, &b.labels));
    rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// In any order, however often they spill, samples come out sorted and each once.
    #[test]
    fn samples_in_any_order_come_out_once(
        samples in prop::collection::vec((0_usize..7, 0_i64..3 * 1440, 0_i32..50), 1..600),
        memory in prop::sample::select(vec![4_000_usize, 12_000, 1 << 20]),
    ) {
        let bench = Bench::new();
        let samples: Vec<(usize, i64, f64)> =
            samples.into_iter().map(|(s, minute, v)| (s, START + minute * 60_000, if v == 0 { stale_nan() } else { f64::from(v) })).collect();
        let mut importer = bench.importer(memory);
        for chunk in samples.chunks(7) {
            for (series, t, v) in chunk {
                push(&mut importer, *series, &[(*t, *v)]);
            }
        }
        let days = importer.days();
        let imported = commit_all(&mut importer, "a");
        let want = expected(&samples);
        let total: u64 = imported.iter().flatten().map(|day| day.samples).sum();
        prop_assert_eq!(total, want.iter().map(|r| r.samples.sample_count() as u64).sum::<u64>());
        prop_assert_eq!(imported.len(), days.len());
        assert_rows_eq(&bench.rows(), &want);
        prop_assert!(bench.files().iter().all(|f| f.window_ms == DAY_WINDOW_MS && f.part.is_some()));
        drop(importer);
        let left = std::fs::read_dir(bench.folder.path().join(SCRATCH_FOLDER)).expect("a folder").count();
        prop_assert_eq!(left, 0, "nothing is left in the scratch folder");
    }
}

/// More sorted files than can be read side by side are merged in steps; files that come out are cut.
#[test]
fn a_day_of_many_runs_is_merged_in_steps() {
    let bench = Bench::new();
    let mut importer = bench.importer(1);
    let samples: Vec<(usize, i64, f64)> =
        (0..150).map(|i| (i % 5, START + i64::try_from(149 - i).expect("small") * 1000, i as f64)).collect();
    for (series, t, v) in &samples {
        push(&mut importer, *series, &[(*t, *v)]);
    }
    assert_eq!(importer.runs[&DAY].len(), 150);
    let imported = importer.commit("a", DAY).expect("commits").expect("new");
    assert_eq!(
        (imported.series, imported.samples, imported.files),
        (5, 150, 5),
        "a file a series, so small is memory"
    );
    assert_eq!((imported.min_time, imported.max_time), (START, START + 149_000));
    assert_rows_eq(&bench.rows(), &expected(&samples));
}

/// Whoever is ended between two days and begins again adds what is missing, and nothing twice.
#[test]
fn an_import_that_was_ended_goes_on_where_it_was() {
    let bench = Bench::new();
    let samples: Vec<(usize, i64, f64)> =
        (0..40).map(|i| (i % 3, START + i as i64 * 7_200_000, i as f64)).collect();
    let days = 4;
    for ended_after in 0..=days {
        // What was killed leaves its folder.
        let killed = bench.folder.path().join(SCRATCH_FOLDER).join(format!("killed{ended_after}"));
        std::fs::create_dir_all(&killed).expect("made");
        let mut importer = bench.importer(2_000);
        assert!(!killed.exists());
        samples.iter().for_each(|(s, t, v)| push(&mut importer, *s, &[(*t, *v)]));
        let all: Vec<i64> = importer.days().into_iter().collect();
        assert_eq!(all.len(), days);
        let mut is_new = Vec::new();
        for day in &all[..(ended_after + 1).min(days)] {
            is_new.push(importer.commit("a", *day).expect("commits").is_some());
        }
        let want: Vec<bool> = (0..is_new.len()).map(|i| i >= ended_after).collect();
        assert_eq!(is_new, want, "ended after {ended_after}");
    }
    assert_rows_eq(&bench.rows(), &expected(&samples));
    assert_eq!(bench.files().len(), days, "each day once");
    let rows: u64 = bench.files().iter().filter_map(|f| f.stats.as_ref()).map(|s| s.rows - s.timelines).sum();
    let windows: BTreeSet<(usize, i64)> =
        samples.iter().map(|(s, t, _)| (*s, t.div_euclid(DAY_WINDOW_MS))).collect();
    assert_eq!(rows, windows.len() as u64, "one row a series and window");
}

/// Two that import the same at one time: one of them does.
#[test]
fn of_two_at_once_one_wins() {
    let bench = Bench::new();
    let (mut one, mut two) = (bench.importer(1 << 20), bench.importer(1 << 20));
    push(&mut one, 1, &[(START, 1.0)]);
    push(&mut two, 1, &[(START, 1.0)]);
    assert!(one.commit("a", DAY).expect("commits").is_some());
    assert!(two.commit("a", DAY).expect("commits").is_none());
    assert!(two.days().is_empty(), "it is forgotten");
    assert!(one.is_imported("a", DAY).expect("reads") && !one.is_imported("b", DAY).expect("reads"));
    assert_eq!(bench.files().len(), 1);
}

/// What overlaps what is there is merged with it by the next compaction, and still counts as imported.
#[test]
fn overlapping_imports_are_merged_by_compaction() {
    let bench = Bench::new();
    let first: Vec<(usize, i64, f64)> = (0..100).map(|i| (0, START + i * 60_000, 1.0)).collect();
    let second: Vec<(usize, i64, f64)> = (50..150).map(|i| (0, START + i * 60_000, 1.0)).collect();
    for (source, samples) in [("a", &first), ("b", &second)] {
        let mut importer = bench.importer(1 << 20);
        samples.iter().for_each(|(s, t, v)| push(&mut importer, *s, &[(*t, *v)]));
        assert_eq!(commit_all(&mut importer, source).iter().flatten().count(), 1);
    }
    let windows: BTreeSet<i64> = bench.files().iter().map(|f| f.window_ms).collect();
    assert_eq!(windows, [WINDOW_MS, DAY_WINDOW_MS].into());
    let both: Vec<_> = first.iter().chain(&second).copied().collect();
    assert_rows_eq(&bench.rows(), &expected(&both));
    bench.maintain(MaintenanceOptions::default());
    let files = bench.files();
    assert_eq!((files.len(), files[0].window_ms), (1, DAY_WINDOW_MS));
    assert_rows_eq(&bench.rows(), &expected(&both));
    let mut importer = bench.importer(1 << 20);
    for source in ["a", "b"] {
        push(&mut importer, 0, &[(START, 1.0)]);
        assert!(importer.commit(source, DAY).expect("commits").is_none(), "{source}");
    }
}

/// A day that is not over is left to compaction; what retention dropped can be brought back.
#[test]
fn days_are_laid_out_by_their_age_and_come_back_when_dropped() {
    let bench = Bench::new();
    let mut importer = bench.importer(1 << 20);
    for (day, window_ms) in [(DAY + 5, WINDOW_MS), (DAY + 4, DAY_WINDOW_MS), (DAY, DAY_WINDOW_MS)] {
        bench.clock.set(Timestamp(NOW + OVER_DELAY_MS));
        push(&mut importer, 0, &[(day * DAY_MS, 1.0)]);
        importer.commit("a", day).expect("commits").expect("new");
        let files = bench.files();
        let file = files.iter().find(|f| f.day == day_name(day)).expect("there");
        assert_eq!(file.window_ms, window_ms, "{}", file.day);
    }
    let keeps_two_days = MaintenanceOptions {
        retention_time: Some(Duration::from_secs(2 * 86_400)),
        ..MaintenanceOptions::default()
    };
    bench.maintain(keeps_two_days);
    assert_eq!(bench.files().len(), 2);
    for (day, is_new) in [(DAY, true), (DAY + 4, false)] {
        push(&mut importer, 0, &[(day * DAY_MS, 1.0)]);
        assert_eq!(importer.commit("a", day).expect("commits").is_some(), is_new);
    }
    assert_eq!(bench.files().len(), 3);
}

#[test]
fn histograms_beat_floats_and_exemplars_are_a_set() {
    let bench = Bench::new();
    let mut importer = bench.importer(1 << 20);
    let histogram = Arc::new(Histogram::Float(model::FloatHistogram { sum: 2.5, ..Default::default() }));
    let exemplar = |t| Exemplar { labels: Labels::empty(), value: 1.0, timestamp: Some(Timestamp(t)) };
    let metadata = Arc::new(Metadata { unit: "s".into(), ..Metadata::default() });
    let mut samples = Unsorted {
        floats: vec![(START + 1, 1.0), (START, 1.0)],
        histograms: vec![(START + 1, Arc::clone(&histogram)), (START - 1, Arc::clone(&histogram))],
        exemplars: vec![exemplar(START), exemplar(START - 5), exemplar(START)],
    };
    importer.push(&labels(0), Some(&metadata), &mut samples).expect("takes them");
    assert_eq!(commit_all(&mut importer, "a").len(), 2, "the day before as well");
    let rows = bench.rows();
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(row.samples.floats.iter().collect::<Vec<_>>(), [(START, 1.0)]);
    assert_eq!(*row.samples.histograms.timestamps, [START - 1, START + 1]);
    assert!(row.samples.histograms.values.iter().all(|h| h.bit_eq(&histogram)));
    assert_eq!(*row.samples.exemplars, [exemplar(START - 5), exemplar(START)]);
    assert_eq!(*row.metadata, *metadata);
    for t in [TIME_MIN - 1, TIME_MAX + 1] {
        let mut samples = Unsorted { floats: vec![(t, 1.0)], ..Unsorted::default() };
        let error = importer.push(&labels(0), None, &mut samples).expect_err("no day of the calendar");
        assert!(error.to_string().contains("the years 1 to 9999"), "{error}");
    }
}
