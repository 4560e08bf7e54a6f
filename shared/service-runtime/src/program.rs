//! Runs services in one program: bind, build, mount, run, stop.
//!
//! Invariants:
//! - every listener is bound before the first service is built, and closed after the last one has stopped;
//! - services are built in the order in which they were added and stopped in the reverse order, each one completely
//!   (drained, flushed, its tasks gone) before the next, so that what a service writes while it stops finds its
//!   receiver alive;
//! - whatever ends the program, it ends through [`Running::wait`], which knows at each moment what is pending.

mod running;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use coordination::membership::Membership;
use coordination::{Coordinator, Role};
use futures::stream::{FuturesUnordered, StreamExt as _};
use http::{StatusCode, header};
use model::Clock;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::{Instrument as _, info, info_span};

use running::Joined;
pub use running::Running;

use crate::guard::Guard;
use crate::listener::Listener;
use crate::metrics::{OPENMETRICS, RequestMetrics};
use crate::shutdown::ShutdownTrigger;
use crate::tasks::{Failures, caught};
use crate::{
    BoxError, Environment, Error, GrpcServices, Latch, Limits, Metrics, Peers, Readiness, Reload, Result,
    Service, Shutdown, Stopper, Surface, Tasks, WebConfig, WebUrl, in_process_address,
};

/// How long members are listed that no longer say they live.
const MEMBER_TTL: Duration = Duration::from_secs(10);
/// How long a start waits for this program to be listed.
const JOIN_PATIENCE: Duration = Duration::from_secs(2);

/// How others reach the services of this program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Only services of this very program do, in memory.
    InProcess,
    /// Other programs do, at the service's first listener or at the address given.
    Network {
        /// The `host:port` to publish instead of the listener's.
        advertise: Option<String>,
    },
}

/// What a program needs besides its services.
#[derive(Debug, Clone)]
pub struct Options {
    /// Tells the time.
    pub clock: Clock,
    /// What members agree on.
    pub coordinator: Arc<dyn Coordinator>,
    /// The name of this member, the same after a restart; empty is the address that others are told.
    pub member_name: String,
    /// How others reach the services.
    pub reach: Reach,
    /// How long a stop in order may take.
    pub grace: Duration,
    /// How much a request may ask for.
    pub limits: Limits,
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Outcome = std::result::Result<(), BoxError>;
/// Runs a service until it has stopped.
type Run = Box<dyn FnOnce(Shutdown) -> BoxFuture<Outcome> + Send>;

/// A service to be built, its type forgotten.
struct Plan {
    role: Role,
    listeners: Vec<&'static str>,
    build: Box<dyn FnOnce(Environment) -> BoxFuture<std::result::Result<Built, BoxError>> + Send>,
}

/// A service that was built, its type forgotten.
struct Built {
    grpc: GrpcServices,
    http: Router,
    extra: Vec<Surface>,
    run: Run,
}

/// Services to be run in one program.
pub struct Program {
    options: Options,
    fallback: Vec<(Role, String)>,
    listeners: Vec<(&'static str, SocketAddr)>,
    web: Option<(&'static str, WebConfig)>,
    url: Option<(&'static str, WebUrl)>,
    plans: Vec<Plan>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roles: Vec<Role> = self.plans.iter().map(|plan| plan.role).collect();
        f.debug_struct("Program").field("listeners", &self.listeners).field("services", &roles).finish()
    }
}

impl Program {
    /// Makes a program without services.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { options, fallback: Vec::new(), listeners: Vec::new(), web: None, url: None, plans: Vec::new() }
    }

    /// Names members by role and address that are used for as long as the coordinator has never answered.
    #[must_use]
    pub fn fallback(mut self, members: Vec<(Role, String)>) -> Self {
        self.fallback = members;
        self
    }

    /// Adds a listener. Port 0 takes any free port.
    #[must_use]
    pub fn listen(mut self, name: &'static str, address: SocketAddr) -> Self {
        self.listeners.push((name, address));
        self
    }

    /// Puts TLS and authentication around a listener, the one that faces users.
    #[must_use]
    pub fn secure(mut self, listener: &'static str, config: WebConfig) -> Self {
        self.web = Some((listener, config));
        self
    }

    /// Puts the HTTP routes of a listener below the prefix of its URL.
    #[must_use]
    pub fn reached_at(mut self, listener: &'static str, url: WebUrl) -> Self {
        self.url = Some((listener, url));
        self
    }

    /// Adds a service, at most one of a role. It answers on the listeners named, and to its peers in this program
    /// on none at all; listeners of its own come with its config.
    #[must_use]
    pub fn service<S: Service>(mut self, config: S::Config, listeners: &[&'static str]) -> Self {
        let own = S::listeners(&config);
        let build = move |environment: Environment| -> BoxFuture<std::result::Result<Built, BoxError>> {
            Box::pin(async move {
                let service = S::build(config, &environment).await?;
                let (grpc, http, extra) = (service.grpc(), service.http(), service.extra());
                Ok(Built { grpc, http, extra, run: Box::new(|shutdown| Box::pin(service.run(shutdown))) })
            })
        };
        self.listeners.extend(own);
        self.plans.push(Plan { role: S::ROLE, listeners: listeners.to_vec(), build: Box::new(build) });
        self
    }

    /// Runs the program from its start to its end: until `stopper` is asked or something fails.
    ///
    /// # Errors
    /// Whatever kept it from starting, made it stop, or was pending when it had to end.
    pub async fn run(self, stopper: Stopper, reload: (watch::Sender<u64>, Reload)) -> Result<()> {
        let started = tokio::select! {
            started = self.start(stopper.clone(), reload) => started?,
            () = stopper.asked(1) => {
                info!("stopped while starting");
                return Ok(());
            }
        };
        started.wait().await
    }

    /// Binds, builds and mounts everything. The program answers when this returns.
    ///
    /// # Errors
    /// [`Error::Bind`], [`Error::UnknownListener`], [`Error::Build`].
    pub async fn start(self, stopper: Stopper, reload: (watch::Sender<u64>, Reload)) -> Result<Running> {
        let mut listeners = Vec::new();
        for (name, wanted) in &self.listeners {
            let web = self.web.as_ref().filter(|(of, _)| of == name).map(|(_, config)| config.clone());
            let listener = Listener::bind(name, *wanted, web).await?;
            info!(listener = name, address = %listener.address, "listening");
            listeners.push(listener);
        }
        let mut starting = Starting::new(self.options, self.fallback, listeners, stopper, reload);
        starting.url = self.url;
        let mut roles = HashSet::new();
        for plan in self.plans {
            if !roles.insert(plan.role) {
                let cause = "it was added twice".into();
                return Err(Error::Build { service: plan.role.as_str(), cause });
            }
            starting.add(plan).await?;
        }
        starting.finish().await
    }
}

/// A program whose services are being built.
struct Starting {
    options: Options,
    listeners: Vec<Listener>,
    url: Option<(&'static str, WebUrl)>,
    addresses: BTreeMap<&'static str, SocketAddr>,
    /// What is answered, by the listener's name.
    routers: BTreeMap<&'static str, Router>,
    grpc: GrpcServices,
    metrics: Metrics,
    requests: RequestMetrics,
    readiness: Readiness,
    latch: Latch,
    failures: Failures,
    tasks: Tasks,
    peers: Peers,
    stopper: Stopper,
    reload: (watch::Sender<u64>, Reload),
    mounted: Vec<(Mounted, Run)>,
}

/// A service that answers.
struct Mounted {
    role: Role,
    guard: Guard,
    tasks: Tasks,
    trigger: ShutdownTrigger,
    shutdown: Shutdown,
    member_name: String,
    address: String,
}

impl Starting {
    fn new(
        options: Options,
        fallback: Vec<(Role, String)>,
        listeners: Vec<Listener>,
        stopper: Stopper,
        reload: (watch::Sender<u64>, Reload),
    ) -> Self {
        let metrics = Metrics::default();
        metrics.register_program();
        let (readiness, failures) = (Readiness::default(), Failures::default());
        let tasks = Tasks::new("runtime", failures.clone());
        Self {
            addresses: listeners.iter().map(|listener| (listener.name, listener.address)).collect(),
            routers: listeners.iter().map(|listener| (listener.name, Router::new())).collect(),
            listeners,
            url: None,
            grpc: GrpcServices::new(),
            requests: RequestMetrics::register(&metrics),
            metrics,
            latch: readiness.latch("start"),
            readiness,
            peers: Peers::with_fallback(options.coordinator.clone(), tasks.clone(), fallback),
            failures,
            tasks,
            stopper,
            reload,
            mounted: Vec::new(),
            options,
        }
    }

    async fn add(&mut self, plan: Plan) -> Result<()> {
        let name = plan.role.as_str();
        let began = Instant::now();
        let (trigger, shutdown) = Shutdown::new();
        let tasks = Tasks::new(name, self.failures.clone());
        let address = self.address(plan.role, &plan.listeners);
        let member_name = Some(self.options.member_name.clone()).filter(|name| !name.is_empty());
        let member_name = member_name.unwrap_or_else(|| address.clone());
        let environment = Environment {
            clock: self.options.clock.clone(),
            metrics: self.metrics.clone(),
            member_name: member_name.clone(),
            address: address.clone(),
            peers: self.peers.clone(),
            coordinator: self.options.coordinator.clone(),
            tasks: tasks.clone(),
            readiness: self.readiness.clone(),
            shutdown: shutdown.clone(),
            reload: self.reload.1.clone(),
            stopper: self.stopper.clone(),
        };
        let built = (plan.build)(environment).instrument(info_span!("build", service = name)).await;
        let built = built.map_err(|cause| Error::Build { service: name, cause })?;

        let guard = Guard::new(self.options.limits, self.requests.clone());
        self.peers.mount(plan.role, guard.around(built.grpc.router.clone()));
        for listener in &plan.listeners {
            let router = guard.around(built.grpc.router.clone().merge(built.http.clone()));
            self.mount(name, listener, router, built.grpc.clone())?;
        }
        for surface in built.extra {
            let router = guard.around(surface.grpc.router.clone().merge(surface.http));
            self.mount(name, surface.listener, router, surface.grpc)?;
        }
        info!(
            service = name,
            member_name,
            address,
            took_ms = began.elapsed().as_millis() as u64,
            "built and mounted"
        );
        let mounted = Mounted { role: plan.role, guard, tasks, trigger, shutdown, member_name, address };
        self.mounted.push((mounted, built.run));
        Ok(())
    }

    fn mount(
        &mut self,
        service: &'static str,
        listener: &'static str,
        router: Router,
        grpc: GrpcServices,
    ) -> Result<()> {
        let slot = self.routers.get_mut(listener).ok_or(Error::UnknownListener { service, listener })?;
        *slot = std::mem::take(slot).merge(router);
        self.grpc.names.extend(grpc.names);
        self.grpc.descriptors.extend(grpc.descriptors);
        Ok(())
    }

    /// The address that others are told.
    fn address(&self, role: Role, listeners: &[&'static str]) -> String {
        let bound = listeners.first().and_then(|name| self.addresses.get(name));
        match (&self.options.reach, bound) {
            (Reach::Network { advertise: Some(address) }, Some(_)) => address.clone(),
            (Reach::Network { advertise: None }, Some(bound)) => {
                let ip = match bound.ip() {
                    // Listening everywhere is no place to be reached at: by name then.
                    ip if ip.is_unspecified() => None,
                    IpAddr::V6(ip) => Some(format!("[{ip}]")),
                    IpAddr::V4(ip) => Some(ip.to_string()),
                };
                let host = ip.unwrap_or_else(|| host_name().unwrap_or_else(|| "localhost".to_owned()));
                format!("{host}:{}", bound.port())
            }
            (Reach::InProcess, _) | (_, None) => in_process_address(role),
        }
    }

    async fn finish(mut self) -> Result<Running> {
        let (reporter, health) = tonic_health::server::health_reporter();
        let own = GrpcServices::new().add(health).describe(tonic_health::pb::FILE_DESCRIPTOR_SET);
        let own = with_reflection(own, &self.grpc.descriptors)?;
        let endpoints = Router::new()
            .route("/-/healthy", get(async || "Prometheus Server is Healthy.\n"))
            .route("/-/ready", get(ready).with_state(self.readiness.clone()))
            .route("/metrics", get(expose).with_state(self.metrics.clone()));
        let guard = Guard::new(self.options.limits, self.requests.clone());
        let shared = guard.around(own.router.merge(endpoints));

        let close = CancellationToken::new();
        let mut serving = Vec::new();
        for listener in self.listeners {
            let router = self.routers.remove(listener.name).unwrap_or_default().merge(shared.clone());
            let router = match &self.url {
                Some((name, url)) if *name == listener.name => url.around(router),
                _ => router,
            };
            let max = self.options.limits.connections_max;
            serving.push(spawn(listener.serve(router, max, close.clone())));
        }

        self.grpc.names.push("");
        report_health(&reporter, &self.grpc.names, ServingStatus::NotServing).await;
        self.tasks.spawn("report health", {
            let (readiness, names) = (self.readiness.clone(), self.grpc.names);
            async move {
                readiness.reached().await;
                if readiness.is_ready() {
                    report_health(&reporter, &names, ServingStatus::Serving).await;
                }
                readiness.stopping().await;
                report_health(&reporter, &names, ServingStatus::NotServing).await;
                std::future::pending().await
            }
        });

        let runs = FuturesUnordered::new();
        let mut services = Vec::new();
        for (mounted, run) in self.mounted {
            let role = mounted.role;
            let run =
                run(mounted.shutdown.clone()).instrument(info_span!(parent: None, "run", service = %role));
            let run = spawn(caught(run));
            runs.push(async move { (role, run.await.unwrap_or_else(|error| Err(error.to_string()))) });
            let membership = Membership::new(
                self.options.coordinator.clone(),
                role,
                &mounted.member_name,
                &mounted.address,
                MEMBER_TTL,
            );
            services.push(Joined::new(mounted, membership));
        }
        let all_joined = futures::future::join_all(services.iter().map(Joined::joined));
        // A coordinator that answers has its moment, so that who is ready is listed; one that is away holds up nobody.
        if tokio::time::timeout(JOIN_PATIENCE, all_joined).await.is_err() {
            info!("going on without being a member yet");
        }
        drop(self.latch);
        Ok(Running {
            addresses: self.addresses,
            readiness: self.readiness,
            metrics: self.metrics,
            peers: self.peers,
            failures: self.failures,
            stopper: self.stopper,
            tasks: self.tasks,
            grace: self.options.grace,
            _reload: self.reload.0,
            services,
            runs: runs.boxed(),
            ended: BTreeMap::new(),
            close,
            serving,
        })
    }
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

fn with_reflection(own: GrpcServices, descriptors: &[&'static [u8]]) -> Result<GrpcServices> {
    let mut sets = descriptors.to_vec();
    sets.extend(&own.descriptors);
    let mut seen = HashSet::new();
    sets.retain(|set| seen.insert(*set));
    let builder = || {
        let start = tonic_reflection::server::Builder::configure();
        sets.iter().fold(start, |builder, set| builder.register_encoded_file_descriptor_set(set))
    };
    let failed = |error: tonic_reflection::server::Error| Error::Reflection { cause: error.to_string() };
    let v1 = builder().build_v1().map_err(failed)?;
    // What older clients (grpcurl among them) still ask for.
    let v1alpha = builder().build_v1alpha().map_err(failed)?;
    Ok(own.add(v1).add(v1alpha))
}

async fn report_health(reporter: &HealthReporter, names: &[&'static str], status: ServingStatus) {
    for name in names {
        reporter.set_service_status(*name, status).await;
    }
}

async fn ready(State(readiness): State<Readiness>) -> Response {
    if readiness.is_ready() { "Prometheus Server is Ready.\n".into_response() } else { readiness.refusal() }
}

async fn expose(State(metrics): State<Metrics>) -> Response {
    match metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Starts what the runtime itself awaits by its handle.
#[expect(clippy::disallowed_methods, reason = "its own handles are awaited in order, outside of Tasks")]
fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(task)
}
