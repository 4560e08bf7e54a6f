//! What is known of a file once its end is read: which pages there are and where they lie.

use std::ops::Range;
use std::sync::Arc;

use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::page_index::offset_index::PageLocation;

use super::arrays::ShapeError;
use super::cache::Weighed;
use super::checksums::Checksums;
use super::page::Chunk;
use super::prune::timeline_row_groups;
use super::schema::{SCHEMA_VERSION, SCHEMA_VERSION_KEY, name};
use crate::table::{Error, Result};

/// Rows of a block: those that one page of a plain column holds.
pub(crate) const BLOCK_ROWS: usize = super::schema::PAGE_ROWS;

/// Some rows of a row group: `block * BLOCK_ROWS` and what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct BlockId {
    pub(crate) row_group: u32,
    pub(crate) block: u32,
}

/// A data page of a leaf of a row group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PageId {
    pub(crate) row_group: u32,
    pub(crate) leaf: u32,
    pub(crate) page: u32,
}

/// The numbers of the leaves that are read here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leaves {
    pub(crate) metric: usize,
    pub(crate) label_names: usize,
    pub(crate) label_values: usize,
    pub(crate) kind: usize,
    pub(crate) unit: usize,
    pub(crate) help: usize,
    pub(crate) min_time: usize,
    pub(crate) max_time: usize,
    pub(crate) timeline: usize,
    pub(crate) offset: usize,
    pub(crate) count: usize,
    pub(crate) timestamps: usize,
    pub(crate) ints: usize,
    pub(crate) scale: usize,
    pub(crate) floats: usize,
    pub(crate) histograms: usize,
    pub(crate) starts: usize,
    pub(crate) exemplars: usize,
}

impl Leaves {
    fn find(metadata: &ParquetMetaData) -> Result<Self, ShapeError> {
        let columns = metadata.file_metadata().schema_descr().columns();
        let leaf = |path: &[&str]| {
            let found = columns.iter().position(|c| c.path().parts() == path);
            found.ok_or_else(|| format!("column {} is missing", path.join(".")))
        };
        Ok(Self {
            metric: leaf(&[name::METRIC])?,
            label_names: leaf(&[name::LABELS, "key_value", "key"])?,
            label_values: leaf(&[name::LABELS, "key_value", "value"])?,
            kind: leaf(&[name::TYPE])?,
            unit: leaf(&[name::UNIT])?,
            help: leaf(&[name::HELP])?,
            min_time: leaf(&[name::MIN_TIME])?,
            max_time: leaf(&[name::MAX_TIME])?,
            timeline: leaf(&[name::TIMELINE])?,
            offset: leaf(&[name::OFFSET])?,
            count: leaf(&[name::COUNT])?,
            timestamps: leaf(&[name::TIMESTAMPS, "list", "element"])?,
            ints: leaf(&[name::INTS, "list", "element"])?,
            scale: leaf(&[name::SCALE])?,
            floats: leaf(&[name::FLOATS, "list", "element"])?,
            histograms: leaf(&[name::HISTOGRAMS, "list", "element", "timestamp"])?,
            starts: leaf(&[name::START_TIMESTAMPS, "list", "element", "timestamp"])?,
            exemplars: leaf(&[name::EXEMPLARS, "list", "element", "value"])?,
        })
    }

    fn all(&self) -> [usize; 18] {
        [
            self.metric,
            self.label_names,
            self.label_values,
            self.kind,
            self.unit,
            self.help,
            self.min_time,
            self.max_time,
            self.timeline,
            self.offset,
            self.count,
            self.timestamps,
            self.ints,
            self.scale,
            self.floats,
            self.histograms,
            self.starts,
            self.exemplars,
        ]
    }
}

/// A file's footer and page index, found sound.
#[derive(Debug)]
pub(crate) struct Footer {
    arrow: ArrowReaderMetadata,
    pub(crate) leaves: Leaves,
    /// Rows of each row group of timelines; these come first.
    timeline_rows: Vec<usize>,
    pub(crate) checksums: Checksums,
}

impl Footer {
    /// Checks that the schema is one that we know and that every page lies where pages can lie.
    pub(crate) fn new(path: &str, size: u64, metadata: ParquetMetaData) -> Result<Self> {
        let entries = metadata.file_metadata().key_value_metadata();
        let version = entries
            .and_then(|all| all.iter().find(|e| e.key == SCHEMA_VERSION_KEY))
            .and_then(|e| e.value.as_deref());
        if version != Some(SCHEMA_VERSION) {
            let feature = version
                .map_or("a file without a schema version".to_owned(), |v| format!("schema version {v}"));
            return Err(Error::Unsupported { path: path.to_owned(), feature });
        }
        let corrupt = |reason: ShapeError| Error::corrupt(path, reason);
        let leaves = Leaves::find(&metadata).map_err(corrupt)?;
        check_pages(&metadata, &leaves, size).map_err(corrupt)?;
        let checksums = Checksums::read(&metadata).map_err(corrupt)?;
        let timelines = 0..timeline_row_groups(&metadata);
        let timeline_rows = timelines.map(|g| group_rows(&metadata, g)).collect();
        let arrow = ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new())
            .map_err(|e| Error::corrupt(path, e))?;
        Ok(Self { arrow, leaves, timeline_rows, checksums })
    }

    /// As the `parquet` crate wants it.
    pub(crate) fn arrow(&self) -> &ArrowReaderMetadata {
        &self.arrow
    }

    /// As the `parquet` crate has it.
    pub(crate) fn metadata(&self) -> &ParquetMetaData {
        self.arrow.metadata()
    }

    /// Counts the rows of a row group.
    pub(crate) fn rows(&self, row_group: u32) -> usize {
        group_rows(self.metadata(), row_group as usize)
    }

    /// The rows of a block, within its row group.
    pub(crate) fn block_rows(&self, id: BlockId) -> Range<usize> {
        let start = id.block as usize * BLOCK_ROWS;
        start..self.rows(id.row_group).min(start + BLOCK_ROWS)
    }

    /// Finds the row that holds a timeline: timeline n is row n of the file.
    pub(crate) fn timeline_row(&self, timeline: usize) -> Result<(u32, usize), ShapeError> {
        let mut row = timeline;
        for (row_group, rows) in (0..).zip(&self.timeline_rows) {
            match row.checked_sub(*rows) {
                Some(rest) => row = rest,
                None => return Ok((row_group, row)),
            }
        }
        Err(format!("there is no timeline {timeline}"))
    }

    /// What the pages of a leaf have in common.
    pub(crate) fn chunk(&self, row_group: u32, leaf: usize) -> Result<Chunk, ShapeError> {
        Chunk::new(self.metadata().row_group(row_group as usize).column(leaf))
    }

    /// Where the pages of a leaf lie.
    pub(crate) fn pages(&self, row_group: u32, leaf: usize) -> &[PageLocation] {
        page_locations(self.metadata(), row_group as usize, leaf)
    }

    /// The page that holds a row.
    pub(crate) fn page_of(&self, row_group: u32, leaf: usize, row: usize) -> PageId {
        let pages = self.pages(row_group, leaf);
        let page = pages.partition_point(|p| first_row(p) <= row).saturating_sub(1);
        let number = |n: usize| u32::try_from(n).expect("a file has fewer than 2^32 pages and columns");
        PageId { row_group, leaf: number(leaf), page: number(page) }
    }

    /// Where a page lies.
    pub(crate) fn range(&self, page: PageId) -> Range<u64> {
        byte_range(&self.pages(page.row_group, page.leaf as usize)[page.page as usize])
    }

    /// The rows of a page, within its row group.
    pub(crate) fn page_rows(&self, page: PageId) -> Range<usize> {
        let pages = self.pages(page.row_group, page.leaf as usize);
        let next = pages.get(page.page as usize + 1);
        first_row(&pages[page.page as usize])..next.map_or_else(|| self.rows(page.row_group), first_row)
    }

    /// Where the dictionary of a leaf lies, if it has one.
    pub(crate) fn dictionary(&self, row_group: u32, leaf: usize) -> Option<Range<u64>> {
        let chunk = self.metadata().row_group(row_group as usize).column(leaf);
        let start = u64::try_from(chunk.dictionary_page_offset()?).ok()?;
        let end = byte_range(self.pages(row_group, leaf).first()?).start;
        (start < end).then_some(start..end)
    }
}

impl Weighed for Footer {
    fn bytes(&self) -> usize {
        self.metadata().memory_size() + self.checksums.byte_len()
    }
}

fn group_rows(metadata: &ParquetMetaData, row_group: usize) -> usize {
    usize::try_from(metadata.row_group(row_group).num_rows()).unwrap_or(0)
}

fn page_locations(metadata: &ParquetMetaData, row_group: usize, leaf: usize) -> &[PageLocation] {
    let pages = metadata.page_index().and_then(|index| index.page_locations(row_group, leaf));
    pages.map(Vec::as_slice).unwrap_or_default()
}

fn first_row(page: &PageLocation) -> usize {
    usize::try_from(page.first_row_index).unwrap_or(0)
}

fn byte_range(page: &PageLocation) -> Range<u64> {
    let start = u64::try_from(page.offset).unwrap_or(0);
    start..start.saturating_add(u64::try_from(page.compressed_page_size).unwrap_or(0))
}

/// Checks that the pages of each leaf cover its rows in order and lie within the file.
fn check_pages(metadata: &ParquetMetaData, leaves: &Leaves, size: u64) -> Result<(), ShapeError> {
    for row_group in 0..metadata.num_row_groups() {
        let rows = group_rows(metadata, row_group);
        for leaf in leaves.all() {
            let pages = page_locations(metadata, row_group, leaf);
            let is_sound = rows == 0
                || (pages.first().is_some_and(|p| p.first_row_index == 0)
                    && pages.is_sorted_by(|a, b| a.first_row_index < b.first_row_index)
                    && pages.last().is_some_and(|p| first_row(p) < rows)
                    && pages.iter().all(|p| p.offset >= 0 && byte_range(p).end <= size));
            if !is_sound {
                return Err("its page index is not sound".to_owned());
            }
        }
    }
    Ok(())
}
