//! Builds the querier's parts and joins them.

use std::sync::Arc;

use coordination::Role;
use rpc::pb::querier::querier_server::QuerierServer;
use service_runtime::{BoxError, Environment, GrpcServices, Shutdown};

use crate::config::Config;
use crate::grpc::Server;
use crate::metrics::Metrics;
use crate::query::Queries;
use crate::sources::Sources;

/// The querier as the runtime starts it.
#[derive(Debug)]
pub struct Service {
    server: Server,
}

impl service_runtime::Service for Service {
    const ROLE: Role = Role::Querier;
    type Config = Config;

    async fn build(config: Config, environment: &Environment) -> Result<Self, BoxError> {
        let location = config.storage.location(&config.path).map_err(|faults| faults.join("; "))?;
        let (peers, clock) = (environment.peers.clone(), environment.clock.clone());
        let sources = Arc::new(Sources::new(peers, location, clock, config.cache_bytes_max));
        let discovery = environment.peers.role(Role::Discovery);
        let (prometheus_config, following) = config_watch::follow(discovery);
        environment.tasks.spawn("follow configuration", async move {
            following.await;
            Ok(())
        });
        let metrics = Metrics::register(&environment.metrics, &sources);
        let queries = Queries::new(&config, sources, prometheus_config, metrics);
        Ok(Self { server: Server { queries: Arc::new(queries) } })
    }

    fn grpc(&self) -> GrpcServices {
        let server = QuerierServer::new(self.server.clone())
            .max_decoding_message_size(rpc::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(rpc::MESSAGE_BYTES_MAX);
        GrpcServices::new().add(server).describe(rpc::pb::DESCRIPTORS)
    }

    async fn run(self, shutdown: Shutdown) -> Result<(), BoxError> {
        shutdown.drained().await;
        Ok(())
    }
}
