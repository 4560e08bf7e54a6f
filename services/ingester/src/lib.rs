//! The ingester: takes appends and OTLP metrics, owns the storage engine, answers for what it holds in memory.
//!
//! Invariants:
//! - an append is answered when it is durable, and appends of one stream are answered in order;
//! - reads see acknowledged records only, and say which logs and which table version they go with;
//! - an aggregation in part is evaluated with the querier's settings, over what the head holds;
//! - a graceful stop flushes and ends the log before the listener closes.
//!
//! Deliberately absent: whole queries, and reading files: queriers do that themselves.

mod aggregate;
mod config;
mod error;
mod grpc;
mod listing;
mod metrics;
mod otlp;
mod service;
mod session;

pub use config::Config;
pub use error::{Error, Result};
pub use service::Service;
