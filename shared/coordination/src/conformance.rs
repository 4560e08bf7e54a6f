//! The suite that every [`Coordinator`] passes.
//!
//! Each function is one case over a store that nobody else uses under the given prefix; it panics where the store
//! departs from the contract. Cases that end leases wait for them in tokio's time, so that a store that lives in
//! that time can be tested with a paused clock and another one in real seconds.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;

use crate::coordinator::{
    Change, Coordinator, Event, EventStream, Expect, KEY_BYTES_MAX, LEASE_TTL_MAX, Lease, Revision, Swap,
    VALUE_BYTES_MAX,
};
use crate::{Error, Result};

/// A lease that is kept: a busy machine may be late with that. A real etcd keeps to nothing shorter than two seconds.
const TTL: Duration = Duration::from_secs(6);
/// A lease that is waited for, until one that nobody kept would be over as well.
const TTL_LEFT: Duration = Duration::from_secs(8);
/// By when the end of a lease must have been noticed, and everything else too.
const TTL_AND_SOME: Duration = Duration::from_secs(20);
/// A lease that does not end by itself while a case runs.
const LONG: Duration = Duration::from_secs(120);

/// Runs all cases under `prefix`, each below a folder of its own.
///
/// # Panics
/// Where the store departs from the contract.
pub async fn run(store: &dyn Coordinator, prefix: &str) {
    keys_are_written_read_and_deleted(store, &format!("{prefix}/keys/")).await;
    swaps_are_refused_when_the_key_is_not_as_expected(store, &format!("{prefix}/swaps/")).await;
    lists_are_sorted_and_stay_within_their_prefix(store, &format!("{prefix}/lists/")).await;
    sizes_are_limited(store, &format!("{prefix}/sizes/")).await;
    watches_yield_each_change_once_and_in_order(store, &format!("{prefix}/watch/")).await;
    watches_resume_from_a_revision(store, &format!("{prefix}/resume/")).await;
    watches_of_another_life_are_told_and_end(store, &format!("{prefix}/life/")).await;
    leases_take_their_keys_with_them(store, &format!("{prefix}/revoke/")).await;
    leases_end_unless_they_are_kept(store, &format!("{prefix}/expire/")).await;
    a_key_written_anew_leaves_its_lease(store, &format!("{prefix}/detach/")).await;
    racing_swaps_have_one_winner(store, &format!("{prefix}/race/")).await;
}

async fn put(store: &dyn Coordinator, key: &str, value: &str) -> Revision {
    done(store.put(key, Bytes::from(value.to_owned()), Expect::Anything, None).await)
}

async fn value(store: &dyn Coordinator, key: &str) -> Option<String> {
    let entry = store.get(key).await.expect("read");
    entry.map(|entry| String::from_utf8(entry.value.to_vec()).expect("text"))
}

fn done(swap: Result<Swap>) -> Revision {
    match swap.expect("swap") {
        Swap::Done(revision) => revision,
        Swap::Conflict(found) => panic!("unexpected conflict: {found:?}"),
    }
}

async fn next(events: &mut EventStream) -> Event {
    let event = tokio::time::timeout(TTL_AND_SOME, events.next()).await;
    event.expect("an event in time").expect("an open watch").expect("a good event")
}

fn written(value: &str, lease: Option<Lease>) -> Change {
    Change::Put { value: Bytes::from(value.to_owned()), lease }
}

async fn keys_are_written_read_and_deleted(store: &dyn Coordinator, prefix: &str) {
    let key = format!("{prefix}a");
    assert_eq!(store.get(&key).await.expect("read"), None);
    let first = put(store, &key, "1").await;
    let second = put(store, &key, "2").await;
    assert!(first < second, "revisions grow");
    let entry = store.get(&key).await.expect("read").expect("there");
    assert_eq!(
        (entry.key, entry.value, entry.revision, entry.lease),
        (key.clone(), "2".into(), second, None)
    );
    done(store.delete(&key, Expect::Anything).await);
    assert_eq!(store.get(&key).await.expect("read"), None);
    done(store.delete(&key, Expect::Anything).await);
    done(store.delete(&key, Expect::Absent).await);
}

async fn swaps_are_refused_when_the_key_is_not_as_expected(store: &dyn Coordinator, prefix: &str) {
    let key = format!("{prefix}a");
    let first = done(store.put(&key, "1".into(), Expect::Absent, None).await);
    let second = done(store.put(&key, "2".into(), Expect::Unchanged(first), None).await);
    for stale in [Expect::Absent, Expect::Unchanged(first)] {
        let Swap::Conflict(Some(found)) = store.put(&key, "3".into(), stale, None).await.expect("swap")
        else {
            panic!("{stale:?} does not hold");
        };
        assert_eq!(
            (found.value, found.revision),
            (Bytes::from("2"), second),
            "the conflict shows what is there"
        );
        let refused = store.delete(&key, stale).await.expect("swap");
        assert!(matches!(refused, Swap::Conflict(Some(_))), "{stale:?}");
    }
    assert_eq!(value(store, &key).await.as_deref(), Some("2"), "a refused swap changes nothing");
    done(store.delete(&key, Expect::Unchanged(second)).await);
    for (expect, what) in [(Expect::Unchanged(second), "deleted"), (Expect::Unchanged(Revision(0)), "never")]
    {
        assert_eq!(store.put(&key, "4".into(), expect, None).await, Ok(Swap::Conflict(None)), "{what}");
    }
    // A key that was deleted and made again is not the key that was read.
    done(store.put(&key, "2".into(), Expect::Absent, None).await);
    let refused = store.put(&key, "5".into(), Expect::Unchanged(second), None).await.expect("swap");
    assert!(matches!(refused, Swap::Conflict(Some(_))));
}

async fn lists_are_sorted_and_stay_within_their_prefix(store: &dyn Coordinator, prefix: &str) {
    for key in ["b/2", "a", "b/10", "b", "c", "b/1"] {
        put(store, &format!("{prefix}{key}"), key).await;
    }
    let listed = store.list(&format!("{prefix}b/")).await.expect("listed");
    let keys: Vec<&str> = listed.entries.iter().map(|entry| &entry.key[prefix.len()..]).collect();
    assert_eq!(keys, ["b/1", "b/10", "b/2"]);
    assert!(listed.entries.iter().all(|entry| entry.revision <= listed.revision));
    assert!(store.list(&format!("{prefix}none/")).await.expect("listed").entries.is_empty());
}

async fn sizes_are_limited(store: &dyn Coordinator, prefix: &str) {
    let longest = format!("{prefix}{}", "k".repeat(KEY_BYTES_MAX - prefix.len()));
    put(store, &longest, "").await;
    let largest = "v".repeat(VALUE_BYTES_MAX);
    put(store, &longest, &largest).await;

    let too_long = format!("{longest}k");
    let refused = Err(Error::KeySize { bytes: KEY_BYTES_MAX + 1 });
    assert_eq!(store.put(&too_long, Bytes::new(), Expect::Anything, None).await, refused);
    assert_eq!(store.get("").await, Err(Error::KeySize { bytes: 0 }));
    assert_eq!(store.delete("", Expect::Anything).await, Err(Error::KeySize { bytes: 0 }));
    let too_large = Bytes::from(format!("{largest}v"));
    let refused = store.put(&longest, too_large, Expect::Anything, None).await;
    assert_eq!(refused, Err(Error::ValueSize { key: longest.clone(), bytes: VALUE_BYTES_MAX + 1 }));
    for ttl in [Duration::ZERO, Duration::from_millis(999), LEASE_TTL_MAX + Duration::from_millis(1)] {
        assert_eq!(store.grant(ttl).await, Err(Error::LeaseTtl { ttl_ms: ttl.as_millis() }));
    }
    done(store.delete(&longest, Expect::Anything).await);
}

async fn watches_yield_each_change_once_and_in_order(store: &dyn Coordinator, prefix: &str) {
    let (ours, other) = (format!("{prefix}ours/"), format!("{prefix}other/"));
    put(store, &format!("{ours}before"), "0").await;
    let start = store.list(&ours).await.expect("listed").revision;
    let mut events = store.watch(&ours, start);
    let key = format!("{ours}a");
    let first = put(store, &key, "1").await;
    put(store, &format!("{other}a"), "x").await;
    let second = put(store, &key, "1").await;
    done(store.delete(&key, Expect::Anything).await);
    put(store, &format!("{ours}b"), "2").await;

    let expected = [(&key, written("1", None)), (&key, written("1", None)), (&key, Change::Deleted)];
    let mut revisions = Vec::new();
    for (key, change) in expected {
        let event = next(&mut events).await;
        assert_eq!((&event.key, event.change), (key, change));
        revisions.push(event.revision);
    }
    assert_eq!(revisions[..2], [first, second]);
    assert_eq!(next(&mut events).await.key, format!("{ours}b"));
    assert!(revisions.is_sorted(), "{revisions:?}");
}

async fn watches_resume_from_a_revision(store: &dyn Coordinator, prefix: &str) {
    let key = format!("{prefix}a");
    let first = put(store, &key, "1").await;
    put(store, &key, "2").await;
    put(store, &key, "3").await;
    let mut events = store.watch(prefix, first);
    let resumed = next(&mut events).await;
    assert_eq!(resumed.change, written("2", None));
    drop(events);
    put(store, &key, "4").await;
    let mut events = store.watch(prefix, resumed.revision);
    assert_eq!(next(&mut events).await.change, written("3", None));
    assert_eq!(next(&mut events).await.change, written("4", None));
}

async fn watches_of_another_life_are_told_and_end(store: &dyn Coordinator, prefix: &str) {
    let now = store.list(prefix).await.expect("listed").revision;
    let ahead = Revision(now.0 + 1_000_000);
    let mut events = store.watch(prefix, ahead);
    let told = tokio::time::timeout(TTL_AND_SOME, events.next()).await.expect("told in time");
    assert_eq!(told, Some(Err(Error::Compacted { after: ahead })), "the store never was at {ahead}");
    assert_eq!(events.next().await, None);
}

async fn leases_take_their_keys_with_them(store: &dyn Coordinator, prefix: &str) {
    let lease = store.grant(LONG).await.expect("granted");
    let start = store.list(prefix).await.expect("listed").revision;
    let mut events = store.watch(prefix, start);
    for name in ["a", "b"] {
        let key = format!("{prefix}{name}");
        done(store.put(&key, "1".into(), Expect::Absent, Some(lease)).await);
        assert_eq!(store.get(&key).await.expect("read").expect("there").lease, Some(lease));
        assert_eq!(next(&mut events).await.change, written("1", Some(lease)));
    }
    put(store, &format!("{prefix}free"), "1").await;
    next(&mut events).await;
    store.revoke(lease).await.expect("revoked");
    let mut deleted = [next(&mut events).await, next(&mut events).await];
    deleted.sort_by(|a, b| a.key.cmp(&b.key));
    assert!(deleted.iter().all(|event| event.change == Change::Deleted));
    assert_eq!([&deleted[0].key[prefix.len()..], &deleted[1].key[prefix.len()..]], ["a", "b"]);
    assert_eq!(value(store, &format!("{prefix}free")).await.as_deref(), Some("1"));

    store.revoke(lease).await.expect("ending what is gone is done");
    assert_eq!(store.keep_alive(lease).await, Err(Error::LeaseGone { lease }));
    let refused = store.put(&format!("{prefix}late"), "1".into(), Expect::Anything, Some(lease)).await;
    assert_eq!(refused, Err(Error::LeaseGone { lease }));
}

async fn leases_end_unless_they_are_kept(store: &dyn Coordinator, prefix: &str) {
    let kept = store.grant(TTL).await.expect("granted");
    let left = store.grant(TTL_LEFT).await.expect("granted");
    done(store.put(&format!("{prefix}kept"), "1".into(), Expect::Absent, Some(kept)).await);
    let put = done(store.put(&format!("{prefix}left"), "1".into(), Expect::Absent, Some(left)).await);
    let mut events = store.watch(prefix, put);
    let keep = async {
        loop {
            tokio::time::sleep(TTL / 8).await;
            store.keep_alive(kept).await.expect("kept in time");
        }
    };
    let event = tokio::select! {
        event = next(&mut events) => event,
        () = keep => unreachable!("keeps on"),
    };
    assert_eq!((event.key, event.change), (format!("{prefix}left"), Change::Deleted));
    assert_eq!(value(store, &format!("{prefix}kept")).await.as_deref(), Some("1"));
    assert_eq!(store.keep_alive(left).await, Err(Error::LeaseGone { lease: left }));
    store.revoke(kept).await.expect("revoked");
}

async fn a_key_written_anew_leaves_its_lease(store: &dyn Coordinator, prefix: &str) {
    let (old, new) = (store.grant(LONG).await.expect("granted"), store.grant(LONG).await.expect("granted"));
    let (moved, freed) = (format!("{prefix}moved"), format!("{prefix}freed"));
    for key in [&moved, &freed] {
        done(store.put(key, "1".into(), Expect::Absent, Some(old)).await);
    }
    done(store.put(&moved, "2".into(), Expect::Anything, Some(new)).await);
    done(store.put(&freed, "2".into(), Expect::Anything, None).await);
    store.revoke(old).await.expect("revoked");
    for key in [&moved, &freed] {
        assert_eq!(value(store, key).await.as_deref(), Some("2"), "{key}");
    }
    store.revoke(new).await.expect("revoked");
    assert_eq!(value(store, &moved).await, None);
    assert_eq!(value(store, &freed).await.as_deref(), Some("2"));
}

async fn racing_swaps_have_one_winner(store: &dyn Coordinator, prefix: &str) {
    let key = format!("{prefix}counter");
    put(store, &key, "0").await;
    let add_one = async |_: usize| {
        loop {
            let entry = store.get(&key).await.expect("read").expect("there");
            let count: u32 = std::str::from_utf8(&entry.value).expect("text").parse().expect("number");
            let next = Bytes::from((count + 1).to_string());
            let swap = store.put(&key, next, Expect::Unchanged(entry.revision), None).await.expect("swap");
            if matches!(swap, Swap::Done(_)) {
                return;
            }
        }
    };
    futures::future::join_all((0..8).map(add_one)).await;
    assert_eq!(value(store, &key).await.as_deref(), Some("8"));
}
