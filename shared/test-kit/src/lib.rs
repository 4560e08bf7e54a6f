//! Fixtures for tests: a scrape target that answers what it is told to, a clock that moves with Tokio's, an S3 server,
//! and where to find the programs that `integration-tests/parts.sh` fetches.
//!
//! Deliberately absent: anything a program would use outside of tests.
#![warn(missing_docs)]

mod clock;
mod parts;
mod s3;
mod target;

pub use clock::FakeClock;
pub use parts::{free_port, part, profile_folder, target_folder};
pub use s3::S3Server;
pub use target::{Answer, FakeTarget, Seen};
