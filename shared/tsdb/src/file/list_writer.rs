//! Writes the pages of a column of lists of numbers.
//!
//! Samples are nearly all there is in a file, so that their pages are not left to the `parquet` crate: how numbers are
//! laid out is chosen row by row ([`super::deltas`]), and how doubles are, page by page; and a page ends by what it holds,
//! so that rows which leave the column empty take hardly any. What comes out is plain Parquet of the same encodings.

use arrow::array::{Array, AsArray, ListArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{Float64Type, Int64Type};
use bytes::Bytes;
use parquet::basic::{Compression, Encoding, Type, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageWriter as _};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, OffsetIndexBuilder};
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

use super::arrays::list_range;
use super::deltas::{put_varint, write_deltas};
use super::schema::PAGE_ROWS;

/// Definition levels of a list column.
const NULL_LIST: u8 = 0;
const EMPTY_LIST: u8 = 1;
const NULL_ELEMENT: u8 = 2;
const ELEMENT: u8 = 3;

/// A column of lists under construction, within one row group.
pub(crate) struct ListWriter {
    leaf: ColumnDescPtr,
    page_elements: usize,
    level: ZstdLevel,
    zstd: zstd::bulk::Compressor<'static>,
    page: OpenPage,
    /// The pages that are finished.
    pages: TrackedWrite<Vec<u8>>,
    offsets: OffsetIndexBuilder,
    encodings: Vec<Encoding>,
    rows: usize,
    /// Elements, and lists without any.
    values: usize,
    /// Of the pages, decompressed, with their headers.
    bytes: usize,
}

/// The rows since the last page.
#[derive(Default)]
struct OpenPage {
    rows: usize,
    /// Elements, null ones included.
    elements: usize,
    /// Elements, and lists without any.
    values: usize,
    repetitions: Levels,
    definitions: Levels,
    ints: Vec<i64>,
    /// Where each row's integers end.
    ends: Vec<usize>,
    doubles: Vec<f64>,
}

impl ListWriter {
    /// Says whether a column holds lists of 64-bit numbers, which is what can be written.
    pub(crate) fn takes(leaf: &ColumnDescPtr) -> bool {
        let is_list = matches!(leaf.path().parts(), [_, list, _] if list == "list");
        let has_nulls = leaf.max_def_level() == i16::from(ELEMENT);
        is_list && has_nulls && matches!(leaf.physical_type(), Type::INT64 | Type::DOUBLE)
    }

    /// Begins a column, of which a page ends when it has this many elements.
    pub(crate) fn new(leaf: ColumnDescPtr, page_elements: usize, level: ZstdLevel) -> Result<Self> {
        Ok(Self {
            leaf,
            page_elements,
            level,
            zstd: zstd::bulk::Compressor::new(level.compression_level())?,
            page: OpenPage::default(),
            pages: TrackedWrite::new(Vec::new()),
            offsets: OffsetIndexBuilder::new(),
            encodings: vec![Encoding::RLE],
            rows: 0,
            values: 0,
            bytes: 0,
        })
    }

    /// Adds rows.
    pub(crate) fn write(&mut self, lists: &ListArray) -> Result<()> {
        for row in 0..lists.len() {
            self.page.push(lists, row)?;
            if self.page.elements >= self.page_elements || self.page.rows == PAGE_ROWS {
                self.finish_page()?;
            }
        }
        Ok(())
    }

    fn finish_page(&mut self) -> Result<()> {
        let page = std::mem::take(&mut self.page);
        let head = [page.repetitions.finish()?, page.definitions.finish()?].concat();
        let mut best: Option<(Encoding, usize, Vec<u8>)> = None;
        for encoding in self.candidates() {
            let mut body = head.clone();
            match encoding {
                Encoding::DELTA_BINARY_PACKED => write_deltas(&page.ints, &page.ends, &mut body),
                Encoding::PLAIN => body.extend(page.doubles.iter().flat_map(|x| x.to_le_bytes())),
                _ => split_streams(&page.doubles, &mut body),
            }
            let compressed = self.zstd.compress(&body)?;
            if best.as_ref().is_none_or(|(_, _, least)| compressed.len() < least.len()) {
                best = Some((*encoding, body.len(), compressed));
            }
        }
        let (encoding, bytes, compressed) = best.ok_or_else(|| general("a column without an encoding"))?;
        let data = Page::DataPage {
            buf: compressed.into(),
            num_values: u32::try_from(page.values).map_err(|_| general("a page of too many values"))?,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        let written =
            SerializedPageWriter::new(&mut self.pages).write_page(CompressedPage::new(data, bytes))?;
        let too_long = |_| general("a page of too many bytes");
        let (offset, length) = (
            i64::try_from(written.offset).map_err(too_long)?,
            i32::try_from(written.compressed_size).map_err(too_long)?,
        );
        self.offsets.append_offset_and_size(offset, length);
        self.offsets.append_row_count(signed(page.rows));
        if !self.encodings.contains(&encoding) {
            self.encodings.push(encoding);
        }
        self.rows += page.rows;
        self.values += page.values;
        self.bytes += written.uncompressed_size;
        Ok(())
    }

    /// The encodings of which a page takes the one that makes it smallest.
    fn candidates(&self) -> &'static [Encoding] {
        match self.leaf.physical_type() {
            Type::INT64 => &[Encoding::DELTA_BINARY_PACKED],
            // Values that come again are found where they lie together, noise where its bytes lie apart.
            _ => &[Encoding::BYTE_STREAM_SPLIT, Encoding::PLAIN],
        }
    }

    /// Ends the column: its pages, and what the footer says of it.
    pub(crate) fn finish(mut self) -> Result<(Bytes, ColumnCloseResult)> {
        if self.page.rows > 0 {
            self.finish_page()?;
        }
        let pages = Bytes::from(self.pages.into_inner()?);
        let metadata = ColumnChunkMetaData::builder(self.leaf)
            .set_compression(Compression::ZSTD(self.level))
            .set_encodings(self.encodings)
            .set_num_values(signed(self.values))
            .set_total_compressed_size(signed(pages.len()))
            .set_total_uncompressed_size(signed(self.bytes))
            .set_data_page_offset(0)
            .build()?;
        let close = ColumnCloseResult {
            bytes_written: pages.len() as u64,
            rows_written: self.rows as u64,
            metadata,
            bloom_filter: None,
            column_index: None,
            offset_index: Some(self.offsets.build()),
        };
        Ok((pages, close))
    }
}

impl OpenPage {
    fn push(&mut self, lists: &ListArray, row: usize) -> Result<()> {
        let range = list_range(lists, row);
        self.rows += 1;
        self.elements += range.len();
        self.values += range.len().max(1);
        self.repetitions.push(0, 1);
        if range.is_empty() {
            self.definitions.push(if lists.is_null(row) { NULL_LIST } else { EMPTY_LIST }, 1);
            return Ok(());
        }
        self.repetitions.push(1, range.len() - 1);
        let elements = lists.values();
        let nulls = elements.nulls().map(|nulls| nulls.slice(range.start, range.len()));
        let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
        match &nulls {
            None => self.definitions.push(ELEMENT, range.len()),
            Some(nulls) => nulls
                .iter()
                .for_each(|is_there| self.definitions.push(if is_there { ELEMENT } else { NULL_ELEMENT }, 1)),
        }
        if let Some(ints) = elements.as_primitive_opt::<Int64Type>() {
            extend(&mut self.ints, &ints.values()[range], nulls.as_ref());
            self.ends.push(self.ints.len());
        } else if let Some(doubles) = elements.as_primitive_opt::<Float64Type>() {
            extend(&mut self.doubles, &doubles.values()[range], nulls.as_ref());
        } else {
            return Err(general("a list of another type than its column"));
        }
        Ok(())
    }
}

/// Appends the values that are there.
fn extend<T: Copy>(into: &mut Vec<T>, values: &[T], nulls: Option<&NullBuffer>) {
    match nulls {
        None => into.extend_from_slice(values),
        Some(nulls) => into.extend(nulls.valid_indices().map(|i| values[i])),
    }
}

/// Levels as runs of equal ones.
#[derive(Default)]
struct Levels {
    bytes: Vec<u8>,
    level: u8,
    count: usize,
}

impl Levels {
    fn push(&mut self, level: u8, count: usize) {
        if level != self.level && count > 0 {
            self.end_run();
            self.level = level;
        }
        self.count += count;
    }

    fn end_run(&mut self) {
        if self.count > 0 {
            put_varint((self.count as u64) << 1, &mut self.bytes);
            self.bytes.push(self.level);
            self.count = 0;
        }
    }

    /// The runs after their length in bytes, as a page of version 1 has them.
    fn finish(mut self) -> Result<Vec<u8>> {
        self.end_run();
        let length = u32::try_from(self.bytes.len()).map_err(|_| general("a page of too many levels"))?;
        Ok([&length.to_le_bytes()[..], &self.bytes].concat())
    }
}

/// Appends doubles with their bytes apart: all first ones, all second ones, and so on.
fn split_streams(doubles: &[f64], into: &mut Vec<u8>) {
    for k in 0..size_of::<f64>() {
        into.extend(doubles.iter().map(|x| x.to_le_bytes()[k]));
    }
}

fn signed(size: usize) -> i64 {
    i64::try_from(size).expect("it is in memory")
}

fn general(message: &str) -> ParquetError {
    ParquetError::General(message.to_owned())
}
