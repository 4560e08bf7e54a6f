//! What the handlers share: the other roles, the settings, the configuration as discovery last sent it.

use std::sync::Arc;

use config_watch::Revision;
use http_api::ApiError;
use model::matcher::Pattern;
use model::{Clock, Timestamp};
use service_runtime::{Readiness, Stopper};
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::notifications::Notifications;
use crate::peers::Peers;
use crate::remote_write::RemoteWriter;

/// The gateway.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) peers: Peers,
    pub(crate) started_at: Timestamp,
    pub(crate) prometheus_config: config_watch::Latest,
    pub(crate) remote_writer: RemoteWriter,
    /// One for each remote read under way.
    pub(crate) read_places: Arc<Semaphore>,
    pub(crate) metrics: Metrics,
    /// Room for `/federate` answers under way.
    pub(crate) federations: Arc<Semaphore>,
    /// Who of them may work now.
    pub(crate) federation_turns: Semaphore,
    pub(crate) stopper: Stopper,
    pub(crate) readiness: Readiness,
    pub(crate) notifications: Notifications,
    /// The program's own metrics.
    pub(crate) registry: service_runtime::Metrics,
    /// Whose pages may read the API.
    pub(crate) origins: Pattern,
}

impl Gateway {
    /// The configuration that discovery serves; an error until the first revision has arrived.
    pub(crate) fn prometheus_config(&self) -> Result<Arc<Revision>, ApiError> {
        let latest = self.prometheus_config.borrow().clone();
        let unknown = "no configuration from discovery yet";
        latest.ok_or_else(|| ApiError::from_kind(fault::Kind::Unavailable, unknown))
    }
}
