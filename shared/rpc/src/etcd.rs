//! Calls to one member of an etcd cluster.
//!
//! `coordination` decides which member is asked, how often and for how long; here a call is made once and its failure
//! is read. The calls are made from `proto/third-party/etcd` rather than by a client library: those spread calls over
//! all members on their own, also over dead ones, and need `protoc` to be built.

use futures::channel::mpsc;
use futures::{SinkExt as _, StreamExt as _, stream};
use tonic::{Code, Status, Streaming};

use crate::pb::etcd as pb;
use crate::{Channel, MESSAGE_BYTES_MAX};

/// Asks a member for more than the answer: that it belongs to a majority. A stream of a member that is cut off from
/// the others then ends instead of falling silent.
const HAS_LEADER: (&str, &str) = ("hasleader", "true");
/// Requests to a watch that may wait to be sent: the one that opens it, and a question for a sign of life.
const WATCH_REQUESTS: usize = 2;

/// How a call to a member failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The member or the way to it failed. Another one may answer; whether the call was carried out is unknown.
    #[error("{0}")]
    Member(String),
    /// There is no such lease.
    #[error("no such lease")]
    LeaseNotFound,
    /// A lease of this name is there already.
    #[error("the lease is there already")]
    LeaseExists,
    /// The cluster has decided against the call; the next member says the same.
    #[error("{message}")]
    Refused {
        /// What sort of refusal it is.
        kind: fault::Kind,
        /// What etcd said.
        message: String,
    },
}

impl From<Status> for Failure {
    /// Reads a status as etcd's `rpctypes` makes them: a code, and a text that is part of the interface.
    fn from(status: Status) -> Self {
        let text = status.message();
        let is_full = text.contains("database space exceeded");
        match status.code() {
            Code::NotFound if text.contains("lease not found") => Self::LeaseNotFound,
            Code::FailedPrecondition if text.contains("lease already exists") => Self::LeaseExists,
            // "too many requests" is a member's own state, a full database that of all.
            Code::ResourceExhausted if !is_full => Self::Member(text.to_owned()),
            Code::ResourceExhausted => Self::Refused { kind: fault::Kind::Limit, message: text.to_owned() },
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented => {
                Self::Refused { kind: crate::status::kind(&status), message: text.to_owned() }
            }
            code => Self::Member(if text.is_empty() { code.to_string() } else { text.to_owned() }),
        }
    }
}

/// A connection to one member. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    kv: pb::kv_client::KvClient<Channel>,
    lease: pb::lease_client::LeaseClient<Channel>,
    watch: pb::watch_client::WatchClient<Channel>,
}

impl Client {
    /// Makes a client of a channel to a member.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        let limit = MESSAGE_BYTES_MAX;
        Self {
            kv: pb::kv_client::KvClient::new(channel.clone()).max_decoding_message_size(limit),
            lease: pb::lease_client::LeaseClient::new(channel.clone()),
            watch: pb::watch_client::WatchClient::new(channel).max_decoding_message_size(limit),
        }
    }

    /// Reads keys. The answer is that of the whole cluster, not only of the member.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn range(&mut self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Failure> {
        Ok(self.kv.range(request).await?.into_inner())
    }

    /// Compares and changes keys.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn txn(&mut self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Failure> {
        Ok(self.kv.txn(request).await?.into_inner())
    }

    /// Opens a lease.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn grant(&mut self, request: pb::LeaseGrantRequest) -> Result<pb::LeaseGrantResponse, Failure> {
        Ok(self.lease.lease_grant(request).await?.into_inner())
    }

    /// Ends a lease.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn revoke(&mut self, id: i64) -> Result<(), Failure> {
        self.lease.lease_revoke(pb::LeaseRevokeRequest { id }).await?;
        Ok(())
    }

    /// Starts a lease's time anew, by a stream of one request: there is none that could break between two of them.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn keep_alive(&mut self, id: i64) -> Result<(), Failure> {
        let request = stream::iter([pb::LeaseKeepAliveRequest { id }]);
        let mut answers = self.lease.lease_keep_alive(request).await?.into_inner();
        match answers.message().await? {
            Some(answer) if answer.ttl > 0 => Ok(()),
            Some(_) => Err(Failure::LeaseNotFound),
            None => Err(Failure::Member("the keep-alive was not answered".to_owned())),
        }
    }

    /// Opens a watch. Its first answer says that it is open, or why it is not.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn watch(&mut self, request: pb::WatchCreateRequest) -> Result<Watch, Failure> {
        let (mut requests, queue) = mpsc::channel(WATCH_REQUESTS);
        let request = pb::watch_request::RequestUnion::CreateRequest(request);
        // The queue is at hand and has room.
        drop(requests.send(pb::WatchRequest { request_union: Some(request) }).await);
        let mut outgoing = tonic::Request::new(queue);
        let (name, value) = HAS_LEADER;
        outgoing.metadata_mut().insert(name, tonic::metadata::MetadataValue::from_static(value));
        let answers = self.watch.watch(outgoing).await?.into_inner();
        Ok(Watch { requests, answers })
    }
}

/// An open stream with one watch.
#[derive(Debug)]
pub struct Watch {
    requests: mpsc::Sender<pb::WatchRequest>,
    answers: Streaming<pb::WatchResponse>,
}

impl Watch {
    /// Waits for the next answer. May be dropped and called again.
    ///
    /// # Errors
    /// [`Failure`]; [`Failure::Member`] when the stream has ended.
    pub async fn next(&mut self) -> Result<pb::WatchResponse, Failure> {
        match self.answers.next().await {
            Some(answer) => Ok(answer?),
            None => Err(Failure::Member("the stream ended".to_owned())),
        }
    }

    /// Asks for an answer at once, even if nothing has changed. The answer has the watch id -1.
    pub fn ask_for_progress(&mut self) {
        let request = pb::watch_request::RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
        // A full queue asks already, and a closed one shows as the end of the answers.
        drop(self.requests.try_send(pb::WatchRequest { request_union: Some(request) }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_say_whether_another_member_may_help() {
        let member = |text: &str| Failure::Member(text.to_owned());
        let refused = |kind, text: &str| Failure::Refused { kind, message: text.to_owned() };
        let cases = [
            (Code::NotFound, "etcdserver: requested lease not found", Failure::LeaseNotFound),
            (Code::FailedPrecondition, "etcdserver: lease already exists", Failure::LeaseExists),
            (Code::Unavailable, "etcdserver: no leader", member("etcdserver: no leader")),
            (
                Code::ResourceExhausted,
                "etcdserver: too many requests",
                member("etcdserver: too many requests"),
            ),
            (Code::Unknown, "h2 protocol error", member("h2 protocol error")),
            (Code::Cancelled, "", member("The operation was cancelled")),
            (
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
                refused(fault::Kind::Limit, "etcdserver: mvcc: database space exceeded"),
            ),
            (
                Code::InvalidArgument,
                "etcdserver: user name is empty",
                refused(fault::Kind::Invalid, "etcdserver: user name is empty"),
            ),
            (
                Code::PermissionDenied,
                "etcdserver: permission denied",
                refused(fault::Kind::Internal, "etcdserver: permission denied"),
            ),
        ];
        for (code, text, expected) in cases {
            assert_eq!(Failure::from(Status::new(code, text)), expected, "{code:?} {text}");
        }
    }
}
