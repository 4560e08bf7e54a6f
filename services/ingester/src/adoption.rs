//! Takes over logs in the object store whose ingesters are gone.
//!
//! Whose a log is stands in the log itself, so that what an ingester left is found whatever coordination has forgotten.
//! One of the ingesters that live is first in line for each log, and the others follow after a while; two that do it at
//! once do no harm.
//!
//! Invariants:
//! - a log is taken over only when its ingester has no lease, or coordination is away, and probes of it fail;
//! - a log that an ingester of this name left, under whatever address, is its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coordination::membership::{self, Roster};
use coordination::{Coordinator, Role, placement};
use service_runtime::Peers;
use tokio::sync::watch;
use tokio::time::Instant;
use tsdb::{LogOwner, ObjectLogs, Storage};

/// Time between two looks at which logs there are.
const INTERVAL: Duration = Duration::from_secs(2);
/// How many probes in a row must fail: one may under load.
const PROBES_FAILED_MAX: u32 = 2;
/// How long the next in line waits for the one before.
const TURN: Duration = Duration::from_secs(20);
/// How long after a failure a log is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Looks for logs to take over.
#[derive(Debug)]
pub(crate) struct Adoption {
    logs: Arc<ObjectLogs>,
    coordinator: Arc<dyn Coordinator>,
    peers: Peers,
    members: watch::Receiver<Roster>,
    seen: BTreeMap<String, Seen>,
}

/// A log of another.
#[derive(Debug)]
struct Seen {
    owner: LogOwner,
    probes_failed: u32,
    orphaned: Option<Instant>,
    next_try: Instant,
}

/// Who has a lease.
enum Leases {
    Known(Roster),
    /// Coordination is away; the list is that of the last time.
    Unknown(Roster),
}

impl Leases {
    const fn roster(&self) -> &Roster {
        match self {
            Self::Known(roster) | Self::Unknown(roster) => roster,
        }
    }
}

impl Adoption {
    pub(crate) fn new(logs: Arc<ObjectLogs>, coordinator: Arc<dyn Coordinator>, peers: Peers) -> Self {
        let members = peers.members(Role::Ingester);
        Self { logs, coordinator, peers, members, seen: BTreeMap::new() }
    }

    /// Takes over what falls to this ingester; never returns. May be dropped at any time.
    pub(crate) async fn keep(&mut self, storage: &Storage) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            if let Err(error) = self.look(storage).await {
                tracing::warn!(%error, "logs of others are looked at later");
            }
        }
    }

    async fn look(&mut self, storage: &Storage) -> tsdb::Result<()> {
        let names = self.logs.list().await?;
        self.seen.retain(|log, _| names.binary_search(log).is_ok());
        let settled = storage.drained_logs();
        let is_other = |log: &&String| {
            ***log != **storage.log() && !self.logs.is_spare(log) && !settled.iter().any(|s| **s == ***log)
        };
        let others: Vec<String> = names.iter().filter(is_other).cloned().collect();
        if others.is_empty() {
            return Ok(());
        }
        let leases = self.leases().await;
        for log in others {
            if !self.seen.contains_key(&log) {
                // Without a birth record it is being removed.
                let Some(owner) = self.logs.owner_of(&log).await? else { continue };
                let (orphaned, next_try) = (None, Instant::now());
                self.seen.insert(log.clone(), Seen { owner, probes_failed: 0, orphaned, next_try });
            }
            let Some(seen) = self.seen.get_mut(&log) else { continue };
            let is_alive = is_alive(&self.peers, &seen.owner, self.logs.owner(), &leases).await;
            seen.probes_failed = if is_alive { 0 } else { seen.probes_failed + 1 };
            if seen.probes_failed < PROBES_FAILED_MAX {
                seen.orphaned = None;
                continue;
            }
            let now = Instant::now();
            let waits = TURN * turn(&log, self.logs.owner(), leases.roster());
            let orphaned = *seen.orphaned.get_or_insert(now);
            if now < (orphaned + waits).max(seen.next_try) {
                continue;
            }
            match storage.adopt(&self.logs, &log).await {
                Ok(_) => drop(self.seen.remove(&log)),
                Err(error) => {
                    seen.next_try = now + RETRY;
                    tracing::error!(%error, %log, owner = seen.owner.ingester, "a log cannot be taken over yet");
                }
            }
        }
        Ok(())
    }

    async fn leases(&self) -> Leases {
        match membership::list(&*self.coordinator, Role::Ingester).await {
            Ok(roster) => Leases::Known(roster),
            Err(_) => Leases::Unknown(self.members.borrow().clone()),
        }
    }
}

/// Says whether the writer of a log may live.
async fn is_alive(peers: &Peers, owner: &LogOwner, own: &LogOwner, leases: &Leases) -> bool {
    if owner.ingester == own.ingester {
        // An earlier life of this very ingester.
        return false;
    }
    if let Leases::Known(roster) = leases {
        if roster.members.iter().any(|member| member.name == owner.ingester) {
            return true;
        }
        if roster.members.iter().any(|member| member.address == owner.address) {
            // Somebody else answers there by now.
            return false;
        }
    }
    peers.lives(&owner.address).await
}

/// This ingester's place in line for a log.
fn turn(log: &str, own: &LogOwner, roster: &Roster) -> u32 {
    let ranked = placement::workers(log.as_bytes(), &roster.members);
    let place = ranked.iter().position(|index| roster.members[*index].name == own.ingester);
    u32::try_from(place.unwrap_or(ranked.len())).unwrap_or(u32::MAX).min(MEMBERS_BEFORE_MAX)
}

/// Nobody waits for more than so many others.
const MEMBERS_BEFORE_MAX: u32 = 16;

#[cfg(test)]
mod tests {
    use coordination::Member;

    use super::*;

    fn owner(number: u32) -> LogOwner {
        LogOwner { ingester: format!("ingester-{number}"), address: format!("127.0.0.1:{number}") }
    }

    fn roster(numbers: &[u32]) -> Roster {
        let member = |n: &u32| Member::new(*n, owner(*n).ingester, owner(*n).address);
        Roster { members: numbers.iter().map(member).collect(), revision: coordination::Revision(1) }
    }

    #[test]
    fn every_ingester_has_a_turn_of_its_own_for_each_log() {
        let roster = roster(&[0, 1, 2]);
        let mut first = BTreeMap::new();
        for log in 0..60 {
            let log = format!("01LOG{log}");
            let turns: Vec<u32> = (0..3).map(|n| turn(&log, &owner(n), &roster)).collect();
            let mut sorted = turns.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2], "{log}: {turns:?}");
            *first.entry(turns.iter().position(|t| *t == 0)).or_insert(0) += 1;
            assert_eq!(turn(&log, &owner(7), &roster), 3, "one that is not listed comes last");
        }
        assert!(first.len() == 3 && first.values().all(|count| *count > 5), "{first:?}");
    }

    #[tokio::test]
    async fn a_writer_lives_by_its_lease_and_dies_only_when_probes_say_so_too() {
        let environment = service_runtime::Environment::alone(
            Role::Ingester,
            model::Clock::System,
            Arc::new(coordination::InMemory::new()),
        );
        let peers = &environment.peers;
        let (known, unknown) = (Leases::Known(roster(&[0, 1])), Leases::Unknown(roster(&[0, 1])));
        // Nothing listens at these addresses.
        assert!(is_alive(peers, &owner(1), &owner(0), &known).await, "it has a lease");
        assert!(!is_alive(peers, &owner(1), &owner(0), &unknown).await, "etcd is away and it is silent");
        assert!(!is_alive(peers, &owner(2), &owner(0), &known).await, "no lease, and silent");
        assert!(!is_alive(peers, &owner(0), &owner(0), &known).await, "an earlier life");
        let listener = rpc_listener().await;
        let speaking = LogOwner { ingester: "gone".to_owned(), address: listener.clone() };
        assert!(is_alive(peers, &speaking, &owner(0), &known).await, "no lease, but it answers");
        assert!(is_alive(peers, &speaking, &owner(0), &unknown).await);
        let reused = Roster {
            members: [Member::new(3, "another", listener)].into(),
            revision: coordination::Revision(2),
        };
        assert!(!is_alive(peers, &speaking, &owner(0), &Leases::Known(reused)).await, "another answers");
    }

    /// An address at which health is answered.
    async fn rpc_listener() -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let (_, health) = tonic_health::server::health_reporter();
        let router = tonic::service::Routes::new(health).into_axum_router();
        tokio::runtime::Handle::current().spawn(async move {
            drop(axum::serve(listener, router).await);
        });
        address
    }
}
