//! `kubernetes_sd_configs`: targets out of the objects of a Kubernetes cluster.
//!
//! ```text
//! API server -list, watch-> watched::Watched (one per cluster, resource, namespace, selector; shared)
//!                                  |
//!                               Snapshot -> pod | node | service | endpoints | endpoint_slice | ingress -> TargetGroups
//! ```
//!
//! The roles are pure functions over a [`Snapshot`], so that what Prometheus makes of each object is pinned down by
//! tables. A change makes all groups of a provider anew: what a target is called may depend on objects of four kinds.
//!
//! Invariants:
//! - equal watches are one, whatever the number of jobs and providers that need them; it ends with the last of these;
//! - objects that cannot be watched any more stay as they were last seen.

mod cluster;
mod endpoint_slice;
mod endpoints;
mod ingress;
mod meta;
mod node;
mod pod;
mod service;
mod watched;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::future::select_all;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use service_runtime::BoxError;

use self::cluster::Connection;
use self::watched::{ObjectName, Phase, Progress, Watched};
use super::{Context, Feed, Unwanted};
use crate::prometheus_config::{AttachMetadata, KubernetesProvider, Role, Selector};
use crate::target_group::TargetGroup;

pub(crate) use self::cluster::Clusters;

/// How long changes are gathered before groups are made of them.
const GATHER: Duration = Duration::from_millis(200);

/// Objects of one kind by their names.
type Objects<K> = BTreeMap<ObjectName, Arc<K>>;

/// The objects that a provider looks at in one namespace, as they are at one moment. What its role does not need is
/// not watched and empty.
#[derive(Debug, Default)]
struct Snapshot {
    pods: Objects<Pod>,
    services: Objects<Service>,
    endpoints: Objects<Endpoints>,
    endpoint_slices: Objects<EndpointSlice>,
    ingresses: Objects<Ingress>,
    nodes: Objects<Node>,
    namespaces: Objects<Namespace>,
    replica_sets: Objects<ReplicaSet>,
    jobs: Objects<Job>,
    attach: AttachMetadata,
    /// Pods count only on the nodes that are known.
    has_node_selector: bool,
}

/// The watches of a provider in one namespace.
struct Watches {
    pods: Option<Arc<Watched<Pod>>>,
    services: Option<Arc<Watched<Service>>>,
    endpoints: Option<Arc<Watched<Endpoints>>>,
    endpoint_slices: Option<Arc<Watched<EndpointSlice>>>,
    ingresses: Option<Arc<Watched<Ingress>>>,
    nodes: Option<Arc<Watched<Node>>>,
    namespaces: Option<Arc<Watched<Namespace>>>,
    replica_sets: Option<Arc<Watched<ReplicaSet>>>,
    jobs: Option<Arc<Watched<Job>>>,
    progress: Vec<Progress>,
    attach: AttachMetadata,
    has_node_selector: bool,
}

/// Follows the objects, for good.
///
/// # Errors
/// When the cluster's settings cannot be used.
pub(super) async fn follow(
    provider: &KubernetesProvider,
    mut feed: Feed,
    context: &Context,
) -> Result<Result<Infallible, Unwanted>, BoxError> {
    let connection = context.clusters.connect(&provider.cluster, context).await?;
    let namespaces = namespaces(provider, &connection);
    let mut watches: Vec<Watches> =
        namespaces.iter().map(|namespace| Watches::start(provider, &connection, namespace)).collect();
    loop {
        let phases: Vec<Phase> = watches.iter_mut().map(Watches::phase).collect();
        let offered = if phases.contains(&Phase::Starting) {
            Ok(())
        } else if phases.contains(&Phase::Synced) {
            let role = provider.role;
            let synced = watches.iter().zip(&phases).filter(|(_, phase)| **phase == Phase::Synced);
            let snapshots: Vec<Snapshot> = synced.map(|(watches, _)| watches.snapshot()).collect();
            let made =
                tokio::task::spawn_blocking(move || snapshots.iter().flat_map(|s| groups(role, s)).collect());
            feed.offer(made.await?).await
        } else {
            feed.skip().await
        };
        if let Err(unwanted) = offered {
            return Ok(Err(unwanted));
        }
        let changes = watches.iter_mut().flat_map(|watches| &mut watches.progress);
        select_all(changes.map(|progress| Box::pin(progress.changed()))).await;
        tokio::time::sleep(GATHER).await;
    }
}

/// Where to look; the empty name is all namespaces.
fn namespaces(provider: &KubernetesProvider, connection: &Connection) -> Vec<String> {
    let own = provider.own_namespace.then(|| connection.own_namespace().to_owned());
    let mut namespaces: Vec<String> = provider.namespaces.iter().cloned().chain(own).collect();
    namespaces.sort();
    namespaces.dedup();
    if namespaces.is_empty() || provider.role == Role::Node { vec![String::new()] } else { namespaces }
}

impl Watches {
    fn start(provider: &KubernetesProvider, connection: &Connection, namespace: &str) -> Self {
        let (role, attach) = (provider.role, provider.attach);
        let none = Selector::default();
        let selector = |role| provider.selectors.get(&role).unwrap_or(&none);
        let is_of_endpoints = matches!(role, Role::Endpoints | Role::EndpointSlice);
        let has_pods = is_of_endpoints || role == Role::Pod;
        let has_node_selector = role == Role::Pod && provider.selectors.contains_key(&Role::Node);
        let has_nodes = role == Role::Node || has_pods && (attach.node || has_node_selector);
        let mut watches = Self {
            pods: has_pods.then(|| connection.pods.watch(namespace, selector(Role::Pod))),
            services: (is_of_endpoints || role == Role::Service)
                .then(|| connection.services.watch(namespace, selector(Role::Service))),
            endpoints: (role == Role::Endpoints)
                .then(|| connection.endpoints.watch(namespace, selector(Role::Endpoints))),
            endpoint_slices: (role == Role::EndpointSlice)
                .then(|| connection.endpoint_slices.watch(namespace, selector(Role::EndpointSlice))),
            ingresses: (role == Role::Ingress)
                .then(|| connection.ingresses.watch(namespace, selector(Role::Ingress))),
            nodes: has_nodes.then(|| connection.nodes.watch("", selector(Role::Node))),
            namespaces: (attach.namespace && role != Role::Node)
                .then(|| connection.namespaces.watch("", &none)),
            replica_sets: (attach.deployment && has_pods)
                .then(|| connection.replica_sets.watch(namespace, &none)),
            jobs: (attach.cronjob && has_pods).then(|| connection.jobs.watch(namespace, &none)),
            progress: Vec::new(),
            attach,
            has_node_selector,
        };
        watches.progress = watches.all_progress();
        watches
    }

    fn all_progress(&self) -> Vec<Progress> {
        fn of<K>(watched: Option<&Arc<Watched<K>>>) -> Option<Progress> {
            watched.map(|watched| watched.progress())
        }
        let all = [
            of(self.pods.as_ref()),
            of(self.services.as_ref()),
            of(self.endpoints.as_ref()),
            of(self.endpoint_slices.as_ref()),
            of(self.ingresses.as_ref()),
            of(self.nodes.as_ref()),
            of(self.namespaces.as_ref()),
            of(self.replica_sets.as_ref()),
            of(self.jobs.as_ref()),
        ];
        all.into_iter().flatten().collect()
    }

    /// How far the slowest watch is; marks what there is as seen.
    fn phase(&mut self) -> Phase {
        let phases: Vec<Phase> = self.progress.iter_mut().map(Progress::seen_phase).collect();
        if phases.contains(&Phase::Failing) {
            Phase::Failing
        } else if phases.contains(&Phase::Starting) {
            Phase::Starting
        } else {
            Phase::Synced
        }
    }

    fn snapshot(&self) -> Snapshot {
        fn of<K>(watched: Option<&Arc<Watched<K>>>) -> Objects<K> {
            watched.map(|watched| watched.objects()).unwrap_or_default()
        }
        Snapshot {
            pods: of(self.pods.as_ref()),
            services: of(self.services.as_ref()),
            endpoints: of(self.endpoints.as_ref()),
            endpoint_slices: of(self.endpoint_slices.as_ref()),
            ingresses: of(self.ingresses.as_ref()),
            nodes: of(self.nodes.as_ref()),
            namespaces: of(self.namespaces.as_ref()),
            replica_sets: of(self.replica_sets.as_ref()),
            jobs: of(self.jobs.as_ref()),
            attach: self.attach,
            has_node_selector: self.has_node_selector,
        }
    }
}

/// The groups of a role, one for each of its objects.
fn groups(role: Role, snapshot: &Snapshot) -> Vec<TargetGroup> {
    match role {
        Role::Pod => snapshot.pods.values().map(|pod| pod::group(pod, snapshot)).collect(),
        Role::Service => {
            snapshot.services.values().map(|service| service::group(service, snapshot)).collect()
        }
        Role::Endpoints => {
            snapshot.endpoints.values().map(|endpoints| endpoints::group(endpoints, snapshot)).collect()
        }
        Role::EndpointSlice => {
            snapshot.endpoint_slices.values().map(|slice| endpoint_slice::group(slice, snapshot)).collect()
        }
        Role::Node => snapshot.nodes.values().map(|node| node::group(node)).collect(),
        Role::Ingress => {
            snapshot.ingresses.values().map(|ingress| ingress::group(ingress, snapshot)).collect()
        }
    }
}

#[cfg(test)]
mod tests;
