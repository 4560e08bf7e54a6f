//! The labels that objects of every kind have.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use model::LabelsBuilder;

use super::Snapshot;
use super::watched::ObjectName;

/// The namespace of an object.
pub(super) const NAMESPACE: &str = "__meta_kubernetes_namespace";
const PREFIX: &str = "__meta_kubernetes_";

/// Sets an object's name, labels and annotations.
pub(super) fn set_object(labels: &mut LabelsBuilder, kind: &str, meta: &ObjectMeta) {
    labels.set(format!("{PREFIX}{kind}_name"), name(meta));
    set_labels_and_annotations(labels, kind, meta);
}

fn set_labels_and_annotations(labels: &mut LabelsBuilder, kind: &str, meta: &ObjectMeta) {
    for (what, pairs) in [("label", &meta.labels), ("annotation", &meta.annotations)] {
        for (key, value) in pairs.iter().flatten() {
            let key = sanitized(key);
            labels.set(format!("{PREFIX}{kind}_{what}_{key}"), value);
            labels.set(format!("{PREFIX}{kind}_{what}present_{key}"), "true");
        }
    }
}

/// Sets what `attach_metadata` asks for of a namespace.
pub(super) fn set_namespace(labels: &mut LabelsBuilder, namespace: &str, snapshot: &Snapshot) {
    let found = snapshot.namespaces.get(&ObjectName::new("", namespace));
    if let Some(found) = found.filter(|_| snapshot.attach.namespace) {
        set_labels_and_annotations(labels, "namespace", &found.metadata);
    }
}

/// Sets what `attach_metadata` asks for of a node.
pub(super) fn set_node(labels: &mut LabelsBuilder, node: Option<&str>, snapshot: &Snapshot) {
    let found = node.and_then(|node| snapshot.nodes.get(&ObjectName::new("", node)));
    if let Some(found) = found.filter(|_| snapshot.attach.node) {
        set_object(labels, "node", &found.metadata);
    }
}

/// The owner that manages an object.
pub(super) fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// A name as it may stand in a label name.
pub(super) fn sanitized(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

pub(super) fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

pub(super) fn namespace(meta: &ObjectMeta) -> &str {
    meta.namespace.as_deref().unwrap_or_default()
}

/// The name that a group has within its provider.
pub(super) fn source(kind: &str, meta: &ObjectMeta) -> String {
    format!("{kind}/{}/{}", namespace(meta), name(meta))
}
