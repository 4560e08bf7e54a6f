//! Error texts and places, as Prometheus has them.

use promql_syntax::{Options, parse_expr, parse_selector};

fn error_of(text: &str, options: Options) -> String {
    match parse_expr(text, &options) {
        Ok(expr) => panic!("{text} parses as {expr}"),
        Err(errors) => errors.to_string(),
    }
}

/// Checks the messages of texts, `line:col: parse error: ` written as `line:col: `.
fn check(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        let (place, message) = expected.split_once(": ").expect("a place and a message");
        assert_eq!(error_of(text, Options::all()), format!("{place}: parse error: {message}"), "{text}");
    }
}

#[test]
fn unexpected_tokens_are_named_with_their_place() {
    check(&[
        ("", "unknown position: no expression found in input"),
        ("  ", "1:1: no expression found in input"),
        ("# only a comment", "1:1: no expression found in input"),
        ("1+", "1:3: unexpected end of input"),
        ("a b", "1:3: unexpected identifier \"b\""),
        ("a\n+\n )", "3:3: unexpected right parenthesis ')'"),
        ("a 5", "1:3: unexpected number \"5\""),
        ("a 5m", "1:3: unexpected duration \"5m\""),
        ("a \"text\"", "1:3: unexpected string \"\\\"text\\\"\""),
        ("a \"a long text\"", "1:3: unexpected string \"\\\"a long te\"..."),
        ("a a:b", "1:3: unexpected metric identifier \"a:b\""),
        ("*1", "1:1: unexpected <op:*>"),
        ("a == == b", "1:6: unexpected <op:==>"),
        ("a sum", "1:3: unexpected <aggr:sum>"),
        ("a BY (b)", "1:3: unexpected <BY>"),
        ("on", "1:1: unexpected <on>"),
        ("a start", "1:3: unexpected \"start\""),
        ("a = b", "1:3: unexpected \"=\""),
        ("a, b", "1:2: unexpected \",\""),
        ("f(,a)", "1:3: unexpected \",\""),
        ("rate(a b)", "1:8: unexpected identifier \"b\""),
        ("{}{}", "1:3: unexpected \"{\""),
        ("a:b(c)", "1:4: unexpected \"(\""),
        ("a @ b", "1:5: unexpected identifier \"b\" in @, expected timestamp"),
        ("a @ start", "1:10: unexpected end of input in @, expected timestamp"),
        (
            "a offset b",
            "1:10: unexpected identifier \"b\" in offset, expected number, duration, step(), or range()",
        ),
    ]);
}

#[test]
fn broken_tokens_are_reported_by_the_lexer() {
    check(&[
        ("(a", "1:3: unclosed left parenthesis"),
        ("sum(rate(a[5m])", "1:16: unclosed left parenthesis"),
        ("a)", "1:3: unexpected right parenthesis ')'"),
        ("a]", "1:2: unexpected right bracket ']'"),
        ("a[", "1:3: unexpected end of input in duration expression"),
        ("a[5m", "1:5: unclosed left bracket"),
        ("a[5m[", "1:5: unexpected left bracket '['"),
        ("a[5m:6s:7s]", "1:8: unexpected colon ':'"),
        ("a[:5m]", "1:4: unexpected colon before duration in duration expression"),
        ("a[b]", "1:3: unexpected character in duration expression: 'b'"),
        ("a[5m b]", "1:6: unexpected character: 'b', expected ':'"),
        ("a[\"5m\"]", "1:3: unexpected character in duration expression: '\"'"),
        ("a{", "1:3: unexpected end of input inside braces"),
        ("a{{", "1:3: unexpected left brace '{'"),
        ("a{b=1}", "1:5: unexpected character inside braces: '1'"),
        ("a{b!b}", "1:4: unexpected character after '!' inside braces: 'b'"),
        ("a =~ b", "1:3: unexpected character after '=': '~'"),
        ("a !~ b", "1:3: unexpected character after '!': '~'"),
        ("a $ b", "1:3: unexpected character: '$'"),
        ("é", "1:1: unexpected character: 'é'"),
        ("1..2", "1:1: bad number or duration syntax: \"1..\""),
        ("1x", "1:1: bad number or duration syntax: \"1\""),
        ("5mx", "1:1: bad number or duration syntax: \"5mx\""),
        ("1e", "1:1: bad number or duration syntax: \"1e\""),
        ("1__2", "1:1: bad number or duration syntax: \"1__\""),
        ("\"abc", "1:1: unterminated quoted string"),
        ("\"a\nb\"", "1:1: unterminated quoted string"),
        ("`abc", "1:1: unterminated raw string"),
        (r#""\q""#, "1:1: unknown escape sequence U+0071 'q'"),
        (r#""\xg0""#, "1:1: illegal character U+0067 'g' in escape sequence"),
        (r#""\ud800""#, "1:1: escape sequence is an invalid Unicode code point"),
        (r#""\400""#, "1:1: escape sequence is an invalid Unicode code point"),
    ]);
}

#[test]
fn matchers_and_label_lists_name_their_context() {
    check(&[
        ("a{,}", "1:3: unexpected \",\" in label matching, expected identifier or \"}\""),
        ("a{b=\"c\",,}", "1:9: unexpected \",\" in label matching, expected identifier or \"}\""),
        ("a{b}", "1:4: unexpected \"}\" in label matching, expected label matching operator"),
        ("a{b=c}", "1:5: unexpected identifier \"c\" in label matching, expected string"),
        ("a{\"b\"=c}", "1:7: unexpected identifier \"c\" in label matching, expected string"),
        ("a{b=\"c\" d=\"e\"}", "1:9: unexpected identifier \"d\" in label matching, expected \",\" or \"}\""),
        ("sum by a (b)", "1:8: unexpected identifier \"a\" in grouping opts, expected \"(\""),
        ("sum by (a b) (c)", "1:11: unexpected identifier \"b\" in grouping opts, expected \",\" or \")\""),
        ("sum by (1) (c)", "1:9: unexpected number \"1\" in grouping opts, expected label"),
        ("sum by (,) (c)", "1:9: unexpected \",\" in grouping opts, expected label"),
        ("sum by (\"\") (c)", "1:9: invalid label name for grouping: \"\""),
        ("a + on(b d) c", "1:10: unexpected identifier \"d\" in grouping opts, expected \",\" or \")\""),
        ("a{\"b\", c=~\"[\"} + d[", "1:8: error parsing regexp: unclosed character class"),
    ]);
}

#[test]
fn aggregations_name_their_context() {
    check(&[
        ("sum(a b)", "1:7: unexpected identifier \"b\" in aggregation"),
        ("sum((a b))", "1:8: unexpected identifier \"b\" in aggregation"),
        ("sum(rate(a b))", "1:12: unexpected identifier \"b\" in aggregation"),
        ("sum by (a) b", "1:12: unexpected identifier \"b\" in aggregation"),
        ("sum a by (b)", "1:5: unexpected identifier \"a\""),
        ("sum(a) b", "1:8: unexpected identifier \"b\""),
        ("sum()", "1:1: no arguments for aggregate expression provided"),
        ("1 + sum() by (b)", "1:5: no arguments for aggregate expression provided"),
        ("sum(a, b)", "1:1: wrong number of arguments for aggregate expression provided, expected 1, got 2"),
        ("topk(a)", "1:1: wrong number of arguments for aggregate expression provided, expected 2, got 1"),
        ("sum(1)", "1:5: expected type instant vector in aggregation expression, got scalar"),
        ("sum(a[5m])", "1:5: expected type instant vector in aggregation expression, got range vector"),
        ("topk(a, b)", "1:6: expected type scalar in aggregation parameter, got instant vector"),
        ("count_values(1, b)", "1:14: expected type string in aggregation parameter, got scalar"),
    ]);
}

#[test]
fn calls_are_checked_against_their_signature() {
    check(&[
        ("foo(a)", "1:1: unknown function with name \"foo\""),
        ("Rate(a[5m])", "1:1: unknown function with name \"Rate\""),
        ("foo(a) b c", "1:1: unknown function with name \"foo\""),
        ("abs()", "1:1: expected 1 argument(s) in call to \"abs\", got 0"),
        ("1 + time(a)", "1:5: expected 0 argument(s) in call to \"time\", got 1"),
        ("round()", "1:1: expected at least 1 argument(s) in call to \"round\", got 0"),
        ("round(a, 1, 2)", "1:1: expected at most 2 argument(s) in call to \"round\", got 3"),
        ("label_join(a, \"b\")", "1:1: expected at least 3 argument(s) in call to \"label_join\", got 2"),
        ("rate(a)", "1:6: expected type range vector in call to function \"rate\", got instant vector"),
        ("abs(1)", "1:5: expected type instant vector in call to function \"abs\", got scalar"),
        (
            "label_join(a, \"b\", \"c\", 1)",
            "1:25: expected type string in call to function \"label_join\", got scalar",
        ),
        ("abs(a,)", "1:6: trailing commas not allowed in function call args"),
        ("info(a, b)", "1:9: expected label selectors only, got vector selector instead"),
        ("info(a, abs(b))", "1:9: expected label selectors only"),
        ("info(a, 1)", "1:1: expected type instant vector in call to function \"info\", got scalar"),
    ]);
}

#[test]
fn operators_are_checked_against_their_operands() {
    check(&[
        ("1 == 1", "1:3: comparisons between scalars must use BOOL modifier"),
        ("1   ==   1", "1:5: comparisons between scalars must use BOOL modifier"),
        ("a + bool b", "1:3: bool modifier can only be used on comparison operators"),
        ("a </ bool b", "1:3: bool modifier can only be used on comparison operators"),
        ("1 and 1", "1:1: set operator \"and\" not allowed in binary scalar expression"),
        ("a or 1", "1:1: set operator \"or\" not allowed in binary scalar expression"),
        ("a + \"b\"", "1:5: binary expression must contain only scalar and instant vector types"),
        ("a[5m] + 1", "1:1: binary expression must contain only scalar and instant vector types"),
        ("1 + on(b) a", "1:1: vector matching only allowed between instant vectors"),
        ("1 + fill(0) a", "1:1: filling in missing series only allowed between instant vectors"),
        ("a or fill(0) b", "1:1: filling in missing series not allowed for set operators"),
        ("a and on(b) group_left(c) d", "1:1: no grouping allowed for \"and\" operation"),
        ("a * on(b) group_left(b) d", "1:3: label \"b\" must not occur in ON and GROUP clause at once"),
        ("a * group_left(b) d", "1:5: unexpected <group_left>"),
        (
            "-\"a\"",
            "1:1: unary expression only allowed on expressions of type scalar or instant vector, got \"string\"",
        ),
        (
            "-a[5m]",
            "1:1: unary expression only allowed on expressions of type scalar or instant vector, got \"range vector\"",
        ),
    ]);
}

#[test]
fn selectors_and_their_modifiers_are_checked() {
    let not_a_selector =
        "must be preceded by an instant vector selector or range vector selector or a subquery";
    check(&[
        ("{}", "1:1: vector selector must contain at least one non-empty matcher"),
        ("1 + {a=~\".*\"}", "1:5: vector selector must contain at least one non-empty matcher"),
        ("{a!=\"b\"}[5m]", "1:1: vector selector must contain at least one non-empty matcher"),
        ("a{__name__=\"b\"}", "1:1: metric name must not be set twice: \"a\" or \"b\""),
        ("a{\"b\"}", "1:1: metric name must not be set twice: \"a\" or \"b\""),
        ("a offset 1m[5m]", "1:12: no offset modifiers allowed before range"),
        ("a @ 10 [5m]", "1:8: no @ modifiers allowed before range"),
        ("a offset step()[5m]", "1:16: no offset modifiers allowed before range"),
        ("a @ end()[5m]", "1:10: no @ modifiers allowed before range"),
        ("(a)[5m]", "1:4: ranges only allowed for vector selectors"),
        ("a[5m][5m]", "1:6: ranges only allowed for vector selectors"),
        ("a[0]", "1:3: duration must be greater than 0"),
        ("a[-5m]", "1:3: duration must be greater than 0"),
        ("a[5m:0s]", "1:6: duration must be greater than 0"),
        ("a[5m:]@", "1:8: unexpected end of input in @, expected timestamp"),
        ("a[5m,]", "1:5: unexpected \",\" in subquery or range, expected \":\" or \"]\""),
        ("a[5m:6m,]", "1:8: unexpected \",\" in subquery selector, expected \"]\""),
        (
            "a[5m:*]",
            "1:6: unexpected <op:*> in subquery selector, expected number, duration, step(), range(), or \"]\"",
        ),
        (
            "a[*5m]",
            "1:3: unexpected <op:*> in subquery or range selector, expected number, duration, step(), or range()",
        ),
        ("a[1y1y]", "1:3: bad number or duration syntax: \"1y1\""),
        ("a[1m1h]", "1:3: not a valid duration string: \"1m1h\""),
        ("a[1.5m]", "1:3: unknown unit \".\" in duration \"1.5m\""),
        ("a[5m/0]", "1:5: division by zero"),
        ("a[5m%0]", "1:5: modulo by zero"),
        ("a[9223372037]", "1:3: duration out of range"),
        ("a offset 1m offset 2m", "1:1: offset may not be set multiple times"),
        ("a @ 1 @ 2", "1:1: @ <timestamp> may not be set multiple times"),
        ("a @ start() @ 2", "1:1: @ <timestamp> may not be set multiple times"),
        ("a @ Inf", "1:1: timestamp out of bounds for @ modifier: +Inf"),
        ("a @ -1e19", "1:1: timestamp out of bounds for @ modifier: -10000000000000000000.000000"),
        ("(a) offset 1m", &format!("1:1: offset modifier {not_a_selector}")),
        ("sum(a) @ 1", &format!("1:1: @ modifier {not_a_selector}")),
        ("a[5m][1h:]", "1:1: subquery is only allowed on instant vector, got matrix instead"),
        ("1[5m:]", "1:1: subquery is only allowed on instant vector, got scalar instead"),
        ("a smoothed anchored", "1:1: anchored and smoothed modifiers cannot be used together"),
        ("a[5m:] anchored", "1:1: anchored modifier is not supported for subqueries"),
        ("1 smoothed", "1:1: smoothed modifier not implemented"),
    ]);
}

#[test]
fn syntax_behind_a_flag_is_refused_without_it() {
    let default = Options::default();
    for (text, expected) in [
        ("sort_by_label(a, \"b\")", "1:1: parse error: function \"sort_by_label\" is not enabled"),
        ("step()", "1:1: parse error: function \"step\" is not enabled"),
        (
            "limitk(1, a)",
            "1:1: parse error: limitk() is experimental and must be enabled with \
             --enable-feature=promql-experimental-functions",
        ),
        ("a anchored", "1:1: parse error: anchored modifier is experimental and not enabled"),
        ("a[5m] smoothed", "1:1: parse error: smoothed modifier is experimental and not enabled"),
        ("1 + (a + fill(0) b)", "1:6: parse error: binop fill modifiers are experimental and not enabled"),
    ] {
        assert_eq!(error_of(text, default), expected);
        assert!(parse_expr(text, &Options::all()).is_ok(), "{text}");
    }
    let without = Options { duration_expressions: false, ..default };
    for (text, column) in [("a[5m+1m]", 3), ("a[step()]", 3), ("a offset (5m)", 11), ("a[min_of(1s,2s)]", 3)]
    {
        let expected = format!("1:{column}: parse error: experimental duration expression is not enabled");
        assert_eq!(error_of(text, without), expected);
        assert!(parse_expr(text, &default).is_ok(), "{text}");
    }
    assert!(parse_expr("a[5m] offset -5m", &without).is_ok());
}

#[test]
fn all_errors_of_meaning_are_kept_in_order() {
    let errors = parse_expr("sum(1) + abs(2)", &Options::default()).expect_err("two errors");
    let columns: Vec<_> = errors.all().iter().map(|e| e.position).collect();
    assert_eq!(columns, [Some((1, 5)), Some((1, 14))]);
    assert_eq!(errors.kind(), fault::Kind::Invalid);
}

#[test]
fn match_parameters_are_bare_selectors() {
    for (text, expected) in [
        ("-not-a-valid-metric-name", "1:1: parse error: unexpected <op:->"),
        ("", "unknown position: parse error: unexpected end of input"),
        ("a[5m]", "1:2: parse error: unexpected \"[\""),
        ("a offset 5m", "1:3: parse error: unexpected <offset>"),
        ("a @ 5", "1:3: parse error: unexpected <op:@>"),
        ("sum(a)", "1:4: parse error: unexpected \"(\""),
        ("(a)", "1:1: parse error: unexpected \"(\""),
        ("a + b", "1:3: parse error: unexpected <op:+>"),
        ("a{b=\"c\"", "1:8: parse error: unexpected end of input inside braces"),
    ] {
        assert_eq!(parse_selector(text).expect_err(text).to_string(), expected);
    }
    for (text, expected) in [
        ("a", vec!["__name__=\"a\""]),
        ("{__name__=~\".*\"}", vec!["__name__=~\".*\""]),
        ("{}", vec![]),
        ("sum{b!=\"c\",}", vec!["b!=\"c\"", "__name__=\"sum\""]),
        ("{\"a.b\", 'c.d'!~`e`}", vec!["__name__=\"a.b\"", "\"c.d\"!~\"e\""]),
    ] {
        let matchers: Vec<String> =
            parse_selector(text).expect(text).iter().map(ToString::to_string).collect();
        assert_eq!(matchers, expected, "{text}");
    }
}
