//! The parser: operator precedence over a token at a time.
//!
//! Errors have the texts and places of Prometheus's yacc grammar (`promql/parser/generated_parser.y`). A fault of
//! syntax ends the parse; a fault of meaning found on the way (an unknown function) is noted and parsing goes on, so
//! that the first error in the list is the one Prometheus shows. Where the grammar has an error production, the
//! message names its context; the innermost one around wins.
//!
//! Invariants:
//! - recursion is counted before it happens and ends at [`NESTING_MAX`];
//! - the height of the tree is counted where it grows without recursion, in chains, and ends at [`TREE_HEIGHT_MAX`];
//! - tokens are read only when needed, so that a fault of meaning is noted before a fault behind it.

mod aggregate;
mod duration;
mod modifier;
mod selector;

pub use aggregate::GROUPING_LABELS_MAX;
pub use duration::DURATION_NODES_MAX;
use model::Matcher;
pub use selector::PATTERNS_MAX;

use crate::ast::{
    Binary, BinaryOp, Call, Expr, NumberLiteral, Paren, Span, StringLiteral, Unary, UnaryOp, VectorMatching,
    VectorSelector,
};
use crate::check;
use crate::error::{ParseError, ParseErrors, Result, note};
use crate::functions::Function;
use crate::lexer::Lexer;
use crate::literal::{parse_number, unquote};
use crate::token::{Keyword, Token, TokenKind};

/// The longest text that is read, in bytes.
pub const TEXT_BYTES_MAX: usize = 256 << 10;
/// How deep parentheses, calls and signs may be nested.
pub const NESTING_MAX: usize = 250;
/// How high the tree may grow: a chain of operators counts as well.
pub const TREE_HEIGHT_MAX: usize = 1_100;
/// How many nodes the tree may have.
pub const NODES_MAX: usize = 50_000;

/// Which parts of the language are on. The default is that of a Prometheus server without feature flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Experimental functions and aggregations (`promql-experimental-functions`).
    pub experimental_functions: bool,
    /// Arithmetic in durations; on by default since Prometheus 3.14.
    pub duration_expressions: bool,
    /// `anchored` and `smoothed` (`promql-extended-range-selectors`).
    pub extended_range_selectors: bool,
    /// `fill`, `fill_left` and `fill_right` (`promql-binop-fill-modifiers`).
    pub fill_modifiers: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            experimental_functions: false,
            duration_expressions: true,
            extended_range_selectors: false,
            fill_modifiers: false,
        }
    }
}

impl Options {
    /// Switches on what the feature flags name; names of other things are passed over.
    #[must_use]
    pub fn from_features(features: &[String]) -> Self {
        let has = |feature: &str| features.iter().any(|f| f == feature);
        Self {
            experimental_functions: has("promql-experimental-functions"),
            extended_range_selectors: has("promql-extended-range-selectors"),
            fill_modifiers: has("promql-binop-fill-modifiers"),
            ..Self::default()
        }
    }

    /// Everything on.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            experimental_functions: true,
            duration_expressions: true,
            extended_range_selectors: true,
            fill_modifiers: true,
        }
    }
}

/// Parses and type checks an expression.
///
/// ```
/// use promql_syntax::{Options, parse_expr};
///
/// let expr = parse_expr("sum(rate(requests_total[5m])) by (job)", &Options::default())?;
/// assert_eq!(expr.to_string(), "sum by (job) (rate(requests_total[5m]))");
///
/// let error = parse_expr("sum(up", &Options::default()).unwrap_err();
/// assert_eq!(error.to_string(), "1:7: parse error: unclosed left parenthesis");
/// # Ok::<(), promql_syntax::ParseErrors>(())
/// ```
///
/// # Errors
/// Everything found wrong with the text, and texts beyond the limits of this module.
pub fn parse_expr(text: &str, options: &Options) -> Result<Expr> {
    let mut parser = Parser::new(text, *options)?;
    let parsed = parser.whole_expression();
    let mut expr = parser.finish(parsed)?;
    let errors = check::check(&mut expr, text);
    if errors.is_empty() { Ok(expr) } else { Err(ParseErrors(errors)) }
}

/// Parses a bare series selector, as `match[]` has it: no range, no `offset`, no `@`. Selectors that match
/// everything are accepted; whoever minds has to check.
///
/// # Errors
/// Everything found wrong with the text.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>> {
    let mut parser = Parser::new(text, Options::default())?;
    let parsed = parser.whole_selector();
    Ok(parser.finish(parsed)?.matchers)
}

/// Says that an error was noted that ends the parse.
#[derive(Debug)]
pub(crate) struct Stop;

type Parse<T> = std::result::Result<T, Stop>;

/// Arguments, the height of the highest of them, and the closing parenthesis.
type Arguments = (Vec<Expr>, usize, Token);

/// An expression and the height of its tree. Boxed, since values by the dozen lie on the stack at each level.
pub(crate) struct Node {
    expr: Box<Expr>,
    height: usize,
}

impl Node {
    fn leaf(expr: Expr) -> Self {
        Self { expr: Box::new(expr), height: 1 }
    }

    /// Stands for what could not be made after an error was noted.
    fn placeholder(span: Span) -> Self {
        Self::leaf(Expr::NumberLiteral(NumberLiteral { value: 0.0, is_duration: false, span }))
    }
}

pub(crate) struct Parser<'a> {
    text: &'a str,
    options: Options,
    lexer: Lexer<'a>,
    lookahead: Option<Token>,
    errors: Vec<ParseError>,
    depth: usize,
    nodes: usize,
    patterns: usize,
    /// How many aggregations are around; errors without a nearer context name them.
    aggregations: usize,
    duration_nodes: usize,
    /// Where the last token of the last duration ended; its expression may end before a parenthesis.
    duration_end: usize,
}

/// How strongly an operator binds. Strengths are even; its right side wants one more where it is left-associative.
const fn strength(op: BinaryOp) -> u8 {
    match op {
        BinaryOp::Or => 2,
        BinaryOp::And | BinaryOp::Unless => 4,
        BinaryOp::Equal
        | BinaryOp::NotEqual
        | BinaryOp::Less
        | BinaryOp::LessOrEqual
        | BinaryOp::Greater
        | BinaryOp::GreaterOrEqual
        | BinaryOp::TrimUpper
        | BinaryOp::TrimLower => 6,
        BinaryOp::Add | BinaryOp::Sub => 8,
        BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod | BinaryOp::Atan2 => 10,
        BinaryOp::Pow => POW_STRENGTH,
    }
}

/// A sign binds its operand like a factor, so only powers go before it.
const POW_STRENGTH: u8 = 12;

const fn right_strength(op: BinaryOp) -> u8 {
    if matches!(op, BinaryOp::Pow) { strength(op) } else { strength(op) + 1 }
}

impl<'a> Parser<'a> {
    pub(crate) fn new(text: &'a str, options: Options) -> Result<Self> {
        if text.len() > TEXT_BYTES_MAX {
            let message = format!("query is longer than {TEXT_BYTES_MAX} bytes");
            return Err(ParseErrors(vec![ParseError::new(text, Span::default(), message)]));
        }
        Ok(Self {
            text,
            options,
            lexer: Lexer::new(text),
            lookahead: None,
            errors: Vec::new(),
            depth: 0,
            nodes: 0,
            patterns: 0,
            aggregations: 0,
            duration_nodes: 0,
            duration_end: 0,
        })
    }

    /// Turns what a parse gave into a result: every noted error counts.
    pub(crate) fn finish<T>(self, parsed: Parse<T>) -> Result<T> {
        match parsed {
            Ok(value) if self.errors.is_empty() => Ok(value),
            _ => Err(ParseErrors(self.errors)),
        }
    }

    fn whole_expression(&mut self) -> Parse<Expr> {
        if self.peek()?.kind == TokenKind::Eof {
            return Err(self.fail(Span::default(), "no expression found in input"));
        }
        let node = self.expression(0)?;
        self.end_of_text()?;
        Ok(*node.expr)
    }

    fn whole_selector(&mut self) -> Parse<VectorSelector> {
        let token = self.peek()?;
        if !token.kind.is_metric_name() && token.kind != TokenKind::LeftBrace {
            return Err(self.unexpected());
        }
        let selector = self.vector_selector()?;
        self.end_of_text()?;
        Ok(selector)
    }

    fn end_of_text(&mut self) -> Parse<()> {
        if self.peek()?.kind == TokenKind::Eof { Ok(()) } else { Err(self.unexpected()) }
    }

    /// Parses operands joined by operators at least as strong as the given strength.
    fn expression(&mut self, strength_min: u8) -> Parse<Node> {
        self.depth += 1;
        if self.depth > NESTING_MAX {
            let span = self.peek()?.span;
            return Err(self.fail(span, format!("expression is nested more than {NESTING_MAX} levels deep")));
        }
        let mut lhs = self.operand()?;
        while let TokenKind::Binary(op) = self.peek()?.kind {
            if strength(op) < strength_min {
                break;
            }
            lhs = self.binary(lhs, op)?;
        }
        self.depth -= 1;
        Ok(lhs)
    }

    /// Parses what follows a left operand: operator, modifiers, right operand.
    fn binary(&mut self, lhs: Node, op: BinaryOp) -> Parse<Node> {
        self.advance()?;
        let (return_bool, matching) = self.binary_modifiers()?;
        let rhs = self.expression(right_strength(op))?;
        self.operation(op, lhs, rhs, return_bool, matching)
    }

    fn operation(
        &mut self,
        op: BinaryOp,
        lhs: Node,
        rhs: Node,
        return_bool: bool,
        matching: VectorMatching,
    ) -> Parse<Node> {
        let span = lhs.expr.span().to(rhs.expr.span());
        let has_fill = matching.fill.lhs.is_some() || matching.fill.rhs.is_some();
        if has_fill && !self.options.fill_modifiers {
            self.note(span, "binop fill modifiers are experimental and not enabled");
        }
        let height = lhs.height.max(rhs.height);
        let (lhs, rhs, matching) = (lhs.expr, rhs.expr, Some(matching));
        self.branch(Expr::Binary(Binary { op, lhs, rhs, matching, return_bool, span }), height)
    }

    fn operand(&mut self) -> Parse<Node> {
        let token = self.peek()?;
        let op = match token.kind {
            TokenKind::Binary(BinaryOp::Add) => UnaryOp::Plus,
            TokenKind::Binary(BinaryOp::Sub) => UnaryOp::Minus,
            _ => {
                let node = self.primary()?;
                return self.postfix(node);
            }
        };
        self.advance()?;
        let node = self.expression(POW_STRENGTH)?;
        self.signed(token, op, node)
    }

    fn signed(&mut self, token: Token, op: UnaryOp, mut node: Node) -> Parse<Node> {
        let span = token.span.to(node.expr.span());
        if let Expr::NumberLiteral(literal) = &mut *node.expr {
            if op == UnaryOp::Minus {
                // Not a negation: the reference multiplies, which keeps the sign of NaN.
                literal.value *= -1.0;
            }
            literal.span = span;
            return Ok(node);
        }
        self.branch(Expr::Unary(Unary { op, expr: node.expr, span }), node.height)
    }

    fn primary(&mut self) -> Parse<Node> {
        self.nodes += 1;
        let token = self.peek()?;
        match token.kind {
            TokenKind::Number | TokenKind::Duration => self.number_literal(),
            TokenKind::String => self.string_literal(),
            TokenKind::LeftParen => self.paren(token),
            TokenKind::LeftBrace => self.selector(),
            kind if kind.is_metric_name() => self.named(token),
            _ => Err(self.unexpected()),
        }
    }

    /// Parses what starts with a name: call, aggregation or selector.
    fn named(&mut self, name: Token) -> Parse<Node> {
        self.advance()?;
        let next = self.peek()?.kind;
        match (name.kind, next) {
            (
                TokenKind::Aggregate(op),
                TokenKind::LeftParen | TokenKind::Keyword(Keyword::By | Keyword::Without),
            ) => self.aggregation(name, op),
            (TokenKind::Identifier | TokenKind::Preprocessor(_), TokenKind::LeftParen) => self.call(name),
            _ => self.named_selector(name),
        }
    }

    fn selector(&mut self) -> Parse<Node> {
        Ok(Node::leaf(Expr::VectorSelector(self.vector_selector()?)))
    }

    fn named_selector(&mut self, name: Token) -> Parse<Node> {
        Ok(Node::leaf(Expr::VectorSelector(self.selector_after_name(name)?)))
    }

    fn paren(&mut self, open: Token) -> Parse<Node> {
        self.advance()?;
        let inner = self.expression(0)?;
        let close = self.expect(TokenKind::RightParen)?;
        self.in_parens(inner, open.span.to(close.span))
    }

    fn in_parens(&mut self, inner: Node, span: Span) -> Parse<Node> {
        self.branch(Expr::Paren(Paren { expr: inner.expr, span }), inner.height)
    }

    fn call(&mut self, name: Token) -> Parse<Node> {
        let arguments = self.arguments()?;
        self.call_of(name, arguments)
    }

    fn call_of(&mut self, name: Token, (args, height, close): Arguments) -> Parse<Node> {
        let text = name.text(self.text);
        let Some(func) = Function::find(text) else {
            let message = format!("unknown function with name {}", model::number::Quoted(text));
            self.note(name.span, message);
            return Ok(Node::placeholder(name.span.to(close.span)));
        };
        if func.is_experimental && !self.options.experimental_functions {
            self.note(name.span, format!("function {} is not enabled", model::number::Quoted(text)));
        }
        self.branch(Expr::Call(Call { func, args, span: name.span.to(close.span) }), height)
    }

    /// Parses arguments in parentheses.
    fn arguments(&mut self) -> Parse<Arguments> {
        self.expect(TokenKind::LeftParen)?;
        let mut args = Vec::new();
        let mut height = 0;
        if self.peek()?.kind == TokenKind::RightParen {
            return Ok((args, height, self.advance()?));
        }
        loop {
            let node = self.expression(0)?;
            height = height.max(node.height);
            args.push(*node.expr);
            if !self.comma_between_arguments()? {
                break;
            }
        }
        Ok((args, height, self.expect(TokenKind::RightParen)?))
    }

    /// Takes the comma behind an argument and says whether another argument follows. Commas that nothing follows
    /// are noted one by one, as the reference does.
    fn comma_between_arguments(&mut self) -> Parse<bool> {
        while self.peek()?.kind == TokenKind::Comma {
            let comma = self.advance()?;
            if self.peek()?.kind.starts_expression() {
                return Ok(true);
            }
            self.note(comma.span, "trailing commas not allowed in function call args");
        }
        Ok(false)
    }

    fn number_literal(&mut self) -> Parse<Node> {
        let token = self.advance()?;
        let (value, is_duration) = self.number(token);
        Ok(Node::leaf(Expr::NumberLiteral(NumberLiteral { value, is_duration, span: token.span })))
    }

    fn string_literal(&mut self) -> Parse<Node> {
        let token = self.advance()?;
        let bytes = unquote(token.text(self.text));
        let (value, not_utf8) = match String::from_utf8(bytes) {
            Ok(value) => (value, None),
            Err(error) => {
                let bytes = error.into_bytes();
                (String::from_utf8_lossy(&bytes).into_owned(), Some(bytes))
            }
        };
        Ok(Node::leaf(Expr::StringLiteral(StringLiteral { value, not_utf8, span: token.span })))
    }

    /// Converts a number or duration token; returns its value (seconds for a duration) and whether it is a duration.
    fn number(&mut self, token: Token) -> (f64, bool) {
        let text = token.text(self.text);
        if token.kind == TokenKind::Duration {
            let parsed = model::time::parse_duration(text);
            let seconds = parsed.map(|d| d.as_secs_f64()).map_err(|e| e.to_string());
            return (self.or_note(seconds, token.span), true);
        }
        let parsed = parse_number(text).map_err(|e| format!("error parsing number: {e}"));
        (self.or_note(parsed, token.span), false)
    }

    fn or_note(&mut self, value: std::result::Result<f64, String>, span: Span) -> f64 {
        value.unwrap_or_else(|message| {
            self.note(span, message);
            0.0
        })
    }

    /// Makes an inner node of the tree, one higher than its highest child.
    fn branch(&mut self, expr: Expr, children_height: usize) -> Parse<Node> {
        self.nodes += 1;
        let height = children_height + 1;
        if height > TREE_HEIGHT_MAX {
            let message =
                format!("expression has more than {TREE_HEIGHT_MAX} operations inside of each other");
            return Err(self.fail(expr.span(), message));
        }
        if self.nodes > NODES_MAX {
            let message = format!("expression has more than {NODES_MAX} parts");
            return Err(self.fail(expr.span(), message));
        }
        Ok(Node { expr: Box::new(expr), height })
    }

    /// Returns the next token without taking it.
    fn peek(&mut self) -> Parse<Token> {
        if let Some(token) = self.lookahead {
            return Ok(token);
        }
        match self.lexer.next_token() {
            Ok(token) => {
                self.lookahead = Some(token);
                Ok(token)
            }
            Err(error) => Err(self.fail(Span::new(error.start, self.text.len()), error.message)),
        }
    }

    /// Takes the next token.
    fn advance(&mut self) -> Parse<Token> {
        let token = self.peek()?;
        self.lookahead = None;
        Ok(token)
    }

    fn expect(&mut self, kind: TokenKind) -> Parse<Token> {
        if self.peek()?.kind == kind { self.advance() } else { Err(self.unexpected()) }
    }

    /// Notes an error of meaning; parsing goes on.
    fn note(&mut self, span: Span, message: impl Into<String>) {
        note(&mut self.errors, self.text, span, message);
    }

    /// Notes an error that ends the parse.
    fn fail(&mut self, span: Span, message: impl Into<String>) -> Stop {
        self.note(span, message);
        Stop
    }

    /// Reports the next token where no nearer context is known than an aggregation around.
    fn unexpected(&mut self) -> Stop {
        let context = if self.aggregations > 0 { "aggregation" } else { "" };
        self.unexpected_in(context, "")
    }

    /// Reports the next token in a context, with what was expected there.
    fn unexpected_in(&mut self, context: &str, expected: &str) -> Stop {
        let Ok(token) = self.peek() else { return Stop };
        let mut message = format!("unexpected {}", token.describe(self.text));
        if !context.is_empty() {
            message.push_str(" in ");
            message.push_str(context);
        }
        if !expected.is_empty() {
            message.push_str(", expected ");
            message.push_str(expected);
        }
        self.fail(token.span, message)
    }
}
