//! Our gRPC services: code generated from `proto/`, conversions to `model`, statuses, and channels; and the calls
//! to etcd, the one server of others that members speak gRPC with.
//!
//! Generated types end at a service's `grpc.rs`: this crate turns them into values of `model` that are valid by
//! construction, or into an [`Error`] that says which field is wrong.
//!
//! Deliberately absent: sockets and tasks. A [`Channel`] is handed in; it reaches another process or a role in the
//! same one, and no caller can tell which.
#![warn(missing_docs)]

pub mod channel;
pub mod convert;
pub mod error;
pub mod etcd;
pub mod health;
pub mod pb;
pub mod status;
pub mod symbols;
pub mod values;

pub use channel::{Channel, MESSAGE_BYTES_MAX, with_deadline};
pub use error::{Error, Result};
