//! What a table needs from time to time, whoever does it: old data dropped, files compacted, a checkpoint of the
//! catalogue, dead files and old commits removed.
//!
//! Any number of processes may do this for one table at the same time without harm: each step is decided on the
//! newest state of the catalogue and done by a commit that checks it, or touches only what nobody needs any more. Who
//! should do what is said from outside, so that the work is done once.
//!
//! # Invariants
//!
//! - Nothing is deleted in a hurry: a file goes an hour after it was seen that a commit removed it at the earliest, one
//!   that no commit ever named after 24 h, and commits 24 h after a checkpoint that has them.
//! - A step that fails holds up no other, and a compaction that fails is tried again later and later.

pub(crate) mod retention;
pub(crate) mod vacuum;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use model::{Tenant, Timestamp};

use crate::catalogue::DataFile;
use crate::catalogue::log::{Operation, Replacement};
use crate::compaction::plan::{Job, Rules, plan};
use crate::compaction::{Context, Meter, OutputLimits, merge_files};
use crate::options::millis;
use crate::table::{Error, FILE_ROWS_MAX, Result, Table};

/// Commits after which the table is written as a checkpoint.
const CHECKPOINT_COMMITS: u64 = 100;
/// Time between two looks for dead files and old commits.
const VACUUM_INTERVAL_MS: i64 = HOUR_MS / 4;
/// How long a removed file stays, counted from when that was first seen.
const REMOVED_DELAY_MS: i64 = HOUR_MS;
/// How long files that no commit names stay, and commits behind a checkpoint.
const UNNAMED_DELAY_MS: i64 = 24 * HOUR_MS;
const HOUR_MS: i64 = 3_600_000;
/// A day with more bytes in files is compacted in three parts: each has to be done within
/// [`crate::catalogue::log::WORK_MS_MAX`].
const JOB_BYTES_MAX: u64 = 1 << 30;
/// How often what is due is looked for again at one time, since a compaction can make another possible.
const ROUNDS_MAX: usize = 16;
/// The pause after the first failure of a compaction; it doubles with each further one.
const PAUSE_MS_MIN: i64 = 60_000;
/// The longest pause after failures of a compaction.
const PAUSE_MS_MAX: i64 = HOUR_MS;
/// What the work that is not about one day is named by.
const TABLE_WORK: &str = "table";

/// How a table is maintained.
#[derive(Debug, Clone)]
pub struct MaintenanceOptions {
    /// Time between two looks at what is due.
    pub interval: Duration,
    /// How long after its end a window or a day is compacted, beyond the out-of-order window: as long as what was
    /// appended to it may not be flushed yet.
    pub delay: Duration,
    /// How far behind the newest sample a sample may be. May be changed later.
    pub out_of_order_window: Duration,
    /// Compactions at a time. Each takes one thread.
    pub concurrency: usize,
    /// Memory that all compactions together may take, about, in bytes.
    pub memory_bytes_max: usize,
    /// Files whose newest sample is this much older than the table's newest are dropped; `None`: never. May be changed
    /// later.
    pub retention_time: Option<Duration>,
    /// The oldest files are dropped while all of them have more bytes than this; `None`: never. May be changed later.
    pub retention_size: Option<u64>,
}

impl Default for MaintenanceOptions {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(60),
            delay: Duration::from_secs(30 * 60),
            out_of_order_window: Duration::from_secs(30 * 60),
            concurrency: 1,
            memory_bytes_max: 512 << 20,
            retention_time: None,
            retention_size: None,
        }
    }
}

/// What one look at a table brought about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MaintenanceReport {
    /// The table's version after the last commit; `None` without one.
    pub version: Option<u64>,
    /// Compactions committed.
    pub compactions: usize,
    /// Files that compactions replaced.
    pub files_replaced: usize,
    /// Files that compactions wrote.
    pub files_written: usize,
    /// Files dropped since they were too old or too many.
    pub files_expired: usize,
}

/// Numbers for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MaintenanceStats {
    /// Live files as far as known.
    pub files: u64,
    /// Their bytes.
    pub file_bytes: u64,
    /// Compactions committed.
    pub compactions_total: u64,
    /// Compactions that failed; they are tried again.
    pub compaction_failures_total: u64,
    /// Compactions whose files somebody else had replaced meanwhile.
    pub compactions_overtaken_total: u64,
    /// Time that compactions took, in milliseconds.
    pub compaction_ms_total: u64,
    /// Files that compactions replaced.
    pub files_replaced_total: u64,
    /// Files that compactions wrote.
    pub files_written_total: u64,
    /// The most memory that compactions held at one time, in bytes.
    pub compaction_bytes_peak: u64,
    /// Files dropped by their age.
    pub files_expired_by_time_total: u64,
    /// Files dropped since all of them were too large.
    pub files_expired_by_size_total: u64,
    /// Times that files were dropped by their age.
    pub time_retentions_total: u64,
    /// Times that files were dropped since all of them were too large.
    pub size_retentions_total: u64,
    /// Dead files removed from the store.
    pub files_vacuumed_total: u64,
    /// Checkpoints written.
    pub checkpoints_total: u64,
    /// Old commits and checkpoints removed from the store.
    pub log_files_removed_total: u64,
    /// Steps other than compactions that failed; they are tried again.
    pub failures_total: u64,
}

#[derive(Debug, Default)]
struct Counters {
    compactions: AtomicU64,
    compaction_failures: AtomicU64,
    compactions_overtaken: AtomicU64,
    compaction_ms: AtomicU64,
    files_replaced: AtomicU64,
    files_written: AtomicU64,
    files_expired_by_time: AtomicU64,
    files_expired_by_size: AtomicU64,
    time_retentions: AtomicU64,
    size_retentions: AtomicU64,
    files_vacuumed: AtomicU64,
    checkpoints: AtomicU64,
    log_files_removed: AtomicU64,
    failures: AtomicU64,
}

/// Maintains one table.
#[derive(Debug)]
pub struct Maintenance {
    table: Arc<Table>,
    options: MaintenanceOptions,
    out_of_order_window_ms: AtomicI64,
    retention: Mutex<retention::Limits>,
    /// Held during a look, so that one that is asked for does not do the same as the one under way.
    looking: tokio::sync::Mutex<Looked>,
    /// Days whose compaction failed.
    failed: Mutex<HashMap<(Tenant, String), Failed>>,
    meter: Arc<Meter>,
    counters: Counters,
}

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
struct Looked {
    last_vacuum: Option<Timestamp>,
    removals: vacuum::Removals,
}

#[derive(Debug, Clone, Copy)]
struct Failed {
    pause_ms: i64,
    not_before: Timestamp,
}

impl Maintenance {
    /// Prepares to maintain a table; nothing runs until it is asked for.
    #[must_use]
    pub fn new(table: Arc<Table>, options: MaintenanceOptions) -> Arc<Self> {
        Arc::new(Self {
            table,
            out_of_order_window_ms: AtomicI64::new(millis(options.out_of_order_window)),
            retention: Mutex::new(limits(options.retention_time, options.retention_size)),
            options,
            looking: tokio::sync::Mutex::default(),
            failed: Mutex::default(),
            meter: Arc::default(),
            counters: Counters::default(),
        })
    }

    /// The table that is maintained.
    #[must_use]
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Changes how far behind the newest sample a sample may be.
    pub fn set_out_of_order_window(&self, window: Duration) {
        self.out_of_order_window_ms.store(millis(window), Ordering::Relaxed);
    }

    /// Changes how much is kept: how old data may get, and the bytes of all files.
    pub fn set_retention(&self, time: Option<Duration>, size: Option<u64>) {
        *self.retention() = limits(time, size);
    }

    /// Keeps the table in order for as long as it is polled; never returns. `is_mine` says of a piece of work, by its
    /// name, whether it is for this process.
    ///
    /// Failures are logged, counted and tried again. Dropping the future at any moment is safe, and ends what runs in
    /// the background.
    pub async fn run(self: Arc<Self>, is_mine: impl Fn(&str) -> bool + Send + Sync) {
        loop {
            tokio::time::sleep(self.options.interval).await;
            if let Err(error) = self.look(&is_mine, false).await {
                tracing::warn!(%error, "maintain the table");
            }
        }
    }

    /// Does what is due. With `is_forced` every window counts as over, and every day at its end.
    ///
    /// # Errors
    /// The first failure, when everything else is done; what is left is due again the next time.
    pub async fn look(
        &self,
        is_mine: &(impl Fn(&str) -> bool + Sync),
        is_forced: bool,
    ) -> Result<MaintenanceReport> {
        let mut looked = self.looking.lock().await;
        let mut report = MaintenanceReport::default();
        let mut failure = None;
        let mut note = |done: Result<()>| {
            if let Err(error) = done {
                self.counters.failures.fetch_add(1, Ordering::Relaxed);
                failure.get_or_insert(error);
            }
        };
        let does_table = is_mine(TABLE_WORK);
        if does_table {
            note(self.expire(&mut report).await);
        }
        let compacted = self.compact(is_mine, is_forced, &mut report).await;
        // Whoever else removes dead files may hand that on to this process.
        looked.removals.see(&self.table.log().known(), self.now());
        if does_table {
            note(self.checkpoint().await);
            note(self.remove_dead(&mut looked).await);
        }
        match (compacted, failure) {
            (Err(error), _) | (Ok(()), Some(error)) => Err(error),
            (Ok(()), None) => Ok(report),
        }
    }

    /// Drops files that are too old or too many.
    async fn expire(&self, report: &mut MaintenanceReport) -> Result<()> {
        let limits = *self.retention();
        if limits.time_ms.is_none() && limits.bytes.is_none() {
            return Ok(());
        }
        let started = self.now();
        let state = self.table.log().refresh().await?;
        let expired = retention::expired(state.files.values(), started, limits);
        let (by_time, by_size) = (expired.by_time.len(), expired.by_size.len());
        let removes: Vec<Arc<DataFile>> = expired.by_time.into_iter().chain(expired.by_size).collect();
        if removes.is_empty() {
            return Ok(());
        }
        let replacement = Replacement { operation: Operation::Expire, removes: &removes, adds: &[], started };
        let version = match self.table.log().commit_replacement(&replacement).await {
            Ok(version) => version,
            // Somebody compacted some of it meanwhile: what is left is dropped the next time.
            Err(Error::Overtaken { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        tracing::info!(version, by_time, by_size, "dropped files past the retention");
        for (counter, n) in [
            (&self.counters.files_expired_by_time, by_time),
            (&self.counters.files_expired_by_size, by_size),
            (&self.counters.time_retentions, usize::from(by_time > 0)),
            (&self.counters.size_retentions, usize::from(by_size > 0)),
        ] {
            counter.fetch_add(n as u64, Ordering::Relaxed);
        }
        report.files_expired = removes.len();
        report.version = report.version.max(Some(version));
        Ok(())
    }

    /// Compacts what is due until nothing is.
    async fn compact(
        &self,
        is_mine: &(impl Fn(&str) -> bool + Sync),
        is_forced: bool,
        report: &mut MaintenanceReport,
    ) -> Result<()> {
        for _ in 0..ROUNDS_MAX {
            let jobs = self.due(is_mine, is_forced).await?;
            if jobs.is_empty() {
                return Ok(());
            }
            let done = futures::stream::iter(jobs).map(|job| self.compact_one(job));
            let done: Vec<Result<Compacted>> =
                done.buffer_unordered(self.options.concurrency.max(1)).collect().await;
            for compacted in done {
                let Compacted { version, replaced, written } = compacted?;
                report.version = report.version.max(version);
                report.compactions += usize::from(version.is_some());
                report.files_replaced += replaced;
                report.files_written += written;
            }
        }
        Ok(())
    }

    /// The compactions that are due and for this process, without those that failed a short while ago.
    async fn due(&self, is_mine: &(impl Fn(&str) -> bool + Sync), is_forced: bool) -> Result<Vec<Job>> {
        let state = self.table.log().refresh().await?;
        let window_ms = self.out_of_order_window_ms.load(Ordering::Relaxed);
        let rules = Rules {
            delay_ms: millis(self.options.delay).saturating_add(window_ms),
            bytes_max: JOB_BYTES_MAX,
            is_forced,
        };
        let now = self.now();
        let mut jobs = plan(state.files.values(), now, &rules);
        jobs.retain(|job| is_mine(&format!("compact/{}/{}", job.tenant, job.day)));
        if !is_forced {
            let mut failed = self.failed();
            failed.retain(|_, f| now.since_ms(f.not_before) < PAUSE_MS_MAX);
            let is_paused = |f: &Failed| f.not_before > now;
            jobs.retain(|job| !failed.get(&(job.tenant.clone(), job.day.clone())).is_some_and(is_paused));
        }
        Ok(jobs)
    }

    async fn compact_one(&self, job: Job) -> Result<Compacted> {
        let day = (job.tenant.clone(), job.day.clone());
        let started = self.now();
        let inputs = job.inputs.clone();
        let mut compacted = self.merge_and_commit(job, started).await;
        if matches!(compacted, Err(Error::Gone { .. })) {
            // Files that are gone were replaced while they were read, unless the table still counts on them.
            let state = self.table.log().refresh().await?;
            let replaced = inputs.iter().find(|f| !state.files.contains_key(&f.path));
            if let Some(file) = replaced {
                compacted = Err(Error::Overtaken { path: file.path.clone() });
            }
        }
        let took = u64::try_from(self.now().since_ms(started)).unwrap_or(0);
        self.counters.compaction_ms.fetch_add(took, Ordering::Relaxed);
        match compacted {
            Ok(compacted) => {
                self.failed().remove(&day);
                Ok(compacted)
            }
            // What is there now is looked at the next time.
            Err(error @ Error::Overtaken { .. }) => {
                self.counters.compactions_overtaken.fetch_add(1, Ordering::Relaxed);
                tracing::info!(%error, tenant = %day.0, day = day.1, "dropped a compaction");
                Ok(Compacted::default())
            }
            Err(error) => {
                self.counters.compaction_failures.fetch_add(1, Ordering::Relaxed);
                let now = self.now();
                let mut failed = self.failed();
                let pause_ms = failed.get(&day).map_or(PAUSE_MS_MIN, |f| (2 * f.pause_ms).min(PAUSE_MS_MAX));
                failed.insert(day, Failed { pause_ms, not_before: now.add_ms(pause_ms) });
                Err(error)
            }
        }
    }

    async fn merge_and_commit(&self, job: Job, started: Timestamp) -> Result<Compacted> {
        let runtime = self.table.options().runtime.clone();
        let is_cancelled = Arc::new(AtomicBool::new(false));
        let _cancel = CancelOnDrop(Arc::clone(&is_cancelled));
        let limits = OutputLimits {
            // The other half is for what is read and for the file that is made of the rows.
            rows_bytes: self.options.memory_bytes_max / self.options.concurrency.max(1) / 2,
            rows: FILE_ROWS_MAX,
        };
        let merging = {
            let context = Context::new(runtime.clone(), Arc::clone(&self.meter), is_cancelled);
            let table = Arc::clone(&self.table);
            runtime.spawn_blocking(move || {
                let files = merge_files(&table, &job, limits, &context);
                files.map(|files| (job, files))
            })
        };
        let (job, files) = merging.await.map_err(|_| Error::Worker("compact"))??;
        let replacement =
            Replacement { operation: Operation::Compact, removes: &job.inputs, adds: &files, started };
        let version = self.table.log().commit_replacement(&replacement).await?;
        let (replaced, written) = (job.inputs.len(), files.len());
        tracing::info!(
            version,
            tenant = %job.tenant,
            day = job.day,
            replaced,
            written,
            bytes_before = job.inputs.iter().map(|f| f.size).sum::<u64>(),
            bytes = files.iter().map(|f| f.size).sum::<u64>(),
            "compacted"
        );
        self.counters.compactions.fetch_add(1, Ordering::Relaxed);
        self.counters.files_replaced.fetch_add(replaced as u64, Ordering::Relaxed);
        self.counters.files_written.fetch_add(written as u64, Ordering::Relaxed);
        Ok(Compacted { version: Some(version), replaced, written })
    }

    /// Writes a checkpoint when there are many commits behind the last one.
    async fn checkpoint(&self) -> Result<()> {
        let log = self.table.log();
        let version = log.refresh().await?.version;
        if version.saturating_sub(log.known_checkpoint()) < CHECKPOINT_COMMITS {
            return Ok(());
        }
        let version = log.checkpoint(&self.table.options().runtime).await?;
        tracing::info!(version, "wrote a checkpoint");
        self.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Removes dead files and old commits, every [`VACUUM_INTERVAL_MS`].
    async fn remove_dead(&self, looked: &mut Looked) -> Result<()> {
        let now = self.now();
        if looked.last_vacuum.is_some_and(|last| (0..VACUUM_INTERVAL_MS).contains(&now.since_ms(last))) {
            return Ok(());
        }
        let removed = self.table.log().clean_up(now.add_ms(-UNNAMED_DELAY_MS)).await?;
        self.counters.log_files_removed.fetch_add(removed as u64, Ordering::Relaxed);
        let delays = vacuum::Delays { removed_ms: REMOVED_DELAY_MS, unnamed_ms: UNNAMED_DELAY_MS };
        let vacuumed = vacuum::vacuum(&self.table, &mut looked.removals, now, delays).await?;
        self.counters.files_vacuumed.fetch_add(vacuumed as u64, Ordering::Relaxed);
        if removed + vacuumed > 0 {
            tracing::info!(files = vacuumed, log_files = removed, "removed what is not needed any more");
        }
        looked.last_vacuum = Some(now);
        Ok(())
    }

    /// Returns numbers for metrics.
    #[must_use]
    pub fn stats(&self) -> MaintenanceStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let c = &self.counters;
        let state = self.table.log().known();
        MaintenanceStats {
            files: state.files.len() as u64,
            file_bytes: state.files.values().map(|f| f.size).sum(),
            compactions_total: count(&c.compactions),
            compaction_failures_total: count(&c.compaction_failures),
            compactions_overtaken_total: count(&c.compactions_overtaken),
            compaction_ms_total: count(&c.compaction_ms),
            files_replaced_total: count(&c.files_replaced),
            files_written_total: count(&c.files_written),
            compaction_bytes_peak: self.meter.peak() as u64,
            files_expired_by_time_total: count(&c.files_expired_by_time),
            files_expired_by_size_total: count(&c.files_expired_by_size),
            time_retentions_total: count(&c.time_retentions),
            size_retentions_total: count(&c.size_retentions),
            files_vacuumed_total: count(&c.files_vacuumed),
            checkpoints_total: count(&c.checkpoints),
            log_files_removed_total: count(&c.log_files_removed),
            failures_total: count(&c.failures),
        }
    }

    fn now(&self) -> Timestamp {
        self.table.options().clock.now()
    }

    fn retention(&self) -> MutexGuard<'_, retention::Limits> {
        self.retention.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self) -> MutexGuard<'_, HashMap<(Tenant, String), Failed>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn limits(time: Option<Duration>, bytes: Option<u64>) -> retention::Limits {
    retention::Limits { time_ms: time.map(millis), bytes }
}

/// What one compaction did; nothing when it was dropped.
#[derive(Debug, Default)]
struct Compacted {
    version: Option<u64>,
    replaced: usize,
    written: usize,
}

/// Tells the thread of a compaction that nobody waits for it any more.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
