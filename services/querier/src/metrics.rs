//! The querier's own metrics.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;

use crate::sources::Sources;

/// Boundaries of query durations, in seconds.
const SECONDS: [f64; 9] = [0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 30.0, 120.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Kind {
    pub(crate) kind: &'static str,
}

/// Why an aggregation that ingesters could compute in part is computed from whole series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    /// An ingester cannot do it, or not be reached.
    Peer,
    /// Not all that is needed answers.
    Missing,
    /// Files hold what no head does.
    Files,
    /// A part failed.
    Failed,
    /// What comes out depends on the order of the series.
    Order,
}

impl Reason {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Missing => "missing",
            Self::Files => "files",
            Self::Failed => "failed",
            Self::Order => "order",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Because {
    reason: &'static str,
}

/// The querier's own metrics.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) running: Gauge,
    pub(crate) seconds: Histogram,
    pub(crate) release_seconds: Histogram,
    pub(crate) samples: Counter,
    pub(crate) failures: Family<Kind, Counter>,
    in_parts: Counter,
    whole: Family<Because, Counter>,
}

impl Metrics {
    pub(crate) fn register(registry: &service_runtime::Metrics, sources: &Arc<Sources>) -> Self {
        let metrics = Self {
            running: Gauge::default(),
            seconds: Histogram::new(SECONDS),
            release_seconds: Histogram::new(SECONDS),
            samples: Counter::default(),
            failures: Family::default(),
            in_parts: Counter::default(),
            whole: Family::default(),
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
                "querier_query_release_seconds",
                "Time that queries went on after whoever wanted them had gone",
                metrics.release_seconds.clone(),
            );
            r.register(
                "prometheus_engine_query_samples",
                "Samples looked at by queries",
                metrics.samples.clone(),
            );
            r.register("querier_query_failures", "Queries that failed, by kind", metrics.failures.clone());
            r.register_collector(Box::new(CacheCollector(Arc::clone(sources))));
            r.register(
                "querier_aggregations_in_parts",
                "Aggregations of which ingesters computed parts",
                metrics.in_parts.clone(),
            );
            r.register(
                "querier_aggregations_whole",
                "Aggregations computed from whole series although parts were offered, by reason",
                metrics.whole.clone(),
            );
        });
        metrics
    }

    /// Counts an aggregation of which ingesters computed parts.
    pub(crate) fn in_parts(&self) {
        self.in_parts.inc();
    }

    /// Counts an aggregation of which they could have done so.
    pub(crate) fn whole(&self, reason: Reason) {
        self.whole.get_or_create(&Because { reason: reason.as_str() }).inc();
    }
}

/// Tells what the memory for files did.
#[derive(Debug)]
struct CacheCollector(Arc<Sources>);

impl Collector for CacheCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let stats = self.0.cache_stats();
        for (name, help, value) in [
            ("querier_cache_hits", "Parts of files that were found in memory", stats.hits),
            ("querier_cache_misses", "Parts of files that were read from the storage", stats.misses),
            ("querier_cache_evictions", "Parts of files that made room for others", stats.evictions),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        let bytes = ConstGauge::new(i64::try_from(stats.bytes).unwrap_or(i64::MAX));
        let help = "Memory taken by parts of files";
        bytes.encode(encoder.encode_descriptor("querier_cache_bytes", help, None, bytes.metric_type())?)
    }
}
