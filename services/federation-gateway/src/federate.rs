//! The newest samples of all ingesters and of the table, merged.
//!
//! Each ingester streams its series in the order of [`model::last_samples`]. What no head has, since it was flushed and
//! whoever held it is gone, is in files: a querier streams that in the same order, asked once all heads have said what
//! they cover. The streams are merged, and of a series that several have the newest sample stays; at one time the merge
//! decides. All streams are opened, and their first message has arrived, before anything is answered.

use std::cmp::Ordering;

use exposition::federate::{Encoder, Prepared};
use model::{LastSamples, Matcher, Tenant, Timestamp};
use rpc::pb::ingester as pb;
use rpc::pb::querier::LastSamplesRequest as TableRequest;
use service_runtime::Answers;
use tonic::{Status, Streaming};

use crate::peers::{LOOKUP_DEADLINE, Peers};

/// What to look for.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) tenant: &'a Tenant,
    /// A series is taken when any of the sets accepts it; at least one.
    pub(crate) any_of: &'a [Vec<Matcher>],
    pub(crate) min_time: Timestamp,
    /// Inclusive.
    pub(crate) max_time: Timestamp,
}

/// The merged stream, written in the form of an answer.
#[derive(Debug)]
pub(crate) struct Federation {
    encoder: Encoder,
    sources: Vec<Source>,
}

/// One of the streams, at one of its series.
#[derive(Debug)]
struct Source {
    name: String,
    stream: Streaming<pb::LastSamplesResponse>,
    batch: Batch,
    /// Which of them is at hand.
    at: usize,
}

/// Some of its series, and their labels in the answer's form.
#[derive(Debug, Default)]
struct Batch {
    samples: LastSamples,
    prepared: Prepared,
}

impl Federation {
    /// Opens every ingester and the table; fails when one of them cannot be reached.
    pub(crate) async fn open(peers: &Peers, request: Request<'_>, encoder: Encoder) -> Result<Self, Status> {
        let wanted = pb::LastSamplesRequest {
            tenant: request.tenant.as_str().to_owned(),
            any_of: rpc::convert::matcher_sets_to_pb(request.any_of),
            min_time: request.min_time.millis(),
            max_time: request.max_time.millis(),
        };
        let heads = peers.ask_ingesters(|name, mut client| {
            let request = rpc::with_deadline(wanted.clone(), LOOKUP_DEADLINE);
            async move {
                let mut stream = client.last_samples(request).await?.into_inner();
                let first = stream.message().await?;
                let state = first.and_then(|first| first.state);
                let state = state.ok_or_else(|| Status::internal("its first message has no state"))?;
                let logs = state.logs.iter().map(|log| log.log.clone()).collect();
                Ok(((name, state, stream), logs))
            }
        });
        let Answers { came, struck, .. } = heads.await?;
        let (mut sources, mut states) = (Vec::with_capacity(came.len() + 1), Vec::with_capacity(came.len()));
        for (name, state, stream) in came {
            sources.push(Source::new(name, stream));
            states.push(state);
        }
        let request = TableRequest { wanted: Some(wanted), heads: states, struck };
        let table = peers.ask_querier(request, LOOKUP_DEADLINE, |mut client, request| async move {
            let mut stream = client.last_samples(request).await?.into_inner();
            stream.message().await?;
            Ok(stream)
        });
        sources.push(Source::new("table".to_owned(), table.await?));
        Ok(Self { encoder, sources })
    }

    /// Waits until each source has a series at hand; false when all are over.
    pub(crate) async fn fill(&mut self) -> Result<bool, Status> {
        for source in &mut self.sources {
            source.fill(&self.encoder).await?;
        }
        self.sources.retain(|source| !source.is_spent());
        Ok(!self.sources.is_empty())
    }

    /// Writes what is at hand, until `out` has this many bytes or a source has to be waited for.
    pub(crate) fn write(&mut self, bytes: usize, out: &mut Vec<u8>) {
        while out.len() < bytes && !self.sources.iter().any(Source::is_spent) {
            let newest = self.take_next();
            let Source { batch, at, .. } = &self.sources[newest];
            self.encoder.encode(&batch.samples, &batch.prepared, *at - 1, out);
        }
    }

    /// Writes the end.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        self.encoder.finish(out);
    }

    /// Goes behind the next series in all sources, each of which has a series at hand; returns which of them has the
    /// sample that stays.
    fn take_next(&mut self) -> usize {
        let mut first = 0;
        for other in 1..self.sources.len() {
            if self.sources[other].compare(&self.sources[first]).is_lt() {
                first = other;
            }
        }
        let mut newest = first;
        // Those in front of the first one come later in the order.
        for other in first + 1..self.sources.len() {
            if self.sources[other].compare(&self.sources[first]).is_eq() {
                if self.sources[other].is_newer(&self.sources[newest]) {
                    newest = other;
                }
                self.sources[other].at += 1;
            }
        }
        self.sources[first].at += 1;
        newest
    }
}

impl Source {
    fn new(name: String, stream: Streaming<pb::LastSamplesResponse>) -> Self {
        Self { name, stream, batch: Batch::default(), at: 0 }
    }

    /// Says whether no series is at hand.
    fn is_spent(&self) -> bool {
        self.at == self.batch.samples.len()
    }

    /// Reads on until a series is at hand or the stream is over.
    async fn fill(&mut self, encoder: &Encoder) -> Result<(), Status> {
        while self.is_spent() {
            let failed = |status: Status| {
                let message = format!("{}: {}", self.name, status.message());
                rpc::status::status(rpc::status::kind(&status), message)
            };
            let Some(message) = self.stream.message().await.map_err(failed)? else { break };
            let samples = rpc::convert::last_samples::from_pb(message.samples.unwrap_or_default());
            let samples = samples.map_err(|error| failed(error.into()))?;
            self.batch = Batch { prepared: encoder.prepare(&samples), samples };
            self.at = 0;
        }
        Ok(())
    }

    fn compare(&self, other: &Self) -> Ordering {
        self.batch.samples.compare(self.at, &other.batch.samples, other.at)
    }

    /// Of two accounts of a series at hand, says whether this one's newest sample stays.
    fn is_newer(&self, other: &Self) -> bool {
        let sample = |source: &Self| {
            (source.batch.samples.timestamp(source.at), source.batch.samples.value(source.at))
        };
        let ((time, value), (other_time, other_value)) = (sample(self), sample(other));
        time.cmp(&other_time).then_with(|| value.by_ref().compare(&other_value.by_ref())).is_gt()
    }
}
