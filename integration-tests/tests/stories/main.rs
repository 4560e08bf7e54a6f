//! Whole stories: real processes on loopback, each with its own ports and data.
//!
//! A story waits for what it needs to see, with a deadline, and never asserts a speed. What Debian's Prometheus 2.42
//! answers to the same input is the measure wherever 2.42 and 3.14 agree.

mod bad_input;
mod cluster;
mod compaction;
mod containers;
mod cross_service;
mod deploy;
mod expressions;
mod hierarchy;
mod kill_nine;
mod kubernetes;
mod ledger;
mod open_data;
mod otlp;
mod pair;
mod promql_queries;
mod promtool;
mod same_answers;
mod storage_url;
mod tenants;
mod writers;
