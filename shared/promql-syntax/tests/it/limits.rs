//! Limits: what is refused, and that nothing on the way overflows the stack.

use std::time::{Duration, Instant};

use promql_syntax::{
    DURATION_NODES_MAX, ERRORS_MAX, Expr, GROUPING_LABELS_MAX, NESTING_MAX, NODES_MAX, Options, PATTERNS_MAX,
    TEXT_BYTES_MAX, TREE_HEIGHT_MAX, parse_expr, parse_selector,
};

/// Half of what a thread usually has.
const STACK_BYTES: usize = 1 << 20;

/// Runs a check with little stack, and fails when it takes long.
fn with_little_stack(check: impl FnOnce() + Send + 'static) {
    let started = Instant::now();
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(check).expect("a thread");
    thread.join().expect("no panic");
    assert!(started.elapsed() < Duration::from_secs(10), "took {:?}", started.elapsed());
}

fn nested(open: &str, inner: &str, close: &str, times: usize) -> String {
    format!("{}{inner}{}", open.repeat(times), close.repeat(times))
}

fn accept(text: &str) {
    let expr = parse_expr(text, &Options::all()).expect("an accepted query");
    let printed = expr.to_string();
    let again: Expr = parse_expr(&printed, &Options::all()).expect("its printed form");
    assert_eq!(again.to_string(), printed);
    assert_eq!(again.value_type(), expr.value_type());
    assert!(!expr.prettify().is_empty());
}

fn refuse(text: &str, expected: &str) {
    let error = parse_expr(text, &Options::all()).expect_err("a refused query").to_string();
    assert!(error.ends_with(expected), "{error}");
}

#[test]
fn deep_nesting_is_accepted_up_to_the_limit() {
    with_little_stack(|| {
        let levels = NESTING_MAX - 1;
        accept(&nested("(", "a", ")", 200));
        accept(&nested("(", "a", ")", levels));
        accept(&nested("abs(", "a", ")", levels));
        accept(&nested("sum by (x) (", "a", ")", levels));
        accept(&nested("-", "a", "", levels));
        accept(&nested("a ^ ", "a", "", levels));
        // A right operand is a level as well.
        accept(&nested("(a + ", "a", ")", levels / 2));
        let message = format!("expression is nested more than {NESTING_MAX} levels deep");
        for text in [
            nested("(", "a", ")", 10_000),
            nested("(", "a", ")", NESTING_MAX),
            nested("(", "", "", 100_000),
            nested("abs(", "a", ")", 10_000),
            nested("-", "a", "", 100_000),
            nested("a ^ ", "a", "", 50_000),
            nested("(a or ", "a", ")", 20_000),
        ] {
            refuse(&text, &message);
        }
    });
}

#[test]
fn long_chains_are_accepted_up_to_the_limit() {
    with_little_stack(|| {
        let chain = |op: &str, count: usize| format!("a{}", op.repeat(count));
        accept(&chain(" or a", 1_000));
        accept(&chain(" or a", TREE_HEIGHT_MAX - 1));
        accept(&chain(" + a", TREE_HEIGHT_MAX - 1));
        let message = format!("expression has more than {TREE_HEIGHT_MAX} operations inside of each other");
        refuse(&chain(" or a", TREE_HEIGHT_MAX), &message);
        refuse(&chain(" or a", 50_000), &message);
        refuse(&chain("[5m:]", 50_000), &message);
        // Chains inside of parentheses add up.
        let nested_chains =
            (0..100).fold("a".to_owned(), |inner, _| format!("({inner}{})", " + a".repeat(20)));
        refuse(&nested_chains, &message);
    });
}

#[test]
fn wide_trees_are_bounded() {
    with_little_stack(|| {
        let call = |count: usize| format!("label_join(a, \"b\", \"c\"{})", ",\"d\"".repeat(count));
        accept(&call(NODES_MAX - 5));
        let message = format!("expression has more than {NODES_MAX} parts");
        refuse(&call(NODES_MAX), &message);
        let matchers = format!("sum(a{{{}}})", "b=\"\",".repeat(TEXT_BYTES_MAX / 6 - 10));
        accept(&matchers);
    });
}

#[test]
fn long_texts_are_refused() {
    let message = format!("query is longer than {TEXT_BYTES_MAX} bytes");
    let selector = format!("{{a=~\"{}\"}}", "x|".repeat(1 << 19));
    refuse(&selector, &message);
    let error = parse_selector(&selector).expect_err("a long text").to_string();
    assert_eq!(error, format!("1:1: parse error: {message}"));
    accept(&format!("a{}", " ".repeat(TEXT_BYTES_MAX - 1)));
}

#[test]
fn huge_patterns_are_refused_in_time() {
    with_little_stack(|| {
        for pattern in [
            nested("(", "a", ")", 50_000),
            "((a{100}){100}){100}".to_owned(),
            "(".repeat(100_000),
            "[^a]{1000}".repeat(1_000),
        ] {
            let error = parse_selector(&format!("{{a=~\"{pattern}\"}}")).expect_err("a refused pattern");
            assert!(error.to_string().contains("error parsing regexp"), "{error}");
        }
    });
}

#[test]
fn the_number_of_patterns_is_bounded() {
    let query = |count: usize| format!("a{{{}}}", "b=~\"\",".repeat(count));
    accept(&query(PATTERNS_MAX));
    refuse(&query(PATTERNS_MAX + 1), &format!("query has more than {PATTERNS_MAX} regular expressions"));
}

#[test]
fn lists_of_labels_are_bounded() {
    let query = |count: usize| format!("sum by ({}) (a)", vec!["b"; count].join(","));
    accept(&query(GROUPING_LABELS_MAX));
    refuse(&query(GROUPING_LABELS_MAX + 1), &format!("more than {GROUPING_LABELS_MAX} grouping labels"));
}

#[test]
fn errors_are_bounded() {
    let text = "foo() + ".repeat(1_000) + "1";
    let errors = parse_expr(&text, &Options::all()).expect_err("unknown functions");
    assert_eq!(errors.all().len(), ERRORS_MAX);
}

#[test]
fn duration_expressions_are_bounded() {
    with_little_stack(|| {
        // Every operator and every operand counts.
        let chain = |count: usize| format!("a[1{}]", "+1".repeat(count));
        accept(&chain(DURATION_NODES_MAX / 2 - 1));
        accept(&format!("a[{}]", nested("(", "1+1", ")", DURATION_NODES_MAX - 3)));
        let message = format!("duration expression has more than {DURATION_NODES_MAX} parts");
        for text in [
            chain(DURATION_NODES_MAX / 2),
            chain(50_000),
            format!("a[{}]", nested("(", "1", ")", 50_000)),
            format!("a[{}1]", "-".repeat(50_000)),
            format!("a[{}", nested("min_of(1,", "1", ")", 10_000)),
            format!("a offset ({}1)", "1^".repeat(50_000)),
        ] {
            refuse(&text, &message);
        }
    });
}
