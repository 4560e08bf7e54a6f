//! Turns a text into tokens, one at a time.
//!
//! What a character means depends on where it stands, so the lexer has three modes: outside of any bracket, inside
//! of braces (words are never keywords there), and inside of square brackets (only durations and their arithmetic).
//! It also counts parentheses, since Prometheus reports an unclosed one at the end of the text.
//!
//! Invariants: `start <= pos <= text.len()`, both on character boundaries; after an error no more tokens are asked for.

use crate::ast::{BinaryOp, Span};
use crate::literal::quote_char;
use crate::token::{Keyword, Preprocessor, Token, TokenKind, keyword};

/// A text that is no token, and where.
#[derive(Debug)]
pub(crate) struct LexError {
    pub(crate) start: usize,
    pub(crate) message: String,
}

type Lex<T> = Result<T, LexError>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Expression,
    Braces,
    /// In square brackets, where an operand is expected; behind an operand the wording of errors differs.
    Duration {
        operand: bool,
    },
}

#[derive(Debug)]
pub(crate) struct Lexer<'a> {
    text: &'a str,
    start: usize,
    pos: usize,
    mode: Mode,
    paren_depth: usize,
    colon_seen: bool,
    duration_seen: bool,
}

impl<'a> Lexer<'a> {
    pub(crate) const fn new(text: &'a str) -> Self {
        Self {
            text,
            start: 0,
            pos: 0,
            mode: Mode::Expression,
            paren_depth: 0,
            colon_seen: false,
            duration_seen: false,
        }
    }

    /// The end of what was read.
    pub(crate) const fn position(&self) -> usize {
        self.pos
    }

    /// Reads the next token.
    pub(crate) fn next_token(&mut self) -> Lex<Token> {
        self.skip_blank();
        self.start = self.pos;
        match self.mode {
            Mode::Expression => self.expression_token(),
            Mode::Braces => self.braces_token(),
            Mode::Duration { operand } => self.duration_token(operand),
        }
    }

    /// Skips white space and comments; comments have no place before an operand of a duration.
    fn skip_blank(&mut self) {
        loop {
            self.skip_while(is_space);
            if self.mode == (Mode::Duration { operand: true }) || self.peek() != Some('#') {
                return;
            }
            self.skip_while(|c| c != '\n' && c != '\r');
        }
    }

    fn expression_token(&mut self) -> Lex<Token> {
        let Some(c) = self.bump() else {
            if self.paren_depth > 0 {
                return self.error("unclosed left parenthesis");
            }
            return self.token(TokenKind::Eof);
        };
        match c {
            ',' => self.token(TokenKind::Comma),
            '@' => self.token(TokenKind::At),
            '+' | '-' | '*' | '/' | '%' | '^' => self.token(arithmetic(c)),
            '=' => match self.peek() {
                Some('=') => self.token_after(BinaryOp::Equal),
                Some('~') => self.error("unexpected character after '=': '~'"),
                _ => self.token(TokenKind::Assign),
            },
            '!' => match self.peek() {
                Some('=') => self.token_after(BinaryOp::NotEqual),
                other => self.error(format!("unexpected character after '!': {}", quote_char(other))),
            },
            '<' => match self.peek() {
                Some('=') => self.token_after(BinaryOp::LessOrEqual),
                Some('/') => self.token_after(BinaryOp::TrimUpper),
                _ => self.token(TokenKind::Binary(BinaryOp::Less)),
            },
            '>' => match self.peek() {
                Some('=') => self.token_after(BinaryOp::GreaterOrEqual),
                Some('/') => self.token_after(BinaryOp::TrimLower),
                _ => self.token(TokenKind::Binary(BinaryOp::Greater)),
            },
            '(' | ')' => self.paren(c),
            '{' => {
                self.mode = Mode::Braces;
                self.token(TokenKind::LeftBrace)
            }
            '[' => {
                self.mode = Mode::Duration { operand: true };
                self.colon_seen = false;
                self.duration_seen = false;
                self.token(TokenKind::LeftBracket)
            }
            ']' => self.error("unexpected right bracket ']'"),
            '"' | '\'' => self.string(c),
            '`' => self.raw_string(),
            '.' if self.peek().is_some_and(|d| d.is_ascii_digit()) => self.number_or_duration(),
            c if c.is_ascii_digit() => self.number_or_duration(),
            c if is_alpha(c) || c == ':' => self.word(),
            c => self.error(format!("unexpected character: {}", quote_char(Some(c)))),
        }
    }

    fn braces_token(&mut self) -> Lex<Token> {
        let Some(c) = self.bump() else { return self.error("unexpected end of input inside braces") };
        match c {
            ',' => self.token(TokenKind::Comma),
            '"' | '\'' => self.string(c),
            '`' => self.raw_string(),
            '=' if self.accept('~') => self.token(TokenKind::RegexMatch),
            '=' => self.token(TokenKind::Assign),
            '!' => match self.peek() {
                Some('~') => {
                    self.bump();
                    self.token(TokenKind::RegexNoMatch)
                }
                Some('=') => self.token_after(BinaryOp::NotEqual),
                other => {
                    self.error(format!("unexpected character after '!' inside braces: {}", quote_char(other)))
                }
            },
            '{' => self.error("unexpected left brace '{'"),
            '}' => {
                self.mode = Mode::Expression;
                self.token(TokenKind::RightBrace)
            }
            c if is_alpha(c) => {
                self.skip_while(is_alphanumeric);
                self.token(TokenKind::Identifier)
            }
            c => self.error(format!("unexpected character inside braces: {}", quote_char(Some(c)))),
        }
    }

    fn duration_token(&mut self, operand: bool) -> Lex<Token> {
        let Some(c) = self.bump() else {
            return self.error(if operand {
                "unexpected end of input in duration expression"
            } else if self.paren_depth > 0 {
                "unclosed left parenthesis"
            } else {
                "unclosed left bracket"
            });
        };
        match c {
            '+' | '-' | '*' | '/' | '%' | '^' => {
                self.mode = Mode::Duration { operand: true };
                self.token(arithmetic(c))
            }
            ',' => {
                self.mode = Mode::Duration { operand: true };
                self.token(TokenKind::Comma)
            }
            '(' | ')' => self.paren(c),
            '[' if !operand => self.error("unexpected left bracket '['"),
            ']' => {
                self.mode = Mode::Expression;
                self.token(TokenKind::RightBracket)
            }
            ':' => self.duration_colon(operand),
            '.' if self.peek().is_some_and(|d| d.is_ascii_digit()) => self.duration_operand(),
            c if c.is_ascii_digit() => self.duration_operand(),
            's' | 'S' | 'm' | 'M' | 'r' | 'R' => self.duration_word(c, operand),
            c => self.bad_duration_char(c, operand),
        }
    }

    fn duration_operand(&mut self) -> Lex<Token> {
        self.duration_seen = true;
        self.mode = Mode::Duration { operand: false };
        self.number_or_duration()
    }

    fn duration_word(&mut self, first: char, operand: bool) -> Lex<Token> {
        self.skip_while(is_alpha);
        let word = &self.text[self.start..self.pos];
        match keyword(word) {
            Some(TokenKind::Preprocessor(p)) if !matches!(p, Preprocessor::Start | Preprocessor::End) => {
                self.duration_seen = true;
                self.mode = Mode::Duration { operand: false };
                self.token(TokenKind::Preprocessor(p))
            }
            _ => self.bad_duration_char(first, operand),
        }
    }

    fn bad_duration_char(&self, c: char, operand: bool) -> Lex<Token> {
        if operand {
            return self
                .error(format!("unexpected character in duration expression: {}", quote_char(Some(c))));
        }
        if is_alpha(c) {
            return self.error(format!("unexpected character: {}, expected ':'", quote_char(Some(c))));
        }
        self.error(format!("unexpected character: {}", quote_char(Some(c))))
    }

    fn duration_colon(&mut self, operand: bool) -> Lex<Token> {
        if self.colon_seen && !operand {
            return self.error("unexpected colon ':'");
        }
        // The reference has handed the colon out before it notices, so it reports the place behind it.
        let behind = |message: &str| Err(LexError { start: self.pos, message: message.to_owned() });
        if !self.duration_seen {
            return behind("unexpected colon before duration in duration expression");
        }
        if self.colon_seen {
            return behind("unexpected repeated colon in duration expression");
        }
        self.colon_seen = true;
        self.mode = Mode::Duration { operand: false };
        self.token(TokenKind::Colon)
    }

    fn paren(&mut self, c: char) -> Lex<Token> {
        if c == '(' {
            self.paren_depth += 1;
            return self.token(TokenKind::LeftParen);
        }
        let Some(depth) = self.paren_depth.checked_sub(1) else {
            // As for colons: the place behind it.
            return Err(LexError { start: self.pos, message: "unexpected right parenthesis ')'".to_owned() });
        };
        self.paren_depth = depth;
        self.token(TokenKind::RightParen)
    }

    fn word(&mut self) -> Lex<Token> {
        self.skip_while(|c| is_alphanumeric(c) || c == ':');
        let word = &self.text[self.start..self.pos];
        let kind = match keyword(word) {
            // So that metrics of these names keep working.
            Some(TokenKind::Keyword(Keyword::Fill | Keyword::FillLeft | Keyword::FillRight))
                if !self.text[self.pos..].trim_start_matches(is_space).starts_with('(') =>
            {
                TokenKind::Identifier
            }
            Some(kind) => kind,
            None if word.contains(':') => TokenKind::MetricIdentifier,
            None => TokenKind::Identifier,
        };
        self.token(kind)
    }

    fn number_or_duration(&mut self) -> Lex<Token> {
        self.pos = self.start;
        if self.scan_number() {
            return self.token(TokenKind::Number);
        }
        if self.scan_rest_of_duration() {
            return self.token(TokenKind::Duration);
        }
        let text = &self.text[self.start..self.pos];
        self.error(format!("bad number or duration syntax: {}", model::number::Quoted(text)))
    }

    /// Scans what may be a number: the digits' meaning is checked where it is converted.
    fn scan_number(&mut self) -> bool {
        let is_hex = self.accept('0') && (self.accept('x') || self.accept('X'));
        let is_digit = |c: char| if is_hex { c.is_ascii_hexdigit() } else { c.is_ascii_digit() };
        let (mut dot_seen, mut exponent_seen) = (false, false);
        if is_hex {
            self.accept('_');
        }
        while let Some(c) = self.peek() {
            match c {
                c if is_digit(c) => {
                    self.bump();
                }
                '.' => {
                    self.bump();
                    if dot_seen || self.accept_any("_.") || is_hex {
                        return false;
                    }
                    dot_seen = true;
                }
                'e' | 'E' => {
                    self.bump();
                    if exponent_seen {
                        return false;
                    }
                    exponent_seen = true;
                    if !self.accept('+') {
                        self.accept('-');
                    }
                    if self.accept_any("._eE") || self.peek().is_none() {
                        return false;
                    }
                }
                '_' => {
                    self.bump();
                    if self.accept_any("._eE") || self.peek().is_none() {
                        return false;
                    }
                }
                _ => break,
            }
        }
        self.pos > self.start && !self.peek().is_some_and(is_alphanumeric)
    }

    /// Scans the units behind the first number of a duration; which ones fit is checked where it is converted.
    fn scan_rest_of_duration(&mut self) -> bool {
        if !self.accept_any("smhdwy") {
            return false;
        }
        self.accept('s');
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.skip_while(|c| c.is_ascii_digit());
            if !self.accept_any("smhdw") {
                return false;
            }
            self.accept('s');
        }
        if self.peek().is_some_and(is_alphanumeric) {
            self.bump();
            return false;
        }
        true
    }

    fn string(&mut self, quote: char) -> Lex<Token> {
        loop {
            match self.bump() {
                None | Some('\n') => return self.error("unterminated quoted string"),
                Some('\\') => self.escape(quote)?,
                Some(c) if c == quote => return self.token(TokenKind::String),
                Some(_) => {}
            }
        }
    }

    fn raw_string(&mut self) -> Lex<Token> {
        self.skip_while(|c| c != '`');
        if self.accept('`') { self.token(TokenKind::String) } else { self.error("unterminated raw string") }
    }

    fn escape(&mut self, quote: char) -> Lex<()> {
        let Some(c) = self.bump() else { return self.error("escape sequence not terminated") };
        let (digits, radix, max) = match c {
            'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\' => return Ok(()),
            c if c == quote => return Ok(()),
            '0'..='7' => {
                self.pos -= 1;
                (3, 8, 255)
            }
            'x' => (2, 16, 255),
            'u' => (4, 16, u32::from(char::MAX)),
            'U' => (8, 16, u32::from(char::MAX)),
            c => return self.error(format!("unknown escape sequence {}", unicode_name(c))),
        };
        let mut value: u32 = 0;
        for _ in 0..digits {
            let Some(c) = self.bump() else { return self.error("escape sequence not terminated") };
            let Some(digit) = c.to_digit(radix) else {
                return self.error(format!("illegal character {} in escape sequence", unicode_name(c)));
            };
            value = value.wrapping_mul(radix).wrapping_add(digit);
        }
        if value > max || (0xD800..0xE000).contains(&value) {
            return self.error("escape sequence is an invalid Unicode code point");
        }
        Ok(())
    }

    fn token(&self, kind: TokenKind) -> Lex<Token> {
        Ok(Token { kind, span: Span::new(self.start, self.pos) })
    }

    /// Takes one more character and returns the operator it completes.
    fn token_after(&mut self, op: BinaryOp) -> Lex<Token> {
        self.bump();
        self.token(TokenKind::Binary(op))
    }

    fn error<T>(&self, message: impl Into<String>) -> Lex<T> {
        Err(LexError { start: self.start, message: message.into() })
    }

    fn peek(&self) -> Option<char> {
        self.text[self.pos..].chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.pos += c.len_utf8();
        Some(c)
    }

    fn accept(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.pos += wanted.len_utf8();
        }
        found
    }

    fn accept_any(&mut self, wanted: &str) -> bool {
        let found = self.peek().is_some_and(|c| wanted.contains(c));
        if found {
            self.bump();
        }
        found
    }

    fn skip_while(&mut self, accept: impl Fn(char) -> bool) {
        let rest = &self.text[self.pos..];
        self.pos += rest.len() - rest.trim_start_matches(accept).len();
    }
}

fn arithmetic(c: char) -> TokenKind {
    TokenKind::Binary(match c {
        '+' => BinaryOp::Add,
        '-' => BinaryOp::Sub,
        '*' => BinaryOp::Mul,
        '/' => BinaryOp::Div,
        '%' => BinaryOp::Mod,
        _ => BinaryOp::Pow,
    })
}

pub(crate) const fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

pub(crate) const fn is_alpha(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic()
}

pub(crate) const fn is_alphanumeric(c: char) -> bool {
    is_alpha(c) || c.is_ascii_digit()
}

/// Names a character as Go's `%#U` does.
fn unicode_name(c: char) -> String {
    format!("U+{:04X} '{c}'", u32::from(c))
}
