//! Attribute values as text, as the OpenTelemetry Collector's `AsString` writes them: lists and maps are JSON.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};

/// A value that nests deeper than allowed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooDeep;

/// Writes a value; nothing for one that is absent.
pub(crate) fn text(value: Option<&AnyValue>, depth_max: usize) -> Result<Cow<'_, str>, TooDeep> {
    let Some(value) = value.and_then(|v| v.value.as_ref()) else { return Ok(Cow::Borrowed("")) };
    Ok(match value {
        Value::StringValue(text) => Cow::Borrowed(text),
        Value::BoolValue(true) => Cow::Borrowed("true"),
        Value::BoolValue(false) => Cow::Borrowed("false"),
        Value::IntValue(n) => Cow::Owned(n.to_string()),
        Value::DoubleValue(x) if x.is_finite() => Cow::Owned(number(*x)),
        Value::DoubleValue(x) => {
            let x = if x.is_nan() {
                "NaN"
            } else if *x > 0.0 {
                "+Inf"
            } else {
                "-Inf"
            };
            Cow::Owned(format!("json: unsupported value: {x}"))
        }
        Value::BytesValue(bytes) => Cow::Owned(STANDARD.encode(bytes)),
        Value::ArrayValue(_) | Value::KvlistValue(_) => {
            let mut json = String::new();
            // What JSON cannot hold (NaN, infinities) leaves the whole value empty, as in the reference.
            let is_whole = push_json(&mut json, Some(value), depth_max)?;
            Cow::Owned(if is_whole { json } else { String::new() })
        }
        // Refers to a table that only profiles have.
        Value::StringValueStrindex(_) => Cow::Borrowed(""),
    })
}

/// Appends a value as JSON; false when JSON has no such value.
fn push_json(out: &mut String, value: Option<&Value>, depth_left: usize) -> Result<bool, TooDeep> {
    match value {
        None | Some(Value::StringValueStrindex(_)) => out.push_str("null"),
        Some(Value::StringValue(text)) => push_quoted(out, text),
        Some(Value::BoolValue(x)) => out.push_str(if *x { "true" } else { "false" }),
        Some(Value::IntValue(n)) => out.push_str(&n.to_string()),
        Some(Value::DoubleValue(x)) if x.is_finite() => out.push_str(&number(*x)),
        Some(Value::DoubleValue(_)) => return Ok(false),
        Some(Value::BytesValue(bytes)) => push_quoted(out, &STANDARD.encode(bytes)),
        Some(Value::ArrayValue(list)) => {
            let depth_left = depth_left.checked_sub(1).ok_or(TooDeep)?;
            out.push('[');
            for (i, item) in list.values.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                if !push_json(out, item.value.as_ref(), depth_left)? {
                    return Ok(false);
                }
            }
            out.push(']');
        }
        Some(Value::KvlistValue(map)) => {
            let depth_left = depth_left.checked_sub(1).ok_or(TooDeep)?;
            let mut entries: Vec<&KeyValue> = map.values.iter().collect();
            entries.sort_by(|a, b| a.key.cmp(&b.key));
            out.push('{');
            let mut rest = entries.iter().peekable();
            let mut is_first = true;
            while let Some(entry) = rest.next() {
                // Of two entries with one key the later is kept, as a map does.
                if rest.peek().is_some_and(|next| next.key == entry.key) {
                    continue;
                }
                if !is_first {
                    out.push(',');
                }
                is_first = false;
                push_quoted(out, &entry.key);
                out.push(':');
                if !push_json(out, entry.value.as_ref().and_then(|v| v.value.as_ref()), depth_left)? {
                    return Ok(false);
                }
            }
            out.push('}');
        }
    }
    Ok(true)
}

/// Writes a finite number as Go's JSON does: with an exponent below 1e-6 and from 1e21 on.
fn number(x: f64) -> String {
    let size = x.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{x:e}");
        // Go has a sign before a positive exponent.
        return match text.split_once("e-") {
            Some(_) => text,
            None => text.replacen('e', "e+", 1),
        };
    }
    x.to_string()
}

/// Writes a string as Go's JSON does, which also escapes what HTML and JavaScript would trip over.
fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::{ArrayValue, KeyValueList};

    use super::*;

    fn any(value: Value) -> AnyValue {
        AnyValue { value: Some(value) }
    }

    fn list(values: Vec<Value>) -> Value {
        Value::ArrayValue(ArrayValue { values: values.into_iter().map(any).collect() })
    }

    fn map(entries: Vec<(&str, Value)>) -> Value {
        let entry = |(key, value): (&str, Value)| KeyValue {
            key: key.to_owned(),
            value: Some(any(value)),
            ..KeyValue::default()
        };
        Value::KvlistValue(KeyValueList { values: entries.into_iter().map(entry).collect() })
    }

    /// Expected texts are what Go's `encoding/json` gives for the same values.
    #[test]
    fn values_are_written_as_the_collector_does() {
        let string = |text: &str| Value::StringValue(text.to_owned());
        for (value, expected) in [
            (string("a\"<"), "a\"<"),
            (Value::BoolValue(true), "true"),
            (Value::IntValue(-7), "-7"),
            (Value::DoubleValue(1.0), "1"),
            (Value::DoubleValue(0.1), "0.1"),
            (Value::DoubleValue(1e21), "1e+21"),
            (Value::DoubleValue(1.5e-7), "1.5e-7"),
            (Value::DoubleValue(123_456_789.0), "123456789"),
            (Value::DoubleValue(f64::NAN), "json: unsupported value: NaN"),
            (Value::DoubleValue(f64::NEG_INFINITY), "json: unsupported value: -Inf"),
            (Value::BytesValue(vec![1, 2, 255]), "AQL/"),
            (list(vec![string("a\"<\n\u{1}é"), Value::IntValue(1)]), r#"["a\"\u003c\n\u0001é",1]"#),
            (list(vec![]), "[]"),
            (
                map(vec![("b", Value::DoubleValue(0.5)), ("a", list(vec![Value::BoolValue(false)]))]),
                r#"{"a":[false],"b":0.5}"#,
            ),
            (map(vec![("a", Value::IntValue(1)), ("a", Value::IntValue(2))]), r#"{"a":2}"#),
            (list(vec![Value::DoubleValue(f64::NAN)]), ""),
            (Value::StringValueStrindex(3), ""),
        ] {
            assert_eq!(text(Some(&any(value.clone())), 8).as_deref(), Ok(expected), "{value:?}");
        }
        assert_eq!(text(None, 8).as_deref(), Ok(""));
        assert_eq!(text(Some(&AnyValue { value: None }), 8).as_deref(), Ok(""));
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |levels: usize| (1..levels).fold(list(vec![]), |inner, _| list(vec![inner]));
        assert_eq!(text(Some(&any(nested(3))), 3).as_deref(), Ok("[[[]]]"));
        assert_eq!(text(Some(&any(nested(4))), 3), Err(TooDeep));
    }
}
