//! The values every part of Tributary speaks of: labels, matchers, samples, native histograms, time, tenants.
//!
//! Types here are valid by construction: labels are sorted and unique, matchers carry a compiled pattern,
//! timestamps are milliseconds. The crate is synchronous and does no I/O; the clock is a value handed in.
//!
//! Deliberately absent: wire formats (`rpc`, `exposition`, `remote-protocol`) and PromQL (`promql-syntax`).
#![warn(missing_docs)]

pub mod histogram;
pub mod labels;
pub mod last_samples;
pub mod matcher;
pub mod metadata;
pub mod number;
pub mod query;
pub mod sample;
pub mod size;
pub mod tenant;
pub mod time;

pub use histogram::{CounterResetHint, FloatHistogram, Histogram, IntegerHistogram, Span};
pub use labels::{Labels, LabelsBuilder};
pub use last_samples::{LastSampleBuilder, LastSampleColumns, LastSamples};
pub use matcher::{MatchOp, Matcher};
pub use metadata::{Metadata, MetricType};
pub use sample::{Exemplar, STALE_NAN_BITS, Value, ValueRef, is_stale, stale_nan};
pub use tenant::Tenant;
pub use time::{Clock, Timestamp};
