//! Files, read at places: a piece ahead, since what is wanted next mostly follows.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::decoder::Decoder;
use crate::error::{Error, Result};

/// Bytes that are read at a time.
const AHEAD_BYTES: usize = 1 << 20;
/// A varint is not longer.
const VARINT_BYTES_MAX: u64 = 10;
/// Bytes of a checksum.
const CRC_BYTES: u64 = 4;

/// A file and the piece of it that was read last.
#[derive(Debug)]
pub(crate) struct Window {
    path: PathBuf,
    file: File,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let length = file.metadata().map_err(Error::io("open", path))?.len();
        Ok(Self { path: path.to_owned(), file, length, start: 0, bytes: Vec::new() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    /// The bytes at a place.
    pub(crate) fn get(&mut self, offset: u64, count: u64) -> Result<&[u8]> {
        let end = offset.checked_add(count).filter(|end| *end <= self.length);
        let end = end.ok_or_else(|| self.damaged(format!("it ends before byte {offset} + {count}")))?;
        if offset < self.start || end > self.start + self.bytes.len() as u64 {
            let left = usize::try_from(self.length - offset).unwrap_or(usize::MAX);
            let wanted = usize::try_from(count).unwrap_or(usize::MAX).max(AHEAD_BYTES.min(left));
            self.bytes.clear();
            self.bytes.resize(wanted, 0);
            self.start = offset;
            let read = self.file.read_exact_at(&mut self.bytes, offset);
            read.map_err(|source| {
                self.bytes.clear();
                Error::io("read", &self.path)(source)
            })?;
        }
        let from = usize::try_from(offset - self.start).expect("within what was read");
        let count = usize::try_from(count).expect("within what was read");
        Ok(&self.bytes[from..from + count])
    }

    /// A varint at a place, and where what follows begins.
    pub(crate) fn uvarint(&mut self, offset: u64) -> Result<(u64, u64)> {
        let count = VARINT_BYTES_MAX.min(self.length.saturating_sub(offset));
        let mut decoder = Decoder(self.get(offset, count)?);
        let value = decoder.uvarint();
        let after = offset + count - decoder.0.len() as u64;
        let value = value.map_err(|_| self.damaged(format!("no length stands at byte {offset}")))?;
        Ok((value, after))
    }

    /// The bytes at a place behind which their checksum stands; `first` is the place where what was summed up begins.
    pub(crate) fn checked(&mut self, first: u64, end: u64) -> Result<&[u8]> {
        let count = end.checked_sub(first).and_then(|n| n.checked_add(CRC_BYTES));
        let count = count.ok_or_else(|| self.damaged(format!("a length at byte {first} is too large")))?;
        let bytes = self.get(first, count)?;
        let (body, crc) = bytes.split_at(bytes.len() - 4);
        if crc != crc32c::crc32c(body).to_be_bytes() {
            return Err(self.damaged(format!("the checksum of what stands at byte {first} is wrong")));
        }
        // Once more, for the compiler: it is in memory.
        Ok(&self.get(first, count)?[..usize::try_from(count - CRC_BYTES).expect("as long as what was read")])
    }

    pub(crate) fn damaged(&self, reason: impl Into<String>) -> Error {
        Error::damaged(&self.path, reason)
    }
}
