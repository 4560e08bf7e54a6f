//! One lane an ingester: a stream, what is under way on it, and what was declared on it.
//!
//! When a stream breaks, a new one is opened and everything not answered for is sent again in order; groups are
//! declared anew, since declarations live as long as their stream.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use coordination::Member;
use model::{Exemplar, Histogram, Labels, Metadata};
use rpc::pb::ingester as pb;
use rpc::pb::ingester::ingester_client::IngesterClient;
use rpc::symbols::SymbolWriter;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::driver::{Close, Connect, LaneQueue, Options, Part};
use crate::error::Error;
use crate::group::{Append, Presence, Refusal, Shared, Written};

/// How long an ingester may be away before that is worth a warning.
const REPORT_AFTER: Duration = Duration::from_secs(5);
/// Requests that may wait in the stream's own queue.
const STREAM_QUEUE_LEN: usize = 16;
/// After this many requests, groups that nobody holds any more are forgotten.
const SWEEP_EVERY: u64 = 1_024;

pub(crate) struct Lane {
    member: Member,
    connect: Connect,
    queue: Arc<LaneQueue>,
    options: Options,
    /// Sent and not answered for, or to be sent again.
    under_way: VecDeque<Part>,
}

/// Why a stream ended.
enum End {
    /// Everything is delivered and the lane is to end, or it is to end at once.
    Closed,
    /// It broke; another may do.
    Broken(Status),
}

impl Lane {
    pub(crate) fn new(member: Member, connect: Connect, queue: Arc<LaneQueue>, options: Options) -> Self {
        Self { member, connect, queue, options, under_way: VecDeque::new() }
    }

    /// Runs until the queue is closed; returns what was not delivered.
    pub(crate) async fn run(mut self) -> Vec<Part> {
        let mut wait = self.options.retry_min;
        // Since when nothing gets through, and whether that was said.
        let mut broken: Option<(Instant, bool)> = None;
        loop {
            let end = match self.open().await {
                Ok((requests, responses)) => {
                    let answered = self.under_way.len();
                    let end = self.drive(requests, responses).await;
                    if self.under_way.len() != answered || self.under_way.is_empty() {
                        wait = self.options.retry_min;
                        broken = None;
                    }
                    end
                }
                Err(status) => End::Broken(status),
            };
            match end {
                End::Closed => break,
                End::Broken(status) => {
                    let kind = rpc::status::kind(&status);
                    let may_pass_later = kind.is_retryable() || kind == fault::Kind::Cancelled;
                    if !may_pass_later && let Some(part) = self.under_way.pop_front() {
                        // The oldest request is the one that broke the stream; sending it again breaks the next.
                        let message = status.message().to_owned();
                        part.reply.answer(Err(Error::Refused { kind, message }));
                    } else {
                        let (since, is_reported) = broken.get_or_insert((Instant::now(), false));
                        // An ingester that starts or stops in order is back within this time.
                        if !*is_reported && since.elapsed() >= REPORT_AFTER {
                            *is_reported = true;
                            let (ingester, waiting) = (&self.member.name, self.under_way.len());
                            let error = status.message();
                            tracing::warn!(ingester, %kind, error, waiting, "samples wait for an ingester");
                        }
                    }
                }
            }
            if !self.wait_or_close(wait).await {
                break;
            }
            wait = (wait * 2).min(self.options.retry_max);
        }
        self.under_way.extend(self.queue.take_all());
        self.under_way.into()
    }

    /// Waits before the next try; false when the lane is to end.
    async fn wait_or_close(&self, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        loop {
            match self.queue.closing() {
                Some(Close::Now) => return false,
                // Nothing is held back on the way out: what waits is still tried, but an empty lane ends.
                Some(Close::WhenEmpty) if self.under_way.is_empty() => return false,
                _ => {}
            }
            let sleep = tokio::time::timeout_at(deadline, self.queue.changed()).await;
            if sleep.is_err() {
                return true;
            }
        }
    }

    async fn open(&self) -> Result<(mpsc::Sender<pb::AppendRequest>, Streaming<pb::AppendResponse>), Status> {
        let (sender, receiver) = mpsc::channel(STREAM_QUEUE_LEN);
        let channel = (self.connect)(&self.member.address).map_err(|e| Status::unavailable(e.to_string()))?;
        let mut client = IngesterClient::new(channel)
            .max_decoding_message_size(rpc::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(rpc::MESSAGE_BYTES_MAX);
        let responses = client.append(ReceiverStream::new(receiver)).await?.into_inner();
        Ok((sender, responses))
    }

    /// Moves requests and answers over one stream until it ends.
    async fn drive(
        &mut self,
        requests: mpsc::Sender<pb::AppendRequest>,
        mut responses: Streaming<pb::AppendResponse>,
    ) -> End {
        let mut stream = Declared::default();
        // Parts of `under_way` that were sent on this stream; the rest is left from the one before.
        let mut sent = 0;
        loop {
            match self.queue.closing() {
                Some(Close::Now) => return End::Closed,
                Some(Close::WhenEmpty) if self.under_way.is_empty() => match self.queue.try_next() {
                    Some(part) => self.under_way.push_back(part),
                    None => return End::Closed,
                },
                _ => {}
            }
            if sent == self.under_way.len()
                && sent < self.options.in_flight_max
                && let Some(part) = self.queue.try_next()
            {
                self.under_way.push_back(part);
            }
            let has_next = sent < self.under_way.len();
            tokio::select! {
                permit = requests.reserve(), if has_next => match permit {
                    Ok(permit) => {
                        permit.send(stream.encode(&self.under_way[sent]));
                        sent += 1;
                    }
                    Err(_) => return End::Broken(response_error(&mut responses).await),
                },
                response = responses.message() => match response {
                    Ok(Some(response)) => {
                        let Some(part) = self.under_way.pop_front().filter(|_| sent > 0) else {
                            return End::Broken(Status::internal("an answer without a request"));
                        };
                        sent -= 1;
                        part.reply.answer(Ok(written(response)));
                    }
                    Ok(None) => return End::Broken(Status::unavailable("the ingester ended the stream")),
                    Err(status) => return End::Broken(status),
                },
                () = self.queue.changed(), if !has_next => {}
            }
        }
    }
}

/// The request side is gone: the response side says why.
async fn response_error(responses: &mut Streaming<pb::AppendResponse>) -> Status {
    loop {
        match responses.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return Status::unavailable("the ingester ended the stream"),
            Err(status) => return status,
        }
    }
}

fn written(response: pb::AppendResponse) -> Written {
    let refusals = response.refusals.into_iter();
    Written {
        stored: response.stored,
        refusals: refusals
            .map(|r| Refusal { reason: r.reason(), count: r.count, example: r.example })
            .collect(),
    }
}

/// What one stream knows.
#[derive(Default)]
struct Declared {
    groups: HashMap<u64, StreamGroup>,
    groups_ever: u32,
    requests: u64,
    symbols: SymbolWriter,
}

struct StreamGroup {
    number: u32,
    members: u32,
    metadata_changes: usize,
    group: Weak<Shared>,
}

impl Declared {
    fn encode(&mut self, part: &Part) -> pb::AppendRequest {
        self.requests += 1;
        let mut request =
            pb::AppendRequest { id: self.requests, is_atomic: part.is_atomic, ..Default::default() };
        // Changes of a request hold for all of its samples: every group is complete before the first sample.
        for append in &part.appends {
            self.declare(append, &mut request);
        }
        for append in &part.appends {
            let group = &self.groups[&append.group.0.id];
            request.append.push(group_append(append, group.number, group.members));
        }
        if self.requests.is_multiple_of(SWEEP_EVERY) {
            self.groups.retain(|_, group| {
                let is_live = group.group.strong_count() > 0;
                if !is_live {
                    request.forget.push(group.number);
                }
                is_live
            });
        }
        request.symbols = self.symbols.take();
        request
    }

    /// Declares what the append's group lacks on this stream.
    fn declare(&mut self, append: &Append, request: &mut pb::AppendRequest) {
        let Self { groups, groups_ever, symbols, .. } = self;
        let (shared, wanted) = (&append.group.0, append.members);
        let members = shared.members.lock();
        let group = groups.entry(shared.id).or_insert_with(|| {
            *groups_ever += 1;
            request.declare.push(pb::GroupDeclaration {
                group: *groups_ever,
                tenant: shared.identity.tenant.as_str().to_owned(),
                key: Some(symbols.labels(&shared.identity.key)),
                sub_group: shared.identity.sub_group,
                is_displaced: false,
                epoch: shared.identity.epoch,
                members: members.list[..wanted as usize].iter().map(|m| member(m, symbols)).collect(),
            });
            let metadata_changes = members.metadata_changes.len();
            StreamGroup {
                number: *groups_ever,
                members: wanted,
                metadata_changes,
                group: Arc::downgrade(shared),
            }
        });
        let declared = group.members;
        let add = members.list.get(declared as usize..wanted as usize).unwrap_or_default();
        // Members that are yet to be declared will be declared with the metadata they have then.
        let changed = members.metadata_changes[group.metadata_changes..].iter().filter(|m| **m < declared);
        let change = pb::GroupChange {
            group: group.number,
            add: add.iter().map(|m| member(m, symbols)).collect(),
            metadata: changed.map(|m| member_metadata(*m, &members.list[*m as usize].1, symbols)).collect(),
            ..Default::default()
        };
        group.members = declared.max(wanted);
        group.metadata_changes = members.metadata_changes.len();
        if !change.add.is_empty() || !change.metadata.is_empty() {
            request.change.push(change);
        }
    }
}

fn member((labels, metadata): &(Labels, Arc<Metadata>), symbols: &mut SymbolWriter) -> pb::Member {
    pb::Member {
        labels: Some(symbols.labels(labels)),
        r#type: rpc::pb::model::MetricType::from(metadata.kind).into(),
        unit_ref: symbols.optional(&metadata.unit),
        help_ref: symbols.optional(&metadata.help),
    }
}

fn member_metadata(member: u32, metadata: &Metadata, symbols: &mut SymbolWriter) -> pb::MemberMetadata {
    pb::MemberMetadata {
        member,
        r#type: rpc::pb::model::MetricType::from(metadata.kind).into(),
        unit_ref: symbols.optional(&metadata.unit),
        help_ref: symbols.optional(&metadata.help),
    }
}

/// Writes an append to a group that has `declared` members on the stream, maybe more than the append speaks of.
fn group_append(append: &Append, group: u32, declared: u32) -> pb::GroupAppend {
    let members = append.members;
    use pb::group_append::Presence as PbPresence;
    let presence = match &append.presence {
        Presence::All if members == declared => None,
        Presence::All => Some(PbPresence::Absent(absent_from(Vec::new(), members, declared).into())),
        Presence::Absent(bits) => {
            Some(PbPresence::Absent(absent_from(bits.clone(), members, declared).into()))
        }
        Presence::Present(list) => Some(PbPresence::Present(pb::MemberList { members: list.clone() })),
    };
    let histogram = |(member, h): &(u32, Arc<Histogram>)| pb::MemberHistogram {
        member: *member,
        histogram: Some((&**h).into()),
    };
    let exemplar =
        |(member, e): &(u32, Exemplar)| pb::MemberExemplar { member: *member, exemplar: Some(e.into()) };
    pb::GroupAppend {
        group,
        timestamp: append.timestamp.millis(),
        presence,
        values: append.values.clone(),
        histograms: append.histograms.iter().map(histogram).collect(),
        starts: append
            .starts
            .iter()
            .map(|(m, t)| pb::MemberStart { member: *m, start: t.millis() })
            .collect(),
        exemplars: append.exemplars.iter().map(exemplar).collect(),
    }
}

/// Sets the bits of members that were declared after the append was handed in.
fn absent_from(mut bits: Vec<u8>, members: u32, declared: u32) -> Vec<u8> {
    if declared > members {
        bits.resize(bits.len().max((declared as usize).div_ceil(8)), 0);
        for member in members..declared {
            bits[(member / 8) as usize] |= 1 << (member % 8);
        }
    }
    bits
}

#[cfg(test)]
mod tests;
