//! Checksums of a file's pages: a damaged page is told apart from a sound one before anything is decoded from it.
//!
//! Parquet has a place for them in the header of a page, which the writer that we use leaves empty, so they stand in
//! the footer, whose own checksum the catalogue has: see [`super`]. Files without this entry are read unchecked.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};

use super::arrays::ShapeError;
use super::page::page_length;

/// What the entry in the footer is called.
pub(crate) const PAGE_CHECKSUMS_KEY: &str = "tributary.page_crc32c";

/// What the footer says about pages.
#[derive(Debug, Default)]
pub(crate) struct Checksums(Vec<Page>);

#[derive(Debug)]
struct Page {
    range: Range<u64>,
    crc: u32,
}

impl Checksums {
    /// Reads the entry of a footer.
    pub(crate) fn read(metadata: &ParquetMetaData) -> Result<Self, ShapeError> {
        let entries = metadata.file_metadata().key_value_metadata();
        let Some(text) = entries
            .and_then(|all| all.iter().find(|entry| entry.key == PAGE_CHECKSUMS_KEY))
            .and_then(|entry| entry.value.as_deref())
        else {
            return Ok(Self::default());
        };
        let bytes = STANDARD.decode(text).map_err(|e| format!("the checksums of its pages: {e}"))?;
        let ranges = pages(metadata);
        if bytes.len() != 4 * ranges.len() {
            return Err(format!("{} bytes of checksums for {} pages", bytes.len(), ranges.len()));
        }
        let crcs = bytes.chunks_exact(4).map(|four| u32::from_le_bytes(four.try_into().expect("four bytes")));
        let mut all: Vec<Page> =
            ranges.into_iter().zip(crcs).map(|(range, crc)| Page { range, crc }).collect();
        all.sort_unstable_by_key(|page| page.range.start);
        Ok(Self(all))
    }

    /// Checks the pages in bytes of the file that begin at `start`.
    pub(crate) fn check(&self, start: u64, bytes: &[u8]) -> Result<(), ShapeError> {
        let end = start + bytes.len() as u64;
        let first = self.0.partition_point(|page| page.range.start < start);
        for Page { range, crc } in self.0[first..].iter().take_while(|page| page.range.end <= end) {
            let at = |offset: u64| usize::try_from(offset - start).expect("the bytes are in memory");
            if crc32c::crc32c(&bytes[at(range.start)..at(range.end)]) != *crc {
                return Err(format!("the checksum of the page at byte {} is wrong", range.start));
            }
        }
        Ok(())
    }

    /// Bytes in memory.
    pub(crate) fn byte_len(&self) -> usize {
        size_of_val::<[Page]>(&self.0)
    }
}

/// Where all pages lie, in the order of their checksums.
fn pages(metadata: &ParquetMetaData) -> Vec<Range<u64>> {
    let offset = |n: i64| u64::try_from(n).unwrap_or(0);
    let mut all = Vec::new();
    for (row_group, columns) in metadata.row_groups().iter().enumerate() {
        for (leaf, chunk) in columns.columns().iter().enumerate() {
            let locations = metadata.page_index().and_then(|index| index.page_locations(row_group, leaf));
            let locations = locations.map(Vec::as_slice).unwrap_or_default();
            let start = chunk.byte_range().0;
            let dictionary = locations.first().map(|first| start..offset(first.offset));
            all.extend(dictionary.filter(|range| !range.is_empty()));
            all.extend(locations.iter().map(|page| {
                let start = offset(page.offset);
                start..start.saturating_add(u64::try_from(page.compressed_page_size).unwrap_or(0))
            }));
        }
    }
    all
}

/// Makes the entry for a file of which all row groups are written.
pub(crate) fn entry(file: &[u8], row_groups: &[RowGroupMetaData]) -> Result<String, ShapeError> {
    let mut crcs = Vec::new();
    for chunk in row_groups.iter().flat_map(RowGroupMetaData::columns) {
        let (start, length) = chunk.byte_range();
        let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let mut rest =
            file.get(at(start)..at(start + length)).ok_or("a column beyond the end of the file")?;
        while !rest.is_empty() {
            let (page, others) = rest.split_at_checked(page_length(rest)?).ok_or("a page is cut short")?;
            crcs.extend_from_slice(&crc32c::crc32c(page).to_le_bytes());
            rest = others;
        }
    }
    Ok(STANDARD.encode(crcs))
}
