//! What a section of `prometheus.yml` may hold: tables of fields, and the values read by them.
//!
//! The file has some sixty kinds of sections (37 of them service discovery), each a list of named fields with a type,
//! a default and a rule when it is shown. As tables they are read, checked, completed and printed by one piece of
//! code; only what Tributary acts upon is turned into types of its own (see `typed`).
//!
//! Invariants:
//! - a [`Record`] has one value for each field of its schema, in order, of the field's kind;
//! - tables do not refer to themselves, so code that follows them may recurse.

use std::time::Duration;

/// A section: its fields, and what must hold between them.
#[derive(Debug)]
pub(super) struct Schema {
    /// The name in messages: that of the type which Prometheus fills.
    pub(super) name: &'static str,
    /// The fields in the order in which they are printed; sections share parts (`http_config`).
    pub(super) parts: &'static [&'static [Field]],
    /// Completes the section and reports faults, the one that Prometheus reports first.
    pub(super) check: fn(&mut Record, &mut Vec<String>),
}

impl Schema {
    pub(super) fn fields(&self) -> impl Iterator<Item = &'static Field> {
        self.parts.iter().flat_map(|part| part.iter())
    }

    pub(super) fn index(&self, name: &str) -> Option<usize> {
        self.fields().position(|field| field.name == name)
    }
}

/// Nothing to check.
pub(super) fn no_check(_: &mut Record, _: &mut Vec<String>) {}

/// A key of a section.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) default: Default,
    /// Printed also when it holds the zero value.
    pub(super) is_always_shown: bool,
}

impl Field {
    pub(super) const fn or(mut self, default: Default) -> Self {
        self.default = default;
        self
    }

    pub(super) const fn always(mut self) -> Self {
        self.is_always_shown = true;
        self
    }
}

pub(super) const fn field(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, default: Default::Zero, is_always_shown: false }
}

/// What a field holds when the section does not name it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Default {
    /// The kind's zero value.
    Zero,
    Bool(bool),
    Int(i64),
    Str(&'static str),
    Seconds(u64),
    Millis(u64),
    /// A section with its own defaults.
    Section,
}

/// A check of one word; the error is Prometheus's.
pub(super) type WordCheck = fn(&str) -> Result<(), String>;

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Str,
    /// A string of a named type, checked when it is read.
    Word(&'static str, WordCheck),
    /// Printed as `<secret>`.
    Secret,
    /// A path, relative to the folder of the file that names it.
    File,
    Bool,
    /// A switch that may be left open.
    OptionalBool,
    Int,
    Uint,
    Float,
    Duration,
    /// A duration whose zero means something else than its absence.
    OptionalDuration,
    /// A size in units of base 2, held as an integer.
    Bytes,
    Url,
    /// A pattern; the default one is not printed.
    Regex,
    Strings,
    /// A list of words of a named type.
    Words(&'static str),
    Files,
    /// Label names, printed on one line.
    LabelNames,
    StringMap,
    /// Label names and values.
    LabelSet,
    /// Lists of strings by name.
    ListMap,
    /// As [`Kind::ListMap`], printed as `<secret>`.
    SecretListMap,
    SecretList,
    /// A section that is always there.
    Section(&'static Schema),
    /// A section that may be absent.
    Optional(&'static Schema),
    /// A list of sections; a null item stays null for the check to find.
    List(&'static Schema),
    /// Sections by free name.
    Sections(&'static Schema),
    /// Whatever is written.
    Any,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Str(String),
    Duration(Duration),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
    Record(Box<Record>),
}

/// The values of a section.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) schema: &'static Schema,
    pub(super) values: Vec<Value>,
}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.schema, other.schema) && self.values == other.values
    }
}

impl Record {
    /// A section that names nothing.
    pub(super) fn with_defaults(schema: &'static Schema) -> Self {
        let values = schema.fields().map(|field| default_value(field.kind, field.default)).collect();
        Self { schema, values }
    }

    /// A section that was written as null: every field zero.
    pub(super) fn zero(schema: &'static Schema) -> Self {
        Self { schema, values: schema.fields().map(|field| zero(field.kind)).collect() }
    }

    /// The value of a field; null when the schema has no such field (schemas share checks).
    pub(super) fn get(&self, name: &str) -> &Value {
        self.schema.index(name).map_or(&Value::Null, |index| &self.values[index])
    }

    pub(super) fn set(&mut self, name: &str, value: Value) {
        if let Some(index) = self.schema.index(name) {
            self.values[index] = value;
        }
    }

    pub(super) fn str(&self, name: &str) -> &str {
        match self.get(name) {
            Value::Str(text) => text,
            _ => "",
        }
    }

    pub(super) fn bool(&self, name: &str) -> bool {
        matches!(self.get(name), Value::Bool(true))
    }

    pub(super) fn int(&self, name: &str) -> i64 {
        match self.get(name) {
            Value::Int(value) => *value,
            _ => 0,
        }
    }

    pub(super) fn uint(&self, name: &str) -> u64 {
        match self.get(name) {
            Value::Uint(value) => *value,
            _ => 0,
        }
    }

    pub(super) fn float(&self, name: &str) -> f64 {
        match self.get(name) {
            Value::Float(value) => *value,
            _ => 0.0,
        }
    }

    pub(super) fn duration(&self, name: &str) -> Duration {
        match self.get(name) {
            Value::Duration(value) => *value,
            _ => Duration::ZERO,
        }
    }

    /// The duration of a field that may be left open.
    pub(super) fn optional_duration(&self, name: &str) -> Option<Duration> {
        match self.get(name) {
            Value::Duration(value) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn list(&self, name: &str) -> &[Value] {
        match self.get(name) {
            Value::List(items) => items,
            _ => &[],
        }
    }

    pub(super) fn list_mut(&mut self, name: &str) -> &mut [Value] {
        match self.schema.index(name).map(|index| &mut self.values[index]) {
            Some(Value::List(items)) => items,
            _ => &mut [],
        }
    }

    pub(super) fn map(&self, name: &str) -> &[(String, Value)] {
        match self.get(name) {
            Value::Map(pairs) => pairs,
            _ => &[],
        }
    }

    pub(super) fn record(&self, name: &str) -> Option<&Self> {
        match self.get(name) {
            Value::Record(record) => Some(record),
            _ => None,
        }
    }

    pub(super) fn record_mut(&mut self, name: &str) -> Option<&mut Self> {
        match self.schema.index(name).map(|index| &mut self.values[index]) {
            Some(Value::Record(record)) => Some(record),
            _ => None,
        }
    }

    /// The strings of a list.
    pub(super) fn strings(&self, name: &str) -> Vec<String> {
        strings(self.list(name))
    }

    /// Says whether the field holds anything.
    pub(super) fn has(&self, name: &str) -> bool {
        !is_zero(self.get(name))
    }
}

/// The strings among values.
pub(super) fn strings(values: &[Value]) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::Str(text) => Some(text.clone()),
        _ => None,
    };
    values.iter().filter_map(text).collect()
}

pub(super) fn zero(kind: Kind) -> Value {
    match kind {
        Kind::Str | Kind::Word(..) | Kind::Secret | Kind::File | Kind::Regex => Value::Str(String::new()),
        Kind::Bool => Value::Bool(false),
        Kind::Int | Kind::Bytes => Value::Int(0),
        Kind::Uint => Value::Uint(0),
        Kind::Float => Value::Float(0.0),
        Kind::Duration => Value::Duration(Duration::ZERO),
        Kind::Section(schema) => Value::Record(Box::new(Record::zero(schema))),
        Kind::OptionalBool
        | Kind::OptionalDuration
        | Kind::Url
        | Kind::Strings
        | Kind::Words(_)
        | Kind::Files
        | Kind::LabelNames
        | Kind::StringMap
        | Kind::LabelSet
        | Kind::ListMap
        | Kind::SecretListMap
        | Kind::SecretList
        | Kind::Optional(_)
        | Kind::List(_)
        | Kind::Sections(_)
        | Kind::Any => Value::Null,
    }
}

fn default_value(kind: Kind, default: Default) -> Value {
    match (default, kind) {
        (Default::Bool(value), _) => Value::Bool(value),
        (Default::Int(value), Kind::Uint) => Value::Uint(value.unsigned_abs()),
        (Default::Int(value), _) => Value::Int(value),
        (Default::Str(text), _) => Value::Str(text.to_owned()),
        (Default::Seconds(seconds), _) => Value::Duration(Duration::from_secs(seconds)),
        (Default::Millis(millis), _) => Value::Duration(Duration::from_millis(millis)),
        (Default::Section, Kind::Section(schema) | Kind::Optional(schema)) => {
            Value::Record(Box::new(Record::with_defaults(schema)))
        }
        (Default::Zero | Default::Section, kind) => zero(kind),
    }
}

/// Says whether a value is what Go calls zero; a section is when all in it is.
pub(super) fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Int(value) => *value == 0,
        Value::Uint(value) => *value == 0,
        Value::Float(value) => *value == 0.0,
        Value::Str(text) => text.is_empty(),
        Value::Duration(value) => value.is_zero(),
        Value::List(items) => items.is_empty(),
        Value::Map(pairs) => pairs.is_empty(),
        Value::Record(record) => record.values.iter().all(is_zero),
    }
}
