//! Each record goes to the table exactly once, whoever flushes it and whenever it crashes.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use model::{Labels, Tenant};
use tsdb::{Error, GroupId, StorageOptions};

use super::support::{
    MINUTE, START, Samples, World, append, assert_gapless, commits, declaration, flatten, head_rows, labels,
};
use super::unreliable::Random;
use crate::testing::{Kind, on_every_store};

async fn a_flush_moves_everything_acknowledged_to_the_table(kind: Kind) {
    let world = World::on(kind);
    let storage = world.open().await;
    let group = storage.declare(declaration("a", 2)).expect("declared");
    let mut other = declaration("a", 2);
    other.tenant = Tenant::new("team-1").expect("valid");
    let other = storage.declare(other).expect("declared");
    append(&storage, group, START, &[1.0, 2.0]).await;
    append(&storage, other, START, &[7.0, 8.0]).await;
    let report = storage.flush().await.expect("flushed");
    assert_eq!((report.rows, report.version.is_some()), (4, true));
    let table = flatten(&world.table_rows(&Tenant::default()).await);
    assert_eq!(table[&labels("a", 0).to_string()], [(START, 1.0_f64.to_bits())].into());
    let team = flatten(&world.table_rows(&Tenant::new("team-1").expect("valid")).await);
    assert_eq!(team[&labels("a", 0).to_string()], [(START, 7.0_f64.to_bits())].into());

    assert_eq!(storage.flush().await.expect("nothing to do").version, None);
    append(&storage, group, START + 1, &[3.0, 4.0]).await;
    storage.flush().await.expect("flushed");
    let commits = commits(&world, storage.log()).await;
    assert_eq!(commits.len(), 2);
    assert_gapless(&commits);
    // What was flushed is still read from memory.
    assert_eq!(
        flatten(&head_rows(&storage, &Tenant::default())).values().map(BTreeMap::len).sum::<usize>(),
        4
    );
}

async fn after_a_flush_replay_needs_the_declarations_that_follow_it_only(kind: Kind) {
    let world = World::on(kind);
    let storage = world.open().await;
    let group = storage.declare(declaration("a", 2)).expect("declared");
    append(&storage, group, START, &[1.0, 2.0]).await;
    storage.flush().await.expect("flushed");
    // The floor is durable; an hour later the first file goes.
    world.pass(61 * MINUTE);
    storage.maintain_once().await.expect("tidy");
    append(&storage, group, START + 61 * MINUTE, &[3.0, 4.0]).await;
    let before = world.everything(&storage).await;
    let log = world.dir.path().join("wal").join(&**storage.log());
    assert!(!log.join(format!("{:020}", 0)).exists(), "no longer needed");
    let crashed = world.crashed();
    let again = crashed.open().await;
    assert_eq!(crashed.everything(&again).await, before);
    assert_eq!(again.stats().samples_replayed_total, 2);
    let report = again.flush().await.expect("flushed");
    assert_eq!(report.rows, 2, "only what was not flushed");
    assert_gapless(&commits(&world, storage.log()).await);
    assert_eq!(crashed.everything(&again).await, before);
}

async fn two_flushers_of_one_log_write_each_record_once(kind: Kind) {
    let world = World::on(kind);
    let storage = world.open().await;
    let group = storage.declare(declaration("a", 1)).expect("declared");
    append(&storage, group, START, &[1.0]).await;
    // An adopter works from a copy of the log as it was, and commits first.
    let adopter = world.crashed();
    let adopted = adopter.open().await;
    let late = world.crashed();
    let late_storage = late.open().await;
    append(&storage, group, START + 1, &[2.0]).await;
    assert_eq!(adopted.flush().await.expect("flushed").rows, 1);
    // The owner believes that nothing was flushed, and finds out.
    storage.flush().await.expect("flushed the rest");
    let chain = commits(&world, storage.log()).await;
    assert_eq!(chain.len(), 2);
    assert_gapless(&chain);
    let samples = flatten(&world.table_rows(&Tenant::default()).await);
    assert_eq!(samples[&labels("a", 0).to_string()].len(), 2);
    append(&storage, group, START + 2, &[3.0]).await;
    storage.flush().await.expect("flushed");
    assert_gapless(&commits(&world, storage.log()).await);

    // A second adopter of the same beginning is too late for all of it.
    late_storage.flush().await.expect("nothing left to do");
    assert_eq!(commits(&world, storage.log()).await.len(), 3);
    assert_gapless(&commits(&world, storage.log()).await);
}

async fn a_graceful_stop_leaves_nothing_to_replay(kind: Kind) {
    let world = World::on(kind);
    let storage = world.open().await;
    let group = storage.declare(declaration("a", 1)).expect("declared");
    append(&storage, group, START, &[1.0]).await;
    let before = world.everything(&storage).await;
    storage.close().await.expect("closed");
    let refused = storage.append(vec![super::support::samples(group, START + 1, &[1.0])], false).await;
    assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    assert_eq!(world.everything(&storage).await, before, "reads go on");
    drop(storage);

    let storage = world.open().await;
    assert_eq!(storage.stats().samples_replayed_total, 0);
    assert_eq!(world.everything(&storage).await, before);
    assert_eq!(storage.flush().await.expect("nothing to do").version, None);
    let logs = |world: &World| fs::read_dir(world.dir.path().join("wal")).expect("a folder").count();
    assert_eq!(logs(&world), 3, "the lock and two logs");
    world.pass(61 * MINUTE);
    storage.maintain_once().await.expect("tidy");
    assert_eq!(logs(&world), 2, "the old log has gone");
}

async fn ordering_is_remembered_across_a_clean_restart(kind: Kind) {
    let world = World::on(kind);
    let storage = world.open().await;
    let group = storage.declare(declaration("a", 1)).expect("declared");
    append(&storage, group, START, &[1.0]).await;
    storage.close().await.expect("closed");
    drop(storage);
    let options = StorageOptions { out_of_order_window: Duration::ZERO, ..world.options().await };
    let storage = tsdb::Storage::open(options).await.expect("open");
    let group = storage.declare(declaration("a", 1)).expect("declared");
    assert_eq!(append(&storage, group, START, &[1.0]).await.stored, 1, "an exact repeat");
    assert_eq!(
        append(&storage, group, START, &[2.0]).await.refused[0].reason,
        tsdb::RefusalReason::Duplicate
    );
    assert_eq!(
        append(&storage, group, START - 1, &[1.0]).await.refused[0].reason,
        tsdb::RefusalReason::OutOfOrder
    );
}

async fn memory_is_given_back_after_the_retention(kind: Kind) {
    let world = World::on(kind);
    let storage = world.open().await;
    let group = storage.declare(declaration("a", 1)).expect("declared");
    let ended = storage.declare(declaration("gone", 5)).expect("declared");
    append(&storage, group, START, &[1.0]).await;
    append(&storage, ended, START, &[1.0; 5]).await;
    storage.forget(ended).expect("forgotten");
    storage.maintain_once().await.expect("nothing is due");
    assert_eq!(world.table_rows(&Tenant::default()).await.len(), 0);
    for _ in 0..12 {
        world.pass(17 * MINUTE);
        append(&storage, group, world.clock.now().millis(), &[2.0]).await;
        storage.maintain_once().await.expect("kept in order");
    }
    assert_eq!(storage.stats().head_series, 1, "the ended series have gone");
    let state = storage.state();
    assert_eq!(state.logs[0].complete_since.millis(), world.clock.now().millis() - 120 * MINUTE);
    assert!(state.table_version() > 0);
    let rows = head_rows(&storage, &Tenant::default());
    assert!(rows[0].samples.floats.timestamps[0] > START);
    let all = world.everything(&storage).await;
    assert_eq!(all[&labels("a", 0).to_string()].len(), 13, "head and table together have everything");
    assert_eq!(all.len(), 6);
    // A series that comes back is as new.
    let group = storage.declare(declaration("gone", 5)).expect("declared");
    assert_eq!(append(&storage, group, world.clock.now().millis(), &[3.0; 5]).await.stored, 5);
    assert_eq!(storage.label_values(&Tenant::default(), "instance", &[], i64::MIN, i64::MAX), ["a", "gone"]);
}

/// What should be stored, by the simplest account of the rules that there is.
#[derive(Default)]
struct NaiveModel {
    samples: Samples,
    newest: BTreeMap<String, (i64, u64)>,
    max: Option<i64>,
}

impl NaiveModel {
    /// Takes a sample or says why not, with a window of ten minutes.
    fn take(
        &mut self,
        series: &Labels,
        t: i64,
        value: f64,
        max_before: Option<i64>,
    ) -> Option<tsdb::RefusalReason> {
        let (name, bits) = (series.to_string(), value.to_bits());
        let newest = self.newest.get(&name).copied();
        let is_recent = max_before.is_none_or(|max| t >= max - 60 * MINUTE);
        if let Some((newest_t, newest_bits)) = newest
            && is_recent
            && t == newest_t
        {
            return (bits != newest_bits).then_some(tsdb::RefusalReason::Duplicate);
        }
        if is_recent && newest.is_none_or(|n| t > n.0) {
            self.newest.insert(name.clone(), (t, bits));
        } else if max_before.is_some_and(|max| t < max - 10 * MINUTE) {
            return Some(tsdb::RefusalReason::TooOld);
        }
        let known = self.samples.entry(name).or_default().entry(t).or_insert(bits);
        *known = (*known).max(bits);
        self.max = self.max.max(Some(t));
        None
    }
}

async fn random_lives_agree_with_the_naive_model(kind: Kind) {
    for seed in 0..if kind == Kind::Memory { 6 } else { 1 } {
        random_life(kind, seed).await;
    }
}

async fn random_life(kind: Kind, seed: u64) {
    let mut random = Random(seed);
    let mut world = World::on(kind);
    let mut model = NaiveModel::default();
    let window = Duration::from_secs(600);
    let open = async |world: &World| {
        let options = StorageOptions { out_of_order_window: window, ..world.options().await };
        tsdb::Storage::open(options).await.expect("open")
    };
    let mut storage = open(&world).await;
    let mut groups: Vec<Option<GroupId>> = vec![None; 3];
    for step in 0..150 {
        match random.below(20) {
            0 => drop(storage.flush().await.expect("flushed")),
            1 => {
                // A crash: what is on disk is all there is.
                let crashed = world.crashed();
                storage = open(&crashed).await;
                world = crashed;
                groups = vec![None; 3];
            }
            2 => {
                storage.close().await.expect("closed");
                drop(storage);
                storage = open(&world).await;
                groups = vec![None; 3];
            }
            3 => storage.maintain_once().await.expect("kept in order"),
            _ => {
                world.pass(i64::try_from(random.below(2 * MINUTE as u64)).expect("small"));
                let which = usize::try_from(random.below(3)).expect("small");
                let name = format!("g{which}");
                let group = match groups[which] {
                    Some(group) => group,
                    None => storage.declare(declaration(&name, 3)).expect("declared"),
                };
                groups[which] = Some(group);
                let back =
                    [0, 0, 0, 1, 5, 9, 11, 30][usize::try_from(random.below(8)).expect("small")] * MINUTE;
                let t = (world.clock.now().millis() - back) / 10_000 * 10_000;
                let values: Vec<f64> = (0..3).map(|_| random.below(3) as f64).collect();
                let done = append(&storage, group, t, &values).await;
                let max_before = model.max;
                let mut refused = BTreeMap::new();
                for (member, value) in values.iter().enumerate() {
                    if let Some(reason) = model.take(&labels(&name, member), t, *value, max_before) {
                        *refused.entry(reason.as_str()).or_insert(0) += 1;
                    }
                }
                let found: BTreeMap<&str, u64> =
                    done.refused.iter().map(|r| (r.reason.as_str(), r.count)).collect();
                assert_eq!(found, refused, "seed {seed}, step {step}");
            }
        }
        if step % 10 == 0 {
            assert_eq!(world.everything(&storage).await, model.samples, "seed {seed}, step {step}");
        }
    }
    storage.flush().await.expect("flushed");
    assert_eq!(
        flatten(&world.table_rows(&Tenant::default()).await),
        model.samples,
        "seed {seed}: the table has all"
    );
    let snapshot = world.table().await.snapshot(None).await.expect("a snapshot");
    for (log, _) in snapshot.transactions() {
        assert_gapless(&commits(&world, log).await);
    }
    assert!(Arc::strong_count(&storage) == 1, "nothing holds on to the storage");
}

on_every_store!(
    a_flush_moves_everything_acknowledged_to_the_table,
    after_a_flush_replay_needs_the_declarations_that_follow_it_only,
    two_flushers_of_one_log_write_each_record_once,
    a_graceful_stop_leaves_nothing_to_replay,
    ordering_is_remembered_across_a_clean_restart,
    memory_is_given_back_after_the_retention,
    random_lives_agree_with_the_naive_model,
);
