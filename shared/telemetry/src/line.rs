//! One log line: an ordered list of fields, written as logfmt or JSON.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};

/// The longest value in a log line; what is longer is cut, since a log is no place for a whole request.
pub(crate) const VALUE_BYTES_MAX: usize = 8 * 1024;
/// How many fields a span or an event may add to a line.
pub(crate) const FIELDS_MAX: usize = 64;

/// A value as it will be written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// A number or boolean, bare in both formats.
    Bare(String),
    /// A text, quoted where the format needs it.
    Text(String),
}

/// Fields in the order in which they were recorded, each name once, the last value winning.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Fields(Vec<(Cow<'static, str>, Value)>);

impl Fields {
    pub(crate) fn set(&mut self, name: impl Into<Cow<'static, str>>, value: Value) {
        let name = name.into();
        match self.0.iter().position(|(known, _)| *known == name) {
            Some(index) => self.0[index].1 = value,
            None if self.0.len() < FIELDS_MAX => self.0.push((name, value)),
            None => {}
        }
    }

    pub(crate) fn text(&mut self, name: &'static str, value: impl Into<String>) {
        self.set(name, Value::Text(cut(value.into())));
    }

    /// Sets all of `other`'s fields.
    pub(crate) fn extend(&mut self, other: &Self) {
        for (name, value) in &other.0 {
            self.set(name.clone(), value.clone());
        }
    }

    /// Sets those of `other`'s fields whose names are not here yet.
    pub(crate) fn extend_absent(&mut self, other: &Self) {
        for (name, value) in &other.0 {
            if !self.0.iter().any(|(known, _)| known == name) {
                self.set(name.clone(), value.clone());
            }
        }
    }

    /// `ts=... level=info msg="log replayed" segments=3`
    pub(crate) fn to_logfmt(&self) -> String {
        let mut line = String::with_capacity(160);
        for (index, (name, value)) in self.0.iter().enumerate() {
            if index > 0 {
                line.push(' ');
            }
            line.push_str(name);
            line.push('=');
            match value {
                Value::Text(text) if needs_quotes(text) => {
                    // Rust's and Go's escapes agree on what occurs in logs.
                    write!(line, "{text:?}").expect("a String takes all that is written");
                }
                Value::Bare(text) | Value::Text(text) => line.push_str(text),
            }
        }
        line
    }

    /// `{"ts":"...","level":"info","msg":"log replayed","segments":3}`
    pub(crate) fn to_json(&self) -> String {
        let mut line = String::with_capacity(200);
        for (index, (name, value)) in self.0.iter().enumerate() {
            line.push(if index == 0 { '{' } else { ',' });
            line.push_str(&serde_json::Value::from(&**name).to_string());
            line.push(':');
            match value {
                Value::Bare(text) => line.push_str(text),
                Value::Text(text) => line.push_str(&serde_json::Value::from(&**text).to_string()),
            }
        }
        line.push('}');
        line
    }
}

fn needs_quotes(text: &str) -> bool {
    text.is_empty() || text.chars().any(|c| c <= ' ' || matches!(c, '=' | '"' | '\\' | '\u{7f}'..='\u{a0}'))
}

fn cut(mut text: String) -> String {
    if text.len() > VALUE_BYTES_MAX {
        let end = (0..=VALUE_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
    text
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no NaN and no infinities.
        let text = value.to_string();
        self.set(name(field), if value.is_finite() { Value::Bare(text) } else { Value::Text(text) });
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(name(field), Value::Bare(value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(name(field), Value::Bare(value.to_string()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(name(field), Value::Bare(value.to_string()));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(name(field), value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(name(field), value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(name(field), format!("{value:?}"));
    }
}

fn name(field: &Field) -> &'static str {
    match field.name() {
        "message" => "msg",
        // Raw identifiers: `r#type` is logged as `type`.
        other => other.strip_prefix("r#").unwrap_or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(values: &[(&'static str, Value)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in values {
            fields.set(*name, value.clone());
        }
        fields
    }

    #[test]
    fn texts_are_quoted_where_the_format_needs_it() {
        let text = |t: &str| Value::Text(t.to_owned());
        for (value, logfmt, json) in [
            (text("plain"), "k=plain", r#"{"k":"plain"}"#),
            (text(""), r#"k="""#, r#"{"k":""}"#),
            (text("two words"), r#"k="two words""#, r#"{"k":"two words"}"#),
            (text("a=b"), r#"k="a=b""#, r#"{"k":"a=b"}"#),
            (text("say \"hi\"\n"), r#"k="say \"hi\"\n""#, r#"{"k":"say \"hi\"\n"}"#),
            (text(r"c:\x"), r#"k="c:\\x""#, r#"{"k":"c:\\x"}"#),
            (text("ü"), "k=ü", r#"{"k":"ü"}"#),
            (Value::Bare("1.5".into()), "k=1.5", r#"{"k":1.5}"#),
        ] {
            let fields = fields(&[("k", value)]);
            assert_eq!((fields.to_logfmt().as_str(), fields.to_json().as_str()), (logfmt, json));
        }
    }

    #[test]
    fn the_last_value_of_a_name_wins_at_its_first_place() {
        let one = || Value::Bare("1".into());
        let mut outer = fields(&[("a", one()), ("b", one())]);
        outer.extend(&fields(&[("a", Value::Bare("2".into())), ("c", one())]));
        assert_eq!(outer.to_logfmt(), "a=2 b=1 c=1");
        outer.extend_absent(&fields(&[("b", Value::Bare("3".into())), ("d", one())]));
        assert_eq!(outer.to_logfmt(), "a=2 b=1 c=1 d=1");
    }

    #[test]
    fn long_values_are_cut_and_too_many_fields_dropped() {
        let mut long = Fields::default();
        long.text("k", "ü".repeat(VALUE_BYTES_MAX));
        assert_eq!(long.to_logfmt(), format!("k={}...", "ü".repeat(VALUE_BYTES_MAX / 2)));
        let mut many = Fields::default();
        for index in 0..=FIELDS_MAX {
            many.set(format!("f{index}"), Value::Bare("0".into()));
        }
        assert_eq!(many.0.len(), FIELDS_MAX);
    }
}
