//! Prints a tree over several lines, as Prometheus's `/format_query` does (`promql/parser/prettier.go`).

use std::fmt::{self, Write};

use crate::ast::Expr;
use crate::printer::{write_aggregate_head, write_operator, write_subquery_suffix};

/// What is longer is split.
const LINE_CHARS_MAX: usize = 100;
const INDENT: &str = "  ";

impl Expr {
    /// Prints the expression with one operation a line where it does not fit on one.
    #[must_use]
    pub fn prettify(&self) -> String {
        let mut out = String::new();
        self.pretty(0, &mut out);
        out
    }

    fn pretty(&self, level: usize, out: &mut String) {
        if let Self::Unary(e) = self {
            indent(level, out);
            out.push_str(e.op.as_str());
            let mut operand = String::new();
            e.expr.pretty(level, &mut operand);
            out.push_str(operand.trim());
            return;
        }
        if !self.needs_split() {
            // The reference leaves the indentation of a short subquery out.
            if !matches!(self, Self::Subquery(_)) {
                indent(level, out);
            }
            push(out, self);
            return;
        }
        match self {
            Self::Aggregate(e) => {
                indent(level, out);
                push(out, fmt::from_fn(|f| write_aggregate_head(e, f)));
                out.push_str("(\n");
                if let Some(param) = &e.param {
                    param.pretty(level + 1, out);
                    out.push_str(",\n");
                }
                e.expr.pretty(level + 1, out);
                close(level, out);
            }
            Self::Binary(e) => {
                e.lhs.pretty(level + 1, out);
                out.push('\n');
                indent(level, out);
                push(out, fmt::from_fn(|f| write_operator(e, f)));
                out.push('\n');
                e.rhs.pretty(level + 1, out);
            }
            Self::Call(e) => {
                indent(level, out);
                out.push_str(e.func.name);
                out.push_str("(\n");
                for (i, arg) in e.args.iter().enumerate() {
                    out.push_str(if i > 0 { ",\n" } else { "" });
                    arg.pretty(level + 1, out);
                }
                close(level, out);
            }
            Self::Paren(e) => {
                indent(level, out);
                out.push_str("(\n");
                e.expr.pretty(level + 1, out);
                close(level, out);
            }
            Self::Subquery(e) => {
                e.expr.pretty(level, out);
                push(out, fmt::from_fn(|f| write_subquery_suffix(e, f)));
            }
            other => {
                indent(level, out);
                push(out, other);
            }
        }
    }

    fn needs_split(&self) -> bool {
        // Stops at the limit, so that a tall tree is not printed once for each of its levels.
        let mut room = Room(LINE_CHARS_MAX);
        write!(room, "{self}").is_err()
    }
}

/// Takes text until there is no room left.
struct Room(usize);

impl Write for Room {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.checked_sub(text.len()).ok_or(fmt::Error)?;
        Ok(())
    }
}

fn push(out: &mut String, part: impl fmt::Display) {
    write!(out, "{part}").expect("writing to a string does not fail");
}

fn indent(level: usize, out: &mut String) {
    out.push_str(&INDENT.repeat(level));
}

fn close(level: usize, out: &mut String) {
    out.push('\n');
    indent(level, out);
    out.push(')');
}

#[cfg(test)]
mod tests {
    use crate::{Options, parse_expr};

    fn prettify(text: &str) -> String {
        parse_expr(text, &Options::all()).expect("a valid query").prettify()
    }

    #[test]
    fn short_expressions_stay_on_one_line() {
        assert_eq!(prettify("sum( foo )by(a)"), "sum by (a) (foo)");
        assert_eq!(prettify("-(a+b)"), "-(a + b)");
    }

    #[test]
    fn long_expressions_are_split_at_operations() {
        let long = "a_metric_with_quite_a_long_name{label=\"one\",other=\"two\"}";
        assert_eq!(
            prettify(&format!(
                "sum by (x) (rate({long}[5m])) / on(x) group_left topk(5, (rate({long}[5m])))"
            )),
            format!("  sum by (x) (rate({long}[5m]))\n/ on (x) group_left ()\n  topk(5, (rate({long}[5m])))")
        );
        assert_eq!(
            prettify(&format!("topk(5, label_replace({long}, \"dst_label\", \"$1\", \"other\", \"(.*)\"))")),
            format!(
                "topk(\n  5,\n  label_replace(\n    {long},\n    \"dst_label\",\n    \"$1\",\n    \"other\",\n    \
                 \"(.*)\"\n  )\n)"
            )
        );
        assert_eq!(prettify(&format!("-({long} + {long})")), format!("-(\n    {long}\n  +\n    {long}\n)"));
    }
}
