//! Protobuf bodies and native histograms.

use prometheus_proto::client;
use prost::Message as _;

use super::*;

/// A family of one histogram with buckets for 1 and +Inf, and in its native form as many buckets at schema 3 as there
/// are deltas.
fn family(name: &str, is_classic: bool, deltas: &[i64]) -> client::MetricFamily {
    let mut population = 0;
    let populations = deltas.iter().map(|delta| {
        population += delta;
        population.unsigned_abs()
    });
    let count = if deltas.is_empty() { 3 } else { populations.sum() };
    let bucket = |upper_bound, cumulative_count| client::Bucket {
        upper_bound: Some(upper_bound),
        cumulative_count: Some(cumulative_count),
        ..Default::default()
    };
    let histogram = client::Histogram {
        sample_count: Some(count),
        sample_sum: Some(1.5),
        bucket: if is_classic { vec![bucket(1.0, 2), bucket(f64::INFINITY, count)] } else { Vec::new() },
        schema: Some(3),
        positive_span: match u32::try_from(deltas.len()).unwrap() {
            0 => Vec::new(),
            length => vec![client::BucketSpan { offset: Some(1), length: Some(length) }],
        },
        positive_delta: deltas.to_vec(),
        ..Default::default()
    };
    let label = client::LabelPair { name: Some("a".into()), value: Some("x\"y".into()) };
    client::MetricFamily {
        name: Some(name.into()),
        help: Some("Helps.".into()),
        r#type: Some(client::MetricType::Histogram.into()),
        metric: vec![client::Metric { label: vec![label], histogram: Some(histogram), ..Default::default() }],
        ..Default::default()
    }
}

fn with(histograms: HistogramRules) -> SampleRules {
    SampleRules { histograms, ..rules() }
}

fn native() -> HistogramRules {
    HistogramRules { scrapes_native: true, ..HistogramRules::default() }
}

fn scrape(target: &mut Target, families: &[client::MetricFamily]) -> Vec<String> {
    let body: Vec<u8> = families.iter().flat_map(|f| f.encode_length_delimited_to_vec()).collect();
    target.scrape_bytes(Some(&body), Format::Protobuf, true)
}

const CLASSIC: [&str; 4] = [
    r#"h_count{a="x\"y"} 3"#,
    r#"h_sum{a="x\"y"} 1.5"#,
    r#"h_bucket{a="x\"y", le="1.0"} 2"#,
    r#"h_bucket{a="x\"y", le="+Inf"} 3"#,
];
const CUSTOM: &str = r#"h{a="x\"y"} schema -53 count 3 buckets 2"#;
const ONLY_INFINITY: &str = r#"h{a="x\"y"} schema -53 count 3 buckets 1"#;
const NATIVE: &str = r#"h{a="x\"y"} schema 3 count 3 buckets 2"#;

/// Section b.1 of Prometheus's rules: which forms of a histogram are stored.
#[test]
fn the_forms_of_a_histogram_are_those_of_the_job() {
    let infinity = [CLASSIC[0], CLASSIC[1], CLASSIC[3]];
    for (is_classic, is_native, n, c, a, expected) in [
        (true, false, false, false, false, CLASSIC.to_vec()),
        (true, false, true, false, true, CLASSIC.to_vec()),
        (true, false, true, true, false, vec![CUSTOM]),
        (true, false, false, true, true, [&CLASSIC[..], &[CUSTOM]].concat()),
        (false, true, true, true, true, vec![NATIVE]),
        (false, true, false, false, false, infinity.to_vec()),
        (false, true, false, true, false, vec![ONLY_INFINITY]),
        (true, true, true, true, false, vec![NATIVE]),
        (true, true, true, true, true, [&[NATIVE], &CLASSIC[..]].concat()),
        (true, true, false, false, true, CLASSIC.to_vec()),
        (true, true, false, true, false, vec![CUSTOM]),
    ] {
        let rules = HistogramRules { scrapes_native: n, converts_classic: c, keeps_classic: a, ..native() };
        let mut target = Target::new(with(rules));
        let deltas: &[i64] = if is_native { &[1, 1] } else { &[] };
        let case = format!("classic {is_classic}, native {is_native}, n {n}, c {c}, a {a}");
        assert_eq!(scrape(&mut target, &[family("h", is_classic, deltas)]), expected, "{case}");
        assert_eq!(target.tally.scraped, expected.len() as u64, "{case}");
        assert_eq!((target.tally.series_added, target.appends.len()), (expected.len() as u64, 1), "{case}");
        let (_, metadata) = target.cache.members.labels(0);
        assert_eq!((metadata.kind, &*metadata.help), (MetricType::Histogram, "Helps."), "{case}");
        // Known now, and stale when gone.
        assert_eq!(scrape(&mut target, &[family("h", is_classic, deltas)]), expected, "{case}");
        assert_eq!(target.tally.series_added, 0, "{case}");
        let stale: Vec<_> =
            expected.iter().map(|s| format!("{} stale", &s[..=s.find('}').unwrap()])).collect();
        assert_eq!(scrape(&mut target, &[]), stale, "{case}");
    }
}

#[test]
fn a_text_is_converted_as_well() {
    let rules = HistogramRules { converts_classic: true, ..HistogramRules::default() };
    let mut target = Target::new(with(rules));
    let body = "# TYPE h histogram\nh_bucket{le=\"1\"} 2 5\nh_bucket{le=\"+Inf\"} 3 5\nh_count 3 5\nh_sum 3 5\nafter 1\n";
    assert_eq!(target.scrape(body), ["after 1", "h schema -53 count 3 buckets 2 @5"]);
    assert_eq!(target.tally.scraped, 2);
}

#[test]
fn resolution_is_reduced_to_the_limits_of_the_job() {
    // 16 buckets with indexes 1 to 16 at schema 3 are 4 at schema 1, and 2 at schema 0.
    let many = [&[1][..], &[0; 15]].concat();
    let of = |rules| scrape(&mut Target::new(with(rules)), &[family("h", false, &many)]);
    let shown =
        |schema, buckets| vec![format!(r#"h{{a="x\"y"}} schema {schema} count 16 buckets {buckets}"#)];
    assert_eq!(of(native()), shown(3, 16));
    assert_eq!(of(native().with_limits(16, 0.0)), shown(3, 16));
    assert_eq!(of(native().with_limits(15, 0.0)), shown(2, 8));
    assert_eq!(of(native().with_limits(3, 0.0)), shown(0, 2));
    assert_eq!(of(native().with_limits(0, 1.4)), shown(1, 4));
    assert_eq!(of(native().with_limits(0, std::f64::consts::SQRT_2)), shown(1, 4));
    assert_eq!(of(native().with_limits(3, 1.4)), shown(0, 2));
    assert_eq!(of(native().with_limits(1, 0.0)), shown(-1, 1));
}

#[test]
fn what_cannot_be_reduced_enough_fails_the_scrape() {
    let mut target = Target::new(with(native().with_limits(1, 0.0)));
    // At schema -4 there are still a bucket up to 1 and one beyond.
    let mut wide = family("h", false, &[1, 0]);
    let histogram = wide.metric[0].histogram.as_mut().unwrap();
    histogram.positive_span[0].offset = Some(0);
    let float = family("g", true, &[]);
    assert_eq!(scrape(&mut target, &[wide.clone(), float.clone()]), [""; 0]);
    assert_eq!(target.error.as_ref().unwrap().to_string(), "histogram bucket limit exceeded");
    // Read on to the end, so that the report says how much there was.
    assert_eq!((target.tally.scraped, target.tally.post_relabel), (5, 5));

    let mut target = Target::new(with(native()));
    wide.metric[0].histogram.as_mut().unwrap().sample_count = Some(7);
    assert_eq!(scrape(&mut target, &[wide, float]), [""; 0]);
    let error = target.error.take().unwrap().to_string();
    assert!(error.contains("2 observations found in buckets, but the Count field is 7"), "{error}");
    let cut = target.scrape_bytes(Some(&[9, 1]), Format::Protobuf, true);
    assert_eq!(cut, [""; 0]);
}

#[test]
fn an_exposed_empty_label_hides_that_of_the_target() {
    let mut target = Target::new(SampleRules { honor_labels: true, ..rules() });
    let label = client::LabelPair { name: Some("instance".into()), value: Some(String::new()) };
    let gauge = client::Gauge { value: Some(4.0) };
    let metric = client::Metric { label: vec![label], gauge: Some(gauge), ..Default::default() };
    let family = client::MetricFamily {
        name: Some("utf8.name".into()),
        r#type: Some(client::MetricType::Gauge.into()),
        metric: vec![metric],
        ..Default::default()
    };
    assert_eq!(scrape(&mut target, &[family]), ["utf8.name 4"]);
    let labels = target.cache.members.labels(0).0;
    assert_eq!(labels.to_string(), r#"{__name__="utf8.name", job="j"}"#);
}
