use std::sync::Arc;

use model::histogram::CUSTOM_BUCKETS_SCHEMA;
use proptest::prelude::*;

use super::cells::Added;
use super::*;

fn exponential(schema: i32, offset: i32, buckets: &[f64]) -> FloatHistogram {
    FloatHistogram {
        schema,
        count: buckets.iter().sum(),
        positive_spans: vec![Span { offset, length: u32::try_from(buckets.len()).expect("few") }],
        positive_buckets: buckets.to_vec(),
        ..FloatHistogram::default()
    }
}

fn custom(bounds: &[f64], buckets: &[f64]) -> FloatHistogram {
    FloatHistogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        custom_values: Arc::from(bounds),
        ..exponential(CUSTOM_BUCKETS_SCHEMA, 0, buckets)
    }
}

fn sum_of(a: &FloatHistogram, b: &FloatHistogram) -> (FloatHistogram, Added) {
    let mut cells = Cells::new(a);
    let added = cells.add(b).expect("compatible");
    (cells.finish(), added)
}

fn positive(h: &FloatHistogram) -> Vec<(i32, f64)> {
    indexed(&h.positive_spans, &h.positive_buckets).collect()
}

#[test]
fn sums_take_the_coarser_resolution() {
    // Schema 1 splits (1,2] into indexes 1 and 2, (2,4] into 3 and 4; schema 0 has them as 1 and 2.
    let (sum, _) = sum_of(&exponential(1, 1, &[1.0, 2.0, 3.0, 4.0]), &exponential(0, 1, &[10.0, 20.0]));
    assert_eq!((sum.schema, positive(&sum)), (0, vec![(1, 13.0), (2, 27.0)]));
    let (sum, _) = sum_of(&exponential(0, -3, &[1.0]), &exponential(-1, 0, &[5.0]));
    // Index -3 at schema 0 is (1/16, 1/8], which lies in (1/16, 1/4], index -1 at schema -1.
    assert_eq!((sum.schema, positive(&sum)), (-1, vec![(-1, 1.0), (0, 5.0)]));
}

#[test]
fn sums_take_the_wider_zero_bucket() {
    let narrow = FloatHistogram { zero_threshold: 0.001, zero_count: 1.0, ..exponential(0, -1, &[2.0, 3.0]) };
    let wide = FloatHistogram { zero_threshold: 0.5, zero_count: 10.0, ..exponential(0, 1, &[4.0]) };
    // (1/4, 1/2] falls into the zero bucket up to 1/2, (1/2, 1] does not.
    let (sum, _) = sum_of(&narrow, &wide);
    assert_eq!((sum.zero_threshold, sum.zero_count, positive(&sum)), (0.5, 13.0, vec![(0, 3.0), (1, 4.0)]));
    // A threshold within a populated bucket goes up to its edge.
    let odd = FloatHistogram { zero_threshold: 0.3, zero_count: 10.0, ..FloatHistogram::default() };
    let (sum, _) = sum_of(&narrow, &odd);
    assert_eq!((sum.zero_threshold, sum.zero_count, positive(&sum)), (0.5, 13.0, vec![(0, 3.0)]));
}

#[test]
fn custom_bounds_meet_at_their_intersection() {
    let (sum, added) =
        sum_of(&custom(&[1.0, 2.0, 5.0], &[1.0, 2.0, 3.0, 4.0]), &custom(&[2.0, 5.0], &[10.0]));
    assert!(added.was_reconciled);
    assert_eq!((&*sum.custom_values, positive(&sum)), (&[2.0, 5.0][..], vec![(0, 13.0), (1, 3.0), (2, 4.0)]));
    assert_eq!(Cells::new(&custom(&[1.0], &[])).add(&FloatHistogram::default()), Err(IncompatibleSchemas));
}

#[test]
fn hints_follow_the_operands() {
    use CounterResetHint::{Gauge, NotReset, Reset, Unknown};
    for (a, b, expected, is_collision) in [
        (NotReset, NotReset, NotReset, false),
        (Gauge, NotReset, Gauge, false),
        (Unknown, Gauge, Gauge, false),
        (Unknown, NotReset, Unknown, false),
        (Reset, NotReset, Unknown, true),
    ] {
        let with = |hint| FloatHistogram { counter_reset_hint: hint, ..FloatHistogram::default() };
        for (a, b) in [(a, b), (b, a)] {
            let (sum, added) = sum_of(&with(a), &with(b));
            assert_eq!((sum.counter_reset_hint, added.has_reset_collision), (expected, is_collision));
        }
    }
}

#[test]
fn compaction_leaves_no_empty_bucket() {
    let mut h = exponential(0, 2, &[0.0, 1.0, 0.0, 0.0, 2.0, 3.0, 0.0]);
    compact(&mut h);
    assert_eq!(h.positive_spans, [Span { offset: 3, length: 1 }, Span { offset: 2, length: 2 }]);
    assert_eq!(h.positive_buckets, [1.0, 2.0, 3.0]);
}

#[test]
fn resets_are_seen_in_count_and_buckets() {
    let base = exponential(0, 1, &[1.0, 2.0, 1.0]);
    let cases = [
        ("grown", exponential(0, 1, &[1.0, 3.0, 1.0]), false),
        ("a bucket went down", exponential(0, 1, &[1.0, 1.0, 3.0]), true),
        ("a bucket is gone", exponential(0, 2, &[2.0, 5.0]), true),
        ("count went down", exponential(0, 1, &[1.0, 2.0, 0.5]), true),
        ("coarser", exponential(-1, 1, &[3.0, 1.0]), false),
        ("coarser and less", exponential(-1, 1, &[2.0, 9.0]), true),
        ("finer", exponential(1, 1, &[10.0]), true),
        ("custom", custom(&[1.0], &[10.0]), true),
        (
            "wider zero bucket",
            FloatHistogram { zero_threshold: 2.0, zero_count: 1.0, ..exponential(0, 2, &[2.0, 1.0]) },
            true,
        ),
        ("hint", FloatHistogram { counter_reset_hint: CounterResetHint::Reset, ..base.clone() }, true),
    ];
    for (name, current, expected) in cases {
        assert_eq!(detect_reset(&current, &base), expected, "{name}");
    }
    let no = FloatHistogram { counter_reset_hint: CounterResetHint::NotReset, ..exponential(0, 1, &[0.5]) };
    assert!(!detect_reset(&no, &base));
    let before = custom(&[2.0, 4.0, 6.0], &[1.0, 2.0, 5.0, 7.0]);
    assert!(detect_reset(&custom(&[2.0, 3.0, 4.0, 6.0], &[1.0, 0.0, 1.0, 5.0, 8.0]), &before));
    assert!(!detect_reset(&custom(&[2.0, 3.0, 4.0, 6.0], &[1.0, 1.0, 1.0, 5.0, 8.0]), &before));
}

#[test]
fn a_histogram_prints_its_populated_buckets() {
    let h = FloatHistogram {
        sum: 1e6,
        zero_count: 2.0,
        zero_threshold: 0.001,
        ..exponential(0, 0, &[1.0, 0.0, 2.5])
    };
    assert_eq!(text(&h), "{count:3.5, sum:1e+06, [-0.001,0.001]:2, (0.5,1]:1, (2,4]:2.5}");
}

proptest! {
    #[test]
    fn adding_what_was_subtracted_gives_the_same_back(
        (a_schema, b_schema) in (-2..4_i32, -2..4_i32),
        (a_offset, b_offset) in (-6..6_i32, -6..6_i32),
        a in prop::collection::vec(0_u8..9, 0..8),
        b in prop::collection::vec(0_u8..9, 0..8),
    ) {
        let a: Vec<f64> = a.into_iter().map(f64::from).collect();
        let b: Vec<f64> = b.into_iter().map(f64::from).collect();
        let (a, b) = (exponential(a_schema, a_offset, &a), exponential(b_schema, b_offset, &b));
        let mut cells = Cells::new(&a);
        cells.add(&b).expect("both exponential");
        let sum = cells.clone().finish();
        prop_assert_eq!(sum.schema, a_schema.min(b_schema));
        prop_assert_eq!(sum.positive_buckets.iter().sum::<f64>(), a.count + b.count);
        // Addition commutes.
        let (other_way, _) = sum_of(&b, &a);
        prop_assert!(equals(&sum, &other_way));
        cells.subtract(&b).expect("both exponential");
        let mut reduced = Cells::new(&a);
        reduced.add(&FloatHistogram { schema: sum.schema, ..FloatHistogram::default() }).expect("exponential");
        prop_assert!(equals(&cells.finish(), &reduced.finish()));
        // A counter that grows by another one is not reset.
        prop_assert!(!detect_reset(&sum, &a) || sum.schema > a.schema);
    }
}
