//! Says which files are past the retention: a pure function of the live files and the time.

use std::sync::Arc;

use model::Timestamp;

use crate::catalogue::DataFile;

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// How old data may get, in milliseconds.
    pub time_ms: Option<i64>,
    /// Bytes of all files.
    pub bytes: Option<u64>,
}

/// Files to drop.
#[derive(Debug, Default)]
pub(crate) struct Expired {
    /// Those whose newest sample is too old.
    pub by_time: Vec<Arc<DataFile>>,
    /// The oldest of the others, while there are too many bytes.
    pub by_size: Vec<Arc<DataFile>>,
}

/// Finds files to drop.
///
/// Age is counted from the newest sample in the table, as Prometheus does, and never from an instant that has not come
/// yet: neither a pause of some weeks nor one sample from the future makes everything old. The newest file stays.
pub(crate) fn expired<'a>(
    files: impl Iterator<Item = &'a Arc<DataFile>>,
    now: Timestamp,
    limits: Limits,
) -> Expired {
    let mut files: Vec<&Arc<DataFile>> = files.collect();
    files.sort_by_key(|f| (f.newest_time(), &f.path));
    let Some((newest, older)) = files.split_last() else { return Expired::default() };
    let reference = newest.newest_time().min(now.millis());
    let is_old =
        |f: &&Arc<DataFile>| limits.time_ms.is_some_and(|t| reference.saturating_sub(f.newest_time()) >= t);
    let old = older.partition_point(is_old);
    let (by_time, mut rest) = older.split_at(old);
    let mut bytes = newest.size + rest.iter().map(|f| f.size).sum::<u64>();
    let mut by_size = Vec::new();
    while let Some((oldest, others)) =
        rest.split_first().filter(|_| limits.bytes.is_some_and(|max| bytes > max))
    {
        bytes -= oldest.size;
        by_size.push(Arc::clone(oldest));
        rest = others;
    }
    Expired { by_time: by_time.iter().map(|f| Arc::clone(f)).collect(), by_size }
}
