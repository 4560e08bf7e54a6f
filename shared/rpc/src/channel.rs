//! Channels: how a client reaches a role, in this process or another.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt as _};

/// The largest gRPC message that is sent or taken, in bytes. Streams cut their content well below it.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

type HttpRequest = http::Request<tonic::body::Body>;
type HttpResponse = http::Response<tonic::body::Body>;

/// Reaches one role: a connection to another process, or the role's own router called in this one.
#[derive(Debug, Clone)]
pub struct Channel(BoxCloneSyncService<HttpRequest, HttpResponse, ChannelError>);

/// The transport failed, before any gRPC status could be read.
#[derive(Debug, thiserror::Error)]
#[error("transport: {0}")]
pub struct ChannelError(#[source] tower::BoxError);

impl Channel {
    /// Makes a channel of whatever carries requests to the role.
    pub fn new<S>(service: S) -> Self
    where
        S: Service<HttpRequest, Response = HttpResponse> + Clone + Send + Sync + 'static,
        S::Error: Into<tower::BoxError>,
        S::Future: Send + 'static,
    {
        Self(BoxCloneSyncService::new(service.map_err(|e| ChannelError(e.into()))))
    }
}

impl Service<HttpRequest> for Channel {
    type Response = HttpResponse;
    type Error = ChannelError;
    type Future = BoxFuture<HttpResponse, ChannelError>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: HttpRequest) -> Self::Future {
        self.0.call(request)
    }
}

type BoxFuture<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Wraps a message in a request that is given up after a time. A call without a deadline is a bug.
pub fn with_deadline<T>(message: T, deadline: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(deadline);
    request
}
