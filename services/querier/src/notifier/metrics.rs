//! The metrics of alerts that are sent, under Prometheus's names.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

/// Boundaries of durations, in seconds.
const SECONDS: [f64; 8] = [0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0];

/// An Alertmanager, by its URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AlertmanagerLabel {
    alertmanager: String,
}

/// The metrics of all Alertmanagers. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct NotifierMetrics {
    latency: Family<AlertmanagerLabel, Histogram, fn() -> Histogram>,
    sent: Family<AlertmanagerLabel, Counter>,
    errors: Family<AlertmanagerLabel, Counter>,
    dropped: Family<AlertmanagerLabel, Counter>,
    queue_length: Family<AlertmanagerLabel, Gauge>,
    pub(super) queue_capacity: Gauge,
    pub(super) discovered: Gauge,
    /// How many loops there are of each Alertmanager: one that ends leaves the metrics to one that has just begun.
    loops: Arc<Mutex<HashMap<AlertmanagerLabel, usize>>>,
}

/// The metrics of one Alertmanager.
#[derive(Debug)]
pub(super) struct LoopMetrics {
    all: NotifierMetrics,
    label: AlertmanagerLabel,
    pub(super) latency: Histogram,
    pub(super) sent: Counter,
    pub(super) errors: Counter,
    pub(super) dropped: Counter,
    pub(super) queue_length: Gauge,
}

impl NotifierMetrics {
    pub(crate) fn register(registry: &service_runtime::Metrics) -> Self {
        let metrics = Self {
            latency: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            sent: Family::default(),
            errors: Family::default(),
            dropped: Family::default(),
            queue_length: Family::default(),
            queue_capacity: Gauge::default(),
            discovered: Gauge::default(),
            loops: Arc::default(),
        };
        let m = metrics.clone();
        registry.register(|r| {
            r.register(
                "prometheus_notifications_latency_seconds",
                "Time that sending a batch of alerts took",
                m.latency,
            );
            r.register("prometheus_notifications_sent", "Alerts that an Alertmanager took", m.sent);
            r.register("prometheus_notifications_errors", "Alerts that could not be sent", m.errors);
            r.register(
                "prometheus_notifications_dropped",
                "Alerts that are lost: they could not be sent, or the queue was full",
                m.dropped,
            );
            r.register("prometheus_notifications_queue_length", "Alerts that wait", m.queue_length);
            r.register(
                "prometheus_notifications_queue_capacity",
                "Alerts that may wait for one Alertmanager",
                m.queue_capacity,
            );
            r.register(
                "prometheus_notifications_alertmanagers_discovered",
                "Alertmanagers that alerts go to",
                m.discovered,
            );
        });
        metrics
    }

    /// The metrics of one Alertmanager, which are shown from now on.
    pub(super) fn of(&self, url: &str) -> LoopMetrics {
        let label = AlertmanagerLabel { alertmanager: url.to_owned() };
        *self.loops.lock().entry(label.clone()).or_default() += 1;
        LoopMetrics {
            latency: self.latency.get_or_create_owned(&label),
            sent: self.sent.get_or_create_owned(&label),
            errors: self.errors.get_or_create_owned(&label),
            dropped: self.dropped.get_or_create_owned(&label),
            queue_length: self.queue_length.get_or_create_owned(&label),
            all: self.clone(),
            label,
        }
    }
}

impl LoopMetrics {
    /// Forgets an Alertmanager that is sent nothing any more.
    pub(super) fn forget(&self) {
        let Self { all, label, .. } = self;
        let mut loops = all.loops.lock();
        if let Some(count) = loops.get_mut(label).filter(|count| **count > 1) {
            *count -= 1;
            return;
        }
        loops.remove(label);
        all.latency.remove(label);
        for family in [&all.sent, &all.errors, &all.dropped] {
            family.remove(label);
        }
        all.queue_length.remove(label);
    }
}
