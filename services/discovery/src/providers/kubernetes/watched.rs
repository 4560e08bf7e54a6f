//! Objects of one kind that are kept up to date by one watch.
//!
//! `kube`'s watcher does the talking: it lists in pages, watches from there with bookmarks, goes on after a broken
//! stream where it was, lists anew after a 410, and waits longer after each failure. Kept here is what it saw.
//!
//! Invariants: a list replaces all objects at once or none; objects hold what labels are made of and nothing else; of
//! one kind at most [`OBJECTS_MAX`] are kept.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Weak};

use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, Endpoints, Namespace, Node, NodeSpec, NodeStatus, Pod, PodSpec, PodStatus,
    Service,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use kube::core::{ClusterResourceScope, NamespaceResourceScope};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use service_runtime::{Backoff, BoxError, Task, Tasks};
use tokio::sync::watch;
use tracing::warn;

use super::Objects;
use crate::metrics::{KubernetesEventLabels, Metrics};
use crate::prometheus_config::Selector;

/// How many objects of one watch are kept.
const OBJECTS_MAX: usize = 1_000_000;

/// What an object is known by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ObjectName {
    namespace: String,
    name: String,
}

impl ObjectName {
    /// The namespace is empty for what is in none.
    pub(super) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    fn of(object: &impl Resource) -> Self {
        let meta = object.meta();
        Self::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// A kind of objects that is watched.
pub(super) trait Watchable:
    Resource<DynamicType = ()> + Clone + fmt::Debug + DeserializeOwned + Send + Sync + 'static
{
    /// What the kind is called in metrics.
    const ROLE: &'static str;

    /// Where the objects of a namespace are; the empty one is all of them.
    fn api(client: Client, namespace: &str) -> Api<Self>;

    /// Drops what no label is made of.
    fn prune(&mut self);
}

/// How far a watch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing is known yet.
    Starting,
    /// Nothing is known yet, and a request failed.
    Failing,
    /// The objects are known.
    Synced,
}

/// Tells of the changes of a watch.
#[derive(Debug, Clone)]
pub(super) struct Progress(watch::Receiver<Phase>);

impl Progress {
    /// How far the watch is; what it saw until now is no change any more.
    pub(super) fn seen_phase(&mut self) -> Phase {
        *self.0.borrow_and_update()
    }

    /// Resolves at the next change. May be dropped at any time.
    pub(super) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // The watch lives as long as whoever asks for its progress.
            std::future::pending::<()>().await;
        }
    }
}

/// Objects of one kind, kept up to date for as long as this lives.
#[derive(Debug)]
pub(super) struct Watched<K> {
    store: Arc<Store<K>>,
    task: Task,
}

impl<K> Watched<K> {
    pub(super) fn progress(&self) -> Progress {
        Progress(self.store.phase.subscribe())
    }

    /// The objects as they are now.
    pub(super) fn objects(&self) -> Objects<K> {
        self.store.objects.read().clone()
    }
}

impl<K> Drop for Watched<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What one watch is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Question {
    namespace: String,
    selector: Selector,
}

/// All watches of one kind in one cluster.
pub(super) struct Kind<K> {
    client: Client,
    tasks: Tasks,
    metrics: Metrics,
    watches: Mutex<HashMap<Question, Weak<Watched<K>>>>,
}

impl<K: Watchable> Kind<K> {
    pub(super) fn new(client: Client, tasks: Tasks, metrics: Metrics) -> Self {
        Self { client, tasks, metrics, watches: Mutex::default() }
    }

    /// The watch that answers a question: the one there is, or a new one.
    pub(super) fn watch(&self, namespace: &str, selector: &Selector) -> Arc<Watched<K>> {
        let question = Question { namespace: namespace.to_owned(), selector: selector.clone() };
        let mut watches = self.watches.lock();
        watches.retain(|_, watched| watched.strong_count() > 0);
        if let Some(watched) = watches.get(&question).and_then(Weak::upgrade) {
            return watched;
        }
        let store = Arc::new(Store::new(self.metrics.clone()));
        let (kept, client, asked) = (store.clone(), self.client.clone(), question.clone());
        let task = self.tasks.spawn_restarting("watch kubernetes objects", Backoff::default(), move || {
            keep(K::api(client.clone(), &asked.namespace), asked.selector.clone(), kept.clone())
        });
        let watched = Arc::new(Watched { store, task });
        watches.insert(question, Arc::downgrade(&watched));
        watched
    }
}

/// Keeps the objects of a watch up to date, for good.
async fn keep<K: Watchable>(api: Api<K>, selector: Selector, store: Arc<Store<K>>) -> Result<(), BoxError> {
    let text = |text: String| Some(text).filter(|text| !text.is_empty());
    let question = watcher::Config {
        label_selector: text(selector.label),
        field_selector: text(selector.field),
        ..watcher::Config::default()
    };
    let events = watcher(api, question).default_backoff();
    pin_mut!(events);
    let mut listed = BTreeMap::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(mut object)) => {
                if listed.len() >= OBJECTS_MAX {
                    return Err(format!("more than {OBJECTS_MAX} objects of kind {}", K::kind(&())).into());
                }
                object.prune();
                listed.insert(ObjectName::of(&object), Arc::new(object));
            }
            Ok(Event::InitDone) => store.replace(std::mem::take(&mut listed)),
            Ok(Event::Apply(mut object)) => {
                object.prune();
                store.apply(object)?;
            }
            Ok(Event::Delete(object)) => store.delete(&ObjectName::of(&object)),
            Err(error) => {
                warn!(%error, kind = %K::kind(&()), "watch of kubernetes objects failed, it is tried again");
                store.fail();
            }
        }
    }
    Err("the watch ended".into())
}

/// What a watch saw.
#[derive(Debug)]
struct Store<K> {
    objects: RwLock<Objects<K>>,
    phase: watch::Sender<Phase>,
    metrics: Metrics,
}

impl<K: Watchable> Store<K> {
    fn new(metrics: Metrics) -> Self {
        Self { objects: RwLock::default(), phase: watch::Sender::new(Phase::Starting), metrics }
    }

    fn replace(&self, listed: Objects<K>) {
        let before = std::mem::replace(&mut *self.objects.write(), listed);
        let after = self.objects.read();
        let kept = before.keys().filter(|name| after.contains_key(*name)).count();
        self.count("add", after.len() - kept);
        self.count("update", kept);
        self.count("delete", before.len() - kept);
        drop(after);
        self.phase.send_replace(Phase::Synced);
    }

    fn apply(&self, object: K) -> Result<(), BoxError> {
        let mut objects = self.objects.write();
        let name = ObjectName::of(&object);
        let is_new = !objects.contains_key(&name);
        if is_new && objects.len() >= OBJECTS_MAX {
            return Err(format!("more than {OBJECTS_MAX} objects of kind {}", K::kind(&())).into());
        }
        objects.insert(name, Arc::new(object));
        drop(objects);
        self.count(if is_new { "add" } else { "update" }, 1);
        self.phase.send_replace(Phase::Synced);
        Ok(())
    }

    fn delete(&self, name: &ObjectName) {
        self.objects.write().remove(name);
        self.count("delete", 1);
        self.phase.send_replace(Phase::Synced);
    }

    fn fail(&self) {
        self.metrics.kubernetes_failures.inc();
        self.phase.send_if_modified(|phase| {
            let is_news = *phase == Phase::Starting;
            if is_news {
                *phase = Phase::Failing;
            }
            is_news
        });
    }

    fn count(&self, event: &'static str, times: usize) {
        let labels = KubernetesEventLabels { role: K::ROLE, event };
        self.metrics.kubernetes_events.get_or_create(&labels).inc_by(times as u64);
    }
}

fn namespaced<K: Watchable + Resource<Scope = NamespaceResourceScope>>(
    client: Client,
    namespace: &str,
) -> Api<K> {
    if namespace.is_empty() { Api::all(client) } else { Api::namespaced(client, namespace) }
}

fn cluster_wide<K: Watchable + Resource<Scope = ClusterResourceScope>>(client: Client) -> Api<K> {
    Api::all(client)
}

impl Watchable for Pod {
    const ROLE: &'static str = "pod";

    fn api(client: Client, namespace: &str) -> Api<Self> {
        namespaced(client, namespace)
    }

    fn prune(&mut self) {
        let container = |container: Container| Container {
            name: container.name,
            image: container.image,
            ports: container.ports,
            ..Container::default()
        };
        let status = |status: ContainerStatus| ContainerStatus {
            name: status.name,
            container_id: status.container_id,
            ..ContainerStatus::default()
        };
        self.metadata.managed_fields = None;
        self.spec = self.spec.take().map(|spec| PodSpec {
            containers: spec.containers.into_iter().map(container).collect(),
            init_containers: spec.init_containers.map(|all| all.into_iter().map(container).collect()),
            node_name: spec.node_name,
            ..PodSpec::default()
        });
        self.status = self.status.take().map(|all| PodStatus {
            conditions: all.conditions,
            container_statuses: all.container_statuses.map(|all| all.into_iter().map(status).collect()),
            host_ip: all.host_ip,
            init_container_statuses: all
                .init_container_statuses
                .map(|all| all.into_iter().map(status).collect()),
            phase: all.phase,
            pod_ip: all.pod_ip,
            pod_ips: all.pod_ips,
            ..PodStatus::default()
        });
    }
}

impl Watchable for Node {
    const ROLE: &'static str = "node";

    fn api(client: Client, _: &str) -> Api<Self> {
        cluster_wide(client)
    }

    fn prune(&mut self) {
        self.metadata.managed_fields = None;
        self.spec =
            self.spec.take().map(|spec| NodeSpec { provider_id: spec.provider_id, ..NodeSpec::default() });
        self.status = self.status.take().map(|status| NodeStatus {
            addresses: status.addresses,
            daemon_endpoints: status.daemon_endpoints,
            ..NodeStatus::default()
        });
    }
}

impl Watchable for Namespace {
    const ROLE: &'static str = "namespace";

    fn api(client: Client, _: &str) -> Api<Self> {
        cluster_wide(client)
    }

    fn prune(&mut self) {
        self.metadata.managed_fields = None;
    }
}

impl Watchable for ReplicaSet {
    const ROLE: &'static str = "replicaset";

    fn api(client: Client, namespace: &str) -> Api<Self> {
        namespaced(client, namespace)
    }

    fn prune(&mut self) {
        self.metadata.managed_fields = None;
        self.metadata.annotations = None;
        self.spec = ReplicaSetSpec::default();
        self.status = None;
    }
}

impl Watchable for Job {
    const ROLE: &'static str = "job";

    fn api(client: Client, namespace: &str) -> Api<Self> {
        namespaced(client, namespace)
    }

    fn prune(&mut self) {
        self.metadata.managed_fields = None;
        self.metadata.annotations = None;
        self.spec = None;
        self.status = None;
    }
}

/// Kinds of which all but the bookkeeping makes labels.
macro_rules! watchable {
    ($($kind:ty: $role:literal,)+) => {
        $(impl Watchable for $kind {
            const ROLE: &'static str = $role;

            fn api(client: Client, namespace: &str) -> Api<Self> {
                namespaced(client, namespace)
            }

            fn prune(&mut self) {
                self.metadata.managed_fields = None;
            }
        })+
    };
}

watchable! {
    Service: "service",
    Endpoints: "endpoints",
    EndpointSlice: "endpointslice",
    Ingress: "ingress",
}
