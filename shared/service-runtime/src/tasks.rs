//! Background work with a name and a plan for its failure.
//!
//! Invariants: a task that fails or panics either stops the program or is started again, and is logged; no task
//! outlives [`Tasks::stop`].

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, error, info_span, warn};

use crate::{BoxError, Error};

/// The first failure that stops the program.
#[derive(Debug, Clone)]
pub(crate) struct Failures(Arc<watch::Sender<Option<(String, String)>>>);

impl Default for Failures {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Failures {
    pub(crate) fn report(&self, what: String, cause: String) {
        self.0.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                *first = Some((what, cause));
            }
            is_first
        });
    }

    pub(crate) async fn first(&self) -> Error {
        let mut failures = self.0.subscribe();
        let first = failures.wait_for(Option::is_some).await.expect("self holds the sender").clone();
        let (what, cause) = first.expect("waited for");
        Error::Failed { what, cause }
    }
}

/// How long to wait before a failed task is started again: twice as long each time, from `min` to `max`; a task
/// that held out for `max` begins at `min` anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait.
    pub min: Duration,
    /// The longest wait.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { min: Duration::from_millis(100), max: Duration::from_secs(30) }
    }
}

/// Starts background work of one service. Cheap to clone.
#[derive(Clone)]
pub struct Tasks {
    shared: Arc<Shared>,
}

struct Shared {
    owner: &'static str,
    tracker: TaskTracker,
    cancel: CancellationToken,
    live: Mutex<BTreeMap<&'static str, usize>>,
    failures: Failures,
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("owner", &self.shared.owner).field("live", &self.pending()).finish()
    }
}

/// A task that was started. Dropping it lets the task go on.
#[derive(Debug)]
pub struct Task {
    handle: JoinHandle<()>,
}

impl Task {
    /// Ends the task at its next `.await`.
    pub fn abort(&self) {
        self.handle.abort();
    }

    /// Waits until the task has ended, however it did.
    pub async fn join(self) {
        // Its failure was reported where it happened, and an aborted task has ended as well.
        drop(self.handle.await);
    }
}

impl Tasks {
    pub(crate) fn new(owner: &'static str, failures: Failures) -> Self {
        let shared = Shared {
            owner,
            tracker: TaskTracker::new(),
            cancel: CancellationToken::new(),
            live: Mutex::default(),
            failures,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Starts a task that the service cannot do without: an error or a panic stops the program in order.
    ///
    /// What is still running when the service has stopped is dropped at its next `.await`; a task with an end of
    /// its own watches the service's `Shutdown` and is joined by `run`. The caller bounds how many it starts.
    pub fn spawn<F>(&self, name: &'static str, task: F) -> Task
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let shared = self.shared.clone();
        self.start(name, async move {
            if let Err(cause) = caught(task).await {
                error!(error = %cause, "task failed, the program stops");
                shared.failures.report(format!("{}: task {name:?}", shared.owner), cause);
            }
        })
    }

    /// Starts a task that is started again when it fails or panics; it ends when it returns `Ok`.
    pub fn spawn_restarting<F, T>(&self, name: &'static str, backoff: Backoff, mut make: F) -> Task
    where
        F: FnMut() -> T + Send + 'static,
        T: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.start(name, async move {
            let mut wait = backoff.min;
            loop {
                let started = Instant::now();
                let Err(cause) = caught(make()).await else { return };
                if started.elapsed() >= backoff.max {
                    wait = backoff.min;
                }
                warn!(error = %cause, wait_ms = wait.as_millis() as u64, "task failed, it is started again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(backoff.max);
            }
        })
    }

    /// The names of the tasks that run, with their number where there are several.
    #[must_use]
    pub fn pending(&self) -> Vec<String> {
        let live = self.shared.live.lock();
        let with_count = |(name, count): (&&str, &usize)| match count {
            1 => (*name).to_owned(),
            _ => format!("{name} ({count})"),
        };
        live.iter().map(with_count).collect()
    }

    /// Drops what still runs and waits until it is gone.
    pub(crate) async fn stop(&self) {
        self.shared.cancel.cancel();
        self.shared.tracker.close();
        self.shared.tracker.wait().await;
    }

    fn start(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> Task {
        let live = Live::enter(self.shared.clone(), name);
        let cancel = self.shared.cancel.clone();
        let span = info_span!(parent: None, "task", service = self.shared.owner, task = name);
        let task = async move {
            let _live = live;
            cancel.run_until_cancelled(task).await;
        };
        Task { handle: self.shared.tracker.spawn(task.instrument(span)) }
    }
}

/// Runs a future to its end and turns a panic into an error.
pub(crate) async fn caught<F>(task: F) -> Result<(), String>
where
    F: Future<Output = Result<(), BoxError>>,
{
    match AssertUnwindSafe(task).catch_unwind().await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => Err(panic_message(&*panic)),
    }
}

pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("without a message"))
}

/// Counts a task under its name as long as it lives.
struct Live {
    shared: Arc<Shared>,
    name: &'static str,
}

impl Live {
    fn enter(shared: Arc<Shared>, name: &'static str) -> Self {
        *shared.live.lock().entry(name).or_default() += 1;
        Self { shared, name }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let mut live = self.shared.live.lock();
        if let Some(count) = live.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                live.remove(self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn errors_and_panics_are_failures_that_name_the_task() {
        for (is_panic, expected) in [
            (false, "ingester: task \"flush\": disk full"),
            (true, "ingester: task \"flush\": panicked: index 3 out of range"),
        ] {
            let failures = Failures::default();
            let tasks = Tasks::new("ingester", failures.clone());
            let task = tasks.spawn("flush", async move {
                assert!(!is_panic, "index {} out of range", 3);
                Err("disk full".into())
            });
            assert_eq!(failures.first().await.to_string(), expected);
            task.join().await;
            assert!(tasks.pending().is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn restarting_waits_twice_as_long_each_time_up_to_the_longest() {
        let tasks = Tasks::new("scraper", Failures::default());
        let (starts, began) = (Arc::new(Mutex::new(Vec::new())), Instant::now());
        let log = starts.clone();
        let backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(4) };
        let runs = AtomicU32::new(0);
        let task = tasks.spawn_restarting("watch", backoff, move || {
            log.lock().push(began.elapsed().as_secs());
            let run = runs.fetch_add(1, Ordering::Relaxed);
            async move {
                match run {
                    5 => Ok(()),
                    // Holds out long enough to be forgiven.
                    4 => {
                        tokio::time::sleep(Duration::from_secs(10)).await;
                        Err("lost".into())
                    }
                    3 => panic!("even this"),
                    _ => Err("away".into()),
                }
            }
        });
        task.join().await;
        assert_eq!(*starts.lock(), [0, 1, 3, 7, 11, 22]);
    }

    #[tokio::test]
    async fn stopping_drops_what_still_runs() {
        let tasks = Tasks::new("querier", Failures::default());
        let endless = || async { std::future::pending().await };
        tasks.spawn("loop", endless());
        tasks.spawn("loop", endless());
        tasks.spawn("watch", endless());
        assert_eq!(tasks.pending(), ["loop (2)", "watch"]);
        tasks.stop().await;
        assert!(tasks.pending().is_empty());
    }
}
