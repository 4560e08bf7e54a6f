//! Where series come from: every ingester's head, and the table.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::Clock;
use rpc::Channel;
use rpc::pb::ingester as pb;
use rpc::pb::ingester::ingester_client::IngesterClient;
use service_runtime::{Answers, Covering};
use tokio::sync::OnceCell;
use tonic::Status;
use tsdb::Location;
use tsdb::table::{CacheStats, Snapshot, Table};

use crate::error::{Error, Result};

/// Reaches heads and table.
#[derive(Debug)]
pub(crate) struct Sources {
    peers: service_runtime::Peers,
    location: Location,
    clock: Clock,
    /// Memory for what was read of the table's files.
    cache_bytes: usize,
    table: OnceCell<Arc<Table>>,
    /// The table was looked at after this strike off the list of logs, [`Answers::struck`] of who asked last.
    strikes_seen: AtomicU64,
}

/// The logs that an ingester's answer covers.
pub(crate) fn covered(state: Option<&pb::HeadState>) -> Vec<String> {
    state.iter().flat_map(|state| &state.logs).map(|log| log.log.clone()).collect()
}

impl Sources {
    pub(crate) fn new(
        peers: service_runtime::Peers,
        location: Location,
        clock: Clock,
        cache_bytes: usize,
    ) -> Self {
        // The roster is wanted from now on, not only when the first query comes.
        drop(peers.heads());
        Self { peers, location, clock, cache_bytes, table: OnceCell::new(), strikes_seen: AtomicU64::new(0) }
    }

    /// Asks every ingester that holds what is not in the table yet.
    pub(crate) async fn ask<T, F>(
        &self,
        allow_partial: bool,
        ask: impl Fn(String, IngesterClient<Channel>) -> F,
    ) -> Result<Answers<T>>
    where
        F: Future<Output = std::result::Result<Covering<T>, Status>>,
    {
        let asked = self.peers.ask_heads(allow_partial, |head| {
            let client = IngesterClient::new(head.channel);
            ask(head.name, client.max_decoding_message_size(rpc::MESSAGE_BYTES_MAX))
        });
        asked.await.map_err(|status| Error::heads(&status))
    }

    /// The table as it goes with the answers of all heads: as new as any of them asks for, and as the list of logs that
    /// said whom to ask, since what a log held that was struck off is in the table alone.
    pub(crate) async fn snapshot(&self, struck: u64, at_least: Option<u64>) -> Result<Arc<Snapshot>> {
        let table = self.table().await?;
        // Whoever knows of another one wants a new look, also where the coordinator began anew.
        if self.strikes_seen.load(Ordering::Acquire) != struck {
            table.snapshot(None).await?;
            self.strikes_seen.store(struck, Ordering::Release);
        }
        Ok(table.snapshot(at_least).await?)
    }

    /// The table as it is now.
    pub(crate) async fn newest(&self) -> Result<Arc<Snapshot>> {
        Ok(self.table().await?.snapshot(None).await?)
    }

    /// Reads a snapshot of the table as [`Sources::snapshot`] gives it; once more with a newer one where files were
    /// replaced and removed while they were read.
    pub(crate) async fn read_table<T, F>(
        &self,
        struck: u64,
        at_least: Option<u64>,
        read: impl Fn(Arc<Snapshot>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = tsdb::table::Result<T>>,
    {
        let mut at_least = at_least;
        loop {
            let snapshot = self.snapshot(struck, at_least).await?;
            let version = snapshot.version();
            match read(snapshot).await {
                Err(tsdb::table::Error::Gone { .. }) if at_least <= Some(version) => {
                    at_least = Some(version + 1);
                }
                result => return Ok(result?),
            }
        }
    }

    /// What the memory for files did so far.
    pub(crate) fn cache_stats(&self) -> CacheStats {
        self.table.get().map(|table| table.cache_stats()).unwrap_or_default()
    }

    /// The table, opened at the first use.
    async fn table(&self) -> Result<&Arc<Table>> {
        let open = || async {
            Ok(Table::open_cached_in(&self.location, self.clock.clone(), self.cache_bytes).await?)
        };
        self.table.get_or_try_init(open).await
    }
}
