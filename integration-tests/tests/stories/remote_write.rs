//! Remote write 1.0 and 2.0: Prometheus sends both, and version 2.0 is answered as Prometheus answers it.

use integration_tests::{
    Fixture, Http, Kind, Reply, Server, eventually, now_ms, promql, write, write_body, write_v2,
};
use model::{
    CounterResetHint, Exemplar, Histogram, IntegerHistogram, Labels, Metadata, MetricType, Span, Timestamp,
    stale_nan,
};
use remote_protocol::{SeriesOut, Version};

use crate::pair::{self, family, serve_step, wait_for_step};

/// Scrapes that the sender makes.
const STEPS: usize = 4;

/// A histogram that has seen `n` rounds of observations.
fn histogram(n: u64) -> Histogram {
    let deltas = vec![n.cast_signed(), n.cast_signed()];
    Histogram::Integer(IntegerHistogram {
        counter_reset_hint: CounterResetHint::Unknown,
        schema: 2,
        zero_threshold: 0.001,
        zero_count: n,
        count: 4 * n,
        sum: n as f64 * 2.5,
        positive_spans: vec![Span { offset: 1, length: 2 }],
        positive_deltas: deltas,
        ..IntegerHistogram::default()
    })
}

fn labels(name: &str) -> Labels {
    Labels::from_pairs([("__name__", name), ("instance", "i"), ("job", "pushed")])
}

fn floats(name: &str, samples: &[(i64, f64)]) -> SeriesOut {
    let floats = samples.iter().map(|(t, x)| (Timestamp(*t), *x)).collect();
    SeriesOut { labels: labels(name), floats, ..SeriesOut::default() }
}

fn exemplar(t: i64, value: f64) -> Exemplar {
    Exemplar { labels: Labels::from_pairs([("trace_id", "4bf92f35")]), value, timestamp: Some(Timestamp(t)) }
}

/// A Prometheus that scrapes a fixture, is written to, and passes everything on.
fn forwards(sender: Kind, message: &str) {
    let tributary = Server::start(Kind::Tributary, "storage: {tsdb: {out_of_order_time_window: 0s}}\n");
    let fixture = Fixture::start();
    let remote = format!(
        "remote_write:\n- url: {}\n  send_exemplars: true\n  send_native_histograms: true\n  queue_config: {{batch_send_deadline: 100ms}}\n{message}",
        tributary.http().url("/api/v1/write")
    );
    let config = pair::config("fixture", &fixture.address(), pair::PATH, &remote);
    let sender = Server::start(sender, &config);
    // What is older than its start is not sent.
    let mut at = now_ms();
    let first = at;
    for step in 0..STEPS {
        at = now_ms().max(at + 1);
        let mut body = String::new();
        let counters = [("a", step as f64 * 3.5), ("b", step as f64)];
        let counters = counters.map(|(l, x)| (format!("sent_total{{l=\"{l}\",odd=\"\\\"x\\\\\"}}"), x));
        family(&mut body, "sent_total", "counter", at, &counters);
        let odd = [("nan", f64::NAN), ("inf", f64::NEG_INFINITY), ("zero", -0.0), ("small", 5e-324)];
        let odd = odd.map(|(kind, x)| (format!("odd{{kind=\"{kind}\"}}"), x));
        family(&mut body, "odd", "gauge", at, &odd);
        serve_step(&fixture, pair::PATH, step, at, &body);
        wait_for_step(&sender, "fixture", step, at);
    }
    let t = now_ms();
    let pushed = [
        SeriesOut { exemplars: vec![exemplar(t, 7.0)], ..floats("pushed_total", &[(t, 1.0)]) },
        floats("ended", &[(t, 1.0), (t + 1, stale_nan())]),
        SeriesOut {
            labels: labels("pushed_histogram"),
            histograms: (1..4).map(|n| (Timestamp(t + n), histogram(n.cast_unsigned()))).collect(),
            ..SeriesOut::default()
        },
    ];
    let reply = write(&sender.http(), &pushed).expect("an answer");
    assert_eq!(reply.status, 204, "{}", reply.body);

    let (got, want) = (tributary.http(), sender.http());
    let end = t + 10;
    let range = (end - first) / 1000 + 2;
    for query in [
        format!("{{job=\"fixture\",__name__=~\"sent_total|odd|fixture_step\"}}[{range}s]"),
        format!("{{job=\"pushed\"}}[{range}s]"),
        "histogram_count(pushed_histogram) / histogram_sum(pushed_histogram)".to_owned(),
        "count_values(\"x\", {job=\"pushed\",__name__!=\"pushed_histogram\"})".to_owned(),
    ] {
        let wanted = promql::instant(&want, &query, end);
        assert!(!wanted.series.is_empty(), "{query}: the sender has it");
        eventually(&format!("{query} is the same"), || {
            let found = promql::differences(&promql::instant(&got, &query, end), &wanted);
            found.is_empty().then_some(())
        });
    }
    let exemplars =
        |http: &Http| http.get("/api/v1/query_exemplars", &[("query", "rate(pushed_total[5m])")]).data();
    let wanted = exemplars(&want);
    assert_eq!(wanted[0]["exemplars"][0]["value"], "7", "{wanted}");
    eventually("the exemplar is the same", || (exemplars(&got) == wanted).then_some(()));
}

#[test]
fn prometheus_2_sends_version_1() {
    forwards(Kind::Prometheus, "");
}

#[test]
fn prometheus_3_sends_version_2() {
    forwards(Kind::Prometheus3, "  protobuf_message: io.prometheus.write.v2.Request\n");
}

/// Status and written counts.
fn answer(reply: &Reply) -> (u16, Vec<String>) {
    let names = ["samples", "histograms", "exemplars"];
    let counts = names.map(|sort| {
        let name = format!("x-prometheus-remote-write-{sort}-written");
        reply.header(&name).unwrap_or("absent").to_owned()
    });
    (reply.status, counts.into())
}

#[test]
fn version_2_is_answered_as_prometheus_answers_it() {
    let config = "storage: {tsdb: {out_of_order_time_window: 0s}}\n";
    let (tributary, prometheus) =
        (Server::start(Kind::Tributary, config), Server::start(Kind::Prometheus3, config));
    let t = now_ms() - 20_000;
    let native = |name: &str, samples: &[(i64, Histogram)]| SeriesOut {
        labels: labels(name),
        histograms: samples.iter().map(|(t, h)| (Timestamp(*t), h.clone())).collect(),
        ..SeriesOut::default()
    };
    let broken = match histogram(1) {
        Histogram::Integer(h) => Histogram::Integer(IntegerHistogram { count: 99, ..h }),
        other @ Histogram::Float(_) => other,
    };
    let nameless = SeriesOut { labels: Labels::from_pairs([("job", "pushed")]), ..floats("x", &[(t, 1.0)]) };
    let metadata =
        Metadata { kind: MetricType::Counter, unit: "seconds".into(), help: "Of the story.".into() };
    let requests: [(&str, Vec<SeriesOut>); 7] = [
        (
            "everything is good",
            vec![
                SeriesOut {
                    exemplars: vec![exemplar(t, 3.0)],
                    metadata: Some(metadata),
                    ..floats("first_total", &[(t, 1.0), (t + 1_000, 2.0)])
                },
                native("first_histogram", &[(t, histogram(1)), (t + 1_000, histogram(2))]),
            ],
        ),
        ("no name", vec![nameless, floats("second", &[(t, 1.0)])]),
        (
            "out of order",
            vec![floats("first_total", &[(t + 500, 1.0), (t + 2_000, 3.0)]), floats("third", &[(t, 1.0)])],
        ),
        (
            "another value",
            vec![floats("first_total", &[(t + 2_000, 4.0)]), floats("third", &[(t + 1_000, 1.0)])],
        ),
        ("the same value", vec![floats("first_total", &[(t + 2_000, 3.0)])]),
        ("far ahead", vec![floats("first_total", &[(t + 3_600_000, 4.0)]), floats("fourth", &[(t, 1.0)])]),
        ("nothing", Vec::new()),
    ];
    for (what, request) in &requests {
        let [got, want] = [&tributary, &prometheus].map(|s| write_v2(&s.http(), request).expect("an answer"));
        assert_eq!(answer(&got), answer(&want), "{what}: {:?}, not {:?}", got.body, want.body);
    }
    let [got, want] = [&tributary, &prometheus]
        .map(|s| promql::instant(&s.http(), "{job=\"pushed\",__name__!=\"\"}[5m]", t + 10_000));
    assert!(want.series.len() >= 5, "{want:?}");
    assert_eq!(promql::differences(&got, &want), Vec::<String>::new());

    // What is no message is refused, and nothing is claimed.
    for (version, body) in [(Version::V2, &b"x"[..]), (Version::V1, b"x")] {
        let reply = write_body(&tributary.http(), version, body).expect("an answer");
        let counts = if version == Version::V2 { "0" } else { "absent" };
        assert_eq!(answer(&reply), (400, vec![counts.to_owned(); 3]), "{}", reply.body);
    }
    let text = write_v2(&tributary.http(), &requests[2].1).expect("an answer").body;
    assert!(text.contains("out of order sample"), "{text}");
    // 3.5 takes a broken histogram for a failure of its own, and passes over a series without samples; 3.14 does not.
    let broken = native("first_histogram", &[(t + 2_000, broken), (t + 3_000, histogram(4))]);
    let reply = write_v2(&tributary.http(), &[broken]).expect("an answer");
    assert_eq!(answer(&reply), (400, ["0", "1", "0"].map(str::to_owned).into()));
    assert!(
        reply.body.contains("4 observations found in buckets, but the Count field is 99"),
        "{}",
        reply.body
    );
    let reply = write_v2(&tributary.http(), &[floats("fifth", &[]), floats("sixth", &[(t, 1.0)])])
        .expect("an answer");
    assert_eq!(answer(&reply), (400, ["1", "0", "0"].map(str::to_owned).into()));
    let text = reply.body;
    assert!(text.contains("TimeSeries must contain at least one sample or histogram for series"), "{text}");
}
