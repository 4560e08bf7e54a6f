//! Finds the lists of times that rows of a file have in common.
//!
//! A list that is the beginning or the end of a longer one points into that one: series that came or went within the
//! window still share with their neighbours.

use std::collections::HashMap;

/// Longer lists looked at for a shorter one, at each end. Bounds the cost when many lists begin or end together.
const CANDIDATES_MAX: usize = 8;

/// Where the times of a row are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// In the row itself, since no other row has them.
    Own,
    /// In a timeline row.
    Shared {
        /// The timeline row's number.
        timeline: usize,
        /// The first time, counted from the timeline's beginning.
        offset: usize,
    },
}

/// The timelines of a file, and where each row finds its times.
#[derive(Debug)]
pub(crate) struct Timelines<'a> {
    /// The lists that become timeline rows, by number.
    pub shared: Vec<&'a [i64]>,
    /// One placement for each list given.
    pub placements: Vec<Placement>,
}

/// A distinct list that no longer list holds.
struct Root<'a> {
    times: &'a [i64],
    uses: usize,
}

/// Places lists of times; empty ones are their own.
pub(crate) fn place<'a>(lists: &[&'a [i64]]) -> Timelines<'a> {
    let (distinct, which) = distinct_lists(lists);

    // Long before short, so that what could hold a list is placed before it.
    let mut order: Vec<usize> = (0..distinct.len()).collect();
    order.sort_by(|a, b| distinct[*b].times.len().cmp(&distinct[*a].times.len()).then(a.cmp(b)));
    let mut roots: Vec<Root<'a>> = Vec::new();
    let mut by_first: HashMap<i64, Vec<usize>> = HashMap::new();
    let mut by_last: HashMap<i64, Vec<usize>> = HashMap::new();
    let mut places: Vec<(usize, usize)> = vec![(0, 0); distinct.len()];
    for index in order {
        let Root { times, uses } = distinct[index];
        let (Some(first), Some(last)) = (times.first(), times.last()) else { continue };
        let candidates = |map: &HashMap<i64, Vec<usize>>, key: &i64| {
            map.get(key).map(|c| c[..c.len().min(CANDIDATES_MAX)].to_vec()).unwrap_or_default()
        };
        let as_beginning = candidates(&by_first, first)
            .into_iter()
            .find(|r| roots[*r].times.starts_with(times))
            .map(|r| (r, 0));
        let found = as_beginning.or_else(|| {
            let root = candidates(&by_last, last).into_iter().find(|r| roots[*r].times.ends_with(times))?;
            Some((root, roots[root].times.len() - times.len()))
        });
        places[index] = found.unwrap_or_else(|| {
            by_first.entry(*first).or_default().push(roots.len());
            by_last.entry(*last).or_default().push(roots.len());
            roots.push(Root { times, uses: 0 });
            (roots.len() - 1, 0)
        });
        roots[places[index].0].uses += uses;
    }

    let mut shared = Vec::new();
    let numbers: Vec<Option<usize>> = roots
        .iter()
        .map(|root| {
            (root.uses > 1).then(|| {
                shared.push(root.times);
                shared.len() - 1
            })
        })
        .collect();
    let placements = lists
        .iter()
        .zip(which)
        .map(|(list, index)| {
            let (root, offset) = places[index];
            match numbers.get(root).copied().flatten() {
                Some(timeline) if !list.is_empty() => Placement::Shared { timeline, offset },
                _ => Placement::Own,
            }
        })
        .collect();
    Timelines { shared, placements }
}

/// Finds equal lists: each distinct one with its uses, and for each list given which one it is.
fn distinct_lists<'a>(lists: &[&'a [i64]]) -> (Vec<Root<'a>>, Vec<usize>) {
    let mut distinct: Vec<Root<'a>> = Vec::new();
    let mut by_content: HashMap<&'a [i64], usize> = HashMap::new();
    // Most lists are the same memory as one seen before; that is found without reading it.
    let mut by_address: HashMap<(*const i64, usize), usize> = HashMap::new();
    let which = lists
        .iter()
        .map(|list| {
            let index = *by_address.entry((list.as_ptr(), list.len())).or_insert_with(|| {
                *by_content.entry(list).or_insert_with(|| {
                    distinct.push(Root { times: list, uses: 0 });
                    distinct.len() - 1
                })
            });
            distinct[index].uses += 1;
            index
        })
        .collect();
    (distinct, which)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_lists_share_and_single_ones_do_not() {
        let lists: [&[i64]; 6] = [&[1, 2, 3], &[7], &[1, 2, 3], &[], &[4, 5], &[]];
        let placed = place(&lists);
        assert_eq!(placed.shared, [&[1_i64, 2, 3][..]]);
        let shared = Placement::Shared { timeline: 0, offset: 0 };
        assert_eq!(
            placed.placements,
            [shared, Placement::Own, shared, Placement::Own, Placement::Own, Placement::Own]
        );
    }

    #[test]
    fn beginnings_and_ends_point_into_the_whole() {
        let lists: [&[i64]; 4] = [&[3, 4], &[1, 2, 3, 4], &[1], &[2, 3]];
        let placed = place(&lists);
        assert_eq!(placed.shared, [&[1_i64, 2, 3, 4][..]]);
        assert_eq!(
            placed.placements,
            [
                Placement::Shared { timeline: 0, offset: 2 },
                Placement::Shared { timeline: 0, offset: 0 },
                Placement::Shared { timeline: 0, offset: 0 },
                Placement::Own,
            ]
        );
    }

    #[test]
    fn only_so_many_longer_lists_are_looked_at() {
        // All begin together and end apart; the short one lies in the last of them alone.
        let long = |i: i64| vec![0, 100 + i, 200 + i, 300 + i];
        for (count, is_found) in [(8, true), (9, false)] {
            let mut lists: Vec<Vec<i64>> = (0..count).map(long).collect();
            lists.push(long(count - 1)[..2].to_vec());
            let slices: Vec<&[i64]> = lists.iter().map(Vec::as_slice).collect();
            let placed = place(&slices);
            assert_eq!(placed.placements.last() != Some(&Placement::Own), is_found, "{count}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_list_is_found_where_it_is_placed(
            lists in proptest::collection::vec(proptest::collection::btree_set(0_i64..6, 0..6), 0..20)
        ) {
            let lists: Vec<Vec<i64>> = lists.into_iter().map(|l| l.into_iter().collect()).collect();
            let slices: Vec<&[i64]> = lists.iter().map(Vec::as_slice).collect();
            let placed = place(&slices);
            for (list, placement) in slices.iter().zip(&placed.placements) {
                if let Placement::Shared { timeline, offset } = placement {
                    let found = &placed.shared[*timeline][*offset..*offset + list.len()];
                    proptest::prop_assert_eq!(found, *list);
                }
            }
            for (i, list) in slices.iter().enumerate().filter(|(_, l)| !l.is_empty()) {
                let is_repeated = slices.iter().enumerate().any(|(j, other)| i != j && other == list);
                proptest::prop_assert!(!is_repeated || placed.placements[i] != Placement::Own);
            }
        }
    }
}
