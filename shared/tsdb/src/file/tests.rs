//! What a file looks like to a plain Parquet reader; that reading returns what was written is tested in `table`.

use std::sync::Arc;

use arrow::array::{Array, Int32Array, Int64Array, ListArray, RecordBatch, StringArray};
use model::{Labels, Metadata, stale_nan};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Encoding;

use super::arrays::column;
use super::encode::{EncodedFile, FileStats, encode};
use super::windows::{WINDOW_MS, pieces_by_day};
use crate::series::testing::BASE;
use crate::series::{FloatColumn, SeriesRow, SeriesSamples, Timeline};

fn row(labels: &[(&str, &str)], times: &Timeline, values: &[f64]) -> SeriesRow {
    SeriesRow {
        labels: Labels::from_pairs(labels.iter().copied()),
        metadata: Arc::new(Metadata::default()),
        samples: SeriesSamples {
            floats: FloatColumn { timestamps: Arc::clone(times), values: values.into() },
            ..SeriesSamples::default()
        },
    }
}

fn file_of(rows: &[SeriesRow]) -> EncodedFile {
    let days = pieces_by_day(rows, WINDOW_MS).expect("valid");
    assert_eq!(days.len(), 1);
    encode(days.values().next().expect("a day")).expect("encodes")
}

fn read(file: &EncodedFile) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file.bytes.clone()).expect("opens");
    reader.build().expect("builds").map(|b| b.expect("decodes")).collect()
}

fn three_rows() -> Vec<SeriesRow> {
    let shared: Timeline = Arc::from([BASE, BASE + 15_000]);
    let single: Timeline = Arc::from([BASE + 1]);
    vec![
        row(&[("__name__", "a"), ("job", "x")], &shared, &[1.5, stale_nan()]),
        row(&[("__name__", "a"), ("job", "y"), ("rare", "r")], &shared, &[0.1 + 0.2, -0.0]),
        row(&[("__name__", "b"), ("job", "y")], &single, &[7.0]),
    ]
}

#[test]
fn columns_hold_what_the_schema_says() {
    let file = file_of(&three_rows());
    let batches = read(&file);
    let all = arrow::compute::concat_batches(&batches[0].schema(), &batches).expect("one schema");
    let text = |name: &str| {
        let column: &StringArray = column(&all, name).expect("there");
        column.iter().map(|v| v.map(str::to_owned)).collect::<Vec<_>>()
    };
    let ints = |name: &str| column::<Int32Array>(&all, name).expect("there").iter().collect::<Vec<_>>();
    let lists = |name: &str| {
        let lists: &ListArray = column(&all, name).expect("there");
        lists
            .iter()
            .map(|l| {
                l.map(|l| l.as_any().downcast_ref::<Int64Array>().expect("longs").iter().collect::<Vec<_>>())
            })
            .collect::<Vec<_>>()
    };
    let some = |s: &str| Some(s.to_owned());
    assert_eq!(text("metric"), [None, some("a"), some("a"), some("b")]);
    assert_eq!(text("label_job"), [None, some("x"), some("y"), some("y")]);
    assert_eq!(text("label_rare"), [None, None, some("r"), None]);
    assert_eq!(text("type"), [None, some("unknown"), some("unknown"), some("unknown")]);
    assert_eq!(ints("timeline"), [Some(0), Some(0), Some(0), None]);
    assert_eq!(ints("offset"), [None, Some(0), Some(0), None]);
    assert_eq!(ints("count"), [Some(2), Some(2), Some(2), Some(1)]);
    assert_eq!(ints("scale"), [None, Some(1), None, Some(0)]);
    let shared = Some(vec![Some(BASE), Some(BASE + 15_000)]);
    assert_eq!(lists("timestamps"), [shared, None, None, Some(vec![Some(BASE + 1)])]);
    assert_eq!(lists("ints"), [None, Some(vec![Some(15), None]), None, Some(vec![Some(7)])]);
    assert_eq!(
        file.stats,
        FileStats {
            rows: 4,
            timelines: 1,
            min_time: Some(BASE),
            max_time: Some(BASE + 15_000),
            min_metric: some("a"),
            max_metric: some("b"),
        }
    );
}

#[test]
fn encodings_and_statistics_are_those_of_the_schema() {
    let file = file_of(&three_rows());
    let reader = ParquetRecordBatchReaderBuilder::try_new(file.bytes).expect("opens");
    let metadata = reader.metadata();
    let entries = metadata.file_metadata().key_value_metadata().expect("there");
    let keys: Vec<_> = entries.iter().map(|e| e.key.as_str()).collect();
    assert_eq!(keys, ["tributary.schema_version", "tributary.page_crc32c"]);
    assert_eq!(metadata.num_row_groups(), 2, "timelines have one of their own");
    let group = metadata.row_group(1);
    for (path, encoding, has_statistics) in [
        ("metric", Encoding::RLE_DICTIONARY, true),
        ("label_job", Encoding::RLE_DICTIONARY, true),
        ("labels.key_value.value", Encoding::RLE_DICTIONARY, false),
        ("series_id", Encoding::DELTA_BINARY_PACKED, true),
        ("min_time", Encoding::DELTA_BINARY_PACKED, true),
        ("timestamps.list.element", Encoding::DELTA_BINARY_PACKED, false),
        ("ints.list.element", Encoding::DELTA_BINARY_PACKED, false),
        ("floats.list.element", Encoding::BYTE_STREAM_SPLIT, false),
        ("histograms.list.element.positive_spans.list.element.offset", Encoding::DELTA_BINARY_PACKED, false),
        ("exemplars.list.element.labels.key_value.key", Encoding::RLE_DICTIONARY, false),
    ] {
        let chunk = group.columns().iter().find(|c| c.column_path().string() == path).expect(path);
        let encodings: Vec<Encoding> = chunk.encodings().collect();
        assert!(encodings.contains(&encoding), "{path}: {encodings:?}");
        assert_eq!(chunk.statistics().is_some(), has_statistics, "{path}");
        assert!(chunk.offset_index_offset().is_some(), "{path} has no offset index");
    }
}

#[test]
fn list_pages_are_small() {
    let times: Vec<i64> = (0..480).map(|i| BASE + i).collect();
    let timestamps: Timeline = times.into();
    let values: Vec<f64> = (0..480).map(|i| f64::from(i) * 0.25).collect();
    let rows: Vec<SeriesRow> = (0..160)
        .map(|i| row(&[("__name__", "m"), ("i", &format!("{i:03}"))], &timestamps, &values))
        .collect();
    let file = file_of(&rows);
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(
        file.bytes,
        parquet::arrow::arrow_reader::ArrowReaderOptions::new()
            .with_page_index_policy(parquet::file::metadata::PageIndexPolicy::Required),
    )
    .expect("opens");
    let metadata = reader.metadata();
    let leaf =
        metadata.row_group(1).columns().iter().position(|c| c.column_path().string() == "ints.list.element");
    let pages = metadata.page_index_for_row_group(1);
    assert_eq!(pages.page_locations(leaf.expect("there")).expect("there").len(), 10, "160 rows, 16 a page");
}

#[test]
fn columns_of_labels_are_bounded() {
    let timestamps: Timeline = Arc::from([BASE]);
    let names: Vec<String> = (0..40).map(|i| format!("l{i:02}")).collect();
    let mut labels: Vec<(&str, &str)> = vec![("__name__", "m"), ("Case", "1"), ("case", "2")];
    labels.extend(names.iter().map(|n| (n.as_str(), "v")));
    let file = file_of(&[row(&labels, &timestamps, &[1.0])]);
    let schema = read(&file)[0].schema();
    let columns: Vec<&str> = schema.fields().iter().filter_map(|f| f.name().strip_prefix("label_")).collect();
    assert_eq!(columns.len(), 32);
    assert!(
        columns.contains(&"Case") && !columns.contains(&"case"),
        "SQL does not tell them apart: {columns:?}"
    );
}
