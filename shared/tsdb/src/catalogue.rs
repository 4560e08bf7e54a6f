//! Which files are live: a Delta Lake log, read and written here.
//!
//! Reader version 1, writer version 2, plain types: any Delta reader can list the table, and nobody else writes it.
//! The log is a gapless sequence of `_delta_log/<version, 20 digits>.json`, each created if absent.
//!
//! Absent for now: checkpoints, clean-up of the log, removal of dead files. A table that has a checkpoint is refused.
//!
//! # Invariants
//!
//! - A commit is written at the version right above the state that it was checked against, or not at all.
//! - A commit whose answer was lost is found again by the random name in its `commitInfo`: no commit happens twice.
//! - A file is added at most once under one path, and paths are never used again.

pub(crate) mod action;
pub(crate) mod log;
pub(crate) mod state;

pub use state::{DataFile, Origin};

#[cfg(test)]
mod tests;
