//! A table of schema version 1 that is kept in `testdata/table-v1`: whatever is changed here, it has to open.
//!
//! It is written once for each version of the schema, by this test with `TRIBUTARY_GOLDEN_TABLE=1` in the environment:
//! a table that a later program wrote would not say that the earlier one's can be read.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::histogram::CUSTOM_BUCKETS_SCHEMA;
use model::{
    Clock, CounterResetHint, Exemplar, FloatHistogram, Histogram, IntegerHistogram, Labels, Metadata,
    MetricType, Span, Tenant, Timestamp, stale_nan,
};

use super::tests::{assert_foreign_readers_find, expected_lines};
use super::{SelectLimits, Table};
use crate::file::{DAY_WINDOW_MS, WINDOW_MS};
use crate::maintenance::vacuum::{Delays, Removals, vacuum};
use crate::merge::merge_rows;
use crate::series::testing::assert_rows_eq;
use crate::series::{FloatColumn, HistogramColumn, SeriesRow, SeriesSamples, Timeline};
use crate::{Location, Maintenance, MaintenanceOptions};

/// 2026-11-23 21:00 UTC: the first flush begins three hours before midnight.
const FIRST: i64 = 1_795_467_600_000;
const MINUTE: i64 = 60_000;
const FLUSHES: i64 = 6;
/// Samples of a flush.
const SAMPLES: i64 = 60;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/table-v1")
}

fn tenants() -> [Tenant; 2] {
    ["default", "a*b'c!"].map(|name| Tenant::new(name).expect("valid"))
}

fn series(name: &str, instance: &str, kind: MetricType, samples: SeriesSamples) -> SeriesRow {
    let labels = [("__name__", name), ("instance", instance), ("job", "golden \"ünï\"\n")];
    let metadata = Metadata { kind, unit: "seconds".into(), help: format!("Help of {name}.").into() };
    SeriesRow { labels: Labels::from_pairs(labels), metadata: Arc::new(metadata), samples }
}

fn floats(timestamps: &Timeline, value: impl Fn(i64) -> f64) -> SeriesSamples {
    let values = timestamps.iter().map(|t| value((t - FIRST) / MINUTE)).collect();
    let floats = FloatColumn { timestamps: Arc::clone(timestamps), values };
    SeriesSamples { floats, ..SeriesSamples::default() }
}

fn histograms(timestamps: &Timeline, histogram: impl Fn(i64) -> Histogram) -> SeriesSamples {
    let values = timestamps.iter().map(|t| Arc::new(histogram((t - FIRST) / MINUTE))).collect();
    let histograms = HistogramColumn { timestamps: Arc::clone(timestamps), values };
    SeriesSamples { histograms, ..SeriesSamples::default() }
}

fn integer(i: i64) -> Histogram {
    Histogram::Integer(IntegerHistogram {
        schema: 3,
        zero_threshold: 1e-128,
        zero_count: i.cast_unsigned(),
        count: (4 * i).cast_unsigned(),
        sum: if i % 50 == 49 { stale_nan() } else { i as f64 / 7.0 },
        positive_spans: vec![Span { offset: -2, length: 2 }, Span { offset: 5, length: 1 }],
        positive_deltas: vec![i, 1, -i],
        negative_spans: vec![Span { offset: 1, length: 1 }],
        negative_deltas: vec![i],
        ..IntegerHistogram::default()
    })
}

fn custom(i: i64) -> Histogram {
    Histogram::Float(FloatHistogram {
        counter_reset_hint: CounterResetHint::Gauge,
        schema: CUSTOM_BUCKETS_SCHEMA,
        count: i as f64 + 0.25,
        sum: -0.0,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_buckets: vec![i as f64, 0.25],
        custom_values: [0.5, 2.5].into(),
        ..FloatHistogram::default()
    })
}

/// One flush of a tenant. Each overlaps the one before by half, and repeats it there, but for the last: what readers of
/// others find twice is what compaction is for.
fn flush(tenant: usize, flush: i64) -> Vec<SeriesRow> {
    let begin = FIRST + (flush + i64::from(flush == FLUSHES - 1)) * SAMPLES / 2 * MINUTE;
    let shared: Timeline = (0..SAMPLES).map(|i| begin + i * MINUTE).collect();
    let own: Timeline = shared.iter().map(|t| t + 7).collect();
    let shift = tenant as f64;
    let mut counter = floats(&shared, |i| (i * i) as f64 + shift);
    counter.start_timestamps = shared.iter().step_by(2).map(|t| (*t, FIRST - 1)).collect();
    counter.exemplars = [Exemplar {
        labels: Labels::from_pairs([("trace_id", "abc")]),
        value: 0.1 + 0.2,
        timestamp: Some(Timestamp(begin)),
    }]
    .into();
    let special = [0.0, -0.0, f64::NAN, stale_nan(), f64::INFINITY, f64::from_bits(1), f64::MAX, 0.1 + 0.2];
    let special = |i: i64| special[usize::try_from(i).expect("positive") % special.len()];
    vec![
        series("golden_cents", "a", MetricType::Gauge, floats(&shared, |i| (7 * i - 100) as f64 / 100.0)),
        series("golden_seconds", "a", MetricType::Histogram, histograms(&shared, integer)),
        series("golden_seconds", "b", MetricType::GaugeHistogram, histograms(&own, custom)),
        series("golden_special", "a", MetricType::Unknown, floats(&own, special)),
        series("golden_total", "a", MetricType::Counter, counter),
    ]
}

fn everything(tenant: usize) -> Vec<SeriesRow> {
    merge_rows((0..FLUSHES).map(|i| flush(tenant, i))).collect()
}

/// Five flushes, the first day compacted, a checkpoint, one more flush.
async fn write(location: &Location) {
    let clock = Clock::fixed(Timestamp(FIRST + 6 * 60 * MINUTE));
    let table = Table::open_in(location, clock.clone()).await.expect("opens");
    for i in 0..FLUSHES {
        if i == FLUSHES - 1 {
            let options = MaintenanceOptions { delay: Duration::ZERO, ..MaintenanceOptions::default() };
            let maintenance = Maintenance::new(Arc::clone(&table), options);
            maintenance.look(&|_: &str| true, false).await.expect("compacts");
            table.log().checkpoint(&table.options().runtime).await.expect("a checkpoint");
            let after_all = Timestamp(Clock::System.now().millis() + 1);
            table.log().clean_up(after_all).await.expect("cleans up");
            let delays = Delays { removed_ms: 0, unnamed_ms: i64::MAX };
            vacuum(&table, &mut Removals::default(), clock.now(), delays).await.expect("removes dead files");
        }
        let through = u64::try_from(i).expect("small");
        let rows = tenants().into_iter().enumerate().map(|(n, tenant)| (tenant, flush(n, i))).collect();
        let files = table.write_files("golden", through, rows).await.expect("written");
        table.commit_flush("golden", through.checked_sub(1), through, files).await.expect("committed");
    }
}

async fn assert_opens(folder: &Path) {
    let clock = Clock::fixed(Timestamp(FIRST));
    let table = Table::open_in(&Location::folder(folder), clock).await.expect("opens");
    let snapshot = table.snapshot(None).await.expect("a snapshot");
    assert_eq!(snapshot.last_transaction("golden"), Some(5));
    let mut expected = String::new();
    for (number, tenant) in tenants().into_iter().enumerate() {
        let files: Vec<_> = snapshot.files(&tenant).collect();
        assert!(files.iter().any(|f| f.window_ms == WINDOW_MS && f.part.is_none()), "a flush");
        assert!(files.iter().any(|f| f.window_ms == DAY_WINDOW_MS && f.part.is_some()), "a day");
        assert!(files.iter().all(|f| f.origins.iter().all(|o| o.log == "golden") && f.origins.len() == 1));
        let rows = snapshot.select(&tenant, &[], i64::MIN, i64::MAX, SelectLimits::NONE).await.expect("rows");
        assert_rows_eq(&rows, &everything(number));
        expected += &expected_lines(&tenant, &rows);
    }
    assert_eq!(expected.lines().count(), 2 * 3 * 240, "three series of four hours");
    assert_foreign_readers_find(&folder.join("metrics").display().to_string(), &expected);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).expect("copied");
        }
    }
}

#[test]
fn a_table_of_version_1_always_opens() {
    #[expect(clippy::disallowed_methods, reason = "how the tests are run is said by who runs them")]
    let is_written = std::env::var_os("TRIBUTARY_GOLDEN_TABLE").is_some();
    if is_written {
        assert!(!folder().exists(), "remove {} first", folder().display());
        crate::testing::run(write(&Location::folder(&folder())));
    }
    let log = folder().join("metrics/_delta_log");
    let names = std::fs::read_dir(&log).expect("the golden table").map(|e| e.expect("an entry").file_name());
    let names: Vec<String> = names.map(|n| n.to_string_lossy().into_owned()).collect();
    assert!(!names.iter().any(|n| n == "00000000000000000000.json"), "it begins at a checkpoint: {names:?}");
    let copied = tempfile::tempdir().expect("a folder");
    copy(&folder(), copied.path());
    crate::testing::run(async {
        assert_opens(copied.path()).await;
        // And it can be worked on.
        let clock = Clock::fixed(Timestamp(FIRST + 20 * 24 * 60 * MINUTE));
        let table = Table::open_in(&Location::folder(copied.path()), clock).await.expect("opens");
        let maintenance = Maintenance::new(Arc::clone(&table), MaintenanceOptions::default());
        assert!(maintenance.look(&|_: &str| true, false).await.expect("compacts").compactions > 0);
        for (number, tenant) in tenants().into_iter().enumerate() {
            let snapshot = table.snapshot(None).await.expect("a snapshot");
            let rows = snapshot.select(&tenant, &[], i64::MIN, i64::MAX, SelectLimits::NONE).await;
            assert_rows_eq(&rows.expect("rows"), &everything(number));
        }
    });
}
