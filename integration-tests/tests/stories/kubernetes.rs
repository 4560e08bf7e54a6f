//! Targets out of Kubernetes: what is discovered, over how many watches, and that the API server of these stories is
//! one that others take for one.
//!
//! The peer is Prometheus 3.5: Debian builds its 2.42 without (`field kubernetes_sd_configs not found`). Where 3.5
//! differs from Prometheus 3.14 is listed below, by name and with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use integration_tests::{Kind, KubeApi, Server, eventually, kubectl, repository};
use serde_json::{Value, json};
use tempfile::TempDir;

const TOKEN: &str = "first-token";
/// The kinds that the test data has, one file each.
const KINDS: [&str; 9] = [
    "nodes",
    "namespaces",
    "pods",
    "services",
    "endpoints",
    "endpointslices",
    "ingresses",
    "replicasets",
    "jobs",
];
/// What is in front of every name below.
const META: &str = "__meta_kubernetes_";

/// Labels that are newer than the peer.
const NEWER: [&str; 2] = ["pod_ipv4", "pod_ipv6"];
/// The slice of the second IP family of a service that has two. Prometheus finds no targets in it since 3.11.
const SECOND_FAMILY: &str = "both-4";

type Labels = BTreeMap<String, String>;
/// What a server discovers: the targets of each job before relabelling, active ones and dropped ones apart.
type Discovered = BTreeMap<(String, &'static str), Vec<Labels>>;

/// An API server with the test data, and the files that say how to reach it.
struct Cluster {
    api: KubeApi,
    folder: TempDir,
}

impl Cluster {
    fn start() -> Self {
        let api = KubeApi::start(TOKEN);
        for kind in KINDS {
            let path = repository().join(format!("integration-tests/testdata/kubernetes/{kind}.json"));
            let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
            let objects: Vec<Value> = serde_json::from_str(&text).expect("a list of objects");
            for object in objects {
                api.put(kind, object);
            }
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cluster = Self { api, folder };
        cluster.write_token(TOKEN);
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": cluster.api.url()}}],
            "users": [{"name": "u", "user": {"token": TOKEN}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        fs::write(cluster.kubeconfig(), kubeconfig.to_string()).expect("a kubeconfig file");
        cluster
    }

    fn token_file(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    fn write_token(&self, token: &str) {
        fs::write(self.token_file(), token).expect("a token file");
    }

    /// A job of a role that drops the namespace `ops`; `more` is what its `kubernetes_sd_configs` says beside.
    fn job(&self, name: &str, role: &str, more: &str) -> String {
        let (server, token) = (self.api.url(), self.token_file());
        let token = token.display();
        format!(
            "- job_name: {name}\n  relabel_configs:\n  - {{source_labels: [{META}namespace], regex: ops, action: drop}}\n  \
             - {{source_labels: [{META}ingress_path], regex: (.+), target_label: __metrics_path__}}\n  \
             kubernetes_sd_configs: [{{role: {role}, api_server: '{server}', authorization: {{credentials_file: '{token}'}}{more}}}]\n"
        )
    }

    /// Gives a pod another address and another label, and, once the servers have seen that, its endpoints the address:
    /// the peer shows endpoints with the pod as it was when they changed.
    fn change_pod(&self, name: &str, ip: &str, servers: &[&Server]) {
        let pods = self.api.objects("pods");
        let mut pod = pods.into_iter().find(|pod| pod["metadata"]["name"] == name).expect("the pod is there");
        let before = pod["status"]["podIP"].as_str().expect("an address").to_owned();
        pod["metadata"]["labels"]["changed-to"] = json!(ip);
        pod["status"]["podIP"] = json!(ip);
        pod["status"]["podIPs"] = json!([{"ip": ip}]);
        self.api.put("pods", pod);
        for server in servers {
            eventually(&format!("{:?} sees the pod at {ip}", server.kind()), || {
                let pods = active(server).remove(&("pods".to_owned(), "active"));
                pods.into_iter().flatten().any(|pod| meta(&pod, "pod_ip") == Some(ip)).then_some(())
            });
        }
        for kind in ["endpoints", "endpointslices"] {
            for object in self.api.objects(kind) {
                let text = object.to_string();
                let changed = text.replace(&format!("\"{before}\""), &format!("\"{ip}\""));
                if changed != text {
                    self.api.put(kind, serde_json::from_str(&changed).expect("still JSON"));
                }
            }
        }
    }
}

/// No target is there to be scraped, so none is for as long as a test takes.
fn config(jobs: &[String]) -> String {
    format!("global: {{scrape_interval: 1h, scrape_timeout: 1s}}\nscrape_configs:\n{}", jobs.concat())
}

fn discovered(server: &Server) -> Discovered {
    let data = server.http().get("/api/v1/targets", &[("state", "any")]).data();
    let mut all = Discovered::new();
    for (list, state) in [("activeTargets", "active"), ("droppedTargets", "dropped")] {
        for target in data[list].as_array().into_iter().flatten() {
            let labels: Labels =
                serde_json::from_value(target["discoveredLabels"].clone()).expect("discovered labels");
            all.entry((labels["job"].clone(), state)).or_default().push(labels);
        }
    }
    all
}

/// Where two servers differ, in words; empty when they do not.
fn differences(peer: &Discovered, ours: &Discovered) -> Vec<String> {
    let mut found = Vec::new();
    for key in peer.keys().chain(ours.keys()).collect::<BTreeSet<_>>() {
        let of_peer = peer.get(key).into_iter().flatten();
        let peer: BTreeSet<Labels> = of_peer
            .filter(|labels| meta(labels, "endpointslice_name") != Some(SECOND_FAMILY))
            .cloned()
            .collect();
        let ours: BTreeSet<Labels> = ours.get(key).into_iter().flatten().map(without_newer).collect();
        found.extend(peer.difference(&ours).map(|labels| format!("{key:?}: the peer alone has {labels:?}")));
        found.extend(ours.difference(&peer).map(|labels| format!("{key:?}: we alone have {labels:?}")));
    }
    found
}

fn without_newer(labels: &Labels) -> Labels {
    let is_newer = |name: &str| name.strip_prefix(META).is_some_and(|name| NEWER.contains(&name));
    labels
        .iter()
        .filter(|(name, _)| !is_newer(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn meta<'a>(labels: &'a Labels, name: &str) -> Option<&'a str> {
    labels.get(&format!("{META}{name}")).map(String::as_str)
}

/// Active targets alone: the peer shows dropped ones for minutes after they are gone.
fn active(server: &Server) -> Discovered {
    let mut all = discovered(server);
    all.retain(|(_, state), _| *state == "active");
    all
}

/// Waits until both servers discover the same, and with it the addresses that tell that the step was seen.
fn wait_until_equal(
    step: &str,
    servers: [&Server; 2],
    look: fn(&Server) -> Discovered,
    addresses: &[(&str, &str)],
) {
    let mut last = Vec::new();
    let equal = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually(step, || {
            let [peer, ours] = servers.map(look);
            last = differences(&peer, &ours);
            for (job, address) in addresses {
                let targets = ours.get(&((*job).to_owned(), "active"));
                if !targets.into_iter().flatten().any(|target| target["__address__"] == *address) {
                    last.push(format!("{job}: there is no {address} yet"));
                }
            }
            last.is_empty().then_some(())
        });
    }));
    assert!(equal.is_ok(), "{step}:\n{}\n{}", last.join("\n"), servers[0].output());
}

#[test]
fn a_peer_discovers_the_same_targets_through_changes_and_failures() {
    let cluster = Cluster::start();
    let job = |name: &str, role: &str, more: &str| cluster.job(name, role, more);
    let config = config(&[
        job("pods", "pod", ""),
        job("pods-nodes", "pod", ", attach_metadata: {node: true}"),
        job("pods-shop", "pod", ", namespaces: {names: [shop]}"),
        job("pods-web", "pod", ", selectors: [{role: pod, label: 'tier=front-end'}]"),
        job("nodes", "node", ""),
        job("services", "service", ""),
        job("endpoints", "endpoints", ""),
        job("slices", "endpointslice", ""),
        job("ingresses", "ingress", ""),
    ]);
    let peer = Server::start(Kind::Prometheus3, &config);
    let ours = Server::start(Kind::Tributary, &config);
    let servers = [&peer, &ours];
    wait_until_equal("all objects", servers, discovered, &[]);
    let all = discovered(&ours);
    for (job, active, dropped) in [("pods", 8, 7), ("nodes", 3, 0), ("services", 4, 4), ("ingresses", 4, 0)] {
        let count = |state| all.get(&(job.to_owned(), state)).map_or(0, Vec::len);
        assert_eq!((count("active"), count("dropped")), (active, dropped), "{job}");
    }
    let api = &cluster.api;
    // Seen in all roles that know of the pod.
    let seen = |address: &'static str| ["pods", "pods-web", "endpoints", "slices"].map(|job| (job, address));
    api.delete("pods", "ops", "six");
    api.delete("pods", "shop", "migrate-1");
    api.delete("ingresses", "shop", "front");
    let mut more = api.objects("services").remove(0);
    more["metadata"]["namespace"] = json!("shop");
    more["metadata"]["name"] = json!("more");
    api.put("services", more);
    cluster.change_pod("web-6f75-a", "10.0.1.200", &servers);
    let addresses = [&seen("10.0.1.200:8080")[..], &[("services", "more.shop.svc:80")]].concat();
    wait_until_equal("after additions, changes and deletions", servers, active, &addresses);

    api.break_watches();
    cluster.change_pod("web-6f75-a", "10.0.1.201", &servers);
    wait_until_equal("after broken watches", servers, active, &seen("10.0.1.201:8080"));

    api.delete("pods", "shop", "nightly-28-x");
    api.forget_changes();
    cluster.change_pod("web-6f75-a", "10.0.1.202", &servers);
    wait_until_equal("after 410 Gone", servers, active, &seen("10.0.1.202:8080"));
}

#[test]
fn equal_watches_are_one_and_end_with_the_last_job() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    for i in 0..600 {
        let name = format!("many-{i}");
        api.put(
            "pods",
            json!({"metadata": {"namespace": "many", "name": name}, "status": {"podIP": "10.5.0.1"}}),
        );
    }
    let all = [
        cluster.job("pods", "pod", ""),
        cluster.job("pods-again", "pod", ""),
        cluster.job(
            "pods-nodes",
            "pod",
            ", attach_metadata: {node: true, namespace: true, deployment: true, cronjob: true}",
        ),
        cluster.job("nodes", "node", ""),
        cluster.job("endpoints", "endpoints", ""),
        cluster.job("slices", "endpointslice", ", attach_metadata: {node: true}"),
        cluster.job("pods-web", "pod", ", selectors: [{role: pod, label: 'tier=front-end'}]"),
        cluster.job("pods-shop", "pod", ", namespaces: {names: [shop]}"),
    ];
    let server = Server::start(Kind::Tributary, &config(&all));
    let wanted = [
        "/api/v1/endpoints",
        "/api/v1/namespaces",
        "/api/v1/namespaces/shop/pods",
        "/api/v1/nodes",
        "/api/v1/pods",
        "/api/v1/pods labelSelector=tier=front-end",
        "/api/v1/services",
        "/apis/apps/v1/replicasets",
        "/apis/batch/v1/jobs",
        "/apis/discovery.k8s.io/v1/endpointslices",
    ];
    let watches = |wanted: &[&str]| {
        eventually(&format!("these watches and no others: {wanted:?}"), || {
            (api.watches() == wanted).then_some(())
        })
    };
    watches(&wanted);
    let requests = api.requests();
    let list_of_pods =
        |request: &&String| request.starts_with("/api/v1/pods?") && !request.contains("watch=");
    let lists: Vec<&String> =
        requests.iter().filter(list_of_pods).filter(|r| !r.contains("labelSelector")).collect();
    assert!(
        lists.len() == 2 && lists[0].contains("limit=500") && lists[1].contains("continue=page-"),
        "600 and some pods are listed in two pages, once: {lists:?}"
    );
    assert!(
        requests.iter().any(|r| r.contains("watch=true") && r.contains("allowWatchBookmarks=true")),
        "{requests:?}"
    );
    let attached =
        [("pod_deployment_name", "web"), ("namespace_label_team", "web"), ("node_name", "worker-1")];
    eventually(&format!("the pod is there with {attached:?}"), || {
        let targets = discovered(&server).remove(&("pods-nodes".to_owned(), "active"))?;
        let web = targets.iter().find(|target| target["__address__"] == "10.0.1.1:8080")?;
        attached.iter().all(|(name, value)| meta(web, name) == Some(*value)).then_some(())
    });

    // A token that is exchanged: watches that break come back with the new one.
    cluster.write_token("second-token");
    api.set_token("second-token");
    api.break_watches();
    cluster.change_pod("web-6f75-a", "10.0.1.200", &[&server]);
    let has_changed = || {
        discovered(&server)[&("pods".to_owned(), "active")]
            .iter()
            .any(|t| t["__address__"] == "10.0.1.200:8080")
    };
    eventually("the change is seen with the new token", || has_changed().then_some(()));
    watches(&wanted);

    server.write_config(&config(&[cluster.job("nodes", "node", "")]));
    assert_eq!(server.http().post_form("/-/reload", &[]).status, 200);
    watches(&["/api/v1/nodes"]);
    server.write_config("scrape_configs: []\n");
    assert_eq!(server.http().post_form("/-/reload", &[]).status, 200);
    watches(&[]);
}

#[test]
fn kubectl_and_a_kubeconfig_file_see_the_objects() {
    let cluster = Cluster::start();
    // kubectl sends no token without TLS.
    cluster.api.set_token("");
    let kubeconfig = cluster.kubeconfig();
    let kubectl = |arguments: &[&str]| -> Value {
        let output = Command::new(kubectl())
            .args(arguments)
            .env("KUBECONFIG", &kubeconfig)
            .env("HOME", cluster.folder.path())
            .output()
            .expect("kubectl starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {arguments:?}: {errors}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    for kind in KINDS {
        let items = kubectl(&["get", kind, "--all-namespaces", "-o", "json"])["items"].take();
        let items: Vec<Value> = serde_json::from_value(items).expect("a list");
        assert_eq!(items, cluster.api.objects(kind), "{kind}");
    }
    let chosen = kubectl(&["get", "pods", "-n", "shop", "-l", "tier=front-end", "-o", "json"]);
    let names: Vec<&str> = chosen["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|pod| pod["metadata"]["name"].as_str())
        .collect();
    assert_eq!(names, ["web-6f75-a", "web-6f75-b"]);

    cluster.api.set_token(TOKEN);
    let job = format!(
        "- job_name: nodes\n  kubernetes_sd_configs: [{{role: node, kubeconfig_file: '{}'}}]\n",
        kubeconfig.display()
    );
    let server = Server::start(Kind::Tributary, &config(&[job]));
    let nodes =
        eventually("the nodes are found", || discovered(&server).remove(&("nodes".to_owned(), "active")));
    let names: BTreeSet<&str> = nodes.iter().map(|labels| labels["instance"].as_str()).collect();
    assert_eq!(names, BTreeSet::from(["edge-1", "worker-1", "worker-2"]));
}
