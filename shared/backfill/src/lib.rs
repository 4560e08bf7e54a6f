//! Brings the history that other systems kept into the table: OpenMetrics text with times, and the data directory of a
//! Prometheus server.
//!
//! Both read their input as a stream, hand it to a [`tsdb::import::Importer`], and commit day by day. An import that was
//! ended at any moment is simply begun again: what is in the table already is passed over.
//!
//! Deliberately absent: arguments and output (`all-in-one`), Prometheus's formats (`prometheus-tsdb`), how a day becomes
//! files (`tsdb`).
#![warn(missing_docs)]

mod directory;
mod error;
mod open_metrics;
mod progress;

pub use directory::import_directory;
pub use error::{Error, Result};
pub use open_metrics::import_open_metrics;
pub use progress::{Phase, Progress};
pub use tsdb::import::ImportedDay;

/// What an import came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Days that became live.
    pub imported: usize,
    /// Days that an earlier run had brought into the table.
    pub passed_over: usize,
}

/// The first 32 hexadecimal digits of a digest.
fn hex(digest: ring::digest::Digest) -> String {
    digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
