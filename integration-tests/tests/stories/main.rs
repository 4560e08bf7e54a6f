//! Whole stories: real processes on loopback, each with its own ports and data.
//!
//! A story waits for what it needs to see, with a deadline, and never asserts a speed. What Debian's Prometheus 2.42
//! answers to the same input is the measure wherever 2.42 and 3.14 agree.

mod admin;
mod alerts;
mod bad_input;
mod bombs;
mod cluster;
mod compaction;
mod containers;
mod cross_service;
mod damaged_files;
mod damaged_logs;
mod deploy;
mod disk_full;
mod diskless;
mod expressions;
mod federation;
mod federation_cluster;
mod grafana;
mod hierarchy;
mod import;
mod intervals;
mod kill_nine;
mod kubernetes;
mod ledger;
mod many_federations;
mod odd_requests;
mod open_data;
mod openapi;
mod otlp;
mod pair;
mod prefix;
mod promql_queries;
mod promtool;
mod remote_read;
mod remote_write;
mod retention;
mod rules;
mod same_answers;
mod scraped_histograms;
mod search;
mod sources;
mod status;
mod storage_url;
mod streams;
mod tenants;
mod tree;
mod writers;

use std::path::PathBuf;

/// A file of Prometheus's test data, which is kept outside of the repository; `CI=true` insists on it.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test asks for CI and says that it is skipped"
)]
fn conformance(file: &str) -> Option<PathBuf> {
    let path = integration_tests::repository().join("../shared/conformance").join(file);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is not there", path.display());
    println!("SKIPPED: {} is not there", path.display());
    None
}
