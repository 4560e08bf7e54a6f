//! The federation gateway: the edge of Tributary.
//!
//! It answers the Prometheus HTTP API and `/federate` by asking the other roles, answers remote read, and takes remote write. It owns no
//! data but an index of the series that remote write brought lately.
//!
//! Invariants:
//! - an answer is never silently partial: what cannot be reached fails the request before its first byte, breaks the
//!   body off after it, or, where partial answers were asked for, is named in a warning;
//! - a remote write request of version 1.0 is stored as a whole or not at all, one of 2.0 as far as it can be; what is
//!   acknowledged is durable;
//! - what Prometheus has and Tributary has not yet answers 501.
//!
//! Deliberately absent: evaluation, storage, scraping, pages.

mod config;
mod federate;
mod gateway;
mod http;
mod metrics;
mod notifications;
mod peers;
mod remote_write;
mod search;
mod service;

pub use config::Config;
pub use service::Service;
