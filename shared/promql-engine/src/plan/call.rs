//! Function calls to operators.

use model::{Labels, MatchOp, labels};
use promql_syntax::{AtModifier, Call, Expr, StringLiteral, ValueType};

use super::{Around, Empty, Planner, unsupported, without_names};
use crate::classic::{HistogramFunction, HistogramSpans, Histograms};
use crate::context::Context;
use crate::enrich::Enrich;
use crate::error::{Error, Result};
use crate::merge::{Merge, SAME_LABELSET};
use crate::points::{BoxOperator, Grid};
use crate::range::{AbsentOverTime, RangeCall, RangeFunction, check_edges};
use crate::scalar::ScalarOperator;
use crate::select::{Give, When};
use crate::vector::{Absent, FromScalar, Map, MapFunction, Order, Relabel, RelabelOperator, Sort};

impl Planner {
    pub(super) fn call(
        &self,
        cx: &mut Context<'_>,
        e: &Call,
        grid: Grid,
        around: Around<'_>,
    ) -> Result<BoxOperator> {
        let name = e.func.name;
        let around = around.call(name);
        if let Some(function) = RangeFunction::find(name) {
            return self.range_call(cx, e, function, grid, around);
        }
        match (name, &*e.args) {
            ("absent_over_time", [range]) => {
                let labels = absent_labels(range);
                let input = self.range(cx, range, grid, around)?;
                check_edges(input.edges(), name)?;
                return Ok(Box::new(AbsentOverTime::new(input, labels)));
            }
            ("timestamp" | "start_timestamp", [arg]) => {
                if let Expr::VectorSelector(selector) = arg.unwrap_parens() {
                    let give = match name {
                        "timestamp" => Give::Time,
                        _ if cx.options.start_timestamps => Give::StartTime,
                        // Without the feature there are no start timestamps to show.
                        _ => return Ok(Box::new(Empty)),
                    };
                    let selected = self.instant_selector(cx, selector, grid, around, give)?;
                    return Ok(without_names(cx, selected, grid));
                }
                if name == "start_timestamp" {
                    return Ok(Box::new(Empty));
                }
            }
            ("absent", [arg]) => {
                let input = self.vector(cx, arg, grid, around)?;
                return Ok(Box::new(Absent::new(input, absent_labels(arg))));
            }
            ("vector", [arg]) => {
                let scalar = self.scalar(cx, arg, grid, around)?;
                return Ok(Box::new(FromScalar::vector(scalar)));
            }
            ("label_replace" | "label_join", [vector, strings @ ..]) => {
                let strings: Vec<String> = strings.iter().map(string).collect::<Result<_>>()?;
                let relabel = match (name, &*strings) {
                    ("label_replace", [target, replacement, source, pattern]) => {
                        Relabel::replace(target, replacement, source, pattern)?
                    }
                    (_, [target, separator, sources @ ..]) => {
                        Relabel::join(target, separator, sources.to_vec())?
                    }
                    _ => return Err(unsupported(name)),
                };
                let input = self.vector(cx, vector, grid, around)?;
                let relabelled = Box::new(RelabelOperator::new(input, relabel));
                return Ok(Box::new(Merge::new(relabelled, grid.count, SAME_LABELSET)));
            }
            ("sort" | "sort_desc" | "sort_by_label" | "sort_by_label_desc", [vector, names @ ..]) => {
                let is_descending = name.ends_with("_desc");
                let order = if name.starts_with("sort_by_label") {
                    let names = names.iter().map(string).collect::<Result<_>>()?;
                    Order::Labels { names, is_descending }
                } else {
                    Order::Value { is_descending }
                };
                let input = self.vector(cx, vector, grid, around)?;
                let span = vector.unwrap_parens().span();
                let is_range = self.times.step > 0 || grid.count > 1;
                let span = if is_range { e.span } else { span };
                return Ok(Box::new(Sort::new(input, order, is_range, span)));
            }
            ("histogram_quantile" | "histogram_quantiles" | "histogram_fraction", args) => {
                return self.histogram_call(cx, name, args, grid, around);
            }
            ("info", [base, selector @ ..]) => {
                let matchers = match selector.first().map(Expr::unwrap_parens) {
                    Some(Expr::VectorSelector(s)) => s.matchers.clone(),
                    _ => Vec::new(),
                };
                let input = self.vector(cx, base, grid, around)?;
                let enriched = Enrich::new(input, matchers, self.info_times(base, grid), cx.lookback_ms);
                return Ok(Box::new(Merge::new(Box::new(enriched), grid.count, SAME_LABELSET)));
            }
            _ => {}
        }
        let function = MapFunction::find(name).ok_or_else(|| unsupported(name))?;
        let Some((vector, scalars)) = e.args.split_first() else {
            return match function {
                MapFunction::Date(date) => Ok(Box::new(FromScalar::date(date, grid))),
                _ => Err(unsupported(name)),
            };
        };
        let input = self.vector(cx, vector, grid, around)?;
        let scalars = self.scalars(cx, scalars, grid, around)?;
        Ok(without_names(cx, Box::new(Map::new(input, function, scalars, grid)), grid))
    }

    fn range_call(
        &self,
        cx: &mut Context<'_>,
        e: &Call,
        function: RangeFunction,
        grid: Grid,
        around: Around<'_>,
    ) -> Result<BoxOperator> {
        let is_range = |arg: &&Expr| arg.value_type() == ValueType::Matrix;
        let Some(range) = e.args.iter().find(is_range) else { return Err(unsupported(e.func.name)) };
        let input = self.range(cx, range, grid, around)?;
        check_edges(input.edges(), e.func.name)?;
        let scalars: Vec<ScalarOperator> = e
            .args
            .iter()
            .filter(|arg| !is_range(arg))
            .map(|arg| self.scalar(cx, arg, grid, around))
            .collect::<Result<_>>()?;
        let span = e.args.first().map_or(e.span, |arg| arg.unwrap_parens().span());
        let call = Box::new(RangeCall::new(input, function, scalars, span));
        Ok(without_names(cx, call, grid))
    }

    fn histogram_call(
        &self,
        cx: &mut Context<'_>,
        name: &str,
        args: &[Expr],
        grid: Grid,
        around: Around<'_>,
    ) -> Result<BoxOperator> {
        let (function, vector, scalars): (_, &Expr, &[Expr]) = match (name, args) {
            ("histogram_quantile", [q, vector]) => {
                (HistogramFunction::Quantiles { label: None }, vector, std::slice::from_ref(q))
            }
            ("histogram_fraction", [bounds @ .., vector]) => (HistogramFunction::Fraction, vector, bounds),
            ("histogram_quantiles", [vector, label, quantiles @ ..]) => {
                (HistogramFunction::Quantiles { label: Some(string(label)?) }, vector, quantiles)
            }
            _ => return Err(unsupported(name)),
        };
        let spans = HistogramSpans {
            vector: vector.unwrap_parens().span(),
            quantiles: scalars.iter().map(|q| q.unwrap_parens().span()).collect(),
        };
        let input = self.vector(cx, vector, grid, around)?;
        let scalars = self.scalars(cx, scalars, grid, around)?;
        let histograms = Box::new(Histograms::new(input, function, scalars, spans, grid));
        if name == "histogram_quantiles" {
            // A quantile that changes from step to step may take the value of another one.
            return Ok(Box::new(Merge::new(histograms, grid.count, SAME_LABELSET)));
        }
        Ok(without_names(cx, histograms, grid))
    }

    /// The times at which `info` looks for info series: those of the first selector in its argument.
    fn info_times(&self, base: &Expr, grid: Grid) -> When {
        fn first_selector(expr: &Expr) -> Option<(Option<AtModifier>, i64)> {
            match expr {
                Expr::VectorSelector(e) => Some((e.at, e.offset.ms())),
                Expr::MatrixSelector(e) => Some((e.selector.at, e.selector.offset.ms())),
                Expr::Subquery(e) => {
                    let (at, offset) = first_selector(&e.expr)?;
                    Some((at.or(e.at), offset.saturating_add(e.offset.ms())))
                }
                other => other.children().into_iter().find_map(first_selector),
            }
        }
        let (at, offset) = first_selector(base).unwrap_or((None, 0));
        self.when(at, offset, grid)
    }
}

fn string(arg: &Expr) -> Result<String> {
    match arg.unwrap_parens() {
        Expr::StringLiteral(e) => Ok(e.value.clone()),
        other => {
            Err(Error::Invalid(format!("expected a string literal, got {}", other.value_type().documented())))
        }
    }
}

/// Checks the label that `count_values` writes.
pub(super) fn label_name(literal: &StringLiteral) -> Result<String> {
    let quoted = match &literal.not_utf8 {
        Some(bytes) => quoted_bytes(bytes),
        None if literal.value.is_empty() => "\"\"".to_owned(),
        None => return Ok(literal.value.clone()),
    };
    Err(Error::Execution(format!("invalid label name {quoted}")))
}

/// Quotes bytes that are not UTF-8 as Go does.
fn quoted_bytes(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        let quoted = model::number::Quoted(chunk.valid()).to_string();
        out.push_str(&quoted[1..quoted.len() - 1]);
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out.push('"');
    out
}

/// The labels that the matchers of a selector pin down, for `absent`. A label that is matched twice is left out.
fn absent_labels(arg: &Expr) -> Labels {
    let selector = match arg.unwrap_parens() {
        Expr::VectorSelector(selector) => selector,
        Expr::MatrixSelector(matrix) => &matrix.selector,
        _ => return Labels::empty(),
    };
    let mut builder = Labels::empty().to_builder();
    let mut seen: Vec<&str> = Vec::new();
    for matcher in selector.matchers.iter().filter(|m| m.name() != labels::METRIC_NAME) {
        if matcher.op() == MatchOp::Equal && !seen.contains(&matcher.name()) {
            builder.set(matcher.name(), matcher.value());
            seen.push(matcher.name());
        } else {
            builder.remove(matcher.name());
        }
    }
    builder.build()
}
