//! The tree of a PromQL expression.
//!
//! Every node carries the bytes of the text it came from. Invariants of a tree that [`crate::parse_expr`] returned:
//! - it is type checked: arguments, operands and aggregation parameters have the types their places ask for;
//! - a selector's matchers are complete: the metric name written before the braces is among them, as the last;
//! - `offset` and `@` written behind a range stand on the selector inside of [`MatrixSelector`];
//! - its height is at most [`crate::TREE_HEIGHT_MAX`], so recursion over it, dropping included, is safe;
//! - a [`TimeDelta`] written as plain number or duration has its value; one written as an expression gets it from
//!   [`Expr::resolve_durations`].

use model::{Matcher, Timestamp};

use crate::duration::TimeDelta;
use crate::functions::Function;
pub use crate::operator::{AggregateOp, BinaryOp, UnaryOp};

/// A stretch of the query's text, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// Makes a span from its two ends.
    #[must_use]
    pub const fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// Returns the span from this one's start to the other's end.
    #[must_use]
    pub const fn to(self, last: Self) -> Self {
        Self { start: self.start, end: last.end }
    }

    /// Returns line and column of the start in the text, both counted from one, columns in bytes.
    #[must_use]
    pub fn line_column(self, text: &str) -> (usize, usize) {
        let before = &text.as_bytes()[..self.start.min(text.len())];
        let line = 1 + before.iter().filter(|b| **b == b'\n').count();
        let column = 1 + before.iter().rev().take_while(|b| **b != b'\n').count();
        (line, column)
    }
}

/// What an expression evaluates to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// Nothing.
    None,
    /// One number.
    Scalar,
    /// One string.
    String,
    /// One sample for each of a set of series.
    Vector,
    /// A range of samples for each of a set of series.
    Matrix,
}

impl ValueType {
    /// Returns the word the HTTP API uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Scalar => "scalar",
            Self::String => "string",
            Self::Vector => "vector",
            Self::Matrix => "matrix",
        }
    }

    /// Returns the words error messages use, as in `instant vector`.
    #[must_use]
    pub const fn documented(self) -> &'static str {
        match self {
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
            other => other.as_str(),
        }
    }
}

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// `1.5`, `5m`
    NumberLiteral(NumberLiteral),
    /// `"text"`
    StringLiteral(StringLiteral),
    /// `up{job="a"} offset 5m`
    VectorSelector(VectorSelector),
    /// `up{job="a"}[5m]`
    MatrixSelector(MatrixSelector),
    /// `rate(up[5m])[1h:1m]`
    Subquery(Subquery),
    /// `rate(up[5m])`
    Call(Call),
    /// `sum by (job) (up)`
    Aggregate(Aggregate),
    /// `a + b`
    Binary(Binary),
    /// `-a`
    Unary(Unary),
    /// `(a)`
    Paren(Paren),
}

/// A number.
#[derive(Debug, Clone)]
pub struct NumberLiteral {
    /// Its value; seconds where it was written as a duration.
    pub value: f64,
    /// Whether it was written as a duration (`5m`), and is printed as one.
    pub is_duration: bool,
    /// Where it stands.
    pub span: Span,
}

impl PartialEq for NumberLiteral {
    /// Compares the value bit for bit, so that `NaN` equals itself.
    fn eq(&self, other: &Self) -> bool {
        self.value.to_bits() == other.value.to_bits()
            && self.is_duration == other.is_duration
            && self.span == other.span
    }
}

/// A string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StringLiteral {
    /// Its text, escapes undone; bytes that are not UTF-8 show as replacement characters.
    pub value: String,
    /// The exact bytes where they are not UTF-8, as in `"\xff"`.
    pub not_utf8: Option<Vec<u8>>,
    /// Where it stands.
    pub span: Span,
}

/// The time an `@` modifier fixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AtModifier {
    /// `@ 1609746000.5`
    Timestamp(Timestamp),
    /// `@ start()`
    Start,
    /// `@ end()`
    End,
}

impl AtModifier {
    /// Returns the time meant in a query over `start` to `end`.
    #[must_use]
    pub const fn resolve(self, start: Timestamp, end: Timestamp) -> Timestamp {
        match self {
            Self::Timestamp(t) => t,
            Self::Start => start,
            Self::End => end,
        }
    }
}

/// How the samples at a range's edges are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Edges {
    /// The samples inside of the window only.
    #[default]
    Plain,
    /// `anchored`: the last sample before each edge stands for the edge.
    Anchored,
    /// `smoothed`: the values at the edges are interpolated.
    Smoothed,
}

/// Selects one sample for each matching series.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorSelector {
    /// The metric name written before the braces; empty where there is none.
    pub name: String,
    /// All matchers, with the one for `name` as the last.
    pub matchers: Vec<Matcher>,
    /// How far back to look, from `offset`; negative looks ahead, zero where none is written.
    pub offset: TimeDelta,
    /// The time fixed by `@`.
    pub at: Option<AtModifier>,
    /// `anchored` or `smoothed`.
    pub edges: Edges,
    /// Where it stands.
    pub span: Span,
}

/// Selects the samples of a range for each matching series.
#[derive(Debug, Clone, PartialEq)]
pub struct MatrixSelector {
    /// The series, with the `offset`, `@`, `anchored` and `smoothed` that are written behind the range.
    pub selector: VectorSelector,
    /// The range's length; positive.
    pub range: TimeDelta,
    /// Where it stands, modifiers included.
    pub span: Span,
}

/// Evaluates an instant vector expression at many times.
#[derive(Debug, Clone, PartialEq)]
pub struct Subquery {
    /// What is evaluated.
    pub expr: Box<Expr>,
    /// The range's length; positive.
    pub range: TimeDelta,
    /// The distance between evaluations; the server's default where none is written.
    pub step: Option<TimeDelta>,
    /// How far back to look; zero where none is written.
    pub offset: TimeDelta,
    /// The time fixed by `@`.
    pub at: Option<AtModifier>,
    /// Where it stands, modifiers included.
    pub span: Span,
}

/// Calls a function.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The function's row in the table of functions.
    pub func: &'static Function,
    /// Its arguments, as many as were written.
    pub args: Vec<Expr>,
    /// Where it stands.
    pub span: Span,
}

/// Aggregates over series.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    /// What is computed.
    pub op: AggregateOp,
    /// Over what.
    pub expr: Box<Expr>,
    /// The parameter of the operators that take one.
    pub param: Option<Box<Expr>>,
    /// The labels named in `by` or `without`.
    pub grouping: Vec<String>,
    /// Whether the labels are dropped (`without`) or kept (`by`, or nothing written).
    pub without: bool,
    /// Where it stands.
    pub span: Span,
}

/// Joins two expressions by an operator.
#[derive(Debug, Clone, PartialEq)]
pub struct Binary {
    /// The operator.
    pub op: BinaryOp,
    /// The left operand.
    pub lhs: Box<Expr>,
    /// The right operand.
    pub rhs: Box<Expr>,
    /// How series find each other; present exactly where both operands are instant vectors.
    pub matching: Option<VectorMatching>,
    /// Whether a comparison gives 0 or 1 instead of filtering.
    pub return_bool: bool,
    /// Where it stands, from the left operand's start to the right one's end.
    pub span: Span,
}

/// Puts a sign before an expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Unary {
    /// The sign.
    pub op: UnaryOp,
    /// The operand.
    pub expr: Box<Expr>,
    /// Where it stands.
    pub span: Span,
}

/// An expression in parentheses.
#[derive(Debug, Clone, PartialEq)]
pub struct Paren {
    /// What is inside.
    pub expr: Box<Expr>,
    /// Where it stands.
    pub span: Span,
}

/// How many series of one side may match one of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Cardinality {
    /// One and one.
    #[default]
    OneToOne,
    /// `group_left`
    ManyToOne,
    /// `group_right`
    OneToMany,
    /// Set operators.
    ManyToMany,
}

impl Cardinality {
    /// Returns the words of error messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OneToOne => "one-to-one",
            Self::ManyToOne => "many-to-one",
            Self::OneToMany => "one-to-many",
            Self::ManyToMany => "many-to-many",
        }
    }
}

/// How the series of two instant vectors find each other.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct VectorMatching {
    /// How many match how many.
    pub card: Cardinality,
    /// Whether `labels` are the ones compared (`on`) or the ones left out (`ignoring`, or nothing written).
    pub on: bool,
    /// The labels named in `on` or `ignoring`.
    pub labels: Vec<String>,
    /// The labels taken over from the "one" side, named in `group_left` or `group_right`.
    pub include: Vec<String>,
    /// What stands in for missing series.
    pub fill: FillValues,
}

/// What stands in for series that find no partner.
#[derive(Debug, Clone, Copy, Default)]
pub struct FillValues {
    /// Stands in for a missing series on the left.
    pub lhs: Option<f64>,
    /// Stands in for a missing series on the right.
    pub rhs: Option<f64>,
}

impl PartialEq for FillValues {
    /// Compares bit for bit, so that `NaN` equals itself.
    fn eq(&self, other: &Self) -> bool {
        let bits = |x: Option<f64>| x.map(f64::to_bits);
        bits(self.lhs) == bits(other.lhs) && bits(self.rhs) == bits(other.rhs)
    }
}

impl Expr {
    /// Returns where the expression stands in the text.
    #[must_use]
    pub fn span(&self) -> Span {
        match self {
            Self::NumberLiteral(e) => e.span,
            Self::StringLiteral(e) => e.span,
            Self::VectorSelector(e) => e.span,
            Self::MatrixSelector(e) => e.span,
            Self::Subquery(e) => e.span,
            Self::Call(e) => e.span,
            Self::Aggregate(e) => e.span,
            Self::Binary(e) => e.span,
            Self::Unary(e) => e.span,
            Self::Paren(e) => e.span,
        }
    }

    /// Returns the type of the value.
    #[must_use]
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::NumberLiteral(_) => ValueType::Scalar,
            Self::StringLiteral(_) => ValueType::String,
            Self::VectorSelector(_) | Self::Aggregate(_) => ValueType::Vector,
            Self::MatrixSelector(_) | Self::Subquery(_) => ValueType::Matrix,
            Self::Call(e) => e.func.return_type,
            Self::Binary(e) => e.value_type(),
            Self::Unary(e) => e.expr.value_type(),
            Self::Paren(e) => e.expr.value_type(),
        }
    }

    /// Returns the expressions directly below, in the order of evaluation; a matrix selector has none.
    #[must_use]
    pub fn children(&self) -> Vec<&Self> {
        match self {
            Self::NumberLiteral(_)
            | Self::StringLiteral(_)
            | Self::VectorSelector(_)
            | Self::MatrixSelector(_) => Vec::new(),
            Self::Subquery(e) => vec![&e.expr],
            Self::Call(e) => e.args.iter().collect(),
            Self::Aggregate(e) => std::iter::once(&*e.expr).chain(e.param.as_deref()).collect(),
            Self::Binary(e) => vec![&e.lhs, &e.rhs],
            Self::Unary(e) => vec![&e.expr],
            Self::Paren(e) => vec![&e.expr],
        }
    }

    /// Returns the expressions directly below, to be changed.
    pub fn children_mut(&mut self) -> Vec<&mut Self> {
        match self {
            Self::NumberLiteral(_)
            | Self::StringLiteral(_)
            | Self::VectorSelector(_)
            | Self::MatrixSelector(_) => Vec::new(),
            Self::Subquery(e) => vec![&mut e.expr],
            Self::Call(e) => e.args.iter_mut().collect(),
            Self::Aggregate(e) => std::iter::once(&mut *e.expr).chain(e.param.as_deref_mut()).collect(),
            Self::Binary(e) => vec![&mut e.lhs, &mut e.rhs],
            Self::Unary(e) => vec![&mut e.expr],
            Self::Paren(e) => vec![&mut e.expr],
        }
    }

    /// Calls the visitor for this expression and all below, parents first.
    pub fn walk<'a>(&'a self, visit: &mut dyn FnMut(&'a Self)) {
        visit(self);
        for child in self.children() {
            child.walk(visit);
        }
    }

    /// Calls the visitor for this expression and all below, parents first; it may change them.
    pub fn walk_mut(&mut self, visit: &mut dyn FnMut(&mut Self)) {
        visit(self);
        for child in self.children_mut() {
            child.walk_mut(visit);
        }
    }

    /// Calls the visitor for every series selector, those of ranges included, in the order of the text.
    pub fn walk_selectors<'a>(&'a self, visit: &mut dyn FnMut(&'a VectorSelector)) {
        self.walk(&mut |e| match e {
            Self::VectorSelector(selector) => visit(selector),
            Self::MatrixSelector(matrix) => visit(&matrix.selector),
            _ => {}
        });
    }

    /// Returns the expression inside of any parentheses around it.
    #[must_use]
    pub fn unwrap_parens(&self) -> &Self {
        let mut inner = self;
        while let Self::Paren(paren) = inner {
            inner = &paren.expr;
        }
        inner
    }
}

impl Binary {
    /// Returns the type of the value: a scalar only when both operands are scalars.
    #[must_use]
    pub fn value_type(&self) -> ValueType {
        // The right operand first: in a long chain it is the short one.
        let is_scalar = |e: &Expr| e.value_type() == ValueType::Scalar;
        if is_scalar(&self.rhs) && is_scalar(&self.lhs) { ValueType::Scalar } else { ValueType::Vector }
    }
}
