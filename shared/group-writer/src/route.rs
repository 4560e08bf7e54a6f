//! Where each group's samples go: to their home, or, marked as displaced, to the next choice while the home is in
//! trouble.
//!
//! Invariants:
//! - a home that is *away* (dead, or hung and not answering a probe) is passed over for all of its groups;
//! - a home that is only *slow* is passed over for one in [`SLOW_SHARE`] of its groups, always the same ones; for the
//!   others it slows its writers, so that overload is felt where it comes from and does not travel;
//! - a displaced group stays where it is until its home has been well for [`SETTLE_TIME`], so that a home that
//!   comes and goes does not tear series apart;
//! - with nobody better to go to, a group goes home, and the group of a rule group always does: its home alone tells
//!   an evaluator of before from the present one.

use std::collections::HashSet;
use std::time::Duration;

use coordination::{Member, placement};
use model::labels::RULE_GROUP;
use tokio::time::Instant;
use xxhash_rust::xxh64::xxh64;

use crate::group::GroupIdentity;

/// How long a home has to be well before its groups come back.
pub(crate) const SETTLE_TIME: Duration = Duration::from_secs(5 * 60);
/// Of how many groups of a slow home one is displaced.
const SLOW_SHARE: u64 = 10;
/// The hash seed of that draw; a group's home is drawn with another.
const SLOW_SEED: u64 = 0x7472_6962_736c_6f77;

/// How a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// It takes samples.
    Well,
    /// Something waits for it for long, but it lives.
    Slow,
    /// It does not answer.
    Away,
}

/// What is remembered of one member as a home.
#[derive(Debug, Default)]
pub(crate) struct Home {
    /// Groups that go elsewhere.
    displaced: HashSet<u64>,
    /// Since when it is well, once it was not.
    well_since: Option<Instant>,
}

impl Home {
    /// Takes note of how the member is; lets its groups come back once it has been well for long.
    fn note(&mut self, condition: Condition, now: Instant) {
        if condition != Condition::Well {
            self.well_since = None;
        } else if !self.displaced.is_empty() && now - *self.well_since.get_or_insert(now) >= SETTLE_TIME {
            self.displaced.clear();
        }
    }
}

/// Returns the index of the member that a group's next samples go to, and whether that is not its home; `None` without
/// members. `homes` and `condition` speak of the members by index.
pub(crate) fn route(
    (group, identity): (u64, &GroupIdentity),
    members: &[Member],
    homes: &mut [Home],
    condition: impl Fn(usize) -> Condition,
    now: Instant,
) -> Option<(usize, bool)> {
    let key = identity.key.as_encoded().as_bytes();
    let home = placement::home(&identity.tenant, key, identity.sub_group, members)?;
    if identity.key.has(RULE_GROUP) {
        return Some((home, false));
    }
    let (at_home, state) = (condition(home), &mut homes[home]);
    state.note(at_home, now);
    let is_wanted = match at_home {
        Condition::Away => true,
        Condition::Slow => state.displaced.contains(&group) || is_in_slow_share(key),
        Condition::Well => state.displaced.contains(&group),
    };
    if !is_wanted {
        return Some((home, false));
    }
    let choices = placement::homes(&identity.tenant, key, identity.sub_group, members);
    let Some(next) = choices.into_iter().skip(1).find(|i| condition(*i) == Condition::Well) else {
        return Some((home, false));
    };
    state.displaced.insert(group);
    Some((next, true))
}

fn is_in_slow_share(key: &[u8]) -> bool {
    xxh64(key, SLOW_SEED).is_multiple_of(SLOW_SHARE)
}

#[cfg(test)]
mod tests {
    use model::{Labels, Tenant};

    use super::*;
    use Condition::{Away, Slow, Well};

    /// Three members and a hundred groups.
    struct Story {
        members: Vec<Member>,
        homes: Vec<Home>,
        now: Instant,
    }

    impl Story {
        fn new() -> Self {
            let members = (0..3).map(|n| Member::new(n, format!("m{n}"), "")).collect();
            let homes = (0..3).map(|_| Home::default()).collect();
            Self { members, homes, now: Instant::now() }
        }

        /// Where the groups go: by member, how many come home and how many come displaced.
        fn round(&mut self, conditions: [Condition; 3]) -> [(usize, usize); 3] {
            let mut counts = [(0, 0); 3];
            for group in 0..100 {
                let key = Labels::from_pairs([("instance", group.to_string())]);
                let identity = GroupIdentity { tenant: Tenant::default(), key, sub_group: 0, epoch: 0 };
                let (condition, of) = (|i: usize| conditions[i], (group, &identity));
                let (to, is_displaced) =
                    route(of, &self.members, &mut self.homes, condition, self.now).expect("members");
                if is_displaced { counts[to].1 += 1 } else { counts[to].0 += 1 }
            }
            counts
        }
    }

    #[test]
    fn a_home_that_is_away_is_passed_over_and_returned_to_when_it_has_settled() {
        let mut story = Story::new();
        let [a, b, c] = story.round([Well; 3]).map(|(home, displaced)| {
            assert_eq!(displaced, 0);
            home
        });
        assert!(a + b + c == 100 && a > 15 && b > 15 && c > 15, "{a} {b} {c}");

        let away = story.round([Away, Well, Well]);
        assert_eq!((away[0], away[1].0, away[2].0, away[1].1 + away[2].1), ((0, 0), b, c, a));
        // Back, but not for long enough; the share of displaced samples is no matter then.
        story.now += SETTLE_TIME / 2;
        assert_eq!(story.round([Well; 3]), away);
        // Away once more: the time begins anew.
        assert_eq!(story.round([Away, Well, Well]), away);
        assert_eq!(story.round([Well; 3]), away);
        story.now += SETTLE_TIME - Duration::from_millis(1);
        assert_eq!(story.round([Well; 3]), away);
        story.now += Duration::from_millis(1);
        assert_eq!(story.round([Well; 3]), [(a, 0), (b, 0), (c, 0)]);
    }

    #[test]
    fn a_slow_home_keeps_all_but_a_tenth_of_its_groups() {
        let mut story = Story::new();
        let well = story.round([Well; 3]);
        let slow = story.round([Slow, Well, Well]);
        let displaced = slow[1].1 + slow[2].1;
        // Of some thirty groups three are drawn on average; the draw is fixed.
        assert!((1..=6).contains(&displaced), "{displaced} of {}", well[0].0);
        assert_eq!(slow[0], (well[0].0 - displaced, 0));
        assert_eq!(story.round([Slow, Well, Well]), slow, "always the same ones");
        assert_eq!(story.round([Well; 3]), slow, "not settled");
        story.now += SETTLE_TIME;
        assert_eq!(story.round([Well; 3]), well);
    }

    #[test]
    fn a_rule_group_goes_home_whatever_its_home_does() {
        let mut story = Story::new();
        for group in 0..20 {
            let key = Labels::from_pairs([("__rule_group__", group.to_string())]);
            let identity = GroupIdentity { tenant: Tenant::default(), key, sub_group: 0, epoch: 0 };
            let mut to = |condition: Condition| {
                route((group, &identity), &story.members, &mut story.homes, |_| condition, story.now)
            };
            let home = to(Well);
            assert!(home.is_some_and(|(_, is_displaced)| !is_displaced));
            assert_eq!((to(Slow), to(Away)), (home, home));
        }
    }

    #[test]
    fn with_nobody_better_a_group_goes_home() {
        let mut story = Story::new();
        let well = story.round([Well; 3]);
        assert_eq!(story.round([Away; 3]), well);
        assert_eq!(story.round([Slow; 3]), well);
        let none = GroupIdentity { tenant: Tenant::default(), key: Labels::empty(), sub_group: 0, epoch: 0 };
        assert_eq!(route((1, &none), &[], &mut [], |_| Well, story.now), None);
    }
}
