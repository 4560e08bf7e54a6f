//! Aggregations, and the lists of labels they share with binary operators.

use model::number::Quoted;

use super::{Arguments, Node, Parse, Parser};
use crate::ast::{Aggregate, AggregateOp, Expr, Span};
use crate::literal::unquote;
use crate::token::{Keyword, Token, TokenKind};

/// How many labels one list may name: lists are compared with each other and with label sets.
pub const GROUPING_LABELS_MAX: usize = 1_000;
/// The context of errors in lists of labels.
const GROUPING: &str = "grouping opts";

/// The labels of `by` or `without`, whether it is `without`, and the place.
type Modifier = (Vec<String>, bool, Span);

impl Parser<'_> {
    /// Parses an aggregation whose operator was taken.
    pub(super) fn aggregation(&mut self, name: Token, op: AggregateOp) -> Parse<Node> {
        self.aggregations += 1;
        let before = self.aggregate_modifier()?;
        let arguments = self.arguments()?;
        self.aggregations -= 1;
        self.aggregation_of(name, op, before, arguments)
    }

    /// Parses what may follow an aggregation's arguments.
    fn aggregation_of(
        &mut self,
        name: Token,
        op: AggregateOp,
        before: Option<Modifier>,
        (args, height, close): Arguments,
    ) -> Parse<Node> {
        let mut end = close.span;
        let (grouping, without) = match before {
            Some((grouping, without, _)) => (grouping, without),
            None => match self.aggregate_modifier()? {
                Some((grouping, without, span)) => {
                    end = span;
                    (grouping, without)
                }
                None => (Vec::new(), false),
            },
        };
        let span = name.span.to(end);
        let Some((expr, param)) = self.aggregate_arguments(op, args, span) else {
            return Ok(Node::placeholder(span));
        };
        let (expr, param) = (Box::new(expr), param.map(Box::new));
        self.branch(Expr::Aggregate(Aggregate { op, expr, param, grouping, without, span }), height)
    }

    /// Sorts the arguments into expression and parameter; notes a wrong number of them.
    fn aggregate_arguments(
        &mut self,
        op: AggregateOp,
        mut args: Vec<Expr>,
        span: Span,
    ) -> Option<(Expr, Option<Expr>)> {
        if args.is_empty() {
            self.note(span, "no arguments for aggregate expression provided");
            return None;
        }
        if op.is_experimental() && !self.options.experimental_functions {
            let message = format!(
                "{}() is experimental and must be enabled with --enable-feature=promql-experimental-functions",
                op.as_str()
            );
            self.note(span, message);
            return None;
        }
        let wanted = if op.has_param() { 2 } else { 1 };
        if args.len() != wanted {
            let message = format!(
                "wrong number of arguments for aggregate expression provided, expected {wanted}, got {}",
                args.len()
            );
            self.note(span, message);
            return None;
        }
        let expr = args.pop()?;
        Some((expr, args.pop()))
    }

    /// Parses `by (...)` or `without (...)` if it is there.
    fn aggregate_modifier(&mut self) -> Parse<Option<Modifier>> {
        let token = self.peek()?;
        let without = match token.kind {
            TokenKind::Keyword(Keyword::By) => false,
            TokenKind::Keyword(Keyword::Without) => true,
            _ => return Ok(None),
        };
        self.advance()?;
        let (labels, close) = self.grouping_labels()?;
        Ok(Some((labels, without, token.span.to(close.span))))
    }

    /// Parses a list of labels in parentheses; returns it and the closing parenthesis.
    pub(super) fn grouping_labels(&mut self) -> Parse<(Vec<String>, Token)> {
        if self.peek()?.kind != TokenKind::LeftParen {
            return Err(self.unexpected_in(GROUPING, "\"(\""));
        }
        self.advance()?;
        let mut labels = Vec::new();
        loop {
            let token = self.peek()?;
            if labels.len() > GROUPING_LABELS_MAX {
                return Err(self.fail(token.span, format!("more than {GROUPING_LABELS_MAX} grouping labels")));
            }
            match token.kind {
                TokenKind::RightParen => return Ok((labels, self.advance()?)),
                TokenKind::String => {
                    self.advance()?;
                    let label = self.quoted_label(token);
                    labels.push(label);
                }
                kind if kind.is_label_name() => {
                    self.advance()?;
                    labels.push(token.text(self.text).to_owned());
                }
                _ => return Err(self.unexpected_in(GROUPING, "label")),
            }
            match self.peek()?.kind {
                TokenKind::Comma => {
                    self.advance()?;
                }
                TokenKind::RightParen => {}
                _ => return Err(self.unexpected_in(GROUPING, "\",\" or \")\"")),
            }
        }
    }

    fn quoted_label(&mut self, token: Token) -> String {
        let bytes = unquote(token.text(self.text));
        match String::from_utf8(bytes) {
            Ok(label) if !label.is_empty() => label,
            Ok(label) => {
                self.note(token.span, format!("invalid label name for grouping: {}", Quoted(&label)));
                label
            }
            Err(error) => {
                let quoted = crate::literal::quote_bytes(error.as_bytes());
                self.note(token.span, format!("invalid label name for grouping: {quoted}"));
                String::new()
            }
        }
    }
}
