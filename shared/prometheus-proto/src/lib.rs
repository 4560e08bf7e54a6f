//! The messages of Prometheus's own wire formats, compiled from `proto/third-party`, and a reader that walks large
//! ones in place.
//!
//! Deliberately absent: services, clients and conversions (`exposition` and `remote-protocol` have those).
#![warn(missing_docs)]

/// Remote write 1.0 and remote read: package `prometheus`.
pub mod prometheus {
    include!(concat!(env!("OUT_DIR"), "/prometheus.rs"));
}

/// Remote write 2.0: package `io.prometheus.write.v2`.
pub mod write_v2 {
    include!(concat!(env!("OUT_DIR"), "/io.prometheus.write.v2.rs"));
}

/// The data model of clients: package `io.prometheus.client`.
pub mod client {
    include!(concat!(env!("OUT_DIR"), "/io.prometheus.client.rs"));
}

pub mod label;
pub mod wire;

#[cfg(test)]
mod tests;
