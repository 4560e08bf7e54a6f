//! The writing end of a log in an object store.
//!
//! Several segments are put at a time. Each waits for the one before it, so that they are done in order and the first
//! that fails takes all that follow with it.
//!
//! # Invariants
//!
//! - A segment is acknowledged only while it is certain that the log had not been taken over, finished and removed: the
//!   last sign of life is younger than `verify_after`, or the store was asked behind the put.
//! - A place that is taken by something else than the very segment means that the log is sealed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use model::Timestamp;
use object_store::{ObjectStore as _, PutMode, PutPayload};
use tokio::sync::oneshot;
use ulid::Ulid;

use super::{Born, Moment, ObjectLogs};
use crate::catalogue::log::is_taken;
use crate::error::{Error, Result};
use crate::faults::{or_fault, site};
use crate::log::committer::lock;
use crate::log::segment::{Header, Role};
use crate::log::{Done, Writer};

/// The first pause before a request is repeated; doubled each time up to the second.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The writing end of a log; there is one in the log's life.
#[derive(Debug)]
pub(crate) struct ObjectLog {
    life: Arc<Life>,
    next_seq: u64,
    floor: u64,
    /// Says whether the segment before the next one was done.
    before: Option<oneshot::Receiver<bool>>,
    /// Segments that are kept, with their bytes.
    kept: VecDeque<(u64, u64)>,
    is_removing: Arc<AtomicBool>,
}

/// What the segments under way share.
#[derive(Debug)]
struct Life {
    logs: Arc<ObjectLogs>,
    id: Ulid,
    nonce: u128,
    /// Everything through this segment is done.
    acknowledged: AtomicU64,
    /// When the log was last certain to be there.
    verified: Mutex<Moment>,
    /// Floors that durable headers carry, with the time since when; ascending.
    durable_floors: Mutex<Vec<(u64, Timestamp)>>,
    /// Segments below this one, but for the birth record, have been removed.
    removed: AtomicU64,
    has_ended: AtomicBool,
    /// Why the last put failed, until one succeeds.
    refused: Mutex<Option<String>>,
}

impl ObjectLog {
    pub(super) fn new(logs: Arc<ObjectLogs>, born: Born) -> Self {
        let life = Life {
            logs,
            id: born.id,
            nonce: born.nonce,
            acknowledged: AtomicU64::new(0),
            verified: Mutex::new(born.since),
            durable_floors: Mutex::default(),
            removed: AtomicU64::new(1),
            has_ended: AtomicBool::new(false),
            refused: Mutex::default(),
        };
        Self {
            life: Arc::new(life),
            next_seq: 1,
            floor: 0,
            before: None,
            kept: VecDeque::new(),
            is_removing: Arc::default(),
        }
    }
}

impl Writer for ObjectLog {
    fn id(&self) -> Ulid {
        self.life.id
    }

    fn last_seq(&self) -> u64 {
        self.next_seq - 1
    }

    fn submit(&mut self, role: Role, payload: &[u8], _: Timestamp, done: Done) {
        let seq = self.next_seq;
        self.next_seq += 1;
        let header = Header {
            role,
            log: self.life.id,
            seq,
            nonce: self.life.nonce,
            // The seal of a log that ends in order says that not even the segment before it is needed.
            floor: self.floor,
            acknowledged: self.life.acknowledged.load(Ordering::Acquire),
            payload_bytes: payload.len() as u64,
        };
        let bytes = Bytes::from([header.encode().as_slice(), payload].concat());
        self.kept.push_back((seq, bytes.len() as u64));
        let (tell, after) = oneshot::channel();
        let before = self.before.replace(after);
        let mut answer = Answer(Some(done));
        let life = Arc::clone(&self.life);
        self.life.logs.options.runtime.spawn(async move {
            let outcome = life.write(&header, bytes, before).await;
            if outcome.is_err() || role == Role::Seal {
                life.has_ended.store(true, Ordering::Release);
            }
            // Whoever comes after may be gone.
            tell.send(outcome.is_ok() && role != Role::Seal).ok();
            answer.give(outcome);
        });
    }

    fn start_part(&mut self) {
        // Each segment is an object of its own.
    }

    fn set_floor(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
    }

    fn remove_unneeded(&mut self, before: Timestamp) -> Result<()> {
        let durable = lock(&self.life.durable_floors).iter().rev().find(|f| f.1 <= before).map_or(0, |f| f.0);
        let end = durable.min(self.life.acknowledged.load(Ordering::Acquire));
        let start = self.life.removed.load(Ordering::Acquire);
        while self.kept.front().is_some_and(|(seq, _)| *seq < start) {
            self.kept.pop_front();
        }
        if start >= end || self.is_removing.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let (life, is_removing) = (Arc::clone(&self.life), Arc::clone(&self.is_removing));
        self.life.logs.options.runtime.spawn(async move {
            let paths = (start..end).map(|seq| life.logs.path(life.id, seq)).collect();
            match life.logs.delete(paths).await {
                Ok(()) => life.removed.store(end, Ordering::Release),
                Err(error) => tracing::warn!(%error, log = %life.id, "segments are removed later"),
            }
            is_removing.store(false, Ordering::Release);
        });
        Ok(())
    }

    fn abandon(&mut self) {
        self.life.has_ended.store(true, Ordering::Release);
    }

    fn hindrance(&self) -> Option<String> {
        lock(&self.life.refused).clone()
    }

    fn byte_len(&self) -> u64 {
        self.kept.iter().map(|(_, bytes)| bytes).sum()
    }
}

impl Life {
    /// Makes a segment durable, in its turn.
    async fn write(
        &self,
        header: &Header,
        bytes: Bytes,
        before: Option<oneshot::Receiver<bool>>,
    ) -> Result<()> {
        let newest = self.acknowledged.load(Ordering::Acquire);
        if self.is_doubtful() {
            // It was idle: it may have been taken for dead, and then be gone.
            self.verify(newest, None).await?;
        }
        let began = Moment::now(&self.logs.options.clock);
        self.put(header, bytes).await?;
        *lock(&self.refused) = None;
        if let Some(before) = before
            && or_fault!(AcknowledgedOutOfOrder, !before.await.unwrap_or(false), false)
        {
            return Err(self.ended("a segment before it failed"));
        }
        if self.is_doubtful() {
            self.verify(header.seq - 1, Some(header.seq)).await?;
        } else {
            // A seal behind this segment is younger than the put, so it and the log are kept for long enough.
            *lock(&self.verified) = began;
        }
        self.acknowledged.store(header.seq, Ordering::Release);
        let mut floors = lock(&self.durable_floors);
        if floors.last().is_none_or(|(floor, _)| *floor < header.floor) {
            floors.push((header.floor, self.logs.options.clock.now()));
        }
        Ok(())
    }

    /// Creates the object, however often it takes.
    async fn put(&self, header: &Header, bytes: Bytes) -> Result<()> {
        let path = self.logs.path(self.id, header.seq);
        let mut pause = RETRY_MIN;
        loop {
            let payload = PutPayload::from(bytes.clone());
            let put = self.logs.store.put_opts(&path, payload, PutMode::Create.into());
            let failure = match site!("segment: put", put.await) {
                Ok(_) => return Ok(()),
                Err(error) if is_taken(&error) => match self.logs.head(&path).await {
                    Ok(Some((found, size))) => {
                        // The answer was lost.
                        let is_own = or_fault!(
                            NoSealCheck,
                            found[..] == header.encode() && size == bytes.len() as u64,
                            true
                        );
                        return if is_own { Ok(()) } else { Err(self.ended("it was sealed")) };
                    }
                    // S3 also says so of a put that met another one under way, and then nothing need stand there.
                    Ok(None) => error.to_string(),
                    Err(error) => error.to_string(),
                },
                Err(error) => error.to_string(),
            };
            self.check_goes_on()?;
            tracing::warn!(error = failure, %path, "repeat a segment that was not written");
            *lock(&self.refused) = Some(failure);
            tokio::time::sleep(pause).await;
            pause = RETRY_MAX.min(pause * 2);
        }
    }

    fn is_doubtful(&self) -> bool {
        let options = &self.logs.options;
        lock(&self.verified).age(&options.clock) > options.verify_after
    }

    /// Makes sure that the log is still there: the newest segment that is done, the one just written, and behind them
    /// the birth record, which is the first to go.
    async fn verify(&self, newest: u64, written: Option<u64>) -> Result<()> {
        let mut pause = RETRY_MIN;
        loop {
            let began = Moment::now(&self.logs.options.clock);
            let look = async {
                for seq in [Some(newest), written, Some(0)].into_iter().flatten() {
                    if !self.logs.exists(&self.logs.path(self.id, seq)).await? {
                        return Ok(false);
                    }
                }
                Ok::<_, Error>(true)
            };
            match look.await {
                Ok(true) => {
                    *lock(&self.verified) = began;
                    return Ok(());
                }
                Ok(false) => {
                    if let Some(seq) = written {
                        // What was just put there belongs to nothing.
                        drop(self.logs.delete(vec![self.logs.path(self.id, seq)]).await);
                    }
                    return Err(self.ended("it was taken over and is gone"));
                }
                Err(error) => tracing::warn!(%error, log = %self.id, "look again whether the log is there"),
            }
            self.check_goes_on()?;
            tokio::time::sleep(pause).await;
            pause = RETRY_MAX.min(pause * 2);
        }
    }

    fn check_goes_on(&self) -> Result<()> {
        if self.has_ended.load(Ordering::Acquire) { Err(self.ended("it was closed")) } else { Ok(()) }
    }

    fn ended(&self, reason: &str) -> Error {
        Error::LogEnded { log: self.id.to_string(), reason: reason.to_owned() }
    }
}

/// Answers even when the task is dropped.
struct Answer(Option<Done>);

impl Answer {
    fn give(&mut self, outcome: Result<()>) {
        if let Some(done) = self.0.take() {
            done(outcome);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.give(Err(Error::Worker("log writer")));
    }
}
