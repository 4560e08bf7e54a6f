//! The kinds of store that the table is tested on. The integration tests include this file as well.

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use test_kit::S3Server;

/// A kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    Folder,
    S3,
}

/// A store of one test, empty at first.
#[derive(Debug)]
pub(crate) struct TestStore {
    store: Arc<dyn ObjectStore>,
    _folder: Option<tempfile::TempDir>,
}

impl Deref for TestStore {
    type Target = Arc<dyn ObjectStore>;

    fn deref(&self) -> &Self::Target {
        &self.store
    }
}

impl Kind {
    /// Makes a store. Each has a client of its own: connections do not outlive a test's runtime.
    pub(crate) fn store(self) -> TestStore {
        let (store, folder): (Arc<dyn ObjectStore>, _) = match self {
            Self::Memory => (Arc::new(InMemory::new()), None),
            Self::Folder => {
                let folder = tempfile::tempdir().expect("a folder");
                let store = LocalFileSystem::new_with_prefix(folder.path()).expect("a store");
                (Arc::new(store.with_fsync(true)), Some(folder))
            }
            Self::S3 => (Arc::new(s3_store(&s3_server().endpoint(), &s3_prefix())), None),
        };
        TestStore { store, _folder: folder }
    }
}

/// The bucket of the process's own server.
pub(crate) const BUCKET: &str = "tests";

/// One server for all tests of the process.
pub(crate) fn s3_server() -> &'static S3Server {
    static SERVER: OnceLock<S3Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let server = S3Server::start();
        server.create_bucket(BUCKET);
        server
    })
}

/// A prefix that no other test has.
pub(crate) fn s3_prefix() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A client of the server at an endpoint, which sees what lies below the prefix.
pub(crate) fn s3_store(endpoint: &str, prefix: &str) -> impl ObjectStore + use<> {
    drop(rustls::crypto::ring::default_provider().install_default());
    let builder = AmazonS3Builder::new()
        .with_bucket_name(BUCKET)
        .with_endpoint(endpoint)
        .with_region("us-east-1")
        .with_access_key_id(S3Server::ACCESS_KEY_ID)
        .with_secret_access_key(S3Server::SECRET_ACCESS_KEY)
        .with_allow_http(true);
    PrefixStore::new(builder.build().expect("a client"), prefix)
}

/// Runs a test's future to its end.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

/// Makes tests of async functions that take a [`Kind`]: for each kind of store a module named after it.
macro_rules! on_every_store {
    ($($test:ident),+ $(,)?) => {
        on_every_store!(mod memory, Memory: $($test),+);
        on_every_store!(mod folder, Folder: $($test),+);
        on_every_store!(mod s3, S3: $($test),+);
    };
    (mod $module:ident, $kind:ident: $($test:ident),+) => {
        mod $module {
            $(
                #[test]
                fn $test() {
                    crate::testing::run(super::$test(crate::testing::Kind::$kind));
                }
            )+
        }
    };
}
pub(crate) use on_every_store;
