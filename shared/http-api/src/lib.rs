//! The Prometheus HTTP API v1: parameters in, JSON out.
//!
//! Source: Prometheus 3.14 `web/api/v1/api.go` and `util/jsonutil`. Everything here is a function over values; the
//! gateway owns the sockets, parses expressions and asks the other services.
//!
//! Deliberately absent: HTTP itself, and the shapes of endpoints that only one place answers.
#![warn(missing_docs)]

pub mod error;
pub mod json;
pub mod params;

pub use error::{ApiError, ErrorType};
pub use json::QueryWriter;
pub use params::Params;
