//! The crate against Prometheus's own rule files and unit tests.

use std::fs;
use std::path::PathBuf;

use relabel::NameValidation;
use rules::unit_test::{self, Settings};
use rules::{Options, parse};

/// The folder of Prometheus's rule files; `None`, and a word about it, where it is absent.
#[expect(clippy::print_stdout, reason = "a test says that it is skipped")]
fn conformance(part: &str) -> Option<PathBuf> {
    let folder =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance/rules").join(part);
    if folder.is_dir() {
        return Some(folder);
    }
    #[expect(clippy::disallowed_methods, reason = "where data may not be missing is said by the environment")]
    let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!is_ci, "conformance data is missing: {}", folder.display());
    println!("SKIPPED conformance (no {})", folder.display());
    None
}

#[test]
fn conformance_rule_files() {
    let (Some(rulefmt), Some(groups)) = (conformance("rulefmt"), conformance("groups")) else { return };
    // What Prometheus 3.5 says of those that it refuses.
    let refused = [
        (
            "bad_expr.bad.yaml",
            "5:15: group \"yolo\", rule 1, \"yolo\": could not parse expression: 1:6: parse error: expected type range vector in call to function \"rate\", got instant vector",
        ),
        (
            "bad_field.bad.yaml",
            "yaml: unmarshal errors:\n  line 8: field annotation not found in type rulefmt.Rule",
        ),
        ("duplicate_grp.bad.yaml", "0:0: groupname: \"yolo\" is repeated in the same file"),
        ("invalid_label_name.bad.yaml", "group \"yolo\", rule 1, \"hola\": invalid label name: __name__"),
        (
            "invalid_record_name.bad.yaml",
            "4:17: group \"yolo\", rule 1, \"strawberry{flavor=\\\"sweet\\\"}\": braces present in the recording rule name; should it be in expr?: strawberry{flavor=\"sweet\"}",
        ),
        (
            "no_rec_alert.bad.yaml",
            "0:0: 0:0: group \"yolo\", rule 1, \"\": one of 'record' or 'alert' must be set",
        ),
        ("noexpr.bad.yaml", "0:0: group \"yolo\", rule 1, \"ylo\": field 'expr' must be set in rule"),
        (
            "record_and_alert.bad.yaml",
            "4:17: 5:16: group \"yolo\", rule 1, \"Hello\": only one of 'record' and 'alert' must be set",
        ),
        (
            "record_and_for.bad.yaml",
            "4:17: group \"yolo\", rule 1, \"Hello\": invalid field 'for' in recording rule",
        ),
        (
            "record_and_keep_firing_for.bad.yaml",
            "4:17: group \"yolo\", rule 1, \"Hello\": invalid field 'keep_firing_for' in recording rule",
        ),
        (
            "invalid_rules.yaml",
            "yaml: unmarshal errors:\n  line 6: field unexpected_field not found in type rulefmt.Rule",
        ),
    ];
    let mut seen = 0;
    for entry in [rulefmt, groups].iter().flat_map(|folder| fs::read_dir(folder).expect("a folder")) {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let text = fs::read_to_string(&path).expect("a text");
        // Names of this kind tell with which rules for names they are read.
        let validation =
            if name.starts_with("legacy_") { NameValidation::Legacy } else { NameValidation::Utf8 };
        let outcome = parse(&text, &Options { validation, ..Options::default() });
        match refused.iter().find(|(refused, _)| *refused == name) {
            Some((_, fault)) => {
                seen += 1;
                assert_eq!(outcome.map(|_| ()).expect_err(&name), [*fault], "{name}");
            }
            None if name == "legacy_validation_annotation.bad.yaml" => {
                let fault = "group \"yolo\", rule 1, \"hola\": invalid annotation name: ins-tance";
                assert_eq!(outcome.map(|_| ()).expect_err(&name), [fault]);
            }
            None => assert!(outcome.is_ok(), "{name}: {:?}", outcome.map(|_| ())),
        }
    }
    assert_eq!(seen, refused.len());
}

#[test]
fn conformance_unit_tests() {
    let Some(folder) = conformance("unit-tests") else { return };
    let faults = |name: &str, settings: &Settings| {
        let report = unit_test::run(&folder.join(name).to_string_lossy(), settings);
        assert!(report.warnings.is_empty(), "{name}: {:?}", report.warnings);
        report.faults
    };
    let settings = Settings::default();
    let lenient = Settings {
        files: Options { ignore_unknown_fields: true, ..Options::default() },
        ..Settings::default()
    };
    for name in [
        "unittest.yml",
        "long-period.yml",
        "at-modifier-test.yml",
        "negative-offset-test.yml",
        "no-test-group-interval.yml",
        "start-time-test.yml",
    ] {
        assert_eq!(faults(name, &settings), [""; 0], "{name}");
    }
    assert_eq!(faults("rules_run_extrafields.yml", &lenient), [""; 0]);
    assert!(!faults("rules_run_extrafields.yml", &settings).is_empty());
    let mismatch =
        "found duplicate series for the match group {a=\"1\"} on the right hand-side of the operation";
    for (name, count, part) in [
        ("failing.yml", 4, "    name: Failing test,\n    alertname: Test, time: 0s, \n        exp:[\n"),
        ("bad-input-series.yml", 1, "2:48: parse error: unexpected character inside braces: '0'"),
        ("bad-promql.yml", 1, mismatch),
        (
            "bad-rules-syntax-test.yml",
            1,
            "7:15: group \"bad-syntax\", rule 1, \"x\": could not parse expression: 1:7: parse error: unexpected end of input",
        ),
        ("bad-rules-error-test.yml", 1, mismatch),
        (
            "rules_run_no_fuzzy.yml",
            2,
            "exp: {__name__=\"test_low\"} 3E+00\n        got: {__name__=\"test_low\"} 2.9999999999999996E+00",
        ),
        ("rules_run.yml", 1, "    expr: \"test\", time: 0s,\n        exp: {__name__=\"test\"} 1E+00"),
        ("rules_run_fuzzy.yml", 2, "2.9999999999999987E+00"),
    ] {
        let faults = faults(name, &settings);
        assert_eq!(faults.len(), count, "{name}: {faults:?}");
        assert!(faults[0].contains(part), "{name}: {}", faults[0]);
    }
    // Groups are chosen by their name.
    let only = |pattern: &str| Settings {
        run: vec![regex::Regex::new(pattern).expect("a pattern")],
        ..Settings::default()
    };
    assert_eq!(faults("rules_run.yml", &only("correct")), [""; 0]);
    assert_eq!(faults("rules_run_fuzzy.yml", &only("correct")), [""; 0]);
    assert_eq!(faults("rules_run_fuzzy.yml", &only("wrong")).len(), 2);
}
