//! Watches that outlive connections and members.
//!
//! A watch is a cursor: the revision up to which everything was handed on. A broken stream is opened again right after
//! the cursor, on the next member, for as long as it takes; so nothing is lost and nothing repeated.
//!
//! Invariants:
//! - the cursor rises to the revision of an answer only when all events up to there have been taken: those of the
//!   answer itself (etcd never cuts a revision in two), or none when etcd says that the watch is that far
//!   (`progress_notify`), which keeps a watch of a quiet prefix from falling behind what etcd keeps;
//! - the answer to a question for a sign of life never moves the cursor: in etcd before 3.4.25 and 3.5.8 it may
//!   overtake events;
//! - a member that is silent for [`QUIET_MAX`] is asked for a sign of life, and left when it gives none; one without a
//!   leader ends the stream itself (`hasleader`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use rpc::etcd::{Failure, Watch};
use rpc::pb::etcd as pb;
use tracing::debug;

use super::calls::Calls;
use super::{header_revision, lease, own_key, range_of, refused, revision};
use crate::coordinator::{Change, Event, EventStream, Revision};
use crate::{Error, Result};

/// How long a stream may be silent before the member is asked whether it lives.
const QUIET_MAX: Duration = Duration::from_secs(5);
/// How long to wait after all members have failed, at first and at most.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Follows the changes of the keys under `full`, which begins with `prefix`.
pub(super) fn follow(calls: Arc<Calls>, prefix: Arc<str>, full: Bytes, after: Revision) -> EventStream {
    let watcher = Watcher {
        member: calls.preferred(),
        calls,
        prefix,
        range: range_of(&full),
        cursor: after,
        life: None,
        ready: VecDeque::new(),
        open: None,
        failed: 0,
        backoff: BACKOFF_MIN,
        is_over: false,
    };
    stream::unfold(watcher, |mut watcher| async move { Some((watcher.next().await?, watcher)) }).boxed()
}

struct Watcher {
    calls: Arc<Calls>,
    prefix: Arc<str>,
    range: (Bytes, Bytes),
    /// Everything up to here was handed on or is in `ready`.
    cursor: Revision,
    life: Option<Life>,
    ready: VecDeque<Event>,
    open: Option<Open>,
    /// The member to ask next.
    member: usize,
    /// How many members have failed in a row.
    failed: usize,
    backoff: Duration,
    is_over: bool,
}

/// A stream that works.
struct Open {
    watch: Watch,
    /// Whether the member was asked for a sign of life and has not given any.
    is_asked: bool,
}

/// Which life of the store a revision belongs to. A store that was made anew counts both from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Life {
    cluster: u64,
    term: u64,
}

impl Life {
    fn of(header: &pb::ResponseHeader) -> Self {
        Self { cluster: header.cluster_id, term: header.raft_term }
    }

    /// Whether what was seen at `self` and what is seen at `later` can be one life.
    const fn goes_on_in(self, later: Self) -> bool {
        self.cluster == later.cluster && self.term <= later.term
    }
}

/// Why a step of a watch did not come off.
enum Stop {
    /// The stream is of no more use; another one may be.
    Broken(String),
    /// The watch is over.
    Over(Error),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Member(cause) => Self::Broken(cause),
            failure => Self::Over(refused(failure, None)),
        }
    }
}

impl Watcher {
    async fn next(&mut self) -> Option<Result<Event>> {
        if self.is_over {
            return None;
        }
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            let step = if self.open.is_some() { self.receive().await } else { self.open().await };
            match step {
                Ok(()) => {}
                Err(Stop::Broken(cause)) => {
                    debug!(error = cause, after = self.cursor.0, "watch broke and is opened again");
                    self.move_on().await;
                }
                Err(Stop::Over(error)) => {
                    self.is_over = true;
                    self.open = None;
                    return Some(Err(error));
                }
            }
        }
    }

    async fn open(&mut self) -> std::result::Result<(), Stop> {
        let (key, range_end) = self.range.clone();
        let request = pb::WatchCreateRequest {
            key,
            range_end,
            start_revision: i64::try_from(self.cursor.0).unwrap_or(i64::MAX).saturating_add(1),
            progress_notify: true,
        };
        let opened = self.calls.within(self.calls.attempt_timeout, self.member, async move |mut client| {
            let mut watch = client.watch(request).await?;
            let first = watch.next().await?;
            Ok((watch, first))
        });
        let (watch, first) = opened.await?;
        self.check_life(first.header.as_ref()).await?;
        self.open = Some(Open { watch, is_asked: false });
        self.take(first)?;
        (self.failed, self.backoff) = (0, BACKOFF_MIN);
        Ok(())
    }

    /// Ends the watch when the store was lost and made anew: its revisions are not those the cursor counts.
    ///
    /// One member may merely lag behind, so the cluster as a whole is asked before that is said.
    async fn check_life(&mut self, header: Option<&pb::ResponseHeader>) -> std::result::Result<(), Stop> {
        let is_strange = |header: Option<&pb::ResponseHeader>| {
            let (Some(header), Some(life)) = (header, self.life) else {
                return header_revision(header) < self.cursor;
            };
            header_revision(Some(header)) < self.cursor || !life.goes_on_in(Life::of(header))
        };
        if !is_strange(header) {
            return Ok(());
        }
        let (key, range_end) = self.range.clone();
        let request = pb::RangeRequest { key, range_end, limit: 1 };
        let answer = self.calls.call(|mut client, _| {
            let request = request.clone();
            async move { client.range(request).await }
        });
        let answer = answer.await.map_err(|error| Stop::Broken(error.to_string()))??;
        if is_strange(answer.header.as_ref()) {
            return Err(Stop::Over(Error::Compacted { after: self.cursor }));
        }
        Ok(())
    }

    async fn receive(&mut self) -> std::result::Result<(), Stop> {
        let Some(Open { watch, is_asked }) = &mut self.open else { return Ok(()) };
        match tokio::time::timeout(QUIET_MAX, watch.next()).await {
            Ok(answer) => {
                *is_asked = false;
                self.take(answer?)
            }
            Err(_) if *is_asked => Err(Stop::Broken(format!("silent for {:?}", QUIET_MAX * 2))),
            Err(_) => {
                watch.ask_for_progress();
                *is_asked = true;
                Ok(())
            }
        }
    }

    /// Takes what an answer holds.
    fn take(&mut self, answer: pb::WatchResponse) -> std::result::Result<(), Stop> {
        if answer.canceled {
            return Err(match answer.compact_revision {
                0 => Stop::Broken(answer.cancel_reason),
                _ => Stop::Over(Error::Compacted { after: self.cursor }),
            });
        }
        if let Some(header) = &answer.header {
            let seen = Life::of(header);
            let term = self.life.map_or(seen.term, |life| life.term.max(seen.term));
            self.life = Some(Life { term, ..seen });
        }
        let is_progress = answer.events.is_empty() && !answer.created && answer.watch_id >= 0;
        let reached = if is_progress {
            header_revision(answer.header.as_ref())
        } else {
            answer
                .events
                .iter()
                .filter_map(|event| event.kv.as_ref())
                .map(|kv| revision(kv.mod_revision))
                .max()
                .unwrap_or(self.cursor)
        };
        for event in answer.events {
            if let Some(event) = self.event(event).map_err(Stop::Over)? {
                self.ready.push_back(event);
            }
        }
        self.cursor = self.cursor.max(reached);
        Ok(())
    }

    /// Reads an event; none when it was taken before.
    fn event(&self, event: pb::Event) -> Result<Option<Event>> {
        let change = event.r#type();
        let Some(kv) = event.kv else { return Ok(None) };
        let at = revision(kv.mod_revision);
        if at <= self.cursor {
            return Ok(None);
        }
        let change = match change {
            pb::event::EventType::Put => Change::Put { value: kv.value, lease: lease(kv.lease) },
            pb::event::EventType::Delete => Change::Deleted,
        };
        Ok(Some(Event { key: own_key(&self.prefix, &kv.key)?, revision: at, change }))
    }

    /// Turns to the next member, after a while when all have failed.
    async fn move_on(&mut self) {
        self.open = None;
        self.member = (self.member + 1) % self.calls.members();
        self.failed += 1;
        if self.failed >= self.calls.members() {
            self.failed = 0;
            tokio::time::sleep(self.backoff).await;
            self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        }
    }
}
