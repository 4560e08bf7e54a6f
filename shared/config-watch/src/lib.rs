//! Follows the configuration that discovery serves.
//!
//! Discovery owns `prometheus.yml`; whoever needs a part of it follows its revisions. While discovery is away the
//! last known revision stays.
#![warn(missing_docs)]

mod retention;

use std::sync::Arc;
use std::time::Duration;

use model::Labels;
use relabel::{NameValidation, Rule, RuleConfig};
use rpc::Channel;
pub use rpc::pb::discovery::WatchConfigResponse;
use rpc::pb::discovery::discovery_client::DiscoveryClient;
use rpc::pb::discovery::{RelabelRule, WatchConfigRequest};
use tokio::sync::watch;
use tonic::Status;

pub use retention::Retention;

/// Wait before a broken watch is opened again.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// One revision of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Revision {
    /// What discovery sent.
    pub message: WatchConfigResponse,
    /// `global.external_labels`.
    pub external_labels: Labels,
}

/// The newest revision; `None` until the first has arrived.
pub type Latest = watch::Receiver<Option<Arc<Revision>>>;

/// Returns the newest revision as it will be, and the future that keeps it: the service spawns it, and it never
/// ends.
pub fn follow(discovery: Channel) -> (Latest, impl Future<Output = ()> + Send) {
    let (sender, latest) = watch::channel(None);
    let following = async move {
        let mut is_reported = false;
        loop {
            match watch_once(discovery.clone(), &sender, &mut is_reported).await {
                Ok(()) => {}
                Err(status) if !is_reported => {
                    is_reported = true;
                    tracing::warn!(error = status.message(), "configuration watch ended, trying again");
                }
                Err(_) => {}
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    };
    (latest, following)
}

/// Reads a relabel rule as discovery hands it out.
///
/// # Errors
/// When it is none that discovery accepts.
pub fn relabel_rule(message: RelabelRule, name_validation: NameValidation) -> relabel::Result<Rule> {
    Rule::new(RuleConfig {
        source_labels: message.source_labels,
        separator: message.separator,
        regex: message.regex,
        modulus: message.modulus,
        target_label: message.target_label,
        replacement: message.replacement,
        action: message.action.parse()?,
        name_validation,
    })
}

async fn watch_once(
    discovery: Channel,
    latest: &watch::Sender<Option<Arc<Revision>>>,
    is_reported: &mut bool,
) -> Result<(), Status> {
    let mut client = DiscoveryClient::new(discovery).max_decoding_message_size(rpc::MESSAGE_BYTES_MAX);
    let mut revisions = client.watch_config(WatchConfigRequest {}).await?.into_inner();
    while let Some(message) = revisions.message().await? {
        *is_reported = false;
        let external_labels = rpc::convert::labels(message.external_labels.as_ref())?;
        latest.send_replace(Some(Arc::new(Revision { message, external_labels })));
    }
    Ok(())
}
