use super::*;

fn label(name: &str, value: &str) -> client::LabelPair {
    client::LabelPair { name: Some(name.into()), value: Some(value.into()) }
}

fn family(name: &str, kind: client::MetricType, metric: client::Metric) -> client::MetricFamily {
    client::MetricFamily {
        name: Some(name.into()),
        r#type: Some(kind.into()),
        metric: vec![metric],
        ..Default::default()
    }
}

/// Writes the family out and reads its samples back.
fn samples(family: &client::MetricFamily, options: Options) -> Result<Vec<OwnedSample>> {
    let body = family.encode_length_delimited_to_vec();
    let mut out = Vec::new();
    for family in Families::new(&body) {
        let family = family?;
        for metric in family.metrics() {
            out.extend(family.samples(&metric?, options)?);
        }
    }
    Ok(out)
}

fn show(family: &client::MetricFamily, options: Options) -> Vec<String> {
    samples(family, options)
        .expect("labels are unique")
        .iter()
        .map(|sample| {
            let value = match &sample.value {
                Value::Float(x) => format!("{x:?}"),
                Value::Histogram(h) => match &**h {
                    Histogram::Integer(h) => format!("integer {} {}", h.count, h.sum),
                    Histogram::Float(h) => format!("float {} {}", h.count, h.sum),
                },
            };
            let time = sample.timestamp.map_or(String::new(), |t| format!(" @{}", t.millis()));
            let exemplars: String = sample
                .exemplars
                .iter()
                .map(|e| format!(" # {} {} {:?}", e.labels, e.value, e.timestamp.map(Timestamp::millis)))
                .collect();
            format!("{} {value}{time}{exemplars}", sample.series().to_labels().expect("unique"))
        })
        .collect()
}

fn exemplar(id: &str, seconds: Option<i64>) -> client::Exemplar {
    client::Exemplar {
        label: vec![label("id", id)],
        value: Some(0.5),
        timestamp: seconds.map(|seconds| prost_types::Timestamp { seconds, nanos: 2_900_000 }),
    }
}

/// A histogram with a classic form of one finite bucket and, if asked for, a native one.
fn histogram(with_native: bool) -> client::Histogram {
    let mut histogram = client::Histogram {
        sample_count: Some(3),
        sample_sum: Some(1.5),
        bucket: vec![client::Bucket {
            cumulative_count: Some(2),
            upper_bound: Some(1.0),
            exemplar: Some(exemplar("bucket", Some(7))),
            ..Default::default()
        }],
        ..Default::default()
    };
    if with_native {
        histogram.schema = Some(3);
        histogram.positive_span = vec![client::BucketSpan { offset: Some(0), length: Some(2) }];
        histogram.positive_delta = vec![1, 1];
    }
    histogram
}

#[test]
fn simple_types_are_one_sample() {
    let counter = client::Metric {
        label: vec![label("b", "2"), label("a", "1")],
        counter: Some(client::Counter {
            value: Some(4.0),
            exemplar: Some(exemplar("x", None)),
            ..Default::default()
        }),
        timestamp_ms: Some(9),
        ..Default::default()
    };
    assert_eq!(
        show(&family("c_total", client::MetricType::Counter, counter), Options::default()),
        [r##"{__name__="c_total", a="1", b="2"} 4.0 @9 # {id="x"} 0.5 None"##]
    );
    let gauge = client::Metric {
        gauge: Some(client::Gauge { value: Some(-0.5) }),
        timestamp_ms: Some(0),
        ..Default::default()
    };
    assert_eq!(
        show(&family("g", client::MetricType::Gauge, gauge), Options::default()),
        [r#"{__name__="g"} -0.5"#]
    );
    let untyped =
        client::Metric { untyped: Some(client::Untyped { value: Some(f64::NAN) }), ..Default::default() };
    assert_eq!(
        show(&family("u", client::MetricType::Untyped, untyped), Options::default()),
        [r#"{__name__="u"} NaN"#]
    );
}

#[test]
fn a_summary_is_count_sum_and_quantiles() {
    let summary = client::Summary {
        sample_count: Some(2),
        sample_sum: Some(3.0),
        quantile: vec![client::Quantile { quantile: Some(1.0), value: Some(2.5) }],
        ..Default::default()
    };
    let metric = client::Metric { summary: Some(summary), ..Default::default() };
    assert_eq!(
        show(&family("s", client::MetricType::Summary, metric), Options::default()),
        [r#"{__name__="s_count"} 2.0"#, r#"{__name__="s_sum"} 3.0"#, r#"{__name__="s", quantile="1.0"} 2.5"#]
    );
}

/// The matrix of surface section b.1: n = native wanted, a = classic too.
#[test]
fn histograms_are_laid_out_as_asked() {
    let of = |histogram, n, a| {
        let metric = client::Metric { histogram: Some(histogram), ..Default::default() };
        let options = Options { native_histograms: n, classic_histograms_too: a };
        show(&family("h", client::MetricType::Histogram, metric), options)
    };
    let classic = [
        r#"{__name__="h_count"} 3.0"#,
        r#"{__name__="h_sum"} 1.5"#,
        r##"{__name__="h_bucket", le="1.0"} 2.0 # {id="bucket"} 0.5 Some(7002)"##,
        r#"{__name__="h_bucket", le="+Inf"} 3.0"#,
    ];
    let native = r##"{__name__="h"} integer 3 1.5 # {id="bucket"} 0.5 Some(7002)"##;
    for (with_native, n, a, expected) in [
        (false, false, false, classic.to_vec()),
        (false, true, true, classic.to_vec()),
        (true, false, false, classic.to_vec()),
        (true, true, false, vec![native]),
        (true, true, true, [&[native], &classic[..]].concat()),
    ] {
        assert_eq!(of(histogram(with_native), n, a), expected, "native {with_native} n {n} a {a}");
    }
    let only_native = client::Histogram { bucket: vec![], ..histogram(true) };
    assert_eq!(of(only_native.clone(), true, true), [r#"{__name__="h"} integer 3 1.5"#]);
    assert_eq!(of(only_native, false, false), [classic[0], classic[1], classic[3]]);
    let float = client::Histogram { sample_count_float: Some(2.5), ..histogram(true) };
    assert!(of(float, true, false)[0].starts_with(r#"{__name__="h"} float 2.5 1.5"#));
}

#[test]
fn gauge_histograms_and_exemplars_of_native_ones() {
    let histogram = client::Histogram {
        exemplars: vec![exemplar("with", Some(1)), exemplar("without", None)],
        ..histogram(true)
    };
    let metric = client::Metric { histogram: Some(histogram), ..Default::default() };
    let family = family("h", client::MetricType::GaugeHistogram, metric);
    let options = Options { native_histograms: true, classic_histograms_too: false };
    assert_eq!(show(&family, options), [r##"{__name__="h"} integer 3 1.5 # {id="with"} 0.5 Some(1002)"##]);
    let samples = samples(&family, options).unwrap();
    match &samples[0].value {
        Value::Histogram(h) => assert_eq!(h.counter_reset_hint(), CounterResetHint::Gauge),
        Value::Float(_) => panic!("a float"),
    }
}

#[test]
fn bodies_are_delimited_messages() {
    let gauge = |name| family(name, client::MetricType::Gauge, client::Metric::default());
    let mut body = Vec::new();
    for name in ["a", "b"] {
        gauge(name).encode_length_delimited(&mut body).unwrap();
    }
    let names: Vec<_> = Families::new(&body).map(|f| f.unwrap().name().to_owned()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(Families::new(&[]).count(), 0);

    let mut described = gauge("a_s");
    described.help = Some("h".into());
    described.unit = Some("s".into());
    let bytes = described.encode_length_delimited_to_vec();
    let family = Families::new(&bytes).next().unwrap().unwrap();
    assert_eq!((family.kind(), family.help(), family.unit()), (MetricType::Gauge, "h", "s"));

    body.pop();
    let results: Vec<_> = Families::new(&body).map(|f| f.is_ok()).collect();
    assert_eq!(results, [true, false], "ends at the error");
}

#[test]
fn broken_families_are_refused() {
    let gauge = |name: &str| family(name, client::MetricType::Gauge, client::Metric::default());
    let with_unit = |name: &str, kind: client::MetricType, unit: &str| client::MetricFamily {
        unit: Some(unit.into()),
        ..family(name, kind, client::Metric::default())
    };
    for (family, expected) in [
        (gauge(""), Some("invalid metric name: ")),
        (
            client::MetricFamily { r#type: Some(9), ..gauge("a") },
            Some("unknown metric type for metric \"a\": 9"),
        ),
        (with_unit("a_s", client::MetricType::Gauge, "s"), None),
        (with_unit("a_s_total", client::MetricType::Counter, "s"), None),
        (
            with_unit("a_m_total", client::MetricType::Counter, "s"),
            Some(r#"unit "s" not a suffix of counter "a_m_total""#),
        ),
        (with_unit("as", client::MetricType::Gauge, "s"), Some(r#"unit "s" not a suffix of metric "as""#)),
    ] {
        let body = family.encode_length_delimited_to_vec();
        let error = Families::new(&body).next().unwrap().err().map(|e| e.to_string());
        assert_eq!(error.as_deref(), expected);
    }
    for (message, expected) in [
        (&[0x0a, 1, 0xff][..], "text is not valid UTF-8"),
        (&[0x08, 1], "number where a text belongs"),
        (&[0x1a, 0], "text where a number belongs"),
        (&[0x20, 0], "number where a message belongs"),
        (&[0x0a, 9], "length goes beyond the end"),
    ] {
        let body = [&[u8::try_from(message.len()).unwrap()], message].concat();
        let error = Families::new(&body).next().unwrap().err();
        assert_eq!(error, Some(Error::Protobuf(expected.to_owned())));
    }
    let mut broken = gauge("a").encode_to_vec();
    broken.extend([0x22, 2, 0x0a, 9]); // a metric whose label is cut off
    let body = [&[u8::try_from(broken.len()).unwrap()], &broken[..]].concat();
    let read = Families::new(&body).next().unwrap().unwrap();
    assert_eq!(read.metrics().map(|m| m.is_ok()).collect::<Vec<_>>(), [true, false]);

    let twice = client::Metric { label: vec![label("a", "1"), label("a", "2")], ..Default::default() };
    let samples = samples(&family("m", client::MetricType::Gauge, twice), Options::default()).unwrap();
    assert_eq!(samples[0].series().to_labels(), Err(Error::DuplicateLabel("a".into())));
}
