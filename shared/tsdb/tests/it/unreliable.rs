//! A store that fails as object stores do, at random from a seed, and counts what it was asked.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// Deterministic randomness: the numbers of a seed.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What was asked so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Requests {
    pub(crate) puts: u64,
    pub(crate) gets: u64,
    pub(crate) lists: u64,
}

/// What becomes of a put.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Good,
    /// It arrives and the answer is lost.
    AnswerLost,
    /// It does not arrive.
    Lost,
    /// The caller is told of a failure, and it arrives later.
    Late,
    /// A conditional put is refused though nothing stands there.
    Refused,
}

#[derive(Debug, Default)]
struct Counters {
    puts: AtomicU64,
    gets: AtomicU64,
    lists: AtomicU64,
    faults: AtomicU64,
}

/// The store.
#[derive(Debug)]
pub(crate) struct Unreliable {
    inner: Arc<dyn ObjectStore>,
    random: Mutex<Random>,
    /// Faults among a hundred requests; puts fail in each of four ways that often.
    percent: u64,
    counters: Counters,
}

impl Unreliable {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, seed: u64, percent: u64) -> Self {
        Self { inner, random: Mutex::new(Random(seed)), percent, counters: Counters::default() }
    }

    /// A store that never fails and counts.
    pub(crate) fn counting(inner: Arc<dyn ObjectStore>) -> Self {
        Self::new(inner, 0, 0)
    }

    /// The same store without faults.
    pub(crate) fn inner(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.inner)
    }

    pub(crate) fn requests(&self) -> Requests {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { puts, gets, lists, .. } = &self.counters;
        Requests { puts: count(puts), gets: count(gets), lists: count(lists) }
    }

    pub(crate) fn faults(&self) -> u64 {
        self.counters.faults.load(Ordering::Relaxed)
    }

    fn below(&self, bound: u64) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).below(bound)
    }

    fn fate(&self, is_conditional: bool) -> Fate {
        let fate = match self.below(100) / self.percent.max(1) {
            _ if self.percent == 0 => Fate::Good,
            0 => Fate::AnswerLost,
            1 => Fate::Lost,
            2 => Fate::Late,
            3 if is_conditional => Fate::Refused,
            _ => Fate::Good,
        };
        if !matches!(fate, Fate::Good) {
            self.counters.faults.fetch_add(1, Ordering::Relaxed);
        }
        fate
    }

    /// Some requests take longer; reads fail from time to time.
    async fn read(&self) -> Result<()> {
        if self.percent > 0 {
            self.dawdle().await;
            if self.below(100) < self.percent / 2 {
                self.counters.faults.fetch_add(1, Ordering::Relaxed);
                return Err(failure());
            }
        }
        Ok(())
    }

    async fn dawdle(&self) {
        if self.percent > 0 && self.below(4) == 0 {
            tokio::time::sleep(Duration::from_millis(self.below(20))).await;
        }
    }
}

fn failure() -> object_store::Error {
    object_store::Error::Generic { store: "unreliable", source: "503 Service Unavailable".into() }
}

impl fmt::Display for Unreliable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unreliable {}", self.inner)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Unreliable {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.counters.puts.fetch_add(1, Ordering::Relaxed);
        self.dawdle().await;
        let is_conditional = matches!(options.mode, object_store::PutMode::Create);
        match self.fate(is_conditional) {
            Fate::Good => self.inner.put_opts(path, payload, options).await,
            Fate::AnswerLost => {
                // Whether it was the first there or not, nobody hears of it.
                drop(self.inner.put_opts(path, payload, options).await);
                Err(failure())
            }
            Fate::Lost => Err(failure()),
            Fate::Late => {
                let (inner, path) = (Arc::clone(&self.inner), path.clone());
                let delay = Duration::from_millis(self.below(200));
                tokio::runtime::Handle::current().spawn(async move {
                    tokio::time::sleep(delay).await;
                    drop(inner.put_opts(&path, payload, options).await);
                });
                Err(failure())
            }
            Fate::Refused => {
                let source = "409 ConditionalRequestConflict".into();
                Err(object_store::Error::AlreadyExists { path: path.to_string(), source })
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.counters.gets.fetch_add(1, Ordering::Relaxed);
        self.read().await?;
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.counters.lists.fetch_add(1, Ordering::Relaxed);
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.counters.lists.fetch_add(1, Ordering::Relaxed);
        if self.percent > 0 && self.below(100) < self.percent / 2 {
            self.counters.faults.fetch_add(1, Ordering::Relaxed);
            return futures::stream::iter([Err(failure())]).boxed();
        }
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.counters.lists.fetch_add(1, Ordering::Relaxed);
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
