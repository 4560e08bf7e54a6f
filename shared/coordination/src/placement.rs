//! Where things live: pure functions of a key and a member list, the same for everybody who asks.
//!
//! Rendezvous hashing: each member scores each key, the highest score wins. A member that comes or goes moves only
//! the keys it wins or won, and the ranking below the winner is the list of next choices.
//!
//! Invariants:
//! - scores depend on the members' *numbers*, not on their addresses or their order in the list, so that a
//!   restarted member that takes its number again gets its keys again;
//! - the functions never change, since writers and readers of different versions must agree (golden test below).

use model::Tenant;
use xxhash_rust::xxh64::Xxh64;

use crate::membership::Member;

/// The hash seed of scrape groups; with it a group's place says nothing about the place of a target.
const GROUP_SEED: u64 = 0x7472_6962_6772_6f75;
/// The hash seed of targets and rule groups.
const WORK_SEED: u64 = 0x7472_6962_776f_726b;

/// Returns the index of the member that is home to a sub-group of a scrape group; `None` without members.
///
/// `group_key` is what names the group: a target's final labels, a resource's identity (see DESIGN section 4).
#[must_use]
pub fn home(tenant: &Tenant, group_key: &[u8], sub_group: u32, members: &[Member]) -> Option<usize> {
    first(group_hash(tenant, group_key, sub_group), members)
}

/// Returns the indexes of all members, the home of a sub-group first, then the next choices in order.
#[must_use]
pub fn homes(tenant: &Tenant, group_key: &[u8], sub_group: u32, members: &[Member]) -> Vec<usize> {
    rank(group_hash(tenant, group_key, sub_group), members)
}

/// Returns the index of the member that does a piece of work (scrapes a target, evaluates a rule group, compacts
/// a day); `None` without members.
#[must_use]
pub fn worker(work_key: &[u8], members: &[Member]) -> Option<usize> {
    first(work_hash(work_key), members)
}

/// Returns the indexes of all members, the one that does a piece of work first, then the next choices in order.
#[must_use]
pub fn workers(work_key: &[u8], members: &[Member]) -> Vec<usize> {
    rank(work_hash(work_key), members)
}

/// Returns the sub-group of a series in a group that is cut into `sub_group_count` parts.
///
/// The count is a power of two (others count as the next lower one), so that doubling it splits each part in two
/// and moves nothing else.
#[must_use]
pub fn sub_group(series_id: u64, sub_group_count: u32) -> u32 {
    let count = 1_u32 << sub_group_count.max(1).ilog2();
    // The id is a hash already; its low bits serve tables elsewhere, so take them from the middle.
    let bits = (series_id >> 16) & u64::from(count - 1);
    u32::try_from(bits).expect("masked to below a 32-bit count")
}

fn group_hash(tenant: &Tenant, group_key: &[u8], sub_group: u32) -> u64 {
    let mut hasher = Xxh64::new(GROUP_SEED);
    let tenant = tenant.as_str().as_bytes();
    // Lengths first: (ab, c) and (a, bc) are two keys.
    hasher.update(&(tenant.len() as u64).to_le_bytes());
    hasher.update(tenant);
    hasher.update(&(group_key.len() as u64).to_le_bytes());
    hasher.update(group_key);
    hasher.update(&sub_group.to_le_bytes());
    hasher.digest()
}

fn work_hash(work_key: &[u8]) -> u64 {
    let mut hasher = Xxh64::new(WORK_SEED);
    hasher.update(work_key);
    hasher.digest()
}

fn first(key_hash: u64, members: &[Member]) -> Option<usize> {
    (0..members.len()).max_by_key(|index| order(key_hash, &members[*index]))
}

fn rank(key_hash: u64, members: &[Member]) -> Vec<usize> {
    let mut indexes: Vec<usize> = (0..members.len()).collect();
    indexes.sort_by_cached_key(|index| std::cmp::Reverse(order(key_hash, &members[*index])));
    indexes
}

/// A member's place for a key: by score, and of equal scores the lower number first.
fn order(key_hash: u64, member: &Member) -> (u64, std::cmp::Reverse<u32>) {
    (score(key_hash, member.number), std::cmp::Reverse(member.number))
}

/// The finaliser of SplitMix64 over both hashes: every bit of either changes about half of the result.
const fn score(key_hash: u64, number: u32) -> u64 {
    let mut x = key_hash ^ (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOLDEN: [[usize; 8]; 5] = [
        [1, 5, 2, 6, 0, 4, 7, 3],
        [1, 0, 7, 4, 5, 6, 2, 3],
        [5, 3, 0, 6, 1, 2, 7, 4],
        [4, 7, 5, 0, 6, 2, 3, 1],
        [4, 2, 0, 7, 1, 6, 3, 5],
    ];

    fn members(numbers: &[u32]) -> Vec<Member> {
        numbers.iter().map(|n| Member::new(*n, format!("m{n}"), format!("10.0.0.{n}:1"))).collect()
    }

    fn winner(key: &[u8], numbers: &[u32]) -> u32 {
        let members = members(numbers);
        members[home(&Tenant::default(), key, 0, &members).expect("not empty")].number
    }

    #[test]
    fn places_never_change_between_versions() {
        // Computed apart from this code, by a Python rendering of XXH64 and SplitMix64 from their descriptions.
        let all: Vec<u32> = (0..8).collect();
        let list = members(&all);
        let team = Tenant::new("team-1").expect("valid");
        let ranked: Vec<Vec<usize>> = vec![
            homes(&Tenant::default(), b"", 0, &list),
            homes(&Tenant::default(), b"job=a", 0, &list),
            homes(&Tenant::default(), b"job=a", 1, &list),
            homes(&team, b"job=a", 0, &list),
            workers(b"job=a", &list),
        ];
        assert_eq!(ranked, GOLDEN.map(|row| row.to_vec()));
    }

    #[test]
    fn nobody_is_home_to_anything_in_an_empty_list() {
        assert_eq!(home(&Tenant::default(), b"g", 0, &[]), None);
        assert_eq!(worker(b"g", &[]), None);
        assert!(homes(&Tenant::default(), b"g", 0, &[]).is_empty());
    }

    #[test]
    fn keys_spread_evenly() {
        let numbers: Vec<u32> = (0..10).collect();
        let mut counts = [0_u32; 10];
        for key in 0..20_000_u32 {
            counts[winner(&key.to_le_bytes(), &numbers) as usize] += 1;
        }
        // 2,000 each; the standard deviation of a fair draw is 42, five of them are 212.
        assert!(counts.iter().all(|count| (1_788..=2_212).contains(count)), "{counts:?}");
    }

    #[test]
    fn doubling_splits_each_sub_group_in_two() {
        for id in (0..1_000_u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            assert_eq!(sub_group(id, 0), 0);
            assert_eq!(sub_group(id, 1), 0);
            for count in [1, 2, 4, 1 << 20, 1 << 31] {
                assert!(sub_group(id, count) < count);
                assert_eq!(
                    sub_group(id, count + (count - 1)),
                    sub_group(id, count),
                    "no power of two: the next lower"
                );
            }
            assert_eq!(sub_group(id, 8) % 4, sub_group(id, 4));
        }
    }

    proptest! {
        #[test]
        fn a_member_that_leaves_moves_its_own_keys_only(key: [u8; 8], leaver in 0_u32..12) {
            let all: Vec<u32> = (0..12).collect();
            let rest: Vec<u32> = all.iter().copied().filter(|n| *n != leaver).collect();
            let (before, after) = (winner(&key, &all), winner(&key, &rest));
            prop_assert!(before == after || before == leaver);
        }

        #[test]
        fn order_and_address_of_members_do_not_matter(key: [u8; 8], rotate in 0_usize..12) {
            let all: Vec<u32> = (0..12).collect();
            let mut turned = all.clone();
            turned.rotate_left(rotate);
            prop_assert_eq!(winner(&key, &all), winner(&key, &turned));
        }

        #[test]
        fn the_home_is_the_first_of_the_ranking(key: [u8; 8], sub in 0_u32..64) {
            let list = members(&[3, 1, 4, 5, 9, 2, 6]);
            let ranking = homes(&Tenant::default(), &key, sub, &list);
            prop_assert_eq!(home(&Tenant::default(), &key, sub, &list), ranking.first().copied());
            let mut sorted = ranking;
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..7).collect::<Vec<_>>());
        }
    }
}
