//! Moving from Prometheus: what it answered before it was stopped, Tributary answers after the import.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use integration_tests::{Kind, Server, now_ms, promql, python, write};
use model::histogram::CUSTOM_BUCKETS_SCHEMA;
use model::{
    CounterResetHint, FloatHistogram, Histogram, IntegerHistogram, Labels, Span, Timestamp, stale_nan,
};
use remote_protocol::SeriesOut;
use serde_json::{Value, json};

use crate::ledger::{self, Floats, Table};
use crate::open_data::{bits, columns};

const INTERVAL_MS: i64 = 15_000;
/// Enough for several chunks of each series, which go to files of the head.
const STEPS: i64 = 400;
/// What each query finds of everything: 2.42 mixes up histograms of several series in one answer.
const EVERYTHING: [&str; 3] = [
    "{__name__=~\".+\",of!=\"floats\",of!=\"custom\"}[3h]",
    "requests{of=\"floats\"}[3h]",
    "requests{of=\"custom\"}[3h]",
];
const CONFIG: &str = "storage:\n  tsdb:\n    out_of_order_time_window: 2h\n";

fn import(directory: &Path, server: &Server, flags: &[&str]) -> Output {
    Command::new(Kind::Tributary.binary())
        .args(["tsdb", "import"])
        .arg(directory)
        .arg(format!("--storage.tsdb.path={}", server.data_folder().display()))
        .args(flags)
        .output()
        .expect("starts")
}

fn assert_success(output: &Output) {
    let texts = [&output.stdout, &output.stderr].map(|t| String::from_utf8_lossy(t).into_owned());
    assert!(output.status.success(), "{}", texts.join("\n"));
}

fn series(name: &str, more: &[(&str, &str)]) -> Labels {
    Labels::from_pairs([("__name__", name)].iter().chain(more).copied())
}

fn out(labels: Labels, floats: Vec<(Timestamp, f64)>, histograms: Vec<(Timestamp, Histogram)>) -> SeriesOut {
    SeriesOut { labels, floats, histograms, ..SeriesOut::default() }
}

/// What is pushed at a step.
fn pushed(step: i64, at: Timestamp, kind: Kind) -> Vec<SeriesOut> {
    let odd = [f64::NAN, f64::INFINITY, -0.0, 5e-324, 0.1, stale_nan()];
    let at_step = |i: i64| odd[usize::try_from((step / 9 + i) % 6).expect("small")];
    let (n, f) = (step % 150, step as f64);
    let spans = |grown: u32| vec![Span { offset: -2, length: 2 + grown }, Span { offset: 1, length: 1 }];
    let is_grown = n > 90;
    let deltas = if is_grown { vec![n, 1, -2, 3] } else { vec![n, 2, 1] };
    let count = deltas
        .iter()
        .scan(0, |sum, d| {
            *sum += d;
            Some(*sum)
        })
        .sum::<i64>()
        + 1;
    let integers = IntegerHistogram {
        counter_reset_hint: CounterResetHint::Unknown,
        schema: 2,
        zero_threshold: 2_f64.powi(-128),
        zero_count: 1,
        count: u64::try_from(count).expect("positive"),
        sum: f / 3.0,
        positive_spans: spans(u32::from(is_grown)),
        positive_deltas: deltas,
        ..IntegerHistogram::default()
    };
    let floats = FloatHistogram {
        counter_reset_hint: CounterResetHint::Gauge,
        schema: -1,
        zero_threshold: 0.001,
        count: 3.5 * f,
        sum: -f,
        negative_spans: spans(0),
        negative_buckets: vec![f, 2.0 * f, 0.5 * f],
        ..FloatHistogram::default()
    };
    let custom = IntegerHistogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        count: 2 * u64::try_from(step).expect("positive"),
        sum: f,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_deltas: vec![step, 0],
        custom_values: [0.25, 7.125].into(),
        ..IntegerHistogram::default()
    };
    let mut all: Vec<SeriesOut> = (0..4)
        .map(|i| {
            out(
                series("pushed_total", &[("instance", &i.to_string())]),
                vec![(at, f * (i as f64 + 0.5))],
                vec![],
            )
        })
        .collect();
    all.extend(
        (0..3).map(|i| out(series("odd", &[("Kind", &i.to_string())]), vec![(at, at_step(i))], vec![])),
    );
    all.push(out(series("deleted_in_part", &[]), vec![(at, f)], vec![]));
    all.push(out(
        series("requests", &[("of", "integers")]),
        vec![],
        vec![(at, Histogram::Integer(integers))],
    ));
    // 2.42 takes one without observations for a histogram of integers.
    if step > 0 {
        all.push(out(series("requests", &[("of", "floats")]), vec![], vec![(at, Histogram::Float(floats))]));
    }
    if kind == Kind::Prometheus3 && step > 0 {
        all.push(out(
            series("requests", &[("of", "custom")]),
            vec![],
            vec![(at, Histogram::Integer(custom))],
        ));
    }
    all
}

fn push(server: &Server, series: &[SeriesOut]) {
    let reply = write(&server.http(), series).expect("an answer");
    assert!(reply.status < 300, "{}: {}", reply.status, reply.body);
}

/// A Prometheus with a history.
struct Filled {
    server: Server,
    /// What it was given, and not told to delete.
    kept: Table,
    /// When it had all of it.
    at: i64,
}

/// A Prometheus with samples of every sort, some of which came late, and some of which were deleted.
fn filled(kind: Kind) -> Filled {
    let server = Server::start(kind, CONFIG);
    let base = (now_ms() - STEPS * INTERVAL_MS) / 1000 * 1000 + 123;
    let at = |step: i64| base + step * INTERVAL_MS;
    let mut kept = Table::default();
    let mut push = |all: &[SeriesOut]| {
        push(&server, all);
        for series in all {
            let key = |t: Timestamp| ("default".to_owned(), ledger::json(&series.labels), t.millis());
            kept.floats.extend(series.floats.iter().map(|(t, value)| (key(*t), bits(*value))));
            kept.histograms.extend(series.histograms.iter().map(|(t, h)| (key(*t), plain(&columns(h)))));
        }
    };
    for step in 0..STEPS {
        push(&pushed(step, Timestamp(at(step)), kind));
    }
    for step in (1..120).rev() {
        let late = Timestamp(at(step) + 7_000);
        push(&[out(series("pushed_total", &[("instance", "0")]), vec![(late, step as f64)], vec![])]);
    }
    let (from, to) = (promql::seconds(at(50)), promql::seconds(at(90)));
    let form = [("match[]", "deleted_in_part"), ("start", from.as_str()), ("end", to.as_str())];
    let reply = server.http().post_form("/api/v1/admin/tsdb/delete_series", &form);
    assert_eq!(reply.status, 204, "{}", reply.body);
    let is_deleted =
        |(_, labels, t): &ledger::Key| labels.contains("deleted_in_part") && (at(50)..=at(90)).contains(t);
    kept.floats.retain(|key, _| !is_deleted(key));
    Filled { server, kept, at: at(STEPS) + 1 }
}

/// A histogram of the table without what Prometheus's chunks do not keep: the hint, and which buckets are empty.
fn plain(histogram: &Value) -> Value {
    let mut plain = histogram.clone();
    plain.as_object_mut().expect("a histogram").remove("reset_hint");
    for side in ["positive", "negative"] {
        let populations = [format!("{side}_counts"), format!("{side}_floats")]
            .iter()
            .flat_map(|name| plain[name.as_str()].take().as_array().cloned().unwrap_or_default())
            .collect::<Vec<_>>();
        let spans = plain[format!("{side}_spans")].take();
        let mut next = 0;
        let mut buckets = Vec::new();
        for span in spans.as_array().expect("spans") {
            let number = |name: &str| span[name].as_i64().expect("a number");
            next += number("offset");
            buckets.extend(next..next + number("length"));
            next += number("length");
        }
        assert_eq!(buckets.len(), populations.len(), "{histogram}");
        let filled = buckets.into_iter().zip(populations).filter(|(_, n)| *n != json!(0) && *n != json!("0"));
        plain[format!("{side}_spans")] = filled.map(|(bucket, n)| json!([bucket, n])).collect();
    }
    plain
}

/// With the server stopped, DuckDB finds what Prometheus was given, bit for bit.
fn assert_in_table(mut server: Server, kept: &Table) {
    server.stop();
    let found = ledger::read_table(&server);
    assert_eq!(ledger::differences(&found.floats, &kept.floats), Vec::<String>::new());
    let histograms = found.histograms.into_iter().map(|(key, histogram)| (key, plain(&histogram))).collect();
    assert_eq!(ledger::differences(&histograms, &kept.histograms), Vec::<String>::new());
}

/// Every sample, as the API has it; floats bit for bit but for NaNs.
fn all(server: &Server, at: i64) -> promql::Answer {
    let mut answers = EVERYTHING.map(|query| promql::instant(&server.http(), query, at)).into_iter();
    let mut all = answers.next().expect("three");
    all.series.extend(answers.flat_map(|answer| answer.series));
    all
}

/// The samples that came in order.
fn without_late(mut answer: promql::Answer, at: i64) -> promql::Answer {
    for series in &mut answer.series {
        series.floats.retain(|(t, _)| (at - 1 - t).rem_euclid(INTERVAL_MS) == 0);
    }
    answer
}

fn assert_same(got: &promql::Answer, want: &promql::Answer, what: &str) {
    let samples =
        |a: &promql::Answer| -> usize { a.series.iter().map(|s| s.floats.len() + s.histograms.len()).sum() };
    assert!(samples(want) > 3_000, "{what}: {} samples are worth comparing", samples(want));
    let found = promql::differences_within(0.0, got, want);
    assert!(found.is_empty(), "{what}: {} differences: {:#?}", found.len(), &found[..found.len().min(5)]);
}

/// A server that was killed has its head in its logs alone; a snapshot has all of it in a block.
fn moves(kind: Kind) {
    let Filled { mut server, kept, at } = filled(kind);
    let want = all(&server, at);
    let reply = server.http().post_form("/api/v1/admin/tsdb/snapshot", &[]);
    let Value::String(name) = &reply.data()["name"] else { panic!("{}", reply.body) };
    let snapshot = server.data_folder().join("snapshots").join(name);

    let mut of_logs = Server::stopped(Kind::Tributary, CONFIG);
    // Debian's 2.42 takes no lock unless it is told to.
    if kind == Kind::Prometheus3 {
        let refused = import(&server.data_folder(), &of_logs, &[]);
        assert_eq!(refused.status.code(), Some(1));
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(text.contains("a server runs on this directory"), "{text}");
    }
    server.kill_9();
    assert_success(&import(&server.data_folder(), &of_logs, &[]));
    of_logs.start_again();
    assert_same(&all(&of_logs, at), &want, "from the logs");
    assert_in_table(of_logs, &kept);

    // Into a table that a server works on.
    let of_blocks = Server::start(Kind::Tributary, CONFIG);
    assert_success(&import(&snapshot, &of_blocks, &["--quiet"]));
    // Ingesters look at the table once a minute, or when they are asked to.
    let compact = || {
        let reply = of_blocks.http().post_form("/api/v1/admin/tsdb/compact", &[]);
        assert_eq!(reply.status, 200, "{}", reply.body);
    };
    compact();
    // Snapshots of some versions lack what came late.
    assert_same(&without_late(all(&of_blocks, at), at), &without_late(want.clone(), at), "from a block");
    // Once more, and from the logs as well: what overlaps is merged.
    assert_success(&import(&snapshot, &of_blocks, &[]));
    assert_success(&import(&server.data_folder(), &of_blocks, &[]));
    compact();
    assert_same(&all(&of_blocks, at), &want, "from both");
    assert_in_table(of_blocks, &kept);
}

#[test]
fn the_history_of_prometheus_2_moves() {
    moves(Kind::Prometheus);
}

#[test]
fn the_history_of_prometheus_3_moves() {
    moves(Kind::Prometheus3);
}

/// Killed again and again in the middle of it, an import begun once more adds what is missing and nothing twice.
#[test]
fn an_import_survives_kill_9() {
    const DAYS: i64 = 12;
    const SERIES: i64 = 10;
    let mut server = Server::stopped(Kind::Tributary, CONFIG);
    let start = (now_ms() / 86_400_000 - DAYS - 1) * 86_400;
    let step = 300;
    let count = DAYS * 86_400 / step;
    let line = |i: i64| format!("moved{{n=\"{}\"}} {i} {}\n", i % SERIES, start + i / SERIES * step);
    let text: String = (0..count * SERIES).map(line).chain(["# EOF\n".to_owned()]).collect();
    let input = server.folder().join("input");
    fs::write(&input, text).expect("written");
    let command = || {
        let mut command = Command::new(Kind::Tributary.binary());
        command.args(["tsdb", "create-blocks-from", "openmetrics"]).arg(&input).arg(server.data_folder());
        command.args(["--memory.max=1MB"]).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let commits = || {
        let log = fs::read_dir(server.table().join("_delta_log"));
        log.map_or(0, |log| {
            log.flatten().filter(|e| e.file_name().to_string_lossy().ends_with(".json")).count()
        })
    };
    for kill_at in [0, 2, 5, 9] {
        let mut child = command().spawn().expect("starts");
        // The first commit makes the table.
        while commits() < kill_at && child.try_wait().expect("a child").is_none() {
            thread::sleep(Duration::from_millis(2));
        }
        child.kill().expect("killed");
        child.wait().expect("ended");
    }
    let done = command().stderr(Stdio::piped()).output().expect("starts");
    assert_success(&done);
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(told.contains("were in the table already"), "{told}");
    assert_eq!(commits(), 1 + usize::try_from(DAYS).expect("small"), "one commit a day");
    let files = fs::read_dir(server.data_folder().join("tributary/import-scratch")).expect("a folder");
    assert_eq!(files.count(), 0, "nothing is left");
    server.start_again();
    let all = promql::instant(&server.http(), &format!("moved[{}d]", DAYS + 2), now_ms());
    assert_eq!(all.series.len(), usize::try_from(SERIES).expect("small"));
    for series in &all.series {
        let n: i64 = series.labels["n"].parse().expect("a number");
        let want: Vec<(i64, f64)> =
            (0..count).map(|i| ((start + i * step) * 1000, (i * SERIES + n) as f64)).collect();
        assert_eq!(series.floats, want, "{n}");
    }
}

/// A day of many.
const DAY_MS: i64 = 86_400_000;
/// So many that an import of them is shown, and can be interrupted.
const MANY_DAYS: i64 = 200;
const PER_DAY: i64 = 8;

/// OpenMetrics text of many days, and the same as a ledger.
fn many_days() -> (String, Floats) {
    let start = (now_ms() / DAY_MS - MANY_DAYS - 1) * DAY_MS;
    let (mut text, mut ledger) = (String::new(), Floats::new());
    for i in 0..MANY_DAYS * PER_DAY {
        let (t, value) = (start + i * (DAY_MS / PER_DAY), i as f64 / 8.0);
        writeln!(text, "shown {value} {}", t / 1000).expect("a string");
        let labels = ledger::json(&series("shown", &[]));
        ledger.insert(("default".to_owned(), labels, t), Some(value.to_bits()));
    }
    (text + "# EOF\n", ledger)
}

/// Runs a program in a terminal, with Ctrl-C as soon as it writes something; returns what it wrote, and its status.
fn in_terminal(command: &Command, interrupt_at: &str) -> (String, i64) {
    let words = [OsStr::new(interrupt_at), command.get_program()].into_iter().chain(command.get_args());
    let done: Value = serde_json::from_str(&python("in_terminal.py", words)).expect("JSON");
    (done["output"].as_str().expect("text").to_owned(), done["status"].as_i64().expect("a number"))
}

/// How many days were written by the time of each line that tells.
fn days_told(shown: &str) -> Vec<i64> {
    let lines = shown.split(['\r', '\n']).map(|line| line.trim_start_matches("\x1b[K"));
    let days = |line: &str| {
        let (bar, rest) = line.strip_prefix("writing [")?.split_once("] ")?;
        let (days, rest) = rest.split_once(&format!(" of {MANY_DAYS} days, "))?;
        let days: i64 = days.parse().ok()?;
        assert_eq!(bar.matches('#').count() as i64, days * bar.len() as i64 / MANY_DAYS, "{line}");
        assert!(rest.starts_with(&format!("{} samples read, ", MANY_DAYS * PER_DAY)), "{line}");
        Some(days)
    };
    lines.filter_map(days).collect()
}

#[test]
fn progress_is_shown_and_ctrl_c_leaves_whole_days() {
    let server = Server::stopped(Kind::Tributary, CONFIG);
    let (text, want) = many_days();
    let input = server.folder().join("input");
    fs::write(&input, text).expect("written");
    let mut command = Command::new(Kind::Tributary.binary());
    command.args(["tsdb", "create-blocks-from", "openmetrics"]).arg(&input).arg(server.data_folder());

    // The head of the list of days comes with the first one.
    let (shown, status) = in_terminal(&command, "NUM SAMPLES");
    assert_eq!(status, -2, "ended by the signal of Ctrl-C\n{shown}");
    let left = ledger::read_table(&server).floats;
    assert!(!left.is_empty() && left.len() < want.len(), "{} of {} samples", left.len(), want.len());
    let days: BTreeSet<i64> = left.keys().map(|(_, _, t)| t / DAY_MS).collect();
    let whole: Floats = want
        .iter()
        .filter(|((_, _, t), _)| days.contains(&(t / DAY_MS)))
        .map(|(k, v)| (k.clone(), *v))
        .collect();
    assert_eq!(ledger::differences(&left, &whole), Vec::<String>::new());

    let (shown, status) = in_terminal(&command, "");
    assert_eq!(status, 0, "{shown}");
    let told = days_told(&shown);
    assert!(told.is_sorted() && told.last() == Some(&MANY_DAYS), "{told:?}\n{shown}");
    assert!(shown.contains("\r\x1b[K"), "a bar is drawn over: {shown}");
    let (there, rest) = (days.len() as i64, MANY_DAYS - days.len() as i64);
    assert!(
        shown.contains(&format!("{rest} days imported, {there} were in the table already\r\n")),
        "{shown}"
    );
    assert_eq!(ledger::differences(&ledger::read_table(&server).floats, &want), Vec::<String>::new());

    let piped = command.output().expect("starts");
    assert_success(&piped);
    let told = String::from_utf8(piped.stderr).expect("text");
    assert!(!told.contains(['\r', '\x1b']), "plain lines: {told}");
    assert_eq!(days_told(&told).last(), Some(&MANY_DAYS), "{told}");
    assert!(told.ends_with(&format!("0 days imported, {MANY_DAYS} were in the table already\n")), "{told}");
    let quiet = command.arg("--quiet").output().expect("starts");
    assert_success(&quiet);
    assert!(quiet.stdout.is_empty() && quiet.stderr.is_empty(), "{quiet:?}");
}
