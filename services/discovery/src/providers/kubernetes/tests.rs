//! Objects as JSON, and the groups that are made of them. What Prometheus 2.42 does with the same objects is compared
//! in `integration-tests`; these are the rules that came later, and the edges.

use model::Labels;
use serde_json::{Value, json};

use super::watched::Watchable;
use super::*;

fn object<K: Watchable>(value: Value) -> K {
    let mut object: K = serde_json::from_value(value).expect("an object");
    object.prune();
    object
}

fn objects<K: Watchable>(values: impl IntoIterator<Item = Value>) -> Objects<K> {
    let named = |value: Value| {
        let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default().to_owned();
        let name = ObjectName::new(&text("namespace"), &text("name"));
        (name, Arc::new(object(value)))
    };
    values.into_iter().map(named).collect()
}

/// The labels of a group's targets before relabelling, meta labels without their common prefix.
fn targets(group: &TargetGroup) -> Vec<String> {
    let short = |labels: &Labels| {
        let all = labels.iter().chain(group.labels.iter());
        let short = all.map(|(name, value)| (name.strip_prefix("__meta_kubernetes_").unwrap_or(name), value));
        Labels::from_pairs(short).to_string()
    };
    group.targets.iter().map(short).collect()
}

fn pod(name: &str, extra: &Value) -> Value {
    let mut pod = json!({
        "metadata": {"namespace": "shop", "name": name, "uid": "u1"},
        "spec": {"nodeName": "n1", "containers": [
            {"name": "web", "image": "web:1", "ports": [{"name": "http", "containerPort": 80, "protocol": "TCP"}]},
            {"name": "idle", "image": "idle:1"},
        ]},
        "status": {"podIP": "10.0.0.1", "phase": "Running", "hostIP": "10.1.0.1"},
    });
    merge(&mut pod, extra);
    pod
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

#[test]
fn a_pod_has_a_target_for_each_port_and_one_for_each_container_without() {
    let pod = pod(
        "p",
        &json!({
            "metadata": {"labels": {"app.kubernetes.io/name": "web"}, "annotations": {"scrape": "yes"}},
            "spec": {"initContainers": [{"name": "init", "image": "init:1"}]},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}, {"ip": "10.0.0.2"}],
                "containerStatuses": [{"name": "web", "containerID": "containerd://web"}],
                "initContainerStatuses": [{"name": "init", "containerID": "containerd://init"}],
            },
        }),
    );
    let group = pod::group(&object(pod), &Snapshot::default());
    assert_eq!(group.source, "pod/shop/p");
    let common = r#"namespace="shop", pod_annotation_scrape="yes", pod_annotationpresent_scrape="true", "#;
    let rest = r#"pod_host_ip="10.1.0.1", pod_ip="10.0.0.1", pod_ipv4="10.0.0.1", pod_ipv6="fd00::1", pod_label_app_kubernetes_io_name="web", pod_labelpresent_app_kubernetes_io_name="true", pod_name="p", pod_node_name="n1", pod_phase="Running", pod_ready="true", pod_uid="u1"}"#;
    assert_eq!(
        targets(&group),
        [
            format!(
                r#"{{__address__="10.0.0.1:80", {common}pod_container_id="containerd://web", pod_container_image="web:1", pod_container_init="false", pod_container_name="web", pod_container_port_name="http", pod_container_port_number="80", pod_container_port_protocol="TCP", {rest}"#
            ),
            format!(
                r#"{{__address__="10.0.0.1", {common}pod_container_image="idle:1", pod_container_init="false", pod_container_name="idle", {rest}"#
            ),
            format!(
                r#"{{__address__="10.0.0.1", {common}pod_container_id="containerd://init", pod_container_image="init:1", pod_container_init="true", pod_container_name="init", {rest}"#
            ),
        ]
    );
    let addresses = |ip: &str| -> Vec<String> {
        let pod = self::pod("p", &json!({"status": {"podIP": ip}}));
        let group = pod::group(&object(pod), &Snapshot::default());
        group.targets.iter().map(|target| target.value("__address__").to_owned()).collect()
    };
    assert_eq!(addresses("fd00::1"), ["[fd00::1]:80", "[fd00::1]"]);
    assert!(addresses("").is_empty(), "a pod that has no address yet");
}

#[test]
fn metadata_of_nodes_namespaces_and_workloads_is_attached_when_asked_for() {
    let owner = |kind: &str, name: &str| json!([{"kind": kind, "name": name, "controller": true, "apiVersion": "v1", "uid": ""}]);
    let of = |kind: &str, name: &str| {
        object::<Pod>(pod("p", &json!({"metadata": {"ownerReferences": owner(kind, name)}})))
    };
    let named = |name: &str, owners: Value| json!({"metadata": {"namespace": "shop", "name": name, "ownerReferences": owners}});
    let meta =
        |name: &str| json!({"metadata": {"name": name, "labels": {"a/b": "1"}, "annotations": {"c": "2"}}});
    let mut snapshot = Snapshot {
        nodes: objects([meta("n1")]),
        namespaces: objects([meta("shop")]),
        replica_sets: objects([named("rs", owner("Deployment", "web")), named("alone", Value::Null)]),
        jobs: objects([named("job-1", owner("CronJob", "nightly"))]),
        ..Snapshot::default()
    };
    let picked = |pod: &Pod, snapshot: &Snapshot| -> String {
        let all = pod::group(pod, snapshot).labels;
        let is_attached = |name: &str| {
            [
                "_node_name",
                "_node_label",
                "_node_ann",
                "_namespace_",
                "_deployment",
                "_job",
                "_cronjob",
                "_controller",
            ]
            .iter()
            .any(|part| name.contains(part))
        };
        all.filtered(|name| is_attached(name) && name != "__meta_kubernetes_pod_node_name").to_string()
    };
    let controlled = |kind: &str, name: &str| {
        format!(
            r#"__meta_kubernetes_pod_controller_kind="{kind}", __meta_kubernetes_pod_controller_name="{name}""#
        )
    };
    assert_eq!(picked(&of("ReplicaSet", "rs"), &snapshot), format!("{{{}}}", controlled("ReplicaSet", "rs")));
    snapshot.attach = AttachMetadata { node: true, namespace: true, ..AttachMetadata::default() };
    let both = |kind: &str| {
        format!(
            r#"__meta_kubernetes_{kind}_annotation_c="2", __meta_kubernetes_{kind}_annotationpresent_c="true", __meta_kubernetes_{kind}_label_a_b="1", __meta_kubernetes_{kind}_labelpresent_a_b="true""#
        )
    };
    assert_eq!(
        picked(&object(pod("p", &json!({}))), &snapshot),
        format!(r#"{{{}, {}, __meta_kubernetes_node_name="n1"}}"#, both("namespace"), both("node"))
    );
    snapshot.attach =
        AttachMetadata { deployment: true, job: true, cronjob: true, ..AttachMetadata::default() };
    for (kind, name, extra) in [
        ("ReplicaSet", "rs", r#", __meta_kubernetes_pod_deployment_name="web""#),
        ("ReplicaSet", "alone", ""),
        ("ReplicaSet", "unknown", ""),
        (
            "Job",
            "job-1",
            r#", __meta_kubernetes_pod_cronjob_name="nightly", __meta_kubernetes_pod_job_name="job-1""#,
        ),
        ("Job", "job-2", r#", __meta_kubernetes_pod_job_name="job-2""#),
        ("DaemonSet", "d", ""),
    ] {
        let mut expected: Vec<String> = controlled(kind, name).split(", ").map(str::to_owned).collect();
        expected.extend(extra.split(", ").filter(|part| !part.is_empty()).map(str::to_owned));
        expected.sort();
        assert_eq!(picked(&of(kind, name), &snapshot), format!("{{{}}}", expected.join(", ")));
    }
}

#[test]
fn pods_on_nodes_that_a_selector_leaves_out_are_none() {
    let snapshot = Snapshot {
        nodes: objects([json!({"metadata": {"name": "n1"}})]),
        has_node_selector: true,
        ..Snapshot::default()
    };
    let count = |node: Value| {
        pod::group(&object(pod("p", &json!({"spec": {"nodeName": node}}))), &snapshot).targets.len()
    };
    assert_eq!((count(json!("n1")), count(json!("n2")), count(Value::Null)), (2, 0, 0));
}

fn slice(name: &str, extra: &Value) -> Value {
    let mut slice = json!({
        "metadata": {"namespace": "shop", "name": name, "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 80, "protocol": "TCP", "appProtocol": "h2c"}],
        "endpoints": [{
            "addresses": ["10.0.0.1"],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": "n1", "zone": "eu-1", "hostname": "web-0",
            "targetRef": {"kind": "Pod", "namespace": "shop", "name": "p"},
        }],
    });
    merge(&mut slice, extra);
    slice
}

#[test]
fn endpoint_slices_have_the_labels_of_service_and_pod_and_name_no_port_twice() {
    let service = json!({"metadata": {"namespace": "shop", "name": "web", "annotations": {"x": "y"}}, "spec": {"type": "ClusterIP"}});
    let second = json!({"spec": {"initContainers": [
        {"name": "side", "image": "side:1", "ports": [{"name": "metrics", "containerPort": 9000, "protocol": "TCP"}]},
    ]}});
    let snapshot =
        Snapshot { services: objects([service]), pods: objects([pod("p", &second)]), ..Snapshot::default() };
    let group = endpoint_slice::group(&object(slice("web-1", &json!({}))), &snapshot);
    assert_eq!(group.source, "endpointslice/shop/web-1");
    let of_pod = r#"pod_host_ip="10.1.0.1", pod_ip="10.0.0.1", pod_name="p", pod_node_name="n1", pod_phase="Running", pod_ready="unknown", pod_uid="u1""#;
    let of_slice = r#"endpointslice_address_type="IPv4", "#;
    let of_meta = r#"endpointslice_label_kubernetes_io_service_name="web", endpointslice_labelpresent_kubernetes_io_service_name="true", endpointslice_name="web-1", "#;
    let of_service = r#"service_annotation_x="y", service_annotationpresent_x="true", service_name="web"}"#;
    assert_eq!(
        targets(&group),
        [
            format!(
                r#"{{__address__="10.0.0.1:80", endpointslice_address_target_kind="Pod", endpointslice_address_target_name="p", {of_slice}endpointslice_endpoint_conditions_ready="true", endpointslice_endpoint_conditions_serving="true", endpointslice_endpoint_conditions_terminating="false", endpointslice_endpoint_hostname="web-0", endpointslice_endpoint_node_name="n1", endpointslice_endpoint_zone="eu-1", {of_meta}endpointslice_port="80", endpointslice_port_app_protocol="h2c", endpointslice_port_name="http", endpointslice_port_protocol="TCP", namespace="shop", pod_container_image="web:1", pod_container_init="false", pod_container_name="web", pod_container_port_name="http", pod_container_port_number="80", pod_container_port_protocol="TCP", {of_pod}, {of_service}"#
            ),
            format!(
                r#"{{__address__="10.0.0.1:9000", {of_slice}{of_meta}namespace="shop", pod_container_image="side:1", pod_container_init="true", pod_container_name="side", pod_container_port_name="metrics", pod_container_port_number="9000", pod_container_port_protocol="TCP", {of_pod}, {of_service}"#
            ),
        ]
    );
}

#[test]
fn an_endpoint_slice_may_say_next_to_nothing() {
    let slice = json!({
        "metadata": {"namespace": "shop", "name": "s"},
        "addressType": "FQDN",
        "ports": [{}],
        "endpoints": [{"addresses": ["host.example.org"], "deprecatedTopology": {"a/b": "eu"}}],
    });
    assert_eq!(
        targets(&endpoint_slice::group(&object(slice), &Snapshot::default())),
        [
            r#"{__address__="host.example.org", endpointslice_address_type="FQDN", endpointslice_endpoint_topology_a_b="eu", endpointslice_endpoint_topology_present_a_b="true", endpointslice_name="s", namespace="shop"}"#
        ]
    );
}

#[test]
fn of_two_ip_families_the_first_counts() {
    let service = |policy: &str| {
        json!({
            "metadata": {"namespace": "shop", "name": "web"},
            "spec": {"ipFamilyPolicy": policy, "ipFamilies": ["IPv6", "IPv4"]},
        })
    };
    for (policy, address_type, count) in [
        ("PreferDualStack", "IPv4", 0),
        ("RequireDualStack", "IPv4", 0),
        ("PreferDualStack", "IPv6", 1),
        ("SingleStack", "IPv4", 1),
    ] {
        let snapshot = Snapshot { services: objects([service(policy)]), ..Snapshot::default() };
        let slice = slice("s", &json!({"addressType": address_type}));
        assert_eq!(
            endpoint_slice::group(&object(slice), &snapshot).targets.len(),
            count,
            "{policy} {address_type}"
        );
    }
}

#[test]
fn endpoints_that_are_no_pods_stand_for_themselves() {
    let endpoints = json!({
        "metadata": {"namespace": "shop", "name": "db", "annotations": {"a": "b"}},
        "subsets": [{
            "addresses": [{"ip": "10.2.0.1", "targetRef": {"kind": "Node", "name": "n1"}}],
            "notReadyAddresses": [{"ip": "10.2.0.2", "hostname": "db-1", "targetRef": {"kind": "Pod", "namespace": "shop", "name": "gone"}}],
            "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
        }],
    });
    let snapshot = Snapshot {
        nodes: objects([json!({"metadata": {"name": "n1", "labels": {"zone": "z"}}})]),
        attach: AttachMetadata { node: true, ..AttachMetadata::default() },
        ..Snapshot::default()
    };
    let meta = r#"endpoints_annotation_a="b", endpoints_annotationpresent_a="true", endpoints_name="db", namespace="shop""#;
    assert_eq!(
        targets(&endpoints::group(&object(endpoints), &snapshot)),
        [
            format!(
                r#"{{__address__="10.2.0.1:5432", endpoint_address_target_kind="Node", endpoint_address_target_name="n1", endpoint_port_name="sql", endpoint_port_protocol="TCP", endpoint_ready="true", {meta}, node_label_zone="z", node_labelpresent_zone="true", node_name="n1"}}"#
            ),
            format!(
                r#"{{__address__="10.2.0.2:5432", endpoint_address_target_kind="Pod", endpoint_address_target_name="gone", endpoint_hostname="db-1", endpoint_port_name="sql", endpoint_port_protocol="TCP", endpoint_ready="false", {meta}}}"#
            ),
        ]
    );
}

#[test]
fn nodes_are_reached_at_the_best_of_their_addresses() {
    let node = |addresses: Value| {
        let node = json!({
            "metadata": {"name": "n1"},
            "spec": {"providerID": "cloud://n1"},
            "status": {"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}},
        });
        node::group(&object(node))
    };
    let address = |kind: &str, address: &str| json!({"type": kind, "address": address});
    let group = node(json!([
        address("Hostname", "n1.test"),
        address("ExternalIP", "192.0.2.1"),
        address("ExternalIP", "192.0.2.2")
    ]));
    assert_eq!(group.source, "node/n1");
    assert_eq!(
        targets(&group),
        [
            r#"{__address__="192.0.2.1:10250", instance="n1", node_address_ExternalIP="192.0.2.1", node_address_Hostname="n1.test", node_name="n1", node_provider_id="cloud://n1"}"#
        ]
    );
    let v6 = node(json!([address("Hostname", "n1.test"), address("InternalIP", "fd00::7")]));
    assert_eq!(v6.targets[0].value("__address__"), "[fd00::7]:10250");
    assert!(node(json!([])).targets.is_empty());
}

#[test]
fn services_are_reached_by_their_names() {
    let service = |spec: Value| {
        let mut service = json!({
            "metadata": {"namespace": "shop", "name": "web"},
            "spec": {"ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
        });
        merge(&mut service, &json!({"spec": spec}));
        targets(&service::group(&object(service), &Snapshot::default())).remove(0)
    };
    for (spec, expected) in [
        (
            json!({"type": "ClusterIP", "clusterIP": "10.9.0.1"}),
            r#"service_cluster_ip="10.9.0.1", service_name="web", service_port_name="http", service_port_number="80", service_port_protocol="TCP", service_type="ClusterIP""#,
        ),
        (
            json!({"type": "LoadBalancer", "clusterIP": "10.9.0.1", "loadBalancerIP": "192.0.2.9"}),
            r#"service_cluster_ip="10.9.0.1", service_loadbalancer_ip="192.0.2.9", service_name="web", service_port_name="http", service_port_number="80", service_port_protocol="TCP", service_type="LoadBalancer""#,
        ),
        (
            json!({"type": "ExternalName", "clusterIP": "10.9.0.1", "externalName": "web.example.org"}),
            r#"service_external_name="web.example.org", service_name="web", service_port_name="http", service_port_number="80", service_port_protocol="TCP", service_type="ExternalName""#,
        ),
    ] {
        assert_eq!(
            service(spec),
            format!(r#"{{__address__="web.shop.svc:80", namespace="shop", {expected}}}"#)
        );
    }
}

#[test]
fn ingresses_have_a_target_for_each_path() {
    let ingress = json!({
        "metadata": {"namespace": "shop", "name": "front"},
        "spec": {
            "ingressClassName": "nginx",
            "tls": [{"hosts": ["*.example.org"]}],
            "rules": [
                {"host": "a.example.org", "http": {"paths": [{"path": "/x"}, {"path": ""}]}},
                {"host": "a.b.example.org"},
            ],
        },
    });
    let group = ingress::group(&object(ingress), &Snapshot::default());
    let target = |host: &str, path: &str, scheme: &str| {
        format!(
            r#"{{__address__="{host}", ingress_class_name="nginx", ingress_host="{host}", ingress_name="front", ingress_path="{path}", ingress_scheme="{scheme}", namespace="shop"}}"#
        )
    };
    assert_eq!(
        targets(&group),
        [
            target("a.example.org", "/x", "https"),
            target("a.example.org", "/", "https"),
            target("a.b.example.org", "/", "http"),
        ]
    );
}
