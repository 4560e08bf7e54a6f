//! Group commit: one thread hands what has gathered to the log, and when that is durable to the head, then answers.
//!
//! Several segments may be under way at a time. The thread itself waits for none of them: whatever a store does, pushes
//! go on until the queue is full.
//!
//! Invariants:
//! - batches are written, made visible and answered in the order in which they were pushed;
//! - nothing is made visible or answered before its segment and all before it are durable;
//! - after a failure everything that waits and everything that comes is refused;
//! - while the store has not taken a segment for long, whoever waits and whoever comes is refused as well, and what
//!   was pushed becomes durable all the same once the store takes it.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use model::Clock;
use tokio::sync::{Notify, oneshot, watch};
use ulid::Ulid;

use super::Writer;
use super::segment::Role;
use crate::error::{Error, Result};
use crate::head::GroupSamples;

/// Groups made visible under one lock of the head.
const GROUPS_PER_LOCK: usize = 16;

/// Why nothing can be stored in a log any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFailure {
    /// What went wrong.
    pub reason: String,
    /// There was no room: another log can take its place once there is.
    pub is_full: bool,
}

impl From<Error> for LogFailure {
    fn from(error: Error) -> Self {
        let is_full = matches!(&error, Error::Io { source, .. } if is_full(source));
        match error {
            Error::LogEnded { reason, .. } => Self { reason, is_full },
            error => Self { reason: error.to_string(), is_full },
        }
    }
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// Records that become durable together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Framed records; may be empty for one that only waits for those before it.
    pub(crate) records: Vec<u8>,
    /// What becomes visible once they are durable.
    pub(crate) samples: Vec<GroupSamples>,
    /// Who wants to know; gets the segment through which everything is durable.
    pub(crate) done: Option<oneshot::Sender<Result<u64>>>,
    /// Asks for a segment even without records, or for the seal, behind which nothing may be pushed.
    pub(crate) role: Option<Role>,
    /// Ends a generation between what was pushed before and what comes after; such a batch holds nothing else.
    pub(crate) cut: Option<oneshot::Sender<Result<Cut>>>,
}

/// Where a generation ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    /// The last segment before it; durable and visible.
    pub(crate) through: u64,
    /// The generation that ended.
    pub(crate) generation: u32,
}

/// When to write.
#[derive(Debug, Clone)]
pub(crate) struct CommitOptions {
    pub(crate) delay: Duration,
    /// A segment of this size does not wait.
    pub(crate) bytes: usize,
    /// A segment takes no further batch beyond this size.
    pub(crate) segment_bytes_max: usize,
    /// Segments under way at a time.
    pub(crate) in_flight_max: usize,
    /// A segment that is under way for longer stalls the log.
    pub(crate) stall_after: Duration,
    pub(crate) queue_bytes_max: usize,
    /// The first segment is not written before this much time has passed since the start.
    pub(crate) birth_delay: Duration,
    pub(crate) clock: Clock,
}

/// Makes samples of a segment visible, by its number.
pub(crate) type Apply = Box<dyn FnMut(u64, &[GroupSamples]) + Send>;

/// What becomes of durable segments.
pub(crate) struct Outlet {
    /// Makes samples visible.
    pub(crate) apply: Apply,
    /// Ends a generation and returns its number.
    pub(crate) cut: Box<dyn FnMut() -> u32 + Send>,
}

/// The queue before a log and the thread that empties it.
#[derive(Debug)]
pub(crate) struct Committer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    queue_bytes_max: usize,
}

#[derive(Debug)]
struct Shared {
    id: Ulid,
    queue: Mutex<Queue>,
    /// Something was pushed, a segment is done, or the thread shall stop.
    pushed: Condvar,
    /// The thread has taken what waited, or will take nothing more.
    taken: Notify,
    log: Mutex<Box<dyn Writer>>,
    /// Why the log has ended, once it has failed.
    failed: watch::Sender<Option<LogFailure>>,
}

#[derive(Debug, Default)]
struct Queue {
    batches: VecDeque<Batch>,
    bytes: usize,
    in_flight: VecDeque<InFlight>,
    stops: bool,
    failure: Option<LogFailure>,
    /// Why the first segment under way is not durable yet, after so long.
    stalled: Option<String>,
}

/// A segment that was handed to the log and is not visible yet.
#[derive(Debug)]
struct InFlight {
    seq: u64,
    /// Since when it has been the first, or under way.
    since: Instant,
    samples: Arc<Vec<GroupSamples>>,
    done: Vec<oneshot::Sender<Result<u64>>>,
    outcome: Option<Result<(), LogFailure>>,
}

/// What the thread does next.
enum Step {
    Write(Role, Vec<u8>),
    /// The first segment under way has an outcome.
    Settle,
    /// The first segment under way has been so for too long.
    Stall,
    Cut(oneshot::Sender<Result<Cut>>),
    Stop,
}

impl Committer {
    pub(crate) fn start(log: Box<dyn Writer>, options: CommitOptions, outlet: Outlet) -> Result<Self> {
        let queue_bytes_max = options.queue_bytes_max;
        let shared = Arc::new(Shared {
            id: log.id(),
            queue: Mutex::default(),
            pushed: Condvar::new(),
            taken: Notify::new(),
            log: Mutex::new(log),
            failed: watch::Sender::new(None),
        });
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name("log-writer".to_owned())
                .spawn(move || shared.run(&options, outlet))
                .map_err(Error::io("start thread", "log-writer"))?
        };
        Ok(Self { shared, thread: Mutex::new(Some(thread)), queue_bytes_max })
    }

    /// Refuses when the queue is full, or the log is stalled or over; to be asked before anything is changed for an
    /// append.
    pub(crate) fn check_room(&self) -> Result<()> {
        let queue = self.shared.queue();
        self.shared.check(&queue)?;
        if let Some(reason) = &queue.stalled {
            return Err(self.shared.stalled(reason));
        }
        if queue.bytes >= self.queue_bytes_max {
            return Err(Error::Busy { waiting: queue.bytes, limit: self.queue_bytes_max });
        }
        Ok(())
    }

    /// Waits until the queue has room or refuses for another reason than being full.
    pub(crate) async fn room(&self) {
        loop {
            let mut taken = pin!(self.shared.taken.notified());
            // Counted from here on, so that room made between the look and the wait is not missed.
            taken.as_mut().enable();
            if !matches!(self.check_room(), Err(Error::Busy { .. })) {
                return;
            }
            taken.await;
        }
    }

    /// Returns why the log has failed, once it has.
    pub(crate) async fn failed(&self) -> LogFailure {
        let mut failed = self.shared.failed.subscribe();
        let reason = failed.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            // The sender lives as long as this does.
            None => std::future::pending().await,
        }
    }

    /// Puts a batch at the end of the queue.
    pub(crate) fn push(&self, batch: Batch) -> Result<()> {
        let mut queue = self.shared.queue();
        self.shared.check(&queue)?;
        queue.bytes += batch.records.len();
        queue.batches.push_back(batch);
        drop(queue);
        self.shared.pushed.notify_one();
        Ok(())
    }

    /// Calls back for all samples that are on their way to the head.
    pub(crate) fn for_each_pending(&self, mut f: impl FnMut(&GroupSamples)) {
        let queue = self.shared.queue();
        queue.in_flight.iter().flat_map(|segment| segment.samples.iter()).for_each(&mut f);
        queue.batches.iter().flat_map(|batch| &batch.samples).for_each(&mut f);
    }

    /// The log. Never held while something is waited for.
    pub(crate) fn log(&self) -> MutexGuard<'_, Box<dyn Writer>> {
        lock(&self.shared.log)
    }

    /// Ends the thread; what is not durable by now is refused.
    pub(crate) fn stop(&self) {
        self.shared.queue().stops = true;
        self.shared.pushed.notify_all();
        let thread = lock(&self.thread).take();
        if thread.is_some_and(|t| t.join().is_err()) {
            tracing::error!("the log writer panicked");
        }
        lock(&self.shared.log).abandon();
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    fn check(&self, queue: &Queue) -> Result<()> {
        match &queue.failure {
            Some(failure) => Err(self.ended(failure)),
            None if queue.stops => Err(Error::Closed),
            None => Ok(()),
        }
    }

    fn ended(&self, failure: &LogFailure) -> Error {
        Error::LogEnded { log: self.id.to_string(), reason: failure.reason.clone() }
    }

    fn stalled(&self, reason: &str) -> Error {
        Error::LogStalled { log: self.id.to_string(), reason: reason.to_owned() }
    }

    fn run(self: &Arc<Self>, options: &CommitOptions, mut outlet: Outlet) {
        let panics = PanicGuard(self);
        let born = Instant::now();
        let mut seq = lock(&self.log).last_seq();
        let mut due = None;
        loop {
            match self.next_step(options, born, &mut due, &mut seq) {
                Step::Write(role, records) => self.write(role, &records, seq, options),
                Step::Settle => {
                    if let Err(failure) = self.settle(&mut outlet) {
                        self.fail(failure);
                        break;
                    }
                }
                Step::Stall => self.stall(options.stall_after),
                Step::Cut(done) => {
                    lock(&self.log).start_part();
                    answer(done, Ok(Cut { through: seq, generation: (outlet.cut)() }));
                }
                Step::Stop => break,
            }
        }
        std::mem::forget(panics);
        self.refuse_waiting();
    }

    /// Blocks until there is something to do.
    fn next_step(
        &self,
        options: &CommitOptions,
        born: Instant,
        due: &mut Option<Instant>,
        seq: &mut u64,
    ) -> Step {
        let mut queue = self.queue();
        loop {
            if queue.in_flight.front().is_some_and(|segment| segment.outcome.is_some()) {
                return Step::Settle;
            }
            if queue.stops {
                return Step::Stop;
            }
            let is_cut = queue.batches.front().is_some_and(|batch| batch.cut.is_some());
            if is_cut
                && queue.in_flight.is_empty()
                && let Some(done) = queue.batches.pop_front().and_then(|batch| batch.cut)
            {
                return Step::Cut(done);
            }
            let stalls_in = queue.stalls_in(options.stall_after);
            if stalls_in.is_some_and(|left| left.is_zero()) {
                return Step::Stall;
            }
            let mut left = stalls_in;
            if !is_cut && !queue.batches.is_empty() && queue.in_flight.len() < options.in_flight_max {
                let now = Instant::now();
                let birth = born + options.birth_delay;
                let until = *due.get_or_insert(now + options.delay);
                let is_urgent =
                    queue.bytes >= options.bytes || queue.batches.iter().any(|batch| batch.cut.is_some());
                let until = if is_urgent { birth } else { until.max(birth) };
                if until <= now {
                    *due = None;
                    let (role, records) = take_segment(&mut queue, options.segment_bytes_max, seq);
                    drop(queue);
                    self.taken.notify_waiters();
                    return match role {
                        Some(role) => Step::Write(role, records),
                        // Nothing to write: it is settled after those before it.
                        None => Step::Settle,
                    };
                }
                let until = until - now;
                left = Some(left.map_or(until, |left| left.min(until)));
            }
            queue = match left {
                Some(left) => self.pushed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.pushed.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn write(self: &Arc<Self>, role: Role, records: &[u8], seq: u64, options: &CommitOptions) {
        let shared = Arc::clone(self);
        let done = Box::new(move |outcome: Result<()>| {
            let mut queue = shared.queue();
            let segment = queue.in_flight.iter_mut().find(|s| s.seq == seq && s.outcome.is_none());
            if let Some(segment) = segment {
                segment.outcome = Some(outcome.map_err(LogFailure::from));
            }
            drop(queue);
            shared.pushed.notify_all();
        });
        lock(&self.log).submit(role, records, options.clock.now(), done);
    }

    /// Refuses whoever waits, until the store takes the first segment under way.
    fn stall(&self, after: Duration) {
        let hindrance = lock(&self.log).hindrance();
        let reason = hindrance.unwrap_or_else(|| format!("the store has not taken a segment for {after:?}"));
        tracing::error!(log = %self.id, reason, "nothing is stored until the log can be written again");
        let mut queue = self.queue();
        let queue = &mut *queue;
        let under_way = queue.in_flight.iter_mut().flat_map(|segment| segment.done.drain(..));
        for done in under_way.chain(queue.batches.iter_mut().filter_map(|batch| batch.done.take())) {
            answer(done, Err(self.stalled(&reason)));
        }
        queue.stalled = Some(reason);
        self.taken.notify_waiters();
    }

    /// Takes the outcome of the first segment under way, if it has one.
    fn settle(&self, outlet: &mut Outlet) -> Result<(), LogFailure> {
        let (seq, samples, outcome) = {
            let queue = self.queue();
            let Some(first) = queue.in_flight.front() else { return Ok(()) };
            let Some(outcome) = first.outcome.clone() else { return Ok(()) };
            (first.seq, Arc::clone(&first.samples), outcome)
        };
        outcome?;
        // Once without samples as well: the segment is acknowledged.
        (outlet.apply)(seq, &[]);
        for groups in samples.chunks(GROUPS_PER_LOCK) {
            (outlet.apply)(seq, groups);
        }
        // Only now, so that what is on its way can be seen at any time.
        let settled = {
            let mut queue = self.queue();
            if queue.stalled.take().is_some() {
                tracing::info!(log = %self.id, "the log is written again");
            }
            let settled = queue.in_flight.pop_front();
            if let Some(next) = queue.in_flight.front_mut() {
                next.since = Instant::now();
            }
            settled
        };
        for done in settled.into_iter().flat_map(|s| s.done) {
            answer(done, Ok(seq));
        }
        Ok(())
    }

    fn fail(&self, failure: LogFailure) {
        tracing::error!(log = %self.id, reason = failure.reason, "the log has ended; nothing more is stored in it");
        self.queue().failure = Some(failure.clone());
        self.failed.send_replace(Some(failure));
    }

    fn refuse_waiting(&self) {
        let mut queue = self.queue();
        queue.stops = true;
        let in_flight = std::mem::take(&mut queue.in_flight);
        let batches = std::mem::take(&mut queue.batches);
        let failure = queue.failure.clone();
        drop(queue);
        self.taken.notify_waiters();
        let refusal = || failure.as_ref().map_or(Error::Closed, |failure| self.ended(failure));
        for done in in_flight.into_iter().flat_map(|s| s.done) {
            answer(done, Err(refusal()));
        }
        for batch in batches {
            batch.done.into_iter().for_each(|done| answer(done, Err(refusal())));
            batch.cut.into_iter().for_each(|done| answer(done, Err(refusal())));
        }
    }
}

impl Queue {
    /// How much time the first segment under way has left.
    fn stalls_in(&self, after: Duration) -> Option<Duration> {
        let first = self.in_flight.front().filter(|_| self.stalled.is_none())?;
        Some(after.saturating_sub(first.since.elapsed()))
    }
}

/// Takes what goes into the next segment from the queue and notes it as under way. Without a role nothing is written:
/// what was taken waits for those before it.
fn take_segment(queue: &mut Queue, bytes_max: usize, seq: &mut u64) -> (Option<Role>, Vec<u8>) {
    let (mut role, mut records, mut samples, mut answers) = (None, Vec::new(), Vec::new(), Vec::new());
    while let Some(next) = queue.batches.front() {
        let is_seal = next.role == Some(Role::Seal);
        let is_full = !records.is_empty() && records.len() + next.records.len() > bytes_max;
        // A seal stands alone.
        let is_begun = role.is_some() || !answers.is_empty();
        if next.cut.is_some() || is_full || (is_seal && is_begun) {
            break;
        }
        let Some(batch) = queue.batches.pop_front() else { break };
        queue.bytes -= batch.records.len();
        if batch.role.is_some() || !batch.records.is_empty() {
            role = Some(batch.role.unwrap_or(Role::Records));
        }
        if records.is_empty() {
            records = batch.records;
        } else {
            records.extend_from_slice(&batch.records);
        }
        samples.extend(batch.samples);
        answers.extend(batch.done);
        if is_seal {
            break;
        }
    }
    if role.is_some() {
        *seq += 1;
    }
    let outcome = if role.is_none() { Some(Ok(())) } else { None };
    let (since, samples) = (Instant::now(), Arc::new(samples));
    queue.in_flight.push_back(InFlight { seq: *seq, since, samples, done: answers, outcome });
    (role, records)
}

/// Ends the log when its thread panics, so that nobody waits for it for ever.
struct PanicGuard<'a>(&'a Shared);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        self.0.fail(LogFailure { reason: "its writer panicked".to_owned(), is_full: false });
        self.0.refuse_waiting();
    }
}

fn answer<T>(done: oneshot::Sender<Result<T>>, result: Result<T>) {
    // Whoever asked may have gone away; the samples are stored all the same.
    drop(done.send(result));
}

/// Locks; a panic elsewhere does not make what is behind the lock useless, since it is changed in whole steps.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
