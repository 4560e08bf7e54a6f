//! What has to be done from time to time: flushing, dropping what was flushed, removing files; and closing.

use std::collections::HashSet;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use model::Timestamp;
use ulid::Ulid;

use super::{FlushReport, Storage};
use crate::disk;
use crate::error::{Error, Result};
use crate::faults::or_fault;
use crate::head::ordering::Newest;
use crate::head::series::Series;
use crate::log::committer::lock;
use crate::log::segment::Role;
use crate::options::millis;

/// Time between two looks at what there is to do.
const TICK: Duration = Duration::from_secs(1);
/// Series gone through under one lock.
const SERIES_PER_LOCK: usize = 4096;
/// Below the folder of logs: what was damaged and is kept for people to look at.
const SET_APART_FOLDER: &str = "damaged";

/// What upkeep remembers from one time to the next.
#[derive(Debug)]
pub(super) struct Upkeep {
    pub(super) adopted: Vec<Adopted>,
    pub(super) own_id: Ulid,
    /// The last segment of the own log that is in the table.
    pub(super) own_base: Option<u64>,
    /// The first generation of the own log that is not in the table.
    pub(super) own_generation: u32,
    /// Whether a generation was cut off that is not in the table.
    pub(super) own_is_pending: bool,
    pub(super) last_flush: Timestamp,
    last_drop: Timestamp,
    /// The own log has ended, and all of it is in the table.
    has_ended: bool,
    /// What earlier lives left is flushed at once, and where that fails with the next flush.
    has_tried_adopted: bool,
}

/// The log of an earlier life.
#[derive(Debug)]
pub(super) struct Adopted {
    pub(super) log: Arc<str>,
    pub(super) folder: PathBuf,
    pub(super) base: Option<u64>,
    pub(super) through: u64,
    pub(super) generations: RangeInclusive<u32>,
    pub(super) is_damaged: bool,
    pub(super) flushed_at: Option<Timestamp>,
    pub(super) _lock: fs::File,
}

impl Adopted {
    pub(super) fn id(&self) -> Ulid {
        Ulid::from_string(&self.log).expect("made of a ULID")
    }
}

impl Upkeep {
    pub(super) fn new(adopted: Vec<Adopted>, own_generation: u32, now: Timestamp, own_id: Ulid) -> Self {
        Self {
            adopted,
            own_id,
            own_base: None,
            own_generation,
            own_is_pending: false,
            last_flush: now,
            last_drop: now,
            has_ended: false,
            has_tried_adopted: false,
        }
    }
}

impl Storage {
    /// Keeps the storage in order for as long as it is polled; never returns.
    ///
    /// Failures are logged, counted and tried again. Dropping the future at any moment is safe.
    pub async fn maintain(self: Arc<Self>) {
        loop {
            tokio::time::sleep(TICK).await;
            if let Err(error) = self.maintain_once().await {
                tracing::warn!(%error, "maintain storage");
            }
        }
    }

    /// Does what is due: flushes, drops what was flushed long ago, removes files.
    ///
    /// # Errors
    /// The first failure; what is left is due again the next time.
    pub async fn maintain_once(self: &Arc<Self>) -> Result<()> {
        let mut upkeep = self.upkeep.lock().await;
        if lock(&self.appender).is_closed {
            return Ok(());
        }
        if self.is_flush_due(&mut upkeep) {
            // What failed is tried again after an interval, not at once: the store may be overloaded.
            upkeep.last_flush = self.options.clock.now();
            self.flush_all(&mut upkeep).await?;
        }
        let now = self.options.clock.now();
        let since_drop = now.since_ms(upkeep.last_drop);
        let is_drop_due =
            upkeep.last_flush > upkeep.last_drop || since_drop >= millis(self.options.flush_interval);
        if is_drop_due {
            upkeep.last_drop = now;
        }
        let storage = Arc::clone(self);
        let delay = or_fault!(DeletedAtOnce, millis(self.options.deletion_delay), i64::MIN);
        let before = self.options.clock.now().add_ms(delay.saturating_neg());
        let tidy = move || {
            if is_drop_due {
                storage.drop_flushed()?;
            }
            storage.committer.log().remove_unneeded(before)
        };
        self.options.runtime.spawn_blocking(tidy).await.map_err(|_| Error::Worker("tidy up"))??;
        self.remove_adopted(&mut upkeep, before)?;
        drop(upkeep);
        self.remove_drained().await
    }

    /// The logs that hold what is not in the table yet: the own one until the storage is closed, and those of earlier
    /// lives until they are flushed. Waits for a flush under way.
    pub async fn unflushed_logs(&self) -> Vec<Arc<str>> {
        let upkeep = self.upkeep.lock().await;
        let own = (!upkeep.has_ended).then(|| Arc::clone(&self.log));
        let earlier = upkeep.adopted.iter().filter(|a| a.flushed_at.is_none()).map(|a| Arc::clone(&a.log));
        let unread = lock(&self.unread).clone();
        own.into_iter().chain(earlier).chain(unread).collect()
    }

    fn is_flush_due(&self, upkeep: &mut Upkeep) -> bool {
        let now = self.options.clock.now();
        if upkeep.last_flush > now {
            // The clock was set back: an interval counts from here.
            upkeep.last_flush = now;
        }
        if !upkeep.has_tried_adopted && upkeep.adopted.iter().any(|a| a.flushed_at.is_none()) {
            upkeep.has_tried_adopted = true;
            return true;
        }
        // Ingesters that started together do not flush together: each has its own interval, up to a tenth longer.
        let interval = millis(self.options.flush_interval);
        let jitter = i64::try_from(upkeep.own_id.random() % 1000).unwrap_or(0) * interval / 10_000;
        let is_time = now.since_ms(upkeep.last_flush) >= interval.saturating_add(jitter);
        is_time || self.read_head().unflushed_bytes() > self.options.unflushed_bytes_max
    }

    /// Drops what was flushed and is older than the head keeps, then series and groups that are left empty.
    fn drop_flushed(&self) -> Result<()> {
        let window_ms = self.out_of_order_window_ms.load(Ordering::Relaxed);
        let before = self.options.clock.now().add_ms(-self.options.retention_ms(window_ms));
        {
            // Said before it is done: an answer says what it lacks at the latest when it lacks it.
            let mut head = self.write_head();
            head.coverage.complete_since = head.coverage.complete_since.max(before.millis());
            head.coverage.table_version = head.coverage.table_version.max(head.flushed_version);
        }
        let tenants = self.read_head().tenants().len();
        for tenant in 0..tenants {
            let count = self.read_head().tenants()[tenant].series_numbers();
            for start in (0..count).step_by(SERIES_PER_LOCK) {
                self.write_head().drop_before(before.millis(), tenant, start..start + SERIES_PER_LOCK);
            }
        }
        self.remove_ended(before)
    }

    /// Frees series and tracks that no group uses and that hold nothing.
    fn remove_ended(&self, idle_before: Timestamp) -> Result<()> {
        let mut appender = lock(&self.appender);
        // Nothing on its way to the head may name what is removed; nothing new sets out meanwhile.
        let pending = self.pending();
        let mut head = self.write_head();
        for (number, order) in (0..).zip(&mut appender.tenants) {
            let tenant = head.tenant_at(number);
            let is_ended = |s: &u32| {
                order.uses[*s as usize] == 0
                    && tenant.series(*s).is_some_and(Series::is_empty)
                    && !pending.series.contains(&(number, *s))
            };
            let ended: Vec<u32> = (0..).take(order.uses.len()).filter(is_ended).collect();
            for series in ended {
                head.remove_series(number, series);
                order.newest[series as usize] = Newest::default();
            }
        }
        appender.tracks.retain(|key, used| {
            let is_pending = pending.tracks.contains(&(key.tenant, used.track));
            let keep = used.groups > 0 || used.idle_since > idle_before || is_pending;
            if !keep {
                head.remove_track(key.tenant, used.track);
            }
            keep
        });
        Ok(())
    }

    /// What is named by samples on their way to the head.
    fn pending(&self) -> Pending {
        let mut pending = Pending::default();
        let mut seen = HashSet::new();
        self.committer.for_each_pending(|samples| {
            pending.tracks.insert((samples.tenant, samples.track));
            // Appends of one group share their list of members.
            if seen.insert(Arc::as_ptr(&samples.members)) {
                pending.series.extend(samples.members.iter().map(|series| (samples.tenant, *series)));
            }
        });
        pending
    }

    /// Removes the logs of earlier lives that were flushed long enough ago.
    fn remove_adopted(&self, upkeep: &mut Upkeep, before: Timestamp) -> Result<()> {
        while let Some(at) = upkeep.adopted.iter().position(|a| a.flushed_at.is_some_and(|t| t <= before)) {
            let adopted = &upkeep.adopted[at];
            if adopted.is_damaged {
                let wal = adopted.folder.parent().unwrap_or(&adopted.folder);
                set_apart(wal, &adopted.folder)?;
            } else {
                disk::remove_folder(&adopted.folder)?;
            }
            tracing::info!(log = %adopted.log, "removed a log that is in the table");
            let gone = upkeep.adopted.remove(at);
            self.write_head().coverage.adopted.retain(|(log, _)| *log != gone.log);
        }
        Ok(())
    }

    /// The logs of others and of earlier lives that this storage answers for and of which all is in the table.
    pub async fn flushed_logs(&self) -> Vec<Arc<str>> {
        let upkeep = self.upkeep.lock().await;
        let earlier = upkeep.adopted.iter().filter(|a| a.flushed_at.is_some()).map(|a| Arc::clone(&a.log));
        earlier.chain(self.drained_logs()).collect()
    }

    /// Stops taking samples, flushes everything and ends the log. Reads go on.
    ///
    /// # Errors
    /// When the flush fails; the log is ended all the same, and the next start takes over from it.
    pub async fn close(self: &Arc<Self>) -> Result<FlushReport> {
        let mut upkeep = self.upkeep.lock().await;
        {
            let mut appender = lock(&self.appender);
            if appender.is_closed {
                return Err(Error::Closed);
            }
            appender.is_closed = true;
        }
        let flushed = self.flush_all(&mut upkeep).await;
        if flushed.is_ok() {
            let mut log = self.committer.log();
            let seal = log.last_seq() + 1;
            log.set_floor(seal);
        }
        let ended = self.push_segment(Role::Seal).await;
        let storage = Arc::clone(self);
        let stop = self.options.runtime.spawn_blocking(move || storage.committer.stop());
        stop.await.map_err(|_| Error::Worker("end the log"))?;
        let report = flushed?;
        ended?;
        upkeep.has_ended = true;
        Ok(report)
    }
}

/// Series and tracks that something on its way names, with their tenants.
#[derive(Debug, Default)]
struct Pending {
    series: HashSet<(u32, u32)>,
    tracks: HashSet<(u32, u32)>,
}

/// Moves a damaged log out of the way and keeps it.
pub(super) fn set_apart(wal: &Path, folder: &Path) -> Result<()> {
    let kept = wal.join(SET_APART_FOLDER);
    disk::create_folders(&kept)?;
    let name = folder.file_name().unwrap_or_default();
    disk::rename_folder(folder, &kept.join(name))?;
    disk::sync_folder(&kept)?;
    disk::sync_folder(wal)
}
