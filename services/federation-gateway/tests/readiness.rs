//! `/federate` while the program starts, without those who hold the data, and while it stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use coordination::{InMemory, Role};
use model::Clock;
use service_runtime::{
    BoxError, Environment, GrpcServices, Limits, Options, Program, Reach, Reload, Service, Shutdown, Stopper,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Keeps the program from being ready, and from having stopped.
struct Brake {
    config: BrakeConfig,
}

#[derive(Debug, Clone, Default, serde::Deserialize)]
struct BrakeConfig {
    /// Lets the program be ready.
    #[serde(skip)]
    replayed: Arc<Notify>,
    /// Told when `/slow` was reached, and lets it answer.
    #[serde(skip)]
    reached: Arc<Notify>,
    #[serde(skip)]
    answer: Arc<Notify>,
}

impl service_runtime::Config for BrakeConfig {
    fn validate(&self) -> Vec<String> {
        Vec::new()
    }
}

impl Service for Brake {
    const ROLE: Role = Role::Scraper;
    type Config = BrakeConfig;

    async fn build(config: BrakeConfig, environment: &Environment) -> Result<Self, BoxError> {
        let latch = environment.readiness.latch("replay");
        let replayed = Arc::clone(&config.replayed);
        environment.tasks.spawn("replay", async move {
            replayed.notified().await;
            drop(latch);
            Ok(())
        });
        Ok(Self { config })
    }

    fn grpc(&self) -> GrpcServices {
        GrpcServices::new()
    }

    fn http(&self) -> Router {
        let BrakeConfig { reached, answer, .. } = self.config.clone();
        let slow = get(move || async move {
            reached.notify_one();
            answer.notified().await;
            "slow"
        });
        Router::new().route("/slow", slow)
    }

    async fn run(self, shutdown: Shutdown) -> Result<(), BoxError> {
        shutdown.drained().await;
        Ok(())
    }
}

async fn fetch(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let request = format!("GET {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    answer
}

const VALID: &str = "/federate?match[]=up";
const INVALID: &str = "/federate?match[]=-up";

#[tokio::test]
async fn federate_answers_503_until_there_is_something_to_read_and_when_it_is_over() {
    let options = Options {
        clock: Clock::System,
        coordinator: Arc::new(InMemory::new()),
        member_name: "m".to_owned(),
        reach: Reach::InProcess,
        grace: Duration::from_secs(30),
        limits: Limits::default(),
    };
    let (brake, stopper) = (BrakeConfig::default(), Stopper::default());
    let program = Program::new(options)
        .listen("web", "127.0.0.1:0".parse().expect("an address"))
        .service::<Brake>(brake.clone(), &["web"])
        .service::<federation_gateway::Service>(federation_gateway::Config::default(), &["web"]);
    let running = program.start(stopper.clone(), Reload::new()).await.expect("started");
    let web = running.address("web").expect("bound");
    let refused = async |path: &str, is_stopping: bool| {
        let answer = fetch(web, path).await;
        let is_refusal = answer.starts_with("HTTP/1.1 503 ")
            && answer.contains(&format!("\r\nx-prometheus-stopping: {is_stopping}\r\n"))
            && answer.ends_with("\r\n\r\nService Unavailable");
        assert!(is_refusal, "{path}: {answer}");
    };
    for path in [VALID, INVALID, "/federation?match[]=up"] {
        refused(path, false).await;
    }

    // Ready, but there is nobody who holds anything: a selector is read before that is noticed.
    brake.replayed.notify_one();
    running.readiness().reached().await;
    let answer = fetch(web, VALID).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && !answer.contains("stopping"), "{answer}");
    let answer = fetch(web, INVALID).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\n1:1: parse error: unexpected <op:->\n"), "{answer}");

    let readiness = running.readiness().clone();
    let story = async {
        let slow = fetch(web, "/slow");
        let stop = async {
            brake.reached.notified().await;
            stopper.stop();
            while readiness.is_ready() {
                tokio::task::yield_now().await;
            }
            refused(VALID, true).await;
            refused(INVALID, true).await;
            brake.answer.notify_one();
        };
        tokio::join!(slow, stop).0
    };
    let (stopped, slow) = tokio::join!(running.wait(), story);
    stopped.expect("stopped in order");
    assert!(slow.ends_with("slow"), "{slow}");
}
