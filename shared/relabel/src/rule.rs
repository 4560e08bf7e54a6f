//! Rules, compiled, and how they run.
//!
//! Invariants:
//! - a [`Rule`] has passed [`RuleConfig::validate`], so running it cannot fail;
//! - rules that go over all labels (labelmap, labeldrop, labelkeep) see the labels as they were before the rule.

use std::borrow::Cow;

use md5::{Digest, Md5};
use model::matcher::Pattern;
use model::{Labels, LabelsBuilder};

use crate::config::{Action, Result, RuleConfig};
use crate::template::Template;

/// A rule that is ready to run. Equal configurations make equal rules.
///
/// ```
/// use model::Labels;
/// use relabel::{Rule, RuleConfig, apply};
///
/// let rule = Rule::new(RuleConfig {
///     source_labels: vec!["__address__".into()],
///     regex: "(.*):.*".into(),
///     target_label: "host".into(),
///     ..RuleConfig::default()
/// })?;
/// let labels = Labels::from_pairs([("__address__", "db1:9100")]);
/// let labels = apply(&labels, &[rule]).expect("nothing is dropped");
/// assert_eq!(labels.value("host"), "db1");
/// # Ok::<(), relabel::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Rule {
    config: RuleConfig,
    pattern: Pattern,
    target: Template,
    replacement: Template,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.config == other.config
    }
}

impl Eq for Rule {}

impl Rule {
    /// Checks and compiles a rule.
    ///
    /// # Errors
    /// When a setting is wrong, see [`crate::Error`].
    pub fn new(config: RuleConfig) -> Result<Self> {
        config.validate()?;
        let pattern = Pattern::new(&config.regex)?;
        Ok(Self {
            target: Template::new(&config.target_label, pattern.regex()),
            replacement: Template::new(&config.replacement, pattern.regex()),
            pattern,
            config,
        })
    }

    /// Returns the configuration the rule was made from.
    #[must_use]
    pub const fn config(&self) -> &RuleConfig {
        &self.config
    }

    /// Runs the rule; returns false when the label set is to be dropped.
    fn run(&self, labels: &mut LabelsBuilder) -> bool {
        let target = self.config.target_label.as_str();
        match self.config.action {
            Action::Keep => return self.pattern.is_match(&self.source(labels)),
            Action::Drop => return !self.pattern.is_match(&self.source(labels)),
            Action::KeepEqual => return labels.get(target).unwrap_or_default() == self.source(labels),
            Action::DropEqual => return labels.get(target).unwrap_or_default() != self.source(labels),
            Action::Replace => self.replace(labels),
            Action::HashMod => {
                let value = self.hash_mod(&self.source(labels)).to_string();
                labels.set(target, value);
            }
            Action::Lowercase => {
                let value = to_lower(&self.source(labels));
                labels.set(target, value);
            }
            Action::Uppercase => {
                let value = to_upper(&self.source(labels));
                labels.set(target, value);
            }
            Action::LabelMap => self.map_labels(labels),
            Action::LabelDrop => self.remove_labels(labels, true),
            Action::LabelKeep => self.remove_labels(labels, false),
        }
        true
    }

    /// Joins the values of the source labels; an absent one is empty.
    fn source<'a>(&self, labels: &'a LabelsBuilder) -> Cow<'a, str> {
        match self.config.source_labels.as_slice() {
            [] => Cow::Borrowed(""),
            [one] => Cow::Borrowed(labels.get(one).unwrap_or_default()),
            [first, others @ ..] => {
                let mut joined = labels.get(first).unwrap_or_default().to_owned();
                for name in others {
                    joined.push_str(&self.config.separator);
                    joined.push_str(labels.get(name).unwrap_or_default());
                }
                Cow::Owned(joined)
            }
        }
    }

    fn replace(&self, labels: &mut LabelsBuilder) {
        let source = self.source(labels);
        if let (Some(target), Some(value)) = (self.target.as_literal(), self.replacement.as_literal()) {
            // Nothing to expand, so no need to know where the groups are.
            if self.pattern.is_match(&source) && self.config.name_validation.is_label_name(target) {
                set_or_remove(labels, target, value.to_owned());
            }
            return;
        }
        let Some(captures) = self.pattern.regex().captures(&source) else {
            return;
        };
        let target = self.target.expand(&captures);
        if !self.config.name_validation.is_label_name(&target) {
            return;
        }
        let value = self.replacement.expand(&captures);
        set_or_remove(labels, &target, value);
    }

    /// The last eight bytes of the MD5, as every version of Prometheus has it.
    fn hash_mod(&self, source: &str) -> u64 {
        let hash = Md5::digest(source.as_bytes());
        let last = hash[8..].iter().fold(0_u64, |n, b| n << 8 | u64::from(*b));
        last % self.config.modulus
    }

    fn map_labels(&self, labels: &mut LabelsBuilder) {
        let copies: Vec<(String, String)> = labels
            .iter()
            .filter_map(|(name, value)| {
                let captures = self.pattern.regex().captures(name)?;
                Some((self.replacement.expand(&captures), value.to_owned()))
            })
            .collect();
        for (name, value) in copies {
            labels.set(name, value);
        }
    }

    fn remove_labels(&self, labels: &mut LabelsBuilder, where_matching: bool) {
        let names: Vec<String> = labels
            .iter()
            .filter(|(name, _)| self.pattern.is_match(name) == where_matching)
            .map(|(name, _)| name.to_owned())
            .collect();
        for name in names {
            labels.remove(&name);
        }
    }
}

/// Runs rules in order over a label set; `None` when one of them drops it.
///
/// The result may be empty, which callers treat as dropped as well.
#[must_use]
pub fn apply(labels: &Labels, rules: &[Rule]) -> Option<Labels> {
    if rules.is_empty() {
        return Some(labels.clone());
    }
    let mut builder = labels.to_builder();
    apply_to(&mut builder, rules).then(|| builder.build())
}

/// Runs rules in order over labels under construction; returns false when one of them drops the label set, whose
/// labels are then left as they were at that rule.
pub fn apply_to(labels: &mut LabelsBuilder, rules: &[Rule]) -> bool {
    rules.iter().all(|rule| rule.run(labels))
}

fn set_or_remove(labels: &mut LabelsBuilder, name: &str, value: String) {
    if value.is_empty() {
        labels.remove(name);
    } else {
        labels.set(name, value);
    }
}

/// Go maps each character by itself to one character, where Rust knows the full mappings (`ß` to `SS`).
fn to_upper(text: &str) -> String {
    text.chars()
        .map(|c| {
            let mut mapped = c.to_uppercase();
            match (mapped.next(), mapped.next()) {
                (Some(one), None) => one,
                _ => c,
            }
        })
        .collect()
}

/// As [`to_upper`]; the one letter of two (`İ`) has its first as the simple mapping.
fn to_lower(text: &str) -> String {
    text.chars().map(|c| c.to_lowercase().next().unwrap_or(c)).collect()
}

#[cfg(test)]
mod tests;
