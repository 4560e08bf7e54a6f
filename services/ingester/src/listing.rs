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
    /// Taken over and all in the table: to be struck off, whoever had listed them.
    flushed: BTreeSet<Arc<str>>,
    /// Those that were, as long as they are answered for.
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
        let Listed { listed, flushed, struck } = &mut *list;
        let wanted: BTreeSet<Arc<str>> = storage.unflushed_logs().await.into_iter().collect();
        for log in &wanted - listed {
            match logs::list(&*self.coordinator, &log, &self.holder).await {
                Ok(()) => drop(listed.insert(log)),
                Err(error) => tracing::warn!(%error, %log, "log is not listed yet"),
            }
        }
        let answered: BTreeSet<Arc<str>> = storage.flushed_logs().await.into_iter().collect();
        struck.retain(|log| answered.contains(log));
        // One whose turn came while the coordinator was away stays until it is done, whatever has become of the log.
        flushed.extend(&answered - struck);
        for log in flushed.clone() {
            match logs::strike(&*self.coordinator, &log).await {
                Ok(()) => {
                    flushed.remove(&log);
                    struck.insert(log);
                }
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

#[cfg(test)]
mod tests {
    use coordination::{InMemory, Role};
    use model::{Clock, Labels, Tenant, Timestamp};
    use tokio::runtime::Handle;
    use tsdb::table::Table;
    use tsdb::{GroupAppend, GroupDeclaration, Location, MemberDeclaration, Presence, StorageOptions};

    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    async fn open(folder: &std::path::Path) -> Arc<Storage> {
        let clock = Clock::fixed(NOW);
        let table = Table::open_in(&Location::folder(folder), clock.clone()).await.expect("a table");
        let options = StorageOptions::new(folder, table, clock, Handle::current());
        Storage::open(options).await.expect("a storage")
    }

    async fn write(storage: &Storage, timestamp: Timestamp) {
        let labels = Labels::from_pairs([("__name__", "a")]);
        let group = storage.declare(GroupDeclaration {
            tenant: Tenant::default(),
            key: labels.clone(),
            sub_group: 0,
            epoch: 0,
            displaced: false,
            members: vec![MemberDeclaration { labels, metadata: Arc::default() }],
        });
        let append = GroupAppend {
            group: group.expect("declared"),
            timestamp,
            absent: Presence::All,
            values: vec![1.0],
            histograms: Vec::new(),
            start_timestamps: Vec::new(),
            exemplars: Vec::new(),
        };
        storage.append(vec![append], true).await.expect("stored");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_log_that_was_flushed_before_a_crash_does_not_stay_listed() {
        let folder = tempfile::tempdir().expect("a folder");
        let coordinator: Arc<dyn Coordinator> = Arc::new(InMemory::new());
        let environment = || Environment::alone(Role::Ingester, Clock::fixed(NOW), Arc::clone(&coordinator));
        let listed = async || {
            let entries = coordinator.list("logs/").await.expect("read").entries;
            entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>()
        };
        for (is_flushed, time) in [(true, NOW), (false, NOW.add_ms(1))] {
            let before = open(folder.path()).await;
            Listing::new(&environment()).settle(&before).await;
            write(&before, time).await;
            if is_flushed {
                before.flush().await.expect("flushed");
            }
            let log = format!("logs/{}", before.log());
            assert!(listed().await.contains(&log));
            drop(before);

            let after = open(folder.path()).await;
            Listing::new(&environment()).settle(&after).await;
            assert_eq!(listed().await.contains(&log), !is_flushed);
            assert!(listed().await.contains(&format!("logs/{}", after.log())));
        }
    }
}
