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
    store.revoke(member.lease).await.expect("revoked");
    assert!(tokio::time::timeout(TTL / 2, member.keep()).await.is_err());
    assert_eq!(member.member().number, 1);
    assert!(numbers(&store).await.contains(&(1, "member@h:2".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn followers_see_members_come_and_go() {
    let store = store();
    let (sender, mut roster) = watch::channel(Roster::default());
    let follower = follow(store.clone(), Role::Ingester, sender);
    let story = async {
        let a = join(&store, "a", "h:1").await;
        let seen = roster.wait_for(|r| r.members.len() == 1).await.expect("told").clone();
        assert_eq!(seen.members[0], Member::new(0, "a", "h:1"));
        let b = join(&store, "b", "h:2").await;
        roster.wait_for(|r| r.members.len() == 2).await.expect("told");
        a.leave().await.expect("leaves");
        let seen = roster.wait_for(|r| r.members.len() == 1).await.expect("told").clone();
        assert_eq!(seen.members[0].name, "b");
        drop(b);
        // Nobody keeps b: its lease ends, and the watch says so without anybody touching the store.
        roster.wait_for(|r| r.members.is_empty()).await.expect("told");
        drop(roster);
    };
    tokio::join!(follower, story);
}

#[tokio::test]
async fn static_members_need_no_lease_and_too_many_are_refused() {
    let store = InMemory::new();
    let member = add_static(&store, Role::Querier, "q", "h:1").await.expect("added");
    assert_eq!(member, Member::new(0, "q", "h:1"));
    assert_eq!(add_static(&store, Role::Querier, "q", "h:2").await.expect("moved").number, 0);

    let full = Roster {
        members: (0..MEMBERS_MAX).map(|n| Member::new(n, format!("m{n}"), "h:1")).collect(),
        revision: Revision(1),
    };
    assert_eq!(free_number(&full, 7), Err(Error::Full { what: "number of members", limit: 10_000 }));
}

#[tokio::test]
async fn foreign_keys_in_the_list_are_named() {
    let store = InMemory::new();
    for (key, value) in [("members/querier/x", "{}"), ("members/querier/00001", "{")] {
        store.put(key, Bytes::from(value), Expect::Anything, None).await.expect("written");
        let error = list(&store, Role::Querier).await.expect_err("unreadable");
        assert!(matches!(&error, Error::Unreadable { key: named, .. } if named == key), "{error}");
        store.delete(key, Expect::Anything).await.expect("deleted");
    }
}
