//! When a target is scraped.
//!
//! The ticks of a target lie on a grid that depends on absolute time, the target and the scraper alone, so that a
//! restart goes on in the same rhythm and targets are spread over the interval.
//!
//! Invariant: a tick is never used twice, whatever the clock does, unless it is set back by more than an interval.

use std::time::Duration;

use model::{Labels, Timestamp};

/// The largest distance from a tick at which a scrape is still given the tick's timestamp: that of Prometheus, which
/// also limits it to a hundredth of the interval.
const TOLERANCE_MS: i64 = 2;

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The FNV-1a hash of some bytes, in 64 bits.
fn fnv1a<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let bytes = parts.into_iter().flatten();
    bytes.fold(FNV_OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME))
}

/// What makes the offsets of one server differ from those of another that scrapes the same targets.
pub(crate) fn offset_seed(host: &str, external_labels: &Labels) -> u64 {
    fnv1a([host.as_bytes(), external_labels.to_string().as_bytes()])
}

/// The ticks of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Schedule {
    interval_ms: i64,
    offset_ms: i64,
    /// The tick of the latest scrape.
    last: Option<Timestamp>,
}

impl Schedule {
    /// Makes the ticks of a target; `labels_hash` and `url` tell it from others.
    pub(crate) fn new(interval: Duration, labels_hash: u64, url: &str, seed: u64) -> Self {
        let interval_ms = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1);
        let interval_ns = u64::try_from(interval_ms).unwrap_or(1).saturating_mul(1_000_000);
        let hash = fnv1a([format!("{labels_hash:016}").as_bytes(), url.as_bytes()]);
        let offset_ns = (hash ^ seed) % interval_ns;
        let offset_ms = i64::try_from(offset_ns / 1_000_000).unwrap_or(0);
        Self { interval_ms, offset_ms, last: None }
    }

    /// Goes on with these ticks where others were used before.
    pub(crate) fn after(self, before: &Self) -> Self {
        Self { last: before.last, ..self }
    }

    /// Says whether the ticks are the same.
    pub(crate) fn is_same_grid(&self, other: &Self) -> bool {
        (self.interval_ms, self.offset_ms) == (other.interval_ms, other.offset_ms)
    }

    /// Returns the tick to wait for; it may have passed.
    pub(crate) fn next(&self, now: Timestamp) -> Timestamp {
        let upcoming = self.tick_at_or_before(now).add_ms(self.interval_ms);
        match self.last {
            None => upcoming,
            // The clock was set back: waiting for the old ticks would stop the target for as long.
            Some(last) if last.since_ms(now) > self.interval_ms => upcoming,
            // The first tick above the last one, also when that one was on another grid.
            Some(last) => self.tick_at_or_before(last.add_ms(self.interval_ms)),
        }
    }

    /// How many milliseconds before or after its tick a scrape still counts as on time.
    pub(crate) fn tolerance_ms(&self) -> i64 {
        (self.interval_ms / 100).min(TOLERANCE_MS)
    }

    /// Returns the timestamp of a scrape that starts now, and remembers its tick.
    pub(crate) fn stamp(&mut self, now: Timestamp) -> Timestamp {
        let tolerance = self.tolerance_ms();
        // A tick that is due within the tolerance counts as reached: timers may fire early.
        let tick = self.tick_at_or_before(now.add_ms(tolerance));
        self.last = Some(tick);
        if now.since_ms(tick).abs() <= tolerance { tick } else { now }
    }

    fn tick_at_or_before(&self, time: Timestamp) -> Timestamp {
        let past = time.since_ms(Timestamp(self.offset_ms)).rem_euclid(self.interval_ms);
        time.add_ms(-past)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schedule(interval_ms: i64, offset_ms: i64) -> Schedule {
        Schedule { interval_ms, offset_ms, last: None }
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        // Test vectors of draft-eastlake-fnv.
        for (text, hash) in
            [("", 0xcbf2_9ce4_8422_2325), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)]
        {
            assert_eq!(fnv1a([text.as_bytes()]), hash);
        }
        let labels = Labels::from_pairs([("b", "2"), ("a", "1")]);
        assert_eq!(offset_seed("host", &labels), fnv1a([&b"host{a=\"1\", b=\"2\"}"[..]]));
        let expected = (fnv1a([&b"0000000000000007http://h/"[..]]) ^ 9) % 15_000_000_000 / 1_000_000;
        let schedule = Schedule::new(Duration::from_secs(15), 7, "http://h/", 9);
        assert_eq!(schedule.offset_ms, i64::try_from(expected).unwrap());
    }

    #[test]
    fn ticks_lie_on_an_absolute_grid() {
        let schedule = schedule(15_000, 4_000);
        for (now, next) in [(0, 4_000), (3_999, 4_000), (4_000, 19_000), (18_999, 19_000), (-15_000, -11_000)]
        {
            assert_eq!(schedule.next(Timestamp(now)), Timestamp(next), "{now}");
        }
    }

    #[test]
    fn timestamps_are_aligned_within_the_tolerance_of_prometheus() {
        for (interval, now, stamp) in [
            (15_000, 15_000, 15_000),
            (15_000, 14_998, 15_000),
            (15_000, 15_002, 15_000),
            (15_000, 15_003, 15_003),
            (15_000, 14_997, 14_997),
            // A hundredth of the interval is the limit for short ones.
            (100, 1_001, 1_000),
            (100, 1_002, 1_002),
            (50, 1_001, 1_001),
        ] {
            assert_eq!(schedule(interval, 0).stamp(Timestamp(now)), Timestamp(stamp), "{interval} {now}");
        }
    }

    #[test]
    fn late_scrapes_follow_at_once_and_missed_ticks_are_left_out() {
        let mut schedule = schedule(10_000, 0);
        schedule.stamp(Timestamp(10_000));
        assert_eq!(schedule.next(Timestamp(10_000)), Timestamp(20_000));
        assert_eq!(schedule.next(Timestamp(20_500)), Timestamp(20_000), "its scrape is overdue");
        assert_eq!(schedule.stamp(Timestamp(47_000)), Timestamp(47_000));
        assert_eq!(schedule.next(Timestamp(47_001)), Timestamp(50_000));
        // A timer that fires early does not make the same tick come twice.
        assert_eq!(schedule.stamp(Timestamp(49_999)), Timestamp(50_000));
        assert_eq!(schedule.next(Timestamp(49_999)), Timestamp(60_000));
        assert_eq!(schedule.next(Timestamp(1_000)), Timestamp(10_000), "the clock was set back");
    }

    proptest! {
        #[test]
        fn ticks_ascend_over_changes_of_the_grid(
            grids in prop::collection::vec((1_i64..60_000, 0_i64..60_000, 0_i64..5_000), 1..20),
        ) {
            let mut now = 1_000_000;
            let mut before: Option<Schedule> = None;
            let mut last = Timestamp::MIN;
            for (interval, offset, late) in grids {
                let mut grid = schedule(interval, offset % interval);
                if let Some(before) = &before {
                    grid = grid.after(before);
                }
                let tick = grid.next(Timestamp(now));
                prop_assert!(tick > last && tick.since_ms(Timestamp(now)) <= interval + TOLERANCE_MS);
                prop_assert_eq!(tick.since_ms(Timestamp(offset % interval)) % interval, 0);
                now = now.max(tick.millis());
                let stamp = grid.stamp(Timestamp(now));
                prop_assert!(stamp > last);
                last = grid.last.unwrap();
                now += late;
                before = Some(grid);
            }
        }
    }
}
