//! Segments of Prometheus's write-ahead logs: records cut into pages of 32 KiB, each piece with a checksum.

use std::fs::{self, File};
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

const PAGE_BYTES: usize = 32 << 10;
/// The kind of a piece, its length and its checksum.
const HEADER_BYTES: usize = 7;
const KIND_MASK: u8 = 0b0000_0111;
const SNAPPY: u8 = 0b0000_1000;
const ZSTD: u8 = 0b0001_0000;
/// A record longer than this is not one of Prometheus's.
const RECORD_BYTES_MAX: usize = 512 << 20;

/// The kinds of pieces.
mod piece {
    pub(super) const NOTHING: u8 = 0;
    pub(super) const WHOLE: u8 = 1;
    pub(super) const FIRST: u8 = 2;
    pub(super) const MIDDLE: u8 = 3;
    pub(super) const LAST: u8 = 4;
}

/// Lists the segments of a folder by number; none where the folder is missing.
pub(crate) fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    numbered(folder, |name| name.parse().ok())
}

/// Lists what has a number in a folder.
pub(crate) fn numbered(folder: &Path, number: impl Fn(&str) -> Option<u64>) -> Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io("list", folder))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("list", folder))?;
        found.extend(entry.file_name().to_str().and_then(&number).map(|n| (n, entry.path())));
    }
    found.sort();
    Ok(found)
}

/// How the end of a segment may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// As the server that wrote it left it: whole.
    Whole,
    /// It may have been cut off by a crash.
    Torn,
}

/// Hands each record of a segment to `take`; returns early with what that fails with.
///
/// # Errors
/// [`Error::Damaged`] when a piece is damaged: what follows in the segment is not believed.
pub(crate) fn read(
    path: &Path,
    end: End,
    bytes_read: &AtomicU64,
    take: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut segment =
        Segment { path, file: BufReader::with_capacity(1 << 20, file), page: Vec::new(), at: 0, offset: 0 };
    let (mut record, mut unpacked) = (Vec::new(), Vec::new());
    let mut is_open = false;
    while let Some((kind, bytes)) = segment.next(end, bytes_read)? {
        let offset = segment.offset + segment.at as u64;
        let is_in_place = match kind & KIND_MASK {
            piece::WHOLE | piece::FIRST => !is_open,
            piece::MIDDLE | piece::LAST => is_open,
            _ => false,
        };
        if !is_in_place || record.len() + bytes.len() > RECORD_BYTES_MAX {
            return Err(Error::damaged(
                path,
                format!("a piece of a record before byte {offset} is out of place"),
            ));
        }
        record.extend_from_slice(&bytes);
        is_open = matches!(kind & KIND_MASK, piece::FIRST | piece::MIDDLE);
        if is_open {
            continue;
        }
        let packed =
            |reason: String| Error::damaged(path, format!("the record before byte {offset}: {reason}"));
        if kind & SNAPPY != 0 {
            unpack_snappy(&record, &mut unpacked).map_err(packed)?;
            take(&unpacked)?;
        } else if kind & ZSTD != 0 {
            unpack_zstd(&record, &mut unpacked).map_err(packed)?;
            take(&unpacked)?;
        } else {
            take(&record)?;
        }
        record.clear();
    }
    if is_open && end == End::Whole {
        return Err(Error::damaged(path, "it ends within a record"));
    }
    Ok(())
}

fn unpack_snappy(packed: &[u8], into: &mut Vec<u8>) -> Result<(), String> {
    let length = snap::raw::decompress_len(packed).map_err(|e| e.to_string())?;
    if length > RECORD_BYTES_MAX {
        return Err(format!("{length} bytes are too many"));
    }
    into.resize(length, 0);
    let length = snap::raw::Decoder::new().decompress(packed, into).map_err(|e| e.to_string())?;
    into.truncate(length);
    Ok(())
}

fn unpack_zstd(packed: &[u8], into: &mut Vec<u8>) -> Result<(), String> {
    into.clear();
    let decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(|e| e.to_string())?;
    let read = decoder.take(RECORD_BYTES_MAX as u64 + 1).read_to_end(into).map_err(|e| e.to_string())?;
    if read > RECORD_BYTES_MAX { Err("it is too long".to_owned()) } else { Ok(()) }
}

/// A segment that is being read.
struct Segment<'a> {
    path: &'a Path,
    file: BufReader<File>,
    page: Vec<u8>,
    /// Where the next piece begins in the page.
    at: usize,
    /// Where the page begins in the file.
    offset: u64,
}

impl Segment<'_> {
    /// The next piece: the byte that tells its kind, and its bytes.
    fn next(&mut self, end: End, bytes_read: &AtomicU64) -> Result<Option<(u8, Vec<u8>)>> {
        loop {
            if self.at == self.page.len() && !self.turn(bytes_read)? {
                return Ok(None);
            }
            let page = &self.page[self.at..];
            if page[0] & KIND_MASK == piece::NOTHING {
                if page.iter().any(|b| *b != 0) {
                    return Err(self.damaged("what fills the page is not zero"));
                }
                self.at = self.page.len();
                continue;
            }
            let is_last_page = self.page.len() < PAGE_BYTES;
            let header = page.split_first_chunk::<HEADER_BYTES>();
            let piece = header.and_then(|(h, rest)| {
                let length = usize::from(u16::from_be_bytes([h[1], h[2]]));
                Some((h, rest.get(..length)?))
            });
            let Some((header, bytes)) = piece else {
                // A piece never goes on in another page: the file was cut off, or is damaged.
                return if is_last_page && end == End::Torn {
                    Ok(None)
                } else {
                    Err(self.damaged("a piece ends too early"))
                };
            };
            if header[3..] != crc32c::crc32c(bytes).to_be_bytes() {
                return Err(self.damaged("the checksum of a piece is wrong"));
            }
            let (kind, bytes) = (header[0], bytes.to_vec());
            self.at += HEADER_BYTES + bytes.len();
            return Ok(Some((kind, bytes)));
        }
    }

    /// Reads the next page; false at the end.
    fn turn(&mut self, bytes_read: &AtomicU64) -> Result<bool> {
        self.offset += self.page.len() as u64;
        self.at = 0;
        self.page.clear();
        let page = (&mut self.file).take(PAGE_BYTES as u64).read_to_end(&mut self.page);
        let count = page.map_err(Error::io("read", self.path))?;
        bytes_read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count > 0)
    }

    fn damaged(&self, reason: &str) -> Error {
        Error::damaged(self.path, format!("{reason}, at byte {}", self.offset + self.at as u64))
    }
}

#[cfg(test)]
mod tests;
