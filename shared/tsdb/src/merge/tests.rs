use std::sync::Arc;

use model::{FloatHistogram, Histogram, Labels, Metadata, Timestamp, stale_nan};
use proptest::prelude::*;

use super::*;
use crate::series::testing::{BASE, assert_rows_eq, rows, samples, timelines};

fn floats(pairs: &[(i64, f64)]) -> SeriesSamples {
    let (times, values): (Vec<i64>, Vec<f64>) = pairs.iter().copied().unzip();
    SeriesSamples {
        floats: FloatColumn { timestamps: times.into(), values: values.into() },
        ..SeriesSamples::default()
    }
}

fn histograms(pairs: &[(i64, f64)]) -> SeriesSamples {
    let histogram =
        |sum: f64| Arc::new(Histogram::Float(FloatHistogram { sum, ..FloatHistogram::default() }));
    let times: Vec<i64> = pairs.iter().map(|p| p.0).collect();
    SeriesSamples {
        histograms: HistogramColumn {
            timestamps: times.into(),
            values: pairs.iter().map(|p| histogram(p.1)).collect(),
        },
        ..SeriesSamples::default()
    }
}

fn starts(samples: SeriesSamples, pairs: &[(i64, i64)]) -> SeriesSamples {
    SeriesSamples { start_timestamps: pairs.into(), ..samples }
}

fn exemplar(value: f64, time: i64) -> Exemplar {
    Exemplar { labels: Labels::empty(), value, timestamp: Some(Timestamp(time)) }
}

#[test]
fn one_sample_wins_at_each_time() {
    let stale = stale_nan();
    let none = SeriesSamples::default;
    for (name, a, b, want_floats, want_histograms) in [
        ("disjoint", floats(&[(1, 1.0)]), floats(&[(2, 2.0)]), floats(&[(1, 1.0), (2, 2.0)]), none()),
        (
            "interleaved",
            floats(&[(1, 1.0), (3, 3.0)]),
            floats(&[(2, 2.0)]),
            floats(&[(1, 1.0), (2, 2.0), (3, 3.0)]),
            none(),
        ),
        ("real beats stale", floats(&[(1, stale)]), floats(&[(1, -1.0)]), floats(&[(1, -1.0)]), none()),
        ("the greater bits", floats(&[(1, 1.0)]), floats(&[(1, -1.0)]), floats(&[(1, -1.0)]), none()),
        (
            "histogram beats float",
            floats(&[(1, 9.0)]),
            histograms(&[(1, 0.0)]),
            none(),
            histograms(&[(1, 0.0)]),
        ),
        (
            "real float beats stale histogram",
            floats(&[(1, 9.0)]),
            histograms(&[(1, stale)]),
            floats(&[(1, 9.0)]),
            none(),
        ),
        (
            "stale histogram beats stale float",
            floats(&[(1, stale)]),
            histograms(&[(1, stale)]),
            none(),
            histograms(&[(1, stale)]),
        ),
        (
            "both sorts",
            floats(&[(1, 1.0)]),
            histograms(&[(2, 2.0)]),
            floats(&[(1, 1.0)]),
            histograms(&[(2, 2.0)]),
        ),
    ] {
        let want = SeriesSamples { histograms: want_histograms.histograms, ..want_floats };
        assert!(merge(&[a.clone(), b.clone()]).bit_eq(&want), "{name}");
        assert!(merge(&[b, a]).bit_eq(&want), "{name}, the other way round");
    }
}

#[test]
fn a_start_time_goes_with_its_sample() {
    for (name, a, b, want) in [
        (
            "the winner's",
            starts(floats(&[(1, 1.0)]), &[(1, 50)]),
            starts(floats(&[(1, 2.0)]), &[(1, 7)]),
            vec![(1, 7)],
        ),
        ("the loser's is dropped", starts(floats(&[(1, 1.0)]), &[(1, 50)]), floats(&[(1, 2.0)]), vec![]),
        (
            "equal samples: the greater",
            starts(floats(&[(1, 1.0)]), &[(1, 50)]),
            starts(floats(&[(1, 1.0)]), &[(1, 7)]),
            vec![(1, 50)],
        ),
        ("equal samples: any", starts(floats(&[(1, 1.0)]), &[(1, 50)]), floats(&[(1, 1.0)]), vec![(1, 50)]),
        (
            "several",
            starts(floats(&[(1, 1.0)]), &[(1, 50)]),
            starts(floats(&[(0, 1.0)]), &[(0, 49)]),
            vec![(0, 49), (1, 50)],
        ),
    ] {
        assert_eq!(&*merge(&[a.clone(), b.clone()]).start_timestamps, want, "{name}");
        assert_eq!(&*merge(&[b, a]).start_timestamps, want, "{name}, the other way round");
    }
}

#[test]
fn exemplars_are_a_set() {
    let part = |e: &[Exemplar]| SeriesSamples { exemplars: e.into(), ..SeriesSamples::default() };
    let (a, b, c) = (exemplar(1.0, 1), exemplar(f64::NAN, 2), exemplar(2.0, 2));
    let mut want = vec![a.clone(), b.clone(), c.clone()];
    want.sort_by(compare_exemplars);
    let merged = merge(&[part(&[a.clone(), b.clone()]), part(&[a, b]), part(&[c])]);
    assert!(merged.bit_eq(&part(&want)), "{merged:?}");
}

#[test]
fn times_are_shared_where_nothing_is_added() {
    let timestamps: Timeline = Arc::from([1, 2]);
    let part = |values: [f64; 2]| SeriesSamples {
        floats: FloatColumn { timestamps: Arc::clone(&timestamps), values: values.into() },
        ..SeriesSamples::default()
    };
    let only = merge(&[SeriesSamples::default(), part([1.0, 2.0]), SeriesSamples::default()]);
    assert!(Arc::ptr_eq(&only.floats.timestamps, &timestamps));
    let both = merge(&[part([1.0, stale_nan()]), part([1.0, 2.0])]);
    assert!(Arc::ptr_eq(&both.floats.timestamps, &timestamps));
    assert!(both.bit_eq(&floats(&[(1, 1.0), (2, 2.0)])));
}

#[test]
fn series_of_the_same_times_share_what_they_become() {
    let (a, b): (Timeline, Timeline) = (Arc::from([1, 2, 3]), Arc::from([3, 4]));
    let part = |timestamps: &Timeline, values: &[f64]| SeriesSamples {
        floats: FloatColumn { timestamps: Arc::clone(timestamps), values: values.into() },
        ..SeriesSamples::default()
    };
    let mut merger = Merger::default();
    let first = merger.merge(&[part(&a, &[1.0, 2.0, 3.0]), part(&b, &[4.0, 5.0])]);
    let second = merger.merge(&[part(&a, &[6.0, 7.0, 8.0]), part(&b, &[-0.0, 9.0])]);
    assert!(first.bit_eq(&floats(&[(1, 1.0), (2, 2.0), (3, 4.0), (4, 5.0)])));
    // -0.0 has the greater bits.
    assert!(second.bit_eq(&floats(&[(1, 6.0), (2, 7.0), (3, -0.0), (4, 9.0)])));
    assert!(Arc::ptr_eq(&first.floats.timestamps, &second.floats.timestamps));
}

#[test]
fn equal_timelines_become_one() {
    let mut interner = TimelineInterner::default();
    let (a, b, c): (Timeline, Timeline, Timeline) = (Arc::from([1, 2]), Arc::from([1, 2]), Arc::from([1, 3]));
    assert!(Arc::ptr_eq(&interner.intern(&a), &interner.intern(&b)));
    assert!(Arc::ptr_eq(&interner.intern(&c), &c));
}

#[test]
fn metadata_is_what_was_seen_last() {
    let row = |t: i64, help: &str| SeriesRow {
        labels: Labels::empty(),
        metadata: Arc::new(Metadata { help: help.into(), ..Metadata::default() }),
        samples: floats(&[(t, 0.0)]),
    };
    for (a, b, want) in [
        (row(1, "old"), row(2, "new"), "new"),
        (row(2, "z"), row(3, ""), ""),
        (row(1, "a"), row(1, "b"), "b"),
    ] {
        assert_eq!(&*merge_series(vec![a.clone(), b.clone()]).metadata.help, want);
        assert_eq!(&*merge_series(vec![b, a]).metadata.help, want);
    }
}

/// The merge written down as its definition says: everything by time, the greatest first.
fn naive(parts: &[SeriesSamples]) -> SeriesSamples {
    let mut best: std::collections::BTreeMap<i64, ValueRef<'_>> = std::collections::BTreeMap::new();
    for part in parts {
        let floats = part.floats.iter().map(|(t, x)| (t, ValueRef::Float(x)));
        let histograms = part.histograms.iter().map(|(t, h)| (t, ValueRef::Histogram(h)));
        for (t, sample) in floats.chain(histograms) {
            let kept = best.entry(t).or_insert(sample);
            if sample.compare(kept).is_gt() {
                *kept = sample;
            }
        }
    }
    let (mut floats, mut histograms) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
    for (t, sample) in best {
        match sample {
            ValueRef::Float(x) => {
                floats.0.push(t);
                floats.1.push(x);
            }
            ValueRef::Histogram(h) => {
                histograms.0.push(t);
                histograms.1.push(Arc::clone(h));
            }
        }
    }
    SeriesSamples {
        floats: FloatColumn { timestamps: floats.0.into(), values: floats.1.into() },
        histograms: HistogramColumn { timestamps: histograms.0.into(), values: histograms.1.into() },
        ..SeriesSamples::default()
    }
}

fn parts(count: usize) -> impl Strategy<Value = Vec<SeriesSamples>> {
    timelines().prop_flat_map(move |t| prop::collection::vec(samples(t), count))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn merging_is_commutative_associative_and_idempotent(parts in parts(3)) {
        let [a, b, c] = [&parts[0], &parts[1], &parts[2]].map(Clone::clone);
        let two = |x: &SeriesSamples, y: &SeriesSamples| merge(&[x.clone(), y.clone()]);
        prop_assert!(two(&a, &b).bit_eq(&two(&b, &a)));
        prop_assert!(two(&two(&a, &b), &c).bit_eq(&two(&a, &two(&b, &c))));
        prop_assert!(two(&a, &a).bit_eq(&a));
        prop_assert!(merge(&parts).bit_eq(&two(&two(&a, &b), &c)));
        prop_assert!(two(&a, &SeriesSamples::default()).bit_eq(&a));
        let merged = merge(&parts);
        prop_assert!(two(&merged, &b).bit_eq(&merged), "a repeat adds nothing");
    }

    #[test]
    fn merging_does_what_its_definition_says(parts in parts(3)) {
        let want = naive(&parts);
        let bare = |s: &SeriesSamples| SeriesSamples { start_timestamps: Arc::from([]), exemplars: Arc::from([]), ..s.clone() };
        let mut merger = Merger::default();
        for _ in 0..2 {
            prop_assert!(bare(&merger.merge(&parts)).bit_eq(&bare(&want)));
        }
    }

    #[test]
    fn rows_of_several_sources_stand_once_and_sorted(a in rows(6), b in rows(6), c in rows(6)) {
        let merged: Vec<SeriesRow> = merge_rows([a.clone(), b.clone(), c.clone()]).collect();
        prop_assert!(merged.is_sorted_by(|x, y| compare_labels(&x.labels, &y.labels).is_lt()));
        let mut by_labels: std::collections::BTreeMap<Labels, Vec<SeriesRow>> = std::collections::BTreeMap::new();
        for row in a.iter().chain(&b).chain(&c) {
            by_labels.entry(row.labels.clone()).or_default().push(row.clone());
        }
        let mut want: Vec<SeriesRow> = by_labels.into_values().map(merge_series).collect();
        want.sort_by(|x, y| compare_labels(&x.labels, &y.labels));
        assert_rows_eq(&merged, &want);
        let again: Vec<SeriesRow> = merge_rows([c, b, a]).collect();
        assert_rows_eq(&again, &merged);
    }
}

#[test]
fn the_base_of_random_times_is_where_it_says() {
    assert_eq!(crate::file::windows::day_name(crate::file::windows::day_number(BASE)), "2026-11-23");
}
