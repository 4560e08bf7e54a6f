//! Fixtures for tests: a scrape target that answers what it is told to, and a clock that moves with Tokio's.
//!
//! Deliberately absent: anything a program would use outside of tests.
#![warn(missing_docs)]

mod clock;
mod target;

pub use clock::FakeClock;
pub use target::{Answer, FakeTarget, Seen};
