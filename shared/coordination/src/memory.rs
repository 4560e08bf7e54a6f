//! The coordinator of a single process.
//!
//! One mutex over plain maps; nothing runs in the background. Leases end lazily: whoever looks at the store first
//! removes what has run out, and a waiting watch wakes at the next lease's end to do the same.
//!
//! Invariants:
//! - `history` holds the last changes without a gap, the newest at the back, at most [`HISTORY_EVENTS_MAX`];
//! - `revision` is that of the newest change, and `changed` is told whenever it grows;
//! - a key is in `leases[l].keys` exactly while its entry names lease `l`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::coordinator::{
    Change, Coordinator, Entry, Event, EventStream, Expect, Lease, Revision, Snapshot, Swap, check_key,
    check_ttl, check_value,
};
use crate::{Error, Result};

/// How many changes a watch may lie behind before it has to list again.
const HISTORY_EVENTS_MAX: usize = 16 * 1024;
/// How many keys there may be.
const ENTRIES_MAX: usize = 100_000;
/// How many leases there may be.
const LEASES_MAX: usize = 10_000;

/// A [`Coordinator`] in this process's memory, shared by its clones and gone with the last of them.
///
/// Time is tokio's, so a paused test clock moves leases.
#[derive(Debug, Clone)]
pub struct InMemory {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Mutex<Store>,
    changed: watch::Sender<Revision>,
}

#[derive(Debug, Default)]
struct Store {
    entries: BTreeMap<String, Entry>,
    leases: BTreeMap<Lease, LeaseState>,
    leases_granted: i64,
    revision: Revision,
    history: VecDeque<Event>,
}

#[derive(Debug)]
struct LeaseState {
    ttl: Duration,
    ends: Instant,
    keys: BTreeSet<String>,
}

/// What a watch finds when it looks.
enum Found {
    Event(Event),
    Nothing { next_end: Option<Instant> },
}

impl Default for InMemory {
    fn default() -> Self {
        Self::new()
    }
}

impl InMemory {
    /// Makes an empty store.
    #[must_use]
    pub fn new() -> Self {
        let shared = Shared { store: Mutex::default(), changed: watch::Sender::new(Revision(0)) };
        Self { shared: Arc::new(shared) }
    }

    /// Runs `act` on the store as it is now: ended leases removed before, watchers told after.
    fn with_store<T>(&self, act: impl FnOnce(&mut Store) -> T) -> T {
        let mut store = self.shared.store.lock();
        store.end_leases(Instant::now());
        let result = act(&mut store);
        self.shared.changed.send_if_modified(|told| {
            let is_news = *told != store.revision;
            *told = store.revision;
            is_news
        });
        result
    }
}

impl Store {
    fn record(&mut self, key: &str, change: Change) -> Revision {
        self.revision.0 += 1;
        if self.history.len() == HISTORY_EVENTS_MAX {
            self.history.pop_front();
        }
        self.history.push_back(Event { key: key.to_owned(), revision: self.revision, change });
        self.revision
    }

    fn end_leases(&mut self, now: Instant) {
        while let Some(lease) =
            self.leases.iter().find(|(_, state)| state.ends <= now).map(|(lease, _)| *lease)
        {
            self.end_lease(lease);
        }
    }

    fn end_lease(&mut self, lease: Lease) {
        let Some(state) = self.leases.remove(&lease) else { return };
        for key in state.keys {
            self.entries.remove(&key);
            self.record(&key, Change::Deleted);
        }
    }

    /// Takes the key away from the lease that keeps it, so that the lease's end no longer deletes it.
    fn detach(&mut self, key: &str) {
        let lease = self.entries.get(key).and_then(|entry| entry.lease);
        if let Some(state) = lease.and_then(|lease| self.leases.get_mut(&lease)) {
            state.keys.remove(key);
        }
    }

    fn conflict(&self, key: &str, expect: Expect) -> Option<Swap> {
        let found = self.entries.get(key);
        let is_met = match expect {
            Expect::Anything => true,
            Expect::Absent => found.is_none(),
            Expect::Unchanged(revision) => found.is_some_and(|entry| entry.revision == revision),
        };
        (!is_met).then(|| Swap::Conflict(found.cloned()))
    }

    fn next_after(&self, prefix: &str, cursor: Revision) -> Result<Found> {
        // The oldest change kept follows directly on the newest one dropped, one revision a change. A cursor ahead
        // of the store comes from an earlier life of it and would wait for what it then took for old.
        let dropped = self.revision.0 - self.history.len() as u64;
        if cursor.0 < dropped || cursor > self.revision {
            return Err(Error::Compacted { after: cursor });
        }
        let skip = usize::try_from(cursor.0 - dropped).expect("at most the history's length");
        match self.history.range(skip..).find(|event| event.key.starts_with(prefix)) {
            Some(event) => Ok(Found::Event(event.clone())),
            None => Ok(Found::Nothing { next_end: self.leases.values().map(|state| state.ends).min() }),
        }
    }
}

#[async_trait]
impl Coordinator for InMemory {
    async fn get(&self, key: &str) -> Result<Option<Entry>> {
        check_key(key)?;
        Ok(self.with_store(|store| store.entries.get(key).cloned()))
    }

    async fn list(&self, prefix: &str) -> Result<Snapshot> {
        Ok(self.with_store(|store| {
            let from = store.entries.range(prefix.to_owned()..);
            let entries =
                from.take_while(|(key, _)| key.starts_with(prefix)).map(|(_, e)| e.clone()).collect();
            Snapshot { entries, revision: store.revision }
        }))
    }

    async fn put(&self, key: &str, value: Bytes, expect: Expect, lease: Option<Lease>) -> Result<Swap> {
        check_key(key)?;
        check_value(key, &value)?;
        self.with_store(|store| {
            if let Some(conflict) = store.conflict(key, expect) {
                return Ok(conflict);
            }
            if !store.entries.contains_key(key) && store.entries.len() >= ENTRIES_MAX {
                return Err(Error::Full { what: "number of keys", limit: ENTRIES_MAX });
            }
            if let Some(lease) = lease
                && !store.leases.contains_key(&lease)
            {
                return Err(Error::LeaseGone { lease });
            }
            store.detach(key);
            if let Some(state) = lease.and_then(|lease| store.leases.get_mut(&lease)) {
                state.keys.insert(key.to_owned());
            }
            let revision = store.record(key, Change::Put { value: value.clone(), lease });
            store.entries.insert(key.to_owned(), Entry { key: key.to_owned(), value, revision, lease });
            Ok(Swap::Done(revision))
        })
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<Swap> {
        check_key(key)?;
        Ok(self.with_store(|store| {
            if let Some(conflict) = store.conflict(key, expect) {
                return conflict;
            }
            store.detach(key);
            if store.entries.remove(key).is_none() {
                return Swap::Done(store.revision);
            }
            Swap::Done(store.record(key, Change::Deleted))
        }))
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease> {
        let ttl = check_ttl(ttl)?;
        self.with_store(|store| {
            if store.leases.len() >= LEASES_MAX {
                return Err(Error::Full { what: "number of leases", limit: LEASES_MAX });
            }
            store.leases_granted += 1;
            let lease = Lease(store.leases_granted);
            store.leases.insert(lease, LeaseState { ttl, ends: Instant::now() + ttl, keys: BTreeSet::new() });
            Ok(lease)
        })
    }

    async fn keep_alive(&self, lease: Lease) -> Result<()> {
        self.with_store(|store| {
            let state = store.leases.get_mut(&lease).ok_or(Error::LeaseGone { lease })?;
            state.ends = Instant::now() + state.ttl;
            Ok(())
        })
    }

    async fn revoke(&self, lease: Lease) -> Result<()> {
        self.with_store(|store| store.end_lease(lease));
        Ok(())
    }

    fn watch(&self, prefix: &str, after: Revision) -> EventStream {
        let watcher = Watcher {
            store: self.clone(),
            prefix: prefix.to_owned(),
            cursor: after,
            changed: self.shared.changed.subscribe(),
            is_over: false,
        };
        stream::unfold(watcher, |mut watcher| async move { Some((watcher.next().await?, watcher)) }).boxed()
    }
}

/// A cursor into the history.
struct Watcher {
    store: InMemory,
    prefix: String,
    cursor: Revision,
    changed: watch::Receiver<Revision>,
    is_over: bool,
}

impl Watcher {
    async fn next(&mut self) -> Option<Result<Event>> {
        if self.is_over {
            return None;
        }
        loop {
            // Seen before the look, so that a change between the look and the wait still wakes.
            self.changed.borrow_and_update();
            let found = self.store.with_store(|store| {
                let found = store.next_after(&self.prefix, self.cursor);
                if let Ok(Found::Nothing { .. }) = found {
                    // Nothing of ours up to here: changes of other prefixes must not make this watch stale.
                    self.cursor = store.revision;
                }
                found
            });
            match found {
                Ok(Found::Event(event)) => {
                    self.cursor = event.revision;
                    return Some(Ok(event));
                }
                Ok(Found::Nothing { next_end }) => self.wait(next_end).await,
                Err(error) => {
                    self.is_over = true;
                    return Some(Err(error));
                }
            }
        }
    }

    async fn wait(&mut self, next_end: Option<Instant>) {
        let lease_end = async {
            match next_end {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The sender lives as long as `store`, so this cannot fail.
            _ = self.changed.changed() => {}
            () = lease_end => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn limits_refuse_what_is_above_them() {
        let store = InMemory::new();
        {
            let mut inner = store.shared.store.lock();
            for index in 0..ENTRIES_MAX {
                let key = format!("k{index}");
                let entry =
                    Entry { key: key.clone(), value: Bytes::new(), revision: Revision(1), lease: None };
                inner.entries.insert(key, entry);
            }
        }
        let full = store.put("one-more", Bytes::new(), Expect::Anything, None).await;
        assert_eq!(full, Err(Error::Full { what: "number of keys", limit: ENTRIES_MAX }));
        assert!(store.put("k0", Bytes::new(), Expect::Anything, None).await.is_ok(), "an old key may change");

        for _ in 0..LEASES_MAX {
            store.grant(Duration::from_secs(60)).await.expect("below the limit");
        }
        let full = store.grant(Duration::from_secs(60)).await;
        assert_eq!(full, Err(Error::Full { what: "number of leases", limit: LEASES_MAX }));
    }

    #[tokio::test]
    async fn a_watch_that_lies_too_far_behind_is_told_and_ends() {
        let store = InMemory::new();
        for index in 0..=HISTORY_EVENTS_MAX {
            let value = Bytes::from(index.to_string());
            store.put("key", value, Expect::Anything, None).await.expect("written");
        }
        let mut late = store.watch("", Revision(0));
        assert_eq!(late.next().await, Some(Err(Error::Compacted { after: Revision(0) })));
        assert_eq!(late.next().await, None);

        let mut in_time = store.watch("", Revision(1));
        let event = in_time.next().await.expect("open").expect("kept");
        assert_eq!(event.revision, Revision(2));

        let ahead = Revision(HISTORY_EVENTS_MAX as u64 + 100);
        let mut from_another_life = store.watch("", ahead);
        assert_eq!(from_another_life.next().await, Some(Err(Error::Compacted { after: ahead })));
    }
}
