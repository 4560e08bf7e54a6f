//! The loop of one target: wait for its tick, scrape, hand the samples in.
//!
//! Invariants:
//! - each scrape gives one batch, report series included, whatever went wrong;
//! - a stop of the scraper ends the loop at once and writes nothing;
//! - work on a body that takes long leaves the async threads.

use std::sync::Arc;
use std::time::Duration;

use exposition::protocol::select_format;
use group_writer::GroupIdentity;
use model::{Clock, Tenant, Timestamp};
use service_runtime::{BoxError, Shutdown};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tracing::debug;

use crate::cache::{Report, ScrapeCache, Tally, Times};
use crate::client::Body;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::metrics::Metrics;
use crate::outlet::{InFlight, Outlet};
use crate::schedule::Schedule;
use crate::targets::{Assignment, Order, Removal, Shown};

/// How far ahead of the clock the timestamp of a sample may be, as in Prometheus.
const AHEAD_MS_MAX: i64 = 10 * 60 * 1_000;
/// Bodies up to this many bytes are read at once: that takes less than half a millisecond.
const INLINE_BYTES_MAX: usize = 16 << 10;
/// As above, for bodies that have to be decompressed.
const INLINE_GZIP_BYTES_MAX: usize = 2 << 10;
/// Tokio's timers fire up to a millisecond late, so they are set as much earlier, where a tick tolerates that.
const TIMER_LATE_MS: i64 = 1;
/// How often the markers of a target that is gone are offered to a writer that is full.
const END_TRIES: u32 = 120;
/// How long after the last offer.
const END_RETRY: Duration = Duration::from_secs(1);

/// What all loops share.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub(crate) clock: Clock,
    pub(crate) outlet: Outlet,
    pub(crate) metrics: Metrics,
    /// Bodies that may be read at one time away from the async threads.
    pub(crate) readers: Arc<Semaphore>,
    pub(crate) shutdown: Shutdown,
}

/// The loop of one target.
pub(crate) struct ScrapeLoop {
    around: Surroundings,
    shown: Arc<Shown>,
    assignment: Assignment,
    schedule: Schedule,
    cache: Box<ScrapeCache>,
    in_flight: InFlight,
    has_scraped: bool,
    /// Bytes that the last body took.
    body_bytes: usize,
}

/// What a scrape came to.
struct Outcome {
    tally: Tally,
    result: Result<()>,
    /// Bytes of the body after decompression.
    body_size: i64,
}

impl Outcome {
    fn failed(error: Error) -> Self {
        let body_size = if error == Error::BodySize { -1 } else { 0 };
        Self { tally: Tally::default(), result: Err(error), body_size }
    }
}

impl ScrapeLoop {
    pub(crate) fn new(around: Surroundings, shown: Arc<Shown>) -> Self {
        let assignment = shown.assignment();
        let target = &assignment.target;
        let identity = GroupIdentity {
            tenant: Tenant::default(),
            key: target.labels.clone(),
            sub_group: 0,
            epoch: target.epoch,
        };
        Self {
            schedule: schedule_of(&assignment),
            cache: Box::new(ScrapeCache::new(identity)),
            around,
            shown,
            assignment,
            in_flight: InFlight::default(),
            has_scraped: false,
            body_bytes: 0,
        }
    }

    /// Runs until the target is stopped, the orders end, or the scraper stops.
    pub(crate) async fn run(
        mut self,
        mut orders: watch::Receiver<Order>,
    ) -> std::result::Result<(), BoxError> {
        let shutdown = self.around.shutdown.clone();
        loop {
            let order = orders.borrow_and_update().clone();
            let step = async {
                match order {
                    Order::Scrape(assignment) => {
                        self.adopt(assignment);
                        let lead_ms = self.schedule.tolerance_ms().min(TIMER_LATE_MS);
                        let tick = self.schedule.next(self.around.clock.now());
                        if self.wait_until(tick.add_ms(-lead_ms), &mut orders).await {
                            self.scrape().await?;
                        }
                    }
                    Order::Stop(reason) => self.stop(reason, &mut orders).await,
                }
                Ok::<(), BoxError>(())
            };
            tokio::select! {
                () = shutdown.requested() => return Ok(()),
                done = step => done?,
            }
            if orders.has_changed().is_err() {
                return Ok(());
            }
        }
    }

    /// Takes over what changed about the target or its job.
    fn adopt(&mut self, assignment: Assignment) {
        self.shown.status.lock().has_ended = false;
        let schedule = schedule_of(&assignment);
        if !schedule.is_same_grid(&self.schedule) {
            self.schedule = schedule.after(&self.schedule);
        }
        if !assignment.job.job.rules.makes_same_series(&self.assignment.job.job.rules) {
            self.cache.forget_texts();
        }
        self.cache.set_epoch(assignment.target.epoch);
        self.assignment = assignment;
    }

    /// Waits; false when there is another order first.
    async fn wait_until(&self, time: Timestamp, orders: &mut watch::Receiver<Order>) -> bool {
        let wait_ms = time.since_ms(self.around.clock.now());
        let Ok(wait_ms) = u64::try_from(wait_ms) else { return true };
        tokio::select! {
            // An error is the end of all orders, which the caller notices.
            _ = orders.changed() => {
                orders.mark_changed();
                false
            }
            () = tokio::time::sleep(Duration::from_millis(wait_ms)) => true,
        }
    }

    /// Scrapes once. Fails only when reading a body panicked, after which the cache is lost.
    async fn scrape(&mut self) -> std::result::Result<(), BoxError> {
        let now = self.around.clock.now();
        let at = self.schedule.stamp(now);
        let times = Times { at, latest: now.add_ms(AHEAD_MS_MAX) };
        let started = Instant::now();
        let assignment = self.assignment.clone();
        let (target, job) = (&assignment.target, &assignment.job.job);

        let outcome = match &job.refusal {
            _ if !target.error.is_empty() => self.skip(Error::Refused(target.error.clone())),
            Some(refusal) => self.skip(Error::Refused(refusal.clone())),
            None => {
                let client = &assignment.job.client;
                match client.fetch(&target.url, target.timeout, self.body_bytes).await {
                    Err(error) => self.skip(error),
                    Ok(fetched) => self.read(fetched.body, fetched.content_type, job, times).await?,
                }
            }
        };

        let took = started.elapsed();
        let error = outcome.result.err();
        let extra = job
            .has_extra_metrics
            .then(|| (target.timeout.as_secs_f64(), job.rules.sample_limit, outcome.body_size));
        let report = Report {
            is_up: error.is_none(),
            duration_seconds: took.as_secs_f64(),
            samples_scraped: outcome.tally.scraped,
            samples_post_relabel: outcome.tally.post_relabel,
            series_added: outcome.tally.series_added,
            extra,
        };
        let batch = self.cache.close(at, &report);
        let is_stored = self.around.outlet.send(batch, &mut self.in_flight);
        if self.cache.settle(is_stored) {
            self.around.metrics.cache_flushes.inc();
        }
        self.has_scraped |= is_stored;
        self.around.metrics.count_scrape(&outcome.tally, error.as_ref(), took);
        if let Some(error) = &error {
            debug!(%error, job = &*job.name, url = target.url, "scrape failed");
        }
        let mut status = self.shown.status.lock();
        status.last_scrape = Some((now, took.as_secs_f64(), error.map(|error| error.to_string())));
        if let Some(metadata) = self.cache.take_new_metadata() {
            status.metadata = metadata;
        }
        Ok(())
    }

    fn skip(&mut self, error: Error) -> Outcome {
        self.cache.skip();
        Outcome::failed(error)
    }

    /// Reads a body, away from the async threads when it is large.
    async fn read(
        &mut self,
        body: Body,
        content_type: String,
        job: &Job,
        times: Times,
    ) -> std::result::Result<Outcome, BoxError> {
        let wire_bytes = body.wire_len();
        let inline_max = if body.is_gzip() { INLINE_GZIP_BYTES_MAX } else { INLINE_BYTES_MAX };
        let outcome = if wire_bytes <= inline_max {
            read_body(&mut self.cache, body, &content_type, job, times)
        } else {
            let permit = self.around.readers.clone().acquire_owned().await?;
            let identity = self.cache.identity().clone();
            let mut cache = std::mem::replace(&mut self.cache, Box::new(ScrapeCache::new(identity)));
            let assignment = self.assignment.clone();
            let read = move || {
                let outcome = read_body(&mut cache, body, &content_type, &assignment.job.job, times);
                drop(permit);
                (cache, outcome)
            };
            let (cache, outcome) = tokio::task::spawn_blocking(read).await?;
            self.cache = cache;
            outcome
        };
        let text_bytes = usize::try_from(outcome.body_size).unwrap_or(0);
        if text_bytes > 0 {
            self.body_bytes = if text_bytes == wire_bytes { wire_bytes } else { wire_bytes + text_bytes };
        }
        Ok(outcome)
    }

    /// Ends the target's series when it is gone, then waits for another order.
    async fn stop(&mut self, reason: Removal, orders: &mut watch::Receiver<Order>) {
        if reason == Removal::Gone && self.has_scraped && !self.write_end(orders).await {
            return;
        }
        self.has_scraped = false;
        self.shown.status.lock().has_ended = true;
        // The end of the orders is as good as another one.
        if orders.changed().await.is_ok() {
            orders.mark_changed();
        }
    }

    /// Writes the markers two intervals and a tenth after the target is gone: it may come back, and then its series
    /// go on. They bear the time of the scrape that would have been next. False when there is another order first.
    async fn write_end(&mut self, orders: &mut watch::Receiver<Order>) -> bool {
        let next = self.schedule.next(self.around.clock.now());
        let interval_ms = i64::try_from(self.assignment.target.interval.as_millis()).unwrap_or(i64::MAX);
        let due = next.add_ms(interval_ms).add_ms(interval_ms / 10);
        if !self.wait_until(due, orders).await {
            return false;
        }
        for _ in 0..END_TRIES {
            let batch = self.cache.end(next);
            if self.around.outlet.send(batch, &mut self.in_flight) {
                break;
            }
            let retry = self.around.clock.now().add_ms(i64::try_from(END_RETRY.as_millis()).unwrap_or(1_000));
            if !self.wait_until(retry, orders).await {
                return false;
            }
        }
        true
    }
}

fn schedule_of(assignment: &Assignment) -> Schedule {
    let target = &assignment.target;
    Schedule::new(target.interval, target.labels_hash, &target.url, assignment.offset_seed)
}

/// Decompresses and reads a body. Takes time in proportion to it.
fn read_body(cache: &mut ScrapeCache, body: Body, content_type: &str, job: &Job, times: Times) -> Outcome {
    let read = body.with_text(|text| {
        let body_size = i64::try_from(text.len()).unwrap_or(i64::MAX);
        if text.is_empty() {
            // Nothing to read is no reason to look at what it should have been.
            cache.skip();
            return Outcome { tally: Tally::default(), result: Ok(()), body_size };
        }
        match select_format(content_type, job.fallback) {
            Err(error) => {
                cache.skip();
                Outcome { tally: Tally::default(), result: Err(error.into()), body_size }
            }
            Ok(selection) => {
                if let Some(complaint) = selection.complaint {
                    debug!(job = &*job.name, complaint, "the fallback format is used");
                }
                let (tally, result) = cache.read(text, selection.format, &job.rules, times);
                Outcome { tally, result, body_size }
            }
        }
    });
    read.unwrap_or_else(|error| {
        cache.skip();
        Outcome::failed(error)
    })
}

#[cfg(test)]
mod tests;
