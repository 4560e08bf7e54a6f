//! One lane an ingester: a stream, what is under way on it, and what was declared on it.
//!
//! When a stream breaks, a new one is opened and everything not answered for is sent again in order; groups are
//! declared anew, since declarations live as long as their stream. A lane whose ingester neither takes samples nor
//! answers a probe gives up, where there is another to go to, and gives back what it holds.

mod declared;
mod queue;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use coordination::Member;
use rpc::pb::ingester as pb;
use rpc::pb::ingester::ingester_client::IngesterClient;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::driver::{Connect, Options, Part};
use crate::error::Error;
use crate::group::{Refusal, Written};
use declared::Declared;

pub(crate) use queue::LaneQueue;

/// How long an ingester may be away before that is worth a warning.
const REPORT_AFTER: Duration = Duration::from_secs(5);
/// Opening a stream may take so many times what an answer may.
const OPEN_PATIENCE: u32 = 2;
/// Requests that may wait in the stream's own queue.
const STREAM_QUEUE_LEN: usize = 16;

pub(crate) struct Lane {
    member: Member,
    connect: Connect,
    queue: Arc<LaneQueue>,
    options: Options,
    /// Sent and not answered for, or to be sent again, with the time they came.
    under_way: VecDeque<(Part, Instant)>,
    /// How many parts the ingester has answered.
    answered: u64,
}

/// How a lane ended, with what it did not deliver.
#[derive(Debug)]
pub(crate) enum LaneEnd {
    /// It was to end.
    Closed(VecDeque<Part>),
    /// Its ingester does not answer, and there is another.
    GaveUp(VecDeque<Part>),
}

/// Why a stream ended.
enum End {
    /// Everything is delivered and the lane is to end.
    Delivered,
    /// It broke; another may do.
    Broken(Status),
    /// The ingester does not answer, not even a probe.
    Hung,
}

impl Lane {
    pub(crate) fn new(member: Member, connect: Connect, queue: Arc<LaneQueue>, options: Options) -> Self {
        Self { member, connect, queue, options, under_way: VecDeque::new(), answered: 0 }
    }

    /// Runs until the queue is closed or the ingester is given up.
    pub(crate) async fn run(mut self) -> LaneEnd {
        let queue = Arc::clone(&self.queue);
        let has_given_up = tokio::select! {
            biased;
            () = queue.closed_now() => false,
            has_given_up = self.deliver() => has_given_up,
        };
        let mut left: VecDeque<Part> = self.under_way.into_iter().map(|(part, _)| part).collect();
        left.extend(queue.take_all());
        queue.set_oldest_taken(None);
        if has_given_up { LaneEnd::GaveUp(left) } else { LaneEnd::Closed(left) }
    }

    /// Delivers until everything is delivered and the lane is to end (false), or until there is nobody to deliver to
    /// (true). May be dropped at any time: what is under way stays there.
    async fn deliver(&mut self) -> bool {
        let mut wait = self.options.retry_min;
        // Since when nothing gets through, and whether that was said.
        let mut broken: Option<(Instant, bool)> = None;
        loop {
            let end = match self.open().await {
                Ok((requests, responses)) => {
                    let answered = self.answered;
                    let end = self.drive(requests, responses).await;
                    if self.answered != answered {
                        wait = self.options.retry_min;
                        broken = None;
                    }
                    end
                }
                Err(status) => End::Broken(status),
            };
            let status = match end {
                End::Delivered => return false,
                End::Hung => return true,
                End::Broken(status) => status,
            };
            let kind = rpc::status::kind(&status);
            let may_pass_later = kind.is_retryable() || kind == fault::Kind::Cancelled;
            if !may_pass_later && let Some((part, _)) = self.under_way.pop_front() {
                // The oldest request is the one that broke the stream; sending it again breaks the next.
                let message = status.message().to_owned();
                self.told();
                part.reply.answer(Err(Error::Refused { kind, message }));
            } else {
                let (since, is_reported) = broken.get_or_insert((Instant::now(), false));
                if since.elapsed() >= self.options.patience && self.queue.may_give_up() {
                    self.refuse_awaited(kind, status.message(), REPORT_AFTER);
                    return true;
                }
                // An ingester that starts or stops in order is back within this time.
                if !*is_reported && since.elapsed() >= REPORT_AFTER {
                    *is_reported = true;
                    let (ingester, waiting) = (&self.member.name, self.under_way.len());
                    let error = status.message();
                    tracing::warn!(ingester, %kind, error, waiting, "samples wait for an ingester");
                }
                let patience = if *is_reported { Duration::ZERO } else { REPORT_AFTER };
                self.refuse_awaited(kind, status.message(), patience);
            }
            if !self.wait_or_end(wait).await {
                return false;
            }
            wait = (wait * 2).min(self.options.retry_max);
        }
    }

    /// Tells those who have waited for an answer for so long why there is none, whichever ingesters were tried; what
    /// nobody waits for is tried on.
    fn refuse_awaited(&mut self, kind: fault::Kind, message: &str, patience: Duration) {
        let is_over =
            |(part, _): &(Part, Instant)| part.reply.is_awaited() && part.came.elapsed() >= patience;
        let (awaited, kept) = self.under_way.drain(..).partition(is_over);
        self.under_way = kept;
        self.told();
        let awaited: VecDeque<(Part, Instant)> = awaited;
        for (part, _) in awaited {
            part.reply.answer(Err(Error::Refused { kind, message: message.to_owned() }));
        }
    }

    /// Tells the driver since when the oldest part under way waits.
    fn told(&self) {
        self.queue.set_oldest_taken(self.under_way.front().map(|(_, since)| *since));
    }

    /// Waits before the next try; false when the lane is to end and has nothing left.
    async fn wait_or_end(&self, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        loop {
            // Nothing is held back on the way out: what waits is still tried, but an empty lane ends.
            if self.queue.closing().is_some() && self.under_way.is_empty() && self.queue.is_empty() {
                return false;
            }
            let sleep = tokio::time::timeout_at(deadline, self.queue.changed()).await;
            if sleep.is_err() {
                return true;
            }
        }
    }

    /// Opens a stream. One that does not open in time counts as broken.
    async fn open(&self) -> Result<(mpsc::Sender<pb::AppendRequest>, Streaming<pb::AppendResponse>), Status> {
        let (sender, receiver) = mpsc::channel(STREAM_QUEUE_LEN);
        let channel = (self.connect)(&self.member.address).map_err(|e| Status::unavailable(e.to_string()))?;
        let mut client = IngesterClient::new(channel)
            .max_decoding_message_size(rpc::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(rpc::MESSAGE_BYTES_MAX);
        let opening = client.append(ReceiverStream::new(receiver));
        let opened = tokio::time::timeout(self.options.patience * OPEN_PATIENCE, opening).await;
        let responses = opened.map_err(|_| Status::unavailable("the stream did not open in time"))??;
        Ok((sender, responses.into_inner()))
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
        // When the ingester has to have shown that it lives.
        let mut probe_at = Instant::now() + self.options.patience;
        loop {
            if sent == self.under_way.len()
                && sent < self.options.in_flight_max
                && let Some((part, since)) = self.queue.try_next()
            {
                if self.under_way.is_empty() {
                    probe_at = Instant::now() + self.options.patience;
                }
                self.under_way.push_back((part, since));
                self.told();
            }
            if self.under_way.is_empty() && self.queue.closing().is_some() {
                return End::Delivered;
            }
            let has_next = sent < self.under_way.len();
            tokio::select! {
                permit = requests.reserve(), if has_next => match permit {
                    Ok(permit) => {
                        permit.send(stream.encode(&self.under_way[sent].0));
                        sent += 1;
                    }
                    Err(_) => return End::Broken(response_error(&mut responses).await),
                },
                response = responses.message() => match response {
                    Ok(Some(response)) => {
                        let Some((part, _)) = self.under_way.pop_front().filter(|_| sent > 0) else {
                            return End::Broken(Status::internal("an answer without a request"));
                        };
                        sent -= 1;
                        self.answered += 1;
                        self.told();
                        probe_at = Instant::now() + self.options.patience;
                        let written = written(response, &part);
                        part.reply.answer(Ok(written));
                    }
                    Ok(None) => return End::Broken(Status::unavailable("the ingester ended the stream")),
                    Err(status) => return End::Broken(status),
                },
                () = self.queue.changed(), if !has_next => {}
                // Nothing was answered for long.
                () = tokio::time::sleep_until(probe_at), if !self.under_way.is_empty() => {
                    if self.queue.may_give_up() && !probe(&self.member.address, &self.connect, self.options.patience, rpc::health::is_alive).await {
                        return End::Hung;
                    }
                    probe_at = Instant::now() + self.options.patience;
                }
            }
        }
    }
}

/// Waits until an ingester that was away serves again, or its lane is to end.
pub(crate) async fn wait_until_well(address: &str, connect: &Connect, queue: &LaneQueue, patience: Duration) {
    let probing = async {
        while !probe(address, connect, patience, rpc::health::is_serving).await {
            tokio::time::sleep(patience / 2).await;
        }
    };
    let ending = async {
        while queue.closing().is_none() {
            queue.changed().await;
        }
    };
    tokio::select! {
        () = probing => {}
        () = ending => {}
    }
}

/// Whether an ingester answers a question about its health with yes, in time.
async fn probe<F>(
    address: &str,
    connect: &Connect,
    patience: Duration,
    ask: impl Fn(rpc::Channel, Duration) -> F,
) -> bool
where
    F: Future<Output = bool>,
{
    let Ok(channel) = connect(address) else { return false };
    tokio::time::timeout(patience, ask(channel, patience)).await.unwrap_or(false)
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

fn written(response: pb::AppendResponse, part: &Part) -> Written {
    let append = |i: &u32| part.pieces.get(*i as usize).map(|piece| &piece.append);
    let sample = |(i, member): (&u32, &u32)| {
        let append = append(i)?;
        Some((append.group.labels(*member)?, append.timestamp))
    };
    let is_histogram = |(i, member): &(&u32, &u32)| {
        append(i).is_some_and(|a| a.histograms.binary_search_by_key(*member, |(m, _)| *m).is_ok())
    };
    let refusal = |r: pb::Refusal| {
        let refused = || r.appends.iter().zip(&r.members);
        Refusal {
            reason: r.reason(),
            count: r.count,
            histograms: refused().filter(is_histogram).count() as u64,
            samples: refused().filter_map(sample).collect(),
            example: r.example.clone(),
        }
    };
    Written { stored: response.stored, refusals: response.refusals.into_iter().map(refusal).collect() }
}

#[cfg(test)]
mod tests;
