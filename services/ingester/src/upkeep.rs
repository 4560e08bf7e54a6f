//! This ingester's share of what the table needs: compaction, retention, clean-up.
//!
//! Who compacts a day follows from the members' list alone; while lists differ, two may do the same work, and the table
//! drops what came second.

use std::sync::{Arc, OnceLock};

use coordination::membership::Roster;
use coordination::{Role, placement};
use service_runtime::Environment;
use tokio::sync::watch;
use tsdb::{Maintenance, MaintenanceReport};

use crate::error::Error;

/// The share once the table is open. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Upkeep {
    name: String,
    ingesters: watch::Receiver<Roster>,
    maintenance: Arc<OnceLock<Arc<Maintenance>>>,
}

impl Upkeep {
    pub(crate) fn new(environment: &Environment) -> Self {
        let ingesters = environment.peers.members(Role::Ingester);
        Self { name: environment.member_name.clone(), ingesters, maintenance: Arc::default() }
    }

    pub(crate) fn set(&self, maintenance: Arc<Maintenance>) {
        drop(self.maintenance.set(maintenance));
    }

    pub(crate) fn get(&self) -> Result<&Arc<Maintenance>, Error> {
        self.maintenance.get().ok_or(Error::Opening)
    }

    /// Keeps the table in order; never returns. May be dropped at any time.
    pub(crate) async fn run(self) {
        let Ok(maintenance) = self.get().cloned() else { return };
        maintenance.run(|work| self.is_mine(work)).await;
    }

    /// Compacts this ingester's share now.
    pub(crate) async fn compact(&self) -> Result<MaintenanceReport, Error> {
        let done = self.get()?.look(&|work: &str| self.is_mine(work), true).await;
        done.map_err(|e| tsdb::Error::from(e).into())
    }

    /// Whoever knows of nobody does everything: it is better done twice than not at all.
    fn is_mine(&self, work: &str) -> bool {
        let members = &self.ingesters.borrow().members;
        placement::worker(work.as_bytes(), members).is_none_or(|index| members[index].name == self.name)
    }
}
