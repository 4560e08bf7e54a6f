//! The ingester: takes appends and OTLP metrics, owns the storage engine, answers for what it holds in memory.
//!
//! Invariants:
//! - an append is answered when it is durable, and appends of one stream are answered in order;
//! - reads see acknowledged records only, and say which logs and which table version they go with;
//! - a graceful stop flushes and ends the log before the listener closes;
//! - it does its share of what the table needs (compaction, retention, clean-up), which any other may do
//!   as well;
//! - an aggregation in part is evaluated with the querier's settings, over what the head holds.
//!
//! Deliberately absent: whole queries, and reading files: queriers do that themselves.

mod adoption;
mod aggregate;
mod config;
mod error;
mod grpc;
mod listing;
mod metrics;
mod otlp;
mod select;
mod service;
mod session;
mod upkeep;

pub use config::{Config, LogPlace, LogSettings};
pub use error::{Error, Result};
pub use service::Service;
