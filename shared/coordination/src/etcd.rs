//! The coordinator of a cluster: etcd, with what its protocol leaves to clients.
//!
//! Invariants:
//! - every call ends within [`EtcdOptions::call_timeout`], and with [`Error::Unreachable`] only when no member answered
//!   in that time: a member that is dead, hung or without a leader costs the caller a delay;
//! - a call that is repeated, since its answer may have been lost, changes nothing twice: reads, deletions, keep-alives
//!   and revocations by their nature, a lease since the caller names it, a swap since it recognises its own value;
//! - watches outlive members and connections (see `watch`).
//!
//! A put with [`Expect::Anything`] that is repeated counts as done when the key holds its value and lease already.
//!
//! Not here: TLS and passwords. What asks for them is refused.

mod calls;
mod watch;

use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rpc::etcd::Failure;
use rpc::pb::etcd as pb;

use crate::coordinator::{
    Coordinator, Entry, EventStream, Expect, Lease, Revision, Snapshot, Swap, check_key, check_ttl,
    check_value,
};
use crate::{Error, Result};
use calls::Calls;

/// Makes a channel to a member, by its `host:port`. It connects when it is first used. A new one is asked for when a
/// member did not answer on the last.
pub type Connect = Arc<
    dyn Fn(&str) -> std::result::Result<rpc::Channel, Box<dyn std::error::Error + Send + Sync>> + Send + Sync,
>;

/// Where a member of etcd is reached: parsed from `http://host:port` or `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(String);

impl Endpoint {
    /// Its `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        const WANTED: &str = "want http://HOST:PORT";
        if text.starts_with("https://") {
            return Err(format!("TLS to etcd is not built yet: {WANTED}"));
        }
        let address = text.strip_prefix("http://").unwrap_or(text);
        let address = address.strip_suffix('/').unwrap_or(address);
        if address.contains('@') {
            return Err(format!("a user of etcd is not built yet: {WANTED}"));
        }
        let (host, port) = address.rsplit_once(':').ok_or(WANTED)?;
        let is_bare = host.starts_with('[') && host.ends_with(']') || !host.contains(':');
        let is_host = !host.is_empty() && is_bare && !host.contains(['/', '?', '#', ' ']);
        if !is_host || port.parse::<u16>().is_err() {
            return Err(WANTED.to_owned());
        }
        Ok(Self(address.to_owned()))
    }
}

/// Which etcd is used, and how patiently.
#[derive(Debug, Clone)]
pub struct EtcdOptions {
    /// The members; one of them is enough to be found by, several to go on when one is gone.
    pub endpoints: Vec<Endpoint>,
    /// What comes before every key, so that one etcd serves several clusters and other programs.
    pub prefix: String,
    /// How long one member may take to answer before the next one is asked.
    pub attempt_timeout: Duration,
    /// How long a call may take in all.
    pub call_timeout: Duration,
}

impl EtcdOptions {
    /// The prefix of keys when nothing else is said.
    pub const PREFIX: &'static str = "/tributary/";

    /// Uses these members, and defaults for all else.
    #[must_use]
    pub fn new(endpoints: Vec<Endpoint>) -> Self {
        Self {
            endpoints,
            prefix: Self::PREFIX.to_owned(),
            // A leader that dies is replaced within one to two seconds.
            attempt_timeout: Duration::from_secs(2),
            call_timeout: Duration::from_secs(8),
        }
    }
}

/// A [`Coordinator`] in etcd, 3.4 or newer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Etcd {
    calls: Arc<Calls>,
    prefix: Arc<str>,
}

impl Etcd {
    /// Makes a coordinator. Nothing is connected before the first call.
    ///
    /// # Panics
    /// Without endpoints.
    #[must_use]
    pub fn new(options: EtcdOptions, connect: Connect) -> Self {
        assert!(!options.endpoints.is_empty(), "etcd needs an endpoint");
        Self { prefix: options.prefix.as_str().into(), calls: Arc::new(Calls::new(options, connect)) }
    }

    fn full(&self, key: &str) -> Bytes {
        Bytes::from(format!("{}{key}", self.prefix))
    }

    fn entry(&self, kv: pb::KeyValue) -> Result<Entry> {
        Ok(Entry {
            key: own_key(&self.prefix, &kv.key)?,
            revision: revision(kv.mod_revision),
            lease: lease(kv.lease),
            value: kv.value,
        })
    }

    /// Asks for one key.
    fn range(&self, key: &str) -> pb::RangeRequest {
        pb::RangeRequest { key: self.full(key), ..pb::RangeRequest::default() }
    }

    /// Makes `change` if the key is as expected, and says what came of it. `is_done` judges what a repeated swap finds
    /// in the way: whether that is what its first attempt left behind.
    async fn swap(
        &self,
        key: &str,
        expect: Expect,
        change: pb::request_op::Request,
        is_done: impl Fn(Option<&Entry>) -> bool,
    ) -> std::result::Result<Swap, SwapError> {
        let read = operation(pb::request_op::Request::RequestRange(self.range(key)));
        let request = pb::TxnRequest {
            compare: conditions(&self.full(key), expect),
            // To expect nothing and to delete it is to ask.
            success: match (&change, expect) {
                (pb::request_op::Request::RequestDeleteRange(_), Expect::Absent) => Vec::new(),
                _ => vec![operation(change.clone())],
            },
            failure: vec![read.clone()],
        };
        let again = match (change, expect) {
            (pb::request_op::Request::RequestPut(put), Expect::Anything) => Some(pb::TxnRequest {
                compare: holds(&put),
                success: vec![read],
                failure: vec![operation(pb::request_op::Request::RequestPut(put))],
            }),
            _ => None,
        };
        let answer = self.calls.call(|mut client, is_repeated| {
            let request = again.as_ref().filter(|_| is_repeated).unwrap_or(&request).clone();
            async move { Ok((client.txn(request).await?, is_repeated)) }
        });
        let (answer, is_repeated) = answer.await??;
        let now = header_revision(answer.header.as_ref());
        let found = match answer.responses.into_iter().next().and_then(|response| response.response) {
            Some(pb::response_op::Response::ResponseRange(range)) => range.kvs.into_iter().next(),
            // The change was made, or there was nothing to do.
            _ => return Ok(Swap::Done(now)),
        };
        let found = found.map(|kv| self.entry(kv)).transpose()?;
        if is_repeated && is_done(found.as_ref()) {
            return Ok(Swap::Done(found.map_or(now, |entry| entry.revision)));
        }
        Ok(Swap::Conflict(found))
    }
}

/// How a swap failed: the call, or the cluster's answer to it.
enum SwapError {
    Call(Error),
    Answer(Failure),
}

impl From<Error> for SwapError {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

impl From<Failure> for SwapError {
    fn from(failure: Failure) -> Self {
        Self::Answer(failure)
    }
}

impl SwapError {
    fn about(self, lease: Option<Lease>) -> Error {
        match self {
            Self::Call(error) => error,
            Self::Answer(failure) => refused(failure, lease),
        }
    }
}

#[async_trait]
impl Coordinator for Etcd {
    async fn get(&self, key: &str) -> Result<Option<Entry>> {
        check_key(key)?;
        let request = self.range(key);
        let answer = self.calls.call(|mut client, _| {
            let request = request.clone();
            async move { client.range(request).await }
        });
        let answer = answer.await?.map_err(|failure| refused(failure, None))?;
        answer.kvs.into_iter().next().map(|kv| self.entry(kv)).transpose()
    }

    async fn list(&self, prefix: &str) -> Result<Snapshot> {
        let (key, range_end) = range_of(&self.full(prefix));
        let request = pb::RangeRequest { key, range_end, limit: 0 };
        let answer = self.calls.call(|mut client, _| {
            let request = request.clone();
            async move { client.range(request).await }
        });
        let answer = answer.await?.map_err(|failure| refused(failure, None))?;
        let revision = header_revision(answer.header.as_ref());
        let entries = answer.kvs.into_iter().map(|kv| self.entry(kv)).collect::<Result<_>>()?;
        Ok(Snapshot { entries, revision })
    }

    async fn put(&self, key: &str, value: Bytes, expect: Expect, lease: Option<Lease>) -> Result<Swap> {
        check_key(key)?;
        check_value(key, &value)?;
        let put =
            pb::PutRequest { key: self.full(key), value: value.clone(), lease: lease.map_or(0, |l| l.0) };
        let is_own = |found: Option<&Entry>| found.is_some_and(|e| e.value == value && e.lease == lease);
        let swap = self.swap(key, expect, pb::request_op::Request::RequestPut(put), is_own);
        swap.await.map_err(|error| error.about(lease))
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<Swap> {
        check_key(key)?;
        let delete = pb::DeleteRangeRequest { key: self.full(key) };
        let is_gone = |found: Option<&Entry>| found.is_none();
        let swap = self.swap(key, expect, pb::request_op::Request::RequestDeleteRange(delete), is_gone);
        swap.await.map_err(|error| error.about(None))
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease> {
        let ttl = i64::try_from(check_ttl(ttl)?.as_secs()).expect("checked to be a day at most");
        // Named here, so that a repeated call cannot open a second one.
        let id = random_lease();
        let answer = self.calls.call(|mut client, is_repeated| async move {
            match client.grant(pb::LeaseGrantRequest { ttl, id }).await {
                Ok(_) => Ok(()),
                Err(Failure::LeaseExists) if is_repeated => Ok(()),
                Err(failure) => Err(failure),
            }
        });
        answer.await?.map_err(|failure| refused(failure, None))?;
        Ok(Lease(id))
    }

    async fn keep_alive(&self, lease: Lease) -> Result<()> {
        let answer = self.calls.call(|mut client, _| async move { client.keep_alive(lease.0).await });
        answer.await?.map_err(|failure| refused(failure, Some(lease)))
    }

    async fn revoke(&self, lease: Lease) -> Result<()> {
        let answer = self.calls.call(|mut client, _| async move { client.revoke(lease.0).await });
        match answer.await? {
            Ok(()) | Err(Failure::LeaseNotFound) => Ok(()),
            Err(failure) => Err(refused(failure, Some(lease))),
        }
    }

    fn watch(&self, prefix: &str, after: Revision) -> EventStream {
        watch::follow(self.calls.clone(), self.prefix.clone(), self.full(prefix), after)
    }
}

/// What a caller is told of a call that the cluster decided against.
fn refused(failure: Failure, lease: Option<Lease>) -> Error {
    match (failure, lease) {
        (Failure::LeaseNotFound, Some(lease)) => Error::LeaseGone { lease },
        (Failure::Refused { kind, message }, _) => Error::Refused { kind, cause: message },
        (failure, _) => Error::Refused { kind: fault::Kind::Internal, cause: failure.to_string() },
    }
}

const fn operation(request: pb::request_op::Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

/// The conditions under which a key is as expected.
fn conditions(key: &Bytes, expect: Expect) -> Vec<pb::Compare> {
    use pb::compare::{CompareResult, CompareTarget, TargetUnion};
    let compare = |result: CompareResult, target: CompareTarget, union| pb::Compare {
        result: result.into(),
        target: target.into(),
        key: key.clone(),
        target_union: Some(union),
    };
    let created = |result| compare(result, CompareTarget::Create, TargetUnion::CreateRevision(0));
    match expect {
        Expect::Anything => Vec::new(),
        Expect::Absent => vec![created(CompareResult::Equal)],
        Expect::Unchanged(Revision(at)) => {
            // No revision beyond an i64 was ever handed out; -1 is never met.
            let at = i64::try_from(at).unwrap_or(-1);
            let unchanged = compare(CompareResult::Equal, CompareTarget::Mod, TargetUnion::ModRevision(at));
            // An absent key compares as last changed at 0.
            vec![unchanged, created(CompareResult::Greater)]
        }
    }
}

/// The conditions under which a key holds what a put would write.
fn holds(put: &pb::PutRequest) -> Vec<pb::Compare> {
    use pb::compare::{CompareResult, CompareTarget, TargetUnion};
    let equal = |target: CompareTarget, union| pb::Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key: put.key.clone(),
        target_union: Some(union),
    };
    vec![
        equal(CompareTarget::Value, TargetUnion::Value(put.value.clone())),
        equal(CompareTarget::Lease, TargetUnion::Lease(put.lease)),
    ]
}

/// The range of all keys with a prefix, as etcd wants it: the first key and the one after the last.
fn range_of(prefix: &Bytes) -> (Bytes, Bytes) {
    let Some(last) = prefix.iter().rposition(|byte| *byte != u8::MAX) else {
        // All keys, or all from here on.
        let first = if prefix.is_empty() { Bytes::from_static(&[0]) } else { prefix.clone() };
        return (first, Bytes::from_static(&[0]));
    };
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    (prefix.clone(), end.into())
}

fn own_key(prefix: &str, key: &Bytes) -> Result<String> {
    let text = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(prefix));
    text.map(str::to_owned).ok_or_else(|| Error::Unreadable {
        key: String::from_utf8_lossy(key).into_owned(),
        cause: format!("want text after {prefix:?}"),
    })
}

fn revision(etcd: i64) -> Revision {
    Revision(u64::try_from(etcd).unwrap_or(0))
}

fn header_revision(header: Option<&pb::ResponseHeader>) -> Revision {
    revision(header.map_or(0, |header| header.revision))
}

fn lease(etcd: i64) -> Option<Lease> {
    (etcd != 0).then_some(Lease(etcd))
}

/// A name that no other lease has: 62 random bits. Were it taken all the same, etcd would refuse it.
fn random_lease() -> i64 {
    let random = RandomState::new().build_hasher().finish() >> 2;
    i64::try_from(random).unwrap_or(0).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_plain_addresses() {
        for (text, address) in [
            ("http://10.0.0.1:2379", "10.0.0.1:2379"),
            ("http://etcd-0.etcd:2379/", "etcd-0.etcd:2379"),
            ("localhost:2379", "localhost:2379"),
            ("http://[::1]:2379", "[::1]:2379"),
        ] {
            let endpoint: Endpoint = text.parse().expect(text);
            assert_eq!(endpoint.address(), address);
            assert_eq!(endpoint.to_string(), format!("http://{address}"));
        }
        for (text, fault) in [
            ("", "want http://HOST:PORT"),
            ("localhost", "want http://HOST:PORT"),
            (":2379", "want http://HOST:PORT"),
            ("::1:2379", "want http://HOST:PORT"),
            ("http://h:2379/v3", "want http://HOST:PORT"),
            ("http://h/v3:2379", "want http://HOST:PORT"),
            ("http://h:port", "want http://HOST:PORT"),
            ("https://h:2379", "TLS to etcd is not built yet: want http://HOST:PORT"),
            ("http://u:p@h:2379", "a user of etcd is not built yet: want http://HOST:PORT"),
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(fault.to_owned()), "{text}");
        }
    }

    #[test]
    fn prefixes_are_ranges() {
        for (prefix, first, end) in [
            (&b"/a/"[..], &b"/a/"[..], &b"/a0"[..]),
            (b"a\xff", b"a\xff", b"b"),
            (b"\xff\xff", b"\xff\xff", b"\0"),
            (b"", b"\0", b"\0"),
        ] {
            let range = range_of(&Bytes::from_static(prefix));
            assert_eq!(range, (Bytes::from_static(first), Bytes::from_static(end)), "{prefix:?}");
        }
    }
}
