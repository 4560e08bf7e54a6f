//! Builds the scraper's parts and joins them.

use std::sync::Arc;

use coordination::Role;
use group_writer::{GroupWriter, Options};
use service_runtime::{Backoff, BoxError, Environment, GrpcServices, Shutdown, Tasks};
use tokio::sync::Semaphore;

use crate::client::{BodyBudget, Roots, Shared};
use crate::config::Config;
use crate::grpc::Grpc;
use crate::metrics::Metrics;
use crate::outlet::Outlet;
use crate::scrape_loop::{ScrapeLoop, Surroundings};
use crate::targets::{Registry, Start, Targets};
use crate::watch::Follower;

/// Where Linux tells the machine's name.
const HOSTNAME_FILE: &str = "/proc/sys/kernel/hostname";

/// The scraper as the runtime starts it.
#[derive(Debug)]
pub struct Service {
    registry: Registry,
    outlet: Outlet,
}

impl service_runtime::Service for Service {
    const ROLE: Role = Role::Scraper;
    type Config = Config;

    async fn build(config: Config, environment: &Environment) -> Result<Self, BoxError> {
        let peers = environment.peers.clone();
        let connect = move |address: &str| peers.channel(address);
        let options = Options { buffer_bytes_max: config.buffer_bytes_max, ..Options::default() };
        environment.metrics.register(|registry| {
            let help = "Samples sent to another ingester than their home, which was slow or away";
            registry.register("scraper_displaced_samples", help, options.displaced_samples.clone());
        });
        let ingesters = environment.peers.members(Role::Ingester);
        let (writer, driver) = GroupWriter::new(options, ingesters, Arc::new(connect));
        environment.tasks.spawn("group writer", async move {
            driver.run().await;
            Ok(())
        });
        let discovery = environment.peers.role(Role::Discovery);
        Ok(Self::join(config, environment, writer, discovery).await)
    }

    fn grpc(&self) -> GrpcServices {
        GrpcServices::new().add(Grpc::new(self.registry.clone()).into_server()).describe(rpc::pb::DESCRIPTORS)
    }

    async fn run(self, shutdown: Shutdown) -> Result<(), BoxError> {
        // Loops end by themselves when the stop is requested; what they have handed in is waited for.
        shutdown.drained().await;
        self.outlet.drain().await;
        Ok(())
    }
}

impl Service {
    /// Joins the parts between discovery and the writer, and starts to follow discovery.
    async fn join(
        config: Config,
        environment: &Environment,
        writer: GroupWriter,
        discovery: rpc::Channel,
    ) -> Self {
        let metrics = Metrics::register(&environment.metrics);
        let outlet = Outlet::new(writer, metrics.clone());
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let around = Surroundings {
            clock: environment.clock.clone(),
            outlet: outlet.clone(),
            metrics: metrics.clone(),
            readers: Arc::new(Semaphore::new(cpus)),
            shutdown: environment.shutdown.clone(),
        };
        let shared = Shared {
            budget: BodyBudget::new(config.bodies_bytes_max),
            roots: Roots::default(),
            body_bytes_max: config.body_bytes_max,
        };
        let registry = Registry::default();
        let start = starter(around, environment.tasks.clone());
        let host = offset_host(&config).await;
        let targets = Targets::new(start, shared, metrics.clone(), registry.clone(), host);
        let follower = Follower {
            channel: discovery,
            peers: environment.peers.clone(),
            name: config.member_name,
            targets,
            metrics,
            revision: 0,
        };
        environment.tasks.spawn("follow discovery", follower.run());
        Self { registry, outlet }
    }
}

/// Starts loops. A panic over one target's body costs that target its memory and nobody else anything.
fn starter(around: Surroundings, tasks: Tasks) -> Start {
    Box::new(move |orders, shown| {
        let around = around.clone();
        tasks.spawn_restarting("scrape loop", Backoff::default(), move || {
            let scrape_loop = ScrapeLoop::new(around.clone(), shown.clone());
            scrape_loop.run(orders.clone())
        });
    })
}

/// The host that takes part in the offset. Prometheus takes the fully qualified name, for which it asks DNS; without
/// that the offsets differ from Prometheus's on hosts that have such a name, unless it is configured.
async fn offset_host(config: &Config) -> String {
    if !config.offset_host.is_empty() {
        return config.offset_host.clone();
    }
    // Without a name the offsets still spread over the interval.
    let name = tokio::fs::read_to_string(HOSTNAME_FILE).await.unwrap_or_default();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests;
