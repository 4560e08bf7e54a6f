//! Prints a tree as text, in the form Prometheus's `String()` methods give (`promql/parser/printer.go`).
//!
//! Invariant: parsing what was printed gives the same tree, places aside. In two corners that takes a departure from
//! the reference, whose text would not parse back: empty braces in `info(x, {})`, and `Inf ^ 2` without a sign.

use std::fmt::{self, Display, Formatter, Write as _};
use std::time::Duration;

use model::labels::{METRIC_NAME, is_legacy_label_name};
use model::number::{Quoted, format_fixed, format_general};
use model::time::PrometheusDuration;
use model::{MatchOp, Matcher};

use crate::ast::{
    Aggregate, AtModifier, Binary, BinaryOp, Call, Cardinality, Edges, Expr, MatrixSelector, NumberLiteral,
    StringLiteral, Subquery, VectorMatching, VectorSelector,
};
use crate::duration::{DurationExpr, TimeDelta, literal_ms};
use crate::literal::quote_bytes;

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::NumberLiteral(e) => e.fmt(f),
            Self::StringLiteral(e) => e.fmt(f),
            Self::VectorSelector(e) => e.fmt(f),
            Self::MatrixSelector(e) => e.fmt(f),
            Self::Subquery(e) => {
                e.expr.fmt(f)?;
                write_subquery_suffix(e, f)
            }
            Self::Call(e) => write_call(e, f),
            Self::Aggregate(e) => write_aggregate(e, f),
            Self::Binary(e) => write_binary(e, f),
            Self::Unary(e) => {
                f.write_str(e.op.as_str())?;
                e.expr.fmt(f)
            }
            Self::Paren(e) => {
                f.write_char('(')?;
                e.expr.fmt(f)?;
                f.write_char(')')
            }
        }
    }
}

fn write_call(e: &Call, f: &mut Formatter<'_>) -> fmt::Result {
    f.write_str(e.func.name)?;
    f.write_char('(')?;
    for (i, arg) in e.args.iter().enumerate() {
        f.write_str(if i > 0 { ", " } else { "" })?;
        arg.fmt(f)?;
    }
    f.write_char(')')
}

fn write_aggregate(e: &Aggregate, f: &mut Formatter<'_>) -> fmt::Result {
    write_aggregate_head(e, f)?;
    f.write_char('(')?;
    if let Some(param) = &e.param {
        param.fmt(f)?;
        f.write_str(", ")?;
    }
    e.expr.fmt(f)?;
    f.write_char(')')
}

fn write_binary(e: &Binary, f: &mut Formatter<'_>) -> fmt::Result {
    match &*e.lhs {
        // With its usual sign it would parse back as the sign of the power.
        Expr::NumberLiteral(n) if e.op == BinaryOp::Pow && n.value == f64::INFINITY => f.write_str("Inf")?,
        lhs => lhs.fmt(f)?,
    }
    f.write_char(' ')?;
    write_operator(e, f)?;
    f.write_char(' ')?;
    e.rhs.fmt(f)
}

impl Display for NumberLiteral {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.is_duration {
            write_ms(literal_ms(self.value), f)
        } else {
            f.write_str(&format_fixed(self.value))
        }
    }
}

impl Display for StringLiteral {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.not_utf8 {
            Some(bytes) => f.write_str(&quote_bytes(bytes)),
            None => Quoted(&self.value).fmt(f),
        }
    }
}

impl Display for VectorSelector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_series(self, f)?;
        write_at(self.at, f)?;
        write_edges(self.edges, f)?;
        write_offset(&self.offset, f)
    }
}

impl Display for MatrixSelector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_series(&self.selector, f)?;
        write!(f, "[{}]", self.range)?;
        write_edges(self.selector.edges, f)?;
        write_at(self.selector.at, f)?;
        write_offset(&self.selector.offset, f)
    }
}

impl Display for TimeDelta {
    /// Prints the length as it was written: the expression, or the value as a duration.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.expr() {
            Some(expr) => expr.fmt(f),
            None => write_ms(self.known_ms().unwrap_or_default(), f),
        }
    }
}

impl Display for DurationExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal { seconds, is_duration: true, .. } => write_ms(literal_ms(*seconds), f),
            Self::Literal { seconds, .. } => f.write_str(&format_fixed(*seconds)),
            Self::Step { .. } => f.write_str("step()"),
            Self::Range { .. } => f.write_str("range()"),
            Self::Negate { expr, .. } => {
                f.write_char('-')?;
                expr.fmt(f)
            }
            Self::Binary { op, lhs, rhs, .. } => {
                lhs.fmt(f)?;
                write!(f, " {} ", op.as_str())?;
                rhs.fmt(f)
            }
            Self::MinOf { lhs, rhs, .. } => write!(f, "min_of({lhs}, {rhs})"),
            Self::MaxOf { lhs, rhs, .. } => write!(f, "max_of({lhs}, {rhs})"),
            Self::Paren { expr, .. } => {
                f.write_char('(')?;
                expr.fmt(f)?;
                f.write_char(')')
            }
        }
    }
}

fn write_series(e: &VectorSelector, f: &mut Formatter<'_>) -> fmt::Result {
    let is_shown_as_name = |m: &Matcher| {
        !e.name.is_empty() && m.name() == METRIC_NAME && m.op() == MatchOp::Equal && m.value() == e.name
    };
    let mut matchers: Vec<String> =
        e.matchers.iter().filter(|m| !is_shown_as_name(m)).map(ToString::to_string).collect();
    matchers.sort();
    f.write_str(&e.name)?;
    if e.name.is_empty() || !matchers.is_empty() {
        write!(f, "{{{}}}", matchers.join(","))?;
    }
    Ok(())
}

fn write_at(at: Option<AtModifier>, f: &mut Formatter<'_>) -> fmt::Result {
    match at {
        Some(AtModifier::Timestamp(t)) => write!(f, " @ {:.3}", t.seconds()),
        Some(AtModifier::Start) => f.write_str(" @ start()"),
        Some(AtModifier::End) => f.write_str(" @ end()"),
        None => Ok(()),
    }
}

fn write_edges(edges: Edges, f: &mut Formatter<'_>) -> fmt::Result {
    f.write_str(match edges {
        Edges::Plain => "",
        Edges::Anchored => " anchored",
        Edges::Smoothed => " smoothed",
    })
}

fn write_offset(offset: &TimeDelta, f: &mut Formatter<'_>) -> fmt::Result {
    if offset.is_set() { write!(f, " offset {offset}") } else { Ok(()) }
}

fn write_ms(ms: i64, f: &mut Formatter<'_>) -> fmt::Result {
    f.write_str(if ms < 0 { "-" } else { "" })?;
    PrometheusDuration(Duration::from_millis(ms.unsigned_abs())).fmt(f)
}

/// Writes `[1h:5m] @ 10.000 offset 1m`.
pub(crate) fn write_subquery_suffix(e: &Subquery, f: &mut Formatter<'_>) -> fmt::Result {
    write!(f, "[{}:", e.range)?;
    if let Some(step) = &e.step {
        step.fmt(f)?;
    }
    f.write_char(']')?;
    write_at(e.at, f)?;
    write_offset(&e.offset, f)
}

/// Writes `sum by (job) ` up to the parenthesis.
pub(crate) fn write_aggregate_head(e: &Aggregate, f: &mut Formatter<'_>) -> fmt::Result {
    f.write_str(e.op.as_str())?;
    if e.without || !e.grouping.is_empty() {
        f.write_str(if e.without { " without (" } else { " by (" })?;
        write_labels(&e.grouping, f)?;
        f.write_str(") ")?;
    }
    Ok(())
}

/// Writes the operator and its modifiers.
pub(crate) fn write_operator(e: &Binary, f: &mut Formatter<'_>) -> fmt::Result {
    f.write_str(e.op.as_str())?;
    f.write_str(if e.return_bool { " bool" } else { "" })?;
    match &e.matching {
        Some(matching) => write_matching(matching, f),
        None => Ok(()),
    }
}

fn write_matching(matching: &VectorMatching, f: &mut Formatter<'_>) -> fmt::Result {
    let group = match matching.card {
        Cardinality::ManyToOne => Some("group_left"),
        Cardinality::OneToMany => Some("group_right"),
        Cardinality::OneToOne | Cardinality::ManyToMany => None,
    };
    if !matching.labels.is_empty() || matching.on || group.is_some() {
        f.write_str(if matching.on { " on (" } else { " ignoring (" })?;
        write_labels(&matching.labels, f)?;
        f.write_char(')')?;
    }
    if let Some(group) = group {
        write!(f, " {group} (")?;
        write_labels(&matching.include, f)?;
        f.write_char(')')?;
    }
    let fill = matching.fill;
    match (fill.lhs, fill.rhs) {
        (Some(left), Some(right)) if left.to_bits() == right.to_bits() => {
            write!(f, " fill ({})", format_general(left))
        }
        (left, right) => {
            if let Some(x) = left {
                write!(f, " fill_left ({})", format_general(x))?;
            }
            if let Some(x) = right {
                write!(f, " fill_right ({})", format_general(x))?;
            }
            Ok(())
        }
    }
}

fn write_labels(labels: &[String], f: &mut Formatter<'_>) -> fmt::Result {
    for (i, label) in labels.iter().enumerate() {
        f.write_str(if i > 0 { ", " } else { "" })?;
        if is_legacy_label_name(label) { f.write_str(label)? } else { Quoted(label).fmt(f)? }
    }
    Ok(())
}
