//! Clean-up of the Delta log: commits and checkpoints that lie behind a checkpoint of some age go.
//!
//! The oldest go first, so that whoever stops midway leaves a log without holes, and the checkpoint that they lie
//! behind stays: it has been there for as long as anybody may take to read the log.

use futures::TryStreamExt;
use model::Timestamp;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use super::checkpoint;
use super::log::Entry;
use crate::faults::site;
use crate::table::{Error, Result};

/// Removes what was written before `before` and lies behind a checkpoint that was, too; returns how many files.
///
/// Times are the store's own. Dropping the future midway does no harm.
pub(super) async fn clean_up(store: &dyn ObjectStore, directory: &Path, before: Timestamp) -> Result<usize> {
    let Some(named) = checkpoint::named(store, directory).await? else { return Ok(0) };
    let listed = || format!("list {directory}");
    let entries: Vec<ObjectMeta> =
        store.list(Some(directory)).try_collect().await.map_err(Error::store(listed()))?;
    let unneeded = unneeded(&entries, named, before);
    let count = unneeded.len();
    for path in unneeded {
        delete(store, path).await?;
    }
    Ok(count)
}

/// What may go, the oldest version first. The newest checkpoint that the hint names or passes is what others begin at.
fn unneeded(entries: &[ObjectMeta], named: u64, before: Timestamp) -> Vec<&Path> {
    let is_old = |entry: &&ObjectMeta| entry.last_modified.timestamp_millis() <= before.millis();
    let checkpoints = entries.iter().filter(is_old).filter_map(|e| match Entry::of(&e.location) {
        Entry::Checkpoint(version) if version <= named => Some(version),
        _ => None,
    });
    let Some(kept) = checkpoints.max() else { return Vec::new() };
    let mut unneeded: Vec<(u64, &Path)> = entries
        .iter()
        .filter(is_old)
        .filter_map(|e| match Entry::of(&e.location) {
            Entry::Commit(version) | Entry::Checkpoint(version) => Some((version, &e.location)),
            Entry::Other => None,
        })
        .filter(|(version, _)| *version < kept)
        .collect();
    unneeded.sort();
    unneeded.into_iter().map(|(_, path)| path).collect()
}

/// Deletes a file that may be gone already.
pub(crate) async fn delete(store: &dyn ObjectStore, path: &Path) -> Result<()> {
    match site!("dead file: delete", store.delete(path).await) {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(Error::store(format!("delete {path}"))(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, modified_ms: i64) -> ObjectMeta {
        let last_modified = std::time::UNIX_EPOCH
            + std::time::Duration::from_millis(u64::try_from(modified_ms).expect("positive"));
        ObjectMeta {
            location: Path::from(format!("t/_delta_log/{name}")),
            last_modified: last_modified.into(),
            size: 1,
            e_tag: None,
            version: None,
        }
    }

    fn commit(version: u64) -> String {
        format!("{version:020}.json")
    }

    fn checkpoint(version: u64) -> String {
        format!("{version:020}.checkpoint.parquet")
    }

    #[test]
    fn only_what_is_old_and_behind_an_old_checkpoint_goes() {
        let all = [
            entry(&checkpoint(1), 10),
            entry(&checkpoint(3), 30),
            entry(&checkpoint(5), 50),
            entry(&commit(0), 5),
            entry(&commit(1), 9),
            entry(&commit(2), 20),
            entry(&commit(3), 29),
            entry(&commit(4), 40),
            entry(&commit(5), 49),
            entry("_last_checkpoint", 1),
            entry("00000000000000000000.crc", 1),
        ];
        let (c, p) = (commit, checkpoint);
        for (named, before, want) in [
            (5, 9, vec![]),
            (5, 10, vec![c(0)]),
            (5, 30, vec![c(0), p(1), c(1), c(2)]),
            // The newest checkpoint is too young to be relied on by itself.
            (5, 49, vec![c(0), p(1), c(1), c(2)]),
            (5, 50, vec![c(0), p(1), c(1), c(2), p(3), c(3), c(4)]),
            // Others begin where the hint says.
            (3, 50, vec![c(0), p(1), c(1), c(2)]),
            (0, 50, vec![]),
        ] {
            let got: Vec<&str> = unneeded(&all, named, Timestamp(before))
                .into_iter()
                .map(|p| p.filename().expect("a name"))
                .collect();
            assert_eq!(got, want, "named {named} before {before}");
        }
    }
}
