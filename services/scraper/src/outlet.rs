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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use coordination::membership::Roster;
    use group_writer::{Append, Group, GroupIdentity, Options, Presence};
    use model::{Labels, Tenant, Timestamp};
    use tokio::sync::watch;

    use super::*;

    #[tokio::test]
    async fn what_a_full_writer_does_not_take_is_counted_and_taken_later() {
        // Nobody takes anything until there is an ingester.
        let (roster, ingesters) = watch::channel(Roster::default());
        let options = Options { buffer_bytes_max: 6 << 10, ..Options::default() };
        let (writer, driver) = GroupWriter::new(options, ingesters, Arc::new(|_| Err("not reached".into())));
        let registry = service_runtime::Metrics::default();
        let outlet = Outlet::new(writer, Metrics::register(&registry));
        let group = Group::new(GroupIdentity {
            tenant: Tenant::default(),
            key: Labels::empty(),
            sub_group: 0,
            epoch: 0,
        });
        for n in 0..100 {
            group.add(Labels::from_pairs([("__name__", format!("m{n}"))]), Arc::default());
        }
        let batch = || Batch {
            appends: vec![Append {
                group: group.clone(),
                members: 100,
                timestamp: Timestamp(1),
                presence: Presence::All,
                values: vec![1.0; 100],
                histograms: Vec::new(),
                starts: Vec::new(),
                exemplars: Vec::new(),
            }],
            is_atomic: false,
        };
        let mut in_flight = InFlight::default();
        // A batch of 100 values takes one unit of 1 KiB.
        let taken: Vec<bool> = (0..8).map(|_| outlet.send(batch(), &mut in_flight)).collect();
        assert_eq!(taken, [true, true, true, true, true, true, false, false]);
        assert_eq!(outlet.metrics.samples_dropped.get(), 200);
        assert_eq!(in_flight.0.len(), PENDING_MAX);
        // A writer that ends gives its room back, and the loop hears that its batches were lost.
        drop((driver, roster));
        assert!(!outlet.send(batch(), &mut in_flight));
        assert_eq!(outlet.metrics.batches_lost.get(), PENDING_MAX as u64);
    }
}
