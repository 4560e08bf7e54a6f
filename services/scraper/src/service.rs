//! Builds the scraper's parts and joins them.

use std::sync::Arc;
use std::time::Duration;

use coordination::Role;
use coordination::membership::Roster;
use group_writer::{GroupWriter, Options};
use http_client::Roots;
use service_runtime::{Backoff, BoxError, Environment, GrpcServices, Shutdown, ShutdownTrigger, Tasks};
use tokio::sync::{Semaphore, watch};
use tracing::warn;

use crate::client::{BodyBudget, Shared};
use crate::config::Config;
use crate::grpc::Grpc;
use crate::metrics::Metrics;
use crate::outlet::Outlet;
use crate::scrape_loop::{ScrapeLoop, Surroundings};
use crate::targets::{Registry, Start, Targets};
use crate::watch::Follower;

/// How long a stop waits for other scrapers to take the targets over.
const HANDOVER_MAX: Duration = Duration::from_secs(5);
/// Time between two looks at whether they have.
const HANDOVER_POLL: Duration = Duration::from_millis(20);

/// The scraper as the runtime starts it.
#[derive(Debug)]
pub struct Service {
    registry: Registry,
    outlet: Outlet,
    stop_loops: ShutdownTrigger,
    scrapers: watch::Receiver<Roster>,
    member_name: String,
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
        Ok(Self::join(config, environment, writer, discovery))
    }

    fn grpc(&self) -> GrpcServices {
        GrpcServices::new().add(Grpc::new(self.registry.clone()).into_server()).describe(rpc::pb::DESCRIPTORS)
    }

    async fn run(self, shutdown: Shutdown) -> Result<(), BoxError> {
        shutdown.requested().await;
        if tokio::time::timeout(HANDOVER_MAX, self.handed_over()).await.is_err() {
            let targets = self.registry.all().len();
            warn!(targets, "targets were not taken over by other scrapers in time");
        }
        // Loops end by themselves now; what they have handed in is waited for.
        self.stop_loops.request();
        shutdown.drained().await;
        self.outlet.drain().await;
        Ok(())
    }
}

impl Service {
    /// Waits until discovery has given every target to another scraper, so that no interval goes by without a scrape;
    /// at once where there is no other. The program has left the member list by now.
    async fn handed_over(&self) {
        let is_other = |member: &coordination::Member| member.name != self.member_name;
        while !self.registry.all().is_empty() && self.scrapers.borrow().members.iter().any(is_other) {
            tokio::time::sleep(HANDOVER_POLL).await;
        }
    }

    /// Joins the parts between discovery and the writer, and starts to follow discovery.
    fn join(config: Config, environment: &Environment, writer: GroupWriter, discovery: rpc::Channel) -> Self {
        let metrics = Metrics::register(&environment.metrics);
        let outlet = Outlet::new(writer, metrics.clone());
        let (stop_loops, loops_stop) = Shutdown::new();
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let around = Surroundings {
            clock: environment.clock.clone(),
            outlet: outlet.clone(),
            metrics: metrics.clone(),
            readers: Arc::new(Semaphore::new(cpus)),
            shutdown: loops_stop,
        };
        let shared = Shared {
            budget: BodyBudget::new(config.bodies_bytes_max),
            roots: Roots::default(),
            body_bytes_max: config.body_bytes_max,
        };
        let registry = Registry::default();
        let start = starter(around, environment.tasks.clone());
        let scrapers = environment.peers.members(Role::Scraper);
        let member_name = environment.member_name.clone();
        let host = config.offset_host;
        let targets = Targets::new(start, shared, metrics.clone(), registry.clone(), host);
        let follower =
            Follower { channel: discovery, name: member_name.clone(), targets, metrics, revision: 0 };
        environment.tasks.spawn("follow discovery", follower.run());
        Self { registry, outlet, stop_loops, scrapers, member_name }
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

#[cfg(test)]
mod tests;
