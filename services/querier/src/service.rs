//! Builds the querier's parts and joins them.

use std::sync::Arc;

use coordination::Role;
use group_writer::{GroupWriter, Options};
use rpc::pb::querier::querier_server::QuerierServer;
use service_runtime::{BoxError, Environment, GrpcServices, Shutdown};

use crate::config::Config;
use crate::grpc::Server;
use crate::metrics::Metrics;
use crate::notifier::{self, Notifier, NotifierMetrics};
use crate::query::Queries;
use crate::rules::{RuleMetrics, Rules, Surroundings};
use crate::sources::Sources;

/// The querier as the runtime starts it.
#[derive(Debug)]
pub struct Service {
    server: Server,
    rules: Rules,
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
        let outside = Surroundings {
            clock: environment.clock.clone(),
            tasks: environment.tasks.clone(),
            sources: Arc::clone(&sources),
            writer: writer(environment),
            metrics: RuleMetrics::register(&environment.metrics),
            notifier: Arc::new(notifier(&config, environment)),
            member_name: environment.member_name.clone(),
            discovery: environment.peers.role(Role::Discovery),
        };
        let queries = Queries::new(&config, sources, prometheus_config, metrics);
        let (rules, shown) = Rules::new(config, outside);
        Ok(Self { server: Server { queries: Arc::new(queries), rules: shown }, rules })
    }

    fn grpc(&self) -> GrpcServices {
        let server = QuerierServer::new(self.server.clone())
            .max_decoding_message_size(rpc::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(rpc::MESSAGE_BYTES_MAX);
        GrpcServices::new().add(server).describe(rpc::pb::DESCRIPTORS)
    }

    async fn run(self, shutdown: Shutdown) -> Result<(), BoxError> {
        self.rules.run(shutdown.clone()).await;
        shutdown.drained().await;
        Ok(())
    }
}

/// The way of alerts to Alertmanagers.
fn notifier(config: &Config, environment: &Environment) -> Notifier {
    let options = notifier::Options {
        queue_capacity: config.notification_queue_capacity,
        batch_size: config.notification_batch_size,
        drains: config.drain_notification_queue_on_shutdown,
    };
    Notifier::new(options, environment.tasks.clone(), NotifierMetrics::register(&environment.metrics))
}

/// The way of rules' samples to the ingesters.
fn writer(environment: &Environment) -> GroupWriter {
    let peers = environment.peers.clone();
    let connect = move |address: &str| peers.channel(address);
    let ingesters = environment.peers.members(Role::Ingester);
    let (writer, driver) = GroupWriter::new(Options::default(), ingesters, Arc::new(connect));
    environment.tasks.spawn("group writer", async move {
        driver.run().await;
        Ok(())
    });
    writer
}
