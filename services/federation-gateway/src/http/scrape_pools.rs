//! `/api/v1/scrape_pools`, `/api/v1/scrape_pools/config` and `/api/v1/targets/relabel_steps`: what the configuration says
//! of a scrape pool.
//!
//! All of it is read from the configuration as discovery shows it: with all defaults, and without secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http_api::{ApiError, ErrorType};
use model::Labels;
use model::number::Quoted;
use relabel::{Action, NameValidation, Rule, RuleConfig};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::series::LabelSet;
use super::{Form, fail, succeed};
use crate::gateway::Gateway;

/// `GET /api/v1/scrape_pools`.
pub(super) async fn names(State(gateway): State<Arc<Gateway>>, _: Form) -> Response {
    match gateway.prometheus_config() {
        Ok(config) => {
            let pools: BTreeSet<&String> = config.message.scrape_pools.iter().collect();
            succeed(&json!({ "scrapePools": pools }), &[])
        }
        Err(error) => fail(error),
    }
}

/// `GET /api/v1/scrape_pools/config`.
pub(super) async fn config(State(gateway): State<Arc<Gateway>>, form: Form) -> Response {
    match yaml_of(&gateway, &form) {
        Ok(yaml) => succeed(&json!({ "yaml": yaml }), &[]),
        Err(error) => fail(error),
    }
}

/// `GET /api/v1/targets/relabel_steps`.
pub(super) async fn relabel_steps(State(gateway): State<Arc<Gateway>>, form: Form) -> Response {
    match steps(&gateway, &form) {
        Ok(steps) => succeed(&json!({ "steps": steps }), &[]),
        Err(error) => fail(error),
    }
}

fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorType::BadData, message)
}

fn yaml_of(gateway: &Gateway, form: &Form) -> Result<String, ApiError> {
    let pool = form.params.get("scrapePool");
    if pool.is_empty() {
        return Err(bad("no scrapePool parameter provided"));
    }
    let config = gateway.prometheus_config()?;
    let unknown = || bad(format!("error retrieving scrape config: scrape pool {} not found", Quoted(pool)));
    section(&config.message.yaml, &config.message.scrape_pools, pool).ok_or_else(unknown)
}

/// Cuts a scrape config out of the configuration. The file lists them in the order of their names' list, each as an item
/// whose lines are indented by two.
fn section(yaml: &str, pools: &[String], pool: &str) -> Option<String> {
    let index = pools.iter().position(|name| name == pool)?;
    let lines = yaml.lines().skip_while(|line| *line != "scrape_configs:").skip(1);
    let lines = lines.take_while(|line| line.starts_with("- ") || line.starts_with("  "));
    let mut items: Vec<String> = Vec::new();
    for line in lines {
        if line.starts_with("- ") {
            items.push(String::new());
        }
        let item = items.last_mut()?;
        item.push_str(line.get(2..)?);
        item.push('\n');
    }
    items.into_iter().nth(index)
}

/// What is of use here of a scrape config.
#[derive(Debug, Deserialize)]
struct Pool {
    #[serde(default)]
    metric_name_validation_scheme: String,
    #[serde(default)]
    relabel_configs: Vec<ShownRule>,
}

/// A rule as the configuration and Prometheus's JSON have it.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
struct ShownRule {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    source_labels: Vec<String>,
    #[serde(default = "separator", skip_serializing_if = "String::is_empty")]
    separator: String,
    #[serde(default = "regex")]
    regex: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    modulus: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    target_label: String,
    #[serde(default = "replacement", skip_serializing_if = "String::is_empty")]
    replacement: String,
    #[serde(default = "action")]
    action: String,
}

fn separator() -> String {
    RuleConfig::SEPARATOR.to_owned()
}

fn regex() -> String {
    RuleConfig::REGEX.to_owned()
}

fn replacement() -> String {
    RuleConfig::REPLACEMENT.to_owned()
}

fn action() -> String {
    Action::Replace.as_str().to_owned()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_zero(modulus: &u64) -> bool {
    *modulus == 0
}

/// A rule and what the labels are behind it.
#[derive(Debug, Serialize)]
struct Step {
    rule: ShownRule,
    output: LabelSet,
    keep: bool,
}

fn steps(gateway: &Gateway, form: &Form) -> Result<Vec<Step>, ApiError> {
    let yaml = yaml_of(gateway, form)?;
    let text = form.params.get("labels");
    if text.is_empty() {
        return Err(bad("no labels parameter provided"));
    }
    let labels: BTreeMap<String, String> =
        serde_json::from_str(text).map_err(|e| bad(format!("error parsing labels: {e}")))?;
    run(&yaml, &Labels::from_pairs(labels)).map_err(|e| ApiError::new(ErrorType::Internal, e))
}

fn run(yaml: &str, labels: &Labels) -> Result<Vec<Step>, String> {
    let pool: Pool = serde_saphyr::from_str(yaml).map_err(|e| e.to_string())?;
    let name_validation = match pool.metric_name_validation_scheme.as_str() {
        "legacy" => NameValidation::Legacy,
        _ => NameValidation::Utf8,
    };
    let mut labels = Some(labels.clone());
    let mut steps = Vec::with_capacity(pool.relabel_configs.len());
    for rule in pool.relabel_configs {
        let compiled = compile(&rule, name_validation).map_err(|e| e.to_string())?;
        // What a rule has dropped is not looked at by those behind it.
        labels = labels.and_then(|labels| relabel::apply(&labels, &[compiled]));
        let output = LabelSet(labels.clone().unwrap_or_default());
        steps.push(Step { rule, output, keep: labels.is_some() });
    }
    Ok(steps)
}

fn compile(rule: &ShownRule, name_validation: NameValidation) -> relabel::Result<Rule> {
    let ShownRule { source_labels, separator, regex, modulus, target_label, replacement, action } =
        rule.clone();
    let action = action.parse()?;
    Rule::new(RuleConfig {
        source_labels,
        separator,
        regex,
        modulus,
        target_label,
        replacement,
        action,
        name_validation,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "global:\n  scrape_interval: 1m\nscrape_configs:\n- job_name: a\n  scheme: http\n- job_name: \"b: c\"\n  \
        relabel_configs:\n  - source_labels: [__address__, x]\n    separator: ;\n    regex: (.*):\\d+;(.*)\n    target_label: host\n    \
        replacement: $1-$2\n    action: replace\n  - source_labels: [host]\n    separator: ;\n    regex: db.*\n    action: drop\n  \
        - regex: __.*\n    action: labeldrop\nstorage: {}\n";

    #[test]
    fn a_pool_is_a_section_of_the_file() {
        let pools = ["a".to_owned(), "b: c".to_owned()];
        let of = |pool| section(YAML, &pools, pool);
        assert_eq!(of("a").as_deref(), Some("job_name: a\nscheme: http\n"));
        let second = of("b: c").expect("it is there");
        assert!(
            second.starts_with("job_name: \"b: c\"\nrelabel_configs:\n- source_labels: [__address__, x]\n"),
            "{second}"
        );
        assert!(second.ends_with("- regex: __.*\n  action: labeldrop\n"), "{second}");
        assert_eq!(of("c"), None);
    }

    #[test]
    fn each_rule_is_a_step() {
        let yaml = section(YAML, &["a".to_owned(), "b".to_owned()], "b").expect("it is there");
        let shown = |labels: &[(&str, &str)]| {
            let steps = run(&yaml, &Labels::from_pairs(labels.iter().copied())).expect("valid rules");
            steps.iter().map(|s| (s.output.0.to_string(), s.keep)).collect::<Vec<_>>()
        };
        assert_eq!(
            shown(&[("__address__", "web:80"), ("x", "y")]),
            [
                (r#"{__address__="web:80", host="web-y", x="y"}"#.to_owned(), true),
                (r#"{__address__="web:80", host="web-y", x="y"}"#.to_owned(), true),
                (r#"{host="web-y", x="y"}"#.to_owned(), true),
            ]
        );
        let dropped = shown(&[("__address__", "db1:80")]);
        assert_eq!(
            (dropped[0].1, &dropped[1..]),
            (true, &[("{}".to_owned(), false), ("{}".to_owned(), false)][..])
        );
        let steps = run(&yaml, &Labels::empty()).expect("valid rules");
        assert_eq!(
            serde_json::to_string(&steps[1].rule).expect("JSON"),
            r#"{"source_labels":["host"],"separator":";","regex":"db.*","replacement":"$1","action":"drop"}"#
        );
    }
}
