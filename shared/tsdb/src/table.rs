//! The table of metrics: Parquet files and the catalogue that says which of them are live.
//!
//! A flush writes its files first ([`Table::write_files`]), where nobody sees them, and then makes them visible with
//! one commit ([`Table::commit_flush`]). Readers take a [`Snapshot`], which never changes, and select from it.
//!
//! # Invariants
//!
//! - A file holds series of one tenant and one UTC day; it is complete in the store before a commit names it.
//! - What a log flushed is in the table exactly once: the commit checks the log's last transaction.
//! - A snapshot's answer is merged: each series stands once, sorted by metric name, then labels.

mod error;
mod snapshot;

use std::sync::Arc;

use model::{Clock, Tenant};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tokio::runtime::Handle;

use crate::catalogue::DataFile;
use crate::catalogue::log::{DeltaLog, Flush, new_name};
use crate::file::encode::{EncodedFile, encode};
use crate::file::windows::{day_name, pieces_by_day};
use crate::series::SeriesRow;

pub use crate::file::encode::{FileStats, Tail};
pub use error::{Error, Result};
pub use snapshot::{SelectLimits, Snapshot};

/// Series rows of a file at most; a flush of more writes several. Bounds what one reader has to take in at once.
const FILE_ROWS_MAX: usize = 1 << 19;

/// Where a table is and what it runs on.
#[derive(Debug, Clone)]
pub struct TableOptions {
    /// The store; a local one should have fsync on, since a commit is believed to last.
    pub store: Arc<dyn ObjectStore>,
    /// The table's root in the store.
    pub prefix: Path,
    /// Names and dates commits and files.
    pub clock: Clock,
    /// Takes the CPU work of encoding and decoding.
    pub runtime: Handle,
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
}

impl Table {
    /// Opens the table that lies in `metrics/` of a local folder, making both when they are not there. What is written
    /// is synced, since a commit is believed to last. To be called within a runtime, which then takes the CPU work.
    ///
    /// # Errors
    /// As [`Table::open`].
    pub async fn open_in(folder: &std::path::Path, clock: Clock) -> Result<Arc<Self>> {
        let attempt = format!("open the table in {}", folder.display());
        let made = tokio::fs::create_dir_all(folder).await;
        let store = made
            .map_err(|e| object_store::Error::Generic { store: "local", source: e.into() })
            .and_then(|()| LocalFileSystem::new_with_prefix(folder))
            .map_err(Error::store(attempt))?;
        Self::open(TableOptions {
            store: Arc::new(store.with_fsync(true)),
            prefix: Path::from("metrics"),
            clock,
            runtime: Handle::current(),
        })
        .await
    }

    /// Opens the table, creating it when there is none; several may do so at once.
    ///
    /// # Errors
    /// When the store fails, a commit cannot be understood, or the table uses features that this crate has not.
    pub async fn open(options: TableOptions) -> Result<Arc<Self>> {
        let log = DeltaLog::open(Arc::clone(&options.store), &options.prefix, options.clock.clone()).await?;
        Ok(Arc::new(Self { options, log }))
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
                files.push(self.put(&tenant, day, file).await?);
            }
        }
        tracing::debug!(log, through, files = files.len(), "wrote the files of a flush");
        Ok(files)
    }

    async fn put(&self, tenant: &Tenant, day: i64, file: EncodedFile) -> Result<NewFile> {
        let now = self.options.clock.now();
        let day = day_name(day);
        let path = format!("tenant={}/day={day}/{}.parquet", partition_name(tenant.as_str()), new_name(now));
        let size = file.bytes.len() as u64;
        let location = location(&self.options.prefix, &path)?;
        self.options
            .store
            .put(&location, PutPayload::from(file.bytes))
            .await
            .map_err(Error::store(format!("write {location}")))?;
        Ok(NewFile(DataFile {
            path,
            tenant: tenant.clone(),
            day,
            size,
            modified_ms: now.millis(),
            stats: Some(file.stats),
            tail: Some(file.tail),
            origin: None,
        }))
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
            _ => Ok(Arc::new(Snapshot::new(state, self.options.clone()))),
        }
    }
}

/// Makes the files of one tenant: one or more a day, each with at most so many series rows.
fn encode_days(rows: &[SeriesRow], rows_max: usize) -> Result<Vec<(i64, EncodedFile)>> {
    let mut files = Vec::new();
    for (day, pieces) in pieces_by_day(rows)? {
        for pieces in pieces.chunks(rows_max) {
            files.push((day, encode(pieces)?));
        }
    }
    Ok(files)
}

/// The place of one of the table's files in the store.
fn location(prefix: &Path, path: &str) -> Result<Path> {
    let text = if prefix.as_ref().is_empty() { path.to_owned() } else { format!("{prefix}/{path}") };
    Path::parse(&text).map_err(|e| Error::Invalid(format!("path {text}: {e}")))
}

/// Writes a partition value as Hive does: what is not plain in a file name becomes `%XX`.
fn partition_name(value: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    value.bytes().map(|b| if is_plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests;
