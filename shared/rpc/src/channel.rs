//! Channels: how a client reaches a role, in this process or another.

use std::time::Duration;

use tower::util::BoxCloneSyncService;

/// The largest gRPC message that is sent or taken, in bytes. Streams cut their content well below it.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Reaches one role: a connection to another process, or the role's own router called in this one.
pub type Channel =
    BoxCloneSyncService<http::Request<tonic::body::Body>, http::Response<tonic::body::Body>, tower::BoxError>;

/// Wraps a message in a request that is given up after a time. A call without a deadline is a bug.
pub fn with_deadline<T>(message: T, deadline: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(deadline);
    request
}
