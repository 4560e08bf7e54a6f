//! How much data is kept: what `prometheus.yml` says comes before what a service was started with, as in Prometheus.

use std::time::Duration;

use crate::Revision;

/// How long data is kept where neither an age nor a size is said.
const DEFAULT: Duration = Duration::from_secs(15 * 86_400);

/// How much data is kept; 0 is no limit, as in Prometheus.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// How old data may get.
    pub time: Option<Duration>,
    /// Bytes that the table's files may have.
    pub size: Option<u64>,
}

impl Retention {
    /// Puts what the configuration says, each of the two for itself, before what the service was started with. Without
    /// any limit the age is 15 days.
    #[must_use]
    pub fn with(self, configured: Option<&Revision>) -> Self {
        let message = configured.map(|revision| &revision.message);
        let time = message.map_or(0, |m| m.retention_time_ms);
        let size = message.map_or(0, |m| m.retention_size_bytes);
        let time = Some(Duration::from_millis(time)).filter(|t| !t.is_zero()).or(self.time);
        let size = Some(size).filter(|s| *s > 0).or(self.size).filter(|s| *s > 0);
        let time = time.filter(|t| !t.is_zero());
        Self { time: time.or(size.is_none().then_some(DEFAULT)), size }
    }
}

#[cfg(test)]
mod tests {
    use model::Labels;

    use super::*;
    use crate::WatchConfigResponse;

    #[test]
    fn the_file_comes_before_the_flags() {
        let days = |n: u64| Some(Duration::from_secs(n * 86_400));
        let day_ms = 86_400_000;
        for (flags, file, want) in [
            ((None, None), None, (days(15), None)),
            ((days(30), None), None, (days(30), None)),
            ((None, Some(1 << 30)), None, (None, Some(1 << 30))),
            ((days(1), Some(1_024)), None, (days(1), Some(1_024))),
            ((days(0), Some(0)), None, (days(15), None)),
            ((None, None), Some((day_ms, 0)), (days(1), None)),
            ((days(30), None), Some((day_ms, 0)), (days(1), None)),
            ((days(30), Some(5)), Some((0, 7)), (days(30), Some(7))),
            ((days(30), Some(5)), Some((day_ms, 0)), (days(1), Some(5))),
            ((None, None), Some((0, 7)), (None, Some(7))),
            ((None, None), Some((0, 0)), (days(15), None)),
        ] {
            let revision = file.map(|(retention_time_ms, retention_size_bytes)| Revision {
                message: WatchConfigResponse {
                    retention_time_ms,
                    retention_size_bytes,
                    ..Default::default()
                },
                external_labels: Labels::default(),
            });
            let retention = Retention { time: flags.0, size: flags.1 }.with(revision.as_ref());
            assert_eq!((retention.time, retention.size), want, "{flags:?} {file:?}");
        }
    }
}
