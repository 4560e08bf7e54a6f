//! Keeps the list of logs true: which logs this ingester answers for that hold what is not in the table yet.
//!
//! Invariants:
//! - a log is listed before it acknowledges anything, and struck off only once all of it is in the table;
//! - a coordinator that is away delays the list, never the writes and reads: readers ask every member of the ingesters,
//!   listed or not.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use coordination::Coordinator;
use coordination::logs::{self, Holder};
use service_runtime::Environment;
use tokio::sync::Mutex;
use tsdb::Storage;

/// How long the list may hold up the start and the end.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Time between two looks at which logs there are.
const INTERVAL: Duration = Duration::from_secs(1);

/// What this ingester has listed. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Listing {
    coordinator: Arc<dyn Coordinator>,
    holder: Holder,
    listed: Arc<Mutex<Listed>>,
}

#[derive(Debug, Default)]
struct Listed {
    listed: BTreeSet<Arc<str>>,
    /// Taken over, all in the table, and struck off whoever had listed them.
    struck: BTreeSet<Arc<str>>,
}

impl Listing {
    pub(crate) fn new(environment: &Environment) -> Self {
        let holder =
            Holder { ingester: environment.member_name.clone(), address: environment.address.clone() };
        Self { coordinator: environment.coordinator.clone(), holder, listed: Arc::default() }
    }

    /// Lists the logs that there are now and strikes off those that are in the table, but waits no longer than
    /// [`TIMEOUT`]. Called before anything is acknowledged and behind the last flush.
    pub(crate) async fn settle(&self, storage: &Storage) {
        if tokio::time::timeout(TIMEOUT, self.update(storage)).await.is_err() {
            tracing::warn!("the list of logs is not up to date: no answer from the coordinator");
        }
    }

    /// Follows the logs of the storage; never returns. May be dropped at any time.
    pub(crate) async fn keep(self, storage: Arc<Storage>) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            self.update(&storage).await;
        }
    }

    /// Lists and strikes off.
    async fn update(&self, storage: &Storage) {
        let mut list = self.listed.lock().await;
        let Listed { listed, struck } = &mut *list;
        let wanted: BTreeSet<Arc<str>> = storage.unflushed_logs().await.into_iter().collect();
        for log in &wanted - listed {
            match logs::list(&*self.coordinator, &log, &self.holder).await {
                Ok(()) => drop(listed.insert(log)),
                Err(error) => tracing::warn!(%error, %log, "log is not listed yet"),
            }
        }
        let drained: BTreeSet<Arc<str>> = storage.drained_logs().into_iter().collect();
        struck.retain(|log| drained.contains(log));
        for log in &drained - struck {
            match logs::strike(&*self.coordinator, &log).await {
                Ok(()) => drop(struck.insert(log)),
                Err(error) => tracing::warn!(%error, %log, "log is listed for longer than it should be"),
            }
        }
        for log in &*listed - &wanted {
            match logs::strike(&*self.coordinator, &log).await {
                Ok(()) => drop(listed.remove(&log)),
                Err(error) => tracing::warn!(%error, %log, "log is listed for longer than it should be"),
            }
        }
    }
}
