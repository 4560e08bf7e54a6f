use std::collections::BTreeMap;

use model::{Labels, MatchOp, Matcher, Metadata, Timestamp};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::*;
use crate::file::fetch::FileSource;
use crate::file::read::Reader;
use crate::merge::merge_rows;
use crate::series::testing::{BASE, assert_rows_eq, restrict, rows};
use crate::series::{FloatColumn, SeriesSamples, Timeline, compare_labels};
use crate::testing::{BUCKET, Kind, TestStore, on_every_store, run, s3_prefix, s3_server};

pub(crate) fn options(store: Arc<dyn ObjectStore>) -> TableOptions {
    TableOptions {
        store,
        prefix: Path::from("metrics"),
        clock: Clock::fixed(Timestamp(BASE)),
        runtime: Handle::current(),
        request_cost_bytes: 64 << 10,
        cache_bytes: 1 << 20,
    }
}

async fn new_table(kind: Kind) -> (Arc<Table>, TestStore) {
    let store = kind.store();
    (Table::open(options(Arc::clone(&store))).await.expect("opens"), store)
}

pub(super) async fn flush(
    table: &Table,
    log: &str,
    base: Option<u64>,
    through: u64,
    rows: Vec<SeriesRow>,
) -> Result<u64> {
    let files = table.write_files(log, through, vec![(Tenant::default(), rows)]).await?;
    table.commit_flush(log, base, through, files).await
}

async fn select_all(table: &Table, matchers: &[Matcher], min: i64, max: i64) -> Vec<SeriesRow> {
    let snapshot = table.snapshot(None).await.expect("snapshot");
    snapshot.select(&Tenant::default(), matchers, min, max, SelectLimits::NONE).await.expect("select")
}

pub(super) fn row(metric: &str, instance: &str, times: &[i64], value: f64) -> SeriesRow {
    SeriesRow {
        labels: Labels::from_pairs([("__name__", metric), ("instance", instance)]),
        metadata: Arc::new(Metadata::default()),
        samples: SeriesSamples {
            floats: FloatColumn { timestamps: times.into(), values: vec![value; times.len()].into() },
            ..SeriesSamples::default()
        },
    }
}

fn matchers() -> impl Strategy<Value = Vec<Matcher>> {
    let name = prop::sample::select(vec!["__name__", "job", "instance", "zone", "absent", "é"]);
    let value = prop::sample::select(vec![
        "",
        "up",
        "node",
        "api",
        "a|up|node",
        "a.*",
        "no.*|z",
        ".+",
        ".*",
        "[a-m].*",
    ]);
    let op = prop::sample::select(vec![MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex]);
    let matcher =
        (op, name, value).prop_map(|(op, name, value)| Matcher::new(op, name, value).expect("valid"));
    prop::collection::vec(matcher, 0..3)
}

/// Several flushes, read back whole and by any matchers and range, equal the same done naively in memory; whether files
/// are read range by range or whole, and whatever is kept of them.
async fn check_reads(
    kind: Kind,
    flushes: Vec<Vec<SeriesRow>>,
    matchers: Vec<Matcher>,
    range: (i64, i64),
    request_cost_bytes: u64,
    cache_bytes: usize,
) -> Result<(), TestCaseError> {
    let store = kind.store();
    let options = TableOptions { request_cost_bytes, cache_bytes, ..options(Arc::clone(&store)) };
    let table = Table::open(options).await.expect("opens");
    for (i, rows) in flushes.iter().enumerate() {
        let base = i.checked_sub(1).map(|b| b as u64);
        flush(&table, "log", base, i as u64, rows.clone()).await.expect("flush");
    }
    let want: Vec<SeriesRow> = merge_rows(flushes.clone()).collect();
    assert_rows_eq(&select_all(&table, &[], i64::MIN, i64::MAX).await, &want);

    let (min, max) = range;
    let got = select_all(&table, &matchers, min, max).await;
    assert_rows_eq(&select_all(&table, &matchers, min, max).await, &got);
    let matching = want.iter().filter(|r| Matcher::all_match(&matchers, &r.labels));
    let mut narrowed = BTreeMap::new();
    for row in matching {
        let samples = restrict(&row.samples, min, max);
        let timed = SeriesSamples { exemplars: timed(&samples), ..samples };
        if !timed.is_empty() {
            narrowed.insert((row.labels.metric_name().to_owned(), row.labels.clone()), timed);
        }
    }
    // An exemplar without a time may come along or not: it has no place in a range.
    let got: BTreeMap<_, _> = got
        .iter()
        .map(|r| {
            let samples = SeriesSamples { exemplars: timed(&r.samples), ..r.samples.clone() };
            ((r.labels.metric_name().to_owned(), r.labels.clone()), samples)
        })
        .filter(|(_, samples)| !samples.is_empty())
        .collect();
    prop_assert_eq!(got.keys().collect::<Vec<_>>(), narrowed.keys().collect::<Vec<_>>());
    for (key, samples) in &narrowed {
        prop_assert!(got[key].bit_eq(samples), "{:?}: got {:?} want {:?}", key, got[key], samples);
    }

    let snapshot = table.snapshot(None).await.expect("snapshot");
    let labels = snapshot.labels(&Tenant::default(), &matchers, i64::MIN, i64::MAX, SelectLimits::NONE).await;
    let labels: Vec<Labels> = labels.expect("labels").into_iter().map(|l| l.0).collect();
    let want: Vec<Labels> =
        want.iter().filter(|r| Matcher::all_match(&matchers, &r.labels)).map(|r| r.labels.clone()).collect();
    prop_assert_eq!(&labels, &want);

    let (tenant, none) = (Tenant::default(), SelectLimits::NONE);
    let names = snapshot.label_names(&tenant, &matchers, i64::MIN, i64::MAX, none).await.expect("names");
    let all: std::collections::BTreeSet<&str> = want.iter().flat_map(|l| l.iter().map(|p| p.0)).collect();
    prop_assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), Vec::from_iter(all));
    for name in ["__name__", "job", "é", "absent"] {
        let values = snapshot.label_values(&tenant, name, &matchers, i64::MIN, i64::MAX, none).await;
        let all: std::collections::BTreeSet<&str> = want.iter().filter_map(|l| l.get(name)).collect();
        let values = values.expect("values");
        prop_assert_eq!(values.iter().map(String::as_str).collect::<Vec<_>>(), Vec::from_iter(all));
    }
    Ok(())
}

/// Each case on a store of its own: fewer where that takes longer.
fn check_reads_of_random_flushes(kind: Kind, cases: u32) {
    let random = (
        prop::collection::vec(rows(12), 1..4),
        matchers(),
        -4_000_i64..4_000,
        0_i64..4_000,
        prop::sample::select(vec![0, 2 << 10, 1 << 20]),
        prop::sample::select(vec![0, 20 << 10, 1 << 20]),
    );
    proptest!(ProptestConfig::with_cases(cases), |((flushes, matchers, from, length, cost, cache) in random)| {
        let range = (BASE + from * 1_000, BASE + (from + length) * 1_000);
        run(check_reads(kind, flushes, matchers, range, cost, cache))?;
    });
}

#[test]
fn what_was_flushed_is_what_is_read_in_memory() {
    check_reads_of_random_flushes(Kind::Memory, 96);
}

#[test]
fn what_was_flushed_is_what_is_read_in_a_folder() {
    check_reads_of_random_flushes(Kind::Folder, 24);
}

#[test]
fn what_was_flushed_is_what_is_read_on_s3() {
    check_reads_of_random_flushes(Kind::S3, 16);
}

fn timed(samples: &SeriesSamples) -> Arc<[model::Exemplar]> {
    samples.exemplars.iter().filter(|e| e.timestamp.is_some()).cloned().collect()
}

/// Gives a series as many histograms as its number says, each with as many buckets.
fn add_histograms(samples: &mut SeriesSamples, i: usize) {
    let histogram = |j: i64| {
        let buckets = (0..j).map(|b| b as f64).collect();
        let spans = vec![model::Span { offset: 0, length: j as u32 }];
        model::FloatHistogram {
            positive_buckets: buckets,
            positive_spans: spans,
            ..model::FloatHistogram::default()
        }
    };
    let count = (i % 5) as i64;
    samples.histograms.timestamps = (0..count).map(|j| BASE + 1 + j).collect();
    samples.histograms.values = (0..count).map(|j| Arc::new(model::Histogram::Float(histogram(j)))).collect();
    samples.start_timestamps = (0..count).map(|j| (BASE + 1 + j, j)).collect();
}

/// More rows than a page, a batch and a row group hold: scattered rows are found where they are.
async fn scattered_rows_of_a_large_file_are_found(kind: Kind) {
    let (table, _store) = new_table(kind).await;
    let shared: Timeline = (0..8).map(|i| BASE + i * 15_000).collect();
    let mut rows: Vec<SeriesRow> = (0..20_000)
        .map(|i| {
            let mut row = row(&format!("m{:03}", i / 100), &format!("i{:02}", i % 100), &[], 0.0);
            let timestamps = if i % 7 == 0 { Timeline::from(&shared[i % 5..]) } else { Arc::clone(&shared) };
            let scale = [1.0, 0.25, 1.0 / 3.0][i % 3];
            let values = (0..timestamps.len()).map(|j| (i * 10 + j) as f64 * scale).collect();
            row.samples.floats = FloatColumn { timestamps, values };
            if i % 11 == 0 {
                add_histograms(&mut row.samples, i);
            }
            row
        })
        .collect();
    rows.sort_by(|a, b| compare_labels(&a.labels, &b.labels));
    flush(&table, "log", None, 1, rows.clone()).await.expect("flush");
    for (matchers, count) in [
        (vec![Matcher::equal("__name__", "m007")], 100),
        (vec![Matcher::equal("__name__", "m199"), Matcher::equal("instance", "i42")], 1),
        (vec![Matcher::equal("instance", "i42")], 200),
        (
            vec![
                Matcher::new(MatchOp::Regex, "__name__", "m0[0-9]5").expect("valid"),
                Matcher::equal("instance", "i99"),
            ],
            10,
        ),
        (vec![Matcher::new(MatchOp::Regex, "instance", "i.7").expect("valid")], 2_000),
        (vec![], 20_000),
        (vec![Matcher::equal("__name__", "m200")], 0),
    ] {
        let want: Vec<SeriesRow> =
            rows.iter().filter(|r| Matcher::all_match(&matchers, &r.labels)).cloned().collect();
        assert_eq!(want.len(), count);
        let got = select_all(&table, &matchers, i64::MIN, i64::MAX).await;
        assert_rows_eq(&got, &want);
        let first = got.first().map(|r| Arc::clone(&r.samples.floats.timestamps));
        let same = got.iter().filter(|r| Some(&r.samples.floats.timestamps) == first.as_ref());
        assert!(
            same.clone().all(|r| Arc::ptr_eq(&r.samples.floats.timestamps, first.as_ref().expect("some")))
        );
    }
}

/// More timelines than one row group holds, each shared by two series.
async fn timelines_beyond_the_first_row_group_are_found(kind: Kind) {
    let (table, _store) = new_table(kind).await;
    let timelines = crate::file::schema::ROW_GROUP_ROWS as i64 + 10;
    let mut rows: Vec<SeriesRow> = (0..timelines)
        .flat_map(|i| ["a", "b"].map(|instance| row(&format!("m{i:05}"), instance, &[BASE + i], 1.0)))
        .collect();
    rows.sort_by(|a, b| compare_labels(&a.labels, &b.labels));
    flush(&table, "log", None, 1, rows.clone()).await.expect("flush");
    for i in [0, 1, timelines - 11, timelines - 10, timelines - 1] {
        let matchers = [Matcher::equal("__name__", &format!("m{i:05}"))];
        let got = select_all(&table, &matchers, i64::MIN, i64::MAX).await;
        let at = usize::try_from(i * 2).expect("small");
        assert_rows_eq(&got, &rows[at..at + 2]);
    }
    assert_rows_eq(&select_all(&table, &[], i64::MIN, i64::MAX).await, &rows);
}

async fn tenants_and_days_never_mix(kind: Kind) {
    let (table, store) = new_table(kind).await;
    let day = 24 * 3_600_000;
    let odd = Tenant::new("a*b'c!").expect("valid");
    let tenants = vec![
        (Tenant::default(), vec![row("m", "default", &[BASE, BASE + day], 1.0)]),
        (odd.clone(), vec![row("m", "odd", &[BASE], 2.0)]),
    ];
    let files = table.write_files("log", 1, tenants).await.expect("written");
    assert!(table.snapshot(None).await.expect("snapshot").tenants().is_empty(), "nothing is visible yet");
    assert_eq!(table.commit_flush("log", None, 1, files).await.expect("committed"), 1);
    let snapshot = table.snapshot(Some(1)).await.expect("snapshot");
    assert_eq!(snapshot.tenants().into_iter().collect::<Vec<_>>(), [odd.clone(), Tenant::default()]);
    let days: Vec<&str> = snapshot.files(&Tenant::default()).map(|f| f.day.as_str()).collect();
    assert_eq!(days, ["2026-11-23", "2026-11-24"]);
    let paths: Vec<&str> = snapshot.files(&odd).map(|f| f.path.as_str()).collect();
    assert!(paths[0].starts_with("tenant=a%2Ab%27c%21/day=2026-11-23/"), "{paths:?}");
    for (tenant, instance, min, max, samples) in [
        (Tenant::default(), "default", BASE, BASE + day, 2),
        (Tenant::default(), "default", BASE + 1, BASE + day, 1),
        (odd, "odd", i64::MIN, i64::MAX, 1),
    ] {
        let rows = snapshot.select(&tenant, &[], min, max, SelectLimits::NONE).await.expect("select");
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].labels.value("instance"), instance);
        assert_eq!(rows[0].samples.sample_count(), samples);
    }
    // A second opener of the same table sees the same.
    let again = Table::open(options(Arc::clone(&store))).await.expect("opens");
    assert_eq!(again.snapshot(None).await.expect("snapshot").version(), 1);
}

async fn labels_carry_the_newest_metadata_and_all_values(kind: Kind) {
    let (table, _store) = new_table(kind).await;
    let with_help = |mut row: SeriesRow, help: &str| {
        row.metadata = Arc::new(Metadata { help: help.into(), ..Metadata::default() });
        row
    };
    let day = 24 * 3_600_000;
    flush(&table, "log", None, 1, vec![with_help(row("m", "a", &[BASE + day], 1.0), "new")])
        .await
        .expect("flush");
    let rows = vec![with_help(row("m", "a", &[BASE], 1.0), "old"), row("m", "b", &[BASE], 1.0)];
    flush(&table, "log", Some(1), 2, rows).await.expect("flush");
    let snapshot = table.snapshot(None).await.expect("snapshot");
    let (tenant, none) = (Tenant::default(), SelectLimits::NONE);
    let labels = snapshot.labels(&tenant, &[], i64::MIN, i64::MAX, none).await.expect("labels");
    let shown: Vec<(&str, &str)> = labels.iter().map(|(l, m)| (l.value("instance"), &*m.help)).collect();
    assert_eq!(shown, [("a", "new"), ("b", "")]);
    let names = snapshot.label_names(&tenant, &[], i64::MIN, i64::MAX, none).await.expect("names");
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["__name__", "instance"]);
    let values = snapshot.label_values(&tenant, "instance", &[], BASE + day, i64::MAX, none).await;
    assert_eq!(values.expect("values").into_iter().collect::<Vec<_>>(), ["a"]);
}

async fn a_query_beyond_its_limits_is_refused(kind: Kind) {
    let (table, _store) = new_table(kind).await;
    let rows = vec![row("m", "a", &[BASE, BASE + 1], 1.0), row("m", "b", &[BASE, BASE + 1], 1.0)];
    flush(&table, "log", None, 1, rows).await.expect("flush");
    let snapshot = table.snapshot(None).await.expect("snapshot");
    for (series, samples, refused) in
        [(2, 4, None), (1, 4, Some((1, "series"))), (2, 3, Some((3, "samples")))]
    {
        let limits = SelectLimits { series, samples };
        let got = snapshot.select(&Tenant::default(), &[], i64::MIN, i64::MAX, limits).await;
        match (got, refused) {
            (Ok(rows), None) => assert_eq!(rows.len(), 2),
            (Err(error @ Error::TooMuch { .. }), Some((limit, unit))) => {
                assert_eq!(error.kind(), fault::Kind::Limit);
                assert_eq!(
                    error.to_string(),
                    format!("the query would load more than {limit} {unit} from files")
                );
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn a_file_that_is_gone_or_foreign_never_reads_as_empty(kind: Kind) {
    let (table, store) = new_table(kind).await;
    flush(&table, "log", None, 1, vec![row("m", "a", &[BASE], 1.0)]).await.expect("flush");
    let snapshot = table.snapshot(None).await.expect("snapshot");
    let file = snapshot.files(&Tenant::default()).next().expect("a file").path.clone();
    let path = location(&Path::from("metrics"), &file).expect("valid");
    let size = usize::try_from(store.head(&path).await.expect("there").size).expect("small");
    let tenant = Tenant::default();
    let select = || snapshot.select(&tenant, &[], i64::MIN, i64::MAX, SelectLimits::NONE);

    store.put(&path, vec![0_u8; size].into()).await.expect("overwritten");
    assert!(matches!(select().await, Err(Error::CorruptFile { path, .. }) if path.ends_with(&file)));
    store.put(&path, vec![0_u8; 3].into()).await.expect("overwritten");
    assert!(select().await.is_err());
    store.delete(&path).await.expect("deleted");
    assert!(matches!(select().await, Err(Error::Gone { path }) if path.ends_with(&file)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Damage to a file is an error that names the file, or lies where nothing was read: no value is ever another. A
    /// damaged end is always seen.
    #[test]
    fn damaged_files_are_named(
        rows in rows(8),
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
        at_end: bool,
        request_cost_bytes in prop::sample::select(vec![0, 1 << 20]),
    ) {
        run(async {
            let store = Kind::Memory.store();
            let options = TableOptions { request_cost_bytes, ..options(Arc::clone(&store)) };
            let intact = options.clone();
            let table = Table::open(options).await.expect("opens");
            flush(&table, "log", None, 1, rows).await.expect("flush");
            let snapshot = table.snapshot(None).await.expect("snapshot");
            let tenant = Tenant::default();
            // Through a table of its own: what was read once stays in memory.
            let other = Table::open(intact).await.expect("opens").snapshot(None).await.expect("snapshot");
            let all = other.select(&tenant, &[], i64::MIN, i64::MAX, SelectLimits::NONE).await.expect("intact");
            for file in snapshot.files(&tenant) {
                let path = location(&Path::from("metrics"), &file.path).expect("valid");
                let mut bytes = store.get(&path).await.expect("there").bytes().await.expect("read").to_vec();
                let tail = usize::try_from(file.tail.expect("known").bytes).expect("small");
                let range = if at_end { bytes.len() - tail..bytes.len() } else { 0..bytes.len() - tail };
                bytes[range.start + at.index(range.len())] ^= 1 << bit;
                store.put(&path, bytes.into()).await.expect("overwritten");
            }
            let got = snapshot.select(&tenant, &[], i64::MIN, i64::MAX, SelectLimits::NONE).await;
            match got {
                Err(Error::CorruptFile { path, reason }) => {
                    prop_assert!(path.ends_with(".parquet"));
                    prop_assert!(!at_end || reason == "the checksum of its footer is wrong", "{reason}");
                }
                Ok(got) => {
                    prop_assert!(!at_end || snapshot.files(&tenant).next().is_none());
                    assert_rows_eq(&got, &all);
                }
                Err(other) => prop_assert!(false, "{other:?}"),
            }
            Ok(())
        })?;
    }
}

async fn a_file_of_another_schema_is_refused(kind: Kind) {
    let (table, store) = new_table(kind).await;
    flush(&table, "log", None, 1, vec![row("m", "a", &[BASE], 1.0)]).await.expect("flush");
    let snapshot = table.snapshot(None).await.expect("snapshot");
    let file = snapshot.files(&Tenant::default()).next().expect("a file").path.clone();
    let path = location(&Path::from("metrics"), &file).expect("valid");
    let bytes = store.get(&path).await.expect("there").bytes().await.expect("read").to_vec();
    // The version stands in the footer as text of one byte after its key.
    let key = crate::file::schema::SCHEMA_VERSION_KEY.as_bytes();
    let at = bytes.windows(key.len()).rposition(|w| w == key).expect("there") + key.len();
    let at = at + bytes[at..].iter().position(|b| *b == b'1').expect("the version");
    let newer = [&bytes[..at], b"2", &bytes[at + 1..]].concat();
    store.put(&path, newer.into()).await.expect("overwritten");
    let source = FileSource::new(Arc::clone(&store), path, bytes.len() as u64, None, 0);
    let kept = Cache::new(0).file("any");
    let error = Reader::open(source, Handle::current(), kept).await.expect_err("refused");
    assert!(error.to_string().ends_with("schema version 2 is not supported"), "{error}");
    assert_eq!(error.kind(), fault::Kind::Unavailable);
}

#[test]
fn a_large_flush_is_cut_into_files() {
    let day = 24 * 3_600_000;
    let rows: Vec<SeriesRow> = ["a", "b", "c"].map(|i| row("m", i, &[BASE, BASE + day], 1.0)).into();
    let files = encode_days(&rows, 2).expect("encodes");
    let shape: Vec<(String, u64)> =
        files.iter().map(|(d, f)| (day_name(*d), f.stats.rows - f.stats.timelines)).collect();
    let named = |day: &str, rows| (day.to_owned(), rows);
    assert_eq!(
        shape,
        [named("2026-11-23", 2), named("2026-11-23", 1), named("2026-11-24", 2), named("2026-11-24", 1)]
    );
}

async fn rows_that_no_day_holds_are_refused(kind: Kind) {
    let (table, _store) = new_table(kind).await;
    let error =
        flush(&table, "log", None, 1, vec![row("m", "a", &[i64::MAX], 1.0)]).await.expect_err("refused");
    assert_eq!(error.kind(), fault::Kind::Invalid);
    assert!(error.to_string().contains(r#"__name__="m""#), "{error}");
}

async fn versions_that_do_not_exist_are_waited_for_by_the_caller(kind: Kind) {
    let (table, store) = new_table(kind).await;
    assert!(matches!(table.snapshot(Some(1)).await, Err(Error::Behind { found: 0, wanted: 1 })));
    let other = Table::open(options(Arc::clone(&store))).await.expect("opens");
    flush(&other, "log", None, 1, vec![]).await.expect("flush");
    assert_eq!(table.snapshot(Some(0)).await.expect("known").version(), 0, "no need to look");
    assert_eq!(table.snapshot(Some(1)).await.expect("found").version(), 1);
}

/// S3 takes no parts below 5 MiB but for the last, and a part may not be missing or at the wrong place.
async fn a_file_of_several_parts_arrives_whole(kind: Kind) {
    let (table, store) = new_table(kind).await;
    let bytes: Bytes = (0..2 * PART_BYTES + 1).map(|i| (i % 251) as u8).collect();
    let path = Path::from("metrics/large");
    table.upload(&path, bytes.clone()).await.expect("uploaded");
    assert_eq!(store.get(&path).await.expect("there").bytes().await.expect("read"), bytes);
}

on_every_store!(
    scattered_rows_of_a_large_file_are_found,
    timelines_beyond_the_first_row_group_are_found,
    tenants_and_days_never_mix,
    labels_carry_the_newest_metadata_and_all_values,
    a_query_beyond_its_limits_is_refused,
    a_file_that_is_gone_or_foreign_never_reads_as_empty,
    a_file_of_another_schema_is_refused,
    rows_that_no_day_holds_are_refused,
    versions_that_do_not_exist_are_waited_for_by_the_caller,
    a_file_of_several_parts_arrives_whole,
);

/// Rows of many samples, next to each other as far apart as numbers can be, with what compression likes and what it
/// does not.
fn far_apart() -> Vec<SeriesRow> {
    let timestamps: Timeline = (0..480).map(|i| BASE + i * 1_000).collect();
    let largest = 9_007_199_254_740_992_i64;
    let mut values: Vec<Vec<f64>> = Vec::new();
    for first in [largest - 1_000, -largest, 0, largest / 2] {
        let step = |i: i64| ((first + i) as f64, (first + i % 200) as f64, ((first + i * 4_096) / 2) as f64);
        values.push((0..480).map(|i| step(i).0).collect());
        values.push((0..480).map(|i| step(i).1).collect());
        values.push((0..480).map(|i| if i % 100 == 7 { model::stale_nan() } else { step(i).2 }).collect());
    }
    let noise = |i: u64| f64::from_bits(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    values.push((0..480).map(noise).collect());
    values.push((0..480).map(|i| noise(i / 50)).collect());
    let special =
        [-0.0, 0.0, f64::NAN, f64::from_bits(0xfff8_0000_0000_0123), f64::INFINITY, f64::NEG_INFINITY];
    values.push((0..480).map(|i| special[i / 3 % special.len()]).collect());
    let row = |(i, values): (usize, Vec<f64>)| SeriesRow {
        labels: Labels::from_pairs([("__name__", "far_apart"), ("row", &format!("{i:02}"))]),
        metadata: Arc::default(),
        samples: SeriesSamples {
            floats: FloatColumn { timestamps: Arc::clone(&timestamps), values: values.into() },
            ..SeriesSamples::default()
        },
    };
    values.into_iter().enumerate().map(row).collect()
}

/// Writes random series of two tenants to a location and lets readers that are not ours compare.
fn check_foreign_readers(location: &Location, url: &str) {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut expected = String::new();
    run(async {
        let table = Table::open_in(location, Clock::fixed(Timestamp(BASE))).await.expect("opens");
        for (through, name) in ["default", "a*b'c!"].into_iter().enumerate() {
            let mut rows = rows(300).new_tree(&mut runner).expect("generates").current();
            rows.extend(far_apart());
            rows.sort_by(|a, b| compare_labels(&a.labels, &b.labels));
            let tenant = Tenant::new(name).expect("valid");
            expected += &expected_lines(&tenant, &rows);
            let files =
                table.write_files("log", through as u64, vec![(tenant, rows)]).await.expect("written");
            let base = through.checked_sub(1).map(|b| b as u64);
            table.commit_flush("log", base, through as u64, files).await.expect("committed");
        }
    });
    assert!(expected.lines().count() > 1_000);
    assert_foreign_readers_find(&format!("{url}/metrics"), &expected);
}

/// Lets readers that are not ours compare the table at a URL with what is expected: a float sample a line, as JSON.
pub(crate) fn assert_foreign_readers_find(url: &str, expected: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let expected_path = folder.path().join("expected.jsonl");
    std::fs::write(&expected_path, expected).expect("written");
    let output = std::process::Command::new(test_kit::part("venv/bin/python"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/check_readers.py"))
        .arg(url)
        .arg(expected_path)
        .envs(s3_server().variables())
        .output()
        .expect("runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

/// Float samples as lines for [`assert_foreign_readers_find`].
pub(crate) fn expected_lines(tenant: &Tenant, rows: &[SeriesRow]) -> String {
    let mut expected = String::new();
    for row in rows {
        let labels: BTreeMap<&str, &str> = row.labels.iter().filter(|l| l.0 != "__name__").collect();
        for (t, value) in row.samples.floats.iter() {
            let sample = serde_json::json!({"tenant": tenant.as_str(), "metric": row.labels.metric_name(),
                "labels": labels, "t": t, "bits": format!("{:016x}", value.to_bits())});
            expected += &format!("{sample}\n");
        }
    }
    expected
}

#[test]
fn duckdb_and_deltalake_read_the_same_bits_in_a_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    check_foreign_readers(&Location::folder(folder.path()), &folder.path().display().to_string());
}

#[test]
fn duckdb_and_deltalake_read_the_same_bits_on_s3() {
    let url = format!("s3://{BUCKET}/{}", s3_prefix());
    let variables = s3_server().variables().map(|(name, value)| (name.to_owned(), value)).into();
    let mut settings = crate::StorageSettings::default();
    settings.override_with(Some(&url), &variables);
    check_foreign_readers(&settings.location(std::path::Path::new("")).expect("valid"), &url);
}

/// Services spawn these; it compiles or it does not.
#[test]
fn futures_can_be_spawned() {
    fn is_send<T: Send>(future: T) -> T {
        future
    }
    run(is_send(async {
        let (table, _store) = is_send(new_table(Kind::Memory)).await;
        is_send(table.write_files("log", 1, vec![])).await.expect("written");
        is_send(table.commit_flush("log", None, 1, vec![])).await.expect("committed");
        let snapshot = is_send(table.snapshot(None)).await.expect("snapshot");
        let (tenant, none) = (Tenant::default(), SelectLimits::NONE);
        assert!(is_send(snapshot.select(&tenant, &[], 0, 1, none)).await.expect("select").is_empty());
        let mut opened = is_send(snapshot.open(&tenant, &[], (0, 1), none, &[])).await.expect("opened");
        assert!(is_send(opened.next()).await.expect("read").is_none());
        assert!(is_send(snapshot.labels(&tenant, &[], 0, 1, none)).await.expect("labels").is_empty());
    }));
}
