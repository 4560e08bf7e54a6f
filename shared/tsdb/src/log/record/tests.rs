use proptest::prelude::*;

use super::*;

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z_]{1,8}", "\\PC{0,20}", "x{200,300}"]
}

fn any_labels() -> impl Strategy<Value = Labels> {
    prop::collection::vec((any_text(), any_text()), 0..6).prop_map(Labels::from_pairs)
}

fn any_metadata() -> impl Strategy<Value = Arc<Metadata>> {
    (0..METRIC_TYPES.len(), any_text(), any_text()).prop_map(|(kind, unit, help)| {
        Arc::new(Metadata { kind: METRIC_TYPES[kind], unit: unit.into(), help: help.into() })
    })
}

fn any_member() -> impl Strategy<Value = MemberDeclaration> {
    (any_labels(), any_metadata()).prop_map(|(labels, metadata)| MemberDeclaration { labels, metadata })
}

fn any_float() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        any::<i32>().prop_map(f64::from),
        Just(f64::from_bits(STALE_NAN_BITS)),
        Just(-0.0),
        Just(9_007_199_254_740_992.0),
        Just(-9_007_199_254_740_994.0),
        Just(f64::INFINITY),
    ]
}

fn any_histogram() -> impl Strategy<Value = Histogram> {
    let spans = || {
        let span = (any::<i32>(), any::<u32>()).prop_map(|(offset, length)| Span { offset, length });
        prop::collection::vec(span, 0..4)
    };
    let hints = [
        CounterResetHint::Unknown,
        CounterResetHint::Reset,
        CounterResetHint::NotReset,
        CounterResetHint::Gauge,
    ];
    let floats = || prop::collection::vec(any_float(), 0..4);
    let head = (0..4_usize, any::<i32>(), any_float(), any_float(), spans(), spans(), floats());
    let integers = (any::<u64>(), any::<u64>(), prop::collection::vec(any::<i64>(), 0..4));
    (head, integers, any_float(), floats(), any::<bool>()).prop_map(
        move |(head, integers, x, floats, is_float)| {
            let (hint, schema, zero_threshold, sum, positive_spans, negative_spans, custom) = head;
            let (zero_count, count, deltas) = integers;
            if is_float {
                return Histogram::Float(FloatHistogram {
                    counter_reset_hint: hints[hint],
                    schema,
                    zero_threshold,
                    zero_count: x,
                    count: -x,
                    sum,
                    positive_spans,
                    negative_spans,
                    positive_buckets: floats,
                    negative_buckets: vec![x],
                    custom_values: custom.into(),
                });
            }
            Histogram::Integer(IntegerHistogram {
                counter_reset_hint: hints[hint],
                schema,
                zero_threshold,
                zero_count,
                count,
                sum,
                positive_spans,
                negative_spans,
                positive_deltas: deltas,
                negative_deltas: vec![-1],
                custom_values: custom.into(),
            })
        },
    )
}

fn any_presence() -> impl Strategy<Value = Presence> {
    prop_oneof![
        Just(Presence::All),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(Presence::Absent),
        prop::collection::btree_set(any::<u32>(), 0..9)
            .prop_map(|m| Presence::Present(m.into_iter().collect())),
    ]
}

fn any_append() -> impl Strategy<Value = Append> {
    let exemplar = (any_labels(), any_float(), prop::option::of(any::<i64>()))
        .prop_map(|(labels, value, t)| Exemplar { labels, value, timestamp: t.map(Timestamp) });
    (
        (any::<u64>(), any::<i64>(), any_presence()),
        prop::collection::vec(any_float(), 0..20),
        prop::collection::vec((any::<u32>(), any_histogram().prop_map(Arc::new)), 0..3),
        prop::collection::vec((any::<u32>(), any::<i64>()), 0..3),
        prop::collection::vec((any::<u32>(), exemplar), 0..3),
    )
        .prop_map(|((group, timestamp, presence), values, histograms, starts, exemplars)| Append {
            group,
            timestamp,
            presence,
            values,
            histograms,
            starts,
            exemplars,
        })
}

fn encode_append(append: &Append) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_append(
        &mut bytes,
        &AppendParts {
            group: append.group,
            timestamp: append.timestamp,
            presence: &append.presence,
            values: &append.values,
            histograms: &append.histograms,
            starts: &append.starts,
            exemplars: &append.exemplars,
        },
    );
    bytes
}

proptest! {
    #[test]
    fn declarations_come_back(
        members in prop::collection::vec(prop::option::of(any_member()), 0..6),
        key in any_labels(),
        numbers in (any::<u64>(), any::<u32>(), any::<u64>(), any::<bool>()),
    ) {
        let (group, sub_group, epoch, displaced) = numbers;
        let tenant = Tenant::new("team-1").expect("a valid name");
        let declare = Declare { group, tenant, key, sub_group, epoch, displaced, members };
        let mut bytes = Vec::new();
        put_declare(&mut bytes, &declare);
        let Ok(Record::Declare(read)) = decode(&bytes) else { panic!("not a declaration") };
        prop_assert_eq!(read, declare);
    }

    #[test]
    fn changes_come_back(
        add in prop::collection::vec(any_member(), 0..4),
        remove in prop::collection::vec(any::<u32>(), 0..4),
        metadata in prop::collection::vec((any::<u32>(), any_metadata()), 0..4),
        epoch in prop::option::of(any::<u64>()),
        displaced in prop::option::of(any::<bool>()),
        group in any::<u64>(),
    ) {
        let change = GroupChange { add, remove, metadata, epoch, displaced };
        let mut bytes = Vec::new();
        put_change(&mut bytes, group, &change);
        let Ok(Record::Change { group: read_group, change: read }) = decode(&bytes) else { panic!("not a change") };
        prop_assert_eq!((read_group, read), (group, change));
    }

    #[test]
    fn appends_come_back_bit_for_bit(append in any_append()) {
        let Ok(Record::Append(read)) = decode(&encode_append(&append)) else { panic!("not an append") };
        let bits = |v: &[f64]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!((read.group, read.timestamp), (append.group, append.timestamp));
        prop_assert_eq!(&read.presence, &append.presence);
        prop_assert_eq!(bits(&read.values), bits(&append.values));
        prop_assert_eq!(&read.starts, &append.starts);
        prop_assert_eq!(read.histograms.len(), append.histograms.len());
        for (a, b) in read.histograms.iter().zip(&append.histograms) {
            prop_assert!(a.0 == b.0 && a.1.bit_eq(&b.1));
        }
        prop_assert_eq!(read.exemplars.len(), append.exemplars.len());
        for ((m, a), (n, b)) in read.exemplars.iter().zip(&append.exemplars) {
            prop_assert_eq!((m, &a.labels, a.timestamp), (n, &b.labels, b.timestamp));
            prop_assert_eq!(a.value.to_bits(), b.value.to_bits());
        }
    }

    #[test]
    fn cut_records_are_refused(append in any_append(), cut in any::<prop::sample::Index>()) {
        let bytes = encode_append(&append);
        let cut = cut.index(bytes.len());
        prop_assert!(decode(&bytes[..cut]).is_err());
    }

    #[test]
    fn nonsense_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0_u8..6) {
        if bytes.len() > 2 {
            bytes[0] = VERSION;
            bytes[1] = kind;
        }
        drop(decode(&bytes));
    }
}

#[test]
fn forgetting_comes_back_and_strangers_are_refused() {
    let mut bytes = Vec::new();
    put_forget(&mut bytes, 77);
    assert!(matches!(decode(&bytes), Ok(Record::Forget { group: 77 })));
    for (bytes, reason) in [
        (&[][..], "the record ends early"),
        (&[2, FORGET, 1], "the record is of another version"),
        (&[VERSION, 9, 1], "the record is of an unknown kind"),
        (&[VERSION, FORGET, 1, 0], "the record is longer than its fields"),
    ] {
        assert_eq!(decode(bytes).expect_err("refused").to_string(), reason);
    }
}

#[test]
fn a_steady_scrape_takes_few_bytes() {
    let append = Append {
        group: 5,
        timestamp: 1_800_000_000_000,
        presence: Presence::All,
        values: vec![1.0; 1000],
        histograms: Vec::new(),
        starts: Vec::new(),
        exemplars: Vec::new(),
    };
    assert!(encode_append(&append).len() < 1020, "one byte for each small integer");
}
