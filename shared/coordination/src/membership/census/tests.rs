use bytes::Bytes;

use super::*;
use crate::coordinator::{Entry, Lease};

/// Members named `m0`, `m1` ... as the store has them, and the census that follows it.
struct World {
    census: Census,
    now: Instant,
    revision: u64,
}

impl World {
    fn new() -> Self {
        Self { census: Census::new(Role::Ingester), now: Instant::now(), revision: 0 }
    }

    fn event(&mut self, key: &str, change: Change) {
        self.revision += 1;
        let event =
            Event { key: format!("members/ingester/{key}"), revision: Revision(self.revision), change };
        self.census.changed(&event, self.now).expect("readable");
    }

    fn known(&mut self, number: u32) {
        self.event(&format!("known/{number:05}"), put(&record(number)));
    }

    fn live(&mut self, number: u32) {
        self.event(&format!("live/{number:05}"), put(&format!("m{number}")));
    }

    fn lost(&mut self, number: u32) {
        self.event(&format!("live/{number:05}"), Change::Deleted);
    }

    fn left(&mut self, number: u32) {
        self.event(&format!("known/{number:05}"), Change::Deleted);
        self.lost(number);
    }

    fn join(&mut self, number: u32) {
        self.known(number);
        self.live(number);
    }

    fn list(&mut self, known: &[u32], live: &[u32]) {
        self.revision += 1;
        let entry = |key: String, value: String| Entry {
            key: format!("members/ingester/{key}"),
            value: value.into(),
            revision: Revision(self.revision),
            lease: None,
        };
        let known = known.iter().map(|n| entry(format!("known/{n:05}"), record(*n)));
        let live = live.iter().map(|n| entry(format!("live/{n:05}"), format!("m{n}")));
        let snapshot = Snapshot { entries: known.chain(live).collect(), revision: Revision(self.revision) };
        self.census.listed(&snapshot, self.now).expect("readable");
    }

    /// Lets time pass; whoever is probed is found alive if `alive` names its number.
    fn pass(&mut self, time: Duration, alive: &[u32]) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_secs(1);
            self.census.passed(self.now);
            for member in self.census.take_due_probes(self.now) {
                self.census.probed(&member, alive.contains(&member.number), self.now);
            }
        }
    }

    fn listed(&self) -> Vec<u32> {
        self.census.members().iter().map(|member| member.number).collect()
    }
}

fn put(value: &str) -> Change {
    Change::Put { value: Bytes::from(value.to_owned()), lease: Some(Lease(1)) }
}

fn record(number: u32) -> String {
    format!(r#"{{"name":"m{number}","address":"h:{number}"}}"#)
}

const ALL: [u32; 4] = [0, 1, 2, 3];
const MINUTES: Duration = Duration::from_secs(600);

fn four() -> World {
    let mut world = World::new();
    ALL.iter().for_each(|number| world.join(*number));
    assert_eq!(world.listed(), ALL);
    world
}

#[test]
fn who_leaves_is_gone_and_who_is_lost_is_asked() {
    let mut world = four();
    world.left(0);
    assert_eq!(world.listed(), [1, 2, 3]);
    world.lost(1);
    assert_eq!(world.listed(), [1, 2, 3]);
    world.pass(Duration::from_secs(1), &[]);
    assert_eq!(world.listed(), [1, 2, 3], "one probe that failed is not enough");
    world.pass(Duration::from_secs(2), &[]);
    assert_eq!(world.listed(), [2, 3]);
    world.live(1);
    assert_eq!(world.listed(), [1, 2, 3], "it has come back");
}

#[test]
fn a_single_member_that_answers_but_never_comes_back_is_dropped_in_the_end() {
    let mut world = four();
    world.lost(1);
    world.pass(DOUBT_MAX - Duration::from_secs(1), &[1]);
    assert_eq!(world.listed(), ALL);
    world.pass(Duration::from_secs(1), &[1]);
    assert_eq!(world.listed(), [0, 2, 3]);
    world.pass(MINUTES, &[1]);
    assert_eq!(world.listed(), [0, 2, 3]);
    world.live(1);
    assert_eq!(world.listed(), ALL);
}

#[test]
fn most_members_in_doubt_are_etcds_fault() {
    let mut world = four();
    [1, 2, 3].iter().for_each(|number| world.lost(*number));
    world.pass(MINUTES, &ALL);
    assert_eq!(world.listed(), ALL, "three of four: waited for as long as they answer");
    world.pass(Duration::from_secs(3), &[1, 2]);
    assert_eq!(world.listed(), [0, 1, 2], "who does not answer is dropped all the same");
    world.live(2);
    world.pass(DOUBT_MAX - Duration::from_secs(1), &[1]);
    assert_eq!(world.listed(), [0, 1, 2], "its time begins when most are back");
    world.pass(Duration::from_secs(1), &[1]);
    assert_eq!(world.listed(), [0, 2]);
}

#[test]
fn half_of_the_members_are_not_most() {
    let mut world = four();
    [2, 3].iter().for_each(|number| world.lost(*number));
    world.pass(DOUBT_MAX, &ALL);
    assert_eq!(world.listed(), [0, 1]);
}

#[test]
fn the_dead_of_long_ago_do_not_count() {
    let mut world = World::new();
    world.list(&[0, 1, 2, 3, 4, 5], &[0, 1]);
    assert!(!world.census.is_judged());
    world.pass(Duration::from_secs(3), &[]);
    assert!(world.census.is_judged());
    world.lost(1);
    world.pass(DOUBT_MAX, &[1]);
    assert_eq!(world.listed(), [0], "one of two, not five of six");
}

#[test]
fn a_new_list_drops_nobody_who_lives() {
    let mut world = four();
    world.list(&[], &[]);
    assert_eq!(world.listed(), ALL, "etcd has lost everything");
    world.pass(MINUTES, &[0, 1, 2]);
    assert_eq!(world.listed(), [0, 1, 2]);
    world.list(&[0, 1], &[0]);
    assert_eq!(world.listed(), [0, 1, 2]);
    world.pass(DOUBT_MAX, &[1]);
    assert_eq!(world.listed(), [0, 1], "its time began when two of the three had new leases or were dead");
}

#[test]
fn a_name_has_one_number_and_a_number_one_name() {
    let mut world = four();
    world.lost(0);
    world.event("known/00007", put(&record(0)));
    assert_eq!(world.listed(), [1, 2, 3], "in doubt under the old number, not there yet under the new one");
    world.event("live/00007", put("m0"));
    assert_eq!(world.listed(), [1, 2, 3, 7]);
    world.event("known/00001", put(&record(9)));
    world.event("live/00001", put("m1"));
    assert_eq!(world.listed(), [2, 3, 7], "the lease of an earlier holder says nothing about this one");
    world.event("live/00001", put("m9"));
    assert_eq!(world.listed(), [1, 2, 3, 7]);
}

#[test]
fn members_given_by_hand_need_no_lease() {
    let mut world = World::new();
    world.event("known/00000", put(r#"{"name":"h:1","address":"h:1","given":true}"#));
    world.lost(0);
    world.pass(MINUTES, &[]);
    assert_eq!(world.listed(), [0]);
    assert!(world.census.take_forgotten(world.now + FORGET_AFTER).is_empty());
}

#[test]
fn the_dead_are_forgotten_once_an_hour() {
    let mut world = four();
    world.lost(3);
    world.pass(Duration::from_secs(10), &[]);
    assert!(world.census.take_forgotten(world.now).is_empty());
    // Known since the seventh change: four members wrote two keys each.
    assert_eq!(world.census.take_forgotten(world.now + FORGET_AFTER), [(3, Revision(7))]);
    assert!(world.census.take_forgotten(world.now + FORGET_AFTER).is_empty());
}
