//! Replacement texts with references to groups, expanded as Go's `regexp.Expand` does.

use regex::{Captures, Regex};

/// A text with references to groups of one pattern.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Group(usize),
}

/// Numbers of groups have at most eight digits in Go; a longer one is a name.
const GROUP_DIGITS_MAX: usize = 8;

impl Template {
    /// Splits a text. References to groups that the pattern lacks expand to nothing.
    pub(crate) fn new(text: &str, pattern: &Regex) -> Self {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            literal.push_str(before);
            if let Some(tail) = after.strip_prefix('$') {
                literal.push('$');
                rest = tail;
            } else if let Some((name, tail)) = split_reference(after) {
                rest = tail;
                if let Some(group) = find_group(name, pattern) {
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(Part::Group(group));
                }
            } else {
                literal.push('$');
                rest = after;
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Self { parts }
    }

    /// Returns the text when it refers to nothing.
    pub(crate) fn as_literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Fills in the groups; one that took no part is empty.
    pub(crate) fn expand(&self, captures: &Captures<'_>) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Group(i) => out.push_str(captures.get(*i).map_or("", |m| m.as_str())),
            }
        }
        out
    }
}

/// Splits `name...` or `{name}...` behind a dollar sign; the name is the longest run of letters, digits and
/// underscores, so that `$1x` is the group called `1x`.
fn split_reference(text: &str) -> Option<(&str, &str)> {
    let (body, is_braced) = match text.strip_prefix('{') {
        Some(body) => (body, true),
        None => (text, false),
    };
    let end = body.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(body.len());
    let (name, tail) = body.split_at(end);
    let tail = if is_braced { tail.strip_prefix('}')? } else { tail };
    (!name.is_empty()).then_some((name, tail))
}

fn find_group(name: &str, pattern: &Regex) -> Option<usize> {
    let is_number = name.bytes().all(|b| b.is_ascii_digit())
        && name.len() <= GROUP_DIGITS_MAX
        && (name == "0" || !name.starts_with('0'));
    if is_number {
        return name.parse().ok().filter(|i| *i < pattern.captures_len());
    }
    pattern.capture_names().position(|n| n == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected texts follow from the documentation of Go's `regexp.Expand`.
    #[test]
    fn references_expand_as_in_go() {
        let pattern = Regex::new("^(?P<first>[a-z]+)-([0-9]+)(x)?$").unwrap();
        let captures = pattern.captures("ab-12").unwrap();
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("$0", "ab-12"),
            ("$1", "ab"),
            ("${1}x", "abx"),
            ("$1x", ""),
            ("$1_", ""),
            ("$1-$2", "ab-12"),
            ("$first.", "ab."),
            ("${first}${2}", "ab12"),
            ("[$3]", "[]"),
            ("[$9]", "[]"),
            ("$$1", "$1"),
            ("$$$1", "$ab"),
            ("$", "$"),
            ("a$", "a$"),
            ("$-", "$-"),
            ("${", "${"),
            ("${}", "${}"),
            ("${1", "${1"),
            ("${a-b}", "${a-b}"),
            ("$01", ""),
            ("$100000000", ""),
            ("é$1é", "é"),
            ("é${1}é", "éabé"),
        ] {
            assert_eq!(Template::new(text, &pattern).expand(&captures), expected, "{text}");
        }
    }

    #[test]
    fn a_text_without_references_is_known() {
        let pattern = Regex::new("^(.*)$").unwrap();
        assert_eq!(Template::new("a$$b", &pattern).as_literal(), Some("a$b"));
        assert_eq!(Template::new("", &pattern).as_literal(), Some(""));
        assert_eq!(Template::new("a$1", &pattern).as_literal(), None);
    }
}
