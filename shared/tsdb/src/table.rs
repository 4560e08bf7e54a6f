//! The table of metrics: Parquet files and the catalogue that says which of them are live.
//!
//! A flush writes its files first ([`Table::write_files`]), where nobody sees them, and then makes them visible with
//! one commit ([`Table::commit_flush`]). Readers take a [`Snapshot`], which never changes, and select from it.
//!
//! # Invariants
//!
//! - A file holds series of one tenant and one UTC day; it is complete in the store before a commit names it.
//! - What a log flushed is in the table exactly once: the commit checks the log's last transaction.
//! - What is kept in memory of files is what the store holds: files never change under one path.
//! - A snapshot's answer is merged: each series stands once, sorted by metric name, then labels.

mod error;
mod selection;
mod snapshot;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use model::{Clock, Tenant};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tokio::runtime::Handle;

use crate::catalogue::DataFile;
use crate::catalogue::log::{DeltaLog, Flush, new_name};
use crate::faults::{or_fault, site};
use crate::file::WINDOW_MS;
use crate::file::cache::Cache;
use crate::file::encode::{EncodedFile, encode};
use crate::file::windows::{day_name, pieces_by_day};
use crate::location::{Location, Opened};
use crate::series::SeriesRow;

pub use crate::file::cache::CacheStats;
pub use crate::file::encode::{FileStats, Tail};
pub use error::{Error, Result};
pub use selection::Selection;
pub use snapshot::{SelectLimits, Snapshot};

/// Series rows of a file at most; a flush of more writes several. Bounds what one reader has to take in at once.
pub(crate) const FILE_ROWS_MAX: usize = 1 << 19;
/// A file longer than this is uploaded in parts of this length; S3 takes no parts below 5 MiB.
const PART_BYTES: usize = 8 << 20;
/// Parts of one file under way at a time.
const PARTS_AT_ONCE: usize = 4;
/// Files that are copied at a time.
const COPIES_AT_ONCE: usize = 8;

/// Where a table is and what it runs on.
#[derive(Debug, Clone)]
pub struct TableOptions {
    /// The store, which must have conditional puts; a local one should have fsync on, since a commit is believed to
    /// last.
    pub store: Arc<dyn ObjectStore>,
    /// The table's root in the store.
    pub prefix: Path,
    /// Names and dates commits and files.
    pub clock: Clock,
    /// Takes the CPU work of encoding and decoding.
    pub runtime: Handle,
    /// Bytes that the store delivers in about the time that one request takes: ranges closer together are read as
    /// one, and files of no more are read whole.
    pub request_cost_bytes: u64,
    /// Memory for what was read of files, in bytes; with 0 every read goes to the store.
    pub cache_bytes: usize,
}

/// A file that is written but not yet in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile(DataFile);

impl NewFile {
    /// What the catalogue will say about it.
    #[must_use]
    pub fn data_file(&self) -> &DataFile {
        &self.0
    }
}

/// The table of metrics.
#[derive(Debug)]
pub struct Table {
    options: TableOptions,
    log: DeltaLog,
    cache: Arc<Cache>,
    /// The version whose files the cache was last held against.
    cache_version: AtomicU64,
}

impl Table {
    /// Opens the table that lies in `metrics/` of a location, making both when they are not there. To be called within
    /// a runtime, which then takes the CPU work. Nothing is kept of what is read.
    ///
    /// # Errors
    /// As [`Table::open`].
    pub async fn open_in(location: &Location, clock: Clock) -> Result<Arc<Self>> {
        Self::open_cached_in(location, clock, 0).await
    }

    /// Opens the table as [`Table::open_in`] does, and keeps so many bytes of what is read in memory.
    ///
    /// # Errors
    /// As [`Table::open`].
    pub async fn open_cached_in(location: &Location, clock: Clock, cache_bytes: usize) -> Result<Arc<Self>> {
        let Opened { store, root, request_cost_bytes } = location.open().await?;
        let (prefix, runtime) = (root.join("metrics"), Handle::current());
        Self::open(TableOptions { store, prefix, clock, runtime, request_cost_bytes, cache_bytes }).await
    }

    /// Opens the table, creating it when there is none; several may do so at once.
    ///
    /// # Errors
    /// When the store fails, a commit cannot be understood, or the table uses features that this crate has not.
    pub async fn open(options: TableOptions) -> Result<Arc<Self>> {
        let log = DeltaLog::open(Arc::clone(&options.store), &options.prefix, options.clock.clone()).await?;
        let cache = Cache::new(options.cache_bytes);
        Ok(Arc::new(Self { options, log, cache, cache_version: AtomicU64::new(0) }))
    }

    /// Writes the rows of one flush as Parquet files, per tenant and UTC day, without making them visible.
    ///
    /// Rows must be sorted by [`crate::series::compare_labels`], each series once. Dropping the future midway, like
    /// never committing, leaves files that no commit names.
    ///
    /// # Errors
    /// When the store fails, or a row has times that no day of the calendar holds.
    pub async fn write_files(
        &self,
        log: &str,
        through: u64,
        tenants: Vec<(Tenant, Vec<SeriesRow>)>,
    ) -> Result<Vec<NewFile>> {
        let mut files = Vec::new();
        for (tenant, rows) in tenants {
            let encode = self.options.runtime.spawn_blocking(move || encode_days(&rows, FILE_ROWS_MAX));
            for (day, file) in encode.await.map_err(|_| Error::Worker("encode files"))?? {
                files.push(NewFile(self.put(&tenant, &day_name(day), WINDOW_MS, file).await?));
            }
        }
        tracing::debug!(log, through, files = files.len(), "wrote the files of a flush");
        Ok(files)
    }

    /// Writes a file under a name of its own, where nobody sees it until a commit names it.
    pub(crate) async fn put(
        &self,
        tenant: &Tenant,
        day: &str,
        window_ms: i64,
        file: EncodedFile,
    ) -> Result<DataFile> {
        let now = self.options.clock.now();
        let path = format!("tenant={}/day={day}/{}.parquet", partition_name(tenant.as_str()), new_name(now));
        let size = file.bytes.len() as u64;
        let location = location(&self.options.prefix, &path)?;
        self.upload(&location, file.bytes).await.map_err(Error::store(format!("write {location}")))?;
        Ok(DataFile {
            path,
            tenant: tenant.clone(),
            day: day.to_owned(),
            size,
            modified_ms: now.millis(),
            stats: Some(file.stats),
            tail: Some(file.tail),
            window_ms,
            part: None,
            origins: Vec::new(),
        })
    }

    /// What the table runs on.
    pub(crate) fn options(&self) -> &TableOptions {
        &self.options
    }

    /// The table's catalogue.
    pub(crate) fn log(&self) -> &DeltaLog {
        &self.log
    }

    /// Writes one file. Its name is new, so that repeating a request whose answer was lost does no harm.
    async fn upload(&self, location: &Path, bytes: Bytes) -> object_store::Result<()> {
        let (store, part_bytes) = (&self.options.store, or_fault!(SmallParts, PART_BYTES, 16 << 10));
        if bytes.len() <= part_bytes {
            let put = store.put(location, PutPayload::from(bytes));
            return site!("data file: put", put.await).map(drop);
        }
        let mut upload = site!("large data file: begin", store.put_multipart(location).await)?;
        let starts = (0..bytes.len()).step_by(part_bytes);
        let parts = starts.map(|start| bytes.slice(start..bytes.len().min(start + part_bytes)));
        let parts = parts.map(|part| {
            let put = upload.put_part(PutPayload::from(part));
            async move {
                site!("large data file: put part", put.await)?;
                Ok(())
            }
        });
        let parts: Vec<_> = parts.collect();
        let sent = futures::stream::iter(parts).buffer_unordered(PARTS_AT_ONCE).try_collect::<()>().await;
        let done = match sent {
            Ok(()) => site!("large data file: complete", upload.complete().await).map(drop),
            Err(error) => Err(error),
        };
        if done.is_err() {
            // Parts are paid for until then. That this fails as well adds nothing to the first failure.
            drop(upload.abort().await);
        }
        done
    }

    /// Makes the files of a flush visible and moves the log's transaction from `base` to `through`, in one commit.
    ///
    /// Returns the version. Dropping the future midway leaves it open whether the commit happened: the table's last
    /// transaction for the log tells.
    ///
    /// # Errors
    /// [`Error::BaseMismatch`] when the table's last transaction for the log is not `base` in the version right below
    /// the one to be written: somebody else flushed the log; the files are then nobody's.
    pub async fn commit_flush(
        &self,
        log: &str,
        base: Option<u64>,
        through: u64,
        files: Vec<NewFile>,
    ) -> Result<u64> {
        let files: Vec<DataFile> = files.into_iter().map(|f| f.0).collect();
        self.log.commit_flush(&Flush { log, base, through, files: &files }).await
    }

    /// Returns the table as it is now, or as it was at some version not older than the one asked for.
    ///
    /// Without a version it looks for new commits; with one it looks only when it does not know it yet.
    ///
    /// # Errors
    /// [`Error::Behind`] when the table has not got that far.
    pub async fn snapshot(&self, at_least: Option<u64>) -> Result<Arc<Snapshot>> {
        let known = self.log.known();
        let state = match at_least {
            Some(version) if known.version >= version => known,
            _ => self.log.refresh().await?,
        };
        match at_least {
            Some(wanted) if state.version < wanted => Err(Error::Behind { found: state.version, wanted }),
            _ => {
                if self.cache_version.fetch_max(state.version, Ordering::Relaxed) < state.version {
                    self.cache.retain(|path| state.files.contains_key(path));
                }
                Ok(Arc::new(Snapshot::new(state, self.options.clone(), Arc::clone(&self.cache))))
            }
        }
    }

    /// Copies the newest version of the table to `snapshots/<name>/metrics/` beside it, a table of its own that nobody
    /// else touches; returns the version and how many data files it has.
    ///
    /// In a folder the files are linked, in a bucket the store copies them: nothing passes through here. The copy can be
    /// read once its log stands, which comes last; what a failure leaves behind is a folder without a log.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn copy(&self, name: &str) -> Result<(u64, usize)> {
        let TableOptions { store, prefix, runtime, .. } = &self.options;
        let state = self.log.refresh().await?;
        let mut parts: Vec<_> = prefix.parts().collect();
        let table =
            parts.pop().ok_or_else(|| Error::Invalid("the table has no folder of its own".to_owned()))?;
        let root: Path = parts.into_iter().collect();
        let copy = root.join("snapshots").join(name).join(table);
        let paths: Vec<String> = state.files.keys().cloned().collect();
        let copied = futures::stream::iter(paths).map(|path| {
            let copy = &copy;
            async move {
                let (from, to) = (location(prefix, &path)?, location(copy, &path)?);
                let copied = site!("snapshot file: copy", store.copy(&from, &to).await);
                copied.map_err(Error::store(format!("copy {from}")))
            }
        });
        copied.buffer_unordered(COPIES_AT_ONCE).try_collect::<()>().await?;
        let (version, files) = (state.version, state.files.len());
        self.log.copy_to(state, &copy, runtime).await?;
        Ok((version, files))
    }

    /// The newest version that is known, without looking.
    #[must_use]
    pub fn known_version(&self) -> u64 {
        self.log.known().version
    }

    /// Says what the memory for files did so far.
    #[must_use]
    pub fn cache_stats(&self) -> CacheStats {
        self.cache.stats()
    }
}

/// Makes the files of one tenant: one or more a day, each with at most so many series rows.
fn encode_days(rows: &[SeriesRow], rows_max: usize) -> Result<Vec<(i64, EncodedFile)>> {
    let mut files = Vec::new();
    for (day, pieces) in pieces_by_day(rows, WINDOW_MS)? {
        for pieces in pieces.chunks(rows_max) {
            files.push((day, encode(pieces)?));
        }
    }
    Ok(files)
}

/// The place of one of the table's files in the store.
pub(crate) fn location(prefix: &Path, path: &str) -> Result<Path> {
    let text = if prefix.as_ref().is_empty() { path.to_owned() } else { format!("{prefix}/{path}") };
    Path::parse(&text).map_err(|e| Error::Invalid(format!("path {text}: {e}")))
}

/// Writes a partition value as Hive does: what is not plain in a file name becomes `%XX`.
fn partition_name(value: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    value.bytes().map(|b| if is_plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod golden;
#[cfg(test)]
pub(crate) mod tests;
