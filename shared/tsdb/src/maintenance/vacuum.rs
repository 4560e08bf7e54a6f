//! Removes files that no reader can need any more from the store.
//!
//! Only files that have a name as ours are looked at. Files are listed before the catalogue is read, so that what is
//! committed in between counts.
//!
//! What was removed from the table stays counted from when its removal was first seen, never from what the commit says:
//! a commit may have been on its way for hours.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::{StreamExt, TryStreamExt};
use model::Timestamp;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use ulid::Ulid;

use crate::catalogue::cleanup::delete;
use crate::catalogue::state::State;
use crate::table::{Error, Result, Table, location};

/// Deletions under way at a time.
const DELETIONS_MAX: usize = 8;

/// How long dead files stay, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delays {
    /// Since it was first seen that they were removed from the table.
    pub removed_ms: i64,
    /// Since they were written, when no commit that is known named them.
    pub unnamed_ms: i64,
}

/// When each file was first seen to be removed from the table.
#[derive(Debug, Default)]
pub(crate) struct Removals(BTreeMap<String, Timestamp>);

impl Removals {
    /// Notes what is removed by now, and forgets what the table has forgotten.
    pub(crate) fn see(&mut self, state: &State, now: Timestamp) {
        self.0.retain(|path, _| state.removed.contains_key(path));
        for path in state.removed.keys() {
            self.0.entry(path.clone()).or_insert(now);
        }
    }
}

/// Removes dead files and returns how many. Dropping the future midway does no harm.
pub(crate) async fn vacuum(
    table: &Table,
    removals: &mut Removals,
    now: Timestamp,
    delays: Delays,
) -> Result<usize> {
    let options = table.options();
    let mut entries: Vec<ObjectMeta> = Vec::new();
    let mut listing = options.store.list(Some(&options.prefix));
    while let Some(entry) =
        listing.try_next().await.map_err(Error::store(format!("list {}", options.prefix)))?
    {
        if is_data_file(&options.prefix, &entry.location) {
            entries.push(entry);
        }
    }
    let state = table.log().refresh().await?;
    removals.see(&state, now);
    let dead = dead(&entries, &state, removals, &options.prefix, now, delays)?;
    let count = dead.len();
    let deletions = dead.into_iter().map(|path| async move { delete(&*options.store, &path).await });
    futures::stream::iter(deletions).buffer_unordered(DELETIONS_MAX).try_collect::<Vec<()>>().await?;
    Ok(count)
}

/// Whether a file of the store has a name as the table's files have.
fn is_data_file(prefix: &Path, path: &Path) -> bool {
    let Some(parts) = path.prefix_match(prefix) else { return false };
    let parts: Vec<_> = parts.collect();
    let [tenant, day, name] = parts.as_slice() else { return false };
    let stem = name.as_ref().strip_suffix(".parquet");
    tenant.as_ref().starts_with("tenant=")
        && day.as_ref().starts_with("day=")
        && stem.is_some_and(|s| Ulid::from_string(s).is_ok())
}

/// The files that nobody needs: neither live nor removed a short while ago nor about to be committed.
fn dead(
    entries: &[ObjectMeta],
    state: &State,
    removals: &Removals,
    prefix: &Path,
    now: Timestamp,
    delays: Delays,
) -> Result<Vec<Path>> {
    let paths = |path: &String| location(prefix, path);
    let live: HashSet<Path> = state.files.keys().map(paths).collect::<Result<_>>()?;
    let removed: HashMap<Path, Timestamp> =
        removals.0.iter().map(|(path, seen)| Ok((paths(path)?, *seen))).collect::<Result<_>>()?;
    let is_past = |since: Timestamp, delay_ms: i64| now.since_ms(since) >= delay_ms;
    let is_dead = |entry: &&ObjectMeta| match removed.get(&entry.location) {
        _ if live.contains(&entry.location) => false,
        Some(seen) => is_past(*seen, delays.removed_ms),
        None => is_past(Timestamp(entry.last_modified.timestamp_millis()), delays.unnamed_ms),
    };
    Ok(entries.iter().filter(is_dead).map(|e| e.location.clone()).collect())
}
