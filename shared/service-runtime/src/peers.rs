//! Channels to other roles: over the network, or to a router in this very program.
//!
//! An address is `host:port`, or `in-process:<role>` for a service of the same program. Who asks for a channel
//! need not know which: both are the same tower service, and both pass the callee's layers.
//!
//! Invariant: a service is reachable from when it is mounted until the program has stopped; calls before and after
//! fail with the gRPC status `unavailable`.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use coordination::logs::{self, Logs};
use coordination::membership::{Follow, Probe, Roster};
use coordination::{Coordinator, Member, Role};
use http::{Request, Response};
use parking_lot::Mutex;
use rpc::Channel;
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::Endpoint;
use tower::{ServiceExt as _, service_fn};

use crate::listener::{ANSWERS_WINDOW_BYTES, STREAM_WINDOW_BYTES};
use crate::{BoxError, Tasks};

/// How many network channels are kept open for reuse.
const CHANNELS_MAX: usize = 4096;
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often an idle or busy connection is probed, and how long the answer may take.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a call to a role waits for its first member to be known.
const MEMBER_WAIT: Duration = Duration::from_secs(2);
/// How long a member may take to answer whether it lives.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// What comes before the role in the address of a service of the same program.
const IN_PROCESS: &str = "in-process:";

/// The address of a service of the same program.
#[must_use]
pub fn in_process_address(role: Role) -> String {
    format!("{IN_PROCESS}{role}")
}

/// Finds and connects to members of other roles. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    shared: Arc<Shared>,
}

struct Shared {
    coordinator: Arc<dyn Coordinator>,
    tasks: Tasks,
    /// Members given by hand, used for as long as the coordinator has never answered.
    fallback: Vec<(Role, String)>,
    mounted: Mutex<HashMap<Role, Router>>,
    channels: Mutex<HashMap<String, Channel>>,
    rosters: Mutex<HashMap<Role, watch::Receiver<Roster>>>,
    logs: OnceLock<watch::Receiver<Logs>>,
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mounted: Vec<Role> = self.shared.mounted.lock().keys().copied().collect();
        f.debug_struct("Peers").field("mounted", &mounted).finish_non_exhaustive()
    }
}

impl Peers {
    /// Finds members through `coordinator`; `tasks` follow the lists that are asked for.
    #[must_use]
    pub fn new(coordinator: Arc<dyn Coordinator>, tasks: Tasks) -> Self {
        Self::with_fallback(coordinator, tasks, Vec::new())
    }

    /// As [`Peers::new`], with members that are used for as long as the coordinator has never answered.
    pub(crate) fn with_fallback(
        coordinator: Arc<dyn Coordinator>,
        tasks: Tasks,
        fallback: Vec<(Role, String)>,
    ) -> Self {
        let (mounted, channels, rosters) = (Mutex::default(), Mutex::default(), Mutex::default());
        let logs = OnceLock::new();
        let shared = Shared { coordinator, tasks, fallback, mounted, channels, rosters, logs };
        Self { shared: Arc::new(shared) }
    }

    /// Follows the members of a role.
    #[must_use]
    pub fn members(&self, role: Role) -> watch::Receiver<Roster> {
        let mut rosters = self.shared.rosters.lock();
        let follow = || {
            let (sender, receiver) = watch::channel(Roster::default());
            let given = self.shared.fallback.iter().filter(|(of, _)| *of == role).map(|(_, address)| address);
            let fallback = (0..).zip(given).map(|(number, address)| Member::new(number, address, address));
            let follow = Follow {
                coordinator: self.shared.coordinator.clone(),
                role,
                probe: self.probe(),
                fallback: fallback.collect(),
            };
            self.shared.tasks.spawn("follow members", async move {
                follow.run(sender).await;
                Ok(())
            });
            receiver
        };
        rosters.entry(role).or_insert_with(follow).clone()
    }

    /// Follows the logs that are listed as not in the table yet.
    #[must_use]
    pub fn logs(&self) -> watch::Receiver<Logs> {
        let follow = || {
            let (sender, receiver) = watch::channel(Logs::default());
            let coordinator = self.shared.coordinator.clone();
            self.shared.tasks.spawn("follow logs", async move {
                logs::follow(coordinator, sender).await;
                Ok(())
            });
            receiver
        };
        self.shared.logs.get_or_init(follow).clone()
    }

    /// Connects to one member, by its address. The connection is made at the first call and made again when it
    /// breaks; a call that cannot reach anybody fails with the gRPC status `unavailable`.
    ///
    /// # Errors
    /// When the address is none.
    pub fn channel(&self, address: &str) -> Result<Channel, BoxError> {
        let mut channels = self.shared.channels.lock();
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let channel = match address.strip_prefix(IN_PROCESS) {
            Some(role) => self.in_process(role.parse::<Role>()?),
            None => network(address)?,
        };
        if channels.len() >= CHANNELS_MAX {
            // Members that are gone leave channels behind. Those in use are held by their users.
            channels.clear();
        }
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    /// Connects to a role: each call goes to the next of its members.
    #[must_use]
    pub fn role(&self, role: Role) -> Channel {
        let (peers, members) = (self.clone(), self.members(role));
        let turn = Arc::new(AtomicUsize::new(0));
        Channel::new(service_fn(move |request| {
            let (peers, mut members, turn) =
                (peers.clone(), members.clone(), turn.fetch_add(1, Ordering::Relaxed));
            async move {
                let known = members.wait_for(|roster| !roster.members.is_empty());
                let unknown = || Status::unavailable(format!("no {role} is known"));
                let roster = tokio::time::timeout(MEMBER_WAIT, known).await.map_err(|_| unknown())?;
                let roster = roster.map_err(|_| unknown())?.members.clone();
                let address = &roster[turn % roster.len()].address;
                peers.channel(address)?.oneshot(request).await.map_err(BoxError::from)
            }
        }))
    }

    /// Asks a peer directly whether it lives; one that does not answer in time is dead.
    pub async fn lives(&self, address: &str) -> bool {
        match self.channel(address) {
            Ok(channel) => lives(channel, PROBE_TIMEOUT).await,
            Err(_) => false,
        }
    }

    /// Asks members directly whether they live.
    fn probe(&self) -> Probe {
        // Not the peers themselves: their own task would keep them for ever.
        let peers = Arc::downgrade(&self.shared);
        Arc::new(move |member| {
            let channel = peers.upgrade().and_then(|shared| Self { shared }.channel(&member.address).ok());
            Box::pin(async move {
                let Some(channel) = channel else { return false };
                lives(channel, PROBE_TIMEOUT).await
            })
        })
    }

    /// Makes a service reachable within the program.
    pub(crate) fn mount(&self, role: Role, router: Router) {
        self.shared.mounted.lock().insert(role, router);
    }

    /// Lets go of all services and connections, which in turn hold this.
    pub(crate) fn close(&self) {
        self.shared.mounted.lock().clear();
        self.shared.channels.lock().clear();
    }

    fn in_process(&self, role: Role) -> Channel {
        let peers = self.clone();
        Channel::new(service_fn(move |mut request: Request<Body>| {
            telemetry::inject_trace(request.headers_mut());
            let router = peers.shared.mounted.lock().get(&role).cloned();
            call_router(role, router, request)
        }))
    }
}

/// Says whether a peer answers a probe in time. One that hangs keeps no deadline, so the call is bounded here.
pub(crate) async fn lives(channel: Channel, within: Duration) -> bool {
    tokio::time::timeout(within, rpc::health::is_alive(channel, within)).await.unwrap_or(false)
}

async fn call_router(
    role: Role,
    router: Option<Router>,
    request: Request<Body>,
) -> Result<Response<Body>, BoxError> {
    let router = router.ok_or_else(|| Status::unavailable(format!("{role} is not up")))?;
    let answer: Result<_, Infallible> = router.oneshot(request).await;
    Ok(answer.unwrap_or_else(|never| match never {}).map(Body::new))
}

fn network(address: &str) -> Result<Channel, BoxError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| format!("peer address {address:?}: {error}"))?;
    let channel = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(ANSWERS_WINDOW_BYTES)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_lazy();
    let traced = channel.map_request(|mut request: Request<Body>| {
        telemetry::inject_trace(request.headers_mut());
        request
    });
    // Waiting for room happens inside the call, so that the channel is always ready.
    let ready = service_fn(move |request| traced.clone().oneshot(request));
    Ok(Channel::new(ready))
}
