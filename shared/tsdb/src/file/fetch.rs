//! Reads byte ranges of one file from the object store, in few requests.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::DecodeResult;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataPushDecoder};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

use super::checksums::Checksums;
use super::encode::Tail;
use crate::table::{Error, Result};

/// Requests for one file under way at a time.
const REQUESTS_MAX: usize = 8;
/// Ranges are not joined beyond this: several requests at a time then share a long stretch.
const JOINED_BYTES_MAX: u64 = 8 << 20;
/// Bytes read from the end of a file whose catalogue entry does not say how long its footer is.
const FOOTER_GUESS: u64 = 64 << 10;

/// One file in the store.
#[derive(Debug)]
pub(crate) struct FileSource {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
    tail: Option<Tail>,
    /// Ranges closer together than this are read as one.
    gap_max: u64,
    /// All of a file that is not longer than a gap: one request then serves every step of a query.
    whole: OnceCell<Bytes>,
}

impl FileSource {
    /// Names a file, its size in bytes, and its end where that is known. A request costs as much as reading
    /// `request_cost_bytes`.
    pub(crate) fn new(
        store: Arc<dyn ObjectStore>,
        path: Path,
        size: u64,
        tail: Option<Tail>,
        request_cost_bytes: u64,
    ) -> Self {
        Self { store, path, size, tail, gap_max: request_cost_bytes, whole: OnceCell::new() }
    }

    /// The file's path, for messages.
    pub(crate) fn name(&self) -> &str {
        self.path.as_ref()
    }

    /// Its length in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Reads ranges, in the order given; neighbours share a request.
    pub(crate) async fn fetch(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        // A decoder that met damage may ask for what the file does not have.
        if !ranges.iter().all(|r| r.start <= r.end && r.end <= self.size) {
            return Err(Error::corrupt(self.name(), "it points beyond its own end"));
        }
        if self.size <= self.gap_max {
            let whole = self.whole.get_or_try_init(|| self.get(0..self.size)).await?;
            return Ok(ranges.iter().map(|r| slice(whole, 0, r)).collect());
        }
        let merged = coalesce(ranges, self.gap_max);
        let reads = futures::stream::iter(merged.iter().cloned()).map(|range| self.get(range));
        let parts: Vec<Bytes> = reads.buffered(REQUESTS_MAX).try_collect().await?;
        Ok(ranges.iter().map(|r| slice_of(&merged, &parts, r)).collect())
    }

    /// Reads ranges as [`FileSource::fetch`] does, and checks the pages in them.
    pub(crate) async fn fetch_pages(
        &self,
        ranges: &[Range<u64>],
        checksums: &Checksums,
    ) -> Result<Vec<Bytes>> {
        let parts = self.fetch(ranges).await?;
        for (range, bytes) in ranges.iter().zip(&parts) {
            checksums.check(range.start, bytes).map_err(|reason| Error::corrupt(self.name(), reason))?;
        }
        Ok(parts)
    }

    async fn get(&self, range: Range<u64>) -> Result<Bytes> {
        let read = self.store.get_range(&self.path, range.clone()).await;
        let bytes = read.map_err(|e| match e {
            object_store::Error::NotFound { .. } => Error::Gone { path: self.name().to_owned() },
            e => Error::store(format!("read {}", self.path))(e),
        })?;
        if bytes.len() as u64 == range.end - range.start {
            Ok(bytes)
        } else {
            Err(Error::corrupt(self.name(), "the file is shorter than the catalogue says"))
        }
    }

    /// Reads footer and page index; both can be large, so they are decoded on a blocking thread.
    pub(crate) async fn metadata(&self, runtime: &Handle) -> Result<ParquetMetaData> {
        let corrupt = |e: parquet::errors::ParquetError| Error::corrupt(self.name(), e);
        let mut decoder = ParquetMetaDataPushDecoder::try_new(self.size).map_err(corrupt)?;
        let tail_bytes = self.tail.map_or(FOOTER_GUESS, |t| t.bytes);
        let tail = self.size.saturating_sub(tail_bytes)..self.size;
        let mut wanted = vec![tail];
        let mut parts = self.fetch(&wanted).await?;
        if self.tail.is_some_and(|t| crc32c::crc32c(&parts[0]) != t.crc) {
            return Err(Error::corrupt(self.name(), "the checksum of its footer is wrong"));
        }
        loop {
            decoder.push_ranges(wanted, parts).map_err(corrupt)?;
            let decoding = runtime.spawn_blocking(move || {
                let decoded = decoder.try_decode();
                (decoder, decoded)
            });
            let (returned, decoded) = decoding.await.map_err(|e| Error::stopped(self.name(), &e))?;
            decoder = returned;
            match decoded.map_err(corrupt)? {
                DecodeResult::NeedsData(ranges) => {
                    parts = self.fetch(&ranges).await?;
                    wanted = ranges;
                }
                DecodeResult::Data(metadata) => return Ok(metadata),
                DecodeResult::Finished => return Err(Error::corrupt(self.name(), "the footer has no end")),
            }
        }
    }
}

/// Joins ranges that overlap, and those that are close together up to a length, in ascending order.
fn coalesce(ranges: &[Range<u64>], gap_max: u64) -> Vec<Range<u64>> {
    let mut sorted: Vec<Range<u64>> = ranges.to_vec();
    sorted.sort_by_key(|r| r.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            Some(last)
                if range.start <= last.end.saturating_add(gap_max)
                    && range.end - last.start <= JOINED_BYTES_MAX =>
            {
                last.end = range.end;
            }
            _ => merged.push(range),
        }
    }
    merged
}

fn slice_of(merged: &[Range<u64>], parts: &[Bytes], range: &Range<u64>) -> Bytes {
    let i = merged.partition_point(|m| m.start <= range.start).saturating_sub(1);
    slice(&parts[i], merged[i].start, range)
}

/// Cuts a range of the file out of bytes that begin at `start`.
fn slice(bytes: &Bytes, start: u64, range: &Range<u64>) -> Bytes {
    let at = |offset: u64| usize::try_from(offset - start).expect("the bytes are in memory");
    bytes.slice(at(range.start)..at(range.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_ranges_are_read_as_one() {
        const GAP_MAX: u64 = 1_000;
        let far = GAP_MAX * 3;
        let ranges = [far..far + 10, 0..5, 5..8, 8 + GAP_MAX..20 + GAP_MAX, 2..4];
        let merged = coalesce(&ranges, GAP_MAX);
        assert_eq!(merged, [0..20 + GAP_MAX, far..far + 10]);
        let parts: Vec<Bytes> = merged
            .iter()
            .map(|r| (r.start..r.end).map(|i| u8::try_from(i % 251).expect("small")).collect())
            .collect();
        for range in &ranges {
            let want: Vec<u8> =
                (range.start..range.end).map(|i| u8::try_from(i % 251).expect("small")).collect();
            assert_eq!(slice_of(&merged, &parts, range), want);
        }
    }

    #[test]
    fn long_stretches_are_cut() {
        const MIB: u64 = 1 << 20;
        let ranges: Vec<Range<u64>> = (0..20).map(|i| i * MIB..i * MIB + MIB).collect();
        assert_eq!(coalesce(&ranges, 0), [0..8 * MIB, 8 * MIB..16 * MIB, 16 * MIB..20 * MIB]);
        let overlapping = [0..30 * MIB, 29 * MIB..31 * MIB, 40 * MIB..41 * MIB];
        assert_eq!(coalesce(&overlapping, 0), [0..31 * MIB, 40 * MIB..41 * MIB]);
    }
}
