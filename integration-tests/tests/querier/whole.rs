//! Aggregations that cannot be computed in parts are computed whole, and come to the same.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use coordination::InMemory;
use futures::StreamExt as _;
use model::query::{PointValue, QueryValue};
use rpc::Channel;
use rpc::pb::querier as pb;
use rpc::pb::querier::query_request::Time;
use service_runtime::{Program, Reach};
use tokio::net::TcpListener;
use tonic::Status;
use tower::ServiceExt as _;

use super::{NOW, Started, only, options, storage};

/// How an ingester's answer to `Aggregate` differs.
#[derive(Clone, Copy, PartialEq)]
enum Answer {
    /// Not at all.
    Full,
    /// It is of a version that does not know the call.
    Unknown,
    /// The connection breaks behind the identities.
    BreaksOff,
    /// There is none, nor to any other read.
    Away,
}

/// Stands before an ingester, whose place in the roster it takes.
struct Before {
    answer: Answer,
    ingester: OnceLock<Channel>,
}

async fn forward(State(before): State<Arc<Before>>, request: Request) -> Response {
    let call = request.uri().path().rsplit('/').next().unwrap_or_default();
    let answer = match before.answer {
        Answer::Unknown | Answer::BreaksOff if call != "Aggregate" => Answer::Full,
        Answer::Away if !matches!(call, "Aggregate" | "Select") => Answer::Full,
        answer => answer,
    };
    match answer {
        Answer::Unknown => return Status::unimplemented("unknown call").into_http(),
        Answer::Away => return Status::unavailable("gone").into_http(),
        Answer::Full | Answer::BreaksOff => {}
    }
    let Some(ingester) = before.ingester.get() else { return Status::unavailable("starting").into_http() };
    let response = ingester.clone().oneshot(request.map(tonic::body::Body::new)).await;
    let response = response.expect("the ingester answers").map(Body::new);
    match answer {
        Answer::BreaksOff => response.map(|body| Body::from_stream(body.into_data_stream().take(1))),
        _ => response,
    }
}

/// Two ingesters with two series each, the second behind a forwarder, and a querier.
struct Services {
    querier: Started,
    ingesters: [Started; 2],
}

impl Services {
    async fn start(folder: &Path, answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let forwarder = listener.local_addr().expect("bound").to_string();
        let before = Arc::new(Before { answer, ingester: OnceLock::new() });
        let router = Router::new().fallback(forward).with_state(Arc::clone(&before));
        tokio::runtime::Handle::current().spawn(async { axum::serve(listener, router).await });

        let coordinator = Arc::new(InMemory::new());
        let ingesters = [
            Started::ingester(&coordinator, folder, "one", None).await,
            Started::ingester(&coordinator, folder, "two", Some(forwarder)).await,
        ];
        let config = querier::Config { storage: storage(folder), ..querier::Config::default() };
        let network = Reach::Network { advertise: None };
        let program = Program::new(options(&coordinator, "three", network));
        let querier = Started::start(program.service::<querier::Service>(config, &[])).await;

        let address = ingesters[1].running.address("grpc").expect("listening").to_string();
        let behind = querier.running.peers().channel(&address).expect("an address");
        before.ingester.set(behind).expect("set once");
        let roster = querier.ingesters(2).await.borrow().clone();
        for (member, instances) in roster.members.iter().zip([["a", "b"], ["c", "d"]]) {
            querier.write_to(only(member), instances, "default", 20).await;
        }
        Self { querier, ingesters }
    }

    /// Asks for an aggregate of all four series; returns the answer, and how often it was computed in parts and whole,
    /// for a reason.
    async fn ask(&self, reason: &str) -> (String, u64, u64) {
        // At the last of twenty steps the instances stand at 19 and 38.
        let answer = self.querier.ask("default", "sum(m) + 100 * count(m)").await;
        let whole = self.querier.metric(&format!("querier_aggregations_whole_total{{reason=\"{reason}\"}}"));
        (answer, self.querier.metric("querier_aggregations_in_parts_total"), whole)
    }

    async fn stop(self) {
        self.querier.stop().await;
        for ingester in self.ingesters {
            ingester.stop().await;
        }
    }
}

const ALL: &str = "{}=Float(514.0)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_ingesters_can_it_is_done_in_parts() {
    let folder = tempfile::tempdir().expect("a folder");
    let services = Services::start(folder.path(), Answer::Full).await;
    assert_eq!(services.ask("peer").await, (ALL.to_owned(), 2, 0));
    services.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ingester_of_another_version_gives_its_series() {
    let folder = tempfile::tempdir().expect("a folder");
    let services = Services::start(folder.path(), Answer::Unknown).await;
    assert_eq!(services.ask("peer").await, (ALL.to_owned(), 0, 2));
    services.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_breaks_off_is_asked_for_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let services = Services::start(folder.path(), Answer::BreaksOff).await;
    assert_eq!(services.ask("failed").await, (ALL.to_owned(), 0, 2));
    services.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ingester_that_is_away_fails_the_query_or_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let services = Services::start(folder.path(), Answer::Away).await;
    let (refused, ..) = services.ask("missing").await;
    assert!(refused.starts_with("Unavailable: ") && refused.contains("two"), "{refused}");
    let request = pb::QueryRequest {
        tenant: "default".to_owned(),
        query: "sum(m)".to_owned(),
        time: Some(Time::Instant(NOW.millis())),
        allow_partial: true,
        ..Default::default()
    };
    let mut stream = services.querier.client().query(request).await.expect("an answer").into_inner();
    let mut pieces = Vec::new();
    while let Some(message) = stream.message().await.expect("whole") {
        pieces.push(rpc::convert::query::piece(&message).expect("valid"));
    }
    drop(stream);
    let [value, end] = &*pieces else { panic!("{pieces:?}") };
    let QueryValue::Vector(elements) = &value.value else { panic!("{value:?}") };
    assert_eq!(elements[0].value, PointValue::Float(57.0), "the first ingester's alone");
    let missing = &end.end.as_ref().expect("the end").notes.missing;
    assert!(missing.iter().any(|(source, _)| source.contains("two")), "{missing:?}");
    let whole = services.querier.metric(r#"querier_aggregations_whole_total{reason="missing"}"#);
    assert_eq!(whole, 1);
    services.stop().await;
}
