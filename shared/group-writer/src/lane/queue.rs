//! What waits for one ingester, and what driver and lane tell each other.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::driver::{Close, Part};

/// What waits for one ingester. Bounded by the writer's budget, which every part in it holds a share of.
#[derive(Debug, Default)]
pub(crate) struct LaneQueue {
    state: Mutex<State>,
    changed: Notify,
    /// Its own, so that who waits to be closed takes no notice away from who waits for parts.
    closed: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<(Part, Instant)>,
    /// When the oldest part came that the lane has taken and has no answer to.
    oldest_taken: Option<Instant>,
    closing: Option<Close>,
    may_give_up: bool,
}

impl LaneQueue {
    pub(crate) fn push(&self, part: Part) {
        self.state.lock().waiting.push_back((part, Instant::now()));
        self.changed.notify_one();
    }

    pub(crate) fn close(&self, how: Close) {
        self.state.lock().closing = Some(how);
        self.changed.notify_one();
        self.closed.notify_one();
    }

    pub(crate) fn closing(&self) -> Option<Close> {
        self.state.lock().closing
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().waiting.is_empty()
    }

    /// When the oldest part came that is not answered for.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let state = self.state.lock();
        state.oldest_taken.or_else(|| state.waiting.front().map(|(_, since)| *since))
    }

    /// Says since when the oldest part waits that the lane has taken.
    pub(crate) fn set_oldest_taken(&self, since: Option<Instant>) {
        self.state.lock().oldest_taken = since;
    }

    /// Whether the lane is to give up when its ingester does not answer.
    pub(crate) fn may_give_up(&self) -> bool {
        self.state.lock().may_give_up
    }

    pub(crate) fn set_may_give_up(&self, may_give_up: bool) {
        self.state.lock().may_give_up = may_give_up;
    }

    pub(crate) fn take_all(&self) -> VecDeque<Part> {
        self.state.lock().waiting.drain(..).map(|(part, _)| part).collect()
    }

    pub(crate) fn try_next(&self) -> Option<(Part, Instant)> {
        self.state.lock().waiting.pop_front()
    }

    /// Waits until something was pushed or the lane is being closed. Cancellation loses nothing.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Waits until the lane is to end at once. For one waiter at a time.
    pub(crate) async fn closed_now(&self) {
        while self.closing() != Some(Close::Now) {
            self.closed.notified().await;
        }
    }
}
