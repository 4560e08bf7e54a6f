//! Which samples a series takes: Prometheus's rules (`tsdb/head_append.go`, `appendable`), as a pure function.
//!
//! The rules look at what has been accepted, whether durable yet or not; the state here is therefore ahead of what
//! readers see, and it is rebuilt from the head after a restart.

use std::sync::Arc;

use model::Histogram;

use crate::append::RefusalReason;

/// How far behind the newest sample of the tenant a sample may be and still count as in order.
const IN_ORDER_SPAN_MS: i64 = 3_600_000;

/// The newest sample that a series has accepted.
#[derive(Debug, Clone)]
pub(crate) struct Newest {
    pub(crate) timestamp: i64,
    pub(crate) value: NewestValue,
}

/// Its value, for telling an exact repeat from another value.
#[derive(Debug, Clone)]
pub(crate) enum NewestValue {
    None,
    Float(u64),
    Histogram(Arc<Histogram>),
}

impl Default for Newest {
    fn default() -> Self {
        Self { timestamp: i64::MIN, value: NewestValue::None }
    }
}

/// What is the same for all samples of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// The newest sample of the tenant when the request began, `i64::MIN` when there is none.
    pub(crate) head_max: i64,
    /// The out-of-order window, zero for none.
    pub(crate) window_ms: i64,
}

/// What becomes of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The newest of its series from now on.
    InOrder,
    /// Stored beside the others.
    OutOfOrder,
    /// Exactly what is there; nothing to store.
    Repeat,
    /// Refused.
    Refused(RefusalReason),
}

impl Bounds {
    /// The earliest time that counts as in order.
    pub(crate) fn in_order_min(&self) -> i64 {
        self.head_max.saturating_sub(IN_ORDER_SPAN_MS)
    }

    /// Judges a sample whose value equals the newest one of the series where `is_same_value` says so.
    pub(crate) fn judge(
        &self,
        newest: &Newest,
        t: i64,
        is_same_value: impl FnOnce(&NewestValue) -> bool,
    ) -> Verdict {
        let in_order_min = self.in_order_min();
        // Without a window everything before the bound is refused, even when it would be a repeat.
        if self.window_ms == 0 && t < in_order_min {
            return Verdict::Refused(RefusalReason::OutOfBounds);
        }
        if t >= in_order_min {
            if matches!(newest.value, NewestValue::None) || t > newest.timestamp {
                return Verdict::InOrder;
            }
            if t == newest.timestamp {
                return if is_same_value(&newest.value) {
                    Verdict::Repeat
                } else {
                    Verdict::Refused(RefusalReason::Duplicate)
                };
            }
        }
        if self.window_ms == 0 {
            return Verdict::Refused(RefusalReason::OutOfOrder);
        }
        if t >= self.head_max.saturating_sub(self.window_ms) {
            return Verdict::OutOfOrder;
        }
        Verdict::Refused(RefusalReason::TooOld)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RefusalReason::{Duplicate, OutOfBounds, OutOfOrder, TooOld};
    use Verdict::Refused;

    const MINUTE: i64 = 60_000;

    #[test]
    fn samples_are_judged_as_prometheus_judges_them() {
        // (window, newest of the tenant, newest of the series, time, same value, verdict), in minutes.
        let cases = [
            // No window: strictly newer, or exactly the same.
            (0, 100, Some(100), 101, false, Verdict::InOrder),
            (0, 100, Some(100), 100, true, Verdict::Repeat),
            (0, 100, Some(100), 100, false, Refused(Duplicate)),
            (0, 100, Some(100), 99, true, Refused(OutOfOrder)),
            (0, 100, Some(50), 60, false, Verdict::InOrder),
            (0, 100, Some(50), 45, false, Refused(OutOfOrder)),
            // More than an hour behind the newest of all.
            (0, 100, None, 40, false, Verdict::InOrder),
            (0, 100, None, 39, false, Refused(OutOfBounds)),
            (0, 100, Some(30), 39, false, Refused(OutOfBounds)),
            (0, 100, Some(39), 39, true, Refused(OutOfBounds)),
            // A window of 30 minutes counts from the newest of all.
            (30, 100, Some(100), 101, false, Verdict::InOrder),
            (30, 100, Some(100), 70, false, Verdict::OutOfOrder),
            (30, 100, Some(100), 69, false, Refused(TooOld)),
            (30, 100, Some(100), 100, true, Verdict::Repeat),
            (30, 100, Some(100), 100, false, Refused(Duplicate)),
            (30, 100, Some(50), 55, false, Verdict::InOrder),
            (30, 100, Some(60), 55, false, Refused(TooOld)),
            (30, 100, None, 40, false, Verdict::InOrder),
            (30, 100, None, 39, false, Refused(TooOld)),
            // A window of two hours reaches behind the in-order bound.
            (120, 200, Some(10), 130, false, Verdict::OutOfOrder),
            (120, 200, None, 80, false, Verdict::OutOfOrder),
            (120, 200, None, 79, false, Refused(TooOld)),
        ];
        for (window, head_max, newest, t, is_same, wanted) in cases {
            let bounds = Bounds { head_max: head_max * MINUTE, window_ms: window * MINUTE };
            let newest_sample = newest.map_or_else(Newest::default, |m: i64| Newest {
                timestamp: m * MINUTE,
                value: NewestValue::Float(0),
            });
            let verdict = bounds.judge(&newest_sample, t * MINUTE, |_| is_same);
            assert_eq!(
                verdict, wanted,
                "window {window}, head {head_max}, series {newest:?}, t {t}, same {is_same}"
            );
        }
    }

    #[test]
    fn the_first_sample_of_all_is_taken_at_any_time() {
        for window_ms in [0, MINUTE] {
            let bounds = Bounds { head_max: i64::MIN, window_ms };
            for t in [i64::MIN + 1, -5, 0, i64::MAX] {
                assert_eq!(bounds.judge(&Newest::default(), t, |_| false), Verdict::InOrder);
            }
        }
    }
}
