//! What a table looks like at one version: the sum of its commits.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::Tenant;

use super::action::{Add, Line, READER_VERSION, Stats, TableMetadata, WRITER_VERSION, url_decode};
use crate::file::encode::{FileStats, Tail};
use crate::table::{Error, Result};

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
    /// The flush that it came from, where it came from one.
    pub origin: Option<Origin>,
}

/// The flush that a file came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The log.
    pub log: String,
    /// The last sequence number flushed before.
    pub base: Option<u64>,
    /// The last sequence number in the flush.
    pub through: u64,
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
    /// The random name of the newest commit.
    pub commit_name: String,
    /// Whether the table asks for more than we can write.
    pub is_writable: bool,
}

impl State {
    /// Applies the first commit of a table.
    pub(crate) fn first(path: &str, lines: Vec<Line>) -> Result<Self> {
        let empty = Self {
            version: 0,
            metadata: None,
            transactions: BTreeMap::new(),
            files: BTreeMap::new(),
            commit_name: String::new(),
            is_writable: false,
        };
        let state = empty.apply(path, lines)?;
        match &state.metadata {
            Some(_) => Ok(state),
            None => Err(corrupt(path, "the first commit has no metaData")),
        }
    }

    /// Returns the state after one more commit.
    pub(crate) fn next(mut self, path: &str, lines: Vec<Line>) -> Result<Self> {
        self.version += 1;
        self.apply(path, lines)
    }

    fn apply(mut self, path: &str, lines: Vec<Line>) -> Result<Self> {
        self.commit_name.clear();
        for line in lines {
            if let Some(protocol) = line.protocol {
                if protocol.min_reader_version > READER_VERSION {
                    let feature = format!("reader version {}", protocol.min_reader_version);
                    return Err(Error::Unsupported { path: path.to_owned(), feature });
                }
                self.is_writable = protocol.min_writer_version <= WRITER_VERSION;
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
            }
            if let Some(txn) = line.txn {
                let version = u64::try_from(txn.version)
                    .map_err(|_| corrupt(path, &format!("transaction {} of {}", txn.version, txn.app_id)))?;
                self.transactions.insert(txn.app_id, version);
            }
            if let Some(info) = line.commit_info {
                self.commit_name = info.txn_id;
            }
        }
        Ok(self)
    }
}

fn corrupt(path: &str, reason: &str) -> Error {
    Error::CorruptCommit { path: path.to_owned(), reason: reason.to_owned() }
}

/// The tags of a file: which flush it came from, and how to check its end.
pub(crate) mod tag {
    pub(crate) const LOG: &str = "tributary.log";
    pub(crate) const BASE: &str = "tributary.base";
    pub(crate) const THROUGH: &str = "tributary.through";
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
    let origin = match (text(tag::LOG), number(tag::THROUGH)?) {
        (Some(log), Some(through)) => Some(Origin { log, base: number(tag::BASE)?, through }),
        _ => None,
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
        origin,
    })
}
