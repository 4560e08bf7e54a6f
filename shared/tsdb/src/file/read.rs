//! Reads what a query asks for of one file.
//!
//! In steps, each reading less than it would without the one before: the footer; the blocks of rows that statistics
//! leave, for their labels and times; how the rows that matched store their values, and the timelines that they point
//! at; and when their turn comes, the pages of values. Each of these is kept in the [`FileCache`]. Rows with native
//! histograms, start times or exemplars are decoded whole by the `parquet` crate.
//!
//! Bytes are fetched on the async threads, everything is decoded on the blocking ones.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use model::{Labels, Matcher, Metadata};
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{RowSelection, RowSelectionPolicy, RowSelector};
use parquet::arrow::push_decoder::{ParquetPushDecoder, ParquetPushDecoderBuilder};
use tokio::runtime::Handle;

use super::arrays::ShapeError;
use super::block::{Block, BlockPages, LeafPages, Matched, Row};
use super::cache::FileCache;
use super::decode::{self, MetadataCache, SAMPLE_COLUMNS, SERIES_COLUMNS, SharedTimes, TIMELINE_COLUMNS};
use super::fetch::FileSource;
use super::footer::{BLOCK_ROWS, BlockId, Footer, PageId};
use super::lists::{Form, Forms, ListPage, TimelinePage};
use super::page::Dictionary;
use super::prune::{Candidate, Query, candidates};
use crate::merge::last_time;
use crate::series::{SeriesRow, SeriesSamples, Timeline};
use crate::table::{Error, Result, SelectLimits};

/// Rows decoded at a time.
const BATCH_ROWS: usize = 4_096;
/// Row groups of one file that are read at a time.
const GROUPS_AT_ONCE: usize = 4;
/// Blocks that are looked through where the query is, rather than on a thread for such work: some 20 us each.
const BLOCKS_IN_PLACE: usize = 8;

/// A query that outlives the call, for the blocking threads.
#[derive(Debug, Clone)]
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

/// A block with the rows that match.
#[derive(Debug, Clone)]
struct MatchedBlock {
    id: BlockId,
    block: Arc<Block>,
    matched: Arc<Matched>,
}

/// A series of a file, with what is needed to read its samples.
#[derive(Debug)]
pub(crate) struct FileSeries {
    pub(crate) labels: Labels,
    /// The newest time of its parts, and the metadata that goes with it.
    pub(crate) newest: (Option<i64>, Arc<Metadata>),
    /// One a window, in order, none of them empty.
    pub(crate) parts: Vec<Part>,
}

/// What a row has of a series within the time asked for.
#[derive(Debug)]
pub(crate) enum Part {
    /// Float samples that are still to be decoded.
    Floats(FloatPart),
    /// Everything, decoded.
    Whole(SeriesSamples),
}

impl Part {
    /// Counts the samples.
    pub(crate) fn samples(&self) -> usize {
        match self {
            Self::Floats(floats) => floats.kept.len(),
            Self::Whole(samples) => samples.sample_count(),
        }
    }
}

/// Where float samples are.
#[derive(Debug)]
pub(crate) struct FloatPart {
    /// The page of values, and the row in it, counted within the row group.
    pub(crate) page: PageId,
    row: u32,
    form: Form,
    /// How many samples the row has, and which of them are wanted; not empty.
    count: u32,
    kept: Range<u32>,
    /// The timeline, and which of its times go with the samples wanted.
    pub(crate) times: Timeline,
    pub(crate) span: Range<u32>,
}

impl FloatPart {
    /// The times of the samples wanted.
    pub(crate) fn wanted_times(&self) -> &[i64] {
        &self.times[self.span.start as usize..self.span.end as usize]
    }

    /// Adds the values of the samples wanted.
    pub(crate) fn read(&self, page: &ListPage, into: &mut Vec<f64>) -> Result<(), ShapeError> {
        let kept = self.kept.start as usize..self.kept.end as usize;
        page.read_samples(self.row as usize, self.form, self.count as usize, kept, into)
    }
}

/// An opened file.
#[derive(Debug)]
pub(crate) struct Reader {
    source: FileSource,
    runtime: Handle,
    kept: Arc<FileCache>,
    footer: Arc<Footer>,
}

impl Reader {
    /// Reads the footer and checks that the schema is one we know.
    pub(crate) async fn open(source: FileSource, runtime: Handle, kept: Arc<FileCache>) -> Result<Self> {
        let read = async || {
            let metadata = source.metadata(&runtime).await?;
            Footer::new(source.name(), source.size(), metadata).map(|footer| vec![footer])
        };
        let footer = kept.footer.get(&[()], |_| read()).await?.swap_remove(0);
        Ok(Self { source, runtime, kept, footer })
    }

    /// The file's path, for messages.
    pub(crate) fn name(&self) -> &str {
        self.source.name()
    }

    /// Finds the matching series that have something within the time asked for, sorted.
    pub(crate) async fn select(&self, query: &Arc<OwnedQuery>) -> Result<Vec<FileSeries>> {
        let blocks = self.matched(query).await?;
        if blocks.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<BlockId> = blocks.iter().map(|b| b.id).collect();
        let forms = self.kept.forms.get(&ids, |ids| self.read_forms(ids)).await?;
        let wanted = self.corrupt(self.times_wanted(&blocks, &forms))?;
        let (timelines, lists, rare) = futures::try_join!(
            self.kept.timelines.get(&wanted.timelines, |ids| self.read_timelines(ids)),
            self.lists(&wanted.lists),
            self.rows(wanted.rare, query),
        )?;
        let pages = TimePages {
            timelines: wanted.timelines.into_iter().zip(timelines).collect(),
            lists: wanted.lists.into_iter().zip(lists).collect(),
        };
        let is_small = blocks.len() <= BLOCKS_IN_PLACE;
        let (footer, query) = (Arc::clone(&self.footer), Arc::clone(query));
        let work = move || assemble(&footer, &query.borrowed(), &blocks, &forms, &pages, rare);
        if is_small { self.corrupt(work()) } else { self.blocking(work).await }
    }

    /// Reads labels and metadata of the matching series that have something within the time asked for.
    pub(crate) async fn labels(&self, query: &Arc<OwnedQuery>) -> Result<Vec<(Labels, Arc<Metadata>)>> {
        let blocks = self.matched(query).await?;
        self.blocking(move || {
            let mut all: Vec<(Labels, Arc<Metadata>)> = Vec::new();
            for MatchedBlock { block, matched, .. } in &blocks {
                for (i, row) in matched.rows.iter().enumerate() {
                    // Windows of one series stand together, the latest last.
                    let is_last =
                        matched.rows.get(i + 1).is_none_or(|next| !block.is_same_series(*row, *next));
                    if is_last {
                        let labels = block.labels(*row);
                        // A block may begin with the series that the one before ended with.
                        if all.last().is_some_and(|last| last.0 == labels) {
                            all.pop();
                        }
                        all.push((labels, Arc::clone(block.metadata(*row))));
                    }
                }
            }
            Ok(all)
        })
        .await
    }

    /// Adds the names of the labels of the matching series, or their values of one label.
    pub(crate) async fn names(
        &self,
        query: &Arc<OwnedQuery>,
        label: Option<&str>,
    ) -> Result<BTreeSet<String>> {
        let blocks = self.matched(query).await?;
        let label = label.map(str::to_owned);
        self.blocking(move || {
            let mut names = BTreeSet::new();
            for MatchedBlock { block, matched, .. } in &blocks {
                match &label {
                    Some(label) => block.add_values(&matched.rows, label, &mut names),
                    None => block.add_names(&matched.rows, &mut names),
                }
            }
            Ok(names)
        })
        .await
    }

    /// Finds the rows that match, block by block.
    async fn matched(&self, query: &Arc<OwnedQuery>) -> Result<Vec<MatchedBlock>> {
        let candidates = candidates(self.footer.metadata(), &query.borrowed());
        let groups = futures::stream::iter(candidates).map(|candidate| self.match_group(candidate, query));
        let mut groups = std::pin::pin!(groups.buffered(GROUPS_AT_ONCE));
        let (mut all, mut series, mut samples) = (Vec::new(), 0, 0);
        while let Some(blocks) = groups.try_next().await? {
            for block in blocks {
                series += block.matched.rows.len();
                samples += block.matched.samples;
                all.push(block);
            }
            query.limits.check(series, samples)?;
        }
        Ok(all)
    }

    async fn match_group(&self, candidate: Candidate, query: &Arc<OwnedQuery>) -> Result<Vec<MatchedBlock>> {
        let ids = blocks_of(&candidate);
        let blocks = self.kept.blocks.get(&ids, |ids| self.read_blocks(ids)).await?;
        let is_small = blocks.len() <= BLOCKS_IN_PLACE;
        let query = Arc::clone(query);
        let work = move || {
            let all = ids.into_iter().zip(blocks).map(|(id, block)| {
                let matched = Arc::new(block.matching(&query.borrowed()));
                MatchedBlock { id, block, matched }
            });
            Ok::<Vec<_>, ShapeError>(all.filter(|b| !b.matched.rows.is_empty()).collect())
        };
        if is_small { self.corrupt(work()) } else { self.blocking(work).await }
    }

    /// How long a page is in the store.
    pub(crate) fn page_bytes(&self, page: PageId) -> u64 {
        let range = self.footer.range(page);
        range.end - range.start
    }

    /// Returns pages of lists.
    pub(crate) async fn lists(&self, ids: &[PageId]) -> Result<Vec<Arc<ListPage>>> {
        self.kept.lists.get(ids, |ids| self.read_lists(ids)).await
    }

    async fn read_lists(&self, ids: Vec<PageId>) -> Result<Vec<ListPage>> {
        let bytes = self.fetch_pages(&ids).await?;
        let footer = Arc::clone(&self.footer);
        self.blocking(move || {
            let decode = |(id, bytes): (PageId, Bytes)| {
                let page = footer.chunk(id.row_group, id.leaf as usize)?.data_page(&bytes)?;
                let is_of_doubles = id.leaf as usize == footer.leaves.floats;
                let of = if is_of_doubles { ListPage::of_doubles } else { ListPage::of_ints };
                of(footer.page_rows(id), page)
            };
            ids.into_iter().zip(bytes).map(decode).collect()
        })
        .await
    }

    async fn read_timelines(&self, ids: Vec<PageId>) -> Result<Vec<TimelinePage>> {
        let bytes = self.fetch_pages(&ids).await?;
        let footer = Arc::clone(&self.footer);
        self.blocking(move || {
            let decode = |(id, bytes): (PageId, Bytes)| {
                let page = footer.chunk(id.row_group, id.leaf as usize)?.data_page(&bytes)?;
                TimelinePage::new(footer.page_rows(id), page)
            };
            ids.into_iter().zip(bytes).map(decode).collect()
        })
        .await
    }

    async fn fetch_pages(&self, ids: &[PageId]) -> Result<Vec<Bytes>> {
        let ranges: Vec<Range<u64>> = ids.iter().map(|id| self.footer.range(*id)).collect();
        self.source.fetch_pages(&ranges, &self.footer.checksums).await
    }

    /// Reads blocks of one row group.
    async fn read_blocks(&self, ids: Vec<BlockId>) -> Result<Vec<Block>> {
        let l = self.footer.leaves;
        let leaves = [
            l.metric,
            l.label_names,
            l.label_values,
            l.kind,
            l.unit,
            l.help,
            l.min_time,
            l.max_time,
            l.timeline,
            l.offset,
            l.count,
        ];
        let columns = self.fetch_columns(&ids, &leaves).await?;
        self.blocking(move || {
            let columns = columns.decode_dictionaries()?;
            let block = |id: BlockId| {
                let pages = |leaf| columns.pages(leaf, id);
                let pages = BlockPages {
                    metric: pages(l.metric)?,
                    label_names: pages(l.label_names)?,
                    label_values: pages(l.label_values)?,
                    kind: pages(l.kind)?,
                    unit: pages(l.unit)?,
                    help: pages(l.help)?,
                    min_time: pages(l.min_time)?,
                    max_time: pages(l.max_time)?,
                    timeline: pages(l.timeline)?,
                    offset: pages(l.offset)?,
                    count: pages(l.count)?,
                };
                Block::new(&columns.footer, id, pages)
            };
            ids.into_iter().map(block).collect()
        })
        .await
    }

    /// Reads how the rows of blocks store their values.
    async fn read_forms(&self, ids: Vec<BlockId>) -> Result<Vec<Forms>> {
        let l = self.footer.leaves;
        let mut by_group: BTreeMap<u32, Vec<BlockId>> = BTreeMap::new();
        for id in &ids {
            by_group.entry(id.row_group).or_default().push(*id);
        }
        let leaves = [l.scale, l.histograms, l.starts, l.exemplars];
        let groups = futures::stream::iter(by_group.into_values()).map(|group| async move {
            let columns = self.fetch_columns(&group, &leaves).await?;
            self.blocking(move || {
                let forms = |id: BlockId| {
                    let rows = columns.footer.block_rows(id);
                    let scales = columns.pages(l.scale, id)?.numbers(&rows)?;
                    let mut is_rare = vec![false; rows.len()];
                    for leaf in [l.histograms, l.starts, l.exemplars] {
                        let filled = columns.pages(leaf, id)?.has_elements(&rows)?;
                        is_rare.iter_mut().zip(filled).for_each(|(rare, filled)| *rare |= filled);
                    }
                    Ok((id, Forms::new(&scales, &is_rare)?))
                };
                group.into_iter().map(forms).collect::<Result<Vec<_>, ShapeError>>()
            })
            .await
        });
        let groups: Vec<Vec<(BlockId, Forms)>> = groups.buffered(GROUPS_AT_ONCE).try_collect().await?;
        let mut all: HashMap<BlockId, Forms> = groups.into_iter().flatten().collect();
        Ok(ids.iter().filter_map(|id| all.remove(id)).collect())
    }

    /// Fetches the pages of some columns that hold the rows of some blocks of one row group, with the dictionaries.
    async fn fetch_columns(&self, ids: &[BlockId], leaves: &[usize]) -> Result<Columns> {
        let row_group = ids.first().map_or(0, |id| id.row_group);
        let mut ranges: BTreeMap<u64, u64> = BTreeMap::new();
        for leaf in leaves {
            ranges.extend(self.footer.dictionary(row_group, *leaf).map(|r| (r.start, r.end)));
            for id in ids {
                let pages = pages_of(&self.footer, *id, *leaf).map(|page| self.footer.range(page));
                ranges.extend(pages.map(|r| (r.start, r.end)));
            }
        }
        let ranges: Vec<Range<u64>> = ranges.into_iter().map(|(start, end)| start..end).collect();
        let bytes = self.source.fetch_pages(&ranges, &self.footer.checksums).await?;
        let bytes = ranges.into_iter().map(|r| r.start).zip(bytes).collect();
        let footer = Arc::clone(&self.footer);
        Ok(Columns { footer, row_group, leaves: leaves.to_vec(), bytes, dictionaries: HashMap::new() })
    }

    /// Says which pages of times the rows need, and which rows are decoded whole.
    fn times_wanted(&self, blocks: &[MatchedBlock], forms: &[Arc<Forms>]) -> Result<Wanted, ShapeError> {
        let footer = &self.footer;
        let (mut timelines, mut lists) = (BTreeSet::new(), BTreeSet::new());
        let mut rare: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        // Most rows point at the timeline of the row before.
        let mut last = None;
        for (MatchedBlock { id, block, matched }, forms) in blocks.iter().zip(forms) {
            for number in &matched.rows {
                let row = block.row(*number);
                let at = block.first_row + *number as usize;
                if form_of(forms, *number)? == Form::Rare {
                    rare.entry(id.row_group as usize).or_default().push(at);
                    continue;
                }
                match row.timeline {
                    _ if row.count == 0 => {}
                    Some(_) if last == row.timeline => {}
                    Some(timeline) => {
                        last = row.timeline;
                        let (row_group, row) = footer.timeline_row(timeline as usize)?;
                        timelines.insert(footer.page_of(row_group, footer.leaves.timestamps, row));
                    }
                    None => drop(lists.insert(footer.page_of(id.row_group, footer.leaves.timestamps, at))),
                }
            }
        }
        let rare = rare.into_iter().map(|(row_group, rows)| {
            let total = footer.metadata().row_group(row_group).num_rows();
            Candidate { row_group, rows: select_rows(&rows, usize::try_from(total).unwrap_or(0)) }
        });
        Ok(Wanted {
            timelines: timelines.into_iter().collect(),
            lists: lists.into_iter().collect(),
            rare: rare.collect(),
        })
    }

    /// Decodes rows whole, each as one series row, in order; those without anything in the time asked for are empty.
    pub(crate) async fn rows(
        &self,
        candidates: Vec<Candidate>,
        query: &Arc<OwnedQuery>,
    ) -> Result<Vec<SeriesRow>> {
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        let columns: Vec<&str> = SERIES_COLUMNS.into_iter().chain(SAMPLE_COLUMNS).collect();
        let batches = self.all_batches(&columns, candidates).await?;
        let timelines = self.timelines(&batches).await?;
        let query = Arc::clone(query);
        self.blocking(move || {
            let mut known = HashMap::new();
            for batch in &timelines {
                decode::read_timelines(batch, &mut known)?;
            }
            let mut times = SharedTimes::new(known);
            let mut cache = MetadataCache::new();
            let mut rows: Vec<SeriesRow> = Vec::new();
            for batch in &batches {
                rows.extend(decode::rows(batch, &query.borrowed(), &mut times, &mut cache)?);
            }
            Ok(rows)
        })
        .await
    }

    /// Reads the timeline rows that the batches point at.
    async fn timelines(&self, batches: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
        let mut wanted: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for batch in batches {
            for timeline in self.corrupt(decode::timelines_of(batch))? {
                let (row_group, row) = self.corrupt(self.footer.timeline_row(timeline))?;
                wanted.entry(row_group as usize).or_default().push(row);
            }
        }
        let candidates = wanted.into_iter().map(|(row_group, mut rows)| {
            rows.sort_unstable();
            rows.dedup();
            let total = self.footer.metadata().row_group(row_group).num_rows();
            Candidate { row_group, rows: select_rows(&rows, usize::try_from(total).unwrap_or(0)) }
        });
        self.all_batches(&TIMELINE_COLUMNS, candidates.collect()).await
    }

    /// Decodes some columns of some rows of several row groups, in order.
    async fn all_batches(&self, columns: &[&str], candidates: Vec<Candidate>) -> Result<Vec<RecordBatch>> {
        let groups = futures::stream::iter(candidates).map(|c| self.batches(columns, c));
        let groups: Vec<Vec<RecordBatch>> = groups.buffered(GROUPS_AT_ONCE).try_collect().await?;
        Ok(groups.into_iter().flatten().collect())
    }

    /// Decodes some columns of some rows of one row group.
    async fn batches(&self, columns: &[&str], candidate: Candidate) -> Result<Vec<RecordBatch>> {
        let corrupt = |e: parquet::errors::ParquetError| Error::corrupt(self.name(), e);
        let arrow = self.footer.arrow();
        let descriptor = arrow.metadata().file_metadata().schema_descr();
        let roots = arrow.schema().fields().iter().enumerate();
        let wanted = roots.filter(|(_, f)| columns.contains(&f.name().as_str())).map(|(i, _)| i);
        let mut decoder = ParquetPushDecoderBuilder::new_with_metadata(arrow.clone())
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
                    let parts = self.source.fetch_pages(&ranges, &self.footer.checksums).await?;
                    decoder.push_ranges(ranges, parts).map_err(corrupt)?;
                }
                None => return Ok(batches),
            }
        }
    }

    /// Names the file in what a decoder says about it.
    fn corrupt<T>(&self, result: Result<T, ShapeError>) -> Result<T> {
        result.map_err(|reason| Error::corrupt(self.name(), reason))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ShapeError> + Send + 'static,
    ) -> Result<T> {
        let done = self.runtime.spawn_blocking(work).await.map_err(|e| Error::stopped(self.name(), &e))?;
        self.corrupt(done)
    }
}

/// What has to be read before the samples of matching rows are known by time.
struct Wanted {
    timelines: Vec<PageId>,
    lists: Vec<PageId>,
    /// Rows that are decoded whole.
    rare: Vec<Candidate>,
}

/// The pages that hold the times of the rows of a selection.
struct TimePages {
    timelines: HashMap<PageId, Arc<TimelinePage>>,
    lists: HashMap<PageId, Arc<ListPage>>,
}

fn form_of(forms: &Forms, row: u32) -> Result<Form, ShapeError> {
    forms.0.get(row as usize).copied().ok_or_else(|| format!("row {row} is not in its block"))
}

/// Puts together the series of a file; `rare` are the rows that were decoded whole, in order.
fn assemble(
    footer: &Footer,
    query: &Query<'_>,
    blocks: &[MatchedBlock],
    forms: &[Arc<Forms>],
    pages: &TimePages,
    rare: Vec<SeriesRow>,
) -> Result<Vec<FileSeries>, ShapeError> {
    let mut all: Vec<FileSeries> = Vec::new();
    let mut rare = rare.into_iter();
    for (MatchedBlock { id, block, matched }, forms) in blocks.iter().zip(forms) {
        let mut last = None;
        for number in &matched.rows {
            let row = block.row(*number);
            let part = match form_of(forms, *number)? {
                Form::Rare => {
                    let samples = rare.next().ok_or("a row was not read")?.samples;
                    let newest = last_time(&samples);
                    (!samples.is_empty()).then_some((newest, Part::Whole(samples)))
                }
                form => float_part(footer, query, *id, block.first_row + *number as usize, row, form, pages)?
                    .map(|part| (part.wanted_times().last().copied(), Part::Floats(part))),
            };
            let Some((newest, part)) = part else { continue };
            let newest = (newest, Arc::clone(block.metadata(*number)));
            // Windows of one series stand together.
            let is_same = last.is_some_and(|last| block.is_same_series(last, *number));
            last = Some(*number);
            let labels = if is_same { None } else { Some(block.labels(*number)) };
            match (all.last_mut(), labels) {
                (Some(series), labels) if labels.as_ref().is_none_or(|l| *l == series.labels) => {
                    series.parts.push(part);
                    if newest > series.newest {
                        series.newest = newest;
                    }
                }
                (_, labels) => {
                    let labels = labels.unwrap_or_else(|| block.labels(*number));
                    all.push(FileSeries { labels, newest, parts: vec![part] });
                }
            }
        }
    }
    Ok(all)
}

/// Finds a row's float samples within the time asked for; nothing when there are none.
fn float_part(
    footer: &Footer,
    query: &Query<'_>,
    id: BlockId,
    at: usize,
    row: &Row,
    form: Form,
    pages: &TimePages,
) -> Result<Option<FloatPart>, ShapeError> {
    if row.count == 0 {
        return Ok(None);
    }
    let (times, offset) = match row.timeline {
        Some(timeline) => {
            let (row_group, row_of_timeline) = footer.timeline_row(timeline as usize)?;
            let page = footer.page_of(row_group, footer.leaves.timestamps, row_of_timeline);
            let page = pages.timelines.get(&page).ok_or("a timeline was not read")?;
            (Arc::clone(page.timeline(row_of_timeline)?), row.offset)
        }
        None => {
            let page = footer.page_of(id.row_group, footer.leaves.timestamps, at);
            let times = pages.lists.get(&page).ok_or("times were not read")?.times(at)?;
            if times.len() != row.count as usize {
                return Err(format!("{} times for {} samples", times.len(), row.count));
            }
            (Timeline::from(times), 0)
        }
    };
    let end = offset.checked_add(row.count).ok_or("an offset that is too large")?;
    let own = times.get(offset as usize..end as usize);
    let own = own.ok_or_else(|| format!("a timeline has no samples {offset}..{end}"))?;
    let kept = decode::kept_range(own, query);
    if kept.is_empty() {
        return Ok(None);
    }
    let number = |n: usize| u32::try_from(n).map_err(|_| "too many samples in a row".to_owned());
    let kept = number(kept.start)?..number(kept.end)?;
    let leaf = if form == Form::Double { footer.leaves.floats } else { footer.leaves.ints };
    Ok(Some(FloatPart {
        page: footer.page_of(id.row_group, leaf, at),
        row: number(at)?,
        form,
        count: row.count,
        span: offset + kept.start..offset + kept.end,
        kept,
        times,
    }))
}

/// Pages of some columns of a row group, not yet decoded.
struct Columns {
    footer: Arc<Footer>,
    row_group: u32,
    leaves: Vec<usize>,
    /// By where they begin in the file.
    bytes: HashMap<u64, Bytes>,
    /// By leaf.
    dictionaries: HashMap<usize, Arc<Dictionary>>,
}

impl Columns {
    fn decode_dictionaries(mut self) -> Result<Self, ShapeError> {
        for leaf in &self.leaves {
            let range = self.footer.dictionary(self.row_group, *leaf);
            if let Some(bytes) = range.and_then(|r| self.bytes.get(&r.start)) {
                let dictionary = self.footer.chunk(self.row_group, *leaf)?.dictionary(bytes)?;
                self.dictionaries.insert(*leaf, Arc::new(dictionary));
            }
        }
        Ok(self)
    }

    /// Decodes the pages of a leaf that hold rows of a block.
    fn pages(&self, leaf: usize, id: BlockId) -> Result<LeafPages, ShapeError> {
        let chunk = self.footer.chunk(self.row_group, leaf)?;
        let decode = |page: PageId| {
            let bytes = self.bytes.get(&self.footer.range(page).start).ok_or("a page was not read")?;
            Ok((self.footer.page_rows(page), chunk.data_page(bytes)?))
        };
        let pages = pages_of(&self.footer, id, leaf).map(decode).collect::<Result<_, ShapeError>>()?;
        Ok(LeafPages { dictionary: self.dictionaries.get(&leaf).cloned(), pages })
    }
}

/// The pages of a leaf that hold rows of a block.
fn pages_of(footer: &Footer, id: BlockId, leaf: usize) -> impl Iterator<Item = PageId> + use<> {
    let rows = footer.block_rows(id);
    let first = footer.page_of(id.row_group, leaf, rows.start);
    let last = footer.page_of(id.row_group, leaf, rows.end.saturating_sub(1));
    (first.page..=last.page).map(move |page| PageId { page, ..first })
}

/// The blocks that hold the rows that may match.
fn blocks_of(candidate: &Candidate) -> Vec<BlockId> {
    let number = |n: usize| u32::try_from(n).expect("a file has fewer than 2^32 rows");
    let row_group = number(candidate.row_group);
    let mut blocks: Vec<BlockId> = Vec::new();
    let mut row = 0;
    for selector in candidate.rows.iter() {
        let end = row + selector.row_count;
        if !selector.skip && end > row {
            for block in row / BLOCK_ROWS..end.div_ceil(BLOCK_ROWS) {
                let id = BlockId { row_group, block: number(block) };
                if blocks.last() != Some(&id) {
                    blocks.push(id);
                }
            }
        }
        row = end;
    }
    blocks
}

type Ranges = Vec<Range<u64>>;

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
