//! Values to the YAML that `status/config` shows: all defaults, secrets as `<secret>`, the layout of Prometheus
//! (two spaces, lists not indented below their key).

use model::number::format_general;
use model::size::Bytes;
use model::time::PrometheusDuration;
use relabel::RuleConfig;
use yaml_tree::{Tag, resolve};

use super::scalar::redact_url;
use super::schema::{Field, Kind, Record, Value, is_zero};

const SECRET: &str = "<secret>";

/// A piece of the output; scalars are quoted already.
enum Block {
    Scalar(String),
    /// Text of several lines.
    Literal(String),
    List(Vec<Block>),
    Map(Vec<(String, Block)>),
}

/// Prints a section.
pub(super) fn render(record: &Record) -> String {
    let mut out = String::new();
    write_block(&mut out, &record_block(record), 0);
    out
}

fn record_block(record: &Record) -> Block {
    let shown = record.schema.fields().zip(&record.values).filter(|(field, value)| is_shown(field, value));
    Block::Map(shown.map(|(field, value)| (quote(field.name), block(field.kind, value))).collect())
}

fn is_shown(field: &Field, value: &Value) -> bool {
    match (field.kind, value) {
        (_, Value::Null) => field.is_always_shown && !matches!(field.kind, Kind::Optional(_)),
        (Kind::OptionalBool | Kind::Optional(_), _) => true,
        (Kind::Regex, Value::Str(text)) => text != RuleConfig::REGEX,
        _ => field.is_always_shown || !is_zero(value),
    }
}

fn block(kind: Kind, value: &Value) -> Block {
    match (kind, value) {
        (Kind::Secret, Value::Str(text)) if !text.is_empty() => Block::Scalar(SECRET.to_owned()),
        (Kind::SecretList, Value::List(items)) => {
            Block::List(items.iter().map(|_| Block::Scalar(SECRET.to_owned())).collect())
        }
        (Kind::SecretListMap, Value::Map(pairs)) => map(pairs, |lists| block(Kind::SecretList, lists)),
        (Kind::Url, Value::Str(text)) => Block::Scalar(quote(&redact_url(text))),
        (Kind::Bytes, Value::Int(bytes)) => Block::Scalar(Bytes(*bytes).to_string()),
        (Kind::LabelNames, Value::List(items)) => {
            let names = items.iter().map(|item| match item {
                Value::Str(name) => quote_in_flow(name),
                _ => String::new(),
            });
            Block::Scalar(format!("[{}]", names.collect::<Vec<_>>().join(", ")))
        }
        (Kind::Strings | Kind::Words(_) | Kind::Files | Kind::List(_), Value::Null) => {
            Block::List(Vec::new())
        }
        (_, Value::Null) => Block::Scalar("null".to_owned()),
        (_, Value::Bool(value)) => Block::Scalar(value.to_string()),
        (_, Value::Int(value)) => Block::Scalar(value.to_string()),
        (_, Value::Uint(value)) => Block::Scalar(value.to_string()),
        (_, Value::Float(value)) => Block::Scalar(format_general(*value)),
        (_, Value::Str(text)) if is_literal(text) => Block::Literal(text.clone()),
        (_, Value::Str(text)) => Block::Scalar(quote(text)),
        (_, Value::Duration(value)) => Block::Scalar(PrometheusDuration(*value).to_string()),
        (_, Value::List(items)) => Block::List(items.iter().map(|item| block(Kind::Any, item)).collect()),
        (_, Value::Map(pairs)) => map(pairs, |item| block(Kind::Any, item)),
        (_, Value::Record(record)) => record_block(record),
    }
}

fn map(pairs: &[(String, Value)], of: impl Fn(&Value) -> Block) -> Block {
    Block::Map(pairs.iter().map(|(name, value)| (quote(name), of(value))).collect())
}

fn write_block(out: &mut String, block: &Block, indent: usize) {
    match block {
        Block::Scalar(text) => {
            out.push_str(text);
            out.push('\n');
        }
        Block::Literal(text) => {
            let body = text.trim_end_matches('\n');
            let ending = match text.len() - body.len() {
                0 => "|-",
                1 => "|",
                _ => "|+",
            };
            out.push_str(ending);
            for line in body
                .split('\n')
                .chain(text[body.len()..].split('\n').skip(1).filter(|_| ending == "|+").skip(1))
            {
                out.push('\n');
                if !line.is_empty() {
                    pad(out, indent);
                    out.push_str(line);
                }
            }
            out.push('\n');
        }
        Block::List(items) if items.is_empty() => out.push_str("[]\n"),
        Block::Map(pairs) if pairs.is_empty() => out.push_str("{}\n"),
        Block::List(items) => {
            for (i, item) in items.iter().enumerate() {
                pad(out, if i == 0 { 0 } else { indent });
                out.push_str("- ");
                write_block(out, item, indent + 2);
            }
        }
        Block::Map(pairs) => {
            for (i, (name, value)) in pairs.iter().enumerate() {
                pad(out, if i == 0 { 0 } else { indent });
                out.push_str(name);
                out.push(':');
                write_value(out, value, indent);
            }
        }
    }
}

/// Writes what stands behind a key: on its line when short, below it otherwise.
fn write_value(out: &mut String, value: &Block, indent: usize) {
    let below = match value {
        Block::List(items) if !items.is_empty() => Some(indent),
        Block::Map(pairs) if !pairs.is_empty() => Some(indent + 2),
        _ => None,
    };
    match below {
        Some(below) => {
            out.push('\n');
            pad(out, below);
            write_block(out, value, below);
        }
        None => {
            out.push(' ');
            write_block(out, value, indent + 2);
        }
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// Says whether a text is shown line by line.
fn is_literal(text: &str) -> bool {
    let is_shown_as_is = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    text.contains('\n') && !text.starts_with([' ', '\n', '\t']) && text.chars().all(is_shown_as_is)
}

/// Quotes a string where it would otherwise be read back as something else.
fn quote(text: &str) -> String {
    if !matches!(resolve(text), Tag::Str) || text.chars().any(|c| c.is_control() || c == '\u{feff}') {
        return double_quoted(text);
    }
    if is_plain(text) { text.to_owned() } else { format!("'{}'", text.replace('\'', "''")) }
}

fn quote_in_flow(text: &str) -> String {
    let quoted = quote(text);
    let breaks_flow = quoted == text && text.contains([',', '[', ']', '{', '}', '?']);
    if breaks_flow { format!("'{text}'") } else { quoted }
}

fn is_plain(text: &str) -> bool {
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return false };
    let second = chars.next();
    let is_indicator = match first {
        '-' | '?' | ':' => second.is_none_or(|c| c == ' '),
        ',' | '[' | ']' | '{' | '}' | '#' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' => {
            true
        }
        _ => false,
    };
    let has_edge_space = text.starts_with(' ') || text.ends_with(' ');
    let starts_document = text.starts_with("---") || text.starts_with("...");
    !is_indicator
        && !has_edge_space
        && !starts_document
        && !text.ends_with(':')
        && !text.contains(": ")
        && !text.contains(" #")
}

fn double_quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 || (0x7f..0xa0).contains(&(c as u32)) => {
                out.push_str(&format!("\\x{:02X}", c as u32));
            }
            '\u{feff}' => out.push_str("\\uFEFF"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
