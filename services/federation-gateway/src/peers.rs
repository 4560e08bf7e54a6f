//! The other roles as the gateway sees them.

use std::time::Duration;

use coordination::{Member, Role};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use rpc::Channel;
use rpc::pb::discovery::discovery_client::DiscoveryClient;
use rpc::pb::ingester::ingester_client::IngesterClient;
use rpc::pb::querier::querier_client::QuerierClient;
use rpc::pb::scraper::scraper_client::ScraperClient;
use service_runtime::{Answers, Covering};
use tonic::{Code, Status};

/// Time allowed for a call that only looks something up.
pub(crate) const LOOKUP_DEADLINE: Duration = Duration::from_secs(30);
/// Queriers that are asked the same at most.
const QUERIERS_ASKED_MAX: usize = 3;
/// Time allowed for a flush.
pub(crate) const FLUSH_DEADLINE: Duration = Duration::from_secs(600);
/// Time allowed for the compactions of one ingester.
pub(crate) const COMPACT_DEADLINE: Duration = Duration::from_secs(1_800);

/// Reaches the other roles.
#[derive(Debug, Clone)]
pub(crate) struct Peers(service_runtime::Peers);

impl Peers {
    pub(crate) fn new(peers: service_runtime::Peers) -> Self {
        // The rosters are wanted from now on, not only when the first request comes.
        for role in [Role::Discovery, Role::Querier, Role::Scraper] {
            drop(peers.members(role));
        }
        drop(peers.heads());
        Self(peers)
    }

    pub(crate) fn discovery(&self) -> DiscoveryClient<Channel> {
        let channel = self.0.role(Role::Discovery);
        DiscoveryClient::new(channel).max_decoding_message_size(rpc::MESSAGE_BYTES_MAX)
    }

    /// Asks a querier, and the next one when that is away or stops: each answers for everything, and asking twice
    /// changes nothing.
    pub(crate) async fn ask_querier<M, T, F>(
        &self,
        message: M,
        deadline: Duration,
        ask: impl Fn(QuerierClient<Channel>, tonic::Request<M>) -> F,
    ) -> Result<T, Status>
    where
        M: Clone,
        F: Future<Output = Result<T, Status>>,
    {
        let queriers = self.0.members(Role::Querier).borrow().members.len();
        let mut attempts = queriers.clamp(1, QUERIERS_ASKED_MAX);
        loop {
            attempts -= 1;
            let client = QuerierClient::new(self.0.role(Role::Querier));
            let client = client.max_decoding_message_size(rpc::MESSAGE_BYTES_MAX);
            match ask(client, rpc::with_deadline(message.clone(), deadline)).await {
                Err(status) if attempts > 0 && status.code() == Code::Unavailable => {}
                answer => return answer,
            }
        }
    }

    /// Where OTLP goes: any ingester takes anything.
    pub(crate) fn otlp(&self) -> MetricsServiceClient<Channel> {
        MetricsServiceClient::new(self.0.role(Role::Ingester))
    }

    /// Every ingester by name.
    pub(crate) fn ingesters(&self) -> Result<Vec<(String, IngesterClient<Channel>)>, Status> {
        let heads = self.0.heads();
        if heads.is_empty() {
            return Err(Status::unavailable("no ingester is known"));
        }
        Ok(heads.into_iter().map(|head| (head.name, ingester(head.channel))).collect())
    }

    /// Asks every ingester that holds what is not in the table yet; fails when one of them is away.
    pub(crate) async fn ask_ingesters<T, F>(
        &self,
        ask: impl Fn(String, IngesterClient<Channel>) -> F,
    ) -> Result<Answers<T>, Status>
    where
        F: Future<Output = Result<Covering<T>, Status>>,
    {
        self.0.ask_heads(false, |head| ask(head.name, ingester(head.channel))).await
    }

    /// Every querier.
    pub(crate) fn queriers(&self) -> Result<Vec<QuerierClient<Channel>>, Status> {
        let connect =
            |(_, channel)| QuerierClient::new(channel).max_decoding_message_size(rpc::MESSAGE_BYTES_MAX);
        Ok(self.all(Role::Querier)?.into_iter().map(connect).collect())
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
            Ok((m.name.clone(), channel))
        };
        members.iter().map(reach).collect()
    }
}

fn ingester(channel: Channel) -> IngesterClient<Channel> {
    IngesterClient::new(channel).max_decoding_message_size(rpc::MESSAGE_BYTES_MAX)
}
