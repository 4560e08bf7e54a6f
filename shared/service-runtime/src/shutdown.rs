//! How the wish to stop travels: from signals to the program, from the program to each service.

use std::sync::Arc;

use tokio::sync::watch;

/// Asks the program to stop: the first time in order, the second time at once.
#[derive(Debug, Clone)]
pub struct Stopper {
    asked: Arc<watch::Sender<u32>>,
}

impl Default for Stopper {
    fn default() -> Self {
        Self { asked: Arc::new(watch::Sender::new(0)) }
    }
}

impl Stopper {
    /// Asks once.
    pub fn stop(&self) {
        self.asked.send_modify(|times| *times = times.saturating_add(1));
    }

    /// Resolves when it was asked `times` times.
    pub(crate) async fn asked(&self, times: u32) {
        let mut asked = self.asked.subscribe();
        asked.wait_for(|so_far| *so_far >= times).await.expect("self holds the sender");
    }
}

/// How far the stop of one service has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Running,
    Requested,
    Drained,
}

/// Tells a service how far its stop has come. Clones go to whatever has to end with the service.
#[derive(Debug, Clone)]
pub struct Shutdown {
    stage: watch::Receiver<Stage>,
}

impl Shutdown {
    /// Makes a shutdown with the trigger that drives it: for the runtime, and for tests of a single service.
    #[must_use]
    pub fn new() -> (ShutdownTrigger, Self) {
        let (sender, stage) = watch::channel(Stage::Running);
        (ShutdownTrigger { stage: sender }, Self { stage })
    }

    /// Resolves when no new work may be taken and streams should end.
    pub async fn requested(&self) {
        self.reached(Stage::Requested).await;
    }

    /// Says whether no new work may be taken.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.stage.borrow() >= Stage::Requested
    }

    /// Resolves when the requests that were in flight at the stop have been answered: time to flush.
    pub async fn drained(&self) {
        self.reached(Stage::Drained).await;
    }

    async fn reached(&self, wanted: Stage) {
        // Without its trigger a service cannot be told any more: it stops as if told everything.
        drop(self.stage.clone().wait_for(|stage| *stage >= wanted).await);
    }
}

/// Drives a [`Shutdown`]; dropping it is as good as [`ShutdownTrigger::drained`].
#[derive(Debug)]
pub struct ShutdownTrigger {
    stage: watch::Sender<Stage>,
}

impl ShutdownTrigger {
    /// From now on no new work is taken.
    pub fn request(&self) {
        self.stage.send_replace(Stage::Requested);
    }

    /// Requests in flight have been answered.
    pub fn drained(&self) {
        self.stage.send_replace(Stage::Drained);
    }
}

/// Tells that the operator wants files read again (SIGHUP). Counts wishes; several at once are one.
#[derive(Debug, Clone)]
pub struct Reload {
    wishes: watch::Receiver<u64>,
}

impl Reload {
    /// Makes a reload with the counter of wishes that drives it.
    #[must_use]
    pub fn new() -> (watch::Sender<u64>, Self) {
        let (sender, wishes) = watch::channel(0);
        (sender, Self { wishes })
    }

    /// Resolves at the next wish; never, once the program is ending. May be dropped at any time.
    pub async fn wished(&mut self) {
        if self.wishes.changed().await.is_err() {
            std::future::pending().await
        }
    }
}
