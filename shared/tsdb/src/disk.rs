//! The file system as local logs use it, and as the folder of a table is made.
//!
//! Each function is one step that a crash or a power cut can come before or behind, and names itself in its error.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use crate::error::{Error, Result};
#[cfg(feature = "planted-faults")]
use crate::faults::disk as account;
use crate::faults::site;

/// Makes a folder that must not be there; its name lasts once the folder above is synced.
pub(crate) fn create_folder(path: &Path) -> Result<()> {
    site!("log folder: create", fs::create_dir(path)).map_err(Error::io("create log", path))?;
    #[cfg(feature = "planted-faults")]
    account::created(path);
    Ok(())
}

/// Makes a file that must not be there, to be written from its beginning.
pub(crate) fn create_file(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create_new(true);
    let file = site!("log file: create", options.open(path)).map_err(Error::io("create log file", path))?;
    #[cfg(feature = "planted-faults")]
    account::created(path);
    Ok(file)
}

/// Opens a file to be written behind its end, making it where there is none.
pub(crate) fn open_to_append(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    let file = site!("seal file: create", options.open(path)).map_err(Error::io("create log file", path))?;
    #[cfg(feature = "planted-faults")]
    account::created(path);
    Ok(file)
}

/// Writes behind the end of a file.
pub(crate) fn write(file: &mut File, path: &Path, bytes: &[u8]) -> Result<()> {
    site!("log file: write", file.write_all(bytes)).map_err(Error::io("write log", path))
}

/// Makes what was written to a file last.
pub(crate) fn sync(file: &File, path: &Path) -> Result<()> {
    site!("log file: sync", file.sync_data()).map_err(Error::io("sync log", path))?;
    #[cfg(feature = "planted-faults")]
    account::synced(path);
    Ok(())
}

/// Makes the names in a folder last.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    let file = File::open(folder).map_err(Error::io("open folder", folder))?;
    site!("log folder: sync", file.sync_all()).map_err(Error::io("sync folder", folder))?;
    #[cfg(feature = "planted-faults")]
    account::synced_folder(folder);
    Ok(())
}

/// Cuts a file off behind its first `length` bytes, and makes that last.
pub(crate) fn cut(path: &Path, length: u64) -> Result<()> {
    let file = OpenOptions::new().write(true).open(path).map_err(Error::io("open log", path))?;
    site!("torn end: cut", file.set_len(length)).map_err(Error::io("cut torn end of log", path))?;
    site!("torn end: sync", file.sync_all()).map_err(Error::io("sync log", path))
}

/// Removes a file.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    site!("log file: remove", fs::remove_file(path)).map_err(Error::io("remove log file", path))
}

/// Removes a folder with all it holds.
pub(crate) fn remove_folder(path: &Path) -> Result<()> {
    site!("log folder: remove", fs::remove_dir_all(path)).map_err(Error::io("remove log", path))
}

/// Gives a folder another place.
pub(crate) fn rename_folder(from: &Path, to: &Path) -> Result<()> {
    site!("log folder: rename", fs::rename(from, to)).map_err(Error::io("set apart", from))
}

/// Makes a folder and those above it where they are not there yet, and makes the names of new ones last.
pub(crate) fn create_folders(path: &Path) -> Result<()> {
    let known = path.ancestors().find(|folder| folder.exists());
    site!("folders: create", fs::create_dir_all(path)).map_err(Error::io("create", path))?;
    let new = path.ancestors().take_while(|folder| Some(*folder) != known);
    for above in new.filter_map(Path::parent) {
        sync_folder(if above.as_os_str().is_empty() { Path::new(".") } else { above })?;
    }
    Ok(())
}
