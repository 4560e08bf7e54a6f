//! What a cluster does while parts of it are away: a scraper, an ingester, etcd, each member in its turn.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use integration_tests::{Cluster, Fixture, Http, Server, Store, eventually, now_ms, promql};

use crate::writers::{Writer, writers};

/// Targets of the fixture: so many that some are due whenever nobody scrapes for a moment.
const TARGETS: usize = 42;
/// How often they are scraped: so seldom that a machine which stands still for five seconds makes no gap.
const INTERVAL_MS: i64 = 7_000;
/// Longer than that between two samples of a target, and an interval was missed.
const GAP_MS_MAX: i64 = INTERVAL_MS * 7 / 4;
/// How soon the targets of a scraper that died are scraped by another.
const TAKE_OVER: Duration = Duration::from_secs(30);
/// How long etcd is away, in `make test` and in `make soak`.
const OUTAGE: Duration = Duration::from_secs(20);
const OUTAGE_SOAK: Duration = Duration::from_secs(120);
/// All members but the gateway, which is replaced by another.
const RESTARTED: [&str; 7] =
    ["discovery-0", "scraper-0", "scraper-1", "querier-0", "querier-1", "ingester-0", "ingester-1"];

/// A cluster that scrapes the targets of a fixture, each with a body.
struct Story {
    server: Server,
    _fixture: Fixture,
}

impl Story {
    fn start(store: Store) -> Self {
        let fixture = Fixture::start();
        let mut config = format!(
            "global: {{scrape_interval: {INTERVAL_MS}ms, scrape_timeout: {INTERVAL_MS}ms}}\n\
             scrape_configs:\n- job_name: fixture\n  static_configs:\n"
        );
        for number in 0..TARGETS {
            fixture.serve(&format!("/{number}"), "moved 1\n");
            let labels = format!("{{__metrics_path__: /{number}, instance: 't{number}'}}");
            writeln!(config, "  - {{targets: ['{}'], labels: {labels}}}", fixture.address())
                .expect("a string");
        }
        let mut story = Self { server: Server::start_cluster(&config, store), _fixture: fixture };
        eventually("both scrapers have targets, and all are up", || {
            let [first, second] = story.shares();
            let up = promql::single(&story.server.http(), "sum(up{job=\"fixture\"})", now_ms());
            let is_shared = first > 0 && second > 0 && first + second == TARGETS;
            (is_shared && up == Some(TARGETS as f64)).then_some(())
        });
        story
    }

    fn cluster(&mut self) -> &mut Cluster {
        self.server.cluster()
    }

    /// How many targets each scraper has; 0 while it is away.
    fn shares(&mut self) -> [usize; 2] {
        let cluster = self.cluster();
        ["scraper-0", "scraper-1"].map(|name| {
            let metrics = cluster.http(name).try_get("/metrics", &[]);
            let body = metrics.map(|reply| reply.body).unwrap_or_default();
            let line =
                body.lines().find_map(|line| line.strip_prefix("scraper_targets{scrape_job=\"fixture\"} "));
            line.and_then(|count| count.parse().ok()).unwrap_or(0)
        })
    }

    /// The times of every sample of `up` in the last minutes, by target.
    fn scrapes(&self) -> BTreeMap<String, Vec<i64>> {
        let answer = promql::instant(&self.server.http(), "up{job=\"fixture\"}[10m]", now_ms());
        let times = |s: &promql::Series| s.floats.iter().map(|(t, _)| *t).collect();
        answer.series.iter().map(|s| (s.labels["instance"].clone(), times(s))).collect()
    }

    /// Waits until every target was scraped after a time.
    fn wait_for_scrapes(&self, since: i64) {
        eventually("every target is scraped", || {
            let scrapes = self.scrapes();
            let is_new = |times: &Vec<i64>| times.last().is_some_and(|last| *last > since);
            (scrapes.len() == TARGETS && scrapes.values().all(is_new)).then_some(())
        });
    }

    /// Where an interval went by without a scrape.
    fn gaps(&self, since: i64) -> Vec<String> {
        let mut gaps = Vec::new();
        for (target, times) in self.scrapes() {
            let times: Vec<i64> = times.into_iter().filter(|t| *t > since).collect();
            let missed = times.windows(2).filter(|pair| pair[1] - pair[0] > GAP_MS_MAX);
            gaps.extend(missed.map(|pair| format!("{target}: nothing between {} and {}", pair[0], pair[1])));
        }
        gaps
    }
}

/// The gateway that clients find behind the name of the service.
struct Front(RwLock<Http>);

impl Front {
    fn of(gateway: Http) -> Self {
        Self(RwLock::new(gateway))
    }

    fn http(&self) -> Http {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// New requests go to another gateway. Waits for queries that are on their way to the one before, as the pause
    /// before a gateway's pod is stopped does.
    fn turn_to(&self, gateway: Http) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = gateway;
    }
}

/// Asks the same query over and over; what does not come back with all targets is kept.
fn ask(front: &Front, is_over: &AtomicBool, failures: &Mutex<Vec<String>>) {
    while !is_over.load(Ordering::Relaxed) {
        let reply = {
            let gateway = front.0.read().unwrap_or_else(PoisonError::into_inner);
            gateway.try_get("/api/v1/query", &[("query", "count(up{job=\"fixture\"})")])
        };
        let is_whole = |body: &str| body.contains(&format!("\"{TARGETS}\"]")) && !body.contains("warnings");
        let failure = match reply {
            Some(reply) if reply.status == 200 && is_whole(&reply.body) => None,
            Some(reply) => Some(format!("{}: {}", reply.status, reply.body)),
            None => Some("no answer".to_owned()),
        };
        failures.lock().expect("no panic while held").extend(failure);
        thread::sleep(Duration::from_millis(50));
    }
}

/// Runs a story while clients write and ask; returns the failed queries.
fn under_load(front: &Front, writers: &[Writer], story: impl FnOnce()) -> Vec<String> {
    let (is_over, failures) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for writer in writers {
            scope.spawn(|| writer.send(|| front.http(), &is_over));
        }
        scope.spawn(|| ask(front, &is_over, &failures));
        // Whatever happens in the story, the clients end.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(story));
        is_over.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    failures.into_inner().expect("no panic while held")
}

fn outage() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "how the tests are run is said by who runs them")]
    let is_soak = std::env::var_os("TRIBUTARY_SOAK").is_some();
    if is_soak { OUTAGE_SOAK } else { OUTAGE }
}

pub(crate) fn total(writers: &[Writer]) -> i64 {
    writers.iter().map(Writer::acknowledged).sum()
}

pub(crate) fn wait_for_writes(writers: &[Writer]) {
    let before = total(writers);
    eventually("writes go on", || (total(writers) > before + 40).then_some(()));
}

#[test]
fn targets_of_a_scraper_that_leaves_are_scraped_by_the_other() {
    let mut story = Story::start(Store::Folder);
    let killed_at = now_ms();
    let killed = Instant::now();
    story.cluster().kill_9_member("scraper-0");
    let count = "count(up{job=\"fixture\"})";
    let is_taken_over = |story: &mut Story| {
        let up = promql::single(&story.server.http(), count, now_ms());
        assert_eq!(up, Some(TARGETS as f64), "a target that only moved has no staleness marker");
        let scrapes = story.scrapes();
        scrapes.values().all(|times| times.last().is_some_and(|last| *last > killed_at + INTERVAL_MS))
    };
    while !is_taken_over(&mut story) {
        assert!(killed.elapsed() < TAKE_OVER, "not taken over: {:?}", story.shares());
        thread::sleep(Duration::from_millis(100));
    }
    println!("taken over after {:?}", killed.elapsed());

    story.cluster().start_member("scraper-0");
    eventually("the scraper has its targets again", || (story.shares()[0] > 0).then_some(()));
    let since = now_ms();
    story.wait_for_scrapes(since + 2 * INTERVAL_MS);
    story.cluster().stop_member("scraper-0");
    story.wait_for_scrapes(now_ms() + 2 * INTERVAL_MS);
    assert_eq!(story.gaps(since), Vec::<String>::new());
}

#[test]
fn an_ingester_that_hangs_stops_nobody() {
    let mut story = Story::start(Store::S3);
    let (http, writers) = (story.server.http(), writers());
    let hang = || {
        wait_for_writes(&writers);
        story.cluster().pause("ingester-1");
        wait_for_writes(&writers);
        let refused = http.get("/api/v1/query", &[("query", "count(ledger)")]);
        assert_eq!(refused.status, 503, "{}", refused.body);
        assert!(refused.body.contains(" of ingester-1: "), "{}", refused.body);
        let partial = [("query", "count(ledger)"), ("partial_response", "true")];
        let partial = http.get("/api/v1/query", &partial);
        assert_eq!(partial.status, 200, "{}", partial.body);
        assert!(partial.body.contains("\"warnings\":[\"partial response: log "), "{}", partial.body);
        let federate = http.get("/federate", &[("match[]", "ledger")]);
        assert_eq!(federate.status, 503, "{}", federate.body);
        story.cluster().resume("ingester-1");
        eventually("everything can be asked for again", || {
            http.try_get("/api/v1/query", &[("query", "count(ledger)")]).filter(|reply| reply.status == 200)
        });
        wait_for_writes(&writers);
    };
    under_load(&Front::of(http.clone()), &writers, hang);
    writers.iter().for_each(|writer| writer.check(&http));
}

#[test]
fn etcd_may_be_away() {
    let mut story = Story::start(Store::S3);
    let (http, writers) = (story.server.http(), writers());
    let (before, since) = (story.shares(), now_ms());
    let failed = under_load(&Front::of(http.clone()), &writers, || {
        wait_for_writes(&writers);
        story.cluster().etcd.kill_all();
        let away = Instant::now();
        while away.elapsed() < outage() {
            wait_for_writes(&writers);
            assert_eq!(story.shares(), before);
        }
        story.cluster().etcd.start_all();
        wait_for_writes(&writers);
        assert!(story.cluster().etcd.revoke_all_leases() > 0);
        wait_for_writes(&writers);
        story.wait_for_scrapes(now_ms() + INTERVAL_MS);
        assert_eq!(story.shares(), before, "nothing is reshuffled");
    });
    assert_eq!(failed, Vec::<String>::new());
    assert_eq!(writers.iter().map(Writer::failures).sum::<u64>(), 0);
    assert_eq!(story.gaps(since), Vec::<String>::new());
    writers.iter().for_each(|writer| writer.check(&http));
}

#[test]
fn members_are_restarted_one_after_the_other() {
    let mut story = Story::start(Store::S3);
    let (front, writers) = (Front::of(story.server.http()), writers());
    let failed = under_load(&front, &writers, || {
        for name in RESTARTED {
            wait_for_writes(&writers);
            story.cluster().stop_member(name);
            story.cluster().start_member(name);
        }
        // As a rollout does: the next one is ready before the last one is told to stop.
        for (next, last) in [("gateway-1", "gateway-0"), ("gateway-0", "gateway-1")] {
            wait_for_writes(&writers);
            story.cluster().start_member(next);
            front.turn_to(story.cluster().http(next));
            story.cluster().stop_member(last);
        }
        wait_for_writes(&writers);
    });
    assert_eq!(failed, Vec::<String>::new());
    writers.iter().for_each(|writer| writer.check(&front.http()));
}
