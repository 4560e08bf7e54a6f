//! Reads the rows of files one after the other, in the order in which they stand, a little at a time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::RecordBatch;
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, RowSelection, RowSelectionPolicy, RowSelector,
};
use parquet::arrow::push_decoder::{ParquetPushDecoder, ParquetPushDecoderBuilder};

use super::{Context, Held};
use crate::catalogue::DataFile;
use crate::file::checksums::Checksums;
use crate::file::decode::{
    self, MetadataCache, SAMPLE_COLUMNS, SERIES_COLUMNS, SharedTimes, TIMELINE_COLUMNS,
};
use crate::file::fetch::FileSource;
use crate::file::prune::{Query, timeline_row_groups};
use crate::file::schema::{SCHEMA_VERSION, SCHEMA_VERSION_KEY};
use crate::series::SeriesRow;
use crate::table::{Error, Result, Table, location};

/// Bytes of a row group that are fetched at a time, about; row groups are mostly smaller.
const SPAN_BYTES: i64 = 8 << 20;
/// Bytes that are decoded at a time, about, as they are before decoding and after decompression.
const BATCH_BYTES: i64 = 256 << 10;
/// Rows that are decoded at a time, at most.
const BATCH_ROWS_MAX: i64 = 1_024;
/// Everything in a file is wanted.
const ALL: Query<'static> = Query { matchers: &[], min_time: i64::MIN, max_time: i64::MAX };

/// The rows of files that follow each other in the order of series. A failure ends them, and stands in the context.
pub(crate) struct RunRows<'a> {
    table: &'a Table,
    context: &'a Context,
    files: std::vec::IntoIter<Arc<DataFile>>,
    open: Option<OpenFile<'a>>,
}

impl<'a> RunRows<'a> {
    pub(crate) fn new(table: &'a Table, files: Vec<Arc<DataFile>>, context: &'a Context) -> Self {
        Self { table, context, files: files.into_iter(), open: None }
    }

    fn try_next(&mut self) -> Result<Option<SeriesRow>> {
        loop {
            if let Some(open) = &mut self.open {
                if let Some(row) = open.next()? {
                    return Ok(Some(row));
                }
                self.open = None;
            }
            match self.files.next() {
                Some(file) => self.open = Some(OpenFile::open(self.table, &file, self.context)?),
                None => return Ok(None),
            }
        }
    }
}

impl Iterator for RunRows<'_> {
    type Item = SeriesRow;

    fn next(&mut self) -> Option<SeriesRow> {
        self.try_next().unwrap_or_else(|error| {
            self.context.fail(error);
            None
        })
    }
}

/// Rows of one row group that are fetched together.
struct Span {
    row_group: usize,
    rows: RowSelection,
    batch_rows: usize,
}

/// A file that is being read.
struct OpenFile<'a> {
    source: FileSource,
    checksums: Checksums,
    context: &'a Context,
    metadata: ArrowReaderMetadata,
    times: SharedTimes,
    /// The timelines, while the file is open.
    _times_held: Held,
    cache: MetadataCache,
    spans: VecDeque<Span>,
    decoder: Option<Decoder>,
    rows: std::vec::IntoIter<SeriesRow>,
    /// The rows decoded last.
    rows_held: Held,
}

impl<'a> OpenFile<'a> {
    fn open(table: &Table, file: &DataFile, context: &'a Context) -> Result<Self> {
        let options = table.options();
        let path = location(&options.prefix, &file.path)?;
        let store = Arc::clone(&options.store);
        let source = FileSource::new(store, path, file.size, file.tail, options.request_cost_bytes);
        let metadata = context.wait(source.metadata(&options.runtime))?;
        let corrupt = |e: &dyn std::fmt::Display| Error::corrupt(source.name(), e);
        let entries = metadata.file_metadata().key_value_metadata();
        let version = entries.and_then(|all| all.iter().find(|e| e.key == SCHEMA_VERSION_KEY));
        if version.and_then(|e| e.value.as_deref()) != Some(SCHEMA_VERSION) {
            let feature = "a file of another schema version".to_owned();
            return Err(Error::Unsupported { path: source.name().to_owned(), feature });
        }
        let metadata = ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new())
            .map_err(|e| corrupt(&e))?;

        let checksums = Checksums::read(metadata.metadata()).map_err(|e| corrupt(&e))?;
        let groups = metadata.metadata().num_row_groups();
        let timeline_groups = timeline_row_groups(metadata.metadata());
        let mut timelines = HashMap::new();
        for row_group in 0..timeline_groups {
            let mut decoder =
                Decoder::new(&metadata, &TIMELINE_COLUMNS, whole(&metadata, row_group), context)
                    .map_err(|e| corrupt(&e))?;
            while let Some(batch) = decoder.next(&source, &checksums, context)? {
                decode::read_timelines(&batch, &mut timelines).map_err(|e| corrupt(&e))?;
            }
        }
        let mut times_held = Held::new(&context.meter);
        // Once as they stand in the file, once cut to what rows have.
        let numbers: usize = timelines.values().map(Vec::len).sum();
        times_held.set(2 * numbers * size_of::<i64>());
        let spans = (timeline_groups..groups).flat_map(|g| spans(&metadata, g)).collect();
        Ok(Self {
            times: SharedTimes::new(timelines),
            _times_held: times_held,
            cache: MetadataCache::new(),
            spans,
            decoder: None,
            rows: Vec::new().into_iter(),
            rows_held: Held::new(&context.meter),
            source,
            checksums,
            context,
            metadata,
        })
    }

    fn next(&mut self) -> Result<Option<SeriesRow>> {
        loop {
            if let Some(row) = self.rows.next() {
                return Ok(Some(row));
            }
            self.context.check()?;
            let decoder = match &mut self.decoder {
                Some(decoder) => decoder,
                None => {
                    let Some(span) = self.spans.pop_front() else { return Ok(None) };
                    let columns: Vec<&str> = SERIES_COLUMNS.into_iter().chain(SAMPLE_COLUMNS).collect();
                    let decoder = Decoder::new(&self.metadata, &columns, span, self.context);
                    self.decoder.insert(decoder.map_err(|e| Error::corrupt(self.source.name(), e))?)
                }
            };
            let Some(batch) = decoder.next(&self.source, &self.checksums, self.context)? else {
                self.decoder = None;
                continue;
            };
            let rows = decode::rows(&batch, &ALL, &mut self.times, &mut self.cache);
            let rows = rows.map_err(|e| Error::corrupt(self.source.name(), e))?;
            // The arrays and the rows made of them are there together for a moment.
            self.rows_held.set(2 * batch.get_array_memory_size());
            let rows: Vec<SeriesRow> = rows.into_iter().filter(|r| !r.samples.is_empty()).collect();
            self.rows = rows.into_iter();
        }
    }
}

fn whole(metadata: &ArrowReaderMetadata, row_group: usize) -> Span {
    let rows = usize::try_from(metadata.metadata().row_group(row_group).num_rows()).unwrap_or(0);
    Span { row_group, rows: RowSelection::from(vec![RowSelector::select(rows)]), batch_rows: rows.max(1) }
}

/// Cuts a row group into what is fetched together.
fn spans(metadata: &ArrowReaderMetadata, row_group: usize) -> Vec<Span> {
    let group = metadata.metadata().row_group(row_group);
    let rows = group.num_rows().max(1);
    let count = (group.compressed_size() / SPAN_BYTES + 1).min(rows);
    let batch_rows = (BATCH_BYTES * rows / group.total_byte_size().max(1)).clamp(1, BATCH_ROWS_MAX);
    let size = |n: i64| usize::try_from(n).unwrap_or(0);
    (0..count)
        .map(|i| {
            let (start, end) = (rows * i / count, rows * (i + 1) / count);
            let selectors = [
                RowSelector::skip(size(start)),
                RowSelector::select(size(end - start)),
                RowSelector::skip(size(rows - end)),
            ];
            let selectors: Vec<_> = selectors.into_iter().filter(|s| s.row_count > 0).collect();
            Span { row_group, rows: RowSelection::from(selectors), batch_rows: size(batch_rows) }
        })
        .collect()
}

/// Decodes a span in batches.
struct Decoder {
    decoder: ParquetPushDecoder,
    /// What was fetched for it.
    held: Held,
}

impl Decoder {
    fn new(
        metadata: &ArrowReaderMetadata,
        columns: &[&str],
        span: Span,
        context: &Context,
    ) -> parquet::errors::Result<Self> {
        let descriptor = metadata.metadata().file_metadata().schema_descr();
        let roots = metadata.schema().fields().iter().enumerate();
        let wanted = roots.filter(|(_, f)| columns.contains(&f.name().as_str())).map(|(i, _)| i);
        let decoder = ParquetPushDecoderBuilder::new_with_metadata(metadata.clone())
            .with_projection(ProjectionMask::roots(descriptor, wanted))
            .with_row_groups(vec![span.row_group])
            .with_row_selection(span.rows)
            .with_row_selection_policy(RowSelectionPolicy::Selectors)
            .with_batch_size(span.batch_rows)
            .build()?;
        Ok(Self { decoder, held: Held::new(&context.meter) })
    }

    fn next(
        &mut self,
        source: &FileSource,
        checksums: &Checksums,
        context: &Context,
    ) -> Result<Option<RecordBatch>> {
        let corrupt = |e: parquet::errors::ParquetError| Error::corrupt(source.name(), e);
        loop {
            match self.decoder.try_decode().map_err(corrupt)? {
                DecodeResult::Data(batch) => return Ok(Some(batch)),
                DecodeResult::NeedsData(ranges) => {
                    let parts = context.wait(source.fetch_pages(&ranges, checksums))?;
                    self.held.add(parts.iter().map(bytes::Bytes::len).sum());
                    self.decoder.push_ranges(ranges, parts).map_err(corrupt)?;
                }
                DecodeResult::Finished => return Ok(None),
            }
        }
    }
}
