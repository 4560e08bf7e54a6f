//! Reads the series of one file that a query asks for.
//!
//! In three steps, each reading less than it would without the one before: the columns that matchers name, for the
//! rows that statistics leave; the rest of the rows that matched; the timelines that those point at. Bytes are
//! fetched on the async threads, everything is decoded on the blocking ones.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::{StreamExt, TryStreamExt};
use model::{Labels, Matcher, Metadata};
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, RowSelection, RowSelectionPolicy, RowSelector,
};
use parquet::arrow::push_decoder::{ParquetPushDecoder, ParquetPushDecoderBuilder};
use parquet::file::metadata::ParquetMetaData;
use tokio::runtime::Handle;

use super::decode::{self, MetadataCache, SAMPLE_COLUMNS, SERIES_COLUMNS, SharedTimes, TIMELINE_COLUMNS};
use super::fetch::FileSource;
use super::prune::{Candidate, Query, candidates, timeline_row_groups};
use super::schema::{SCHEMA_VERSION, SCHEMA_VERSION_KEY};
use crate::series::SeriesRow;
use crate::table::{Error, Result, SelectLimits};

/// Rows decoded at a time.
const BATCH_ROWS: usize = 4_096;
/// Row groups of one file that are read at a time.
const GROUPS_AT_ONCE: usize = 4;

/// A query that outlives the call, for the blocking threads.
#[derive(Debug)]
pub(crate) struct OwnedQuery {
    /// All of them must accept a series.
    pub matchers: Vec<Matcher>,
    /// The earliest time wanted.
    pub min_time: i64,
    /// The latest time wanted.
    pub max_time: i64,
    /// What one file may give at most.
    pub limits: SelectLimits,
}

impl OwnedQuery {
    fn borrowed(&self) -> Query<'_> {
        Query { matchers: &self.matchers, min_time: self.min_time, max_time: self.max_time }
    }
}

/// A row group with the rows that match.
#[derive(Debug)]
struct MatchedGroup {
    candidate: Candidate,
    /// Rows that match.
    series: usize,
    /// Their float samples.
    samples: usize,
}

/// An opened file.
#[derive(Debug)]
pub(crate) struct Reader {
    source: FileSource,
    runtime: Handle,
    metadata: ArrowReaderMetadata,
    query: Arc<OwnedQuery>,
}

impl Reader {
    /// Reads the footer and checks that the schema is one we know.
    pub(crate) async fn open(source: FileSource, runtime: Handle, query: Arc<OwnedQuery>) -> Result<Self> {
        let metadata = source.metadata(&runtime).await?;
        let entries = metadata.file_metadata().key_value_metadata();
        let version = entries
            .and_then(|all| all.iter().find(|e| e.key == SCHEMA_VERSION_KEY))
            .and_then(|e| e.value.as_deref());
        if version != Some(SCHEMA_VERSION) {
            let feature = version
                .map_or("a file without a schema version".to_owned(), |v| format!("schema version {v}"));
            return Err(Error::Unsupported { path: source.name().to_owned(), feature });
        }
        let metadata = ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new())
            .map_err(|e| Error::corrupt(source.name(), e))?;
        Ok(Self { source, runtime, metadata, query })
    }

    /// Reads the samples of the matching series within the time asked for: a row for each series and window, sorted.
    pub(crate) async fn series(&self) -> Result<Vec<SeriesRow>> {
        let columns: Vec<&str> = SERIES_COLUMNS.into_iter().chain(SAMPLE_COLUMNS).collect();
        let batches = self.all_batches(&columns, self.matched().await?).await?;
        let timelines = self.timelines(&batches).await?;
        let query = Arc::clone(&self.query);
        let path = self.source.name().to_owned();
        self.blocking(move || {
            let corrupt = |e: String| Error::corrupt(&path, e);
            let mut known = HashMap::new();
            for batch in &timelines {
                decode::read_timelines(batch, &mut known).map_err(corrupt)?;
            }
            let mut times = SharedTimes::new(known);
            let mut cache = MetadataCache::new();
            let mut rows: Vec<SeriesRow> = Vec::new();
            for batch in &batches {
                let decoded =
                    decode::rows(batch, &query.borrowed(), &mut times, &mut cache).map_err(corrupt)?;
                rows.extend(decoded.into_iter().filter(|r| !r.samples.is_empty()));
            }
            Ok(rows)
        })
        .await
    }

    /// Reads labels and metadata of the matching series that have something within the time asked for.
    pub(crate) async fn labels(&self) -> Result<Vec<(Labels, Arc<Metadata>)>> {
        let batches = self.all_batches(&SERIES_COLUMNS, self.matched().await?).await?;
        let path = self.source.name().to_owned();
        self.blocking(move || {
            let mut cache = MetadataCache::new();
            let mut all: Vec<(Labels, Arc<Metadata>)> = Vec::new();
            for batch in &batches {
                all.extend(decode::series(batch, &mut cache).map_err(|e| Error::corrupt(&path, e))?);
            }
            // Windows of one series stand together, the latest last.
            all.reverse();
            all.dedup_by(|a, b| a.0 == b.0);
            all.reverse();
            Ok(all)
        })
        .await
    }

    /// Reads the columns that the matchers need and returns the rows that match.
    async fn matched(&self) -> Result<Vec<Candidate>> {
        let schema = self.metadata.schema();
        let columns = decode::match_columns(&self.query.borrowed(), |c| schema.column_with_name(c).is_some());
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        let candidates = candidates(self.metadata.metadata(), &self.query.borrowed());
        let groups = futures::stream::iter(candidates).map(|c| self.match_group(&columns, c));
        let mut groups = std::pin::pin!(groups.buffered(GROUPS_AT_ONCE));
        let (mut matched, mut series, mut samples) = (Vec::new(), 0, 0);
        while let Some(group) = groups.try_next().await? {
            series += group.series;
            samples += group.samples;
            self.query.limits.check(series, samples)?;
            if group.series > 0 {
                matched.push(group.candidate);
            }
        }
        Ok(matched)
    }

    async fn match_group(&self, columns: &[&str], candidate: Candidate) -> Result<MatchedGroup> {
        let (row_group, rows) = (candidate.row_group, candidate.rows.clone());
        let batches = self.batches(columns, candidate).await?;
        let query = Arc::clone(&self.query);
        let path = self.source.name().to_owned();
        self.blocking(move || {
            let matching = select_matching(&rows, &batches, &query.borrowed());
            let (rows, series, samples) = matching.map_err(|e| Error::corrupt(&path, e))?;
            Ok(MatchedGroup { candidate: Candidate { row_group, rows }, series, samples })
        })
        .await
    }

    /// Reads the timeline rows that the batches point at.
    async fn timelines(&self, batches: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
        let corrupt = |e: String| Error::corrupt(self.source.name(), e);
        let mut wanted: BTreeSet<usize> = BTreeSet::new();
        for batch in batches {
            wanted.extend(decode::timelines_of(batch).map_err(corrupt)?);
        }
        let mut candidates = Vec::new();
        // Timeline n is row n of the file.
        let mut first = 0;
        for row_group in 0..timeline_row_groups(self.metadata.metadata()) {
            let count = group_rows(self.metadata.metadata(), row_group);
            let here: Vec<usize> = wanted.range(first..first + count).map(|t| t - first).collect();
            first += count;
            if !here.is_empty() {
                candidates.push(Candidate { row_group, rows: select_rows(&here, count) });
            }
        }
        self.all_batches(&TIMELINE_COLUMNS, candidates).await
    }

    /// Decodes some columns of some rows of several row groups, in order.
    async fn all_batches(&self, columns: &[&str], candidates: Vec<Candidate>) -> Result<Vec<RecordBatch>> {
        let groups = futures::stream::iter(candidates).map(|c| self.batches(columns, c));
        let groups: Vec<Vec<RecordBatch>> = groups.buffered(GROUPS_AT_ONCE).try_collect().await?;
        Ok(groups.into_iter().flatten().collect())
    }

    /// Decodes some columns of some rows of one row group.
    async fn batches(&self, columns: &[&str], candidate: Candidate) -> Result<Vec<RecordBatch>> {
        let corrupt = |e: parquet::errors::ParquetError| Error::corrupt(self.source.name(), e);
        let descriptor = self.metadata.metadata().file_metadata().schema_descr();
        let roots = self.metadata.schema().fields().iter().enumerate();
        let wanted = roots.filter(|(_, f)| columns.contains(&f.name().as_str())).map(|(i, _)| i);
        let mut decoder = ParquetPushDecoderBuilder::new_with_metadata(self.metadata.clone())
            .with_projection(ProjectionMask::roots(descriptor, wanted))
            .with_row_groups(vec![candidate.row_group])
            .with_row_selection(candidate.rows)
            // The default decodes whole row groups when rows are scattered.
            .with_row_selection_policy(RowSelectionPolicy::Selectors)
            .with_batch_size(BATCH_ROWS)
            .build()
            .map_err(corrupt)?;
        let mut batches = Vec::new();
        loop {
            let (returned, decoded, wanted) = self.blocking(move || Ok(decode_available(decoder))).await?;
            decoder = returned;
            batches.extend(decoded);
            match wanted.map_err(corrupt)? {
                Some(ranges) => {
                    let parts = self.source.fetch(&ranges).await?;
                    decoder.push_ranges(ranges, parts).map_err(corrupt)?;
                }
                None => return Ok(batches),
            }
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.runtime.spawn_blocking(work).await.map_err(|e| Error::stopped(self.source.name(), &e))?
    }
}

type Ranges = Vec<std::ops::Range<u64>>;

/// Decodes until more bytes are needed or everything is done.
fn decode_available(
    mut decoder: ParquetPushDecoder,
) -> (ParquetPushDecoder, Vec<RecordBatch>, parquet::errors::Result<Option<Ranges>>) {
    let mut batches = Vec::new();
    loop {
        match decoder.try_decode() {
            Ok(DecodeResult::Data(batch)) => batches.push(batch),
            Ok(DecodeResult::NeedsData(ranges)) => return (decoder, batches, Ok(Some(ranges))),
            Ok(DecodeResult::Finished) => return (decoder, batches, Ok(None)),
            Err(error) => return (decoder, batches, Err(error)),
        }
    }
}

/// Narrows a selection to the rows that match; also counts them and their float samples.
fn select_matching(
    rows: &RowSelection,
    batches: &[RecordBatch],
    query: &Query<'_>,
) -> Result<(RowSelection, usize, usize), String> {
    let mut selected = Vec::new();
    let (mut first, mut samples) = (0, 0);
    for batch in batches {
        let (matching, count) = decode::matching_rows(batch, query)?;
        selected.extend(matching.into_iter().map(|r| first + r));
        first += batch.num_rows();
        samples += count;
    }
    let found = selected.len();
    Ok((rows.and_then(&select_rows(&selected, first)), found, samples))
}

/// Selects rows by ascending number.
fn select_rows(rows: &[usize], total: usize) -> RowSelection {
    let mut selectors = Vec::new();
    let mut next = 0;
    for row in rows {
        if *row > next {
            selectors.push(RowSelector::skip(row - next));
        }
        selectors.push(RowSelector::select(1));
        next = row + 1;
    }
    if next < total {
        selectors.push(RowSelector::skip(total - next));
    }
    RowSelection::from(selectors)
}

fn group_rows(metadata: &ParquetMetaData, row_group: usize) -> usize {
    usize::try_from(metadata.row_group(row_group).num_rows()).unwrap_or(0)
}
