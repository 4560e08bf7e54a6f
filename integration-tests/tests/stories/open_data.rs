//! The data is open: with the server stopped, DuckDB and deltalake read every sample, bit for bit, that came in, whatever
//! way, and that PromQL returned before from memory, from fresh files and from compacted ones.

mod ways;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use integration_tests::{Fixture, Http, Kind, Server, eventually, now_ms, promql, write};
use model::histogram::CUSTOM_BUCKETS_SCHEMA;
use model::number::parse_float;
use model::{
    CounterResetHint, FloatHistogram, Histogram, IntegerHistogram, Labels, Span, Timestamp, stale_nan,
};
use remote_protocol::SeriesOut;
use serde_json::{Value, json};

use crate::ledger::{self, Floats};

const STEPS: i64 = 40;
const INTERVAL_MS: i64 = 15_000;
/// How far back the first sample lies; the last lies further back than what a start loads into memory.
const BACK_MS: i64 = 90 * 60_000;
/// What is scraped as it changes, with the times of the scrapes.
const SERVED: [&str; 5] = ["1", "-0", "+Inf", "NaN", "0.1"];
/// What rules record.
const RULES: [(&str, &str, f64); 3] = [
    ("moved_zero", "vector(-0)", -0.0),
    ("moved_infinity", "vector(-Inf)", f64::NEG_INFINITY),
    ("moved_fraction", "vector(1) / 3", 1.0 / 3.0),
];
/// What is scraped or recorded until now does not come any later.
const LATE_MS: i64 = 5_000;

#[test]
fn foreign_readers_see_every_bit() {
    let base = now_ms() - BACK_MS;
    let (floats, histograms) = (float_series(base), histogram_series(base));
    let target = Fixture::start();
    let past = ways::as_text("scrape", &floats);
    target.serve("/past", ways::exposition(&past));
    let mut server = Server::stopped(Kind::Tributary, &config(&target));
    fs::write(server.folder().join("rules.yml"), rules()).expect("written");
    let mut written = ways::import(&server, &floats);
    server.start_again();
    written.extend(ways::remote_write(&server.http(), &floats));
    let bare = SeriesOut {
        labels: labels("bare", &[]),
        floats: vec![(Timestamp(base), 1.0)],
        ..SeriesOut::default()
    };
    assert_eq!(write(&server.http(), std::slice::from_ref(&bare)).expect("an answer").status, 204);
    written.push(bare);
    server.flush();
    written.extend(ways::remote_write(&server.http(), &histograms));
    written.extend(ways::otlp(&server, &floats, base, STEPS));
    written.extend(past);
    let until = change(&target, &server.http());
    eventually("what has its own times is scraped", || {
        let query = "sum(count_over_time(opened{way='scrape'}[20m]))";
        let count = promql::single(&server.http(), query, base + 15 * 60_000)?;
        (count == (floats.len() as i64 * STEPS) as f64).then_some(())
    });
    compare_with_promql(&server.http(), &written, base);
    let moved = moved(&server.http(), until);
    check_moved(&moved);
    server.flush();
    compare_with_promql(&server.http(), &written, base);
    assert_eq!(self::moved(&server.http(), until), moved);
    // From the files alone: a start loads no more than the window and the lookback into memory.
    server.stop();
    server.write_config("");
    server.start_again();
    compare_with_promql(&server.http(), &written, base);
    let reply = server.http().post_form("/api/v1/admin/tsdb/compact", &[]);
    assert!(reply.status == 200 && reply.data()["compactions"].as_u64() > Some(0), "{}", reply.body);
    compare_with_promql(&server.http(), &written, base);
    assert_eq!(self::moved(&server.http(), until), moved);
    server.stop();

    let table = ledger::read_table(&server);
    let key =
        |series: &SeriesOut, t: Timestamp| ("default".to_owned(), ledger::json(&series.labels), t.millis());
    let want: Floats = written
        .iter()
        .flat_map(|s| s.floats.iter().map(move |(t, value)| (key(s, *t), bits(*value))))
        .collect();
    let is_opened =
        |(_, labels, _): &ledger::Key| labels.contains(r#""__name__":"opened"#) || labels.contains("bare");
    let (opened, others): (Floats, Floats) = table.floats.into_iter().partition(|(key, _)| is_opened(key));
    assert_eq!(ledger::differences(&opened, &want), Vec::<String>::new());
    let histograms: BTreeMap<_, _> = written
        .iter()
        .flat_map(|s| s.histograms.iter().map(move |(t, h)| (key(s, *t), columns(h))))
        .collect();
    assert_eq!(ledger::differences(&table.histograms, &histograms), Vec::<String>::new());
    // A scrape that runs out of its time on a busy machine ends what was scraped as well, until the next one.
    let is_up = |labels: &str| labels.contains(r#""__name__":"up""#) && labels.contains(r#""job":"now""#);
    let failed = others.iter().filter(|((_, labels, _), bits)| is_up(labels) && **bits == Some(0));
    let failures: Vec<i64> = failed.map(|((_, _, t), _)| *t).collect();
    let is_moved = |(_, labels, t): &ledger::Key| labels.contains(r#""__name__":"moved"#) && *t <= until;
    let others: Floats = others.into_iter().filter(|(key, _)| is_moved(key)).collect();
    let last = others.iter().rfind(|((_, labels, _), _)| labels.contains("moved_ends"));
    assert!(last.is_some_and(|(_, bits)| bits.is_none()), "{last:?}");
    let mut ends = others.iter().filter(|(_, bits)| bits.is_none()).map(|(key, _)| key);
    let unexplained = ends.find(|key| Some(*key) != last.map(|(key, _)| key) && !failures.contains(&key.2));
    assert_eq!(unexplained, None, "scrapes failed at {failures:?}");
    let others: Floats = others.into_iter().filter(|(_, bits)| bits.is_some()).collect();
    assert_eq!(ledger::differences(&others, &moved), Vec::<String>::new());
}

fn config(target: &Fixture) -> String {
    let address = target.address();
    format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}
storage: {{tsdb: {{out_of_order_time_window: 3h}}}}
rule_files: [rules.yml]
scrape_configs:
- {{job_name: past, honor_labels: true, metrics_path: /past, static_configs: [{{targets: ['{address}']}}]}}
- {{job_name: now, metrics_path: /now, static_configs: [{{targets: ['{address}']}}]}}
"
    )
}

fn rules() -> String {
    let rules = RULES.map(|(name, expression, _)| format!("  - {{record: {name}, expr: {expression}}}\n"));
    format!("groups:\n- name: moved\n  rules:\n{}", rules.concat())
}

/// Serves one value after the other; another series ends with the last. Returns until when nothing more comes.
fn change(target: &Fixture, http: &Http) -> i64 {
    for value in SERVED {
        target.serve("/now", format!("moved {value}\nmoved_ends {value}\n"));
        eventually("the value is scraped", || {
            let answer = promql::instant(http, "moved", now_ms());
            let found = answer.series.first()?.floats.first()?.1;
            (found.to_bits() == parse_float(value).expect("a number").to_bits()).then_some(())
        });
    }
    target.serve("/now", "moved 0.1\n");
    // A scrape that runs out of its time ends both for as long as that.
    eventually("a series ends", || promql::single(http, "moved unless on (job) moved_ends", now_ms()));
    eventually("every rule was evaluated", || {
        (promql::single(http, "count({__name__=~'moved_.+'})", now_ms())? == RULES.len() as f64).then_some(())
    });
    let until = now_ms();
    eventually("what is under way has come", || {
        let now = now_ms();
        let newer =
            format!("count(last_over_time({{__name__=~'moved|moved_.+'}}[{}ms]))", (now - until).max(1));
        let is_over = promql::single(http, &newer, now) == Some((RULES.len() + 1) as f64);
        (is_over && now > until + LATE_MS).then_some(())
    });
    until
}

/// What PromQL finds of what was scraped and recorded with times of its own.
fn moved(http: &Http, until: i64) -> Floats {
    let answer = promql::instant(http, "{__name__=~'moved.*'}[20m]", until);
    let mut found = Floats::new();
    for series in &answer.series {
        let labels = serde_json::to_string(&series.labels).expect("strings");
        let key = |t: i64| ("default".to_owned(), labels.clone(), t);
        found.extend(series.floats.iter().map(|(t, x)| (key(*t), Some(x.to_bits()))));
    }
    found
}

fn check_moved(found: &Floats) {
    let values = |name: &str| {
        let name = format!(r#""__name__":"{name}""#);
        let mut values: Vec<Option<u64>> =
            found.iter().filter(|((_, l, _), _)| l.contains(&name)).map(|(_, bits)| *bits).collect();
        values.dedup();
        values
    };
    let served = SERVED.map(|text| parse_float(text).map(f64::to_bits));
    assert_eq!(values("moved"), served);
    assert_eq!(values("moved_ends"), served);
    for (name, _, value) in RULES {
        assert_eq!(values(name), [Some(value.to_bits())], "{name}");
    }
}

/// Bits of a float; none for a staleness marker, which is null in the table.
pub(crate) fn bits(value: f64) -> Option<u64> {
    (value.to_bits() != stale_nan().to_bits()).then(|| value.to_bits())
}

fn labels(name: &str, more: &[(&str, &str)]) -> Labels {
    Labels::from_pairs([("__name__", name)].iter().chain(more).copied())
}

fn float_series(base: i64) -> Vec<SeriesOut> {
    let specials = [
        0.0,
        -0.0,
        f64::NAN,
        f64::from_bits(0x7ff8_0000_0000_0001),
        f64::from_bits(0xfff8_dead_beef_0001),
        stale_nan(),
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MAX,
        f64::MIN_POSITIVE,
        f64::from_bits(1),
        0.1 + 0.2,
        9_007_199_254_740_993.0,
        -123.456,
    ];
    type Wave = Box<dyn Fn(i64) -> f64>;
    let waves: [(&str, Wave); 6] = [
        ("count", Box::new(|i| (i * i) as f64)),
        ("cents", Box::new(|i| (i * 7 - 100) as f64 / 100.0)),
        ("random", Box::new(|i| f64::from_bits(i.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 2))),
        ("special", Box::new(move |i| specials[usize::try_from(i).expect("positive") % specials.len()])),
        ("zero", Box::new(|i| if i % 2 == 0 { 0.0 } else { -0.0 })),
        ("gaps", Box::new(|i| if i % 5 == 4 { stale_nan() } else { i as f64 })),
    ];
    let mut all = Vec::new();
    for (number, (kind, wave)) in waves.iter().enumerate() {
        for (job, shift) in [("one", 0), ("two", 7)] {
            // Some share their times with others of the job, some have times of their own.
            let own = if number % 2 == 0 { 0 } else { i64::try_from(number).expect("small") };
            all.push(SeriesOut {
                labels: labels(
                    "opened",
                    &[
                        ("job", job),
                        ("instance", "i"),
                        ("kind", kind),
                        ("text", "a \"b\" \\ \n ünï"),
                        ("le", "1.0"),
                    ],
                ),
                floats: (0..STEPS)
                    .map(|i| (Timestamp(base + i * INTERVAL_MS + shift + own), wave(i)))
                    .collect(),
                ..SeriesOut::default()
            });
        }
    }
    all
}

/// Integer and float, exponential and custom buckets, gauge and counter, and one that ends.
fn histogram_series(base: i64) -> Vec<SeriesOut> {
    let integer = |n: i64| {
        Histogram::Integer(IntegerHistogram {
            schema: 3,
            zero_threshold: 1e-128,
            zero_count: n.cast_unsigned(),
            count: (n * 8).cast_unsigned(),
            sum: n as f64 * 0.1,
            positive_spans: vec![Span { offset: -2, length: 2 }, Span { offset: 5, length: 1 }],
            positive_deltas: vec![n, n, -n],
            negative_spans: vec![Span { offset: 1, length: 2 }],
            negative_deltas: vec![2 * n, -n],
            ..IntegerHistogram::default()
        })
    };
    let float = |n: i64| {
        Histogram::Float(FloatHistogram {
            counter_reset_hint: CounterResetHint::Gauge,
            schema: 0,
            zero_threshold: 0.001,
            zero_count: 0.5,
            count: n as f64 + 1.75,
            sum: if n % 7 == 3 { f64::NAN } else { -1.5 * n as f64 },
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![n as f64, 1.25],
            ..FloatHistogram::default()
        })
    };
    let custom = |n: i64| {
        Histogram::Integer(IntegerHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count: (n * 3).cast_unsigned(),
            sum: n as f64,
            positive_spans: vec![Span { offset: 0, length: 3 }],
            positive_deltas: vec![n, 0, 0],
            custom_values: Arc::from([0.1, 2.5]),
            ..IntegerHistogram::default()
        })
    };
    let ended = |n: i64| {
        if n % 10 == 9 {
            Histogram::Integer(IntegerHistogram { sum: stale_nan(), ..IntegerHistogram::default() })
        } else {
            integer(n)
        }
    };
    type Make<'a> = &'a dyn Fn(i64) -> Histogram;
    let kinds: [(&str, Make<'_>); 4] =
        [("integer", &integer), ("float", &float), ("custom", &custom), ("ended", &ended)];
    kinds
        .iter()
        .map(|(kind, make)| SeriesOut {
            labels: labels("opened_seconds", &[("job", "one"), ("instance", "i"), ("kind", kind)]),
            histograms: (1..STEPS).map(|i| (Timestamp(base + i * INTERVAL_MS), make(i))).collect(),
            ..SeriesOut::default()
        })
        .collect()
}

/// A histogram as the table has it: absolute populations, floats as bits, what does not apply as null.
pub(crate) fn columns(histogram: &Histogram) -> Value {
    let hex = |x: f64| json!(format!("{:x}", x.to_bits()));
    let floats = |list: &[f64]| list.iter().map(|x| hex(*x)).collect::<Vec<_>>();
    let spans = |list: &[Span]| {
        list.iter().map(|s| json!({"offset": s.offset, "length": s.length})).collect::<Vec<_>>()
    };
    let absolute = |deltas: &[i64]| -> Vec<i64> {
        deltas
            .iter()
            .scan(0, |sum, delta| {
                *sum += delta;
                Some(*sum)
            })
            .collect()
    };
    let sum = |sum: f64| bits(sum).map(|bits| format!("{bits:x}"));
    let hint = |hint| match hint {
        CounterResetHint::Unknown => "unknown",
        CounterResetHint::Reset => "reset",
        CounterResetHint::NotReset => "not_reset",
        CounterResetHint::Gauge => "gauge",
    };
    match histogram {
        Histogram::Integer(h) => json!({
            "reset_hint": hint(h.counter_reset_hint), "schema": h.schema, "zero_threshold": hex(h.zero_threshold),
            "sum": sum(h.sum), "count": h.count, "zero_count": h.zero_count,
            "positive_counts": absolute(&h.positive_deltas), "negative_counts": absolute(&h.negative_deltas),
            "float_count": null, "float_zero_count": null, "positive_floats": null, "negative_floats": null,
            "positive_spans": spans(&h.positive_spans), "negative_spans": spans(&h.negative_spans),
            "custom_values": floats(&h.custom_values),
        }),
        Histogram::Float(h) => json!({
            "reset_hint": hint(h.counter_reset_hint), "schema": h.schema, "zero_threshold": hex(h.zero_threshold),
            "sum": sum(h.sum), "count": null, "zero_count": null, "positive_counts": null, "negative_counts": null,
            "float_count": hex(h.count), "float_zero_count": hex(h.zero_count),
            "positive_floats": floats(&h.positive_buckets), "negative_floats": floats(&h.negative_buckets),
            "positive_spans": spans(&h.positive_spans), "negative_spans": spans(&h.negative_spans),
            "custom_values": floats(&h.custom_values),
        }),
    }
}

/// PromQL returns what was written: floats bit for bit but for the one NaN that it knows, no staleness markers.
fn compare_with_promql(server: &Http, written: &[SeriesOut], base: i64) {
    let answer = promql::instant(server, "{__name__=~\"opened.*|bare\"}[20m]", base + 15 * 60_000);
    assert_eq!(answer.series.len(), written.len());
    for series in written {
        let labels: BTreeMap<_, _> =
            series.labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        let found =
            answer.series.iter().find(|s| s.labels == labels).unwrap_or_else(|| panic!("no {labels:?}"));
        let printed = |value: f64| if value.is_nan() { None } else { Some(value.to_bits()) };
        let want: Vec<_> = series
            .floats
            .iter()
            .filter(|(_, value)| bits(*value).is_some())
            .map(|(t, value)| (t.millis(), printed(*value)))
            .collect();
        let got: Vec<_> = found.floats.iter().map(|(t, value)| (*t, printed(*value))).collect();
        assert_eq!(got, want, "{labels:?}");
        let want: Vec<_> = series
            .histograms
            .iter()
            .filter(|(_, h)| bits(h.sum()).is_some())
            .map(|(t, h)| (t.millis(), count_and_sum(h)))
            .collect();
        let got: Vec<_> = found
            .histograms
            .iter()
            .map(|(t, h)| (*t, (printed(number(&h["count"])), printed(number(&h["sum"])))))
            .collect();
        let want: Vec<_> = want.into_iter().map(|(t, (c, s))| (t, (printed(c), printed(s)))).collect();
        assert_eq!(got, want, "{labels:?}");
    }
}

fn count_and_sum(histogram: &Histogram) -> (f64, f64) {
    match histogram {
        Histogram::Integer(h) => (h.count as f64, h.sum),
        Histogram::Float(h) => (h.count, h.sum),
    }
}

fn number(value: &Value) -> f64 {
    value.as_str().and_then(parse_float).unwrap_or_else(|| panic!("no number: {value}"))
}
