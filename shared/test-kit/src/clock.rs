//! A clock that moves together with Tokio's paused time.

use std::time::Duration;

use model::{Clock, Timestamp};

/// Wall time and timers in one hand. Needs a runtime whose time is paused.
#[derive(Debug, Clone)]
pub struct FakeClock {
    clock: Clock,
}

impl FakeClock {
    /// Starts at an instant.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self { clock: Clock::fixed(now) }
    }

    /// The clock to hand to what is tested.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// Moves the wall clock, then fires the timers that are due, and lets every task that is ready run.
    pub async fn advance(&self, by: Duration) {
        let ms = i64::try_from(by.as_millis()).expect("a test's lifetime");
        self.clock.set(self.clock.now().add_ms(ms));
        tokio::time::advance(by).await;
        for _ in 0..YIELDS {
            tokio::task::yield_now().await;
        }
    }
}

/// Enough for a chain of a few tasks to hand work on.
const YIELDS: usize = 64;
