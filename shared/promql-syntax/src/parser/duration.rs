//! Duration expressions: in square brackets, and in a narrower form behind `offset`.

use super::modifier::DURATION;
use super::{POW_STRENGTH, right_strength, strength};
use super::{Parse, Parser};
use crate::ast::{BinaryOp, Span};
use crate::duration::{DurationExpr, TimeDelta, is_out_of_range};
use crate::token::{Preprocessor, Token, TokenKind};

/// How many operands and operators one duration may have.
pub const DURATION_NODES_MAX: usize = 200;

/// The context of errors and what they say was expected.
#[derive(Clone, Copy)]
struct Place<'a> {
    context: &'a str,
    expected: &'a str,
}

/// The place behind `offset`.
const OFFSET: Place<'static> = Place { context: "offset", expected: DURATION };

impl Parser<'_> {
    /// Parses a duration in brackets; a plain literal must be positive.
    pub(super) fn positive_duration(&mut self, context: &str, expected: &str) -> Parse<TimeDelta> {
        self.duration_nodes = 0;
        let expr = self.duration_expression(Place { context, expected }, 0)?;
        let span = expr.span();
        let duration = TimeDelta::from_expr(expr);
        if duration.expr().is_none() && duration.known_ms().is_some_and(|ms| ms <= 0) {
            self.note(span, "duration must be greater than 0");
        }
        Ok(duration)
    }

    /// Parses a duration behind `offset`; returns it and where it ends. An operator behind it belongs to the
    /// expression around (`x offset 1m + 2` adds 2 to the value), except directly behind parentheses without a
    /// sign, where the reference's grammar takes it for the duration.
    pub(super) fn offset_duration(&mut self) -> Parse<(TimeDelta, usize)> {
        self.duration_nodes = 0;
        let first = self.peek()?;
        let sign = self.sign()?;
        let is_signed = is_sign(first);
        let operand = self.peek()?;
        let mut expr = self.duration_operand(OFFSET)?;
        if is_signed {
            expr = Self::with_sign(first, sign, expr);
        } else if operand.kind == TokenKind::LeftParen {
            expr = self.duration_operators(OFFSET, expr, 0)?;
        }
        let end = expr.span().end.max(self.duration_end);
        Ok((TimeDelta::from_expr(expr), end))
    }

    fn duration_expression(&mut self, place: Place<'_>, strength_min: u8) -> Parse<DurationExpr> {
        let first = self.peek()?;
        let expr = if is_sign(first) {
            self.count_duration_node(first)?;
            let sign = self.sign()?;
            let expr = self.duration_expression(place, POW_STRENGTH)?;
            Self::with_sign(first, sign, expr)
        } else {
            self.duration_operand(place)?
        };
        self.duration_operators(place, expr, strength_min)
    }

    fn duration_operators(
        &mut self,
        place: Place<'_>,
        mut lhs: DurationExpr,
        strength_min: u8,
    ) -> Parse<DurationExpr> {
        while let TokenKind::Binary(
            op @ (BinaryOp::Add
            | BinaryOp::Sub
            | BinaryOp::Mul
            | BinaryOp::Div
            | BinaryOp::Mod
            | BinaryOp::Pow),
        ) = self.peek()?.kind
        {
            if strength(op) < strength_min {
                break;
            }
            let token = self.advance()?;
            self.count_duration_node(token)?;
            let rhs = self.duration_expression(place, right_strength(op))?;
            self.require_duration_expressions(lhs.span());
            let is_zero = matches!(rhs, DurationExpr::Literal { seconds: 0.0, .. });
            match op {
                BinaryOp::Div if is_zero => self.note(token.span, "division by zero"),
                BinaryOp::Mod if is_zero => self.note(token.span, "modulo by zero"),
                _ => {}
            }
            let span = lhs.span().to(rhs.span());
            lhs = DurationExpr::Binary { op, lhs: Box::new(lhs), rhs: Box::new(rhs), span };
        }
        Ok(lhs)
    }

    fn duration_operand(&mut self, place: Place<'_>) -> Parse<DurationExpr> {
        let token = self.peek()?;
        self.count_duration_node(token)?;
        match token.kind {
            TokenKind::Number | TokenKind::Duration => {
                self.advance()?;
                self.duration_end = token.span.end;
                let (seconds, is_duration) = self.number(token);
                if is_out_of_range(seconds) {
                    self.note(token.span, "duration out of range");
                }
                Ok(DurationExpr::Literal { seconds, is_duration, span: token.span })
            }
            TokenKind::Preprocessor(word @ (Preprocessor::Step | Preprocessor::Range)) => {
                self.advance()?;
                let close = self.empty_parens(place.context, place.expected)?;
                let span = token.span.to(close.span);
                self.duration_end = span.end;
                self.require_duration_expressions(span);
                let is_step = word == Preprocessor::Step;
                Ok(if is_step { DurationExpr::Step { span } } else { DurationExpr::Range { span } })
            }
            TokenKind::Preprocessor(word @ (Preprocessor::MinOf | Preprocessor::MaxOf)) => {
                self.duration_pair(place, token, word)
            }
            TokenKind::LeftParen => {
                self.advance()?;
                let expr = self.duration_expression(place, 0)?;
                let close = self.duration_token(place, TokenKind::RightParen)?;
                self.require_duration_expressions(expr.span());
                Ok(wrap(expr, token.span.to(close.span)))
            }
            _ => Err(self.unexpected_in(place.context, place.expected)),
        }
    }

    /// Parses `min_of(a, b)` and `max_of(a, b)`.
    fn duration_pair(&mut self, place: Place<'_>, name: Token, word: Preprocessor) -> Parse<DurationExpr> {
        self.advance()?;
        self.duration_token(place, TokenKind::LeftParen)?;
        let lhs = Box::new(self.duration_expression(place, 0)?);
        self.duration_token(place, TokenKind::Comma)?;
        let rhs = Box::new(self.duration_expression(place, 0)?);
        let close = self.duration_token(place, TokenKind::RightParen)?;
        let span = name.span.to(close.span);
        self.require_duration_expressions(span);
        let is_min = word == Preprocessor::MinOf;
        Ok(if is_min {
            DurationExpr::MinOf { lhs, rhs, span }
        } else {
            DurationExpr::MaxOf { lhs, rhs, span }
        })
    }

    fn duration_token(&mut self, place: Place<'_>, kind: TokenKind) -> Parse<Token> {
        if self.peek()?.kind != kind {
            return Err(self.unexpected_in(place.context, place.expected));
        }
        let token = self.advance()?;
        self.duration_end = token.span.end;
        Ok(token)
    }

    fn with_sign(token: Token, sign: f64, expr: DurationExpr) -> DurationExpr {
        let span = token.span.to(expr.span());
        match expr {
            DurationExpr::Literal { seconds, is_duration, .. } => {
                DurationExpr::Literal { seconds: sign * seconds, is_duration, span }
            }
            expr if sign < 0.0 => DurationExpr::Negate { expr: Box::new(expr), span },
            expr => expr,
        }
    }

    fn require_duration_expressions(&mut self, span: Span) {
        if !self.options.duration_expressions {
            self.note(span, "experimental duration expression is not enabled");
        }
    }

    fn count_duration_node(&mut self, token: Token) -> Parse<()> {
        self.duration_nodes += 1;
        if self.duration_nodes > DURATION_NODES_MAX {
            let message = format!("duration expression has more than {DURATION_NODES_MAX} parts");
            return Err(self.fail(token.span, message));
        }
        Ok(())
    }
}

const fn is_sign(token: Token) -> bool {
    matches!(token.kind, TokenKind::Binary(BinaryOp::Add | BinaryOp::Sub))
}

/// Keeps parentheses where they mean something: around a literal only a sign inside needs them.
fn wrap(expr: DurationExpr, span: Span) -> DurationExpr {
    match expr {
        DurationExpr::Literal { seconds, .. } if seconds >= 0.0 => expr,
        DurationExpr::Paren { expr, .. } => DurationExpr::Paren { expr, span },
        expr => DurationExpr::Paren { expr: Box::new(expr), span },
    }
}
