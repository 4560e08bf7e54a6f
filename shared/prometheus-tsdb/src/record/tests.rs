use proptest::prelude::*;

use super::*;

fn all(record: &[u8]) -> Result<Vec<Entry>, String> {
    let mut found = Vec::new();
    entries(record, &mut |entry| found.push(entry)).map(|()| found)
}

fn be(value: u64) -> [u8; 8] {
    value.to_be_bytes()
}

#[test]
fn samples_are_told_as_differences() {
    // Series 10 and 9 (-1 is 1 as a varint), 1000 ms and 1000 + 5 ms.
    let record =
        [&[2][..], &be(10), &be(1000), &[0, 0], &be(1.5_f64.to_bits()), &[1, 10], &be(0x7ff0_0000_0000_0002)]
            .concat();
    let found = all(&record).expect("whole");
    let [
        Entry::Float { series: 10, time: 1000, value },
        Entry::Float { series: 9, time: 1005, value: stale },
    ] = found[..]
    else {
        panic!("{found:?}")
    };
    assert_eq!((value, stale.to_bits()), (1.5, 0x7ff0_0000_0000_0002), "bit for bit");
    for length in 1..record.len() {
        // An entry that is whole may come first; then it ends too early.
        assert!(all(&record[..length]).is_err() || matches!(length, 1 | 17 | 27), "{length}");
    }
}

#[test]
fn samples_with_start_times_follow_the_one_before() {
    // Series 10, 1000 ms, start 7; then no start, the same start, a start of its own.
    let one = be(1.0_f64.to_bits());
    let record =
        [&[11, 20, 0xd0, 0x0f, 14][..], &one, &[2, 10, 0], &one, &[1, 20, 1], &one, &[0, 30, 2, 4], &one]
            .concat();
    let found = all(&record).expect("whole");
    let places: Vec<(u64, i64)> = found
        .iter()
        .map(|e| match e {
            Entry::Float { series, time, .. } => (*series, *time),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(places, [(10, 1000), (11, 1005), (10, 1010), (10, 1015)]);
}

#[test]
fn series_metadata_and_deletions_are_read() {
    let labels = b"\x02\x08__name__\x02up\x03job\x01a";
    let record = [&[1][..], &be(7), labels].concat();
    let found = all(&record).expect("whole");
    let [Entry::Series(7, labels)] = &found[..] else { panic!("{found:?}") };
    assert_eq!(*labels, Labels::from_pairs([("job", "a"), ("__name__", "up")]));
    let record = b"\x06\x07\x01\x02\x04UNIT\x01s\x04HELP\x02me";
    let found = all(record).expect("whole");
    let [Entry::Metadata { series: 7, metadata }] = &found[..] else { panic!("{found:?}") };
    assert_eq!((metadata.kind, &*metadata.unit, &*metadata.help), (MetricType::Counter, "s", "me"));
    let record = [&[3][..], &be(7), &[19, 20]].concat();
    assert!(matches!(
        all(&record).expect("whole")[..],
        [Entry::Deleted { series: 7, min_time: -10, max_time: 10 }]
    ));
    let unsorted = [&[1][..], &be(7), b"\x02\x01b\x01x\x01a\x01y"].concat();
    assert_eq!(all(&unsorted).expect_err("damaged"), NOT_SORTED_TEXT);
    assert_eq!(all(&[99]).expect_err("unknown"), "a record of kind 99 is not known");
}

const NOT_SORTED_TEXT: &str = crate::decoder::NOT_SORTED;

#[test]
fn histograms_are_read() {
    let f = |x: f64| be(x.to_bits());
    let record = [
        &[7][..],
        &be(1),
        &be(50),
        &[0, 0],
        // Gauge, schema 3, threshold, 2 at zero, 7 in all, sum; a span at -2 of 2 buckets of 3 and 2, no negative ones.
        &[3, 6],
        &f(0.001),
        &[2, 7],
        &f(12.5),
        &[1, 3, 2, 0, 2, 6, 1, 0],
    ]
    .concat();
    let found = all(&record).expect("whole");
    let [Entry::Histogram { series: 1, time: 50, histogram: Histogram::Integer(h) }] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!((h.counter_reset_hint, h.schema, h.zero_threshold), (CounterResetHint::Gauge, 3, 0.001));
    assert_eq!((h.zero_count, h.count, h.sum), (2, 7, 12.5));
    assert_eq!(
        (&h.positive_spans[..], &h.positive_deltas[..]),
        (&[Span { offset: -2, length: 2 }][..], &[3, -1][..])
    );
    let custom = [
        &[10][..],
        &be(1),
        &be(50),
        &[0, 0],
        // Custom buckets, floats: 1.5 below 0.5.
        &[0, 105],
        &f(0.0),
        &f(0.0),
        &f(1.5),
        &f(0.25),
        &[1, 0, 1, 0, 1],
        &f(1.5),
        &[0, 1],
        &f(0.5),
    ]
    .concat();
    let found = all(&custom).expect("whole");
    let [Entry::Histogram { histogram: Histogram::Float(h), .. }] = &found[..] else { panic!("{found:?}") };
    assert_eq!(
        (h.schema, &h.positive_buckets[..], &*h.custom_values),
        (CUSTOM_BUCKETS_SCHEMA, &[1.5][..], &[0.5][..])
    );
    let mut wrong = custom;
    // The zero threshold: such a histogram has none.
    wrong[21] ^= 0x40;
    assert!(all(&wrong).is_err(), "it is not valid");
}

proptest! {
    #[test]
    fn any_bytes_are_survived(kind in 0_u8..16, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(all(&[&[kind][..], &bytes].concat()));
    }
}
