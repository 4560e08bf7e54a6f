//! Discovery: owns `prometheus.yml`, finds targets, and says which scraper scrapes what.
//!
//! ```text
//! prometheus.yml -> prometheus_config -> Config with Jobs ----\
//! files, HTTP, DNS,
//!   Kubernetes   -> providers         -> TargetGroups ---------> targets -> assignment -> published -> gRPC streams
//! member list    -> live scrapers ----------------------------/
//! ```
//!
//! Invariants:
//! - the configuration in force is always one that was accepted as a whole; a refused reload leaves it in place;
//! - a target has one scraper at a time, and a greater epoch each time it gets another one;
//! - what cannot be read any more (files, servers, members) keeps its last good state.
//!
//! Deliberately absent: scraping and metric relabelling (`scraper`), rule evaluation (`querier`), HTTP.
#![warn(missing_docs)]

mod alertmanagers;
pub mod assignment;
mod config;
mod director;
mod error;
mod grpc;
mod metrics;
pub mod prometheus_config;
mod providers;
mod published;
mod rule_files;
mod service;
pub mod target_group;
pub mod targets;

pub use config::Config;
pub use error::{Error, Result};
pub use service::Service;
