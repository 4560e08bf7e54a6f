//! The writer's front and its driver: batches are cut by home and handed to one lane an ingester.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use coordination::Member;
use coordination::membership::Roster;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::error::{Error, Result};
use crate::group::{Append, Batch, Written};
use crate::lane::Lane;

/// Reaches a member at its address.
pub type Connect = Arc<dyn Fn(&str) -> std::result::Result<rpc::Channel, tower::BoxError> + Send + Sync>;

/// Bounds of a writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Bytes that may wait or be under way.
    pub buffer_bytes_max: usize,
    /// Requests under way on one stream.
    pub in_flight_max: usize,
    /// Shortest wait before an ingester is tried again.
    pub retry_min: Duration,
    /// Longest wait before an ingester is tried again.
    pub retry_max: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            buffer_bytes_max: 256 << 20,
            in_flight_max: 256,
            retry_min: Duration::from_millis(20),
            retry_max: Duration::from_secs(2),
        }
    }
}

impl Options {
    /// The buffer in units that the budget counts; as many as one acquisition can ask for.
    fn budget_units(&self) -> u32 {
        let units = (self.buffer_bytes_max / BUDGET_UNIT).clamp(1, Semaphore::MAX_PERMITS);
        u32::try_from(units).unwrap_or(u32::MAX)
    }
}

/// Batches that may wait for the driver; their bytes are bounded separately.
const QUEUE_LEN: usize = 4_096;
/// The buffer is counted in units of this many bytes.
const BUDGET_UNIT: usize = 1_024;

/// Hands batches to the driver. Clones share it.
#[derive(Debug, Clone)]
pub struct GroupWriter {
    queue: mpsc::Sender<Part>,
    budget: Arc<Semaphore>,
    options: Options,
}

/// Waits for a batch to be durable; may be dropped, the batch is delivered all the same.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<Written>>);

impl Future for Pending {
    type Output = Result<Written>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(Error::Closed)))
    }
}

impl GroupWriter {
    /// Makes a writer and the driver that the service has to run. The list of ingesters may change at any time.
    #[must_use]
    pub fn new(options: Options, ingesters: watch::Receiver<Roster>, connect: Connect) -> (Self, Driver) {
        let (queue, batches) = mpsc::channel(QUEUE_LEN);
        let budget = Arc::new(Semaphore::new(options.budget_units() as usize));
        let writer = Self { queue, budget, options: options.clone() };
        (writer, Driver { options, batches, ingesters, connect, lanes: HashMap::new() })
    }

    /// Takes a batch and returns at once.
    ///
    /// # Errors
    /// [`Error::BufferFull`] when too much waits already, [`Error::Closed`] when the driver has ended.
    pub fn enqueue(&self, batch: Batch) -> Result<Pending> {
        let bytes: usize = batch.appends.iter().map(Append::byte_len).sum();
        let units = u32::try_from(bytes.div_ceil(BUDGET_UNIT)).unwrap_or(u32::MAX);
        let full = || Error::BufferFull {
            waiting: self.options.buffer_bytes_max - self.budget.available_permits() * BUDGET_UNIT,
            limit: self.options.buffer_bytes_max,
        };
        let permit = Arc::clone(&self.budget).try_acquire_many_owned(units).map_err(|_| full())?;
        let (reply, answer) = oneshot::channel();
        if batch.appends.is_empty() {
            // Nobody waits for an answer that is already here unless the caller polls, which it may not.
            drop(reply.send(Ok(Written::default())));
            return Ok(Pending(answer));
        }
        let part =
            Part { appends: batch.appends, is_atomic: batch.is_atomic, reply: Reply::new(reply, permit) };
        self.queue.try_send(part).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => full(),
            mpsc::error::TrySendError::Closed(_) => Error::Closed,
        })?;
        Ok(Pending(answer))
    }

    /// Takes a batch and waits until it is durable.
    ///
    /// # Errors
    /// As [`GroupWriter::enqueue`]; [`Error::Refused`] when the ingester refuses the batch as a whole;
    /// [`Error::Timeout`] when nobody answered in time, after which the batch may still be stored.
    pub async fn write(&self, batch: Batch, deadline: Duration) -> Result<Written> {
        let pending = self.enqueue(batch)?;
        tokio::time::timeout(deadline, pending).await.unwrap_or(Err(Error::Timeout(deadline)))
    }

    /// Waits until everything handed in so far has been answered for.
    pub async fn drain(&self) {
        // The budget is whole again only when no batch waits or is under way.
        let all = self.budget.acquire_many(self.options.budget_units()).await;
        drop(all);
    }
}

/// The appends of a batch that go to one ingester.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) appends: Vec<Append>,
    pub(crate) is_atomic: bool,
    pub(crate) reply: Reply,
}

/// Collects the answers to all parts of a batch.
#[derive(Debug, Clone)]
pub(crate) struct Reply(Arc<Mutex<ReplyState>>);

#[derive(Debug)]
struct ReplyState {
    written: Result<Written>,
    sender: Option<oneshot::Sender<Result<Written>>>,
    _permit: OwnedSemaphorePermit,
}

impl Reply {
    fn new(sender: oneshot::Sender<Result<Written>>, permit: OwnedSemaphorePermit) -> Self {
        Self(Arc::new(Mutex::new(ReplyState {
            written: Ok(Written::default()),
            sender: Some(sender),
            _permit: permit,
        })))
    }

    /// Adds the answer to one part; the last part's answer goes out.
    pub(crate) fn answer(self, part: Result<Written>) {
        let mut state = self.0.lock();
        match (&mut state.written, part) {
            (Ok(all), Ok(part)) => {
                all.stored += part.stored;
                all.refusals.extend(part.refusals);
            }
            (written @ Ok(_), Err(error)) => *written = Err(error),
            (Err(_), _) => {}
        }
        if Arc::strong_count(&self.0) == 1
            && let Some(sender) = state.sender.take()
        {
            // The caller may have stopped waiting.
            drop(sender.send(state.written.clone()));
        }
    }
}

/// Moves batches to the ingesters; the service spawns [`Driver::run`].
pub struct Driver {
    options: Options,
    batches: mpsc::Receiver<Part>,
    ingesters: watch::Receiver<Roster>,
    connect: Connect,
    lanes: HashMap<Member, Arc<LaneQueue>>,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("lanes", &self.lanes.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

type LaneFuture = Pin<Box<dyn Future<Output = Vec<Part>> + Send>>;

impl Driver {
    /// Runs until the last [`GroupWriter`] is gone and everything handed in was answered for.
    pub async fn run(mut self) {
        let mut running: FuturesUnordered<LaneFuture> = FuturesUnordered::new();
        let mut members = self.adopt_members(&mut running);
        let (mut is_open, mut is_watching) = (true, true);
        while is_open || !running.is_empty() {
            tokio::select! {
                part = self.batches.recv(), if is_open && !members.is_empty() => match part {
                    Some(part) => self.dispatch(part, &members),
                    None => {
                        // Lanes end once they have delivered what they hold.
                        self.lanes.values().for_each(|lane| lane.close(Close::WhenEmpty));
                        is_open = false;
                    }
                },
                Some(left_over) = running.next(), if !running.is_empty() => {
                    // A lane whose ingester left the list gives back what it could not deliver.
                    for part in left_over {
                        self.dispatch(part, &members);
                    }
                }
                changed = self.ingesters.changed(), if is_watching => {
                    is_watching = changed.is_ok();
                    members = self.adopt_members(&mut running);
                    if !is_watching && members.is_empty() {
                        break;
                    }
                }
            }
        }
    }

    /// Opens lanes to new ingesters and closes those of ingesters that left; returns the member list.
    fn adopt_members(&mut self, running: &mut FuturesUnordered<LaneFuture>) -> Arc<[Member]> {
        let members = Arc::clone(&self.ingesters.borrow_and_update().members);
        self.lanes.retain(|member, lane| {
            let stays = members.contains(member);
            if !stays {
                lane.close(Close::Now);
            }
            stays
        });
        for member in members.iter() {
            self.lanes.entry(member.clone()).or_insert_with(|| {
                let queue = Arc::new(LaneQueue::default());
                let connect = Arc::clone(&self.connect);
                let lane = Lane::new(member.clone(), connect, Arc::clone(&queue), self.options.clone());
                running.push(Box::pin(lane.run()));
                queue
            });
        }
        members
    }

    /// Cuts a part by home and queues the pieces; with nobody to send to, the caller hears so.
    fn dispatch(&self, part: Part, members: &[Member]) {
        let Part { appends, is_atomic, reply } = part;
        let mut by_home: HashMap<usize, Vec<Append>> = HashMap::new();
        for append in appends {
            let identity = append.group.identity();
            let key = identity.key.as_encoded().as_bytes();
            let home = coordination::placement::home(&identity.tenant, key, identity.sub_group, members);
            let Some(home) = home else { return reply.answer(Err(Error::Closed)) };
            by_home.entry(home).or_default().push(append);
        }
        for (home, appends) in by_home {
            let part = Part { appends, is_atomic, reply: reply.clone() };
            match self.lanes.get(&members[home]) {
                Some(lane) => lane.push(part),
                None => part.reply.answer(Err(Error::Closed)),
            }
        }
    }
}

/// How a lane ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Close {
    /// Once everything is delivered.
    WhenEmpty,
    /// At once, giving back what is not delivered.
    Now,
}

/// What waits for one ingester. Bounded by the writer's budget, which every part in it holds a share of.
#[derive(Debug, Default)]
pub(crate) struct LaneQueue {
    state: Mutex<(VecDeque<Part>, Option<Close>)>,
    changed: Notify,
}

impl LaneQueue {
    fn push(&self, part: Part) {
        self.state.lock().0.push_back(part);
        self.changed.notify_one();
    }

    fn close(&self, how: Close) {
        self.state.lock().1 = Some(how);
        self.changed.notify_one();
    }

    pub(crate) fn closing(&self) -> Option<Close> {
        self.state.lock().1
    }

    pub(crate) fn take_all(&self) -> VecDeque<Part> {
        std::mem::take(&mut self.state.lock().0)
    }

    pub(crate) fn try_next(&self) -> Option<Part> {
        self.state.lock().0.pop_front()
    }

    /// Waits until something was pushed or the lane is being closed. Cancellation loses nothing.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}
