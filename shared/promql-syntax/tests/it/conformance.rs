//! Prometheus's own scripts, which lie outside of the repository: every query and every series in them parses.

use std::path::{Path, PathBuf};

use promql_syntax::{Options, parse_expr, parse_series_description, parse_start_timestamps};

use crate::assert_prints_back;

/// Returns the folder of the scripts, or says that the test is skipped. With CI=true it has to be there.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test asks for CI and says that it is skipped"
)]
fn folder(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance");
    let path = root.join(name);
    if path.is_dir() {
        return Some(path);
    }
    let is_ci = std::env::var("CI").is_ok_and(|v| v == "true");
    assert!(!is_ci, "{} is missing", path.display());
    println!("SKIPPED conformance ({} is missing)", path.display());
    None
}

/// The query of an `eval` line, if it is one.
fn query_of(line: &str) -> Option<&str> {
    let (command, rest) = line.split_once(' ')?;
    if !matches!(command, "eval" | "eval_fail" | "eval_warn" | "eval_info" | "eval_ordered") {
        return None;
    }
    let words = if rest.starts_with("instant") { 3 } else { 7 };
    (0..words).try_fold(rest, |rest, _| rest.split_once(' ').map(|(_, rest)| rest.trim_start()))
}

#[test]
fn every_query_and_series_of_the_scripts_parses_and_prints_back() {
    let Some(folder) = folder("promql") else { return };
    let (mut queries, mut series) = (0, 0);
    for entry in std::fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.extension().is_none_or(|e| e != "test") {
            continue;
        }
        let script = std::fs::read_to_string(&path).expect("a readable script");
        let mut in_load = false;
        for (number, line) in script.lines().enumerate() {
            let line = line.trim();
            let place = format!("{}:{}", path.display(), number + 1);
            if line.is_empty() || line.starts_with('#') {
                in_load = false;
            } else if let Some(query) = query_of(line) {
                in_load = false;
                queries += 1;
                if let Err(error) = parse_expr(query, &Options::all()) {
                    panic!("{place}: {query}: {error}");
                }
                assert_prints_back(query);
            } else if line.to_ascii_lowercase().starts_with("load") {
                in_load = true;
            } else if in_load {
                series += 1;
                let parsed = match parse_start_timestamps(line) {
                    Ok(None) => parse_series_description(line).map(|_| ()),
                    other => other.map(|_| ()),
                };
                if let Err(error) = parsed {
                    panic!("{place}: {line}: {error}");
                }
            } else if line.starts_with('{') || (line.contains('{') && !line.starts_with("expect")) {
                series += 1;
                if let Err(error) = parse_series_description(line) {
                    panic!("{place}: {line}: {error}");
                }
            }
        }
    }
    assert!(queries > 500 && series > 500, "only {queries} queries and {series} series were found");
}

/// The arguments of the query templates, with a few values each.
const ARGUMENTS: [(&str, &[&str]); 12] = [
    ("range", &["1s", "15s", "1h"]),
    ("offset", &["1m", "10m"]),
    ("simpleAggrOp", &["sum", "stdvar"]),
    ("simpleTimeAggrOp", &["sum", "absent", "last"]),
    ("topBottomOp", &["topk", "bottomk"]),
    ("quantile", &["-0.5", "0.95", "1.5"]),
    ("arithBinOp", &["+", "-", "*", "/", "%", "^"]),
    ("compBinOp", &["==", "!=", "<", ">", "<=", ">="]),
    ("binOp", &["+", "=="]),
    ("simpleMathFunc", &["abs", "log10"]),
    ("extrapolatedRateFunc", &["delta", "rate"]),
    ("dateFunc", &["day_of_month", "year"]),
];
const FUNCTIONS: [(&str, &[&str]); 2] =
    [("clampFunc", &["clamp_min"]), ("instantRateFunc", &["idelta", "irate"])];

fn variants(template: &str) -> Vec<String> {
    let mut queries = vec![template.to_owned()];
    for (name, values) in ARGUMENTS.into_iter().chain(FUNCTIONS) {
        let hole = format!("{{{{.{name}}}}}");
        queries = queries
            .iter()
            .flat_map(|query| {
                let count = if query.contains(&hole) { values.len() } else { 1 };
                let hole = hole.clone();
                values.iter().take(count).map(move |value| query.replace(&hole, value))
            })
            .collect();
    }
    queries
}

/// The queries marked `should_fail` fail when they are evaluated, not before.
#[test]
fn every_query_of_the_compliance_suite_parses_and_prints_back() {
    let Some(folder) = folder("promql-queries") else { return };
    let file = std::fs::read_to_string(folder.join("promql-test-queries.yml")).expect("a readable file");
    let mut count = 0;
    for line in file.lines().map(str::trim) {
        let Some(quoted) = line.strip_prefix("- query: ") else { continue };
        let quote = &quoted[..1];
        let template = quoted.trim_matches(|c| quote.starts_with(c)).replace("''", "'");
        for query in variants(&template) {
            count += 1;
            assert_prints_back(&query);
        }
    }
    assert!(count > 100, "only {count} queries were found");
}
