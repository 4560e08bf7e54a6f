//! Expected texts are those of promtool 3.5 and of Prometheus 3.5.

use super::*;

fn faults(text: &str) -> Vec<String> {
    parse(text, &Options::default()).map(|_| ()).expect_err(text)
}

#[test]
fn a_file_becomes_groups_with_the_labels_of_their_group() {
    let text = "groups:\n- name: g\n  interval: 30s\n  query_offset: 1m\n  limit: 5\n  labels: {a: group, b: group}\n  rules:\n  \
                - record: r\n    expr: sum(up)by(job)\n    labels: {a: rule}\n  - alert: A\n    expr: up == 0\n    for: 5m\n    \
                keep_firing_for: 1m\n    annotations: {s: '{{ $value }}'}\n- name: h\n";
    let file = parse(text, &Options::default()).expect("valid");
    let [g, h] = &file.groups[..] else { panic!("two groups") };
    let seconds = |s| Some(Duration::from_secs(s));
    assert_eq!((g.interval, g.query_offset, g.limit), (seconds(30), seconds(60), 5));
    assert_eq!((h.name.as_str(), h.interval, h.rules.len()), ("h", None, 0));
    let labels = |rule: &RuleSpec| rule.labels.to_string();
    assert_eq!(labels(&g.rules[0]), r#"{a="rule", b="group"}"#);
    assert_eq!(g.rules[0].expr, "sum by (job) (up)");
    let RuleKind::Alerting(alert) = &g.rules[1].kind else { panic!("an alert") };
    assert_eq!((alert.hold.as_secs(), alert.keep_firing.as_secs()), (300, 60));
    assert_eq!(alert.annotations.to_string(), r#"{s="{{ $value }}"}"#);
    assert_eq!(labels(&g.rules[1]), r#"{a="group", b="group"}"#);
}

#[test]
fn a_wrong_file_is_refused_in_the_references_words() {
    for (text, expected) in [
        ("foo:\n", vec!["yaml: unmarshal errors:\n  line 1: field foo not found in type rulefmt.RuleGroups"]),
        (
            "groups:\n  - name: a\n    interval: 5x\n",
            vec!["unknown unit \"x\" in duration \"5x\"", "unknown unit \"x\" in duration \"5x\""],
        ),
        (
            "groups:\n  - name: z\n    name: y\n",
            vec![
                "yaml: unmarshal errors:\n  line 3: mapping key \"name\" already defined at line 2",
                "yaml: unmarshal errors:\n  line 3: mapping key \"name\" already defined at line 2",
            ],
        ),
        (
            "groups:\n  - name: z\n    foo: 1\n    limit: \"x\"\n    rules:\n      - record: [a]\n        expr: {}\n        \
             bar: 1\n        labels: [1]\n  - 5\n",
            vec![
                "yaml: unmarshal errors:\n  line 3: field foo not found in type rulefmt.RuleGroup\n  line 4: cannot unmarshal \
                 !!str `x` into int\n  line 6: cannot unmarshal !!seq into string\n  line 7: cannot unmarshal !!map into \
                 string\n  line 8: field bar not found in type rulefmt.Rule\n  line 9: cannot unmarshal !!seq into \
                 map[string]string\n  line 10: cannot unmarshal !!int `5` into rulefmt.RuleGroup",
                "yaml: unmarshal errors:\n  line 4: cannot unmarshal !!str `x` into int\n  line 9: cannot unmarshal !!seq into \
                 map[string]string\n  line 10: cannot unmarshal !!int `5` into rulefmt.RuleGroupNode",
            ],
        ),
        (
            "groups:\n  - name: z\n    rules:\n      - record: a\n        expr: 1 +\n        labels: {a: b, \"\": c}\n",
            vec![
                "5:15: group \"z\", rule 1, \"a\": could not parse expression: 1:4: parse error: unexpected end of input",
                "group \"z\", rule 1, \"a\": invalid label name: ",
            ],
        ),
        (
            "groups:\n  - name: ''\n    rules:\n      - alert: hola\n        expr: |\n          sum(\n        labels: {x: \
             \"{{ $foo }}\", \"__name__\": y}\n        annotations: {a: \"a\\nb{{ else }}\"}\n",
            vec![
                "0:0: Groupname must not be empty",
                "5:15: group \"\", rule 1, \"hola\": could not parse expression: 2:1: parse error: unclosed left parenthesis",
                "group \"\", rule 1, \"hola\": invalid label name: __name__",
                "group \"\", rule 1, \"hola\": label \"x\": template: __alert_hola:1: undefined variable \"$foo\"",
                "group \"\", rule 1, \"hola\": annotation \"a\": template: __alert_hola:2: unexpected {{else}}",
            ],
        ),
        (
            "groups:\n- name: g\n  rules:\n  - record: x\n    expr: up\n    for: 1m\n    annotations: {a: b}\n",
            vec![
                "4:13: group \"g\", rule 1, \"x\": invalid field 'annotations' in recording rule",
                "4:13: group \"g\", rule 1, \"x\": invalid field 'for' in recording rule",
            ],
        ),
    ] {
        assert_eq!(faults(text), expected, "{text}");
    }
}

#[test]
fn names_are_checked_by_the_scheme() {
    let text = "groups:\n- name: g\n  rules:\n  - alert: A\n    expr: up\n    annotations: {ins-tance: x}\n";
    assert!(parse(text, &Options::default()).is_ok());
    let legacy = Options { validation: NameValidation::Legacy, ..Options::default() };
    let faults = parse(text, &legacy).expect_err("not a legacy name");
    assert_eq!(faults, ["group \"g\", rule 1, \"A\": invalid annotation name: ins-tance"]);
    let text = "groups:\n- name: g\n  rules:\n  - record: a b\n    expr: up\n";
    assert!(parse(text, &Options::default()).is_ok());
    let faults = parse(text, &legacy).expect_err("not a legacy name");
    assert_eq!(faults, ["4:13: group \"g\", rule 1, \"a b\": invalid recording rule name: a b"]);
}

#[test]
fn unknown_fields_may_be_passed_over() {
    let text = "groups:\n- name: g\n  owner: {a: b}\n";
    assert!(parse(text, &Options::default()).is_err());
    let options = Options { ignore_unknown_fields: true, ..Options::default() };
    assert_eq!(parse(text, &options).expect("valid").groups[0].name, "g");
}

#[test]
fn aliases_cannot_make_a_small_file_large() {
    let mut text = String::from("a0: &a0 {record: x, expr: y}\na1: &a1 {rules: [");
    text.push_str(&"*a0,".repeat(3_000));
    text.push_str("]}\ngroups: [");
    text.push_str(&"*a1,".repeat(3_000));
    text.push_str("]\n");
    let options = Options { ignore_unknown_fields: true, ..Options::default() };
    let faults = parse(&text, &options).expect_err("nine million rules");
    assert_eq!(faults[0], "yaml: document contains excessive aliasing");
}
