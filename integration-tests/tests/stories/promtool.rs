//! Debian's promtool works against Tributary, and prints what it prints against Prometheus.

use std::process::Command;

use integration_tests::{Kind, Server, promql, promtool};

use crate::pair::{self, Pair, family};

const INTERVAL_MS: i64 = 15_000;
const STEPS: usize = 6;

/// What promtool prints, its lines sorted: the order of series is free.
fn run(server: &Server, arguments: &[&str]) -> Vec<String> {
    let url = server.http().url("");
    let arguments: Vec<_> = arguments.iter().map(|a| a.replace("URL", &url)).collect();
    let output = Command::new(promtool()).args(&arguments).output().expect("promtool starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: promtool {arguments:?}: {text}{errors}", server.kind());
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn promtool_finds_a_prometheus() {
    let pair = Pair::start(Kind::Prometheus);
    let base = pair::base_ms(5 * 60_000);
    let mut at = base;
    for step in 0..STEPS {
        at = base + INTERVAL_MS * i64::try_from(step).expect("small");
        let mut body = String::new();
        let samples = [1, 2].map(|i| (format!("jobs_total{{queue=\"q{i}\"}}"), (step * i) as f64));
        family(&mut body, "jobs_total", "counter", at, &samples);
        pair.step(step, at, &body);
    }
    let (start, end) = (promql::seconds(base), promql::seconds(at + 1));
    let (time, from, to) = (format!("--time={end}"), format!("--start={start}"), format!("--end={end}"));
    let series = "--match=jobs_total";
    for arguments in [
        vec!["query", "instant", &time, "URL", "jobs_total"],
        vec!["query", "instant", &time, "URL", "sum(rate(jobs_total[1m]))"],
        vec!["query", "instant", "-o", "json", &time, "URL", "jobs_total"],
        vec!["query", "range", &from, &to, "--step=15s", "URL", "jobs_total"],
        vec!["query", "series", series, &from, &to, "URL"],
        vec!["query", "labels", &from, &to, "URL", "queue"],
    ] {
        let want = run(&pair.prometheus, &arguments);
        assert!(want.iter().any(|line| !line.is_empty()), "{arguments:?} prints something");
        assert_eq!(run(&pair.tributary, &arguments), want, "promtool {arguments:?}");
    }
    // What `promtool check healthy` and `check ready` ask for; 2.42 has neither.
    for path in ["/-/healthy", "/-/ready"] {
        assert_eq!(pair.tributary.http().get(path, &[]).status, 200, "{path}");
    }
}
