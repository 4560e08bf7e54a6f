//! What a table looks like at one version: the sum of its commits.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::Tenant;
use serde::{Deserialize, Serialize};

use super::action::{
    Add, Line, NullCount, Protocol, READER_VERSION, Remove, Stats, TableMetadata, Transaction, Values,
    WRITER_VERSION, url_decode, url_encode,
};
use crate::file::WINDOW_MS;
use crate::file::encode::{FileStats, Tail};
use crate::file::windows::{DAY_MS, day_start};
use crate::table::{Error, Result};

/// Metric names longer than this are left out of the statistics.
const STATS_TEXT_MAX: usize = 1_024;

/// How long it is remembered that a file was removed, in milliseconds, counted from what the commit says, which may have
/// been on its way for hours. What is left of it then counts as never named.
const REMOVED_KEPT_MS: i64 = 2 * DAY_MS;
/// Commits between two times that removed files are forgotten.
const REMOVED_SWEEP_COMMITS: u64 = 100;

/// The columns that the table is partitioned by.
pub(crate) const PARTITION_COLUMNS: [&str; 2] = ["tenant", "day"];

/// A live file, or one about to become live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFile {
    /// The path below the table's root.
    pub path: String,
    /// Whose series it holds.
    pub tenant: Tenant,
    /// The UTC day of its samples, `YYYY-MM-DD`.
    pub day: String,
    /// Its length in bytes.
    pub size: u64,
    /// When it was written, in milliseconds since the epoch.
    pub modified_ms: i64,
    /// Its statistics, where the catalogue has them.
    pub stats: Option<FileStats>,
    /// How its end is checked, where the catalogue says so.
    pub tail: Option<Tail>,
    /// The length of its rows' windows in milliseconds: 2 h until its day is compacted, 8 h from then on.
    pub window_ms: i64,
    /// Which compaction wrote it; `None` for a file as it was flushed.
    pub part: Option<Part>,
    /// The parts of logs that all its samples came from, one of each log, by log; none where that is not known.
    pub origins: Vec<Origin>,
}

impl DataFile {
    /// The newest time in the file; the end of its day where that is not known.
    #[must_use]
    pub fn newest_time(&self) -> i64 {
        let of_day = || day_start(&self.day).map_or(i64::MAX, |start| start + DAY_MS - 1);
        self.stats.as_ref().and_then(|s| s.max_time).unwrap_or_else(of_day)
    }

    /// The earliest time in the file; the start of its day where that is not known.
    #[must_use]
    pub fn oldest_time(&self) -> i64 {
        let of_day = || day_start(&self.day).unwrap_or(i64::MIN);
        self.stats.as_ref().and_then(|s| s.min_time).unwrap_or_else(of_day)
    }

    /// Its random name, which sorts by the time it was made: the path without folders and extension.
    #[must_use]
    pub fn name(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.strip_suffix(".parquet").unwrap_or(name)
    }

    /// How far it is compacted: 1 as it was flushed, 2 with other files of its windows, 3 with all of its day.
    #[must_use]
    pub fn level(&self) -> u32 {
        match &self.part {
            None => 1,
            Some(_) if self.window_ms == WINDOW_MS => 2,
            Some(_) => 3,
        }
    }
}

/// One of the files that a compaction wrote: they follow each other in the order of series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The compaction's random name.
    pub job: String,
    /// Which of its files, from 0.
    pub number: u32,
}

impl Part {
    fn parse(text: &str) -> Option<Self> {
        let (job, number) = text.split_once('/')?;
        Some(Self { job: job.to_owned(), number: number.parse().ok()? })
    }
}

/// The part of a log that samples of a file came from: one flush, or the first to the last of several.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// The log.
    pub log: String,
    /// The last sequence number flushed before.
    pub base: Option<u64>,
    /// The last sequence number in the flush.
    pub through: u64,
}

/// Joins the origins of files that become one; where one is not known, neither is that of the sum.
pub(crate) fn join_origins<'a>(files: impl Iterator<Item = &'a DataFile>) -> Vec<Origin> {
    let mut joined: BTreeMap<&str, Origin> = BTreeMap::new();
    for file in files {
        if file.origins.is_empty() {
            return Vec::new();
        }
        for origin in &file.origins {
            let sum = joined.entry(&origin.log).or_insert_with(|| origin.clone());
            sum.base = sum.base.min(origin.base);
            sum.through = sum.through.max(origin.through);
        }
    }
    joined.into_values().collect()
}

/// A table at one version.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// The newest commit included.
    pub version: u64,
    /// Schema and layout; absent only while version 0 is being read.
    pub metadata: Option<TableMetadata>,
    /// The last transaction of each log.
    pub transactions: BTreeMap<String, u64>,
    /// The live files by path.
    pub files: BTreeMap<String, Arc<DataFile>>,
    /// When files that are no longer live were removed, by path, in milliseconds since the epoch. What
    /// was removed two days ago is forgotten by and by.
    pub removed: BTreeMap<String, i64>,
    /// What a reader and a writer must understand.
    pub protocol: Option<Protocol>,
    /// The random name of the newest commit.
    pub commit_name: String,
    /// Whether the table asks for more than we can write.
    pub is_writable: bool,
}

impl State {
    /// Applies the first commit of a table.
    pub(crate) fn first(path: &str, lines: Vec<Line>) -> Result<Self> {
        Self::at(0, path, lines)
    }

    /// Builds the table of some version from the whole of its actions: the first commit, or a checkpoint.
    pub(crate) fn at(version: u64, path: &str, lines: Vec<Line>) -> Result<Self> {
        let empty = Self {
            version,
            metadata: None,
            transactions: BTreeMap::new(),
            files: BTreeMap::new(),
            removed: BTreeMap::new(),
            protocol: None,
            commit_name: String::new(),
            is_writable: false,
        };
        let state = empty.apply(path, lines)?;
        match &state.metadata {
            Some(_) => Ok(state),
            None => Err(corrupt(path, "it has no metaData")),
        }
    }

    /// The whole of the table as actions.
    pub(crate) fn lines(&self) -> Result<Vec<Line>> {
        let mut lines = vec![
            Line { protocol: self.protocol.clone(), ..Line::default() },
            Line { meta_data: self.metadata.clone(), ..Line::default() },
        ];
        for (log, through) in &self.transactions {
            let txn = transaction(log, *through, None)?;
            lines.push(Line { txn: Some(txn), ..Line::default() });
        }
        for file in self.files.values() {
            lines.push(Line { add: Some(add(file, false)?), ..Line::default() });
        }
        for (path, removed_ms) in &self.removed {
            lines.push(Line { remove: Some(remove(path, *removed_ms, false)), ..Line::default() });
        }
        Ok(lines)
    }

    /// Returns the state after one more commit.
    pub(crate) fn next(mut self, path: &str, lines: Vec<Line>) -> Result<Self> {
        self.version += 1;
        self.apply(path, lines)
    }

    fn apply(mut self, path: &str, lines: Vec<Line>) -> Result<Self> {
        self.commit_name.clear();
        let mut commit_ms = i64::MAX;
        for line in lines {
            if let Some(protocol) = line.protocol {
                if protocol.min_reader_version > READER_VERSION {
                    let feature = format!("reader version {}", protocol.min_reader_version);
                    return Err(Error::Unsupported { path: path.to_owned(), feature });
                }
                self.is_writable = protocol.min_writer_version <= WRITER_VERSION;
                self.protocol = Some(protocol);
            }
            if let Some(metadata) = line.meta_data {
                if metadata.partition_columns != PARTITION_COLUMNS || metadata.format.provider != "parquet" {
                    let feature = format!(
                        "a table of {} partitioned by {:?}",
                        metadata.format.provider, metadata.partition_columns
                    );
                    return Err(Error::Unsupported { path: path.to_owned(), feature });
                }
                self.metadata = Some(metadata);
            }
            if let Some(add) = line.add {
                let file = data_file(&add).map_err(|reason| corrupt(path, &reason))?;
                self.files.insert(file.path.clone(), Arc::new(file));
            }
            if let Some(remove) = line.remove {
                let removed =
                    url_decode(&remove.path).ok_or_else(|| corrupt(path, "a path is not encoded"))?;
                self.files.remove(&removed);
                self.removed.insert(removed, remove.deletion_timestamp.unwrap_or(commit_ms));
            }
            if let Some(txn) = line.txn {
                let version = u64::try_from(txn.version)
                    .map_err(|_| corrupt(path, &format!("transaction {} of {}", txn.version, txn.app_id)))?;
                self.transactions.insert(txn.app_id, version);
            }
            if let Some(info) = line.commit_info {
                self.commit_name = info.txn_id;
                commit_ms = info.timestamp;
            }
        }
        if self.version.is_multiple_of(REMOVED_SWEEP_COMMITS) && commit_ms < i64::MAX {
            self.removed.retain(|_, removed_ms| commit_ms.saturating_sub(*removed_ms) < REMOVED_KEPT_MS);
        }
        Ok(self)
    }
}

fn corrupt(path: &str, reason: &str) -> Error {
    Error::CorruptCommit { path: path.to_owned(), reason: reason.to_owned() }
}

/// The tags of a file: which flushes it came from, how its rows are cut, and how to check its end.
pub(crate) mod tag {
    pub(crate) const LOG: &str = "tributary.log";
    pub(crate) const BASE: &str = "tributary.base";
    pub(crate) const THROUGH: &str = "tributary.through";
    /// In place of the three above, where samples of several logs are in the file: a list of origins as JSON.
    pub(crate) const ORIGINS: &str = "tributary.origins";
    /// The length of rows' windows, where it is not 2 h, in milliseconds.
    pub(crate) const WINDOW: &str = "tributary.window_ms";
    /// Which compaction wrote the file and which of its files it is: `<name>/<number>`.
    pub(crate) const PART: &str = "tributary.part";
    /// How long the file's end is, in bytes.
    pub(crate) const TAIL_BYTES: &str = "tributary.tail_bytes";
    /// The CRC-32C of the file's end, in decimal.
    pub(crate) const TAIL_CRC: &str = "tributary.tail_crc32c";
}

fn data_file(add: &Add) -> Result<DataFile, String> {
    let path = url_decode(&add.path).ok_or_else(|| format!("path {} is not encoded", add.path))?;
    let partition = |name: &str| {
        let value = add.partition_values.get(name).cloned().flatten();
        value.ok_or_else(|| format!("file {path} has no partition value {name}"))
    };
    let tenant = Tenant::new(&partition("tenant")?).map_err(|e| format!("file {path}: {e}"))?;
    let day = partition("day")?;
    let stats = add.stats.as_deref().map(serde_json::from_str::<Stats>).transpose();
    let stats = stats.map_err(|e| format!("statistics of {path}: {e}"))?.map(|s| FileStats {
        rows: s.num_records,
        timelines: s.null_count.metric.unwrap_or(0),
        min_time: s.min_values.min_time,
        max_time: s.max_values.max_time,
        min_metric: s.min_values.metric,
        max_metric: s.max_values.metric,
    });
    let tags = add.tags.as_ref();
    let text = |name: &str| tags.and_then(|t| t.get(name).cloned().flatten());
    let number = |name: &str| {
        let parse = |t: String| t.parse::<u64>().map_err(|e| format!("tag {name} of {path}: {e}"));
        text(name).map(parse).transpose()
    };
    let origins = match (text(tag::LOG), number(tag::THROUGH)?, text(tag::ORIGINS)) {
        (Some(log), Some(through), _) => vec![Origin { log, base: number(tag::BASE)?, through }],
        (_, _, Some(list)) => {
            serde_json::from_str(&list).map_err(|e| format!("tag {} of {path}: {e}", tag::ORIGINS))?
        }
        _ => Vec::new(),
    };
    let window_ms = number(tag::WINDOW)?.and_then(|w| i64::try_from(w).ok()).unwrap_or(WINDOW_MS);
    let part = match text(tag::PART) {
        Some(text) => Some(Part::parse(&text).ok_or_else(|| format!("tag {} of {path}: {text}", tag::PART))?),
        None => None,
    };
    let tail = match (number(tag::TAIL_BYTES)?, number(tag::TAIL_CRC)?) {
        (Some(bytes), Some(crc)) => {
            let crc = u32::try_from(crc).map_err(|_| format!("tag {} of {path}: {crc}", tag::TAIL_CRC))?;
            Some(Tail { bytes, crc })
        }
        _ => None,
    };
    Ok(DataFile {
        path,
        tenant,
        day,
        size: add.size,
        modified_ms: add.modification_time,
        stats,
        tail,
        window_ms,
        part,
        origins,
    })
}

/// The action that makes a file live.
pub(crate) fn add(file: &DataFile, data_change: bool) -> Result<Add> {
    let encode = |e: serde_json::Error| Error::Encode(e.to_string());
    let mut tags = BTreeMap::new();
    let mut put = |name: &str, value: String| drop(tags.insert(name.to_owned(), Some(value)));
    match file.origins.as_slice() {
        [] => {}
        [origin] => {
            put(tag::LOG, origin.log.clone());
            put(tag::THROUGH, origin.through.to_string());
            origin.base.into_iter().for_each(|base| put(tag::BASE, base.to_string()));
        }
        several => put(tag::ORIGINS, serde_json::to_string(several).map_err(encode)?),
    }
    if file.window_ms != WINDOW_MS {
        put(tag::WINDOW, file.window_ms.to_string());
    }
    if let Some(Part { job, number }) = &file.part {
        put(tag::PART, format!("{job}/{number}"));
    }
    if let Some(tail) = &file.tail {
        put(tag::TAIL_BYTES, tail.bytes.to_string());
        put(tag::TAIL_CRC, tail.crc.to_string());
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
        data_change,
        stats: stats.transpose().map_err(encode)?,
        tags: Some(tags),
    })
}

/// The action that takes a file out of the table.
pub(crate) fn remove(path: &str, removed_ms: i64, data_change: bool) -> Remove {
    Remove { path: url_encode(path), data_change, deletion_timestamp: Some(removed_ms) }
}

/// The action that says how far a log has come.
pub(crate) fn transaction(log: &str, through: u64, now_ms: Option<i64>) -> Result<Transaction> {
    let version = i64::try_from(through)
        .map_err(|_| Error::Invalid(format!("flush of log {log} through {through}: too large")))?;
    Ok(Transaction { app_id: log.to_owned(), version, last_updated: now_ms })
}
