//! `role: node`.

use k8s_openapi::api::core::v1::{Node, NodeStatus};
use model::labels::INSTANCE;
use model::{Labels, LabelsBuilder};
use tracing::warn;

use super::meta::{name, sanitized, set_object};
use crate::providers::join_host_port;
use crate::target_group::{ADDRESS, TargetGroup};

const PROVIDER_ID: &str = "__meta_kubernetes_node_provider_id";
const ADDRESS_PREFIX: &str = "__meta_kubernetes_node_address_";
/// The address that is scraped is the first there is of these types.
const ADDRESS_TYPES: [&str; 6] =
    ["InternalIP", "InternalDNS", "ExternalIP", "ExternalDNS", "LegacyHostIP", "Hostname"];

/// One target: the kubelet.
pub(super) fn group(node: &Node) -> TargetGroup {
    let source = format!("node/{}", name(&node.metadata));
    let nothing = NodeStatus::default();
    let status = node.status.as_ref().unwrap_or(&nothing);
    let addresses = status.addresses.as_deref().unwrap_or_default();
    let of_type = |wanted: &str| addresses.iter().find(|address| address.type_ == wanted);
    let Some(host) = ADDRESS_TYPES.iter().find_map(|wanted| of_type(wanted)) else {
        warn!(node = name(&node.metadata), "no node address found");
        return TargetGroup { source, targets: Vec::new(), labels: Labels::empty() };
    };
    let kubelet = status.daemon_endpoints.as_ref().and_then(|endpoints| endpoints.kubelet_endpoint.as_ref());
    let port = kubelet.map_or(0, |kubelet| kubelet.port);
    let mut labels = LabelsBuilder::default();
    let provider_id = node.spec.as_ref().and_then(|spec| spec.provider_id.clone());
    labels.set(PROVIDER_ID, provider_id.unwrap_or_default());
    set_object(&mut labels, "node", &node.metadata);
    let mut target = LabelsBuilder::default();
    target.set(ADDRESS, join_host_port(&host.address, &port.to_string()));
    target.set(INSTANCE, name(&node.metadata));
    for address in addresses {
        let label = format!("{ADDRESS_PREFIX}{}", sanitized(&address.type_));
        if target.get(&label).is_none() {
            target.set(label, address.address.as_str());
        }
    }
    TargetGroup { source, targets: vec![target.build()], labels: labels.build() }
}
