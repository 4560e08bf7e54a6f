//! Aggregations that choose among the series of a group: `topk`, `bottomk`, `limitk`, `limit_ratio`.

use std::collections::BinaryHeap;

use model::Labels;
use model::number::format_general;
use promql_syntax::{AggregateOp, Span};

use super::{Grouping, Groups, ignored_histogram};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::faults::or_fault;
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

/// A series that may be chosen at a step. The less, the better; of equal values the earlier series is better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u64,
    series: usize,
    /// The value's bits, NaN payloads included.
    bits: u64,
}

impl Candidate {
    fn new(op: AggregateOp, value: f64, series: usize) -> Self {
        // The bits of a positive float ascend with it, those of a negative one descend; both zeros are one.
        let bits = (value + 0.0).to_bits();
        let ascending = if bits >> 63 == 0 { bits | 1 << 63 } else { !bits };
        let rank = match op {
            // NaN is the worst either way.
            _ if value.is_nan() => or_fault!(TopkNan, u64::MAX, 0),
            AggregateOp::Topk => !ascending,
            _ => ascending,
        };
        Self { rank, series, bits: value.to_bits() }
    }
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
        // The worst of those chosen so far lies on top.
        let mut best: Vec<Vec<BinaryHeap<Candidate>>> =
            vec![vec![BinaryHeap::new(); self.steps]; groups.metas.len()];
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
                        let (best, candidate) = (&mut best[step], Candidate::new(self.op, *value, series));
                        if best.len() < k_at(&values, step) {
                            cx.hold(1)?;
                            best.push(candidate);
                        } else if let Some(mut worst) = best.peek_mut()
                            && candidate < *worst
                        {
                            *worst = candidate;
                        }
                    }
                }
            }
            cx.tick(points.len())?;
        }
        let (mut order, mut chosen) = (Vec::new(), vec![Vec::new(); inputs.len()]);
        for group in best {
            cx.tick(group.len())?;
            for (step, candidates) in group.into_iter().enumerate() {
                for candidate in candidates.into_sorted_vec() {
                    if chosen[candidate.series].is_empty() {
                        order.push(candidate.series);
                    }
                    chosen[candidate.series].push((step, f64::from_bits(candidate.bits)));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_first_and_nan_last() {
        let values = [1.0, f64::NAN, -2.0, 0.0, f64::INFINITY, -0.0, f64::NEG_INFINITY, 1.0];
        let ranked = |op| {
            let mut all: Vec<Candidate> =
                values.iter().enumerate().map(|(i, x)| Candidate::new(op, *x, i)).collect();
            all.sort();
            all.into_iter().map(|c| c.series).collect::<Vec<_>>()
        };
        assert_eq!(ranked(AggregateOp::Topk), [4, 0, 7, 3, 5, 2, 6, 1]);
        assert_eq!(ranked(AggregateOp::Bottomk), [6, 2, 3, 5, 0, 7, 4, 1]);
    }
}
