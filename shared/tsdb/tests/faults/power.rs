//! A power cut: of what was written to a folder, what was not synced may be gone.

use std::fs;
use std::path::Path;

use crate::link::Random;
use crate::support::copy;

/// Copies a folder as the machine finds it after the power was cut.
pub(crate) fn cut(from: &Path, to: &Path, random: &mut Random) {
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        let durable = tsdb::faults::durable(&path);
        // A name that was not synced may have got to the disk all the same.
        if durable.is_some_and(|d| !d.name) && random.below(2) == 0 {
            continue;
        }
        if path.is_dir() {
            fs::create_dir(&target).expect("created");
            cut(&path, &target, random);
            continue;
        }
        let mut bytes = fs::read(&path).expect("readable");
        let synced =
            durable.map_or(bytes.len(), |d| usize::try_from(d.bytes).expect("small").min(bytes.len()));
        match random.below(3) {
            // Gone; in part; there by its length alone.
            0 => bytes.truncate(synced),
            1 => bytes.truncate(synced + (bytes.len() - synced) / 2),
            _ => bytes[synced..].fill(0),
        }
        fs::write(&target, bytes).expect("written");
    }
}

/// Copies a folder as another process finds it after the one that wrote it was killed.
pub(crate) fn kill(from: &Path, to: &Path) {
    copy(from, to);
}
