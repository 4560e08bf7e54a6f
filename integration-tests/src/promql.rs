//! PromQL answers, and what differs between two of them.

use std::collections::BTreeMap;

use model::number::parse_float;
use serde_json::Value;

use crate::http::Http;
use crate::wait::eventually;

/// The relative difference at which two floats are still the same.
const TOLERANCE: f64 = 1e-12;

/// One series of an answer, oldest point first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Series {
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// Float points: milliseconds and value.
    pub floats: Vec<(i64, f64)>,
    /// Histogram points, as JSON.
    pub histograms: Vec<(i64, Value)>,
}

/// An answer; a scalar is one series without labels.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// `vector`, `matrix`, `scalar` or `string`.
    pub kind: String,
    /// The series, sorted by labels.
    pub series: Vec<Series>,
    /// Text of a `string`.
    pub text: String,
}

/// Evaluates at one time.
///
/// # Panics
/// When the query fails.
#[must_use]
pub fn instant(server: &Http, query: &str, at_ms: i64) -> Answer {
    let at = seconds(at_ms);
    parse(&server.post_form("/api/v1/query", &[("query", query), ("time", &at)]).data())
}

/// Evaluates at one time, again and again while the server refuses because an ingester is away.
///
/// # Panics
/// When the query fails otherwise, or is refused until the deadline.
#[must_use]
pub fn instant_once_answered(server: &Http, query: &str, at_ms: i64) -> Answer {
    let form = [("query", query), ("time", &seconds(at_ms))];
    eventually("a query is answered", || {
        let reply = server.post_form("/api/v1/query", &form);
        assert!(matches!(reply.status, 200 | 503), "{query}: {}", reply.body);
        (reply.status == 200).then(|| parse(&reply.data()))
    })
}

/// Evaluates at every step of a range.
///
/// # Panics
/// When the query fails.
#[must_use]
pub fn range(server: &Http, query: &str, start_ms: i64, end_ms: i64, step_ms: i64) -> Answer {
    try_range(server, query, start_ms, end_ms, step_ms).unwrap_or_else(|error| panic!("{query}: {error}"))
}

/// Evaluates at every step of a range.
///
/// # Errors
/// The server's words when the query fails.
pub fn try_range(
    server: &Http,
    query: &str,
    start_ms: i64,
    end_ms: i64,
    step_ms: i64,
) -> Result<Answer, String> {
    let (start, end, step) = (seconds(start_ms), seconds(end_ms), seconds(step_ms));
    let form = [("query", query), ("start", &start), ("end", &end), ("step", &step)];
    let reply = server.post_form("/api/v1/query_range", &form);
    if reply.status == 200 { Ok(parse(&reply.data())) } else { Err(reply.body) }
}

/// The only float of an instant query's answer; `None` when there is not exactly one.
#[must_use]
pub fn single(server: &Http, query: &str, at_ms: i64) -> Option<f64> {
    match &instant(server, query, at_ms).series[..] {
        [one] => one.floats.first().map(|(_, value)| *value),
        _ => None,
    }
}

/// Milliseconds as the API's seconds.
#[must_use]
pub fn seconds(ms: i64) -> String {
    format!("{}.{:03}", ms.div_euclid(1000), ms.rem_euclid(1000))
}

/// Says in words what differs; nothing when the answers agree, floats to the last digits.
#[must_use]
pub fn differences(got: &Answer, want: &Answer) -> Vec<String> {
    differences_within(TOLERANCE, got, want)
}

/// Says in words what differs; nothing when the answers agree, floats within a relative tolerance.
#[must_use]
pub fn differences_within(tolerance: f64, got: &Answer, want: &Answer) -> Vec<String> {
    let mut found = Vec::new();
    if got.kind != want.kind || got.text != want.text {
        found.push(format!("{} {:?}, not {} {:?}", got.kind, got.text, want.kind, want.text));
    }
    let by_labels = |answer: &Answer| -> BTreeMap<_, _> {
        answer.series.iter().map(|s| (s.labels.clone(), s.clone())).collect()
    };
    let (have, wanted) = (by_labels(got), by_labels(want));
    if have.len() != got.series.len() {
        found.push("one label set twice".to_owned());
    }
    found.extend(have.keys().filter(|k| !wanted.contains_key(*k)).map(|k| format!("has {k:?}")));
    for (labels, want) in &wanted {
        match have.get(labels) {
            None => found.push(format!("lacks {labels:?}")),
            Some(got) => {
                let found_here = point_differences(tolerance, got, want);
                found.extend(found_here.map(|text| format!("{labels:?}: {text}")));
            }
        }
    }
    found
}

/// The first difference between two series, if any.
fn point_differences(tolerance: f64, got: &Series, want: &Series) -> Option<String> {
    let times = |s: &Series| -> Vec<i64> { s.floats.iter().map(|(t, _)| *t).collect() };
    if times(got) != times(want) {
        let (a, b) = (times(got), times(want));
        let at = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
        return Some(format!(
            "{} points, not {}; first different time {:?}, not {:?}",
            a.len(),
            b.len(),
            a.get(at),
            b.get(at)
        ));
    }
    if let Some(((t, a), (_, b))) =
        got.floats.iter().zip(&want.floats).find(|((_, a), (_, b))| !is_same_within(tolerance, *a, *b))
    {
        return Some(format!("at {t}: {a}, not {b}"));
    }
    if got.histograms.len() != want.histograms.len() {
        return Some(format!("{} histograms, not {}", got.histograms.len(), want.histograms.len()));
    }
    let mut pairs = got.histograms.iter().zip(&want.histograms);
    let different = pairs.find(|((t, a), (u, b))| t != u || !is_same_json(a, b));
    different.map(|(a, b)| format!("histogram {a:?}, not {b:?}"))
}

/// Compares two floats; a NaN equals a NaN.
#[must_use]
pub fn is_same(a: f64, b: f64) -> bool {
    is_same_within(TOLERANCE, a, b)
}

fn is_same_within(tolerance: f64, a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits()
        || (a.is_nan() && b.is_nan())
        || a == b
        || (a - b).abs() <= tolerance * a.abs().max(b.abs()) && (a - b).is_finite()
}

/// Compares JSON in which numbers are written as strings.
fn is_same_json(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::String(a), Value::String(b)) => match (parse_float(a), parse_float(b)) {
            (Some(a), Some(b)) => is_same(a, b),
            _ => a == b,
        },
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same_json(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, a)| b.get(k).is_some_and(|b| is_same_json(a, b)))
        }
        _ => a == b,
    }
}

fn parse(data: &Value) -> Answer {
    let kind = data["resultType"].as_str().unwrap_or_default().to_owned();
    let result = &data["result"];
    match kind.as_str() {
        "string" => {
            Answer { kind, text: result[1].as_str().unwrap_or_default().to_owned(), series: Vec::new() }
        }
        "scalar" => {
            let series = vec![Series { floats: vec![float_point(result)], ..Series::default() }];
            Answer { kind, series, text: String::new() }
        }
        _ => {
            let list = result.as_array().unwrap_or_else(|| panic!("no list: {data}"));
            let mut series: Vec<_> = list.iter().map(parse_series).collect();
            series.sort_by(|a, b| a.labels.cmp(&b.labels));
            Answer { kind, series, text: String::new() }
        }
    }
}

fn parse_series(item: &Value) -> Series {
    let labels = item["metric"].as_object().unwrap_or_else(|| panic!("no labels: {item}"));
    let text = |v: &Value| v.as_str().unwrap_or_else(|| panic!("no text: {v}")).to_owned();
    let list = |one: &str, many: &str| -> Vec<Value> {
        let many = item[many].as_array().cloned().unwrap_or_default();
        if item[one].is_null() { many } else { vec![item[one].clone()] }
    };
    Series {
        labels: labels.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
        floats: list("value", "values").iter().map(float_point).collect(),
        histograms: list("histogram", "histograms").iter().map(|p| (time(p), p[1].clone())).collect(),
    }
}

fn float_point(point: &Value) -> (i64, f64) {
    let value = point[1].as_str().and_then(parse_float).unwrap_or_else(|| panic!("no value: {point}"));
    (time(point), value)
}

fn time(point: &Value) -> i64 {
    let seconds = point[0].as_f64().unwrap_or_else(|| panic!("no time: {point}"));
    (seconds * 1000.0).round() as i64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn vector(points: Value) -> Answer {
        parse(&json!({"resultType": "matrix", "result": [{"metric": {"a": "b"}, "values": points}]}))
    }

    #[test]
    fn differences_are_found() {
        let want = vector(json!([[1.001, "1"], [2, "NaN"], [3, "+Inf"]]));
        assert_eq!(want.series[0].floats[0], (1001, 1.0));
        for (points, is_equal) in [
            (json!([[1.001, "1"], [2, "NaN"], [3, "+Inf"]]), true),
            (json!([[1.001, "1.0000000000001"], [2, "NaN"], [3, "+Inf"]]), true),
            (json!([[1.001, "1.00000000001"], [2, "NaN"], [3, "+Inf"]]), false),
            (json!([[1.001, "1"], [2, "2"], [3, "+Inf"]]), false),
            (json!([[1.001, "1"], [2, "NaN"], [3, "-Inf"]]), false),
            (json!([[1.001, "1"], [2, "NaN"], [3, "1e308"]]), false),
            (json!([[1.002, "1"], [2, "NaN"], [3, "+Inf"]]), false),
            (json!([[1.001, "1"], [2, "NaN"]]), false),
        ] {
            assert_eq!(differences(&vector(points.clone()), &want).is_empty(), is_equal, "{points}");
        }
    }
}
