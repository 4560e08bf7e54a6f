//! The functions of templates: Go's own, and Prometheus's.

use std::net::IpAddr;
use std::sync::Arc;

use model::number::{Quoted, parse_float};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use regex::Regex;

use super::format::{general, sprintf};
use super::value::{Sample, Value};
use super::{Context, TEXT_BYTES_MAX};

/// The largest compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// What a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Any,
    Text,
    Sample,
    Samples,
}

impl Type {
    /// The name in messages.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Any => "interface {}",
            Self::Text => "string",
            Self::Sample => "*template.sample",
            Self::Samples => "template.queryResult",
        }
    }

    pub(super) const fn accepts(self, value: &Value) -> bool {
        match self {
            Self::Any => true,
            Self::Text => matches!(value, Value::Text(_)),
            Self::Sample => matches!(value, Value::Sample(_)),
            Self::Samples => matches!(value, Value::Samples(_)),
        }
    }
}

type Outcome = Result<Value, String>;
type Run = fn(&mut dyn Context, &[Value]) -> Outcome;

/// A function.
#[derive(Debug, Clone, Copy)]
pub(super) struct Function {
    name: &'static str,
    pub(super) parameters: &'static [Type],
    /// What further arguments are.
    pub(super) rest: Option<Type>,
    pub(super) run: Run,
}

/// How a template uses a word.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found {
    Function(&'static Function),
    /// `and` and `or` evaluate no more than they need.
    And,
    Or,
}

/// Finds a function.
pub(super) fn find(name: &str) -> Option<Found> {
    match name {
        "and" => Some(Found::And),
        "or" => Some(Found::Or),
        _ => FUNCTIONS.iter().find(|f| f.name == name).map(Found::Function),
    }
}

const fn fixed(name: &'static str, parameters: &'static [Type], run: Run) -> Function {
    Function { name, parameters, rest: None, run }
}

const fn variadic(name: &'static str, parameters: &'static [Type], rest: Type, run: Run) -> Function {
    Function { name, parameters, rest: Some(rest), run }
}

use Type::{Any, Sample as OneSample, Samples, Text};

static FUNCTIONS: &[Function] = &[
    // Go's.
    fixed("not", &[Any], |_, a| Ok(Value::Bool(!a[0].is_true()))),
    fixed("len", &[Any], |_, a| len(&a[0])),
    variadic("index", &[Any], Any, |_, a| a[1..].iter().try_fold(a[0].clone(), |of, key| index(&of, key))),
    variadic("slice", &[Any], Any, |_, a| slice(&a[0], &a[1..])),
    variadic("print", &[], Any, |_, a| Ok(Value::text(print(a, false)))),
    variadic("println", &[], Any, |_, a| Ok(Value::text(print(a, true)))),
    variadic("printf", &[Text], Any, |_, a| Ok(Value::text(sprintf(text(&a[0]), &a[1..])))),
    variadic("html", &[], Any, |_, a| Ok(Value::text(html(&joined(a))))),
    variadic("js", &[], Any, |_, a| Ok(Value::text(js(&joined(a))))),
    variadic("urlquery", &[], Any, |_, a| Ok(Value::text(query_escape(&joined(a))))),
    variadic("call", &[Any], Any, |_, a| {
        Err(format!("non-function {} of type {}", a[0].show(), a[0].type_name()))
    }),
    variadic("eq", &[Any], Any, |_, a| equal_to_any(a)),
    fixed("ne", &[Any, Any], |_, a| equal(&a[0], &a[1]).map(|is| Value::Bool(!is))),
    fixed("lt", &[Any, Any], |_, a| less(&a[0], &a[1]).map(Value::Bool)),
    fixed("le", &[Any, Any], |_, a| Ok(Value::Bool(less(&a[0], &a[1])? || equal(&a[0], &a[1])?))),
    fixed("gt", &[Any, Any], |_, a| Ok(Value::Bool(!less(&a[0], &a[1])? && !equal(&a[0], &a[1])?))),
    fixed("ge", &[Any, Any], |_, a| less(&a[0], &a[1]).map(|is| Value::Bool(!is))),
    // Prometheus's.
    fixed("query", &[Text], |cx, a| query(cx, text(&a[0]))),
    fixed("first", &[Samples], |_, a| match samples(&a[0]).first() {
        Some(sample) => Ok(Value::Sample(Arc::clone(sample))),
        None => Err("first() called on vector with no elements".to_owned()),
    }),
    fixed("label", &[Text, OneSample], |_, a| Ok(label(&a[1], text(&a[0])))),
    fixed("value", &[OneSample], |_, a| match &a[0] {
        Value::Sample(sample) => Ok(Value::Float(sample.value)),
        _ => Ok(Value::Nothing),
    }),
    fixed("strvalue", &[OneSample], |_, a| Ok(label(&a[0], "__value__"))),
    variadic("args", &[], Any, |_, a| {
        let named = a.iter().enumerate().map(|(i, value)| (format!("arg{i}"), value.clone()));
        Ok(Value::Map(Arc::new(named.collect())))
    }),
    fixed("reReplaceAll", &[Text, Text, Text], |_, a| {
        let pattern = pattern(text(&a[0]), |error| {
            format!("regexp: Compile({}): error parsing regexp: {error}", backquoted(text(&a[0])))
        })?;
        replace_all(&pattern, text(&a[2]), text(&a[1]))
    }),
    fixed("match", &[Text, Text], |_, a| {
        let pattern = pattern(text(&a[0]), |error| format!("error parsing regexp: {error}"))?;
        Ok(Value::Bool(pattern.is_match(text(&a[1]))))
    }),
    fixed("safeHtml", &[Text], |_, a| Ok(a[0].clone())),
    fixed("title", &[Text], |_, a| Ok(Value::text(title(text(&a[0]))))),
    fixed("toUpper", &[Text], |_, a| Ok(Value::text(text(&a[0]).to_uppercase()))),
    fixed("toLower", &[Text], |_, a| Ok(Value::text(text(&a[0]).to_lowercase()))),
    fixed("graphLink", &[Text], |_, a| Ok(Value::text(link(text(&a[0]), 0)))),
    fixed("tableLink", &[Text], |_, a| Ok(Value::text(link(text(&a[0]), 1)))),
    fixed("sortByLabel", &[Text, Samples], |_, a| {
        let name = text(&a[0]);
        let mut sorted = samples(&a[1]).to_vec();
        sorted.sort_by(|a, b| a.labels.get(name).cmp(&b.labels.get(name)));
        Ok(Value::Samples(sorted.into()))
    }),
    fixed("stripPort", &[Text], |_, a| {
        Ok(Value::text(split_host_port(text(&a[0])).map_or(text(&a[0]), |(host, _)| host)))
    }),
    fixed("stripDomain", &[Text], |_, a| Ok(Value::text(strip_domain(text(&a[0]))))),
    fixed("humanize", &[Any], |_, a| Ok(Value::text(humanize(to_float(&a[0])?)))),
    fixed("humanize1024", &[Any], |_, a| Ok(Value::text(humanize_1024(to_float(&a[0])?)))),
    fixed("humanizeDuration", &[Any], |_, a| Ok(Value::text(humanize_duration(to_float(&a[0])?)))),
    fixed("humanizePercentage", &[Any], |_, a| {
        Ok(Value::text(format!("{}%", general(to_float(&a[0])? * 100.0, 4))))
    }),
    fixed("humanizeTimestamp", &[Any], |_, a| {
        let seconds = to_float(&a[0])?;
        if seconds.is_finite() {
            to_time(seconds).map(|t| Value::text(t.show()))
        } else {
            Ok(Value::text(general(seconds, 4)))
        }
    }),
    fixed("toTime", &[Any], |_, a| to_time(to_float(&a[0])?)),
    fixed("toDuration", &[Any], |_, a| {
        let seconds = to_float(&a[0])?;
        nanoseconds(seconds, "duration").map(Value::Duration)
    }),
    fixed("now", &[], |cx, _| Ok(Value::Float(cx.now().seconds()))),
    fixed("pathPrefix", &[], |cx, _| Ok(Value::text(url_path(cx.external_url())))),
    fixed("externalURL", &[], |cx, _| Ok(Value::text(cx.external_url()))),
    fixed("urlQueryEscape", &[Text], |_, a| Ok(Value::text(query_escape(text(&a[0]))))),
    fixed("parseDuration", &[Text], |_, a| {
        let duration = model::time::parse_duration(text(&a[0])).map_err(|e| e.to_string())?;
        Ok(Value::Float(duration.as_secs_f64()))
    }),
];

/// The text of an argument that was checked to be one.
fn text(value: &Value) -> &str {
    match value {
        Value::Text(text) => text,
        _ => "",
    }
}

fn samples(value: &Value) -> &[Arc<Sample>] {
    match value {
        Value::Samples(samples) => samples,
        _ => &[],
    }
}

fn label(sample: &Value, name: &str) -> Value {
    let Value::Sample(sample) = sample else { return Value::Nothing };
    Value::text(sample.labels.get(name).map_or("", String::as_str))
}

fn query(cx: &mut dyn Context, expr: &str) -> Outcome {
    let vector = cx.query(expr)?;
    let samples = vector.into_iter().map(|element| {
        let value = match element.value {
            model::query::PointValue::Float(x) => x,
            model::query::PointValue::Histogram(_) => 0.0,
        };
        Arc::new(Sample { labels: Arc::new(super::label_map(&element.labels)), value })
    });
    Ok(Value::Samples(samples.collect()))
}

/// The number that a value stands for.
fn to_float(value: &Value) -> Result<f64, String> {
    #[expect(clippy::cast_precision_loss, reason = "as Go converts an integer to a float")]
    match value {
        Value::Float(x) => Ok(*x),
        Value::Int(n) => Ok(*n as f64),
        Value::Duration(ns) => Ok(*ns as f64 / 1e9),
        Value::Text(text) => parse_float(text)
            .ok_or_else(|| format!("strconv.ParseFloat: parsing {}: invalid syntax", Quoted(text))),
        other => Err(format!("can't convert {} to float", other.type_name())),
    }
}

fn nanoseconds(seconds: f64, what: &str) -> Result<i64, String> {
    if !seconds.is_finite() {
        return Err("value is NaN or Inf".to_owned());
    }
    let ns = seconds * 1e9;
    #[expect(clippy::cast_precision_loss, reason = "the bound that Go tests against is this float")]
    if ns > i64::MAX as f64 || ns < i64::MIN as f64 {
        let shown = model::number::format_general(seconds);
        return Err(format!(
            "{shown} cannot be represented as a nanoseconds {what} since it overflows int64"
        ));
    }
    #[expect(clippy::cast_possible_truncation, reason = "tested above; the fraction is cut as in Go")]
    Ok(ns as i64)
}

fn to_time(seconds: f64) -> Outcome {
    nanoseconds(seconds, "timestamp").map(|ns| Value::Time(ns.div_euclid(1_000_000)))
}

fn humanize(mut v: f64) -> String {
    if v == 0.0 || !v.is_finite() {
        return general(v, 4);
    }
    let mut prefix = "";
    if v.abs() >= 1.0 {
        for p in ["k", "M", "G", "T", "P", "E", "Z", "Y"] {
            if v.abs() < 1000.0 {
                break;
            }
            prefix = p;
            v /= 1000.0;
        }
    } else {
        (v, prefix) = small(v);
    }
    format!("{}{prefix}", general(v, 4))
}

fn small(mut v: f64) -> (f64, &'static str) {
    let mut prefix = "";
    for p in ["m", "u", "n", "p", "f", "a", "z", "y"] {
        if v.abs() >= 1.0 {
            break;
        }
        prefix = p;
        v *= 1000.0;
    }
    (v, prefix)
}

fn humanize_1024(mut v: f64) -> String {
    if v.abs() <= 1.0 || !v.is_finite() {
        return general(v, 4);
    }
    let mut prefix = "";
    for p in ["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"] {
        if v.abs() < 1024.0 {
            break;
        }
        prefix = p;
        v /= 1024.0;
    }
    format!("{}{prefix}", general(v, 4))
}

fn humanize_duration(v: f64) -> String {
    if !v.is_finite() {
        return general(v, 4);
    }
    if v == 0.0 {
        return format!("{}s", general(v, 4));
    }
    if v.abs() < 1.0 {
        let (v, prefix) = small(v);
        return format!("{}{prefix}s", general(v, 4));
    }
    let sign = if v < 0.0 { "-" } else { "" };
    let v = v.abs();
    #[expect(clippy::cast_possible_truncation, reason = "saturates where Go's result is undefined")]
    let whole = v as i64;
    let (days, hours, minutes, seconds) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60, whole % 60);
    if days != 0 {
        format!("{sign}{days}d {hours}h {minutes}m {seconds}s")
    } else if hours != 0 {
        format!("{sign}{hours}h {minutes}m {seconds}s")
    } else if minutes != 0 {
        format!("{sign}{minutes}m {seconds}s")
    } else {
        format!("{sign}{}s", general(v, 4))
    }
}

/// Compiles a pattern of Go's; it is searched for, not anchored.
fn pattern(text: &str, fault: impl FnOnce(String) -> String) -> Result<Regex, String> {
    regex::RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build().map_err(|error| {
        let error = error.to_string();
        let is_open = error.contains("unclosed group");
        fault(if is_open {
            format!("missing closing ): {}", backquoted(text))
        } else {
            error.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
        })
    })
}

fn replace_all(pattern: &Regex, text: &str, replacement: &str) -> Outcome {
    // Each match may grow the text by the replacement.
    let most = pattern.find_iter(text).count().saturating_add(1);
    if replacement.len().saturating_add(text.len()).saturating_mul(most) > TEXT_BYTES_MAX {
        return Err(format!("text of more than {TEXT_BYTES_MAX} bytes"));
    }
    Ok(Value::text(&*pattern.replace_all(text, replacement)))
}

fn backquoted(text: &str) -> String {
    if text.contains('`') { Quoted(text).to_string() } else { format!("`{text}`") }
}

fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut before = ' ';
    for c in text.chars() {
        // Letters, digits and underscores go on with a word; of what is not ASCII, all but white space does.
        let is_inside =
            before.is_alphanumeric() || before == '_' || !(before.is_ascii() || before.is_whitespace());
        if is_inside {
            out.push(c)
        } else {
            out.extend(c.to_uppercase())
        }
        before = c;
    }
    out
}

/// What Go's `url.QueryEscape` leaves as it is.
const QUERY_ESCAPE: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b' ');

/// Escapes a text for the query of a URL, as Go does.
pub(crate) fn query_escape(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, QUERY_ESCAPE).to_string().replace(' ', "+")
}

/// The path of the page that shows an expression: as a graph (0) or a table (1).
pub(crate) fn link(expr: &str, tab: u8) -> String {
    format!("/graph?g0.expr={}&g0.tab={tab}", query_escape(expr))
}

fn url_path(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.find('/').map_or("", |at| &rest[at..]);
    path.split(['?', '#']).next().unwrap_or_default()
}

/// Splits `host:port` and `[host]:port`.
fn split_host_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    if let Some(inner) = host.strip_prefix('[') {
        return inner.strip_suffix(']').map(|host| (host, port));
    }
    (!host.contains(':') && !host.contains([']', '['])).then_some((host, port))
}

fn strip_domain(text: &str) -> String {
    let (host, port) = split_host_port(text).unwrap_or((text, ""));
    if host.parse::<IpAddr>().is_ok() {
        return text.to_owned();
    }
    let host = host.split('.').next().unwrap_or_default();
    if port.is_empty() { host.to_owned() } else { format!("{host}:{port}") }
}

fn len(value: &Value) -> Outcome {
    let len = match value {
        Value::Text(text) => text.len(),
        Value::Labels(map) => map.len(),
        Value::Map(map) => map.len(),
        Value::Samples(samples) => samples.len(),
        Value::Nothing => return Err("len of nil pointer".to_owned()),
        other => return Err(format!("len of type {}", other.type_name())),
    };
    Ok(Value::Int(i64::try_from(len).unwrap_or(i64::MAX)))
}

fn position(key: &Value, len: usize) -> Result<usize, String> {
    let Value::Int(n) = key else {
        return Err(format!("cannot index slice/array with type {}", key.type_name()));
    };
    usize::try_from(*n).ok().filter(|i| *i < len).ok_or_else(|| format!("index out of range: {n}"))
}

fn index(of: &Value, key: &Value) -> Outcome {
    let name = |key: &Value| match key {
        Value::Text(name) => Ok(Arc::clone(name)),
        other => Err(format!("value has type {}; should be string", other.type_name())),
    };
    match of {
        Value::Labels(map) => Ok(Value::text(map.get(&*name(key)?).map_or("", String::as_str))),
        Value::Map(map) => Ok(map.get(&*name(key)?).cloned().unwrap_or(Value::Nothing)),
        Value::Samples(samples) => {
            position(key, samples.len()).map(|i| Value::Sample(Arc::clone(&samples[i])))
        }
        Value::Text(text) => position(key, text.len()).map(|i| Value::Int(text.as_bytes()[i].into())),
        Value::Nothing => Err("index of untyped nil".to_owned()),
        other => Err(format!("can't index item of type {}", other.type_name())),
    }
}

fn slice(of: &Value, bounds: &[Value]) -> Outcome {
    let len = match of {
        Value::Text(text) => text.len(),
        Value::Samples(samples) => samples.len(),
        Value::Nothing => return Err("slice of untyped nil".to_owned()),
        other => return Err(format!("can't slice item of type {}", other.type_name())),
    };
    if bounds.len() > 2 {
        return Err(format!("too many slice indexes: {}", bounds.len()));
    }
    let mut range = [0, len];
    for (bound, place) in bounds.iter().zip(&mut range) {
        *place = position(bound, len + 1)?;
    }
    let [from, to] = range;
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    match of {
        Value::Samples(samples) => Ok(Value::Samples(samples[from..to].into())),
        Value::Text(text) => match text.get(from..to) {
            Some(part) => Ok(Value::text(part)),
            None => Err("slice cuts a character".to_owned()),
        },
        _ => Ok(Value::Nothing),
    }
}

/// `Sprint`: spaces between operands when neither is a string; `Sprintln`: always, and a line's end.
fn print(values: &[Value], is_line: bool) -> String {
    let mut out = String::new();
    for (i, value) in values.iter().enumerate() {
        let is_text = |value: &Value| matches!(value, Value::Text(_));
        if i > 0 && (is_line || !(is_text(value) || is_text(&values[i - 1]))) {
            out.push(' ');
        }
        out.push_str(&value.show());
    }
    if is_line {
        out.push('\n');
    }
    out
}

fn joined(values: &[Value]) -> String {
    match values {
        [Value::Text(text)] => text.to_string(),
        _ => print(values, false),
    }
}

fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0' => out.push('\u{fffd}'),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
    out
}

fn js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str(r"\\"),
            '\'' => out.push_str(r"\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c if c < ' ' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

const INCOMPATIBLE: &str = "incompatible types for comparison";

fn equal_to_any(values: &[Value]) -> Outcome {
    if values.len() < 2 {
        return Err("missing argument for comparison".to_owned());
    }
    for other in &values[1..] {
        if equal(&values[0], other)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn equal(a: &Value, b: &Value) -> Result<bool, String> {
    match (a, b) {
        (Value::Nothing, Value::Nothing) => Ok(true),
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        (Value::Int(a) | Value::Duration(a), Value::Int(b) | Value::Duration(b)) => Ok(a == b),
        (Value::Float(a), Value::Float(b)) => Ok(a == b),
        (Value::Text(a), Value::Text(b)) => Ok(a == b),
        (Value::Nothing, _) | (_, Value::Nothing) => Ok(false),
        _ => Err(incompatible(a, b)),
    }
}

fn less(a: &Value, b: &Value) -> Result<bool, String> {
    match (a, b) {
        (Value::Int(a) | Value::Duration(a), Value::Int(b) | Value::Duration(b)) => Ok(a < b),
        (Value::Float(a), Value::Float(b)) => Ok(a < b),
        (Value::Text(a), Value::Text(b)) => Ok(a < b),
        (Value::Bool(_), Value::Bool(_)) => Err("invalid type for comparison".to_owned()),
        _ if !is_basic(a) || !is_basic(b) => Err("invalid type for comparison".to_owned()),
        _ => Err(incompatible(a, b)),
    }
}

const fn is_basic(value: &Value) -> bool {
    matches!(value, Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) | Value::Duration(_))
}

fn incompatible(a: &Value, b: &Value) -> String {
    format!("{INCOMPATIBLE}: {} and {}", a.type_name(), b.type_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_humanized_as_the_reference_does() {
        for (v, plain, binary, duration) in [
            (0.0, "0", "0", "0s"),
            (1.0, "1", "1", "1s"),
            (1234567.0, "1.235M", "1.177Mi", "14d 6h 56m 7s"),
            (0.1, "100m", "0.1", "100ms"),
            (0.0001, "100u", "0.0001", "100us"),
            (-1500.0, "-1.5k", "-1.465ki", "-25m 0s"),
            (899.99, "900", "900", "14m 59s"),
            (12.3456, "12.35", "12.35", "12.35s"),
            (f64::NAN, "NaN", "NaN", "NaN"),
            (f64::INFINITY, "+Inf", "+Inf", "+Inf"),
            (3661.0, "3.661k", "3.575ki", "1h 1m 1s"),
        ] {
            assert_eq!((humanize(v).as_str(), humanize_1024(v).as_str()), (plain, binary), "{v}");
            assert_eq!(humanize_duration(v), duration, "{v}");
        }
    }

    #[test]
    fn hosts_lose_ports_and_domains() {
        for (text, host, short) in [
            ("foo.example.com:80", "foo.example.com", "foo:80"),
            ("foo.example.com", "foo.example.com", "foo"),
            ("10.0.0.1:80", "10.0.0.1", "10.0.0.1:80"),
            ("[::1]:80", "::1", "[::1]:80"),
            ("::1", "::1", "::1"),
        ] {
            let stripped = split_host_port(text).map_or(text, |(host, _)| host);
            assert_eq!((stripped, strip_domain(text).as_str()), (host, short), "{text}");
        }
    }

    #[test]
    fn texts_are_escaped_for_their_place() {
        assert_eq!(query_escape("sum by (job) (up == 0)&~é"), "sum+by+%28job%29+%28up+%3D%3D+0%29%26~%C3%A9");
        assert_eq!(link("up", 1), "/graph?g0.expr=up&g0.tab=1");
        assert_eq!(html("<a href='x'>&\"</a>"), "&lt;a href=&#39;x&#39;&gt;&amp;&#34;&lt;/a&gt;");
        assert_eq!(js("a='\"<"), "a\\u003D\\'\\\"\\u003C");
        assert_eq!(title("foo-bar baz_qux x1y"), "Foo-Bar Baz_qux X1y");
        assert_eq!((url_path("http://h:1/a/b?c"), url_path("http://h")), ("/a/b", ""));
    }
}
