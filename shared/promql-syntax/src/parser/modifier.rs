//! What follows an operand or an operator: ranges, `offset`, `@`, `anchored`, `smoothed`; `bool`, `on`, `fill`.

use model::Timestamp;

use super::{Node, Parse, Parser};
use crate::ast::{
    AtModifier, BinaryOp, Cardinality, Edges, Expr, FillValues, MatrixSelector, Span, Subquery,
    VectorMatching,
};
use crate::duration::TimeDelta;
use crate::token::{Keyword, Preprocessor, Token, TokenKind};

/// What a duration may be, in the words of error messages.
pub(super) const DURATION: &str = "number, duration, step(), or range()";

impl Parser<'_> {
    /// Parses everything that binds tighter than any operator to the operand before it.
    pub(super) fn postfix(&mut self, mut node: Node) -> Parse<Node> {
        loop {
            node = match self.peek()?.kind {
                TokenKind::LeftBracket => self.brackets(node)?,
                TokenKind::Keyword(Keyword::Offset) => {
                    self.offset(&mut node.expr)?;
                    node
                }
                TokenKind::At => {
                    self.at(&mut node.expr)?;
                    node
                }
                TokenKind::Keyword(Keyword::Anchored) => {
                    self.advance()?;
                    self.set_edges(&mut node.expr, Edges::Anchored);
                    node
                }
                TokenKind::Keyword(Keyword::Smoothed) => {
                    self.advance()?;
                    self.set_edges(&mut node.expr, Edges::Smoothed);
                    node
                }
                _ => return Ok(node),
            };
        }
    }

    fn brackets(&mut self, node: Node) -> Parse<Node> {
        let open = self.advance()?;
        let range = self.positive_duration("subquery or range selector", DURATION)?;
        match self.peek()?.kind {
            TokenKind::RightBracket => {
                let close = self.advance()?;
                Ok(self.matrix_selector(node, range, open.span.to(close.span)))
            }
            TokenKind::Colon => {
                self.advance()?;
                self.subquery(node, range)
            }
            _ => Err(self.unexpected_in("subquery or range", "\":\" or \"]\"")),
        }
    }

    fn subquery(&mut self, node: Node, range: TimeDelta) -> Parse<Node> {
        let step = if self.peek()?.kind == TokenKind::RightBracket {
            None
        } else {
            let expected = format!("{}, or \"]\"", DURATION.replace(", or", ","));
            Some(self.positive_duration("subquery selector", &expected)?)
        };
        if self.peek()?.kind != TokenKind::RightBracket {
            return Err(self.unexpected_in("subquery selector", "\"]\""));
        }
        let close = self.advance()?;
        let span = node.expr.span().to(close.span);
        let expr = node.expr;
        let subquery = Subquery { expr, range, step, offset: TimeDelta::ZERO, at: None, span };
        self.branch(Expr::Subquery(subquery), node.height)
    }

    fn matrix_selector(&mut self, node: Node, range: TimeDelta, brackets: Span) -> Node {
        let span = node.expr.span().to(brackets);
        let Expr::VectorSelector(selector) = *node.expr else {
            self.note(brackets, "ranges only allowed for vector selectors");
            return Node::placeholder(span);
        };
        if selector.offset.is_set() {
            self.note(brackets, "no offset modifiers allowed before range");
        } else if selector.at.is_some() {
            self.note(brackets, "no @ modifiers allowed before range");
        }
        Node::leaf(Expr::MatrixSelector(MatrixSelector { selector, range, span }))
    }

    fn offset(&mut self, expr: &mut Expr) -> Parse<()> {
        self.advance()?;
        let (offset, end) = self.offset_duration()?;
        let place = expr.span();
        let (field, span) = match expr {
            Expr::VectorSelector(e) => (&mut e.offset, &mut e.span),
            Expr::MatrixSelector(e) => (&mut e.selector.offset, &mut e.span),
            Expr::Subquery(e) => (&mut e.offset, &mut e.span),
            _ => {
                let message = "offset modifier must be preceded by an instant vector selector or range vector \
                               selector or a subquery";
                self.note(place, message);
                return Ok(());
            }
        };
        span.end = end;
        if field.is_set() {
            self.note(place, "offset may not be set multiple times");
        } else {
            *field = offset;
        }
        Ok(())
    }

    fn at(&mut self, expr: &mut Expr) -> Parse<()> {
        self.advance()?;
        let place = expr.span();
        let (at, end) = self.at_time(place)?;
        let (field, span) = match expr {
            Expr::VectorSelector(e) => (&mut e.at, &mut e.span),
            Expr::MatrixSelector(e) => (&mut e.selector.at, &mut e.span),
            Expr::Subquery(e) => (&mut e.at, &mut e.span),
            _ => {
                let message = "@ modifier must be preceded by an instant vector selector or range vector selector \
                               or a subquery";
                self.note(place, message);
                return Ok(());
            }
        };
        if field.is_some() {
            self.note(place, "@ <timestamp> may not be set multiple times");
            return Ok(());
        }
        *field = Some(at);
        span.end = end;
        Ok(())
    }

    /// Parses the time behind `@`; returns it and where it ends.
    fn at_time(&mut self, place: Span) -> Parse<(AtModifier, usize)> {
        let token = self.peek()?;
        if let TokenKind::Preprocessor(word @ (Preprocessor::Start | Preprocessor::End)) = token.kind {
            self.advance()?;
            let close = self.empty_parens("@", "timestamp")?;
            let at = if word == Preprocessor::Start { AtModifier::Start } else { AtModifier::End };
            return Ok((at, close.span.end));
        }
        let sign = self.sign()?;
        let token = self.peek()?;
        if !matches!(token.kind, TokenKind::Number | TokenKind::Duration) {
            return Err(self.unexpected_in("@", "timestamp"));
        }
        self.advance()?;
        let seconds = sign * self.number(token).0;
        let ms = (seconds * 1000.0).round();
        #[expect(clippy::cast_precision_loss, reason = "the bounds are powers of two")]
        let is_in_bounds = seconds > i64::MIN as f64 && seconds < i64::MAX as f64;
        if !is_in_bounds {
            let shown = match seconds {
                x if x.is_nan() => "NaN".to_owned(),
                x if x.is_infinite() => if x > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
                x => format!("{x:.6}"),
            };
            self.note(place, format!("timestamp out of bounds for @ modifier: {shown}"));
        }
        #[expect(clippy::cast_possible_truncation, reason = "saturates")]
        Ok((AtModifier::Timestamp(Timestamp(ms as i64)), token.span.end))
    }

    /// Takes a sign if there is one.
    pub(super) fn sign(&mut self) -> Parse<f64> {
        let sign = match self.peek()?.kind {
            TokenKind::Binary(BinaryOp::Add) => 1.0,
            TokenKind::Binary(BinaryOp::Sub) => -1.0,
            _ => return Ok(1.0),
        };
        self.advance()?;
        Ok(sign)
    }

    /// Takes `()` and returns the closing one.
    pub(super) fn empty_parens(&mut self, context: &str, expected: &str) -> Parse<Token> {
        for kind in [TokenKind::LeftParen, TokenKind::RightParen] {
            if self.peek()?.kind != kind {
                return Err(self.unexpected_in(context, expected));
            }
            let token = self.advance()?;
            if kind == TokenKind::RightParen {
                return Ok(token);
            }
        }
        Err(self.unexpected_in(context, expected))
    }

    fn set_edges(&mut self, expr: &mut Expr, edges: Edges) {
        let span = expr.span();
        let word = if edges == Edges::Anchored { "anchored" } else { "smoothed" };
        if !self.options.extended_range_selectors {
            self.note(span, format!("{word} modifier is experimental and not enabled"));
            return;
        }
        let field = match expr {
            Expr::VectorSelector(e) => &mut e.edges,
            Expr::MatrixSelector(e) => &mut e.selector.edges,
            Expr::Subquery(_) => {
                self.note(span, format!("{word} modifier is not supported for subqueries"));
                return;
            }
            _ => {
                self.note(span, format!("{word} modifier not implemented"));
                return;
            }
        };
        if *field != Edges::Plain && *field != edges {
            self.note(span, "anchored and smoothed modifiers cannot be used together");
        }
        *field = edges;
    }

    /// Parses what stands between an operator and its right operand.
    pub(super) fn binary_modifiers(&mut self) -> Parse<(bool, VectorMatching)> {
        let mut matching = VectorMatching::default();
        let return_bool = self.accept_keyword(Keyword::Bool)?;
        matching.on = self.accept_keyword(Keyword::On)?;
        if matching.on || self.accept_keyword(Keyword::Ignoring)? {
            matching.labels = self.grouping_labels()?.0;
            if self.accept_keyword(Keyword::GroupLeft)? {
                matching.card = Cardinality::ManyToOne;
            } else if self.accept_keyword(Keyword::GroupRight)? {
                matching.card = Cardinality::OneToMany;
            }
            if matching.card != Cardinality::OneToOne && self.peek()?.kind == TokenKind::LeftParen {
                matching.include = self.grouping_labels()?.0;
            }
        }
        matching.fill = self.fill_modifiers()?;
        Ok((return_bool, matching))
    }

    fn fill_modifiers(&mut self) -> Parse<FillValues> {
        let mut fill = FillValues::default();
        if self.accept_keyword(Keyword::Fill)? {
            let value = Some(self.fill_value()?);
            return Ok(FillValues { lhs: value, rhs: value });
        }
        if self.accept_keyword(Keyword::FillLeft)? {
            fill.lhs = Some(self.fill_value()?);
            if self.accept_keyword(Keyword::FillRight)? {
                fill.rhs = Some(self.fill_value()?);
            }
        } else if self.accept_keyword(Keyword::FillRight)? {
            fill.rhs = Some(self.fill_value()?);
            if self.accept_keyword(Keyword::FillLeft)? {
                fill.lhs = Some(self.fill_value()?);
            }
        }
        Ok(fill)
    }

    fn fill_value(&mut self) -> Parse<f64> {
        self.expect(TokenKind::LeftParen)?;
        let sign = self.sign()?;
        let token = self.peek()?;
        if !matches!(token.kind, TokenKind::Number | TokenKind::Duration) {
            return Err(self.unexpected());
        }
        self.advance()?;
        let value = sign * self.number(token).0;
        self.expect(TokenKind::RightParen)?;
        Ok(value)
    }

    fn accept_keyword(&mut self, word: Keyword) -> Parse<bool> {
        let found = self.peek()?.kind == TokenKind::Keyword(word);
        if found {
            self.advance()?;
        }
        Ok(found)
    }
}
