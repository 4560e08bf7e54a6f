//! Logs in an object store that several ingesters share: what one acknowledged is there once, whoever dies, stands
//! still or comes late.

use std::sync::Arc;
use std::time::Duration;

use fault::Kind as Fault;
use futures::TryStreamExt as _;
use model::Tenant;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use tokio::runtime::Handle;
use tsdb::{Error, GroupId, LogOwner, LogStore, ObjectLogOptions, ObjectLogs, Storage, StorageOptions};

use super::gated::{Fate, Gate, Gated};
use super::support::{START, Samples, World, append, assert_gapless, commits, declaration, labels, samples};
use super::testing::{Kind, on_every_store};
use super::unreliable::Unreliable;

/// Longer than a writer goes without looking whether its log is there.
const LONG_MS: i64 = 120_000;

/// How long the store may take for a segment before appends are refused: longer than a loaded machine needs.
const STALL_AFTER: Duration = Duration::from_secs(8);

/// An ingester: its logs, and its storage with one group.
struct Ingester {
    logs: Arc<ObjectLogs>,
    storage: Arc<Storage>,
    group: GroupId,
    acknowledged: i64,
}

impl Ingester {
    async fn new(world: &World, name: &str) -> Self {
        Self::through(world, name, Arc::clone(&world.store)).await
    }

    /// With its own way to the store.
    async fn through(world: &World, name: &str, store: Arc<dyn ObjectStore>) -> Self {
        let logs = logs_of(world, name, store).await;
        Self::on(world, logs).await
    }

    async fn on(world: &World, logs: Arc<ObjectLogs>) -> Self {
        let storage = open(world, &logs).await.expect("an open storage");
        let group = storage.declare(declaration(&logs.owner().ingester, 1)).expect("declared");
        Self { logs, storage, group, acknowledged: 0 }
    }

    /// Appends the next samples, one segment each at most.
    async fn append(&mut self, count: i64) {
        for _ in 0..count {
            self.try_append().await.expect("acknowledged");
        }
    }

    async fn try_append(&mut self) -> tsdb::Result<u64> {
        let t = START + self.acknowledged;
        let appended = self.storage.append(vec![samples(self.group, t, &[t as f64])], false).await?;
        self.acknowledged += 1;
        Ok(appended.position.seq)
    }

    fn log(&self) -> String {
        self.storage.log().to_string()
    }

    async fn adopt(&self, log: &str) -> tsdb::Result<bool> {
        self.storage.adopt(&self.logs, log).await
    }
}

async fn logs_of(world: &World, name: &str, store: Arc<dyn ObjectStore>) -> Arc<ObjectLogs> {
    let owner = LogOwner { ingester: name.to_owned(), address: format!("{name}:9603") };
    let options = ObjectLogOptions {
        seal_retention: Duration::ZERO,
        ..ObjectLogOptions::new(owner, world.clock.clone(), Handle::current())
    };
    ObjectLogs::on(store, &Path::default(), options).await.expect("logs")
}

async fn open(world: &World, logs: &Arc<ObjectLogs>) -> tsdb::Result<Arc<Storage>> {
    let options = StorageOptions {
        stall_after: STALL_AFTER,
        logs: LogStore::Objects(Arc::clone(logs)),
        commits_in_flight_max: 4,
        deletion_delay: Duration::ZERO,
        ..world.options().await
    };
    Storage::open(options).await
}

/// The samples of ingesters, so many each.
fn ledger(counts: &[(&str, i64)]) -> Samples {
    let samples = |count: i64| (START..START + count).map(|t| (t, (t as f64).to_bits())).collect();
    let written = counts.iter().filter(|(_, count)| *count > 0);
    written.map(|(name, count)| (labels(name, 0).to_string(), samples(*count))).collect()
}

/// What the table alone has.
async fn in_table(world: &World) -> Samples {
    super::support::flatten(&world.table_rows(&Tenant::default()).await)
}

/// The numbers of the segments of a log that are there.
async fn segments(world: &World, log: &str) -> Vec<u64> {
    let folder = Path::from(format!("wal/{log}"));
    let listed: Vec<_> = world.store.list(Some(&folder)).try_collect().await.expect("listed");
    let number = |m: object_store::ObjectMeta| m.location.filename().and_then(|n| n.parse().ok());
    let mut numbers: Vec<u64> = listed.into_iter().filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

fn segment(log: &str, seq: u64) -> Path {
    Path::from(format!("wal/{log}/{seq:020}"))
}

/// Waits until something holds.
async fn eventually<T: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> T) {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(std::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn what_was_acknowledged_outlives_its_ingester(kind: Kind) {
    let world = World::on(kind);
    let mut first = Ingester::new(&world, "a").await;
    first.append(10).await;
    let log = first.log();
    drop(first);
    let second = Ingester::new(&world, "b").await;
    let owner = second.logs.owner_of(&log).await.expect("readable").expect("born");
    assert_eq!((&*owner.ingester, &*owner.address), ("a", "a:9603"));
    assert!(second.logs.list().await.expect("listed").contains(&log));
    assert!(in_table(&world).await.is_empty(), "it is in the log alone");
    assert!(second.adopt(&log).await.expect("taken over"));
    assert_eq!(in_table(&world).await, ledger(&[("a", 10)]));
    assert_eq!(world.everything(&second.storage).await, ledger(&[("a", 10)]));
    let state = second.storage.state();
    assert!(state.logs.iter().any(|l| *l.log == log && l.acked_seq >= 10), "{state:?}");
    assert!(state.table_version() > 0);
    // Again, by another: it is done already.
    let version = world.table().await.snapshot(None).await.expect("a snapshot").version();
    let third = Ingester::new(&world, "c").await;
    assert!(third.adopt(&log).await.expect("taken over"));
    assert_eq!(world.table().await.snapshot(None).await.expect("a snapshot").version(), version);
    assert_gapless(&commits(&world, &log).await);
    assert_eq!(second.storage.drained_logs(), [Arc::from(log)]);
}

async fn what_an_ingester_left_comes_before_its_next_life(kind: Kind) {
    let world = World::on(kind);
    let mut ingester = Ingester::new(&world, "a").await;
    ingester.append(5).await;
    ingester.storage.flush().await.expect("flushed");
    ingester.append(5).await;
    let (log, logs) = (ingester.log(), Arc::clone(&ingester.logs));
    drop(ingester);
    let again = Ingester::new(&world, "a").await;
    assert_eq!(in_table(&world).await, ledger(&[("a", 10)]));
    assert_gapless(&commits(&world, &log).await);
    // The tail is in memory as well, for the order of what comes.
    let head = super::support::flatten(&super::support::head_rows(&again.storage, &Tenant::default()));
    assert_eq!(head, ledger(&[("a", 10)]));
    drop(logs);
}

async fn an_orderly_end_leaves_nothing_to_take_over(kind: Kind) {
    let world = World::on(kind);
    let mut first = Ingester::new(&world, "a").await;
    first.append(3).await;
    let log = first.log();
    first.storage.close().await.expect("closed");
    assert!(matches!(first.try_append().await, Err(Error::Closed)));
    let version = world.table().await.snapshot(None).await.expect("a snapshot").version();
    let second = Ingester::new(&world, "b").await;
    assert!(second.adopt(&log).await.expect("looked at"));
    assert_eq!(world.table().await.snapshot(None).await.expect("a snapshot").version(), version);
    assert_eq!(in_table(&world).await, ledger(&[("a", 3)]));
}

async fn a_writer_that_is_sealed_out_begins_another_log(kind: Kind) {
    let world = World::on(kind);
    let mut first = Ingester::new(&world, "a").await;
    let second = Ingester::new(&world, "b").await;
    first.append(4).await;
    let log = first.log();
    assert!(second.adopt(&log).await.expect("taken over"));
    let refused = first.try_append().await.expect_err("it is fenced");
    assert!(matches!(refused, Error::LogEnded { .. }), "{refused}");
    assert_eq!(refused.kind(), Fault::Unavailable, "to be tried elsewhere");
    assert!(first.storage.failed().await.reason.contains("sealed"));
    assert!(first.try_append().await.is_err(), "for good");
    assert_eq!(in_table(&world).await, ledger(&[("a", 4)]), "what was acknowledged, and no more");
    // The next log was born in advance.
    eventually("the next log is born", || async {
        let listed = first.logs.list().await.expect("listed");
        listed.iter().any(|log| first.logs.is_spare(log))
    })
    .await;
    let listed = first.logs.list().await.expect("listed");
    let spare = listed.iter().find(|log| first.logs.is_spare(log)).expect("it is there").clone();
    let acknowledged = first.acknowledged;
    let mut again = Ingester::on(&world, Arc::clone(&first.logs)).await;
    assert_eq!(again.log(), spare);
    again.acknowledged = acknowledged;
    again.append(3).await;
    again.storage.flush().await.expect("flushed");
    assert_eq!(in_table(&world).await, ledger(&[("a", 7)]));
}

async fn lost_answers_and_conflicts_are_read_back(kind: Kind) {
    let world = World::on(kind);
    let gated = Gated::new(Arc::clone(&world.store));
    let mut first = Ingester::through(&world, "a", gated.clone()).await;
    first.append(1).await;
    for (seq, fate) in [
        (3, Fate::AnswerLost),
        (4, Fate::Conflict),
        (5, Fate::Lost),
        (6, Fate::Conflict),
        (6, Fate::AnswerLost),
    ] {
        gated.plan(format!("/{seq:020}"), fate);
    }
    first.append(10).await;
    assert!(gated.is_done(), "each fault has happened");
    let log = first.log();
    drop(first);
    let second = Ingester::new(&world, "b").await;
    second.adopt(&log).await.expect("taken over");
    assert_eq!(in_table(&world).await, ledger(&[("a", 11)]));
}

async fn two_that_take_over_at_once_do_no_harm(kind: Kind) {
    let world = World::on(kind);
    let mut first = Ingester::new(&world, "a").await;
    first.append(30).await;
    let log = first.log();
    drop(first);
    let (second, third) = (Ingester::new(&world, "b").await, Ingester::new(&world, "c").await);
    let (b, c) = tokio::join!(second.adopt(&log), third.adopt(&log));
    assert!(b.expect("taken over") && c.expect("taken over"));
    assert_eq!(in_table(&world).await, ledger(&[("a", 30)]));
    assert_gapless(&commits(&world, &log).await);
}

on_every_store!(
    a_store_that_is_full_is_told_of_and_taken_again,
    what_was_acknowledged_outlives_its_ingester,
    what_an_ingester_left_comes_before_its_next_life,
    an_orderly_end_leaves_nothing_to_take_over,
    a_writer_that_is_sealed_out_begins_another_log,
    lost_answers_and_conflicts_are_read_back,
    two_that_take_over_at_once_do_no_harm,
    a_writer_that_was_away_for_longer_than_its_log_is_refused,
    a_pause_in_the_middle_of_a_put_acknowledges_nothing_that_is_lost,
    a_seal_that_comes_too_late_fences_nothing,
    a_seal_of_a_log_that_is_gone_is_taken_back,
    a_missing_segment_is_told_and_the_log_stays,
    a_damaged_segment_is_counted_kept_and_passed_over,
);

#[tokio::test(flavor = "multi_thread")]
async fn segments_are_acknowledged_in_order_only() {
    let world = World::new();
    let gated = Gated::new(Arc::clone(&world.store));
    let mut first = Ingester::through(&world, "a", gated.clone()).await;
    first.append(1).await;
    let newest = first.storage.state().logs[0].acked_seq;
    let gate = Gate::new();
    gated.plan(format!("/{:020}", newest + 1), Fate::Held(gate.clone()));
    let (storage, group) = (Arc::clone(&first.storage), first.group);
    let (mut waiting, mut written) = (Vec::new(), newest);
    for i in 1..4 {
        waiting.push(Box::pin(storage.append(vec![samples(group, START + i, &[i as f64])], false)));
        written += 1;
        if i == 1 {
            gate.reached().await;
        } else {
            let log = first.log();
            eventually("a later segment is durable", || async {
                segments(&world, &log).await.contains(&written)
            })
            .await;
        }
    }
    for waiting in &mut waiting {
        assert!(futures::future::poll_immediate(waiting).await.is_none(), "the first is not durable");
    }
    assert_eq!(storage.state().logs[0].acked_seq, newest);
    gate.open();
    let mut acknowledged = Vec::new();
    for waiting in waiting {
        acknowledged.push(waiting.await.expect("acknowledged").position.seq);
    }
    assert_eq!(acknowledged, [newest + 1, newest + 2, newest + 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_above_a_seal_is_void() {
    let world = World::new();
    let gated = Gated::new(Arc::clone(&world.store));
    let mut first = Ingester::through(&world, "a", gated.clone()).await;
    first.append(3).await;
    let newest = first.storage.state().logs[0].acked_seq;
    let (gate, log) = (Gate::new(), first.log());
    gated.plan(format!("/{:020}", newest + 1), Fate::Held(gate.clone()));
    let storage = Arc::clone(&first.storage);
    let held = Box::pin(storage.append(vec![samples(first.group, START + 3, &[1.0])], false));
    gate.reached().await;
    let above = Box::pin(storage.append(vec![samples(first.group, START + 4, &[2.0])], false));
    eventually("the later segment is durable", || async {
        segments(&world, &log).await.contains(&(newest + 2))
    })
    .await;
    let second = Ingester::new(&world, "b").await;
    second.adopt(&log).await.expect("taken over");
    gate.open();
    for refused in [held.await, above.await] {
        assert!(matches!(refused, Err(Error::LogEnded { .. })), "{refused:?}");
    }
    assert_eq!(in_table(&world).await, ledger(&[("a", 3)]));
}

async fn a_writer_that_was_away_for_longer_than_its_log_is_refused(kind: Kind) {
    let world = World::on(kind);
    let mut first = Ingester::new(&world, "a").await;
    first.append(3).await;
    let log = first.log();
    let second = Ingester::new(&world, "b").await;
    second.adopt(&log).await.expect("taken over");
    second.storage.maintain_once().await.expect("tidy");
    assert_eq!(segments(&world, &log).await, [0_u64; 0], "all of it is in the table, and removed");
    assert!(second.storage.drained_logs().is_empty());
    world.pass(LONG_MS);
    let refused = first.try_append().await.expect_err("its log is gone");
    assert!(matches!(&refused, Error::LogEnded { reason, .. } if reason.contains("gone")), "{refused}");
    assert_eq!(segments(&world, &log).await, [0_u64; 0]);
    assert_eq!(in_table(&world).await, ledger(&[("a", 3)]));
}

async fn a_pause_in_the_middle_of_a_put_acknowledges_nothing_that_is_lost(kind: Kind) {
    let world = World::on(kind);
    let gated = Gated::new(Arc::clone(&world.store));
    let mut first = Ingester::through(&world, "a", gated.clone()).await;
    first.append(3).await;
    let newest = first.storage.state().logs[0].acked_seq;
    let (gate, log) = (Gate::new(), first.log());
    gated.plan(format!("/{:020}", newest + 1), Fate::Held(gate.clone()));
    let storage = Arc::clone(&first.storage);
    let held = Box::pin(storage.append(vec![samples(first.group, START + 3, &[1.0])], false));
    gate.reached().await;
    // Meanwhile the log is taken over, brought into the table and removed, with the seal.
    let second = Ingester::new(&world, "b").await;
    second.adopt(&log).await.expect("taken over");
    second.storage.maintain_once().await.expect("tidy");
    assert_eq!(segments(&world, &log).await, [0_u64; 0]);
    world.pass(LONG_MS);
    gate.open();
    let refused = held.await.expect_err("the put succeeds, and nobody would ever read it");
    assert!(matches!(refused, Error::LogEnded { .. }), "{refused}");
    assert_eq!(segments(&world, &log).await, [0_u64; 0], "nothing is left behind");
    assert_eq!(in_table(&world).await, ledger(&[("a", 3)]));
}

async fn a_seal_that_comes_too_late_fences_nothing(kind: Kind) {
    let world = World::on(kind);
    let mut first = Ingester::new(&world, "a").await;
    first.append(3).await;
    let (log, newest) = (first.log(), first.storage.state().logs[0].acked_seq);
    let gated = Gated::new(Arc::clone(&world.store));
    let gate = Gate::new();
    gated.plan(format!("{log}/{:020}", newest + 1), Fate::Held(gate.clone()));
    let stalled = Ingester::through(&world, "b", gated).await;
    let sealing = stalled.adopt(&log);
    let meanwhile = async {
        gate.reached().await;
        // The writer goes on, flushes, and removes what it no longer needs.
        first.append(20).await;
        first.storage.flush().await.expect("flushed");
        first.append(2).await;
        world.pass(LONG_MS);
        eventually("what is flushed is removed", || async {
            first.storage.maintain_once().await.expect("tidy");
            !segments(&world, &log).await.contains(&(newest + 1))
        })
        .await;
        gate.open();
    };
    let (sealed, ()) = tokio::join!(sealing, meanwhile);
    assert!(matches!(sealed, Err(Error::Stalled { .. })), "{sealed:?}");
    assert!(segments(&world, &log).await.contains(&(newest + 1)), "the seal is there");
    first.append(5).await;
    drop(first);
    let third = Ingester::new(&world, "c").await;
    assert!(third.adopt(&log).await.expect("taken over"));
    assert_eq!(in_table(&world).await, ledger(&[("a", 30)]));
    assert_gapless(&commits(&world, &log).await);
}

async fn a_seal_of_a_log_that_is_gone_is_taken_back(kind: Kind) {
    let world = World::on(kind);
    let mut first = Ingester::new(&world, "a").await;
    first.append(3).await;
    let (log, newest) = (first.log(), first.storage.state().logs[0].acked_seq);
    drop(first);
    let gated = Gated::new(Arc::clone(&world.store));
    let gate = Gate::new();
    gated.plan(format!("{log}/{:020}", newest + 1), Fate::Held(gate.clone()));
    let stalled = Ingester::through(&world, "b", gated).await;
    let sealing = stalled.adopt(&log);
    let meanwhile = async {
        gate.reached().await;
        let third = Ingester::new(&world, "c").await;
        third.adopt(&log).await.expect("taken over");
        third.storage.maintain_once().await.expect("tidy");
        assert_eq!(segments(&world, &log).await, [0_u64; 0]);
        gate.open();
    };
    let (sealed, ()) = tokio::join!(sealing, meanwhile);
    assert!(!sealed.expect("looked at"), "there is no such log");
    assert_eq!(segments(&world, &log).await, [0_u64; 0]);
    assert_eq!(in_table(&world).await, ledger(&[("a", 3)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_try_to_take_over_gets_further() {
    let world = World::new();
    let mut first = Ingester::new(&world, "a").await;
    first.append(8).await;
    let log = first.log();
    drop(first);
    let gated = Gated::new(Arc::clone(&world.store));
    let through = world.beside(gated.clone());
    let logs = logs_of(&through, "b", gated.clone()).await;
    let options = StorageOptions {
        logs: LogStore::Objects(Arc::clone(&logs)),
        // Each segment with samples is a part of its own.
        unflushed_bytes_max: 1,
        ..through.options().await
    };
    let second = Storage::open(options).await.expect("open");
    for _ in 0..10 {
        gated.plan("_delta_log/00000000000000000004.json", Fate::Lost);
    }
    second.adopt(&logs, &log).await.expect_err("the store fails at the fourth commit");
    let before = commits(&world, &log).await;
    assert_eq!(before.len(), 3, "{before:?}");
    assert_eq!(in_table(&world).await, ledger(&[("a", 3)]));
    while !gated.is_done() {
        drop(gated.put(&Path::from("_delta_log/00000000000000000004.json"), "".into()).await);
    }
    assert!(second.adopt(&logs, &log).await.expect("taken over"));
    let after = commits(&world, &log).await;
    assert_eq!(after[..3], before);
    assert_gapless(&after);
    assert_eq!(in_table(&world).await, ledger(&[("a", 8)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_log_writes_nothing_and_is_looked_for_before_it_goes_on() {
    let world = World::new();
    let mut first = Ingester::new(&world, "a").await;
    first.append(2).await;
    first.storage.flush().await.expect("flushed");
    let log = first.log();
    let before = segments(&world, &log).await;
    for _ in 0..5 {
        world.pass(20 * 60_000);
        first.storage.maintain_once().await.expect("tidy");
        first.storage.flush().await.expect("nothing to do");
    }
    // The birth record, the declarations, and the segment that says that nothing else is needed.
    let newest = *before.last().expect("a segment");
    let kept = [0, newest - 1, newest];
    eventually("what is flushed is removed", || async { segments(&world, &log).await == kept }).await;
    first.append(2).await;
    first.storage.flush().await.expect("flushed");
    assert_eq!(in_table(&world).await, ledger(&[("a", 4)]));
    assert_gapless(&commits(&world, &log).await);
}

async fn a_missing_segment_is_told_and_the_log_stays(kind: Kind) {
    let world = World::on(kind);
    let mut first = Ingester::new(&world, "a").await;
    first.append(6).await;
    let log = first.log();
    drop(first);
    let bytes = world.store.get(&segment(&log, 3)).await.expect("there").bytes().await.expect("readable");
    world.store.delete(&segment(&log, 3)).await.expect("removed");
    let left = segments(&world, &log).await;
    let second = Ingester::new(&world, "b").await;
    let error = second.adopt(&log).await.expect_err("samples are missing");
    assert!(matches!(error, Error::Gap { from: 3, to: 3, .. }), "{error}");
    assert_eq!(error.kind(), Fault::Corrupt);
    assert!(!second.storage.state().logs.iter().any(|l| *l.log == log), "nobody answers for it");
    second.storage.maintain_once().await.expect("tidy");
    assert_eq!(segments(&world, &log).await, left, "nothing of it is removed");
    // Its own ingester starts all the same.
    let again = Ingester::new(&world, "a").await;
    assert!(!again.storage.state().logs.iter().any(|l| *l.log == log));
    world.store.put(&segment(&log, 3), bytes.into()).await.expect("restored");
    assert!(second.adopt(&log).await.expect("taken over"));
    assert_eq!(in_table(&world).await, ledger(&[("a", 6)]));
}

async fn a_damaged_segment_is_counted_kept_and_passed_over(kind: Kind) {
    let world = World::on(kind);
    let mut first = Ingester::new(&world, "a").await;
    first.append(6).await;
    let (log, newest) = (first.log(), first.storage.state().logs[0].acked_seq);
    drop(first);
    // The last segments are of one sample each.
    let path = segment(&log, newest - 1);
    let mut bytes = world.store.get(&path).await.expect("there").bytes().await.expect("readable").to_vec();
    *bytes.last_mut().expect("a record") ^= 0x40;
    world.store.put(&path, bytes.clone().into()).await.expect("damaged");
    let second = Ingester::new(&world, "b").await;
    assert!(second.adopt(&log).await.expect("taken over"));
    let mut wanted = ledger(&[("a", 6)]);
    wanted.values_mut().next().expect("a series").remove(&(START + 4));
    assert_eq!(in_table(&world).await, wanted);
    assert_eq!(second.storage.stats().log_damages_total, 1);
    second.storage.maintain_once().await.expect("tidy");
    assert_eq!(segments(&world, &log).await, [0_u64; 0]);
    let kept = Path::from(format!("wal/damaged/{log}/{:020}", newest - 1));
    let kept = world.store.get(&kept).await.expect("kept for people to look at");
    assert_eq!(kept.bytes().await.expect("readable"), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_log_stays_for_as_long_as_somebody_may_need_it() {
    let world = World::new();
    let mut first = Ingester::new(&world, "a").await;
    first.append(1).await;
    let log = first.log();
    drop(first);
    let owner = LogOwner { ingester: "b".to_owned(), address: "b:1".to_owned() };
    let options = ObjectLogOptions {
        seal_retention: Duration::ZERO,
        ..ObjectLogOptions::new(owner, world.clock.clone(), Handle::current())
    };
    let logs = ObjectLogs::on(Arc::clone(&world.store), &Path::default(), options).await.expect("logs");
    let deletion_delay = Duration::from_secs(3600);
    let options = StorageOptions {
        logs: LogStore::Objects(Arc::clone(&logs)),
        deletion_delay,
        ..world.options().await
    };
    let second = Storage::open(options).await.expect("open");
    second.adopt(&logs, &log).await.expect("taken over");
    world.pass(59 * 60_000);
    second.maintain_once().await.expect("tidy");
    assert!(!segments(&world, &log).await.is_empty(), "an hour has not passed");
    world.pass(2 * 60_000);
    second.maintain_once().await.expect("tidy");
    assert!(segments(&world, &log).await.is_empty());
    assert!(!second.state().logs.iter().any(|l| *l.log == log));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_or_doubled_on_a_store_that_fails() {
    for seed in 0..12 {
        let world = World::new();
        let shaky = Arc::new(Unreliable::new(Arc::clone(&world.store), seed, 4));
        let through = world.beside(shaky.clone());
        let logs = logs_of(&through, "a", shaky.clone()).await;
        let mut storage = reopen(&through, &logs).await;
        let mut group = storage.declare(declaration("a", 1)).expect("declared");
        let (mut acknowledged, mut t) = (Samples::new(), START);
        for round in 0..40 {
            t += 1;
            match storage.append(vec![samples(group, t, &[t as f64])], false).await {
                Ok(_) => {
                    let series = acknowledged.entry(labels("a", 0).to_string()).or_default();
                    series.insert(t, (t as f64).to_bits());
                }
                Err(_) => {
                    storage = reopen(&through, &logs).await;
                    group = storage.declare(declaration("a", 1)).expect("declared");
                }
            }
            if round % 13 == 12 {
                // One that fails is made up for by the next.
                drop(storage.flush().await);
            }
        }
        let first = storage.log().to_string();
        drop(storage);
        let others = logs_of(&through, "b", shaky.clone()).await;
        let second = reopen(&through, &others).await;
        for log in others.list().await.expect("listed") {
            if log == **second.log() || others.is_spare(&log) {
                continue;
            }
            let mut tries = 0;
            while let Err(error) = second.adopt(&others, &log).await {
                tries += 1;
                assert!(tries < 50, "seed {seed}: {error}");
            }
            assert_gapless(&commits(&world, &log).await);
        }
        let found = in_table(&world).await;
        for (series, samples) in &acknowledged {
            for (t, value) in samples {
                assert_eq!(
                    found.get(series).and_then(|s| s.get(t)),
                    Some(value),
                    "seed {seed}: {t} of {first}"
                );
            }
        }
        let count: usize = found.values().map(std::collections::BTreeMap::len).sum();
        assert!(count <= 40, "seed {seed}: nothing but what was written");
        assert!(shaky.faults() > 0, "seed {seed}");
    }
}

async fn a_store_that_is_full_is_told_of_and_taken_again(kind: Kind) {
    let world = World::on(kind);
    let gated = Gated::new(Arc::clone(&world.store));
    let mut ingester = Ingester::through(&world, "a", gated.clone()).await;
    ingester.append(3).await;
    gated.set_full(true);
    // The first waits until it is clear that the store does not take it, as others that come meanwhile; then nobody does.
    let late = samples(ingester.group, START + 3, &[(START + 3) as f64]);
    let (first, second) =
        tokio::join!(ingester.storage.append(vec![late], false), ingester.storage.append(vec![], false));
    for refused in [first.map(drop), second.map(drop), ingester.try_append().await.map(drop)] {
        let refused = refused.expect_err("the store is full");
        let log = ingester.log();
        assert!(matches!(&refused, Error::LogStalled { log: found, .. } if *found == log), "{refused}");
        assert_eq!(refused.kind(), Fault::Unavailable);
        assert!(refused.to_string().contains("507 Insufficient Storage"), "{refused}");
    }
    let declared = ingester.storage.declare(declaration("b", 1));
    assert!(matches!(declared, Err(Error::LogStalled { .. })));
    assert_eq!(world.everything(&ingester.storage).await, ledger(&[("a", 3)]), "reads go on");
    gated.set_full(false);
    ingester.acknowledged = 4;
    eventually("it is written again", async || ingester.storage.append(vec![], false).await.is_ok()).await;
    ingester.append(3).await;
    // What was refused was stored after all, in its place.
    assert_eq!(world.everything(&ingester.storage).await, ledger(&[("a", 7)]));
    let log = ingester.log();
    drop(ingester);
    let heir = Ingester::new(&world, "b").await;
    assert!(heir.adopt(&log).await.expect("taken over"));
    assert_eq!(in_table(&world).await, ledger(&[("a", 7)]));
}

/// Opens a storage on a store that fails, however often it takes.
async fn reopen(world: &World, logs: &Arc<ObjectLogs>) -> Arc<Storage> {
    for _ in 0..50 {
        if let Ok(table) = world.try_table().await {
            let options = StorageOptions {
                logs: LogStore::Objects(Arc::clone(logs)),
                commits_in_flight_max: 4,
                ..world.options_of(world.dir.path(), table)
            };
            if let Ok(storage) = Storage::open(options).await {
                return storage;
            }
        }
    }
    panic!("fifty attempts failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_of_the_two_stores_are_not_taken_for_each_other() {
    let world = World::on(Kind::Folder);
    let local = world.open().await;
    let group = local.declare(declaration("a", 1)).expect("declared");
    append(&local, group, START, &[1.0]).await;
    let table = world.table().await;
    let left = tsdb::unflushed_local_logs(world.dir.path(), &table).await.expect("readable");
    assert_eq!(left, [local.log().to_string()]);
    local.flush().await.expect("flushed");
    assert!(tsdb::unflushed_local_logs(world.dir.path(), &table).await.expect("readable").is_empty());
    // An object store in the folder of a local one.
    let owner = LogOwner { ingester: "a".to_owned(), address: "a:1".to_owned() };
    let options = || ObjectLogOptions::new(owner.clone(), world.clock.clone(), Handle::current());
    let location = tsdb::Location::folder(world.dir.path());
    let refused = ObjectLogs::open(&location, options()).await.expect_err("local logs lie there");
    assert_eq!(refused.kind(), Fault::Invalid, "{refused}");
    // And the other way.
    let shared = tempfile::tempdir().expect("a folder");
    let logs = ObjectLogs::open(&tsdb::Location::folder(shared.path()), options()).await.expect("logs");
    let storage = open(&world, &logs).await.expect("open");
    let group = storage.declare(declaration("a", 1)).expect("declared");
    append(&storage, group, START + 1, &[1.0]).await;
    drop(storage);
    let refused = Storage::open(world.options_of(shared.path(), table)).await.expect_err("objects lie there");
    assert_eq!(refused.kind(), Fault::Invalid, "{refused}");
}
