//! Reads a log back, one segment in memory at a time.
//!
//! What cannot be read is told apart by what follows it. Nothing valid follows: it is the torn end of a log whose writer
//! died, and was never acknowledged. Something follows: it is damage, which is reported, passed over and counted.
//! Segments of which there is not even a damaged trace are a gap, and a gap in what was acknowledged is an error.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use ulid::Ulid;

use super::record::{self, Record};
use super::segment::{HEADER_BYTES, Header, RawRecord, RawRecords, Role};
use crate::error::{Error, Result};

/// What was found in a log.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    /// The last segment that is there; `None` when there is none at all.
    pub(crate) last: Option<Header>,
    /// True when the log was sealed before.
    pub(crate) is_sealed: bool,
    /// The torn end: the file and the length of what is valid in it.
    pub(crate) torn: Option<(PathBuf, u64)>,
    /// Damaged places: where, and what is wrong.
    pub(crate) damages: Vec<String>,
    /// What cannot be read at the end of a log that is not sealed, the torn end among it.
    pub(crate) unread_end: Vec<String>,
    /// Bytes of all files.
    pub(crate) bytes: u64,
}

impl Summary {
    /// The last segment that may hold records.
    pub(crate) fn last_data_seq(&self) -> u64 {
        self.last.map_or(0, |h| if h.role == Role::Seal { h.seq.saturating_sub(1) } else { h.seq })
    }
}

/// Reads every segment from `from` on and hands its records to `on_record` in order.
///
/// # Errors
/// [`Error::Gap`] when segments at or above `from` (and the log's own floor) are missing although they were
/// acknowledged.
pub(crate) fn read(
    folder: &Path,
    id: Ulid,
    from: u64,
    mut on_record: impl FnMut(u64, Record) -> Result<()>,
) -> Result<Summary> {
    let mut scan = Scan {
        id,
        from,
        next: 0,
        gaps: Vec::new(),
        pending: Vec::new(),
        passed_over: 0,
        summary: Summary::default(),
    };
    for path in log_files(folder)? {
        if scan.summary.is_sealed {
            break;
        }
        scan.read_file(&path, &mut on_record)?;
    }
    scan.finish()
}

/// The files of a log in order.
fn log_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("list log", folder))? {
        let entry = entry.map_err(Error::io("list log", folder))?;
        let name = entry.file_name();
        let is_log_file =
            name.to_str().is_some_and(|n| n.len() == 20 && n.bytes().all(|b| b.is_ascii_digit()));
        if is_log_file {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

struct Scan {
    id: Ulid,
    from: u64,
    /// The segment that comes next if none is missing.
    next: u64,
    gaps: Vec<(u64, u64)>,
    /// Damage after which nothing valid has been seen yet.
    pending: Vec<String>,
    /// How many segments the bytes passed over can have been.
    passed_over: u64,
    summary: Summary,
}

impl Scan {
    fn read_file(
        &mut self,
        path: &Path,
        on_record: &mut impl FnMut(u64, Record) -> Result<()>,
    ) -> Result<()> {
        let mut file = File::open(path).map_err(Error::io("open log", path))?;
        let length = file.metadata().map_err(Error::io("open log", path))?.len();
        self.summary.bytes += length;
        let mut at = 0;
        let mut payload = Vec::new();
        while at < length && !self.summary.is_sealed {
            let header = read_header(&mut file, path, at)?;
            let Some(header) = header.filter(|h| self.is_next(h, length - at)) else {
                let found = self.find_header(&mut file, path, at + 1, length)?;
                let end = found.unwrap_or(length);
                self.pending.push(format!("{} bytes {at} to {end}: not a segment", path.display()));
                // A file cut short in the middle of a segment has lost this one and, unseen, those behind it.
                self.passed_over +=
                    if header.is_some() { 1 } else { (end - at).div_ceil(HEADER_BYTES as u64) };
                if found.is_none() {
                    self.summary.torn = Some((path.to_owned(), at));
                }
                at = end;
                continue;
            };
            payload.resize(usize::try_from(header.payload_bytes).unwrap_or(usize::MAX), 0);
            file.read_exact(&mut payload).map_err(Error::io("read log", path))?;
            self.take_segment(&header, &payload, path, on_record)?;
            at += HEADER_BYTES as u64 + header.payload_bytes;
        }
        Ok(())
    }

    /// Says whether a header can stand here: of this log, later than all before it, and wholly in the file.
    fn is_next(&self, header: &Header, bytes_left: u64) -> bool {
        let fits =
            bytes_left.checked_sub(HEADER_BYTES as u64).is_some_and(|left| header.payload_bytes <= left);
        header.log == self.id && header.seq >= self.next && fits
    }

    fn take_segment(
        &mut self,
        header: &Header,
        payload: &[u8],
        path: &Path,
        on_record: &mut impl FnMut(u64, Record) -> Result<()>,
    ) -> Result<()> {
        if header.seq - self.next > self.passed_over {
            self.gaps.push((self.next, header.seq - 1));
        }
        self.passed_over = 0;
        self.next = header.seq + 1;
        self.summary.last = Some(*header);
        if header.role == Role::Seal {
            self.summary.is_sealed = true;
            return Ok(());
        }
        // A valid header follows what was damaged before it.
        self.keep_damage();
        if header.seq < self.from {
            return Ok(());
        }
        for (number, raw) in RawRecords::new(payload).enumerate() {
            let decoded = match raw {
                RawRecord::Intact(body) => record::decode(body).map_err(|e| e.to_string()),
                RawRecord::Damaged => Err("its checksum does not match".to_owned()),
            };
            match decoded {
                Ok(record) => {
                    self.keep_damage();
                    on_record(header.seq, record)?;
                }
                Err(reason) => {
                    let place = path.display();
                    self.pending.push(format!("{place} segment {} record {number}: {reason}", header.seq));
                }
            }
        }
        Ok(())
    }

    fn keep_damage(&mut self) {
        self.summary.damages.append(&mut self.pending);
        self.summary.torn = None;
    }

    fn finish(mut self) -> Result<Summary> {
        if self.summary.is_sealed {
            // The torn end was cut off when the seal was written: what is damaged before a seal was damaged later,
            // or was the damaged rest of the last segment.
            self.keep_damage();
        }
        self.summary.unread_end = self.pending;
        let (acknowledged, floor) = self.summary.last.map_or((0, 0), |h| (h.acknowledged, h.floor));
        for (from, to) in &self.gaps {
            let is_needed = *to >= self.from.max(floor);
            if is_needed && *from <= acknowledged {
                let log = self.id.to_string();
                return Err(Error::Gap { log, from: *from, to: *to, acknowledged });
            }
        }
        Ok(self.summary)
    }

    /// Finds the next valid header at or after `at`.
    fn find_header(&self, file: &mut File, path: &Path, at: u64, length: u64) -> Result<Option<u64>> {
        let mut rest = Vec::new();
        file.seek(SeekFrom::Start(at)).map_err(Error::io("read log", path))?;
        file.read_to_end(&mut rest).map_err(Error::io("read log", path))?;
        let is_header = |i: &usize| {
            Header::decode(&rest[*i..]).is_some_and(|h| self.is_next(&h, length - at - *i as u64))
        };
        Ok((0..rest.len()).find(is_header).map(|i| at + i as u64))
    }
}

fn read_header(file: &mut File, path: &Path, at: u64) -> Result<Option<Header>> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    file.seek(SeekFrom::Start(at)).map_err(Error::io("read log", path))?;
    file.take(HEADER_BYTES as u64).read_to_end(&mut bytes).map_err(Error::io("read log", path))?;
    Ok(Header::decode(&bytes))
}
