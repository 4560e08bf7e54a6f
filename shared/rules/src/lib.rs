//! Recording and alerting rules: their files, their templates, their evaluation, their unit tests.
//!
//! A [`RuleFile`] is parsed with the reference's checks and texts. A [`Group`] holds the state of one group's rules
//! and evaluates them, in order, over a source of series; what it gives is handed to the caller to store and to send.
//! [`unit_test`] runs the files that `promtool test rules` reads.
//!
//! Invariants:
//! - a group's evaluation is a function of its state, its time and the source; it reads no clock but for how long it
//!   took, and does no I/O but through the source;
//! - a rule sees what the rules before it gave in the same evaluation (see `overlay`);
//! - an error of the source fails the rule: nothing partial is recorded.
//!
//! Deliberately absent: when groups are evaluated and by whom, how samples are stored, how alerts are sent.
#![warn(missing_docs)]

mod alert;
mod dependency;
mod file;
mod group;
mod lint;
mod overlay;
mod strict;
mod template;
pub mod unit_test;

pub use alert::{Alert, AlertState};
pub use file::{AlertSpec, GroupSpec, Options, RuleFile, RuleKind, RuleSpec, parse};
pub use group::{Environment, Evaluation, Group, Health, RestoreOptions, RuleState};
pub use lint::{Duplicate, duplicates};
pub use template::{AlertData, Context, TEXT_BYTES_MAX, Template};

/// Returns the path of the page that shows an expression as a table, as an alert's `generatorURL` names it.
#[must_use]
pub fn table_link(expr: &str) -> String {
    template::link(expr, 1)
}
