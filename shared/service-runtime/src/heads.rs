//! Whom a reader has to ask for what is not in the table yet, and asking all of them.
//!
//! Invariants:
//! - every member of the ingesters and everybody who answers for a listed log is asked;
//! - a listed log that no answer covers makes the answer partial;
//! - an answer is partial only where that was asked for.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use coordination::Role;
use coordination::logs::{Logs, unanswered};
use futures::future::join_all;
use rpc::Channel;
use tonic::Status;

use crate::Peers;
use crate::peers::lives;

/// How long an ingester may be silent before it is probed, and how long it has to answer the probe.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the lists may take to show that an ingester which failed has gone away in order.
const REPLAN_WAIT: Duration = Duration::from_millis(500);

/// An ingester to ask.
#[derive(Debug, Clone)]
pub struct Head {
    /// Its name.
    pub name: String,
    /// Where it is reached.
    pub channel: Channel,
}

/// An answer, and the logs it covers.
pub type Covering<T> = (T, Vec<String>);

/// What took no part in an answer: its name and why.
pub type Missing = (String, String);

/// What all of them answered.
#[derive(Debug)]
pub struct Answers<T> {
    /// The answers.
    pub came: Vec<T>,
    /// What is missing; empty unless partial answers were allowed.
    pub missing: Vec<Missing>,
    /// [`Logs::struck`] of the list that said whom to ask: the table is needed as it is after that.
    pub struck: u64,
}

/// The lists of a moment.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// Names by address.
    asked: BTreeMap<String, String>,
    logs: Logs,
}

/// What one round of asking came to: answers, and what is missing with the reason.
type Round<T> = (Vec<T>, Vec<(String, Status)>);

impl Peers {
    /// Every ingester there is, by name; starts to follow the lists, so that the first reader does not wait for them.
    pub fn heads(&self) -> Vec<Head> {
        let reach = |(address, name): (&String, &String)| {
            Some(Head { name: name.clone(), channel: self.channel(address).ok()? })
        };
        self.plan().asked.iter().filter_map(reach).collect()
    }

    /// Asks every ingester the same. When one fails or a log stays unanswered, and the lists show that things have
    /// changed meanwhile, all are asked once more: an ingester that stops in order flushes first, so that the table
    /// then holds what it held.
    ///
    /// # Errors
    /// The first failure, which names the log and its ingester. With leave for partial answers only one that trying
    /// again cannot help, and `unavailable` without any ingester.
    pub async fn ask_heads<T, F>(
        &self,
        allow_partial: bool,
        ask: impl Fn(Head) -> F,
    ) -> Result<Answers<T>, Status>
    where
        F: Future<Output = Result<Covering<T>, Status>>,
    {
        let mut plan = self.plan();
        let mut round = self.round(&plan, &ask).await;
        if round.1.iter().any(|(_, status)| is_passing(status)) && self.is_replaced(&plan).await {
            plan = self.plan();
            round = self.round(&plan, &ask).await;
        }
        let (came, failed) = round;
        match failed.iter().find(|(_, status)| !allow_partial || !is_passing(status)) {
            Some((source, status)) => {
                let message = format!("{source}: {}", status.message());
                Err(rpc::status::status(rpc::status::kind(status), message))
            }
            None if came.is_empty() && failed.is_empty() => Err(Status::unavailable("no ingester is known")),
            None => {
                let missing =
                    failed.into_iter().map(|(source, status)| (source, status.message().to_owned()));
                Ok(Answers { came, missing: missing.collect(), struck: plan.logs.struck })
            }
        }
    }

    async fn round<T, F>(&self, plan: &Plan, ask: &impl Fn(Head) -> F) -> Round<T>
    where
        F: Future<Output = Result<Covering<T>, Status>>,
    {
        let asking = plan.asked.iter().map(|(address, name)| async move {
            let answer = match self.channel(address) {
                Ok(channel) => {
                    let head = Head { name: name.clone(), channel: channel.clone() };
                    tokio::select! {
                        answer = ask(head) => answer,
                        () = silence(channel) => Err(Status::unavailable("it does not answer")),
                    }
                }
                Err(error) => Err(Status::unavailable(error.to_string())),
            };
            (name, answer)
        });
        let (mut came, mut covered, mut failures) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (name, answer) in join_all(asking).await {
            match answer {
                Ok((answer, logs)) => {
                    came.push(answer);
                    covered.extend(logs);
                }
                Err(status) => drop(failures.insert(name.as_str(), status)),
            }
        }
        let covered: Vec<&str> = covered.iter().map(String::as_str).collect();
        let mut failed = Vec::new();
        for (log, holder) in unanswered(&plan.logs.listed, &covered) {
            let status = failures.get(holder.ingester.as_str()).cloned();
            let status = status.unwrap_or_else(|| Status::unavailable("no ingester answers for it"));
            failed.push((format!("log {log} of {}", holder.ingester), status));
        }
        let is_named = |name: &str| plan.logs.listed.values().any(|holder| holder.ingester == name);
        let others = failures.into_iter().filter(|(name, _)| !is_named(name));
        failed.extend(others.map(|(name, status)| (name.to_owned(), status)));
        (came, failed)
    }

    fn plan(&self) -> Plan {
        let (members, logs) = (self.members(Role::Ingester), self.logs());
        let (members, logs) = (members.borrow().members.clone(), logs.borrow().clone());
        let holders = logs.listed.values().map(|holder| (holder.address.clone(), holder.ingester.clone()));
        let members = members.iter().map(|member| (member.address.clone(), member.name.clone()));
        Plan { asked: holders.chain(members).collect(), logs }
    }

    /// Waits a moment for the lists to become others than those of a plan.
    async fn is_replaced(&self, plan: &Plan) -> bool {
        let (mut members, mut logs) = (self.members(Role::Ingester), self.logs());
        let replaced = async {
            while self.plan() == *plan {
                tokio::select! {
                    Ok(()) = members.changed() => {}
                    Ok(()) = logs.changed() => {}
                    else => return std::future::pending().await,
                }
            }
        };
        tokio::time::timeout(REPLAN_WAIT, replaced).await.is_ok()
    }
}

/// Whether a failure is one of the peer or the way to it, not of the request.
fn is_passing(status: &Status) -> bool {
    rpc::status::kind(status).is_retryable()
}

/// Returns when a peer does not even answer a probe. However long an answer takes, a peer that lives is waited for.
async fn silence(channel: Channel) {
    loop {
        tokio::time::sleep(PATIENCE).await;
        if !lives(channel.clone(), PATIENCE).await {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
