//! The newest samples of all ingesters, merged.
//!
//! Each ingester streams its series sorted by metric name, then labels; the streams are merged in that order, and
//! of a series that several ingesters have the newest sample wins. All streams are opened, and their first message
//! has arrived, before anything is answered.

use std::collections::VecDeque;
use std::sync::Arc;

use model::{Histogram, Labels, Matcher, Tenant, Timestamp, Value};
use rpc::pb::ingester as pb;
use rpc::symbols::SymbolReader;
use tonic::{Status, Streaming};

use crate::peers::{LOOKUP_DEADLINE, Peers};

/// A series and its newest sample.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LastSample {
    pub(crate) labels: Labels,
    pub(crate) timestamp: Timestamp,
    pub(crate) value: Value,
}

/// What to look for.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) tenant: &'a Tenant,
    /// A series is taken when any of the sets accepts it.
    pub(crate) any_of: &'a [Vec<Matcher>],
    pub(crate) min_time: Timestamp,
    /// Inclusive.
    pub(crate) max_time: Timestamp,
}

/// The merged stream.
#[derive(Debug)]
pub(crate) struct LastSamples {
    heads: Vec<Head>,
}

#[derive(Debug)]
struct Head {
    source: String,
    stream: Streaming<pb::SelectResponse>,
    /// The logs it answers for, once its first message is there.
    logs: Vec<String>,
    ready: VecDeque<LastSample>,
    is_over: bool,
}

impl LastSamples {
    /// Opens every ingester; fails when one of them cannot be reached.
    pub(crate) async fn open(peers: &Peers, request: Request<'_>) -> Result<Self, Status> {
        let message = pb::LastSamplesRequest {
            tenant: request.tenant.as_str().to_owned(),
            any_of: rpc::convert::matcher_sets_to_pb(request.any_of),
            min_time: request.min_time.millis(),
            max_time: request.max_time.millis(),
        };
        let heads = peers.ask_ingesters(|source, mut client| {
            let request = rpc::with_deadline(message.clone(), LOOKUP_DEADLINE);
            async move {
                let stream = client.last_samples(request).await?.into_inner();
                let mut head =
                    Head { source, stream, logs: Vec::new(), ready: VecDeque::new(), is_over: false };
                head.fill().await?;
                let logs = std::mem::take(&mut head.logs);
                Ok((head, logs))
            }
        });
        Ok(Self { heads: heads.await? })
    }

    /// Returns the next series.
    pub(crate) async fn next(&mut self) -> Result<Option<LastSample>, Status> {
        for head in &mut self.heads {
            head.fill().await.map_err(|status| named(&head.source, &status))?;
        }
        let first = self.heads.iter().filter_map(|h| h.ready.front()).map(key).min();
        let Some((name, labels)) = first.map(|(name, labels)| (name.to_owned(), labels.clone())) else {
            return Ok(None);
        };
        let mut newest: Option<LastSample> = None;
        for head in &mut self.heads {
            if let Some(sample) = head.ready.pop_front_if(|s| key(s) == (name.as_str(), &labels)) {
                newest = Some(match newest {
                    Some(other) => newer(other, sample),
                    None => sample,
                });
            }
        }
        Ok(newest)
    }
}

fn key(sample: &LastSample) -> (&str, &Labels) {
    (sample.labels.metric_name(), &sample.labels)
}

/// The newer of two samples of a series; at one time a real sample beats a staleness marker.
fn newer(a: LastSample, b: LastSample) -> LastSample {
    let rank = |s: &LastSample| (s.timestamp, !s.value.is_stale());
    if rank(&b) > rank(&a) { b } else { a }
}

fn named(source: &str, status: &Status) -> Status {
    rpc::status::status(rpc::status::kind(status), format!("{source}: {}", status.message()))
}

impl Head {
    /// Reads on until a series is at hand or the stream is over.
    async fn fill(&mut self) -> Result<(), Status> {
        while self.ready.is_empty() && !self.is_over {
            match self.stream.message().await? {
                Some(message) => {
                    self.logs.extend(message.state.iter().flat_map(|s| &s.logs).map(|l| l.log.clone()));
                    self.ready.extend(decode(&message)?);
                }
                None => self.is_over = true,
            }
        }
        Ok(())
    }
}

/// Reads a message, which holds label sets together with their samples.
fn decode(message: &pb::SelectResponse) -> Result<Vec<LastSample>, rpc::Error> {
    let symbols = SymbolReader(&message.symbols);
    if message.labels.len() != message.samples.len() {
        return Err(rpc::Error::invalid("samples", "as many as label sets are needed"));
    }
    let timelines = message.timelines.iter().map(|t| rpc::convert::ascending_times(&t.deltas));
    let timelines = timelines.collect::<Result<Vec<_>, _>>()?;
    let last_sample = |(refs, samples): (_, &pb::SeriesSamples)| {
        let labels = symbols.labels(refs)?;
        let times = samples.timeline.checked_sub(1).and_then(|i| timelines.get(i as usize));
        let float = times.and_then(|t| t.last()).zip(samples.values.last());
        let (timestamp, value) = match (float, samples.histogram_deltas.last(), samples.histograms.last()) {
            (Some((t, x)), ..) => (*t, Value::Float(*x)),
            (None, Some(t), Some(h)) => (*t, Value::Histogram(Arc::new(Histogram::from(h)))),
            _ => return Err(rpc::Error::Missing("samples.values")),
        };
        Ok(LastSample { labels, timestamp: Timestamp(timestamp), value })
    };
    message.labels.iter().zip(&message.samples).map(last_sample).collect()
}
