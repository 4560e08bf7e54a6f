//! The querier's own metrics.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

/// Boundaries of query durations, in seconds.
const SECONDS: [f64; 9] = [0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 30.0, 120.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Kind {
    pub(crate) kind: &'static str,
}

/// The querier's own metrics.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) running: Gauge,
    pub(crate) seconds: Histogram,
    pub(crate) samples: Counter,
    pub(crate) failures: Family<Kind, Counter>,
}

impl Metrics {
    pub(crate) fn register(registry: &service_runtime::Metrics) -> Self {
        let metrics = Self {
            running: Gauge::default(),
            seconds: Histogram::new(SECONDS),
            samples: Counter::default(),
            failures: Family::default(),
        };
        registry.register(|r| {
            r.register(
                "prometheus_engine_queries",
                "Queries that run or wait at present",
                metrics.running.clone(),
            );
            r.register(
                "querier_query_duration_seconds",
                "Time that queries took, waiting included",
                metrics.seconds.clone(),
            );
            r.register(
                "prometheus_engine_query_samples",
                "Samples looked at by queries",
                metrics.samples.clone(),
            );
            r.register("querier_query_failures", "Queries that failed, by kind", metrics.failures.clone());
        });
        metrics
    }
}
