//! Tributary and a Prometheus with the same samples: both scrape one fixture whose body carries timestamps.

use std::fmt::Write as _;

use integration_tests::{Fixture, Kind, Server, eventually, now_ms, promql};

/// Where the fixture answers.
pub(crate) const PATH: &str = "/metrics";
/// The last line of every body: which step it is.
const STEP: &str = "fixture_step";

/// The two servers and their target.
pub(crate) struct Pair {
    pub(crate) tributary: Server,
    pub(crate) prometheus: Server,
    pub(crate) fixture: Fixture,
}

impl Pair {
    /// Starts Tributary and that Prometheus on one target that has no body yet.
    pub(crate) fn start(prometheus: Kind) -> Self {
        let fixture = Fixture::start();
        let config = config("fixture", &fixture.address(), PATH, "");
        let prometheus = Server::start(prometheus, &config);
        let tributary = Server::start(Kind::Tributary, &config);
        Self { tributary, prometheus, fixture }
    }

    /// Serves a body at a time and waits until both servers hold it.
    pub(crate) fn step(&self, step: usize, at_ms: i64, body: &str) {
        serve_step(&self.fixture, PATH, step, at_ms, body);
        for server in [&self.prometheus, &self.tributary] {
            wait_for_step(server, "fixture", step, at_ms);
        }
    }
}

/// A `prometheus.yml` with one job and one target, and more text of a scrape config.
///
/// Out-of-order samples are refused, as in Prometheus by default: Tributary's own default takes them for 30 min.
pub(crate) fn config(job: &str, target: &str, path: &str, more: &str) -> String {
    format!(
        "global:\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\nstorage:\n  tsdb:\n    out_of_order_time_window: 0s\n\
         scrape_configs:\n- job_name: {job}\n  metrics_path: {path}\n  static_configs:\n  - targets: ['{target}']\n{more}"
    )
}

/// Serves a body that ends with the number of the step.
pub(crate) fn serve_step(fixture: &Fixture, path: &str, step: usize, at_ms: i64, body: &str) {
    fixture.serve(path, format!("{body}# TYPE {STEP} gauge\n{STEP} {step} {at_ms}\n"));
}

/// Waits until a server holds a step: a scrape is stored as a whole, so that the rest of the body is there as well.
pub(crate) fn wait_for_step(server: &Server, job: &str, step: usize, at_ms: i64) {
    let http = server.http();
    let query = format!("{STEP}{{job=\"{job}\"}}");
    eventually(&format!("{:?} has step {step} of {job}", server.kind()), || {
        promql::single(&http, &query, at_ms + 1).filter(|value| *value == step as f64)
    });
}

/// The time of step 0: far enough back for `span_ms` of history, and off the whole second, so that no subquery step
/// falls on a sample. (A range includes its left edge in 2.42 and not in 3.x.)
pub(crate) fn base_ms(span_ms: i64) -> i64 {
    (now_ms() - span_ms) / 1000 * 1000 + 123
}

/// Adds a family to a body.
pub(crate) fn family(body: &mut String, name: &str, kind: &str, at_ms: i64, samples: &[(String, f64)]) {
    writeln!(body, "# HELP {name} Of the fixture.\n# TYPE {name} {kind}").expect("a string");
    for (series, value) in samples {
        writeln!(body, "{series} {} {at_ms}", model::number::format_general(*value)).expect("a string");
    }
}
