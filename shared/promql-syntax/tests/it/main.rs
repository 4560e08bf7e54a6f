//! The language as a whole: Prometheus's own scripts, its error texts, printing, limits, and another parser.

mod conformance;
mod errors;
mod fuzz;
mod limits;
mod oracle;
mod printing;
mod series;
mod structure;

use promql_syntax::{Expr, Options, parse_expr};

/// Parses with everything enabled.
fn parse(text: &str) -> Expr {
    parse_expr(text, &Options::all()).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

/// Shows a tree without the places in the text and the order of matchers, for comparing trees of different texts.
fn shape(expr: &Expr) -> String {
    let mut expr = expr.clone();
    expr.walk_mut(&mut |e| match e {
        Expr::VectorSelector(e) => e.matchers.sort_by_key(ToString::to_string),
        Expr::MatrixSelector(e) => e.selector.matchers.sort_by_key(ToString::to_string),
        _ => {}
    });
    let debug = format!("{expr:?}");
    let mut shape = String::with_capacity(debug.len());
    for (i, part) in debug.split("span: Span {").enumerate() {
        let rest = if i == 0 { part } else { part.split_once('}').expect("a span ends").1 };
        shape.push_str(rest);
    }
    shape
}

/// Asserts that printing and parsing again gives the same tree and the same text; returns the text.
fn assert_prints_back(text: &str) -> String {
    let expr = parse(text);
    let printed = expr.to_string();
    let again = parse_expr(&printed, &Options::all())
        .unwrap_or_else(|error| panic!("{text} is printed as {printed}, which does not parse: {error}"));
    assert_eq!(shape(&again), shape(&expr), "{text} is printed as {printed}");
    assert_eq!(again.to_string(), printed, "{text}");
    let pretty = parse(&expr.prettify());
    assert_eq!(shape(&pretty), shape(&expr), "{text} is prettified as {}", expr.prettify());
    printed
}
