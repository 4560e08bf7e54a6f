//! Code generated from `proto/`, one module a package, and the descriptors for reflection.

/// The packages nest as their names do, since generated code refers to its neighbours by relative paths.
#[allow(
    missing_docs,
    unreachable_pub,
    missing_debug_implementations,
    unused_qualifications,
    reason = "generated"
)]
#[allow(clippy::all, clippy::pedantic, reason = "generated; the .proto files hold the documentation")]
mod tributary {
    pub mod model {
        pub mod v1 {
            tonic::include_proto!("tributary.model.v1");
        }
    }
    pub mod discovery {
        pub mod v1 {
            tonic::include_proto!("tributary.discovery.v1");
        }
    }
    pub mod scraper {
        pub mod v1 {
            tonic::include_proto!("tributary.scraper.v1");
        }
    }
    pub mod ingester {
        pub mod v1 {
            tonic::include_proto!("tributary.ingester.v1");
        }
    }
    pub mod querier {
        pub mod v1 {
            tonic::include_proto!("tributary.querier.v1");
        }
    }
    pub mod federation {
        pub mod v1 {
            tonic::include_proto!("tributary.federation.v1");
        }
    }
}

/// The calls to etcd.
#[allow(
    missing_docs,
    unreachable_pub,
    missing_debug_implementations,
    unused_qualifications,
    reason = "generated"
)]
#[allow(clippy::all, clippy::pedantic, reason = "generated; the .proto file holds the documentation")]
pub mod etcd {
    tonic::include_proto!("etcdserverpb");
}

pub use tributary::discovery::v1 as discovery;
pub use tributary::federation::v1 as federation;
pub use tributary::ingester::v1 as ingester;
pub use tributary::model::v1 as model;
pub use tributary::querier::v1 as querier;
pub use tributary::scraper::v1 as scraper;

/// The encoded file descriptor set of all packages, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
