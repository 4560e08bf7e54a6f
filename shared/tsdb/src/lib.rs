//! The storage engine: log, head, Parquet files and the catalogue of them.
//!
//! [`Storage`] is one ingester's engine. It takes scrape groups ([`append`]), makes them durable in its log before it
//! acknowledges them, answers for what is in memory, and flushes to the [`table`]. The table is a Delta Lake table of
//! Parquet files ([`mod@file`], [`catalogue`]) that several storages write and queriers read. [`merge`] is the one way in
//! which two accounts of a series become one, here and everywhere else.
//!
//! Deliberately absent: gRPC and HTTP (the services), PromQL (`promql-engine`), who flushes or adopts what in a cluster
//! (`coordination` suggests it; the commits of the table decide).
#![warn(missing_docs)]

pub mod append;
pub mod catalogue;
mod compaction;
mod disk;
mod error;
#[cfg(feature = "planted-faults")]
pub mod faults;
#[cfg(not(feature = "planted-faults"))]
mod faults;
pub mod file;
mod head;
pub mod import;
mod location;
mod log;
mod maintenance;
pub mod merge;
mod options;
pub mod series;
mod storage;
pub mod table;
#[cfg(test)]
mod testing;

pub use append::{
    Appended, GroupAppend, GroupChange, GroupDeclaration, GroupId, LogPosition, MemberDeclaration, Presence,
    Refusal, RefusalReason,
};
pub use error::{Error, Result};
pub use location::{Location, Secret, StorageSettings};
pub use log::committer::LogFailure;
pub use log::objects::{LogOwner, ObjectLogOptions, ObjectLogs};
pub use maintenance::{Maintenance, MaintenanceOptions, MaintenanceReport, MaintenanceStats};
pub use options::{LogStore, StorageOptions};
pub use storage::{
    FlushReport, HeadSelection, HeadState, HeadStatistics, LabelStatistics, LastSampleReader, LogState,
    Stats, Storage, unflushed_local_logs,
};
