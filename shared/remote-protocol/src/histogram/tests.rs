use std::sync::Arc;

use super::*;

fn integer() -> IntegerHistogram {
    IntegerHistogram {
        counter_reset_hint: CounterResetHint::NotReset,
        schema: 2,
        zero_threshold: 0.5,
        zero_count: 3,
        count: 10,
        sum: 1.5,
        positive_spans: vec![Span { offset: -3, length: 2 }, Span { offset: 4, length: 1 }],
        negative_spans: vec![Span { offset: 0, length: 1 }],
        positive_deltas: vec![1, 1, 0],
        negative_deltas: vec![2],
        custom_values: Arc::from([]),
    }
}

#[test]
fn histograms_come_back() {
    let custom = FloatHistogram {
        counter_reset_hint: CounterResetHint::Gauge,
        schema: -53,
        count: 2.5,
        positive_spans: vec![Span { offset: 1, length: 1 }],
        positive_buckets: vec![2.5],
        custom_values: Arc::from([1.0, 2.0]),
        ..Default::default()
    };
    for hint in [CounterResetHint::Unknown, CounterResetHint::Reset] {
        let histogram = Histogram::Integer(IntegerHistogram { counter_reset_hint: hint, ..integer() });
        assert_eq!(from_message(to_message(Timestamp(-7), &histogram)), (Timestamp(-7), histogram.clone()));
    }
    for histogram in
        [Histogram::Integer(integer()), Histogram::Float(integer().to_float()), Histogram::Float(custom)]
    {
        assert_eq!(from_message(to_message(Timestamp(7), &histogram)), (Timestamp(7), histogram.clone()));
    }
}

/// At schema 9 the buckets with upper indices 1 and 2 share the bucket with index 1 of schema 8, 3 and 4 the one with
/// index 2, -1 and 0 the one with index 0.
#[test]
fn too_fine_a_schema_is_reduced_to_eight() {
    let fine = IntegerHistogram {
        schema: 9,
        count: 21,
        zero_count: 0,
        zero_threshold: 0.0,
        positive_spans: vec![Span { offset: -1, length: 5 }, Span { offset: 3, length: 1 }],
        positive_deltas: vec![1, 1, 1, 1, 1, 1], // indices -1, 0, 1, 2, 3 and 7 hold 1 to 6
        negative_spans: vec![],
        negative_deltas: vec![],
        ..integer()
    };
    assert!(Histogram::Integer(fine.clone()).validate().is_err());
    let coarse = IntegerHistogram {
        schema: 8,
        positive_spans: vec![Span { offset: 0, length: 3 }, Span { offset: 1, length: 1 }],
        positive_deltas: vec![3, 4, -2, 1], // indices 0, 1, 2 and 4 hold 3, 7, 5 and 6
        ..fine.clone()
    };
    assert_eq!(Histogram::Integer(coarse.clone()).validate(), Ok(()));
    let reduce = |h: Histogram| from_message(to_message(Timestamp(0), &h)).1;
    assert_eq!(reduce(Histogram::Integer(fine.clone())), Histogram::Integer(coarse.clone()));
    assert_eq!(reduce(Histogram::Float(fine.to_float())), Histogram::Float(coarse.to_float()));

    // By more than one step: at schema 52 all indices from 1 to 2^44 are index 1 of schema 8.
    let finest = Histogram::Float(FloatHistogram {
        schema: 52,
        count: 3.0,
        positive_spans: vec![Span { offset: 1, length: 1 }, Span { offset: i32::MAX, length: 1 }],
        positive_buckets: vec![1.0, 2.0],
        ..Default::default()
    });
    match reduce(finest) {
        Histogram::Float(h) => {
            assert_eq!((h.schema, h.positive_buckets), (8, vec![3.0]));
            assert_eq!(h.positive_spans, [Span { offset: 1, length: 1 }]);
        }
        Histogram::Integer(_) => panic!("an integer histogram"),
    }
}

#[test]
fn broken_layouts_are_left_to_validation() {
    let broken = |positive_spans, positive_buckets| {
        Histogram::Float(FloatHistogram { schema: 9, positive_spans, positive_buckets, ..Default::default() })
    };
    for histogram in [
        broken(vec![Span { offset: 0, length: u32::MAX }], vec![1.0]),
        broken(vec![], vec![1.0]),
        broken(vec![Span { offset: 5, length: 1 }, Span { offset: -9, length: 1 }], vec![1.0, 1.0]),
        Histogram::Float(FloatHistogram { schema: 53, ..Default::default() }),
    ] {
        assert_eq!(from_message(to_message(Timestamp(0), &histogram)).1, histogram);
        assert!(histogram.validate().is_err());
    }
}
