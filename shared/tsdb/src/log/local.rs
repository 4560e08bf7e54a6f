//! A log in files on this machine: `wal/<log>/<first segment, 20 digits>`, several segments to a file.
//!
//! Invariants:
//! - a file is made durable in its folder before anything in it is acknowledged;
//! - nothing is written after a failed write or sync: what the disk holds then is unknown, so the log is over;
//! - a file is removed only when every segment in it is below a floor that a durable header carries.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use model::Timestamp;
use ulid::Ulid;

use super::segment::{HEADER_BYTES, Header, Role};
use super::{Done, Writer};
use crate::disk::{self, sync_folder};
use crate::error::{Error, Result};
use crate::faults::or_fault;

/// The name of the file that a process holds locked as long as it works in the folder.
pub(crate) const LOCK_FILE: &str = "lock";

/// The writing end of a log; there is one in the log's life.
#[derive(Debug)]
pub(crate) struct LocalLog {
    folder: PathBuf,
    id: Ulid,
    nonce: u128,
    files: Vec<LogFile>,
    file: File,
    file_bytes_max: u64,
    /// The next segment begins a file.
    starts_file: bool,
    next_seq: u64,
    floor: u64,
    /// Floors that durable headers carry, with the time since when; ascending.
    durable_floors: Vec<(u64, Timestamp)>,
    ended: Option<String>,
    /// Until the log is abandoned.
    lock: Option<File>,
}

#[derive(Debug)]
struct LogFile {
    first: u64,
    path: PathBuf,
    bytes: u64,
}

impl LocalLog {
    /// Creates the log and its birth record; where that fails, nothing is left of it.
    pub(crate) fn create(wal: &Path, id: Ulid, nonce: u128, file_bytes_max: u64) -> Result<Self> {
        let folder = wal.join(id.to_string());
        disk::create_folder(&folder)?;
        let created = Self::create_in(wal, folder.clone(), id, nonce, file_bytes_max);
        if created.is_err() {
            // Otherwise the next start removes it: it has acknowledged nothing.
            drop(disk::remove_folder(&folder));
        }
        created
    }

    fn create_in(wal: &Path, folder: PathBuf, id: Ulid, nonce: u128, file_bytes_max: u64) -> Result<Self> {
        sync_folder(wal)?;
        let lock = lock(&folder)?;
        let file = create_file(&folder, 0)?;
        let first = LogFile { first: 0, path: file_path(&folder, 0), bytes: 0 };
        let mut log = Self {
            folder,
            id,
            nonce,
            files: vec![first],
            file,
            file_bytes_max,
            starts_file: false,
            next_seq: 0,
            floor: 0,
            durable_floors: Vec::new(),
            ended: None,
            lock: Some(lock),
        };
        log.append(Role::Birth, &[], Timestamp(0))?;
        Ok(log)
    }

    /// Writes a segment and returns its number once it is durable.
    ///
    /// # Errors
    /// Any failure ends the log.
    pub(crate) fn append(&mut self, role: Role, payload: &[u8], now: Timestamp) -> Result<u64> {
        if let Some(reason) = &self.ended {
            return Err(Error::LogEnded { log: self.id.to_string(), reason: reason.clone() });
        }
        let written = self.write(role, payload);
        match &written {
            Ok(_) => {
                if self.durable_floors.last().is_none_or(|(floor, _)| *floor < self.floor) {
                    self.durable_floors.push((self.floor, now));
                }
                if role == Role::Seal {
                    self.ended = Some("it was sealed".to_owned());
                }
            }
            Err(error) => self.ended = Some(error.to_string()),
        }
        written
    }

    fn write(&mut self, role: Role, payload: &[u8]) -> Result<u64> {
        let seq = self.next_seq;
        let is_full = self.files.last().is_some_and(|f| f.bytes >= self.file_bytes_max);
        let is_begun = self.files.last().is_some_and(|f| f.bytes > 0);
        if is_begun && (self.starts_file || is_full) {
            self.file = create_file(&self.folder, seq)?;
            self.files.push(LogFile { first: seq, path: file_path(&self.folder, seq), bytes: 0 });
        }
        self.starts_file = false;
        let header = Header {
            role,
            log: self.id,
            seq,
            nonce: self.nonce,
            floor: self.floor,
            acknowledged: seq.saturating_sub(1),
            payload_bytes: payload.len() as u64,
        };
        let file = self.files.last_mut().expect("a log has a file");
        let path = &file.path;
        disk::write(&mut self.file, path, &header.encode())?;
        disk::write(&mut self.file, path, payload)?;
        or_fault!(NoSync, disk::sync(&self.file, path)?, ());
        file.bytes += (HEADER_BYTES + payload.len()) as u64;
        self.next_seq += 1;
        Ok(seq)
    }
}

impl Writer for LocalLog {
    fn id(&self) -> Ulid {
        self.id
    }

    fn last_seq(&self) -> u64 {
        self.next_seq.saturating_sub(1)
    }

    fn submit(&mut self, role: Role, payload: &[u8], now: Timestamp, done: Done) {
        done(self.append(role, payload, now).map(drop));
    }

    /// Makes the next segment begin a file, so that the files before it can go once they are not needed.
    fn start_part(&mut self) {
        self.starts_file = true;
    }

    fn set_floor(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
    }

    fn remove_unneeded(&mut self, before: Timestamp) -> Result<()> {
        let floor = self.durable_floors.iter().rev().find(|(_, since)| *since <= before).map_or(0, |f| f.0);
        while self.files.len() > 1 && self.files[1].first <= floor {
            let path = self.files.remove(0).path;
            disk::remove_file(&path)?;
        }
        Ok(())
    }

    fn abandon(&mut self) {
        self.ended.get_or_insert_with(|| "it was closed".to_owned());
        self.lock = None;
    }

    fn hindrance(&self) -> Option<String> {
        // What a disk refuses ends the log.
        None
    }

    fn byte_len(&self) -> u64 {
        self.files.iter().map(|f| f.bytes).sum()
    }
}

/// Ends a log whose writer is gone: cuts off a torn end and writes a seal behind it.
pub(crate) fn seal(folder: &Path, id: Ulid, last: &Header, torn: Option<&(PathBuf, u64)>) -> Result<()> {
    if let Some((path, length)) = torn {
        disk::cut(path, *length)?;
    }
    let seq = last.seq + 1;
    let header = Header {
        role: Role::Seal,
        log: id,
        seq,
        nonce: last.nonce,
        floor: last.floor,
        acknowledged: last.acknowledged,
        payload_bytes: 0,
    };
    let path = file_path(folder, seq);
    // A torn file of this name was cut to nothing above.
    let mut file = disk::open_to_append(&path)?;
    disk::write(&mut file, &path, &header.encode())?;
    disk::sync(&file, &path)?;
    sync_folder(folder)
}

/// Refuses the folder of a log that was written as objects: its segments may still be wanted there.
///
/// # Errors
/// [`Error::Invalid`].
pub(crate) fn check_is_local(folder: &Path) -> Result<()> {
    let is_empty = fs::read_dir(folder).map_err(Error::io("list log", folder))?.next().is_none();
    if is_empty || folder.join(LOCK_FILE).exists() {
        return Ok(());
    }
    let folder = folder.display();
    Err(Error::Invalid(format!("{folder}: this log was kept in an object store, give its place as one")))
}

/// Locks a folder for as long as the file is held.
///
/// # Errors
/// [`Error::Locked`] when another process has it.
pub(crate) fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK_FILE);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(Error::io("open lock", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked(path)),
        Err(TryLockError::Error(source)) => Err(Error::Io { attempt: "lock", path, source }),
    }
}

pub(crate) fn file_path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}"))
}

fn create_file(folder: &Path, first: u64) -> Result<File> {
    let path = file_path(folder, first);
    let file = disk::create_file(&path)?;
    or_fault!(NoFolderSync, sync_folder(folder)?, ());
    Ok(file)
}

#[cfg(test)]
mod tests;
