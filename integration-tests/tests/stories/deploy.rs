//! Everything that lies in `deploy/` is read here by whoever reads it in earnest; `containers.rs` runs it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coordination::Role;
use discovery::prometheus_config::check_config;
use integration_tests::{Manifests, compose_containers, kubernetes_faults, repository};
use serde_json::Value;
use service_runtime::{Config, default_address, parse_config};
use tempfile::TempDir;

/// Where containers have the files of services, and where `make cluster` has them.
const PLACES: [&str; 2] = ["/etc/tributary", "deploy/config/cluster"];
/// The oldest Kubernetes that is said to do, and the newest whose schemas there are.
const KUBERNETES: [&str; 2] = ["1.30", "1.37"];

#[test]
fn every_file_of_a_service_is_read_by_that_service() {
    let folder = repository().join("deploy");
    let mut read = BTreeMap::new();
    for path in files(&folder) {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        let text = fs::read_to_string(&path).expect("text");
        // Beside the file, as where it will be.
        let beside = path.parent().expect("a folder").display().to_string();
        let text = PLACES.iter().fold(text, |text, place| text.replace(place, &beside));
        let faults = match name {
            "prometheus.yml" => {
                check_config(&path.display().to_string(), &BTreeMap::new()).err().unwrap_or_default()
            }
            "discovery.yml" => faults::<discovery::Config>(&text),
            "scraper.yml" => faults::<scraper::Config>(&text),
            "ingester.yml" => faults::<ingester::Config>(&text),
            "querier.yml" => faults::<querier::Config>(&text),
            "gateway.yml" => faults::<federation_gateway::Config>(&text),
            "s3.json" => serde_json::from_str::<Value>(&text).err().iter().map(ToString::to_string).collect(),
            // What programs of others read has tests of its own.
            "compose.yaml" | "Dockerfile" | "cluster.sh" | "image.sh" | "run.sh" => continue,
            _ if path.starts_with(folder.join("kustomize")) && name.ends_with(".yaml") => continue,
            _ => panic!("{}: nobody reads it", path.display()),
        };
        assert_eq!(faults, Vec::<String>::new(), "{}", path.display());
        *read.entry(name.to_owned()).or_insert(0) += 1;
    }
    // For Kubernetes and for compose; some for `make cluster`; and for `make run` Prometheus's alone.
    let counts = [
        ("discovery.yml", 3),
        ("gateway.yml", 3),
        ("ingester.yml", 2),
        ("prometheus.yml", 4),
        ("querier.yml", 2),
        ("s3.json", 1),
        ("scraper.yml", 2),
    ];
    assert_eq!(read, counts.map(|(name, count)| (name.to_owned(), count)).into());
}

#[test]
fn manifests_are_as_kubernetes_wants_them() {
    let folder = TempDir::new().expect("a folder");
    for name in ["base", "overlays/example"] {
        let manifests = render(name);
        let file = folder.path().join("manifests.yaml");
        fs::write(&file, manifests.text()).expect("written");
        for version in KUBERNETES {
            assert_eq!(kubernetes_faults(&file, version), None, "{name}, Kubernetes {version}");
        }
        // And what it would not want is found.
        fs::write(&file, manifests.text().replace("readinessProbe:", "readyProbe:")).expect("written");
        let faults = kubernetes_faults(&file, KUBERNETES[1]).expect("an unknown field");
        assert!(faults.contains("readyProbe"), "{faults}");
    }
}

#[test]
fn each_role_is_a_workload_of_its_name() {
    for name in ["base", "overlays/example"] {
        let manifests = render(name);
        let workloads: BTreeSet<&str> = manifests.workloads().map(|w| text(&w["metadata"]["name"])).collect();
        assert_eq!(workloads, Role::ALL.map(Role::as_str).into(), "{name}");
        assert_eq!(manifests.get("StatefulSet", "ingester")["kind"], "StatefulSet");
        for role in Role::ALL {
            check_role(&manifests, role);
        }
    }
}

fn check_role(manifests: &Manifests, role: Role) {
    let name = role.as_str();
    let workload = manifests.workloads().find(|w| w["metadata"]["name"] == name).expect("a workload");
    let pod = &workload["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let labels = &workload["spec"]["template"]["metadata"]["labels"];

    // The port is the role's, everywhere.
    let port = default_address(role).port();
    let args: Vec<&str> = container["args"].as_array().expect("arguments").iter().map(text).collect();
    assert_eq!(args[0], name);
    assert!(args.contains(&format!("--web.listen-address=0.0.0.0:{port}").as_str()), "{args:?}");
    assert!(args.contains(&format!("--cluster.advertise-address=$(POD_IP):{port}").as_str()), "{args:?}");
    assert_eq!(container["ports"][0]["containerPort"], port);
    let service = manifests.get("Service", name);
    assert_eq!(service["spec"]["ports"][0]["port"], port);
    assert_eq!(service["spec"]["clusterIP"] == "None", role != Role::Gateway, "{name}: who balances");

    // What selects pods selects these.
    for selector in [
        &service["spec"]["selector"],
        &workload["spec"]["selector"]["matchLabels"],
        &manifests.get("PodDisruptionBudget", name)["spec"]["selector"]["matchLabels"],
    ] {
        let wanted = selector.as_object().expect("a selector");
        assert!(wanted.contains_key("app.kubernetes.io/component"), "{name}: {selector}");
        assert!(wanted.iter().all(|(key, value)| &labels[key] == value), "{name}: {selector}");
    }

    // The stop has time, the pause before it included.
    let grace = args.iter().find_map(|arg| arg.strip_prefix("--shutdown.grace-seconds="));
    let grace: u64 = grace.and_then(|grace| grace.parse().ok()).expect("a grace period");
    let pause = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap_or(0);
    let until_killed = pod["terminationGracePeriodSeconds"].as_u64().expect("a grace period");
    assert!(until_killed > grace + pause, "{name}: {until_killed} s for {grace} s and {pause} s");

    // Nobody but discovery may talk to the API server.
    let account = manifests.get("ServiceAccount", name);
    for token in [&account["automountServiceAccountToken"], &pod["automountServiceAccountToken"]] {
        assert_eq!(token, &Value::Bool(role == Role::Discovery), "{name}");
    }
    assert_eq!(pod["serviceAccountName"], name);

    // The image that `make image` builds, of this version.
    let (_, tag) = text(&container["image"]).rsplit_once(':').expect("a tag");
    assert_eq!(tag, env!("CARGO_PKG_VERSION"), "{name}");

    let resources = &container["resources"];
    for (kind, resource) in [("requests", "cpu"), ("requests", "memory"), ("limits", "memory")] {
        assert!(resources[kind][resource].is_string(), "{name}: {kind} of {resource}");
    }
    let is_restricted = [
        pod["securityContext"]["runAsNonRoot"] == true,
        pod["securityContext"]["runAsUser"] == 65532,
        pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault",
        container["securityContext"]["readOnlyRootFilesystem"] == true,
        container["securityContext"]["allowPrivilegeEscalation"] == false,
        container["securityContext"]["capabilities"]["drop"] == serde_json::json!(["ALL"]),
    ];
    assert_eq!(is_restricted, [true; 6], "{name}");
}

#[test]
fn discovery_may_watch_what_it_finds_targets_by_and_nothing_else() {
    let manifests = render("overlays/example");
    let rules = &manifests.get("ClusterRole", "tributary-discovery")["rules"];
    let mut allowed = BTreeSet::new();
    for rule in rules.as_array().expect("rules") {
        assert_eq!(rule["verbs"], serde_json::json!(["get", "list", "watch"]));
        allowed.extend(rule["resources"].as_array().expect("resources").iter().map(text));
    }
    let wanted = ["endpoints", "endpointslices", "ingresses", "nodes", "pods", "services"];
    assert_eq!(allowed, wanted.into());
    let subjects = &manifests.get("ClusterRoleBinding", "tributary-discovery")["subjects"];
    let account =
        serde_json::json!([{"kind": "ServiceAccount", "name": "discovery", "namespace": "tributary"}]);
    assert_eq!(subjects, &account);
    assert_eq!(manifests.of_kind("ClusterRole").chain(manifests.of_kind("Role")).count(), 1);
}

#[test]
fn compose_has_the_five_roles_of_this_version() {
    let file = repository().join("deploy/compose.yaml");
    let containers = compose_containers(&file, "tributary");
    let mut counts = BTreeMap::new();
    for container in &containers {
        *counts.entry(container.args[0].as_str()).or_insert(0) += 1;
        assert_eq!(container.image, format!("tributary:{}", env!("CARGO_PKG_VERSION")), "{}", container.name);
        assert!(container.has_read_only_root && container.has_no_new_privileges, "{}", container.name);
        assert_eq!(container.dropped_capabilities, ["ALL"], "{}", container.name);
        assert_eq!(container.checks.len(), 1, "{}", container.name);
    }
    let wanted = [("discovery", 1), ("gateway", 1), ("ingester", 2), ("querier", 2), ("scraper", 2)];
    assert_eq!(counts, wanted.into());

    // Each stop has time; Docker's own default is less.
    let compose: Value = serde_saphyr::from_str(&fs::read_to_string(file).expect("text")).expect("YAML");
    for container in &containers {
        let until_killed = text(&compose["services"][&container.name]["stop_grace_period"]);
        let until_killed = model::time::parse_duration(until_killed).expect("a duration");
        let grace = container.args.iter().find_map(|arg| arg.strip_prefix("--shutdown.grace-seconds="));
        let grace = grace.map_or(30, |grace| grace.parse().expect("seconds"));
        assert!(until_killed > Duration::from_secs(grace), "{}", container.name);
    }
}

fn render(name: &str) -> Manifests {
    Manifests::render(&repository().join("deploy/kustomize").join(name))
}

fn faults<C: Config>(text: &str) -> Vec<String> {
    parse_config::<C>(text).err().unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
