//! `/api/v1/format_query` and `/api/v1/parse_query`: what an expression looks like, without evaluating it.
//!
//! The tree has the members of Prometheus's `web/api/v1/translate_ast.go`, in the order of their names, as Go writes
//! maps.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http_api::{ApiError, ErrorType};
use model::Matcher;
use model::number::format_fixed;
use promql_syntax::{AtModifier, Edges, Expr, Function, TimeDelta, Variadic, VectorSelector, parse_expr};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{Form, fail, json};
use crate::gateway::Gateway;

/// The stack for walking a tree, which the parser bounds; only what is used of it is ever touched.
const STACK_BYTES: usize = 32 << 20;

/// `GET|POST /api/v1/format_query`.
pub(super) async fn format(State(gateway): State<Arc<Gateway>>, form: Form) -> Response {
    answer(&gateway, &form, |expr| http_api::json::success(&expr.prettify(), &[], &[])).await
}

/// `GET|POST /api/v1/parse_query`.
pub(super) async fn parse(State(gateway): State<Arc<Gateway>>, form: Form) -> Response {
    answer(&gateway, &form, |expr| http_api::json::success(&Tree(expr), &[], &[])).await
}

/// Parses the query and shows it, away from the async threads and with room for the highest tree.
async fn answer(gateway: &Gateway, form: &Form, show: fn(&Expr) -> Vec<u8>) -> Response {
    let (text, options) = (form.params.get("query").to_owned(), gateway.config.syntax());
    let work = move || match parse_expr(&text, &options) {
        Ok(expr) => Ok(show(&expr)),
        Err(error) => Err(ApiError::parameter("query", error)),
    };
    let on_large_stack = || {
        let thread = std::thread::Builder::new().name("expression".into()).stack_size(STACK_BYTES);
        thread.spawn(work).map_err(|e| e.to_string())?.join().map_err(|_| "the walk ended early".to_owned())
    };
    match tokio::task::spawn_blocking(on_large_stack).await.map_err(|e| e.to_string()).flatten() {
        Ok(Ok(body)) => json(http::StatusCode::OK, body),
        Ok(Err(error)) => fail(error),
        Err(error) => fail(ApiError::new(ErrorType::Internal, error)),
    }
}

/// An expression as JSON.
struct Tree<'a>(&'a Expr);

impl Serialize for Tree<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self.0 {
            Expr::NumberLiteral(e) => {
                map.serialize_entry("type", "numberLiteral")?;
                map.serialize_entry("val", &format_fixed(e.value))?;
            }
            Expr::StringLiteral(e) => {
                map.serialize_entry("type", "stringLiteral")?;
                map.serialize_entry("val", &e.value)?;
            }
            Expr::Paren(e) => {
                map.serialize_entry("expr", &Tree(&e.expr))?;
                map.serialize_entry("type", "parenExpr")?;
            }
            Expr::Unary(e) => {
                map.serialize_entry("expr", &Tree(&e.expr))?;
                map.serialize_entry("op", e.op.as_str())?;
                map.serialize_entry("type", "unaryExpr")?;
            }
            Expr::Binary(e) => {
                map.serialize_entry("bool", &e.return_bool)?;
                map.serialize_entry("lhs", &Tree(&e.lhs))?;
                map.serialize_entry("matching", &e.matching.as_ref().map(Matching))?;
                map.serialize_entry("op", e.op.as_str())?;
                map.serialize_entry("rhs", &Tree(&e.rhs))?;
                map.serialize_entry("type", "binaryExpr")?;
            }
            Expr::Aggregate(e) => {
                map.serialize_entry("expr", &Tree(&e.expr))?;
                map.serialize_entry("grouping", &e.grouping)?;
                map.serialize_entry("op", e.op.as_str())?;
                map.serialize_entry("param", &e.param.as_deref().map(Tree))?;
                map.serialize_entry("type", "aggregation")?;
                map.serialize_entry("without", &e.without)?;
            }
            Expr::Call(e) => {
                map.serialize_entry("args", &e.args.iter().map(Tree).collect::<Vec<_>>())?;
                map.serialize_entry("func", &Signature(e.func))?;
                map.serialize_entry("type", "call")?;
            }
            Expr::VectorSelector(e) => {
                write_selector(&mut map, e, None)?;
                map.serialize_entry("type", "vectorSelector")?;
            }
            Expr::MatrixSelector(e) => {
                write_selector(&mut map, &e.selector, Some(&e.range))?;
                map.serialize_entry("type", "matrixSelector")?;
            }
            Expr::Subquery(e) => {
                map.serialize_entry("expr", &Tree(&e.expr))?;
                map.serialize_entry("offset", &milliseconds(&e.offset))?;
                map.serialize_entry("range", &milliseconds(&e.range))?;
                map.serialize_entry("startOrEnd", &start_or_end(e.at))?;
                map.serialize_entry("step", &e.step.as_ref().map_or(0, milliseconds))?;
                map.serialize_entry("timestamp", &timestamp(e.at))?;
                map.serialize_entry("type", "subquery")?;
            }
        }
        map.end()
    }
}

/// Writes what selectors with and without a range have in common, and the range.
fn write_selector<M: SerializeMap>(
    map: &mut M,
    e: &VectorSelector,
    range: Option<&TimeDelta>,
) -> Result<(), M::Error> {
    map.serialize_entry("anchored", &(e.edges == Edges::Anchored))?;
    map.serialize_entry("matchers", &e.matchers.iter().map(OneMatcher).collect::<Vec<_>>())?;
    map.serialize_entry("name", &e.name)?;
    map.serialize_entry("offset", &milliseconds(&e.offset))?;
    if let Some(range) = range {
        map.serialize_entry("range", &milliseconds(range))?;
    }
    map.serialize_entry("smoothed", &(e.edges == Edges::Smoothed))?;
    map.serialize_entry("startOrEnd", &start_or_end(e.at))?;
    map.serialize_entry("timestamp", &timestamp(e.at))
}

/// A length written as an expression is not known without the query's times, and shows as 0.
fn milliseconds(delta: &TimeDelta) -> i64 {
    delta.known_ms().unwrap_or(0)
}

fn timestamp(at: Option<AtModifier>) -> Option<i64> {
    match at {
        Some(AtModifier::Timestamp(t)) => Some(t.millis()),
        _ => None,
    }
}

fn start_or_end(at: Option<AtModifier>) -> Option<&'static str> {
    match at {
        Some(AtModifier::Start) => Some("start"),
        Some(AtModifier::End) => Some("end"),
        _ => None,
    }
}

struct OneMatcher<'a>(&'a Matcher);

impl Serialize for OneMatcher<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("name", self.0.name())?;
        map.serialize_entry("type", self.0.op().as_str())?;
        map.serialize_entry("value", self.0.value())?;
        map.end()
    }
}

struct Matching<'a>(&'a promql_syntax::VectorMatching);

impl Serialize for Matching<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let m = self.0;
        let mut map = serializer.serialize_map(Some(5))?;
        map.serialize_entry("card", m.card.as_str())?;
        map.serialize_entry("fillValues", &Fill(m.fill.lhs, m.fill.rhs))?;
        map.serialize_entry("include", &m.include)?;
        map.serialize_entry("labels", &m.labels)?;
        map.serialize_entry("on", &m.on)?;
        map.end()
    }
}

/// What is filled in on the left and on the right.
struct Fill(Option<f64>, Option<f64>);

impl Serialize for Fill {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        for (name, value) in [("lhs", self.0), ("rhs", self.1)] {
            #[expect(clippy::cast_possible_truncation, reason = "checked to be a small integer")]
            match value {
                // Go writes whole numbers without a point.
                Some(x) if x.fract() == 0.0 && x.abs() < 1e15 => map.serialize_entry(name, &(x as i64))?,
                value => map.serialize_entry(name, &value)?,
            }
        }
        map.end()
    }
}

struct Signature(&'static Function);

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let variadic = match self.0.variadic {
            Variadic::No => 0,
            Variadic::UpTo(times) => i64::try_from(times).unwrap_or(i64::MAX),
            Variadic::Unlimited => -1,
        };
        let types: Vec<&str> = self.0.arg_types.iter().map(|t| t.as_str()).collect();
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("argTypes", &types)?;
        map.serialize_entry("name", self.0.name)?;
        map.serialize_entry("returnType", self.0.return_type.as_str())?;
        map.serialize_entry("variadic", &variadic)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use promql_syntax::Options;

    use super::*;

    fn tree(text: &str) -> String {
        let expr = parse_expr(text, &Options::all()).expect("valid");
        String::from_utf8(http_api::json::success(&Tree(&expr), &[], &[])).expect("UTF-8")
    }

    #[test]
    fn trees_have_prometheus_members() {
        let selector = concat!(
            r#"{"anchored":false,"matchers":[{"name":"__name__","type":"=","value":"a"}],"name":"a","#,
            r#""offset":0,"smoothed":false,"startOrEnd":null,"timestamp":null,"type":"vectorSelector"}"#
        );
        let number = |x| format!(r#"{{"type":"numberLiteral","val":"{x}"}}"#);
        let binary = |left: &str, op: &str, right: &str, matching: &str, is_bool: bool| {
            format!(
                r#"{{"bool":{is_bool},"lhs":{left},"matching":{matching},"op":"{op}","rhs":{right},"type":"binaryExpr"}}"#
            )
        };
        let matching = concat!(
            r#"{"card":"many-to-one","fillValues":{"lhs":null,"rhs":0.5},"include":["z"],"#,
            r#""labels":["x","y"],"on":true}"#
        );
        for (query, expected) in [
            ("a", selector.to_owned()),
            ("-a", format!(r#"{{"expr":{selector},"op":"-","type":"unaryExpr"}}"#)),
            ("(a)", format!(r#"{{"expr":{selector},"type":"parenExpr"}}"#)),
            ("'<x>'", r#"{"type":"stringLiteral","val":"\u003cx\u003e"}"#.to_owned()),
            (
                "1e300 > bool Inf",
                binary(&number(format_fixed(1e300)), "\\u003e", &number("+Inf".into()), "null", true),
            ),
            (
                "a + on (x, y) group_left (z) fill_right (0.5) a",
                binary(selector, "+", selector, matching, false),
            ),
            (
                "topk without (x) (2, a)",
                format!(
                    r#"{{"expr":{selector},"grouping":["x"],"op":"topk","param":{},"type":"aggregation","without":true}}"#,
                    number("2".into())
                ),
            ),
            (
                "round(a)",
                format!(
                    r#"{{"args":[{selector}],"func":{{"argTypes":["vector","scalar"],"name":"round","returnType":"vector","variadic":1}},"type":"call"}}"#
                ),
            ),
            (
                r#"{b=~"c|d"}[5m] @ 1.5 offset -1m"#,
                concat!(
                    r#"{"anchored":false,"matchers":[{"name":"b","type":"=~","value":"c|d"}],"name":"","#,
                    r#""offset":-60000,"range":300000,"smoothed":false,"startOrEnd":null,"timestamp":1500,"#,
                    r#""type":"matrixSelector"}"#
                )
                .to_owned(),
            ),
            (
                "a[1h:] @ end()",
                format!(
                    r#"{{"expr":{selector},"offset":0,"range":3600000,"startOrEnd":"end","step":0,"timestamp":null,"type":"subquery"}}"#
                ),
            ),
        ] {
            assert_eq!(tree(query), format!(r#"{{"status":"success","data":{expected}}}"#), "{query}");
        }
    }

    #[test]
    fn the_highest_tree_has_room() {
        let work = || tree(&vec!["a"; promql_syntax::TREE_HEIGHT_MAX].join(" or ")).len();
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work).expect("a thread");
        assert!(thread.join().expect("no overflow") > 100 * promql_syntax::TREE_HEIGHT_MAX);
    }
}
