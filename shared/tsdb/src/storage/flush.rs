//! Flushing: everything acknowledged in a log since its last flush goes to the table as one commit.
//!
//! A flush cuts the own log between two segments: what comes after belongs to the next generation of the head and to
//! the next flush, and begins with the declarations of all live groups. The files are written from the head. Where the
//! table turns out to be at another point of the log than was believed (an answer was lost, or somebody else adopted
//! the log), the head's generations no longer fit, and the files are built anew from the records in the log.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::{Labels, Tenant};
use tokio::sync::oneshot;

use super::open::Replay;
use super::upkeep::Upkeep;
use super::{Storage, adopt};
use crate::error::{Error, Result};
use crate::faults::or_fault;
use crate::head::Head;
use crate::head::select::{SeriesReader, Wanted};
use crate::log::committer::{Batch, Cut, lock};
use crate::log::reader;
use crate::log::record::Record;
use crate::log::segment::Role;
use crate::options::LogStore;
use crate::series::{SeriesRow, compare_labels};
use crate::table::{self, NewFile};

/// Series whose samples are in memory as columns at a time.
const ROWS_AT_ONCE: usize = 100_000;
/// Series read from the head under one lock.
pub(super) const ROWS_PER_LOCK: usize = 512;
/// A flush that takes longer is not committed but begun anew, since others may have cleaned up its files meanwhile.
pub(super) const FLUSH_MS_MAX: i64 = 600_000;

/// What a flush did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlushReport {
    /// The table's version after the last commit; `None` when there was nothing to flush.
    pub version: Option<u64>,
    /// Files written.
    pub files: usize,
    /// Rows of the table written, before they were cut into windows.
    pub rows: usize,
}

/// One log's part in a flush.
#[derive(Debug, Clone)]
pub(super) struct FlushJob {
    pub(super) log: Arc<str>,
    pub(super) id: ulid::Ulid,
    pub(super) base: Option<u64>,
    pub(super) through: u64,
    pub(super) generations: RangeInclusive<u32>,
}

impl Storage {
    /// Writes everything acknowledged to the table, adopted logs included, and answers when that is committed.
    ///
    /// Dropping the future midway leaves it open whether a commit happened; the next flush finds out.
    ///
    /// # Errors
    /// When the table or the log fails. What was acknowledged is still in the log then, and tried again.
    pub async fn flush(self: &Arc<Self>) -> Result<FlushReport> {
        let mut upkeep = self.upkeep.lock().await;
        self.flush_all(&mut upkeep).await
    }

    pub(super) async fn flush_all(self: &Arc<Self>, upkeep: &mut Upkeep) -> Result<FlushReport> {
        let mut report = FlushReport::default();
        let adopted = self.flush_adopted(upkeep, &mut report).await;
        // A log of an earlier life that cannot be flushed must not hold up the own one.
        let own = self.flush_own(upkeep, &mut report).await;
        let flushed = adopted.and(own);
        if flushed.is_err() {
            self.counters.flush_failures.fetch_add(1, Ordering::Relaxed);
        }
        flushed.map(|()| report)
    }

    async fn flush_adopted(self: &Arc<Self>, upkeep: &mut Upkeep, report: &mut FlushReport) -> Result<()> {
        for adopted in upkeep.adopted.iter_mut().filter(|a| a.flushed_at.is_none()) {
            let job = FlushJob {
                log: Arc::clone(&adopted.log),
                id: adopted.id(),
                base: adopted.base,
                through: adopted.through,
                generations: adopted.generations.clone(),
            };
            self.run_flush(&job, report).await?;
            adopted.base = Some(job.through);
            adopted.flushed_at = Some(self.options.clock.now());
        }
        Ok(())
    }

    async fn flush_own(self: &Arc<Self>, upkeep: &mut Upkeep, report: &mut FlushReport) -> Result<()> {
        let has_appended = lock(&self.appender).has_appended;
        if !has_appended && !upkeep.own_is_pending {
            // An idle log writes nothing.
            return Ok(());
        }
        // What a flush leaves undone, the next one does.
        upkeep.own_is_pending = true;
        let storage = Arc::clone(self);
        let pushed = self.options.runtime.spawn_blocking(move || storage.push_cut());
        let cut = pushed.await.map_err(|_| Error::Worker("cut the log"))??;
        let cut = cut.await.map_err(|_| Error::Worker("log writer"))??;
        upkeep.last_flush = self.options.clock.now();
        let job = FlushJob {
            log: Arc::clone(&self.log),
            id: upkeep.own_id,
            base: upkeep.own_base,
            through: cut.through,
            generations: upkeep.own_generation..=cut.generation,
        };
        let is_committed = self.run_flush(&job, report).await?;
        upkeep.own_generation = cut.generation + 1;
        upkeep.own_is_pending = false;
        if is_committed {
            upkeep.own_base = Some(cut.through);
            self.advance_floor(cut.through + 1).await?;
        }
        Ok(())
    }

    /// Asks for the end of a generation between two segments of the log; the answer comes when what lies before is
    /// durable and visible.
    fn push_cut(&self) -> Result<oneshot::Receiver<Result<Cut>>> {
        let (done, cut) = oneshot::channel();
        let mut appender = lock(&self.appender);
        self.committer.push(Batch { cut: Some(done), ..Batch::default() })?;
        appender.has_appended = false;
        if or_fault!(NotDeclaredAgain, !appender.is_closed, false) {
            self.redeclare(&appender)?;
        }
        Ok(cut)
    }

    /// Writes a header that says that what lies below `floor` is no longer needed.
    async fn advance_floor(&self, floor: u64) -> Result<()> {
        self.committer.log().set_floor(floor);
        self.push_segment(Role::Records).await
    }

    /// Writes a segment without records behind all that was pushed.
    pub(super) async fn push_segment(&self, role: Role) -> Result<()> {
        let (done, written) = oneshot::channel();
        self.committer.push(Batch { done: Some(done), role: Some(role), ..Batch::default() })?;
        written.await.map_err(|_| Error::Worker("log writer"))?.map(drop)
    }

    /// Flushes one log; false when there was nothing to write.
    async fn run_flush(self: &Arc<Self>, job: &FlushJob, report: &mut FlushReport) -> Result<bool> {
        let started = self.options.clock.now();
        let (files, rows) = self.write_generations(job).await?;
        report.rows += rows;
        if rows == 0 {
            self.write_head().flushed(*job.generations.start(), *job.generations.end());
            return Ok(false);
        }
        if self.options.clock.now().since_ms(started) > FLUSH_MS_MAX {
            return Err(Error::Stalled { what: "flush", log: job.log.to_string() });
        }
        let count = files.len();
        let committed = self.options.table.commit_flush(&job.log, job.base, job.through, files).await;
        let version = match committed {
            Ok(version) => {
                report.files += count;
                version
            }
            Err(table::Error::BaseMismatch { found, .. }) => self.flush_remainder(job, found, report).await?,
            Err(error) => return Err(error.into()),
        };
        report.version = Some(version);
        self.counters.flushes.fetch_add(1, Ordering::Relaxed);
        let mut head = self.write_head();
        head.flushed(*job.generations.start(), *job.generations.end());
        head.flushed_version = head.flushed_version.max(version);
        tracing::info!(log = %job.log, through = job.through, version, rows, "flushed");
        Ok(true)
    }

    /// Flushes what the table does not have yet of a log of which it has more than was believed.
    async fn flush_remainder(
        self: &Arc<Self>,
        job: &FlushJob,
        found: Option<u64>,
        report: &mut FlushReport,
    ) -> Result<u64> {
        tracing::warn!(log = %job.log, base = job.base, found, through = job.through, "the table has moved on");
        if found < job.base {
            // The table has less than it had: it was replaced or restored, and writing on would leave a hole.
            return Err(Error::TableWentBack { log: job.log.to_string(), base: job.base, found });
        }
        let table = &self.options.table;
        if found >= Some(job.through) {
            return Ok(table.snapshot(None).await?.version());
        }
        if let LogStore::Objects(logs) = &self.options.logs {
            let drained = adopt::flush_records(&self.options, logs, job.id, job.through).await?;
            report.files += drained.files;
            return Ok(drained.version);
        }
        let exemplars_max = self.options.exemplars_per_series_max;
        let now = self.options.clock.now();
        let folder = self.log_folder(&job.log).unwrap_or_default();
        let (id, through) = (job.id, job.through);
        let rebuild = move || rebuild(&folder, id, found, through, exemplars_max, now);
        let tenants = self
            .options
            .runtime
            .spawn_blocking(rebuild)
            .await
            .map_err(|_| Error::Worker("rebuild a flush"))??;
        let files = table.write_files(&job.log, job.through, tenants).await?;
        report.files += files.len();
        Ok(table.commit_flush(&job.log, found, job.through, files).await?)
    }

    /// Writes the files of some generations.
    async fn write_generations(self: &Arc<Self>, job: &FlushJob) -> Result<(Vec<NewFile>, usize)> {
        let wanted = Wanted::generations(*job.generations.start(), *job.generations.end());
        let tenants: Vec<Tenant> = self.read_head().tenants().iter().map(|t| t.tenant.clone()).collect();
        let (mut files, mut count) = (Vec::new(), 0);
        for tenant in tenants {
            let series = {
                let (storage, tenant) = (Arc::clone(self), tenant.clone());
                let list = self.options.runtime.spawn_blocking(move || storage.series_to_flush(&tenant));
                list.await.map_err(|_| Error::Worker("list series"))?
            };
            let series = Arc::new(series);
            for start in (0..series.len()).step_by(ROWS_AT_ONCE) {
                let (storage, tenant_name, series) = (Arc::clone(self), tenant.clone(), Arc::clone(&series));
                let end = series.len().min(start + ROWS_AT_ONCE);
                let read = move || storage.read_rows(&tenant_name, &series[start..end], &wanted, usize::MAX);
                let rows = self.options.runtime.spawn_blocking(read);
                let rows = rows.await.map_err(|_| Error::Worker("read rows"))??;
                if rows.is_empty() {
                    continue;
                }
                count += rows.len();
                let slice = vec![(tenant.clone(), rows)];
                files.extend(self.options.table.write_files(&job.log, job.through, slice).await?);
            }
        }
        Ok((files, count))
    }

    /// All series of a tenant in the order of files.
    fn series_to_flush(&self, tenant: &Tenant) -> Vec<(Labels, u32)> {
        let head = self.read_head();
        let Some(tenant) = head.tenant(tenant) else { return Vec::new() };
        let numbers = (0..).take(tenant.series_numbers());
        let is_filled = |n: &u32| tenant.series(*n).is_some_and(|s| !s.is_empty());
        let mut series: Vec<(Labels, u32)> =
            numbers.filter(is_filled).map(|n| (tenant.labels(n), n)).collect();
        drop(head);
        series.sort_by(|a, b| compare_labels(&a.0, &b.0));
        series
    }

    /// Reads series in pieces, so that appends do not wait for all of them.
    ///
    /// # Errors
    /// [`Error::TooMany`] beyond the limit of samples.
    pub(super) fn read_rows(
        &self,
        tenant: &Tenant,
        series: &[(Labels, u32)],
        wanted: &Wanted,
        samples_max: usize,
    ) -> Result<Vec<SeriesRow>> {
        let mut rows = Vec::new();
        let mut samples = 0;
        let mut reader = SeriesReader::default();
        let mut removals = None;
        for piece in series.chunks(ROWS_PER_LOCK) {
            let head = self.read_head();
            if removals.replace(head.removals()).is_some_and(|before| before != head.removals()) {
                reader.timelines.blocks_changed();
            }
            let Some(tenant) = head.tenant(tenant) else { break };
            for (labels, number) in piece {
                // A number that means another series by now: the one looked for was empty and has gone.
                let row = tenant.read(*number, &mut reader, wanted).filter(|r| r.labels == *labels);
                samples += row.as_ref().map_or(0, |r| r.samples.sample_count());
                if samples > samples_max {
                    return Err(Error::TooMany { what: "samples in one answer", limit: samples_max });
                }
                rows.extend(row);
            }
        }
        Ok(rows)
    }
}

/// Builds the rows of the records after `base` through `through` from the log itself.
fn rebuild(
    folder: &Path,
    id: ulid::Ulid,
    base: Option<u64>,
    through: u64,
    exemplars_max: usize,
    now: model::Timestamp,
) -> Result<Vec<(Tenant, Vec<SeriesRow>)>> {
    let mut replay = Replay::new(Head::new(exemplars_max), now);
    let mut strangers = 0_u64;
    // From the first file that is left: whoever flushed through `base` need not have cut the log where declarations
    // follow, as this writer does.
    reader::read(folder, id, 0, |seq, record| {
        let is_sample = matches!(record, Record::Append(_));
        let is_wanted = seq <= through && (!is_sample || base.is_none_or(|b| seq > b));
        if is_wanted && replay.take(record).is_none() {
            strangers += 1;
        }
        Ok(())
    })?;
    if strangers > 0 {
        tracing::error!(log = %id, records = strangers, "passed over records of groups whose declaration is missing");
    }
    Ok(rows_of(&replay.head, &Wanted::times(i64::MIN, i64::MAX)))
}

/// Reads a head that nobody writes to, in the order of files.
pub(super) fn rows_of(head: &Head, wanted: &Wanted) -> Vec<(Tenant, Vec<SeriesRow>)> {
    let tenants = head.tenants().iter().map(|tenant| {
        let mut reader = SeriesReader::default();
        let numbers = (0..).take(tenant.series_numbers());
        let mut rows: Vec<SeriesRow> = numbers.filter_map(|n| tenant.read(n, &mut reader, wanted)).collect();
        rows.sort_by(|a, b| compare_labels(&a.labels, &b.labels));
        (tenant.tenant.clone(), rows)
    });
    tenants.filter(|(_, rows)| !rows.is_empty()).collect()
}
