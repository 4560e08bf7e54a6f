//! Which files are live: a Delta Lake log, read and written here.
//!
//! Reader version 1, writer version 2, plain types: any Delta reader can list the table, and nobody else writes it.
//! The log is a gapless sequence of `_delta_log/<version, 20 digits>.json`, each created if absent. Now and then the
//! whole table at one version is written as a checkpoint, behind which old commits may go.
//!
//! # What stands in the log beside what the protocol says
//!
//! The transaction (`txn`) of an application is how far a log is in the table: `appId` is the log's name, `version` the
//! last of its segments. A file's `stats` have `numRecords` (timeline rows included), minimum and maximum of `metric`,
//! `min_time` (minimum) and `max_time` (maximum), and as `nullCount` of `metric` the timeline rows. A file's `tags`:
//!
//! | tag | what it says |
//! |---|---|
//! | `tributary.log`, `tributary.base`, `tributary.through` | all samples come from this log, from segments above `base` (from the first, without it) through `through` |
//! | `tributary.origins` | in place of these, when samples come from several logs: a JSON list of `{"log", "base", "through"}`; a file with neither may hold anything |
//! | `tributary.window_ms` | the length of the windows of rows, when it is not 2 h |
//! | `tributary.part` | `<compaction>/<number>`: the files of one compaction follow each other in the order of series |
//! | `tributary.tail_bytes`, `tributary.tail_crc32c` | how long the file's end with footer and page index is, and its CRC-32C in decimal |
//!
//! # Invariants
//!
//! - A commit is written at the version right above the state that it was checked against, or not at all.
//! - A commit whose answer was lost is found again by the random name in its `commitInfo`: no commit happens twice.
//! - A file is added at most once under one path, and paths are never used again.
//! - Files are replaced only if all of them are live in the version right below the commit.
//! - The commits from some checkpoint on are always there, and that checkpoint is a day old unless it is the first.

pub(crate) mod action;
pub(crate) mod checkpoint;
pub(crate) mod cleanup;
pub(crate) mod log;
pub(crate) mod state;

pub use state::{DataFile, Origin, Part};

#[cfg(test)]
mod tests;
