//! Builds the parts and joins them.

use coordination::Role;
use service_runtime::{BoxError, Environment, GrpcServices, Latch, Reload, Shutdown};

use crate::config::Config;
use crate::director::{Director, Handle, Surroundings};
use crate::grpc::Grpc;
use crate::metrics::Metrics;

/// The discovery service.
#[derive(Debug)]
pub struct Service {
    director: Director,
    handle: Handle,
    reload: Reload,
    shutdown: Shutdown,
    latch: Latch,
}

impl service_runtime::Service for Service {
    const ROLE: Role = Role::Discovery;
    type Config = Config;

    async fn build(config: Config, environment: &Environment) -> Result<Self, BoxError> {
        let latch = environment.readiness.latch("configuration");
        let outside = Surroundings {
            clock: environment.clock.clone(),
            coordinator: environment.coordinator.clone(),
            tasks: environment.tasks.clone(),
            scrapers: environment.peers.members(Role::Scraper),
            queriers: environment.peers.members(Role::Querier),
            metrics: Metrics::register(&environment.metrics),
        };
        let (director, handle) = Director::load(config, outside).await?;
        let (reload, shutdown) = (environment.reload.clone(), environment.shutdown.clone());
        Ok(Self { director, handle, reload, shutdown, latch })
    }

    fn grpc(&self) -> GrpcServices {
        GrpcServices::new()
            .add(Grpc::server(self.handle.clone(), self.shutdown.clone()))
            .describe(rpc::pb::DESCRIPTORS)
    }

    async fn run(self, shutdown: Shutdown) -> Result<(), BoxError> {
        self.director.run(self.reload, shutdown, self.latch).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
