//! `role: pod`, and what endpoints say of the pods behind them.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, ContainerPort, ContainerStatus, Pod, PodStatus};
use model::{Labels, LabelsBuilder};

use super::Snapshot;
use super::meta::{NAMESPACE, controller, namespace, set_namespace, set_node, set_object, source};
use super::watched::ObjectName;
use crate::providers::join_host_port;
use crate::target_group::{ADDRESS, TargetGroup};

const IP: &str = "__meta_kubernetes_pod_ip";
const READY: &str = "__meta_kubernetes_pod_ready";
const PHASE: &str = "__meta_kubernetes_pod_phase";
const NODE_NAME: &str = "__meta_kubernetes_pod_node_name";
const HOST_IP: &str = "__meta_kubernetes_pod_host_ip";
const UID: &str = "__meta_kubernetes_pod_uid";
const CONTROLLER_KIND: &str = "__meta_kubernetes_pod_controller_kind";
const CONTROLLER_NAME: &str = "__meta_kubernetes_pod_controller_name";
const DEPLOYMENT_NAME: &str = "__meta_kubernetes_pod_deployment_name";
const JOB_NAME: &str = "__meta_kubernetes_pod_job_name";
const CRONJOB_NAME: &str = "__meta_kubernetes_pod_cronjob_name";
const IPV4: &str = "__meta_kubernetes_pod_ipv4";
const IPV6: &str = "__meta_kubernetes_pod_ipv6";
const CONTAINER_NAME: &str = "__meta_kubernetes_pod_container_name";
const CONTAINER_ID: &str = "__meta_kubernetes_pod_container_id";
const CONTAINER_IMAGE: &str = "__meta_kubernetes_pod_container_image";
const CONTAINER_INIT: &str = "__meta_kubernetes_pod_container_init";
const PORT_NAME: &str = "__meta_kubernetes_pod_container_port_name";
const PORT_NUMBER: &str = "__meta_kubernetes_pod_container_port_number";
const PORT_PROTOCOL: &str = "__meta_kubernetes_pod_container_port_protocol";

/// One target for each port of each container, and one for each container without ports.
pub(super) fn group(pod: &Pod, snapshot: &Snapshot) -> TargetGroup {
    let source = source("pod", &pod.metadata);
    // A pod that starts, or was evicted, has no address.
    let Some(ip) = ip(pod).filter(|_| !snapshot.has_node_selector || is_on_known_node(pod, snapshot)) else {
        return TargetGroup { source, targets: Vec::new(), labels: Labels::empty() };
    };
    let mut labels = LabelsBuilder::default();
    set_pod(&mut labels, pod, snapshot);
    labels.set(NAMESPACE, namespace(&pod.metadata));
    set_node(&mut labels, node_name(pod), snapshot);
    set_namespace(&mut labels, namespace(&pod.metadata), snapshot);
    let mut targets = Vec::new();
    for (container, is_init) in containers(pod) {
        let mut target = LabelsBuilder::default();
        set_container(&mut target, container, is_init);
        target.set(CONTAINER_ID, container_id(pod, &container.name, is_init));
        let ports = container.ports.as_deref().unwrap_or_default();
        if ports.is_empty() {
            // The port is for relabelling to add, so an IPv6 address has its brackets already.
            let address = match ip.parse::<IpAddr>() {
                Ok(IpAddr::V6(v6)) => format!("[{v6}]"),
                _ => ip.to_owned(),
            };
            target.set(ADDRESS, address);
            targets.push(target.build());
            continue;
        }
        for port in ports {
            let mut target = target.clone();
            target.set(ADDRESS, join_host_port(ip, &port.container_port.to_string()));
            set_port(&mut target, port);
            targets.push(target.build());
        }
    }
    TargetGroup { source, targets, labels: labels.build() }
}

/// The pod that endpoints refer to, with the ports of it that they name.
pub(super) struct Behind<'a> {
    pod: &'a Pod,
    named_ports: Vec<i32>,
}

/// The pods behind endpoints, in the order in which they are met.
#[derive(Default)]
pub(super) struct PodsBehind<'a>(Vec<Behind<'a>>);

impl<'a> PodsBehind<'a> {
    /// Adds what is known of the pod behind a target at a port. `protocol` is the endpoint's, where it counts.
    pub(super) fn describe(
        &mut self,
        target: &mut LabelsBuilder,
        pod: &'a Pod,
        port: Option<i32>,
        protocol: Option<&str>,
        snapshot: &Snapshot,
    ) {
        set_pod(target, pod, snapshot);
        let all = containers(pod);
        let matching = all.flat_map(|(container, is_init)| {
            let ports = container.ports.iter().flatten();
            // The first of a container, and of several containers the last.
            let found = ports.into_iter().find(|of| Some(of.container_port) == port);
            found.map(|port| (container, is_init, port))
        });
        if let Some((container, is_init, port)) = matching.last() {
            set_container(target, container, is_init);
            set_port(target, port);
            if let Some(protocol) = protocol {
                target.set(PORT_PROTOCOL, protocol);
            }
        }
        let behind = match self.0.iter_mut().position(|behind| std::ptr::eq(behind.pod, pod)) {
            Some(at) => &mut self.0[at],
            None => {
                self.0.push(Behind { pod, named_ports: Vec::new() });
                self.0.last_mut().expect("just pushed")
            }
        };
        behind.named_ports.extend(port);
    }

    /// Targets for the ports of the pods that no endpoint names.
    pub(super) fn other_targets(self, snapshot: &Snapshot) -> Vec<Labels> {
        let mut targets = Vec::new();
        for Behind { pod, named_ports } in self.0 {
            let Some(ip) = ip(pod) else { continue };
            for (container, is_init) in containers(pod) {
                let ports = container.ports.iter().flatten();
                for port in ports.filter(|port| !named_ports.contains(&port.container_port)) {
                    let mut target = LabelsBuilder::default();
                    set_pod(&mut target, pod, snapshot);
                    set_container(&mut target, container, is_init);
                    set_port(&mut target, port);
                    target.set(ADDRESS, join_host_port(ip, &port.container_port.to_string()));
                    targets.push(target.build());
                }
            }
        }
        targets
    }
}

fn set_pod(labels: &mut LabelsBuilder, pod: &Pod, snapshot: &Snapshot) {
    let nothing = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&nothing);
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    labels.set(IP, text(&status.pod_ip));
    labels.set(READY, ready.map_or_else(|| "unknown".to_owned(), |ready| ready.status.to_lowercase()));
    labels.set(PHASE, text(&status.phase));
    labels.set(NODE_NAME, node_name(pod).unwrap_or_default());
    labels.set(HOST_IP, text(&status.host_ip));
    labels.set(UID, text(&pod.metadata.uid));
    for address in status.pod_ips.iter().flatten() {
        let label = match address.ip.parse() {
            Ok(IpAddr::V4(_)) => IPV4,
            Ok(IpAddr::V6(_)) => IPV6,
            Err(_) => continue,
        };
        if labels.get(label).is_none() {
            labels.set(label, address.ip.as_str());
        }
    }
    set_object(labels, "pod", &pod.metadata);
    if let Some(owner) = controller(&pod.metadata) {
        labels.set(CONTROLLER_KIND, owner.kind.as_str());
        labels.set(CONTROLLER_NAME, owner.name.as_str());
        set_workload(labels, &owner.kind, &ObjectName::new(namespace(&pod.metadata), &owner.name), snapshot);
    }
}

/// Sets what `attach_metadata` asks for of the workload that a pod's controller belongs to.
fn set_workload(labels: &mut LabelsBuilder, kind: &str, owner: &ObjectName, snapshot: &Snapshot) {
    let attach = snapshot.attach;
    match kind {
        "ReplicaSet" if attach.deployment => {
            let set = snapshot.replica_sets.get(owner);
            let of = set.and_then(|set| controller(&set.metadata)).filter(|of| of.kind == "Deployment");
            labels.set(DEPLOYMENT_NAME, of.map_or("", |of| &of.name));
        }
        "Job" => {
            if attach.job {
                labels.set(JOB_NAME, owner.name());
            }
            let job = snapshot.jobs.get(owner).filter(|_| attach.cronjob);
            let of = job.and_then(|job| controller(&job.metadata)).filter(|of| of.kind == "CronJob");
            labels.set(CRONJOB_NAME, of.map_or("", |of| &of.name));
        }
        _ => {}
    }
}

fn set_container(labels: &mut LabelsBuilder, container: &Container, is_init: bool) {
    labels.set(CONTAINER_NAME, container.name.as_str());
    labels.set(CONTAINER_IMAGE, container.image.clone().unwrap_or_default());
    labels.set(CONTAINER_INIT, is_init.to_string());
}

fn set_port(labels: &mut LabelsBuilder, port: &ContainerPort) {
    labels.set(PORT_NAME, port.name.clone().unwrap_or_default());
    labels.set(PORT_NUMBER, port.container_port.to_string());
    labels.set(PORT_PROTOCOL, port.protocol.clone().unwrap_or_default());
}

/// The containers of a pod, those that initialise it last.
fn containers(pod: &Pod) -> impl Iterator<Item = (&Container, bool)> {
    let spec = pod.spec.as_ref();
    let main = spec.into_iter().flat_map(|spec| &spec.containers).map(|container| (container, false));
    let init = spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten());
    main.chain(init.map(|container| (container, true)))
}

fn container_id(pod: &Pod, container: &str, is_init: bool) -> String {
    let status = pod.status.as_ref();
    let statuses: Option<&Vec<ContainerStatus>> = status.and_then(|status| {
        if is_init { status.init_container_statuses.as_ref() } else { status.container_statuses.as_ref() }
    });
    let found = statuses.into_iter().flatten().find(|status| status.name == container);
    found.and_then(|status| status.container_id.clone()).unwrap_or_default()
}

fn ip(pod: &Pod) -> Option<&str> {
    pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).filter(|ip| !ip.is_empty())
}

fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref())
}

fn is_on_known_node(pod: &Pod, snapshot: &Snapshot) -> bool {
    node_name(pod).is_some_and(|node| snapshot.nodes.contains_key(&ObjectName::new("", node)))
}
