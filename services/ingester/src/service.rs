//! Builds the ingester's parts and joins them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coordination::{Coordinator, Role};
use group_writer::GroupWriter;
use model::Clock;
use rpc::pb::ingester::ingester_server::IngesterServer;
use service_runtime::{BoxError, Environment, GrpcServices, Latch, Peers, Shutdown, Surface, Task};
use tsdb::table::Table;
use tsdb::{
    Location, LogFailure, LogOwner, LogStore, Maintenance, MaintenanceOptions, ObjectLogOptions, ObjectLogs,
    Storage, StorageOptions,
};

use crate::adoption::Adoption;
use crate::config::{Config, LogPlace};
use crate::grpc::otlp::OtlpServer;
use crate::grpc::{Opened, Server};
use crate::listing::Listing;
use crate::otlp::Receiver;
use crate::upkeep::Upkeep;

/// The listener for OTLP over gRPC.
const OTLP_GRPC: &str = "otlp-grpc";
/// How long the start waits for the configuration at most.
const CONFIGURATION_WAIT: Duration = Duration::from_secs(2);
/// Age of the birth record of a log in the object store at its first acknowledgement: readers know it by then.
const BIRTH_DELAY: Duration = Duration::from_secs(10);
/// Between two attempts to open storage again.
const REOPEN_RETRY: Duration = Duration::from_secs(1);

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
        let life = Life {
            config,
            clock: environment.clock.clone(),
            listing: listing.clone(),
            receiver,
            upkeep: server.upkeep.clone(),
            owner: LogOwner {
                ingester: environment.member_name.clone(),
                address: environment.address.clone(),
            },
            latest,
            coordinator: environment.coordinator.clone(),
            peers: environment.peers.clone(),
        };
        let opened = server.storage.clone();
        let opening = environment.tasks.spawn("keep storage", async move { life.run(&opened, latch).await });
        Ok(Self { opening, server, listing, otlp, listens_for_otlp })
    }

    fn grpc(&self) -> GrpcServices {
        let server = IngesterServer::new(self.server.clone())
            .max_decoding_message_size(rpc::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(rpc::MESSAGE_BYTES_MAX);
        // Gateways hand on what comes over HTTP.
        self.otlp.add_to(GrpcServices::new().add(server).describe(rpc::pb::DESCRIPTORS))
    }

    fn listeners(config: &Config) -> Vec<(&'static str, SocketAddr)> {
        config.otlp_grpc_address.map(|address| (OTLP_GRPC, address)).into_iter().collect()
    }

    fn extra(&self) -> Vec<Surface> {
        let grpc = || self.otlp.add_to(GrpcServices::new());
        let surface = || Surface { listener: OTLP_GRPC, grpc: grpc(), http: axum::Router::new() };
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

/// The storage from its opening on: it is kept in order, listed and configured, and another takes its place when its log
/// in the object store has ended, or its disk was full and is not any more.
struct Life {
    config: Config,
    clock: Clock,
    listing: Listing,
    receiver: Arc<Receiver>,
    upkeep: Upkeep,
    owner: LogOwner,
    latest: config_watch::Latest,
    coordinator: Arc<dyn Coordinator>,
    peers: Peers,
}

impl Life {
    async fn run(mut self, opened: &Opened, latch: Latch) -> Result<(), BoxError> {
        // What prometheus.yml says holds from the first sample on. Discovery may be away, though, and storage is
        // not kept waiting for it.
        drop(tokio::time::timeout(CONFIGURATION_WAIT, self.latest.wait_for(Option::is_some)).await);
        configure(&self.receiver, &self.latest);
        let location = self.config.storage.location(&self.config.path).map_err(|faults| faults.join("; "))?;
        let table = Table::open_in(&location, self.clock.clone()).await?;
        let maintenance = self.maintenance(&table);
        self.upkeep.set(Arc::clone(&maintenance));
        let logs = self.open_logs(&location, &table).await?;
        let mut adoption =
            logs.clone().map(|logs| Adoption::new(logs, Arc::clone(&self.coordinator), self.peers.clone()));
        let mut latch = Some(latch);
        let mut successor: Option<Arc<Storage>> = None;
        loop {
            let opening = match successor.take() {
                Some(storage) => Ok(storage),
                None => Storage::open(self.options(&table, logs.as_ref())?).await,
            };
            let storage = match opening {
                Ok(storage) => storage,
                Err(error) if latch.is_some() => return Err(error.into()),
                Err(error) => {
                    tracing::error!(%error, "storage opens again later");
                    tokio::time::sleep(REOPEN_RETRY).await;
                    continue;
                }
            };
            // Before the first acknowledgement: from then on readers must know of this log.
            self.listing.settle(&storage).await;
            opened.set(Arc::clone(&storage));
            drop(latch.take());
            let adopted = async {
                match &mut adoption {
                    Some(adoption) => adoption.keep(&storage).await,
                    None => std::future::pending().await,
                }
            };
            let configured = follow(&mut self.latest, &self.config, &self.receiver, &storage, &maintenance);
            tokio::select! {
                next = succeeded(self.config.log.store, &storage) => successor = next,
                () = adopted => continue,
                () = configured => continue,
                () = Arc::clone(&storage).maintain() => continue,
                () = self.upkeep.clone().run() => continue,
                () = self.listing.clone().keep(Arc::clone(&storage)) => continue,
            }
        }
    }

    /// What the table needs beside flushes, as the configuration has it.
    fn maintenance(&self, table: &Arc<Table>) -> Arc<Maintenance> {
        let config = &self.config;
        let retention = config.retention().with(self.latest.borrow().as_deref());
        let options = MaintenanceOptions {
            interval: config.compaction_interval.0,
            delay: config.compaction_delay.0,
            out_of_order_window: out_of_order_window(&self.latest, config),
            concurrency: config.compaction_concurrency,
            memory_bytes_max: config.compaction_memory_bytes_max,
            retention_time: retention.time,
            retention_size: retention.size,
        };
        Maintenance::new(Arc::clone(table), options)
    }

    /// The logs in the object store: those that this ingester writes there, and those that it may take over.
    async fn open_logs(
        &self,
        location: &Location,
        table: &Arc<Table>,
    ) -> Result<Option<Arc<ObjectLogs>>, BoxError> {
        if self.config.storage.url.is_none() {
            return Ok(None);
        }
        let runtime = tokio::runtime::Handle::current();
        let options = ObjectLogOptions::new(self.owner.clone(), self.clock.clone(), runtime);
        let logs = ObjectLogs::open(location, options).await;
        match self.config.log.store {
            LogPlace::ObjectStore => {
                let path = &self.config.path;
                let left = tsdb::unflushed_local_logs(path, table).await?;
                if !left.is_empty() {
                    let (path, left) = (path.display(), left.join(", "));
                    return Err(format!("{path}: logs on this disk hold what is not in the table: {left}; start with log.store: local once more and stop in order").into());
                }
                Ok(Some(logs?))
            }
            // A folder that is a local store's holds no others.
            LogPlace::Local => match logs {
                Ok(logs) => Ok(Some(logs)),
                Err(error) if error.kind() == fault::Kind::Invalid => Ok(None),
                Err(error) => Err(error.into()),
            },
        }
    }

    fn options(
        &self,
        table: &Arc<Table>,
        logs: Option<&Arc<ObjectLogs>>,
    ) -> Result<StorageOptions, BoxError> {
        let config = &self.config;
        let runtime = tokio::runtime::Handle::current();
        let options = StorageOptions {
            out_of_order_window: out_of_order_window(&self.latest, config),
            lookback: config.lookback_delta.0,
            flush_interval: config.flush_interval.0,
            head_retention: config.head_retention.0,
            unflushed_bytes_max: config.unflushed_bytes_max,
            queue_bytes_max: config.queue_bytes_max,
            series_max: config.series_max,
            ..StorageOptions::new(&config.path, Arc::clone(table), self.clock.clone(), runtime)
        };
        match (config.log.store, logs) {
            (LogPlace::Local, _) => Ok(options),
            (LogPlace::ObjectStore, Some(logs)) => Ok(StorageOptions {
                logs: LogStore::Objects(Arc::clone(logs)),
                commit_delay: config.log.segment_interval(),
                commit_bytes: config.log.segment_bytes_max(),
                commits_in_flight_max: config.log.segments_in_flight_max(),
                birth_delay: BIRTH_DELAY,
                ..options
            }),
            (LogPlace::ObjectStore, None) => Err("log.store: object_store needs storage.url".into()),
        }
    }
}

/// Waits until the log has ended and another may take its place; returns the storage that has that log, where none is to
/// be opened.
async fn succeeded(place: LogPlace, storage: &Arc<Storage>) -> Option<Arc<Storage>> {
    let LogFailure { reason, is_full } = storage.failed().await;
    match place {
        LogPlace::ObjectStore => {
            tracing::warn!(reason, log = %storage.log(), "another log takes the place of one that has ended");
            None
        }
        LogPlace::Local if is_full => {
            tracing::error!(reason, log = %storage.log(), "nothing is stored until there is room on the disk");
            loop {
                match storage.successor().await {
                    Ok(successor) => return Some(successor),
                    Err(error) => tracing::debug!(%error, "the disk is still full"),
                }
                tokio::time::sleep(REOPEN_RETRY).await;
            }
        }
        // A disk that failed once is not trusted again before somebody looked at it.
        LogPlace::Local => std::future::pending().await,
    }
}

/// Tells the parts what `prometheus.yml` says, for as long as it is polled.
async fn follow(
    latest: &mut config_watch::Latest,
    config: &Config,
    receiver: &Receiver,
    storage: &Storage,
    maintenance: &Maintenance,
) {
    loop {
        let window = out_of_order_window(latest, config);
        storage.set_out_of_order_window(window);
        maintenance.set_out_of_order_window(window);
        let retention = config.retention().with(latest.borrow().as_deref());
        maintenance.set_retention(retention.time, retention.size);
        configure(receiver, latest);
        if latest.changed().await.is_err() {
            // Whoever follows the configuration has ended: the service stops.
            return std::future::pending().await;
        }
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
