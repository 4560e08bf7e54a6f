//! Starts and stops a service, the same way for all of them.
//!
//! A service implements [`Service`]; [`main`] runs one as its own program, [`Program`] runs several in one, and both
//! go the same way: arguments and config (every fault at once, exit status 2), telemetry, bind every listener,
//! build, mount, run; on SIGTERM or SIGINT: not ready, stop taking, drain, flush, close, within a grace period.
//!
//! - [`Environment`]: what a service is handed instead of globals.
//! - [`Tasks`]: the only way to start background work. A failure or panic is never silent.
//! - [`Readiness`]: latches; the last one dropped makes the program ready.
//! - [`Peers`]: channels to other roles, over the network or to a router in this very program;
//!   [`Peers::ask_heads`] asks all that hold what is not in the table yet.
//! - Every request passes one set of layers ([`Limits`]): deadline, size caps, concurrency cap, span, metrics.
//!
//! - [`WebConfig`]: TLS and authentication of a listener that faces users; [`WebUrl`]: where they reach it.
//!
//! Deliberately absent: our own gRPC messages, any domain, TLS between members.
#![warn(missing_docs)]

mod arguments;
mod config;
mod entry;
mod environment;
mod error;
mod etcd;
mod guard;
mod heads;
mod listener;
mod metrics;
mod peers;
mod program;
mod readiness;
mod service;
mod shutdown;
mod summary;
mod tasks;
mod values;
mod web;
mod web_url;

pub use arguments::{Arguments, default_address, parse_flags};
pub use config::{Config, Overrides, parse_config, read_config};
pub use entry::{main, main_from, run};
pub use environment::Environment;
pub use error::{BoxError, Error, Result};
pub use guard::Limits;
pub use heads::{Answers, Covering, Head, Missing};
pub use metrics::{BUILD, Build, Metrics};
pub use peers::{Peers, in_process_address};
pub use program::{Options, Program, Reach, Running};
pub use readiness::{Latch, Readiness};
pub use service::{GrpcServices, Service, Surface};
pub use shutdown::{Reload, Shutdown, ShutdownTrigger, Stopper};
pub use summary::{Summaries, Summary};
pub use tasks::{Backoff, Task, Tasks};
pub use values::{ConfigBytes, ConfigDuration};
pub use web::WebConfig;
pub use web_url::{WebUrl, not_found};
