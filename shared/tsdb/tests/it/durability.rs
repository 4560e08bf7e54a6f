//! What was acknowledged is there after a crash, whatever happened before it.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use fault::Kind;
use model::{
    Exemplar, Histogram, IntegerHistogram, Labels, Matcher, Metadata, MetricType, Tenant, Timestamp,
};
use object_store::ObjectStoreExt as _;
use tsdb::table::SelectLimits;
use tsdb::{Error, GroupChange, GroupId, MemberDeclaration, Presence, Storage, StorageOptions};

use super::support::{MINUTE, START, World, append, declaration, flatten, head_rows, labels, samples};
use super::unreliable::Random;

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_samples_survive_a_crash() {
    let world = World::new();
    let storage = world.open().await;
    let group = storage.declare(declaration("a", 2)).expect("declared");
    for i in 0..10 {
        let done = append(&storage, group, START + i, &[i as f64, 0.5]).await;
        assert_eq!(done.stored, 2);
        assert_eq!(done.position.log, *storage.log());
    }
    let before = world.everything(&storage).await;
    let later = world.crashed();
    let again = later.open().await;
    assert_eq!(later.everything(&again).await, before);
    assert_eq!(before[&labels("a", 0).to_string()].len(), 10);
    assert_eq!(again.stats().samples_replayed_total, 20);
    let logs: Vec<_> = again.state().logs.into_iter().map(|l| l.log).collect();
    assert_eq!(logs, [Arc::clone(again.log()), Arc::clone(storage.log())]);
    // And once more without a flush in between: the taken over log is still there.
    let third = later.crashed();
    let storage = third.open().await;
    assert_eq!(third.everything(&storage).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_a_record_holds_survives() {
    let world = World::new();
    let storage = world.open().await;
    let metadata = Arc::new(Metadata { kind: MetricType::Counter, unit: "s".into(), help: "Helps.".into() });
    let mut declared = declaration("a", 3);
    declared.members[1].metadata = Arc::clone(&metadata);
    let group = storage.declare(declared).expect("declared");
    let histogram = Arc::new(Histogram::Integer(IntegerHistogram {
        zero_count: 3,
        count: 3,
        sum: 1.5,
        ..IntegerHistogram::default()
    }));
    let mut first = samples(group, START, &[1.0, 2.0]);
    first.histograms = vec![(2, Arc::clone(&histogram))];
    first.start_timestamps = vec![(1, START - 50)];
    let exemplar = Exemplar { labels: Labels::from_pairs([("trace_id", "x")]), value: 0.25, timestamp: None };
    first.exemplars = vec![(1, exemplar.clone())];
    storage.append(vec![first], true).await.expect("appended");
    let added = MemberDeclaration { labels: labels("new", 9), metadata };
    let change = GroupChange { add: vec![added], remove: vec![0], ..GroupChange::default() };
    storage.change(group, change).expect("changed");
    append(&storage, group, START + 1, &[3.0, 5.0, 4.0]).await;

    for storage in [storage, world.crashed().open().await] {
        let rows = head_rows(&storage, &Tenant::default());
        let found = flatten(&rows);
        assert_eq!(found[&labels("a", 0).to_string()].len(), 1, "removed after the first scrape");
        assert_eq!(found[&labels("a", 1).to_string()].len(), 2);
        assert_eq!(found[&labels("new", 9).to_string()], [(START + 1, 4.0_f64.to_bits())].into());
        let counter = &rows[1];
        assert_eq!((counter.metadata.kind, &*counter.metadata.help), (MetricType::Counter, "Helps."));
        assert_eq!(*counter.samples.start_timestamps, [(START, START - 50)]);
        let kept = Exemplar { timestamp: Some(Timestamp(START)), ..exemplar.clone() };
        assert_eq!(*counter.samples.exemplars, [kept]);
        let histograms = &rows[2].samples.histograms;
        assert_eq!(*histograms.timestamps, [START]);
        assert!(histograms.values[0].bit_eq(&histogram));
        assert_eq!(*rows[2].samples.floats.timestamps, [START + 1]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_are_visible_once_acknowledged_and_not_before() {
    let world = World::new();
    // A birth record that has to be ten minutes old before anything is acknowledged.
    let options = StorageOptions { birth_delay: Duration::from_secs(600), ..world.options().await };
    let storage = Storage::open(options).await.expect("open");
    let group = storage.declare(declaration("a", 1)).expect("declared");
    let mut waiting = Box::pin(storage.append(vec![samples(group, START, &[1.0])], false));
    let first = futures::future::poll_immediate(&mut waiting).await;
    assert!(first.is_none(), "not durable");
    assert!(head_rows(&storage, &Tenant::default()).is_empty());
    assert_eq!(storage.state().logs[0].acked_seq, 0);
    drop(storage);
    assert_eq!(waiting.await.expect_err("the storage has gone").kind(), Kind::Unavailable);

    let storage = World::new().open().await;
    let group = storage.declare(declaration("a", 1)).expect("declared");
    for t in START..START + 50 {
        let done = append(&storage, group, t, &[1.0]).await;
        assert_eq!(storage.state().logs[0].acked_seq, done.position.seq);
        assert_eq!(
            *head_rows(&storage, &Tenant::default())[0].samples.floats.timestamps.last().expect("one"),
            t
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_acknowledged_with_what_it_repeats() {
    let world = World::new();
    let storage = world.open().await;
    let group = storage.declare(declaration("a", 1)).expect("declared");
    let first = storage.append(vec![samples(group, START, &[1.0])], false);
    let repeat = storage.append(vec![samples(group, START, &[1.0])], true);
    let (first, repeat) = (first.await.expect("stored"), repeat.await.expect("stored"));
    assert_eq!((first.stored, repeat.stored), (1, 1));
    assert!(repeat.refused.is_empty() && repeat.position.seq >= first.position.seq);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_and_strange_requests_are_refused() {
    let world = World::new();
    let birth_delay = Duration::from_secs(600);
    let options =
        StorageOptions { birth_delay, queue_bytes_max: 200, group_members_max: 3, ..world.options().await };
    let storage = Storage::open(options).await.expect("open");
    let group = storage.declare(declaration("a", 1)).expect("declared");
    let error = |values: &[f64], presence: Presence| {
        let mut append = samples(group, START, values);
        append.absent = presence;
        storage.append(vec![append], false)
    };
    for (values, presence) in [
        (&[1.0, 2.0][..], Presence::All),
        (&[], Presence::All),
        (&[1.0], Presence::Present(vec![1])),
        (&[1.0, 1.0], Presence::Present(vec![0, 0])),
        (&[1.0], Presence::Absent(vec![1])),
    ] {
        assert_eq!(error(values, presence).await.expect_err("refused").kind(), Kind::Invalid);
    }
    let too_many = storage.declare(declaration("b", 4)).expect_err("refused");
    assert!(matches!(too_many, Error::TooMany { limit: 3, .. }));
    let mut nameless = declaration("b", 1);
    nameless.members[0].labels = Labels::empty();
    assert_eq!(storage.declare(nameless).expect_err("refused").kind(), Kind::Invalid);
    storage.forget(group).expect("forgotten");
    assert_eq!(error(&[1.0], Presence::All).await.expect_err("refused").kind(), Kind::NotFound);
    let other: GroupId = storage.declare(declaration("c", 1)).expect("declared");
    let mut refused = None;
    for i in 0..100 {
        let mut waiting = Box::pin(storage.append(vec![samples(other, START + i, &[1.0])], false));
        if let Some(answer) = futures::future::poll_immediate(&mut waiting).await {
            refused = Some(answer.expect_err("nothing is durable yet"));
            break;
        }
    }
    let full = refused.expect("a hundred appends do not fit");
    assert_eq!(full.kind(), Kind::Busy, "{full}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_asks_for_room_is_never_refused() {
    let world = World::new();
    let options = StorageOptions { queue_bytes_max: 200, ..world.options().await };
    let storage = Storage::open(options).await.expect("open");
    let group = storage.declare(declaration("a", 1)).expect("declared");
    let mut waiting = Vec::new();
    for i in 0..300 {
        storage.room().await;
        waiting.push(storage.append(vec![samples(group, START + i, &[1.0])], false));
    }
    for answer in waiting {
        assert_eq!(answer.await.expect("taken").stored, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_full_takes_no_new_series() {
    let world = World::new();
    let options = StorageOptions { series_max: 2, ..world.options().await };
    let storage = Storage::open(options).await.expect("open");
    let group = storage.declare(declaration("a", 2)).expect("declared");
    let refused = storage.declare(declaration("b", 1)).expect_err("full");
    assert_eq!(refused.kind(), Kind::Limit, "{refused}");
    let added = MemberDeclaration { labels: labels("b", 0), metadata: Arc::default() };
    let change = GroupChange { add: vec![added], ..GroupChange::default() };
    assert!(matches!(storage.change(group, change), Err(Error::TooMany { limit: 2, .. })));
    assert_eq!(append(&storage, group, START, &[1.0, 2.0]).await.stored, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_fails_has_ended_for_good() {
    let world = World::new();
    // Every segment begins a file, so that taking the folder away is a disk that fails.
    let options = StorageOptions { file_bytes_max: 1, ..world.options().await };
    let storage = Storage::open(options).await.expect("open");
    let group = storage.declare(declaration("a", 1)).expect("declared");
    append(&storage, group, START, &[1.0]).await;
    let folder = world.dir.path().join("wal").join(&**storage.log());
    let moved = world.dir.path().join("elsewhere");
    fs::rename(&folder, &moved).expect("moved");
    let failed =
        storage.append(vec![samples(group, START + 1, &[2.0])], false).await.expect_err("not durable");
    assert!(matches!(failed, Error::LogEnded { .. }), "{failed}");
    assert_eq!(failed.kind(), Kind::Unavailable);
    fs::rename(&moved, &folder).expect("moved back");
    let ended = storage.append(vec![samples(group, START + 2, &[3.0])], false).await.expect_err("ended");
    assert!(matches!(ended, Error::LogEnded { .. }), "{ended}");
    assert!(matches!(storage.declare(declaration("b", 1)), Err(Error::LogEnded { .. })));
    // What was acknowledged is read on, and nothing else.
    let found = flatten(&head_rows(&storage, &Tenant::default()));
    assert_eq!(found[&labels("a", 0).to_string()], [(START, 1.0_f64.to_bits())].into());
    let again = world.crashed();
    let again = again.open().await;
    assert_eq!(flatten(&head_rows(&again, &Tenant::default())), found);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_log_takes_the_place_of_one_that_has_failed() {
    let world = World::new();
    let options = StorageOptions { file_bytes_max: 1, ..world.options().await };
    let storage = Storage::open(options).await.expect("open");
    let group = storage.declare(declaration("a", 1)).expect("declared");
    append(&storage, group, START, &[1.0]).await;
    storage.flush().await.expect("flushed");
    append(&storage, group, START + 1, &[2.0]).await;
    let folder = world.dir.path().join("wal").join(&**storage.log());
    let moved = world.dir.path().join("elsewhere");
    fs::rename(&folder, &moved).expect("moved");
    storage.append(vec![samples(group, START + 2, &[3.0])], false).await.expect_err("not durable");
    assert!(!storage.failed().await.is_full, "the disk is not full, the folder is gone");
    storage.successor().await.expect_err("as long as it is gone");
    fs::rename(&moved, &folder).expect("moved back");
    let logs = |world: &World| fs::read_dir(world.dir.path().join("wal")).expect("a folder").count();
    assert_eq!(logs(&world), 2, "the lock and the log: an attempt leaves nothing behind");

    let next = storage.successor().await.expect("begun");
    assert_ne!(next.log(), storage.log());
    let one = |t: i64, x: f64| (START + t, x.to_bits());
    let of_a = |found: super::support::Samples| found[&labels("a", 0).to_string()].clone();
    assert_eq!(of_a(world.everything(&next).await), [one(0, 1.0), one(1, 2.0)].into());
    assert_eq!(of_a(flatten(&head_rows(&storage, &Tenant::default()))), [one(0, 1.0), one(1, 2.0)].into());
    assert!(matches!(
        storage.append(vec![samples(group, START + 2, &[3.0])], false).await,
        Err(Error::LogEnded { .. })
    ));
    let again = next.declare(declaration("a", 1)).expect("declared");
    append(&next, again, START + 2, &[3.0]).await;
    let refused = next.append(vec![samples(again, START + 2, &[9.0])], false).await.expect("judged");
    assert_eq!(refused.refused.len(), 1, "the order of samples is known");
    let all = [one(0, 1.0), one(1, 2.0), one(2, 3.0)].into();
    // Before and after a flush, also for who finds it after a crash.
    for _ in 0..2 {
        let crashed = world.crashed();
        assert_eq!(of_a(crashed.everything(&*crashed.open().await).await), all);
        next.flush().await.expect("flushed");
    }
    assert_eq!(of_a(flatten(&world.table_rows(&Tenant::default()).await)), all);
    for log in [storage.log(), next.log()] {
        super::support::assert_gapless(&super::support::commits(&world, log).await);
    }
    // The ended log goes when its time has come.
    world.pass(61 * MINUTE);
    next.maintain_once().await.expect("tidy");
    assert!(!folder.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_stops_no_start() {
    let world = World::new();
    let storage = world.open().await;
    let group = storage.declare(declaration("a", 1)).expect("declared");
    append(&storage, group, START, &[1.0]).await;
    storage.flush().await.expect("flushed");
    append(&storage, group, START + 1, &[2.0]).await;
    let snapshot = world.table().await.snapshot(None).await.expect("a snapshot");
    let file = snapshot.files(&Tenant::default()).next().expect("a file").path.clone();
    let path = object_store::path::Path::parse(format!("metrics/{file}")).expect("a path");
    let mut bytes = world.store.get(&path).await.expect("there").bytes().await.expect("readable").to_vec();
    bytes[10] ^= 1;
    world.store.put(&path, bytes.into()).await.expect("damaged");
    let crashed = world.crashed();
    let again = crashed.open().await;
    let head = flatten(&head_rows(&again, &Tenant::default()));
    assert_eq!(head[&labels("a", 0).to_string()], [(START + 1, 2.0_f64.to_bits())].into());
    assert!(
        again.state().logs.iter().all(|log| log.complete_since.millis() > START + 1),
        "the table is asked"
    );
    let error = snapshot
        .select(&Tenant::default(), &[], i64::MIN, i64::MAX, SelectLimits::NONE)
        .await
        .expect_err("damaged");
    assert!(error.to_string().contains(&file), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_works_in_a_folder() {
    let world = World::new();
    let storage = world.open().await;
    let second = Storage::open(world.options().await).await.expect_err("locked");
    assert!(matches!(second, Error::Locked(_)), "{second}");
    drop(storage);
    Storage::open(world.options().await).await.expect("free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_a_log_costs_one_record_and_is_counted() {
    let world = World::new();
    let storage = world.open().await;
    let group = storage.declare(declaration("a", 1)).expect("declared");
    for i in 0..3 {
        append(&storage, group, START + i, &[777_777.0 + i as f64]).await;
    }
    let crashed = world.crashed();
    let file = crashed.dir.path().join("wal").join(&**storage.log()).join(format!("{:020}", 0));
    let mut bytes = fs::read(&file).expect("readable");
    // The second sample's value as the log has it: a varint of four times the number.
    let value = 4 * 777_778_u32;
    let varint = [value & 0x7f | 0x80, value >> 7 & 0x7f | 0x80, value >> 14 & 0x7f | 0x80, value >> 21];
    let varint = varint.map(|b| b as u8);
    let at = bytes.windows(4).position(|w| w == varint).expect("written");
    bytes[at] ^= 0x10;
    fs::write(&file, bytes).expect("written");
    let again = crashed.open().await;
    let found = flatten(&head_rows(&again, &Tenant::default()));
    let times: Vec<i64> = found[&labels("a", 0).to_string()].keys().copied().collect();
    assert_eq!(times, [START, START + 2]);
    assert_eq!(again.stats().log_damages_total, 1);
    again.flush().await.expect("flushed");
    crashed.pass(2 * 3_600_000);
    again.maintain_once().await.expect("tidy");
    assert!(
        crashed.dir.path().join("wal/damaged").join(&**storage.log()).exists(),
        "kept for people to look at"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn flipped_bits_in_a_log_are_never_read_as_values() {
    const SAMPLES: i64 = 20;
    let world = World::new();
    let options = StorageOptions { file_bytes_max: 600, ..world.options().await };
    let storage = Storage::open(options).await.expect("open");
    let groups = ["a", "b"].map(|name| storage.declare(declaration(name, 2)).expect("declared"));
    for i in 0..SAMPLES {
        append(&storage, groups[usize::from(i % 2 == 1)], START + i, &[i as f64, i as f64 / 3.0]).await;
    }
    let written = world.everything(&storage).await;
    let log = storage.log().to_string();
    let mut random = Random(7);
    let mut seen = 0;
    for _ in 0..150 {
        let crashed = world.crashed();
        let folder = crashed.dir.path().join("wal").join(&log);
        let files = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        let mut files: Vec<_> = files.filter(|path| path.metadata().is_ok_and(|m| m.len() > 0)).collect();
        files.sort();
        let mut pick = |count: usize| usize::try_from(random.below(count as u64)).expect("small");
        let file = &files[pick(files.len())];
        let mut bytes = fs::read(file).expect("readable");
        let at = pick(bytes.len());
        bytes[at] ^= 1 << pick(8);
        fs::write(file, bytes).expect("written");
        let again = match Storage::open(crashed.options().await).await {
            Ok(again) => again,
            Err(error) => {
                assert!(error.kind() == Kind::Corrupt && error.to_string().contains(&log), "{error}");
                continue;
            }
        };
        let found = crashed.everything(&again).await;
        let mut missing: Vec<i64> = Vec::new();
        for (series, samples) in &written {
            let kept = found.get(series);
            let gone = samples.keys().filter(|t| kept.is_none_or(|kept| !kept.contains_key(*t)));
            missing.extend(gone);
        }
        for (series, samples) in &found {
            for (t, bits) in samples {
                assert_eq!(written.get(series).and_then(|w| w.get(t)), Some(bits), "{series} at {t}");
            }
        }
        // The end of a log that is damaged cannot be told from one that was never written to its end.
        let is_end = missing.iter().all(|t| *t == START + SAMPLES - 1);
        assert!(is_end || again.stats().log_damages_total > 0, "{missing:?} are missing and nobody says so");
        seen += usize::from(!missing.is_empty());
    }
    assert!(seen > 20, "{seen}: bits that matter were flipped");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_at_once_lose_nothing() {
    const WRITERS: usize = 8;
    const SCRAPES: i64 = 200;
    let world = World::new();
    let storage = world.open().await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let storage = Arc::clone(&storage);
        writers.spawn(async move {
            let group = storage.declare(declaration(&format!("w{writer}"), 20)).expect("declared");
            let mut waiting = Vec::new();
            for i in 0..SCRAPES {
                let values: Vec<f64> = (0..20).map(|m| (i * m) as f64).collect();
                waiting.push(storage.append(vec![samples(group, START + i, &values)], i % 2 == 0));
            }
            let mut seq = 0;
            for waiting in waiting {
                let done = waiting.await.expect("stored");
                assert!(done.position.seq >= seq, "acknowledged in order");
                assert_eq!(done.stored, 20);
                seq = done.position.seq;
            }
        });
    }
    // Reads and flushes go on meanwhile.
    for _ in 0..5 {
        storage.flush().await.expect("flushed");
        let name = [Matcher::equal("__name__", "m3")];
        storage.select(&Tenant::default(), &name, START, START + 50, SelectLimits::NONE).expect("read");
    }
    while let Some(done) = writers.join_next().await {
        done.expect("no writer panicked");
    }
    for (storage, world) in [(Arc::clone(&storage), &world), (world.crashed().open().await, &world)] {
        let found = world.everything(&storage).await;
        assert_eq!(found.len(), WRITERS * 20);
        for (series, samples) in &found {
            assert_eq!(
                samples.keys().copied().collect::<Vec<_>>(),
                (START..START + SCRAPES).collect::<Vec<_>>(),
                "{series}"
            );
        }
    }
    assert!(storage.stats().segments_total < (WRITERS as u64) * (SCRAPES as u64), "commits are shared");
    let rows = head_rows(&storage, &Tenant::default());
    let of_group = |g: &str| rows.iter().filter(|r| r.labels.value("instance") == g).collect::<Vec<_>>();
    let group = of_group("w0");
    for row in &group {
        assert!(Arc::ptr_eq(&row.samples.floats.timestamps, &group[0].samples.floats.timestamps));
    }
    world.pass(MINUTE);
}
