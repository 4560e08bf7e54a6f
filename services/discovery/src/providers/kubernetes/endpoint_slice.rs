//! `role: endpointslice`.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use model::{Labels, LabelsBuilder};

use super::Snapshot;
use super::endpoints::pod_of;
use super::meta::{NAMESPACE, namespace, sanitized, set_namespace, set_node, set_object, source};
use super::pod::PodsBehind;
use super::service::set_service_of;
use super::watched::ObjectName;
use crate::providers::join_host_port;
use crate::target_group::{ADDRESS, TargetGroup};

const ADDRESS_TYPE: &str = "__meta_kubernetes_endpointslice_address_type";
const PORT_NAME: &str = "__meta_kubernetes_endpointslice_port_name";
const PORT_PROTOCOL: &str = "__meta_kubernetes_endpointslice_port_protocol";
const PORT: &str = "__meta_kubernetes_endpointslice_port";
const APP_PROTOCOL: &str = "__meta_kubernetes_endpointslice_port_app_protocol";
const READY: &str = "__meta_kubernetes_endpointslice_endpoint_conditions_ready";
const SERVING: &str = "__meta_kubernetes_endpointslice_endpoint_conditions_serving";
const TERMINATING: &str = "__meta_kubernetes_endpointslice_endpoint_conditions_terminating";
const ZONE: &str = "__meta_kubernetes_endpointslice_endpoint_zone";
const HOSTNAME: &str = "__meta_kubernetes_endpointslice_endpoint_hostname";
const NODE_NAME: &str = "__meta_kubernetes_endpointslice_endpoint_node_name";
const TARGET_KIND: &str = "__meta_kubernetes_endpointslice_address_target_kind";
const TARGET_NAME: &str = "__meta_kubernetes_endpointslice_address_target_name";
const TOPOLOGY_PREFIX: &str = "__meta_kubernetes_endpointslice_endpoint_topology_";
const TOPOLOGY_PRESENT_PREFIX: &str = "__meta_kubernetes_endpointslice_endpoint_topology_present_";
/// The label of a slice that names its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// One target for each address and port, and one for each other port of the pods behind them.
pub(super) fn group(slice: &EndpointSlice, snapshot: &Snapshot) -> TargetGroup {
    let meta = &slice.metadata;
    let source = source("endpointslice", meta);
    let service = meta.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
    let key = service.map(|service| ObjectName::new(namespace(meta), service));
    if key.and_then(|key| snapshot.services.get(&key)).is_some_and(|service| is_second_family(slice, service))
    {
        return TargetGroup { source, targets: Vec::new(), labels: Labels::empty() };
    }
    let mut labels = LabelsBuilder::default();
    labels.set(NAMESPACE, namespace(meta));
    labels.set(ADDRESS_TYPE, slice.address_type.as_str());
    set_object(&mut labels, "endpointslice", meta);
    if let Some(service) = service {
        set_service_of(&mut labels, namespace(meta), service, snapshot);
    }
    set_namespace(&mut labels, namespace(meta), snapshot);
    let mut pods = PodsBehind::default();
    let mut targets = Vec::new();
    for endpoint in slice.endpoints.iter().flatten() {
        for port in slice.ports.iter().flatten() {
            for address in &endpoint.addresses {
                let mut target = target(address, endpoint, port);
                set_node(&mut target, node_of(endpoint), snapshot);
                if let Some(pod) = pod_of(endpoint.target_ref.as_ref(), snapshot) {
                    pods.describe(&mut target, pod, port.port, None, snapshot);
                }
                targets.push(target.build());
            }
        }
    }
    targets.extend(pods.other_targets(snapshot));
    TargetGroup { source, targets, labels: labels.build() }
}

/// A service of two IP families has slices of both, which would be the same targets twice: the first family counts.
fn is_second_family(slice: &EndpointSlice, service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    let is_dual = matches!(spec.ip_family_policy.as_deref(), Some("PreferDualStack" | "RequireDualStack"));
    let first = spec.ip_families.iter().flatten().next();
    is_dual && first.is_some_and(|first| *first != slice.address_type)
}

fn target(address: &str, endpoint: &Endpoint, port: &EndpointPort) -> LabelsBuilder {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let flag = |flag: Option<bool>| flag.map(|flag| flag.to_string()).unwrap_or_default();
    let number = port.port.map(|port| port.to_string());
    let mut target = LabelsBuilder::default();
    let host_port = number.as_ref().map_or_else(|| address.to_owned(), |port| join_host_port(address, port));
    target.set(ADDRESS, host_port);
    target.set(PORT_NAME, text(&port.name));
    target.set(PORT_PROTOCOL, text(&port.protocol));
    target.set(PORT, text(&number));
    target.set(APP_PROTOCOL, text(&port.app_protocol));
    if let Some(conditions) = &endpoint.conditions {
        target.set(READY, flag(conditions.ready));
        target.set(SERVING, flag(conditions.serving));
        target.set(TERMINATING, flag(conditions.terminating));
    }
    target.set(HOSTNAME, text(&endpoint.hostname));
    target.set(NODE_NAME, text(&endpoint.node_name));
    target.set(ZONE, text(&endpoint.zone));
    if let Some(of) = &endpoint.target_ref {
        target.set(TARGET_KIND, text(&of.kind));
        target.set(TARGET_NAME, text(&of.name));
    }
    for (key, value) in endpoint.deprecated_topology.iter().flatten() {
        let key = sanitized(key);
        target.set(format!("{TOPOLOGY_PREFIX}{key}"), value);
        target.set(format!("{TOPOLOGY_PRESENT_PREFIX}{key}"), "true");
    }
    target
}

/// The node that an endpoint is, or is on.
fn node_of(endpoint: &Endpoint) -> Option<&str> {
    let of = endpoint.target_ref.as_ref().filter(|of| of.kind.as_deref() == Some("Node"));
    of.and_then(|of| of.name.as_deref()).or(endpoint.node_name.as_deref())
}
