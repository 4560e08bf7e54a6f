//! Waiting with a deadline.

use std::thread;
use std::time::{Duration, Instant};

use model::Clock;

/// How long anything is waited for. A test that fails waits that long; one that passes does not.
pub const DEADLINE: Duration = Duration::from_secs(90);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Tries until there is something.
///
/// # Panics
/// When the deadline passes; `what` says what was waited for.
pub fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "gave up after {DEADLINE:?}: {what}");
        thread::sleep(PAUSE);
    }
}

/// The machine's time in milliseconds since the epoch.
#[must_use]
pub fn now_ms() -> i64 {
    Clock::System.now().millis()
}
