//! Target groups: what service discovery finds.

use std::collections::BTreeMap;

use model::Labels;
use serde::Deserialize;

/// The label that holds a target's host and port.
pub const ADDRESS: &str = "__address__";

/// Targets that were found together, with the labels they share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetGroup {
    /// What the group is called within its provider; a later group of the same source replaces it.
    pub source: String,
    /// The targets, each with its address and what it has for itself; these labels win over those of the group.
    pub targets: Vec<Labels>,
    /// Labels of all of them.
    pub labels: Labels,
}

/// A group as JSON has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonGroup {
    #[serde(default)]
    targets: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

impl TargetGroup {
    /// Puts a group together whose targets have an address and nothing else.
    pub fn new(
        source: impl Into<String>,
        addresses: Vec<String>,
        labels: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let target = |address| Labels::from_pairs([(ADDRESS.to_owned(), address)]);
        Self {
            source: source.into(),
            targets: addresses.into_iter().map(target).collect(),
            labels: Labels::from_pairs(labels),
        }
    }
}

/// Reads a list of groups in JSON, as files and servers hold it; `None` for a null. Sources are left empty.
///
/// # Errors
/// What is wrong with the text, and where.
pub(crate) fn json_groups(text: &[u8]) -> Result<Vec<Option<TargetGroup>>, String> {
    let groups: Vec<Option<JsonGroup>> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let group = |group: JsonGroup| TargetGroup::new("", group.targets, group.labels);
    Ok(groups.into_iter().map(|item| item.map(group)).collect())
}
