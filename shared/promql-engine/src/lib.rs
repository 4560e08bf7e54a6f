//! Evaluates PromQL over a source of series.
//!
//! A query becomes a tree of operators. Each first tells its output's series, then gives them one after the other,
//! each with its points at all steps; what has to be kept is kept by the operator that needs it and counted against
//! the query's limit. Selections are opened all at once and read as they are needed. Everything is synchronous:
//! run a query on a thread that may block.
//!
//! The rules are those of Prometheus 3 (`promql/engine.go`, `promql/functions.go`, `promql/quantile.go`,
//! `model/histogram/float_histogram.go`), its texts included.
//!
//! Deliberately absent: storage (a [`SeriesSource`] is handed in; [`memory`] is one for tests), HTTP and gRPC, and the queueing of queries.
#![warn(missing_docs)]

mod aggregate;
mod annotations;
mod binary;
mod civil;
mod classic;
mod context;
mod engine;
mod enrich;
mod error;
#[cfg(not(feature = "planted-faults"))]
mod faults;
#[cfg(feature = "planted-faults")]
pub mod faults;
pub mod histogram;
mod kahan;
pub mod memory;
mod merge;
pub mod partial;
mod plan;
mod points;
mod range;
mod scalar;
mod select;
pub mod source;
mod vector;

pub use engine::{CancelOnDrop, Control, Engine, EngineOptions, Query, QueryOptions};
pub use error::{Error, ErrorType, Result, SourceError};
pub use source::{Column, Hints, Selection, SeriesSamples, SeriesSet, SeriesSource};
