use std::sync::Arc;

use model::{CounterResetHint, Histogram, LastSampleBuilder, MetricType, Span, stale_nan};
use prometheus_proto::client;
use prost::Message as _;

use super::*;
use crate::EscapingScheme;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied())
}

fn batch(series: &[(Labels, MetricType, i64, Value)]) -> LastSamples {
    let mut builder = LastSampleBuilder::default();
    for (labels, kind, timestamp, value) in series {
        builder.push(labels, *kind, *timestamp, value.clone());
    }
    LastSamples::new(builder.finish()).unwrap()
}

fn write(mut encoder: Encoder, samples: &LastSamples) -> Vec<u8> {
    let mut out = Vec::new();
    let prepared = encoder.prepare(samples);
    for series in 0..samples.len() {
        encoder.encode(samples, &prepared, series, &mut out);
    }
    encoder.finish(&mut out);
    out
}

fn encode(negotiated: Negotiated, external: &Labels, series: &[(Labels, i64, Value)]) -> Vec<u8> {
    let typed =
        |(labels, t, value): &(Labels, i64, Value)| (labels.clone(), MetricType::Counter, *t, value.clone());
    let series: Vec<_> = series.iter().map(typed).collect();
    write(Encoder::new(negotiated, external), &batch(&series))
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

#[test]
fn known_types_are_written_where_they_are_wanted() {
    use MetricType::{Counter, Gauge, Histogram, StateSet, Summary, Unknown};
    let series = [
        ("a_total", Counter),
        // The first series of a name decides.
        ("a_total", Gauge),
        ("b", Unknown),
        ("c", StateSet),
        ("h_bucket", Histogram),
        ("h_count", Histogram),
        ("h_sum", Histogram),
        ("s", Summary),
        ("s_sum", Summary),
    ];
    let series = series.map(|(name, kind)| (labels(&[("__name__", name)]), kind, 7, Value::Float(1.0)));
    let samples = batch(&series);
    let encoder = |negotiated| Encoder::new(negotiated, &Labels::empty()).typed(true);
    let expected = "# TYPE a_total counter\na_total 1 7\na_total 1 7\n# TYPE b untyped\nb 1 7\n\
        # TYPE c gauge\nc 1 7\n# TYPE h histogram\nh_bucket 1 7\nh_count 1 7\nh_sum 1 7\n\
        # TYPE s summary\ns 1 7\ns_sum 1 7\n";
    let text = String::from_utf8(write(encoder(Negotiated::default()), &samples)).unwrap();
    assert_eq!(text.replace("{instance=\"\"}", ""), expected);

    let families = decode(&write(encoder(PROTOBUF), &samples));
    let of = |family: &client::MetricFamily| {
        let metric = &family.metric[0];
        let values = (
            metric.counter.as_ref().map(client::Counter::value),
            metric.gauge.as_ref().map(client::Gauge::value),
            metric.untyped.as_ref().map(client::Untyped::value),
        );
        (family.name().to_owned(), family.metric.len(), family.r#type(), values)
    };
    let untyped = |name: &str| (name.to_owned(), 1, client::MetricType::Untyped, (None, None, Some(1.0)));
    let expected = [
        ("a_total".to_owned(), 2, client::MetricType::Counter, (Some(1.0), None, None)),
        untyped("b"),
        ("c".to_owned(), 1, client::MetricType::Gauge, (None, Some(1.0), None)),
    ];
    let rest = ["h_bucket", "h_count", "h_sum", "s", "s_sum"].map(untyped);
    assert_eq!(families.iter().map(of).collect::<Vec<_>>(), [&expected[..], &rest[..]].concat());
}
