//! What a service is.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;

use axum::Router;
use coordination::Role;
use tonic::server::NamedService;
use tower::ServiceExt as _;

use crate::{BoxError, Config, Environment, Shutdown};

/// One of the five services: built from its config, reached over gRPC and HTTP, run until told to stop.
///
/// The order of calls is `build`, then `grpc`, `http` and `extra` once each, then `run`.
pub trait Service: Sized + Send + 'static {
    /// The role it plays; its name in logs, flags and metrics.
    const ROLE: Role;
    /// What its own file says.
    type Config: Config;

    /// Makes the service from its config and what the environment offers. Whatever must happen before the program
    /// is ready holds a latch of [`Environment::readiness`], and slow work (replay) belongs to `run` or a task.
    fn build(
        config: Self::Config,
        environment: &Environment,
    ) -> impl Future<Output = Result<Self, BoxError>> + Send;

    /// What it answers over gRPC, to its peers and on its listeners.
    fn grpc(&self) -> GrpcServices;

    /// What it answers over HTTP on its listeners.
    fn http(&self) -> Router {
        Router::new()
    }

    /// The listeners of its own that its config asks for (OTLP's ports), by name; bound before it is built.
    fn listeners(_config: &Self::Config) -> Vec<(&'static str, SocketAddr)> {
        Vec::new()
    }

    /// What it answers on listeners of its own.
    fn extra(&self) -> Vec<Surface> {
        Vec::new()
    }

    /// Works until told to stop. On [`Shutdown::requested`] it refuses new work and ends its streams; after
    /// [`Shutdown::drained`] it flushes and returns. Reads are answered until it has returned. Returning earlier
    /// than asked is a failure.
    fn run(self, shutdown: Shutdown) -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// What is answered on one named listener.
#[derive(Debug)]
pub struct Surface {
    /// The listener's name.
    pub listener: &'static str,
    /// What is answered over gRPC.
    pub grpc: GrpcServices,
    /// What is answered over HTTP.
    pub http: Router,
}

/// A set of gRPC services with their names (for health) and descriptors (for reflection).
#[derive(Clone, Default)]
pub struct GrpcServices {
    pub(crate) router: Router,
    pub(crate) names: Vec<&'static str>,
    pub(crate) descriptors: Vec<&'static [u8]>,
}

impl GrpcServices {
    /// Makes an empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a generated server.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "no sum, and nobody takes it for one")]
    pub fn add<S>(mut self, service: S) -> Self
    where
        S: tower::Service<http::Request<tonic::body::Body>, Error = Infallible>,
        S: NamedService + Clone + Send + Sync + 'static,
        S::Response: axum::response::IntoResponse,
        S::Future: Send + 'static,
    {
        let service =
            service.map_request(|request: axum::extract::Request| request.map(tonic::body::Body::new));
        self.router = self.router.route_service(&format!("/{}/{{*method}}", S::NAME), service);
        self.names.push(S::NAME);
        self
    }

    /// Adds an encoded file descriptor set, which reflection shows.
    #[must_use]
    pub fn describe(mut self, file_descriptor_set: &'static [u8]) -> Self {
        self.descriptors.push(file_descriptor_set);
        self
    }
}

impl fmt::Debug for GrpcServices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GrpcServices").field(&self.names).finish()
    }
}
