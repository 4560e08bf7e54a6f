//! Tokens of the text and OpenMetrics formats.
//!
//! Both formats are lexed by state, since what a byte means depends on what stands before it. The states, and which
//! bytes each takes, are those of `promlex.l` and `openmetricslex.l` in Prometheus, so that the same bodies pass.
//!
//! Invariant: `entry <= start <= position <= body.len() + 1`; the text format reads one line feed behind the body, so
//! that the last line need not have one.

use std::borrow::Cow;

use model::number::Quoted;

use crate::error::Error;

/// Which of the two formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Text,
    OpenMetrics,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Init,
    MetaName,
    MetaText,
    Labels,
    LabelValue,
    Value,
    Timestamp,
    Exemplar,
    /// Behind the `=` of an exemplar's label, or behind its closing brace.
    ExemplarValue,
    ExemplarTimestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Invalid,
    Eof,
    Linebreak,
    Help,
    Type,
    Unit,
    EofWord,
    Text,
    Comment,
    MetricName,
    QuotedString,
    BraceOpen,
    BraceClose,
    LabelName,
    LabelValue,
    Comma,
    Equal,
    Timestamp,
    Value,
}

impl Token {
    /// The name that errors have for it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "INVALID",
            Self::Eof => "EOF",
            Self::Linebreak => "LINEBREAK",
            Self::Help => "HELP",
            Self::Type => "TYPE",
            Self::Unit => "UNIT",
            Self::EofWord => "EOFWORD",
            Self::Text => "TEXT",
            Self::Comment => "COMMENT",
            Self::MetricName => "MNAME",
            Self::QuotedString => "QSTRING",
            Self::BraceOpen => "BOPEN",
            Self::BraceClose => "BCLOSE",
            Self::LabelName => "LNAME",
            Self::LabelValue => "LVALUE",
            Self::Comma => "COMMA",
            Self::Equal => "EQUAL",
            Self::Timestamp => "TIMESTAMP",
            Self::Value => "VALUE",
        }
    }
}

/// How much of a broken entry an error repeats.
const QUOTED_BYTES_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct Lexer<'a> {
    body: &'a [u8],
    dialect: Dialect,
    state: State,
    /// Where the current entry starts.
    entry: usize,
    /// Where the current token starts.
    start: usize,
    position: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(body: &'a [u8], dialect: Dialect) -> Self {
        Self { body, dialect, state: State::Init, entry: 0, start: 0, position: 0 }
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Marks the start of an entry.
    pub(super) fn begin_entry(&mut self) {
        self.entry = self.position;
    }

    /// Where the current token starts.
    pub(super) fn token_start(&self) -> usize {
        self.start
    }

    /// Where the current token ends.
    pub(super) fn token_end(&self) -> usize {
        self.position
    }

    /// The bytes of the current token.
    pub(super) fn token(&self) -> &'a [u8] {
        self.slice(self.start, self.position)
    }

    /// The bytes between two positions.
    pub(super) fn slice(&self, from: usize, to: usize) -> &'a [u8] {
        let to = to.min(self.body.len());
        &self.body[from.min(to)..to]
    }

    /// The entry as far as it has been read, for errors.
    pub(super) fn entry_so_far(&self) -> String {
        self.quotable(self.entry, self.position).into_owned()
    }

    /// An error that names what was expected and what is there.
    pub(super) fn unexpected(&self, expected: &str, got: Token) -> Error {
        // One byte past the token, as the reference has it: for an invalid token that is the offending byte.
        let end = (self.position + 1).min(self.limit());
        Error::Syntax(format!(
            "{expected}, got {} (\"{}\") while parsing: {}",
            Quoted(&self.quotable(self.start, end)),
            got.as_str(),
            Quoted(&self.quotable(self.entry, end)),
        ))
    }

    /// What an error repeats of some bytes.
    pub(super) fn excerpt(bytes: &[u8]) -> Cow<'_, str> {
        String::from_utf8_lossy(&bytes[..bytes.len().min(QUOTED_BYTES_MAX)])
    }

    fn quotable(&self, from: usize, to: usize) -> Cow<'a, str> {
        let mut text = Self::excerpt(self.slice(from, to));
        if to > self.body.len() && self.dialect == Dialect::Text {
            text.to_mut().push('\n');
        }
        text
    }

    /// Where the readable bytes end.
    fn limit(&self) -> usize {
        match self.dialect {
            Dialect::Text => self.body.len() + 1,
            Dialect::OpenMetrics => self.body.len(),
        }
    }

    fn peek(&self) -> Option<u8> {
        match self.body.get(self.position) {
            Some(byte) => Some(*byte),
            None if self.position < self.limit() => Some(b'\n'),
            None => None,
        }
    }

    pub(super) fn next_token(&mut self) -> Token {
        match self.dialect {
            Dialect::Text => self.next_text_token(),
            Dialect::OpenMetrics => self.next_open_metrics_token(),
        }
    }

    fn next_text_token(&mut self) -> Token {
        if self.state != State::MetaText {
            self.skip_while(is_blank);
        }
        self.start = self.position;
        let Some(byte) = self.peek() else {
            return Token::Eof;
        };
        match self.state {
            State::Init => match byte {
                b'\n' => self.take(1, State::Init, Token::Linebreak),
                b'#' => self.text_comment(),
                b'{' => self.take(1, State::Labels, Token::BraceOpen),
                _ => self.name(is_metric_start, State::Value, Token::MetricName),
            },
            State::MetaName => self.meta_name(byte),
            State::MetaText => {
                let end = self.line_end();
                if self.slice(self.position, end).iter().all(|b| is_blank(*b)) {
                    // Blanks alone are white space, and the text is empty.
                    self.start = end;
                }
                self.position = end;
                self.state = State::Init;
                Token::Text
            }
            State::Value => match byte {
                b'{' => self.take(1, State::Labels, Token::BraceOpen),
                b'\n' => Token::Invalid,
                _ => {
                    self.skip_while(|b| !matches!(b, b'{' | b' ' | b'\t' | b'\n'));
                    self.state = State::Timestamp;
                    Token::Value
                }
            },
            State::Timestamp if byte == b'\n' => self.take(1, State::Init, Token::Linebreak),
            State::Timestamp if byte.is_ascii_digit() => {
                self.skip_while(|b| b.is_ascii_digit());
                Token::Timestamp
            }
            State::Labels => self.label_token(byte),
            State::LabelValue => self.label_value(byte, State::Labels),
            // The text format never enters the states of exemplars.
            State::Timestamp | State::Exemplar | State::ExemplarValue | State::ExemplarTimestamp => {
                Token::Invalid
            }
        }
    }

    fn next_open_metrics_token(&mut self) -> Token {
        self.start = self.position;
        let Some(byte) = self.peek() else {
            return Token::Eof;
        };
        match self.state {
            State::Init => match byte {
                b'#' => self.open_metrics_comment(),
                b'{' => self.take(1, State::Labels, Token::BraceOpen),
                _ => self.name(is_metric_start, State::Value, Token::MetricName),
            },
            State::MetaName => self.meta_name(byte),
            State::MetaText => {
                let end = self.line_end();
                if byte != b' ' || end == self.body.len() {
                    return Token::Invalid;
                }
                self.take(end + 1 - self.position, State::Init, Token::Text)
            }
            State::Value => match byte {
                b'{' => self.take(1, State::Labels, Token::BraceOpen),
                _ => self.spaced(State::Timestamp, Token::Value),
            },
            State::Timestamp if self.rest().starts_with(b" # {") => {
                self.take(4, State::Exemplar, Token::Comment)
            }
            State::Timestamp | State::ExemplarTimestamp if byte == b'\n' => {
                self.take(1, State::Init, Token::Linebreak)
            }
            State::Timestamp | State::ExemplarTimestamp => self.spaced(self.state, Token::Timestamp),
            State::Labels | State::Exemplar => self.label_token(byte),
            State::LabelValue => self.label_value(byte, State::Labels),
            State::ExemplarValue if byte == b'"' => self.label_value(byte, State::Exemplar),
            State::ExemplarValue => self.spaced(State::ExemplarTimestamp, Token::Value),
        }
    }

    fn text_comment(&mut self) -> Token {
        self.position += 1;
        if self.peek().is_some_and(is_blank) {
            self.skip_while(is_blank);
            for (word, token) in [(b"HELP", Token::Help), (b"TYPE", Token::Type)] {
                if self.rest().starts_with(word) && self.rest().get(4).copied().is_some_and(is_blank) {
                    self.position += word.len();
                    self.skip_while(is_blank);
                    self.state = State::MetaName;
                    return token;
                }
            }
        }
        self.position = self.line_end();
        Token::Comment
    }

    fn open_metrics_comment(&mut self) -> Token {
        let rest = self.rest();
        for (word, token) in
            [(&b"# HELP "[..], Token::Help), (b"# TYPE ", Token::Type), (b"# UNIT ", Token::Unit)]
        {
            if rest.starts_with(word) {
                return self.take(word.len(), State::MetaName, token);
            }
        }
        if rest.starts_with(b"# EOF") {
            let length = if rest.get(5) == Some(&b'\n') { 6 } else { 5 };
            return self.take(length, State::Init, Token::EofWord);
        }
        self.position += if rest.starts_with(b"# ") { 2 } else { 1 };
        Token::Invalid
    }

    fn meta_name(&mut self, byte: u8) -> Token {
        if byte == b'"' {
            return self.quoted(true, State::MetaText, Token::MetricName);
        }
        self.name(is_metric_start, State::MetaText, Token::MetricName)
    }

    fn label_token(&mut self, byte: u8) -> Token {
        let in_exemplar = self.state == State::Exemplar;
        match byte {
            b'"' => self.quoted(!in_exemplar, self.state, Token::QuotedString),
            b'}' if in_exemplar => self.take(1, State::ExemplarValue, Token::BraceClose),
            b'}' => self.take(1, State::Value, Token::BraceClose),
            b'=' if in_exemplar => self.take(1, State::ExemplarValue, Token::Equal),
            b'=' => self.take(1, State::LabelValue, Token::Equal),
            b',' => self.take(1, self.state, Token::Comma),
            _ => self.name(|b| is_metric_start(b) && b != b':', self.state, Token::LabelName),
        }
    }

    fn label_value(&mut self, byte: u8, next: State) -> Token {
        if byte != b'"' {
            return Token::Invalid;
        }
        self.quoted(self.dialect == Dialect::Text, next, Token::LabelValue)
    }

    fn rest(&self) -> &'a [u8] {
        &self.body[self.position.min(self.body.len())..]
    }

    fn take(&mut self, length: usize, next: State, token: Token) -> Token {
        self.position += length;
        self.state = next;
        token
    }

    fn skip_while(&mut self, mut accept: impl FnMut(u8) -> bool) {
        self.position += self.rest().iter().take_while(|b| accept(**b)).count();
    }

    /// Where the current line ends: at its line feed or at the end of the body.
    fn line_end(&self) -> usize {
        self.rest().iter().position(|b| *b == b'\n').map_or(self.body.len(), |i| self.position + i)
    }

    /// Takes a run of name bytes, of which the first must not be a digit.
    fn name(&mut self, accept: impl Fn(u8) -> bool, next: State, token: Token) -> Token {
        self.skip_while(&accept);
        if self.position == self.start {
            return Token::Invalid;
        }
        self.skip_while(|b| accept(b) || b.is_ascii_digit());
        self.state = next;
        token
    }

    /// Takes a space and what follows up to the next space or line feed.
    fn spaced(&mut self, next: State, token: Token) -> Token {
        if self.peek() != Some(b' ') {
            return Token::Invalid;
        }
        self.position += 1;
        let start = self.position;
        self.skip_while(|b| b != b' ' && b != b'\n');
        if self.position == start {
            return Token::Invalid;
        }
        self.state = next;
        token
    }

    /// Takes a string with its quotes; a backslash protects the byte behind it.
    fn quoted(&mut self, with_newlines: bool, next: State, token: Token) -> Token {
        let mut bytes = self.rest().iter().enumerate().skip(1);
        while let Some((i, byte)) = bytes.next() {
            match byte {
                b'"' => return self.take(i + 1, next, token),
                b'\\' => {
                    bytes.next();
                }
                b'\n' if !with_newlines => {
                    self.position += i;
                    return Token::Invalid;
                }
                _ => {}
            }
        }
        self.position = self.body.len();
        Token::Invalid
    }
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn is_metric_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte == b':'
}
