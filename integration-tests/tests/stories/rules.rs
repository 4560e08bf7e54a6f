//! Rules are evaluated as Prometheus 2.42 and 3.5 evaluate them, at the same times, and go on when their querier dies.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use integration_tests::{Fixture, Http, Kind, Server, eventually, now_ms, promql, promtool};
use model::Labels;
use serde_json::Value;
use tempfile::TempDir;
use xxhash_rust::xxh64::xxh64;

use crate::pair::{self, family};

mod cluster;

const INTERVAL_MS: i64 = 15_000;
const STEPS: usize = 8;
/// For how long evaluations are compared.
const SPAN_MS: i64 = 8_000;
/// No group looks further back.
const OFFSET_MS_MAX: i64 = 3_000;

/// Recording rules that build on each other, an alert of each state, templates, and a rule that fails.
const RULES: &str = "
groups:
- name: AGGREGATES
  interval: 1s
  rules:
  - record: job:reqs:rate2m
    expr: sum by (code) (rate(reqs_total[2m]))
  - record: job:reqs:double
    expr: 2 * job:reqs:rate2m
    labels: {code: all, kind: double}
  - record: job:reqs:share
    expr: job:reqs:rate2m / ignoring(code) group_left sum without (code) (job:reqs:rate2m)
  - record: broken
    expr: reqs_total + on() reqs_total
- name: ALERTS
  interval: 1s
  limit: 10
  rules:
  - alert: Slow
    expr: reqs_total > 100
    labels: {severity: '{{ if gt $value 200.0 }}page{{ else }}mail{{ end }}'}
    annotations: {summary: '{{ $labels.inst | toUpper }} has {{ $value | humanize }} of {{ query \"sum(reqs_total)\" | first | value }}'}
  - alert: Waits
    expr: reqs_total > 0
    for: 1h
    keep_firing_for: 5m
  - alert: Never
    expr: reqs_total < 0
  - alert: Broken
    expr: vector(1)
    annotations: {summary: '{{ $labels.nothing }} {{ $value.field }}'}
";

/// What 2.42 does not know: groups that look back, by more or less than `global.rule_query_offset` says. A template asks
/// for what is there at the time of the evaluation all the same.
const OFFSETS: &str = "
- name: earlier
  interval: 1s
  query_offset: 3s
  rules:
  - record: job:earlier:time
    expr: time()
  - record: job:earlier:rate2m
    expr: sum by (inst) (rate(reqs_total[2m]))
  - record: job:earlier:before
    expr: job:earlier:rate2m offset 1s
  - alert: Earlier
    expr: job:earlier:time > bool 0
    annotations: {summary: '{{ query \"time() - timestamp(job:earlier:time)\" | first | value | printf \"%.1f\" }} s'}
- name: present
  interval: 1s
  query_offset: 0s
  rules:
  - record: job:present:time
    expr: time()
- name: globally
  interval: 1s
  rules:
  - record: job:globally:time
    expr: time()
";

/// Rules that are independent of all others, one that fails among them, and a chain of three.
const INDEPENDENT: &str = "
groups:
- name: wide
  interval: 1s
  rules:
  - {record: 'job:chain:first', expr: 'sum by (code) (rate(reqs_total[2m]))'}
  - {record: 'job:a', expr: 'sum(rate(reqs_total[100s]))'}
  - {record: 'job:chain:second', expr: '2 * job:chain:first', labels: {kind: double}}
  - {record: 'job:b', expr: 'time()', labels: {kind: clock}}
  - {record: broken, expr: 'reqs_total + on() reqs_total'}
  - {record: 'job:chain:third', expr: 'sum(job:chain:second) - sum(job:chain:first offset 1s)'}
  - {record: 'job:c', expr: 'deriv(reqs_total[2m])'}
  - {record: 'job:d', expr: 'nothing'}
  - {alert: Slow, expr: 'reqs_total > 100', annotations: {summary: '{{ $labels.inst }} has {{ $value }}'}}
  - {alert: Waits, expr: 'reqs_total > 0', for: 1h}
- name: wide and earlier
  interval: 1s
  query_offset: 2s
  rules:
  - {record: 'job:e', expr: 'sum(rate(reqs_total[2m]))'}
  - {record: 'job:f', expr: 'max by (inst) (increase(reqs_total[2m]))'}
  - {record: 'job:g', expr: 'time()'}
";

/// A folder with a rule file that several servers read, since its path decides when they evaluate.
fn rule_file(text: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("r.yml");
    fs::write(&path, text).expect("a rule file");
    let path = path.to_string_lossy().into_owned();
    assert!(path.len() < 120, "{path} is hashed as Prometheus hashes it");
    (folder, path)
}

/// A name for a group with an interval of a second that 2.42 evaluates at the same milliseconds as later versions do: the
/// hash that decides when is of another form of its labels, in 2.42 each name and each value with a byte 0xff behind.
fn group_name(path: &str, begin: &str) -> String {
    let millisecond = |encoded: &[u8]| xxh64(encoded, 0) % 1_000_000_000 / 1_000_000;
    let is_same = |name: &String| {
        let labels = [("file", path), ("name", name.as_str())];
        let old = labels.iter().flat_map(|(n, v)| [n.as_bytes(), v.as_bytes()]).flat_map(|s| [s, &[0xff]]);
        let now = Labels::from_pairs(labels);
        millisecond(&old.collect::<Vec<_>>().concat()) == millisecond(now.as_encoded().as_bytes())
    };
    let mut names = (0..1_000_000).map(|i| format!("{begin}{i}"));
    names.find(is_same).expect("one of a thousand does")
}

/// All samples of recorded series and alerts since a time.
fn recorded(http: &Http, since: i64, until: i64) -> BTreeMap<String, Vec<(i64, u64)>> {
    let names = "job:.*|ALERTS|broken";
    let query = format!("{{__name__=~\"{names}\"}}[{}ms]", until - since);
    let answer = promql::instant(http, &query, until);
    let floats = |series: &promql::Series| series.floats.iter().map(|(t, v)| (*t, v.to_bits())).collect();
    answer.series.iter().map(|series| (format!("{:?}", series.labels), floats(series))).collect()
}

/// When a group or a rule of the API was last evaluated.
fn evaluated_at(of: &Value) -> Option<i64> {
    Some(of["lastEvaluation"].as_str()?.parse::<jiff::Timestamp>().ok()?.as_millisecond())
}

/// Removes what differs with the time: when, how long, since when.
fn without_times(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for time in ["evaluationTime", "lastEvaluation", "activeAt"] {
                fields.remove(time);
            }
            fields.values_mut().for_each(without_times);
        }
        Value::Array(items) => items.iter_mut().for_each(without_times),
        _ => {}
    }
}

fn rules(http: &Http, parameters: &[(&str, &str)]) -> Value {
    let mut data = http.get("/api/v1/rules", parameters).data();
    without_times(&mut data);
    // The order of alerts is free.
    for group in data["groups"].as_array_mut().expect("groups") {
        for rule in group["rules"].as_array_mut().expect("rules") {
            if let Some(alerts) = rule.get_mut("alerts").and_then(Value::as_array_mut) {
                alerts.sort_by_key(|alert| alert["labels"].to_string());
            }
            // Series on one side of a match are told in any order.
            if rule.get("lastError").is_some() {
                rule["lastError"] = Value::from("failed");
            }
        }
    }
    data
}

#[test]
fn rules_record_and_alert_as_in_2_42() {
    let (_folder, path) = rule_file("");
    let text = RULES.replace("AGGREGATES", &group_name(&path, "aggregates"));
    fs::write(&path, text.replace("ALERTS", &group_name(&path, "alerts"))).expect("a rule file");
    // With a filter 2.42 shows groups that have no rule left; later versions do not.
    let _both = Both::compare(Kind::Prometheus, Server::start, &path, &[vec![]]);
}

#[test]
fn rules_record_and_alert_as_in_3_5() {
    let text = RULES.replace("ALERTS", "alerts").replace("AGGREGATES", "aggregates\n  labels: {site: here}");
    let (_folder, path) = rule_file(&(text + OFFSETS));
    let filters = [
        vec![],
        vec![("type", "alert")],
        vec![("type", "record")],
        vec![("rule_name[]", "Slow"), ("rule_name[]", "broken")],
        vec![("rule_group[]", "aggregates")],
        vec![("match[]", "{site=\"here\"}")],
        vec![("exclude_alerts", "true")],
    ];
    let Both { prometheus, tributary, .. } = Both::compare(Kind::Prometheus3, Server::start, &path, &filters);
    // 3.14 makes tokens of another hash than 3.5 does; what they lead to is the same.
    let pages = [&tributary, &prometheus].map(|server| {
        let page = |parameters: &[(&str, &str)]| server.http().get("/api/v1/rules", parameters).data();
        let first = page(&[("group_limit", "4")]);
        let token = first["groupNextToken"].as_str().expect("there is another group").to_owned();
        let second = page(&[("group_limit", "4"), ("group_next_token", &token)]);
        assert!(second.get("groupNextToken").is_none());
        [&first, &second].map(|page| page["groups"][0]["name"].clone())
    });
    assert_eq!(pages[0], pages[1]);
    for parameters in [[("type", "x")], [("group_limit", "0")], [("group_next_token", "x")]] {
        let answers = [&tributary, &prometheus].map(|server| {
            let reply = server.http().get("/api/v1/rules", &parameters);
            (reply.status, reply.json()["error"].clone())
        });
        assert_eq!(answers[0], answers[1], "{parameters:?}");
    }
}

#[test]
fn rules_that_are_evaluated_at_the_same_time_record_as_in_3_5() {
    let (_folder, path) = rule_file(INDEPENDENT);
    let _both = Both::compare(Kind::Prometheus3, Server::start_with_concurrent_rules, &path, &[vec![]]);
}

/// How often a server was too late for an evaluation.
fn missed(server: &Server) -> f64 {
    let metrics = server.queriers().into_iter().map(|http| http.get("/metrics", &[]).body);
    let of = |body: String| -> f64 {
        let lines = body.lines().filter(|l| l.starts_with("prometheus_rule_group_iterations_missed_total"));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    };
    metrics.map(of).sum()
}

/// A Prometheus and Tributary that have scraped the same and have the same rules.
struct Both {
    prometheus: Server,
    tributary: Server,
    _fixture: Fixture,
}

impl Both {
    /// Starts them and compares what they record, their alerts, and what `/api/v1/rules` says with some parameters.
    fn compare(
        kind: Kind,
        start: fn(Kind, &str) -> Server,
        path: &str,
        filters: &[Vec<(&str, &str)>],
    ) -> Self {
        let fixture = Fixture::start();
        let mut config = pair::config("fixture", &fixture.address(), pair::PATH, "")
            + &format!("rule_files: ['{path}']\n");
        if kind == Kind::Prometheus3 {
            config = config.replace("global:\n", "global:\n  rule_query_offset: 1500ms\n");
        }
        let prometheus = start(kind, &config);
        let tributary = start(Kind::Tributary, &config);
        let base = pair::base_ms(INTERVAL_MS * i64::try_from(STEPS).expect("small"));
        for step in 0..STEPS {
            let at = base + INTERVAL_MS * i64::try_from(step).expect("small");
            let samples =
                [("a", 200, 11.5), ("b", 200, 21.0), ("b", 500, 31.25)].map(|(inst, code, per_step)| {
                    (format!("reqs_total{{inst=\"{inst}\",code=\"{code}\"}}"), per_step * (step + 1) as f64)
                });
            let mut body = String::new();
            family(&mut body, "reqs_total", "counter", at, &samples);
            pair::serve_step(&fixture, pair::PATH, step, at, &body);
            for server in [&prometheus, &tributary] {
                pair::wait_for_step(server, "fixture", step, at);
            }
        }
        // Both hold the same samples now: every evaluation from here on has the same to look at. Alerts are written from
        // the second evaluation on.
        let both = [&prometheus, &tributary];
        let [want, got] = eventually("nobody was too late for an evaluation", || {
            let missed_before = both.map(missed);
            let since = now_ms() + 3_000;
            let until = since + SPAN_MS;
            for server in both {
                eventually(&format!("{:?} has evaluated until then", server.kind()), || {
                    let data = server.http().get("/api/v1/rules", &[]).data();
                    let groups = data["groups"].as_array().expect("groups").iter();
                    let last = groups.map(evaluated_at).min().flatten();
                    last.filter(|time| *time > until + OFFSET_MS_MAX).map(|_| ())
                });
            }
            let found = both.map(|server| recorded(&server.http(), since, until));
            (both.map(missed) == missed_before).then_some(found)
        });
        assert_eq!(got, want);
        let counts: Vec<usize> = want.values().map(Vec::len).collect();
        // Five series of three recording rules, three alerts that fire, three that wait and the broken one.
        assert!(want.len() >= 10 && counts.iter().all(|count| *count >= 7), "{counts:?}");

        for parameters in filters {
            assert_eq!(
                rules(&tributary.http(), parameters),
                rules(&prometheus.http(), parameters),
                "{parameters:?}"
            );
        }
        let alerts = |server: &Server| {
            let mut data = server.http().get("/api/v1/alerts", &[]).data();
            without_times(&mut data);
            let mut alerts: Vec<String> =
                data["alerts"].as_array().expect("alerts").iter().map(Value::to_string).collect();
            alerts.sort();
            alerts
        };
        assert_eq!(alerts(&tributary), alerts(&prometheus));
        Self { prometheus, tributary, _fixture: fixture }
    }
}

#[test]
fn a_reload_keeps_what_did_not_change_and_refuses_what_is_wrong() {
    let text = |rest: &str| {
        format!(
            "groups:\n- name: g\n  interval: 1s\n  rules:\n  - {{alert: A, expr: vector(1), for: 1h}}\n{rest}"
        )
    };
    let (_folder, path) = rule_file(&text("  - {record: gone, expr: vector(2)}\n"));
    let config = format!("global: {{evaluation_interval: 1s}}\nrule_files: ['{path}']\n");
    let server = Server::start(Kind::Tributary, &config);
    let http = server.http();
    let active_at = || {
        let alerts = http.get("/api/v1/alerts", &[]).data();
        alerts["alerts"][0]["activeAt"].as_str().map(str::to_owned)
    };
    let before = eventually("the alert waits", active_at);
    let value = |query: &str| promql::single(&http, query, now_ms());
    eventually("the rule has recorded", || value("gone").filter(|v| *v == 2.0));
    fs::write(&path, text("  - {record: new, expr: 3 +}\n")).expect("written");
    let reply = http.post_form("/-/reload", &[]);
    assert_eq!(reply.status, 500, "{}", reply.body);
    let fault =
        "group \"g\", rule 2, \"new\": could not parse expression: 1:4: parse error: unexpected end of input";
    assert!(reply.body.contains(fault), "{}", reply.body);
    fs::write(&path, text("  - {record: new, expr: 'vector(3)'}\n")).expect("written");
    assert_eq!(http.post_form("/-/reload", &[]).status, 200);
    eventually("the new rule has recorded", || value("new").filter(|v| *v == 3.0));
    // The series of the rule that is gone was marked; the alert is as old as it was.
    eventually("the series has ended", || value("gone").is_none().then_some(()));
    assert_eq!(active_at(), Some(before));
}

#[test]
fn alerts_survive_a_restart() {
    let (_folder, path) = rule_file(
        "groups:\n- name: g\n  interval: 1s\n  rules:\n  - {alert: A, expr: vector(1), for: 15s}\n",
    );
    let mut server = Server::start(Kind::Tributary, &format!("rule_files: ['{path}']\n"));
    let alert = |server: &Server| {
        let data = server.http().get("/api/v1/alerts", &[]).data();
        let alert = &data["alerts"][0];
        Some((alert["activeAt"].as_str()?.to_owned(), alert["state"].as_str()?.to_owned()))
    };
    let (before, state) = eventually("the alert waits", || alert(&server));
    assert_eq!(state, "pending");
    eventually("that is written", || promql::single(&server.http(), "ALERTS_FOR_STATE", now_ms()));
    server.kill_9();
    server.start_again();
    let (after, _) = eventually("the alert fires", || alert(&server).filter(|(_, state)| state == "firing"));
    // Series remember whole seconds.
    assert_eq!(after[..19], before[..19], "{after} {before}");
}

fn run(program: PathBuf, arguments: &[&str], folder: &TempDir) -> Output {
    Command::new(program).args(arguments).current_dir(folder.path()).output().expect("it starts")
}

#[test]
fn commands_say_of_rule_files_what_promtool_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let good = "groups:\n- name: g\n  rules:\n  - {alert: Down, expr: up == 0, for: 2m, annotations: {s: '{{ $value }}'}}\n  - {record: r, expr: sum(up)}\n";
    let test = |labels: &str, value: &str| {
        format!(
            "rule_files: [good.yml]\ntests:\n- name: t\n  input_series: [{{series: 'up{{job=\"j\"}}', values: '0x5'}}]\n  promql_expr_test:\n  \
             - {{expr: r, eval_time: 1m, exp_samples: [{{labels: r, value: {value}}}]}}\n  alert_rule_test:\n  - eval_time: 3m\n    \
             alertname: Down\n    exp_alerts: [{{exp_labels: {{{labels}}}, exp_annotations: {{s: '0'}}}}]\n"
        )
    };
    for (name, text) in [
        ("good.yml", good.to_owned()),
        ("doubled.yml", good.replace("rules:\n", "rules:\n  - {record: r, expr: up}\n")),
        ("expr.yml", good.replace("sum(up)", "'sum(up'")),
        ("template.yml", good.replace("$value", "$valu")),
        ("passes.yml", test("job: j", "0")),
        ("fails.yml", test("job: k", "1")),
        ("broken.yml", test("job: j", "0").replace("'0x5'", "'0x'")),
    ] {
        fs::write(folder.path().join(name), text).expect("written");
    }
    for arguments in [
        ["check", "rules", "good.yml"],
        ["check", "rules", "doubled.yml"],
        ["check", "rules", "expr.yml"],
        ["check", "rules", "template.yml"],
        ["test", "rules", "passes.yml"],
        ["test", "rules", "fails.yml"],
    ] {
        let ours = run(Kind::Tributary.binary(), &arguments, &folder);
        let theirs = run(promtool(), &arguments, &folder);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(text(&ours.stderr), text(&theirs.stderr), "{arguments:?}");
        assert_eq!(ours.status.code(), theirs.status.code(), "{arguments:?}");
        // 2.42 says which file it tests, and has more empty lines.
        let lines = |bytes: &[u8]| -> Vec<String> {
            text(bytes)
                .lines()
                .filter(|l| !l.is_empty() && !l.starts_with("Unit Testing"))
                .map(str::to_owned)
                .collect()
        };
        assert_eq!(lines(&ours.stdout), lines(&theirs.stdout), "{arguments:?}");
    }
    let broken = run(Kind::Tributary.binary(), &["test", "rules", "broken.yml"], &folder);
    assert_eq!(broken.status.code(), Some(1));
    let fatal = run(Kind::Tributary.binary(), &["check", "rules", "--lint-fatal", "doubled.yml"], &folder);
    assert_eq!(fatal.status.code(), Some(3));
    let missing = run(Kind::Tributary.binary(), &["check", "rules", "none.yml"], &folder);
    assert_eq!(missing.status.code(), Some(1));
}
