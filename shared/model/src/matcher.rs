//! Label matchers, with Prometheus's regular expressions: RE2 syntax, anchored at both ends, `.` matches newline.

use std::fmt;
use std::sync::Arc;

use crate::labels::{Labels, METRIC_NAME};
use crate::number::Quoted;

/// How a matcher compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

impl MatchOp {
    /// Returns the operator as it is written in PromQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }
}

/// A pattern that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {message}")]
pub struct PatternError {
    /// What the regular expression engine says, on one line.
    pub message: String,
}

/// The largest compiled program of one pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 10 << 20;

/// An anchored regular expression with the plain alternatives it consists of, where it is only those.
#[derive(Debug, Clone)]
pub struct Pattern {
    regex: Arc<regex::Regex>,
    /// The pattern's alternatives when it matches exactly these strings (`a|b|c`), sorted.
    literals: Option<Arc<[String]>>,
    /// A string that every match starts with; empty when there is none.
    prefix: Arc<str>,
}

impl Pattern {
    /// Compiles a pattern that must match the whole text.
    ///
    /// # Errors
    /// When the syntax is wrong or the program would be too large.
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        let flatten = |e: &dyn fmt::Display| PatternError {
            message: e
                .to_string()
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .to_owned(),
        };
        let translated = translate(pattern);
        let anchored = format!("^(?s:{translated})$");
        let regex = regex::RegexBuilder::new(&anchored)
            .size_limit(PATTERN_BYTES_MAX)
            .build()
            .map_err(|e| flatten(&e))?;
        let hir = regex_syntax::ParserBuilder::new()
            .dot_matches_new_line(true)
            .build()
            .parse(&translated)
            .map_err(|e| flatten(&e))?;
        let (literals, prefix) = literals_of(&hir);
        Ok(Self { regex: Arc::new(regex), literals, prefix })
    }

    /// Says whether the whole text matches.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        match &self.literals {
            Some(literals) => literals.binary_search_by(|l| l.as_str().cmp(text)).is_ok(),
            None => text.starts_with(&*self.prefix) && self.regex.is_match(text),
        }
    }

    /// Returns the finite list of strings that match, sorted, when the pattern is such a list.
    #[must_use]
    pub fn literals(&self) -> Option<&[String]> {
        self.literals.as_deref()
    }

    /// Returns a string that every match starts with; empty when none is known.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the compiled expression, anchored, for captures.
    #[must_use]
    pub fn regex(&self) -> &regex::Regex {
        &self.regex
    }
}

/// Rewrites what RE2 reads otherwise than the `regex` crate: `\Q...\E`, classes like `\d` that are ASCII only, braces
/// that repeat nothing, and the set operators that RE2 does not have.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        rest = match c {
            '\\' => translate_escape(&mut out, rest, false),
            '[' => translate_class(&mut out, rest),
            '{' if !starts_repetition(rest) => {
                out.push_str("\\{");
                &rest[1..]
            }
            c => {
                out.push(c);
                &rest[c.len_utf8()..]
            }
        };
    }
    out
}

/// Rewrites the escape a text starts with and returns what follows it.
fn translate_escape<'a>(out: &mut String, text: &'a str, in_class: bool) -> &'a str {
    if let Some(quoted) = text.strip_prefix("\\Q") {
        let (literal, tail) = quoted.split_once("\\E").unwrap_or((quoted, ""));
        out.push_str(&regex::escape(literal));
        return tail;
    }
    let mut chars = text.chars();
    chars.next();
    let escaped = chars.next();
    let ascii = match escaped {
        Some('d' | 'D') => "0-9",
        Some('w' | 'W') => "0-9A-Za-z_",
        Some('s' | 'S') => "\\t\\n\\x0C\\r ",
        _ => {
            let length = 1 + escaped.map_or(0, char::len_utf8);
            out.push_str(&text[..length]);
            return &text[length..];
        }
    };
    let negation = if matches!(escaped, Some('D' | 'W' | 'S')) { "^" } else { "" };
    if in_class && negation.is_empty() {
        out.push_str(ascii);
    } else {
        out.extend(["[", negation, ascii, "]"]);
    }
    &text[2..]
}

/// Rewrites the character class a text starts with and returns what follows it.
fn translate_class<'a>(out: &mut String, text: &'a str) -> &'a str {
    let mut rest = &text[1..];
    out.push('[');
    if let Some(after) = rest.strip_prefix('^') {
        out.push('^');
        rest = after;
    }
    if let Some(after) = rest.strip_prefix(']') {
        out.push_str("\\]");
        rest = after;
    }
    // Whether the hyphen that comes next may stand between the ends of a range.
    let mut may_be_range = out.ends_with("\\]");
    while let Some(c) = rest.chars().next() {
        let was_range_start = std::mem::replace(&mut may_be_range, true);
        rest = match c {
            ']' => {
                out.push(']');
                return &rest[1..];
            }
            '-' if was_range_start && !rest.starts_with("-]") => {
                may_be_range = false;
                out.push('-');
                match rest.strip_prefix("--") {
                    Some(after) => {
                        out.push_str("\\-");
                        after
                    }
                    None => &rest[1..],
                }
            }
            '-' => {
                out.push_str("\\-");
                &rest[1..]
            }
            '\\' => translate_escape(out, rest, true),
            '[' => match rest.find(":]").filter(|_| rest.starts_with("[:")) {
                Some(end) => {
                    out.push_str(&rest[..end + 2]);
                    &rest[end + 2..]
                }
                None => {
                    out.push_str("\\[");
                    &rest[1..]
                }
            },
            // Doubled they would be operators on sets.
            '&' | '~' => {
                out.extend(['\\', c]);
                &rest[1..]
            }
            c => {
                out.push(c);
                &rest[c.len_utf8()..]
            }
        };
    }
    rest
}

/// Says whether a text starts with a counted repetition like `{2}`, `{2,}` or `{2,3}`; other braces are literal.
fn starts_repetition(text: &str) -> bool {
    let Some((inner, _)) = text[1..].split_once('}') else { return false };
    let (from, to) = inner.split_once(',').unwrap_or((inner, ""));
    let is_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    !from.is_empty() && is_digits(from) && is_digits(to)
}

/// At most this many alternatives are kept as plain strings.
const LITERALS_MAX: usize = 1_000;

fn literals_of(hir: &regex_syntax::hir::Hir) -> (Option<Arc<[String]>>, Arc<str>) {
    use regex_syntax::hir::HirKind;
    let mut extractor = regex_syntax::hir::literal::Extractor::new();
    extractor.limit_total(LITERALS_MAX).limit_class(LITERALS_MAX).limit_repeat(64).limit_literal_len(1 << 16);
    let looks_around = !hir.properties().look_set().is_empty();
    if matches!(hir.kind(), HirKind::Empty) {
        return (Some(Arc::from([String::new()])), Arc::from(""));
    }
    if looks_around {
        return (None, Arc::from(""));
    }
    let sequence = extractor.extract(hir);
    let prefix = sequence
        .longest_common_prefix()
        .and_then(|p| std::str::from_utf8(p).ok())
        .map_or_else(|| Arc::from(""), Arc::from);
    if !sequence.is_exact() {
        return (None, prefix);
    }
    let literals = sequence.literals().and_then(|all| {
        all.iter().map(|l| String::from_utf8(l.as_bytes().to_vec()).ok()).collect::<Option<Vec<String>>>()
    });
    let literals = literals.map(|mut all| {
        all.sort();
        all.dedup();
        Arc::from(all)
    });
    (literals, prefix)
}

/// Compares one label of a series with a value or a pattern.
#[derive(Debug, Clone)]
pub struct Matcher {
    name: Arc<str>,
    op: MatchOp,
    value: Arc<str>,
    pattern: Option<Pattern>,
}

impl Matcher {
    /// Makes a matcher, compiling the value where the operator is one of the regular expression ones.
    ///
    /// # Errors
    /// When the pattern cannot be compiled.
    pub fn new(op: MatchOp, name: &str, value: &str) -> Result<Self, PatternError> {
        let pattern = match op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Regex | MatchOp::NotRegex => Some(Pattern::new(value)?),
        };
        Ok(Self { name: Arc::from(name), op, value: Arc::from(value), pattern })
    }

    /// Makes an equality matcher.
    #[must_use]
    pub fn equal(name: &str, value: &str) -> Self {
        Self { name: Arc::from(name), op: MatchOp::Equal, value: Arc::from(value), pattern: None }
    }

    /// The label's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The operator.
    #[must_use]
    pub fn op(&self) -> MatchOp {
        self.op
    }

    /// The value or pattern as it was written.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The compiled pattern of a regular expression matcher.
    #[must_use]
    pub fn pattern(&self) -> Option<&Pattern> {
        self.pattern.as_ref()
    }

    /// Says whether a value of the label matches; pass the empty string for an absent label.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        match (self.op, &self.pattern) {
            (MatchOp::Equal, _) => &*self.value == value,
            (MatchOp::NotEqual, _) => &*self.value != value,
            (MatchOp::Regex, Some(p)) => p.is_match(value),
            (MatchOp::NotRegex, Some(p)) => !p.is_match(value),
            (MatchOp::Regex | MatchOp::NotRegex, None) => {
                unreachable!("a regular expression matcher has a pattern")
            }
        }
    }

    /// Says whether a series without the label matches.
    #[must_use]
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }

    /// Says whether all matchers accept the label set.
    #[must_use]
    pub fn all_match(matchers: &[Self], labels: &Labels) -> bool {
        matchers.iter().all(|m| m.matches(labels.value(&m.name)))
    }

    /// Returns the metric name that the matchers pin down with `=`, if they do.
    #[must_use]
    pub fn metric_name(matchers: &[Self]) -> Option<&str> {
        matchers.iter().find(|m| m.op == MatchOp::Equal && &*m.name == METRIC_NAME).map(|m| &*m.value)
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        self.op == other.op && self.name == other.name && self.value == other.value
    }
}

impl Eq for Matcher {}

impl std::hash::Hash for Matcher {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.op, &self.name, &self.value).hash(state);
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if crate::labels::is_legacy_label_name(&self.name) {
            f.write_str(&self.name)?;
        } else {
            write!(f, "{}", Quoted(&self.name))?;
        }
        write!(f, "{}{}", self.op.as_str(), Quoted(&self.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(op: MatchOp, pattern: &str, value: &str) -> bool {
        Matcher::new(op, "l", pattern).expect("a valid pattern").matches(value)
    }

    #[test]
    fn patterns_are_anchored_and_dot_matches_newline() {
        for (pattern, value, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a|b", "b", true),
            ("a|b", "ab", false),
            ("a.c", "a\nc", true),
            (".*", "", true),
            (".+", "", false),
            ("", "", true),
            ("", "a", false),
            ("foo.*", "foobar", true),
            ("foo.*", "fo", false),
            ("(?i)FOO", "foo", true),
            ("\\Qa.b\\E.", "a.bc", true),
            ("\\Qa.b\\E.", "axbc", false),
            ("^a$", "a", true),
            ("a{2}", "aa", true),
            ("[ab]1|c", "b1", true),
            // What RE2 reads otherwise than most engines do.
            ("/api/{id}/x", "/api/{id}/x", true),
            ("a{,2}", "a{,2}", true),
            ("a{1,2}", "aa", true),
            ("\\d+", "12", true),
            ("\\d", "\u{663}", false),
            ("\\w", "é", false),
            ("\\W", "é", true),
            ("[\\d.]+", "1.2", true),
            ("[^\\d]", "1", false),
            ("[\\D]", "x", true),
            ("\\s\\S", " x", true),
            ("[[]", "[", true),
            ("[]a]+", "]a", true),
            ("[^]]", "]", false),
            ("[[:alpha:]]+", "ab", true),
            ("[a&&b]+", "a&b", true),
            ("[a~~b]+", "~", true),
            ("[+--]", ",", true),
            ("[--0]", ".", true),
            ("[a-c-e]+", "-", true),
            ("[a-c-e]", "d", false),
            ("[-a]+", "-a", true),
            ("[a-]+", "-a", true),
            ("[^-]", "-", false),
            ("\\[\\{", "[{", true),
            ("\\Q[{\\E", "[{", true),
        ] {
            assert_eq!(matches(MatchOp::Regex, pattern, value), expected, "{pattern} on {value:?}");
            assert_eq!(matches(MatchOp::NotRegex, pattern, value), !expected, "not {pattern} on {value:?}");
        }
    }

    #[test]
    fn lists_of_plain_strings_are_known() {
        let literals = |p: &str| Pattern::new(p).expect("valid").literals().map(<[String]>::to_vec);
        assert_eq!(literals("b|a|c"), Some(vec!["a".into(), "b".into(), "c".into()]));
        assert_eq!(literals("x(1|2)"), Some(vec!["x1".into(), "x2".into()]));
        assert_eq!(literals("a.*"), None);
        assert_eq!(Pattern::new("api_.*").expect("valid").prefix(), "api_");
    }

    #[test]
    fn broken_patterns_say_so() {
        let error = Matcher::new(MatchOp::Regex, "l", "a(").expect_err("unclosed");
        assert!(error.to_string().starts_with("error parsing regexp: "), "{error}");
    }
}
