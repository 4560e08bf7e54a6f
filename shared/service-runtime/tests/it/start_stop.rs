//! Start and stop, step by step.

use std::process::ExitCode;
use std::time::Duration;

use coordination::{Role, membership};
use service_runtime::{Error, Program, Reach, Reload, Stopper};
use tokio::sync::mpsc;

use crate::toy::{
    Ingester, Scraper, Script, Started, ToyConfig, fetch, loopback, options, start, start_program,
};

async fn events(mut receiver: mpsc::Receiver<String>) -> Vec<String> {
    let mut events = Vec::new();
    while let Some(event) = receiver.recv().await {
        events.push(event);
    }
    events
}

#[tokio::test]
async fn it_is_healthy_before_it_is_ready_and_ready_when_the_last_latch_is_gone() {
    let script = Script::default();
    let Started { running, stopper, web, .. } = start(script.clone(), |_| ()).await.expect("started");
    let (code, healthy) = fetch(web, "/-/healthy").await;
    assert_eq!(
        (code, healthy.ends_with("\r\n\r\nPrometheus Server is Healthy.\n")),
        (200, true),
        "{healthy}"
    );
    for path in ["/-/ready", "/gated"] {
        let (code, refused) = fetch(web, path).await;
        assert_eq!(code, 503);
        assert!(refused.contains("\r\nx-prometheus-stopping: false\r\n"), "{refused}");
        assert!(refused.ends_with("\r\n\r\nService Unavailable"), "{refused}");
    }
    assert_eq!(running.readiness().pending(), ["replay"]);

    script.replayed.notify_one();
    running.readiness().reached().await;
    let (code, ready) = fetch(web, "/-/ready").await;
    assert_eq!((code, ready.ends_with("\r\n\r\nPrometheus Server is Ready.\n")), (200, true), "{ready}");
    assert_eq!(fetch(web, "/gated").await.0, 200);
    stopper.stop();
    running.wait().await.expect("stopped in order");
}

#[tokio::test]
async fn services_stop_one_after_the_other_in_the_reverse_order() {
    let (sender, receiver) = mpsc::channel(100);
    let script = Script { events: Some(sender), ..Script::default() };
    let config = || ToyConfig { script: script.clone() };
    let program = Program::new(options()).listen("web", loopback());
    let program = program.service::<Ingester>(config(), &[]).service::<Scraper>(config(), &["web"]);
    let Started { running, stopper, .. } = start_program(program, mpsc::channel(1).1).await.expect("started");
    drop(script);
    stopper.stop();
    running.wait().await.expect("stopped in order");
    let expected = [
        "ingester build",
        "scraper build",
        "scraper requested",
        "scraper drained",
        "scraper flushed",
        "ingester requested",
        "ingester drained",
        "ingester flushed",
    ];
    assert_eq!(events(receiver).await, expected);
}

#[tokio::test]
async fn requests_in_flight_are_answered_before_the_flush_and_reads_go_on_meanwhile() {
    let script = Script::default();
    let Started { running, stopper, web, events: told } =
        start(script.clone(), |_| ()).await.expect("started");
    script.replayed.notify_one();
    running.readiness().reached().await;
    let readiness = running.readiness().clone();
    let story = async {
        let slow = fetch(web, "/slow");
        let stop = async {
            script.reached.notified().await;
            stopper.stop();
            readiness_gone(&readiness).await;
            let (code, refused) = fetch(web, "/-/ready").await;
            assert_eq!((code, refused.contains("x-prometheus-stopping: true")), (503, true), "{refused}");
            assert_eq!(fetch(web, "/-/healthy").await.0, 200, "answered until the end");
            script.answer.notify_one();
        };
        tokio::join!(slow, stop).0
    };
    let (stopped, slow) = tokio::join!(running.wait(), story);
    stopped.expect("stopped in order");
    assert_eq!((slow.0, slow.1.ends_with("slow")), (200, true));
    drop(script);
    assert_eq!(
        events(told).await,
        [
            "ingester build",
            "ingester requested",
            "slow request answered",
            "ingester drained",
            "ingester flushed"
        ]
    );
}

async fn readiness_gone(readiness: &service_runtime::Readiness) {
    while readiness.is_ready() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn overrunning_the_grace_period_names_what_is_pending() {
    let script = Script { never_flushes: true, ..Script::default() };
    let grace = Duration::from_millis(200);
    let Started { running, stopper, .. } = start(script, |o| o.grace = grace).await.expect("started");
    stopper.stop();
    let error = running.wait().await.expect_err("overrun");
    assert_eq!(
        error.to_string(),
        "not stopped within the grace period, pending: ingester: flush, task replay"
    );
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_and_the_flush_gets_its_turn() {
    let script = Script::default();
    // Half of it is for draining; what is left is longer than a busy machine is late.
    let grace = Duration::from_secs(6);
    let started = start(script.clone(), |o| o.grace = grace).await.expect("started");
    let Started { running, stopper, web, events: told } = started;
    let client = tokio::task::JoinSet::from_iter([fetch(web, "/slow")]);
    script.reached.notified().await;
    stopper.stop();
    let error = running.wait().await.expect_err("overrun");
    let text = error.to_string();
    assert!(matches!(error, Error::Overran { .. }), "{text}");
    assert!(text.contains("1 requests in flight") || text.contains("close listeners"), "{text}");
    drop((client, script));
    let told = events(told).await;
    assert!(told.contains(&"ingester flushed".to_owned()), "{told:?}");
}

#[tokio::test]
async fn a_second_wish_to_stop_ends_at_once() {
    let script = Script { never_flushes: true, ..Script::default() };
    let Started { running, stopper, .. } = start(script, |_| ()).await.expect("started");
    stopper.stop();
    stopper.stop();
    assert!(matches!(running.wait().await, Err(Error::Forced { .. })));
}

#[tokio::test]
async fn failures_of_tasks_and_services_stop_the_program_in_order() {
    for (script, expected) in [
        (Script { task_panics: true, ..Script::default() }, "ingester: task \"doomed\": panicked: torn page"),
        (Script { returns_early: true, ..Script::default() }, "ingester: it ended without being asked to"),
    ] {
        let returns_early = script.returns_early;
        let Started { running, events: told, .. } = start(script, |_| ()).await.expect("started");
        let error = running.wait().await.expect_err("failed");
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.kind(), fault::Kind::Internal);
        let flushed = events(told).await.contains(&"ingester flushed".to_owned());
        assert_eq!(flushed, !returns_early, "what can be flushed is");
    }
}

#[tokio::test]
async fn what_keeps_it_from_starting_is_named() {
    let script = Script { fails_to_build: true, ..Script::default() };
    let error = start(script, |_| ()).await.err().expect("not started");
    assert_eq!(error.to_string(), "build ingester: disk is missing");

    let taken = tokio::net::TcpListener::bind(loopback()).await.expect("bound");
    let address = taken.local_addr().expect("bound");
    let (sender, receiver) = mpsc::channel(10);
    let script = Script { events: Some(sender), ..Script::default() };
    let program = Program::new(options()).listen("web", address);
    let program = program.service::<Ingester>(ToyConfig { script }, &["web"]);
    let error = program.start(Stopper::default(), Reload::new()).await.expect_err("taken");
    assert!(error.to_string().starts_with(&format!("listen on {address} for web: ")), "{error}");
    assert!(events(receiver).await.is_empty(), "nothing is built before the ports are had");

    let program = Program::new(options()).service::<Ingester>(ToyConfig::default(), &["none"]);
    let error = program.start(Stopper::default(), Reload::new()).await.expect_err("no listener");
    assert_eq!(error.to_string(), "ingester answers on listener \"none\", which is not configured");

    let twice = Program::new(options()).service::<Ingester>(ToyConfig::default(), &[]);
    let twice = twice.service::<Ingester>(ToyConfig::default(), &[]);
    let error = twice.start(Stopper::default(), Reload::new()).await.expect_err("twice");
    assert_eq!(error.to_string(), "build ingester: it was added twice");
}

#[tokio::test]
async fn members_are_listed_while_they_run() {
    for (reach, expected) in [
        (Reach::InProcess, "in-process:ingester".to_owned()),
        (Reach::Network { advertise: Some("host:7".to_owned()) }, "host:7".to_owned()),
        (Reach::Network { advertise: None }, String::new()),
    ] {
        let options = options();
        let coordinator = options.coordinator.clone();
        let Started { running, stopper, web, .. } = start(Script::default(), |o| {
            *o = service_runtime::Options { reach, ..options };
        })
        .await
        .expect("started");
        let listed = membership::list(&*coordinator, Role::Ingester).await.expect("listed");
        let expected = if expected.is_empty() { web.to_string() } else { expected };
        let found: Vec<(&str, &str)> =
            listed.members.iter().map(|m| (m.name.as_str(), m.address.as_str())).collect();
        assert_eq!(found, [("toy", expected.as_str())]);
        stopper.stop();
        running.wait().await.expect("stopped in order");
        let listed = membership::list(&*coordinator, Role::Ingester).await.expect("listed");
        assert!(listed.members.is_empty());
    }
}

#[test]
fn a_program_returns_its_exit_code() {
    // The one test that installs telemetry for the whole process.
    let quiet = telemetry::Options { level: "error".parse().expect("a level"), ..Default::default() };
    let code = service_runtime::run(&quiet, "none", async || {
        let script = Script { returns_early: true, ..Script::default() };
        Ok(Program::new(options()).service::<Ingester>(ToyConfig { script }, &[]))
    });
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::FAILURE));
}
