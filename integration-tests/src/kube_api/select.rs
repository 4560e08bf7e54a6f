//! Which objects a request is about.

use std::collections::HashMap;

use serde_json::Value;

/// A kind of objects, in one namespace or all, with certain labels and fields.
#[derive(Debug, Clone, Default)]
pub(super) struct Selection {
    pub(super) resource: String,
    pub(super) namespace: Option<String>,
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

/// One part of a selector.
#[derive(Debug, Clone)]
enum Requirement {
    Is(String, String),
    IsNot(String, String),
    Exists(String),
    IsAbsent(String),
}

impl Selection {
    pub(super) fn new(resource: &str, namespace: Option<&str>, query: &HashMap<String, String>) -> Self {
        let requirements = |name: &str| query.get(name).map_or_else(Vec::new, |text| requirements(text));
        Self {
            resource: resource.to_owned(),
            namespace: namespace.map(str::to_owned),
            labels: requirements("labelSelector"),
            fields: requirements("fieldSelector"),
        }
    }

    pub(super) fn takes(&self, object: &Value) -> bool {
        let is_there =
            self.namespace.as_deref().is_none_or(|wanted| object["metadata"]["namespace"] == wanted);
        let label = |name: &str| object["metadata"]["labels"][name].as_str().map(str::to_owned);
        let field = |path: &str| {
            let value = path.split('.').fold(object, |value, part| &value[part]);
            value.as_str().map(str::to_owned)
        };
        is_there
            && self.labels.iter().all(|requirement| requirement.is_met(label))
            && self.fields.iter().all(|requirement| requirement.is_met(field))
    }
}

impl Requirement {
    fn is_met(&self, value: impl Fn(&str) -> Option<String>) -> bool {
        match self {
            Self::Is(name, wanted) => value(name).as_deref() == Some(wanted),
            Self::IsNot(name, unwanted) => value(name).as_deref() != Some(unwanted),
            Self::Exists(name) => value(name).is_some(),
            Self::IsAbsent(name) => value(name).is_none(),
        }
    }
}

/// Reads `a=b,c!=d,e,!f`.
fn requirements(text: &str) -> Vec<Requirement> {
    let requirement = |part: &str| {
        if let Some((name, value)) = part.split_once("!=") {
            Requirement::IsNot(name.to_owned(), value.to_owned())
        } else if let Some((name, value)) = part.split_once('=') {
            Requirement::Is(name.to_owned(), value.trim_start_matches('=').to_owned())
        } else if let Some(name) = part.strip_prefix('!') {
            Requirement::IsAbsent(name.to_owned())
        } else {
            Requirement::Exists(part.to_owned())
        }
    };
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(requirement).collect()
}
