//! Odd requests, made up from tables, are answered as Prometheus 3.5 answers them: status, headers and words.
//!
//! What differs on purpose, or cannot be the same, is kept out of the tables:
//! - times and durations that milliseconds do not hold (`NaN`, `Inf`, `1e100`) are refused, where Prometheus takes
//!   whatever number comes out;
//! - `timeout` of 0 or less: Prometheus answers by who is first, its clock or its parser;
//! - a step below a millisecond is refused; Prometheus divides by zero;
//! - text that is not UTF-8 is refused as a form, not found wrong by the parser of expressions;
//! - forms in parts (`multipart/form-data`) are not read;
//! - a path with a slash at its end is not found; Prometheus leads to a path without its prefix;
//! - what is wrong with a regular expression is told in words of another library;
//! - what 3.14 answers otherwise than 3.5: warnings of `sort` over a range and of buckets without `le`, which series a
//!   many-to-many match names first, `@` in a selector (named by a number in 3.5), `samplesRead` among statistics;
//! - `/version` says that it is JSON, and a wrong method for `/-/healthy` says nothing more than its status;
//! - `OPTIONS` outside of the API, `HEAD`, and the header `Allow`;
//! - `droppedTargetCounts` is there whatever state of targets is wanted, as Prometheus's own OpenAPI document has it.

use integration_tests::{Http, Kind, Reply, promql};
use serde_json::Value;

use crate::pair::{self, Pair, family};

const TIMES: [&str; 14] = [
    "",
    "x",
    "2020-01-01",
    "2020-02-30T00:00:00Z",
    "2020-01-01T00:00:00",
    "2020-01-01t00:00:00z",
    "2020-01-01T00:00:00Z",
    "2020-01-01T00:00:00.123456789%2B01:00",
    "0x10",
    "1e3",
    "-1",
    "1.23456",
    "%201",
    "1s",
];
/// As timeouts too: what is taken is longer than a busy machine holds a query up.
const DURATIONS: [&str; 10] = ["", "x", "5x", "-1s", "1e30", "1m", "1h30m", "90.5", "5%20m", "1m1h"];
const COUNTS: [&str; 9] = ["", "x", "-1", "1.5", "99999999999999999999", "%2B1", "0", "1", "%201"];
const SELECTORS: [&str; 20] = [
    "",
    "{}",
    "left",
    "nothing",
    "left{",
    "left[5m]",
    "1",
    "sum(left)",
    "{a=\"\"}",
    "{a=~\".*\"}",
    "{a!~\"\"}",
    "left offset 5m",
    "{__name__=\"left\",__name__=\"x\"}",
    "{\"left\"}",
    "left{\"odd.name\"!=\"\"}",
    "left{a!~\"1\"}",
    "left{a=\"1\",}",
    "{a=\"1\" b=\"2\"}",
    "left,",
    "-left",
];
const EXPRESSIONS: [&str; 62] = [
    "",
    " ",
    "#comment",
    "1 #comment",
    "left",
    "left[5m]",
    "sum(",
    "foo(",
    "left{",
    "{}",
    "{a=~\".*\"}",
    "{a=~\"1|2\"}",
    "rate(left)",
    "topk(left,1)",
    "left bool left",
    "1 == 1",
    "1 == bool 1",
    "label_join(left,\"a\")",
    "left or 1",
    "left offset 5",
    "left@abc",
    "left[5m:][5m]",
    "sum by (a.b)(left)",
    "left{a=\"\\x\"}",
    "\"",
    "\"<&>\"",
    "\"\u{2028}\"",
    "\"a\\x00b\"",
    "1 1",
    "1+1",
    "1/0",
    "-1/0",
    "0/0",
    "1e20",
    "1e21",
    "1e-7",
    "0.000001",
    "-0",
    "123456789.123456789",
    "0.1+0.2",
    "NaN",
    "vector(1)",
    "vector(-0)",
    "time()",
    "label_replace(vector(1),\"a<b\",\"<\",\"\",\"\")",
    "label_replace(left,\"a\",\"\",\"\",\"(\")",
    "histogram_quantile(2,nothing)",
    "left * on(a) left",
    "absent(nothing{a=\"1\"})",
    "count_values(\"a b\",left)",
    "-left",
    "left{a=\"1\"} > 5",
    "sum(left) by (a)",
    "quantile(2,left)",
    "nonsense",
    "nonsense(left)",
    "left{a=1}",
    "left{1=\"a\"}",
    "0x1f",
    "1_000",
    "1h",
    "{\"left\",a=\"1\"}",
];
/// Broken pairs, pairs that nobody asked for, and nothing at all.
const PAIRS: [&str; 8] = ["x=%25zz", "x=%zz", "x=%", "x;y=1", "unknown=1", "=1", "&&", "x"];

/// Endpoints: the path, whether POST is answered, what is asked well, and what is varied with which table.
type Endpoint = (
    &'static str,
    bool,
    &'static [(&'static str, &'static str)],
    &'static [(&'static str, &'static [&'static str])],
);

const ENDPOINTS: [Endpoint; 14] = [
    (
        "query",
        true,
        &[("query", "sum(left)"), ("time", "AT")],
        &[
            ("query", &EXPRESSIONS),
            ("time", &TIMES),
            ("timeout", &DURATIONS),
            ("limit", &COUNTS),
            ("lookback_delta", &DURATIONS),
        ],
    ),
    (
        "query_range",
        true,
        &[("query", "left"), ("start", "AT"), ("end", "AT"), ("step", "15")],
        &[
            ("query", &EXPRESSIONS),
            ("start", &TIMES),
            ("end", &TIMES),
            ("step", &DURATIONS),
            ("step", &["0", "-1", "0.5", "500ms"]),
            ("timeout", &DURATIONS),
            ("limit", &COUNTS),
            ("lookback_delta", &DURATIONS),
        ],
    ),
    (
        "query_exemplars",
        true,
        &[("query", "left")],
        &[("query", &["", "left{", "1", "left", "sum(left)"]), ("start", &TIMES), ("end", &TIMES)],
    ),
    ("format_query", true, &[("query", "left")], &[("query", &EXPRESSIONS)]),
    ("labels", true, &[("match[]", "left")], &LOOK_UPS),
    ("label/a/values", false, &[("match[]", "left")], &LOOK_UPS),
    ("label/odd.name/values", false, &[("match[]", "left")], &LOOK_UPS),
    ("series", true, &[("match[]", "left")], &LOOK_UPS),
    (
        "metadata",
        false,
        &[("metric", "left")],
        &[("metric", &["", "left", "none"]), ("limit", &COUNTS), ("limit_per_metric", &COUNTS)],
    ),
    (
        "targets/metadata",
        false,
        &[("metric", "left")],
        &[
            ("metric", &["left", "none"]),
            ("limit", &COUNTS),
            (
                "match_target",
                &["", "{", "{}", "left", "{job=\"fixture\"}", "{job=\"none\"}", "{job!~\"f.*\"}"],
            ),
        ],
    ),
    (
        "rules",
        false,
        &[],
        &[
            ("type", &["", "x", "alert", "record"]),
            ("group_limit", &["", "x", "-1", "0", "1"]),
            ("group_next_token", &["", "x"]),
            ("exclude_alerts", &["", "x", "true", "T", "0"]),
            ("match[]", &["{", "{}", "left", "{a=\"1\"}"]),
            ("rule_name[]", &["", "x"]),
            ("rule_group[]", &["x"]),
            ("file[]", &["x"]),
        ],
    ),
    ("alerts", false, &[], &[("unknown", &["1"])]),
    ("alertmanagers", false, &[], &[("unknown", &["1"])]),
    ("scrape_pools", false, &[], &[("unknown", &["1"])]),
];

const LOOK_UPS: [(&str, &[&str]); 4] =
    [("match[]", &SELECTORS), ("start", &TIMES), ("end", &TIMES), ("limit", &COUNTS)];

/// Paths beside the endpoints above, by method. Those below `/api/v1/` begin without a slash.
const PLACES: [&str; 43] = [
    "/",
    "/graph",
    "/graph?g0.expr=left",
    "/nothing",
    "/x/y",
    "/-/nothing",
    "/federate",
    "/federate?match[]=",
    "/federate?match[]=left%7B",
    "/federate?match[]=(",
    "/federate?match[]=nothing",
    "/federate?x=%zz",
    "/federatex",
    "//api/v1/query?query=1&time=1",
    "/api//v1/labels?match[]=nothing",
    "/API/v1/query",
    "nothing",
    "status/nothing",
    "label/values",
    "label/a/b/values",
    "label/U__/values",
    "label/U__odd_2e_name/values",
    "label/U__zz_/values",
    "label/U__odd_zz_name/values",
    "label/1a/values",
    "label/a%20b/values",
    "label/%C3%A9/values",
    "label/a",
    "rules/x/y",
    "query",
    "query_range",
    "query_exemplars",
    "format_query",
    "parse_query",
    "labels",
    "series",
    "metadata",
    "rules?match[]=",
    "rules",
    "status/tsdb?limit=0",
    "status/tsdb?limit=x",
    "status/tsdb?limit=-1",
    "label/__name__/values?match[]=left",
];

/// Asked by a method that is not theirs.
const METHODS: [(&str, &str); 22] = [
    ("DELETE", "query"),
    ("PUT", "query"),
    ("PATCH", "query_range"),
    ("OPTIONS", "query"),
    ("OPTIONS", "nothing"),
    ("PUT", "labels"),
    ("POST", "label/a/values"),
    ("POST", "targets"),
    ("POST", "rules"),
    ("POST", "status/tsdb"),
    ("POST", "metadata"),
    ("PUT", "nothing"),
    ("GET", "write"),
    ("PUT", "write"),
    ("GET", "read"),
    ("GET", "admin/tsdb/snapshot"),
    ("GET", "admin/tsdb/delete_series"),
    ("GET", "admin/tsdb/clean_tombstones"),
    ("POST", "/federate"),
    ("POST", "/version"),
    ("PUT", "/graph"),
    ("POST", "/"),
];

/// Forms: content type and body, for `query`.
const FORMS: [(&str, &str); 12] = [
    (FORM, ""),
    (FORM, "query=1&time=1"),
    (FORM, "query=1&time=1&time=2&query=2"),
    (FORM, "query=%zz&time=1"),
    (FORM, "{\"query\":\"1\"}"),
    (FORM, "=1&query=1&time=1&&"),
    (FORM, "query=left%5B1m%5D&time=AT"),
    ("application/x-www-form-urlencoded; charset=utf-8", "query=1&time=1"),
    ("application/json", "query=1&time=1"),
    ("text/plain", "query=1&time=1"),
    ("bad/;", "query=1&time=1"),
    ("", "query=1&time=1"),
];
const FORM: &str = "application/x-www-form-urlencoded";

/// Shapes alone are compared: what the values are is each server's own.
const SHAPES: [&str; 7] = [
    "status/buildinfo",
    "status/runtimeinfo",
    "status/tsdb",
    "status/walreplay",
    "notifications",
    "targets",
    "targets?scrapePool=none",
];

/// One request and what both answered.
struct Table<'a> {
    ours: &'a Http,
    theirs: &'a Http,
    at: String,
    asked: usize,
    faults: Vec<String>,
}

impl Table<'_> {
    fn compare(&mut self, method: &str, place: &str, headers: &[(&str, &str)], body: &str) {
        let place = if place.starts_with('/') { place.to_owned() } else { format!("/api/v1/{place}") };
        let (place, body) = (place.replace("AT", &self.at), body.replace("AT", &self.at));
        let ask = |http: &Http| {
            let reply = http.raw(method, &place, headers, body.as_bytes());
            seen(&reply.unwrap_or_else(|| panic!("no answer: {method} {place}")))
        };
        let (got, want) = (ask(self.ours), ask(self.theirs));
        self.asked += 1;
        if got != want {
            self.faults.push(format!("{method} {place} {headers:?} {body}\n   {got:?}, not\n   {want:?}"));
        }
    }
}

/// What a client sees of an answer.
type Seen = (u16, String, Option<String>, Vec<Option<String>>, String);

fn seen(reply: &Reply) -> Seen {
    let header = |name: &str| reply.header(name).map(str::to_owned);
    let shared =
        ["access-control-allow-headers", "access-control-allow-methods", "access-control-expose-headers"];
    // A redirect's body is for people who read HTML.
    let (content_type, body) = match reply.status {
        301 | 302 => (String::new(), String::new()),
        _ => (reply.content_type.clone(), reply.body.trim_end().to_owned()),
    };
    let body = serde_json::from_str::<Value>(&body).map_or(body, |json| sorted(json).to_string());
    (reply.status, content_type, header("location"), shared.map(header).into(), body)
}

/// The order of series is free, and so is that of a message's series.
fn sorted(mut json: Value) -> Value {
    for place in ["/data", "/data/result"] {
        if let Some(Value::Array(list)) = json.pointer_mut(place)
            && list.iter().all(Value::is_object)
        {
            list.sort_by_key(ToString::to_string);
        }
    }
    json
}

fn encoded(text: &str) -> String {
    // What stands in a table encoded already stays so.
    if text.contains('%') && !text.contains(' ') {
        return text.to_owned();
    }
    text.bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b':' => char::from(b).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}

fn query_of(pairs: &[(&str, &str)]) -> String {
    pairs.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&")
}

/// Every parameter with every odd value in the place of the good one, behind it and before it; then without it.
fn variations(endpoint: &Endpoint) -> Vec<String> {
    let (_, _, good, varied) = endpoint;
    let mut all: Vec<String> = PAIRS.iter().map(|pair| format!("{}&{pair}", query_of(good))).collect();
    for (name, values) in *varied {
        let others: Vec<(&str, &str)> = good.iter().filter(|(n, _)| n != name).copied().collect();
        all.push(query_of(&others));
        for value in *values {
            all.push(query_of(&[&others[..], &[(*name, *value)]].concat()));
        }
        // Of two the first counts; of lists both.
        if let Some(odd) = values.iter().find(|value| !value.is_empty()) {
            let good = good.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value);
            all.push(query_of(&[&others[..], &[(*name, good), (*name, *odd)]].concat()));
            all.push(query_of(&[&others[..], &[(*name, *odd), (*name, good)]].concat()));
        }
    }
    // Two faults at once: who is told of first.
    for (i, (one, values)) in varied.iter().enumerate() {
        for (other, others) in &varied[i + 1..] {
            let pair = [(*one, bad(values)), (*other, bad(others))];
            let rest: Vec<(&str, &str)> =
                good.iter().filter(|(n, _)| n != one && n != other).copied().collect();
            if one != other {
                all.push(query_of(&[&rest[..], &pair].concat()));
            }
        }
    }
    all
}

/// A value of a table that is wrong, where one is.
fn bad(values: &[&'static str]) -> &'static str {
    ["x", "sum(", "left{", "{", "0"].into_iter().find(|wrong| values.contains(wrong)).unwrap_or("")
}

/// The names of all members, and the kinds of all values.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(map.iter().map(|(k, v)| (k.clone(), shape(v))).collect()),
        Value::Array(list) => Value::Array(list.iter().take(1).map(shape).collect()),
        Value::String(_) => "text".into(),
        Value::Number(_) => "number".into(),
        Value::Bool(_) => "boolean".into(),
        Value::Null => Value::Null,
    }
}

#[test]
fn odd_requests_are_answered_as_prometheus_answers_them() {
    let pair = Pair::start(Kind::Prometheus3);
    let at = pair::base_ms(60_000);
    let mut body = String::new();
    let series = ["left{a=\"1\"}", "left{a=\"2\",b=\"<x>\"}", "left{a=\"3\",\"odd.name\"=\"y\"}"];
    let samples: Vec<_> =
        series.iter().zip([1.0, 2.5, f64::INFINITY]).map(|(s, x)| ((*s).to_owned(), x)).collect();
    family(&mut body, "left", "gauge", at, &samples);
    pair.step(0, at, &body);
    let (ours, theirs) = (pair.tributary.http(), pair.prometheus.http());
    let mut table =
        Table { ours: &ours, theirs: &theirs, at: promql::seconds(at), asked: 0, faults: Vec::new() };
    for endpoint in &ENDPOINTS {
        for query in variations(endpoint) {
            // What is asked for now has another time each time.
            if endpoint.0 == "query"
                && (!query.contains("time=") || query.contains("time=&") || query.ends_with("time="))
            {
                continue;
            }
            table.compare("GET", &format!("{}?{query}", endpoint.0), &[], "");
            if endpoint.1 {
                table.compare("POST", endpoint.0, &[("Content-Type", FORM)], &query);
            }
        }
    }
    for place in PLACES {
        table.compare("GET", place, &[], "");
    }
    for (method, place) in METHODS {
        table.compare(method, place, &[], "");
    }
    for (content_type, body) in FORMS {
        table.compare("POST", "query", &[("Content-Type", content_type)], body);
        table.compare("POST", "query?query=3&time=3", &[("Content-Type", content_type)], body);
        table.compare("GET", "query?query=3&time=3", &[("Content-Type", content_type)], body);
    }
    for (method, place) in [
        ("GET", "query?query=1&time=1"),
        ("OPTIONS", "query"),
        ("GET", "query?query=("),
        ("GET", "labels?match[]=("),
    ] {
        table.compare(method, place, &[("Origin", "http://example.org")], "");
        table.compare(method, place, &[("Accept", "text/html")], "");
    }
    let Table { asked, mut faults, .. } = table;
    for place in SHAPES {
        let ask = |http: &Http| shape(&http.get(&format!("/api/v1/{place}"), &[]).data());
        let (got, want) = (ask(&ours), ask(&theirs));
        if got != want {
            faults.push(format!("GET {place}: the shape\n   {got}, not\n   {want}"));
        }
    }
    assert!(asked > 1_000, "{asked} requests were made up");
    assert!(faults.is_empty(), "{} differences in {asked} requests:\n{}", faults.len(), faults.join("\n"));
}
