//! The scraper: scrapes the targets that discovery assigns to it and hands their samples to the ingesters.
//!
//! It owns scrape loops, the reading of expositions, metric relabelling, staleness, `up` and the other report
//! series, and the state of its targets. The way of a sample:
//!
//! - `watch` follows discovery and gives each `targets` delta to the loops;
//! - `scrape_loop` waits for a target's tick and fetches its body through `client`;
//! - `cache` turns the body into one append of the target's group, without building a label set for a known series;
//! - `outlet` hands it to the group writer and never waits for the answer.
//!
//! Invariants: what discovery said last stands while it is away; a target that is gone gets staleness markers, one
//! that moved or a scraper that stops writes none; a body, all bodies together, and what waits for the ingesters are
//! bounded.
//!
//! Deliberately absent: service discovery and target relabelling (discovery), storage (ingester), proxies.

mod cache;
mod client;
mod config;
mod error;
#[cfg(test)]
mod fake_ingester;
mod grpc;
mod job;
mod metrics;
mod outlet;
mod schedule;
mod scrape_loop;
mod service;
mod targets;
mod watch;

pub use config::Config;
pub use service::Service;
