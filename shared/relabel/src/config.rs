//! A rule as it is configured, its defaults and what is wrong with it.

use std::fmt;
use std::str::FromStr;

use model::labels::is_legacy_label_name;
use model::matcher::PatternError;
use model::number::Quoted;

/// A rule that cannot be used, in Prometheus's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The action has no such name.
    #[error("unknown relabel action {}", Quoted(.0))]
    UnknownAction(String),
    /// An action that is there but empty.
    #[error("relabel action cannot be empty")]
    NoAction,
    /// hashmod without a modulus.
    #[error("relabel configuration for hashmod requires non-zero modulus")]
    NoModulus,
    /// The action writes or compares with a label, and none is named.
    #[error("relabel configuration for {0} action requires 'target_label' value")]
    NoTarget(Action),
    /// The target cannot be a label name.
    #[error("{} is invalid 'target_label' for {action} action", Quoted(.target))]
    InvalidTarget {
        /// The text given.
        target: String,
        /// The action.
        action: Action,
    },
    /// A replacement where none has a meaning.
    #[error("'replacement' can not be set for {0} action")]
    UnwantedReplacement(Action),
    /// The replacement of labelmap cannot be a label name.
    #[error("{} is invalid 'replacement' for {action} action", Quoted(.replacement))]
    InvalidReplacement {
        /// The text given.
        replacement: String,
        /// The action.
        action: Action,
    },
    /// keepequal or dropequal with more than they take.
    #[error("{0} action requires only 'source_labels' and `target_label`, and no other fields")]
    OnlySourceAndTarget(Action),
    /// labeldrop or labelkeep with more than they take.
    #[error("{0} action requires only 'regex', and no other fields")]
    OnlyRegex(Action),
    /// A source label that cannot be a label name.
    #[error("{} is not a valid label name", Quoted(.0))]
    InvalidSource(String),
    /// The pattern does not compile.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

impl Error {
    /// Says what sort of failure this is: always the configuration's fault.
    #[must_use]
    pub const fn kind(&self) -> fault::Kind {
        fault::Kind::Invalid
    }
}

/// The result of checking a rule.
pub type Result<T> = std::result::Result<T, Error>;

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Action {
    /// Writes the expanded replacement to the expanded target where the pattern matches.
    #[default]
    Replace,
    /// Drops the label set unless the pattern matches.
    Keep,
    /// Drops the label set where the pattern matches.
    Drop,
    /// Drops the label set unless the joined sources equal the target.
    KeepEqual,
    /// Drops the label set where the joined sources equal the target.
    DropEqual,
    /// Writes a hash of the sources, modulo a number, to the target.
    HashMod,
    /// Copies labels whose names match to the expanded replacement.
    LabelMap,
    /// Removes labels whose names match.
    LabelDrop,
    /// Removes labels whose names do not match.
    LabelKeep,
    /// Writes the joined sources in lower case to the target.
    Lowercase,
    /// Writes the joined sources in upper case to the target.
    Uppercase,
}

impl Action {
    /// Every action, in the order of Prometheus's documentation.
    pub const ALL: [Self; 11] = [
        Self::Replace,
        Self::Keep,
        Self::Drop,
        Self::KeepEqual,
        Self::DropEqual,
        Self::HashMod,
        Self::LabelMap,
        Self::LabelDrop,
        Self::LabelKeep,
        Self::Lowercase,
        Self::Uppercase,
    ];

    /// Returns the name used in config files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Keep => "keep",
            Self::Drop => "drop",
            Self::KeepEqual => "keepequal",
            Self::DropEqual => "dropequal",
            Self::HashMod => "hashmod",
            Self::LabelMap => "labelmap",
            Self::LabelDrop => "labeldrop",
            Self::LabelKeep => "labelkeep",
            Self::Lowercase => "lowercase",
            Self::Uppercase => "uppercase",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Action {
    type Err = Error;

    /// Reads a name in any case.
    fn from_str(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::NoAction);
        }
        let lower = text.to_lowercase();
        Self::ALL
            .into_iter()
            .find(|a| a.as_str() == lower)
            .ok_or_else(|| Error::UnknownAction(text.to_owned()))
    }
}

/// Which label names are allowed: `metric_name_validation_scheme`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum NameValidation {
    /// Any text but the empty one.
    #[default]
    Utf8,
    /// `[a-zA-Z_][a-zA-Z0-9_]*`.
    Legacy,
}

impl NameValidation {
    /// Says whether a label may have this name.
    #[must_use]
    pub fn is_label_name(self, name: &str) -> bool {
        match self {
            Self::Utf8 => !name.is_empty(),
            Self::Legacy => is_legacy_label_name(name),
        }
    }
}

/// A rule as it is configured. The fields are those of Prometheus's `relabel_config`, so that a rule can be read from
/// a file, sent and compared; [`crate::Rule::new`] checks it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RuleConfig {
    /// The labels whose values are joined; none joins to the empty string.
    pub source_labels: Vec<String>,
    /// Stands between the joined values.
    pub separator: String,
    /// What the joined values (or label names) are matched against, from end to end; `.` matches newlines.
    pub regex: String,
    /// The modulus of hashmod.
    pub modulus: u64,
    /// The label to write to or compare with; may refer to groups in a replace rule.
    pub target_label: String,
    /// The value to write (or name to copy to); may refer to groups.
    pub replacement: String,
    /// What the rule does.
    pub action: Action,
    /// Which names the rule may write.
    pub name_validation: NameValidation,
}

impl RuleConfig {
    /// The default separator.
    pub const SEPARATOR: &str = ";";
    /// The default pattern.
    pub const REGEX: &str = "(.*)";
    /// The default replacement.
    pub const REPLACEMENT: &str = "$1";

    /// Checks everything but the pattern, in the order in which Prometheus does.
    ///
    /// # Errors
    /// The first rule of the configuration that is broken.
    pub fn validate(&self) -> Result<()> {
        use Action::{
            DropEqual, HashMod, KeepEqual, LabelDrop, LabelKeep, LabelMap, Lowercase, Replace, Uppercase,
        };
        let action = self.action;
        let is_name = |name: &str| self.name_validation.is_label_name(name);
        let invalid_target = || Error::InvalidTarget { target: self.target_label.clone(), action };

        // Whatever the scheme, a rule may read any label that can exist.
        if let Some(bad) = self.source_labels.iter().find(|l| !NameValidation::Utf8.is_label_name(l)) {
            return Err(Error::InvalidSource(bad.clone()));
        }
        if action == HashMod && self.modulus == 0 {
            return Err(Error::NoModulus);
        }
        let has_fixed_target = matches!(action, HashMod | Lowercase | Uppercase | KeepEqual | DropEqual);
        if (action == Replace || has_fixed_target) && self.target_label.is_empty() {
            return Err(Error::NoTarget(action));
        }
        if action == Replace && !self.is_name_template(&self.target_label) {
            return Err(invalid_target());
        }
        if has_fixed_target && action != HashMod {
            if !is_name(&self.target_label) {
                return Err(invalid_target());
            }
            if self.replacement != Self::REPLACEMENT {
                return Err(Error::UnwantedReplacement(action));
            }
        }
        if action == LabelMap && !self.is_name_template(&self.replacement) {
            return Err(Error::InvalidReplacement { replacement: self.replacement.clone(), action });
        }
        if action == HashMod && !is_name(&self.target_label) {
            return Err(invalid_target());
        }

        let has_other_settings =
            self.modulus != 0 || self.separator != Self::SEPARATOR || self.replacement != Self::REPLACEMENT;
        if matches!(action, DropEqual | KeepEqual) && (self.regex != Self::REGEX || has_other_settings) {
            return Err(Error::OnlySourceAndTarget(action));
        }
        if matches!(action, LabelDrop | LabelKeep)
            && (!self.source_labels.is_empty() || !self.target_label.is_empty() || has_other_settings)
        {
            return Err(Error::OnlyRegex(action));
        }
        Ok(())
    }

    /// Says whether a text can become a label name once its references are expanded.
    fn is_name_template(&self, text: &str) -> bool {
        match self.name_validation {
            // `$` and braces are themselves allowed in UTF-8 names.
            NameValidation::Utf8 => !text.is_empty(),
            NameValidation::Legacy => is_legacy_template(text),
        }
    }
}

impl Default for RuleConfig {
    fn default() -> Self {
        Self {
            source_labels: Vec::new(),
            separator: Self::SEPARATOR.to_owned(),
            regex: Self::REGEX.to_owned(),
            modulus: 0,
            target_label: String::new(),
            replacement: Self::REPLACEMENT.to_owned(),
            action: Action::default(),
            name_validation: NameValidation::default(),
        }
    }
}

/// Says whether a text is a legacy label name in which `$name` and `${name}` may stand for any part.
fn is_legacy_template(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut rest = text.as_bytes();
    let mut is_first = true;
    while let Some((&byte, after)) = rest.split_first() {
        rest = if byte == b'$' {
            let (body, is_braced) = match after.strip_prefix(b"{") {
                Some(body) => (body, true),
                None => (after, false),
            };
            let length = body.iter().take_while(|b| is_word(**b)).count();
            let tail = &body[length..];
            let tail = if is_braced { tail.strip_prefix(b"}") } else { Some(tail) };
            match tail {
                Some(tail) if length > 0 => tail,
                _ => return false,
            }
        } else if is_word(byte) && !(is_first && byte.is_ascii_digit()) {
            after
        } else {
            return false;
        };
        is_first = false;
    }
    !is_first
}

#[cfg(test)]
mod tests;
