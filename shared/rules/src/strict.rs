//! Reads nodes of YAML into fields as Go's `yaml` does with known fields, with its texts.
//!
//! Trouble of two sorts is kept apart as there: *type errors* are collected and told together, a *fault* (a duration
//! that is none) ends the reading and is told alone.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use model::number::Quoted;
use model::time::parse_duration;
use yaml_tree::{Content, Node, Scalar, Tag};

/// How many values a document may hold once its aliases are followed.
const VALUES_MAX: usize = 4_000_000;

/// How the reference reads a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Rule files.
    V3,
    /// Files of unit tests.
    V2,
}

/// Collects what is wrong while a document is read.
#[derive(Debug)]
pub(crate) struct Reader {
    dialect: Dialect,
    /// Unknown fields are type errors.
    is_strict: bool,
    /// With their lines, by which they are told.
    type_errors: Vec<(usize, String)>,
    fault: Option<String>,
    values: usize,
}

/// The fields of a section by name.
pub(crate) type Fields<'a> = BTreeMap<&'a str, &'a Node>;

impl Reader {
    pub(crate) const fn new(dialect: Dialect, is_strict: bool) -> Self {
        Self { dialect, is_strict, type_errors: Vec::new(), fault: None, values: 0 }
    }

    /// What was wrong, as one text.
    pub(crate) fn finish(self) -> Result<(), String> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        if self.type_errors.is_empty() {
            return Ok(());
        }
        let mut errors = self.type_errors;
        errors.sort_by_key(|(line, _)| *line);
        let lines: Vec<_> = errors.iter().map(|(line, error)| format!("line {line}: {error}")).collect();
        Err(format!("yaml: unmarshal errors:\n  {}", lines.join("\n  ")))
    }

    pub(crate) fn fault(&mut self, fault: String) {
        self.fault.get_or_insert(fault);
    }

    fn mismatch(&mut self, node: &Node, into: &str) {
        self.type_errors.push((node.line, format!("cannot unmarshal {} into {into}", node.describe())));
    }

    /// Counts a value; false when there are too many, or something ended the reading.
    fn goes_on(&mut self) -> bool {
        self.values += 1;
        if self.values > VALUES_MAX {
            self.fault("yaml: document contains excessive aliasing".to_owned());
        }
        self.fault.is_none()
    }

    /// The fields of a section. A null has none.
    pub(crate) fn section<'a>(
        &mut self,
        node: &'a Node,
        type_name: &str,
        known: &[&str],
    ) -> Option<Fields<'a>> {
        if !self.goes_on() {
            return None;
        }
        if node.is_null() {
            return Some(Fields::new());
        }
        let Content::Mapping(pairs) = &node.content else {
            self.mismatch(node, type_name);
            return None;
        };
        if self.dialect == Dialect::V3 && !self.keys_are_unique(pairs) {
            return None;
        }
        let mut fields = Fields::new();
        self.merge(pairs, &mut fields, known);
        let mut own = BTreeMap::new();
        for (key, value) in pairs {
            if key.is_merge_key() {
                continue;
            }
            let Content::Scalar(Scalar { text, .. }) = &key.content else {
                self.mismatch(key, "string");
                continue;
            };
            if !known.contains(&text.as_str()) {
                if self.is_strict {
                    self.type_errors.push((key.line, format!("field {text} not found in type {type_name}")));
                }
            } else if own.insert(text.as_str(), ()).is_some() {
                self.type_errors.push((key.line, format!("field {text} already set in type {type_name}")));
            } else {
                fields.insert(text, value);
            }
        }
        Some(fields)
    }

    /// Takes what `<<` names; what the section says itself comes later and wins.
    fn merge<'a>(&mut self, pairs: &'a [(Rc<Node>, Rc<Node>)], fields: &mut Fields<'a>, known: &[&str]) {
        for (_, merged) in pairs.iter().filter(|(key, _)| key.is_merge_key()) {
            let sources: Vec<&Rc<Node>> = match &merged.content {
                Content::Sequence(items) => items.iter().rev().collect(),
                _ => vec![merged],
            };
            for source in sources {
                let Content::Mapping(inner) = &source.content else {
                    self.fault("yaml: map merge requires map or sequence of maps as the value".to_owned());
                    return;
                };
                if !self.goes_on() {
                    return;
                }
                self.merge(inner, fields, known);
                for (key, value) in inner {
                    if let Content::Scalar(Scalar { text, .. }) = &key.content
                        && known.contains(&text.as_str())
                    {
                        fields.insert(text, value);
                    }
                }
            }
        }
    }

    fn keys_are_unique(&mut self, pairs: &[(Rc<Node>, Rc<Node>)]) -> bool {
        let mut lines: BTreeMap<&str, usize> = BTreeMap::new();
        let before = self.type_errors.len();
        for (key, _) in pairs {
            let Content::Scalar(Scalar { text, .. }) = &key.content else { continue };
            if let Some(line) = lines.get(text.as_str()) {
                let error = format!("mapping key {} already defined at line {line}", Quoted(text));
                self.type_errors.push((key.line, error));
            } else {
                lines.insert(text, key.line);
            }
        }
        self.type_errors.len() == before
    }

    /// The items of a list. A null has none.
    pub(crate) fn list<'a>(&mut self, node: Option<&'a Node>, type_name: &str) -> &'a [Rc<Node>] {
        match node {
            Some(node) if self.goes_on() && !node.is_null() => match &node.content {
                Content::Sequence(items) => items,
                _ => {
                    self.mismatch(node, type_name);
                    &[]
                }
            },
            _ => &[],
        }
    }

    /// A string, from any scalar as it is written.
    pub(crate) fn string(&mut self, node: Option<&Node>) -> String {
        match node {
            Some(node) if self.goes_on() && !node.is_null() => match &node.content {
                Content::Scalar(Scalar { text, tag: Tag::Binary }) => {
                    let decoded =
                        yaml_tree::decode_binary(text).and_then(|bytes| String::from_utf8(bytes).ok());
                    decoded.unwrap_or_else(|| {
                        self.fault("yaml: !!binary value contains invalid base64 data".to_owned());
                        String::new()
                    })
                }
                Content::Scalar(Scalar { text, .. }) => text.clone(),
                _ => {
                    self.mismatch(node, "string");
                    String::new()
                }
            },
            _ => String::new(),
        }
    }

    /// A duration; `None` where there is none or a null.
    pub(crate) fn duration(&mut self, node: Option<&Node>) -> Option<Duration> {
        let node = node.filter(|node| !node.is_null())?;
        if !matches!(node.content, Content::Scalar(_)) {
            self.mismatch(node, "string");
            return None;
        }
        let text = self.string(Some(node));
        match parse_duration(&text) {
            Ok(duration) => Some(duration),
            Err(error) => {
                self.fault(error.to_string());
                None
            }
        }
    }

    pub(crate) fn integer(&mut self, node: Option<&Node>) -> i64 {
        let Some(node) = node.filter(|node| !node.is_null()) else { return 0 };
        let value = match &node.content {
            Content::Scalar(Scalar { text, tag: Tag::Int }) => {
                yaml_tree::parse_int(text).and_then(|n| i64::try_from(n).ok())
            }
            #[expect(clippy::cast_possible_truncation, reason = "bounded; fractions are cut")]
            Content::Scalar(Scalar { text, tag: Tag::Float }) => {
                yaml_tree::parse_float(text).filter(|x| x.abs() < 9.0e18).map(|x| x as i64)
            }
            _ => None,
        };
        value.unwrap_or_else(|| {
            self.mismatch(node, "int");
            0
        })
    }

    pub(crate) fn float(&mut self, node: Option<&Node>) -> f64 {
        let Some(node) = node.filter(|node| !node.is_null()) else { return 0.0 };
        let value = match &node.content {
            Content::Scalar(Scalar { text, tag: Tag::Float }) => yaml_tree::parse_float(text),
            #[expect(clippy::cast_precision_loss, reason = "as Go converts an integer to a float")]
            Content::Scalar(Scalar { text, tag: Tag::Int }) => yaml_tree::parse_int(text).map(|n| n as f64),
            _ => None,
        };
        value.unwrap_or_else(|| {
            self.mismatch(node, "float64");
            0.0
        })
    }

    pub(crate) fn boolean(&mut self, node: Option<&Node>) -> bool {
        let Some(node) = node.filter(|node| !node.is_null()) else { return false };
        match &node.content {
            Content::Scalar(Scalar { tag: Tag::Bool(value), .. }) => *value,
            _ => {
                self.mismatch(node, "bool");
                false
            }
        }
    }

    /// Names and strings.
    pub(crate) fn strings(&mut self, node: Option<&Node>) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        let Some(node) = node.filter(|node| !node.is_null()) else { return out };
        let Content::Mapping(pairs) = &node.content else {
            self.mismatch(node, "map[string]string");
            return out;
        };
        if self.dialect == Dialect::V3 && !self.keys_are_unique(pairs) {
            return out;
        }
        for (key, value) in pairs {
            if key.is_merge_key() {
                if self.goes_on() {
                    for (name, value) in self.strings(Some(value)) {
                        out.entry(name).or_insert(value);
                    }
                }
                continue;
            }
            let name = self.string(Some(key));
            let value = self.string(Some(value));
            if out.insert(name.clone(), value).is_some() && self.dialect == Dialect::V2 {
                self.type_errors.push((key.line, format!("key {} already set in map", Quoted(&name))));
            }
        }
        out
    }
}
