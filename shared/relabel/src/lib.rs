//! Relabel rules: how Prometheus rewrites and selects label sets.
//!
//! A [`RuleConfig`] is the rule as it stands in a config file and travels between services; a [`Rule`] is the same,
//! checked and compiled. [`apply`] runs rules over a label set.
//!
//! Deliberately absent: YAML (discovery maps it to [`RuleConfig`]) and where rules apply.
#![warn(missing_docs)]

mod config;
mod rule;
mod template;

pub use config::{Action, Error, NameValidation, Result, RuleConfig};
pub use rule::{Rule, apply, apply_to};
