//! Taking over logs in an object store: a log whose writer is gone is sealed and brought into the table.
//!
//! The records are replayed in parts that fit into memory, and each part is a commit of its own. So every try gets
//! further than the one before, whoever makes it, and two that work on one log at a time do no harm: a commit that does
//! not follow the one before it is refused, and its files are nobody's. What is in the table needs no memory; this
//! storage answers for the log by naming the table's version.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::TryStreamExt as _;
use model::Timestamp;
use ulid::Ulid;

use super::Storage;
use super::flush::{FLUSH_MS_MAX, rows_of};
use super::open::Replay;
use crate::error::{Error, Result};
use crate::head::Head;
use crate::head::select::Wanted;
use crate::log::committer::lock;
use crate::log::objects::{self, ObjectLogs, Segment};
use crate::log::record::Record;
use crate::options::{StorageOptions, millis};
use crate::table;

/// Unflushed samples in memory at which a part is committed.
const PART_BYTES: usize = 64 << 20;
/// How often a log is begun anew because somebody else is at it as well.
const ATTEMPTS_MAX: usize = 16;

/// A log that was brought into the table.
#[derive(Debug)]
pub(super) struct Drained {
    logs: Arc<ObjectLogs>,
    id: Ulid,
    log: Arc<str>,
    next_removal: Timestamp,
}

/// What bringing a log into the table came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The last segment that is in the table.
    pub(super) through: u64,
    /// The version that has it.
    pub(super) version: u64,
    pub(super) files: usize,
    samples: u64,
    damages: u64,
}

impl Storage {
    /// Takes over a log in the object store whose writer is gone: seals it, brings what it holds into the table, and
    /// answers for it from then on. False when the log is not there any more. Done for a log that somebody has taken
    /// over before, it finds that out.
    ///
    /// Sealing a log whose writer lives costs that writer its log, and nothing is lost. Dropping the future midway is
    /// safe; the next try goes on from there.
    ///
    /// # Errors
    /// [`Error::Gap`] when acknowledged segments are missing, and whatever the store or the table say.
    pub async fn adopt(&self, logs: &Arc<ObjectLogs>, log: &str) -> Result<bool> {
        let id = objects::parse(log)?;
        let Some(outcome) = drain(&self.options, logs, id).await? else { return Ok(false) };
        self.note_drained(logs, id, &outcome);
        Ok(true)
    }

    /// Counts what was found in a log, and answers for it from now on.
    pub(super) fn note_drained(&self, logs: &Arc<ObjectLogs>, id: Ulid, outcome: &Outcome) {
        self.counters.samples_replayed.fetch_add(outcome.samples, Ordering::Relaxed);
        self.counters.records_damaged.fetch_add(outcome.damages, Ordering::Relaxed);
        let now = self.options.clock.now();
        let mut drained = lock(&self.drained);
        if drained.iter().any(|d| d.id == id) {
            return;
        }
        let log: Arc<str> = Arc::from(id.to_string());
        lock(&self.unread).retain(|unread| *unread != log);
        {
            let coverage = &mut self.write_head().coverage;
            coverage.drained.push((Arc::clone(&log), outcome.through));
            coverage.table_version = coverage.table_version.max(outcome.version);
        }
        let next_removal = now.add_ms(millis(self.options.deletion_delay));
        drained.push(Drained { logs: Arc::clone(logs), id, log, next_removal });
    }

    /// The logs of others and of earlier lives of which all is in the table.
    #[must_use]
    pub fn drained_logs(&self) -> Vec<Arc<str>> {
        lock(&self.drained).iter().map(|drained| Arc::clone(&drained.log)).collect()
    }

    /// Removes logs that have been in the table for long enough.
    pub(super) async fn remove_drained(&self) -> Result<()> {
        let now = self.options.clock.now();
        let due = {
            let mut drained = lock(&self.drained);
            let Some(due) = drained.iter_mut().find(|d| d.next_removal <= now) else { return Ok(()) };
            // It is looked at again, whatever comes of it.
            due.next_removal = now.add_ms(millis(self.options.deletion_delay));
            (Arc::clone(&due.logs), due.id)
        };
        let (logs, id) = due;
        // Another may have removed it before.
        if logs.remove(id, &self.options.table).await? {
            let gone = id.to_string();
            lock(&self.drained).retain(|d| d.id != id);
            self.write_head().coverage.drained.retain(|(log, _)| **log != gone);
        }
        Ok(())
    }
}

/// Seals a log and brings all of it into the table; `None` when there is no such log.
pub(super) async fn drain(
    options: &StorageOptions,
    logs: &Arc<ObjectLogs>,
    id: Ulid,
) -> Result<Option<Outcome>> {
    let Some(survey) = logs.seal(id, &options.table).await? else { return Ok(None) };
    if survey.is_finished() {
        let version = options.table.snapshot(None).await?.version();
        return Ok(Some(Outcome { through: survey.end - 1, version, ..Outcome::default() }));
    }
    tracing::info!(log = %id, base = survey.base, through = survey.end - 1, "take over a log");
    let outcome = flush_records(options, logs, id, survey.end - 1).await?;
    tracing::info!(log = %id, through = outcome.through, samples = outcome.samples, "took over a log");
    Ok(Some(outcome))
}

/// Brings the records of a log, through a segment, into the table.
pub(super) async fn flush_records(
    options: &StorageOptions,
    logs: &Arc<ObjectLogs>,
    id: Ulid,
    through: u64,
) -> Result<Outcome> {
    let mut outcome = Outcome { through, ..Outcome::default() };
    for _ in 0..ATTEMPTS_MAX {
        let survey = logs.survey(id, &options.table).await?;
        let is_flushed = survey.as_ref().is_none_or(|s| s.base >= Some(through) || s.is_finished());
        if is_flushed {
            // Who removes a log has seen all of it in the table.
            outcome.version = options.table.snapshot(None).await?.version();
            return Ok(outcome);
        }
        let Some(survey) = survey else { continue };
        let from = survey.floor.min(survey.base.map_or(1, |base| base + 1)).max(1);
        let mut parts = Parts::new(options, logs, id, survey.base);
        let flushed = parts.flush(from, through).await;
        outcome.files += parts.outcome.files;
        outcome.samples += parts.outcome.samples;
        outcome.damages += parts.outcome.damages;
        outcome.version = parts.outcome.version;
        match flushed {
            Ok(()) => return Ok(outcome),
            // Somebody else is at it: what he has done is the base of what is left.
            Err(Error::Table(table::Error::BaseMismatch { found, .. })) if found > survey.base => {}
            Err(Error::Table(table::Error::BaseMismatch { found, .. })) => {
                return Err(Error::TableWentBack { log: id.to_string(), base: survey.base, found });
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::Stalled { what: "flush", log: id.to_string() })
}

/// Replays a log part by part.
struct Parts<'a> {
    options: &'a StorageOptions,
    logs: &'a Arc<ObjectLogs>,
    id: Ulid,
    log: String,
    base: Option<u64>,
    outcome: Outcome,
}

impl<'a> Parts<'a> {
    fn new(options: &'a StorageOptions, logs: &'a Arc<ObjectLogs>, id: Ulid, base: Option<u64>) -> Self {
        Self { options, logs, id, log: id.to_string(), base, outcome: Outcome::default() }
    }

    /// Replays from where declarations begin, and commits what lies behind the base.
    async fn flush(&mut self, from: u64, through: u64) -> Result<()> {
        let part_bytes = PART_BYTES.min(self.options.unflushed_bytes_max);
        let mut replay =
            Replay::new(Head::new(self.options.exemplars_per_series_max), self.options.clock.now());
        replay.head.next_generation();
        let mut began = self.options.clock.now();
        let mut segments = pin!(self.logs.read(self.id, from, through));
        while let Some(segment) = segments.try_next().await? {
            let (seq, is_wanted) = (segment.seq, self.base.is_none_or(|base| segment.seq > base));
            if is_wanted {
                self.note_damages(&segment).await?;
            }
            let take = move || {
                let strangers = replay.take_segment(segment, is_wanted);
                (replay, strangers)
            };
            let taken = self.options.runtime.spawn_blocking(take).await;
            let strangers;
            (replay, strangers) = taken.map_err(|_| Error::Worker("replay a log"))?;
            if strangers > 0 {
                tracing::error!(log = %self.id, seq, records = strangers, "passed over records of groups whose declaration is damaged");
                self.outcome.damages += strangers;
            }
            if seq == through || (is_wanted && replay.head.unflushed_bytes() >= part_bytes) {
                replay = self.commit(replay, seq, began).await?;
                began = self.options.clock.now();
            }
        }
        Ok(())
    }

    async fn commit(&mut self, mut replay: Replay, seq: u64, began: Timestamp) -> Result<Replay> {
        let generation = replay.head.generation();
        let read = move || {
            let rows = rows_of(&replay.head, &Wanted::generations(generation, generation));
            (replay, rows)
        };
        let rows;
        let done = self.options.runtime.spawn_blocking(read).await;
        (replay, rows) = done.map_err(|_| Error::Worker("read rows"))?;
        let files = self.options.table.write_files(&self.log, seq, rows).await?;
        if self.options.clock.now().since_ms(began) > FLUSH_MS_MAX {
            return Err(Error::Stalled { what: "flush", log: self.log.clone() });
        }
        let count = files.len();
        self.outcome.version = self.options.table.commit_flush(&self.log, self.base, seq, files).await?;
        self.outcome.files += count;
        self.outcome.samples += std::mem::take(&mut replay.samples);
        self.base = Some(seq);
        replay.head.flushed(generation, generation);
        replay.head.next_generation();
        for tenant in 0..replay.head.tenants().len() {
            replay.head.drop_before(i64::MAX, tenant, 0..usize::MAX);
        }
        Ok(replay)
    }

    async fn note_damages(&mut self, segment: &Segment) -> Result<()> {
        for damage in &segment.damages {
            tracing::error!(log = %self.id, damage, "passed over damage in a log");
        }
        if !segment.damages.is_empty() {
            self.outcome.damages += segment.damages.len() as u64;
            self.logs.set_apart(self.id, segment).await?;
        }
        Ok(())
    }
}

impl Replay {
    pub(super) fn new(head: Head, now: Timestamp) -> Self {
        Self { head, tracks: HashMap::new(), groups: HashMap::new(), now, samples: 0 }
    }

    /// Takes the records of a segment, declarations alone if its samples are in the table; returns how many were of
    /// groups that are not known.
    fn take_segment(&mut self, segment: Segment, with_samples: bool) -> u64 {
        let mut strangers = 0;
        for record in segment.records {
            if !with_samples && matches!(record, Record::Append(_)) {
                continue;
            }
            match self.take(record) {
                Some(count) => self.samples += count,
                None if with_samples => strangers += 1,
                // It refers to what was declared before the floor, and no sample behind the base refers to it.
                None => {}
            }
        }
        strangers
    }
}
