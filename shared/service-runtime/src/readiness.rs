//! Readiness as latches.
//!
//! Invariants: the program is ready when the last latch is gone; ready never turns to not ready except to stop; a
//! latch that goes down with a panic does not make anything ready.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use tokio::sync::watch;
use tracing::info;

/// The header by which Prometheus tells "not yet" from "no more".
const STOPPING_HEADER: &str = "x-prometheus-stopping";

#[derive(Debug, Clone, Default)]
struct Latches {
    held: Vec<(u64, &'static str)>,
    taken: u64,
    is_ready: bool,
    is_stopping: bool,
}

/// Whether the program can be used. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness {
    latches: Arc<watch::Sender<Latches>>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { latches: Arc::new(watch::Sender::new(Latches::default())) }
    }
}

/// Keeps the program from being ready until it is dropped.
#[derive(Debug)]
#[must_use = "a latch that is dropped at once keeps nothing back"]
pub struct Latch {
    id: u64,
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// Keeps the program from being ready until the latch is dropped. Without effect once it has been ready.
    pub fn latch(&self, name: &'static str) -> Latch {
        let mut id = 0;
        self.latches.send_modify(|latches| {
            id = latches.taken;
            latches.taken += 1;
            latches.held.push((id, name));
        });
        Latch { id, name, readiness: self.clone() }
    }

    /// Says whether the program is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let latches = self.latches.borrow();
        latches.is_ready && !latches.is_stopping
    }

    /// What the program waits for, by the names of the latches.
    #[must_use]
    pub fn pending(&self) -> Vec<&'static str> {
        self.latches.borrow().held.iter().map(|(_, name)| *name).collect()
    }

    /// Resolves when the program is ready, or at once if it is stopping.
    pub async fn reached(&self) {
        let mut latches = self.latches.subscribe();
        latches.wait_for(|l| l.is_ready || l.is_stopping).await.expect("self holds the sender");
    }

    /// Resolves when the program begins to stop.
    pub(crate) async fn stopping(&self) {
        let mut latches = self.latches.subscribe();
        latches.wait_for(|latches| latches.is_stopping).await.expect("self holds the sender");
    }

    pub(crate) fn stop(&self) {
        self.latches.send_modify(|latches| latches.is_stopping = true);
    }

    /// Puts routes behind readiness: 503 in Prometheus's form while the program is not ready.
    pub fn gate(&self, router: Router) -> Router {
        router.layer(middleware::from_fn_with_state(self.clone(), gate))
    }

    /// The answer to whoever asks for something that is not ready.
    pub fn refusal(&self) -> Response {
        let is_stopping = if self.latches.borrow().is_stopping { "true" } else { "false" };
        let headers = [(STOPPING_HEADER, is_stopping)];
        (StatusCode::SERVICE_UNAVAILABLE, headers, Body::from("Service Unavailable")).into_response()
    }
}

async fn gate(State(readiness): State<Readiness>, request: Request, next: Next) -> Response {
    if readiness.is_ready() { next.run(request).await } else { readiness.refusal() }
}

impl Drop for Latch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let mut is_last = false;
        self.readiness.latches.send_modify(|latches| {
            latches.held.retain(|(id, _)| *id != self.id);
            is_last = latches.held.is_empty() && !latches.is_ready;
            latches.is_ready |= is_last;
        });
        info!(latch = self.name, is_last, "latch dropped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_latch_dropped_makes_ready_and_only_stopping_takes_it_back() {
        let readiness = Readiness::default();
        let (replay, targets) = (readiness.latch("replay"), readiness.latch("targets"));
        assert_eq!((readiness.is_ready(), readiness.pending()), (false, vec!["replay", "targets"]));
        drop(replay);
        assert_eq!((readiness.is_ready(), readiness.pending()), (false, vec!["targets"]));
        drop(targets);
        assert!(readiness.is_ready());
        let late = readiness.latch("late");
        assert!(readiness.is_ready());
        readiness.stop();
        assert!(!readiness.is_ready());
        drop(late);
        assert!(!readiness.is_ready());
    }

    #[test]
    fn a_latch_that_falls_with_a_panic_makes_nothing_ready() {
        let readiness = Readiness::default();
        let latch = readiness.latch("replay");
        let fallen = std::thread::spawn(move || {
            let _latch = latch;
            panic!("torn");
        });
        assert!(fallen.join().is_err());
        assert!(!readiness.is_ready());
    }
}
