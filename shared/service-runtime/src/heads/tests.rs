use std::collections::HashMap;
use std::sync::Arc;

use coordination::logs::{self, Holder};
use coordination::{Coordinator, InMemory, membership};
use tonic::Code;

use super::*;
use crate::{Environment, in_process_address};

/// Ingesters at made-up addresses, and what each of them answers.
struct Story {
    coordinator: Arc<dyn Coordinator>,
    peers: Peers,
    answers: HashMap<String, Result<Covering<u32>, Status>>,
}

impl Story {
    fn new(answers: &[(&str, Result<Covering<u32>, Status>)]) -> Self {
        let coordinator: Arc<dyn Coordinator> = Arc::new(InMemory::new());
        let clock = model::Clock::System;
        let peers = Environment::alone(Role::Querier, clock, coordinator.clone()).peers;
        let answers = answers.iter().map(|(name, answer)| ((*name).to_owned(), answer.clone())).collect();
        Self { coordinator, peers, answers }
    }

    async fn join(&self, name: &str) {
        let address = format!("{name}:1");
        membership::add_static(&*self.coordinator, Role::Ingester, name, &address).await.expect("added");
        let mut members = self.peers.members(Role::Ingester);
        let is_there = |roster: &membership::Roster| roster.members.iter().any(|m| m.name == name);
        drop(members.wait_for(is_there).await.expect("followed"));
    }

    async fn list(&self, log: &str, name: &str) {
        let holder = Holder { ingester: name.to_owned(), address: format!("{name}:1") };
        logs::list(&*self.coordinator, log, &holder).await.expect("listed");
        drop(self.peers.logs().wait_for(|logs| logs.listed.contains_key(log)).await.expect("followed"));
    }

    async fn ask(&self, allow_partial: bool) -> Result<Answers<u32>, Status> {
        self.peers.ask_heads(allow_partial, async |head: Head| self.answers[&head.name].clone()).await
    }
}

fn covering(answer: u32, logs: &[&str]) -> Result<Covering<u32>, Status> {
    Ok((answer, logs.iter().map(|log| (*log).to_owned()).collect()))
}

fn refused() -> Result<Covering<u32>, Status> {
    Err(Status::unavailable("connection refused"))
}

#[tokio::test(start_paused = true)]
async fn without_an_ingester_nothing_is_answered() {
    let story = Story::new(&[]);
    let status = story.ask(true).await.expect_err("nobody is there");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "no ingester is known"));
}

#[tokio::test(start_paused = true)]
async fn members_and_holders_of_logs_are_asked_once_each() {
    let story = Story::new(&[("a", covering(1, &["01A"])), ("b", covering(2, &["01B", "01C"]))]);
    story.join("a").await;
    story.list("01A", "a").await;
    // Not a member any more, but it still answers for its log.
    story.list("01B", "b").await;
    let mut answers = story.ask(false).await.expect("whole");
    answers.came.sort_unstable();
    assert_eq!((answers.came, answers.missing), (vec![1, 2], vec![]));
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_fails_the_request_or_is_named() {
    let story = Story::new(&[("a", covering(1, &["01A"])), ("b", refused()), ("c", refused())]);
    story.join("a").await;
    story.join("c").await;
    story.list("01A", "a").await;
    story.list("01B", "b").await;
    let status = story.ask(false).await.expect_err("b and c are away");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "log 01B of b: connection refused"));
    let answers = story.ask(true).await.expect("partial");
    let missing = [("log 01B of b", "connection refused"), ("c", "connection refused")];
    assert_eq!(answers.came, [1]);
    assert_eq!(answers.missing, missing.map(|(source, why)| (source.to_owned(), why.to_owned())));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_its_holder_does_not_speak_of_is_missing() {
    let story = Story::new(&[("a", covering(1, &["01A"]))]);
    story.list("01A", "a").await;
    story.list("00Z", "a").await;
    let status = story.ask(false).await.expect_err("00Z is missing");
    assert_eq!(status.message(), "log 00Z of a: no ingester answers for it");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_never_passed_over() {
    let story = Story::new(&[("a", Err(Status::invalid_argument("no")))]);
    story.join("a").await;
    assert_eq!(story.ask(true).await.expect_err("refused").code(), Code::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn an_ingester_that_left_in_order_is_asked_no_more() {
    let story = Story::new(&[("a", covering(1, &["01A"])), ("b", refused())]);
    story.list("01A", "a").await;
    story.list("01B", "b").await;
    let leave = async {
        tokio::time::sleep(REPLAN_WAIT / 2).await;
        logs::strike(&*story.coordinator, "01B").await.expect("struck off");
    };
    let (answers, ()) = tokio::join!(story.ask(false), leave);
    assert_eq!(answers.expect("the table has what b had").came, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_answer_is_not_waited_for() {
    let story = Story::new(&[]);
    let address = in_process_address(Role::Ingester);
    membership::add_static(&*story.coordinator, Role::Ingester, "a", &address).await.expect("added");
    drop(story.peers.members(Role::Ingester).wait_for(|roster| !roster.members.is_empty()).await);
    // Nothing is mounted under the address, so that the probe fails.
    let asked =
        story.peers.ask_heads(false, async |_| std::future::pending::<Result<Covering<u32>, _>>().await);
    let status = asked.await.expect_err("it hangs");
    assert_eq!(status.message(), "a: it does not answer");
}
