//! Calls that go to one member after another until one answers.
//!
//! All calls prefer the same member, and move on together when it fails; different processes begin with different
//! ones. Whether the cluster answers at all is logged here, once when it stops and once when it is back.

use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rpc::etcd::{Client, Failure};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{Connect, EtcdOptions};
use crate::{Error, Result};

/// How long to wait after all members have failed, at first and at most.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// The members and what is known of them.
pub(super) struct Calls {
    members: Vec<Member>,
    preferred: AtomicUsize,
    connect: Connect,
    pub(super) attempt_timeout: Duration,
    call_timeout: Duration,
    is_away: AtomicBool,
}

struct Member {
    address: String,
    /// The connection in use; none before the first call, and after one that was not answered.
    client: Mutex<Option<Client>>,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members: Vec<&str> = self.members.iter().map(|member| member.address.as_str()).collect();
        f.debug_struct("Calls").field("members", &members).finish_non_exhaustive()
    }
}

impl Calls {
    pub(super) fn new(options: EtcdOptions, connect: Connect) -> Self {
        let random = usize::try_from(RandomState::new().build_hasher().finish() >> 33).unwrap_or(0);
        let member = |address: &str| Member { address: address.to_owned(), client: Mutex::default() };
        Self {
            preferred: AtomicUsize::new(random % options.endpoints.len()),
            members: options.endpoints.iter().map(|endpoint| member(endpoint.address())).collect(),
            connect,
            attempt_timeout: options.attempt_timeout,
            call_timeout: options.call_timeout,
            is_away: AtomicBool::new(false),
        }
    }

    /// Makes a call until a member answers it. `attempt` is told whether an earlier attempt may have been carried out.
    /// The inner result is the cluster's answer.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub(super) async fn call<T, A, F>(&self, attempt: A) -> Result<std::result::Result<T, Failure>>
    where
        A: Fn(Client, bool) -> F,
        F: Future<Output = std::result::Result<T, Failure>>,
    {
        let deadline = Instant::now() + self.call_timeout;
        let (mut backoff, mut failed, mut cause) = (BACKOFF_MIN, 0, String::new());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.note_silence(&cause);
                return Err(Error::Unreachable { cause });
            }
            let member = self.preferred();
            let answer =
                self.within(left.min(self.attempt_timeout), member, |client| attempt(client, failed > 0));
            match answer.await {
                Err(Failure::Member(why)) => cause = why,
                answer => {
                    self.note_answer();
                    return Ok(answer);
                }
            }
            self.move_on(member);
            failed += 1;
            if failed % self.members.len() == 0 {
                let left = deadline.saturating_duration_since(Instant::now());
                tokio::time::sleep(backoff.min(left)).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }

    /// Has something done by one member within a time. Who does not answer is connected to anew next time.
    pub(super) async fn within<T, A, F>(
        &self,
        timeout: Duration,
        member: usize,
        attempt: A,
    ) -> std::result::Result<T, Failure>
    where
        A: FnOnce(Client) -> F,
        F: Future<Output = std::result::Result<T, Failure>>,
    {
        let address = &self.members[member].address;
        let client = self.client(member)?;
        match tokio::time::timeout(timeout, attempt(client)).await {
            Ok(Err(Failure::Member(why))) => Err(Failure::Member(format!("{address}: {why}"))),
            Ok(answer) => answer,
            Err(_) => {
                *self.members[member].client.lock() = None;
                Err(Failure::Member(format!("{address}: no answer within {} ms", timeout.as_millis())))
            }
        }
    }

    /// The member that is asked first.
    pub(super) fn preferred(&self) -> usize {
        self.preferred.load(Ordering::Relaxed)
    }

    /// Prefers the next member to this one, unless that has happened already.
    pub(super) fn move_on(&self, member: usize) {
        let next = (member + 1) % self.members.len();
        // Somebody else moved on before: theirs is as good.
        self.preferred.compare_exchange(member, next, Ordering::Relaxed, Ordering::Relaxed).ok();
    }

    /// How many members there are.
    pub(super) fn members(&self) -> usize {
        self.members.len()
    }

    fn client(&self, member: usize) -> std::result::Result<Client, Failure> {
        let Member { address, client } = &self.members[member];
        let mut client = client.lock();
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let channel = (self.connect)(address);
        let channel = channel.map_err(|error| Failure::Member(format!("{address}: {error}")))?;
        Ok(client.insert(Client::new(channel)).clone())
    }

    fn note_answer(&self) {
        if self.is_away.swap(false, Ordering::Relaxed) {
            info!("etcd answers again");
        }
    }

    fn note_silence(&self, cause: &str) {
        if self.is_away.swap(true, Ordering::Relaxed) {
            debug!(error = cause, "etcd still does not answer");
        } else {
            warn!(error = cause, "etcd does not answer: what was known last stands, and is asked for again");
        }
    }
}
