//! Turns pieces of series into one Parquet file in memory. Synchronous: run it off the async threads.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, StringBuilder};
use arrow::datatypes::Schema;
use bytes::Bytes;
use model::is_stale;
use model::labels::METRIC_NAME;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{
    ArrowColumnWriter, ArrowRowGroupWriterFactory, ArrowWriterOptions, compute_leaves,
};
use parquet::file::metadata::{KeyValue, ParquetMetaData};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnDescPtr;

use super::arrays::{LabelMaps, ListShape, downcast};
use super::checksums::{self, PAGE_CHECKSUMS_KEY};
use super::columns::to_decimal;
use super::histograms::{Exemplars, Histograms, Starts};
use super::list_writer::ListWriter;
use super::schema::{
    Filled, LIST_PAGE_SAMPLES, ROW_GROUP_ROWS, arrow_schema, lists_level, writer_properties,
};
use super::timelines::{Placement, Timelines, place};
use super::windows::Piece;
use crate::table::{Error, Result};

/// Rows turned into Arrow arrays at a time.
const BATCH_ROWS: usize = 1_024;
/// Numbers turned into Arrow arrays at a time, beyond what the last row adds; Arrow's lists end at 2^31.
const BATCH_NUMBERS: usize = 1 << 22;
/// A label gets a column of its own when at least one in this many rows has it.
const LABEL_COLUMN_SHARE: usize = 10;
/// At most this many labels get columns.
const LABEL_COLUMNS_MAX: usize = 32;

/// A finished file and what the catalogue says about it.
#[derive(Debug, Clone)]
pub(crate) struct EncodedFile {
    /// The file.
    pub bytes: Bytes,
    /// Its statistics.
    pub stats: FileStats,
    /// Its end.
    pub tail: Tail,
}

/// The end of a file, from the first page index to the last byte: what a reader reads first and believes.
///
/// The checksum lets it notice damage before a decoder trips over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// How long it is.
    pub bytes: u64,
    /// Its CRC-32C.
    pub crc: u32,
}

impl Tail {
    fn of(file: &[u8], metadata: &ParquetMetaData) -> Self {
        let chunks = metadata.row_groups().iter().flat_map(|g| g.columns());
        let indexes = chunks.flat_map(|c| [c.column_index_offset(), c.offset_index_offset()]).flatten();
        let start = indexes.min().and_then(|o| usize::try_from(o).ok()).unwrap_or(0);
        let tail = &file[start..];
        Self { bytes: tail.len() as u64, crc: crc32c::crc32c(tail) }
    }
}

/// What is known of a file without opening it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileStats {
    /// Rows, timeline rows included.
    pub rows: u64,
    /// Timeline rows.
    pub timelines: u64,
    /// The earliest time in the file.
    pub min_time: Option<i64>,
    /// The latest time in the file.
    pub max_time: Option<i64>,
    /// The least metric name.
    pub min_metric: Option<String>,
    /// The greatest metric name.
    pub max_metric: Option<String>,
}

/// Encodes pieces that are sorted by metric name, labels and window.
///
/// # Errors
/// When Parquet refuses what was built.
pub(crate) fn encode(pieces: &[Piece<'_>]) -> Result<EncodedFile> {
    let label_columns = common_labels(pieces);
    let schema = arrow_schema(&label_columns);
    let options = ArrowWriterOptions::new()
        .with_properties(writer_properties(&schema, &filled(pieces)))
        // The Arrow schema would only repeat the Parquet one, in a form that few readers know.
        .with_skip_arrow_metadata(true);
    let (file, factory) = ArrowWriter::try_new_with_options(Vec::new(), Arc::clone(&schema), options)
        .and_then(ArrowWriter::into_serialized_writer)
        .map_err(failed)?;
    let mut writer = FileWriter { file, factory };

    let times: Vec<&[i64]> = pieces.iter().map(Piece::float_times).collect();
    let Timelines { shared, placements } = place(&times);
    writer.write(&batches(shared.iter().map(|t| t.len())), |range| {
        timeline_batch(&schema, range.start, &shared[range]).map_err(failed)
    })?;
    writer.write(&batches(pieces.iter().map(Piece::numbers)), |range| {
        series_batch(&schema, &label_columns, &pieces[range.clone()], &placements[range])
    })?;
    let FileWriter { mut file, .. } = writer;
    file.flush().map_err(failed)?;
    let checksums = checksums::entry(file.inner(), file.flushed_row_groups()).map_err(failed)?;
    file.append_key_value_metadata(KeyValue::new(PAGE_CHECKSUMS_KEY.to_owned(), checksums));
    let metadata = file.finish().map_err(failed)?;
    let bytes = std::mem::take(file.inner_mut());
    let tail = Tail::of(&bytes, &metadata);

    let ranges = pieces.iter().map(Piece::time_range).filter(|(min, max)| min <= max);
    let metrics = || pieces.iter().map(|p| p.row.labels.metric_name());
    let stats = FileStats {
        rows: (shared.len() + pieces.len()) as u64,
        timelines: shared.len() as u64,
        min_time: ranges.clone().map(|r| r.0).min(),
        max_time: ranges.map(|r| r.1).max(),
        min_metric: metrics().min().map(str::to_owned),
        max_metric: metrics().max().map(str::to_owned),
    };
    Ok(EncodedFile { bytes: bytes.into(), stats, tail })
}

fn failed(e: impl std::fmt::Display) -> Error {
    Error::Encode(e.to_string())
}

/// A file under construction.
struct FileWriter {
    file: SerializedFileWriter<Vec<u8>>,
    factory: ArrowRowGroupWriterFactory,
}

/// A column of a row group under construction.
enum ColumnWriter {
    /// Lists of numbers.
    Lists(Box<ListWriter>),
    Other(Box<ArrowColumnWriter>),
}

impl FileWriter {
    /// Writes row groups of their own, from batches that begin where these do.
    fn write(
        &mut self,
        batches: &[Range<usize>],
        batch: impl Fn(Range<usize>) -> Result<RecordBatch>,
    ) -> Result<()> {
        for group in batches.chunk_by(|_, next| next.start % ROW_GROUP_ROWS != 0) {
            let mut columns = self.columns().map_err(failed)?;
            for range in group {
                write_batch(&batch(range.clone())?, &mut columns)?;
            }
            self.append(columns).map_err(failed)?;
        }
        Ok(())
    }

    /// The columns of a new row group.
    fn columns(&self) -> parquet::errors::Result<Vec<ColumnWriter>> {
        let others = self.factory.create_column_writers(self.file.flushed_row_groups().len())?;
        let leaves = self.file.schema_descr().columns();
        let column = |(other, leaf): (ArrowColumnWriter, &ColumnDescPtr)| {
            if !ListWriter::takes(leaf) {
                return Ok(ColumnWriter::Other(Box::new(other)));
            }
            let lists = ListWriter::new(Arc::clone(leaf), LIST_PAGE_SAMPLES, lists_level())?;
            Ok(ColumnWriter::Lists(Box::new(lists)))
        };
        others.into_iter().zip(leaves).map(column).collect()
    }

    fn append(&mut self, columns: Vec<ColumnWriter>) -> parquet::errors::Result<()> {
        let mut group = self.file.next_row_group()?;
        for column in columns {
            match column {
                ColumnWriter::Lists(lists) => {
                    let (pages, close) = lists.finish()?;
                    group.append_column(&pages, close)?;
                }
                ColumnWriter::Other(other) => other.close()?.append_to_row_group(&mut group)?,
            }
        }
        group.close().map(drop)
    }
}

fn write_batch(batch: &RecordBatch, columns: &mut [ColumnWriter]) -> Result<()> {
    let mut columns = columns.iter_mut().peekable();
    for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
        if let Some(ColumnWriter::Lists(lists)) =
            columns.next_if(|column| matches!(column, ColumnWriter::Lists(_)))
        {
            lists.write(downcast(array, field.name()).map_err(failed)?).map_err(failed)?;
            continue;
        }
        for leaf in compute_leaves(field, array).map_err(failed)? {
            if let Some(ColumnWriter::Other(column)) = columns.next() {
                column.write(&leaf).map_err(failed)?;
            }
        }
    }
    Ok(())
}

fn filled(pieces: &[Piece<'_>]) -> Filled {
    Filled {
        rows: pieces.len(),
        samples: pieces.iter().map(|p| p.float_times().len() + p.histograms.len()).sum(),
        histograms: pieces.iter().filter(|p| !p.histograms.is_empty()).count(),
        starts: pieces.iter().filter(|p| !p.starts.is_empty()).count(),
        exemplars: pieces.iter().filter(|p| !p.exemplars.is_empty()).count(),
    }
}

/// Cuts rows into batches, given how many numbers each row holds. One begins wherever a row group does.
fn batches(numbers: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let (mut start, mut end, mut sum) = (0, 0, 0);
    for count in numbers {
        end += 1;
        sum += count;
        if end - start == BATCH_ROWS || end % ROW_GROUP_ROWS == 0 || sum >= BATCH_NUMBERS {
            ranges.push(start..end);
            (start, sum) = (end, 0);
        }
    }
    if start < end {
        ranges.push(start..end);
    }
    ranges
}

/// Chooses the labels that get a column: the most frequent ones, in name order.
///
/// Names that differ in case only get one column, since SQL engines do not tell such columns apart.
fn common_labels(pieces: &[Piece<'_>]) -> Vec<String> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for piece in pieces {
        for (name, _) in piece.row.labels.iter().filter(|(n, _)| *n != METRIC_NAME) {
            *counts.entry(name).or_default() += 1;
        }
    }
    let mut frequent: Vec<(&str, usize)> =
        counts.into_iter().filter(|(_, count)| count * LABEL_COLUMN_SHARE >= pieces.len()).collect();
    frequent.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    let mut folded = BTreeSet::new();
    frequent.retain(|(name, _)| folded.insert(name.to_lowercase()));
    let mut names: Vec<String> =
        frequent.into_iter().take(LABEL_COLUMNS_MAX).map(|(n, _)| n.to_owned()).collect();
    names.sort();
    names
}

fn timeline_batch(
    schema: &Arc<Schema>,
    first: usize,
    timelines: &[&[i64]],
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let mut lists = ListShape::default();
    let mut times = Vec::new();
    for timeline in timelines {
        times.extend_from_slice(timeline);
        lists.push(timeline.len());
    }
    let numbers: Int32Array = (first..first + timelines.len()).map(index).collect();
    let counts: Int32Array = timelines.iter().map(|t| index(t.len())).collect();
    let min: Int64Array = timelines.iter().map(|t| t.first().copied()).collect();
    let max: Int64Array = timelines.iter().map(|t| t.last().copied()).collect();
    let set: HashMap<&str, ArrayRef> = HashMap::from([
        (super::schema::name::TIMELINE, Arc::new(numbers) as ArrayRef),
        (super::schema::name::COUNT, Arc::new(counts) as ArrayRef),
        (super::schema::name::MIN_TIME, Arc::new(min) as ArrayRef),
        (super::schema::name::MAX_TIME, Arc::new(max) as ArrayRef),
        (super::schema::name::TIMESTAMPS, lists.finish(Arc::new(Int64Array::from(times)))),
    ]);
    let columns = schema.fields().iter().map(|field| {
        let null = || arrow::array::new_null_array(field.data_type(), timelines.len());
        set.get(field.name().as_str()).map_or_else(null, Arc::clone)
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect())
}

/// An index or count as the file has it; `encode` never gets near the limit, since a file's rows are bounded.
fn index(i: usize) -> Option<i32> {
    Some(
        i32::try_from(i)
            .expect("a file has fewer than 2^31 rows and a row fewer samples than milliseconds in 2 h"),
    )
}

/// The sample columns of a batch under construction.
#[derive(Default)]
struct Samples {
    timelines: Vec<Option<i32>>,
    offsets: Vec<Option<i32>>,
    counts: Vec<Option<i32>>,
    time_lists: ListShape,
    times: Vec<i64>,
    int_lists: ListShape,
    ints: Vec<Option<i64>>,
    scales: Vec<Option<i32>>,
    float_lists: ListShape,
    floats: Vec<Option<f64>>,
    scratch: Vec<Option<i64>>,
}

impl Samples {
    fn push(&mut self, piece: &Piece<'_>, placement: Placement) {
        let times = piece.float_times();
        let values = &piece.row.samples.floats.values[piece.floats.clone()];
        self.counts.push(index(values.len()));
        match placement {
            Placement::Shared { timeline, offset } => {
                self.timelines.push(index(timeline));
                self.offsets.push(index(offset));
                self.time_lists.push_null();
            }
            Placement::Own => {
                self.timelines.push(None);
                self.offsets.push(None);
                self.times.extend_from_slice(times);
                self.time_lists.push_or_null(times.len());
            }
        }
        let scale = if values.is_empty() { None } else { to_decimal(values, &mut self.scratch) };
        self.scales.push(scale.and_then(index));
        if scale.is_some() {
            self.ints.extend_from_slice(&self.scratch);
            self.int_lists.push(values.len());
            self.float_lists.push_null();
        } else {
            self.floats.extend(values.iter().map(|v| (!is_stale(*v)).then_some(*v)));
            self.int_lists.push_null();
            self.float_lists.push_or_null(values.len());
        }
    }
}

fn series_batch(
    schema: &Arc<Schema>,
    label_columns: &[String],
    pieces: &[Piece<'_>],
    placements: &[Placement],
) -> Result<RecordBatch> {
    let mut labels = LabelMaps::default();
    let mut label_values: Vec<StringBuilder> = label_columns.iter().map(|_| StringBuilder::new()).collect();
    let mut samples = Samples::default();
    let (mut histograms, mut starts, mut exemplars) =
        (Histograms::default(), Starts::default(), Exemplars::default());
    for (piece, placement) in pieces.iter().zip(placements) {
        let row = piece.row;
        labels.push(&row.labels, |n| n != METRIC_NAME);
        for (name, column) in label_columns.iter().zip(&mut label_values) {
            column.append_option(row.labels.get(name));
        }
        samples.push(piece, *placement);
        let column = &row.samples.histograms;
        let range = piece.histograms.clone();
        histograms.push(column.timestamps[range.clone()].iter().copied().zip(&column.values[range]));
        starts.push(&row.samples.start_timestamps[piece.starts.clone()]);
        exemplars.push(piece.exemplars.iter().map(|i| &row.samples.exemplars[*i]));
    }

    let strings = |of: &dyn Fn(&Piece<'_>) -> String| -> ArrayRef {
        Arc::new(pieces.iter().map(|p| Some(of(p))).collect::<StringArray>())
    };
    let longs = |of: &dyn Fn(&Piece<'_>) -> Option<i64>| -> ArrayRef {
        Arc::new(pieces.iter().map(of).collect::<Int64Array>())
    };
    let range = |p: &Piece<'_>| Some(p.time_range()).filter(|(min, max)| min <= max);
    let mut columns: Vec<ArrayRef> = vec![
        strings(&|p| p.row.labels.metric_name().to_owned()),
        labels.finish(),
        strings(&|p| p.row.metadata.kind.as_str().to_owned()),
        strings(&|p| p.row.metadata.unit.to_string()),
        strings(&|p| p.row.metadata.help.to_string()),
        longs(&|p| range(p).map(|r| r.0)),
        longs(&|p| range(p).map(|r| r.1)),
        Arc::new(Int32Array::from(samples.timelines)),
        Arc::new(Int32Array::from(samples.offsets)),
        Arc::new(Int32Array::from(samples.counts)),
    ];
    columns.extend(label_values.iter_mut().map(|c| Arc::new(c.finish()) as ArrayRef));
    columns.extend([
        longs(&|p| Some(p.row.labels.series_id().cast_signed())),
        samples.time_lists.finish(Arc::new(Int64Array::from(samples.times))),
        samples.int_lists.finish(Arc::new(Int64Array::from(samples.ints))),
        samples.float_lists.finish(Arc::new(Float64Array::from(samples.floats))),
        Arc::new(Int32Array::from(samples.scales)),
        histograms.finish(),
        starts.finish(),
        exemplars.finish(),
    ]);
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(|e| Error::Encode(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_group_begins_with_a_batch() {
        let mut numbers = vec![1; ROW_GROUP_ROWS + 1];
        numbers[0] = BATCH_NUMBERS;
        let got = batches(numbers.into_iter());
        assert_eq!(got[..2], [0..1, 1..BATCH_ROWS + 1]);
        let last = ROW_GROUP_ROWS - BATCH_ROWS + 1..ROW_GROUP_ROWS;
        assert_eq!(got[got.len() - 2..], [last, ROW_GROUP_ROWS..ROW_GROUP_ROWS + 1]);
    }

    #[test]
    fn batches_end_at_rows_and_at_numbers() {
        let ones = vec![1; BATCH_ROWS + 1];
        for (numbers, want) in [
            (vec![], vec![]),
            (vec![0, 0], vec![(0, 2)]),
            (ones, vec![(0, BATCH_ROWS), (BATCH_ROWS, BATCH_ROWS + 1)]),
            (vec![BATCH_NUMBERS - 1, 1, 5], vec![(0, 2), (2, 3)]),
            (vec![BATCH_NUMBERS * 3, 1], vec![(0, 1), (1, 2)]),
        ] {
            let got: Vec<(usize, usize)> =
                batches(numbers.into_iter()).into_iter().map(|r| (r.start, r.end)).collect();
            assert_eq!(got, want);
        }
    }
}
