//! Scripts in Prometheus's PromQL test language: what they say, and running them against anything that takes samples
//! and answers queries.

mod apart;
mod compare;
mod run;
mod script;
mod store;

pub use apart::Apart;
pub use run::{Answer, Backend, InMemory, Report, run_script};
pub use script::{Load, LoadSeries};
pub use store::load;
