//! Which scraper scrapes what, and which querier evaluates which rules.
//!
//! A target belongs to the scraper that wins it by rendezvous hashing over the live scrapers, so a scraper that comes
//! or goes moves its own share and nothing else; rule groups and queriers likewise. Each time a target is given to a
//! scraper it gets a new epoch; who scrapes with an older one is told apart by the log.
//!
//! Invariants:
//! - what stays with its worker keeps its epoch;
//! - without any live worker the last known assignment stands: a member list that is empty is more likely a fault
//!   of the list than the end of all workers.

use std::collections::BTreeMap;
use std::sync::Arc;

use coordination::{Epoch, Member, placement};

/// What is assigned.
pub trait Work: Ord + Clone {
    /// Returns what says which member wins it.
    fn work_key(&self) -> Vec<u8>;
}

/// Who has a piece of work, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The worker's name.
    pub worker: Arc<str>,
    /// The epoch in which it was given the work.
    pub epoch: Epoch,
}

/// All assignments of one kind of work.
pub type Assignments<W> = BTreeMap<W, Assignment>;

/// Assigns work to members; `epoch` is greater than all handed out before.
#[must_use]
pub fn assign<W: Work>(
    work: impl IntoIterator<Item = W>,
    members: &[Member],
    previous: &Assignments<W>,
    epoch: Epoch,
) -> Assignments<W> {
    let names: Vec<Arc<str>> = members.iter().map(|member| Arc::from(member.name.as_str())).collect();
    let mut assignments = Assignments::new();
    for one in work {
        let before = previous.get(&one);
        let assignment = match placement::worker(&one.work_key(), members) {
            None => before.cloned(),
            Some(winner) => match before {
                Some(before) if before.worker == names[winner] => Some(before.clone()),
                _ => Some(Assignment { worker: names[winner].clone(), epoch }),
            },
        };
        if let Some(assignment) = assignment {
            assignments.insert(one, assignment);
        }
    }
    assignments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prometheus_config::{Variables, check_text};
    use crate::targets::{TargetId, build_pool};

    fn ids(count: usize) -> Vec<TargetId> {
        let config =
            check_text("p.yml", "scrape_configs: [{job_name: j}]\n", &Variables::new()).expect("loads");
        let group =
            crate::target_group::TargetGroup::new("0", (0..count).map(|i| format!("h{i}")).collect(), []);
        build_pool(&config.jobs[0], [&group]).targets.iter().map(|target| target.id).collect()
    }

    fn members(names: &[(u32, &str)]) -> Vec<Member> {
        names.iter().map(|(number, name)| Member::new(*number, *name, "")).collect()
    }

    fn of(assignments: &Assignments<TargetId>, scraper: &str) -> Vec<TargetId> {
        assignments.iter().filter(|(_, a)| &*a.worker == scraper).map(|(id, _)| *id).collect()
    }

    #[test]
    fn one_scraper_scrapes_everything_and_none_changes_nothing() {
        let ids = ids(20);
        let first = assign(ids.clone(), &members(&[(0, "a")]), &Assignments::new(), Epoch(5));
        assert_eq!(of(&first, "a").len(), 20);
        assert_eq!(assign(ids.clone(), &[], &first, Epoch(6)), first);
        assert!(assign(ids, &[], &Assignments::new(), Epoch(6)).is_empty());
    }

    #[test]
    fn only_what_changes_hands_gets_a_new_epoch() {
        let ids = ids(200);
        let two = members(&[(0, "a"), (1, "b")]);
        let before = assign(ids.clone(), &two, &Assignments::new(), Epoch(5));
        let three = members(&[(0, "a"), (1, "b"), (2, "c")]);
        let after = assign(ids.clone(), &three, &before, Epoch(6));
        let (mut stayed, mut moved) = (0, 0);
        for id in &ids {
            if before[id].worker == after[id].worker {
                assert_eq!(after[id].epoch, Epoch(5));
                stayed += 1;
            } else {
                assert_eq!(
                    (&*after[id].worker, after[id].epoch),
                    ("c", Epoch(6)),
                    "only to the one that came"
                );
                moved += 1;
            }
        }
        // A third each, give or take: the standard deviation of 200 fair draws is under 7.
        assert!((40..=95).contains(&moved) && stayed + moved == 200, "{moved} moved");
        let back = assign(ids.clone(), &two, &after, Epoch(7));
        for id in &ids {
            assert_eq!(back[id].worker, before[id].worker);
            assert_eq!(back[id].epoch == Epoch(7), after[id].worker != before[id].worker);
        }
    }

    #[test]
    fn a_target_that_comes_back_gets_a_new_epoch() {
        let ids = ids(1);
        let one = members(&[(0, "a")]);
        let first = assign(ids.clone(), &one, &Assignments::new(), Epoch(1));
        let gone = assign([], &one, &first, Epoch(2));
        assert!(gone.is_empty());
        assert_eq!(assign(ids.clone(), &one, &gone, Epoch(3))[&ids[0]].epoch, Epoch(3));
    }
}
