//! Precedence, places in the text, types, and the values of durations.

use model::Timestamp;
use promql_syntax::{AtModifier, Cardinality, DurationError, Expr, Options, Span, ValueType, parse_expr};

use crate::parse;

/// Writes a tree with a parenthesis around every operation.
fn grouped(expr: &Expr) -> String {
    match expr {
        Expr::Binary(e) => format!("({} {} {})", grouped(&e.lhs), e.op.as_str(), grouped(&e.rhs)),
        Expr::Unary(e) => format!("({}{})", e.op.as_str(), grouped(&e.expr)),
        Expr::Paren(e) => grouped(&e.expr),
        other => other.to_string(),
    }
}

#[test]
fn operators_bind_as_documented() {
    for (text, expected) in [
        ("a + b * c", "(a + (b * c))"),
        ("a * b + c", "((a * b) + c)"),
        ("a - b - c", "((a - b) - c)"),
        ("a / b * c % d atan2 e", "((((a / b) * c) % d) atan2 e)"),
        ("a ^ b ^ c", "(a ^ (b ^ c))"),
        ("a * b ^ c", "(a * (b ^ c))"),
        ("-a ^ b", "(-(a ^ b))"),
        ("-1 ^ 2", "(-(1 ^ 2))"),
        ("-a * b", "((-a) * b)"),
        ("a ^ -b * c", "((a ^ (-b)) * c)"),
        ("2 ^ -3 ^ 2", "(2 ^ (-(3 ^ 2)))"),
        ("a == b + c", "(a == (b + c))"),
        ("a </ 1 == b", "((a </ 1) == b)"),
        ("a and b == c", "(a and (b == c))"),
        ("a or b and c", "(a or (b and c))"),
        ("a and b unless c", "((a and b) unless c)"),
        ("a or b unless c or d", "((a or (b unless c)) or d)"),
        ("a + b offset 5m", "(a + b offset 5m)"),
        ("-a offset 5m", "(-a offset 5m)"),
        ("a ^ b @ 1", "(a ^ b @ 1.000)"),
        ("a offset 2 ^ 2", "(a offset 2s ^ 2)"),
        ("a offset -2 ^ 2", "(a offset -2s ^ 2)"),
        ("a offset step() * 0", "(a offset step() * 0)"),
        ("a offset -(step()) + 1", "(a offset -(step()) + 1)"),
        ("a offset min_of(1, 2) + 1", "(a offset min_of(1, 2) + 1)"),
    ] {
        assert_eq!(grouped(&parse(text)), expected, "{text}");
    }
}

#[test]
fn every_node_knows_its_place() {
    let text = "sum by (x) (rate(a{b=\"c\"}[5m] offset 1m)) / -(b @ 10)[1h:5m]";
    let expr = parse_expr("sum by (x) (rate(a{b=\"c\"}[5m] offset 1m)) / -(b @ 10)", &Options::all());
    let expr = expr.expect("a valid query");
    let mut places = Vec::new();
    expr.walk(&mut |e| places.push(&text[e.span().start..e.span().end]));
    let expected = [
        "sum by (x) (rate(a{b=\"c\"}[5m] offset 1m)) / -(b @ 10)",
        "sum by (x) (rate(a{b=\"c\"}[5m] offset 1m))",
        "rate(a{b=\"c\"}[5m] offset 1m)",
        "a{b=\"c\"}[5m] offset 1m",
        "-(b @ 10)",
        "(b @ 10)",
        "b @ 10",
    ];
    assert_eq!(places, expected);
    assert_eq!(parse("sum(a) by (b)").span(), Span::new(0, 13));
    assert_eq!(parse(" a[1h:5m] @ start() ").span(), Span::new(1, 19));
    assert_eq!(parse("a offset (5m)").span(), Span::new(0, 13));
    assert_eq!(Span::new(7, 8).line_column("a\n  +\nbc"), (3, 2));
}

#[test]
fn selectors_carry_their_modifiers() {
    let Expr::MatrixSelector(e) = parse("a{b=\"c\"}[5m] @ end() offset -1m") else { panic!("a range") };
    assert_eq!((e.range.ms(), e.selector.offset.ms()), (300_000, -60_000));
    assert_eq!(e.selector.at, Some(AtModifier::End));
    let matchers: Vec<String> = e.selector.matchers.iter().map(ToString::to_string).collect();
    assert_eq!(matchers, ["b=\"c\"", "__name__=\"a\""]);
    let Expr::VectorSelector(e) = parse("a @ 1.0005") else { panic!("a selector") };
    assert_eq!(e.at, Some(AtModifier::Timestamp(Timestamp(1001))));
    let mut names = Vec::new();
    parse("a + rate(b[5m]) / c").walk_selectors(&mut |s| names.push(s.name.clone()));
    assert_eq!(names, ["a", "b", "c"]);
}

#[test]
fn matching_is_settled_by_the_type_check() {
    let matching = |text| match parse(text) {
        Expr::Binary(e) => e.matching,
        other => panic!("{other}"),
    };
    assert_eq!(matching("a + 1"), None);
    assert_eq!(matching("1 + 1"), None);
    for (text, card) in [
        ("a + b", Cardinality::OneToOne),
        ("a or b", Cardinality::ManyToMany),
        ("a + on(x) group_left b", Cardinality::ManyToOne),
        ("a + on(x) group_right b", Cardinality::OneToMany),
    ] {
        assert_eq!(matching(text).map(|m| m.card), Some(card), "{text}");
    }
    let fill = matching("a + fill_left(1) b").expect("between vectors").fill;
    assert_eq!((fill.lhs, fill.rhs), (Some(1.0), None));
}

#[test]
fn types_follow_from_the_parts() {
    for (text, expected) in [
        ("1", ValueType::Scalar),
        ("\"a\"", ValueType::String),
        ("(a)", ValueType::Vector),
        ("a[5m]", ValueType::Matrix),
        ("a[5m:]", ValueType::Matrix),
        ("1 + 1", ValueType::Scalar),
        ("-(1 == bool 2)", ValueType::Scalar),
        ("1 + a", ValueType::Vector),
        ("time()", ValueType::Scalar),
        ("vector(1)", ValueType::Vector),
        ("sum(a)", ValueType::Vector),
    ] {
        assert_eq!(parse(text).value_type(), expected, "{text}");
    }
}

#[test]
fn duration_expressions_get_values_from_the_query() {
    for (text, expected) in [
        ("26m+4m", Ok(30 * 60_000)),
        ("24m+((1.5*2m)+2m)", Ok(29 * 60_000)),
        ("-5m+35m", Ok(30 * 60_000)),
        ("1h/2", Ok(30 * 60_000)),
        ("1h30m % 1h", Ok(30 * 60_000)),
        ("30m1s-30m1s % 1m", Ok(30 * 60_000)),
        ("((((8 - 2) / 3) * 7s) % 4) + 8000ms", Ok(10_000)),
        ("2^3^0", Ok(2_000)),
        ("-2^2+5", Ok(1_000)),
        ("1+(STep()-5)*2", Ok(11_000)),
        ("min_of(step()+1,1h)", Ok(11_000)),
        ("max_of(min_of(step()+1,1h),1ms)", Ok(11_000)),
        ("range()", Ok(100_000)),
        ("1.0019", Ok(1_001)),
        ("step()-10", Err(DurationError::NotPositive)),
        ("1/(step()-10)", Err(DurationError::DivisionByZero)),
        ("1%(step()-10)", Err(DurationError::ModuloByZero)),
        ("10^(step()^2)", Err(DurationError::OutOfRange)),
    ] {
        let query = format!("rate(a[{text}])");
        let mut expr = parse(&query);
        let resolved = expr.resolve_durations(Timestamp(0), Timestamp(100_000), 10_000);
        let value = resolved.map(|()| {
            let Expr::Call(call) = &expr else { panic!("a call") };
            let Expr::MatrixSelector(e) = &call.args[0] else { panic!("a range") };
            e.range.ms()
        });
        assert_eq!(value, expected, "{text}");
    }
    let mut expr = parse("a offset -step()");
    expr.resolve_durations(Timestamp(0), Timestamp(0), 0).expect("an offset may be zero");
    assert_eq!(expr.to_string(), "a offset -step()");
    assert_eq!(DurationError::NotPositive.to_string(), "duration must be greater than 0");
    assert_eq!(DurationError::NotPositive.kind(), fault::Kind::Invalid);
}

#[test]
fn trees_can_be_changed_in_place() {
    let mut expr = parse("a + sum(rate(b[5m])) + abs(-c)");
    expr.walk_mut(&mut |e| match e {
        Expr::VectorSelector(s) => s.at = Some(AtModifier::Start),
        Expr::MatrixSelector(m) => m.selector.at = Some(AtModifier::Timestamp(Timestamp(5_000))),
        _ => {}
    });
    assert_eq!(expr.to_string(), "a @ start() + sum(rate(b[5m] @ 5.000)) + abs(-c @ start())");
}
