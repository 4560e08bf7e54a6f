use super::*;

fn rule(action: Action, change: impl FnOnce(&mut RuleConfig)) -> Rule {
    let mut config = RuleConfig { action, ..Default::default() };
    change(&mut config);
    Rule::new(config).expect("a valid rule")
}

fn replace(sources: &[&str], regex: &str, target: &str, replacement: &str) -> Rule {
    rule(Action::Replace, |c| {
        c.source_labels = sources.iter().map(|s| (*s).to_owned()).collect();
        c.regex = regex.into();
        c.target_label = target.into();
        c.replacement = replacement.into();
    })
}

fn select(action: Action, sources: &[&str], regex: &str) -> Rule {
    rule(action, |c| {
        c.source_labels = sources.iter().map(|s| (*s).to_owned()).collect();
        c.regex = regex.into();
    })
}

fn to_target(action: Action, sources: &[&str], target: &str) -> Rule {
    rule(action, |c| {
        c.source_labels = sources.iter().map(|s| (*s).to_owned()).collect();
        c.target_label = target.into();
    })
}

fn names(action: Action, regex: &str) -> Rule {
    rule(action, |c| c.regex = regex.into())
}

#[track_caller]
fn check(labels: &[(&str, &str)], rules: &[Rule], expected: Option<&str>) {
    let result = apply(&Labels::from_pairs(labels.iter().copied()), rules).map(|l| l.to_string());
    assert_eq!(result.as_deref(), expected);
}

#[test]
fn replace_writes_the_expanded_text() {
    let abc = [("a", "foo"), ("b", "bar"), ("c", "baz")];
    check(
        &abc,
        &[replace(&["a"], "f(.*)", "d", "ch${1}-ch${1}")],
        Some(r#"{a="foo", b="bar", c="baz", d="choo-choo"}"#),
    );
    check(
        &abc,
        &[replace(&["a", "b"], "(.*);(.*)", "d", "$2$1")],
        Some(r#"{a="foo", b="bar", c="baz", d="barfoo"}"#),
    );
    // No match leaves everything alone, an empty result removes the target.
    check(&abc, &[replace(&["a"], "x", "a", "y")], Some(r#"{a="foo", b="bar", c="baz"}"#));
    check(&abc, &[replace(&["a"], "(f).*", "b", "")], Some(r#"{a="foo", c="baz"}"#));
    check(&abc, &[replace(&["a"], "f(x)?oo", "b", "$1")], Some(r#"{a="foo", c="baz"}"#));
    // The pattern must match from end to end.
    check(&abc, &[replace(&["a"], "o", "d", "x")], Some(r#"{a="foo", b="bar", c="baz"}"#));
    check(&abc, &[replace(&["a"], "o|f", "d", "x")], Some(r#"{a="foo", b="bar", c="baz"}"#));
    // The target is expanded too; without a valid name nothing happens.
    check(&abc, &[replace(&["a"], "(.*)", "x_${1}", "v")], Some(r#"{a="foo", b="bar", c="baz", x_foo="v"}"#));
    check(&abc, &[replace(&["z"], "(.*)", "${1}", "v")], Some(r#"{a="foo", b="bar", c="baz"}"#));
    // No source joins to the empty string, which the default pattern matches.
    check(&abc, &[replace(&[], "(.*)", "d", "x")], Some(r#"{a="foo", b="bar", c="baz", d="x"}"#));
    check(&abc, &[replace(&[], "(.+)", "d", "x")], Some(r#"{a="foo", b="bar", c="baz"}"#));
    // Rules see what the ones before them wrote.
    check(
        &[("a", "1")],
        &[
            replace(&["a"], "(.*)", "b", "$1"),
            replace(&["b"], "(.*)", "c", "$1$1"),
            replace(&["b"], "(.*)", "c", "${1}${1}"),
        ],
        Some(r#"{a="1", b="1", c="11"}"#),
    );
}

#[test]
fn an_expanded_target_that_is_no_legacy_name_is_left_out() {
    let legacy = |value| {
        let rule = rule(Action::Replace, |c| {
            c.source_labels = vec!["a".into()];
            c.target_label = "${1}".into();
            c.replacement = "v".into();
            c.name_validation = crate::NameValidation::Legacy;
        });
        apply(&Labels::from_pairs([("a", value)]), &[rule]).map(|l| l.to_string())
    };
    assert_eq!(legacy("a.b").as_deref(), Some(r#"{a="a.b"}"#));
    assert_eq!(legacy("a_b").as_deref(), Some(r#"{a="a_b", a_b="v"}"#));
}

#[test]
fn patterns_match_newlines() {
    check(&[("a", "x\ny")], &[select(Action::Keep, &["a"], "x.y")], Some(r#"{a="x\ny"}"#));
    check(&[("a", "x\ny")], &[replace(&["a"], "(.*)", "b", "$1")], Some(r#"{a="x\ny", b="x\ny"}"#));
    check(&[("a", "x\n")], &[select(Action::Keep, &["a"], "x")], None);
}

#[test]
fn keep_and_drop_select() {
    let ab = [("a", "foo"), ("b", "bar")];
    for (action, regex, kept) in [
        (Action::Keep, "foo;bar", true),
        (Action::Keep, "foo", false),
        (Action::Keep, "foo.*", true),
        (Action::Drop, "foo;bar", false),
        (Action::Drop, "foo", true),
    ] {
        check(&ab, &[select(action, &["a", "b"], regex)], kept.then_some(r#"{a="foo", b="bar"}"#));
    }
    check(&ab, &[select(Action::Keep, &["z"], "")], Some(r#"{a="foo", b="bar"}"#));
    // A dropped set is dropped whatever follows.
    check(&ab, &[select(Action::Drop, &["a"], "foo"), replace(&[], "(.*)", "c", "x")], None);
}

#[test]
fn keepequal_and_dropequal_compare_with_the_target() {
    let pair = [("port", "80"), ("annotation", "80"), ("other", "81")];
    let all = Some(r#"{annotation="80", other="81", port="80"}"#);
    check(&pair, &[to_target(Action::KeepEqual, &["port"], "annotation")], all);
    check(&pair, &[to_target(Action::KeepEqual, &["port"], "other")], None);
    check(&pair, &[to_target(Action::DropEqual, &["port"], "annotation")], None);
    check(&pair, &[to_target(Action::DropEqual, &["port"], "other")], all);
    // Absent labels are empty, so they equal each other.
    check(&pair, &[to_target(Action::DropEqual, &["x"], "y")], None);
}

/// MD5("foo") is acbd18db4cc2f85cedef654fccc4a4d8, so the last eight bytes are 0xedef654fccc4a4d8.
#[test]
fn hashmod_takes_the_last_eight_bytes_of_the_md5() {
    let hash: u64 = 0xedef_654f_ccc4_a4d8;
    for modulus in [1, 2, 1000, u64::MAX] {
        let rule = rule(Action::HashMod, |c| {
            c.source_labels = vec!["a".into()];
            c.target_label = "d".into();
            c.modulus = modulus;
        });
        let expected = format!(r#"{{a="foo", d="{}"}}"#, hash % modulus);
        check(&[("a", "foo")], &[rule], Some(&expected));
    }
}

#[test]
fn label_rules_go_by_name() {
    let labels = [("a", "1"), ("b1", "x"), ("b2", "y")];
    check(&labels, &[names(Action::LabelDrop, "b.*")], Some(r#"{a="1"}"#));
    check(&labels, &[names(Action::LabelKeep, "b.*")], Some(r#"{b1="x", b2="y"}"#));
    check(&labels, &[names(Action::LabelDrop, "b")], Some(r#"{a="1", b1="x", b2="y"}"#));
    check(&labels, &[names(Action::LabelKeep, "z")], Some("{}"));
    let map = |replacement: &str| {
        rule(Action::LabelMap, |c| {
            c.regex = "b(.*)".into();
            c.replacement = replacement.into();
        })
    };
    check(&labels, &[map("bar_${1}")], Some(r#"{a="1", b1="x", b2="y", bar_1="x", bar_2="y"}"#));
    check(&labels, &[map("b${1}${1}")], Some(r#"{a="1", b1="x", b11="x", b2="y", b22="y"}"#));
    // Labels are taken as they were before the rule: what it wrote is not mapped again.
    let meta = rule(Action::LabelMap, |c| {
        c.regex = "(.*)x?".into();
        c.replacement = "${1}x".into();
    });
    check(&[("a", "1")], &[meta], Some(r#"{a="1", ax="1"}"#));
}

#[test]
fn cases_are_changed_character_by_character() {
    let upper = to_target(Action::Uppercase, &["a"], "u");
    let lower = to_target(Action::Lowercase, &["a"], "l");
    check(&[("a", "bÄr")], &[upper.clone(), lower.clone()], Some(r#"{a="bÄr", l="bär", u="BÄR"}"#));
    check(&[("a", "Straße")], &[upper, lower], Some(r#"{a="Straße", l="straße", u="STRAßE"}"#));
    // An absent source removes the target.
    check(&[("l", "x"), ("b", "y")], &[to_target(Action::Lowercase, &["a"], "l")], Some(r#"{b="y"}"#));
}

#[test]
fn rules_are_values() {
    let rule = replace(&["a"], "(.*)", "b", "$1");
    assert_eq!(Rule::new(rule.config().clone()), Ok(rule));
    let labels = Labels::from_pairs([("a", "1")]);
    assert_eq!(apply(&labels, &[]), Some(labels));
}

/// The documented way to shard: each target is kept by exactly one of the shards.
#[test]
fn hashmod_and_keep_shard_targets() {
    for i in 0..100 {
        let labels = Labels::from_pairs([("__address__", format!("10.0.0.{i}:9100"))]);
        let keepers = (0..4)
            .filter(|shard: &i32| {
                let hash = rule(Action::HashMod, |c| {
                    c.source_labels = vec!["__address__".into()];
                    c.target_label = "__tmp_hash".into();
                    c.modulus = 4;
                });
                let keep = select(Action::Keep, &["__tmp_hash"], &shard.to_string());
                apply(&labels, &[hash, keep]).is_some()
            })
            .count();
        assert_eq!(keepers, 1);
    }
}
