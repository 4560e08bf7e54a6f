//! `role: service`.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use model::{Labels, LabelsBuilder};

use super::Snapshot;
use super::meta::{NAMESPACE, name, namespace, set_namespace, set_object, source};
use super::watched::ObjectName;
use crate::providers::join_host_port;
use crate::target_group::{ADDRESS, TargetGroup};

const TYPE: &str = "__meta_kubernetes_service_type";
const CLUSTER_IP: &str = "__meta_kubernetes_service_cluster_ip";
const EXTERNAL_NAME: &str = "__meta_kubernetes_service_external_name";
const LOADBALANCER_IP: &str = "__meta_kubernetes_service_loadbalancer_ip";
const PORT_NAME: &str = "__meta_kubernetes_service_port_name";
const PORT_NUMBER: &str = "__meta_kubernetes_service_port_number";
const PORT_PROTOCOL: &str = "__meta_kubernetes_service_port_protocol";

/// One target for each port of the service, under its name in the cluster.
pub(super) fn group(service: &Service, snapshot: &Snapshot) -> TargetGroup {
    let mut labels = LabelsBuilder::default();
    set_service(&mut labels, service);
    set_namespace(&mut labels, namespace(&service.metadata), snapshot);
    let spec = service.spec.as_ref();
    let ports = spec.into_iter().flat_map(|spec| spec.ports.iter().flatten().map(move |port| (spec, port)));
    TargetGroup {
        source: source("svc", &service.metadata),
        targets: ports.map(|(spec, port)| target(service, spec, port)).collect(),
        labels: labels.build(),
    }
}

fn target(service: &Service, spec: &ServiceSpec, port: &ServicePort) -> Labels {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let host = format!("{}.{}.svc", name(&service.metadata), namespace(&service.metadata));
    let number = port.port.to_string();
    let mut target = LabelsBuilder::default();
    target.set(ADDRESS, join_host_port(&host, &number));
    target.set(PORT_NAME, text(&port.name));
    target.set(PORT_NUMBER, number);
    target.set(PORT_PROTOCOL, text(&port.protocol));
    target.set(TYPE, text(&spec.type_));
    match spec.type_.as_deref() {
        Some("ExternalName") => target.set(EXTERNAL_NAME, text(&spec.external_name)),
        _ => target.set(CLUSTER_IP, text(&spec.cluster_ip)),
    };
    if spec.type_.as_deref() == Some("LoadBalancer") {
        target.set(LOADBALANCER_IP, text(&spec.load_balancer_ip));
    }
    target.build()
}

/// Sets the labels of a service, where there is one of that name.
pub(super) fn set_service_of(labels: &mut LabelsBuilder, namespace: &str, name: &str, snapshot: &Snapshot) {
    if let Some(service) = snapshot.services.get(&ObjectName::new(namespace, name)) {
        set_service(labels, service);
    }
}

fn set_service(labels: &mut LabelsBuilder, service: &Service) {
    labels.set(NAMESPACE, namespace(&service.metadata));
    set_object(labels, "service", &service.metadata);
}
