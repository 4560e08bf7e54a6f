use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt as _;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::*;
use crate::InMemory;

const TTL: Duration = Duration::from_secs(10);

fn store() -> Arc<dyn Coordinator> {
    Arc::new(InMemory::new())
}

async fn join(store: &Arc<dyn Coordinator>, name: &str, address: &str) -> Membership {
    Membership::join(store.clone(), Role::Ingester, name, address, TTL).await.expect("joins")
}

async fn numbers(store: &Arc<dyn Coordinator>) -> Vec<(u32, String)> {
    let roster = list(&**store, Role::Ingester).await.expect("listed");
    roster.members.iter().map(|m| (m.number, format!("{}@{}", m.name, m.address))).collect()
}

#[test]
fn roles_print_and_parse() {
    for role in Role::ALL {
        assert_eq!(role.to_string().parse(), Ok(role));
    }
    assert_eq!(
        "ruler".parse::<Role>(),
        Err("unknown role \"ruler\": want one of discovery, ingester, querier, gateway, scraper".to_owned())
    );
}

#[tokio::test(start_paused = true)]
async fn members_take_the_lowest_free_number_and_keep_it_over_a_restart() {
    let store = store();
    let a = join(&store, "a", "10.0.0.1:1").await;
    let _b = join(&store, "b", "10.0.0.2:1").await;
    let _c = join(&store, "c", "10.0.0.3:1").await;
    a.leave().await.expect("leaves");
    let _d = join(&store, "d", "10.0.0.4:1").await;
    // b comes back elsewhere before its lease ends.
    let _b_again = join(&store, "b", "10.0.0.9:1").await;
    let expected = [(0, "d@10.0.0.4:1"), (1, "b@10.0.0.9:1"), (2, "c@10.0.0.3:1")];
    assert_eq!(numbers(&store).await, expected.map(|(n, m)| (n, m.to_owned())));
}

#[tokio::test(start_paused = true)]
async fn the_earlier_lease_of_a_restarted_member_takes_nothing_with_it() {
    let store = store();
    let first = join(&store, "a", "10.0.0.1:1").await;
    let _second = join(&store, "a", "10.0.0.2:1").await;
    first.leave().await.expect("leaves");
    assert_eq!(numbers(&store).await, [(0, "a@10.0.0.2:1".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn a_member_stays_while_it_is_kept_and_goes_when_it_is_not() {
    let store = store();
    let mut kept = join(&store, "kept", "h:1").await;
    let left = join(&store, "left", "h:2").await;
    assert!(tokio::time::timeout(TTL * 3, kept.keep()).await.is_err(), "keep never returns");
    assert_eq!(numbers(&store).await, [(0, "kept@h:1".to_owned())]);
    assert_eq!(left.member().number, 1);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_lost_its_lease_joins_anew_with_its_number() {
    let store = store();
    let _other = join(&store, "other", "h:1").await;
    let mut member = join(&store, "member", "h:2").await;
    store.revoke(member.seat.expect("joined").lease).await.expect("revoked");
    assert!(tokio::time::timeout(TTL / 2, member.keep()).await.is_err());
    assert_eq!(member.member().number, 1);
    assert!(numbers(&store).await.contains(&(1, "member@h:2".to_owned())));
}

/// Follows the ingesters; a probe finds alive whom `alive` names.
fn follow(
    store: &Arc<dyn Coordinator>,
    alive: &Arc<Mutex<BTreeSet<String>>>,
    fallback: Vec<Member>,
) -> (impl Future<Output = ()> + use<>, watch::Receiver<Roster>) {
    let (sender, roster) = watch::channel(Roster::default());
    let alive = alive.clone();
    let probe: Probe = Arc::new(move |member| {
        let is_alive = alive.lock().contains(&member.name);
        async move { is_alive }.boxed()
    });
    let follow = Follow { coordinator: store.clone(), role: Role::Ingester, probe, fallback };
    (follow.run(sender), roster)
}

fn names(names: &[&str]) -> Arc<Mutex<BTreeSet<String>>> {
    Arc::new(Mutex::new(names.iter().map(|name| (*name).to_owned()).collect()))
}

fn listed(roster: &Roster) -> Vec<(u32, &str)> {
    roster.members.iter().map(|member| (member.number, member.name.as_str())).collect()
}

#[tokio::test(start_paused = true)]
async fn followers_see_members_come_and_go() {
    let store = store();
    // Whoever leaves is gone although something at its address answers.
    let (follower, mut roster) = follow(&store, &names(&["a"]), Vec::new());
    let story = async {
        let a = join(&store, "a", "h:1").await;
        let seen = roster.wait_for(|r| r.members.len() == 1).await.expect("told").clone();
        assert_eq!(seen.members[0], Member::new(0, "a", "h:1"));
        let b = join(&store, "b", "h:2").await;
        roster.wait_for(|r| r.members.len() == 2).await.expect("told");
        let began = Instant::now();
        a.leave().await.expect("leaves");
        let seen = roster.wait_for(|r| r.members.len() == 1).await.expect("told").clone();
        assert_eq!(seen.members[0].name, "b");
        assert_eq!(began.elapsed(), Duration::ZERO);
        drop(b);
        // Nobody keeps b: its lease ends, and two probes fail.
        roster.wait_for(|r| r.members.is_empty()).await.expect("told");
        assert!((TTL..TTL + Duration::from_secs(5)).contains(&began.elapsed()), "{:?}", began.elapsed());
        drop(roster);
    };
    tokio::join!(follower, story);
}

#[tokio::test(start_paused = true)]
async fn a_roster_outlives_the_loss_of_all_leases() {
    let store = store();
    let mut members = Vec::new();
    for name in ["a", "b", "c", "d"] {
        members.push(join(&store, name, &format!("{name}:1")).await);
    }
    let alive = names(&["a", "b", "c", "d"]);
    let (follower, mut roster) = follow(&store, &alive, Vec::new());
    let story = async {
        roster.wait_for(|r| r.members.len() == 4).await.expect("told");
        roster.mark_unchanged();
        let leases: Vec<Lease> = members.iter().map(|member| member.seat.expect("joined").lease).collect();
        for lease in leases {
            store.revoke(lease).await.expect("revoked");
        }
        // For longer than a single member would be waited for.
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert!(!roster.has_changed().expect("open"), "{:?}", listed(&roster.borrow()));
        // A newcomer does not get a number that is spoken for, and who comes back gets its own.
        let _newcomer = join(&store, "e", "e:1").await;
        let (mut d, mut b) = (members.pop().expect("d"), members.remove(1));
        alive.lock().remove("a");
        let returned = async {
            let seen = roster.wait_for(|r| listed(r) == [(1, "b"), (2, "c"), (3, "d"), (4, "e")]).await;
            seen.expect("told").clone()
        };
        tokio::select! {
            _ = returned => {}
            never = d.keep() => match never {},
            never = b.keep() => match never {},
        }
        assert_eq!((b.member().number, d.member().number), (1, 3));
        drop(roster);
    };
    tokio::join!(follower, story);
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_starts_among_lost_leases_asks_the_members() {
    let store = store();
    for name in ["alive", "dead"] {
        let member = join(&store, name, "h:1").await;
        store.revoke(member.seat.expect("joined").lease).await.expect("revoked");
    }
    assert!(numbers(&store).await.is_empty());
    let (follower, mut roster) = follow(&store, &names(&["alive"]), Vec::new());
    let story = async {
        let seen = roster.wait_for(|r| !r.members.is_empty()).await.expect("told").clone();
        assert_eq!(listed(&seen), [(0, "alive")]);
        drop(roster);
    };
    tokio::join!(follower, story);
}

#[tokio::test(start_paused = true)]
async fn members_that_are_gone_for_an_hour_give_up_their_numbers() {
    let store = store();
    let mut stays = join(&store, "stays", "h:1").await;
    drop(join(&store, "gone", "h:2").await);
    let (follower, roster) = follow(&store, &names(&[]), Vec::new());
    let story = async {
        tokio::time::sleep(Duration::from_secs(3_500)).await;
        let later = join(&store, "later", "h:3").await;
        assert_eq!(later.member().number, 2, "1 is still that of who is gone");
        later.leave().await.expect("leaves");
        tokio::time::sleep(Duration::from_secs(200)).await;
        assert_eq!(join(&store, "newcomer", "h:4").await.member().number, 1);
        drop(roster);
    };
    tokio::select! {
        _ = async { tokio::join!(follower, story) } => {}
        never = stays.keep() => match never {},
    }
}

/// A coordinator that is away until it is let in.
#[derive(Debug, Default)]
struct Away {
    store: InMemory,
    is_back: AtomicBool,
}

impl Away {
    fn there(&self) -> Result<&InMemory> {
        if self.is_back.load(Ordering::Relaxed) {
            return Ok(&self.store);
        }
        Err(Error::Unreachable { cause: "away".to_owned() })
    }
}

#[async_trait::async_trait]
impl Coordinator for Away {
    async fn get(&self, key: &str) -> Result<Option<crate::Entry>> {
        self.there()?.get(key).await
    }
    async fn list(&self, prefix: &str) -> Result<crate::Snapshot> {
        self.there()?.list(prefix).await
    }
    async fn put(&self, key: &str, value: Bytes, expect: Expect, lease: Option<Lease>) -> Result<Swap> {
        self.there()?.put(key, value, expect, lease).await
    }
    async fn delete(&self, key: &str, expect: Expect) -> Result<Swap> {
        self.there()?.delete(key, expect).await
    }
    async fn grant(&self, ttl: Duration) -> Result<Lease> {
        self.there()?.grant(ttl).await
    }
    async fn keep_alive(&self, lease: Lease) -> Result<()> {
        self.there()?.keep_alive(lease).await
    }
    async fn revoke(&self, lease: Lease) -> Result<()> {
        self.there()?.revoke(lease).await
    }
    fn watch(&self, prefix: &str, after: Revision) -> crate::EventStream {
        self.store.watch(prefix, after)
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_coordinator_the_given_members_are_used_and_joining_goes_on() {
    let away = Arc::new(Away::default());
    let store: Arc<dyn Coordinator> = away.clone();
    let fallback = vec![Member::new(0, "h:1", "h:1"), Member::new(1, "h:2", "h:2")];
    let (follower, mut roster) = follow(&store, &names(&[]), fallback.clone());
    let mut member = Membership::new(store.clone(), Role::Ingester, "m", "m:1", TTL);
    let joined = member.joined();
    let story = async {
        let seen = roster.wait_for(|r| !r.members.is_empty()).await.expect("told").clone();
        assert_eq!(*seen.members, *fallback);
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(*joined.borrow(), None);
        away.is_back.store(true, Ordering::Relaxed);
        let seen = roster.wait_for(|r| listed(r) == [(0, "m")]).await.expect("told").clone();
        assert_eq!(*joined.borrow(), Some(Member::new(0, "m", "m:1")));
        // From now on the last known state stands, not what was given.
        away.is_back.store(false, Ordering::Relaxed);
        tokio::time::sleep(TTL / 2).await;
        assert_eq!(*roster.borrow(), seen);
        drop(roster);
    };
    tokio::select! {
        _ = async { tokio::join!(follower, story) } => {}
        never = member.keep() => match never {},
    }
}

#[tokio::test]
async fn static_members_need_no_lease_and_too_many_are_refused() {
    let store = InMemory::new();
    let member = add_static(&store, Role::Querier, "q", "h:1").await.expect("added");
    assert_eq!(member, Member::new(0, "q", "h:1"));
    assert_eq!(add_static(&store, Role::Querier, "q", "h:2").await.expect("moved").number, 0);

    let full = (0..MEMBERS_MAX).collect();
    assert_eq!(free_number(&full, 7), Err(Error::Full { what: "number of members", limit: 10_000 }));
}

#[tokio::test]
async fn foreign_keys_in_the_list_are_named() {
    let store = InMemory::new();
    for (key, value) in
        [("members/querier/x", "{}"), ("members/querier/known/x", "{}"), ("members/querier/known/00001", "{")]
    {
        store.put(key, Bytes::from(value), Expect::Anything, None).await.expect("written");
        let error = list(&store, Role::Querier).await.expect_err("unreadable");
        assert!(matches!(&error, Error::Unreadable { key: named, .. } if named == key), "{error}");
        store.delete(key, Expect::Anything).await.expect("deleted");
    }
}
