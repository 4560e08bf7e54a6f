use std::sync::Arc;

use model::{CounterResetHint, Histogram, Span, stale_nan};
use prometheus_proto::client;
use prost::Message as _;

use super::*;
use crate::EscapingScheme;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied())
}

fn encode(negotiated: Negotiated, external: &Labels, series: &[(Labels, i64, Value)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(negotiated, external);
    for (labels, timestamp, value) in series {
        encoder.encode(labels, Timestamp(*timestamp), value, &mut out);
    }
    encoder.finish(&mut out);
    out
}

#[track_caller]
fn check_text(external: &[(&str, &str)], series: &[(Labels, i64, Value)], expected: &str) {
    let out = encode(Negotiated::default(), &labels(external), series);
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

fn nhcb() -> FloatHistogram {
    FloatHistogram {
        schema: -53,
        count: 10.0,
        sum: 12.5,
        positive_spans: vec![Span { offset: 0, length: 1 }, Span { offset: 1, length: 2 }],
        positive_buckets: vec![1.0, 4.0, 5.0],
        custom_values: Arc::from([0.5, 1.0, 2.0]),
        ..Default::default()
    }
}

fn exponential() -> FloatHistogram {
    FloatHistogram {
        schema: 1,
        count: 4.0,
        sum: 9.0,
        zero_threshold: 0.001,
        zero_count: 1.0,
        positive_spans: vec![Span { offset: -1, length: 2 }],
        positive_buckets: vec![1.0, 2.0],
        ..Default::default()
    }
}

fn histogram(h: FloatHistogram) -> Value {
    Value::Histogram(Arc::new(Histogram::Float(h)))
}

/// Expected lines follow the federation scenarios of the project (F05, F06, F15) and surface section d.
#[test]
fn text_has_families_external_labels_and_an_empty_instance() {
    let series = [
        (labels(&[("__name__", "a"), ("foo", "bar"), ("instance", "i")]), 6_000_000, Value::Float(10_000.0)),
        (labels(&[("__name__", "a"), ("foo", "boo"), ("instance", "i")]), 6_000_000, Value::Float(1.0)),
        (labels(&[("__name__", "b")]), 5_880_000, Value::Float(981.0)),
    ];
    check_text(
        &[],
        &series,
        "# TYPE a untyped\n\
         a{foo=\"bar\",instance=\"i\"} 10000 6000000\n\
         a{foo=\"boo\",instance=\"i\"} 1 6000000\n\
         # TYPE b untyped\n\
         b{instance=\"\"} 981 5880000\n",
    );
    check_text(
        &[("zone", "ie"), ("foo", "baz")],
        &series[1..],
        "# TYPE a untyped\n\
         a{foo=\"boo\",instance=\"i\",zone=\"ie\"} 1 6000000\n\
         # TYPE b untyped\n\
         b{foo=\"baz\",instance=\"\",zone=\"ie\"} 981 5880000\n",
    );
    check_text(&[("instance", "leaf")], &series[2..], "# TYPE b untyped\nb{instance=\"leaf\"} 981 5880000\n");
    // External labels are appended, so a line need not be sorted.
    check_text(
        &[("a", "1")],
        &[(labels(&[("__name__", "m"), ("z", "1")]), 0, Value::Float(0.0))],
        "# TYPE m untyped\nm{z=\"1\",a=\"1\",instance=\"\"} 0 0\n",
    );
}

#[test]
fn values_are_written_in_go_form() {
    for (value, text) in [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (-1.0, "-1"),
        (123_456.0, "123456"),
        (1e6, "1e+06"),
        (1_234_567.0, "1.234567e+06"),
        (0.0001, "0.0001"),
        (0.000_01, "1e-05"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "+Inf"),
        (f64::NEG_INFINITY, "-Inf"),
    ] {
        let expected = format!("# TYPE m untyped\nm{{instance=\"\"}} {text} -5\n");
        check_text(&[], &[(labels(&[("__name__", "m")]), -5, Value::Float(value))], &expected);
    }
}

#[test]
fn label_values_are_escaped() {
    check_text(
        &[],
        &[(labels(&[("__name__", "m"), ("instance", "a\\b\"c\nd\te")]), 0, Value::Float(1.0))],
        "# TYPE m untyped\nm{instance=\"a\\\\b\\\"c\\nd\te\"} 1 0\n",
    );
}

#[test]
fn foreign_names_are_escaped_or_quoted() {
    let series =
        [(labels(&[("__name__", "my.metric"), ("a.b", "x"), ("instance", "i")]), 0, Value::Float(1.0))];
    for (escaping, expected) in [
        (EscapingScheme::Underscores, "# TYPE my_metric untyped\nmy_metric{a_b=\"x\",instance=\"i\"} 1 0\n"),
        (
            EscapingScheme::Dots,
            "# TYPE my_dot_metric untyped\nmy_dot_metric{a_dot_b=\"x\",instance=\"i\"} 1 0\n",
        ),
        (
            EscapingScheme::Values,
            "# TYPE U__my_2e_metric untyped\nU__my_2e_metric{U__a_2e_b=\"x\",instance=\"i\"} 1 0\n",
        ),
        (
            EscapingScheme::AllowUtf8,
            "# TYPE \"my.metric\" untyped\n{\"my.metric\",\"a.b\"=\"x\",instance=\"i\"} 1 0\n",
        ),
    ] {
        let out = encode(Negotiated { escaping, ..Default::default() }, &Labels::empty(), &series);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

#[test]
fn stale_and_nameless_series_are_left_out() {
    check_text(
        &[],
        &[
            (labels(&[("a", "b")]), 0, Value::Float(1.0)),
            (labels(&[("__name__", "m")]), 0, Value::Float(stale_nan())),
            (
                labels(&[("__name__", "m")]),
                0,
                histogram(FloatHistogram { sum: stale_nan(), ..Default::default() }),
            ),
        ],
        "",
    );
}

#[test]
fn text_leaves_exponential_histograms_out_and_writes_custom_buckets_as_classic() {
    let m = |x| labels(&[("__name__", "m"), ("instance", x), ("z", "1")]);
    check_text(
        &[],
        &[
            (m("1"), 5, Value::Float(1.0)),
            (m("2"), 5, histogram(exponential())),
            (m("3"), 5, Value::Float(3.0)),
            (m("4"), 5, histogram(nhcb())),
            (m("5"), 5, histogram(FloatHistogram { counter_reset_hint: CounterResetHint::Gauge, ..nhcb() })),
        ],
        "# TYPE m untyped\n\
         m{instance=\"1\",z=\"1\"} 1 5\n\
         m{instance=\"3\",z=\"1\"} 3 5\n\
         # TYPE m histogram\n\
         m_bucket{instance=\"4\",z=\"1\",le=\"0.5\"} 1 5\n\
         m_bucket{instance=\"4\",z=\"1\",le=\"1\"} 1 5\n\
         m_bucket{instance=\"4\",z=\"1\",le=\"2\"} 5 5\n\
         m_bucket{instance=\"4\",z=\"1\",le=\"+Inf\"} 10 5\n\
         m_sum{instance=\"4\",z=\"1\"} 12.5 5\n\
         m_count{instance=\"4\",z=\"1\"} 10 5\n\
         # TYPE m histogram\n\
         m_bucket{instance=\"5\",z=\"1\",le=\"0.5\"} 1 5\n\
         m_bucket{instance=\"5\",z=\"1\",le=\"1\"} 1 5\n\
         m_bucket{instance=\"5\",z=\"1\",le=\"2\"} 5 5\n\
         m_bucket{instance=\"5\",z=\"1\",le=\"+Inf\"} 10 5\n\
         m_sum{instance=\"5\",z=\"1\"} 12.5 5\n\
         m_count{instance=\"5\",z=\"1\"} 10 5\n",
    );
}

fn decode(mut body: &[u8]) -> Vec<client::MetricFamily> {
    let mut families = Vec::new();
    while !body.is_empty() {
        families.push(client::MetricFamily::decode_length_delimited(&mut body).unwrap());
    }
    families
}

const PROTOBUF: Negotiated =
    Negotiated { format: WireFormat::Protobuf, escaping: EscapingScheme::Underscores };

#[test]
fn protobuf_has_a_family_for_each_kind_of_a_name() {
    let m = |x| labels(&[("__name__", "m"), ("instance", x)]);
    let body = encode(
        PROTOBUF,
        &labels(&[("zone", "ie")]),
        &[
            (m("1"), 5, Value::Float(-0.0)),
            (m("2"), 5, histogram(exponential())),
            (m("3"), 5, histogram(nhcb())),
            (
                m("4"),
                5,
                histogram(FloatHistogram { counter_reset_hint: CounterResetHint::Gauge, ..exponential() }),
            ),
        ],
    );
    let families = decode(&body);
    let summary: Vec<_> = families
        .iter()
        .map(|f| (f.name().to_owned(), f.r#type(), f.metric.len(), f.help.is_some()))
        .collect();
    assert_eq!(
        summary,
        [
            ("m".to_owned(), client::MetricType::Untyped, 1, false),
            ("m".to_owned(), client::MetricType::Histogram, 2, false),
            ("m".to_owned(), client::MetricType::GaugeHistogram, 1, false),
        ]
    );
    let first = &families[0].metric[0];
    let pairs: Vec<_> = first.label.iter().map(|l| (l.name(), l.value())).collect();
    assert_eq!(pairs, [("instance", "1"), ("zone", "ie")]);
    assert_eq!((first.untyped.as_ref().unwrap().value(), first.timestamp_ms), (0.0, Some(5)));

    let native = families[1].metric[0].histogram.as_ref().unwrap();
    assert_eq!((native.sample_count_float(), native.zero_count_float(), native.schema()), (4.0, 1.0, 1));
    assert_eq!((native.sample_count, &native.positive_count[..]), (None, &[1.0, 2.0][..]));
    assert_eq!((native.positive_span[0].offset(), native.positive_span[0].length()), (-1, 2));
    assert!(native.bucket.is_empty());

    let classic = families[1].metric[1].histogram.as_ref().unwrap();
    let buckets: Vec<_> =
        classic.bucket.iter().map(|b| (b.upper_bound(), b.cumulative_count_float())).collect();
    assert_eq!(buckets, [(0.5, 1.0), (1.0, 1.0), (2.0, 5.0), (f64::INFINITY, 10.0)]);
    assert_eq!((classic.sample_count_float(), classic.sample_sum(), classic.schema), (10.0, 12.5, None));
}

#[test]
fn a_large_family_is_cut_into_messages() {
    let count = message::FAMILY_METRICS_MAX + 1;
    let series: Vec<_> = (0..count)
        .map(|i| (labels(&[("__name__", "m"), ("i", &i.to_string())]), 0, Value::Float(1.0)))
        .collect();
    let families = decode(&encode(PROTOBUF, &Labels::empty(), &series));
    let sizes: Vec<_> = families.iter().map(|f| (f.name(), f.metric.len())).collect();
    assert_eq!(sizes, [("m", message::FAMILY_METRICS_MAX), ("m", 1)]);
}
