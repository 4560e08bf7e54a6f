//! Keeps a list of members up to date, through the loss of etcd and of its leases.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, info, warn};

use super::census::Census;
use super::{Member, Role, Roster, known_key, prefix};
use crate::Error;
use crate::coordinator::{Coordinator, Expect, Revision, Swap};
use crate::news::{self, News};

/// How long the coordinator may take to answer for the first time before the fallback is used.
const FALLBACK_AFTER: Duration = Duration::from_secs(1);
/// How often doubts are looked at.
const TICK: Duration = Duration::from_millis(500);

/// Asks a member directly whether it lives. Answers within a few seconds, whatever the member does.
pub type Probe = Arc<dyn Fn(&Member) -> BoxFuture<'static, bool> + Send + Sync>;

/// Follows the members of a role.
pub struct Follow {
    /// Where members are listed.
    pub coordinator: Arc<dyn Coordinator>,
    /// Whose members.
    pub role: Role,
    /// Asks members whose lease is gone.
    pub probe: Probe,
    /// Who is taken for a member for as long as the coordinator has never answered.
    pub fallback: Vec<Member>,
}

impl std::fmt::Debug for Follow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follow").field("role", &self.role).finish_non_exhaustive()
    }
}

impl Follow {
    /// Keeps `roster` up to date until nobody listens any more. While the coordinator is away the last known state
    /// stands, but for members in doubt that do not answer.
    pub async fn run(self, roster: watch::Sender<Roster>) {
        tokio::select! {
            () = roster.closed() => {}
            never = self.follow(&roster) => match never {},
        }
    }

    async fn follow(&self, roster: &watch::Sender<Roster>) -> Infallible {
        let mut news = news::follow(&self.coordinator, prefix(self.role), Duration::ZERO);
        let mut census = Census::new(self.role);
        let (mut listed, mut has_told, mut is_failing) = (None, false, false);
        let mut probes = FuturesUnordered::new();
        let began = Instant::now();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(heard) = news.next() => {
                    let now = Instant::now();
                    let taken = match heard {
                        News::Listed(snapshot) => census.listed(&snapshot, now).map(|()| snapshot.revision),
                        News::Changed(event) => census.changed(&event, now).map(|()| event.revision),
                        News::Failed(error) => Err(error),
                    };
                    match taken {
                        Ok(revision) => (listed, is_failing) = (Some(revision), false),
                        Err(error) => {
                            if matches!(error, Error::Unreadable { .. }) {
                                // What the list lacks of it would be missed for ever.
                                news = news::follow(&self.coordinator, prefix(self.role), news::BACKOFF_MAX);
                            }
                            self.note(&error, std::mem::replace(&mut is_failing, true));
                        }
                    }
                }
                Some((member, is_alive)) = probes.next() => census.probed(&member, is_alive, Instant::now()),
                _ = tick.tick() => {}
            }
            let now = Instant::now();
            census.passed(now);
            for member in census.take_due_probes(now) {
                let probe = (self.probe)(&member);
                probes.push(async move { (member, probe.await) });
            }
            for (number, known) in census.take_forgotten(now) {
                self.forget(number, known).await;
            }
            // The first list is told when it is complete: who joins it a moment later moves what was placed.
            if let Some(revision) = listed
                && (has_told || census.is_judged())
            {
                has_told = true;
                tell(roster, census.members(), revision);
            } else if listed.is_none() && now.duration_since(began) >= FALLBACK_AFTER {
                tell(roster, self.fallback.clone(), Revision(0));
            }
        }
    }

    fn note(&self, error: &Error, is_told: bool) {
        let role = self.role;
        match error {
            Error::Compacted { .. } => debug!(%role, %error, "members are listed anew"),
            // The coordinator itself says when it is away, once for all that needs it.
            Error::Unreachable { .. } => debug!(%role, %error, "member list may be out of date"),
            _ if is_told => debug!(%role, %error, "member list may still be out of date"),
            _ => warn!(%role, %error, "member list may be out of date"),
        }
    }

    /// Gives up the number of a member that is gone, unless it has come back meanwhile.
    async fn forget(&self, number: u32, known: Revision) {
        let key = known_key(self.role, number);
        match self.coordinator.delete(&key, Expect::Unchanged(known)).await {
            Ok(Swap::Done(_)) => info!(role = %self.role, member = number, "forgot a member that is gone"),
            Ok(Swap::Conflict(_)) => {}
            Err(error) => debug!(role = %self.role, member = number, %error, "a member is forgotten later"),
        }
    }
}

fn tell(roster: &watch::Sender<Roster>, members: Vec<Member>, revision: Revision) {
    roster.send_if_modified(|told| {
        let is_news = *told.members != *members;
        if is_news {
            told.members = members.into();
        }
        told.revision = revision;
        is_news
    });
}
