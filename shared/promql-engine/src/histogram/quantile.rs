//! Quantiles, fractions and variance of native histograms.

use model::FloatHistogram;
use model::histogram::Bucket;

use crate::faults::or_fault;
use crate::kahan::Sum;

/// What observations of NaN, which are in no bucket, did to a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NanEffect {
    /// There are none.
    None,
    /// They count as the largest observations, so the result is higher than it should be.
    Skewed,
    /// The quantile falls among them.
    Result,
}

/// Returns the buckets with the zero bucket cut at zero where the other side is empty: a histogram with only
/// positive buckets holds only positive observations.
fn usable_buckets(h: &FloatHistogram) -> Vec<Bucket> {
    let mut buckets = h.buckets();
    if !h.uses_custom_buckets() {
        for bucket in buckets.iter_mut().filter(|b| b.lower <= 0.0 && b.upper >= 0.0) {
            if h.negative_buckets.is_empty() && !h.positive_buckets.is_empty() {
                bucket.lower = 0.0;
            } else if h.positive_buckets.is_empty() && !h.negative_buckets.is_empty() {
                bucket.upper = 0.0;
            }
        }
    }
    buckets
}

/// Estimates the value below which the fraction `q` of the observations lies.
pub(crate) fn quantile(h: &FloatHistogram, q: f64) -> (f64, NanEffect) {
    if q < 0.0 {
        return (f64::NEG_INFINITY, NanEffect::None);
    }
    if q > 1.0 {
        return (f64::INFINITY, NanEffect::None);
    }
    if h.count == 0.0 || q.is_nan() {
        return (f64::NAN, NanEffect::None);
    }
    let buckets = usable_buckets(h);
    let has_nans = h.sum.is_nan();
    // From the near end, so that rounding does less harm; NaNs count above everything, so from below with them.
    let from_below = has_nans || q < 0.5;
    let mut rank = if from_below { q * h.count } else { (1.0 - q) * h.count };
    let mut count = 0.0;
    let mut found: Option<Bucket> = None;
    let mut visit = |bucket: &Bucket| {
        if bucket.count == 0.0 {
            return false;
        }
        found = Some(*bucket);
        count += bucket.count;
        or_fault!(NativeBucketBoundary, count >= rank, count > rank)
    };
    if from_below {
        buckets.iter().any(&mut visit);
    } else {
        buckets.iter().rev().any(&mut visit);
    }
    let Some(mut bucket) = found else {
        return (f64::NAN, if has_nans { NanEffect::Result } else { NanEffect::None });
    };
    let effect = if has_nans { NanEffect::Skewed } else { NanEffect::None };
    count = count.min(h.count);
    if count < rank {
        // Only NaNs can be beyond the last bucket.
        return if has_nans { (f64::NAN, NanEffect::Result) } else { (bucket.upper, effect) };
    }
    if h.uses_custom_buckets() {
        if bucket.lower == f64::NEG_INFINITY {
            if bucket.upper <= 0.0 {
                return (bucket.upper, effect);
            }
            bucket.lower = 0.0;
        } else if bucket.upper == f64::INFINITY {
            return (bucket.lower, effect);
        }
    }
    if from_below {
        rank -= count - bucket.count;
    } else {
        rank = count - rank;
    }
    let share = rank / bucket.count;
    if h.uses_custom_buckets() || (bucket.lower <= 0.0 && bucket.upper >= 0.0) {
        return (bucket.lower + (bucket.upper - bucket.lower) * share, effect);
    }
    let (low, high) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    let value = if bucket.lower > 0.0 {
        (low + (high - low) * share).exp2()
    } else {
        -(high + (low - high) * (1.0 - share)).exp2()
    };
    (value, effect)
}

/// Estimates the fraction of the observations between two values; `true` says that NaNs were left out.
pub(crate) fn fraction(h: &FloatHistogram, lower: f64, upper: f64) -> (f64, bool) {
    if h.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, false);
    }
    let has_nans = h.sum.is_nan();
    if lower >= upper {
        return (0.0, false);
    }
    let mut rank = 0.0;
    let (mut lower_rank, mut upper_rank): (Option<f64>, Option<f64>) = (None, None);
    let buckets = usable_buckets(h);
    for bucket in &buckets {
        for (value, found) in [(lower, &mut lower_rank), (upper, &mut upper_rank)] {
            if found.is_some() {
                continue;
            }
            if bucket.lower >= value {
                *found = Some(rank);
            } else if bucket.upper > value {
                *found = Some(rank + bucket.count * share_below(h, bucket, value));
            }
        }
        if lower_rank.is_some() && upper_rank.is_some() {
            break;
        }
        rank += bucket.count;
    }
    // Without NaNs the rank beyond all buckets is the count; NaNs are in no fraction at all.
    let end = if has_nans { rank } else { h.count };
    let at_most = |rank: Option<f64>| rank.filter(|r| *r <= h.count).unwrap_or(end);
    ((at_most(upper_rank) - at_most(lower_rank)) / h.count, has_nans)
}

/// Estimates which part of a bucket lies below a value inside of it.
fn share_below(h: &FloatHistogram, bucket: &Bucket, value: f64) -> f64 {
    if h.uses_custom_buckets() {
        let lower = if bucket.upper > 0.0 && bucket.lower == f64::NEG_INFINITY { 0.0 } else { bucket.lower };
        return linear_share_below(lower, bucket.upper, value);
    }
    if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
        return (value - bucket.lower) / (bucket.upper - bucket.lower);
    }
    let (low, high, at) = (bucket.lower.abs().log2(), bucket.upper.abs().log2(), value.abs().log2());
    if value > 0.0 { (at - low) / (high - low) } else { 1.0 - (at - high) / (low - high) }
}

/// Estimates which part of a bucket lies below a value, as far as its bounds tell. Of a bucket without a bound
/// nothing is taken to lie on the side towards the bounded ones; one that ends above zero is taken to begin there
/// at the latest, so the caller has set its lower bound.
pub(crate) fn linear_share_below(lower: f64, upper: f64, value: f64) -> f64 {
    if lower == f64::NEG_INFINITY {
        1.0
    } else if upper == f64::INFINITY {
        0.0
    } else {
        ((value - lower) / (upper - lower)).max(0.0)
    }
}

/// Estimates the variance, taking each bucket's mean for its observations.
pub(crate) fn variance(h: &FloatHistogram) -> f64 {
    let mean = h.sum / h.count;
    let mut total = Sum::default();
    for bucket in h.buckets().iter().filter(|b| b.count != 0.0) {
        let value = if h.uses_custom_buckets() {
            f64::midpoint(bucket.upper, bucket.lower)
        } else if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
            0.0
        } else {
            (bucket.upper * bucket.lower).sqrt().copysign(bucket.upper)
        };
        let delta = value - mean;
        total.add(bucket.count * delta * delta);
    }
    total.total() / h.count
}
