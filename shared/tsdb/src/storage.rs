//! The storage engine of one ingester: log, head and flushes to the table.
//!
//! An append is judged, written to the log, made visible in the head and then acknowledged, in this order. Every so
//! often everything acknowledged goes to the table as one commit, after which the log's files are no longer needed.
//!
//! # Invariants
//!
//! - What is acknowledged is durable in the log or in the table, and what is readable is acknowledged.
//! - Each log's records are in the table exactly once: a commit names the log and the segment through which it goes,
//!   and is refused unless it follows the commit before it.
//! - Locks are taken in the order `upkeep`, `appender`, log, `head`; the log writer never takes `appender`.

mod adopt;
mod appender;
mod flush;
mod groups;
mod last_samples;
mod open;
mod read;
mod statistics;
mod successor;
mod upkeep;

use std::fs::File;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::append::{Appended, GroupAppend, LogPosition, Refusal, RefusalReason};
use crate::error::{Error, Result};
use crate::head::Head;
use crate::log::committer::{Batch, Committer, LogFailure, lock};
use crate::log::{record, segment};
use crate::options::{LogStore, StorageOptions, millis};
use adopt::Drained;
use appender::{Appender, Judged};
use upkeep::Upkeep;

pub use flush::FlushReport;
pub use last_samples::LastSampleReader;
pub use open::unflushed_local_logs;
pub use read::{HeadSelection, HeadState, LogState};
pub use statistics::{HeadStatistics, LabelStatistics};

/// The storage engine of one ingester.
#[derive(Debug)]
pub struct Storage {
    options: StorageOptions,
    log: Arc<str>,
    head: Arc<RwLock<Head>>,
    appender: Mutex<Appender>,
    committer: Committer,
    /// `StorageOptions::out_of_order_window`, which may change while the storage is open.
    out_of_order_window_ms: AtomicI64,
    upkeep: Arc<tokio::sync::Mutex<Upkeep>>,
    /// Logs of others and of earlier lives, in an object store, that this storage has brought into the table.
    drained: Mutex<Vec<Drained>>,
    /// Logs of earlier lives in an object store that could not be read.
    unread: Mutex<Vec<Arc<str>>>,
    counters: Arc<Counters>,
    /// Of the folder that holds the logs, where there is one.
    folder_lock: Option<Arc<File>>,
}

/// What has happened since the start.
#[derive(Debug, Default)]
struct Counters {
    samples_appended: AtomicU64,
    samples_loose: AtomicU64,
    samples_refused: AtomicU64,
    segments: AtomicU64,
    flushes: AtomicU64,
    flush_failures: AtomicU64,
    records_damaged: AtomicU64,
    samples_replayed: AtomicU64,
}

/// Numbers for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Series in memory.
    pub head_series: u64,
    /// Bytes in memory that have not been flushed, about.
    pub unflushed_bytes: u64,
    /// Bytes of the own log's files.
    pub log_bytes: u64,
    /// Declared groups.
    pub groups: u64,
    /// Samples accepted since the start, exact repeats included.
    pub samples_appended_total: u64,
    /// Samples that had no place in the order of their group.
    pub samples_loose_total: u64,
    /// Samples refused.
    pub samples_refused_total: u64,
    /// Group commits.
    pub segments_total: u64,
    /// Flushes committed.
    pub flushes_total: u64,
    /// Flushes that failed; what they held is tried again.
    pub flush_failures_total: u64,
    /// Damaged places found in logs at the start.
    pub log_damages_total: u64,
    /// Samples replayed at the start.
    pub samples_replayed_total: u64,
}

impl Storage {
    /// Stores samples; the answer comes when they are durable.
    ///
    /// With `is_atomic` nothing is stored when any sample is refused; otherwise what is not refused is. Exact repeats
    /// of the newest sample of a series count as stored. The samples are on their way as soon as this returns: dropping
    /// the future does not take them back.
    ///
    /// # Errors
    /// [`Error::Busy`] when too much waits for the log, [`Error::LogEnded`] after the disk has failed, and
    /// [`Error::Invalid`] or [`Error::UnknownGroup`] when the request does not fit its groups.
    pub fn append(
        &self,
        appends: Vec<GroupAppend>,
        is_atomic: bool,
    ) -> impl Future<Output = Result<Appended>> + Send + use<> {
        let submitted = self.submit(appends, is_atomic);
        let log = Arc::clone(&self.log);
        async move {
            let Submitted { stored, refused, seq } = submitted?;
            let seq = match seq {
                Seq::Known(seq) => seq,
                Seq::Awaited(seq) => seq.await.map_err(|_| Error::Worker("log writer"))??,
            };
            Ok(Appended { position: LogPosition { log, seq }, stored, refused })
        }
    }

    /// Waits until the queue before the log has room. Writers of streams ask before each request, so that a slow disk
    /// slows them down rather than refuses them.
    pub async fn room(&self) {
        self.committer.room().await;
    }

    /// Returns why the log has failed, once it has: nothing can be stored any more, and what was acknowledged can be
    /// read. A new storage takes over from it: one that is opened, or its [`Storage::successor`].
    pub async fn failed(&self) -> LogFailure {
        self.committer.failed().await
    }

    /// Changes how far behind the newest sample a sample may be; holds for appends from now on.
    pub fn set_out_of_order_window(&self, window: Duration) {
        self.out_of_order_window_ms.store(millis(window), Ordering::Relaxed);
    }

    fn submit(&self, appends: Vec<GroupAppend>, is_atomic: bool) -> Result<Submitted> {
        self.committer.check_room()?;
        let now = self.options.clock.now();
        let mut appender = self.open_appender()?;
        let window_ms = self.out_of_order_window_ms.load(Ordering::Relaxed);
        let mut judged = appender.judge(appends, is_atomic, now, window_ms)?;
        let refused = self.refusals(&mut judged);
        self.counters.samples_refused.fetch_add(refused.iter().map(|r| r.count).sum(), Ordering::Relaxed);
        if is_atomic && !refused.is_empty() {
            appender.undo(&mut judged);
            let seq = Seq::Known(self.read_head().coverage.acknowledged);
            return Ok(Submitted { stored: 0, refused, seq });
        }
        let stored = judged.stored;
        appender.has_appended |= !judged.groups.is_empty();
        let (done, seq) = oneshot::channel();
        let mut records = Vec::new();
        for (group, samples) in &judged.groups {
            let parts = record::AppendParts {
                group: *group,
                timestamp: samples.timestamp,
                presence: &samples.presence,
                values: &samples.values,
                histograms: &samples.histograms,
                starts: &samples.starts,
                exemplars: &samples.exemplars,
            };
            segment::put_record(&mut records, |out| record::put_append(out, &parts));
        }
        let samples = std::mem::take(&mut judged.groups).into_iter().map(|(_, s)| s).collect();
        if let Err(error) =
            self.committer.push(Batch { records, samples, done: Some(done), ..Batch::default() })
        {
            appender.undo(&mut judged);
            return Err(error);
        }
        self.counters.samples_appended.fetch_add(stored, Ordering::Relaxed);
        Ok(Submitted { stored, refused, seq: Seq::Awaited(seq) })
    }

    fn refusals(&self, judged: &mut Judged) -> Vec<Refusal> {
        let superseded = judged.is_superseded.then(|| Refusal {
            reason: RefusalReason::StaleEpoch,
            count: 0,
            example: RefusalReason::StaleEpoch.to_string(),
            samples: Vec::new(),
        });
        if judged.refused.is_empty() {
            return superseded.into_iter().collect();
        }
        let head = self.read_head();
        let refusal = |r: appender::RefusedSamples| {
            let labels = head.tenant_at(r.tenant).labels(r.series);
            let example = match &r.detail {
                Some(detail) => format!("{detail}: {labels}"),
                None => format!("{}: {labels}", r.reason),
            };
            Refusal { reason: r.reason, count: r.samples.len() as u64, example, samples: r.samples }
        };
        std::mem::take(&mut judged.refused).into_iter().map(refusal).chain(superseded).collect()
    }

    /// The name of the log that this storage writes.
    #[must_use]
    pub fn log(&self) -> &Arc<str> {
        &self.log
    }

    /// Returns numbers for metrics.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let groups = lock(&self.appender).groups.len() as u64;
        let log_bytes = self.committer.log().byte_len();
        let head = self.read_head();
        Stats {
            head_series: head.series_count() as u64,
            unflushed_bytes: head.unflushed_bytes() as u64,
            log_bytes,
            groups,
            samples_appended_total: count(&self.counters.samples_appended),
            samples_loose_total: count(&self.counters.samples_loose),
            samples_refused_total: count(&self.counters.samples_refused),
            segments_total: count(&self.counters.segments),
            flushes_total: count(&self.counters.flushes),
            flush_failures_total: count(&self.counters.flush_failures),
            log_damages_total: count(&self.counters.records_damaged),
            samples_replayed_total: count(&self.counters.samples_replayed),
        }
    }

    /// Bytes that the series in memory take, about; walks all of them.
    #[must_use]
    pub fn head_bytes(&self) -> usize {
        self.read_head().byte_len()
    }

    /// The folder of a log in the folder of logs; `None` where logs are objects.
    fn log_folder(&self, log: &str) -> Option<PathBuf> {
        match &self.options.logs {
            LogStore::Folder(dir) => Some(dir.join(open::WAL_FOLDER).join(log)),
            LogStore::Objects(_) => None,
        }
    }

    fn read_head(&self) -> RwLockReadGuard<'_, Head> {
        self.head.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_head(&self) -> RwLockWriteGuard<'_, Head> {
        self.head.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_appender(&self) -> Result<MutexGuard<'_, Appender>> {
        let appender = lock(&self.appender);
        if appender.is_closed { Err(Error::Closed) } else { Ok(appender) }
    }
}

/// A request on its way.
struct Submitted {
    stored: u64,
    refused: Vec<Refusal>,
    seq: Seq,
}

enum Seq {
    Known(u64),
    Awaited(oneshot::Receiver<Result<u64>>),
}
