//! OTLP metrics to samples, as Prometheus 3.14 translates them (`storage/remote/otlptranslator` and the library
//! `prometheus/otlptranslator` 1.0).
//!
//! ```text
//! ExportMetricsServiceRequest --translate(settings)--> samples by resource + what was rejected and why
//! ```
//!
//! Prometheus refuses a whole request for one metric it cannot take; OTLP lets a receiver keep the rest and say what
//! it did not keep, and so does this crate.
//!
//! Invariants:
//! - every data point ends up either in samples or in [`Rejections`], never in both and never in neither;
//! - a point of several series (a classic histogram, a summary) is kept with all of its samples or not at all;
//! - what a request can make out of its bytes is bounded by [`Limits`];
//! - samples of one resource go to one group, whatever else the request holds.
//!
//! Deliberately absent: gRPC and HTTP (the services do that), ordering rules (storage), and sums over deltas: a delta
//! is rejected, as in Prometheus without its feature flags for it.
#![warn(missing_docs)]

mod exemplars;
mod histogram;
mod identity;
mod labels;
mod names;
mod rejections;
mod settings;
mod target_info;
mod translate;
mod value_text;

pub use rejections::{Reason, Rejections};
pub use settings::{Limits, Promotion, Settings, TranslationStrategy, UnknownStrategy};
pub use translate::{Resource, Sample, Translation, translate};
