//! The metrics of alerts that are sent, under Prometheus's names.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use service_runtime::{Summaries, Summary};

/// The boundaries of Prometheus's histogram of durations, in seconds.
const SECONDS: [f64; 4] = [0.01, 0.1, 1.0, 10.0];
const LATENCY: &str = "Time that sending a batch of alerts took";

/// An Alertmanager, by its URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AlertmanagerLabel {
    alertmanager: String,
}

/// The metrics of all Alertmanagers. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct NotifierMetrics {
    latency: Summaries,
    latency_histogram: Family<AlertmanagerLabel, Histogram, fn() -> Histogram>,
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
    latency: Summary,
    latency_histogram: Histogram,
    pub(super) sent: Counter,
    pub(super) errors: Counter,
    pub(super) dropped: Counter,
    pub(super) queue_length: Gauge,
}

impl NotifierMetrics {
    pub(crate) fn register(registry: &service_runtime::Metrics) -> Self {
        let metrics = Self {
            latency: Summaries::by_label(
                "prometheus_notifications_latency_seconds",
                LATENCY,
                "alertmanager",
                &[0.5, 0.9, 0.99],
            ),
            latency_histogram: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            sent: Family::default(),
            errors: Family::default(),
            dropped: Family::default(),
            queue_length: Family::default(),
            queue_capacity: Gauge::default(),
            discovered: Gauge::default(),
            loops: Arc::default(),
        };
        let m = metrics.clone();
        registry.register_summaries(m.latency);
        registry.register(|r| {
            r.register("prometheus_notifications_latency_histogram_seconds", LATENCY, m.latency_histogram);
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
            latency: self.latency.of(url),
            latency_histogram: self.latency_histogram.get_or_create_owned(&label),
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
    /// Takes note of how long the sending of a batch took.
    pub(super) fn took(&self, took: Duration) {
        self.latency.observe(took.as_secs_f64());
        self.latency_histogram.observe(took.as_secs_f64());
    }

    /// Forgets an Alertmanager that is sent nothing any more.
    pub(super) fn forget(&self) {
        let Self { all, label, .. } = self;
        let mut loops = all.loops.lock();
        if let Some(count) = loops.get_mut(label).filter(|count| **count > 1) {
            *count -= 1;
            return;
        }
        loops.remove(label);
        all.latency.remove(&label.alertmanager);
        all.latency_histogram.remove(label);
        for family in [&all.sent, &all.errors, &all.dropped] {
            family.remove(label);
        }
        all.queue_length.remove(label);
    }
}
