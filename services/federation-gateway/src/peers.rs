//! The other roles as the gateway sees them.

use std::time::Duration;

use coordination::{Member, Role};
use rpc::Channel;
use rpc::pb::discovery::discovery_client::DiscoveryClient;
use rpc::pb::ingester::ingester_client::IngesterClient;
use rpc::pb::querier::querier_client::QuerierClient;
use rpc::pb::scraper::scraper_client::ScraperClient;
use tonic::Status;

/// Time allowed for a call that only looks something up.
pub(crate) const LOOKUP_DEADLINE: Duration = Duration::from_secs(30);
/// Time allowed for a flush.
pub(crate) const FLUSH_DEADLINE: Duration = Duration::from_secs(600);

/// Reaches the other roles.
#[derive(Debug, Clone)]
pub(crate) struct Peers(service_runtime::Peers);

impl Peers {
    pub(crate) fn new(peers: service_runtime::Peers) -> Self {
        // The rosters are wanted from now on, not only when the first request comes.
        for role in [Role::Discovery, Role::Querier, Role::Ingester, Role::Scraper] {
            drop(peers.members(role));
        }
        Self(peers)
    }

    pub(crate) fn discovery(&self) -> DiscoveryClient<Channel> {
        let channel = Channel::new(self.0.role(Role::Discovery));
        DiscoveryClient::new(channel).max_decoding_message_size(rpc::MESSAGE_BYTES_MAX)
    }

    /// Any querier: each answers for everything.
    pub(crate) fn querier(&self) -> QuerierClient<Channel> {
        let channel = Channel::new(self.0.role(Role::Querier));
        QuerierClient::new(channel).max_decoding_message_size(rpc::MESSAGE_BYTES_MAX)
    }

    /// Every ingester by name.
    pub(crate) fn ingesters(&self) -> Result<Vec<(String, IngesterClient<Channel>)>, Status> {
        let connect = |(name, channel)| {
            (name, IngesterClient::new(channel).max_decoding_message_size(rpc::MESSAGE_BYTES_MAX))
        };
        Ok(self.all(Role::Ingester)?.into_iter().map(connect).collect())
    }

    /// Every scraper.
    pub(crate) fn scrapers(&self) -> Result<Vec<ScraperClient<Channel>>, Status> {
        let connect =
            |(_, channel)| ScraperClient::new(channel).max_decoding_message_size(rpc::MESSAGE_BYTES_MAX);
        Ok(self.all(Role::Scraper)?.into_iter().map(connect).collect())
    }

    fn all(&self, role: Role) -> Result<Vec<(String, Channel)>, Status> {
        let members = self.0.members(role).borrow().members.clone();
        if members.is_empty() {
            return Err(Status::unavailable(format!("no {role} is known")));
        }
        let reach = |m: &Member| {
            let channel =
                self.0.channel(&m.address).map_err(|e| Status::unavailable(format!("{}: {e}", m.name)))?;
            Ok((m.name.clone(), Channel::new(channel)))
        };
        members.iter().map(reach).collect()
    }
}
