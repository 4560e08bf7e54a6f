//! Starting: takes the folder, seals and replays the logs of earlier lives, loads the recent tail, begins a log.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use model::Timestamp;
use ulid::Ulid;

use super::appender::{Appender, FUTURE_MS_MAX, TrackKey, TrackUse};
use super::upkeep::{Adopted, Upkeep};
use super::{Counters, Storage, adopt};
use crate::append::GroupChange;
use crate::disk;
use crate::error::{Error, Result};
use crate::head::{GroupSamples, Head, REMOVED};
use crate::log::committer::{CommitOptions, Committer, Outlet, lock};
use crate::log::local::{self, LocalLog};
use crate::log::objects::{self, ObjectLogs};
use crate::log::record::{Append, Declare, Record};
use crate::log::{Writer, reader};
use crate::options::{LogStore, StorageOptions, millis};
use crate::table::{SelectLimits, Snapshot, Table};

/// The folder below the storage's that holds the logs.
pub(super) const WAL_FOLDER: &str = "wal";

impl Storage {
    /// Opens the storage: everything acknowledged in earlier lives is readable when this returns.
    ///
    /// Nothing runs in the background but the log writer; [`Storage::maintain`] is to be spawned by the caller.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process works in the folder, [`Error::Gap`] when acknowledged segments of an
    /// earlier log are missing, and whatever the disk or the table say.
    pub async fn open(options: StorageOptions) -> Result<Arc<Self>> {
        match options.logs.clone() {
            LogStore::Folder(dir) => Self::open_folder(options, &dir).await,
            LogStore::Objects(logs) => Self::open_objects(options, &logs).await,
        }
    }

    async fn open_folder(options: StorageOptions, dir: &Path) -> Result<Arc<Self>> {
        let wal = dir.join(WAL_FOLDER);
        disk::create_folders(&wal)?;
        disk::sync_folder(dir)?;
        let folder_lock = local::lock(&wal)?;
        let snapshot = options.table.snapshot(None).await?;
        let mut head = Head::new(options.exemplars_per_series_max);
        load_tail(&mut head, &snapshot, &options).await?;

        let transactions: HashMap<String, u64> =
            snapshot.transactions().map(|(log, through)| (log.to_owned(), through)).collect();
        let replayed = {
            let (wal, now) = (wal.clone(), options.clock.now());
            let replay = move || replay_all(&wal, head, &transactions, now);
            options.runtime.spawn_blocking(replay).await.map_err(|_| Error::Worker("replay"))??
        };
        let id = new_ulid(options.clock.now());
        let log = LocalLog::create(&wal, id, new_ulid(options.clock.now()).0, options.file_bytes_max)?;
        let birth_delay = options.birth_delay;
        let lives = Lives::new(replayed, Some(Arc::new(folder_lock)));
        Self::start(options, lives, Box::new(log), birth_delay)
    }

    /// What this ingester left in earlier lives is brought into the table before anything else.
    async fn open_objects(options: StorageOptions, logs: &Arc<ObjectLogs>) -> Result<Arc<Self>> {
        let born = logs.born().await?;
        let (mut drained, mut unread) = (Vec::new(), Vec::new());
        for log in logs.list().await? {
            let owner = logs.owner_of(&log).await?;
            if owner.is_none_or(|owner| owner.ingester != logs.owner().ingester)
                || born.is(&log)
                || logs.is_spare(&log)
            {
                continue;
            }
            let id = objects::parse(&log)?;
            match adopt::drain(&options, logs, id).await {
                Ok(outcome) => drained.extend(outcome.map(|outcome| (id, outcome))),
                // It stays listed as missing, and is tried again with those of others.
                Err(error) if error.kind() == fault::Kind::Corrupt => {
                    tracing::error!(%error, %log, "a log of an earlier life cannot be read");
                    unread.push(Arc::from(log));
                }
                Err(error) => return Err(error),
            }
        }
        let snapshot = options.table.snapshot(None).await?;
        let mut head = Head::new(options.exemplars_per_series_max);
        load_tail(&mut head, &snapshot, &options).await?;
        // Who is ready acknowledges without delay.
        tokio::time::sleep(born.until(options.birth_delay)).await;
        let replayed = Replayed { head, tracks: HashMap::new(), adopted: Vec::new(), samples: 0, damages: 0 };
        let lives = Lives::new(replayed, None);
        let storage = Self::start(options, lives, Box::new(logs.writer(born)), Duration::ZERO)?;
        for (id, outcome) in &drained {
            storage.note_drained(logs, *id, outcome);
        }
        *lock(&storage.unread) = unread;
        logs.prepare_spare();
        Ok(storage)
    }

    /// Begins to write a log.
    pub(super) fn start(
        options: StorageOptions,
        lives: Lives,
        writer: Box<dyn Writer>,
        birth_delay: Duration,
    ) -> Result<Arc<Self>> {
        let Lives { head, tracks, adopted, counters, folder_lock } = lives;
        let id = writer.id();
        let log: Arc<str> = Arc::from(id.to_string());
        let (first_generation, appender) = {
            let mut head = head.write().unwrap_or_else(PoisonError::into_inner);
            head.coverage.log = Arc::clone(&log);
            head.coverage.acknowledged = 0;
            (head.next_generation(), Appender::from_head(&head, tracks))
        };
        let commit_options = CommitOptions {
            delay: options.commit_delay,
            bytes: options.commit_bytes,
            segment_bytes_max: options.segment_bytes_max(),
            in_flight_max: options.commits_in_flight_max,
            stall_after: options.stall_after,
            queue_bytes_max: options.queue_bytes_max,
            birth_delay,
            clock: options.clock.clone(),
        };
        let outlet = outlet(&head, Arc::clone(&counters));
        let committer = Committer::start(writer, commit_options, outlet)?;
        let upkeep = Upkeep::new(adopted, first_generation, options.clock.now(), id);
        tracing::info!(log = %id, "opened storage");
        Ok(Arc::new(Self {
            out_of_order_window_ms: AtomicI64::new(millis(options.out_of_order_window)),
            options,
            log,
            head,
            appender: Mutex::new(appender),
            committer,
            upkeep: Arc::new(tokio::sync::Mutex::new(upkeep)),
            drained: Mutex::default(),
            unread: Mutex::default(),
            counters,
            folder_lock,
        }))
    }
}

/// What a storage takes over from those before it.
pub(super) struct Lives {
    pub(super) head: Arc<RwLock<Head>>,
    pub(super) tracks: HashMap<TrackKey, TrackUse>,
    pub(super) adopted: Vec<Adopted>,
    pub(super) counters: Arc<Counters>,
    pub(super) folder_lock: Option<Arc<fs::File>>,
}

impl Lives {
    fn new(replayed: Replayed, folder_lock: Option<Arc<fs::File>>) -> Self {
        let Replayed { head, tracks, adopted, samples, damages } = replayed;
        let counters = Arc::new(Counters::default());
        counters.samples_replayed.store(samples, Ordering::Relaxed);
        counters.records_damaged.store(damages, Ordering::Relaxed);
        Self { head: Arc::new(RwLock::new(head)), tracks, adopted, counters, folder_lock }
    }
}

/// Makes durable samples visible.
fn outlet(head: &Arc<RwLock<Head>>, counters: Arc<Counters>) -> Outlet {
    let applied = Arc::clone(head);
    let apply = Box::new(move |seq: u64, samples: &[GroupSamples]| {
        let mut head = applied.write().unwrap_or_else(PoisonError::into_inner);
        let loose: u64 = samples.iter().map(|s| head.apply(s)).sum();
        counters.samples_loose.fetch_add(loose, Ordering::Relaxed);
        counters.segments.fetch_add(seq.saturating_sub(head.coverage.acknowledged), Ordering::Relaxed);
        head.coverage.acknowledged = seq;
    });
    let head = Arc::clone(head);
    let cut = Box::new(move || {
        let mut head = head.write().unwrap_or_else(PoisonError::into_inner);
        head.next_generation();
        head.generation() - 1
    });
    Outlet { apply, cut }
}

/// Loads what ordering rules and lookback need of what was flushed before.
async fn load_tail(head: &mut Head, snapshot: &Snapshot, options: &StorageOptions) -> Result<()> {
    head.coverage.table_version = snapshot.version();
    let since = options.clock.now().add_ms(-options.recent_ms()).millis();
    for tenant in snapshot.tenants() {
        head.coverage.complete_since = head.coverage.complete_since.max(since);
        match snapshot.select(&tenant, &[], since, i64::MAX, SelectLimits::NONE).await {
            Ok(rows) => head.load(&tenant, rows),
            // A damaged file fails the queries that need it, and nothing else.
            Err(error) if error.kind() == fault::Kind::Corrupt => {
                tracing::error!(%error, %tenant, "the order of new samples is judged without those of late");
                head.coverage.complete_since = options.clock.now().add_ms(FUTURE_MS_MAX).millis();
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What earlier lives left behind, in memory again.
struct Replayed {
    head: Head,
    tracks: HashMap<TrackKey, TrackUse>,
    adopted: Vec<Adopted>,
    samples: u64,
    damages: u64,
}

fn replay_all(
    wal: &Path,
    head: Head,
    transactions: &HashMap<String, u64>,
    now: Timestamp,
) -> Result<Replayed> {
    let mut replay = Replay::new(head, now);
    let mut adopted = Vec::new();
    let mut damages = 0;
    for (folder, id) in earlier_logs(wal)? {
        let base = transactions.get(&id.to_string()).copied();
        let generation = replay.head.next_generation();
        replay.groups.clear();
        local::check_is_local(&folder)?;
        let lock = local::lock(&folder)?;
        let from = base.map_or(0, |b| b + 1);
        let mut samples = 0;
        let mut strangers = 0_u64;
        let summary = reader::read(&folder, id, from, |_, record| {
            match replay.take(record) {
                Some(count) => samples += count,
                None => strangers += 1,
            }
            Ok(())
        })?;
        let Some(last) = summary.last else {
            discard_unborn(wal, &folder, summary.bytes)?;
            continue;
        };
        for damage in &summary.damages {
            tracing::error!(log = %id, damage, "passed over damage in a log");
        }
        for place in &summary.unread_end {
            // The writer died in the middle of it; only after damage was it ever acknowledged.
            tracing::warn!(log = %id, place, "left out the end of a log, which cannot be read");
        }
        if strangers > 0 {
            tracing::error!(log = %id, records = strangers, "passed over records of groups whose declaration is damaged");
        }
        let log_damages = summary.damages.len() as u64 + strangers;
        damages += log_damages;
        if !summary.is_sealed {
            local::seal(&folder, id, &last, summary.torn.as_ref())?;
        }
        let through = summary.last_data_seq();
        tracing::info!(log = %id, base, through, samples, "took over a log");
        replay.samples += samples;
        let is_flushed = samples == 0;
        if is_flushed {
            replay.head.flushed(generation, generation);
        }
        let log: Arc<str> = Arc::from(id.to_string());
        replay.head.coverage.adopted.push((Arc::clone(&log), through));
        adopted.push(Adopted {
            log,
            folder,
            base,
            through,
            generations: generation..=generation,
            is_damaged: log_damages > 0,
            flushed_at: is_flushed.then_some(now),
            _lock: lock,
        });
    }
    let Replay { head, tracks, samples, .. } = replay;
    Ok(Replayed { head, tracks, adopted, samples, damages })
}

/// The logs on a disk, in `wal/` below a folder, that hold what is not in the table.
///
/// # Errors
/// As [`Storage::open`] says of logs that cannot be read.
pub async fn unflushed_local_logs(dir: &Path, table: &Table) -> Result<Vec<String>> {
    let wal = dir.join(WAL_FOLDER);
    if !wal.exists() {
        return Ok(Vec::new());
    }
    let snapshot = table.snapshot(None).await?;
    let mut left = Vec::new();
    for (folder, id) in earlier_logs(&wal)? {
        if !folder.join(local::LOCK_FILE).exists() {
            // Written as objects.
            continue;
        }
        let (name, mut samples) = (id.to_string(), 0_u64);
        let from = snapshot.last_transaction(&name).map_or(0, |base| base + 1);
        reader::read(&folder, id, from, |_, record| {
            samples += u64::from(matches!(record, Record::Append(_)));
            Ok(())
        })?;
        if samples > 0 {
            left.push(name);
        }
    }
    Ok(left)
}

/// The folders of logs, oldest first.
fn earlier_logs(wal: &Path) -> Result<Vec<(PathBuf, Ulid)>> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(wal).map_err(Error::io("list", wal))? {
        let entry = entry.map_err(Error::io("list", wal))?;
        let id = entry.file_name().to_str().and_then(|name| Ulid::from_string(name).ok());
        logs.extend(id.map(|id| (entry.path(), id)));
    }
    logs.sort_by_key(|(_, id)| *id);
    Ok(logs)
}

/// Removes a log that never got as far as its birth record, and so acknowledged nothing.
fn discard_unborn(wal: &Path, folder: &Path, bytes: u64) -> Result<()> {
    if bytes > crate::log::segment::HEADER_BYTES as u64 {
        tracing::error!(folder = %folder.display(), bytes, "a log has not one valid segment");
        return super::upkeep::set_apart(wal, folder);
    }
    disk::remove_folder(folder)
}

/// Replays the records of one log after the other.
pub(super) struct Replay {
    pub(super) head: Head,
    pub(super) tracks: HashMap<TrackKey, TrackUse>,
    pub(super) groups: HashMap<u64, ReplayedGroup>,
    pub(super) now: Timestamp,
    pub(super) samples: u64,
}

pub(super) struct ReplayedGroup {
    tenant: u32,
    track: u32,
    key: TrackKey,
    members: Arc<Vec<u32>>,
}

impl Replay {
    /// Takes a record and returns how many samples it held; `None` when its group is not known.
    pub(super) fn take(&mut self, record: Record) -> Option<u64> {
        match record {
            Record::Declare(declare) => self.declare(&declare),
            Record::Change { group, change } => self.change(group, &change)?,
            Record::Forget { group } => {
                self.groups.remove(&group);
            }
            Record::Append(append) => return self.append(append),
        }
        Some(0)
    }

    fn declare(&mut self, declare: &Declare) {
        let tenant = self.head.tenant_number(&declare.tenant);
        let key = TrackKey { tenant, key: declare.key.clone(), sub_group: declare.sub_group };
        let head = self.head.tenant_mut(tenant);
        let members = declare.members.iter().map(|m| match m {
            Some(m) => head.series_or_insert(&m.labels, &m.metadata),
            None => REMOVED,
        });
        let members = Arc::new(members.collect());
        let (epoch, idle_since) = (declare.epoch, self.now);
        let used = self.tracks.entry(key.clone()).or_insert_with(|| TrackUse {
            track: head.add_track(),
            epoch,
            groups: 0,
            idle_since,
        });
        used.epoch = used.epoch.max(epoch);
        self.groups.insert(declare.group, ReplayedGroup { tenant, track: used.track, key, members });
    }

    fn change(&mut self, group: u64, change: &GroupChange) -> Option<()> {
        let group = self.groups.get_mut(&group)?;
        let head = self.head.tenant_mut(group.tenant);
        let members = Arc::make_mut(&mut group.members);
        for (member, metadata) in &change.metadata {
            if let Some(series) = members.get(*member as usize).filter(|s| **s != REMOVED) {
                head.set_metadata(*series, metadata);
            }
        }
        members.extend(change.add.iter().map(|m| head.series_or_insert(&m.labels, &m.metadata)));
        for member in &change.remove {
            if let Some(series) = members.get_mut(*member as usize) {
                *series = REMOVED;
            }
        }
        if let (Some(epoch), Some(used)) = (change.epoch, self.tracks.get_mut(&group.key)) {
            used.epoch = used.epoch.max(epoch);
        }
        Some(())
    }

    fn append(&mut self, append: Append) -> Option<u64> {
        let group = self.groups.get(&append.group)?;
        let count = append.values.len() + append.histograms.len();
        self.head.apply(&GroupSamples {
            tenant: group.tenant,
            track: group.track,
            timestamp: append.timestamp,
            members: Arc::clone(&group.members),
            presence: append.presence,
            values: append.values,
            histograms: append.histograms,
            starts: append.starts,
            exemplars: append.exemplars,
        });
        // What carries exemplars only counts as well: it has to be flushed.
        Some((count as u64).max(1))
    }
}

pub(super) fn new_ulid(now: Timestamp) -> Ulid {
    let since_epoch = Duration::from_millis(u64::try_from(now.millis()).unwrap_or(0));
    Ulid::from_datetime(SystemTime::UNIX_EPOCH + since_epoch)
}
