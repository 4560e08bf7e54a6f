//! Service discovery mechanisms, one module each. `static_configs` needs none: its groups are in the file.
//!
//! A follower is one task that keeps one provider up to date for all jobs that name it. It hands what it finds to its
//! [`Feed`], and keeps its last good state when it cannot look.

mod client;
mod dns;
mod file;
mod http;
mod kubernetes;

use std::sync::Arc;
use std::time::Duration;

use http_client::Roots;
use service_runtime::{BoxError, Tasks};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};

use crate::metrics::Metrics;
use crate::prometheus_config::Provider;
use crate::target_group::TargetGroup;

pub(crate) use self::kubernetes::Clusters;

/// The shortest time between two looks at the same thing.
const REFRESH_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// How many targets one file or server may list.
const TARGETS_MAX: usize = 1_000_000;

/// What a provider found.
pub(crate) struct Update {
    /// Whose it is.
    pub(crate) provider: Arc<Provider>,
    /// Which follower of the provider it comes from.
    pub(crate) generation: u64,
    /// All its groups; `None` when it could not look, for as long as it never could.
    pub(crate) groups: Option<Vec<TargetGroup>>,
}

/// What followers need from outside. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// Counts.
    pub(crate) metrics: Metrics,
    /// Starts what several followers share.
    pub(crate) tasks: Tasks,
    /// The machine's certificate authorities.
    pub(crate) roots: Roots,
    /// The clusters that are watched.
    pub(crate) clusters: Clusters,
}

/// Where a follower hands in what it finds. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Feed {
    provider: Arc<Provider>,
    generation: u64,
    last: Option<Vec<TargetGroup>>,
    updates: mpsc::Sender<Update>,
}

/// Nobody asks for the provider any more.
#[derive(Debug)]
pub(crate) struct Unwanted;

impl Feed {
    pub(crate) fn new(provider: Arc<Provider>, generation: u64, updates: mpsc::Sender<Update>) -> Self {
        Self { provider, generation, last: None, updates }
    }

    /// Hands in all groups there are; equal ones are not handed in twice.
    async fn offer(&mut self, groups: Vec<TargetGroup>) -> Result<(), Unwanted> {
        if self.last.as_ref() == Some(&groups) {
            return Ok(());
        }
        self.last = Some(groups.clone());
        self.send(Some(groups)).await
    }

    /// Tells that it could not be looked, so that nobody waits for a first result.
    async fn skip(&mut self) -> Result<(), Unwanted> {
        if self.last.is_some() { Ok(()) } else { self.send(None).await }
    }

    async fn send(&self, groups: Option<Vec<TargetGroup>>) -> Result<(), Unwanted> {
        let update = Update { provider: self.provider.clone(), generation: self.generation, groups };
        self.updates.send(update).await.map_err(|_| Unwanted)
    }
}

/// Follows the provider of a feed until nobody asks for it any more.
///
/// # Errors
/// When it cannot go on, and has to be started again.
pub(crate) async fn follow(feed: Feed, context: Context) -> Result<(), BoxError> {
    let provider = feed.provider.clone();
    let mut spare = feed.clone();
    let followed = match &*provider {
        Provider::Files(files) => Ok(file::follow(files, feed, &context.metrics).await),
        Provider::Http(http) => http::follow(http, feed, &context).await,
        Provider::Dns(dns) => Ok(dns::follow(dns, feed, &context.metrics).await),
        Provider::Kubernetes(kubernetes) => kubernetes::follow(kubernetes, feed, &context).await,
    };
    let error = match followed {
        Ok(Ok(never)) => match never {},
        Ok(Err(Unwanted)) => return Ok(()),
        Err(error) => error,
    };
    // Nobody is to wait for a provider that cannot even begin.
    match spare.skip().await {
        Ok(()) => Err(error),
        Err(Unwanted) => Ok(()),
    }
}

/// Ticks at once and then at the interval of a provider.
fn refreshes(interval: Duration) -> Interval {
    let mut ticks = tokio::time::interval(interval.max(REFRESH_INTERVAL_MIN));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Host and port as Go joins them: what has a colon stands in brackets.
fn join_host_port(host: &str, port: &str) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
