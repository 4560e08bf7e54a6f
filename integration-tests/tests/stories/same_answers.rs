//! The same samples give the same answers as Prometheus: as 3.5 in everything, as 2.42 where 3.x answers as it does.
//!
//! Known differences between 2.42 and 3.x, which the fixture and the queries that 2.42 is asked keep clear of:
//! - a range and the lookback include their left edge in 2.42: nothing is evaluated where a sample lies on an edge;
//! - 3.x writes `le` and `quantile` as canonical floats (`1.0`) when it scrapes: the fixture writes them so;
//! - where a counter begins or is reset close to the start of a range, 3.x extrapolates it less far than 2.42: rates
//!   are asked for where the range is full;
//! - averages are summed up differently: none is asked for that is zero but for rounding;
//! - quantiles inside a native histogram's bucket are interpolated linearly in 2.42, exponentially in 3.x: not asked;
//! - `holt_winters` has another name in 3.x: not asked.

use std::process::Command;

use integration_tests::{Child, Kind, Server, eventually, node_exporter, now_ms, promql, write};
use model::{CounterResetHint, Histogram, IntegerHistogram, Labels, Span, Timestamp, stale_nan};
use remote_protocol::SeriesOut;

use crate::pair::{self, Pair, family};

/// Between two samples.
const INTERVAL_MS: i64 = 15_000;
/// How many samples a series that never vanishes has.
const STEPS: usize = 80;
/// How far back the first sample lies. More than the samples span; less than the hour that 2.42 looks back.
const BACK_MS: i64 = 25 * 60_000;
/// The longest range of the queries.
const LONGEST_RANGE_MS: i64 = 10 * 60_000;
/// Step of the range queries: no multiple of the interval.
const RANGE_STEP_MS: i64 = 37_000;

const QUERIES: [&str; 52] = [
    "http_requests_total",
    "rate(http_requests_total[2m])",
    "increase(http_requests_total[5m])",
    "irate(http_requests_total[1m])",
    "delta(temperature_celsius[3m])",
    "idelta(temperature_celsius[1m])",
    "sum by (method) (rate(http_requests_total[3m]))",
    "sum without (path) (http_requests_total)",
    "topk(3, http_requests_total)",
    "bottomk by (method) (1, http_requests_total)",
    "quantile(0.9, temperature_celsius)",
    "stddev(temperature_celsius)",
    "stdvar by (floor) (temperature_celsius)",
    "avg(temperature_celsius + 10)",
    "group by (room) (temperature_celsius)",
    "count_values(\"whole\", round(temperature_celsius))",
    "histogram_quantile(0.95, sum by (le) (rate(request_seconds_bucket[5m])))",
    "histogram_quantile(0.5, rate(request_seconds_bucket[5m]))",
    "request_seconds_sum / request_seconds_count",
    "rpc_seconds{quantile=\"0.99\"}",
    "avg_over_time(temperature_celsius[4m])",
    "stddev_over_time(temperature_celsius[4m])",
    "quantile_over_time(0.3, temperature_celsius[6m])",
    "max_over_time(temperature_celsius[10m]) - min_over_time(temperature_celsius[10m])",
    "deriv(temperature_celsius[5m])",
    "predict_linear(temperature_celsius[5m], 600)",
    "resets(http_requests_total[10m])",
    "changes(flapping[10m])",
    "flapping",
    "timestamp(flapping)",
    "last_over_time(flapping[20m])",
    "present_over_time(flapping[2m])",
    "absent(flapping{id=\"2\"})",
    "absent_over_time(flapping{id=\"1\"}[1m])",
    "odd_values",
    "odd_values != odd_values",
    "sum by (kind) (odd_values)",
    "http_requests_total offset 3m",
    "rate(http_requests_total[1m] offset -1m)",
    "max_over_time(rate(http_requests_total[1m])[5m:30s])",
    "http_requests_total @ end() - http_requests_total",
    "temperature_celsius > 2 and on (room) room_info{floor=\"1\"}",
    "temperature_celsius unless on (room) room_info{floor=\"1\"}",
    "temperature_celsius * on (room) group_left (floor) room_info",
    "clamp(temperature_celsius, -1, 4) ^ 2 % 3",
    "label_replace(temperature_celsius, \"number\", \"$1\", \"room\", \"r(.*)\")",
    "scalar(sum(temperature_celsius)) + vector(time())",
    "pushed_gauge",
    "count_over_time(pushed_gauge[3m])",
    "pushed_histogram",
    "histogram_count(rate(pushed_histogram[3m]))",
    "histogram_sum(increase(pushed_histogram[4m]))",
];

/// What 2.42 answers otherwise, or knows by another name.
const QUERIES_OF_3: [&str; 8] = [
    "rate(http_requests_total[30s])",
    "count_over_time(temperature_celsius[1m])",
    "avg(odd_values{kind!~\"nan|inf\"})",
    "avg_over_time(odd_values{kind=\"large\"}[10m])",
    "histogram_quantile(0.9, pushed_histogram)",
    "histogram_fraction(0, 2, rate(pushed_histogram[3m]))",
    "histogram_avg(pushed_histogram)",
    "quantile_over_time(0.5, temperature_celsius[2m:15s])",
];

#[test]
fn fifty_queries_agree_with_prometheus_2() {
    // A millisecond off the samples.
    agree(&Pair::start(Kind::Prometheus), &QUERIES, 1, LONGEST_RANGE_MS);
}

#[test]
fn sixty_queries_agree_with_prometheus_3() {
    agree(&Pair::start(Kind::Prometheus3), &[&QUERIES[..], &QUERIES_OF_3[..]].concat(), 0, 0);
}

/// Asks both servers, at times `off_ms` after those of samples; about rates from `full_ms` after the first sample on.
fn agree(pair: &Pair, queries: &[&str], off_ms: i64, full_ms: i64) {
    let base = pair::base_ms(BACK_MS);
    push(pair, base);
    for step in 0..STEPS {
        let at = time(base, step);
        pair.step(step, at, &body(step, at));
    }
    let (ours, theirs) = (pair.tributary.http(), pair.prometheus.http());
    let end = time(base, STEPS - 1) + off_ms;
    let mut faults = Vec::new();
    let mut compare = |query: &str, how: &str, got: &promql::Answer, want: &promql::Answer| {
        assert!(
            !want.series.is_empty() || how != "range",
            "{query} is worth asking: Prometheus has an answer"
        );
        let found = promql::differences(got, want);
        faults.extend(found.into_iter().take(3).map(|text| format!("{query} ({how}): {text}")));
    };
    for query in queries {
        let is_rate = ["rate(", "increase("].iter().any(|name| query.contains(name));
        let start = base + off_ms + if is_rate { full_ms } else { 0 };
        let ask = |server| promql::range(server, query, start, end, RANGE_STEP_MS);
        compare(query, "range", &ask(&ours), &ask(&theirs));
        for at in [end, time(base, STEPS / 2) + off_ms, time(base, STEPS / 3) + 7_501] {
            let ask = |server| promql::instant(server, query, at);
            compare(query, &format!("at {at}"), &ask(&ours), &ask(&theirs));
        }
    }
    // Every sample as it is stored.
    for name in
        ["http_requests_total", "flapping", "odd_values", "request_seconds_bucket", "pushed_histogram"]
    {
        let query = format!("{name}[25m]");
        let ask = |server| promql::instant(server, &query, end);
        compare(&query, "raw", &ask(&ours), &ask(&theirs));
    }
    assert!(faults.is_empty(), "{} differences:\n{}", faults.len(), faults.join("\n"));

    let (start, end) = (promql::seconds(base), promql::seconds(end));
    let window = [("start", start.as_str()), ("end", end.as_str())];
    for (path, more) in [
        ("/api/v1/series", ("match[]", "{job=\"fixture\",__name__=~\"http.*|flapping\"}")),
        ("/api/v1/labels", ("match[]", "{__name__=~\"http.*|request.*\"}")),
        ("/api/v1/label/le/values", ("match[]", "request_seconds_bucket")),
        ("/api/v1/label/room/values", ("match[]", "{job=\"fixture\"}")),
    ] {
        let form = [window[0], window[1], more];
        let ask = |server: &Server| {
            let mut list = server.http().get(path, &form).data().as_array().cloned().unwrap_or_default();
            list.sort_by_key(ToString::to_string);
            list
        };
        let want = ask(&pair.prometheus);
        assert!(!want.is_empty(), "{path}");
        assert_eq!(ask(&pair.tributary), want, "{path}");
    }
}

#[test]
fn a_live_node_exporter_is_scraped() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // node_exporter says which port it took.
    let log = folder.path().join("log");
    let mut command = Command::new(node_exporter());
    let mut exporter = Child::spawn("node_exporter", command.arg("--web.listen-address=127.0.0.1:0"), &log);
    let port = exporter.wait_for("says where it listens", || {
        let output = exporter_log(&log);
        let rest = output.split("address=127.0.0.1:").nth(1)?;
        rest.split(|c: char| !c.is_ascii_digit()).next().map(str::to_owned)
    });
    let target = format!("127.0.0.1:{port}");
    let tributary = Server::start(Kind::Tributary, &slow(&pair::config("node", &target, "/metrics", "")));
    let http = tributary.http();
    eventually("the target is up", || {
        promql::single(&http, "up{job=\"node\"}", now_ms()).filter(|up| *up == 1.0)
    });
    for (query, least) in [
        ("count(node_cpu_seconds_total{mode=\"idle\"})", 1.0),
        ("node_memory_MemTotal_bytes", 1e6),
        ("node_time_seconds", 1.6e9),
        ("count({job=\"node\"})", 200.0),
    ] {
        // A scrape that runs out of its time on a busy machine ends the series until the next one.
        eventually(&format!("{query} is at least {least}"), || {
            promql::single(&http, query, now_ms()).filter(|value| *value >= least)
        });
    }
    eventually("the target is shown as up", || {
        let targets = http.get("/api/v1/targets", &[]).data();
        let target = &targets["activeTargets"][0];
        (target["health"] == "up" && target["lastError"] == "").then_some(())
    });
}

fn exporter_log(path: &std::path::Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// A real exporter takes its time.
fn slow(config: &str) -> String {
    config
        .replace("scrape_interval: 200ms", "scrape_interval: 2s")
        .replace("scrape_timeout: 200ms", "scrape_timeout: 2s")
}

fn time(base: i64, step: usize) -> i64 {
    base + INTERVAL_MS * i64::try_from(step).expect("a handful of steps")
}

/// What the fixture serves at a step: counters that reset, gauges, a histogram, a summary, series that come and go.
fn body(step: usize, at: i64) -> String {
    let mut body = String::new();
    let pairs: Vec<_> =
        ["GET", "POST"].iter().flat_map(|m| ["/", "/api", "/\\\"x\\\\"].map(|p| (*m, p))).collect();
    let counters = pairs.iter().enumerate().map(|(i, (method, path))| {
        let since_reset = (step + i) % (17 + 6 * i);
        let name = format!("http_requests_total{{method=\"{method}\",path=\"{path}\"}}");
        (name, since_reset as f64 * (i as f64 + 1.25))
    });
    family(&mut body, "http_requests_total", "counter", at, &counters.collect::<Vec<_>>());
    let rooms = (0..5).map(|i| (format!("temperature_celsius{{room=\"r{i}\"}}"), wave(step, i)));
    family(&mut body, "temperature_celsius", "gauge", at, &rooms.collect::<Vec<_>>());
    let info = (0..4).map(|i| (format!("room_info{{room=\"r{i}\",floor=\"{}\"}}", i % 2), 1.0));
    family(&mut body, "room_info", "gauge", at, &info.collect::<Vec<_>>());

    let observed = step as f64 * 4.0;
    let buckets = [("0.1", 0.25), ("0.5", 0.5), ("1.0", 0.625), ("5.0", 0.875), ("+Inf", 1.0)];
    let mut histogram: Vec<_> = buckets
        .iter()
        .map(|(le, share)| (format!("request_seconds_bucket{{le=\"{le}\"}}"), (observed * share).floor()))
        .collect();
    histogram.push(("request_seconds_sum".to_owned(), observed * 0.7));
    histogram.push(("request_seconds_count".to_owned(), observed));
    family(&mut body, "request_seconds", "histogram", at, &histogram);
    let summary =
        ["0.5", "0.99"].iter().map(|q| (format!("rpc_seconds{{quantile=\"{q}\"}}"), wave(step, q.len())));
    family(&mut body, "rpc_seconds", "summary", at, &summary.collect::<Vec<_>>());

    // Gone for 1, 2 and 6 minutes; the last is longer than the lookback.
    let flapping = [4, 8, 24].iter().enumerate().filter(|(_, period)| (step / **period).is_multiple_of(2));
    let flapping = flapping.map(|(i, _)| (format!("flapping{{id=\"{i}\"}}"), (step * (i + 1) / 3) as f64));
    family(&mut body, "flapping", "gauge", at, &flapping.collect::<Vec<_>>());
    let odd = [
        ("nan", if step.is_multiple_of(3) { f64::NAN } else { 1.0 }),
        ("inf", if step.is_multiple_of(4) { f64::INFINITY } else { -2.5 }),
        ("large", 1.797e308 / (step as f64 + 1.0)),
        ("small", 5e-324 * (step as f64)),
        ("precise", 0.1 + step as f64),
    ];
    let odd = odd.map(|(kind, value)| (format!("odd_values{{kind=\"{kind}\"}}"), value));
    family(&mut body, "odd_values", "gauge", at, &odd);
    body
}

fn wave(step: usize, i: usize) -> f64 {
    (step * (i + 3) * 37 % 101) as f64 / 10.0 - 3.0
}

/// Sends what a scrape with timestamps cannot bring: staleness markers and native histograms.
fn push(pair: &Pair, base: i64) {
    let at = |step| Timestamp(time(base, step));
    let gauge = |id: &str, gone: std::ops::Range<usize>| SeriesOut {
        labels: Labels::from_pairs([("__name__", "pushed_gauge"), ("job", "push"), ("id", id)]),
        floats: (0..STEPS)
            .filter(|step| *step == gone.start || !gone.contains(step))
            .map(|step| (at(step), if step == gone.start { stale_nan() } else { wave(step, id.len()) }))
            .collect(),
        ..SeriesOut::default()
    };
    let histogram = SeriesOut {
        labels: Labels::from_pairs([("__name__", "pushed_histogram"), ("job", "push"), ("instance", "a")]),
        histograms: (0..STEPS).map(|step| (at(step), native(step % 30))).collect(),
        ..SeriesOut::default()
    };
    let series = [gauge("a", 10..14), gauge("bb", 30..31), gauge("ccc", 70..STEPS), histogram];
    for server in [&pair.prometheus, &pair.tributary] {
        let reply = write(&server.http(), &series).expect("an answer");
        assert_eq!(reply.status, 204, "{:?}: {}", server.kind(), reply.body);
    }
}

/// A histogram that has seen `n` rounds of observations; fewer than before is a reset.
fn native(n: usize) -> Histogram {
    let n = u64::try_from(n).expect("small") + 1;
    let populations = [n.cast_signed(), 2 * n.cast_signed(), n.cast_signed(), 3 * n.cast_signed()];
    let mut deltas = populations.to_vec();
    for i in (1..deltas.len()).rev() {
        deltas[i] -= populations[i - 1];
    }
    Histogram::Integer(IntegerHistogram {
        counter_reset_hint: CounterResetHint::Unknown,
        schema: 1,
        zero_threshold: 0.001,
        zero_count: n,
        count: 8 * n,
        sum: n as f64 * 18.4,
        positive_spans: vec![Span { offset: -1, length: 2 }, Span { offset: 3, length: 2 }],
        positive_deltas: deltas,
        ..IntegerHistogram::default()
    })
}
