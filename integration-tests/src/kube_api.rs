//! A Kubernetes API server that keeps objects of a test: what clients of discovery need of one, over real HTTP.
//!
//! It lists (all at once or in pages of one state, with `limit` and `continue`), watches (chunked, from a
//! `resourceVersion`, with bookmarks), selects by labels and fields, asks for a bearer token, and can be made to fail:
//! watches break in the middle, and old versions are forgotten (410 Gone).
//!
//! Invariants: each change has a greater version; a watch tells of each change after its version once, in order.

mod select;
mod serve;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use self::select::Selection;

/// A kind of objects that is served.
struct Resource {
    group_version: &'static str,
    plural: &'static str,
    kind: &'static str,
    is_namespaced: bool,
}

const fn resource(
    group_version: &'static str,
    plural: &'static str,
    kind: &'static str,
    is_namespaced: bool,
) -> Resource {
    Resource { group_version, plural, kind, is_namespaced }
}

const RESOURCES: [Resource; 9] = [
    resource("v1", "pods", "Pod", true),
    resource("v1", "services", "Service", true),
    resource("v1", "endpoints", "Endpoints", true),
    resource("v1", "nodes", "Node", false),
    resource("v1", "namespaces", "Namespace", false),
    resource("discovery.k8s.io/v1", "endpointslices", "EndpointSlice", true),
    resource("networking.k8s.io/v1", "ingresses", "Ingress", true),
    resource("apps/v1", "replicasets", "ReplicaSet", true),
    resource("batch/v1", "jobs", "Job", true),
];

/// Resource, namespace, name.
type Key = (String, String, String);

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct KubeApi {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    token: String,
    version: u64,
    objects: BTreeMap<Key, Value>,
    changes: Vec<Change>,
    /// Watches from before this version are told that it is gone.
    oldest_version: u64,
    /// The rests of lists that are read in pages, by their `continue`.
    pages: BTreeMap<String, Page>,
    /// How often all watches were broken.
    breaks: u64,
    watches: BTreeMap<u64, String>,
    next_id: u64,
    requests: Vec<String>,
}

#[derive(Debug, Clone)]
struct Change {
    version: u64,
    resource: String,
    before: Option<Value>,
    after: Option<Value>,
}

#[derive(Debug)]
struct Page {
    version: u64,
    rest: Vec<Value>,
}

impl KubeApi {
    /// Starts a server without objects, for those who know the token.
    ///
    /// # Panics
    /// When no port is to be had.
    #[must_use]
    pub fn start(token: &str) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket that does not block");
        let address = listener.local_addr().expect("a bound address");
        let state = State { token: token.to_owned(), version: 100, ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: watch::Sender::new(()) });
        let (stop, stopped) = oneshot::channel();
        let serving = thread::spawn({
            let shared = shared.clone();
            move || serve::run(listener, shared, stopped)
        });
        Self { address, shared, stop: Some(stop), serving: Some(serving) }
    }

    /// `http://host:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds an object or replaces it.
    ///
    /// # Panics
    /// When it has no name.
    pub fn put(&self, resource: &str, mut object: Value) {
        let key = key(resource, &object);
        let mut state = self.shared.lock();
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        let before = state.objects.insert(key, object.clone());
        state.note(resource, before, Some(object));
        drop(state);
        self.shared.changed.send_replace(());
    }

    /// Takes an object away.
    ///
    /// # Panics
    /// When it is not there.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) {
        let key = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        let mut state = self.shared.lock();
        state.version += 1;
        let before = state.objects.remove(&key);
        assert!(before.is_some(), "{key:?} is there");
        state.note(resource, before, None);
        drop(state);
        self.shared.changed.send_replace(());
    }

    /// The objects of a kind.
    #[must_use]
    pub fn objects(&self, resource: &str) -> Vec<Value> {
        let state = self.shared.lock();
        state
            .objects
            .iter()
            .filter(|((of, ..), _)| of == resource)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Forgets all changes until now: 410 Gone for whoever watches from an older version, now and later.
    pub fn forget_changes(&self) {
        let mut state = self.shared.lock();
        state.version += 1;
        state.oldest_version = state.version;
        state.changes.clear();
        state.pages.clear();
        drop(state);
        self.shared.changed.send_replace(());
    }

    /// Breaks the connections of all watches in the middle of a chunk.
    pub fn break_watches(&self) {
        self.shared.lock().breaks += 1;
        self.shared.changed.send_replace(());
    }

    /// Takes another token from now on, or none when it is empty; watches that are open go on.
    pub fn set_token(&self, token: &str) {
        token.clone_into(&mut self.shared.lock().token);
    }

    /// What is watched: paths and selectors, sorted.
    #[must_use]
    pub fn watches(&self) -> Vec<String> {
        let mut watches: Vec<String> = self.shared.lock().watches.values().cloned().collect();
        watches.sort();
        watches
    }

    /// All requests until now that had the right token, as paths and queries.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.shared.lock().requests.clone()
    }
}

impl Drop for KubeApi {
    fn drop(&mut self) {
        self.stop = None;
        drop(self.serving.take().map(JoinHandle::join));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, resource: &str, before: Option<Value>, after: Option<Value>) {
        let change = Change { version: self.version, resource: resource.to_owned(), before, after };
        self.changes.push(change);
    }

    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// The objects that a selection takes, as they are now.
    fn selected(&self, selection: &Selection) -> Vec<Value> {
        let of_kind = self.objects.iter().filter(|((of, ..), _)| *of == selection.resource);
        of_kind.map(|(_, object)| object).filter(|object| selection.takes(object)).cloned().collect()
    }
}

fn key(resource: &str, object: &Value) -> Key {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    let name = text("name");
    assert!(!name.is_empty(), "an object has a name: {object}");
    (resource.to_owned(), text("namespace"), name)
}
