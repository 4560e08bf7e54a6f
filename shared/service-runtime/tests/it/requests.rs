//! What every request passes.

use std::time::Duration;

use coordination::Role;
use rpc::Channel;
use service_runtime::{Limits, in_process_address};
use tokio_stream::StreamExt as _;
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ListServiceResponse, ServerReflectionRequest};

use crate::toy::{Script, Started, exchange, fetch, start};

async fn check(started: &Started, service: &str) -> Result<HealthCheckResponse, Status> {
    let channel = network(started).await;
    let request = HealthCheckRequest { service: service.to_owned() };
    HealthClient::new(channel).check(request).await.map(tonic::Response::into_inner)
}

async fn network(started: &Started) -> tonic::transport::Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", started.web)).expect("an address");
    endpoint.connect().await.expect("connected")
}

/// Calls the toy's own service, whose messages are those of health.
async fn echo(
    channel: Channel,
    what: &str,
    timeout: Option<Duration>,
) -> Result<HealthCheckResponse, Status> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|e| Status::from_error(e.into()))?;
    let mut request = tonic::Request::new(HealthCheckRequest { service: what.to_owned() });
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    let path = "/toy.v1.Echo/Check".parse().expect("a path");
    let codec = tonic_prost::ProstCodec::default();
    grpc.unary(request, path, codec).await.map(tonic::Response::into_inner)
}

async fn stop(started: Started) {
    started.stopper.stop();
    started.running.wait().await.expect("stopped in order");
}

async fn metric(started: &Started, line: &str) -> bool {
    let (code, text) = fetch(started.web, "/metrics").await;
    assert_eq!(code, 200);
    assert!(text.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"));
    text.lines().any(|found| found == line)
}

#[tokio::test]
async fn health_follows_readiness_over_grpc() {
    let script = Script::default();
    let started = start(script.clone(), |_| ()).await.expect("started");
    for name in ["", "toy.v1.Echo"] {
        let status = check(&started, name).await.expect("answered").status();
        assert_eq!(status, ServingStatus::NotServing, "{name:?}");
    }
    let mut client = HealthClient::new(network(&started).await);
    let request = HealthCheckRequest { service: "toy.v1.Echo".to_owned() };
    let mut watch = client.watch(request).await.expect("watched").into_inner();
    let first = watch.next().await.expect("open").expect("good");
    assert_eq!(first.status(), ServingStatus::NotServing);
    script.replayed.notify_one();
    let second = watch.next().await.expect("open").expect("good");
    assert_eq!(second.status(), ServingStatus::Serving);
    assert_eq!(check(&started, "unknown").await.map_err(|status| status.code()), Err(Code::NotFound));
    drop((watch, client));
    stop(started).await;
}

#[tokio::test]
async fn reflection_lists_the_services() {
    let started = start(Script::default(), |_| ()).await.expect("started");
    let mut client = ServerReflectionClient::new(network(&started).await);
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let request = ServerReflectionRequest { host: String::new(), message_request };
    let mut answers =
        client.server_reflection_info(tokio_stream::iter([request])).await.expect("asked").into_inner();
    let answer = answers.next().await.expect("open").expect("good").message_response;
    let Some(MessageResponse::ListServicesResponse(ListServiceResponse { service })) = answer else {
        panic!("{answer:?}");
    };
    let names: Vec<String> = service.into_iter().map(|service| service.name).collect();
    assert!(names.contains(&"grpc.health.v1.Health".to_owned()), "{names:?}");
    drop((answers, client));
    stop(started).await;
}

#[tokio::test]
async fn peers_in_one_program_need_no_socket_and_pass_the_same_layers() {
    let started = start(Script::default(), |_| ()).await.expect("started");
    let peers = started.running.peers();
    let direct = peers.channel(&in_process_address(Role::Ingester)).expect("an address");
    let by_role = peers.role(Role::Ingester);
    let over_network = peers.channel(&started.web.to_string()).expect("an address");
    for channel in [direct.clone(), by_role, over_network] {
        assert_eq!(echo(channel, "", None).await.expect("answered").status(), ServingStatus::Serving);
    }
    let counted = "tributary_grpc_requests_total{service=\"toy.v1.Echo\",method=\"Check\",code=\"OK\"} 3";
    assert!(metric(&started, counted).await);

    let absent = peers.channel(&in_process_address(Role::Querier)).expect("an address");
    let refused = echo(absent, "", None).await.expect_err("nobody there");
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "querier is not up"));
    let nobody = echo(peers.channel("127.0.0.1:1").expect("an address"), "", None).await;
    assert_eq!(nobody.expect_err("nobody there").code(), Code::Unavailable);
    assert!(peers.channel("in-process:ruler").is_err());
    assert!(peers.channel("not an address").is_err());
    stop(started).await;
    let refused = echo(direct, "", None).await.expect_err("stopped");
    assert_eq!(refused.code(), Code::Unavailable);
}

#[tokio::test]
async fn too_large_is_refused_in_both_protocols() {
    let limits = Limits { grpc_message_bytes_max: 100, http_body_bytes_max: 100, ..Limits::default() };
    let started = start(Script::default(), |o| o.limits = limits).await.expect("started");
    let channel = started.running.peers().channel(&started.web.to_string()).expect("an address");
    echo(channel.clone(), &"x".repeat(98), None).await.expect("100 bytes with tag and length");
    let refused = echo(channel, &"x".repeat(99), None).await.expect_err("too large");
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::ResourceExhausted, "message of 101 bytes: at most 100 are allowed")
    );
    let post = |body: String| {
        let head = format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len());
        exchange(started.web, format!("POST /length/x HTTP/1.1\r\nhost: toy\r\n{head}{body}"))
    };
    assert_eq!(post("x".repeat(100)).await.0, 200);
    let (code, text) = post("x".repeat(101)).await;
    assert_eq!((code, text.ends_with("request body is larger than 100 bytes\n")), (413, true), "{text}");
    let chunks = format!("65\r\n{}\r\n0\r\n\r\n", "x".repeat(101));
    let head =
        "POST /length/x HTTP/1.1\r\nhost: toy\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    assert_eq!(exchange(started.web, format!("{head}{chunks}")).await.0, 413, "without a length");
    assert!(
        metric(&started, "prometheus_http_requests_total{handler=\"/length/:what\",code=\"413\"} 2").await
    );
    stop(started).await;
}

#[tokio::test]
async fn too_many_at_once_are_refused() {
    let script = Script::default();
    let limits = Limits { requests_max: 1, ..Limits::default() };
    let started = start(script.clone(), |o| o.limits = limits).await.expect("started");
    let first = fetch(started.web, "/slow");
    let second = async {
        script.reached.notified().await;
        let refused = fetch(started.web, "/length/x").await;
        let peer = started.running.peers().channel(&in_process_address(Role::Ingester)).expect("an address");
        let over_grpc = echo(peer, "", None).await.expect_err("refused");
        script.answer.notify_one();
        (refused, over_grpc)
    };
    let (first, (second, over_grpc)) = tokio::join!(first, second);
    assert_eq!((first.0, second.0), (200, 503));
    assert!(second.1.ends_with("too many requests: 1 are in flight\n"), "{}", second.1);
    assert_eq!(over_grpc.code(), Code::ResourceExhausted);
    let refused = "tributary_grpc_requests_total{service=\"toy.v1.Echo\",method=\"other\",code=\"ResourceExhausted\"} 1";
    assert!(metric(&started, refused).await);
    stop(started).await;
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_given_up() {
    let limits = Limits { request_timeout: Duration::from_millis(50), ..Limits::default() };
    let started = start(Script::default(), |o| o.limits = limits).await.expect("started");
    let (code, text) = fetch(started.web, "/slow").await;
    assert_eq!((code, text.ends_with("no answer within 50 ms\n")), (503, true), "{text}");
    let peer = started.running.peers().channel(&in_process_address(Role::Ingester)).expect("an address");
    let late = echo(peer.clone(), "slow", None).await.expect_err("late");
    assert_eq!((late.code(), late.message()), (Code::DeadlineExceeded, "no answer within 50 ms"));
    let sooner = echo(peer, "slow", Some(Duration::from_millis(10))).await.expect_err("late");
    assert_eq!((sooner.code(), sooner.message()), (Code::DeadlineExceeded, "no answer within 10 ms"));
    stop(started).await;
}

#[tokio::test]
async fn a_handler_that_panics_answers_all_the_same() {
    let started = start(Script::default(), |_| ()).await.expect("started");
    let peer = started.running.peers().channel(&in_process_address(Role::Ingester)).expect("an address");
    let failed = echo(peer, "panic", None).await.expect_err("failed");
    assert_eq!((failed.code(), failed.message()), (Code::Internal, "panicked: as asked"));
    stop(started).await;
}

#[tokio::test]
async fn metrics_count_what_has_a_route_by_its_route_and_the_rest_together() {
    let started = start(Script::default(), |_| ()).await.expect("started");
    for path in ["/-/healthy", "/no/such/1", "/no/such/2"] {
        fetch(started.web, path).await;
    }
    for line in [
        "prometheus_http_requests_total{handler=\"/-/healthy\",code=\"200\"} 1",
        "prometheus_http_requests_total{handler=\"other\",code=\"404\"} 2",
    ] {
        assert!(metric(&started, line).await, "{line}");
    }
    stop(started).await;
}

#[tokio::test]
async fn a_service_may_have_a_listener_of_its_own() {
    let script = Script { has_own_listener: true, ..Script::default() };
    let started = start(script, |_| ()).await.expect("started");
    let own = started.running.address("own").expect("bound");
    let codes = [
        fetch(own, "/own").await.0,
        fetch(own, "/-/healthy").await.0,
        fetch(own, "/gated").await.0,
        fetch(started.web, "/own").await.0,
    ];
    assert_eq!(codes, [200, 200, 404, 404]);
    stop(started).await;
}
