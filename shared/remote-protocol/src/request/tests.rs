use std::sync::Arc;

use model::{FloatHistogram, stale_nan};
use prometheus_proto::write_v2 as pb2;

use super::*;
use crate::{SeriesOut, compress, decompress, encode_v1, encode_v2};

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied())
}

fn sample_series() -> Vec<SeriesOut> {
    let histogram = Histogram::Float(FloatHistogram { count: 1.0, zero_count: 1.0, ..Default::default() });
    vec![
        SeriesOut {
            labels: labels(&[("__name__", "a"), ("b", "c"), ("utf8.é", "ü")]),
            floats: vec![(Timestamp(-1), 1.5), (Timestamp(1 << 50), stale_nan()), (Timestamp(0), -0.0)],
            exemplars: vec![
                Exemplar { labels: labels(&[("id", "x")]), value: 2.0, timestamp: Some(Timestamp(5)) },
                Exemplar { labels: Labels::empty(), value: 0.0, timestamp: None },
            ],
            metadata: Some(Metadata { kind: MetricType::Counter, unit: "s".into(), help: "h".into() }),
            ..Default::default()
        },
        SeriesOut {
            labels: labels(&[("__name__", "h")]),
            histograms: vec![(Timestamp(7), histogram)],
            ..Default::default()
        },
    ]
}

/// Reads a request back into what an encoder takes.
fn read(request: &WriteRequest<'_>) -> Vec<SeriesOut> {
    request
        .series()
        .map(|s| SeriesOut {
            labels: s.to_labels().unwrap(),
            floats: s.floats().map(|s| (s.timestamp, s.value)).collect(),
            histograms: s.histograms().map(|s| (s.timestamp, s.value)).collect(),
            exemplars: s.exemplars().map(|e| e.unwrap()).collect(),
            metadata: s.metadata(),
        })
        .collect()
}

#[track_caller]
fn check_same(a: &[SeriesOut], b: &[SeriesOut], with_metadata: bool) {
    assert_eq!(a.len(), b.len());
    for (x, y) in a.iter().zip(b) {
        assert_eq!(x.labels, y.labels);
        let bits = |s: &SeriesOut| s.floats.iter().map(|(t, v)| (*t, v.to_bits())).collect::<Vec<_>>();
        assert_eq!(bits(x), bits(y));
        assert_eq!((&x.histograms, &x.exemplars), (&y.histograms, &y.exemplars));
        if with_metadata {
            assert_eq!(x.metadata, y.metadata);
        }
    }
}

#[test]
fn version_1_comes_back() {
    let metadata = Metadata { kind: MetricType::Summary, unit: "u".into(), help: "h".into() };
    let families = [("f".to_owned(), metadata)];
    let body = compress(&encode_v1(&sample_series(), &families)).unwrap();
    let message = decompress(&body).unwrap();
    let request = WriteRequest::parse(Version::V1, &message).unwrap();
    check_same(&read(&request), &sample_series(), false);
    assert_eq!(request.families().collect::<Vec<_>>(), families);
    assert_eq!(request.series().map(|s| s.sample_count()).collect::<Vec<_>>(), [3, 1]);
    assert_eq!(request.series().find_map(|s| s.metadata()), None);
    assert_eq!(request.version(), Version::V1);
}

#[test]
fn version_2_comes_back() {
    let message = encode_v2(&sample_series());
    let request = WriteRequest::parse(Version::V2, &message).unwrap();
    check_same(&read(&request), &sample_series(), true);
    assert_eq!(request.families().count(), 0);
    // One version read as the other holds nothing rather than something else.
    assert_eq!(WriteRequest::parse(Version::V1, &message).unwrap().series().count(), 0);
}

fn v1_labels(pairs: &[(&[u8], &[u8])]) -> std::result::Result<Labels, InvalidSeries> {
    let field = |number: u8, bytes: &[u8]| {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend(bytes);
        out
    };
    let series: Vec<u8> = pairs
        .iter()
        .flat_map(|(name, value)| field(1, &[field(1, name), field(2, value)].concat()))
        .collect();
    let message = field(1, &series);
    let request = WriteRequest::parse(Version::V1, &message).unwrap();
    request.series().next().unwrap().to_labels()
}

#[test]
fn invalid_series_of_version_1_are_told_apart() {
    assert_eq!(
        v1_labels(&[(b"z", b"1"), (b"__name__", b"m"), (b"e", b"")]),
        Ok(labels(&[("__name__", "m"), ("z", "1")])),
        "labels are sorted, empty values are absent"
    );
    for (pairs, expected) in [
        (&[(&b"a"[..], &b"1"[..])][..], r#"invalid metric name or labels, got {a="1"}"#),
        (&[(b"__name__", b"")], "invalid metric name or labels, got {}"),
        (&[], "invalid metric name or labels, got {}"),
        (&[(b"__name__", b"m"), (b"", b"1")], r#"invalid metric name or labels, got {""="1", __name__="m"}"#),
        (&[(b"a", b"1"), (b"__name__", b"m"), (b"a", b"2")], "invalid labels for series, duplicated label a"),
        (
            &[(b"__name__", b"m"), (b"a", b"\xff")],
            "invalid metric name or labels, \"\u{fffd}\" is not valid UTF-8",
        ),
    ] {
        let error = v1_labels(pairs).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.kind(), fault::Kind::Invalid);
    }
}

fn v2_labels(symbols: &[&str], labels_refs: Vec<u32>) -> std::result::Result<Labels, InvalidSeries> {
    let message = pb2::Request {
        symbols: symbols.iter().map(|s| (*s).to_owned()).collect(),
        timeseries: vec![pb2::TimeSeries { labels_refs, ..Default::default() }],
    }
    .encode_to_vec();
    let request = WriteRequest::parse(Version::V2, &message).unwrap();
    request.series().next().unwrap().to_labels()
}

#[test]
fn references_of_version_2_are_checked() {
    let symbols = ["", "__name__", "m", "a"];
    assert_eq!(v2_labels(&symbols, vec![1, 2]), Ok(labels(&[("__name__", "m")])));
    assert_eq!(v2_labels(&symbols, vec![3, 1, 1, 2]).map(|l| l.len()), Ok(2));
    for (references, expected) in [
        (vec![1, 2, 3], "invalid labelRefs length 3"),
        (vec![1, 4], "labelRefs 4 outside of symbols table (size 4)"),
        (vec![1, 2, 3, 0, 3, 2], "invalid labels for series, duplicated label a"),
        (vec![3, 2], r#"invalid metric name or labels, got {a="m"}"#),
        (vec![1, 0], "invalid metric name or labels, got {}"),
    ] {
        assert_eq!(v2_labels(&symbols, references).unwrap_err().to_string(), expected);
    }
}

/// Long ones, and what other senders may write; each is read by itself.
#[test]
fn labels_of_version_1_may_be_laid_out_in_other_ways() {
    let long = "v".repeat(128);
    for (label, value) in [
        ([b"\x0a\x01a\x12\x80\x01", long.as_bytes()].concat(), &*long),
        (b"\x12\x01v\x0a\x01a".to_vec(), "v"),
        (b"\x0a\x01b\x0a\x01a\x12\x01u\x12\x01v".to_vec(), "v"),
        (b"\x0a\x01a\x12\x01v\x18\x07".to_vec(), "v"),
        (b"\x0a\x81\x00a\x12\x01v".to_vec(), "v"),
        (b"\x0a\x01a".to_vec(), ""),
    ] {
        let mut series = b"\x0a\x0d\x0a\x08__name__\x12\x01m\x0a".to_vec();
        prost::encoding::encode_varint(label.len() as u64, &mut series);
        series.extend(&label);
        let mut message = vec![0x0a];
        prost::encoding::encode_varint(series.len() as u64, &mut message);
        message.extend(&series);
        let request = WriteRequest::parse(Version::V1, &message).unwrap();
        let read = request.series().next().unwrap().to_labels();
        assert_eq!(read, Ok(labels(&[("__name__", "m"), ("a", value)])), "{label:?}");
    }
}

#[test]
fn label_bytes_are_as_version_1_is_encoded() {
    let sent = sample_series();
    for (version, message) in [(Version::V1, encode_v1(&sent, &[])), (Version::V2, encode_v2(&sent))] {
        let request = WriteRequest::parse(version, &message).unwrap();
        let mut scratch = b"of another series".to_vec();
        for (series, sent) in request.series().zip(&sent) {
            let label = |(n, v): (&str, &str)| pb::Label { name: n.to_owned(), value: v.to_owned() };
            let only =
                pb::TimeSeries { labels: sent.labels.iter().map(label).collect(), ..Default::default() };
            assert_eq!(series.label_bytes(&mut scratch), Some(&only.encode_to_vec()[..]), "{version}");
        }
    }
}

#[test]
fn labels_behind_other_fields_are_read_but_are_no_label_bytes() {
    let (name, job) = (b"\x0a\x0d\x0a\x08__name__\x12\x01m", b"\x0a\x08\x0a\x03job\x12\x01j");
    for (parts, is_plain) in [
        ([&name[..], job, b"\x12\x02\x10\x07"], true),
        ([name, b"\x12\x02\x10\x07", job], false),
        ([b"\x12\x02\x10\x07", name, job], false),
    ] {
        let series = parts.concat();
        let message = [&[0x0a, u8::try_from(series.len()).unwrap()][..], &series].concat();
        let request = WriteRequest::parse(Version::V1, &message).unwrap();
        let series = request.series().next().unwrap();
        assert_eq!(series.to_labels(), Ok(labels(&[("__name__", "m"), ("job", "j")])));
        let times: Vec<_> = series.floats().map(|sample| sample.timestamp).collect();
        assert_eq!(times, [Timestamp(7)]);
        let bytes = is_plain.then(|| [&name[..], job].concat());
        assert_eq!(series.label_bytes(&mut Vec::new()), bytes.as_deref(), "{parts:?}");
    }
}

/// Proto3 allows repeated numbers unpacked, and fields in any order.
#[test]
fn version_2_may_be_laid_out_in_other_ways() {
    let sample = [2 << 3 | 2, 2, 2 << 3, 7];
    let series = [&[1 << 3, 0, 1 << 3, 1][..], &sample, &[1 << 3 | 2, 2, 1, 1]].concat();
    let mut message = vec![5 << 3 | 2, u8::try_from(series.len()).unwrap()];
    message.extend(&series);
    message.extend([4 << 3 | 2, 8]);
    message.extend(b"__name__");
    message.extend([4 << 3 | 2, 1, b'm', 15 << 3, 1]);
    let request = WriteRequest::parse(Version::V2, &message).unwrap();
    let series = request.series().next().unwrap();
    let expected = labels(&[("__name__", "m"), ("m", "m")]);
    assert_eq!(series.to_labels(), Ok(expected.clone()));
    let mut bytes = Vec::new();
    expected.iter().for_each(|(name, value)| label::put(name.as_bytes(), value.as_bytes(), &mut bytes));
    assert_eq!(series.label_bytes(&mut Vec::new()), Some(&bytes[..]));
}

/// One long symbol, referred to by labels, exemplars or metadata.
#[test]
fn what_references_stand_for_is_bounded() {
    let symbols = vec!["x".repeat(REFERRED_BYTES_MAX / 8), "n".to_owned()];
    let of_labels = |n: usize| pb2::TimeSeries { labels_refs: vec![0; n], ..Default::default() };
    let of_exemplars = |n: usize| {
        let exemplar = pb2::Exemplar { labels_refs: vec![0; n / 2], ..Default::default() };
        pb2::TimeSeries { exemplars: vec![exemplar; 2], ..Default::default() }
    };
    let of_metadata = |help_ref| pb2::TimeSeries {
        metadata: Some(pb2::Metadata { help_ref, unit_ref: 0, r#type: 0 }),
        ..Default::default()
    };
    // Proto3 leaves a reference to the first symbol out where it stands alone.
    let second = vec![symbols[1].clone(), symbols[0].clone()];
    let with_help = |n: usize| vec![of_metadata(1); n];
    for (symbols, at_most, more) in [
        (
            &symbols,
            vec![of_labels(8)],
            vec![of_labels(8), pb2::TimeSeries { labels_refs: vec![1], ..Default::default() }],
        ),
        (&symbols, vec![of_exemplars(8)], vec![of_exemplars(8), of_labels(1)]),
        (&second, with_help(8), with_help(9)),
    ] {
        let parse = |timeseries| {
            let message = pb2::Request { symbols: symbols.clone(), timeseries }.encode_to_vec();
            WriteRequest::parse(Version::V2, &message).map(|_| ())
        };
        assert_eq!(parse(at_most), Ok(()));
        let what = "bytes that its references stand for";
        assert_eq!(parse(more), Err(Error::TooMany { what, max: REFERRED_BYTES_MAX }));
    }
}

#[test]
fn labels_and_symbols_are_bounded() {
    let many: Vec<(String, String)> = (0..=LABELS_PER_SERIES_MAX)
        .map(|i| if i == 0 { ("__name__".into(), "m".into()) } else { (format!("l{i}"), "v".into()) })
        .collect();
    for (count, expected) in [
        (LABELS_PER_SERIES_MAX, Ok(LABELS_PER_SERIES_MAX)),
        (LABELS_PER_SERIES_MAX + 1, Err(fault::Kind::Limit)),
    ] {
        // Built here rather than through a label set, whose builder is slow at such numbers.
        let pairs: Vec<pb::Label> = many[..count]
            .iter()
            .map(|(name, value)| pb::Label { name: name.clone(), value: value.clone() })
            .collect();
        let series = pb::TimeSeries { labels: pairs, ..Default::default() };
        let first = pb::WriteRequest { timeseries: vec![series], ..Default::default() }.encode_to_vec();
        let mut symbols = vec![String::new()];
        symbols.extend(many[..count].iter().flat_map(|(n, v)| [n.clone(), v.clone()]));
        let labels_refs = (1..=u32::try_from(2 * count).unwrap()).collect();
        let series = pb2::TimeSeries { labels_refs, ..Default::default() };
        let second = pb2::Request { symbols, timeseries: vec![series] }.encode_to_vec();
        for (version, message) in [(Version::V1, &first), (Version::V2, &second)] {
            let request = WriteRequest::parse(version, message).unwrap();
            let labels = request.series().next().unwrap().to_labels();
            assert_eq!(labels.map(|l| l.len()).map_err(|e| e.kind()), expected, "{version} {count}");
        }
    }
    let symbols = |count: usize| [4 << 3 | 2, 0].repeat(count);
    assert!(WriteRequest::parse(Version::V2, &symbols(SYMBOLS_MAX)).is_ok());
    assert_eq!(
        WriteRequest::parse(Version::V2, &symbols(SYMBOLS_MAX + 1)).map(|_| ()),
        Err(Error::TooMany { what: "symbols", max: SYMBOLS_MAX })
    );
}

#[test]
fn a_request_is_refused_when_any_of_it_is_malformed() {
    for version in [Version::V1, Version::V2] {
        let good = match version {
            Version::V1 => encode_v1(&sample_series(), &[("f".into(), Metadata::default())]),
            Version::V2 => encode_v2(&sample_series()),
        };
        assert!(WriteRequest::parse(version, &good).is_ok());
        assert!(WriteRequest::parse(version, &[]).is_ok_and(|r| r.series().count() == 0));
        let error = WriteRequest::parse(version, &good[..good.len() - 1]).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), fault::Kind::Invalid);
    }
    let number = u8::try_from(Version::V1.layout().series).unwrap();
    for (series, what) in [
        (&[1 << 3, 0][..], "a label that is a number"),
        (&[1 << 3 | 2, 2, 1 << 3, 0], "a label name that is a number"),
        (&[2 << 3, 0], "a sample that is a number"),
        (&[2 << 3 | 2, 2, 1 << 3, 0], "a value that is a varint"),
        (&[2 << 3 | 2, 2, 2 << 3 | 2, 0], "a timestamp that is a text"),
        (&[3 << 3 | 2, 2, 2 << 3, 0], "an exemplar's value that is a varint"),
        (&[4 << 3 | 2, 2, 3 << 3, 0], "a histogram's sum that is a varint"),
    ] {
        let mut message = vec![number << 3 | 2, u8::try_from(series.len()).unwrap()];
        message.extend(series);
        assert!(matches!(WriteRequest::parse(Version::V1, &message), Err(Error::Message(_))), "{what}");
    }
}

#[test]
fn broken_exemplars_stand_alone() {
    let series = pb::TimeSeries {
        labels: vec![pb::Label { name: "__name__".into(), value: "m".into() }],
        exemplars: vec![pb::Exemplar {
            labels: vec![pb::Label { name: "a".into(), value: "1".into() }; 2],
            value: 1.0,
            timestamp: 1,
        }],
        ..Default::default()
    };
    let message = pb::WriteRequest { timeseries: vec![series], ..Default::default() }.encode_to_vec();
    let request = WriteRequest::parse(Version::V1, &message).unwrap();
    let series = request.series().next().unwrap();
    assert!(series.to_labels().is_ok());
    assert_eq!(series.exemplars().collect::<Vec<_>>(), [Err(InvalidSeries::DuplicateLabel("a".into()))]);
}

#[test]
fn metadata_of_version_2_forgives_bad_references() {
    let message = pb2::Request {
        symbols: vec![String::new(), "h".into()],
        timeseries: vec![pb2::TimeSeries {
            metadata: Some(pb2::Metadata { r#type: 99, help_ref: 1, unit_ref: 9 }),
            ..Default::default()
        }],
    }
    .encode_to_vec();
    let request = WriteRequest::parse(Version::V2, &message).unwrap();
    let expected = Metadata { kind: MetricType::Unknown, unit: Arc::from(""), help: Arc::from("h") };
    assert_eq!(request.series().next().unwrap().metadata(), Some(expected));
}

proptest::proptest! {
    #[test]
    fn no_message_breaks_the_reader(message in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..120)) {
        for version in [Version::V1, Version::V2] {
            if let Ok(request) = WriteRequest::parse(version, &message) {
                for series in request.series() {
                    let _labels = (series.to_labels(), series.label_bytes(&mut Vec::new()).map(<[u8]>::len));
                    let _counts = (series.floats().count(), series.histograms().count(), series.exemplars().count());
                }
            }
        }
    }

    /// Whatever is accepted reads as prost reads it.
    #[test]
    fn what_is_accepted_equals_what_prost_decodes(
        position in 0_usize..200, byte in proptest::prelude::any::<u8>()
    ) {
        let mut message = encode_v1(&sample_series(), &[]);
        let position = position % message.len();
        message[position] = byte;
        if let (Ok(ours), Ok(theirs)) =
            (WriteRequest::parse(Version::V1, &message), pb::WriteRequest::decode(&*message))
        {
            proptest::prop_assert_eq!(ours.series().count(), theirs.timeseries.len());
            for (x, y) in ours.series().zip(&theirs.timeseries) {
                let floats: Vec<_> = x.floats().map(|s| (s.timestamp.millis(), s.value.to_bits())).collect();
                let expected: Vec<_> = y.samples.iter().map(|s| (s.timestamp, s.value().to_bits())).collect();
                proptest::prop_assert_eq!(floats, expected);
                proptest::prop_assert_eq!(x.histograms().count(), y.histograms.len());
                proptest::prop_assert_eq!(x.exemplars().count(), y.exemplars.len());
                let pairs: Vec<_> = y.labels.iter().filter(|l| !l.value.is_empty()).collect();
                if let Ok(labels) = x.to_labels() {
                    let mut expected: Vec<_> = pairs.iter().map(|l| (&*l.name, &*l.value)).collect();
                    expected.sort_unstable();
                    proptest::prop_assert_eq!(labels.iter().collect::<Vec<_>>(), expected);
                }
                if let Some(bytes) = x.label_bytes(&mut Vec::new()) {
                    proptest::prop_assert_eq!(&pb::TimeSeries::decode(bytes).expect("labels").labels, &y.labels);
                }
            }
        }
    }
}

#[test]
fn starts_stand_with_samples_or_with_their_series() {
    let sample = |timestamp, start_timestamp| pb2::Sample { value: Some(1.0), timestamp, start_timestamp };
    let histogram = |start_timestamp| pb2::Histogram { timestamp: 9, start_timestamp, ..Default::default() };
    let series = |created_timestamp| pb2::TimeSeries {
        samples: vec![sample(7, 5), sample(8, 0)],
        histograms: vec![histogram(6), histogram(0)],
        created_timestamp,
        ..Default::default()
    };
    let message = pb2::Request { symbols: vec![String::new()], timeseries: vec![series(3), series(0)] };
    let message = message.encode_to_vec();
    let request = WriteRequest::parse(Version::V2, &message).unwrap();
    let starts = |s: &TimeSeries<'_>| {
        let floats = s.floats().map(|s| s.start);
        floats.chain(s.histograms().map(|s| s.start)).map(|t| t.map(Timestamp::millis)).collect::<Vec<_>>()
    };
    let all: Vec<_> = request.series().map(|s| starts(&s)).collect();
    assert_eq!(all, [[Some(5), Some(3), Some(6), Some(3)], [Some(5), None, Some(6), None]]);
}

#[test]
fn a_small_body_of_many_series_is_refused() {
    // Each of two bytes: an empty series.
    let series = [0x0a, 0x00].repeat(SERIES_MAX + 1);
    assert_eq!(
        WriteRequest::parse(Version::V1, &series).map(|_| ()),
        Err(Error::TooMany { what: "series", max: SERIES_MAX })
    );
    assert!(WriteRequest::parse(Version::V1, &series[2..]).is_ok());
    // One series of many empty samples, written out with its length.
    let samples = [0x12, 0x00].repeat(SAMPLES_MAX + 1);
    let mut one = vec![0x0a];
    prost::encoding::encode_varint(samples.len() as u64, &mut one);
    one.extend_from_slice(&samples);
    assert_eq!(
        WriteRequest::parse(Version::V1, &one).map(|_| ()),
        Err(Error::TooMany { what: "samples", max: SAMPLES_MAX })
    );
}
