//! What an operator is told unasked: that the configuration on disk is refused, that the program starts or stops.

use std::sync::Arc;

use model::{Clock, Timestamp};
use service_runtime::{Readiness, Shutdown};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// The texts that Prometheus has, which its pages show.
const RELOAD_FAILED: &str = "Configuration reload has failed.";
const STARTING: &str = "Prometheus is starting and replaying the write-ahead log.";
const STOPPING: &str = "Prometheus is shutting down and gracefully stopping all operations.";

/// Something to be told for as long as it is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Notification {
    pub(crate) text: &'static str,
    /// Since when it is so.
    pub(crate) since: Timestamp,
}

/// What is to be told at present, and room for those who follow it.
#[derive(Debug)]
pub(crate) struct Notifications {
    active: watch::Receiver<Vec<Notification>>,
    places: Arc<Semaphore>,
}

impl Notifications {
    /// Returns the notifications, and the future that keeps them until the service stops; followers then end.
    pub(crate) fn follow(
        subscribers_max: usize,
        clock: Clock,
        mut config: config_watch::Latest,
        readiness: Readiness,
        shutdown: Shutdown,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, active) = watch::channel(Vec::new());
        let keep = async move {
            let set = |text, is_so| set(&sender, text, is_so, clock.now());
            set(STARTING, true);
            let watching = async {
                let mut is_starting = true;
                loop {
                    let is_refused = config
                        .borrow_and_update()
                        .as_ref()
                        .is_some_and(|c| !c.message.is_last_reload_successful);
                    set(RELOAD_FAILED, is_refused);
                    tokio::select! {
                        changed = config.changed() => if changed.is_err() { std::future::pending().await },
                        () = readiness.reached(), if is_starting => {
                            is_starting = false;
                            set(STARTING, false);
                        }
                    }
                }
            };
            tokio::select! {
                () = watching => {}
                () = shutdown.requested() => set(STOPPING, true),
            }
        };
        (Self { active, places: Arc::new(Semaphore::new(subscribers_max)) }, keep)
    }

    /// What is so at present.
    pub(crate) fn active(&self) -> Vec<Notification> {
        self.active.borrow().clone()
    }

    /// Follows what changes; `None` when as many as may do so already.
    pub(crate) fn subscribe(&self) -> Option<Subscriber> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let mut active = self.active.clone();
        active.mark_changed();
        Some(Subscriber { active, told: Vec::new(), _place: place })
    }
}

fn set(active: &watch::Sender<Vec<Notification>>, text: &'static str, is_so: bool, now: Timestamp) {
    active.send_if_modified(|list| {
        let was_so = list.iter().any(|n| n.text == text);
        match (was_so, is_so) {
            (false, true) => list.push(Notification { text, since: now }),
            (true, false) => list.retain(|n| n.text != text),
            _ => {}
        }
        was_so != is_so
    });
}

/// Somebody who is told.
#[derive(Debug)]
pub(crate) struct Subscriber {
    active: watch::Receiver<Vec<Notification>>,
    told: Vec<Notification>,
    _place: OwnedSemaphorePermit,
}

impl Subscriber {
    /// Waits for changes: what is so from now on, and what is not any more. At first everything that is so; `None` at
    /// the end.
    pub(crate) async fn next(&mut self) -> Option<Vec<(Notification, bool)>> {
        loop {
            self.active.changed().await.ok()?;
            let now = self.active.borrow_and_update().clone();
            let over = self.told.iter().filter(|n| !now.contains(n)).map(|n| (*n, false));
            let new = now.iter().filter(|n| !self.told.contains(n)).map(|n| (*n, true));
            let changes: Vec<_> = over.chain(new).collect();
            self.told = now;
            if !changes.is_empty() {
                return Some(changes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn followers_are_told_of_changes_alone() {
        let (sender, active) = watch::channel(Vec::new());
        let all = Notifications { active, places: Arc::new(Semaphore::new(1)) };
        let change = |text, is_so, at| set(&sender, text, is_so, Timestamp(at));
        change(STARTING, true, 1);
        let mut follower = all.subscribe().expect("a place");
        assert!(all.subscribe().is_none(), "the one place is taken");
        let starting = Notification { text: STARTING, since: Timestamp(1) };
        assert_eq!(follower.next().await, Some(vec![(starting, true)]));
        change(STARTING, true, 2);
        change(RELOAD_FAILED, true, 3);
        change(STARTING, false, 4);
        let refused = Notification { text: RELOAD_FAILED, since: Timestamp(3) };
        assert_eq!(follower.next().await, Some(vec![(starting, false), (refused, true)]));
        assert_eq!(all.active(), [refused]);
        drop(sender);
        assert_eq!(follower.next().await, None);
        drop(follower);
        assert!(all.subscribe().is_some());
    }
}
