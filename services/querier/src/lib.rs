//! The querier: PromQL and series look-ups over heads and files, the evaluation of rules, and alerts to Alertmanagers.
//!
//! A selection asks every head first and then takes a table snapshot that is at least as new as any head asks for,
//! so that nothing falls between; what both hold is merged and never counted twice.
//!
//! Invariants:
//! - an ingester that cannot be reached fails the request, naming it, unless partial answers were asked for, and is
//!   then named in the answer;
//! - what ingesters aggregate themselves is what nobody else has (see `cut`);
//! - evaluation runs on blocking threads, a bounded number at a time;
//! - the querier keeps nothing between requests but its view of the catalogue, and of rules what their source series
//!   and its own writes would tell again;
//! - a rule group is evaluated by one querier, from one look at the heads (see `ahead`), and its samples go to its home
//!   ingester alone.
//!
//! Deliberately absent: HTTP, caches.

mod ahead;
mod config;
mod cut;
mod error;
mod grpc;
mod heads;
mod last_samples;
mod lookups;
mod metrics;
mod notifier;
mod query;
mod rules;
mod select;
mod service;
mod source;
mod sources;

pub use config::Config;
pub use error::{Error, Result};
pub use service::Service;
