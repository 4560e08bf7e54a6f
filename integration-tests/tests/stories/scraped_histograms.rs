//! The same protobuf and text bodies, scraped by Tributary and by Prometheus 3.5 under every setting for histograms: what
//! is stored is equal, sample by sample.

use integration_tests::{Fixture, Http, Kind, Server, eventually, now_ms, promql};
use prometheus_proto::client::{
    Bucket, BucketSpan, Counter, Exemplar, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
    Quantile, Summary, Untyped,
};
use prost::Message as _;

const STEPS: u64 = 4;
const INTERVAL_MS: i64 = 3_000;
const PROTOBUF: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

fn label(name: &str, value: &str) -> LabelPair {
    LabelPair { name: Some(name.to_owned()), value: Some(value.to_owned()) }
}

fn family(name: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let help = Some(format!("Help of {name}."));
    MetricFamily { name: Some(name.to_owned()), help, r#type: Some(kind.into()), metric: metrics, unit: None }
}

fn exemplar(id: &str, value: f64, at_ms: Option<i64>) -> Exemplar {
    Exemplar {
        label: vec![label("trace_id", id)],
        value: Some(value),
        timestamp: at_ms.map(|ms| prost_types::Timestamp {
            seconds: ms.div_euclid(1000),
            nanos: i32::try_from(ms.rem_euclid(1000) * 1_000_000).expect("below a second"),
        }),
    }
}

fn span(offset: i32, length: u32) -> BucketSpan {
    BucketSpan { offset: Some(offset), length: Some(length) }
}

/// Bounds with how many observations each has more than the one below it.
fn classic(buckets: &[(f64, u64)], exemplar_id: &str) -> Histogram {
    let mut total = 0;
    let buckets = buckets.iter().map(|(bound, count)| {
        total += count;
        let exemplar = (*bound == 1.0).then(|| exemplar(exemplar_id, 0.7, None));
        let (upper_bound, cumulative_count) = (Some(*bound), Some(total));
        Bucket { upper_bound, cumulative_count, exemplar, ..Bucket::default() }
    });
    let bucket = buckets.collect();
    Histogram {
        bucket,
        sample_count: Some(total),
        sample_sum: Some(total as f64 / 3.0),
        ..Histogram::default()
    }
}

/// Integers on both sides, 40 buckets among them, so that limits reduce them.
fn exponential(step: u64, at_ms: i64) -> Histogram {
    let grown = i64::try_from(step).expect("small");
    let positive_delta: Vec<i64> =
        (0..20).map(|i| if i == 0 { 1 + grown } else { i % 3 - 1 + i % 2 }).collect();
    let population = |deltas: &[i64]| {
        let mut at = 0;
        deltas
            .iter()
            .map(|delta| {
                at += delta;
                at
            })
            .sum::<i64>()
            .unsigned_abs()
    };
    let negative_delta: Vec<i64> = (0..20).map(|i| i64::from(i == 0)).collect();
    let count = population(&positive_delta) + population(&negative_delta) + 2;
    Histogram {
        sample_count: Some(count),
        sample_sum: Some(-1.5 * step as f64),
        schema: Some(5),
        zero_threshold: Some(0.001),
        zero_count: Some(2),
        positive_span: vec![span(-3, 8), span(4, 12)],
        positive_delta,
        negative_span: vec![span(1, 20)],
        negative_delta,
        exemplars: vec![exemplar("timed", 0.3, Some(at_ms)), exemplar("untimed", 0.4, None)],
        ..Histogram::default()
    }
}

fn floating(step: u64) -> Histogram {
    Histogram {
        sample_count_float: Some(3.5 + step as f64),
        sample_sum: Some(9.25),
        schema: Some(0),
        zero_threshold: Some(1e-9),
        zero_count_float: Some(1.0),
        positive_span: vec![span(1, 2)],
        positive_count: vec![0.5, 2.0 + step as f64],
        ..Histogram::default()
    }
}

fn body(step: u64, at_ms: i64) -> Vec<u8> {
    let metric = || Metric { timestamp_ms: Some(at_ms), ..Metric::default() };
    let labelled = |value: &str| Metric { label: vec![label("path", value), label("empty", "")], ..metric() };
    let histogram = |path: &str, histogram| Metric { histogram: Some(histogram), ..labelled(path) };
    let x = step as f64;
    let buckets = [(0.5, step), (1.0, 2 * step), (2.5, 0), (f64::INFINITY, 3)];
    let both = Histogram { bucket: classic(&buckets, "both").bucket, ..exponential(step, at_ms) };
    let quantile = |q: f64, value| Quantile { quantile: Some(q), value: Some(value) };
    let counter = Counter {
        value: Some(x),
        exemplar: Some(exemplar(&format!("c{step}"), 0.1, Some(at_ms))),
        created_timestamp: Some(prost_types::Timestamp { seconds: 1_600_000_000, nanos: 0 }),
    };
    let summary = Summary {
        sample_count: Some(step),
        sample_sum: Some(x * 2.0),
        quantile: vec![quantile(0.5, x), quantile(1.0, f64::NAN)],
        ..Summary::default()
    };
    let families = [
        family(
            "requests_total",
            MetricType::Counter,
            vec![Metric { counter: Some(counter), ..labelled("/\"a\"\\\n") }],
        ),
        family(
            "a.dotted gauge",
            MetricType::Gauge,
            vec![Metric { gauge: Some(Gauge { value: Some(-x) }), ..labelled("é") }],
        ),
        family(
            "plain",
            MetricType::Untyped,
            vec![Metric { untyped: Some(Untyped { value: Some(1e21) }), ..metric() }],
        ),
        family("summed", MetricType::Summary, vec![Metric { summary: Some(summary), ..labelled("/s") }]),
        family(
            "classic",
            MetricType::Histogram,
            // The second has no bucket for infinity.
            vec![
                histogram("/a", classic(&buckets, "classic")),
                histogram("/b", classic(&buckets[..3], "open")),
            ],
        ),
        family("native", MetricType::Histogram, vec![histogram("/n", exponential(step, at_ms))]),
        family("both", MetricType::Histogram, vec![histogram("/x", both.clone()), histogram("/y", both)]),
        family("floating", MetricType::Histogram, vec![histogram("/f", floating(step))]),
        family("gauged", MetricType::GaugeHistogram, vec![histogram("/g", exponential(STEPS - step, at_ms))]),
        family(
            "unobserved",
            MetricType::Histogram,
            vec![histogram("/u", Histogram { positive_span: vec![span(0, 0)], ..Histogram::default() })],
        ),
        family("step", MetricType::Gauge, vec![Metric { gauge: Some(Gauge { value: Some(x) }), ..metric() }]),
    ];
    families.iter().flat_map(MetricFamily::encode_length_delimited_to_vec).collect()
}

fn text(step: u64, at_ms: i64) -> String {
    let of = |name: &str, path: &str, count: u64| {
        format!(
            "{name}_bucket{{le=\"1\",path=\"{path}\"}} {step} {at_ms}\n{name}_bucket{{path=\"{path}\",le=\"+Inf\"}} {count} {at_ms}\n\
             {name}_sum{{path=\"{path}\"}} 0.5 {at_ms}\n{name}_count{{path=\"{path}\"}} {count} {at_ms}\n"
        )
    };
    // The third is no histogram, the fourth contradicts itself.
    format!(
        "# TYPE texts histogram\n{}{}# TYPE not gauge\n{}# TYPE wrong histogram\n{}step {step} {at_ms}\n",
        of("texts", "a", step + 3),
        of("texts", "b", step),
        of("not", "a", 9),
        of("wrong", "a", step / 2)
    )
}

/// Jobs by what stands in their settings.
const SETTINGS: [(&str, &str, &str); 8] = [
    ("native", "/proto", ""),
    ("classic_too", "/proto", "  always_scrape_classic_histograms: true\n"),
    ("converted", "/proto", "  convert_classic_histograms_to_nhcb: true\n"),
    (
        "converted_too",
        "/proto",
        "  convert_classic_histograms_to_nhcb: true\n  always_scrape_classic_histograms: true\n",
    ),
    ("limited", "/proto", "  native_histogram_bucket_limit: 12\n"),
    ("widened", "/proto", "  native_histogram_min_bucket_factor: 1.3\n"),
    ("text_converted", "/text", "  convert_classic_histograms_to_nhcb: true\n"),
    ("impossible", "/proto", "  native_histogram_bucket_limit: 1\n"),
];

fn config(address: &str, global: &str) -> String {
    let jobs: String = SETTINGS
        .iter()
        .map(|(job, path, settings)| {
            format!(
                "- job_name: {job}\n  honor_labels: true\n  metrics_path: {path}\n{settings}  static_configs:\n  - targets: ['{address}']\n"
            )
        })
        .collect();
    format!(
        "global:\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\n{global}storage:\n  tsdb:\n    out_of_order_time_window: 0s\nscrape_configs:\n{jobs}"
    )
}

/// Exemplars as they are answered, sorted; without those that 3.5 passes over: of a family's second metric, and of
/// classic buckets that are kept beside their conversion.
fn exemplars(http: &Http, end_ms: i64) -> Vec<String> {
    let (start, end) = (promql::seconds(end_ms - 60_000), promql::seconds(end_ms + 60_000));
    let form = [("query", "{job=~\".+\"}"), ("start", start.as_str()), ("end", end.as_str())];
    let answer = http.post_form("/api/v1/query_exemplars", &form).data();
    let series = answer.as_array().expect("a list");
    let mut all: Vec<String> = series
        .iter()
        .filter(|s| s["seriesLabels"]["path"] != "/b" && s["seriesLabels"]["path"] != "/y")
        .filter(|s| s["seriesLabels"]["job"] != "converted_too")
        .flat_map(|s| {
            let of = |e: &serde_json::Value| format!("{} {e}", s["seriesLabels"]);
            s["exemplars"].as_array().expect("a list").iter().map(of).collect::<Vec<_>>()
        })
        .collect();
    all.sort();
    all
}

#[test]
fn every_setting_stores_what_the_reference_stores() {
    let fixture = Fixture::start();
    // 3.5 has a flag for native histograms, which is on here.
    let theirs = Server::start(Kind::Prometheus3, &config(&fixture.address(), ""));
    let ours =
        Server::start(Kind::Tributary, &config(&fixture.address(), "  scrape_native_histograms: true\n"));
    let base = (now_ms() - 30_000) / 1000 * 1000 + 123;
    let mut end = base;
    for step in 1..=STEPS {
        end = base + INTERVAL_MS * i64::try_from(step).expect("small");
        fixture.serve_as("/proto", PROTOBUF, body(step, end));
        fixture.serve("/text", text(step, end));
        for server in [&theirs, &ours] {
            let (http, query) = (server.http(), format!("count(step == {step})"));
            eventually(&format!("{:?} has step {step}", server.kind()), || {
                promql::single(&http, &query, end + 1).filter(|count| *count == SETTINGS.len() as f64 - 1.0)
            });
        }
    }
    let samples = "{job=~\".+\",__name__!~\"up|scrape_.*\"}[10m]";
    let want = promql::instant(&theirs.http(), samples, end + 1);
    let histograms: usize = want.series.iter().filter(|s| !s.histograms.is_empty()).count();
    // Six jobs with 6 native ones each, three with 2 that were converted.
    assert!(histograms >= 6 * 6 + 3 * 2 && want.series.len() > 120, "{histograms} of {}", want.series.len());
    let got = promql::instant(&ours.http(), samples, end + 1);
    assert_eq!(promql::differences(&got, &want), Vec::<String>::new());

    // How much there was, and why one job has none of it.
    let reports = "{__name__=~\"up|scrape_samples_.*\"}";
    // A busy machine may let scrapes run out of their time, of either server.
    eventually("both report the same, of seven jobs that are up", || {
        let now = now_ms();
        let [got, want] = [&ours, &theirs].map(|server| promql::instant(&server.http(), reports, now));
        let up = want.series.iter().filter(|s| s.labels["__name__"] == "up" && s.floats[0].1 == 1.0);
        let is_whole = want.series.len() == 3 * SETTINGS.len() && up.count() == SETTINGS.len() - 1;
        (is_whole && promql::differences(&got, &want).is_empty()).then_some(())
    });
    for server in [&theirs, &ours] {
        eventually(&format!("{:?} says what is wrong", server.kind()), || {
            let targets = server.http().get("/api/v1/targets", &[("scrapePool", "impossible")]).data();
            (targets["activeTargets"][0]["lastError"] == "histogram bucket limit exceeded").then_some(())
        });
    }
    assert_eq!(exemplars(&ours.http(), end), exemplars(&theirs.http(), end));
}
