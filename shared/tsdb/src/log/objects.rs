//! Logs in an object store: `wal/<log>/<segment, 20 digits>`, every segment an object that is created if absent.
//!
//! The store is all that the machines share: who died leaves its log there, and anybody may take it over. A seal is the
//! only fence. It is created at the first segment that is not there, so that whoever still writes finds the place taken.
//!
//! # Invariants
//!
//! - A log is there for as long as its birth record is. That is the first to go once all of the log is in the table, so
//!   whoever finds it behind everything else knows that nothing else had gone either.
//! - A seal counts when it lies above what the table has of the log. Below there may be one of an adopter that was
//!   stalled for so long that the writer had gone on, flushed and removed what it wrote: that fences nothing.
//! - The table is asked after the store was listed. What the list lacks and the table has not is therefore not written
//!   yet, or lost.
//! - Whatever was decided more than ten minutes ago is decided anew.

mod writer;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use model::{Clock, Timestamp};
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use ulid::Ulid;

use super::committer::lock;
use super::record::{self, Record};
use super::segment::{self, HEADER_BYTES, Header, RawRecord, RawRecords, Role};
use crate::catalogue::log::is_taken;
use crate::error::{Error, Result};
use crate::faults::site;
use crate::location::Location;
use crate::options::millis;
use crate::table::{self, Table};
pub(crate) use writer::ObjectLog;

/// The folder below the location's root that holds the logs.
const WAL: &str = "wal";
/// Below it: what was damaged, kept for people to look at.
const DAMAGED: &str = "damaged";
/// Segments read ahead of replay.
const READS_AT_ONCE: usize = 4;
/// How often a seal is tried while the writer still writes.
const SEAL_ATTEMPTS_MAX: usize = 16;
/// Whoever worked on a seal for longer begins anew: others may have cleaned up meanwhile.
const SEAL_MAX: Duration = Duration::from_secs(600);
/// Between two attempts to make the next log's birth record.
const SPARE_RETRY: Duration = Duration::from_secs(5);

/// Who writes a log; stands in its birth record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOwner {
    /// The ingester's name, the same after a restart.
    pub ingester: String,
    /// Where it is reached, to ask whether it lives.
    pub address: String,
}

/// How an ingester keeps its logs in an object store.
#[derive(Debug, Clone)]
pub struct ObjectLogOptions {
    /// Who writes.
    pub owner: LogOwner,
    /// Tells the time.
    pub clock: Clock,
    /// Runs the requests.
    pub runtime: Handle,
    /// A writer that has not heard of its log for longer looks whether it is still there: before it writes, and before
    /// it acknowledges. Far below the time that a log stays when it is finished.
    pub verify_after: Duration,
    /// How old a seal must be before its log is removed.
    pub seal_retention: Duration,
}

impl ObjectLogOptions {
    /// Returns the defaults.
    #[must_use]
    pub fn new(owner: LogOwner, clock: Clock, runtime: Handle) -> Self {
        Self {
            owner,
            clock,
            runtime,
            verify_after: Duration::from_secs(60),
            seal_retention: Duration::from_secs(24 * 3600),
        }
    }
}

/// All logs of an object store, one's own and those of others.
pub struct ObjectLogs {
    store: Arc<dyn ObjectStore>,
    wal: Path,
    options: ObjectLogOptions,
    /// The log that is written when the present one ends, born already.
    spare: Mutex<Option<Born>>,
}

impl fmt::Debug for ObjectLogs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectLogs").field("wal", &self.wal).field("owner", &self.options.owner).finish()
    }
}

/// A log that has its birth record and no more.
#[derive(Debug)]
pub(crate) struct Born {
    id: Ulid,
    nonce: u128,
    since: Moment,
}

impl Born {
    /// Says whether this is the log of a name.
    pub(crate) fn is(&self, log: &str) -> bool {
        self.id.to_string() == log
    }

    /// How much time is left until it is this old.
    pub(crate) fn until(&self, age: Duration) -> Duration {
        age.saturating_sub(self.since.monotonic.elapsed())
    }
}

/// A point in time whose age counts sleep, and counts a clock that was set back as age too.
#[derive(Debug, Clone, Copy)]
struct Moment {
    wall: Timestamp,
    monotonic: Instant,
}

impl Moment {
    fn now(clock: &Clock) -> Self {
        Self { wall: clock.now(), monotonic: Instant::now() }
    }

    fn age(self, clock: &Clock) -> Duration {
        let wall = Duration::from_millis(clock.now().since_ms(self.wall).unsigned_abs());
        wall.max(self.monotonic.elapsed())
    }
}

/// What there is of a log that the table does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Survey {
    /// The table's transaction of the log.
    pub(crate) base: Option<u64>,
    /// Where declarations begin that records behind the base refer to.
    pub(crate) floor: u64,
    /// The first segment that is not there, or the seal.
    pub(crate) end: u64,
    /// When it was sealed.
    pub(crate) sealed: Option<Timestamp>,
    /// Nothing below this is needed; the seal of a log that ended in order is not below.
    needed: u64,
}

impl Survey {
    /// Says whether nobody needs the log any more.
    pub(crate) fn is_finished(&self) -> bool {
        self.sealed.is_some() && self.needed >= self.end
    }
}

/// A segment as it was read.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) seq: u64,
    pub(crate) records: Vec<Record>,
    /// What is wrong with it, and its bytes.
    pub(crate) damages: Vec<String>,
    bytes: Bytes,
}

#[derive(Debug, Clone, Copy)]
struct Key {
    seq: u64,
    bytes: u64,
    modified: Timestamp,
}

impl ObjectLogs {
    /// Opens the logs below a location.
    ///
    /// # Errors
    /// When the location cannot be opened; [`Error::Invalid`] when an ingester's local logs lie there.
    pub async fn open(location: &Location, options: ObjectLogOptions) -> Result<Arc<Self>> {
        let opened = location.open().await?;
        Self::on(opened.store, &opened.root, options).await
    }

    /// Opens the logs below a root in a store, which must have conditional puts.
    ///
    /// # Errors
    /// As [`ObjectLogs::open`].
    pub async fn on(
        store: Arc<dyn ObjectStore>,
        root: &Path,
        options: ObjectLogOptions,
    ) -> Result<Arc<Self>> {
        let wal = root.clone().join(WAL);
        let logs = Self { store, wal, options, spare: Mutex::new(None) };
        if logs.exists(&logs.wal.clone().join(super::local::LOCK_FILE)).await? {
            let wal = &logs.wal;
            return Err(Error::Invalid(format!("{wal}: logs of a local store lie here, give another place")));
        }
        Ok(Arc::new(logs))
    }

    /// Who writes here.
    #[must_use]
    pub fn owner(&self) -> &LogOwner {
        &self.options.owner
    }

    /// The names of all logs, oldest first; of some no more than remains may be there.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(&self) -> Result<Vec<String>> {
        let listed = self.store.list_with_delimiter(Some(&self.wal)).await;
        let listed = listed.map_err(store(format!("list {}", self.wal)))?;
        let ulid = |path: &Path| Ulid::from_string(path.parts().next_back()?.as_ref()).ok();
        let mut ids: Vec<Ulid> = listed.common_prefixes.iter().filter_map(ulid).collect();
        ids.sort_unstable();
        Ok(ids.iter().map(Ulid::to_string).collect())
    }

    /// Who writes a log, or did; `None` when it has no birth record that says so.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn owner_of(&self, log: &str) -> Result<Option<LogOwner>> {
        let id = parse(log)?;
        let Some(bytes) = self.get(&self.path(id, 0)).await? else { return Ok(None) };
        let is_birth = Header::decode(&bytes).is_some_and(|h| h.role == Role::Birth && h.log == id);
        if !is_birth {
            return Ok(None);
        }
        let body = RawRecords::new(&bytes[HEADER_BYTES..]).find_map(|record| match record {
            RawRecord::Intact(body) => serde_json::from_slice(body).ok(),
            RawRecord::Damaged => None,
        });
        Ok(body)
    }

    /// Says whether a log is the one that is written when the present one ends.
    #[must_use]
    pub fn is_spare(&self, log: &str) -> bool {
        lock(&self.spare).as_ref().is_some_and(|spare| spare.id.to_string() == log)
    }

    /// A log to write: the one born in advance, or a new one.
    pub(crate) async fn born(&self) -> Result<Born> {
        let spare = lock(&self.spare).take();
        match spare {
            Some(born) => Ok(born),
            None => self.bear().await,
        }
    }

    /// Makes the next log in the background, for as long as somebody holds the logs.
    pub(crate) fn prepare_spare(self: &Arc<Self>) {
        let logs = Arc::downgrade(self);
        self.options.runtime.spawn(async move {
            while let Some(logs) = logs.upgrade() {
                match logs.bear().await {
                    Ok(born) => {
                        lock(&logs.spare).get_or_insert(born);
                        return;
                    }
                    Err(error) => tracing::warn!(%error, "the next log is born later"),
                }
                drop(logs);
                tokio::time::sleep(SPARE_RETRY).await;
            }
        });
    }

    async fn bear(&self) -> Result<Born> {
        let (id, nonce) = (self.new_ulid(), self.new_ulid().0);
        let owner = serde_json::to_vec(&self.options.owner)
            .map_err(|error| Error::Invalid(format!("the owner of a log: {error}")))?;
        let mut payload = Vec::new();
        segment::put_record(&mut payload, |out| out.extend_from_slice(&owner));
        let (log, role) = (id, Role::Birth);
        let payload_bytes = payload.len() as u64;
        let header = Header { role, log, seq: 0, nonce, floor: 0, acknowledged: 0, payload_bytes };
        let bytes = Bytes::from([header.encode().as_slice(), &payload].concat());
        let path = self.path(id, 0);
        let put = self.store.put_opts(&path, PutPayload::from(bytes), PutMode::Create.into());
        match site!("birth record: put", put.await) {
            Ok(_) => {}
            // Nobody else knows the name: it is one's own, and the answer was lost.
            Err(error) if is_taken(&error) && self.exists(&path).await? => {}
            Err(error) => return Err(store(format!("write {path}"))(error)),
        }
        Ok(Born { id, nonce, since: Moment::now(&self.options.clock) })
    }

    /// Begins to write a log.
    pub(crate) fn writer(self: &Arc<Self>, born: Born) -> ObjectLog {
        ObjectLog::new(Arc::clone(self), born)
    }

    /// Looks at what there is of a log; `None` when it is gone.
    ///
    /// # Errors
    /// [`Error::Gap`] when acknowledged segments are missing, and whatever the store or the table say.
    pub(crate) async fn survey(&self, id: Ulid, table: &Table) -> Result<Option<Survey>> {
        match self.survey_once(id, table).await {
            // Somebody may have finished the log while it was listed.
            Err(Error::Gap { .. }) => self.survey_once(id, table).await,
            done => done,
        }
    }

    async fn survey_once(&self, id: Ulid, table: &Table) -> Result<Option<Survey>> {
        let keys = self.keys(id).await?;
        if keys.first().is_none_or(|first| first.seq != 0) {
            return Ok(None);
        }
        let base = table.snapshot(None).await?.last_transaction(&id.to_string());
        let (mut end, mut seal) = (base.unwrap_or(0) + 1, None);
        let behind: Vec<Key> = keys.iter().copied().filter(|key| key.seq >= end).collect();
        for key in &behind {
            if key.seq != end {
                break;
            }
            if let Some(header) = self.seal_at(id, *key).await? {
                seal = Some((key.modified, header));
                break;
            }
            end += 1;
        }
        let last = behind.iter().rfind(|key| seal.is_none() && key.seq > end);
        if let Some(last) = last {
            self.check_gap(id, end, &behind, *last).await?;
        }
        let floor = match &seal {
            Some((_, header)) => header.floor,
            None => self.floor_of(id, &keys, end).await?,
        };
        // The birth record holds no samples.
        let needed = base.map_or(1, |b| b + 1).max(seal.as_ref().map_or(0, |(_, header)| header.floor));
        Ok(Some(Survey { base, floor, end, sealed: seal.map(|(modified, _)| modified), needed }))
    }

    /// Says what is wrong when `end` is missing and something stands behind it: what was under way when a writer died
    /// is not, but what it acknowledged, or what was there when the log was sealed, is.
    async fn check_gap(&self, id: Ulid, end: u64, behind: &[Key], last: Key) -> Result<()> {
        let mut acknowledged = 0;
        for key in behind.iter().filter(|key| key.seq > end) {
            let is_seal = self.seal_at(id, *key).await?.is_some();
            if is_seal {
                acknowledged = key.seq - 1;
            } else if key.seq == last.seq
                && let Some(header) = self.header(id, key.seq).await?
            {
                acknowledged = acknowledged.max(header.acknowledged);
            }
        }
        if acknowledged < end {
            return Ok(());
        }
        let to = behind.iter().find(|key| key.seq > end).map_or(end, |key| key.seq - 1);
        Err(Error::Gap { log: id.to_string(), from: end, to, acknowledged })
    }

    /// The floor that the newest readable header below `end` carries.
    async fn floor_of(&self, id: Ulid, keys: &[Key], end: u64) -> Result<u64> {
        for key in keys.iter().rev().filter(|key| key.seq < end) {
            if let Some(header) = self.header(id, key.seq).await? {
                return Ok(header.floor);
            }
        }
        Ok(0)
    }

    /// Ends a log whose writer is gone, so that nothing is added to it any more; `None` when the log is gone.
    ///
    /// # Errors
    /// [`Error::Stalled`] when that took so long that the reasons for it have to be looked at again, and as
    /// [`ObjectLogs::survey`].
    pub(crate) async fn seal(&self, id: Ulid, table: &Table) -> Result<Option<Survey>> {
        let stalled = || Error::Stalled { what: "seal", log: id.to_string() };
        let began = Moment::now(&self.options.clock);
        let mut created: Option<Path> = None;
        for _ in 0..SEAL_ATTEMPTS_MAX {
            let survey = self.survey(id, table).await?;
            match (survey, created.take()) {
                (Some(survey), _) if survey.sealed.is_some() => return Ok(Some(survey)),
                // The writer went on and flushed, and the seal fences nothing.
                (Some(_), Some(_)) => return Err(stalled()),
                (None, Some(path)) => {
                    // Nothing but this is left of the log.
                    let deleted = site!("lone seal: delete", self.store.delete(&path).await);
                    deleted.map_err(store(format!("remove {path}")))?;
                    return Ok(None);
                }
                (None, None) => return Ok(None),
                (Some(survey), None) => {
                    let path = self.path(id, survey.end);
                    let bytes = self.seal_header(id, &survey).encode().to_vec();
                    if began.age(&self.options.clock) > SEAL_MAX {
                        return Err(stalled());
                    }
                    let put = self.store.put_opts(&path, bytes.into(), PutMode::Create.into());
                    match site!("seal: put", put.await) {
                        Ok(_) => created = Some(path),
                        // The next look says whether it is a segment or a seal, one's own or another's.
                        Err(error) if is_taken(&error) => {}
                        Err(error) => return Err(store(format!("seal {path}"))(error)),
                    }
                }
            }
        }
        Err(stalled())
    }

    fn seal_header(&self, id: Ulid, survey: &Survey) -> Header {
        Header {
            role: Role::Seal,
            log: id,
            seq: survey.end,
            nonce: self.new_ulid().0,
            floor: survey.floor,
            acknowledged: survey.end - 1,
            payload_bytes: 0,
        }
    }

    /// Reads segments in order, a few ahead.
    ///
    /// # Errors
    /// [`Error::Gap`] for one that is not there.
    pub(crate) fn read(
        self: &Arc<Self>,
        id: Ulid,
        from: u64,
        through: u64,
    ) -> impl futures::Stream<Item = Result<Segment>> + Send + use<> {
        let logs = Arc::clone(self);
        let read = move |seq| {
            let logs = Arc::clone(&logs);
            async move {
                let log = id.to_string();
                let gone = Error::Gap { log, from: seq, to: seq, acknowledged: through };
                let bytes = logs.get(&logs.path(id, seq)).await?.ok_or(gone)?;
                Ok(decode(id, seq, bytes))
            }
        };
        futures::stream::iter(from..=through).map(read).buffered(READS_AT_ONCE)
    }

    /// Keeps a copy of a damaged segment, which stays when the log goes.
    pub(crate) async fn set_apart(&self, id: Ulid, damaged: &Segment) -> Result<()> {
        let path = self.wal.clone().join(DAMAGED).join(id.to_string()).join(name(damaged.seq));
        let put = self.store.put(&path, PutPayload::from(damaged.bytes.clone()));
        site!("damaged segment: put", put.await).map(drop).map_err(store(format!("write {path}")))
    }

    /// Removes a log of which nothing is needed, when its seal is old enough; true when it is gone.
    ///
    /// # Errors
    /// When the store or the table fail; what is left goes the next time.
    pub(crate) async fn remove(&self, id: Ulid, table: &Table) -> Result<bool> {
        let (now, retention) = (self.options.clock.now(), millis(self.options.seal_retention));
        let Some(survey) = self.survey(id, table).await? else { return self.remove_rest(id, table).await };
        if !survey.is_finished() || survey.sealed.is_none_or(|sealed| now.since_ms(sealed) < retention) {
            return Ok(false);
        }
        self.delete(vec![self.path(id, 0)]).await?;
        self.remove_rest(id, table).await
    }

    /// Removes what has no birth record any more and is in the table; the seal goes last.
    async fn remove_rest(&self, id: Ulid, table: &Table) -> Result<bool> {
        let mut keys = self.keys(id).await?;
        let Some(last) = keys.pop() else { return Ok(true) };
        let base = table.snapshot(None).await?.last_transaction(&id.to_string());
        let through = if self.seal_at(id, last).await?.is_some() { last.seq - 1 } else { last.seq };
        if through > base.unwrap_or(0) && !self.is_ended_in_order(id, last).await? {
            tracing::error!(log = %id, base, through, "a log lost its birth record, and has more than the table");
            return Ok(false);
        }
        self.delete(keys.iter().map(|key| self.path(id, key.seq)).collect()).await?;
        self.delete(vec![self.path(id, last.seq)]).await?;
        tracing::info!(log = %id, "removed a log that is in the table");
        Ok(true)
    }

    /// Says whether the last segment is a seal that says that nothing below it is needed.
    async fn is_ended_in_order(&self, id: Ulid, last: Key) -> Result<bool> {
        Ok(self.seal_at(id, last).await?.is_some_and(|header| header.floor >= header.seq))
    }

    async fn delete(&self, paths: Vec<Path>) -> Result<()> {
        let deleted = self.store.delete_stream(futures::stream::iter(paths.into_iter().map(Ok)).boxed());
        let outcome = deleted.try_for_each(|path| async move {
            // A crash may come between two of them.
            site!("segment: delete", tracing::debug!(%path, "removed"));
            Ok(())
        });
        match outcome.await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(store(format!("remove from {}", self.wal))(error)),
        }
    }

    /// The segments of a log that are there, in order.
    async fn keys(&self, id: Ulid) -> Result<Vec<Key>> {
        let folder = self.wal.clone().join(id.to_string());
        let key = |meta: object_store::ObjectMeta| {
            let name = meta.location.filename().filter(|name| name.len() == 20)?;
            let modified = Timestamp(meta.last_modified.timestamp_millis());
            Some(Key { seq: name.parse().ok()?, bytes: meta.size, modified })
        };
        let listed = self.store.list(Some(&folder)).try_collect::<Vec<_>>().await;
        let listed = listed.map_err(store(format!("list {folder}")))?;
        let mut keys: Vec<Key> = listed.into_iter().filter_map(key).collect();
        keys.sort_unstable_by_key(|key| key.seq);
        Ok(keys)
    }

    /// The header of a segment that is a seal.
    async fn seal_at(&self, id: Ulid, key: Key) -> Result<Option<Header>> {
        if key.bytes != HEADER_BYTES as u64 {
            return Ok(None);
        }
        Ok(self.header(id, key.seq).await?.filter(|header| header.role == Role::Seal))
    }

    /// The header of a segment; `None` when there is none that can be read.
    async fn header(&self, id: Ulid, seq: u64) -> Result<Option<Header>> {
        let found = self.head(&self.path(id, seq)).await?;
        Ok(found.and_then(|(bytes, _)| Header::decode(&bytes)).filter(|h| h.log == id && h.seq == seq))
    }

    /// The first bytes of an object, and how many it has.
    async fn head(&self, path: &Path) -> Result<Option<(Bytes, u64)>> {
        let range = Some((0..HEADER_BYTES as u64).into());
        let got = self.store.get_opts(path, GetOptions { range, ..GetOptions::default() }).await;
        let read = async {
            let got = got?;
            let size = got.meta.size;
            Ok((got.bytes().await?, size))
        };
        match read.await {
            Ok(found) => Ok(Some(found)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            // A range that begins behind the end of an empty object.
            Err(error) => match self.get(path).await? {
                Some(bytes) if bytes.len() < HEADER_BYTES => {
                    let size = bytes.len() as u64;
                    Ok(Some((bytes, size)))
                }
                Some(_) => Err(store(format!("read {path}"))(error)),
                None => Ok(None),
            },
        }
    }

    async fn get(&self, path: &Path) -> Result<Option<Bytes>> {
        let read = async { self.store.get(path).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(store(format!("read {path}"))(error)),
        }
    }

    async fn exists(&self, path: &Path) -> Result<bool> {
        match self.store.head(path).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(store(format!("look for {path}"))(error)),
        }
    }

    fn path(&self, id: Ulid, seq: u64) -> Path {
        self.wal.clone().join(id.to_string()).join(name(seq))
    }

    fn new_ulid(&self) -> Ulid {
        let millis = u64::try_from(self.options.clock.now().millis()).unwrap_or(0);
        Ulid::from_datetime(SystemTime::UNIX_EPOCH + Duration::from_millis(millis))
    }
}

/// Reads a log's name.
pub(crate) fn parse(log: &str) -> Result<Ulid> {
    Ulid::from_string(log).map_err(|error| Error::Invalid(format!("{log:?} is no name of a log: {error}")))
}

fn name(seq: u64) -> String {
    format!("{seq:020}")
}

fn store(attempt: String) -> impl FnOnce(object_store::Error) -> Error {
    |source| table::Error::Store { attempt, source }.into()
}

/// Reads the records of a segment; what cannot be read is named.
fn decode(id: Ulid, seq: u64, bytes: Bytes) -> Segment {
    let (mut records, mut damages) = (Vec::new(), Vec::new());
    let header = Header::decode(&bytes).filter(|h| h.log == id && h.seq == seq);
    match header {
        Some(Header { role: Role::Records, payload_bytes, .. }) => {
            let payload = &bytes[HEADER_BYTES..];
            if payload.len() as u64 != payload_bytes {
                let length = payload.len();
                damages.push(format!("segment {seq}: {length} bytes of records of {payload_bytes}"));
            }
            for (number, raw) in RawRecords::new(payload).enumerate() {
                let decoded = match raw {
                    RawRecord::Intact(body) => record::decode(body).map_err(|error| error.to_string()),
                    RawRecord::Damaged => Err("its checksum does not match".to_owned()),
                };
                match decoded {
                    Ok(record) => records.push(record),
                    Err(reason) => damages.push(format!("segment {seq} record {number}: {reason}")),
                }
            }
        }
        // The birth record holds no samples, and a seal down here fences nothing.
        Some(_) => {}
        None => damages.push(format!("segment {seq}: its header cannot be read")),
    }
    Segment { seq, records, damages, bytes }
}
