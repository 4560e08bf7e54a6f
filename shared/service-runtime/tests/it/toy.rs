//! A service that does as its config says and writes down what happens to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use bytes::Bytes;
use coordination::{InMemory, Role};
use model::{Clock, Timestamp};
use service_runtime::{
    BoxError, Config, Environment, GrpcServices, Limits, Options, Program, Reach, Reload, Result, Running,
    Service, Shutdown, Stopper, Surface,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// What the toy is to do, and where it writes down what happens.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default)]
pub(crate) struct ToyConfig {
    #[serde(skip)]
    pub(crate) script: Script,
}

/// The strings that a test pulls, and what it sees.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    pub(crate) fails_to_build: bool,
    pub(crate) task_panics: bool,
    pub(crate) returns_early: bool,
    pub(crate) never_flushes: bool,
    pub(crate) has_own_listener: bool,
    /// Lets the toy drop its latch.
    pub(crate) replayed: Arc<Notify>,
    /// Lets `/slow` answer.
    pub(crate) answer: Arc<Notify>,
    /// Told when `/slow` was reached.
    pub(crate) reached: Arc<Notify>,
    pub(crate) events: Option<mpsc::Sender<String>>,
}

impl Script {
    fn tell(&self, event: &str) {
        if let Some(events) = &self.events {
            // Not every test listens.
            drop(events.try_send(event.to_owned()));
        }
    }
}

impl Config for ToyConfig {
    fn validate(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The toy; `ROLE` tells two of them apart.
pub(crate) struct Toy<const ROLE: usize> {
    script: Script,
    environment: Environment,
}

/// A scraper, first in line to stop when it comes second.
pub(crate) type Scraper = Toy<4>;
/// An ingester.
pub(crate) type Ingester = Toy<1>;

/// A gRPC service that is at hand without a build script: health's, under the toy's control.
#[derive(Clone)]
pub(crate) struct Echo(Script);

#[tonic::async_trait]
impl Health for Echo {
    type WatchStream = tokio_stream::Pending<std::result::Result<HealthCheckResponse, tonic::Status>>;

    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> std::result::Result<tonic::Response<HealthCheckResponse>, tonic::Status> {
        match request.into_inner().service.as_str() {
            "panic" => panic!("as asked"),
            "slow" => {
                self.0.reached.notify_one();
                self.0.answer.notified().await;
            }
            _ => {}
        }
        Ok(tonic::Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }))
    }

    async fn watch(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> std::result::Result<tonic::Response<Self::WatchStream>, tonic::Status> {
        Ok(tonic::Response::new(tokio_stream::pending()))
    }
}

/// Health's server under a name of its own, so that it stands beside the runtime's.
#[derive(Clone)]
struct EchoServer(HealthServer<Echo>);

impl tonic::server::NamedService for EchoServer {
    const NAME: &'static str = "toy.v1.Echo";
}

impl tower::Service<http::Request<tonic::body::Body>> for EchoServer {
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = <HealthServer<Echo> as tower::Service<http::Request<tonic::body::Body>>>::Future;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::result::Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<tonic::body::Body>) -> Self::Future {
        let path = request.uri().path().replace(Self::NAME_PREFIX, "/grpc.health.v1.Health/");
        *request.uri_mut() = path.parse().expect("a path");
        self.0.call(request)
    }
}

impl EchoServer {
    const NAME_PREFIX: &'static str = "/toy.v1.Echo/";
}

impl<const ROLE: usize> Service for Toy<ROLE> {
    const ROLE: Role = Role::ALL[ROLE];
    type Config = ToyConfig;

    async fn build(config: ToyConfig, environment: &Environment) -> std::result::Result<Self, BoxError> {
        let script = config.script;
        script.tell(&format!("{} build", Self::ROLE));
        if script.fails_to_build {
            return Err("disk is missing".into());
        }
        let latch = environment.readiness.latch("replay");
        let replayed = script.replayed.clone();
        environment.tasks.spawn("replay", async move {
            replayed.notified().await;
            drop(latch);
            Ok(())
        });
        if script.task_panics {
            environment.tasks.spawn("doomed", async { panic!("torn page") });
        }
        Ok(Self { script, environment: environment.clone() })
    }

    fn grpc(&self) -> GrpcServices {
        GrpcServices::new().add(EchoServer(HealthServer::new(Echo(self.script.clone()))))
    }

    fn http(&self) -> Router {
        let script = self.script.clone();
        let slow = get(move || {
            let script = script.clone();
            async move {
                script.reached.notify_one();
                script.answer.notified().await;
                script.tell("slow request answered");
                "slow"
            }
        });
        let gated = self.environment.readiness.gate(Router::new().route("/gated", get(async || "open")));
        gated.route("/slow", slow).route("/length/{what}", post(async |body: Bytes| body.len().to_string()))
    }

    fn listeners(config: &ToyConfig) -> Vec<(&'static str, SocketAddr)> {
        if config.script.has_own_listener { vec![("own", loopback())] } else { Vec::new() }
    }

    fn extra(&self) -> Vec<Surface> {
        let http = Router::new().route("/own", get(async || "own"));
        let own = Surface { listener: "own", grpc: GrpcServices::new(), http };
        if self.script.has_own_listener { vec![own] } else { Vec::new() }
    }

    async fn run(self, shutdown: Shutdown) -> std::result::Result<(), BoxError> {
        if self.script.returns_early {
            return Ok(());
        }
        shutdown.requested().await;
        self.script.tell(&format!("{} requested", Self::ROLE));
        shutdown.drained().await;
        self.script.tell(&format!("{} drained", Self::ROLE));
        if self.script.never_flushes {
            std::future::pending::<()>().await;
        }
        self.script.tell(&format!("{} flushed", Self::ROLE));
        Ok(())
    }
}

/// A program of one or two toys that answers on the listener `web`, with what a test needs to drive it.
pub(crate) struct Started {
    pub(crate) running: Running,
    pub(crate) stopper: Stopper,
    pub(crate) web: SocketAddr,
    pub(crate) events: mpsc::Receiver<String>,
}

pub(crate) fn options() -> Options {
    Options {
        clock: Clock::fixed(Timestamp(0)),
        coordinator: Arc::new(InMemory::new()),
        member_name: "toy".to_owned(),
        reach: Reach::InProcess,
        grace: Duration::from_secs(30),
        limits: Limits::default(),
    }
}

pub(crate) fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

/// Starts an ingester, with the change made to its options.
pub(crate) async fn start(mut script: Script, change: impl FnOnce(&mut Options)) -> Result<Started> {
    let (sender, events) = mpsc::channel(100);
    script.events = Some(sender);
    let mut options = options();
    change(&mut options);
    let program = Program::new(options).listen("web", loopback());
    start_program(program.service::<Ingester>(ToyConfig { script }, &["web"]), events).await
}

pub(crate) async fn start_program(program: Program, events: mpsc::Receiver<String>) -> Result<Started> {
    let stopper = Stopper::default();
    let running = program.start(stopper.clone(), Reload::new()).await?;
    let web = running.address("web").expect("bound");
    Ok(Started { running, stopper, web, events })
}

/// An HTTP/1.1 exchange in plain text: the status line's code, and everything that was answered.
pub(crate) async fn exchange(address: SocketAddr, request: String) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
    (code, answer)
}

pub(crate) async fn fetch(address: SocketAddr, path: &str) -> (u16, String) {
    exchange(address, format!("GET {path} HTTP/1.1\r\nhost: toy\r\nconnection: close\r\n\r\n")).await
}
