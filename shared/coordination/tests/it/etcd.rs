//! The coordinator in etcd, over real clusters on loopback whose members are killed, paused and emptied.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coordination::membership::{Follow, Membership, Probe, Role, Roster};
use coordination::{
    Change, Coordinator, Error, Etcd, EtcdOptions, Event, EventStream, Expect, Lease, Revision, Swap,
    conformance,
};
use futures::StreamExt as _;
use test_kit::EtcdCluster;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// How long anything is waited for.
const DEADLINE: Duration = Duration::from_secs(60);

fn options(endpoints: &[String]) -> EtcdOptions {
    EtcdOptions::new(endpoints.iter().map(|url| url.parse().expect("a URL")).collect())
}

fn connected(options: EtcdOptions) -> Etcd {
    let connect = |address: &str| {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"))?;
        Ok(rpc::Channel::new(endpoint.connect_lazy()))
    };
    Etcd::new(options, Arc::new(connect))
}

fn coordinator(cluster: &EtcdCluster) -> Etcd {
    connected(options(&cluster.endpoints()))
}

async fn put(store: &Etcd, key: &str, value: &str) -> Revision {
    match store.put(key, Bytes::from(value.to_owned()), Expect::Anything, None).await.expect("written") {
        Swap::Done(revision) => revision,
        Swap::Conflict(found) => panic!("nothing was expected, and yet: {found:?}"),
    }
}

async fn next(events: &mut EventStream) -> Event {
    let event = timeout(DEADLINE, events.next()).await.expect("an event in time");
    event.expect("an open watch").expect("a good event")
}

async fn now(store: &Etcd) -> Revision {
    store.list("").await.expect("listed").revision
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_conforms_with_all_members_and_with_one_dead() {
    let mut cluster = EtcdCluster::start(3);
    conformance::run(&coordinator(&cluster), "healthy").await;

    cluster.kill((cluster.leader() + 1) % 3);
    conformance::run(&coordinator(&cluster), "follower-dead").await;
    // Each begins with a member of its own choice, a third of them with the dead one.
    for attempt in 0..30 {
        let store = coordinator(&cluster);
        put(&store, "shared", &attempt.to_string()).await;
        let entry = store.get("shared").await.expect("read").expect("there");
        assert_eq!(entry.value, Bytes::from(attempt.to_string()));
    }
    cluster.start_again((0..3).find(|index| *index != cluster.leader()).expect("a follower"));
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_and_other_programs_share_an_etcd() {
    let cluster = EtcdCluster::start(1);
    let named =
        |prefix: &str| connected(EtcdOptions { prefix: prefix.to_owned(), ..options(&cluster.endpoints()) });
    let (ours, theirs) = (named("/tributary/"), named("/other/"));
    let start = now(&ours).await;
    let mut events = ours.watch("", start);
    cluster.put(b"foreign", b"x");
    cluster.put(b"/tributary0", b"just behind ours");
    put(&theirs, "k", "theirs").await;
    put(&ours, "k", "ours").await;
    assert_eq!(next(&mut events).await.change, Change::Put { value: "ours".into(), lease: None });
    let listed = ours.list("").await.expect("listed");
    let keys: Vec<&str> = listed.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["k"]);
    assert_eq!(theirs.get("k").await.expect("read").expect("there").value, Bytes::from("theirs"));

    cluster.put(b"/tributary/\xff", b"not text");
    let error = ours.list("").await.expect_err("unreadable");
    assert!(matches!(error, Error::Unreadable { .. }), "{error}");
}

/// What a writer did: the keys it wrote, with the revisions it was told.
async fn write_until_told(
    store: &Etcd,
    lease: Lease,
    mut stop: tokio::sync::oneshot::Receiver<()>,
) -> Vec<Event> {
    let mut written = Vec::new();
    // At least so many after the stop was asked for, which is after the fault.
    let mut left = 50;
    while left > 0 {
        if stop.try_recv().is_ok() || left < 50 {
            left -= 1;
        }
        let (key, value) = (format!("story/{:05}", written.len()), Bytes::from(written.len().to_string()));
        let swap = store.put(&key, value.clone(), Expect::Absent, Some(lease)).await.expect("no write fails");
        let Swap::Done(revision) = swap else { panic!("nobody else writes {key}: {swap:?}") };
        written.push(Event { key, revision, change: Change::Put { value, lease: Some(lease) } });
        sleep(Duration::from_millis(5)).await;
    }
    written
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_leader_costs_a_delay_and_nothing_else() {
    let mut cluster = EtcdCluster::start(3);
    let store = coordinator(&cluster);
    let ttl = Duration::from_secs(10);
    let lease = store.grant(ttl).await.expect("granted");
    let start = now(&store).await;
    let mut events = store.watch("story/", start);

    let (stop, stopped) = tokio::sync::oneshot::channel();
    let keep = async {
        loop {
            store.keep_alive(lease).await.expect("kept");
            sleep(ttl / 10).await;
        }
    };
    let faults = async {
        sleep(Duration::from_millis(500)).await;
        let leader = cluster.leader();
        cluster.kill(leader);
        stop.send(()).expect("the writer listens");
    };
    let story = async { tokio::join!(write_until_told(&store, lease, stopped), faults).0 };
    let written = tokio::select! {
        written = story => written,
        () = keep => unreachable!("keeps on"),
    };

    // A swap that was repeated after its answer was lost may be told a later revision, never another change.
    for expected in &written {
        let seen = next(&mut events).await;
        assert_eq!(&seen, expected);
    }
    let end = put(&store, "story/end", "").await;
    assert_eq!(next(&mut events).await.revision, end, "no event came twice");
    let kept = store.list("story/").await.expect("listed").entries;
    assert_eq!(kept.len(), written.len() + 1, "the lease has kept all its keys");
    store.revoke(lease).await.expect("revoked");
    let mut deleted = Vec::new();
    while deleted.len() < written.len() {
        let event = next(&mut events).await;
        assert_eq!(event.change, Change::Deleted);
        deleted.push(event.key);
    }
    deleted.sort();
    assert!(deleted.iter().eq(written.iter().map(|event| &event.key)), "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_member_is_left_by_calls_and_watches() {
    let cluster = EtcdCluster::start(3);
    let hung = (cluster.leader() + 1) % 3;
    // Enough of them that some are on the member in question.
    let stores: Vec<Etcd> = (0..9).map(|_| coordinator(&cluster)).collect();
    let start = now(&stores[0]).await;
    let mut watches: Vec<EventStream> = stores.iter().map(|store| store.watch("k", start)).collect();
    let first = put(&stores[0], "k", "1").await;
    for events in &mut watches {
        assert_eq!(next(events).await.revision, first);
    }
    cluster.pause(hung);
    let second = put(&stores[0], "k", "2").await;
    let third = put(&stores[8], "k", "3").await;
    for (store, events) in stores.iter().zip(&mut watches) {
        assert_eq!(store.get("k").await.expect("read").expect("there").value, Bytes::from("3"));
        assert_eq!(next(events).await.revision, second);
        assert_eq!(next(events).await.revision, third);
    }
    cluster.resume(hung);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_to_a_paused_cluster_end_in_time_and_watches_go_on_after_it() {
    let cluster = EtcdCluster::start(3);
    let call_timeout = Duration::from_secs(3);
    let patient = coordinator(&cluster);
    let store = connected(EtcdOptions { call_timeout, ..options(&cluster.endpoints()) });
    let lease = patient.grant(Duration::from_secs(5)).await.expect("granted");
    let start = now(&patient).await;
    let mut events = store.watch("k/", start);
    let kept = patient.put("k/leased", "1".into(), Expect::Absent, Some(lease)).await.expect("written");
    assert!(matches!(kept, Swap::Done(_)), "{kept:?}");
    assert_eq!(next(&mut events).await.key, "k/leased");

    (0..3).for_each(|member| cluster.pause(member));
    let paused = Instant::now();
    let key = "k/none";
    let (got, listed, written, deleted, granted, kept, revoked) = tokio::join!(
        store.get(key),
        store.list("k/"),
        store.put(key, "1".into(), Expect::Absent, None),
        store.delete(key, Expect::Anything),
        store.grant(Duration::from_secs(5)),
        store.keep_alive(lease),
        store.revoke(Lease(1)),
    );
    let failures =
        [got.err(), listed.err(), written.err(), deleted.err(), granted.err(), kept.err(), revoked.err()];
    for (call, failure) in failures.into_iter().enumerate() {
        let failure = failure.unwrap_or_else(|| panic!("call {call} was answered by a paused cluster"));
        assert!(
            matches!(&failure, Error::Unreachable { cause } if cause.contains("no answer within")),
            "{failure}"
        );
    }
    assert!(paused.elapsed() < call_timeout + DEADLINE, "calls are bounded");
    // Longer than a stream may be silent and than the lease lives, so that both are put to the test.
    sleep(Duration::from_secs(12).saturating_sub(paused.elapsed())).await;
    (0..3).for_each(|member| cluster.resume(member));

    // The calls that were given up may have been carried out since, so the key is written whatever it holds.
    let after = put(&patient, "k/after", "1").await;
    let is_kept = match patient.keep_alive(lease).await {
        Ok(()) => true,
        Err(Error::LeaseGone { lease: gone }) => {
            assert_eq!(gone, lease);
            false
        }
        Err(error) => panic!("{error}"),
    };
    if !is_kept {
        let again = patient.grant(Duration::from_secs(60)).await.expect("granted anew");
        let swap = patient.put("k/leased", "2".into(), Expect::Anything, Some(again)).await.expect("written");
        assert!(matches!(swap, Swap::Done(_)), "{swap:?}");
    }
    put(&patient, "k/last", "1").await;
    let (mut seen, mut last) = (Vec::new(), Revision(0));
    while seen.last().is_none_or(|event: &Event| event.key != "k/last") {
        let event = next(&mut events).await;
        assert!(event.revision >= last, "in order");
        last = event.revision;
        seen.push(event);
    }
    let of = |key: &str| -> Vec<&Event> { seen.iter().filter(|event| event.key == key).collect() };
    assert_eq!(of("k/after").iter().map(|event| event.revision).collect::<Vec<_>>(), [after], "once");
    let leased: Vec<&Change> = of("k/leased").iter().map(|event| &event.change).collect();
    if is_kept {
        assert_eq!(leased, [&Change::Deleted; 0]);
    } else {
        assert_eq!(leased[0], &Change::Deleted, "the lease took its key with it");
        assert!(matches!(leased[1..], [Change::Put { value, .. }] if value == "2"), "{leased:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_etcd_has_forgotten_is_said_and_quiet_watches_do_not_fall_behind() {
    let mut cluster = EtcdCluster::start_with(1, &["--experimental-watch-progress-notify-interval=300ms"]);
    let store = coordinator(&cluster);
    let start = now(&store).await;
    let mut quiet = store.watch("quiet/", start);
    let busy = async {
        for round in 0..20 {
            put(&store, "busy", &round.to_string()).await;
            sleep(Duration::from_millis(300)).await;
        }
    };
    tokio::select! {
        event = quiet.next() => panic!("nothing happened under quiet/: {event:?}"),
        () = busy => {}
    }
    // Progress says so now and then: the watch knows the revision of the last round but a few.
    let compacted = now(&store).await.0 - 5;
    cluster.compact(compacted);
    let mut late = store.watch("quiet/", start);
    let told = timeout(DEADLINE, late.next()).await.expect("told in time");
    assert_eq!(told, Some(Err(Error::Compacted { after: start })));
    assert_eq!(late.next().await, None);

    cluster.kill(0);
    cluster.start_again(0);
    let written = put(&store, "quiet/k", "1").await;
    assert_eq!(next(&mut quiet).await.revision, written, "opened again after what is still kept");

    for round in 0..50 {
        put(&store, "quiet/k", &round.to_string()).await;
        next(&mut quiet).await;
    }
    cluster.lose_everything();
    let told = timeout(DEADLINE, quiet.next()).await.expect("told in time");
    assert!(matches!(told, Some(Err(Error::Compacted { after })) if after.0 > 50), "{told:?}");
    assert_eq!(quiet.next().await, None);
}

#[tokio::test]
async fn an_etcd_that_is_not_there_is_unreachable() {
    let endpoint = format!("http://127.0.0.1:{}", test_kit::free_port());
    let call_timeout = Duration::from_millis(300);
    let store = connected(EtcdOptions { call_timeout, ..options(&[endpoint]) });
    let error = store.get("k").await.expect_err("nobody listens");
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert_eq!(error.kind().as_str(), "unavailable");
}

/// Follows the scrapers; whoever is probed is alive unless `dead` names it.
fn follow(store: &Etcd, dead: &'static str) -> (impl Future<Output = ()>, watch::Receiver<Roster>) {
    let (sender, roster) = watch::channel(Roster::default());
    let probe: Probe = Arc::new(move |member| {
        let is_alive = member.name != dead;
        Box::pin(async move { is_alive })
    });
    let coordinator: Arc<dyn Coordinator> = Arc::new(store.clone());
    let follow = Follow { coordinator, role: Role::Scraper, probe, fallback: Vec::new() };
    (follow.run(sender), roster)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roster_neither_shrinks_nor_moves_when_all_leases_are_revoked() {
    let cluster = EtcdCluster::start(3);
    let store = coordinator(&cluster);
    let coordinator: Arc<dyn Coordinator> = Arc::new(store.clone());
    let mut members: Vec<Membership> = ["a", "b", "c", "d"]
        .iter()
        .map(|name| Membership::new(coordinator.clone(), Role::Scraper, name, "h:1", Duration::from_secs(3)))
        .collect();
    let joined: Vec<_> = members.iter().map(Membership::joined).collect();
    let keep = futures::future::join_all(members.iter_mut().map(Membership::keep));
    let (follower, mut roster) = follow(&store, "none");
    let story = async {
        let before = roster.wait_for(|roster| roster.members.len() == 4).await.expect("told").clone();
        for round in 0..5 {
            let leases = membership_leases(&store).await;
            assert!(cluster.revoke_all_leases() >= 4);
            let told = async {
                // All have new leases.
                while membership_leases(&store).await.iter().filter(|lease| !leases.contains(lease)).count()
                    < 4
                {
                    sleep(Duration::from_millis(50)).await;
                }
            };
            let changed = async {
                loop {
                    roster.changed().await.expect("open");
                    let seen = roster.borrow_and_update().members.clone();
                    assert_eq!(seen, before.members, "round {round}");
                }
            };
            tokio::select! {
                back = timeout(DEADLINE, told) => back.expect("everybody joins anew"),
                () = changed => {}
            }
            assert_eq!(roster.borrow().members, before.members, "round {round}");
        }
        for joined in &joined {
            let member = joined.borrow().clone().expect("joined");
            assert!(before.members.contains(&member), "{member:?} has kept its number");
        }
        drop(roster);
    };
    let all = async { tokio::join!(follower, story) };
    tokio::select! {
        _ = all => {}
        _ = keep => unreachable!("keeps on"),
    }
}

async fn membership_leases(store: &Etcd) -> Vec<Lease> {
    let live = store.list("members/scraper/live/").await.expect("listed");
    live.entries.iter().filter_map(|entry| entry.lease).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_dies_is_dropped_and_the_rest_stays_while_etcd_is_gone() {
    let mut cluster = EtcdCluster::start(1);
    let store = coordinator(&cluster);
    let coordinator: Arc<dyn Coordinator> = Arc::new(store.clone());
    let join = |name: &'static str, seconds: u64| {
        Membership::join(coordinator.clone(), Role::Scraper, name, "h:1", Duration::from_secs(seconds))
    };
    let mut lives = [join("a", 3).await.expect("joins"), join("b", 3).await.expect("joins")];
    // Nobody keeps their leases: these are to be seen before they are over.
    let dies = join("dies", 10).await.expect("joins");
    let leaves = join("leaves", 10).await.expect("joins");
    let (follower, mut roster) = follow(&store, "dies");
    let names = |roster: &Roster| -> Vec<String> { roster.members.iter().map(|m| m.name.clone()).collect() };
    let story = async {
        roster.wait_for(|roster| names(roster) == ["a", "b", "dies", "leaves"]).await.expect("told");
        leaves.leave().await.expect("leaves");
        roster.wait_for(|roster| names(roster) == ["a", "b", "dies"]).await.expect("told");
        drop(dies);
        roster.wait_for(|roster| names(roster) == ["a", "b"]).await.expect("told");
        roster.mark_unchanged();
        cluster.kill_all();
        // Longer than the leases of those that live.
        sleep(Duration::from_secs(5)).await;
        cluster.lose_everything();
        let back = async {
            while membership_leases(&store).await.len() < 2 {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(DEADLINE, back).await.expect("both join anew");
        assert!(!roster.has_changed().expect("open"), "{:?}", names(&roster.borrow()));
        drop(roster);
    };
    let [a, b] = &mut lives;
    let all = async { tokio::join!(follower, story) };
    tokio::select! {
        _ = all => {}
        never = a.keep() => match never {},
        never = b.keep() => match never {},
    }
}
