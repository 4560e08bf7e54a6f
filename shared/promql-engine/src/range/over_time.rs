//! The `*_over_time` functions.

use std::sync::Arc;

use super::{Notes, RangeFunction, histograms};
use crate::kahan::{Mean, Sum, Variance};
use crate::points::Point;
use crate::select::Window;

/// Says whether floats and histograms are mixed, and notes it.
fn is_mixed(window: &Window<'_>, notes: &mut Notes) -> bool {
    let is_mixed = !window.floats.is_empty() && !window.histograms.is_empty();
    notes.mixed_floats_histograms |= is_mixed;
    is_mixed
}

/// Says whether there are floats to work on, and notes histograms that are left out.
fn has_floats(window: &Window<'_>, notes: &mut Notes) -> bool {
    let has_floats = !window.floats.is_empty();
    notes.ignored_histograms |= has_floats && !window.histograms.is_empty();
    has_floats
}

pub(super) fn sum(window: &Window<'_>, notes: &mut Notes) -> Point {
    if is_mixed(window, notes) {
        return Point::None;
    }
    if window.floats.is_empty() {
        return match histograms::sum(window.histograms.values, notes) {
            Ok(h) => Point::histogram(h),
            Err(_) => {
                notes.mixed_schemas = true;
                Point::None
            }
        };
    }
    let mut sum = Sum::default();
    for x in window.floats.values {
        sum.add(*x);
    }
    Point::Float(sum.total())
}

pub(super) fn avg(window: &Window<'_>, notes: &mut Notes) -> Point {
    if is_mixed(window, notes) {
        return Point::None;
    }
    if window.floats.is_empty() {
        return match histograms::avg(window.histograms.values, notes) {
            Ok(h) => Point::histogram(h),
            Err(_) => {
                notes.mixed_schemas = true;
                Point::None
            }
        };
    }
    let mut mean = Mean::new(window.floats.values[0]);
    for x in &window.floats.values[1..] {
        mean.add(*x);
    }
    Point::Float(mean.mean())
}

#[expect(clippy::cast_precision_loss, reason = "a window has fewer than 2^53 samples")]
pub(super) fn count(window: &Window<'_>) -> Point {
    Point::Float((window.floats.len() + window.histograms.len()) as f64)
}

pub(super) fn present(_: &Window<'_>) -> Point {
    Point::Float(1.0)
}

pub(super) fn first(window: &Window<'_>) -> Point {
    let (floats, histograms) = (window.floats, window.histograms);
    match (floats.times.first(), histograms.times.first()) {
        (Some(f), Some(h)) if h < f => Point::Histogram(Arc::clone(&histograms.values[0])),
        (Some(_), _) => Point::Float(floats.values[0]),
        (None, Some(_)) => Point::Histogram(Arc::clone(&histograms.values[0])),
        (None, None) => Point::None,
    }
}

pub(super) fn last(window: &Window<'_>) -> Point {
    let (floats, histograms) = (window.floats, window.histograms);
    match (floats.times.last(), histograms.values.last()) {
        (Some(f), Some(h)) if histograms.times[histograms.len() - 1] > *f => Point::Histogram(Arc::clone(h)),
        (Some(_), _) => Point::Float(floats.values[floats.len() - 1]),
        (None, Some(h)) => Point::Histogram(Arc::clone(h)),
        (None, None) => Point::None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "PromQL's time is a float")]
fn seconds(time: Option<&i64>) -> Point {
    time.map_or(Point::None, |t| Point::Float(*t as f64 / 1000.0))
}

pub(super) fn ts_of_first(window: &Window<'_>) -> Point {
    seconds(window.floats.times.first().into_iter().chain(window.histograms.times.first()).min())
}

pub(super) fn ts_of_last(window: &Window<'_>) -> Point {
    seconds(window.floats.times.last().into_iter().chain(window.histograms.times.last()).max())
}

/// The smallest or largest float, or its time. Of equal ones the first gives the value, the last the time.
pub(super) fn extreme(function: RangeFunction, window: &Window<'_>, notes: &mut Notes) -> Point {
    if !has_floats(window, notes) {
        return Point::None;
    }
    let is_better: fn(f64, f64) -> bool = match function {
        RangeFunction::Min => |x, best| x < best,
        RangeFunction::Max => |x, best| x > best,
        RangeFunction::TsOfMin => |x, best| x <= best,
        _ => |x, best| x >= best,
    };
    let floats = window.floats;
    let (mut best, mut at) = (floats.values[0], 0);
    for (i, x) in floats.values.iter().enumerate() {
        if is_better(*x, best) || best.is_nan() {
            (best, at) = (*x, i);
        }
    }
    match function {
        RangeFunction::Min | RangeFunction::Max => Point::Float(best),
        _ => seconds(floats.times.get(at)),
    }
}

pub(super) fn variance(window: &Window<'_>, takes_root: bool, notes: &mut Notes) -> Point {
    if !has_floats(window, notes) {
        return Point::None;
    }
    let mut variance = Variance::default();
    for x in window.floats.values {
        variance.add(*x);
    }
    let variance = variance.variance();
    Point::Float(if takes_root { variance.sqrt() } else { variance })
}

/// The median absolute deviation; a NaN makes it undefined.
pub(super) fn mad(window: &Window<'_>, notes: &mut Notes, scratch: &mut Vec<f64>) -> Point {
    if !has_floats(window, notes) {
        return Point::None;
    }
    if window.floats.values.iter().any(|x| x.is_nan()) {
        return Point::Float(f64::NAN);
    }
    scratch.clear();
    scratch.extend_from_slice(window.floats.values);
    let median = quantile(0.5, scratch);
    scratch.iter_mut().for_each(|x| *x = (*x - median).abs());
    Point::Float(quantile(0.5, scratch))
}

pub(super) fn quantile_of(window: &Window<'_>, q: f64, notes: &mut Notes, scratch: &mut Vec<f64>) -> Point {
    if !has_floats(window, notes) {
        return Point::None;
    }
    scratch.clear();
    scratch.extend_from_slice(window.floats.values);
    Point::Float(quantile(q, scratch))
}

/// Returns a quantile of values, interpolated between the two next to it. Sorts the values, NaN first.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the rank lies between 0 and the number of values"
)]
pub(crate) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    let rank = q * (values.len() - 1) as f64;
    let order = |a: &f64, b: &f64| b.is_nan().cmp(&a.is_nan()).then(a.total_cmp(b));
    let (_, lower, above) = values.select_nth_unstable_by(rank.floor() as usize, order);
    let upper = above.iter().copied().min_by(order).unwrap_or(*lower);
    let weight = rank - rank.floor();
    *lower * (1.0 - weight) + upper * weight
}
