//! Another parser of PromQL, on the syntax both know: what it accepts and prints is compared on random expressions.

use promql_parser::parser as other;
use promql_syntax::{Options, parse_expr};
use proptest::prelude::*;

use crate::{assert_prints_back, parse, shape};

/// Writes the other parser's tree the way our `grouped` below writes ours.
fn grouped_other(expr: &other::Expr) -> String {
    match expr {
        other::Expr::Binary(e) => {
            let bool_word = if e.return_bool() { " bool" } else { "" };
            format!("({} {}{bool_word} {})", grouped_other(&e.lhs), e.op, grouped_other(&e.rhs))
        }
        other::Expr::Unary(e) => format!("-{}", grouped_other(&e.expr)),
        other::Expr::Paren(e) => format!("<{}>", grouped_other(&e.expr)),
        other::Expr::Aggregate(e) => {
            let param = e.param.as_ref().map(|p| grouped_other(p)).unwrap_or_default();
            format!("{}[{param}]({})", e.op, grouped_other(&e.expr))
        }
        other::Expr::Call(e) => {
            let args: Vec<String> = e.args.args.iter().map(|a| grouped_other(a)).collect();
            format!("{}({})", e.func.name, args.join(", "))
        }
        other::Expr::Subquery(e) => format!("{}[{:?}:{:?}]", grouped_other(&e.expr), e.range, e.step),
        other::Expr::MatrixSelector(e) => format!("{}[{:?}]", selector_other(&e.vs), e.range),
        other::Expr::VectorSelector(e) => selector_other(e),
        other::Expr::NumberLiteral(e) => format!("{:?}", e.val),
        other::Expr::StringLiteral(e) => format!("{:?}", e.val),
        other::Expr::Extension(_) => unreachable!("the parser makes none"),
    }
}

fn selector_other(e: &other::VectorSelector) -> String {
    let mut matchers: Vec<String> =
        e.matchers.matchers.iter().map(|m| format!("{}{}{:?}", m.name, m.op, m.value)).collect();
    matchers.sort();
    let offset = match &e.offset {
        None => 0,
        Some(other::Offset::Pos(d)) => i64::try_from(d.as_millis()).expect("a short offset"),
        Some(other::Offset::Neg(d)) => -i64::try_from(d.as_millis()).expect("a short offset"),
    };
    format!("{}{{{}}}~{offset}", e.name.clone().unwrap_or_default(), matchers.join(","))
}

fn grouped(expr: &promql_syntax::Expr) -> String {
    use promql_syntax::Expr;
    match expr {
        Expr::Binary(e) => {
            let bool_word = if e.return_bool { " bool" } else { "" };
            format!("({} {}{bool_word} {})", grouped(&e.lhs), e.op.as_str(), grouped(&e.rhs))
        }
        Expr::Unary(e) => format!("-{}", grouped(&e.expr)),
        Expr::Paren(e) => format!("<{}>", grouped(&e.expr)),
        Expr::Aggregate(e) => {
            let param = e.param.as_ref().map(|p| grouped(p)).unwrap_or_default();
            format!("{}[{param}]({})", e.op.as_str(), grouped(&e.expr))
        }
        Expr::Call(e) => {
            let args: Vec<String> = e.args.iter().map(grouped).collect();
            format!("{}({})", e.func.name, args.join(", "))
        }
        Expr::Subquery(e) => {
            let duration = |ms: i64| std::time::Duration::from_millis(ms.unsigned_abs());
            let step = e.step.as_ref().map(|s| duration(s.ms()));
            format!("{}[{:?}:{step:?}]", grouped(&e.expr), duration(e.range.ms()))
        }
        Expr::MatrixSelector(e) => {
            let range = std::time::Duration::from_millis(e.range.ms().unsigned_abs());
            format!("{}[{range:?}]", selector(&e.selector))
        }
        Expr::VectorSelector(e) => selector(e),
        Expr::NumberLiteral(e) => format!("{:?}", e.value),
        Expr::StringLiteral(e) => format!("{:?}", e.value),
    }
}

fn selector(e: &promql_syntax::VectorSelector) -> String {
    // The other parser keeps the metric name apart.
    let mut matchers: Vec<String> = e
        .matchers
        .iter()
        .filter(|m| m.name() != "__name__")
        .map(|m| format!("{}{}{:?}", m.name(), m.op().as_str(), m.value()))
        .collect();
    matchers.sort();
    format!("{}{{{}}}~{}", e.name, matchers.join(","), e.offset.ms())
}

fn selector_text() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "http_requests_total", "job:rate:5m", "sum", "offset", "and"]);
    let matcher = prop::sample::select(vec!["x=\"1\"", "y!='2'", "z=~\"a.*|b\"", "w!~`c[0-9]`", "by=\"q\""]);
    (name, prop::collection::vec(matcher, 0..3)).prop_map(|(name, matchers)| {
        if matchers.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", matchers.join(", ")) }
    })
}

fn offset_text() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", " offset 5m", " offset -1h30m", " OFFSET 1d"]).prop_map(str::to_owned)
}

fn duration_text() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["5m", "1h30m", "90s", "1w", "100ms", "1d12h"])
}

/// Instant vectors, nested.
fn vector_text() -> impl Strategy<Value = String> {
    let leaf = (selector_text(), offset_text()).prop_map(|(s, o)| format!("{s}{o}"));
    leaf.prop_recursive(5, 40, 4, |inner| {
        let operator = prop::sample::select(vec![
            "+",
            "-",
            "*",
            "/",
            "%",
            "^",
            "atan2",
            "==",
            "!=",
            "<",
            "<=",
            ">",
            ">=",
            "and",
            "or",
            "unless",
            "== bool",
            "+ on(x)",
            "* ignoring(x, y)",
            "/ on(x) group_left(y)",
            "- on(x) group_right",
        ]);
        let function =
            prop::sample::select(vec!["abs", "sort_desc", "histogram_quantile", "clamp_max", "round"]);
        let aggregation =
            prop::sample::select(vec!["sum", "avg by (x)", "MAX without (x, y)", "topk", "quantile"]);
        let range_function = prop::sample::select(vec!["rate", "avg_over_time", "changes"]);
        prop_oneof![
            4 => (inner.clone(), operator, inner.clone()).prop_map(|(l, op, r)| format!("{l} {op} {r}")),
            1 => (number_text(), prop::sample::select(vec!["+", "*", "^", "> bool"]), inner.clone())
                .prop_map(|(l, op, r)| format!("{l} {op} {r}")),
            2 => inner.clone().prop_map(|e| format!("({e})")),
            1 => inner.clone().prop_map(|e| format!("-({e})")),
            2 => (function, inner.clone()).prop_map(|(f, e)| match f {
                "histogram_quantile" => format!("{f}(0.9, {e})"),
                "clamp_max" => format!("{f}({e}, 5)"),
                f => format!("{f}({e})"),
            }),
            2 => (aggregation, inner.clone()).prop_map(|(op, e)| match op {
                "topk" | "quantile" => format!("{op}(3, {e})"),
                op => format!("{op}({e})"),
            }),
            2 => (range_function, selector_text(), duration_text(), offset_text())
                .prop_map(|(f, s, d, o)| format!("{f}({s}[{d}]{o})")),
            1 => (inner, duration_text(), duration_text())
                .prop_map(|(e, r, s)| format!("max_over_time(({e})[{r}:{s}])")),
        ]
    })
}

fn number_text() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["1", "0.5", "1e3", "0x1f", "-2", "Inf"])
}

/// Duration arithmetic, nested.
fn duration_expression_text() -> impl Strategy<Value = String> {
    let leaf =
        prop::sample::select(vec!["5m", "30", "1.5", "step()", "range()", "1h30m"]).prop_map(str::to_owned);
    leaf.prop_recursive(4, 20, 2, |inner| {
        let operator = prop::sample::select(vec!["+", "-", "*", "/", "%", "^"]);
        prop_oneof![
            3 => (inner.clone(), operator, inner.clone()).prop_map(|(l, op, r)| format!("{l} {op} {r}")),
            1 => inner.clone().prop_map(|e| format!("({e})")),
            1 => inner.clone().prop_map(|e| format!("-{e}")),
            1 => (inner.clone(), inner).prop_map(|(l, r)| format!("max_of({l}, {r})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_parsers_build_the_same_tree(text in vector_text()) {
        let ours = parse_expr(&text, &Options::default());
        let theirs = other::parse(&text);
        match (&ours, &theirs) {
            (Ok(ours), Ok(theirs)) => prop_assert_eq!(grouped(ours), grouped_other(theirs), "{}", text),
            (Ok(_), Err(error)) => prop_assert!(false, "only ours takes {}: {}", text, error),
            (Err(error), Ok(_)) => prop_assert!(false, "only theirs takes {}: {}", text, error),
            (Err(_), Err(_)) => {}
        }
    }

    #[test]
    fn printing_is_a_fixed_point(text in vector_text()) {
        if parse_expr(&text, &Options::all()).is_ok() {
            assert_prints_back(&text);
        }
    }

    #[test]
    fn duration_expressions_print_back(text in duration_expression_text()) {
        for query in [format!("a[{text}]"), format!("a[1h:{text}] offset ({text})")] {
            if let Ok(expr) = parse_expr(&query, &Options::all()) {
                let printed = expr.to_string();
                prop_assert_eq!(shape(&parse(&printed)), shape(&expr), "{} is printed as {}", query, printed);
            }
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[ab:0-9.(){}\\[\\]\"'`,=!~<>+*/^@#_ \\\\-]{0,40}") {
        if let Err(errors) = parse_expr(&text, &Options::all()) {
            prop_assert!(!errors.all().is_empty());
        }
        let _series = promql_syntax::parse_series_description(&text);
        let _matchers = promql_syntax::parse_selector(&text);
    }
}
