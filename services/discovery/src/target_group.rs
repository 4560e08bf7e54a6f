//! Target groups: what service discovery finds.

use model::Labels;

/// The label that holds a target's host and port.
pub const ADDRESS: &str = "__address__";

/// Targets that were found together, with the labels they share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetGroup {
    /// What the group is called within its provider; a later group of the same source replaces it.
    pub source: String,
    /// The addresses.
    pub addresses: Vec<String>,
    /// Labels of all of them.
    pub labels: Labels,
}

impl TargetGroup {
    /// Puts a group together.
    pub fn new(
        source: impl Into<String>,
        addresses: Vec<String>,
        labels: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        Self { source: source.into(), addresses, labels: Labels::from_pairs(labels) }
    }
}
