use super::*;

fn outcome(files: &[(&str, &str)]) -> Report {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    let path = folder.path().join("test.yml");
    let mut report = run(&path.to_string_lossy(), &Settings::default());
    let shown = folder.path().to_string_lossy().into_owned() + "/";
    for text in report.faults.iter_mut().chain(&mut report.warnings) {
        *text = text.replace(&shown, "");
    }
    report
}

const RULES: &str = "groups:\n- name: g\n  rules:\n  - alert: Down\n    expr: up == 0\n    for: 2m\n    labels: {s: page}\n    \
                     annotations: {a: '{{ $labels.job }} at {{ $value }}'}\n";

#[test]
fn failures_are_told_as_promtool_tells_them() {
    let test = "rule_files: [rules.yml, none*.yml]\ntests:\n- name: n\n  input_series: [{series: 'up{job=\"j\"}', values: '0x5'}]\n  \
                promql_expr_test:\n  - {expr: up, eval_time: 1m, exp_samples: [{labels: up, value: 1.5}]}\n  \
                - {expr: up +, eval_time: 1m}\n  alert_rule_test:\n  - eval_time: 2m\n    alertname: Down\n    exp_alerts: \
                [{exp_labels: {job: k}}]\n";
    let report = outcome(&[("test.yml", test), ("rules.yml", RULES)]);
    assert_eq!(report.warnings, ["  WARNING: no file match pattern none*.yml"]);
    let expected = [
        "    name: n,\n    alertname: Down, time: 2m, \n        exp:[\n            0:\n              Labels:{alertname=\"Down\", \
         job=\"k\"}\n              Annotations:{}\n            ], \n        got:[\n            0:\n              \
         Labels:{alertname=\"Down\", job=\"j\", s=\"page\"}\n              Annotations:{a=\"j at 0\"}\n            ]",
        "    expr: \"up\", time: 1m,\n        exp: {__name__=\"up\"} 1.5E+00\n        got: {__name__=\"up\", job=\"j\"} 0E+00",
        "    expr: \"up +\", time: 1m, err: 1:5: parse error: unexpected end of input",
    ];
    assert_eq!(report.faults, expected);
}

#[test]
fn broken_files_are_told_as_promtool_tells_them() {
    for (test, expected) in [
        (
            "tests: [{foo: 1}]\n",
            "yaml: unmarshal errors:\n  line 1: field foo not found in type main.testGroup",
        ),
        ("group_eval_order: [a, a]\n", "group name repeated in evaluation order: a"),
        (
            "tests: [{name: n, alert_rule_test: [{eval_time: 1m}]}]\n",
            "an item under alert_rule_test misses required attribute alertname at eval_time 1m (in TestGroup n)",
        ),
        ("tests: [{start_timestamp: soon}]\n", "cannot parse \"soon\" to a valid timestamp"),
        (
            "tests: [{input_series: [{series: a, values: 1}, {series: 'a{', values: 1}]}]\n",
            "3:4: parse error: unexpected character inside braces: '1'",
        ),
        (
            "rule_files: [rules.yml]\ntests: [{}]\n",
            "rules.yml: yaml: unmarshal errors:\n  line 1: field x not found in type rulefmt.RuleGroups",
        ),
    ] {
        let report = outcome(&[("test.yml", test), ("rules.yml", "x: 1\n")]);
        assert_eq!(report.faults, [expected], "{test}");
    }
    assert_eq!(
        run("/nonexistent", &Settings::default()).faults,
        ["open /nonexistent: no such file or directory"]
    );
}

#[test]
fn histograms_show_as_they_are_written() {
    for text in [
        "{{}}",
        "{{count:2 sum:3 counter_reset_hint:not_reset buckets:[2]}}",
        "{{schema:1 count:32.1 sum:-0.3 z_bucket:7.1 z_bucket_w:0.05 offset:-3 buckets:[5.1 10 7] n_offset:-5 n_buckets:[4.1 5]}}",
        "{{schema:-53 count:3 custom_values:[1 2] buckets:[1 0 2]}}",
    ] {
        let (_, values) = parse_series_description(&format!("{{}} {text}")).expect(text);
        let values = sequence(&values).expect(text);
        let [Some(SampleValue::Histogram(literal))] = &values[..] else { panic!("{text}") };
        assert_eq!(histogram_text(&literal.histogram), text);
    }
}

#[test]
fn floats_show_as_go_shows_them() {
    for (x, text) in [
        (1.0, "1E+00"),
        (2.999_999_999_999_999_6, "2.9999999999999996E+00"),
        (0.0, "0E+00"),
        (-1.5e-7, "-1.5E-07"),
        (1e100, "1E+100"),
        (f64::NAN, "NaN"),
    ] {
        assert_eq!(exponent(x), text);
    }
}
