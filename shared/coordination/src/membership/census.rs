//! What a follower makes of what it is told about members. Pure: events, verdicts and the time come in, a list of
//! members and of questions comes out.
//!
//! A member is listed while its lease lives. When the lease is gone but the member has not left, it is in doubt, and
//! stays listed until probes of it fail. A lease that ran out says little by itself: etcd may have lost it, and with it
//! those of many others.
//!
//! Invariants:
//! - a member that leaves in order is gone at once; one in doubt is dropped after [`PROBES_FAILED_MAX`] failed probes in
//!   a row, and not before unless it is expired;
//! - a member whose doubt lasts [`DOUBT_MAX`] is expired, and dropped although something at its address answers: had it
//!   lived, it would have joined anew. That clock stands still while most members are in doubt, since then the fault is
//!   etcd's;
//! - members given by hand are never in doubt.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::{KNOWN, LIVE, Member, Role, parse_number, parse_record, prefix};
use crate::coordinator::{Change, Event, Revision, Snapshot};
use crate::{Error, Result};

/// How often a member in doubt is probed.
pub(super) const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// How many probes in a row must fail before a member is dropped: one may fail under load.
pub(super) const PROBES_FAILED_MAX: u32 = 2;
/// How long a member may be in doubt while most others are not.
pub(super) const DOUBT_MAX: Duration = Duration::from_secs(60);
/// How long a member must have been gone before its number is given up.
pub(super) const FORGET_AFTER: Duration = Duration::from_secs(3600);

/// All members that are known of a role.
#[derive(Debug)]
pub(super) struct Census {
    role: Role,
    places: BTreeMap<u32, Place>,
}

#[derive(Debug)]
struct Place {
    member: Member,
    /// The revision of the key that says so; none when a new list lacks the key.
    known: Option<Revision>,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Named by hand.
    Given,
    /// Its lease lives.
    Live,
    Doubted(Doubt),
}

/// What is known of a member without a lease.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    /// When the doubt arose, or most members were last in doubt.
    since: Instant,
    /// Whether it stays listed.
    is_listed: bool,
    /// Whether a probe has said anything.
    is_judged: bool,
    /// Probes that failed in a row.
    failed: u32,
    is_expired: bool,
    /// Since when it is not listed.
    gone: Option<Instant>,
    next_probe: Instant,
}

impl Doubt {
    /// In doubt from now on.
    const fn new(is_listed: bool, now: Instant) -> Self {
        let gone = if is_listed { None } else { Some(now) };
        let (is_judged, failed, is_expired) = (false, 0, false);
        Self { since: now, is_listed, is_judged, failed, is_expired, gone, next_probe: now }
    }

    /// Whether it counts as a member that may live.
    const fn is_open(&self) -> bool {
        !self.is_expired && self.failed < PROBES_FAILED_MAX
    }

    fn drop_from_list(&mut self, now: Instant) {
        self.is_listed = false;
        self.gone.get_or_insert(now);
    }
}

impl Place {
    fn is_listed(&self) -> bool {
        match self.state {
            State::Given | State::Live => true,
            State::Doubted(doubt) => doubt.is_listed,
        }
    }

    fn doubt(&mut self) -> Option<&mut Doubt> {
        match &mut self.state {
            State::Doubted(doubt) => Some(doubt),
            State::Given | State::Live => None,
        }
    }
}

impl Census {
    pub(super) const fn new(role: Role) -> Self {
        Self { role, places: BTreeMap::new() }
    }

    /// Takes a list of all keys of the role. Members that it lacks may have left unseen, or etcd may have lost them: they
    /// are in doubt.
    ///
    /// # Errors
    /// [`Error::Unreadable`].
    pub(super) fn listed(&mut self, snapshot: &Snapshot, now: Instant) -> Result<()> {
        let mut fresh = Self::new(self.role);
        // Known before live, as the keys are sorted.
        for entry in &snapshot.entries {
            fresh.put(&entry.key, &entry.value, entry.revision, now)?;
        }
        for (number, mut before) in std::mem::take(&mut self.places) {
            if matches!(before.state, State::Given) {
                continue;
            }
            let Some(place) = fresh.places.get_mut(&number) else {
                let moved = fresh.places.values().any(|place| place.member.name == before.member.name);
                if before.is_listed() && !moved {
                    before.known = None;
                    if matches!(before.state, State::Live) {
                        before.state = State::Doubted(Doubt::new(true, now));
                    }
                    fresh.places.insert(number, before);
                }
                continue;
            };
            if place.member.name == before.member.name && matches!(place.state, State::Doubted(_)) {
                place.state = match before.state {
                    State::Doubted(doubt) => State::Doubted(doubt),
                    State::Live | State::Given => State::Doubted(Doubt::new(true, now)),
                };
            }
        }
        *self = fresh;
        Ok(())
    }

    /// Takes a change of one of the role's keys.
    ///
    /// # Errors
    /// [`Error::Unreadable`].
    pub(super) fn changed(&mut self, event: &Event, now: Instant) -> Result<()> {
        if let Change::Put { value, .. } = &event.change {
            return self.put(&event.key, value, event.revision, now);
        }
        let (is_known, number) = self.parse_key(&event.key)?;
        if is_known {
            self.places.remove(&number);
        } else if let Some(place) = self.places.get_mut(&number)
            && matches!(place.state, State::Live)
        {
            let (role, name) = (self.role, &place.member.name);
            warn!(%role, member = number, name, "a member's lease is gone, the member is asked itself");
            place.state = State::Doubted(Doubt::new(true, now));
        }
        Ok(())
    }

    fn put(&mut self, key: &str, value: &[u8], revision: Revision, now: Instant) -> Result<()> {
        let (is_known, number) = self.parse_key(key)?;
        if is_known {
            let record = parse_record(number, key, value)?;
            // A name has one number.
            self.places.retain(|other, place| *other == number || place.member.name != record.member.name);
            let before = self.places.remove(&number);
            let kept = before.filter(|before| before.member.name == record.member.name);
            let state = match kept.map(|before| before.state) {
                _ if record.given => State::Given,
                None | Some(State::Given) => State::Doubted(Doubt::new(false, now)),
                Some(state) => state,
            };
            self.places.insert(number, Place { member: record.member, known: Some(revision), state });
        } else if let Some(place) = self.places.get_mut(&number)
            && place.member.name.as_bytes() == value
            && !matches!(place.state, State::Given)
        {
            place.state = State::Live;
        }
        Ok(())
    }

    /// Takes what a probe of a member in doubt has found.
    pub(super) fn probed(&mut self, member: &Member, is_alive: bool, now: Instant) {
        let role = self.role;
        let Some(place) = self.places.get_mut(&member.number).filter(|place| place.member == *member) else {
            return;
        };
        let is_lost = place.known.is_none();
        let Some(doubt) = place.doubt() else { return };
        doubt.is_judged = true;
        doubt.next_probe = now + PROBE_INTERVAL;
        if is_alive {
            doubt.failed = 0;
            if !doubt.is_expired {
                doubt.is_listed = true;
                doubt.gone = None;
            }
            return;
        }
        doubt.failed = doubt.failed.saturating_add(1);
        if doubt.failed >= PROBES_FAILED_MAX {
            if doubt.is_listed {
                info!(%role, member = member.number, name = member.name, "a member without a lease does not answer");
            }
            doubt.drop_from_list(now);
            if is_lost {
                self.places.remove(&member.number);
            }
        }
    }

    /// Drops those whose doubt has lasted too long. To be called now and then.
    pub(super) fn passed(&mut self, now: Instant) {
        let role = self.role;
        let is_etcd_at_fault = self.is_most_in_doubt();
        self.places.retain(|number, place| {
            let (name, is_lost) = (place.member.name.clone(), place.known.is_none());
            let Some(doubt) = place.doubt() else { return true };
            if is_etcd_at_fault {
                doubt.since = now;
            } else if now.duration_since(doubt.since) >= DOUBT_MAX && !doubt.is_expired {
                if doubt.is_listed {
                    info!(%role, member = number, name, "a member has not taken a new lease in time");
                }
                doubt.is_expired = true;
                doubt.drop_from_list(now);
            }
            !(doubt.is_expired && is_lost)
        });
    }

    /// Whether more than half of those that may live are in doubt.
    fn is_most_in_doubt(&self) -> bool {
        let (mut in_doubt, mut all) = (0, 0);
        for place in self.places.values() {
            match place.state {
                State::Given => {}
                State::Live => all += 1,
                State::Doubted(doubt) if doubt.is_open() => {
                    (in_doubt, all) = (in_doubt + 1, all + 1);
                }
                State::Doubted(_) => {}
            }
        }
        in_doubt * 2 > all
    }

    /// Those to be probed now. They are not named again before a verdict or the next interval.
    pub(super) fn take_due_probes(&mut self, now: Instant) -> Vec<Member> {
        let mut due = Vec::new();
        for place in self.places.values_mut() {
            let member = place.member.clone();
            if let Some(doubt) = place.doubt()
                && !doubt.is_expired
                && doubt.next_probe <= now
            {
                doubt.next_probe = now + PROBE_INTERVAL;
                due.push(member);
            }
        }
        due
    }

    /// Those that are gone for so long that their numbers may go to others, with the revision to delete.
    pub(super) fn take_forgotten(&mut self, now: Instant) -> Vec<(u32, Revision)> {
        let mut due = Vec::new();
        for (number, place) in &mut self.places {
            let Some(known) = place.known else { continue };
            let Some(doubt) = place.doubt() else { continue };
            if doubt.gone.is_some_and(|gone| now.duration_since(gone) >= FORGET_AFTER) {
                // Asked for again after as long, should it come to nothing.
                doubt.gone = Some(now);
                due.push((*number, known));
            }
        }
        due
    }

    /// Whether everybody who was found without a lease has been probed.
    pub(super) fn is_judged(&self) -> bool {
        self.places.values().all(|place| match place.state {
            State::Given | State::Live => true,
            State::Doubted(doubt) => doubt.is_judged || doubt.is_listed,
        })
    }

    /// The members to go by, sorted by number.
    pub(super) fn members(&self) -> Vec<Member> {
        self.places.values().filter(|place| place.is_listed()).map(|place| place.member.clone()).collect()
    }

    /// The members that nobody doubts.
    pub(super) fn certain(&self) -> Vec<Member> {
        let is_certain = |place: &&Place| !matches!(place.state, State::Doubted(_));
        self.places.values().filter(is_certain).map(|place| place.member.clone()).collect()
    }

    fn parse_key(&self, key: &str) -> Result<(bool, u32)> {
        let prefix = prefix(self.role);
        let rest = key.strip_prefix(&prefix).unwrap_or_default();
        for (folder, is_known) in [(KNOWN, true), (LIVE, false)] {
            if rest.starts_with(folder) {
                return Ok((is_known, parse_number(&format!("{prefix}{folder}"), key)?));
            }
        }
        let cause = format!("want {prefix}{KNOWN}<number> or {prefix}{LIVE}<number>");
        Err(Error::Unreadable { key: key.to_owned(), cause })
    }
}

#[cfg(test)]
mod tests;
