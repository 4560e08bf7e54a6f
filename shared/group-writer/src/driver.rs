//! The writer's front and its driver: batches are cut by where their groups go and handed to one lane an ingester.

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
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::group::{Append, Batch, Written};
use crate::lane::{Lane, LaneEnd, LaneQueue, wait_until_well};
use crate::route::{Condition, Home, route};

/// Reaches a member at its address.
pub type Connect = Arc<dyn Fn(&str) -> std::result::Result<rpc::Channel, tower::BoxError> + Send + Sync>;

/// Bounds of a writer.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes that may wait or be under way.
    pub buffer_bytes_max: usize,
    /// Requests under way on one stream.
    pub in_flight_max: usize,
    /// Shortest wait before an ingester is tried again.
    pub retry_min: Duration,
    /// Longest wait before an ingester is tried again.
    pub retry_max: Duration,
    /// How long a request may go unanswered before its ingester counts as slow, and is probed. One that does not
    /// answer the probe within the same time counts as away.
    pub patience: Duration,
    /// Counts the samples that were sent to another ingester than their home.
    pub displaced_samples: Counter,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            buffer_bytes_max: 256 << 20,
            in_flight_max: 256,
            retry_min: Duration::from_millis(20),
            retry_max: Duration::from_secs(2),
            patience: Duration::from_secs(2),
            displaced_samples: Counter::default(),
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
        (writer, Driver { options, batches, ingesters, connect, seats: Vec::new() })
    }

    /// Takes a batch and returns at once.
    ///
    /// # Errors
    /// [`Error::BufferFull`] when too much waits already, [`Error::Closed`] when the driver has ended.
    pub fn enqueue(&self, batch: Batch) -> Result<Pending> {
        self.take(batch, false)
    }

    fn take(&self, batch: Batch, is_awaited: bool) -> Result<Pending> {
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
        let pieces = batch.appends.into_iter().map(|append| Piece { append, is_displaced: false }).collect();
        let reply = Reply::new(reply, permit, is_awaited);
        let part = Part { pieces, is_atomic: batch.is_atomic, came: Instant::now(), reply };
        self.queue.try_send(part).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => full(),
            mpsc::error::TrySendError::Closed(_) => Error::Closed,
        })?;
        Ok(Pending(answer))
    }

    /// Takes a batch and waits until it is durable.
    ///
    /// # Errors
    /// As [`GroupWriter::enqueue`]; [`Error::Refused`] when the ingester refuses the batch as a whole, or has failed for
    /// seconds and there is no other; [`Error::Timeout`] when nobody answered in time. After the last two the batch may
    /// still be stored.
    pub async fn write(&self, batch: Batch, deadline: Duration) -> Result<Written> {
        let pending = self.take(batch, true)?;
        tokio::time::timeout(deadline, pending).await.unwrap_or(Err(Error::Timeout(deadline)))
    }

    /// Waits until everything handed in so far has been answered for.
    pub async fn drain(&self) {
        // The budget is whole again only when no batch waits or is under way.
        let all = self.budget.acquire_many(self.options.budget_units()).await;
        drop(all);
    }
}

/// An append on its way.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) append: Append,
    /// It goes to another ingester than its group's home.
    pub(crate) is_displaced: bool,
}

/// The appends of a batch that go to one ingester.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) pieces: Vec<Piece>,
    pub(crate) is_atomic: bool,
    /// When it was handed in, whichever ingesters it was given to since.
    pub(crate) came: Instant,
    pub(crate) reply: Reply,
}

/// Collects the answers to all parts of a batch.
#[derive(Debug, Clone)]
pub(crate) struct Reply(Arc<Mutex<ReplyState>>);

#[derive(Debug)]
struct ReplyState {
    written: Result<Written>,
    sender: Option<oneshot::Sender<Result<Written>>>,
    /// Somebody waits for the answer, and would rather hear of a failure than wait for its end.
    is_awaited: bool,
    _permit: OwnedSemaphorePermit,
}

impl Reply {
    fn new(sender: oneshot::Sender<Result<Written>>, permit: OwnedSemaphorePermit, is_awaited: bool) -> Self {
        Self(Arc::new(Mutex::new(ReplyState {
            written: Ok(Written::default()),
            sender: Some(sender),
            is_awaited,
            _permit: permit,
        })))
    }

    /// Says whether somebody waits for the answer.
    pub(crate) fn is_awaited(&self) -> bool {
        self.0.lock().is_awaited
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
    /// In the order of the member list.
    seats: Vec<Seat>,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members: Vec<&Member> = self.seats.iter().map(|seat| &seat.member).collect();
        f.debug_struct("Driver").field("members", &members).finish_non_exhaustive()
    }
}

/// One ingester as the driver sees it.
struct Seat {
    member: Member,
    lane: Arc<LaneQueue>,
    /// Its lane has given up; it is probed until it answers.
    is_away: bool,
    /// Its lane is at work.
    is_running: bool,
}

impl Seat {
    fn condition(&self, patience: Duration, now: Instant) -> Condition {
        match self.lane.oldest() {
            _ if self.is_away => Condition::Away,
            Some(oldest) if now - oldest > patience => Condition::Slow,
            _ => Condition::Well,
        }
    }
}

/// What is remembered to choose where groups go, in the order of the seats.
#[derive(Default)]
struct Places {
    members: Arc<[Member]>,
    homes: Vec<Home>,
}

/// What the driver waits for: one event of each seat that has a lane or is probed, by the seat's queue.
enum Event {
    /// A lane ended.
    Ended(Arc<LaneQueue>, LaneEnd),
    /// An ingester that was away answers, or its lane is to end.
    Back(Arc<LaneQueue>),
}

impl Event {
    fn queue(&self) -> &Arc<LaneQueue> {
        let (Self::Ended(queue, _) | Self::Back(queue)) = self;
        queue
    }
}

type EventFuture = Pin<Box<dyn Future<Output = Event> + Send>>;

impl Driver {
    /// Runs until the last [`GroupWriter`] is gone and everything handed in was answered for.
    pub async fn run(mut self) {
        let mut running: FuturesUnordered<EventFuture> = FuturesUnordered::new();
        let mut places = Places::default();
        self.adopt_members(&mut places, &mut running);
        let (mut is_open, mut is_watching) = (true, true);
        // Lanes to members that left and have yet to give back what they hold, which goes before what comes.
        let mut leaving = 0;
        while is_open || !running.is_empty() {
            tokio::select! {
                part = self.batches.recv(), if is_open && leaving == 0 && !places.members.is_empty() => match part {
                    Some(part) => self.dispatch(part, &mut places),
                    None => {
                        // Lanes end once they have delivered what they hold.
                        self.seats.iter().for_each(|seat| seat.lane.close(Close::WhenEmpty));
                        is_open = false;
                    }
                },
                Some(event) = running.next(), if !running.is_empty() => {
                    if event.queue().closing() == Some(Close::Now) {
                        leaving -= 1;
                    }
                    self.take_event(event, &mut places, &mut running);
                }
                changed = self.ingesters.changed(), if is_watching => {
                    is_watching = changed.is_ok();
                    leaving += self.adopt_members(&mut places, &mut running);
                    if !is_watching && places.members.is_empty() {
                        break;
                    }
                }
            }
        }
    }

    /// Opens lanes to new ingesters and closes those of ingesters that left; returns how many it closed.
    fn adopt_members(&mut self, places: &mut Places, running: &mut FuturesUnordered<EventFuture>) -> usize {
        let members = Arc::clone(&self.ingesters.borrow_and_update().members);
        let mut old: HashMap<Member, (Seat, Home)> = std::mem::take(&mut self.seats)
            .into_iter()
            .zip(std::mem::take(&mut places.homes))
            .map(|(seat, home)| (seat.member.clone(), (seat, home)))
            .collect();
        for member in members.iter() {
            let (seat, home) = old.remove(member).unwrap_or_else(|| {
                let (member, lane) = (member.clone(), Arc::default());
                (Seat { member, lane, is_away: false, is_running: false }, Home::default())
            });
            self.seats.push(seat);
            places.homes.push(home);
        }
        places.members = members;
        self.start_lanes(running);
        old.values().for_each(|(seat, _)| seat.lane.close(Close::Now));
        old.len()
    }

    /// Starts the lanes that do not run and should, and tells all whether they may give up: only while there is
    /// another ingester to go to.
    fn start_lanes(&mut self, running: &mut FuturesUnordered<EventFuture>) {
        let present = self.seats.iter().filter(|seat| !seat.is_away).count();
        for seat in &mut self.seats {
            seat.lane.set_may_give_up(!seat.is_away && present > 1);
            // On the way out a lane is needed once more only when something was given back to it.
            let is_wanted = seat.lane.closing().is_none() || !seat.lane.is_empty();
            if seat.is_away || seat.is_running || !is_wanted {
                continue;
            }
            seat.is_running = true;
            let (queue, connect) = (Arc::clone(&seat.lane), Arc::clone(&self.connect));
            let lane = Lane::new(seat.member.clone(), connect, Arc::clone(&queue), self.options.clone());
            running.push(Box::pin(async move { Event::Ended(queue, lane.run().await) }));
        }
    }

    fn take_event(&mut self, event: Event, places: &mut Places, running: &mut FuturesUnordered<EventFuture>) {
        let queue = Arc::clone(event.queue());
        let seat = self.seats.iter_mut().find(|seat| Arc::ptr_eq(&seat.lane, &queue));
        let left_over = match (event, seat) {
            (Event::Ended(_, LaneEnd::GaveUp(parts)), Some(seat)) => {
                (seat.is_away, seat.is_running) = (true, false);
                let ingester = &seat.member.name;
                tracing::warn!(ingester, "ingester does not answer; its samples go to the next choice");
                let (connect, patience) = (Arc::clone(&self.connect), self.options.patience);
                let address = seat.member.address.clone();
                running.push(Box::pin(async move {
                    wait_until_well(&address, &connect, &queue, patience).await;
                    Event::Back(queue)
                }));
                parts
            }
            (Event::Back(_), Some(seat)) => {
                seat.is_away = false;
                tracing::info!(ingester = seat.member.name, "ingester is tried again");
                VecDeque::new()
            }
            // It left the list while it was away, and no lane gives back what waited for it.
            (Event::Back(_), None) => queue.take_all(),
            (Event::Ended(_, LaneEnd::Closed(parts)), Some(seat)) => {
                seat.is_running = false;
                parts
            }
            (Event::Ended(_, LaneEnd::Closed(parts) | LaneEnd::GaveUp(parts)), None) => parts,
        };
        for part in left_over {
            self.dispatch(part, places);
        }
        self.start_lanes(running);
    }

    /// Cuts a part by where its groups go and queues the pieces; with nobody to send to, the caller hears so.
    fn dispatch(&self, part: Part, places: &mut Places) {
        let Part { pieces, is_atomic, came, reply } = part;
        let (now, patience) = (Instant::now(), self.options.patience);
        let mut by_seat: HashMap<usize, Vec<Piece>> = HashMap::new();
        for Piece { append, .. } in pieces {
            let group = (append.group.0.id, append.group.identity());
            let condition = |i: usize| self.seats[i].condition(patience, now);
            let routed = route(group, &places.members, &mut places.homes, condition, now);
            let Some((seat, is_displaced)) = routed else { return reply.answer(Err(Error::Closed)) };
            if is_displaced {
                let samples = append.values.len() + append.histograms.len();
                self.options.displaced_samples.inc_by(samples as u64);
            }
            by_seat.entry(seat).or_default().push(Piece { append, is_displaced });
        }
        for (seat, pieces) in by_seat {
            self.seats[seat].lane.push(Part { pieces, is_atomic, came, reply: reply.clone() });
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
