//! What the evaluation of rules costs: 2,000 groups of 10 rules every 15 s over 100,000 series, in Tributary and in
//! Debian's Prometheus 2.42, one after the other.
//!
//! Each server first scrapes alone, then with the rules; what it takes more of the processor is what they cost.
//!
//! `cargo bench --bench rules -- small` looks whether it works at all.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a program for people, with an argument"
)]

use std::fmt::Write as _;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use integration_tests::{Fixture, Kind, Server, eventually, now_ms, promql};

const INTERVAL: Duration = Duration::from_secs(15);
/// Series of one application, which one rule group is about.
const SERIES_PER_APP: usize = 50;
const APPS_PER_TARGET: usize = 20;

/// How much there is to do.
#[derive(Debug, Clone, Copy)]
struct Size {
    targets: usize,
    /// How long is waited before anything is measured: ranges are filled by then.
    warm_up: Duration,
    /// How long is measured, without rules and with them.
    measured: Duration,
}

impl Size {
    const FULL: Self =
        Self { targets: 100, warm_up: Duration::from_secs(75), measured: Duration::from_secs(60) };
    const SMALL: Self =
        Self { targets: 2, warm_up: Duration::from_secs(20), measured: Duration::from_secs(30) };

    fn groups(self) -> usize {
        self.targets * APPS_PER_TARGET
    }
}

/// What a server took.
#[derive(Debug)]
struct Cost {
    /// Shares of a processor.
    without_rules: f64,
    with_rules: f64,
    iterations: f64,
    missed: f64,
    failures: f64,
}

/// What a target exposes after so many intervals.
fn body(target: usize, tick: usize) -> String {
    let mut body = String::from("# TYPE bench_requests_total counter\n");
    for app in 0..APPS_PER_TARGET {
        let app = target * APPS_PER_TARGET + app;
        for series in 0..SERIES_PER_APP {
            let (code, path) = (200 + series % 5, series / 5);
            let value = tick * (series + 1) + app;
            writeln!(body, "bench_requests_total{{app=\"{app}\",code=\"{code}\",path=\"/{path}\"}} {value}")
                .expect("a string");
        }
    }
    body
}

/// One group for each application: rates, sums, shares of what was recorded before, alerts.
fn rules(size: Size) -> String {
    let mut text = String::from("groups:\n");
    for app in 0..size.groups() {
        let series = format!("bench_requests_total{{app=\"{app}\"}}");
        let recorded = format!("app:requests:rate1m{{app=\"{app}\"}}");
        let by_code = format!("app_code:requests:rate1m{{app=\"{app}\"}}");
        let lines = [
            format!("record: 'app_code:requests:rate1m', expr: 'sum by (app, code) (rate({series}[1m]))'"),
            format!("record: 'app:requests:rate1m', expr: 'sum by (app) ({by_code})'"),
            format!("record: 'app_path:requests:rate1m', expr: 'sum by (app, path) (rate({series}[1m]))'"),
            format!("record: 'app:requests:increase2m', expr: 'sum by (app) (increase({series}[2m]))'"),
            format!("record: 'app:errors:share', expr: '{by_code} / ignoring (code) group_left {recorded}'"),
            format!("record: 'app:paths:count', expr: 'count by (app) (count by (app, path) ({series}))'"),
            format!("record: 'app:requests:max', expr: 'max by (app) ({series})'"),
            format!("record: 'app:requests:p90', expr: 'quantile by (app) (0.9, rate({series}[1m]))'"),
            format!("alert: Busy, expr: '{recorded} > 1e9', for: 1m"),
            format!("alert: Silent, expr: 'absent({recorded})', for: 1m"),
        ];
        writeln!(text, "- name: app{app}\n  rules:").expect("a string");
        for line in lines {
            writeln!(text, "  - {{{line}}}").expect("a string");
        }
    }
    text
}

fn config(fixture: &Fixture, size: Size, rules: Option<&str>) -> String {
    let seconds = INTERVAL.as_secs();
    let mut config = format!(
        "global: {{scrape_interval: {seconds}s, evaluation_interval: {seconds}s}}\nscrape_configs:\n\
         - job_name: bench\n  static_configs:\n"
    );
    for target in 0..size.targets {
        let labels = format!("{{__metrics_path__: /{target}, instance: 't{target}'}}");
        writeln!(config, "  - {{targets: ['{}'], labels: {labels}}}", fixture.address()).expect("a string");
    }
    if let Some(rules) = rules {
        writeln!(config, "rule_files: ['{rules}']").expect("a string");
    }
    config
}

/// The sum of a metric's series.
fn metric(server: &Server, name: &str) -> f64 {
    let text = server.http().get("/metrics", &[]).body;
    let values = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// The share of a processor that a server takes.
fn share(server: &Server, during: Duration) -> f64 {
    let (before, started) = (server.cpu_seconds(), Instant::now());
    thread::sleep(during);
    (server.cpu_seconds() - before) / started.elapsed().as_secs_f64()
}

fn cost(kind: Kind, fixture: &Fixture, size: Size) -> Cost {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rules.yml");
    fs::write(&path, rules(size)).expect("a rule file");
    let server = Server::start(kind, &config(fixture, size, None));
    let series = (size.groups() * SERIES_PER_APP) as f64;
    eventually("all series are there", || {
        promql::single(&server.http(), "count(bench_requests_total)", now_ms())
            .filter(|count| *count == series)
    });
    thread::sleep(size.warm_up);
    let without_rules = share(&server, size.measured);
    server.write_config(&config(fixture, size, Some(&path.to_string_lossy())));
    let reply = server.http().post_form("/-/reload", &[]);
    assert_eq!(reply.status, 200, "{}", reply.body);
    let names = ["iterations", "iterations_missed"].map(|name| format!("prometheus_rule_group_{name}_total"));
    let [iterations, missed] = &names;
    let failures = "prometheus_rule_evaluation_failures_total";
    // The first rounds make every series.
    thread::sleep(size.warm_up);
    let counts = || [iterations.as_str(), missed, failures].map(|name| metric(&server, name));
    let before = counts();
    let with_rules = share(&server, size.measured);
    let after = counts();
    let [iterations, missed, failures] = [0, 1, 2].map(|i| after[i] - before[i]);
    Cost { without_rules, with_rules, iterations, missed, failures }
}

fn main() {
    let is_small = std::env::args().any(|argument| argument == "small");
    let size = if is_small { Size::SMALL } else { Size::FULL };
    let fixture = Fixture::start();
    let serve = |tick: usize| {
        for target in 0..size.targets {
            fixture.serve(&format!("/{target}"), body(target, tick));
        }
    };
    serve(0);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let started = Instant::now();
            let mut tick: usize = 0;
            while !is_over.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(200));
                if started.elapsed() > INTERVAL * u32::try_from(tick + 1).expect("few") {
                    tick += 1;
                    serve(tick);
                }
            }
        });
        println!("{} groups of 10 rules, {} series", size.groups(), size.groups() * SERIES_PER_APP);
        println!("                 without   with rules  evaluation   iterations  missed  failures");
        let all = [Kind::Prometheus, Kind::Tributary].map(|kind| {
            let cost = cost(kind, &fixture, size);
            let evaluation = cost.with_rules - cost.without_rules;
            println!(
                "{:15} {:6.3} CPU  {:6.3} CPU  {evaluation:6.3} CPU  {:11} {:7} {:9}",
                format!("{kind:?}"),
                cost.without_rules,
                cost.with_rules,
                cost.iterations,
                cost.missed,
                cost.failures
            );
            evaluation
        });
        println!("evaluation, Tributary of Prometheus: {:.2}", all[1] / all[0]);
        is_over.store(true, Ordering::Relaxed);
    });
}
