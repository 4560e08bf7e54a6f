//! Finds what a data directory holds.

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use ulid::Ulid;

use crate::block::{Block, Meta};
use crate::error::{Error, Result};
use crate::head::Head;

/// The data directory of a server that does not run, or a snapshot of one.
#[derive(Debug)]
pub struct Directory {
    folder: PathBuf,
    blocks: Vec<Block>,
    head: Option<Head>,
    /// Keeps a server from starting meanwhile.
    _lock: Option<File>,
}

impl Directory {
    /// Opens a directory; nothing in it is changed. Blocks that were made into others that are there are left out, as
    /// are those that are not complete. A block whose `meta.json` is damaged goes to `damage`, and is left out when
    /// that takes it.
    ///
    /// # Errors
    /// [`Error::InUse`] while a server runs on it, [`Error::Empty`] when there is nothing; what the disk says, and
    /// whatever `damage` hands back.
    pub fn open(folder: &Path, damage: &mut dyn FnMut(Error) -> Result<()>) -> Result<Self> {
        let lock = lock(folder)?;
        let mut blocks = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(Error::io("list", folder))? {
            let entry = entry.map_err(Error::io("list", folder))?;
            let name = entry.file_name();
            if name.to_str().and_then(|n| Ulid::from_string(n).ok()).is_none() {
                continue;
            }
            match Meta::read(&entry.path()) {
                Ok(meta) => blocks.push(Block::new(entry.path(), meta)),
                Err(error) => damage(error)?,
            }
        }
        let replaced: HashSet<String> =
            blocks.iter().flat_map(|b| b.meta().parents()).map(str::to_owned).collect();
        blocks.retain(|block| !replaced.contains(&block.meta().ulid));
        blocks.sort_by_key(|block| (block.meta().min_time, block.meta().ulid.clone()));
        let in_order = blocks.iter().filter(|b| !b.meta().is_out_of_order());
        let min_valid_time = in_order.map(|b| b.meta().max_time).max().unwrap_or(i64::MIN);
        let head = match Head::find(folder, min_valid_time) {
            Ok(head) => head,
            Err(error) => {
                damage(error)?;
                None
            }
        };
        if blocks.is_empty() && head.is_none() {
            return Err(Error::Empty(folder.to_owned()));
        }
        Ok(Self { folder: folder.to_owned(), blocks, head, _lock: lock })
    }

    /// The directory.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its blocks, the earliest first.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// What no block has yet.
    #[must_use]
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }
}

/// Takes the lock that a running server holds. Where there is none, or it may not be opened, none is taken.
fn lock(folder: &Path) -> Result<Option<File>> {
    let path = folder.join("lock");
    let Ok(file) = File::open(&path) else { return Ok(None) };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(Error::InUse(folder.to_owned())),
        Err(TryLockError::Error(source)) => Err(Error::Io { attempt: "lock", path, source }),
    }
}
