//! Scrape formats, in and out.
//!
//! In: [`Parser`] walks a text or OpenMetrics body and yields [`Entry`] values that borrow from it, and [`protobuf`]
//! decodes bodies of delimited messages; [`CustomBuckets`] makes native histograms of classic ones; [`protocol`] builds the `Accept` header of a scrape and picks the format of an
//! answer. Out: [`federate`] negotiates and writes what `/federate` answers.
//!
//! Deliberately absent: HTTP, the labels of a target, what a sample means for storage, our own `/metrics`.
#![warn(missing_docs)]

mod custom_buckets;
mod error;
pub mod escaping;
pub mod federate;
mod labels;
mod media_type;
mod owned;
mod parse;
pub mod protobuf;
pub mod protocol;

pub use custom_buckets::{CustomBuckets, Taken};
pub use error::{Error, Result};
pub use escaping::EscapingScheme;
pub use owned::OwnedSample;
pub use parse::{Entry, ExemplarRef, OpenMetricsState, Parser, Sample, Series};
pub use protocol::{Format, ScrapeProtocol};
