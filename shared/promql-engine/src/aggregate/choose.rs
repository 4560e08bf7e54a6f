//! Aggregations that choose among the series of a group: `topk`, `bottomk`, `limitk`, `limit_ratio`.

use std::cmp::Ordering;

use model::Labels;
use model::number::format_general;
use promql_syntax::{AggregateOp, Span};

use super::{Grouping, Groups, ignored_histogram};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::points::{BoxOperator, Operator, Point, SeriesMeta, clear, row};
use crate::scalar::{ScalarOperator, Scalars};

/// The numbers between which a float can be cut to a 64-bit integer.
const INTEGERS: (f64, f64) = (-9_223_372_036_854_775_808.0, 9_223_372_036_854_774_784.0);

/// Checks the parameter of `topk`, `bottomk` and `limitk`; `false` when no step asks for any series.
fn check_k(values: &Scalars) -> Result<bool> {
    let (low, high, has_nan) = values.extremes();
    if has_nan {
        return Err(Error::execution("Parameter value is NaN"));
    }
    if high < 1.0 {
        return Ok(false);
    }
    if low <= INTEGERS.0 {
        return Err(Error::Execution(format!("Scalar value {} underflows int64", format_general(low))));
    }
    if high >= INTEGERS.1 {
        return Err(Error::Execution(format!("Scalar value {} overflows int64", format_general(high))));
    }
    Ok(true)
}

/// Cuts the parameter to a number of series.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be within range")]
fn k_at(values: &Scalars, step: usize) -> usize {
    values.at(step).max(0.0) as usize
}

/// A series chosen at a step.
#[derive(Clone, Copy)]
struct Candidate {
    value: f64,
    series: usize,
}

/// `topk` and `bottomk`.
pub(crate) struct Best {
    input: BoxOperator,
    op: AggregateOp,
    grouping: Grouping,
    param: ScalarOperator,
    span: Span,
    steps: usize,
    /// The chosen values of each output series, with their steps.
    chosen: std::vec::IntoIter<Vec<(usize, f64)>>,
}

impl Best {
    pub(crate) fn new(
        input: BoxOperator,
        op: AggregateOp,
        grouping: Grouping,
        param: ScalarOperator,
        span: Span,
        steps: usize,
    ) -> Self {
        Self { input, op, grouping, param, span, steps, chosen: Vec::new().into_iter() }
    }

    /// Orders values from the best to the worst; NaN is the worst either way.
    fn order(&self, a: f64, b: f64) -> Ordering {
        let order = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
        let order = if self.op == AggregateOp::Topk { order.reverse() } else { order };
        a.is_nan().cmp(&b.is_nan()).then(order)
    }

    fn offer(&self, best: &mut Vec<Candidate>, candidate: Candidate, k: usize) {
        // Of equal values the earlier series stays ahead.
        let rank = best.partition_point(|b| self.order(b.value, candidate.value).is_le());
        if rank < k {
            best.truncate(k - 1);
            best.insert(rank, candidate);
        }
    }
}

impl Operator for Best {
    fn series(&mut self, cx: &mut Context<'_>) -> Result<Vec<SeriesMeta>> {
        let values = self.param.values(cx)?;
        if !check_k(&values)? {
            return Ok(Vec::new());
        }
        let inputs = self.input.series(cx)?;
        let groups = Groups::new(cx, &inputs, &self.grouping)?;
        let cells = groups.metas.len().saturating_mul(self.steps);
        cx.hold(cells)?;
        let mut best: Vec<Vec<Vec<Candidate>>> = vec![vec![Vec::new(); self.steps]; groups.metas.len()];
        let mut points = row(self.steps);
        for series in 0..inputs.len() {
            clear(&mut points);
            self.input.next(cx, &mut points)?;
            let best = &mut best[groups.of_input[series]];
            for (step, point) in points.iter().enumerate() {
                match point {
                    Point::None => {}
                    Point::Histogram(_) => cx.annotations.info(ignored_histogram(self.op), self.span),
                    Point::Float(value) => {
                        let before = best[step].len();
                        self.offer(&mut best[step], Candidate { value: *value, series }, k_at(&values, step));
                        cx.hold(best[step].len() - before)?;
                    }
                }
            }
            cx.tick(points.len())?;
        }
        let (mut order, mut chosen) = (Vec::new(), vec![Vec::new(); inputs.len()]);
        for group in best {
            for (step, candidates) in group.into_iter().enumerate() {
                for candidate in candidates {
                    if chosen[candidate.series].is_empty() {
                        order.push(candidate.series);
                    }
                    chosen[candidate.series].push((step, candidate.value));
                }
            }
        }
        cx.release(cells);
        if self.steps > 1 {
            // Only at a single step there is a ranking to show.
            order.sort_unstable();
        }
        let out = order.iter().map(|series| inputs[*series].clone()).collect();
        let chosen: Vec<_> = order.iter().map(|series| std::mem::take(&mut chosen[*series])).collect();
        self.chosen = chosen.into_iter();
        Ok(out)
    }

    fn next(&mut self, cx: &mut Context<'_>, points: &mut [Point]) -> Result<()> {
        let chosen = self.chosen.next().unwrap_or_default();
        for (step, value) in &chosen {
            points[*step] = Point::Float(*value);
        }
        cx.release(chosen.len());
        Ok(())
    }
}

/// How many counts take the memory of one sample.
const COUNTS_PER_SAMPLE: usize = 4;

/// How series are limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// `limitk`: to a number of each group.
    Count,
    /// `limit_ratio`: to a part, by the hash of the labels.
    Ratio,
}

/// `limitk` and `limit_ratio`: lets series through or not, without holding any.
pub(crate) struct Limited {
    input: BoxOperator,
    limit: Limit,
    grouping: Grouping,
    param: ScalarOperator,
    param_span: Span,
    values: Scalars,
    steps: usize,
    groups: Groups,
    hashes: Vec<f64>,
    taken: Vec<Vec<u32>>,
    read: usize,
}

impl Limited {
    pub(crate) fn new(
        input: BoxOperator,
        limit: Limit,
        grouping: Grouping,
        param: ScalarOperator,
        param_span: Span,
        steps: usize,
    ) -> Self {
        Self {
            input,
            limit,
            grouping,
            param,
            param_span,
            values: Scalars::Constant(0.0),
            steps,
            groups: Groups::default(),
            hashes: Vec::new(),
            taken: Vec::new(),
            read: 0,
        }
    }

    fn note_ratio(&self, cx: &mut Context<'_>) -> Result<bool> {
        let (low, high, has_nan) = self.values.extremes();
        if has_nan {
            return Err(Error::execution("Ratio value is NaN"));
        }
        for (is_beyond, ratio, cap) in [(high > 1.0, high, 1.0), (low < -1.0, low, -1.0)] {
            if is_beyond {
                let text = format!(
                    "ratio value should be between -1 and 1, got {}, capping to {}",
                    format_general(ratio),
                    format_general(cap)
                );
                cx.annotations.warn(text, self.param_span);
            }
        }
        Ok(low != 0.0 || high != 0.0)
    }
}

impl Operator for Limited {
    fn series(&mut self, cx: &mut Context<'_>) -> Result<Vec<SeriesMeta>> {
        self.values = self.param.values(cx)?;
        let wants_any = match self.limit {
            Limit::Count => check_k(&self.values)?,
            Limit::Ratio => self.note_ratio(cx)?,
        };
        if !wants_any {
            return Ok(Vec::new());
        }
        let inputs = self.input.series(cx)?;
        match self.limit {
            Limit::Count => {
                self.groups = Groups::new(cx, &inputs, &self.grouping)?;
                cx.hold(self.groups.metas.len().saturating_mul(self.steps) / COUNTS_PER_SAMPLE)?;
                self.taken = vec![vec![0; self.steps]; self.groups.metas.len()];
            }
            Limit::Ratio => self.hashes = inputs.iter().map(|m| hash_share(&m.labels)).collect(),
        }
        Ok(inputs)
    }

    fn next(&mut self, cx: &mut Context<'_>, points: &mut [Point]) -> Result<()> {
        self.input.next(cx, points)?;
        for (step, point) in points.iter_mut().enumerate().filter(|(_, p)| p.is_some()) {
            let is_in = match self.limit {
                Limit::Count => {
                    let taken = &mut self.taken[self.groups.of_input[self.read]][step];
                    *taken += 1;
                    *taken as usize <= k_at(&self.values, step)
                }
                Limit::Ratio => {
                    let (share, ratio) = (self.hashes[self.read], self.values.at(step).clamp(-1.0, 1.0));
                    if ratio >= 0.0 { share < ratio } else { share >= 1.0 + ratio }
                }
            };
            if !is_in {
                *point = Point::None;
            }
        }
        self.read += 1;
        cx.tick(points.len())
    }
}

/// Returns a label set's hash as a number from 0 to 1: Prometheus's own hash of its own encoding.
#[expect(clippy::cast_precision_loss, reason = "as the reference does")]
fn hash_share(labels: &Labels) -> f64 {
    let mut bytes = Vec::with_capacity(labels.byte_len() + 16);
    for field in labels.iter().flat_map(|(name, value)| [name, value]) {
        match u8::try_from(field.len()) {
            Ok(length) if length < u8::MAX => bytes.push(length),
            _ => {
                bytes.push(u8::MAX);
                bytes.extend_from_slice(&(field.len() as u64).to_le_bytes()[..3]);
            }
        }
        bytes.extend_from_slice(field.as_bytes());
    }
    xxhash_rust::xxh64::xxh64(&bytes, 0) as f64 / u64::MAX as f64
}
