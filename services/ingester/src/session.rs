//! One append stream: the groups it declared, by the numbers the client gave them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use tsdb::{GroupAppend, GroupChange, GroupDeclaration, GroupId, Storage};

use crate::error::{Error, Result};

/// Most groups of one stream.
const GROUPS_MAX: usize = 1_000_000;

/// The groups of one stream; they are forgotten when it ends.
#[derive(Debug)]
pub(crate) struct Session {
    storage: Arc<Storage>,
    groups: HashMap<u32, GroupId>,
}

impl Session {
    pub(crate) fn new(storage: Arc<Storage>) -> Self {
        Self { storage, groups: HashMap::new() }
    }

    pub(crate) fn declare(&mut self, number: u32, declaration: GroupDeclaration) -> Result<()> {
        if self.groups.len() >= GROUPS_MAX {
            return Err(Error::TooManyGroups(GROUPS_MAX));
        }
        match self.groups.entry(number) {
            Entry::Occupied(_) => Err(Error::RedeclaredGroup(number)),
            Entry::Vacant(entry) => {
                entry.insert(self.storage.declare(declaration)?);
                Ok(())
            }
        }
    }

    pub(crate) fn change(&self, number: u32, change: GroupChange) -> Result<()> {
        Ok(self.storage.change(self.group(number)?, change)?)
    }

    pub(crate) fn group(&self, number: u32) -> Result<GroupId> {
        self.groups.get(&number).copied().ok_or(Error::UndeclaredGroup(number))
    }

    /// Hands the samples in; the future that comes back waits until they are durable.
    pub(crate) fn append(
        &self,
        appends: Vec<GroupAppend>,
        is_atomic: bool,
    ) -> impl Future<Output = Result<tsdb::Appended>> + Send + use<> {
        let appended = self.storage.append(appends, is_atomic);
        async move { Ok(appended.await?) }
    }

    pub(crate) fn forget(&mut self, number: u32) -> Result<()> {
        let group = self.groups.remove(&number).ok_or(Error::UndeclaredGroup(number))?;
        Ok(self.storage.forget(group)?)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for group in self.groups.values() {
            // A closed storage has forgotten every group.
            drop(self.storage.forget(*group));
        }
    }
}
