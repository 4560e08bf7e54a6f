//! PromQL as text and as tree: lexer, parser, type check and printer, with the texts and positions of
//! Prometheus's errors.
//!
//! Deliberately absent: evaluation (`promql-engine`), and the reading of whole test scripts.
#![warn(missing_docs)]

pub mod ast;
pub mod duration;
pub mod functions;

pub use ast::{
    Aggregate, AggregateOp, AtModifier, Binary, BinaryOp, Call, Cardinality, Edges, Expr, FillValues,
    MatrixSelector, NumberLiteral, Paren, Span, StringLiteral, Subquery, Unary, UnaryOp, ValueType,
    VectorMatching, VectorSelector,
};
pub use duration::{DurationError, DurationExpr, TimeDelta};
pub use functions::{FUNCTIONS, Function, Variadic};
