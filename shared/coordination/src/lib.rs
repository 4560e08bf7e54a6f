//! Who is there, who does what, and in which order it was decided.
//!
//! - [`Coordinator`]: keys with revisions and compare-and-swap, leases, and watches of a prefix that resume.
//!   [`InMemory`] serves one process and tests, [`Etcd`] a cluster; both pass the suite in `conformance`.
//! - [`membership`]: a numbered list of the members of a [`Role`], kept alive by leases.
//! - [`logs`]: which logs hold what is not in the table yet, and who answers for them.
//! - [`placement`]: pure functions that say where a scrape group or a target lives.
//! - [`epoch`]: numbers that order assignments, also across the loss of everything stored here.
//!
//! What lies here is kilobytes, is never a sample and never the only truth about data: whoever reads it goes on
//! with the last known state when the coordinator is away.
//!
//! Deliberately absent: sockets (a channel to etcd is handed in, a member's address is text here), any election (correctness of data never
//! depends on one), and samples.
#![warn(missing_docs)]

#[cfg(feature = "conformance")]
pub mod conformance;
mod coordinator;
pub mod epoch;
mod error;
mod etcd;
pub mod logs;
pub mod membership;
mod memory;
mod news;
pub mod placement;

pub use coordinator::{
    Change, Coordinator, Entry, Event, EventStream, Expect, KEY_BYTES_MAX, LEASE_TTL_MAX, LEASE_TTL_MIN,
    Lease, Revision, Snapshot, Swap, VALUE_BYTES_MAX, check_key, check_ttl, check_value,
};
pub use epoch::Epoch;
pub use error::{Error, Result};
pub use etcd::{Connect, Endpoint, Etcd, EtcdOptions};
pub use membership::{Member, Role};
pub use memory::InMemory;
