//! What is valid and yet likely a mistake.

use std::collections::BTreeSet;

use model::Labels;

use crate::file::RuleFile;

/// Rules of one name and the same labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duplicate {
    /// The name of the series or of the alert.
    pub name: String,
    /// The labels that are set.
    pub labels: Labels,
}

/// Finds rules that are there more than once, in order.
#[must_use]
pub fn duplicates(file: &RuleFile) -> Vec<Duplicate> {
    let (mut seen, mut doubled) = (BTreeSet::new(), BTreeSet::new());
    for rule in file.groups.iter().flat_map(|group| &group.rules) {
        let key = Duplicate { name: rule.name.clone(), labels: rule.labels.clone() };
        if !seen.insert(key.clone()) {
            doubled.insert(key);
        }
    }
    doubled.into_iter().collect()
}
