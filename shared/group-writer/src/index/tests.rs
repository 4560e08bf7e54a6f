use model::MetricType;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied())
}

/// A series of group `j`, from its labels alone.
fn plain(labels: &Labels) -> SeriesOf<'_> {
    SeriesOf { labels, source: 0, metadata: None }
}

fn key(name: &str) -> Labels {
    Labels::from_pairs([("job", name)])
}

fn index() -> SeriesIndex {
    SeriesIndex::new(Tenant::default(), 1_000)
}

/// What an append says: group key, time, presence, values.
fn said(append: &Append) -> (String, i64, Presence, Vec<f64>) {
    let key = append.group.identity().key.to_string();
    (key, append.timestamp.millis(), append.presence.clone(), append.values.clone())
}

type Given<'a> = (&'a str, &'a str, i64, f64);

/// Fills in (group, series, time, value) and takes the appends.
fn filled(
    index: &mut SeriesIndex,
    samples: &[Given<'_>],
    now: i64,
) -> Vec<(String, i64, Presence, Vec<f64>)> {
    let mut filling = index.fill(Timestamp(now));
    for (group, name, t, x) in samples {
        let labels = labels(&[("__name__", name), ("job", group)]);
        let place = filling.place(plain(&labels), || key(group)).expect("room");
        filling.sample(place, Timestamp(*t), Value::Float(*x), None);
    }
    filling.take().iter().map(said).collect()
}

#[test]
fn series_of_one_group_become_one_append_a_time() {
    let mut index = index();
    let given = [("j", "a", 1, 1.0), ("j", "a", 2, 2.0), ("k", "a", 1, 9.0), ("j", "b", 1, 5.0)];
    let (j, k) = (r#"{job="j"}"#.to_owned(), r#"{job="k"}"#.to_owned());
    assert_eq!(
        filled(&mut index, &given, 0),
        [
            (j.clone(), 1, Presence::All, vec![1.0, 5.0]),
            (j.clone(), 2, Presence::Absent(vec![0b1111_1110]), vec![2.0]),
            (k, 1, Presence::All, vec![9.0]),
        ]
    );
    // In another order, and with one member missing: the numbers stay.
    let got = filled(&mut index, &[("j", "b", 3, 6.0)], 0);
    assert_eq!(got, [(j, 3, Presence::Absent(vec![0b1111_1101]), vec![6.0])]);
}

#[test]
fn a_series_that_stands_twice_goes_to_a_second_append() {
    let got = filled(&mut index(), &[("j", "a", 1, 1.0), ("j", "a", 1, 2.0)], 0);
    let values: Vec<_> = got.into_iter().map(|(.., values)| values).collect();
    assert_eq!(values, [vec![1.0], vec![2.0]]);
}

#[test]
fn repeats_stand_behind_each_other_floats_first() {
    let mut index = index();
    let mut filling = index.fill(Timestamp(0));
    let (a, b) = (labels(&[("__name__", "a")]), labels(&[("__name__", "b")]));
    let a = filling.place(plain(&a), || key("j")).expect("room");
    let b = filling.place(plain(&b), || key("j")).expect("room");
    let histogram = Arc::new(Histogram::Integer(model::IntegerHistogram::default()));
    let (t, float) = (Timestamp(5), Value::Float);
    filling.sample(a, t, Value::Histogram(Arc::clone(&histogram)), None);
    for (place, value) in [(a, 1.0), (b, 2.0), (a, 3.0), (a, 4.0)] {
        filling.sample(place, t, float(value), None);
    }
    let got: Vec<_> =
        filling.take().into_iter().map(|a| (a.presence, a.values, a.histograms.len())).collect();
    let only_a = Presence::Absent(vec![0b1111_1110]);
    let expected = [
        (Presence::All, vec![1.0, 2.0], 0),
        (only_a.clone(), vec![3.0], 0),
        (only_a.clone(), vec![4.0], 0),
        (only_a, vec![], 1),
    ];
    assert_eq!(got, expected);
}

#[test]
fn exemplars_may_come_alone() {
    let mut index = index();
    let mut filling = index.fill(Timestamp(0));
    let a = labels(&[("__name__", "a")]);
    let place = filling.place(plain(&a), || key("j")).expect("room");
    let exemplar = Exemplar { labels: Labels::empty(), value: 3.0, timestamp: Some(Timestamp(4)) };
    filling.exemplars(place, Timestamp(4), [exemplar.clone()]);
    let [append] = filling.take().try_into().expect("one append");
    assert_eq!((append.presence, append.exemplars), (Presence::Present(vec![]), vec![(0, exemplar)]));
}

#[test]
fn starts_and_exemplars_go_with_their_samples() {
    let mut index = index();
    let mut filling = index.fill(Timestamp(0));
    let (a, b) = (labels(&[("__name__", "a")]), labels(&[("__name__", "b")]));
    let histogram = Arc::new(Histogram::Integer(model::IntegerHistogram::default()));
    let exemplar = Exemplar { labels: Labels::empty(), value: 3.0, timestamp: None };
    let b_place = filling.place(plain(&b), || key("j")).expect("room");
    let a_place = filling.place(plain(&a), || key("j")).expect("room");
    let t = Timestamp(5);
    filling.sample(a_place, t, Value::Float(1.0), Some(Timestamp(2)));
    filling.sample(b_place, t, Value::Histogram(Arc::clone(&histogram)), Some(Timestamp(3)));
    filling.exemplars(a_place, t, [exemplar.clone()]);
    let [append] = filling.take().try_into().expect("one append");
    assert_eq!(append.values, [1.0]);
    assert_eq!(append.histograms, [(0, histogram)]);
    assert_eq!(append.starts, [(0, Timestamp(3)), (1, Timestamp(2))]);
    assert_eq!(append.exemplars, [(1, exemplar)]);
}

#[test]
fn sources_keep_their_own_groups_for_equal_series() {
    let mut index = index();
    let mut filling = index.fill(Timestamp(0));
    let same = labels(&[("__name__", "a")]);
    for (source, group) in [(7, "j"), (8, "k"), (7, "not asked for")] {
        let series = SeriesOf { labels: &same, source, metadata: None };
        let place = filling.place(series, || key(group)).expect("room");
        filling.sample(
            place,
            Timestamp(1),
            Value::Float(f64::from(u32::try_from(source).expect("small"))),
            None,
        );
    }
    let got: Vec<_> = filling.take().iter().map(said).map(|(key, .., values)| (key, values)).collect();
    let (j, k) = (r#"{job="j"}"#.to_owned(), r#"{job="k"}"#.to_owned());
    assert_eq!(got, [(j.clone(), vec![7.0]), (j, vec![7.0]), (k, vec![8.0])]);
}

#[test]
fn a_known_series_is_found_by_the_bytes_of_its_labels() {
    let mut index = index();
    let bytes = |labels: &Labels| {
        let mut bytes = Vec::new();
        labels.iter().for_each(|(name, value)| label::put(name.as_bytes(), value.as_bytes(), &mut bytes));
        bytes
    };
    let (a, b) = (labels(&[("__name__", "a"), ("job", "j")]), labels(&[("__name__", "b"), ("job", "j")]));
    let mut filling = index.fill(Timestamp(0));
    filling.place(SeriesOf { source: 7, ..plain(&b) }, || key("j")).expect("room");
    let place = filling.place(plain(&a), || key("j")).expect("room");
    let (key_a, key_b) = (filling.key(&bytes(&a)), filling.key(&bytes(&b)));
    filling.look_ahead([key_a, key_b].into_iter());
    assert_eq!(filling.find(key_a, None), Some(place));
    assert_eq!(filling.find(key_b, None), None, "of another source");
    let other = SeriesIndex::new(Tenant::default(), 1);
    assert_ne!(other.key(&bytes(&a), 0), key_a, "every index has a secret of its own");
    let SeriesKey([a_1, a_2]) = key_a;
    let SeriesKey([b_1, b_2]) = key_b;
    assert!(a_1 != b_1 && a_2 != b_2 && a_1 != a_2, "both halves are of use");
}

#[test]
fn metadata_of_a_known_series_is_replaced_when_it_changes() {
    use MetricType::{Counter, Gauge, Unknown};

    let mut index = index();
    let a = labels(&[("__name__", "a")]);
    let counter = Arc::new(Metadata { kind: Counter, ..Metadata::default() });
    let gauge = Arc::new(Metadata { kind: Gauge, ..Metadata::default() });
    let mut changes = Vec::new();
    for metadata in [None, Some(&counter), Some(&counter), None, Some(&gauge)] {
        let mut filling = index.fill(Timestamp(0));
        let place = filling.place(SeriesOf { metadata, ..plain(&a) }, || key("j")).expect("room");
        filling.sample(place, Timestamp(1), Value::Float(1.0), None);
        let group = filling.take().remove(0).group;
        let members = group.0.members.lock();
        changes.push((members.list[0].1.kind, members.metadata_changes.len()));
    }
    assert_eq!(changes, [(Unknown, 0), (Counter, 1), (Counter, 1), (Counter, 1), (Gauge, 2)]);
}

#[test]
fn a_full_index_refuses_and_a_dropped_filling_leaves_nothing_behind() {
    let mut index = SeriesIndex::new(Tenant::default(), 1);
    let (a, b) = (labels(&[("__name__", "a")]), labels(&[("__name__", "b")]));
    let mut filling = index.fill(Timestamp(0));
    let place = filling.place(plain(&a), || key("j")).expect("room for one");
    filling.sample(place, Timestamp(1), Value::Float(1.0), None);
    let refused = filling.place(plain(&b), || key("j")).expect_err("full");
    assert_eq!(refused.to_string(), "too many active series for tenant default: the limit is 1");
    drop(filling);
    let mut filling = index.fill(Timestamp(0));
    let place = filling.place(plain(&a), || key("j")).expect("known");
    filling.sample(place, Timestamp(2), Value::Float(2.0), None);
    let got: Vec<_> = filling.take().iter().map(said).collect();
    assert_eq!(got, [(r#"{job="j"}"#.to_owned(), 2, Presence::All, vec![2.0])]);
}

#[test]
fn idle_series_leave_the_index() {
    let mut index = index();
    let names: Vec<String> = (0..500).map(|i| format!("m{i}")).collect();
    let all: Vec<Given<'_>> = names.iter().map(|n| ("j", n.as_str(), 1, 1.0)).collect();
    filled(&mut index, &all, 0);
    filled(&mut index, &[("k", "x", 1, 1.0)], IDLE_MS);
    assert_eq!((index.entries.len(), index.slots.len()), (501, 2));
    let later = IDLE_MS + SWEEP_EVERY_MS + 1;
    let got = filled(&mut index, &[("k", "x", 2, 2.0)], later);
    assert_eq!((index.entries.len(), index.slots.len()), (1, 1), "the idle group is gone, the other kept");
    assert_eq!(got, [(r#"{job="k"}"#.to_owned(), 2, Presence::All, vec![2.0])]);
    let again = filled(&mut index, &all[..2], later);
    assert_eq!(again, [(r#"{job="j"}"#.to_owned(), 1, Presence::All, vec![1.0, 1.0])], "a group made anew");
    // A group whose place has moved takes new series, and loses those alone that are not written.
    let got = filled(&mut index, &[("k", "y", 3, 3.0)], later);
    assert_eq!(got, [(r#"{job="k"}"#.to_owned(), 3, Presence::Absent(vec![0b1111_1101]), vec![3.0])]);
    let latest = later + IDLE_MS;
    filled(&mut index, &[("k", "y", 4, 4.0)], latest);
    filled(&mut index, &[("k", "y", 5, 5.0)], latest + SWEEP_EVERY_MS + 1);
    assert_eq!((index.entries.len(), index.slots.len()), (1, 1), "only one of its series is left");
}

#[test]
fn presence_is_said_the_short_way() {
    assert_eq!(presence(&[0, 1, 2], 3), Presence::All);
    assert_eq!(presence(&[5], 1_000), Presence::Present(vec![5]));
    assert_eq!(presence(&[0, 2], 3), Presence::Absent(vec![0b1111_1010]));
}
