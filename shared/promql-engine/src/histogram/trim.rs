//! The trim operators: `h </ x` keeps what was observed below x, `h >/ x` what was observed above.

use model::FloatHistogram;
use model::histogram::Bucket;

use super::compact;

/// Which part is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// `</`
    Below,
    /// `>/`
    Above,
}

/// Returns the part of a histogram below or above a value. A bucket that the value cuts is divided by
/// interpolation. Where anything is removed, the sum is estimated anew from the middles of what is kept.
pub(crate) fn trim(h: &FloatHistogram, at: f64, keep: Keep) -> FloatHistogram {
    let is_custom = h.uses_custom_buckets();
    let mut kept = Kept::default();
    let mut out = h.clone();
    let all = h.buckets();
    let negatives = h.negative_buckets.len();
    for (i, bucket) in all.iter().take(negatives).enumerate() {
        // Buckets come from the most negative one, populations from the one next to zero.
        out.negative_buckets[negatives - 1 - i] = kept.add(bucket.count, part(bucket, at, keep, is_custom));
    }
    let positives = &all[all.len() - h.positive_buckets.len()..];
    for (i, bucket) in positives.iter().enumerate() {
        out.positive_buckets[i] = kept.add(bucket.count, part(bucket, at, keep, is_custom));
    }
    if h.zero_count > 0.0 {
        out.zero_count = kept.add(h.zero_count, zero_part(h, at, keep));
    }
    if kept.has_removed {
        out.count = kept.count;
        out.sum = kept.sum;
    }
    compact(&mut out);
    out
}

/// What stays of one bucket: how many observations, and the value they are taken to have.
struct Part {
    count: f64,
    value: f64,
}

#[derive(Default)]
struct Kept {
    count: f64,
    sum: f64,
    has_removed: bool,
}

impl Kept {
    fn add(&mut self, population: f64, part: Part) -> f64 {
        self.has_removed |= part.count != population;
        if part.count != 0.0 {
            self.count += part.count;
            self.sum += part.count * part.value;
        }
        part.count
    }
}

fn part(b: &Bucket, at: f64, keep: Keep, is_linear: bool) -> Part {
    if b.lower.is_infinite() || b.upper.is_infinite() {
        return infinite_part(b, at, keep);
    }
    let (is_inside, is_outside) = match keep {
        Keep::Below => (b.upper <= at, b.lower >= at),
        Keep::Above => (b.lower >= at, b.upper <= at),
    };
    if is_inside {
        return Part { count: b.count, value: middle(b.lower, b.upper, is_linear) };
    }
    if is_outside {
        return Part { count: 0.0, value: 0.0 };
    }
    let below = b.count * share_below(b, at, is_linear);
    match keep {
        Keep::Below => Part { count: below, value: middle(b.lower, at, is_linear) },
        Keep::Above => Part { count: b.count - below, value: middle(at, b.upper, is_linear) },
    }
}

/// Nothing is known of the distribution in a bucket without an end. A first bucket that ends above zero is taken
/// to begin there; otherwise a bucket that reaches beyond the value towards its open end stays whole, with the
/// value standing for its observations, and one that is cut from its open end goes whole.
fn infinite_part(b: &Bucket, at: f64, keep: Keep) -> Part {
    let nothing = Part { count: 0.0, value: 0.0 };
    let whole = |value| Part { count: b.count, value };
    match (b.lower.is_finite(), b.upper.is_finite(), keep) {
        (false, false, Keep::Below) if at == f64::INFINITY => whole(0.0),
        (false, false, Keep::Above) if at == f64::NEG_INFINITY => whole(0.0),
        (false, false, _) => nothing,
        (false, true, _) if b.upper > 0.0 => {
            let cut = at.clamp(0.0, b.upper);
            match keep {
                Keep::Below => Part { count: b.count * cut / b.upper, value: cut / 2.0 },
                Keep::Above => {
                    Part { count: b.count * (1.0 - cut / b.upper), value: f64::midpoint(cut, b.upper) }
                }
            }
        }
        (false, true, Keep::Below) if at == f64::NEG_INFINITY => nothing,
        (false, true, Keep::Below) => whole(at.min(b.upper)),
        (false, true, Keep::Above) if at == f64::NEG_INFINITY => whole(b.upper),
        (false, true, Keep::Above) => nothing,
        (true, _, Keep::Above) if at == f64::INFINITY => nothing,
        (true, _, Keep::Above) => whole(at.max(b.lower)),
        (true, _, Keep::Below) if at == f64::INFINITY => whole(b.lower),
        (true, _, Keep::Below) => nothing,
    }
}

fn zero_part(h: &FloatHistogram, at: f64, keep: Keep) -> Part {
    let (mut lower, mut upper) = (-h.zero_threshold, h.zero_threshold);
    // With buckets on one side only, the observations near zero are taken to lie on that side too.
    match (h.negative_buckets.is_empty(), h.positive_buckets.is_empty()) {
        (true, false) => lower = 0.0,
        (false, true) => upper = 0.0,
        _ => {}
    }
    let below = if at <= lower {
        0.0
    } else if at >= upper {
        1.0
    } else {
        (at - lower) / (upper - lower)
    };
    let cut = at.clamp(lower, upper);
    match keep {
        Keep::Below => Part { count: h.zero_count * below, value: f64::midpoint(lower, cut) },
        Keep::Above => Part { count: h.zero_count * (1.0 - below), value: f64::midpoint(cut, upper) },
    }
}

fn middle(low: f64, high: f64, is_linear: bool) -> f64 {
    if is_linear { f64::midpoint(low, high) } else { (low * high).sqrt().copysign(high) }
}

fn share_below(b: &Bucket, at: f64, is_linear: bool) -> f64 {
    if is_linear {
        return (at - b.lower) / (b.upper - b.lower);
    }
    let (low, high, at) = (b.lower.abs().log2(), b.upper.abs().log2(), at.abs().log2());
    (at - low) / (high - low)
}
