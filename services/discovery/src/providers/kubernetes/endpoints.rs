//! `role: endpoints`.

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, Endpoints, ObjectReference, Pod};
use model::LabelsBuilder;
use tracing::warn;

use super::Snapshot;
use super::meta::{NAMESPACE, name, namespace, set_namespace, set_node, set_object, source};
use super::pod::PodsBehind;
use super::service::set_service_of;
use super::watched::ObjectName;
use crate::providers::join_host_port;
use crate::target_group::{ADDRESS, TargetGroup};

const NODE_NAME: &str = "__meta_kubernetes_endpoint_node_name";
const HOSTNAME: &str = "__meta_kubernetes_endpoint_hostname";
const READY: &str = "__meta_kubernetes_endpoint_ready";
const PORT_NAME: &str = "__meta_kubernetes_endpoint_port_name";
const PORT_PROTOCOL: &str = "__meta_kubernetes_endpoint_port_protocol";
const TARGET_KIND: &str = "__meta_kubernetes_endpoint_address_target_kind";
const TARGET_NAME: &str = "__meta_kubernetes_endpoint_address_target_name";
/// Says that the object does not hold all there is.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

/// One target for each address and port, and one for each other port of the pods behind them.
pub(super) fn group(endpoints: &Endpoints, snapshot: &Snapshot) -> TargetGroup {
    let meta = &endpoints.metadata;
    warn_of_capacity(endpoints);
    let mut labels = LabelsBuilder::default();
    labels.set(NAMESPACE, namespace(meta));
    set_service_of(&mut labels, namespace(meta), name(meta), snapshot);
    set_object(&mut labels, "endpoints", meta);
    set_namespace(&mut labels, namespace(meta), snapshot);
    let mut pods = PodsBehind::default();
    let mut targets = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        for port in subset.ports.iter().flatten() {
            let ready = subset.addresses.iter().flatten().map(|address| (address, "true"));
            let not_ready = subset.not_ready_addresses.iter().flatten().map(|address| (address, "false"));
            for (address, is_ready) in ready.chain(not_ready) {
                let mut target = target(address, port, is_ready);
                set_node(&mut target, node_of(address), snapshot);
                if let Some(pod) = pod_of(address.target_ref.as_ref(), snapshot) {
                    let protocol = port.protocol.as_deref().unwrap_or_default();
                    pods.describe(&mut target, pod, Some(port.port), Some(protocol), snapshot);
                }
                targets.push(target.build());
            }
        }
    }
    targets.extend(pods.other_targets(snapshot));
    TargetGroup { source: source("endpoints", meta), targets, labels: labels.build() }
}

fn target(address: &EndpointAddress, port: &EndpointPort, is_ready: &str) -> LabelsBuilder {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut target = LabelsBuilder::default();
    target.set(ADDRESS, join_host_port(&address.ip, &port.port.to_string()));
    target.set(PORT_NAME, text(&port.name));
    target.set(PORT_PROTOCOL, text(&port.protocol));
    target.set(READY, is_ready);
    if let Some(of) = &address.target_ref {
        target.set(TARGET_KIND, text(&of.kind));
        target.set(TARGET_NAME, text(&of.name));
    }
    target.set(NODE_NAME, text(&address.node_name));
    target.set(HOSTNAME, text(&address.hostname));
    target
}

/// The node that an address is on, or is.
fn node_of(address: &EndpointAddress) -> Option<&str> {
    let of = address.target_ref.as_ref().filter(|of| of.kind.as_deref() == Some("Node"));
    address.node_name.as_deref().or_else(|| of.and_then(|of| of.name.as_deref()))
}

/// The pod that an endpoint refers to.
pub(super) fn pod_of<'a>(of: Option<&ObjectReference>, snapshot: &'a Snapshot) -> Option<&'a Pod> {
    let of = of.filter(|of| of.kind.as_deref() == Some("Pod"))?;
    let (namespace, name) = (of.namespace.as_deref()?, of.name.as_deref()?);
    snapshot.pods.get(&ObjectName::new(namespace, name)).map(|pod| &**pod)
}

fn warn_of_capacity(endpoints: &Endpoints) {
    let capacity = endpoints.metadata.labels.as_ref().and_then(|labels| labels.get(OVER_CAPACITY));
    let endpoint = name(&endpoints.metadata);
    match capacity.map(String::as_str) {
        Some("truncated") => warn!(
            endpoint,
            "Number of endpoints in one Endpoints object exceeds 1000 and has been truncated, please use \"role: endpointslice\" instead"
        ),
        Some("warning") => warn!(
            endpoint,
            "Number of endpoints in one Endpoints object exceeds 1000, please use \"role: endpointslice\" instead"
        ),
        _ => {}
    }
}
