//! Builds the gateway's parts and joins them.

use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::Arc;

use axum::Router;
use coordination::Role;
use group_writer::{GroupWriter, Options};
use model::matcher::Pattern;
use service_runtime::{BoxError, Environment, GrpcServices, Shutdown, Surface};
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::gateway::Gateway;
use crate::http;
use crate::metrics::Metrics;
use crate::notifications::Notifications;
use crate::peers::Peers;
use crate::remote_write::RemoteWriter;

/// The listener for OTLP over HTTP.
const OTLP_HTTP: &str = "otlp-http";

/// The gateway as the runtime starts it.
#[derive(Debug)]
pub struct Service {
    gateway: Arc<Gateway>,
    writer: GroupWriter,
}

impl service_runtime::Service for Service {
    const ROLE: Role = Role::Gateway;
    type Config = Config;

    async fn build(config: Config, environment: &Environment) -> Result<Self, BoxError> {
        let peers = Peers::new(environment.peers.clone());
        let discovery = environment.peers.role(Role::Discovery);
        let (prometheus_config, following) = config_watch::follow(discovery);
        environment.tasks.spawn("follow configuration", async move {
            following.await;
            Ok(())
        });
        let options = Options { buffer_bytes_max: config.write_buffer_bytes_max, ..Options::default() };
        environment.metrics.register(|registry| {
            let help = "Samples sent to another ingester than their home, which was slow or away";
            registry.register("gateway_displaced_samples", help, options.displaced_samples.clone());
        });
        let reach = environment.peers.clone();
        let connect = Arc::new(move |address: &str| reach.channel(address));
        let (writer, driver) = GroupWriter::new(options, environment.peers.members(Role::Ingester), connect);
        environment.tasks.spawn("deliver remote write", async move {
            driver.run().await;
            Ok(())
        });
        let (notifications, keeping) = Notifications::follow(
            config.notification_subscribers_max,
            environment.clock.clone(),
            prometheus_config.clone(),
            environment.readiness.clone(),
            environment.shutdown.clone(),
        );
        environment.tasks.spawn("keep notifications", async move {
            keeping.await;
            Ok(())
        });
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let gateway = Gateway {
            read_places: Arc::new(Semaphore::new(config.read_concurrency_max)),
            federations: Arc::new(Semaphore::new(config.federations_max)),
            federation_turns: Semaphore::new((cores / 2).max(1)),
            notifications,
            registry: environment.metrics.clone(),
            origins: Pattern::new(&config.cors_origin)?,
            config,
            clock: environment.clock.clone(),
            peers,
            started_at: environment.clock.now(),
            prometheus_config,
            remote_writer: RemoteWriter::new(writer.clone(), environment.clock.clone()),
            metrics: Metrics::register(&environment.metrics),
            stopper: environment.stopper.clone(),
            readiness: environment.readiness.clone(),
        };
        Ok(Self { gateway: Arc::new(gateway), writer })
    }

    fn grpc(&self) -> GrpcServices {
        GrpcServices::new()
    }

    fn http(&self) -> Router {
        http::router(Arc::clone(&self.gateway))
    }

    fn listeners(config: &Config) -> Vec<(&'static str, SocketAddr)> {
        config.otlp_http_address.map(|address| (OTLP_HTTP, address)).into_iter().collect()
    }

    fn extra(&self) -> Vec<Surface> {
        let surface = |_| Surface {
            listener: OTLP_HTTP,
            grpc: GrpcServices::new(),
            http: http::otlp_router(Arc::clone(&self.gateway)),
        };
        self.gateway.config.otlp_http_address.map(surface).into_iter().collect()
    }

    async fn run(self, shutdown: Shutdown) -> Result<(), BoxError> {
        shutdown.drained().await;
        self.writer.drain().await;
        Ok(())
    }
}
