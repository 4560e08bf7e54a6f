//! Going on after the disk was full: a log that had no room for a segment has ended, and another takes its place once
//! there is room again.
//!
//! The successor has the head as it is, so that nothing is read back and reads are never interrupted. The log that has
//! ended is to it what the log of an earlier life is: sealed, and flushed as soon as that is possible.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

use super::appender::TrackUse;
use super::open::{Lives, WAL_FOLDER, new_ulid};
use super::upkeep::{Adopted, Upkeep};
use super::{Storage, lock};
use crate::error::{Error, Result};
use crate::log::local::{self, LocalLog};
use crate::log::reader;
use crate::options::LogStore;

/// With less room on the disk than this it is not worth the while to begin a log.
const ROOM_BYTES_MIN: u64 = 8 << 20;

impl Storage {
    /// Begins another log on the same disk in place of one that has failed. This storage goes on answering reads, and
    /// does nothing else from then on. Groups have to be declared again with the successor.
    ///
    /// To be repeated until it succeeds. May not be dropped midway, but at the end of the process.
    ///
    /// # Errors
    /// [`Error::NoRoom`] when the disk is still full, and what the disk says otherwise; [`Error::Invalid`] for logs in
    /// an object store, where a storage is opened instead.
    pub async fn successor(self: &Arc<Self>) -> Result<Arc<Self>> {
        let LogStore::Folder(dir) = &self.options.logs else {
            return Err(Error::Invalid("a log in an object store has no successor".to_owned()));
        };
        let wal = dir.join(WAL_FOLDER);
        check_room(&wal)?;
        // A flush under way ends first.
        let upkeep = Arc::clone(&self.upkeep).lock_owned().await;
        let storage = Arc::clone(self);
        let succeed = move || storage.succeed(&wal, upkeep);
        self.options.runtime.spawn_blocking(succeed).await.map_err(|_| Error::Worker("begin a log"))?
    }

    fn succeed(&self, wal: &Path, mut upkeep: OwnedMutexGuard<Upkeep>) -> Result<Arc<Self>> {
        let options = self.options.clone();
        self.committer.stop();
        let id = upkeep.own_id;
        let folder = wal.join(id.to_string());
        let folder_of_log = local::lock(&folder)?;
        // Its records are in memory.
        let summary = reader::read(&folder, id, u64::MAX, |_, _| Ok(()))?;
        let Some(last) = summary.last else {
            return Err(Error::Gap { log: self.log.to_string(), from: 0, to: 0, acknowledged: 0 });
        };
        if !summary.is_sealed {
            local::seal(&folder, id, &last, summary.torn.as_ref())?;
        }
        let through = summary.last_data_seq();
        let now = options.clock.now();
        let log = LocalLog::create(wal, new_ulid(now), new_ulid(now).0, options.file_bytes_max)?;

        // From here on nothing fails.
        let mut tracks = {
            let mut appender = lock(&self.appender);
            appender.is_closed = true;
            std::mem::take(&mut appender.tracks)
        };
        tracks.values_mut().for_each(|used: &mut TrackUse| {
            used.groups = 0;
            used.idle_since = now;
        });
        let generations = {
            let mut head = self.write_head();
            head.coverage.adopted.push((Arc::clone(&self.log), through));
            upkeep.own_generation..=head.generation()
        };
        let mut adopted = std::mem::take(&mut upkeep.adopted);
        // Whoever lists this storage's logs until the successor is known finds them all.
        let unflushed = adopted.iter().filter(|earlier| earlier.flushed_at.is_none());
        lock(&self.unread).extend(unflushed.map(|earlier| Arc::clone(&earlier.log)));
        adopted.push(Adopted {
            log: Arc::clone(&self.log),
            folder,
            base: upkeep.own_base,
            through,
            generations,
            is_damaged: !summary.damages.is_empty(),
            flushed_at: None,
            _lock: folder_of_log,
        });
        let lives = Lives {
            head: Arc::clone(&self.head),
            tracks,
            adopted,
            counters: Arc::clone(&self.counters),
            folder_lock: self.folder_lock.clone(),
        };
        let successor = Self::start(options, lives, Box::new(log), Duration::ZERO)?;
        *lock(&successor.drained) = std::mem::take(&mut lock(&self.drained));
        tracing::info!(log = %successor.log, before = %self.log, "began a log in place of one that had no room");
        Ok(successor)
    }
}

fn check_room(wal: &Path) -> Result<()> {
    let disk = rustix::fs::statvfs(wal).map_err(|e| Error::io("look for room in", wal)(e.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < ROOM_BYTES_MIN {
        return Err(Error::NoRoom { path: wal.to_owned(), free, wanted: ROOM_BYTES_MIN });
    }
    Ok(())
}
