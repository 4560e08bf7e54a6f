//! A program that answers, and how it is brought to its end.
//!
//! Invariants:
//! - services stop in the reverse order of their start, each one completely before the next;
//! - draining never takes the time that flushing needs;
//! - at each moment [`Progress`] names what is pending.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use coordination::membership::Membership;
use coordination::{Member, Role};
use futures::stream::{BoxStream, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Mounted, spawn};
use crate::guard::Guard;
use crate::shutdown::ShutdownTrigger;
use crate::tasks::Failures;
use crate::{Error, Metrics, Peers, Readiness, Result, Stopper, Tasks};

/// The part of what is left of the grace period that draining may take, so that flushing always gets its turn.
const DRAIN_SHARE: u32 = 2;
/// How long a member may take to leave the list.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// How a service ended: well, or with what it said.
pub(super) type Ended = std::result::Result<(), String>;

/// A service that runs and is listed as a member.
pub(super) struct Joined {
    role: Role,
    guard: Guard,
    tasks: Tasks,
    trigger: ShutdownTrigger,
    /// The member as it is listed; none before it is.
    member: watch::Receiver<Option<Member>>,
    /// Tells the keeper of the membership to leave.
    leave: CancellationToken,
    keeper: JoinHandle<()>,
}

impl Joined {
    pub(super) fn new(mounted: Mounted, mut membership: Membership) -> Self {
        let Mounted { role, guard, tasks, trigger, .. } = mounted;
        let (member, leave) = (membership.joined(), CancellationToken::new());
        let asked = leave.clone();
        let keeper = spawn(async move {
            asked.run_until_cancelled(membership.keep()).await;
            match tokio::time::timeout(LEAVE_TIMEOUT, membership.leave()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(%role, %error, "membership is left to end by itself"),
                Err(_) => warn!(%role, "membership is left to end by itself: no answer"),
            }
        });
        Self { role, guard, tasks, trigger, member, leave, keeper }
    }

    /// Waits until the member is listed.
    pub(super) async fn joined(&self) {
        // Fails only with the keeper, which is then told of elsewhere.
        drop(self.member.clone().wait_for(Option::is_some).await);
    }
}

/// A program that answers. [`Running::wait`] brings it to its end; dropping it does not.
pub struct Running {
    pub(super) addresses: BTreeMap<&'static str, SocketAddr>,
    pub(super) readiness: Readiness,
    pub(super) metrics: Metrics,
    pub(super) peers: Peers,
    pub(super) failures: Failures,
    pub(super) stopper: Stopper,
    pub(super) tasks: Tasks,
    pub(super) grace: Duration,
    pub(super) _reload: watch::Sender<u64>,
    pub(super) services: Vec<Joined>,
    pub(super) runs: BoxStream<'static, (Role, Ended)>,
    /// Services that returned before it was their turn; a failure that was told already counts as none.
    pub(super) ended: BTreeMap<Role, Ended>,
    pub(super) close: CancellationToken,
    pub(super) serving: Vec<JoinHandle<()>>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members: Vec<(Role, Option<Member>)> =
            self.services.iter().map(|service| (service.role, service.member.borrow().clone())).collect();
        f.debug_struct("Running").field("addresses", &self.addresses).field("services", &members).finish()
    }
}

impl Running {
    /// Where a listener answers.
    #[must_use]
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        self.addresses.get(listener).copied()
    }

    /// Whether the program can be used.
    #[must_use]
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// The registry of all its services.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// How its services reach each other.
    #[must_use]
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Runs until the program is asked to stop or something fails, then stops it in order within the grace period.
    ///
    /// # Errors
    /// [`Error::Failed`] with the first failure, [`Error::Overran`], [`Error::Forced`].
    pub async fn wait(mut self) -> Result<()> {
        let cause = tokio::select! {
            () = self.stopper.asked(1) => None,
            error = self.failures.first() => Some(error),
            Some((role, result)) = self.runs.next() => {
                self.ended.insert(role, Ok(()));
                let cause = result.err().unwrap_or_else(|| "it ended without being asked to".to_owned());
                Some(Error::Failed { what: role.to_string(), cause })
            }
        };
        match &cause {
            None => info!(grace_ms = self.grace.as_millis() as u64, "stopping"),
            Some(error) => error!(%error, "stopping after a failure"),
        }
        let progress = Progress::new(&self.services);
        let (stopper, grace, peers) = (self.stopper.clone(), self.grace, self.peers.clone());
        let began = Instant::now();
        let stopped = tokio::select! {
            stopped = self.stop(&progress, began + grace) => stopped,
            () = tokio::time::sleep_until(began + grace) => Err(Error::Overran { pending: progress.pending() }),
            () = stopper.asked(2) => Err(Error::Forced { pending: progress.pending() }),
        };
        peers.close();
        info!(took_ms = began.elapsed().as_millis() as u64, "stopped");
        cause.map_or(stopped, Err)
    }

    async fn stop(mut self, progress: &Progress, deadline: Instant) -> Result<()> {
        let (mut cut, mut failed) = (Vec::new(), None);
        progress.step("not ready", || {
            self.readiness.stop();
            self.services.iter().for_each(|service| service.leave.cancel());
        });
        for service in std::mem::take(&mut self.services).into_iter().rev() {
            let role = service.role;
            progress.step(&format!("{role}: stop taking"), || service.trigger.request());

            let drain = (deadline - Instant::now()) / DRAIN_SHARE;
            let drained = tokio::time::timeout(drain, service.guard.drained());
            if progress.stage(&format!("{role}: drain"), drained).await.is_err() {
                let left = format!("{role}: {} requests in flight", service.guard.in_flight());
                warn!(%role, left, "requests are cut that did not end");
                cut.push(left);
            }
            service.trigger.drained();
            progress.watch(&service);
            let flushed = progress.stage(&format!("{role}: flush"), self.run_of(role)).await;
            if let Err(cause) = flushed {
                // A failure that made the program stop was told already; this one came while stopping.
                error!(%role, error = cause, "service failed while stopping");
                failed = failed.or(Some(Error::Failed { what: role.to_string(), cause }));
            }
            progress.stage(&format!("{role}: end tasks"), service.tasks.stop()).await;
            progress.stage(&format!("{role}: leave members"), service.keeper).await.unwrap_or_else(|error| {
                warn!(%role, %error, "membership is left to end by itself");
            });
        }
        self.close.cancel();
        let serving = futures::future::join_all(std::mem::take(&mut self.serving));
        progress.stage("close listeners", serving).await;
        progress.stage("runtime: end tasks", self.tasks.stop()).await;
        match failed {
            Some(failed) => Err(failed),
            None if !cut.is_empty() => Err(Error::Overran { pending: cut }),
            None => Ok(()),
        }
    }

    /// Waits for the service of a role to return, if it has not done so already.
    async fn run_of(&mut self, role: Role) -> Ended {
        loop {
            if let Some(result) = self.ended.remove(&role) {
                return result;
            }
            let Some((ended, result)) = self.runs.next().await else { return Ok(()) };
            self.ended.insert(ended, result);
        }
    }
}

/// What a stop has come to.
struct Progress {
    began: Instant,
    /// The step at hand, and the tasks of the service it belongs to.
    current: Mutex<(String, Option<Tasks>)>,
    /// The services whose turn has not come.
    waiting: Mutex<Vec<Role>>,
}

impl Progress {
    fn new(services: &[Joined]) -> Self {
        let waiting = services.iter().map(|service| service.role).collect();
        Self {
            began: Instant::now(),
            current: Mutex::new(("not ready".to_owned(), None)),
            waiting: Mutex::new(waiting),
        }
    }

    fn step(&self, name: &str, act: impl FnOnce()) {
        *self.current.lock() = (name.to_owned(), None);
        act();
        self.log(name, self.began);
    }

    async fn stage<T>(&self, name: &str, act: impl Future<Output = T>) -> T {
        self.current.lock().0 = name.to_owned();
        let began = Instant::now();
        let result = act.await;
        self.log(name, began);
        result
    }

    /// Names the tasks of this service, too, from now on.
    fn watch(&self, service: &Joined) {
        self.waiting.lock().retain(|role| *role != service.role);
        self.current.lock().1 = Some(service.tasks.clone());
    }

    fn log(&self, step: &str, began: Instant) {
        let (took, since) = (began.elapsed(), self.began.elapsed());
        info!(step, took_ms = took.as_millis() as u64, since_stop_ms = since.as_millis() as u64, "stop");
    }

    fn pending(&self) -> Vec<String> {
        let (step, tasks) = self.current.lock().clone();
        let tasks = tasks.map(|tasks| tasks.pending()).unwrap_or_default();
        let waiting = self.waiting.lock().clone();
        // The service at hand is named by its step.
        let later: Vec<Role> =
            waiting.into_iter().rev().filter(|role| !step.starts_with(role.as_str())).collect();
        std::iter::once(step)
            .chain(tasks.into_iter().map(|task| format!("task {task}")))
            .chain(later.into_iter().map(|role| role.to_string()))
            .collect()
    }
}
