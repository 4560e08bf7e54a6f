use super::*;
use crate::Rule;

fn with(action: Action, change: impl FnOnce(&mut RuleConfig)) -> RuleConfig {
    let mut config = RuleConfig { action, ..Default::default() };
    change(&mut config);
    config
}

/// The left side of each pair is a configuration, the right the error's text, which users of Prometheus know.
#[test]
fn broken_rules_are_refused_in_prometheus_words() {
    use Action::*;
    let cases = [
        (with(Replace, |_| {}), "relabel configuration for replace action requires 'target_label' value"),
        (with(Lowercase, |_| {}), "relabel configuration for lowercase action requires 'target_label' value"),
        (with(KeepEqual, |_| {}), "relabel configuration for keepequal action requires 'target_label' value"),
        (
            with(HashMod, |c| c.target_label = "a".into()),
            "relabel configuration for hashmod requires non-zero modulus",
        ),
        (
            with(HashMod, |c| c.modulus = 2),
            "relabel configuration for hashmod action requires 'target_label' value",
        ),
        (
            with(Uppercase, |c| {
                c.target_label = "a".into();
                c.replacement = "x".into();
            }),
            "'replacement' can not be set for uppercase action",
        ),
        (
            with(LabelMap, |c| c.replacement = String::new()),
            r#""" is invalid 'replacement' for labelmap action"#,
        ),
        (
            with(LabelKeep, |c| c.source_labels = vec!["a".into()]),
            "labelkeep action requires only 'regex', and no other fields",
        ),
        (
            with(LabelDrop, |c| c.separator = ",".into()),
            "labeldrop action requires only 'regex', and no other fields",
        ),
        (with(LabelDrop, |c| c.modulus = 8), "labeldrop action requires only 'regex', and no other fields"),
        (
            with(DropEqual, |c| {
                c.target_label = "a".into();
                c.regex = ".*".into();
            }),
            "dropequal action requires only 'source_labels' and `target_label`, and no other fields",
        ),
        (with(Keep, |c| c.source_labels = vec![String::new()]), r#""" is not a valid label name"#),
    ];
    for (config, text) in cases {
        let error = Rule::new(config.clone()).map(|_| ()).unwrap_err();
        assert_eq!(error.to_string(), text, "{config:?}");
        assert_eq!(error.kind(), fault::Kind::Invalid);
    }
    let error = Rule::new(with(Keep, |c| c.regex = "(".into())).map(|_| ()).unwrap_err();
    assert!(error.to_string().starts_with("error parsing regexp: "), "{error}");
}

#[test]
fn names_are_checked_by_the_validation_scheme() {
    let cases = [
        // target of a replace rule, allowed in legacy, allowed in utf8
        ("a", true, true),
        ("_0", true, true),
        ("0a", false, true),
        ("a.b", false, true),
        ("a-${1}", false, true),
        ("${1}", true, true),
        ("$1", true, true),
        ("${1}_x", true, true),
        ("a${b}c$d", true, true),
        ("${}", false, true),
        ("${a", false, true),
        ("$", false, true),
        ("a$", false, true),
        ("$$x", false, true),
        ("${a.b}", false, true),
    ];
    for (target, legacy, utf8) in cases {
        for (scheme, expected) in [(NameValidation::Legacy, legacy), (NameValidation::Utf8, utf8)] {
            let config = with(Action::Replace, |c| {
                c.target_label = target.into();
                c.name_validation = scheme;
            });
            let error = Error::InvalidTarget { target: target.into(), action: Action::Replace };
            assert_eq!(config.validate(), if expected { Ok(()) } else { Err(error) }, "{target} {scheme:?}");
        }
    }
    let config = with(Action::HashMod, |c| {
        c.modulus = 1;
        c.target_label = "0".into();
        c.name_validation = NameValidation::Legacy;
    });
    assert_eq!(
        config.validate().unwrap_err().to_string(),
        r#""0" is invalid 'target_label' for hashmod action"#
    );
    let config = with(Action::LabelMap, |c| {
        c.replacement = "a-b".into();
        c.name_validation = NameValidation::Legacy;
    });
    assert_eq!(
        config.validate().unwrap_err().to_string(),
        r#""a-b" is invalid 'replacement' for labelmap action"#
    );
}

#[test]
fn actions_have_names_in_any_case() {
    for action in Action::ALL {
        assert_eq!(action.to_string().parse(), Ok(action));
        assert_eq!(action.to_string().to_uppercase().parse(), Ok(action));
    }
    assert_eq!("".parse::<Action>().unwrap_err().to_string(), "relabel action cannot be empty");
    assert_eq!("keep_all".parse::<Action>().unwrap_err().to_string(), r#"unknown relabel action "keep_all""#);
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let config = RuleConfig::default();
    assert_eq!(
        (config.separator.as_str(), config.regex.as_str(), config.replacement.as_str(), config.action),
        (";", "(.*)", "$1", Action::Replace)
    );
}
