//! YAML text to a tree of nodes that know where they stand, their tag and how they were written.
//!
//! Prometheus's messages name the line and the YAML 1.1 tag of what they refuse (``line 4: cannot unmarshal !!str
//! `x` into int``), and a string field takes any scalar as it stands in the file (`version: 1.10` stays `1.10`). A
//! deserializer that hands over finished values has lost both, so this module keeps the nodes.
//!
//! Invariants:
//! - a tree is at most [`DEPTH_MAX`] deep, through aliases too, so code that walks it may recurse;
//! - aliases share nodes; whoever walks a tree counts what it visits.
//!
//! Deliberately absent: what a document should hold. Readers of `prometheus.yml`, of rule files and of unit tests
//! have rules of their own.
#![warn(missing_docs)]

use std::collections::HashMap;
use std::rc::Rc;

use base64::Engine as _;
use granit_parser::{Event, Parser, ScalarStyle, Tag as ParserTag};

/// The largest document, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 64 << 20;
/// How deep nodes may nest.
pub const DEPTH_MAX: usize = 64;

/// A node and where it begins.
#[derive(Debug)]
pub struct Node {
    /// The line, from 1.
    pub line: usize,
    /// The column, in characters from 1.
    pub column: usize,
    /// What it holds.
    pub content: Content,
    depth: usize,
}

/// What a node holds.
#[derive(Debug)]
pub enum Content {
    /// A single value.
    Scalar(Scalar),
    /// A list.
    Sequence(Vec<Rc<Node>>),
    /// Keys and values in the order in which they are written.
    Mapping(Vec<(Rc<Node>, Rc<Node>)>),
}

/// A scalar as written, with the tag that YAML 1.1 gives it.
#[derive(Debug)]
pub struct Scalar {
    /// The text, without quotes.
    pub text: String,
    /// The tag.
    pub tag: Tag,
}

/// The kind of a scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// Nothing.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int,
    /// A number with a fraction.
    Float,
    /// A string.
    Str,
    /// Bytes in base 64.
    Binary,
    /// A date or time.
    Timestamp,
    /// The key `<<`.
    Merge,
}

impl Tag {
    /// Returns the tag as messages show it: `!!int`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Null => "!!null",
            Self::Bool(_) => "!!bool",
            Self::Int => "!!int",
            Self::Float => "!!float",
            Self::Str => "!!str",
            Self::Binary => "!!binary",
            Self::Timestamp => "!!timestamp",
            Self::Merge => "!!merge",
        }
    }
}

impl Node {
    /// Says whether the node is a null.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(&self.content, Content::Scalar(scalar) if scalar.tag == Tag::Null)
    }

    /// Says whether the node is the key `<<`.
    #[must_use]
    pub fn is_merge_key(&self) -> bool {
        matches!(&self.content, Content::Scalar(scalar) if scalar.tag == Tag::Merge)
    }

    /// Returns the node as messages show it: its tag and, of a scalar, the text, cut as Prometheus cuts it.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.content {
            Content::Sequence(_) => "!!seq".to_owned(),
            Content::Mapping(_) => "!!map".to_owned(),
            Content::Scalar(Scalar { text, tag }) if text.len() > 10 => {
                let end = (0..=7).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
                format!("{} `{}...`", tag.as_str(), &text[..end])
            }
            Content::Scalar(Scalar { text, tag }) => format!("{} `{text}`", tag.as_str()),
        }
    }
}

/// Parses the first document of a text; `None` when there is nothing in it.
///
/// # Errors
/// In the words of libyaml for common mistakes, as in `yaml: line 2: did not find expected key`.
pub fn parse(text: &str) -> Result<Option<Rc<Node>>, String> {
    if text.len() > DOCUMENT_BYTES_MAX {
        return Err(format!("yaml: document of {} bytes exceeds {DOCUMENT_BYTES_MAX}", text.len()));
    }
    let mut options = granit_parser::Options::default();
    options.set_emit_comments(false);
    options.emit_unresolved_aliases = true;
    options.flow_nesting_limit = DEPTH_MAX;
    options.block_nesting_limit = DEPTH_MAX;
    let mut tree = Tree::default();
    // Wanted for block scalars alone.
    let mut lines: Option<Vec<&str>> = None;
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next.map_err(|error| syntax_error(text, error.marker().line(), &error.info()))?;
        let at = (span.start.line(), span.start.col() + 1);
        match event {
            Event::Scalar(content, style, anchor, tag) => {
                let is_block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                let at = if is_block {
                    block_header(lines.get_or_insert_with(|| text.lines().collect()), at)
                } else {
                    at
                };
                let tag = scalar_tag(&content, style, tag.as_deref());
                let scalar = Scalar { tag, text: content.into_owned() };
                tree.push(at, Content::Scalar(scalar), 1, anchor)?;
            }
            Event::SequenceStart(_, anchor, _) => tree.open.push(Open::new(at, anchor, false)),
            Event::MappingStart(_, anchor, _) => tree.open.push(Open::new(at, anchor, true)),
            Event::SequenceEnd | Event::MappingEnd => tree.close()?,
            Event::Alias(anchor) => {
                let Some(node) = tree.anchors.get(&anchor).cloned() else {
                    return Err(format!("yaml: line {}: anchor contains itself", at.0));
                };
                tree.add(node)?;
            }
            Event::UnresolvedAlias(name) => return Err(unknown_anchor(at.0, &name)),
            Event::DocumentEnd => break,
            _ => {}
        }
    }
    Ok(tree.root)
}

/// Where the sign of a block scalar stands whose text begins at a place: `|` or `>` on the last line before it.
fn block_header(lines: &[&str], content: (usize, usize)) -> (usize, usize) {
    let before = &lines[..content.0.saturating_sub(1).min(lines.len())];
    let Some(i) = before.iter().rposition(|line| !line.trim().is_empty()) else { return content };
    let line = before[i];
    let plain = line.split_once(" #").map_or(line, |(plain, _)| plain).trim_end();
    let header = plain.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-'));
    match header.strip_suffix(['|', '>']) {
        Some(ahead) => (i + 1, ahead.chars().count() + 1),
        None => content,
    }
}

/// Says what is wrong in the words of libyaml where the parser has others for common mistakes.
///
/// Prometheus's reader counts lines from 0 in what its parser finds and from 1 in what its scanner finds.
fn syntax_error(text: &str, line: usize, found: &str) -> String {
    let found =
        found.split_once(", ").filter(|_| found.starts_with("while ")).map_or(found, |(_, rest)| rest);
    let (line, problem) = if found.starts_with("unexpected character") || found.starts_with("tab") {
        (line, "found character that cannot start any token")
    } else if found.starts_with("unclosed quote") {
        (text.matches('\n').count() + 1, "found unexpected end of stream")
    } else if found.starts_with("unclosed bracket '{'") {
        (line, "did not find expected ',' or '}'")
    } else if found.starts_with("unclosed bracket '['") {
        (line, "did not find expected ',' or ']'")
    } else if found.starts_with("did not find expected") {
        (line.saturating_sub(1), found)
    } else {
        (line, found)
    };
    if line == 0 { format!("yaml: {problem}") } else { format!("yaml: line {line}: {problem}") }
}

fn unknown_anchor(line: usize, name: &str) -> String {
    // Mostly a pattern that ought to stand in quotes, such as `*.example.com`.
    if name.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')) {
        format!("yaml: unknown anchor '{name}' referenced")
    } else {
        format!("yaml: line {line}: did not find expected alphabetic or numeric character")
    }
}

/// The tree while it is read.
#[derive(Default)]
struct Tree {
    root: Option<Rc<Node>>,
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
}

struct Open {
    /// Line and column.
    at: (usize, usize),
    anchor: usize,
    is_mapping: bool,
    children: Vec<Rc<Node>>,
    depth: usize,
}

impl Open {
    const fn new(at: (usize, usize), anchor: usize, is_mapping: bool) -> Self {
        Self { at, anchor, is_mapping, children: Vec::new(), depth: 1 }
    }
}

impl Tree {
    fn push(
        &mut self,
        (line, column): (usize, usize),
        content: Content,
        depth: usize,
        anchor: usize,
    ) -> Result<(), String> {
        let node = Rc::new(Node { line, column, content, depth });
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.add(node)
    }

    fn add(&mut self, node: Rc<Node>) -> Result<(), String> {
        if node.depth > DEPTH_MAX {
            return Err(format!("yaml: line {}: nested deeper than {DEPTH_MAX}", node.line));
        }
        match self.open.last_mut() {
            Some(parent) => {
                parent.depth = parent.depth.max(node.depth + 1);
                parent.children.push(node);
            }
            None => self.root = Some(node),
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), String> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let content = if open.is_mapping {
            let mut pairs = Vec::with_capacity(open.children.len() / 2);
            let mut children = open.children.into_iter();
            while let (Some(key), Some(value)) = (children.next(), children.next()) {
                pairs.push((key, value));
            }
            Content::Mapping(pairs)
        } else {
            Content::Sequence(open.children)
        };
        self.push(open.at, content, open.depth, open.anchor)
    }
}

fn scalar_tag(text: &str, style: ScalarStyle, tag: Option<&ParserTag>) -> Tag {
    match tag.and_then(|tag| tag.suffix_in_namespace("tag:yaml.org,2002:")).as_deref() {
        Some("str") => return Tag::Str,
        Some("binary") => return Tag::Binary,
        Some("null") => return Tag::Null,
        Some("float") => return Tag::Float,
        _ => {}
    }
    if style == ScalarStyle::Plain { resolve(text) } else { Tag::Str }
}

/// Returns the tag that YAML 1.1 gives a plain scalar.
#[must_use]
pub fn resolve(text: &str) -> Tag {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Tag::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Tag::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Tag::Bool(false);
        }
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf" | "-.INF" | ".nan"
        | ".NaN" | ".NAN" => return Tag::Float,
        "<<" => return Tag::Merge,
        _ => {}
    }
    let starts_number = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
    if !starts_number {
        Tag::Str
    } else if parse_int(text).is_some() {
        Tag::Int
    } else if parse_float(text).is_some() {
        Tag::Float
    } else if is_timestamp(text) {
        Tag::Timestamp
    } else {
        Tag::Str
    }
}

/// Reads an integer as YAML 1.1 and Go write them: decimal, `0x`, `0o` or leading zero, `0b`, underscores anywhere.
#[must_use]
pub fn parse_int(text: &str) -> Option<i128> {
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    let (is_negative, digits) = match plain.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, plain.strip_prefix('+').unwrap_or(&plain)),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let radix_of = |prefix: &str, radix| digits.strip_prefix(prefix).map(|rest| (rest, radix));
    let (digits, radix) = radix_of("0x", 16)
        .or_else(|| radix_of("0X", 16))
        .or_else(|| radix_of("0b", 2))
        .or_else(|| radix_of("0B", 2))
        .or_else(|| radix_of("0o", 8))
        .or_else(|| radix_of("0O", 8))
        .or_else(|| radix_of("0", 8).filter(|(rest, _)| !rest.is_empty()))
        .unwrap_or((digits, 10));
    let value = i128::from_str_radix(digits, radix).ok().filter(|v| *v <= i128::from(u64::MAX))?;
    Some(if is_negative { -value } else { value })
}

/// Reads a number as YAML 1.1 and Go write them: decimal, `.inf`, `.nan`, underscores anywhere.
#[must_use]
pub fn parse_float(text: &str) -> Option<f64> {
    match text.trim_start_matches('+') {
        ".inf" | ".Inf" | ".INF" => return Some(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Some(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        _ => {}
    }
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    let is_number = plain.chars().all(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E'))
        && plain.contains(|c: char| c.is_ascii_digit());
    if is_number { plain.parse().ok() } else { None }
}

/// Says whether a text begins as a date does (`2001-12-14`): such a scalar is no string to a YAML 1.1 writer.
fn is_timestamp(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let digits =
        |part: Option<&str>| part.is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    let has_year = parts.next().is_some_and(|y| y.len() == 4 && y.bytes().all(|b| b.is_ascii_digit()));
    has_year
        && digits(parts.next())
        && parts.next().is_some_and(|d| d.starts_with(|c: char| c.is_ascii_digit()))
}

/// Returns the bytes of a `!!binary` scalar; `None` when it is not base 64.
#[must_use]
pub fn decode_binary(text: &str) -> Option<Vec<u8>> {
    let packed: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    base64::engine::general_purpose::STANDARD.decode(packed).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_have_the_tags_of_yaml_1_1() {
        for (text, tag) in [
            ("", Tag::Null),
            ("~", Tag::Null),
            ("yes", Tag::Bool(true)),
            ("Off", Tag::Bool(false)),
            ("12", Tag::Int),
            ("0x1F", Tag::Int),
            ("1_000", Tag::Int),
            ("-7", Tag::Int),
            ("1.5", Tag::Float),
            ("1e3", Tag::Float),
            (".NaN", Tag::Float),
            ("2001-12-14", Tag::Timestamp),
            ("1.2.3.4", Tag::Str),
            ("15s", Tag::Str),
            ("localhost:9090", Tag::Str),
            ("-", Tag::Str),
            ("+-1", Tag::Str),
        ] {
            assert_eq!(resolve(text), tag, "{text:?}");
        }
        for (text, value) in [("0x10", 16), ("010", 8), ("0b11", 3), ("1_000", 1000), ("-5", -5), ("0", 0)] {
            assert_eq!(parse_int(text), Some(value), "{text:?}");
        }
    }

    #[test]
    fn lines_survive_and_quoted_scalars_are_strings() {
        let root = parse("a: 1\nb:\n- '2'\n- 3\n").expect("parses").expect("not empty");
        let Content::Mapping(pairs) = &root.content else { panic!("a mapping") };
        assert_eq!(pairs.iter().map(|(k, v)| (k.line, v.line)).collect::<Vec<_>>(), [(1, 1), (2, 3)]);
        let Content::Sequence(items) = &pairs[1].1.content else { panic!("a sequence") };
        assert_eq!(items.iter().map(|i| i.describe()).collect::<Vec<_>>(), ["!!str `2`", "!!int `3`"]);
    }

    #[test]
    fn places_are_those_of_libyaml() {
        let text = "a: b\nlist:\n- |2- # text\n\n    x\n- 'y'\n- >\n  z\n- &n [w]\n";
        let root = parse(text).expect("parses").expect("not empty");
        let Content::Mapping(pairs) = &root.content else { panic!("a mapping") };
        assert_eq!((pairs[0].1.line, pairs[0].1.column), (1, 4));
        let Content::Sequence(items) = &pairs[1].1.content else { panic!("a sequence") };
        let places: Vec<_> = items.iter().map(|item| (item.line, item.column)).collect();
        assert_eq!(places[..3], [(3, 3), (6, 3), (7, 3)]);
    }

    #[test]
    fn nesting_is_bounded_through_aliases_too() {
        let deep = format!("{}1{}", "[".repeat(DEPTH_MAX + 1), "]".repeat(DEPTH_MAX + 1));
        assert!(parse(&deep).is_err());
        let mut chained = String::from("- &a0 [x]\n");
        for i in 1..=DEPTH_MAX {
            chained.push_str(&format!("- &a{i} [*a{}]\n", i - 1));
        }
        assert!(parse(&chained).expect_err("too deep").contains("nested deeper than 64"));
        assert!(parse(&"x".repeat(DOCUMENT_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn syntax_errors_are_told_as_libyaml_tells_them() {
        for (text, error) in [
            ("a: b\nc: d: e\n", "yaml: line 2: mapping values are not allowed in this context"),
            ("a:\n\tb: c\n", "yaml: line 2: found character that cannot start any token"),
            ("a:\n- b: @c\n", "yaml: line 2: found character that cannot start any token"),
            ("a:\n  b: c\n d: e\n", "yaml: line 2: did not find expected key"),
            ("a:\n- b: 'c\n  d: e\n", "yaml: line 4: found unexpected end of stream"),
            ("a: b\nc: \"\\.\"\n", "yaml: line 2: found unknown escape character"),
            ("a:\n  b: *c\n", "yaml: unknown anchor 'c' referenced"),
            ("a:\n  b: *.c\n", "yaml: line 2: did not find expected alphabetic or numeric character"),
        ] {
            assert_eq!(parse(text).expect_err(text), error, "{text:?}");
        }
        assert!(parse("").expect("empty").is_none());
    }
}
