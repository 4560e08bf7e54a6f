//! Loops in paused time. Their targets are refused, so that no socket takes part: what is seen is `up` at 0.

use coordination::membership::Roster;
use group_writer::{Driver, GroupWriter, Options};
use test_kit::FakeClock;

use super::*;
use crate::client::Client;
use crate::fake_ingester::FakeIngester;
use crate::targets::tests::{job, shared, target};
use crate::targets::{RunningJob, Start, Target, Targets, Update};

const START: i64 = 1_000_000_000;

struct Story {
    clock: FakeClock,
    ingester: FakeIngester,
    targets: Targets,
    stop: service_runtime::ShutdownTrigger,
    /// The first tick.
    tick: i64,
}

fn refused(epoch: u64) -> Target {
    Target { error: "target_limit exceeded".into(), ..target("h:1", epoch) }
}

/// Starts the loop of one target. What is returned last keeps the member list.
fn story() -> (Story, impl Send) {
    let ingester = FakeIngester::new();
    let (writer, driver, roster) = ingester.writer();
    (story_with(ingester, writer, driver), roster)
}

fn story_with(ingester: FakeIngester, writer: GroupWriter, driver: Driver) -> Story {
    let clock = FakeClock::at(Timestamp(START));
    let (stop, shutdown) = Shutdown::new();
    let metrics = Metrics::register(&service_runtime::Metrics::default());
    let around = Surroundings {
        clock: clock.clock(),
        outlet: Outlet::new(writer, metrics.clone()),
        metrics: metrics.clone(),
        readers: Arc::new(Semaphore::new(1)),
        shutdown,
    };
    spawn(driver.run());
    let start: Start = Box::new(move |orders, shown| {
        let scrape_loop = ScrapeLoop::new(around.clone(), shown);
        spawn(async move { scrape_loop.run(orders).await.unwrap() });
    });
    let mut targets = Targets::new(start, shared(), metrics, crate::targets::Registry::default(), "h".into());
    let target = refused(1);
    let assignment = Assignment {
        job: Arc::new(RunningJob { client: Client::new(&job("j"), shared()), job: job("j") }),
        target: Arc::new(target.clone()),
        offset_seed: crate::schedule::offset_seed("h", &model::Labels::empty()),
    };
    let tick = schedule_of(&assignment).next(Timestamp(START)).millis();
    targets.apply(Update {
        is_snapshot: true,
        jobs: vec![job("j")],
        targets: vec![target],
        ..Update::default()
    });
    Story { clock, ingester, targets, stop, tick }
}

#[expect(clippy::disallowed_methods, reason = "a test stands outside of the service's tasks")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(task));
}

impl Story {
    /// Moves on to a time in milliseconds after the first tick.
    async fn at(&self, after_tick: i64) {
        let by = self.tick + after_tick - self.clock.clock().now().millis();
        self.clock.advance(Duration::ZERO).await;
        self.clock.advance(Duration::from_millis(u64::try_from(by).unwrap())).await;
    }

    /// `up` so far, with times after the first tick.
    fn up(&self) -> Vec<(String, i64)> {
        let stored = self.ingester.stored();
        let up = stored.into_iter().filter(|sample| sample.labels.contains("\"up\""));
        up.map(|sample| (sample.value, sample.at - self.tick)).collect()
    }

    fn remove(&mut self, reason: Removal, epoch: u64) {
        self.targets.apply(Update { removed: vec![("h:1".into(), reason, epoch)], ..Update::default() });
    }
}

fn zeros(times: &[i64]) -> Vec<(String, i64)> {
    times.iter().map(|time| ("0".to_owned(), *time)).collect()
}

#[tokio::test(start_paused = true)]
async fn scrapes_bear_the_time_of_their_tick() {
    let (story, _roster) = story();
    story.at(-2).await;
    assert_eq!(story.up(), []);
    // A timer may fire a millisecond early or late.
    for after in [-1, 10_001, 20_000] {
        story.at(after).await;
    }
    assert_eq!(story.up(), zeros(&[0, 10_000, 20_000]));
    story.at(30_007).await;
    assert_eq!(story.up()[3..], zeros(&[30_007]), "beyond the tolerance it is the time itself");
    story.at(40_000).await;
    assert_eq!(story.up()[4..], zeros(&[40_000]));
    let stored = story.ingester.stored();
    assert_eq!(stored.len(), 5 * 5, "five report series");
    assert_eq!(stored[4].append, stored[0].append, "one append a scrape");
}

#[tokio::test(start_paused = true)]
async fn markers_follow_two_intervals_after_a_target_is_gone() {
    let (mut story, _roster) = story();
    story.at(0).await;
    story.at(4_000).await;
    story.remove(Removal::Gone, 1);
    // Two intervals and a tenth, counted from the last scrape.
    story.at(20_998).await;
    assert_eq!(story.up(), zeros(&[0]));
    story.at(21_000).await;
    assert_eq!(
        story.up()[1..],
        [("stale".to_owned(), 10_000)],
        "at the time of the scrape that would have been"
    );
    assert_eq!(story.ingester.stored().len(), 5 + 5, "five report series");
    story.at(100_000).await;
    assert_eq!(story.ingester.stored().len(), 5 + 5);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_comes_back_in_time_goes_on() {
    let (mut story, _roster) = story();
    story.at(0).await;
    story.remove(Removal::Gone, 1);
    story.at(15_000).await;
    story.targets.apply(Update { targets: vec![refused(2)], ..Update::default() });
    story.at(20_000).await;
    story.at(30_000).await;
    let times: Vec<i64> = story.up().iter().map(|(_, time)| *time).collect();
    assert_eq!(times, [0, 15_000, 20_000, 30_000], "what is overdue is scraped at once");
    assert!(story.up().iter().all(|(value, _)| value == "0"));
    let epochs: Vec<u64> = story.ingester.stored().iter().step_by(5).map(|sample| sample.epoch).collect();
    assert_eq!(epochs, [1, 2, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_moved_and_a_scraper_that_stops_write_no_markers() {
    for is_stopped in [false, true] {
        let (mut story, _roster) = story();
        story.at(0).await;
        if is_stopped {
            story.remove(Removal::Gone, 1);
            story.stop.request();
        } else {
            story.remove(Removal::Moved, 1);
        }
        for after in [10_000, 21_000, 100_000] {
            story.at(after).await;
        }
        assert_eq!(story.up(), zeros(&[0]));
    }
}

#[tokio::test(start_paused = true)]
async fn markers_that_nobody_takes_are_given_up() {
    // Without an ingester the first batch fills the buffer for good.
    let (_roster, ingesters) = watch::channel(Roster::default());
    let options = Options { buffer_bytes_max: 1, ..Options::default() };
    let (writer, driver) = GroupWriter::new(options, ingesters, Arc::new(|_| Err("not reached".into())));
    let mut story = story_with(FakeIngester::new(), writer, driver);
    story.at(0).await;
    story.remove(Removal::Gone, 1);
    story.at(21_000).await;
    let has_loop = |story: &mut Story| {
        story.targets.reap();
        format!("{:?}", story.targets).contains("loops: 1")
    };
    for tried in 1..END_TRIES {
        story.at(21_000 + 1_000 * i64::from(tried)).await;
        assert!(has_loop(&mut story), "after {tried} seconds");
    }
    story.at(21_000 + 1_000 * i64::from(END_TRIES)).await;
    assert!(!has_loop(&mut story));
}
