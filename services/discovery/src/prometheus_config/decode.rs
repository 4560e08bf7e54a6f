//! Nodes to values, by the tables, refusing what Prometheus's strict reader refuses and in its words.
//!
//! Two sorts of trouble are kept apart since Prometheus does: *type errors* (an unknown or doubled key, a scalar of
//! the wrong type) are collected, while a *fault* (a check that fails) ends its reading at once. Reading here goes on
//! after either, so that all are told; [`Decoder::finish`] puts first what Prometheus would say.

use std::rc::Rc;
use std::time::Duration;

use model::matcher::Pattern;
use model::number::Quoted;
use model::time::parse_duration;
use yaml_tree::{Content, Node, Scalar, Tag};

use super::scalar;
use super::schema::{Kind, Record, Schema, Value, zero};

/// How many values a document may hold once its aliases are followed.
pub(super) const VALUES_MAX: usize = 4_000_000;

#[derive(Debug, Default)]
pub(super) struct Decoder {
    type_errors: Vec<String>,
    faults: Vec<String>,
    values: usize,
}

/// Reads a document into a section; `None` when the document is empty.
pub(super) fn decode(text: &str, schema: &'static Schema) -> Result<Option<Record>, Vec<String>> {
    let Some(root) = yaml_tree::parse(text).map_err(|error| vec![error])? else { return Ok(None) };
    let mut decoder = Decoder::default();
    let record = if root.is_null() { None } else { decoder.record(&root, schema) };
    decoder.finish().map(|()| record)
}

/// Reads a document that is a list of sections.
pub(super) fn decode_list(text: &str, schema: &'static Schema) -> Result<Vec<Value>, Vec<String>> {
    let Some(root) = yaml_tree::parse(text).map_err(|error| vec![error])? else { return Ok(Vec::new()) };
    let mut decoder = Decoder::default();
    let value = decoder.value(&root, Kind::List(schema));
    decoder.finish()?;
    Ok(match value {
        Some(Value::List(items)) => items,
        _ => Vec::new(),
    })
}

impl Decoder {
    fn finish(self) -> Result<(), Vec<String>> {
        let Self { type_errors, mut faults, .. } = self;
        if faults.is_empty() && !type_errors.is_empty() {
            return Err(vec![format!("yaml: unmarshal errors:\n  {}", type_errors.join("\n  "))]);
        }
        faults.extend(type_errors);
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    fn troubles(&self) -> usize {
        self.type_errors.len() + self.faults.len()
    }

    fn mismatch<T>(&mut self, node: &Node, into: &str) -> Option<T> {
        self.type_errors.push(format!(
            "line {}: cannot unmarshal {} into {into}",
            node.line,
            node.describe()
        ));
        None
    }

    fn fault<T>(&mut self, fault: String) -> Option<T> {
        self.faults.push(fault);
        None
    }

    /// Reads a value; `None` after trouble.
    fn value(&mut self, node: &Node, kind: Kind) -> Option<Value> {
        self.values += 1;
        if self.values > VALUES_MAX {
            if self.values == VALUES_MAX + 1 {
                self.faults.push("yaml: document contains excessive aliasing".to_owned());
            }
            return None;
        }
        if node.is_null() {
            return Some(zero(kind));
        }
        match kind {
            Kind::Section(schema) | Kind::Optional(schema) => {
                self.record(node, schema).map(|record| Value::Record(Box::new(record)))
            }
            Kind::List(schema) => self.list(node, &list_name(schema.name), |decoder, item| {
                if item.is_null() {
                    return Some(Value::Null);
                }
                decoder.values += 1;
                decoder.record(item, schema).map(|record| Value::Record(Box::new(record)))
            }),
            Kind::Sections(schema) => self.map(node, schema.name, Kind::Section(schema)),
            Kind::Strings | Kind::SecretList => self.items(node, "[]string", Kind::Str),
            Kind::Files => self.items(node, "[]string", Kind::File),
            Kind::Words(name) => self.items(node, &format!("[]{name}"), Kind::Word(name, |_| Ok(()))),
            Kind::LabelNames => {
                self.items(node, "model.LabelNames", Kind::Word("model.LabelName", check_label_name))
            }
            Kind::StringMap => self.map(node, "map[string]string", Kind::Str),
            Kind::LabelSet => self.label_set(node),
            Kind::ListMap | Kind::SecretListMap => self.map(node, "map[string][]string", Kind::Strings),
            Kind::Any => self.any(node),
            _ => self.scalar(node, kind),
        }
    }

    pub(super) fn record(&mut self, node: &Node, schema: &'static Schema) -> Option<Record> {
        let Content::Mapping(pairs) = &node.content else { return self.mismatch(node, schema.name) };
        let before = self.troubles();
        let mut record = Record::with_defaults(schema);
        let mut is_set = vec![false; record.values.len()];
        self.merge(pairs, &mut record);
        for (key, value) in pairs {
            if key.is_merge_key() {
                continue;
            }
            let Content::Scalar(Scalar { text, .. }) = &key.content else {
                let _: Option<()> = self.mismatch(key, "string");
                continue;
            };
            let name = if key.is_null() { "" } else { text };
            let Some(index) = schema.index(name) else {
                self.type_errors
                    .push(format!("line {}: field {name} not found in type {}", key.line, schema.name));
                continue;
            };
            if std::mem::replace(&mut is_set[index], true) {
                self.type_errors
                    .push(format!("line {}: field {name} already set in type {}", key.line, schema.name));
                continue;
            }
            self.set(&mut record, index, value);
        }
        if self.troubles() == before {
            (schema.check)(&mut record, &mut self.faults);
        }
        (self.troubles() == before).then_some(record)
    }

    /// Fills a section from what `<<` names; what the section says itself comes later and wins.
    fn merge(&mut self, pairs: &[(Rc<Node>, Rc<Node>)], record: &mut Record) {
        for (_, merged) in pairs.iter().filter(|(key, _)| key.is_merge_key()) {
            let sources: Vec<&Rc<Node>> = match &merged.content {
                Content::Sequence(items) => items.iter().rev().collect(),
                _ => vec![merged],
            };
            for source in sources {
                let Content::Mapping(inner) = &source.content else {
                    self.faults
                        .push("yaml: map merge requires map or sequence of maps as the value".to_owned());
                    return;
                };
                self.merge(inner, record);
                for (key, value) in inner.iter().filter(|(key, _)| !key.is_merge_key()) {
                    let Content::Scalar(Scalar { text: name, .. }) = &key.content else { continue };
                    match record.schema.index(name) {
                        Some(index) => self.set(record, index, value),
                        None => self.type_errors.push(format!(
                            "line {}: field {name} not found in type {}",
                            key.line, record.schema.name
                        )),
                    }
                }
            }
        }
    }

    fn set(&mut self, record: &mut Record, index: usize, node: &Node) {
        let kind = record.schema.fields().nth(index).map(|field| field.kind);
        if let Some(value) = kind.and_then(|kind| self.value(node, kind)) {
            record.values[index] = value;
        }
    }

    fn list(
        &mut self,
        node: &Node,
        into: &str,
        mut read: impl FnMut(&mut Self, &Node) -> Option<Value>,
    ) -> Option<Value> {
        let Content::Sequence(nodes) = &node.content else { return self.mismatch(node, into) };
        // Go on after trouble in one item: the others may have some as well.
        let read: Vec<Option<Value>> = nodes.iter().map(|item| read(self, item)).collect();
        read.into_iter().collect::<Option<Vec<_>>>().map(Value::List)
    }

    fn items(&mut self, node: &Node, into: &str, kind: Kind) -> Option<Value> {
        self.list(node, into, |decoder, item| decoder.value(item, kind))
    }

    fn map(&mut self, node: &Node, into: &str, kind: Kind) -> Option<Value> {
        let Content::Mapping(nodes) = &node.content else { return self.mismatch(node, into) };
        let mut pairs: Vec<(String, Value)> = Vec::with_capacity(nodes.len());
        for (key, value) in nodes {
            let Some(Value::Str(name)) = self.scalar(key, Kind::Str) else { return None };
            if pairs.iter().any(|(seen, _)| *seen == name) {
                self.type_errors.push(format!("line {}: key {} already set in map", key.line, Quoted(&name)));
                continue;
            }
            pairs.push((name, self.value(value, kind)?));
        }
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        Some(Value::Map(pairs))
    }

    fn label_set(&mut self, node: &Node) -> Option<Value> {
        let value = self.map(node, "model.LabelSet", Kind::Word("model.LabelValue", |_| Ok(())))?;
        if let Value::Map(pairs) = &value
            && let Some((name, _)) = pairs.iter().find(|(name, _)| name.is_empty())
        {
            return self.fault(format!("{} is not a valid label name", Quoted(name)));
        }
        Some(value)
    }

    /// Keeps what is written: for the few places where Prometheus takes anything.
    fn any(&mut self, node: &Node) -> Option<Value> {
        match &node.content {
            Content::Sequence(_) => self.items(node, "[]interface {}", Kind::Any),
            Content::Mapping(_) => self.map(node, "map[string]interface {}", Kind::Any),
            Content::Scalar(Scalar { text, tag }) => match tag {
                Tag::Bool(value) => Some(Value::Bool(*value)),
                Tag::Int => yaml_tree::parse_int(text).and_then(|v| i64::try_from(v).ok()).map(Value::Int),
                Tag::Float => yaml_tree::parse_float(text).map(Value::Float),
                _ => self.scalar(node, Kind::Str),
            },
        }
    }

    fn scalar(&mut self, node: &Node, kind: Kind) -> Option<Value> {
        let into = type_name(kind);
        let Content::Scalar(Scalar { text, tag }) = &node.content else { return self.mismatch(node, into) };
        match kind {
            Kind::Bool | Kind::OptionalBool => match tag {
                Tag::Bool(value) => Some(Value::Bool(*value)),
                _ => self.mismatch(node, into),
            },
            Kind::Int => match integer(text, *tag).and_then(|value| i64::try_from(value).ok()) {
                Some(value) => Some(Value::Int(value)),
                None => self.mismatch(node, into),
            },
            Kind::Uint => match integer(text, *tag).and_then(|value| u64::try_from(value).ok()) {
                Some(value) => Some(Value::Uint(value)),
                None => self.mismatch(node, into),
            },
            Kind::Float => {
                let number =
                    matches!(tag, Tag::Int | Tag::Float).then(|| yaml_tree::parse_float(text)).flatten();
                match number {
                    Some(value) => Some(Value::Float(value)),
                    None => self.mismatch(node, into),
                }
            }
            _ => {
                let text = self.text(text, *tag)?;
                self.text_value(text, kind)
            }
        }
    }

    /// The string that a scalar stands for.
    fn text(&mut self, text: &str, tag: Tag) -> Option<String> {
        if tag != Tag::Binary {
            return Some(text.to_owned());
        }
        let Some(bytes) = yaml_tree::decode_binary(text) else {
            return self.fault("yaml: !!binary value contains invalid base64 data".to_owned());
        };
        String::from_utf8(bytes).map_or_else(
            |error| self.fault(format!("{} is not a valid label value", quote_bytes(error.as_bytes()))),
            Some,
        )
    }

    fn text_value(&mut self, text: String, kind: Kind) -> Option<Value> {
        match kind {
            Kind::Duration | Kind::OptionalDuration => match parse_duration(&text) {
                Ok(value) => Some(Value::Duration(value)),
                Err(error) => self.fault(error.to_string()),
            },
            Kind::Bytes => match model::size::parse_bytes(&text) {
                Ok(value) => Some(Value::Int(value)),
                Err(error) => self.fault(error),
            },
            Kind::Url => match scalar::parse_url(&text).map(|_| ()) {
                Ok(()) => Some(Value::Str(text)),
                Err(error) => self.fault(error),
            },
            Kind::Regex => match Pattern::new(&text) {
                Ok(_) => Some(Value::Str(text)),
                Err(error) => self.fault(error.to_string()),
            },
            Kind::Word(_, check) => match check(&text) {
                Ok(()) => Some(Value::Str(text)),
                Err(error) => self.fault(error),
            },
            _ => Some(Value::Str(text)),
        }
    }
}

/// An integer, also one written as a float (`1e3`), as Prometheus's reader takes it.
fn integer(text: &str, tag: Tag) -> Option<i128> {
    match tag {
        Tag::Int => yaml_tree::parse_int(text),
        Tag::Float => yaml_tree::parse_float(text).filter(|f| f.abs() < 9.0e18).map(|f| {
            #[expect(clippy::cast_possible_truncation, reason = "bounded above; fractions are cut")]
            let whole = f as i128;
            whole
        }),
        _ => None,
    }
}

/// The name of a list of sections in messages: that of the type which Prometheus fills.
fn list_name(section: &str) -> String {
    match section.split_once('.') {
        _ if section.starts_with("struct ") => "[]*targetgroup.Group".to_owned(),
        Some(("relabel", _)) => "[]*relabel.Config".to_owned(),
        Some(("config", "AlertmanagerConfig")) => "config.AlertmanagerConfigs".to_owned(),
        Some(("config", "plain")) => "[]*config.RemoteWriteConfig".to_owned(),
        Some((package, "plain")) => format!("[]*{package}.SDConfig"),
        _ => format!("[]*{section}"),
    }
}

fn check_label_name(name: &str) -> Result<(), String> {
    if name.is_empty() { Err(format!("{} is not a valid label name", Quoted(name))) } else { Ok(()) }
}

const fn type_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Word(name, _) => name,
        Kind::Bool | Kind::OptionalBool => "bool",
        Kind::Int => "int",
        Kind::Uint => "uint",
        Kind::Float => "float64",
        Kind::Bytes => "units.Base2Bytes",
        _ => "string",
    }
}

fn quote_bytes(bytes: &[u8]) -> String {
    let mut quoted = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        let valid = Quoted(chunk.valid()).to_string();
        quoted.push_str(&valid[1..valid.len() - 1]);
        for byte in chunk.invalid() {
            quoted.push_str(&format!("\\x{byte:02x}"));
        }
    }
    quoted.push('"');
    quoted
}

/// A duration that a check puts in place of an open one.
pub(super) const fn seconds(seconds: u64) -> Value {
    Value::Duration(Duration::from_secs(seconds))
}
