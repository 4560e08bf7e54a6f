//! The type check, which runs over the whole tree once the syntax is right.
//!
//! It also settles what the syntax alone cannot tell: matching is kept only between two instant vectors, and set
//! operators match many to many. Errors come in the order of Prometheus's `checkAST`: children first, then the node.

use model::labels::METRIC_NAME;
use model::number::Quoted;

use crate::ast::{
    Aggregate, AggregateOp, Binary, Call, Cardinality, Expr, Span, Subquery, Unary, ValueType,
    VectorMatching, VectorSelector,
};
use crate::error::{ParseError, note};
use crate::functions::Variadic;
use crate::lexer::is_space;

/// Checks and settles a tree; returns what is wrong with it.
pub(crate) fn check(expr: &mut Expr, text: &str) -> Vec<ParseError> {
    let mut checker = Checker { text, errors: Vec::new() };
    checker.expr(expr);
    checker.errors
}

struct Checker<'a> {
    text: &'a str,
    errors: Vec<ParseError>,
}

impl Checker<'_> {
    fn note(&mut self, span: Span, message: impl Into<String>) {
        note(&mut self.errors, self.text, span, message);
    }

    fn expr(&mut self, expr: &mut Expr) -> ValueType {
        match expr {
            Expr::NumberLiteral(_) => ValueType::Scalar,
            Expr::StringLiteral(_) => ValueType::String,
            Expr::VectorSelector(e) => {
                self.selector(e);
                ValueType::Vector
            }
            Expr::MatrixSelector(e) => {
                self.selector(&e.selector);
                ValueType::Matrix
            }
            Expr::Subquery(e) => self.subquery(e),
            Expr::Call(e) => self.call(e),
            Expr::Aggregate(e) => self.aggregate(e),
            Expr::Binary(e) => self.binary(e),
            Expr::Unary(e) => self.unary(e),
            Expr::Paren(e) => self.expr(&mut e.expr),
        }
    }

    fn expect(&mut self, expr: &mut Expr, wanted: ValueType, context: &str) {
        let found = self.expr(expr);
        if found != wanted {
            let (wanted, found) = (wanted.documented(), found.documented());
            self.note(expr.span(), format!("expected type {wanted} in {context}, got {found}"));
        }
    }

    fn selector(&mut self, e: &VectorSelector) {
        if e.name.is_empty() {
            if e.matchers.iter().all(model::Matcher::matches_empty) {
                self.note(e.span, "vector selector must contain at least one non-empty matcher");
            }
            return;
        }
        self.name_is_set_once(e);
    }

    fn name_is_set_once(&mut self, e: &VectorSelector) {
        let Some((_, others)) = e.matchers.split_last() else { return };
        if let Some(other) = others.iter().find(|m| m.name() == METRIC_NAME) {
            let (name, other) = (Quoted(&e.name), Quoted(other.value()));
            self.note(e.span, format!("metric name must not be set twice: {name} or {other}"));
        }
    }

    fn subquery(&mut self, e: &mut Subquery) -> ValueType {
        let found = self.expr(&mut e.expr);
        if found != ValueType::Vector {
            let message =
                format!("subquery is only allowed on instant vector, got {} instead", found.as_str());
            self.note(e.span, message);
        }
        ValueType::Matrix
    }

    fn unary(&mut self, e: &mut Unary) -> ValueType {
        let found = self.expr(&mut e.expr);
        if !matches!(found, ValueType::Scalar | ValueType::Vector) {
            let found = Quoted(found.documented());
            let message = format!(
                "unary expression only allowed on expressions of type scalar or instant vector, got {found}"
            );
            self.note(e.span, message);
        }
        found
    }

    fn aggregate(&mut self, e: &mut Aggregate) -> ValueType {
        self.expect(&mut e.expr, ValueType::Vector, "aggregation expression");
        if let Some(param) = &mut e.param {
            let wanted = if e.op == AggregateOp::CountValues { ValueType::String } else { ValueType::Scalar };
            self.expect(param, wanted, "aggregation parameter");
        }
        ValueType::Vector
    }

    fn call(&mut self, e: &mut Call) -> ValueType {
        self.argument_count(e);
        let is_info = e.func.name == "info";
        if is_info && let Some(selector) = e.args.get(1) {
            self.info_selector(selector, e.span);
        }
        for (i, arg) in e.args.iter_mut().enumerate() {
            // Too many arguments are an error already.
            let Some(wanted) = e.func.arg_type(i) else { break };
            // Data label matchers of info() may all match the empty string.
            let found = match &*arg {
                Expr::VectorSelector(selector) if is_info && i == 1 => {
                    if !selector.name.is_empty() {
                        self.name_is_set_once(selector);
                    }
                    ValueType::Vector
                }
                _ => self.expr(arg),
            };
            if found != wanted {
                self.wrong_argument(e.func.name, arg.span(), wanted, found);
            }
        }
        e.func.return_type
    }

    fn wrong_argument(&mut self, function: &str, span: Span, wanted: ValueType, found: ValueType) {
        let (wanted, found) = (wanted.documented(), found.documented());
        let message = format!("expected type {wanted} in call to function {}, got {found}", Quoted(function));
        self.note(span, message);
    }

    fn argument_count(&mut self, e: &Call) {
        let (min, max) = e.func.arity();
        let (name, got) = (Quoted(e.func.name), e.args.len());
        if e.func.variadic == Variadic::No {
            if got != min {
                self.note(e.span, format!("expected {min} argument(s) in call to {name}, got {got}"));
            }
        } else if got < min {
            self.note(e.span, format!("expected at least {min} argument(s) in call to {name}, got {got}"));
        } else if let Some(max) = max
            && got > max
        {
            self.note(e.span, format!("expected at most {max} argument(s) in call to {name}, got {got}"));
        }
    }

    fn info_selector(&mut self, selector: &Expr, call: Span) {
        let found = selector.value_type();
        if found != ValueType::Vector {
            let (wanted, found) = (ValueType::Vector.documented(), found.documented());
            self.note(call, format!("expected type {wanted} in call to function \"info\", got {found}"));
        }
        match selector {
            Expr::VectorSelector(e) if e.name.is_empty() => {}
            Expr::VectorSelector(e) => {
                self.note(e.span, "expected label selectors only, got vector selector instead");
            }
            other => self.note(other.span(), "expected label selectors only"),
        }
    }

    fn binary(&mut self, e: &mut Binary) -> ValueType {
        let left = self.expr(&mut e.lhs);
        let right = self.expr(&mut e.rhs);
        self.operation(e, left, right)
    }

    /// Checks an operation whose operands were checked; apart from them, so that recursion takes little stack.
    fn operation(&mut self, e: &mut Binary, left: ValueType, right: ValueType) -> ValueType {
        let both_scalar = left == ValueType::Scalar && right == ValueType::Scalar;
        if e.return_bool && !e.op.is_comparison() {
            self.note(self.operator_span(e), "bool modifier can only be used on comparison operators");
        }
        if e.op.is_comparison() && !e.return_bool && both_scalar {
            self.note(self.operator_span(e), "comparisons between scalars must use BOOL modifier");
        }
        let mut matching = e.matching.take().unwrap_or_default();
        if e.op.is_set() && matching.card == Cardinality::OneToOne {
            matching.card = Cardinality::ManyToMany;
        }
        for label in matching.labels.iter().filter(|l| matching.on && matching.include.contains(l)) {
            let message = format!("label {} must not occur in ON and GROUP clause at once", Quoted(label));
            self.note(self.operator_span(e), message);
        }
        for (found, operand) in [(left, &e.lhs), (right, &e.rhs)] {
            if !matches!(found, ValueType::Scalar | ValueType::Vector) {
                let message = "binary expression must contain only scalar and instant vector types";
                self.note(operand.span(), message);
            }
        }
        e.matching = self.matching(e, matching, left == ValueType::Vector && right == ValueType::Vector);
        if e.op.is_set() && (left == ValueType::Scalar || right == ValueType::Scalar) {
            let op = Quoted(e.op.as_str());
            self.note(e.span, format!("set operator {op} not allowed in binary scalar expression"));
        }
        if both_scalar { ValueType::Scalar } else { ValueType::Vector }
    }

    /// Settles how series are matched, if they are.
    fn matching(&mut self, e: &Binary, matching: VectorMatching, vectors: bool) -> Option<VectorMatching> {
        let has_fill = matching.fill.lhs.is_some() || matching.fill.rhs.is_some();
        if !vectors {
            if !matching.labels.is_empty() {
                self.note(e.span, "vector matching only allowed between instant vectors");
            }
            if has_fill {
                self.note(e.span, "filling in missing series only allowed between instant vectors");
            }
            return None;
        }
        if e.op.is_set() {
            if matching.card != Cardinality::ManyToMany {
                let op = Quoted(e.op.as_str());
                self.note(e.span, format!("no grouping allowed for {op} operation"));
                self.note(e.span, "set operations must always be many-to-many");
            }
            if has_fill {
                self.note(e.span, "filling in missing series not allowed for set operators");
            }
        }
        Some(matching)
    }

    /// The place between the operands, without the space around.
    fn operator_span(&self, e: &Binary) -> Span {
        let (left, right) = (e.lhs.span().end, e.rhs.span().start);
        let between = &self.text[left..right.max(left)];
        let start = left + between.len() - between.trim_start_matches(is_space).len();
        Span::new(start, left + between.trim_end_matches(is_space).len())
    }
}
