//! Builds the ingester's parts and joins them.

use std::sync::Arc;
use std::time::Duration;

use coordination::Role;
use model::Clock;
use rpc::pb::ingester::ingester_server::IngesterServer;
use service_runtime::{BoxError, Environment, GrpcServices, Shutdown, Task};
use tsdb::table::Table;
use tsdb::{Storage, StorageOptions};

use crate::config::Config;
use crate::grpc::Server;
use crate::listing::Listing;

/// How long the start waits for the configuration at most.
const CONFIGURATION_WAIT: Duration = Duration::from_secs(2);

/// The ingester as the runtime starts it.
#[derive(Debug)]
pub struct Service {
    opening: Task,
    server: Server,
    listing: Listing,
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
            let storage = open(&config, window, clock).await?;
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
            let configured = Arc::clone(&storage);
            tasks.spawn("apply configuration", async move {
                configured.set_out_of_order_window(out_of_order_window(&latest, &config));
                // Ends with whoever follows the configuration, when the service stops.
                while latest.changed().await.is_ok() {
                    configured.set_out_of_order_window(out_of_order_window(&latest, &config));
                }
                Ok(())
            });
            opened.set(storage);
            drop(latch);
            Ok(())
        });
        Ok(Self { opening, server, listing })
    }

    fn grpc(&self) -> GrpcServices {
        let server = IngesterServer::new(self.server.clone())
            .max_decoding_message_size(rpc::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(rpc::MESSAGE_BYTES_MAX);
        GrpcServices::new().add(server).describe(rpc::pb::DESCRIPTORS)
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
) -> Result<Arc<Storage>, BoxError> {
    let path = &config.path;
    let location = config.storage.location(path).map_err(|faults| faults.join("; "))?;
    let table = Table::open_in(&location, clock.clone()).await?;
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
    Ok(Storage::open(options).await?)
}
