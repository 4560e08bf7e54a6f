//! A Rust source as lines of code and lines of comment, told apart by a small lexer.

use std::path::PathBuf;

/// A file, taken apart.
pub(crate) struct Source {
    /// Relative to the root of the tree.
    pub(crate) path: PathBuf,
    pub(crate) lines: Vec<Line>,
    pub(crate) starts_with_docs: bool,
}

/// One line, its contents told apart.
#[derive(Default)]
pub(crate) struct Line {
    /// Without comments, and without what stands in literals.
    pub(crate) code: String,
    pub(crate) comment: String,
    /// What stands in string literals.
    literal: String,
}

/// Where the lexer is.
enum State {
    Code,
    LineComment,
    /// Block comments nest.
    BlockComment(u32),
    /// In a string; a raw one ends with a quote and as many hashes.
    Text {
        hashes: Option<usize>,
    },
}

impl Source {
    pub(crate) fn parse(path: PathBuf, text: &str) -> Self {
        let starts_with_docs = text.trim_start().starts_with("//!");
        Self { path, lines: split(text), starts_with_docs }
    }

    /// What must not stand in any source.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let path = self.path.display();
        if self.path.file_name().is_some_and(|name| name == "mod.rs") {
            faults.push(format!("{path}: modules are name.rs, not mod.rs"));
        }
        for (index, line) in self.lines.iter().enumerate() {
            let mut fault = |text: &str| faults.push(format!("{path}:{}: {text}", index + 1));
            for banned in ["todo!", "unimplemented!"] {
                if has_word(&line.code, banned) {
                    fault(&format!("`{banned}` is not built"));
                }
            }
            if line.comment.match_indices("TODO").any(|(at, _)| !is_issue(&line.comment[at + 4..])) {
                fault("a TODO names its issue: TODO(#123)");
            }
            for other in ["FIXME", "XXX", "HACK"] {
                if has_word(&line.comment, other) {
                    fault(&format!("{other} is written TODO(#123)"));
                }
            }
            let has_issue =
                line.literal.match_indices('#').any(|(at, _)| starts_with_digit(&line.literal[at + 1..]));
            if line.code.contains("#[ignore") && !has_issue {
                fault("`#[ignore]` names its issue");
            }
        }
        faults
    }
}

/// Says whether `text` begins with `(#123)`.
fn is_issue(text: &str) -> bool {
    let number = text.strip_prefix("(#").and_then(|rest| rest.split_once(')')).map(|(number, _)| number);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

fn starts_with_digit(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        !before.ends_with(is_part) && (word.ends_with('!') || !after.starts_with(is_part))
    })
}

fn split(text: &str) -> Vec<Line> {
    let mut lines = vec![Line::default()];
    let mut state = State::Code;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let line = lines.last_mut().expect("never empty");
        let mut taken = c.len_utf8();
        match &mut state {
            State::Code if rest.starts_with("//") => {
                state = State::LineComment;
                taken = 2;
            }
            State::Code if rest.starts_with("/*") => {
                state = State::BlockComment(1);
                taken = 2;
            }
            State::Code => match literal_start(&line.code, rest) {
                Some(Start::Text { hashes, bytes }) => {
                    line.code.push('"');
                    state = State::Text { hashes };
                    taken = bytes;
                }
                Some(Start::Char { bytes }) => {
                    line.code.push_str("' '");
                    taken = bytes;
                }
                None => line.code.push(c),
            },
            State::LineComment => line.comment.push(c),
            State::BlockComment(depth) => {
                if rest.starts_with("*/") {
                    *depth -= 1;
                    taken = 2;
                } else if rest.starts_with("/*") {
                    *depth += 1;
                    taken = 2;
                } else {
                    line.comment.push(c);
                }
                if *depth == 0 {
                    state = State::Code;
                }
            }
            State::Text { hashes: None } if c == '\\' => {
                taken += rest[1..].chars().next().filter(|next| *next != '\n').map_or(0, char::len_utf8);
            }
            State::Text { hashes } => {
                let end = format!("\"{}", "#".repeat(hashes.unwrap_or(0)));
                if rest.starts_with(&end) {
                    line.code.push('"');
                    taken = end.len();
                    state = State::Code;
                } else {
                    line.literal.push(c);
                }
            }
        }
        if c == '\n' {
            if matches!(state, State::LineComment) {
                state = State::Code;
            }
            lines.push(Line::default());
        }
        rest = &rest[taken..];
    }
    lines
}

/// How a literal begins.
enum Start {
    Text { hashes: Option<usize>, bytes: usize },
    Char { bytes: usize },
}

fn literal_start(code: &str, rest: &str) -> Option<Start> {
    if rest.starts_with('"') {
        return Some(Start::Text { hashes: None, bytes: 1 });
    }
    let is_in_word = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
    if let Some(raw) = rest.strip_prefix('r').filter(|_| !is_in_word || code.ends_with(['b', 'c'])) {
        let hashes = raw.bytes().take_while(|b| *b == b'#').count();
        if raw[hashes..].starts_with('"') {
            return Some(Start::Text { hashes: Some(hashes), bytes: hashes + 2 });
        }
    }
    // 'x' and '\n' are characters, 'a is a lifetime.
    let inner = rest.strip_prefix('\'')?;
    if let Some(escape) = inner.strip_prefix('\\') {
        let skipped = escape.chars().next().map_or(0, char::len_utf8);
        return escape[skipped..].find('\'').map(|end| Start::Char { bytes: 2 + skipped + end + 1 });
    }
    let bytes = inner.chars().next()?.len_utf8();
    inner[bytes..].starts_with('\'').then_some(Start::Char { bytes: bytes + 2 })
}
