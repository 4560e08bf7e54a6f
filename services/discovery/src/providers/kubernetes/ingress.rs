//! `role: ingress`.

use k8s_openapi::api::networking::v1::{Ingress, IngressRule, IngressSpec};
use model::LabelsBuilder;

use super::Snapshot;
use super::meta::{NAMESPACE, namespace, set_namespace, set_object, source};
use crate::target_group::{ADDRESS, TargetGroup};

const CLASS_NAME: &str = "__meta_kubernetes_ingress_class_name";
const SCHEME: &str = "__meta_kubernetes_ingress_scheme";
const HOST: &str = "__meta_kubernetes_ingress_host";
const PATH: &str = "__meta_kubernetes_ingress_path";

/// One target for each path of each rule.
pub(super) fn group(ingress: &Ingress, snapshot: &Snapshot) -> TargetGroup {
    let nothing = IngressSpec::default();
    let spec = ingress.spec.as_ref().unwrap_or(&nothing);
    let mut labels = LabelsBuilder::default();
    labels.set(NAMESPACE, namespace(&ingress.metadata));
    set_object(&mut labels, "ingress", &ingress.metadata);
    labels.set(CLASS_NAME, spec.ingress_class_name.clone().unwrap_or_default());
    set_namespace(&mut labels, namespace(&ingress.metadata), snapshot);
    let mut targets = Vec::new();
    for rule in spec.rules.iter().flatten() {
        let host = rule.host.as_deref().unwrap_or_default();
        let tls_hosts = spec.tls.iter().flatten().flat_map(|tls| tls.hosts.iter().flatten());
        let has_tls = tls_hosts.into_iter().any(|pattern| is_matching(pattern, host));
        for path in paths(rule) {
            let mut target = LabelsBuilder::default();
            target.set(ADDRESS, host);
            target.set(SCHEME, if has_tls { "https" } else { "http" });
            target.set(HOST, host);
            target.set(PATH, path);
            targets.push(target.build());
        }
    }
    TargetGroup { source: source("ingress", &ingress.metadata), targets, labels: labels.build() }
}

fn paths(rule: &IngressRule) -> Vec<&str> {
    let Some(http) = &rule.http else { return vec!["/"] };
    http.paths.iter().map(|of| of.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/")).collect()
}

/// Says whether a host is one that a certificate's name covers; `*` stands for one first part.
fn is_matching(pattern: &str, host: &str) -> bool {
    let is_covered = || {
        let (pattern_rest, (_, host_rest)) = (pattern.strip_prefix("*.")?, host.split_once('.')?);
        Some(pattern_rest == host_rest)
    };
    pattern == host || is_covered().unwrap_or(false)
}
