//! What was read of files, decoded and kept in memory up to a number of bytes; all queries of a process share it.
//!
//! Files never change, so that what was read under a path stays true for as long as the file is live. Answers of
//! queries are never kept.
//!
//! # Invariants
//!
//! - What is kept takes no more bytes than the limit, by its own account of itself; what is in use by a query lives on
//!   when it is dropped from here.
//! - One read at a time for each key: who comes later waits for it. A read that fails or is given up leaves nothing
//!   behind, and the next in line reads for himself.
//! - Whoever waits holds no read of his own under way, so that no two can wait for each other.

use std::collections::VecDeque;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use super::block::Block;
use super::footer::{BlockId, Footer, PageId};
use super::lists::{Forms, ListPage, TimelinePage};
use crate::table::Result;

/// What an entry takes beside its value: its place in the maps, its lock, its counters.
const ENTRY_BYTES: usize = 256;

/// A value that knows what it takes in memory.
pub(crate) trait Weighed {
    /// Bytes, those on the heap included.
    fn bytes(&self) -> usize;
}

/// What the cache did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Reads that were answered from memory.
    pub hits: u64,
    /// Reads that went to the store.
    pub misses: u64,
    /// Entries that made room for others.
    pub evictions: u64,
    /// Bytes held.
    pub bytes: u64,
}

/// Keeps what was read of files.
#[derive(Debug)]
pub(crate) struct Cache {
    files: Mutex<HashMap<String, Arc<FileCache>>>,
    room: Arc<Room>,
}

/// What is kept of one file.
#[derive(Debug)]
pub(crate) struct FileCache {
    pub(crate) footer: Arc<Shelf<(), Footer>>,
    pub(crate) blocks: Arc<Shelf<BlockId, Block>>,
    pub(crate) forms: Arc<Shelf<BlockId, Forms>>,
    pub(crate) timelines: Arc<Shelf<PageId, TimelinePage>>,
    pub(crate) lists: Arc<Shelf<PageId, ListPage>>,
}

impl Cache {
    /// Makes a cache that holds so many bytes; with 0 nothing outlives the queries that use it.
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        let room = Arc::new(Room { bytes_max, ..Room::default() });
        Arc::new(Self { files: Mutex::default(), room })
    }

    /// What is kept of a file.
    pub(crate) fn file(&self, path: &str) -> Arc<FileCache> {
        let mut files = self.files.lock();
        if let Some(file) = files.get(path) {
            return Arc::clone(file);
        }
        let file = Arc::new(FileCache {
            footer: Shelf::new(&self.room),
            blocks: Shelf::new(&self.room),
            forms: Shelf::new(&self.room),
            timelines: Shelf::new(&self.room),
            lists: Shelf::new(&self.room),
        });
        files.insert(path.to_owned(), Arc::clone(&file));
        file
    }

    /// Drops what is kept of the files that the predicate does not name.
    pub(crate) fn retain(&self, is_live: impl Fn(&str) -> bool) {
        let gone: Vec<Arc<FileCache>> =
            self.files.lock().extract_if(|path, _| !is_live(path)).map(|(_, file)| file).collect();
        if gone.is_empty() {
            return;
        }
        for file in gone {
            file.footer.clear();
            file.blocks.clear();
            file.forms.clear();
            file.timelines.clear();
            file.lists.clear();
        }
        self.room.queue.lock().retain(|entry| entry.is_counted());
    }

    pub(crate) fn stats(&self) -> CacheStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheStats {
            hits: count(&self.room.hits),
            misses: count(&self.room.misses),
            evictions: count(&self.room.evictions),
            bytes: self.room.bytes.load(Ordering::Relaxed) as u64,
        }
    }
}

/// The bytes that all shelves share, and who has to go when they run out: the one that came first of those that were
/// not asked for since they were last passed over.
#[derive(Debug, Default)]
struct Room {
    bytes_max: usize,
    bytes: AtomicUsize,
    queue: Mutex<VecDeque<Arc<dyn Entry>>>,
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
}

impl Room {
    fn add(&self, entry: Arc<dyn Entry>, bytes: usize) {
        entry.count(bytes);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.queue.lock().push_back(entry);
    }

    /// Forgets what there is no room for.
    fn shrink(&self) {
        let mut leaving = Vec::new();
        {
            let mut queue = self.queue.lock();
            while self.bytes.load(Ordering::Relaxed) > self.bytes_max {
                let Some(entry) = queue.pop_front() else { break };
                if entry.take_used() {
                    queue.push_back(entry);
                    continue;
                }
                self.uncount(&*entry);
                leaving.push(entry);
            }
        }
        self.evictions.fetch_add(leaving.len() as u64, Ordering::Relaxed);
        leaving.iter().for_each(|entry| entry.leave());
    }

    fn uncount(&self, entry: &dyn Entry) {
        self.bytes.fetch_sub(entry.uncount(), Ordering::Relaxed);
    }
}

/// An entry of any shelf, as the room sees it.
trait Entry: std::fmt::Debug + Send + Sync {
    fn count(&self, bytes: usize);
    /// Returns what was counted, and counts it no more.
    fn uncount(&self) -> usize;
    fn is_counted(&self) -> bool;
    /// Says whether it was asked for since the last call.
    fn take_used(&self) -> bool;
    /// Leaves its shelf.
    fn leave(&self);
}

/// The entries of one kind of one file.
#[derive(Debug)]
pub(crate) struct Shelf<K, V> {
    slots: Mutex<HashMap<K, Arc<Slot<K, V>>>>,
    room: Arc<Room>,
}

/// The place of one entry, which may still be on its way.
struct Slot<K, V> {
    key: K,
    shelf: Weak<Shelf<K, V>>,
    value: OnceLock<Arc<V>>,
    /// Held by whoever reads it.
    reading: Arc<tokio::sync::Mutex<()>>,
    bytes: AtomicUsize,
    is_used: AtomicBool,
}

impl<K: std::fmt::Debug, V> std::fmt::Debug for Slot<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("key", &self.key).finish_non_exhaustive()
    }
}

impl<K, V> Entry for Slot<K, V>
where
    K: Copy + Eq + Hash + std::fmt::Debug + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn count(&self, bytes: usize) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    fn uncount(&self) -> usize {
        self.bytes.swap(0, Ordering::Relaxed)
    }

    fn is_counted(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > 0
    }

    fn take_used(&self) -> bool {
        self.is_used.swap(false, Ordering::Relaxed)
    }

    fn leave(&self) {
        let Some(shelf) = self.shelf.upgrade() else { return };
        let mut slots = shelf.slots.lock();
        if slots.get(&self.key).is_some_and(|slot| std::ptr::eq(&**slot, self)) {
            slots.remove(&self.key);
        }
    }
}

/// The right to read one entry; given up with nothing read, it leaves nothing.
struct Claim<K: Copy + Eq + Hash + std::fmt::Debug + Send + Sync + 'static, V: Send + Sync + 'static> {
    slot: Arc<Slot<K, V>>,
    _guard: OwnedMutexGuard<()>,
}

impl<K, V> Drop for Claim<K, V>
where
    K: Copy + Eq + Hash + std::fmt::Debug + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn drop(&mut self) {
        if self.slot.value.get().is_none() {
            self.slot.leave();
        }
    }
}

/// What looking for a key finds.
enum Found<K: Copy + Eq + Hash + std::fmt::Debug + Send + Sync + 'static, V: Send + Sync + 'static> {
    Value(Arc<V>),
    Free(Claim<K, V>),
    Reading(Arc<Slot<K, V>>),
}

impl<K, V> Shelf<K, V>
where
    K: Copy + Eq + Hash + std::fmt::Debug + Send + Sync + 'static,
    V: Weighed + Send + Sync + 'static,
{
    fn new(room: &Arc<Room>) -> Arc<Self> {
        Arc::new(Self { slots: Mutex::default(), room: Arc::clone(room) })
    }

    /// Returns the values of these keys, in their order; `read` is asked, once, for all that nobody has or reads.
    ///
    /// It has to return one value for each key it is given.
    ///
    /// # Errors
    /// What `read` says, which is not remembered.
    pub(crate) async fn get<F>(
        self: &Arc<Self>,
        keys: &[K],
        read: impl Fn(Vec<K>) -> F,
    ) -> Result<Vec<Arc<V>>>
    where
        F: Future<Output = Result<Vec<V>>>,
    {
        let mut values: Vec<Option<Arc<V>>> = vec![None; keys.len()];
        let mut missing: Vec<usize> = (0..keys.len()).collect();
        let mut hits = 0;
        while !missing.is_empty() {
            let (mut claims, mut others) = (Vec::new(), Vec::new());
            for i in missing.drain(..) {
                match self.find(keys[i]) {
                    Found::Value(value) => {
                        values[i] = Some(value);
                        hits += 1;
                    }
                    Found::Free(claim) => claims.push((i, claim)),
                    Found::Reading(slot) => others.push((i, slot)),
                }
            }
            if !claims.is_empty() {
                self.room.misses.fetch_add(claims.len() as u64, Ordering::Relaxed);
                let read = read(claims.iter().map(|(_, c)| c.slot.key).collect()).await?;
                for ((i, claim), value) in claims.into_iter().zip(read) {
                    let value = Arc::new(value);
                    self.publish(&claim.slot, &value);
                    values[i] = Some(value);
                }
                self.room.shrink();
            }
            for (i, slot) in others {
                drop(slot.reading.lock().await);
                match slot.value.get() {
                    Some(value) => {
                        values[i] = Some(Arc::clone(value));
                        hits += 1;
                    }
                    None => missing.push(i),
                }
            }
        }
        self.room.hits.fetch_add(hits, Ordering::Relaxed);
        Ok(values.into_iter().flatten().collect())
    }

    fn find(self: &Arc<Self>, key: K) -> Found<K, V> {
        let slot = {
            let mut slots = self.slots.lock();
            let slot = slots.entry(key).or_insert_with(|| {
                Arc::new(Slot {
                    key,
                    shelf: Arc::downgrade(self),
                    value: OnceLock::new(),
                    reading: Arc::default(),
                    bytes: AtomicUsize::new(0),
                    is_used: AtomicBool::new(false),
                })
            });
            if let Some(value) = slot.value.get() {
                slot.is_used.store(true, Ordering::Relaxed);
                return Found::Value(Arc::clone(value));
            }
            Arc::clone(slot)
        };
        match Arc::clone(&slot.reading).try_lock_owned() {
            // Between the look and the lock somebody may have finished.
            Ok(guard) => match slot.value.get() {
                Some(value) => Found::Value(Arc::clone(value)),
                None => Found::Free(Claim { slot, _guard: guard }),
            },
            Err(_) => Found::Reading(slot),
        }
    }

    fn publish(&self, slot: &Arc<Slot<K, V>>, value: &Arc<V>) {
        // Nobody else has the claim.
        drop(slot.value.set(Arc::clone(value)));
        let slots = self.slots.lock();
        // The file may have gone meanwhile; then nobody finds the entry any more, and it is not counted.
        if slots.get(&slot.key).is_some_and(|s| Arc::ptr_eq(s, slot)) {
            let entry: Arc<dyn Entry> = Arc::<Slot<K, V>>::clone(slot);
            self.room.add(entry, value.bytes() + ENTRY_BYTES);
        }
    }

    fn clear(&self) {
        let slots = std::mem::take(&mut *self.slots.lock());
        slots.values().for_each(|slot| self.room.uncount(&**slot));
    }
}

#[cfg(test)]
mod tests;
