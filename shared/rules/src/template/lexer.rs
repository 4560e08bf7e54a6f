//! Template text to tokens.

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The text is wrong; the token's text says how.
    Error,
    Eof,
    Text,
    LeftDelim,
    RightDelim,
    Space,
    Assign,
    Declare,
    Pipe,
    Char,
    CharConstant,
    Str,
    RawStr,
    Number,
    Bool,
    Variable,
    Identifier,
    LeftParen,
    RightParen,
    Field,
    // Keywords; messages show them in angle brackets.
    Dot,
    Nil,
    Block,
    Break,
    Continue,
    Define,
    Else,
    End,
    If,
    Range,
    Template,
    With,
}

#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) text: String,
    /// Where it begins, in bytes.
    pub(super) pos: usize,
    /// The line, from 1.
    pub(super) line: usize,
}

impl Token {
    /// The token as messages show it.
    pub(super) fn describe(&self) -> String {
        match self.kind {
            Kind::Eof => "EOF".to_owned(),
            Kind::Error => self.text.clone(),
            Kind::Dot
            | Kind::Nil
            | Kind::Block
            | Kind::Break
            | Kind::Continue
            | Kind::Define
            | Kind::Else
            | Kind::End
            | Kind::If
            | Kind::Range
            | Kind::Template
            | Kind::With => format!("<{}>", self.text),
            _ if self.text.chars().count() > 10 => {
                let cut: String = self.text.chars().take(10).collect();
                format!("{}...", model::number::Quoted(&cut))
            }
            _ => model::number::Quoted(&self.text).to_string(),
        }
    }
}

/// Cuts a text into tokens. The last one is [`Kind::Eof`] or [`Kind::Error`].
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { text, pos: 0, start: 0, line: 1, line_at: 0, parens: 0, out: Vec::new() };
    if let Err(fault) = lexer.run() {
        let line = lexer.line_of(lexer.pos);
        lexer.out.push(Token { kind: Kind::Error, text: fault, pos: lexer.pos, line });
    }
    lexer.out
}

struct Lexer<'a> {
    text: &'a str,
    pos: usize,
    start: usize,
    line: usize,
    /// Where `line` was counted up to.
    line_at: usize,
    parens: usize,
    out: Vec<Token>,
}

type Step = Result<(), String>;

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.pos..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.pos += c.len_utf8();
        Some(c)
    }

    fn take_while(&mut self, accept: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&accept) {
            self.bump();
        }
    }

    /// The line of a position at or behind all asked for before.
    fn line_of(&mut self, pos: usize) -> usize {
        if pos > self.line_at {
            self.line += self.text[self.line_at..pos].matches('\n').count();
            self.line_at = pos;
        }
        self.line
    }

    fn emit(&mut self, kind: Kind) {
        let line = self.line_of(self.start);
        let text = self.text[self.start..self.pos].to_owned();
        self.out.push(Token { kind, text, pos: self.start, line });
        self.start = self.pos;
    }

    fn run(&mut self) -> Step {
        loop {
            let Some(at) = self.rest().find("{{") else {
                self.pos = self.text.len();
                if self.pos > self.start {
                    self.emit(Kind::Text);
                }
                self.emit(Kind::Eof);
                return Ok(());
            };
            let delim = self.pos + at;
            let inside = &self.text[delim + 2..];
            let trims = inside.starts_with('-') && inside[1..].starts_with(is_space);
            let end = if trims { self.text[..delim].trim_end_matches(is_space).len() } else { delim };
            self.pos = end.max(self.start);
            if self.pos > self.start {
                self.emit(Kind::Text);
            }
            (self.start, self.pos) = (delim, delim + 2);
            let marker = if trims { 2 } else { 0 };
            if self.text[self.pos + marker..].starts_with("/*") {
                self.pos += marker;
                self.comment()?;
            } else {
                self.emit(Kind::LeftDelim);
                self.pos += marker;
                self.start = self.pos;
                self.parens = 0;
                self.action()?;
            }
        }
    }

    fn comment(&mut self) -> Step {
        let Some(end) = self.rest().find("*/") else { return Err("unclosed comment".to_owned()) };
        self.pos += end + 2;
        let Some(trims) = self.right_delim() else {
            return Err("comment ends before closing delimiter".to_owned());
        };
        self.close(trims);
        Ok(())
    }

    /// Says whether an action ends here, and whether it takes the white space behind it along.
    fn right_delim(&self) -> Option<bool> {
        let rest = self.rest();
        if rest.starts_with(is_space) && rest[1..].starts_with("-}}") {
            Some(true)
        } else {
            rest.starts_with("}}").then_some(false)
        }
    }

    fn close(&mut self, trims: bool) {
        self.pos += if trims { 4 } else { 2 };
        if trims {
            self.take_while(is_space);
        }
        self.start = self.pos;
    }

    /// Reads what stands between the delimiters.
    fn action(&mut self) -> Step {
        loop {
            if let Some(trims) = self.right_delim() {
                if self.parens > 0 {
                    return Err("unclosed left paren".to_owned());
                }
                if trims {
                    self.pos += 2;
                    self.start = self.pos;
                }
                self.pos += 2;
                self.emit(Kind::RightDelim);
                if trims {
                    self.take_while(is_space);
                    self.start = self.pos;
                }
                return Ok(());
            }
            let Some(c) = self.bump() else { return Err("unclosed action".to_owned()) };
            self.inside(c)?;
        }
    }

    fn inside(&mut self, c: char) -> Step {
        match c {
            c if is_space(c) => {
                while self.peek().is_some_and(is_space) && self.right_delim().is_none() {
                    self.bump();
                }
                self.emit(Kind::Space);
            }
            '=' => self.emit(Kind::Assign),
            ':' => {
                if self.bump() != Some('=') {
                    return Err("expected :=".to_owned());
                }
                self.emit(Kind::Declare);
            }
            '|' => self.emit(Kind::Pipe),
            '"' => self.quoted('"', "unterminated quoted string", Kind::Str)?,
            '\'' => self.quoted('\'', "unterminated character constant", Kind::CharConstant)?,
            '`' => {
                let Some(end) = self.rest().find('`') else {
                    return Err("unterminated raw quoted string".to_owned());
                };
                self.pos += end + 1;
                self.emit(Kind::RawStr);
            }
            '$' => self.name(Kind::Variable)?,
            '.' if !self.peek().is_some_and(|c| c.is_ascii_digit()) => {
                if self.is_at_terminator() {
                    self.emit(Kind::Dot);
                } else {
                    self.name(Kind::Field)?;
                }
            }
            '+' | '-' | '.' | '0'..='9' => self.number()?,
            c if is_word(c) => {
                self.take_while(is_word);
                self.check_terminator()?;
                let kind = match &self.text[self.start..self.pos] {
                    "true" | "false" => Kind::Bool,
                    "nil" => Kind::Nil,
                    "block" => Kind::Block,
                    "break" => Kind::Break,
                    "continue" => Kind::Continue,
                    "define" => Kind::Define,
                    "else" => Kind::Else,
                    "end" => Kind::End,
                    "if" => Kind::If,
                    "range" => Kind::Range,
                    "template" => Kind::Template,
                    "with" => Kind::With,
                    _ => Kind::Identifier,
                };
                self.emit(kind);
            }
            '(' => {
                self.parens += 1;
                self.emit(Kind::LeftParen);
            }
            ')' => {
                if self.parens == 0 {
                    return Err("unexpected right paren".to_owned());
                }
                self.parens -= 1;
                self.emit(Kind::RightParen);
            }
            '!'..='~' => self.emit(Kind::Char),
            c => return Err(format!("unrecognized character in action: {}", unicode(c))),
        }
        Ok(())
    }

    fn quoted(&mut self, quote: char, fault: &str, kind: Kind) -> Step {
        loop {
            match self.bump() {
                Some('\\') if self.peek().is_some_and(|c| c != '\n') => _ = self.bump(),
                None | Some('\n' | '\\') => return Err(fault.to_owned()),
                Some(c) if c == quote => break,
                Some(_) => {}
            }
        }
        self.emit(kind);
        Ok(())
    }

    /// Reads the rest of a field or variable.
    fn name(&mut self, kind: Kind) -> Step {
        self.take_while(is_word);
        self.check_terminator()?;
        self.emit(kind);
        Ok(())
    }

    fn is_at_terminator(&self) -> bool {
        let ends = |c| is_space(c) || matches!(c, '.' | ',' | '|' | ':' | ')' | '(');
        self.peek().is_none_or(ends) || self.rest().starts_with("}}")
    }

    fn check_terminator(&self) -> Step {
        match self.peek() {
            Some(c) if !self.is_at_terminator() => Err(format!("bad character {}", unicode(c))),
            _ => Ok(()),
        }
    }

    fn number(&mut self) -> Step {
        self.pos = self.start;
        if matches!(self.peek(), Some('+' | '-')) {
            self.bump();
        }
        let rest = self.rest().as_bytes();
        let radix = match rest {
            [b'0', b'x' | b'X', ..] => 16,
            [b'0', b'o' | b'O', ..] => 8,
            [b'0', b'b' | b'B', ..] => 2,
            _ => 10,
        };
        if radix != 10 {
            self.pos += 2;
        }
        let digit = move |c: char| c == '_' || c.is_digit(radix);
        self.take_while(digit);
        if self.peek() == Some('.') {
            self.bump();
            self.take_while(digit);
        }
        let has_exponent = match self.peek() {
            Some('e' | 'E') => radix == 10,
            Some('p' | 'P') => radix == 16,
            _ => false,
        };
        if has_exponent {
            self.bump();
            if matches!(self.peek(), Some('+' | '-')) {
                self.bump();
            }
            self.take_while(|c| c == '_' || c.is_ascii_digit());
        }
        if self.peek().is_some_and(is_word) {
            self.bump();
            let text = model::number::Quoted(&self.text[self.start..self.pos]);
            return Err(format!("bad number syntax: {text}"));
        }
        self.emit(Kind::Number);
        Ok(())
    }
}

/// A character as Go's `%#U` prints it.
fn unicode(c: char) -> String {
    format!("U+{:04X} '{c}'", u32::from(c))
}
