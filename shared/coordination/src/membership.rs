//! Who is there: a numbered list of the members of each role.
//!
//! A member writes two keys. `members/<role>/known/<number>` says who has the number and stays when the member crashes
//! or etcd loses its leases; `members/<role>/live/<number>` is kept by a lease. Who leaves in order deletes the first;
//! who only loses the lease is in doubt, and `follow` asks the member itself.
//!
//! Its number is what placement counts with: a member gets its number back whatever happened to it or to its lease,
//! as long as it did not leave.
//!
//! Invariants:
//! - a number has one holder at a time (create if absent, or swap of one's own earlier entry);
//! - a name is unique within a role: whoever registers a name takes over the number of its earlier life;
//! - a [`Roster`] is sorted by number.

mod census;
mod follow;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::coordinator::{Coordinator, Expect, Lease, Revision, Swap};
use crate::{Error, Result};
use census::Census;
pub use follow::{Follow, Probe};

/// How many members a role may have.
pub const MEMBERS_MAX: u32 = 10_000;
/// How often a member tries another number when somebody else took the one it wanted.
const ATTEMPTS_MAX: u32 = 64;
/// How often a lease is kept alive within its time.
const KEEP_ALIVES_PER_TTL: u32 = 3;
/// How long to wait before joining is tried again.
const JOIN_RETRY: Duration = Duration::from_secs(1);

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

/// What is stored of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    member: Member,
    /// Whether somebody named the member by hand: then no lease speaks for it, and none is missed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    given: bool,
}

/// Reads the members of a role as their leases have them now.
///
/// # Errors
/// Those of the coordinator; [`Error::Unreadable`].
pub async fn list(coordinator: &dyn Coordinator, role: Role) -> Result<Roster> {
    let snapshot = coordinator.list(&prefix(role)).await?;
    let mut census = Census::new(role);
    census.listed(&snapshot, tokio::time::Instant::now())?;
    Ok(Roster { members: census.certain().into(), revision: snapshot.revision })
}

/// A member's place in the list, taken and kept while [`Membership::keep`] runs.
#[derive(Debug)]
pub struct Membership {
    coordinator: Arc<dyn Coordinator>,
    role: Role,
    /// As it was last listed, or as it wants to be.
    member: Member,
    ttl: Duration,
    seat: Option<Seat>,
    joined: watch::Sender<Option<Member>>,
}

/// What a member holds while it is listed.
#[derive(Debug, Clone, Copy)]
struct Seat {
    lease: Lease,
    /// Of the key that says who has the number.
    known: Revision,
}

impl Membership {
    /// Prepares a membership. Nobody sees the member before [`Membership::keep`] has joined.
    #[must_use]
    pub fn new(
        coordinator: Arc<dyn Coordinator>,
        role: Role,
        name: &str,
        address: &str,
        ttl: Duration,
    ) -> Self {
        let (member, joined) = (Member::new(0, name, address), watch::Sender::new(None));
        Self { coordinator, role, member, ttl, seat: None, joined }
    }

    /// Joins the members of a role: takes over the number of an earlier life under this name, or else the lowest
    /// free one. Others see the member from now on, for `ttl` unless it is kept.
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
        let mut membership = Self::new(coordinator, role, name, address, ttl);
        membership.take_seat().await?;
        Ok(membership)
    }

    /// The member as others see it, or, before it has joined, as it wants to be seen.
    #[must_use]
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// Tells when the member has joined, and with which number.
    #[must_use]
    pub fn joined(&self) -> watch::Receiver<Option<Member>> {
        self.joined.subscribe()
    }

    /// Joins, and keeps the membership; never returns. When the lease was lost all the same, joins anew under the same
    /// number. Failures are tried again for ever. May be dropped at any time.
    pub async fn keep(&mut self) -> std::convert::Infallible {
        let mut is_told = false;
        loop {
            let step = match self.seat {
                None => self.take_seat().await,
                Some(seat) => {
                    tokio::time::sleep(self.ttl / KEEP_ALIVES_PER_TTL).await;
                    self.coordinator.keep_alive(seat.lease).await
                }
            };
            let error = match step {
                Ok(()) => {
                    is_told = false;
                    continue;
                }
                Err(Error::LeaseGone { lease }) => {
                    info!(role = %self.role, member = self.member.number, %lease, "lost the lease, joining anew");
                    self.seat = None;
                    continue;
                }
                Err(error) => error,
            };
            // The coordinator itself says when it is away, once for all that needs it.
            if is_told || matches!(error, Error::Unreachable { .. }) {
                debug!(role = %self.role, name = self.member.name, %error, "still not a member");
            } else {
                warn!(role = %self.role, name = self.member.name, %error, "membership is tried again");
                is_told = true;
            }
            if self.seat.is_none() {
                tokio::time::sleep(JOIN_RETRY).await;
            }
        }
    }

    /// Leaves the list at once: who follows it sees that this was meant.
    ///
    /// # Errors
    /// Those of the coordinator; the lease then ends by itself, and the member is missed for a while.
    pub async fn leave(self) -> Result<()> {
        let Some(seat) = self.seat else { return Ok(()) };
        // A conflict is a later life under this name, which stays.
        let known = known_key(self.role, self.member.number);
        self.coordinator.delete(&known, Expect::Unchanged(seat.known)).await?;
        self.coordinator.revoke(seat.lease).await
    }

    async fn take_seat(&mut self) -> Result<()> {
        let lease = self.coordinator.grant(self.ttl).await?;
        match self.sit_down(lease).await {
            Ok(()) => {
                let Member { number, name, address } = &self.member;
                info!(role = %self.role, member = number, name, address, "joined the members");
                let told = Some(self.member.clone());
                self.joined.send_if_modified(|before| std::mem::replace(before, told.clone()) != told);
                Ok(())
            }
            Err(error) => {
                if let Err(left) = self.coordinator.revoke(lease).await {
                    debug!(%lease, error = %left, "lease is left to end by itself");
                }
                Err(error)
            }
        }
    }

    async fn sit_down(&mut self, lease: Lease) -> Result<()> {
        let record = Record { member: self.member.clone(), given: false };
        let (member, known) = claim(&*self.coordinator, self.role, record).await?;
        let key = live_key(self.role, member.number);
        let value = Bytes::from(member.name.clone());
        self.coordinator.put(&key, value, Expect::Anything, Some(lease)).await?;
        self.member = member;
        self.seat = Some(Seat { lease, known });
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
    let record = Record { member: Member::new(0, name, address), given: true };
    Ok(claim(coordinator, role, record).await?.0)
}

/// Claims a number: that of the same name, else the wanted one if nobody is known by it, else the lowest free.
///
/// The key is written anew even when nothing in it changes: whoever wants to forget a member that is gone deletes the
/// key of the revision he has seen, and so misses one that has come back.
async fn claim(coordinator: &dyn Coordinator, role: Role, wanted: Record) -> Result<(Member, Revision)> {
    let prefix = format!("{}{KNOWN}", prefix(role));
    for _ in 0..ATTEMPTS_MAX {
        let snapshot = coordinator.list(&prefix).await?;
        let (mut own, mut taken) = (None, BTreeSet::new());
        for entry in &snapshot.entries {
            let number = parse_number(&prefix, &entry.key)?;
            taken.insert(number);
            if parse_record(number, &entry.key, &entry.value)?.member.name == wanted.member.name {
                own = Some((number, Expect::Unchanged(entry.revision)));
            }
        }
        let (number, expect) = match own {
            Some(own) => own,
            None => (free_number(&taken, wanted.member.number)?, Expect::Absent),
        };
        let key = known_key(role, number);
        let value = serde_json::to_vec(&wanted)
            .map_err(|error| Error::Unreadable { key: key.clone(), cause: error.to_string() })?;
        if let Swap::Done(revision) = coordinator.put(&key, Bytes::from(value), expect, None).await? {
            return Ok((Member { number, ..wanted.member }, revision));
        }
    }
    Err(Error::Contended { key: prefix, attempts: ATTEMPTS_MAX })
}

fn free_number(taken: &BTreeSet<u32>, wanted: u32) -> Result<u32> {
    std::iter::once(wanted)
        .chain(0..MEMBERS_MAX)
        .find(|number| *number < MEMBERS_MAX && !taken.contains(number))
        .ok_or(Error::Full { what: "number of members", limit: MEMBERS_MAX as usize })
}

/// What follows on a role's prefix: who has a number, and whether he lives.
const KNOWN: &str = "known/";
const LIVE: &str = "live/";

fn prefix(role: Role) -> String {
    format!("members/{role}/")
}

fn known_key(role: Role, number: u32) -> String {
    format!("members/{role}/{KNOWN}{number:05}")
}

fn live_key(role: Role, number: u32) -> String {
    format!("members/{role}/{LIVE}{number:05}")
}

fn parse_number(prefix: &str, key: &str) -> Result<u32> {
    let number = key.strip_prefix(prefix).and_then(|number| number.parse().ok());
    number.ok_or_else(|| Error::Unreadable { key: key.to_owned(), cause: format!("want {prefix}<number>") })
}

fn parse_record(number: u32, key: &str, value: &[u8]) -> Result<Record> {
    let mut record: Record = serde_json::from_slice(value)
        .map_err(|error| Error::Unreadable { key: key.to_owned(), cause: error.to_string() })?;
    record.member.number = number;
    Ok(record)
}

#[cfg(test)]
mod tests;
