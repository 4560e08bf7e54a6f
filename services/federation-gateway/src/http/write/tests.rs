use group_writer::{Append, Presence, RefusalReason, SeriesIndex};
use model::{Exemplar, Labels, Timestamp};
use remote_protocol::SeriesOut;

use super::*;

const INSTANCE_A: [(&str, &str); 3] = [("__name__", "a"), ("instance", "i"), ("job", "j")];

fn series(labels: &[(&str, &str)], floats: &[(i64, f64)]) -> SeriesOut {
    SeriesOut {
        labels: Labels::from_pairs(labels.iter().copied()),
        floats: floats.iter().map(|(t, value)| (Timestamp(*t), *value)).collect(),
        ..SeriesOut::default()
    }
}

/// What is read of a request.
#[derive(Debug, PartialEq)]
struct Read {
    /// Group key, time, presence, values.
    appends: Vec<(String, i64, Presence, Vec<f64>)>,
    sent: Counts,
    faults: String,
    /// How many samples were skipped.
    skipped: u64,
}

fn take(index: &mut SeriesIndex, version: Version, message: &[u8]) -> (Vec<Append>, Read) {
    let request = WriteRequest::parse(version, message).expect("a request");
    let mut reader = Reader::default();
    let mut filling = index.fill(Timestamp(0));
    let sent = reader.read(&request, &mut filling).expect("below the bound");
    let appends = filling.take();
    let said = |a: &Append| {
        (a.group.identity().key.to_string(), a.timestamp.millis(), a.presence.clone(), a.values.clone())
    };
    let said = appends.iter().map(said).collect();
    (appends, Read { appends: said, sent, faults: reader.faults.finish(), skipped: reader.skipped })
}

fn index() -> SeriesIndex {
    SeriesIndex::new(Tenant::default(), 100)
}

#[test]
fn series_of_one_instance_become_one_append_a_time() {
    let sent = [
        series(&INSTANCE_A, &[(1, 1.0), (2, 2.0)]),
        series(&[("__name__", "a"), ("instance", "k"), ("job", "j")], &[(1, 9.0)]),
        series(&[("__name__", "b"), ("instance", "i"), ("job", "j")], &[(1, 5.0)]),
    ];
    let key = r#"{instance="i", job="j"}"#.to_owned();
    let expected = Read {
        appends: vec![
            (key.clone(), 1, Presence::All, vec![1.0, 5.0]),
            (key, 2, Presence::Absent(vec![0b1111_1110]), vec![2.0]),
            (r#"{instance="k", job="j"}"#.to_owned(), 1, Presence::All, vec![9.0]),
        ],
        sent: Counts { samples: 4, ..Counts::default() },
        faults: String::new(),
        skipped: 0,
    };
    for (version, message) in [
        (Version::V1, remote_protocol::encode_v1(&sent, &[])),
        (Version::V2, remote_protocol::encode_v2(&sent)),
    ] {
        let mut index = index();
        // Once as new series, once as known ones.
        for _ in 0..2 {
            assert_eq!(take(&mut index, version, &message).1, expected);
        }
    }
}

/// A label of version 1.0, or a text of it.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(bytes.len()).expect("short")][..], bytes].concat()
}

/// A request of version 1.0 with one series, its labels as they are given, and one sample.
fn as_given(labels: &[(&str, &str)]) -> Vec<u8> {
    let label = |(name, value): &(&str, &str)| {
        field(1, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat())
    };
    let labels: Vec<u8> = labels.iter().flat_map(label).collect();
    field(1, &[labels, field(2, &[0x10, 7])].concat())
}

#[test]
fn a_known_series_is_known_however_its_labels_come() {
    let mut index = index();
    let known = remote_protocol::encode_v1(&[series(&INSTANCE_A, &[(1, 1.0)])], &[]);
    assert_eq!(take(&mut index, Version::V1, &known).1.sent.samples, 1);
    let [name, instance, job] = INSTANCE_A;
    for labels in [&INSTANCE_A[..], &[job, name, instance], &[name, ("empty", ""), instance, job]] {
        let (appends, read) = take(&mut index, Version::V1, &as_given(labels));
        assert_eq!(read.appends, [(r#"{instance="i", job="j"}"#.to_owned(), 7, Presence::All, vec![0.0])]);
        assert_eq!(appends[0].members, 1, "{labels:?}");
    }
    for (labels, fault) in [
        (&[name, instance, job, job][..], "invalid labels for series, duplicated label job"),
        (&[instance, job], r#"invalid metric name or labels, got {instance="i", job="j"}"#),
    ] {
        let read = take(&mut index, Version::V1, &as_given(labels)).1;
        assert_eq!((read.faults.as_str(), read.skipped, read.appends), (fault, 1, vec![]));
    }
    let (appends, _) = take(&mut index, Version::V1, &as_given(&[name, job, instance, ("more", "1")]));
    assert_eq!(appends[0].members, 2, "another series of the group");
}

#[test]
fn exemplars_travel_with_the_newest_sample_or_alone() {
    let exemplar = Exemplar { labels: Labels::empty(), value: 1.0, timestamp: Some(Timestamp(1)) };
    let with = |samples: &[(i64, f64)]| SeriesOut {
        exemplars: vec![exemplar.clone()],
        ..series(&[("__name__", "a")], samples)
    };
    let read = |samples: &[(i64, f64)]| {
        take(&mut index(), Version::V2, &remote_protocol::encode_v2(&[with(samples)])).0
    };
    let two = read(&[(1, 1.0), (2, 2.0)]);
    assert_eq!(two.iter().map(|a| a.exemplars.len()).collect::<Vec<_>>(), [0, 1]);
    let alone = read(&[]);
    let told: Vec<_> = alone.iter().map(|a| (a.timestamp, a.exemplars.len())).collect();
    assert_eq!(told, [(Timestamp(1), 1)]);
    assert_eq!((&alone[0].presence, &alone[0].values[..]), (&Presence::Present(vec![]), &[][..]));
}

#[test]
fn series_come_with_their_metadata_and_reasons() {
    let metadata = Metadata { kind: model::MetricType::Counter, unit: "s".into(), help: "h".into() };
    let of = |name: &str, floats: &[(i64, f64)], metadata: Option<&Metadata>| SeriesOut {
        metadata: metadata.cloned(),
        ..series(&[(name, "a")], floats)
    };
    let sent = [
        of("__name__", &[(0, 1.0), (1, 1.0)], Some(&metadata)),
        of("__name__", &[(2, 1.0)], Some(&metadata)),
        of("__name__", &[(3, 1.0)], None),
        of("__name__", &[], None),
        of("job", &[(0, 1.0)], None),
    ];
    let message = remote_protocol::encode_v2(&sent);
    let request = WriteRequest::parse(Version::V2, &message).expect("a request");
    let mut reader = Reader::default();
    let mut index = index();
    reader.read(&request, &mut index.fill(Timestamp(0))).expect("below the bound");
    let mut known: Vec<&Metadata> = reader.metadata.values().map(|m| &**m).collect();
    known.retain(|m| **m != Metadata::default());
    assert_eq!(known, [&metadata], "one copy");

    let reasons = [
        r#"TimeSeries must contain at least one sample or histogram for series {__name__="a"}"#,
        r#"invalid metric name or labels, got {job="a"}"#,
    ];
    let read = take(&mut index, Version::V2, &message).1;
    assert_eq!(read.faults, reasons.join("\n"));
    assert_eq!((read.sent.samples, read.skipped), (4, 1));
    // In version 1.0 a series without samples is nothing wrong.
    let read = take(&mut index, Version::V1, &remote_protocol::encode_v1(&sent[3..4], &[])).1;
    assert_eq!((read.faults.as_str(), read.sent), ("", Counts::default()));
}

#[test]
fn faults_are_told_within_bounds() {
    let mut faults = Faults::default();
    (0..NAMED_MAX + 5).for_each(|i| faults.add(format_args!("fault {i}")));
    let text = faults.finish();
    assert!(text.starts_with("fault 0\nfault 1\n") && text.ends_with("fault 9\nand 5 more"), "{text}");
}

#[test]
fn refused_samples_are_not_counted_as_written() {
    let all = Counts { samples: 2, histograms: 2, exemplars: 1 };
    assert_eq!(all.without(&Written::default()), all);
    let refusal = Refusal {
        reason: RefusalReason::OutOfOrder,
        count: 3,
        histograms: 1,
        example: String::new(),
        samples: Vec::new(),
    };
    let written = Written { stored: 1, refusals: vec![refusal] };
    assert_eq!(all.without(&written), Counts { samples: 0, histograms: 1, exemplars: 1 });
}
