use model::FloatHistogram;
use model::histogram::{Bucket, exponential_bound};
use proptest::prelude::*;

use super::*;

fn limits() -> Limits {
    Limits::default()
}

fn spans(spans: &[(i32, u32)]) -> Vec<Span> {
    spans.iter().map(|(offset, length)| Span { offset: *offset, length: *length }).collect()
}

fn laid_out(buckets: &[(i64, u64)]) -> (Vec<Span>, Vec<i64>) {
    let (indexes, counts): (Vec<i64>, Vec<u64>) = buckets.iter().copied().unzip();
    let index = |i| indexes[usize::try_from(i).expect("from 0")];
    let layout = layout(&counts, index, &limits()).expect("in range");
    (layout.spans, layout.deltas)
}

#[test]
fn small_gaps_are_filled_and_large_ones_begin_a_span() {
    assert_eq!(laid_out(&[(3, 0), (4, 0)]), (vec![], vec![]));
    assert_eq!(laid_out(&[(-2, 0), (-1, 5), (0, 2)]), (spans(&[(-1, 2)]), vec![5, -3]));
    assert_eq!(laid_out(&[(1, 1), (4, 1)]), (spans(&[(1, 4)]), vec![1, -1, 0, 1]));
    assert_eq!(laid_out(&[(1, 1), (5, 3)]), (spans(&[(1, 1), (3, 1)]), vec![1, 2]));
    assert_eq!(laid_out(&[(7, 1), (7, 2), (8, 4)]), (spans(&[(7, 2)]), vec![3, 1]));
}

fn point(scale: i32, offset: i32, counts: &[u64]) -> otlp::ExponentialHistogramDataPoint {
    otlp::ExponentialHistogramDataPoint {
        scale,
        count: counts.iter().sum(),
        sum: Some(1.5),
        positive: Some(Buckets { offset, bucket_counts: counts.to_vec() }),
        ..Default::default()
    }
}

fn integer(histogram: Histogram) -> IntegerHistogram {
    match histogram {
        Histogram::Integer(h) => h,
        Histogram::Float(_) => panic!("points have integer counts"),
    }
}

#[test]
fn an_exponential_point_keeps_its_buckets_one_index_higher() {
    let mut given = point(2, -1, &[1, 0, 4]);
    given.negative = Some(Buckets { offset: 10, bucket_counts: vec![2] });
    (given.zero_count, given.count) = (3, 10);
    let got = integer(exponential(&given, &limits()).expect("valid"));
    let expected = IntegerHistogram {
        schema: 2,
        zero_threshold: 1e-128,
        zero_count: 3,
        count: 10,
        sum: 1.5,
        positive_spans: spans(&[(0, 3)]),
        positive_deltas: vec![1, -1, 4],
        negative_spans: spans(&[(11, 1)]),
        negative_deltas: vec![2],
        ..IntegerHistogram::default()
    };
    assert_eq!(got, expected);
}

#[test]
fn points_that_native_histograms_cannot_hold_are_refused() {
    let text = |result: Result<Histogram, Fault>| result.map(integer).expect_err("refused").text;
    assert_eq!(
        text(exponential(&point(-5, 0, &[1]), &limits())),
        "cannot convert exponential to native histogram. Scale must be >= -4, was -5"
    );
    let mut miscounted = point(0, 0, &[1]);
    miscounted.count = 2;
    assert!(
        text(exponential(&miscounted, &limits()))
            .starts_with("1 observations found in buckets, but the Count")
    );
    assert!(exponential(&point(0, i32::MAX, &[1]), &limits()).is_err(), "the index has no room for one more");
    assert!(exponential(&point(8, i32::MAX, &[0, 1]), &limits()).is_err());
    assert!(exponential(&point(9, i32::MAX, &[1]), &limits()).is_ok(), "merged, the index fits");
    assert!(exponential(&point(0, 0, &[u64::MAX]), &limits()).is_err());
    let small = Limits { native_buckets: 2, ..limits() };
    let fault = exponential(&point(0, 0, &[1, 1, 1]), &small).map(integer).expect_err("three buckets");
    assert_eq!(fault.reason, Reason::Limit);
}

#[test]
fn explicit_buckets_become_custom_ones() {
    let explicit = |bounds: &[f64], counts: &[u64]| otlp::HistogramDataPoint {
        count: counts.iter().sum::<u64>().max(if counts.is_empty() { 7 } else { 0 }),
        sum: Some(2.5),
        explicit_bounds: bounds.to_vec(),
        bucket_counts: counts.to_vec(),
        ..Default::default()
    };
    for (bounds, counts, expected) in [
        (&[1.0, 2.0] as &[f64], &[0_u64, 3, 1] as &[u64], (4, spans(&[(1, 2)]), vec![3, -2])),
        (&[], &[], (7, spans(&[(0, 1)]), vec![7])),
        (&[5.0], &[0, 0], (0, vec![], vec![])),
    ] {
        let got = integer(custom_buckets(&explicit(bounds, counts), &limits()).expect("valid"));
        assert_eq!((got.count, got.positive_spans, got.positive_deltas), expected);
        assert_eq!((got.schema, &*got.custom_values, got.sum), (-53, bounds, 2.5));
    }
    for (bounds, counts) in [
        (&[1.0, 1.0] as &[f64], &[1_u64, 1, 1] as &[u64]),
        (&[2.0, 1.0], &[1, 1, 1]),
        (&[f64::NAN], &[1, 1]),
        (&[1.0, f64::INFINITY], &[1, 1, 1]),
        (&[1.0], &[1]),
        (&[1.0], &[]),
    ] {
        assert!(check_bounds(&explicit(bounds, counts)).is_err(), "{bounds:?} {counts:?}");
    }
}

/// The populated buckets of a histogram, by the definition of its schema.
fn populated(histogram: &FloatHistogram) -> Vec<Bucket> {
    histogram.buckets().into_iter().filter(|b| b.count > 0.0).collect()
}

proptest! {
    /// Whatever the scale, an observation stays within the bounds of the bucket it ends up in, and nothing is lost.
    #[test]
    fn reducing_the_scale_keeps_counts_and_moves_no_bound(
        scale in -4..=20_i32,
        octave in -300..300_i32,
        counts in proptest::collection::vec(prop_oneof![3 => Just(0_u64), 1 => 1..1_000_u64], 0..40),
    ) {
        // All bounds stay within what a float can hold.
        let offset = (f64::from(octave) * 2_f64.powi(scale)) as i32;
        let given = point(scale, offset, &counts);
        let got = exponential(&given, &limits()).expect("valid").to_float();
        prop_assert_eq!(got.schema, scale.min(8));
        prop_assert_eq!(got.sum, 1.5);
        prop_assert_eq!(got.count, counts.iter().sum::<u64>() as f64);
        let buckets = populated(&got);
        prop_assert_eq!(buckets.iter().map(|b| b.count).sum::<f64>(), got.count);
        // Each bucket holds exactly the given ones that the definition, base = 2^(2^-scale), puts within its bounds.
        let base_exponent = 2_f64.powi(-scale);
        for bucket in &buckets {
            let inside: u64 = (offset..).zip(&counts).filter(|(i, _)| {
                let middle = ((f64::from(*i) + 0.5) * base_exponent).exp2();
                bucket.lower < middle && middle < bucket.upper
            }).map(|(_, n)| n).sum();
            prop_assert_eq!(inside as f64, bucket.count);
        }
        for (i, _) in (offset..).zip(&counts).filter(|(_, n)| **n > 0) {
            // The given bucket's own bounds lie within those of the one that took it.
            let (lower, upper) = ((f64::from(i) * base_exponent).exp2(), (f64::from(i + 1) * base_exponent).exp2());
            let is_held = buckets.iter().any(|b| b.lower <= lower * (1.0 + 1e-9) && upper <= b.upper * (1.0 + 1e-9));
            prop_assert!(is_held, "({}, {}] in {:?}", lower, upper, buckets);
        }
    }

    /// A bound of the reduced scale is a bound of the given one.
    #[test]
    fn bounds_of_a_reduced_scale_are_bounds_of_the_given_one(index in -200..200_i32, shift in 0..4_i32) {
        let (fine, coarse) = (exponential_bound(8, index << shift), exponential_bound(8 - shift, index));
        prop_assert!((fine - coarse).abs() <= coarse * 1e-12);
    }
}
