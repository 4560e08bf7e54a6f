//! Relabel rules of the file to those of crate `relabel`.

use relabel::{Action, NameValidation, Rule, RuleConfig};

use super::schema::{Record, Value};

/// Checks the name of an action; an absent one is found by [`rule`].
pub(super) fn check_action(text: &str) -> Result<(), String> {
    text.parse::<Action>().map(|_| ()).map_err(|error| error.to_string())
}

/// Checks a list of rules; null ones are reported by the section that holds the list.
pub(super) fn check(rules: &[Value], validation: NameValidation) -> Result<(), String> {
    configs(rules, validation).map(|_| ())
}

/// The rules of a list.
pub(super) fn configs(rules: &[Value], validation: NameValidation) -> Result<Vec<RuleConfig>, String> {
    let records = rules.iter().filter_map(|value| match value {
        Value::Record(record) => Some(record),
        _ => None,
    });
    records.map(|record| rule(record, validation)).collect()
}

/// The rules of a list, ready to run.
pub(super) fn compile(rules: &[RuleConfig]) -> Result<Vec<Rule>, String> {
    rules.iter().map(|rule| Rule::new(rule.clone()).map_err(|error| error.to_string())).collect()
}

fn rule(record: &Record, validation: NameValidation) -> Result<RuleConfig, String> {
    let action = match record.str("action") {
        "" => return Err("relabel action cannot be empty".to_owned()),
        text => text.parse::<Action>().map_err(|error| error.to_string())?,
    };
    let rule = RuleConfig {
        source_labels: record.strings("source_labels"),
        separator: record.str("separator").to_owned(),
        regex: record.str("regex").to_owned(),
        modulus: record.uint("modulus"),
        target_label: record.str("target_label").to_owned(),
        replacement: record.str("replacement").to_owned(),
        action,
        name_validation: validation,
    };
    rule.validate().map_err(|error| error.to_string())?;
    Ok(rule)
}
