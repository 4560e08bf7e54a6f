//! PromQL as text and as tree: lexer, parser, type check and printer, with the texts and positions of
//! Prometheus's errors.
//!
//! Deliberately absent: evaluation (`promql-engine`), histogram arithmetic, and the reading of whole test scripts.
#![warn(missing_docs)]

pub mod ast;
mod check;
pub mod duration;
mod error;
pub mod functions;
mod lexer;
mod literal;
mod operator;
mod parser;
mod pretty;
mod printer;
mod series;
mod token;

pub use ast::{
    Aggregate, AggregateOp, AtModifier, Binary, BinaryOp, Call, Cardinality, Edges, Expr, FillValues,
    MatrixSelector, NumberLiteral, Paren, Span, StringLiteral, Subquery, Unary, UnaryOp, ValueType,
    VectorMatching, VectorSelector,
};
pub use duration::{DurationError, DurationExpr, TimeDelta};
pub use error::{ERRORS_MAX, ParseError, ParseErrors, Result};
pub use functions::{FUNCTIONS, Function, Variadic};
pub use parser::{
    DURATION_NODES_MAX, GROUPING_LABELS_MAX, NESTING_MAX, NODES_MAX, Options, PATTERNS_MAX, TEXT_BYTES_MAX,
    TREE_HEIGHT_MAX, parse_expr, parse_selector,
};
pub use series::{
    HistogramLiteral, SEQUENCE_VALUES_MAX, SequenceValue, parse_series_description, parse_start_timestamps,
};
