//! The way from the scrape loops to the group writer.
//!
//! A loop hands a batch in and goes on; it looks at the answers to earlier batches when it is there the next time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use group_writer::{Batch, GroupWriter, Pending};
use tracing::{debug, info, warn};

use crate::metrics::Metrics;

/// Answers that one loop waits for; what an older batch came to is not learned.
const PENDING_MAX: usize = 4;

/// Hands batches to the writer. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Outlet {
    writer: GroupWriter,
    metrics: Metrics,
    is_blocked: Arc<AtomicBool>,
}

/// Batches of one loop that are under way.
#[derive(Debug, Default)]
pub(crate) struct InFlight(VecDeque<Pending>);

impl Outlet {
    pub(crate) fn new(writer: GroupWriter, metrics: Metrics) -> Self {
        Self { writer, metrics, is_blocked: Arc::default() }
    }

    /// Hands a batch in; false when it was dropped since too much waits already.
    pub(crate) fn send(&self, batch: Batch, in_flight: &mut InFlight) -> bool {
        self.collect(in_flight);
        let samples: usize = batch.appends.iter().map(|append| append.values.len()).sum();
        match self.writer.enqueue(batch) {
            Ok(pending) => {
                if in_flight.0.len() == PENDING_MAX {
                    in_flight.0.pop_front();
                }
                in_flight.0.push_back(pending);
                if self.is_blocked.swap(false, Ordering::Relaxed) {
                    info!("samples are taken again");
                }
                true
            }
            Err(error) => {
                self.metrics.samples_dropped.inc_by(samples as u64);
                if !self.is_blocked.swap(true, Ordering::Relaxed) {
                    warn!(%error, "samples are dropped until the ingesters take them again");
                }
                false
            }
        }
    }

    /// Waits until everything handed in was answered for.
    pub(crate) async fn drain(&self) {
        self.writer.drain().await;
    }

    fn collect(&self, in_flight: &mut InFlight) {
        while let Some(answer) = in_flight.0.front_mut().and_then(FutureExt::now_or_never) {
            in_flight.0.pop_front();
            match answer {
                Ok(written) => {
                    for refusal in written.refusals {
                        self.metrics.count_refusal(refusal.reason, refusal.count);
                        debug!(count = refusal.count, example = refusal.example, "samples were refused");
                    }
                }
                Err(error) => {
                    self.metrics.batches_lost.inc();
                    warn!(%error, "a scrape was not stored");
                }
            }
        }
    }
}
