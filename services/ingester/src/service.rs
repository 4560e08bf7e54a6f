//! Builds the ingester's parts and joins them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coordination::Role;
use group_writer::GroupWriter;
use model::Clock;
use rpc::pb::ingester::ingester_server::IngesterServer;
use service_runtime::{BoxError, Environment, GrpcServices, Shutdown, Surface, Task};
use tsdb::table::Table;
use tsdb::{Maintenance, MaintenanceOptions, Storage, StorageOptions};

use crate::config::Config;
use crate::grpc::Server;
use crate::grpc::otlp::OtlpServer;
use crate::listing::Listing;
use crate::otlp::Receiver;

/// The listener for OTLP over gRPC.
const OTLP_GRPC: &str = "otlp-grpc";
/// How long the start waits for the configuration at most.
const CONFIGURATION_WAIT: Duration = Duration::from_secs(2);

/// The ingester as the runtime starts it.
#[derive(Debug)]
pub struct Service {
    opening: Task,
    server: Server,
    listing: Listing,
    otlp: OtlpServer,
    listens_for_otlp: bool,
}

impl service_runtime::Service for Service {
    const ROLE: Role = Role::Ingester;
    type Config = Config;

    async fn build(config: Config, environment: &Environment) -> Result<Self, BoxError> {
        let server = Server::new(&config, environment);
        // Replay takes as long as it takes: meanwhile health is answered, and everything else says "not yet".
        let latch = environment.readiness.latch("ingester replay");
        let discovery = environment.peers.role(Role::Discovery);
        let (opened, clock, tasks) =
            (server.storage.clone(), environment.clock.clone(), environment.tasks.clone());
        let upkeep = server.upkeep.clone();
        let receiver = Arc::new(receiver(&config, environment, &server));
        let otlp = OtlpServer::new(
            &config,
            server.storage.clone(),
            Arc::clone(&receiver),
            environment.shutdown.clone(),
        );
        let listens_for_otlp = config.otlp_grpc_address.is_some();
        let (latest, following) = config_watch::follow(discovery);
        environment.tasks.spawn("follow configuration", async move {
            following.await;
            Ok(())
        });
        let listing = Listing::new(environment);
        let listed = listing.clone();
        let opening = environment.tasks.spawn("open storage", async move {
            let mut latest = latest;
            // What prometheus.yml says holds from the first sample on. Discovery may be away, though, and storage is
            // not kept waiting for it.
            drop(tokio::time::timeout(CONFIGURATION_WAIT, latest.wait_for(Option::is_some)).await);
            let window = out_of_order_window(&latest, &config);
            configure(&receiver, &latest);
            let (storage, maintenance) = open(&config, window, clock).await?;
            let maintained = Arc::clone(&storage).maintain();
            tasks.spawn("maintain storage", async move {
                maintained.await;
                Ok(())
            });
            // Before the first acknowledgement: from then on readers must know of this log.
            listed.settle(&storage).await;
            let kept = listed.keep(Arc::clone(&storage));
            tasks.spawn("list logs", async move {
                kept.await;
                Ok(())
            });
            upkeep.set(Arc::clone(&maintenance));
            tasks.spawn("maintain table", async move {
                upkeep.run().await;
                Ok(())
            });
            let configured = Arc::clone(&storage);
            tasks.spawn("apply configuration", async move {
                let configure_window = |window| {
                    configured.set_out_of_order_window(window);
                    maintenance.set_out_of_order_window(window);
                };
                configure_window(out_of_order_window(&latest, &config));
                // Ends with whoever follows the configuration, when the service stops.
                while latest.changed().await.is_ok() {
                    configure_window(out_of_order_window(&latest, &config));
                    configure(&receiver, &latest);
                }
                Ok(())
            });
            opened.set(storage);
            drop(latch);
            Ok(())
        });
        Ok(Self { opening, server, listing, otlp, listens_for_otlp })
    }

    fn grpc(&self) -> GrpcServices {
        let server = IngesterServer::new(self.server.clone())
            .max_decoding_message_size(rpc::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(rpc::MESSAGE_BYTES_MAX);
        GrpcServices::new().add(server).describe(rpc::pb::DESCRIPTORS)
    }

    fn listeners(config: &Config) -> Vec<(&'static str, SocketAddr)> {
        config.otlp_grpc_address.map(|address| (OTLP_GRPC, address)).into_iter().collect()
    }

    fn extra(&self) -> Vec<Surface> {
        let surface =
            || Surface { listener: OTLP_GRPC, grpc: self.otlp.services(), http: axum::Router::new() };
        self.listens_for_otlp.then(surface).into_iter().collect()
    }

    async fn run(self, shutdown: Shutdown) -> Result<(), BoxError> {
        shutdown.drained().await;
        self.opening.abort();
        self.opening.join().await;
        if let Ok(storage) = self.server.storage.get() {
            storage.close().await?;
            self.listing.settle(&storage).await;
        }
        Ok(())
    }
}

/// Makes the receiver of OTLP metrics, which writes to all ingesters, this one among them.
fn receiver(config: &Config, environment: &Environment, server: &Server) -> Receiver {
    let options =
        group_writer::Options { buffer_bytes_max: config.otlp_buffer_bytes_max, ..Default::default() };
    environment.metrics.register(|registry| {
        let help = "OTLP samples sent to another ingester than their home, which was slow or away";
        registry.register("ingester_otlp_displaced_samples", help, options.displaced_samples.clone());
    });
    let reach = environment.peers.clone();
    let connect = Arc::new(move |address: &str| reach.channel(address));
    let (writer, driver) = GroupWriter::new(options, environment.peers.members(Role::Ingester), connect);
    environment.tasks.spawn("deliver OTLP metrics", async move {
        driver.run().await;
        Ok(())
    });
    let clock = environment.clock.clone();
    Receiver::new(writer, clock, config.lookback_delta.0, config.series_max, server.metrics.clone())
}

/// Tells the receiver what `prometheus.yml` says.
fn configure(receiver: &Receiver, latest: &config_watch::Latest) {
    if let Some(revision) = latest.borrow().as_ref() {
        receiver.configure(&revision.message);
    }
}

/// What `prometheus.yml` says; the service's own setting where it says nothing or is not known yet.
fn out_of_order_window(latest: &config_watch::Latest, config: &Config) -> Duration {
    let revision = latest.borrow();
    let window_ms = revision.as_ref().and_then(|r| r.message.out_of_order_time_window_ms);
    window_ms.map_or(config.out_of_order_time_window.0, Duration::from_millis)
}

/// Opens the table where it lies and the log below the configured folder; returns when everything acknowledged can be read.
async fn open(
    config: &Config,
    out_of_order_window: Duration,
    clock: Clock,
) -> Result<(Arc<Storage>, Arc<Maintenance>), BoxError> {
    let path = &config.path;
    let location = config.storage.location(path).map_err(|faults| faults.join("; "))?;
    let table = Table::open_in(&location, clock.clone()).await?;
    let (retention_time, retention_size) = config.retention();
    let maintenance = MaintenanceOptions {
        interval: config.compaction_interval.0,
        delay: config.compaction_delay.0,
        out_of_order_window,
        concurrency: config.compaction_concurrency,
        memory_bytes_max: config.compaction_memory_bytes_max,
        retention_time,
        retention_size,
    };
    let maintenance = Maintenance::new(Arc::clone(&table), maintenance);
    let options = StorageOptions {
        out_of_order_window,
        lookback: config.lookback_delta.0,
        flush_interval: config.flush_interval.0,
        head_retention: config.head_retention.0,
        unflushed_bytes_max: config.unflushed_bytes_max,
        queue_bytes_max: config.queue_bytes_max,
        series_max: config.series_max,
        ..StorageOptions::new(path, table, clock, tokio::runtime::Handle::current())
    };
    Ok((Storage::open(options).await?, maintenance))
}
