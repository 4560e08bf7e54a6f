//! The crate through its public face: configuration files, and the service with in-memory neighbours.

mod conformance;
