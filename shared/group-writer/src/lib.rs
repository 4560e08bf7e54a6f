//! Delivers scrape groups to their home ingesters over append streams.
//!
//! A caller keeps a [`Group`] for each scrape target (or resource, or job and instance) and hands in [`Batch`]es of
//! samples. [`GroupWriter`] finds each group's home, declares the group on that ingester's stream when it is new
//! there, sends, and reports what was stored once it is durable. [`SeriesIndex`] keeps the groups of a caller whose
//! series come one by one.
//!
//! Invariants:
//! - samples of one group are sent in the order in which they were handed in;
//! - a batch is retried until an ingester has answered for it: at least once, since ingesters take an exact
//!   repetition silently;
//! - what waits is bounded in bytes; past the bound a batch is refused at once;
//! - while a home is slow or away, the next choice takes its groups, marked as displaced (see `route`): an ingester
//!   that hangs stops nobody else;
//! - nothing is spawned here: the service spawns [`Driver::run`].
//!
//! Samples that were under way to an ingester that is given up go to the next choice behind newer samples that went
//! there at once: the out-of-order window takes them.
#![warn(missing_docs)]

mod driver;
mod error;
mod group;
mod index;
mod lane;
mod route;

pub use driver::{Connect, Driver, GroupWriter, Options, Pending};
pub use error::{Error, Result};
pub use group::{Append, Batch, Group, GroupIdentity, Presence, Refusal, Written};
pub use index::{Filling, Place, SeriesIndex, SeriesKey, SeriesOf, TooManySeries};
pub use rpc::pb::ingester::RefusalReason;
