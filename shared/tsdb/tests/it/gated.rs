//! A store in which a test decides the fate of single puts, by the end of their path.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::Semaphore;

/// What becomes of a put.
#[derive(Debug, Clone)]
pub(crate) enum Fate {
    /// It arrives and the answer is lost.
    AnswerLost,
    /// It does not arrive.
    Lost,
    /// It is refused as S3 refuses a put that met another one under way, and nothing stands there.
    Conflict,
    /// It waits at a gate.
    Held(Gate),
}

/// Where a put waits.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Arc<(Semaphore, Semaphore)>);

impl Gate {
    pub(crate) fn new() -> Self {
        Self(Arc::new((Semaphore::new(0), Semaphore::new(0))))
    }

    /// Waits until the put has come.
    pub(crate) async fn reached(&self) {
        self.0.0.acquire().await.expect("open").forget();
    }

    pub(crate) fn open(&self) {
        self.0.1.add_permits(1);
    }

    async fn pass(&self) {
        self.0.0.add_permits(1);
        self.0.1.acquire().await.expect("open").forget();
    }
}

/// The store.
#[derive(Debug)]
pub(crate) struct Gated {
    inner: Arc<dyn ObjectStore>,
    plans: Mutex<Vec<(String, Fate)>>,
    is_full: AtomicBool,
}

impl Gated {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self { inner, plans: Mutex::default(), is_full: AtomicBool::new(false) })
    }

    /// While it is full every put is refused.
    pub(crate) fn set_full(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::Relaxed);
    }

    /// Decides the fate of the next put whose path ends so.
    pub(crate) fn plan(&self, end: impl Into<String>, fate: Fate) {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner).push((end.into(), fate));
    }

    /// Whether everything planned has come to pass.
    pub(crate) fn is_done(&self) -> bool {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn fate(&self, path: &Path) -> Option<Fate> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let at = plans.iter().position(|(end, _)| path.as_ref().ends_with(end))?;
        Some(plans.remove(at).1)
    }
}

impl fmt::Display for Gated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gated {}", self.inner)
    }
}

fn lost() -> object_store::Error {
    object_store::Error::Generic { store: "gated", source: "connection reset".into() }
}

#[async_trait::async_trait]
impl ObjectStore for Gated {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if self.is_full.load(Ordering::Relaxed) {
            let source = "507 Insufficient Storage".into();
            return Err(object_store::Error::Generic { store: "gated", source });
        }
        match self.fate(path) {
            None => {}
            Some(Fate::AnswerLost) => {
                self.inner.put_opts(path, payload, options).await?;
                return Err(lost());
            }
            Some(Fate::Lost) => return Err(lost()),
            Some(Fate::Conflict) => {
                let source = "409 ConditionalRequestConflict".into();
                return Err(object_store::Error::AlreadyExists { path: path.to_string(), source });
            }
            Some(Fate::Held(gate)) => gate.pass().await,
        }
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
