//! Fixtures for tests: a scrape target that answers what it is told to, a clock that moves with Tokio's, a real etcd
//! cluster, a real S3 server, and where the programs lie that `integration-tests/parts.sh` fetches.
//!
//! Deliberately absent: anything a program would use outside of tests.
#![warn(missing_docs)]

mod clock;
mod etcd;
mod golden;
mod parts;
mod s3;
mod target;

pub use clock::FakeClock;
pub use etcd::EtcdCluster;
pub use golden::golden;
pub use parts::{free_port, part, profile_folder, target_folder};
pub use s3::S3Server;
pub use target::{Answer, FakeTarget, Seen};
