//! Follows discovery: takes its deltas as long as it is there, and keeps what it said last while it is away.

use std::future::Future;
use std::time::Duration;

use rpc::pb::discovery as pb;
use rpc::pb::discovery::discovery_client::DiscoveryClient;
use service_runtime::BoxError;
use tracing::{info, warn};

use crate::grpc::Parts;
use crate::metrics::Metrics;
use crate::targets::Targets;

/// Shortest and longest wait before discovery is asked again.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often loops that have ended are let go while discovery says nothing.
const REAP_INTERVAL: Duration = Duration::from_secs(30);

/// Follows discovery for ever.
pub(crate) struct Follower {
    pub(crate) channel: rpc::Channel,
    /// This scraper's name among the members.
    pub(crate) name: String,
    pub(crate) targets: Targets,
    pub(crate) metrics: Metrics,
    /// The highest revision applied.
    pub(crate) revision: u64,
}

impl Follower {
    pub(crate) async fn run(mut self) -> Result<(), BoxError> {
        let mut wait = RETRY_MIN;
        let mut is_told = false;
        loop {
            let before = self.metrics.updates.get();
            let outcome = self.follow().await;
            self.metrics.is_following.set(0);
            if self.metrics.updates.get() != before {
                (wait, is_told) = (RETRY_MIN, false);
            }
            let is_first = !std::mem::replace(&mut is_told, true);
            match outcome {
                Ok(()) if is_first => info!("discovery ended its stream; targets stay as they are"),
                Err(error) if is_first => {
                    warn!(%error, "discovery cannot be followed; targets stay as they are");
                }
                _ => {}
            }
            reaping(&mut self.targets, tokio::time::sleep(wait)).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    /// Follows one stream to its end.
    async fn follow(&mut self) -> Result<(), BoxError> {
        let scraper = self.name.clone();
        let mut client =
            DiscoveryClient::new(self.channel.clone()).max_decoding_message_size(rpc::MESSAGE_BYTES_MAX);
        let request = pb::WatchTargetsRequest { scraper: scraper.clone(), revision: self.revision };
        // The stream stays open for as long as both sides live, so the call has no deadline.
        let mut stream = client.watch_targets(request).await?.into_inner();
        info!(scraper, "following discovery");
        self.metrics.is_following.set(1);
        let mut parts = Parts::default();
        loop {
            let message = reaping(&mut self.targets, stream.message()).await?;
            let Some(message) = message else { return Ok(()) };
            if let Some(update) = parts.add(message)? {
                self.revision = update.revision;
                self.metrics.updates.inc();
                self.targets.apply(update);
            }
        }
    }
}

/// Waits for something and lets go of ended loops meanwhile.
async fn reaping<T>(targets: &mut Targets, awaited: impl Future<Output = T>) -> T {
    tokio::pin!(awaited);
    loop {
        tokio::select! {
            done = &mut awaited => return done,
            () = tokio::time::sleep(REAP_INTERVAL) => targets.reap(),
        }
    }
}
