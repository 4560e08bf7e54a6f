//! When a group is evaluated: at multiples of its interval, moved by a share of it that its name decides, so that
//! groups are spread over time, and the same after every restart and in Prometheus.

use std::time::Duration;

use model::{Labels, Timestamp};
use xxhash_rust::xxh64::xxh64;

const NANOS_PER_MILLI: i128 = 1_000_000;

/// The times of a group, in nanoseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Schedule {
    interval: i128,
    offset: i128,
}

/// One time of a group, in nanoseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(i128);

impl Slot {
    /// The slot as the time of samples.
    pub(super) fn timestamp(self) -> Timestamp {
        Timestamp(i64::try_from(self.0.div_euclid(NANOS_PER_MILLI)).unwrap_or(i64::MAX))
    }
}

impl Schedule {
    pub(super) fn new(file: &str, name: &str, interval: Duration) -> Self {
        let interval = i128::try_from(interval.as_nanos()).unwrap_or(i128::MAX).max(1);
        // The hash of Prometheus's labels, which lie in memory as ours do while they are short.
        let labels = Labels::from_pairs([("file", file), ("name", name)]);
        let hash = xxh64(labels.as_encoded().as_bytes(), 0);
        Self { interval, offset: i128::from(hash) % interval }
    }

    /// The first slot after a time.
    pub(super) fn after(&self, now: Timestamp) -> Slot {
        let moved = i128::from(now.millis()) * NANOS_PER_MILLI - self.offset;
        Slot(moved.div_euclid(self.interval) * self.interval + self.offset + self.interval)
    }

    /// The slot to evaluate behind one that was, and how many are missed by then.
    pub(super) fn following(&self, slot: Slot, now: Timestamp) -> (Slot, u64) {
        let late = i128::from(now.millis()) * NANOS_PER_MILLI - slot.0;
        let missed = (late / self.interval - 1).max(0);
        (Slot(slot.0 + (missed + 1) * self.interval), u64::try_from(missed).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_prometheus() {
        // Prometheus 3.5 evaluated group g of file r.yaml every 10 s at 3.421 s past, and some milliseconds later.
        let schedule = Schedule::new("r.yaml", "g", Duration::from_secs(10));
        let slot = schedule.after(Timestamp(1_795_683_470_000));
        assert_eq!(slot.timestamp(), Timestamp(1_795_683_473_421));
        assert_eq!(schedule.after(Timestamp(1_795_683_473_424)).timestamp(), Timestamp(1_795_683_483_421));
    }

    #[test]
    fn what_is_late_is_missed() {
        let schedule = Schedule { interval: 10 * 1_000 * NANOS_PER_MILLI, offset: 0 };
        let slot = schedule.after(Timestamp(95_000));
        assert_eq!(slot.timestamp(), Timestamp(100_000));
        for (now, next, missed) in [
            (100_500, 110_000, 0),
            (109_999, 110_000, 0),
            (119_999, 110_000, 0),
            (120_000, 120_000, 1),
            (155_000, 150_000, 4),
        ] {
            let (following, count) = schedule.following(slot, Timestamp(now));
            assert_eq!((following.timestamp(), count), (Timestamp(next), missed), "{now}");
        }
        assert_eq!(schedule.after(Timestamp(-5_000)).timestamp(), Timestamp(0));
    }
}
