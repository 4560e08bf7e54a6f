//! Which samples are taken, and what a refused request leaves behind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::{
    Histogram, IntegerHistogram, Labels, LastSamples, MatchOp, Matcher, Metadata, Tenant, Value, stale_nan,
};
use tsdb::table::SelectLimits;
use tsdb::{Error, GroupAppend, GroupChange, Presence, RefusalReason, Storage, StorageOptions};

use super::support::{MINUTE, START, World, append, declaration, flatten, head_rows, labels, samples};

async fn strict(world: &World) -> Arc<Storage> {
    let options = StorageOptions { out_of_order_window: Duration::ZERO, ..world.options().await };
    Storage::open(options).await.expect("open")
}

/// What a reader of newest samples finds, which is checked for its order, sorted by metric name, then labels.
fn last_samples(
    storage: &Arc<Storage>,
    any_of: Vec<Vec<Matcher>>,
    min_time: i64,
    max_time: i64,
) -> Vec<(Labels, i64, Value)> {
    let mut reader = Arc::clone(storage).last_samples(Tenant::default(), any_of, min_time, max_time);
    let mut pieces = Vec::new();
    while let Some(piece) = reader.read().expect("read") {
        pieces.push(LastSamples::new(piece).expect("whole"));
    }
    let places = pieces.iter().flat_map(|piece| (0..piece.len()).map(move |series| (piece, series)));
    let places: Vec<_> = places.collect();
    assert!(places.is_sorted_by(|(a, i), (b, j)| a.compare(*i, b, *j).is_lt()), "in order, each once");
    let mut found: Vec<_> = places
        .iter()
        .map(|(piece, series)| (piece.labels(*series), piece.timestamp(*series), piece.value(*series)))
        .collect();
    found.sort_by(|a, b| a.0.cmp_by_metric(&b.0));
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn newest_samples_are_read_in_pieces_while_series_come_and_go() {
    let world = World::new();
    let storage = world.open().await;
    // Families of more series than are read under one lock, or put in order under one.
    let groups: Vec<String> = (0..3_000).map(|i| format!("g{i}")).collect();
    let mut ids = Vec::new();
    for name in &groups {
        ids.push(storage.declare(declaration(name, 2)).expect("declared"));
    }
    let appends = ids.iter().map(|id| samples(*id, START, &[1.0, 2.0])).collect();
    storage.append(appends, false).await.expect("stored");
    let expected = |count: usize| {
        let mut all: Vec<_> = groups[..count]
            .iter()
            .flat_map(|g| {
                [(labels(g, 0), START, Value::Float(1.0)), (labels(g, 1), START, Value::Float(2.0))]
            })
            .collect();
        all.sort_by(|a, b| a.0.cmp_by_metric(&b.0));
        all
    };
    assert!(last_samples(&storage, vec![vec![]], START, START) == expected(3_000));

    // Numbers are given anew in the middle: whoever is there all the time is told once.
    let mut reader = Arc::clone(&storage).last_samples(Tenant::default(), vec![vec![]], START, START);
    let mut told = Vec::new();
    let mut step = 0;
    while let Some(piece) = reader.read().expect("read") {
        let piece = LastSamples::new(piece).expect("whole");
        told.extend((0..piece.len()).map(|series| piece.labels(series).to_string()));
        step += 1;
        let id = storage.declare(declaration(&format!("later{step}"), 1)).expect("declared");
        append(&storage, id, START, &[1.0]).await;
        // Numbers of series, blocks and tracks may mean something else from now on.
        storage.flush().await.expect("flushed");
    }
    assert!(step > 3);
    told.retain(|labels| !labels.contains("later"));
    let mut unique = told.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!((told.len(), unique.len()), (6_000, 6_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_speak_prometheus() {
    let world = World::new();
    let (in_order, windowed) = (strict(&world).await, World::new().open().await);
    let now = START;
    // (without a window, time, value, refused as); the sample before is 5 at START, the newest of all at START.
    let cases = [
        (true, now, 5.0, None),
        (true, now, 6.0, Some(RefusalReason::Duplicate)),
        (true, now - 1, 5.0, Some(RefusalReason::OutOfOrder)),
        (true, now - 61 * MINUTE, 5.0, Some(RefusalReason::OutOfBounds)),
        (true, now + 10 * MINUTE + 1, 5.0, Some(RefusalReason::OutOfBounds)),
        (false, now, 5.0, None),
        (false, now, 6.0, Some(RefusalReason::Duplicate)),
        (false, now - 30 * MINUTE, 5.0, None),
        (false, now - 30 * MINUTE - 1, 5.0, Some(RefusalReason::TooOld)),
        (false, now + 10 * MINUTE + 1, 5.0, Some(RefusalReason::OutOfBounds)),
    ];
    for storage in [&in_order, &windowed] {
        let group = storage.declare(declaration("a", 1)).expect("declared");
        append(storage, group, START, &[5.0]).await;
    }
    for (is_strict, t, value, reason) in cases {
        let storage = if is_strict { &in_order } else { &windowed };
        let group = storage.declare(declaration("a", 1)).expect("declared");
        let done = append(storage, group, t, &[value]).await;
        let refused: Vec<RefusalReason> = done.refused.iter().map(|r| r.reason).collect();
        assert_eq!(refused, Vec::from_iter(reason), "strict {is_strict}, {} ms, {value}", t - now);
        assert_eq!(done.stored, u64::from(reason.is_none()));
        if let Some(reason) = reason {
            let example = format!(r#"{reason}: {{__name__="m0", instance="a"}}"#);
            assert_eq!((done.refused[0].count, done.refused[0].example.as_str()), (1, example.as_str()));
        }
    }
    let texts = ["out of order sample", "duplicate sample for timestamp", "too old sample", "out of bounds"];
    let reasons = [
        RefusalReason::OutOfOrder,
        RefusalReason::Duplicate,
        RefusalReason::TooOld,
        RefusalReason::OutOfBounds,
    ];
    assert_eq!(reasons.map(RefusalReason::as_str), texts);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_atomic_request_is_stored_as_a_whole_or_not_at_all() {
    let world = World::new();
    let storage = strict(&world).await;
    let a = storage.declare(declaration("a", 2)).expect("declared");
    let b = storage.declare(declaration("b", 1)).expect("declared");
    append(&storage, b, START, &[1.0]).await;
    let request = || {
        vec![samples(a, START, &[1.0, 2.0]), samples(a, START + 1, &[1.0, 2.0]), samples(b, START, &[9.0])]
    };
    let before = head_rows(&storage, &Tenant::default()).len();
    let done = storage.append(request(), true).await.expect("answered");
    assert_eq!(
        (done.stored, done.refused[0].reason, done.refused[0].count),
        (0, RefusalReason::Duplicate, 1)
    );
    assert_eq!(head_rows(&storage, &Tenant::default()).len(), before);
    // Nothing of it is remembered either: the same times are free.
    let done = storage.append(vec![samples(a, START, &[3.0, 4.0])], true).await.expect("answered");
    assert_eq!((done.stored, done.refused.len()), (2, 0));
    let done = storage.append(request(), false).await.expect("answered");
    assert_eq!(done.stored, 2, "the second time of a");
    assert_eq!(done.refused[0].count, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_an_older_evaluator_of_a_rule_group_is_taken() {
    let world = World::new();
    let storage = world.open().await;
    let epoch = |epoch| {
        let mut declared = declaration("a", 2);
        declared.key = Labels::from_pairs([("__rule_file__", "f"), ("__rule_group__", "g")]);
        declared.epoch = epoch;
        storage.declare(declared).expect("declared")
    };
    let old = epoch(1);
    append(&storage, old, START, &[1.0, 2.0]).await;
    let new = epoch(2);
    let done = append(&storage, old, START + 1, &[3.0, 4.0]).await;
    assert_eq!(
        (done.stored, done.refused[0].reason, done.refused[0].count),
        (0, RefusalReason::StaleEpoch, 2)
    );
    let done = append(&storage, new, START + 1, &[5.0, 6.0]).await;
    assert_eq!((done.stored, done.refused.len()), (2, 0));
    // Who has nothing to store hears of it as well.
    let ask = async |group| {
        let question = GroupAppend { absent: Presence::Present(vec![]), ..samples(group, START + 2, &[]) };
        storage.append(vec![question], false).await.expect("answered").refused
    };
    let refused: Vec<_> = ask(old).await.into_iter().map(|r| (r.reason, r.count)).collect();
    assert_eq!(refused, [(RefusalReason::StaleEpoch, 0)]);
    assert_eq!(ask(new).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn markers_of_an_older_assignment_are_refused() {
    let world = World::new();
    let storage = world.open().await;
    let epoch = |epoch| {
        let mut declared = declaration("a", 2);
        declared.epoch = epoch;
        storage.declare(declared).expect("declared")
    };
    let old = epoch(1);
    let new = epoch(2);
    append(&storage, old, START, &[1.0, 2.0]).await;
    let done = append(&storage, old, START + 1, &[stale_nan(), 2.0]).await;
    assert_eq!((done.stored, done.refused[0].reason), (1, RefusalReason::StaleEpoch));
    assert_eq!(append(&storage, new, START + 2, &[stale_nan(), 2.0]).await.stored, 2);
    storage.change(old, GroupChange { epoch: Some(2), ..GroupChange::default() }).expect("changed");
    assert_eq!(append(&storage, old, START + 3, &[stale_nan(), 2.0]).await.stored, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn histograms_are_checked_and_ordered_with_floats() {
    let world = World::new();
    let storage = strict(&world).await;
    let group = storage.declare(declaration("a", 1)).expect("declared");
    let histogram = |count: u64, sum: f64| {
        Arc::new(Histogram::Integer(IntegerHistogram {
            zero_count: 1,
            count,
            sum,
            ..IntegerHistogram::default()
        }))
    };
    let send = async |t: i64, value: Arc<Histogram>| {
        let mut append = samples(group, t, &[]);
        append.histograms = vec![(0, value)];
        storage.append(vec![append], false).await.expect("answered")
    };
    assert_eq!(send(START, histogram(1, 1.0)).await.stored, 1);
    assert_eq!(send(START, histogram(1, 1.0)).await.stored, 1, "an exact repeat");
    assert_eq!(send(START, histogram(1, 2.0)).await.refused[0].reason, RefusalReason::Duplicate);
    assert_eq!(append(&storage, group, START, &[1.0]).await.refused[0].reason, RefusalReason::Duplicate);
    let refused = send(START + 1, histogram(5, 1.0)).await.refused;
    assert_eq!(refused[0].reason, RefusalReason::InvalidHistogram);
    assert_eq!(send(START + 1, histogram(0, stale_nan())).await.stored, 1, "a marker needs no buckets");
    assert_eq!(append(&storage, group, START + 2, &[1.0]).await.stored, 1);
    let rows = head_rows(&storage, &Tenant::default());
    assert_eq!(*rows[0].samples.histograms.timestamps, [START, START + 1]);
    assert_eq!(*rows[0].samples.floats.timestamps, [START + 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_answer_by_label_time_and_limit() {
    let world = World::new();
    let storage = world.open().await;
    let mut declared = declaration("a", 3);
    let metadata = Arc::new(Metadata { help: "Counts.".into(), ..Metadata::default() });
    declared.members[0].metadata = Arc::clone(&metadata);
    let a = storage.declare(declared).expect("declared");
    let b = storage.declare(declaration("b", 1)).expect("declared");
    for i in 0..5 {
        append(&storage, a, START + i, &[i as f64, 0.0, 0.0]).await;
    }
    append(&storage, b, START - 10, &[1.0]).await;
    append(&storage, b, START - 5, &[stale_nan()]).await;
    let tenant = Tenant::default();
    let by = |name: &str, value: &str| vec![Matcher::equal(name, value)];

    let found = storage
        .select(&tenant, &by("__name__", "m0"), START + 1, START + 2, SelectLimits::NONE)
        .expect("read");
    let times: BTreeMap<String, Vec<i64>> =
        flatten(&found.rows).into_iter().map(|(l, s)| (l, s.into_keys().collect())).collect();
    assert_eq!(times, [(labels("a", 0).to_string(), vec![START + 1, START + 2])].into());
    assert_eq!(found.rows[0].metadata, metadata);
    for limits in [SelectLimits { series: 3, samples: 99 }, SelectLimits { series: 9, samples: 16 }] {
        let refused = storage.select(&tenant, &[], i64::MIN, i64::MAX, limits).expect_err("too much");
        assert!(matches!(refused, Error::TooMany { .. }), "{refused}");
    }
    assert_eq!(
        storage
            .select(&tenant, &[], i64::MIN, i64::MAX, SelectLimits { series: 4, samples: 17 })
            .expect("fits")
            .rows
            .len(),
        4
    );

    let last = last_samples(&storage, vec![vec![]], START - 20, START + 2);
    let wanted = [
        (labels("a", 0), START + 2, Value::Float(2.0)),
        (labels("b", 0), START - 5, Value::Float(stale_nan())),
        (labels("a", 1), START + 2, Value::Float(0.0)),
        (labels("a", 2), START + 2, Value::Float(0.0)),
    ];
    assert_eq!(last, wanted);
    let newest = last_samples(&storage, vec![by("__name__", "m0"), by("instance", "b")], START, i64::MAX);
    assert_eq!(newest, [(labels("a", 0), START + 4, Value::Float(4.0))]);
    assert_eq!(last_samples(&storage, vec![], START, i64::MAX), []);

    let all = (i64::MIN, i64::MAX);
    assert_eq!(storage.label_names(&tenant, &[], all.0, all.1), ["__name__", "instance"]);
    assert_eq!(storage.label_values(&tenant, "__name__", &[], all.0, all.1), ["m0", "m1", "m2"]);
    assert_eq!(storage.label_values(&tenant, "__name__", &[by("instance", "b")], all.0, all.1), ["m0"]);
    assert_eq!(storage.label_values(&tenant, "instance", &[], START, all.1), ["a"]);
    let not_m0 = vec![Matcher::new(MatchOp::NotRegex, "__name__", "m0|x").expect("valid")];
    let listed: Vec<_> = storage.labels(&tenant, &[not_m0], all.0, all.1).into_iter().map(|l| l.0).collect();
    assert_eq!(listed, [labels("a", 1), labels("a", 2)]);
    assert_eq!(storage.metadata(&tenant)["m0"].len(), 2, "a and b disagree");
    let stranger = Tenant::new("nobody").expect("valid");
    assert!(storage.labels(&stranger, &[], all.0, all.1).is_empty());
    assert!(head_rows(&storage, &stranger).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_window_may_change_while_the_storage_is_open() {
    let world = World::new();
    let options = StorageOptions { out_of_order_window: Duration::ZERO, ..world.options().await };
    let storage = Storage::open(options).await.expect("open");
    let group = storage.declare(declaration("a", 1)).expect("declared");
    assert_eq!(append(&storage, group, START, &[1.0]).await.stored, 1);
    assert_eq!(append(&storage, group, START - 1, &[1.0]).await.refused[0].reason, RefusalReason::OutOfOrder);
    storage.set_out_of_order_window(Duration::from_millis(10));
    assert_eq!(append(&storage, group, START - 1, &[1.0]).await.stored, 1);
    assert_eq!(append(&storage, group, START - 11, &[1.0]).await.refused[0].reason, RefusalReason::TooOld);
    storage.set_out_of_order_window(Duration::ZERO);
    assert_eq!(append(&storage, group, START - 2, &[1.0]).await.refused[0].reason, RefusalReason::OutOfOrder);
}
