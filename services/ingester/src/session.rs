//! One append stream: the groups it declared, by the numbers the client gave them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use rpc::values::LastValues;
use tsdb::{GroupAppend, GroupChange, GroupDeclaration, GroupId, Storage};

use crate::error::{Error, Result};

/// Most groups of one stream.
const GROUPS_MAX: usize = 1_000_000;

/// The groups of one stream; they are forgotten when it ends.
#[derive(Debug)]
pub(crate) struct Session {
    storage: Arc<Storage>,
    groups: HashMap<u32, Declared>,
}

#[derive(Debug)]
struct Declared {
    group: GroupId,
    values: LastValues,
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
                let group = self.storage.declare(declaration)?;
                entry.insert(Declared { group, values: LastValues::default() });
                Ok(())
            }
        }
    }

    pub(crate) fn change(&self, number: u32, change: GroupChange) -> Result<()> {
        let declared = self.groups.get(&number).ok_or(Error::UndeclaredGroup(number))?;
        Ok(self.storage.change(declared.group, change)?)
    }

    /// A group, and the values of its last append.
    pub(crate) fn group(&mut self, number: u32) -> Result<(GroupId, &mut LastValues)> {
        let declared = self.groups.get_mut(&number).ok_or(Error::UndeclaredGroup(number))?;
        Ok((declared.group, &mut declared.values))
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
        let declared = self.groups.remove(&number).ok_or(Error::UndeclaredGroup(number))?;
        Ok(self.storage.forget(declared.group)?)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for declared in self.groups.values() {
            // A closed storage has forgotten every group.
            drop(self.storage.forget(declared.group));
        }
    }
}
