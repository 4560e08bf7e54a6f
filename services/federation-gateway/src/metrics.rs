//! The gateway's own metrics.

use prometheus_client::metrics::counter::Counter;
use service_runtime::Metrics as Registry;

/// The gateway's own metrics.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    pub(crate) federation_errors: Counter,
    pub(crate) remote_write_samples: Counter,
    pub(crate) remote_write_invalid: Counter,
    pub(crate) remote_write_refused: Counter,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Self {
        let metrics = Self::default();
        registry.register(|r| {
            for (name, help, counter) in [
                (
                    "prometheus_web_federation_errors",
                    "Federation answers that failed or were broken off",
                    &metrics.federation_errors,
                ),
                (
                    "gateway_remote_write_samples",
                    "Samples taken by remote write and acknowledged",
                    &metrics.remote_write_samples,
                ),
                (
                    "prometheus_api_remote_write_invalid_labels_samples",
                    "Samples of remote write requests whose series cannot be stored, most often for their labels",
                    &metrics.remote_write_invalid,
                ),
                (
                    "gateway_remote_write_refused_requests",
                    "Remote write requests that were not stored as a whole",
                    &metrics.remote_write_refused,
                ),
            ] {
                r.register(name, help, counter.clone());
            }
        });
        metrics
    }
}
