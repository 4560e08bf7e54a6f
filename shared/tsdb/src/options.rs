//! How a [`Storage`](crate::Storage) is set up.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::Clock;

use crate::log::objects::ObjectLogs;
use crate::table::Table;

/// Where a storage keeps its logs.
#[derive(Debug, Clone)]
pub enum LogStore {
    /// In `wal/` below a folder of this machine.
    Folder(PathBuf),
    /// In an object store that all ingesters share.
    Objects(Arc<ObjectLogs>),
}

/// Everything a storage needs and every limit it keeps.
#[derive(Debug, Clone)]
pub struct StorageOptions {
    /// Where logs are kept.
    pub logs: LogStore,
    /// Where flushes go.
    pub table: Arc<Table>,
    /// Tells the time.
    pub clock: Clock,
    /// Runs what blocks, on its blocking threads.
    pub runtime: tokio::runtime::Handle,
    /// How far behind the newest sample of the tenant a sample may be; zero: never behind its own series. May be
    /// changed later.
    pub out_of_order_window: Duration,
    /// How far back an instant query looks.
    pub lookback: Duration,
    /// Wall-clock time between flushes.
    pub flush_interval: Duration,
    /// A flush starts early when the samples not flushed yet take more memory than this.
    pub unflushed_bytes_max: usize,
    /// How long flushed samples stay in memory; never less than `lookback` and `out_of_order_window` together.
    pub head_retention: Duration,
    /// How long what is no longer needed of a log stays where it is.
    pub deletion_delay: Duration,
    /// Age of the birth record at the first acknowledgement, so that every reader knows of the log by then; for stores
    /// that several machines share.
    pub birth_delay: Duration,
    /// The longest a record waits for others that share its group commit.
    pub commit_delay: Duration,
    /// A group commit this large does not wait any more.
    pub commit_bytes: usize,
    /// Group commits under way at a time; only object stores take more than one.
    pub commits_in_flight_max: usize,
    /// When the store has not taken a group commit for so long, appends are refused until it has; only object stores
    /// are waited for at all.
    pub stall_after: Duration,
    /// A log file this large is not continued.
    pub file_bytes_max: u64,
    /// Appends are refused with `Busy` when this much waits for the log.
    pub queue_bytes_max: usize,
    /// Exemplars kept in memory for each series.
    pub exemplars_per_series_max: usize,
    /// Members of one group.
    pub group_members_max: usize,
    /// Series in memory, all tenants together.
    pub series_max: usize,
}

impl StorageOptions {
    /// Returns the defaults.
    #[must_use]
    pub fn new(
        dir: impl Into<PathBuf>,
        table: Arc<Table>,
        clock: Clock,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        Self {
            logs: LogStore::Folder(dir.into()),
            table,
            clock,
            runtime,
            out_of_order_window: Duration::from_secs(30 * 60),
            lookback: Duration::from_secs(5 * 60),
            flush_interval: Duration::from_secs(15 * 60),
            unflushed_bytes_max: 1 << 30,
            head_retention: Duration::from_secs(2 * 3600),
            deletion_delay: Duration::from_secs(3600),
            birth_delay: Duration::ZERO,
            commit_delay: Duration::from_millis(2),
            commit_bytes: 1 << 20,
            commits_in_flight_max: 1,
            stall_after: Duration::from_secs(5),
            file_bytes_max: 64 << 20,
            queue_bytes_max: 32 << 20,
            exemplars_per_series_max: 32,
            group_members_max: 1_000_000,
            series_max: 20_000_000,
        }
    }

    /// A group commit takes no further append beyond this size. What waits for a disk is best written at once.
    pub(crate) fn segment_bytes_max(&self) -> usize {
        match self.logs {
            LogStore::Folder(_) => self.queue_bytes_max,
            LogStore::Objects(_) => self.commit_bytes,
        }
    }

    /// What the head never drops, in milliseconds: lookback and out-of-order window.
    pub(crate) fn recent_ms(&self) -> i64 {
        millis(self.lookback).saturating_add(millis(self.out_of_order_window))
    }

    /// How long flushed samples stay with an out-of-order window, in milliseconds.
    pub(crate) fn retention_ms(&self, window_ms: i64) -> i64 {
        millis(self.head_retention).max(millis(self.lookback).saturating_add(window_ms))
    }
}

/// Milliseconds of a duration, at most `i64::MAX`.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
