//! Remote read: Prometheus reads what Tributary has, by samples (2.42) and by streamed chunks (3.5), and computes the same.

use std::sync::Arc;

use integration_tests::{Http, Kind, Server, now_ms, promql, write};
use model::{
    CounterResetHint, FloatHistogram, Histogram, IntegerHistogram, Labels, Span, Timestamp, stale_nan,
};
use remote_protocol::SeriesOut;

/// Between two samples.
const INTERVAL_MS: i64 = 15_000;
/// Samples of a series: more than two chunks of them.
const STEPS: i64 = 300;

fn labels(name: &str, l: &str) -> Labels {
    Labels::from_pairs([("__name__", name), ("instance", "i"), ("job", "j"), ("l", l)])
}

fn floats(name: &str, l: &str, base: i64, value: impl Fn(i64) -> Option<f64>) -> SeriesOut {
    let sample = |step| value(step).map(|x| (Timestamp(base + step * INTERVAL_MS + step % 7), x));
    SeriesOut {
        labels: labels(name, l),
        floats: (0..STEPS).filter_map(sample).collect(),
        ..SeriesOut::default()
    }
}

fn histograms(name: &str, base: i64, value: impl Fn(i64) -> Histogram) -> SeriesOut {
    let histograms = (0..STEPS).map(|step| (Timestamp(base + step * INTERVAL_MS), value(step)));
    SeriesOut { labels: labels(name, ""), histograms: histograms.collect(), ..SeriesOut::default() }
}

/// A counter that is reset now and then, and whose layout grows.
fn integers(step: i64) -> Histogram {
    let n = step % 70 + 1;
    let is_wide = step % 70 > 40;
    let populations = if is_wide { vec![n, 2 * n, n, 5 * n] } else { vec![n, 2 * n] };
    let deltas = populations.iter().scan(0, |before, n| Some(n - std::mem::replace(before, *n)));
    let zero_count = n.cast_unsigned();
    Histogram::Integer(IntegerHistogram {
        counter_reset_hint: CounterResetHint::Unknown,
        schema: 3,
        // Prometheus's default, which chunks have a short form for.
        zero_threshold: 2.0_f64.powi(-128),
        zero_count,
        count: zero_count + populations.iter().sum::<i64>().cast_unsigned(),
        sum: n as f64 * 18.25,
        positive_deltas: deltas.collect(),
        positive_spans: match is_wide {
            true => vec![Span { offset: -1, length: 2 }, Span { offset: 3, length: 2 }],
            false => vec![Span { offset: -1, length: 2 }],
        },
        negative_spans: Vec::new(),
        ..IntegerHistogram::default()
    })
}

/// A gauge of custom buckets that goes up and down.
fn custom(step: i64) -> Histogram {
    let n = (step * 37 % 11) as f64 + 0.5;
    Histogram::Float(FloatHistogram {
        counter_reset_hint: CounterResetHint::Gauge,
        schema: model::histogram::CUSTOM_BUCKETS_SCHEMA,
        count: 3.0 * n,
        sum: 7.0 * n,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_buckets: vec![n, 2.0 * n],
        custom_values: Arc::from([0.25, 1.5, 10.0]),
        ..FloatHistogram::default()
    })
}

/// Sends the story's series and returns the time of the first sample.
fn fill(server: &Server) -> i64 {
    let base = now_ms() - (STEPS + 4) * INTERVAL_MS;
    let wave = |step: i64| ((step * 37) % 101) as f64 / 8.0 - 3.0;
    let mut series = vec![
        floats("counter_total", "a", base, |step| Some((step % 130) as f64 * 1.25)),
        floats("counter_total", "b", base, |step| (step % 50 < 40).then_some(step as f64)),
        floats("gauge", "a", base, |step| Some(wave(step))),
        floats("gauge", "b", base, |step| {
            Some(if step % 60 == 59 { stale_nan() } else { 1.0 / (wave(step) + 0.01) })
        }),
        floats("odd", "", base, |step| {
            Some([f64::NAN, f64::INFINITY, -0.0, 5e-324, 1e300][(step % 5) as usize])
        }),
        histograms("native", base, integers),
        histograms("custom", base, custom),
    ];
    // Names of labels that sort before the metric's name.
    series.extend(["X", "Y"].map(|upper| SeriesOut {
        labels: Labels::from_pairs([("__name__", "upper"), (upper, "1"), ("job", "j")]),
        ..floats("upper", "", base, |step| Some(step as f64))
    }));
    let reply = write(&server.http(), &series).expect("an answer");
    assert_eq!(reply.status, 204, "{}", reply.body);
    base
}

fn start_reader(kind: Kind, server: &Server, more: &str) -> Server {
    let url = server.http().url("/api/v1/read");
    Server::start(kind, &format!("remote_read:\n- url: {url}\n  read_recent: true\n{more}"))
}

const FLOATS: [&str; 6] = [
    "{__name__=~\"counter_total|gauge|odd|upper\"}[90m]",
    "rate(counter_total[5m])",
    "sum by (l) (increase(counter_total{l!=\"x\"}[10m]))",
    "gauge",
    "changes(gauge[20m]) + on () group_left () count(odd)",
    "upper offset 3m",
];

const NATIVE: [&str; 5] = [
    "{__name__=~\"native|custom\"}[90m]",
    "histogram_count(rate(native[5m]))",
    "histogram_quantile(0.8, increase(native[40m]))",
    "resets(native[80m])",
    "histogram_sum(custom)",
];

/// Compares what the reader computes with what Tributary does, raw samples and series of a range.
fn compare(ours: &Http, reader: &Http, queries: &[&str], base: i64, external: &[(&str, &str)]) {
    let end = base + STEPS * INTERVAL_MS;
    for query in queries {
        // Off the samples, since 2.42 takes the left edge of a range and 3.x does not.
        let at = end + 1_234;
        let mut want = vec![promql::instant(ours, query, at)];
        let mut got = vec![promql::instant(reader, query, at)];
        if !query.ends_with(']') {
            want.push(promql::range(ours, query, base + 600_777, at, 61_000));
            got.push(promql::range(reader, query, base + 600_777, at, 61_000));
        }
        for (got, mut want) in got.into_iter().zip(want) {
            assert!(!want.series.is_empty(), "{query}: something is found");
            // An aggregation drops the external labels again.
            if !query.starts_with("sum") {
                for series in &mut want.series {
                    let external = external.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
                    series.labels.extend(external);
                }
            }
            let differences = promql::differences(&got, &want);
            assert!(differences.is_empty(), "{query}:\n{}", differences.join("\n"));
        }
    }
}

#[test]
fn prometheus_2_reads_samples() {
    let server = Server::start(Kind::Tributary, "");
    let base = fill(&server);
    let reader = start_reader(Kind::Prometheus, &server, "");
    compare(&server.http(), &reader.http(), &FLOATS, base, &[]);
}

#[test]
fn prometheus_3_reads_chunks_from_heads_and_files() {
    let server = Server::start(Kind::Tributary, "global: {external_labels: {site: eu, zone: none}}\n");
    let base = fill(&server);
    let reader = start_reader(Kind::Prometheus3, &server, "");
    let external = [("site", "eu"), ("zone", "none")];
    let all: Vec<&str> = FLOATS.into_iter().chain(NATIVE).collect();
    compare(&server.http(), &reader.http(), &all, base, &external);
    server.flush();
    compare(&server.http(), &reader.http(), &all, base, &external);

    // The external labels can be asked for, and their other values find nothing.
    let at = base + STEPS * INTERVAL_MS + 1;
    let count = |query: &str| promql::single(&reader.http(), query, at);
    assert_eq!(count("count(counter_total{site=\"eu\"})"), Some(2.0));
    assert_eq!(count("count(counter_total{site=\"us\"})"), None);
    // The reader's other requests: names of series, and their hints.
    let (start, end) = (promql::seconds(base), promql::seconds(at));
    let form = [("match[]", "gauge"), ("start", start.as_str()), ("end", end.as_str())];
    let series = reader.http().get("/api/v1/series", &form).data();
    assert_eq!(series.as_array().map(Vec::len), Some(2), "{series}");
}

#[test]
fn prometheus_reads_for_its_own_external_labels() {
    // A server that reads asks for its own external labels too.
    let labels = "global: {external_labels: {site: eu}}\n";
    let server = Server::start(Kind::Tributary, labels);
    let base = fill(&server);
    let reader = start_reader(Kind::Prometheus3, &server, labels);
    compare(&server.http(), &reader.http(), &FLOATS[..4], base, &[]);
}

#[test]
fn bad_reads_are_refused_in_words() {
    let server = Server::start(Kind::Tributary, "");
    let read = |message: &[u8]| {
        let body = remote_protocol::compress(message).expect("small");
        server.http().try_post("/api/v1/read", &[("Content-Encoding", "snappy")], &body).expect("an answer")
    };
    // Accepted response types: 7 alone.
    let unknown = read(&[0x12, 0x01, 0x07]);
    assert_eq!(unknown.status, 400);
    assert!(
        unknown.body.contains("does not support any of the requested response types"),
        "{}",
        unknown.body
    );
    let nothing = read(&[]);
    assert_eq!((nothing.status, nothing.content_type.as_str()), (200, "application/x-protobuf"));
    assert_eq!(nothing.header("content-encoding"), Some("snappy"));
    assert_eq!(server.http().get("/api/v1/read", &[]).status, 405);
}
