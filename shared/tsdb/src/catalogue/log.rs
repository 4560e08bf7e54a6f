//! The Delta log in the object store: following it and adding to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use model::{Clock, Timestamp};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use parking_lot::RwLock;
use ulid::Ulid;

use super::action::{
    Add, CommitInfo, Format, Line, NullCount, Protocol, READER_VERSION, Stats, TableMetadata, Transaction,
    Values, WRITER_VERSION, from_json_lines, to_json_lines, url_encode,
};
use super::state::{DataFile, PARTITION_COLUMNS, State, tag};
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
/// Metric names longer than this are left out of the statistics.
const STATS_TEXT_MAX: usize = 1_024;

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

/// The log of one table, with the newest state known.
#[derive(Debug)]
pub(crate) struct DeltaLog {
    store: Arc<dyn ObjectStore>,
    directory: Path,
    clock: Clock,
    state: RwLock<Arc<State>>,
    /// Held while commits are read, so that many who ask at once cost one LIST after the other, not a storm.
    refreshing: tokio::sync::Mutex<()>,
}

impl DeltaLog {
    /// Opens the log of the table at this path, creating it when there is none.
    pub(crate) async fn open(store: Arc<dyn ObjectStore>, table: &Path, clock: Clock) -> Result<Self> {
        let directory = table.clone().join("_delta_log");
        let first = commit_path(&directory, 0);
        let lines = match get(&*store, &first).await? {
            Some(bytes) => parse(&first, &bytes)?,
            None => {
                refuse_remains(&*store, &directory).await?;
                create(&*store, &first, &clock).await?
            }
        };
        let state = Arc::new(State::first(first.as_ref(), lines)?);
        let log = Self {
            store,
            directory,
            clock,
            state: RwLock::new(state),
            refreshing: tokio::sync::Mutex::new(()),
        };
        log.refresh().await?;
        Ok(log)
    }

    /// The newest state known, without looking.
    pub(crate) fn known(&self) -> Arc<State> {
        Arc::clone(&self.state.read())
    }

    /// Reads commits that are newer than what is known. Dropping the future midway loses nothing.
    pub(crate) async fn refresh(&self) -> Result<Arc<State>> {
        let _one_at_a_time = self.refreshing.lock().await;
        let known = self.known();
        let newest = self.newest_version(known.version).await?;
        if newest == known.version {
            return Ok(known);
        }
        let versions = futures::stream::iter(known.version + 1..=newest).map(|version| async move {
            let path = commit_path(&self.directory, version);
            match get(&*self.store, &path).await? {
                Some(bytes) => Ok((parse(&path, &bytes)?, path)),
                None => Err(Error::CorruptCommit {
                    path: path.to_string(),
                    reason: "it is missing, though there are later ones".to_owned(),
                }),
            }
        });
        // Copied once, however many commits there are.
        let mut state = State::clone(&known);
        let mut commits = std::pin::pin!(versions.buffered(READS_MAX));
        while let Some((lines, path)) = commits.try_next().await? {
            state = state.next(path.as_ref(), lines)?;
        }
        let state = Arc::new(state);
        *self.state.write() = Arc::clone(&state);
        Ok(state)
    }

    /// Lists commits above a version and returns the highest; refuses checkpoints.
    async fn newest_version(&self, known: u64) -> Result<u64> {
        let offset = commit_path(&self.directory, known);
        let mut newest = known;
        let mut entries = self.store.list_with_offset(Some(&self.directory), &offset);
        let listed = || format!("list {}", self.directory);
        while let Some(entry) = entries.try_next().await.map_err(Error::store(listed()))? {
            match entry_of(&entry.location) {
                Entry::Commit(version) => newest = newest.max(version),
                Entry::Checkpoint => return Err(checkpoint(&entry.location)),
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
        let body = PutPayload::from(encode(&lines)?);
        // The version of the last attempt, as long as it is not known who holds it. An attempt that seems to have
        // failed may have arrived, or arrive yet; its version is settled once any commit stands there.
        let mut unsettled: Option<u64> = None;
        let mut failures = 0;
        for attempt in 0..COMMIT_ATTEMPTS_MAX {
            let state = self.refresh().await?;
            if let Some(version) = unsettled.take_if(|v| *v <= state.version)
                && self.commit_name(version).await?.as_deref() == Some(&name)
            {
                return Ok(version);
            }
            check_base(flush, &state)?;
            check_writable(&self.directory, &state)?;
            let version = state.version + 1;
            let path = commit_path(&self.directory, version);
            match self.store.put_opts(&path, body.clone(), PutMode::Create.into()).await {
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
    if found == flush.base {
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

fn commit_path(directory: &Path, version: u64) -> Path {
    directory.clone().join(format!("{version:020}.json"))
}

/// What a file in the log's directory is.
enum Entry {
    Commit(u64),
    Checkpoint,
    Other,
}

fn entry_of(path: &Path) -> Entry {
    let name = path.filename().unwrap_or_default();
    if name == "_last_checkpoint" || name.contains(".checkpoint.") {
        return Entry::Checkpoint;
    }
    let version = name.strip_suffix(".json").filter(|v| v.len() == 20).and_then(|v| v.parse().ok());
    version.map_or(Entry::Other, Entry::Commit)
}

fn checkpoint(path: &Path) -> Error {
    Error::Unsupported { path: path.to_string(), feature: "a checkpoint of the table".to_owned() }
}

/// Refuses to begin a table where the first commit is gone but others are there.
async fn refuse_remains(store: &dyn ObjectStore, directory: &Path) -> Result<()> {
    let mut entries = store.list(Some(directory));
    let mut lowest = None;
    while let Some(entry) = entries.try_next().await.map_err(Error::store(format!("list {directory}")))? {
        match entry_of(&entry.location) {
            Entry::Commit(version) => lowest = lowest.min(Some(version)).or(Some(version)),
            Entry::Checkpoint => return Err(checkpoint(&entry.location)),
            Entry::Other => {}
        }
    }
    // Version 0 may have been created meanwhile by somebody who opened the table at the same time.
    match lowest {
        None | Some(0) => Ok(()),
        Some(_) => Err(Error::CorruptCommit {
            path: commit_path(directory, 0).to_string(),
            reason: "it is missing, though there are later ones".to_owned(),
        }),
    }
}

/// Creates version 0, or reads what somebody else created at the same time.
async fn create(store: &dyn ObjectStore, path: &Path, clock: &Clock) -> Result<Vec<Line>> {
    let now = clock.now();
    let lines = first_lines(now);
    let body = PutPayload::from(encode(&lines)?);
    let mut failures = 0;
    for attempt in 0..COMMIT_ATTEMPTS_MAX {
        let Err(error) = store.put_opts(path, body.clone(), PutMode::Create.into()).await else {
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

async fn get(store: &dyn ObjectStore, path: &Path) -> Result<Option<Bytes>> {
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
    let through = i64::try_from(flush.through).map_err(|_| {
        Error::Invalid(format!("flush of log {} through {}: too large", flush.log, flush.through))
    })?;
    let parameters = BTreeMap::from([
        ("mode".to_owned(), serde_json::Value::from("Append")),
        ("partitionBy".to_owned(), serde_json::Value::from(r#"["tenant","day"]"#)),
    ]);
    let mut lines = vec![commit_info("WRITE", parameters, name, now)];
    let txn =
        Transaction { app_id: flush.log.to_owned(), version: through, last_updated: Some(now.millis()) };
    lines.push(Line { txn: Some(txn), ..Line::default() });
    for file in flush.files {
        lines.push(Line { add: Some(add(file, flush)?), ..Line::default() });
    }
    Ok(lines)
}

fn add(file: &DataFile, flush: &Flush<'_>) -> Result<Add> {
    let mut tags = BTreeMap::from([
        (tag::LOG.to_owned(), Some(flush.log.to_owned())),
        (tag::THROUGH.to_owned(), Some(flush.through.to_string())),
    ]);
    tags.extend(flush.base.map(|base| (tag::BASE.to_owned(), Some(base.to_string()))));
    if let Some(tail) = &file.tail {
        tags.insert(tag::TAIL_BYTES.to_owned(), Some(tail.bytes.to_string()));
        tags.insert(tag::TAIL_CRC.to_owned(), Some(tail.crc.to_string()));
    }
    let stats = file.stats.as_ref().map(|s| {
        let text = |t: &Option<String>| t.clone().filter(|t| t.len() <= STATS_TEXT_MAX);
        serde_json::to_string(&Stats {
            num_records: s.rows,
            min_values: Values { metric: text(&s.min_metric), min_time: s.min_time, max_time: None },
            max_values: Values { metric: text(&s.max_metric), min_time: None, max_time: s.max_time },
            null_count: NullCount { metric: Some(s.timelines) },
        })
    });
    Ok(Add {
        path: url_encode(&file.path),
        partition_values: BTreeMap::from([
            ("tenant".to_owned(), Some(file.tenant.to_string())),
            ("day".to_owned(), Some(file.day.clone())),
        ]),
        size: file.size,
        modification_time: file.modified_ms,
        data_change: true,
        stats: stats.transpose().map_err(|e| Error::Encode(e.to_string()))?,
        tags: Some(tags),
    })
}
