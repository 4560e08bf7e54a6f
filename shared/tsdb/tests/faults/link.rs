//! The store of the simulation, and the ways to it: each life of a process has a link, over which requests and answers
//! are lost, delayed and refused, and which is cut when the process dies.
//!
//! The store watches what is removed from it: nothing goes in a hurry.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use model::{Clock, Timestamp};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::support::MINUTE;

/// How long what is replaced stays at least.
pub(crate) const STAYS_MS: i64 = 60 * MINUTE;

/// Deterministic randomness: the numbers of a seed.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Self(seed ^ 0x9e37_79b9_7f4a_7c15);
        random.below(2);
        random
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        if of.is_empty() { None } else { of.get(usize::try_from(self.below(of.len() as u64)).unwrap_or(0)) }
    }
}

/// What a put is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Segment,
    Commit,
    File,
    Other,
}

impl Kind {
    fn of(path: &Path) -> Self {
        let path = path.as_ref();
        if path.starts_with("wal/") {
            Self::Segment
        } else if path.contains("/_delta_log/") {
            if path.ends_with(".json") { Self::Commit } else { Self::Other }
        } else {
            Self::File
        }
    }
}

/// The store.
#[derive(Debug)]
pub(crate) struct Sea {
    inner: InMemory,
    clock: Clock,
    written: Mutex<BTreeMap<Path, i64>>,
    /// When each log was flushed through where.
    flushed: Mutex<Vec<(String, u64, i64)>>,
    /// When files were replaced.
    removed: Mutex<BTreeMap<String, i64>>,
    /// What was removed too early.
    hurries: Mutex<Vec<String>>,
}

impl Sea {
    pub(crate) fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            inner: InMemory::new(),
            clock,
            written: Mutex::default(),
            flushed: Mutex::default(),
            removed: Mutex::default(),
            hurries: Mutex::default(),
        })
    }

    pub(crate) fn hurries(&self) -> Vec<String> {
        self.hurries.lock().clone()
    }

    async fn put(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let done = self.inner.put_opts(path, payload.clone(), options).await?;
        let now = self.clock.now().millis();
        self.written.lock().insert(path.clone(), now);
        if Kind::of(path) == Kind::Commit {
            let text: Vec<u8> = payload.iter().flat_map(|part| part.to_vec()).collect();
            for line in String::from_utf8_lossy(&text).lines() {
                let line: Value = serde_json::from_str(line).expect("a commit is JSON");
                if let (Some(log), Some(through)) =
                    (line["txn"]["appId"].as_str(), line["txn"]["version"].as_u64())
                {
                    self.flushed.lock().push((log.to_owned(), through, now));
                }
                if let Some(path) = line["remove"]["path"].as_str() {
                    self.removed.lock().insert(path.to_owned(), now);
                }
            }
        }
        Ok(done)
    }

    /// Notes what goes too early.
    fn watch(&self, path: &Path) {
        let now = self.clock.now().millis();
        let parts: Vec<String> = path.parts().map(|part| part.as_ref().to_owned()).collect();
        let early = match parts.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            // The birth record and the seal of a log stand for all of it.
            ["wal", log, seq] => seq.parse::<u64>().is_ok_and(|seq| {
                let flushed = self.flushed.lock();
                let mut covering = flushed.iter().filter(|(l, through, _)| l == log && *through >= seq);
                seq > 0 && covering.next().is_some_and(|(.., since)| now - since < STAYS_MS)
            }),
            ["metrics", rest @ ..] if Kind::of(path) == Kind::File => {
                let named = rest.join("/");
                match self.removed.lock().iter().find(|(removed, _)| decode(removed) == decode(&named)) {
                    Some((_, since)) => now - since < STAYS_MS,
                    None => self.written.lock().get(path).is_some_and(|since| now - since < 24 * STAYS_MS),
                }
            }
            _ => false,
        };
        if early {
            self.hurries.lock().push(format!("{path} was removed too early"));
        }
    }

    /// A time of the simulation's in place of the machine's.
    fn dated(&self, mut meta: ObjectMeta) -> ObjectMeta {
        let written = self.written.lock().get(&meta.location).copied().unwrap_or_default();
        let since = std::time::Duration::from_millis(u64::try_from(written).expect("after 1970"));
        meta.last_modified = (std::time::UNIX_EPOCH + since).into();
        meta
    }
}

/// Paths as text, whatever is escaped in them.
fn decode(path: &str) -> String {
    path.replace("%25", "%").replace("%3D", "=")
}

/// One process's way to the store.
#[derive(Debug)]
pub(crate) struct Link {
    sea: Arc<Sea>,
    random: Mutex<Random>,
    /// Faults among a hundred puts, of each of three sorts.
    percent: AtomicUsize,
    is_cut: AtomicBool,
    /// What is to be held back, and how often.
    to_hold: Mutex<Vec<(Kind, usize)>>,
    held: AtomicUsize,
    gate: Semaphore,
}

impl Link {
    pub(crate) fn new(sea: &Arc<Sea>, seed: u64, percent: usize) -> Arc<Self> {
        Arc::new(Self {
            sea: Arc::clone(sea),
            random: Mutex::new(Random::new(seed)),
            percent: AtomicUsize::new(percent),
            is_cut: AtomicBool::new(false),
            to_hold: Mutex::default(),
            held: AtomicUsize::new(0),
            gate: Semaphore::new(0),
        })
    }

    /// Holds back the next puts of a kind.
    pub(crate) fn hold(&self, kind: Kind, count: usize) {
        self.to_hold.lock().push((kind, count));
    }

    /// How many puts are held back.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Lets go what is held back, and holds back nothing more.
    pub(crate) fn release(&self) {
        self.to_hold.lock().clear();
        self.gate.add_permits(self.held());
    }

    /// The process is dead. What is held back may still arrive when it is released.
    pub(crate) fn cut(&self) {
        self.to_hold.lock().clear();
        self.is_cut.store(true, Ordering::Relaxed);
    }

    /// Nothing goes wrong any more.
    pub(crate) fn heal(&self) {
        self.percent.store(0, Ordering::Relaxed);
    }

    fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Relaxed)
    }

    fn check(&self) -> Result<()> {
        if self.is_cut() { Err(lost()) } else { Ok(()) }
    }

    fn takes_hold(&self, kind: Kind) -> bool {
        let mut to_hold = self.to_hold.lock();
        let Some(at) = to_hold.iter().position(|(k, _)| *k == kind) else { return false };
        to_hold[at].1 -= 1;
        if to_hold[at].1 == 0 {
            to_hold.remove(at);
        }
        true
    }

    fn below(&self, bound: u64) -> u64 {
        self.random.lock().below(bound)
    }
}

fn lost() -> object_store::Error {
    object_store::Error::Generic { store: "simulated", source: "connection reset".into() }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a simulated store")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Link {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.check()?;
        if self.takes_hold(Kind::of(path)) {
            self.held.fetch_add(1, Ordering::Relaxed);
            self.gate.acquire().await.expect("open").forget();
            self.held.fetch_sub(1, Ordering::Relaxed);
            if self.is_cut() {
                if self.below(2) == 0 {
                    drop(self.sea.put(path, payload, options).await);
                }
                return Err(lost());
            }
        }
        let percent = self.percent.load(Ordering::Relaxed) as u64;
        match self.below(100).checked_div(percent).unwrap_or(u64::MAX) {
            0 => Err(lost()),
            1 => {
                drop(self.sea.put(path, payload, options).await);
                Err(lost())
            }
            2 if matches!(options.mode, PutMode::Create) => {
                let source = "409 ConditionalRequestConflict".into();
                Err(object_store::Error::AlreadyExists { path: path.to_string(), source })
            }
            _ => self.sea.put(path, payload, options).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.check()?;
        self.sea.written.lock().insert(path.clone(), self.sea.clock.now().millis());
        self.sea.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.check()?;
        let mut got = self.sea.inner.get_opts(path, options).await?;
        got.meta = self.sea.dated(got.meta);
        Ok(got)
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        if self.is_cut() {
            return futures::stream::iter([Err(lost())]).boxed();
        }
        let sea = Arc::clone(&self.sea);
        let deleted = paths.then(move |path| {
            let sea = Arc::clone(&sea);
            async move {
                let path = path?;
                sea.watch(&path);
                sea.inner.delete(&path).await?;
                Ok(path)
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if self.is_cut() {
            return futures::stream::iter([Err(lost())]).boxed();
        }
        let sea = Arc::clone(&self.sea);
        self.sea.inner.list(prefix).map_ok(move |meta| sea.dated(meta)).boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        if self.is_cut() {
            return futures::stream::iter([Err(lost())]).boxed();
        }
        let sea = Arc::clone(&self.sea);
        self.sea.inner.list_with_offset(prefix, offset).map_ok(move |meta| sea.dated(meta)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.check()?;
        let mut listed = self.sea.inner.list_with_delimiter(prefix).await?;
        listed.objects = listed.objects.into_iter().map(|meta| self.sea.dated(meta)).collect();
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.check()?;
        self.sea.inner.copy_opts(from, to, options).await
    }
}

/// The clock's time, for models.
pub(crate) fn now(clock: &Clock) -> i64 {
    let Timestamp(now) = clock.now();
    now
}
