//! Series selectors and the label sets of series descriptions.

use model::labels::METRIC_NAME;
use model::{Labels, LabelsBuilder, MatchOp, Matcher};

use super::{Parse, Parser};
use crate::ast::{BinaryOp, Edges, Span, VectorSelector};
use crate::duration::TimeDelta;
use crate::literal::unquote;
use crate::token::{Token, TokenKind};

/// How many regular expressions a query may have: compiling the worst ones takes milliseconds each.
pub const PATTERNS_MAX: usize = 500;
/// The context of errors in matchers.
const MATCHING: &str = "label matching";
/// The context of errors in label sets.
const LABEL_SET: &str = "label set";

impl Parser<'_> {
    /// Parses a selector from its first token on.
    pub(super) fn vector_selector(&mut self) -> Parse<VectorSelector> {
        if self.peek()?.kind == TokenKind::LeftBrace {
            let (matchers, span) = self.matchers()?;
            return Ok(selector(String::new(), matchers, span));
        }
        let name = self.advance()?;
        self.selector_after_name(name)
    }

    /// Parses the rest of a selector whose metric name was taken.
    pub(super) fn selector_after_name(&mut self, name: Token) -> Parse<VectorSelector> {
        let text = name.text(self.text);
        let (mut matchers, mut span) = (Vec::new(), name.span);
        if self.peek()?.kind == TokenKind::LeftBrace {
            let braces;
            (matchers, braces) = self.matchers()?;
            span = span.to(braces);
        }
        matchers.push(Matcher::equal(METRIC_NAME, text));
        Ok(selector(text.to_owned(), matchers, span))
    }

    fn matchers(&mut self) -> Parse<(Vec<Matcher>, Span)> {
        let open = self.expect(TokenKind::LeftBrace)?;
        let mut matchers = Vec::new();
        while self.peek()?.kind != TokenKind::RightBrace {
            let matcher = self.matcher()?;
            matchers.push(matcher);
            self.nodes += 1;
            match self.peek()?.kind {
                TokenKind::Comma => {
                    self.advance()?;
                }
                TokenKind::RightBrace => {}
                _ => return Err(self.unexpected_in(MATCHING, "\",\" or \"}\"")),
            }
        }
        let close = self.expect(TokenKind::RightBrace)?;
        Ok((matchers, open.span.to(close.span)))
    }

    fn matcher(&mut self) -> Parse<Matcher> {
        let label = self.peek()?;
        let name = match label.kind {
            TokenKind::Identifier => label.text(self.text).to_owned(),
            TokenKind::String => self.utf8_string(label),
            _ => return Err(self.unexpected_in(MATCHING, "identifier or \"}\"")),
        };
        self.advance()?;
        let op = match self.peek()?.kind {
            TokenKind::Assign => MatchOp::Equal,
            TokenKind::Binary(BinaryOp::NotEqual) => MatchOp::NotEqual,
            TokenKind::RegexMatch => MatchOp::Regex,
            TokenKind::RegexNoMatch => MatchOp::NotRegex,
            _ if label.kind == TokenKind::String => return Ok(Matcher::equal(METRIC_NAME, &name)),
            _ => return Err(self.unexpected_in(MATCHING, "label matching operator")),
        };
        self.advance()?;
        if self.peek()?.kind != TokenKind::String {
            return Err(self.unexpected_in(MATCHING, "string"));
        }
        let token = self.advance()?;
        let value = self.utf8_string(token);
        if matches!(op, MatchOp::Regex | MatchOp::NotRegex) {
            self.patterns += 1;
            if self.patterns > PATTERNS_MAX {
                let message = format!("query has more than {PATTERNS_MAX} regular expressions");
                return Err(self.fail(token.span, message));
            }
        }
        Ok(Matcher::new(op, &name, &value).unwrap_or_else(|error| {
            self.note(label.span.to(token.span), error.to_string());
            Matcher::equal(&name, &value)
        }))
    }

    /// Parses the labels of a series: `name{a="b"}`, `{"name", "a"="b"}`, or nothing at all.
    pub(crate) fn labels(&mut self) -> Parse<Labels> {
        let mut builder = LabelsBuilder::default();
        // Values of a series may start with a brace as well, but not right behind the name.
        if !self.text.trim_start().starts_with(['{', '"', '\'', '`']) {
            let name = self.peek()?;
            if !name.kind.is_metric_name() {
                return Err(self.unexpected());
            }
            self.advance()?;
            builder.set(METRIC_NAME, name.text(self.text));
            if !self.text[name.span.end..].starts_with('{') {
                return Ok(builder.build());
            }
        }
        self.expect(TokenKind::LeftBrace)?;
        while self.peek()?.kind != TokenKind::RightBrace {
            let (name, value) = self.label()?;
            builder.set(name, value);
            match self.peek()?.kind {
                TokenKind::Comma => {
                    self.advance()?;
                }
                TokenKind::RightBrace => {}
                _ => return Err(self.unexpected_in(LABEL_SET, "\",\" or \"}\"")),
            }
        }
        self.advance()?;
        Ok(builder.build())
    }

    fn label(&mut self) -> Parse<(String, String)> {
        let label = self.peek()?;
        let name = match label.kind {
            TokenKind::Identifier => label.text(self.text).to_owned(),
            TokenKind::String => self.utf8_string(label),
            _ => return Err(self.unexpected_in(LABEL_SET, "identifier or \"}\"")),
        };
        self.advance()?;
        match self.peek()?.kind {
            TokenKind::Assign => {}
            _ if label.kind == TokenKind::String => return Ok((METRIC_NAME.to_owned(), name)),
            _ => return Err(self.unexpected_in(LABEL_SET, "\"=\"")),
        }
        self.advance()?;
        if self.peek()?.kind != TokenKind::String {
            return Err(self.unexpected_in(LABEL_SET, "string"));
        }
        let token = self.advance()?;
        Ok((name, self.utf8_string(token)))
    }

    /// Where the last token taken ended, when none was peeked at since.
    pub(crate) const fn position(&self) -> usize {
        self.lexer.position()
    }

    /// Undoes the quotes of a name or label value. Unlike the reference this refuses bytes that are not UTF-8: no
    /// stored label has them.
    fn utf8_string(&mut self, token: Token) -> String {
        String::from_utf8(unquote(token.text(self.text))).unwrap_or_else(|error| {
            let quoted = crate::literal::quote_bytes(error.as_bytes());
            self.note(token.span, format!("invalid UTF-8 in string {quoted}"));
            String::new()
        })
    }
}

fn selector(name: String, matchers: Vec<Matcher>, span: Span) -> VectorSelector {
    VectorSelector { name, matchers, offset: TimeDelta::ZERO, at: None, edges: Edges::Plain, span }
}
