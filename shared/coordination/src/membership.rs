//! Who is there: a numbered list of the members of each role.
//!
//! A member holds the key `members/<role>/<number>` under a lease. Its number is what placement counts with, so a
//! member that comes back under its name gets its old number when that is still free or still its own.
//!
//! Invariants:
//! - a number has one holder at a time (create if absent, or swap of one's own earlier entry);
//! - a name is unique within a role: whoever registers a name takes over the entry of its earlier life;
//! - a [`Roster`] is sorted by number.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::coordinator::{Change, Coordinator, Event, Expect, Lease, Revision, Snapshot, Swap};
use crate::{Error, Result};

/// How many members a role may have.
pub const MEMBERS_MAX: u32 = 10_000;
/// How often a member tries another number when somebody else took the one it wanted.
const ATTEMPTS_MAX: u32 = 64;
/// How often a lease is kept alive within its time.
const KEEP_ALIVES_PER_TTL: u32 = 3;
/// How long [`follow`] waits after a failure, at first and at most.
const FOLLOW_BACKOFF_MIN: Duration = Duration::from_millis(100);
const FOLLOW_BACKOFF_MAX: Duration = Duration::from_secs(5);

/// What a member does; a process may be a member of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Finds targets and assigns them.
    Discovery,
    /// Scrapes its share of the targets.
    Scraper,
    /// Takes appends and owns storage.
    Ingester,
    /// Evaluates queries and rules.
    Querier,
    /// The edge: HTTP API and federation.
    Gateway,
}

impl Role {
    /// All roles, in the order in which one process starts them.
    pub const ALL: [Self; 5] = [Self::Discovery, Self::Ingester, Self::Querier, Self::Gateway, Self::Scraper];

    /// The role's name in keys, flags, metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Discovery => "discovery",
            Self::Scraper => "scraper",
            Self::Ingester => "ingester",
            Self::Querier => "querier",
            Self::Gateway => "gateway",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| {
            format!("unknown role {text:?}: want one of {}", Self::ALL.map(Self::as_str).join(", "))
        })
    }
}

/// One member of a role.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Its number, small and unique within the role; placement counts with it.
    #[serde(skip)]
    pub number: u32,
    /// Its name, the same after a restart (a pod's name, a host's).
    pub name: String,
    /// Where others reach it.
    pub address: String,
}

impl Member {
    /// Puts a member together.
    #[must_use]
    pub fn new(number: u32, name: impl Into<String>, address: impl Into<String>) -> Self {
        Self { number, name: name.into(), address: address.into() }
    }
}

/// The members of a role as of a revision. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roster {
    /// The members, sorted by number.
    pub members: Arc<[Member]>,
    /// The point in history this reflects; zero before anything was heard.
    pub revision: Revision,
}

impl Roster {
    /// Reads a listing of a role's keys.
    ///
    /// # Errors
    /// [`Error::Unreadable`] when a key or value is not what a member writes.
    pub fn from_snapshot(role: Role, snapshot: &Snapshot) -> Result<Self> {
        let parse = |entry: &crate::Entry| parse_member(role, &entry.key, &entry.value);
        let mut members = snapshot.entries.iter().map(parse).collect::<Result<Vec<_>>>()?;
        members.sort_by_key(|member| member.number);
        Ok(Self { members: members.into(), revision: snapshot.revision })
    }

    /// The roster after a change of one of the role's keys.
    ///
    /// # Errors
    /// [`Error::Unreadable`].
    pub fn after(&self, role: Role, event: &Event) -> Result<Self> {
        let number = parse_number(role, &event.key)?;
        let mut members: Vec<Member> = self.members.iter().filter(|m| m.number != number).cloned().collect();
        if let Change::Put { value, .. } = &event.change {
            let place = members.partition_point(|member| member.number < number);
            members.insert(place, parse_member(role, &event.key, value)?);
        }
        Ok(Self { members: members.into(), revision: event.revision })
    }
}

/// Reads the members of a role as they are now.
///
/// # Errors
/// Those of the coordinator; [`Error::Unreadable`].
pub async fn list(coordinator: &dyn Coordinator, role: Role) -> Result<Roster> {
    Roster::from_snapshot(role, &coordinator.list(&prefix(role)).await?)
}

/// Keeps `roster` up to date until nobody listens any more. Failures are logged and tried again with back-off;
/// meanwhile the last known state stands.
pub async fn follow(coordinator: Arc<dyn Coordinator>, role: Role, roster: watch::Sender<Roster>) {
    let mut backoff = FOLLOW_BACKOFF_MIN;
    loop {
        let failure = tokio::select! {
            () = roster.closed() => return,
            failure = follow_once(&*coordinator, role, &roster, &mut backoff) => failure,
        };
        // A watch that fell behind is no trouble: the list that follows makes up for it.
        if !matches!(failure, Error::Compacted { .. }) {
            warn!(%role, error = %failure, "member list may be out of date");
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(FOLLOW_BACKOFF_MAX);
    }
}

async fn follow_once(
    coordinator: &dyn Coordinator,
    role: Role,
    roster: &watch::Sender<Roster>,
    backoff: &mut Duration,
) -> Error {
    let mut current = match list(coordinator, role).await {
        Ok(listed) => listed,
        Err(error) => return error,
    };
    let mut events = coordinator.watch(&prefix(role), current.revision);
    *backoff = FOLLOW_BACKOFF_MIN;
    loop {
        roster.send_if_modified(|told| {
            let is_news = told.members != current.members;
            *told = current.clone();
            is_news
        });
        let next = match events.next().await {
            Some(Ok(event)) => current.after(role, &event),
            Some(Err(error)) => Err(error),
            None => Err(Error::Unreachable { cause: "the watch ended".to_owned() }),
        };
        match next {
            Ok(next) => current = next,
            Err(error) => return error,
        }
    }
}

/// A member's place in the list, kept while [`Membership::keep`] runs.
#[derive(Debug)]
pub struct Membership {
    coordinator: Arc<dyn Coordinator>,
    role: Role,
    member: Member,
    lease: Lease,
    ttl: Duration,
}

impl Membership {
    /// Joins the members of a role: takes over the entry of an earlier life under this name, or else the lowest
    /// free number. Others see the member from now on, for `ttl` unless it is kept.
    ///
    /// # Errors
    /// Those of the coordinator; [`Error::Full`] with [`MEMBERS_MAX`] members; [`Error::Contended`].
    pub async fn join(
        coordinator: Arc<dyn Coordinator>,
        role: Role,
        name: &str,
        address: &str,
        ttl: Duration,
    ) -> Result<Self> {
        let wanted = Member::new(0, name, address);
        let (member, lease) = register(&*coordinator, role, wanted, ttl).await?;
        Ok(Self { coordinator, role, member, lease, ttl })
    }

    /// The member as others see it.
    #[must_use]
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// Keeps the membership; never returns. When the lease was lost all the same, joins anew, maybe under another
    /// number. Failures are logged and tried again. May be dropped at any time.
    pub async fn keep(&mut self) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(self.ttl / KEEP_ALIVES_PER_TTL).await;
            let kept = match self.coordinator.keep_alive(self.lease).await {
                Err(Error::LeaseGone { .. }) => self.rejoin().await,
                other => other,
            };
            if let Err(error) = kept {
                warn!(role = %self.role, member = self.member.number, %error, "membership was not renewed");
            }
        }
    }

    /// Leaves the list at once.
    ///
    /// # Errors
    /// Those of the coordinator; the lease then ends by itself.
    pub async fn leave(self) -> Result<()> {
        self.coordinator.revoke(self.lease).await
    }

    async fn rejoin(&mut self) -> Result<()> {
        let (member, lease) = register(&*self.coordinator, self.role, self.member.clone(), self.ttl).await?;
        info!(role = %self.role, was = self.member.number, member = member.number, "joined anew after losing the lease");
        (self.member, self.lease) = (member, lease);
        Ok(())
    }
}

/// Writes a member without a lease: part of a list that was given by hand rather than observed.
///
/// # Errors
/// As [`Membership::join`].
pub async fn add_static(
    coordinator: &dyn Coordinator,
    role: Role,
    name: &str,
    address: &str,
) -> Result<Member> {
    claim(coordinator, role, Member::new(0, name, address), None).await
}

async fn register(
    coordinator: &dyn Coordinator,
    role: Role,
    wanted: Member,
    ttl: Duration,
) -> Result<(Member, Lease)> {
    let lease = coordinator.grant(ttl).await?;
    match claim(coordinator, role, wanted, Some(lease)).await {
        Ok(member) => Ok((member, lease)),
        Err(error) => {
            if let Err(left) = coordinator.revoke(lease).await {
                warn!(%lease, error = %left, "lease is left to end by itself");
            }
            Err(error)
        }
    }
}

/// Claims a number: that of the same name, else the wanted one if it is free, else the lowest free.
async fn claim(
    coordinator: &dyn Coordinator,
    role: Role,
    wanted: Member,
    lease: Option<Lease>,
) -> Result<Member> {
    for _ in 0..ATTEMPTS_MAX {
        let snapshot = coordinator.list(&prefix(role)).await?;
        let roster = Roster::from_snapshot(role, &snapshot)?;
        let own = roster.members.iter().find(|member| member.name == wanted.name);
        let (number, expect) = match own {
            Some(own) => {
                let key = key(role, own.number);
                let entry = snapshot.entries.iter().find(|entry| entry.key == key);
                (own.number, entry.map_or(Expect::Absent, |entry| Expect::Unchanged(entry.revision)))
            }
            None => (free_number(&roster, wanted.number)?, Expect::Absent),
        };
        let member = Member { number, ..wanted.clone() };
        let key = key(role, number);
        let value = serde_json::to_vec(&member)
            .map_err(|error| Error::Unreadable { key: key.clone(), cause: error.to_string() })?;
        if let Swap::Done(_) = coordinator.put(&key, Bytes::from(value), expect, lease).await? {
            return Ok(member);
        }
    }
    Err(Error::Contended { key: prefix(role), attempts: ATTEMPTS_MAX })
}

fn free_number(roster: &Roster, wanted: u32) -> Result<u32> {
    let taken: BTreeSet<u32> = roster.members.iter().map(|member| member.number).collect();
    std::iter::once(wanted)
        .chain(0..MEMBERS_MAX)
        .find(|number| *number < MEMBERS_MAX && !taken.contains(number))
        .ok_or(Error::Full { what: "number of members", limit: MEMBERS_MAX as usize })
}

fn prefix(role: Role) -> String {
    format!("members/{role}/")
}

fn key(role: Role, number: u32) -> String {
    format!("members/{role}/{number:05}")
}

fn parse_number(role: Role, key: &str) -> Result<u32> {
    let number = key.strip_prefix(&prefix(role)).and_then(|number| number.parse().ok());
    number.ok_or_else(|| Error::Unreadable {
        key: key.to_owned(),
        cause: "want members/<role>/<number>".to_owned(),
    })
}

fn parse_member(role: Role, key: &str, value: &[u8]) -> Result<Member> {
    let number = parse_number(role, key)?;
    let member: Member = serde_json::from_slice(value)
        .map_err(|error| Error::Unreadable { key: key.to_owned(), cause: error.to_string() })?;
    Ok(Member { number, ..member })
}

#[cfg(test)]
mod tests;
