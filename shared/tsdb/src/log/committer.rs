//! Group commit: one thread writes what has gathered since its last sync, then hands it to the head, then answers.
//!
//! Invariants:
//! - batches are written, made visible and answered in the order in which they were pushed;
//! - nothing is made visible or answered before its segment is durable;
//! - after a failure everything that waits and everything that comes is refused.

use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use model::Clock;
use tokio::sync::{Notify, oneshot};

use super::local::LocalLog;
use super::segment::Role;
use crate::error::{Error, Result};
use crate::head::GroupSamples;

/// Records that become durable together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Framed records; may be empty for one that only waits for those before it.
    pub(crate) records: Vec<u8>,
    /// What becomes visible once they are durable.
    pub(crate) samples: Vec<GroupSamples>,
    /// Who wants to know; gets the segment through which everything is durable.
    pub(crate) done: Option<oneshot::Sender<Result<u64>>>,
}

/// When to write.
#[derive(Debug, Clone)]
pub(crate) struct CommitOptions {
    pub(crate) delay: Duration,
    pub(crate) bytes: usize,
    pub(crate) queue_bytes_max: usize,
    /// The first segment is not written before this much time has passed since the start.
    pub(crate) birth_delay: Duration,
    pub(crate) clock: Clock,
}

/// Makes samples of a durable segment visible.
pub(crate) type Apply = Box<dyn FnMut(u64, &[GroupSamples]) + Send>;

/// The queue before a log and the thread that empties it.
#[derive(Debug)]
pub(crate) struct Committer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    queue_bytes_max: usize,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// Something was pushed, or the thread shall stop.
    pushed: Condvar,
    /// The thread has finished what it took.
    idle: Condvar,
    /// The thread has taken what waited, or will take nothing more.
    taken: Notify,
    log: Mutex<LocalLog>,
}

#[derive(Debug, Default)]
struct Queue {
    batches: Vec<Batch>,
    bytes: usize,
    is_writing: bool,
    stops: bool,
    failure: Option<String>,
}

impl Committer {
    pub(crate) fn start(log: LocalLog, options: CommitOptions, apply: Apply) -> Result<Self> {
        let queue_bytes_max = options.queue_bytes_max;
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            pushed: Condvar::new(),
            idle: Condvar::new(),
            taken: Notify::new(),
            log: Mutex::new(log),
        });
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name("log-writer".to_owned())
                .spawn(move || shared.run(&options, apply))
                .map_err(Error::io("start thread", "log-writer"))?
        };
        Ok(Self { shared, thread: Mutex::new(Some(thread)), queue_bytes_max })
    }

    /// Refuses when the queue is full or the log is over; to be asked before anything is changed for an append.
    pub(crate) fn check_room(&self) -> Result<()> {
        let queue = self.shared.queue();
        self.shared.check(&queue)?;
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

    /// Puts a batch at the end of the queue.
    pub(crate) fn push(&self, batch: Batch) -> Result<()> {
        let mut queue = self.shared.queue();
        self.shared.check(&queue)?;
        queue.bytes += batch.records.len();
        queue.batches.push(batch);
        drop(queue);
        self.shared.pushed.notify_one();
        Ok(())
    }

    /// Blocks until everything pushed so far is durable and visible, or has failed.
    pub(crate) fn wait_idle(&self) -> Result<()> {
        let mut queue = self.shared.queue();
        while (queue.is_writing || !queue.batches.is_empty()) && queue.failure.is_none() {
            queue = self.shared.idle.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        self.shared.check(&queue)
    }

    /// The log, between two segments.
    pub(crate) fn log(&self) -> MutexGuard<'_, LocalLog> {
        lock(&self.shared.log)
    }

    /// Ends the thread after what it is writing; what waits is refused.
    pub(crate) fn stop(&self) {
        self.shared.queue().stops = true;
        self.shared.pushed.notify_all();
        let thread = lock(&self.thread).take();
        if thread.is_some_and(|t| t.join().is_err()) {
            tracing::error!("the log writer panicked");
        }
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
            Some(reason) => Err(self.ended(reason)),
            None if queue.stops => Err(Error::Closed),
            None => Ok(()),
        }
    }

    fn ended(&self, reason: &str) -> Error {
        Error::LogEnded { log: lock(&self.log).id().to_string(), reason: reason.to_owned() }
    }

    fn run(&self, options: &CommitOptions, mut apply: Apply) {
        let panics = PanicGuard(self);
        let born = Instant::now();
        while let Some(batches) = self.next_batches(options, born) {
            if let Err(reason) = self.commit(batches, options, &mut apply) {
                self.fail(&reason);
                break;
            }
            self.queue().is_writing = false;
            self.idle.notify_all();
        }
        std::mem::forget(panics);
        self.refuse_waiting();
    }

    /// Takes what waits; blocks until there is something, and `None` means stop.
    fn next_batches(&self, options: &CommitOptions, born: Instant) -> Option<Vec<Batch>> {
        let mut queue = self.queue();
        while queue.batches.is_empty() && !queue.stops {
            queue = self.pushed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let until = (Instant::now() + options.delay).max(born + options.birth_delay);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let is_large = queue.bytes >= options.bytes && born.elapsed() >= options.birth_delay;
            if queue.stops || left.is_zero() || is_large {
                break;
            }
            queue = self.pushed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        if queue.stops {
            return None;
        }
        queue.is_writing = true;
        queue.bytes = 0;
        let batches = std::mem::take(&mut queue.batches);
        drop(queue);
        self.taken.notify_waiters();
        Some(batches)
    }

    fn commit(&self, batches: Vec<Batch>, options: &CommitOptions, apply: &mut Apply) -> Result<(), String> {
        let written = {
            let mut log = lock(&self.log);
            let now = options.clock.now();
            let mut records = batches.iter().map(|b| b.records.as_slice()).filter(|r| !r.is_empty());
            match (records.next(), records.next()) {
                (None, _) => Ok(log.last_seq()),
                (Some(only), None) => log.append(Role::Records, only, now),
                (Some(_), Some(_)) => {
                    let all: Vec<&[u8]> = batches.iter().map(|b| b.records.as_slice()).collect();
                    log.append(Role::Records, &all.concat(), now)
                }
            }
        };
        let seq = match written {
            Ok(seq) => seq,
            Err(error) => {
                let reason = error.to_string();
                for done in batches.into_iter().filter_map(|b| b.done) {
                    answer(done, Err(self.ended(&reason)));
                }
                return Err(reason);
            }
        };
        for batch in &batches {
            apply(seq, &batch.samples);
        }
        for done in batches.into_iter().filter_map(|b| b.done) {
            answer(done, Ok(seq));
        }
        Ok(())
    }

    fn fail(&self, reason: &str) {
        tracing::error!(reason, "the log has ended; nothing can be stored until a restart");
        self.queue().failure = Some(reason.to_owned());
    }

    fn refuse_waiting(&self) {
        let mut queue = self.queue();
        queue.is_writing = false;
        queue.stops = true;
        let batches = std::mem::take(&mut queue.batches);
        let failure = queue.failure.clone();
        drop(queue);
        self.idle.notify_all();
        self.taken.notify_waiters();
        for done in batches.into_iter().filter_map(|b| b.done) {
            answer(done, Err(failure.as_deref().map_or(Error::Closed, |reason| self.ended(reason))));
        }
    }
}

/// Ends the log when its thread panics, so that nobody waits for it for ever.
struct PanicGuard<'a>(&'a Shared);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        self.0.fail("its writer panicked");
        self.0.refuse_waiting();
    }
}

fn answer(done: oneshot::Sender<Result<u64>>, result: Result<u64>) {
    // Whoever asked may have gone away; the samples are stored all the same.
    drop(done.send(result));
}

/// Locks; a panic elsewhere does not make what is behind the lock useless, since it is changed in whole steps.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
