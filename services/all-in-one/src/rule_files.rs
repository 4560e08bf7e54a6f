//! `tributary check rules ...` and `tributary test rules ...`: what promtool's do, with its texts and statuses.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use rules::unit_test::{self, FILE_BYTES_MAX, Settings};
use rules::{Duplicate, Options, RuleFile};

use crate::flags::{CheckRules, Lint, TestRules};

/// Status when a lint that is to be fatal finds something.
const EXIT_LINT: u8 = 3;

/// Checks rule files and prints what is wrong.
pub(crate) fn check(rules: &CheckRules) -> ExitCode {
    if let Some(missing) = missing(&rules.files) {
        return missing;
    }
    let options = Options {
        syntax: promql_syntax::Options::from_features(&rules.features),
        ignore_unknown_fields: rules.ignore_unknown_fields,
        ..Options::default()
    };
    let texts: Vec<(String, Result<String, String>)> = if rules.files.is_empty() {
        vec![("standard input".to_owned(), standard_input())]
    } else {
        rules.files.iter().map(|file| (file.clone(), unit_test::read_file(file))).collect()
    };
    let (mut is_good, mut is_clean) = (true, true);
    for (name, text) in texts {
        say(&format!("Checking {name}\n"));
        let parsed = text.map_err(|fault| vec![fault]).and_then(|text| rules::parse(&text, &options));
        match parsed {
            Err(faults) => {
                is_good = false;
                let told = if rules.files.is_empty() { String::new() } else { format!("{name}: ") };
                let faults: String = faults.iter().map(|fault| format!("{told}{fault}\n")).collect();
                complain(&format!("  FAILED:\n{faults}"));
            }
            Ok(file) => {
                let doubled = if rules.lint == Lint::None { Vec::new() } else { rules::duplicates(&file) };
                if doubled.is_empty() {
                    say(&format!("  SUCCESS: {} rules found\n", count(&file)));
                } else {
                    is_clean = false;
                    complain(&format!("  FAILED:\n{}\n", lint_text(&doubled)));
                }
                say("\n");
            }
        }
    }
    match (is_good, is_clean) {
        (false, _) => ExitCode::FAILURE,
        (true, false) if rules.lint_fatal => ExitCode::from(EXIT_LINT),
        _ => ExitCode::SUCCESS,
    }
}

fn count(file: &RuleFile) -> usize {
    file.groups.iter().map(|group| group.rules.len()).sum()
}

fn lint_text(doubled: &[Duplicate]) -> String {
    let one = |rule: &Duplicate| {
        let labels: String = rule.labels.iter().map(|(name, value)| format!("\t{name}: {value}\n")).collect();
        format!("Metric: {}\nLabel(s):\n{labels}", rule.name)
    };
    let all: String = doubled.iter().map(one).collect();
    let count = doubled.len();
    format!(
        "lint error {count} duplicate rule(s) found.\n{all}Might cause inconsistency while recording expressions"
    )
}

/// Runs the unit tests of files and prints how they went.
pub(crate) fn test(tests: &TestRules) -> ExitCode {
    if let Some(missing) = missing(&tests.files) {
        return missing;
    }
    let settings = Settings {
        run: tests.run.clone(),
        files: Options {
            syntax: promql_syntax::Options::from_features(&tests.features),
            ignore_unknown_fields: tests.ignore_unknown_fields,
            ..Options::default()
        },
        delayed_name_removal: tests.features.iter().any(|f| f == "promql-delayed-name-removal"),
    };
    let mut is_good = true;
    for file in &tests.files {
        let report = unit_test::run(file, &settings);
        for warning in &report.warnings {
            complain(&format!("{warning}\n"));
        }
        if report.faults.is_empty() {
            say("  SUCCESS\n");
        } else {
            is_good = false;
            complain("  FAILED:\n");
            for fault in &report.faults {
                complain(&format!("{fault}\n"));
                say("\n");
            }
        }
        say("\n");
    }
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says which file is missing, as promtool does before it does anything.
fn missing(files: &[String]) -> Option<ExitCode> {
    let missing = files.iter().find(|file| !Path::new(file).exists())?;
    complain(&format!("tributary: error: path '{missing}' does not exist, try --help\n"));
    Some(ExitCode::FAILURE)
}

fn standard_input() -> Result<String, String> {
    let mut text = String::new();
    let read = std::io::stdin().take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|error| format!("read standard input: {error}"))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("standard input exceeds {FILE_BYTES_MAX} bytes"));
    }
    Ok(text)
}

/// Nobody is left to be told of a closed stdout.
fn say(text: &str) {
    drop(std::io::stdout().write_all(text.as_bytes()));
}

/// Nobody is left to be told of a closed stderr.
fn complain(text: &str) {
    drop(std::io::stderr().write_all(text.as_bytes()));
}
