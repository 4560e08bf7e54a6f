//! Declaring, changing and forgetting groups.

use std::sync::Arc;

use super::Storage;
use super::appender::{Appender, Group, TrackKey, TrackUse};
use crate::append::{GroupChange, GroupDeclaration, GroupId, MemberDeclaration};
use crate::error::{Error, Result};
use crate::head::{Head, REMOVED};
use crate::log::committer::Batch;
use crate::log::record::{self, Declare};
use crate::log::segment;

impl Storage {
    /// Declares a group; the number it gets is valid until it is forgotten.
    ///
    /// Two groups of one tenant, key and sub-group are the same scrape group seen twice, as after a reconnect: they
    /// share their times and the newest assignment epoch.
    ///
    /// # Errors
    /// [`Error::Invalid`] for empty labels, [`Error::TooMany`] beyond a limit, and what [`Storage::append`] says.
    pub fn declare(&self, declaration: GroupDeclaration) -> Result<GroupId> {
        self.committer.check_room()?;
        self.check_members(declaration.members.len(), &declaration.members)?;
        let now = self.options.clock.now();
        let mut appender = self.open_appender()?;
        let id = appender.next_group;
        let (tenant, key, track, members) = {
            let mut head = self.write_head();
            self.check_series(&head, declaration.members.len())?;
            let tenant = head.tenant_number(&declaration.tenant);
            let key = TrackKey { tenant, key: declaration.key.clone(), sub_group: declaration.sub_group };
            let track = match appender.tracks.get(&key) {
                Some(known) => known.track,
                None => head.tenant_mut(tenant).add_track(),
            };
            let tenant_head = head.tenant_mut(tenant);
            let member = |m: &MemberDeclaration| tenant_head.series_or_insert(&m.labels, &m.metadata);
            let members: Vec<u32> = declaration.members.iter().map(member).collect();
            let numbers = head.tenant_at(tenant).series_numbers();
            appender.grow(tenant, numbers);
            (tenant, key, track, members)
        };
        let epoch = declaration.epoch;
        let used = appender.tracks.entry(key.clone()).or_insert(TrackUse {
            track,
            epoch,
            groups: 0,
            idle_since: now,
        });
        used.groups += 1;
        used.epoch = used.epoch.max(epoch);
        for series in &members {
            appender.tenants[tenant as usize].uses[*series as usize] += 1;
        }
        appender.next_group += 1;
        let displaced = declaration.displaced;
        appender
            .groups
            .insert(id, Group { tenant, key, track, members: Arc::new(members), epoch, displaced });

        let declare = Declare {
            group: id,
            tenant: declaration.tenant,
            key: declaration.key,
            sub_group: declaration.sub_group,
            epoch,
            displaced,
            members: declaration.members.into_iter().map(Some).collect(),
        };
        self.push_record(|out| record::put_declare(out, &declare))?;
        Ok(GroupId(id))
    }

    /// Changes a group.
    ///
    /// # Errors
    /// As for [`Storage::declare`], and [`Error::UnknownGroup`].
    pub fn change(&self, group: GroupId, change: GroupChange) -> Result<()> {
        self.committer.check_room()?;
        let mut appender = self.open_appender()?;
        let known = appender.group(group.0)?;
        self.check_members(known.members.len() + change.add.len(), &change.add)?;
        let is_member = |m: u32| known.members.get(m as usize).is_some_and(|s| *s != REMOVED);
        let named = change.remove.iter().copied().chain(change.metadata.iter().map(|m| m.0));
        if let Some(stranger) = named.into_iter().find(|m| !is_member(*m)) {
            return Err(Error::Invalid(format!("group {}: it has no member {stranger}", group.0)));
        }
        let tenant = known.tenant;
        let mut members = (*known.members).clone();
        {
            let mut head = self.write_head();
            self.check_series(&head, change.add.len())?;
            let tenant_head = head.tenant_mut(tenant);
            for (member, metadata) in &change.metadata {
                tenant_head.set_metadata(members[*member as usize], metadata);
            }
            for added in &change.add {
                members.push(tenant_head.series_or_insert(&added.labels, &added.metadata));
            }
            let numbers = head.tenant_at(tenant).series_numbers();
            appender.grow(tenant, numbers);
        }
        let uses = &mut appender.tenants[tenant as usize].uses;
        for added in &members[members.len() - change.add.len()..] {
            uses[*added as usize] += 1;
        }
        for member in &change.remove {
            let series = std::mem::replace(&mut members[*member as usize], REMOVED);
            // A member named twice is removed once.
            if series != REMOVED {
                uses[series as usize] -= 1;
            }
        }
        let Appender { groups, tracks, .. } = &mut *appender;
        if let Some(known) = groups.get_mut(&group.0) {
            known.members = Arc::new(members);
            known.displaced = change.displaced.unwrap_or(known.displaced);
            known.epoch = change.epoch.unwrap_or(known.epoch);
            if let Some(used) = tracks.get_mut(&known.key) {
                used.epoch = used.epoch.max(known.epoch);
            }
        }
        self.push_record(|out| record::put_change(out, group.0, &change))
    }

    /// Forgets a group; its series stay as long as their samples do.
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], and what [`Storage::append`] says.
    pub fn forget(&self, group: GroupId) -> Result<()> {
        let mut appender = self.open_appender()?;
        let known = appender.groups.remove(&group.0).ok_or(Error::UnknownGroup(group.0))?;
        let uses = &mut appender.tenants[known.tenant as usize].uses;
        for series in known.members.iter().filter(|s| **s != REMOVED) {
            uses[*series as usize] -= 1;
        }
        if let Some(used) = appender.tracks.get_mut(&known.key) {
            used.groups -= 1;
            used.idle_since = self.options.clock.now();
        }
        self.push_record(|out| record::put_forget(out, group.0))
    }

    /// Writes the declarations of all live groups, which is how the part of a log begins that a flush does not cover.
    pub(super) fn redeclare(&self, appender: &Appender) -> Result<()> {
        let mut records = Vec::new();
        let mut ids: Vec<&u64> = appender.groups.keys().collect();
        ids.sort_unstable();
        for id in ids {
            let declare = declaration_of(&self.read_head(), *id, &appender.groups[id]);
            segment::put_record(&mut records, |out| record::put_declare(out, &declare));
            if records.len() >= self.options.commit_bytes {
                // Nothing else comes in between, and no segment gets too large.
                self.committer.push(Batch { records: std::mem::take(&mut records), ..Batch::default() })?;
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        self.committer.push(Batch { records, ..Batch::default() })
    }

    fn push_record(&self, put: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let mut records = Vec::new();
        segment::put_record(&mut records, put);
        self.committer.push(Batch { records, ..Batch::default() })
    }

    fn check_members(&self, count: usize, members: &[MemberDeclaration]) -> Result<()> {
        let limit = self.options.group_members_max;
        if count > limit {
            return Err(Error::TooMany { what: "members of a group", limit });
        }
        if members.iter().any(|m| m.labels.is_empty()) {
            return Err(Error::Invalid("declare a group: a member has no labels".to_owned()));
        }
        Ok(())
    }

    fn check_series(&self, head: &Head, added: usize) -> Result<()> {
        let limit = self.options.series_max;
        // Members may be known already: only a head that is full refuses what may be new.
        if head.series_count().saturating_add(added) > limit && head.series_count() >= limit {
            return Err(Error::TooMany { what: "series in memory", limit });
        }
        Ok(())
    }
}

fn declaration_of(head: &Head, id: u64, group: &Group) -> Declare {
    let tenant = head.tenant_at(group.tenant);
    let member = |series: &u32| {
        let metadata = &tenant.series(*series)?.metadata;
        Some(MemberDeclaration { labels: tenant.labels(*series), metadata: Arc::clone(metadata) })
    };
    Declare {
        group: id,
        tenant: tenant.tenant.clone(),
        key: group.key.key.clone(),
        sub_group: group.key.sub_group,
        epoch: group.epoch,
        displaced: group.displaced,
        members: group.members.iter().map(member).collect(),
    }
}
