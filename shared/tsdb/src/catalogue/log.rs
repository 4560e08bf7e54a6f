//! The Delta log in the object store: following it and adding to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use model::{Clock, Timestamp};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use parking_lot::RwLock;
use tokio::runtime::Handle;
use ulid::Ulid;

use super::action::{
    CommitInfo, Format, Line, Protocol, READER_VERSION, TableMetadata, WRITER_VERSION, from_json_lines,
    to_json_lines,
};
use super::state::{DataFile, Origin, PARTITION_COLUMNS, State, add, remove, transaction};
use super::{checkpoint, cleanup};
use crate::faults::{or_fault, site};
use crate::file::schema::delta_schema;
use crate::table::{Error, Result};

/// Attempts of one commit against other writers.
const COMMIT_ATTEMPTS_MAX: u32 = 100;
/// Attempts of one commit against a failing store; the store retries by itself within each.
const STORE_FAILURES_MAX: u32 = 3;
/// The shortest pause between two attempts is a random part of this.
const BACKOFF_MIN: Duration = Duration::from_millis(4);
/// The longest pause between two attempts is a random part of this.
const BACKOFF_MAX: Duration = Duration::from_millis(512);
/// Commits read at a time.
const READS_MAX: usize = 32;
/// A commit file larger than this is not ours.
const COMMIT_BYTES_MAX: u64 = 64 << 20;
/// Attempts to read a log that somebody cleans up meanwhile.
const REPLAYS_MAX: u32 = 3;
/// Work on a compaction that takes longer than this is begun anew, since others may clean up after it.
pub(crate) const WORK_MS_MAX: i64 = 600_000;

/// Who writes, for people who read the log.
const ENGINE: &str = concat!("tributary/", env!("CARGO_PKG_VERSION"));

/// One flush to commit.
#[derive(Debug, Clone)]
pub(crate) struct Flush<'a> {
    /// The log that was flushed.
    pub log: &'a str,
    /// The log's last transaction that the flush was built on.
    pub base: Option<u64>,
    /// The last sequence number in the flush.
    pub through: u64,
    /// Its files.
    pub files: &'a [DataFile],
}

/// Files to exchange for others that hold the same, or nothing.
#[derive(Debug, Clone)]
pub(crate) struct Replacement<'a> {
    /// Why.
    pub operation: Operation,
    /// What goes; all of it must still be live.
    pub removes: &'a [Arc<DataFile>],
    /// What comes.
    pub adds: &'a [DataFile],
    /// When the work on it began.
    pub started: Timestamp,
}

/// Why files are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// The same samples in fewer files.
    Compact,
    /// They are too old, or too many.
    Expire,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Compact => "OPTIMIZE",
            Self::Expire => "DELETE",
        }
    }

    /// Whether somebody who follows the table has to look.
    fn changes_data(self) -> bool {
        self == Self::Expire
    }
}

/// The log of one table, with the newest state known.
#[derive(Debug)]
pub(crate) struct DeltaLog {
    store: Arc<dyn ObjectStore>,
    directory: Path,
    clock: Clock,
    state: RwLock<Arc<State>>,
    /// The newest checkpoint known; 0 without one.
    checkpoint: AtomicU64,
    /// Held while commits are read, so that many who ask at once cost one LIST after the other, not a storm.
    refreshing: tokio::sync::Mutex<()>,
}

impl DeltaLog {
    /// Opens the log of the table at this path, creating it when there is none.
    pub(crate) async fn open(store: Arc<dyn ObjectStore>, table: &Path, clock: Clock) -> Result<Self> {
        let directory = table.clone().join("_delta_log");
        let state = match checkpoint::named_state(&*store, &directory).await? {
            Some(state) => state,
            None => first_state(&*store, &directory, &clock).await?,
        };
        let log = Self {
            store,
            directory,
            clock,
            checkpoint: AtomicU64::new(state.version),
            state: RwLock::new(Arc::new(state)),
            refreshing: tokio::sync::Mutex::new(()),
        };
        log.refresh().await?;
        Ok(log)
    }

    /// The version of the newest checkpoint known; 0 without one.
    pub(crate) fn known_checkpoint(&self) -> u64 {
        self.checkpoint.load(Ordering::Relaxed)
    }

    /// The newest state known, without looking.
    pub(crate) fn known(&self) -> Arc<State> {
        Arc::clone(&self.state.read())
    }

    /// Reads commits that are newer than what is known. Dropping the future midway loses nothing.
    pub(crate) async fn refresh(&self) -> Result<Arc<State>> {
        let _one_at_a_time = self.refreshing.lock().await;
        let mut known = self.known();
        for attempt in 1.. {
            let newest = self.newest_version(known.version).await?;
            if newest == known.version {
                break;
            }
            match self.replay(State::clone(&known), newest).await? {
                Replayed::All(state) => known = state,
                // Whoever is that far behind finds the commits cleaned up, and a checkpoint that has them.
                Replayed::Missing(path) => match checkpoint::newest(&*self.store, &self.directory).await? {
                    Some(state) if state.version > known.version && attempt < REPLAYS_MAX => {
                        known = Arc::new(state);
                        continue;
                    }
                    _ => return Err(missing(&path)),
                },
            }
            break;
        }
        // Somebody may have committed here meanwhile, and taken that over.
        let mut state = self.state.write();
        if state.version < known.version {
            *state = Arc::clone(&known);
        }
        Ok(Arc::clone(&state))
    }

    /// Applies the commits through a version.
    async fn replay(&self, mut state: State, newest: u64) -> Result<Replayed> {
        let versions = futures::stream::iter(state.version + 1..=newest).map(|version| async move {
            let path = commit_path(&self.directory, version);
            let lines = get(&*self.store, &path).await?.map(|bytes| parse(&path, &bytes)).transpose()?;
            Ok::<_, Error>((lines, path))
        });
        let mut commits = std::pin::pin!(versions.buffered(READS_MAX));
        while let Some((lines, path)) = commits.try_next().await? {
            let Some(lines) = lines else { return Ok(Replayed::Missing(path)) };
            state = state.next(path.as_ref(), lines)?;
        }
        Ok(Replayed::All(Arc::new(state)))
    }

    /// Lists what is above a version and returns the highest; takes note of checkpoints.
    async fn newest_version(&self, known: u64) -> Result<u64> {
        let offset = commit_path(&self.directory, known);
        let mut newest = known;
        let mut entries = self.store.list_with_offset(Some(&self.directory), &offset);
        let listed = || format!("list {}", self.directory);
        while let Some(entry) = entries.try_next().await.map_err(Error::store(listed()))? {
            match Entry::of(&entry.location) {
                Entry::Commit(version) => newest = newest.max(version),
                Entry::Checkpoint(version) => {
                    self.checkpoint.fetch_max(version, Ordering::Relaxed);
                }
                Entry::Other => {}
            }
        }
        Ok(newest)
    }

    /// Adds the files of a flush and moves the log's transaction, in one commit.
    ///
    /// Dropping the future midway leaves it open whether the commit happened; the table's transaction tells.
    ///
    /// # Errors
    /// [`Error::BaseMismatch`] when the table's last transaction for the log is not the flush's base in the version
    /// right below the one that would be written.
    pub(crate) async fn commit_flush(&self, flush: &Flush<'_>) -> Result<u64> {
        let now = self.clock.now();
        let name = new_name(now);
        let lines = flush_lines(flush, &name, now)?;
        self.commit(lines, &name, |state| check_base(flush, state)).await
    }

    /// Exchanges files for others, in one commit.
    ///
    /// Dropping the future midway leaves it open whether the commit happened.
    ///
    /// # Errors
    /// [`Error::Overtaken`] when one of the files is not live any more in the version right below the one that would
    /// be written, [`Error::Stalled`] when the work has taken too long: the new files are then nobody's.
    pub(crate) async fn commit_replacement(&self, replacement: &Replacement<'_>) -> Result<u64> {
        let now = self.clock.now();
        let name = new_name(now);
        let lines = replacement_lines(replacement, &name, now)?;
        self.commit(lines, &name, |state| {
            if self.clock.now().since_ms(replacement.started) > WORK_MS_MAX {
                return Err(Error::Stalled { attempt: "replace files of the table" });
            }
            let mut removes = replacement.removes.iter();
            let lost = removes.find(|f| or_fault!(NoInputCheck, !state.files.contains_key(&f.path), false));
            lost.map_or(Ok(()), |f| Err(Error::Overtaken { path: f.path.clone() }))
        })
        .await
    }

    /// Writes the newest state as a checkpoint and returns its version.
    pub(crate) async fn checkpoint(&self, runtime: &Handle) -> Result<u64> {
        let state = self.refresh().await?;
        let version = state.version;
        let (size, bytes) = encode_checkpoint(state, runtime).await?;
        checkpoint::write(&*self.store, &self.directory, version, size, bytes).await?;
        self.checkpoint.fetch_max(version, Ordering::Relaxed);
        Ok(version)
    }

    /// Makes a table of its own, at another path of the same store, of a state whose data files lie there already.
    ///
    /// Its log begins with the commit of that version and a checkpoint, which names the files.
    pub(crate) async fn copy_to(&self, state: Arc<State>, table: &Path, runtime: &Handle) -> Result<()> {
        let (version, directory) = (state.version, table.clone().join("_delta_log"));
        let (from, to) = (commit_path(&self.directory, version), commit_path(&directory, version));
        let copied = site!("snapshot commit: copy", self.store.copy(&from, &to).await);
        copied.map_err(Error::store(format!("copy {from}")))?;
        let (size, bytes) = encode_checkpoint(state, runtime).await?;
        checkpoint::write(&*self.store, &directory, version, size, bytes).await
    }

    /// Removes commits and checkpoints from before an instant that lie behind a checkpoint from before it.
    pub(crate) async fn clean_up(&self, before: Timestamp) -> Result<usize> {
        cleanup::clean_up(&*self.store, &self.directory, before).await
    }

    /// Writes one commit right above a state that passes the check.
    async fn commit(
        &self,
        lines: Vec<Line>,
        name: &str,
        check: impl Fn(&State) -> Result<()> + Send + Sync,
    ) -> Result<u64> {
        let now = self.clock.now();
        let body = PutPayload::from(encode(&lines)?);
        // The version of the last attempt, as long as it is not known who holds it. An attempt that seems to have
        // failed may have arrived, or arrive yet; its version is settled once any commit stands there.
        let mut unsettled: Option<u64> = None;
        let mut failures = 0;
        for attempt in 0..COMMIT_ATTEMPTS_MAX {
            let state = self.refresh().await?;
            if let Some(version) = unsettled.take_if(|v| *v <= state.version)
                && self.commit_name(version).await?.as_deref() == Some(name)
            {
                return Ok(version);
            }
            check(&state)?;
            check_writable(&self.directory, &state)?;
            let version = state.version + 1;
            let path = commit_path(&self.directory, version);
            let put = self.store.put_opts(&path, body.clone(), PutMode::Create.into());
            match site!("commit: put", put.await) {
                Ok(_) => {
                    self.take_over(version, &path, lines).await?;
                    return Ok(version);
                }
                // Another writer was faster, or the store sent this very commit twice; S3 also says so of a put that
                // met another one under way, and then nothing need stand there.
                Err(error) if is_taken(&error) => unsettled = Some(version),
                Err(error) => {
                    unsettled = Some(version);
                    failures += 1;
                    if failures == STORE_FAILURES_MAX {
                        return Err(Error::store(format!("write {path}"))(error));
                    }
                    tracing::warn!(%error, %path, "repeat a commit whose answer was lost");
                }
            }
            tokio::time::sleep(backoff(attempt, now)).await;
        }
        Err(Error::Contended { attempts: COMMIT_ATTEMPTS_MAX })
    }

    /// Applies a commit that was just written, without reading it back.
    async fn take_over(&self, version: u64, path: &Path, lines: Vec<Line>) -> Result<()> {
        let _one_at_a_time = self.refreshing.lock().await;
        let known = self.known();
        // Unless somebody read it in the meantime.
        if known.version + 1 == version {
            let state = State::clone(&known).next(path.as_ref(), lines)?;
            *self.state.write() = Arc::new(state);
        }
        Ok(())
    }

    /// Reads the random name of a commit.
    async fn commit_name(&self, version: u64) -> Result<Option<String>> {
        let path = commit_path(&self.directory, version);
        let Some(bytes) = get(&*self.store, &path).await? else { return Ok(None) };
        Ok(parse(&path, &bytes)?.into_iter().find_map(|l| l.commit_info).map(|i| i.txn_id))
    }
}

/// Makes a name that nobody else makes, sorted by time.
pub(crate) fn new_name(now: Timestamp) -> String {
    new_ulid(now).to_string()
}

fn new_ulid(now: Timestamp) -> Ulid {
    let since_epoch = Duration::from_millis(u64::try_from(now.millis()).unwrap_or(0));
    Ulid::from_datetime(std::time::SystemTime::UNIX_EPOCH + since_epoch)
}

/// A random part of a pause that doubles with each attempt, so that writers who met do not meet again.
fn backoff(attempt: u32, now: Timestamp) -> Duration {
    let longest = BACKOFF_MIN.saturating_mul(1 << attempt.min(16)).min(BACKOFF_MAX);
    let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
    let random = u64::try_from(new_ulid(now).random() & u128::from(u64::MAX)).unwrap_or(0);
    Duration::from_nanos(random % nanos.max(1))
}

/// Rule 6 of the log: a flush counts only if the table is where the flush began.
fn check_base(flush: &Flush<'_>, state: &State) -> Result<()> {
    let found = state.transactions.get(flush.log).copied();
    if found == or_fault!(NoBaseCheck, flush.base, found) {
        return Ok(());
    }
    Err(Error::BaseMismatch { log: flush.log.to_owned(), base: flush.base, found })
}

fn check_writable(directory: &Path, state: &State) -> Result<()> {
    if state.is_writable {
        return Ok(());
    }
    let feature = format!("writing a table that asks for more than writer version {WRITER_VERSION}");
    Err(Error::Unsupported { path: directory.to_string(), feature })
}

/// Writes a state as a checkpoint; returns how many actions it has, and its bytes.
async fn encode_checkpoint(state: Arc<State>, runtime: &Handle) -> Result<(usize, Vec<u8>)> {
    let encoding = runtime.spawn_blocking(move || {
        let lines = state.lines()?;
        Ok::<_, Error>((lines.len(), checkpoint::to_parquet(&lines)?))
    });
    encoding.await.map_err(|_| Error::Worker("encode a checkpoint"))?
}

pub(super) fn commit_path(directory: &Path, version: u64) -> Path {
    directory.clone().join(format!("{version:020}.json"))
}

/// What became of reading commits.
enum Replayed {
    All(Arc<State>),
    /// One is not there.
    Missing(Path),
}

fn missing(path: &Path) -> Error {
    let reason = "it is missing, though there are later ones".to_owned();
    Error::CorruptCommit { path: path.to_string(), reason }
}

/// What a file in the log's directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// The commit of a version.
    Commit(u64),
    /// A checkpoint of a version in one file. Those of several are not ours, and nobody needs them.
    Checkpoint(u64),
    Other,
}

impl Entry {
    pub(super) fn of(path: &Path) -> Self {
        let name = path.filename().unwrap_or_default();
        let version = |suffix: &str| {
            name.strip_suffix(suffix).filter(|v| v.len() == 20).and_then(|v| v.parse::<u64>().ok())
        };
        let checkpoint = || version(".checkpoint.parquet").map(Self::Checkpoint);
        version(".json").map(Self::Commit).or_else(checkpoint).unwrap_or(Self::Other)
    }
}

/// Reads version 0, or a checkpoint where that is gone, or creates the table.
async fn first_state(store: &dyn ObjectStore, directory: &Path, clock: &Clock) -> Result<State> {
    let path = commit_path(directory, 0);
    if let Some(bytes) = get(store, &path).await? {
        return State::first(path.as_ref(), parse(&path, &bytes)?);
    }
    if let Some(state) = checkpoint::newest(store, directory).await? {
        return Ok(state);
    }
    refuse_remains(store, directory).await?;
    State::first(path.as_ref(), create(store, &path, clock).await?)
}

/// Refuses to begin a table where the first commit is gone but others are there.
async fn refuse_remains(store: &dyn ObjectStore, directory: &Path) -> Result<()> {
    let mut entries = store.list(Some(directory));
    let mut lowest = None;
    while let Some(entry) = entries.try_next().await.map_err(Error::store(format!("list {directory}")))? {
        if let Entry::Commit(version) = Entry::of(&entry.location) {
            lowest = lowest.min(Some(version)).or(Some(version));
        }
    }
    // Version 0 may have been created meanwhile by somebody who opened the table at the same time.
    match lowest {
        None | Some(0) => Ok(()),
        Some(_) => Err(missing(&commit_path(directory, 0))),
    }
}

/// Creates version 0, or reads what somebody else created at the same time.
async fn create(store: &dyn ObjectStore, path: &Path, clock: &Clock) -> Result<Vec<Line>> {
    let now = clock.now();
    let lines = first_lines(now);
    let body = PutPayload::from(encode(&lines)?);
    let mut failures = 0;
    for attempt in 0..COMMIT_ATTEMPTS_MAX {
        let put = store.put_opts(path, body.clone(), PutMode::Create.into());
        let Err(error) = site!("first commit: put", put.await) else {
            return Ok(lines);
        };
        // Whoever wrote it, be it this put whose answer was lost: what stands there is the table.
        if let Some(bytes) = get(store, path).await? {
            return parse(path, &bytes);
        }
        if !is_taken(&error) {
            failures += 1;
            if failures == STORE_FAILURES_MAX {
                return Err(Error::store(format!("create {path}"))(error));
            }
        }
        tokio::time::sleep(backoff(attempt, now)).await;
    }
    Err(Error::Contended { attempts: COMMIT_ATTEMPTS_MAX })
}

/// Whether a conditional put was refused because something stands there, as far as the store knows.
pub(crate) fn is_taken(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. })
}

pub(super) async fn get(store: &dyn ObjectStore, path: &Path) -> Result<Option<Bytes>> {
    let attempt = || format!("read {path}");
    let result = match store.get(path).await {
        Ok(result) => result,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(Error::store(attempt())(error)),
    };
    if result.meta.size > COMMIT_BYTES_MAX {
        let reason = format!("{} bytes are more than any commit has", result.meta.size);
        return Err(Error::CorruptCommit { path: path.to_string(), reason });
    }
    result.bytes().await.map(Some).map_err(Error::store(attempt()))
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Line>> {
    let lines =
        from_json_lines(bytes).map_err(|reason| Error::CorruptCommit { path: path.to_string(), reason })?;
    if lines.is_empty() {
        // What a store without fsync leaves behind after a power cut.
        return Err(Error::CorruptCommit { path: path.to_string(), reason: "it is empty".to_owned() });
    }
    Ok(lines)
}

fn encode(lines: &[Line]) -> Result<Vec<u8>> {
    to_json_lines(lines).map_err(|e| Error::Encode(e.to_string()))
}

fn commit_info(
    operation: &str,
    parameters: BTreeMap<String, serde_json::Value>,
    name: &str,
    now: Timestamp,
) -> Line {
    let info = CommitInfo {
        timestamp: now.millis(),
        operation: operation.to_owned(),
        operation_parameters: parameters,
        engine_info: ENGINE.to_owned(),
        txn_id: name.to_owned(),
    };
    Line { commit_info: Some(info), ..Line::default() }
}

fn first_lines(now: Timestamp) -> Vec<Line> {
    let protocol = Protocol { min_reader_version: READER_VERSION, min_writer_version: WRITER_VERSION };
    let metadata = TableMetadata {
        id: new_uuid(now),
        format: Format { provider: "parquet".to_owned(), options: BTreeMap::new() },
        schema_string: delta_schema(),
        partition_columns: PARTITION_COLUMNS.map(str::to_owned).to_vec(),
        // A foreign tool that adds statistics should keep to the columns that have a minimum.
        configuration: BTreeMap::from([(
            "delta.dataSkippingStatsColumns".to_owned(),
            "metric,series_id,min_time,max_time".to_owned(),
        )]),
        created_time: Some(now.millis()),
    };
    vec![
        commit_info("CREATE TABLE", BTreeMap::new(), &new_name(now), now),
        Line { protocol: Some(protocol), ..Line::default() },
        Line { meta_data: Some(metadata), ..Line::default() },
    ]
}

/// A random UUID (version 4), which is what the protocol wants a table to be named by.
fn new_uuid(now: Timestamp) -> String {
    let low = |bits: u32| new_ulid(now).random() & ((1 << bits) - 1);
    format!("{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}", low(32), low(16), low(12), 0x8000 | low(14), low(48))
}

fn flush_lines(flush: &Flush<'_>, name: &str, now: Timestamp) -> Result<Vec<Line>> {
    let parameters = BTreeMap::from([
        ("mode".to_owned(), serde_json::Value::from("Append")),
        ("partitionBy".to_owned(), serde_json::Value::from(r#"["tenant","day"]"#)),
    ]);
    let mut lines = vec![commit_info("WRITE", parameters, name, now)];
    let txn = transaction(flush.log, flush.through, Some(now.millis()))?;
    lines.push(Line { txn: Some(txn), ..Line::default() });
    let origin = Origin { log: flush.log.to_owned(), base: flush.base, through: flush.through };
    for file in flush.files {
        let file = DataFile { origins: vec![origin.clone()], ..file.clone() };
        lines.push(Line { add: Some(add(&file, true)?), ..Line::default() });
    }
    Ok(lines)
}

fn replacement_lines(replacement: &Replacement<'_>, name: &str, now: Timestamp) -> Result<Vec<Line>> {
    let Replacement { operation, removes, adds, .. } = replacement;
    let data_change = operation.changes_data();
    let mut lines = vec![commit_info(operation.name(), BTreeMap::new(), name, now)];
    for file in *removes {
        let remove = remove(&file.path, now.millis(), data_change);
        lines.push(Line { remove: Some(remove), ..Line::default() });
    }
    for file in *adds {
        lines.push(Line { add: Some(add(file, data_change)?), ..Line::default() });
    }
    Ok(lines)
}
