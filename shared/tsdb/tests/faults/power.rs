//! A power cut: of what was written to a folder, what was not synced may be gone. For logs an account is kept of what is
//! synced; for everything else there is a file system that is told to forget the rest.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

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

/// The size of a disk.
const DISK_BYTES: u64 = 48 << 20;
/// Asks a file system to stop as if the power had failed: `FS_IOC_SHUTDOWN`, without writing its journal first.
const SHUT_DOWN: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";

/// An ext4 of its own on a loop device, for as long as it is held.
pub(crate) struct Disk {
    image: PathBuf,
    at: PathBuf,
}

impl Disk {
    /// Makes it; whatever hinders is said.
    pub(crate) fn mount(image: &Path, at: &Path) -> Result<Self, String> {
        let file = File::create(image).and_then(|file| file.set_len(DISK_BYTES));
        file.map_err(|error| error.to_string())?;
        call(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image))?;
        let disk = Self { image: image.to_owned(), at: at.to_owned() };
        disk.attach()?;
        Ok(disk)
    }

    fn attach(&self) -> Result<(), String> {
        // Nothing gets to the disk by itself meanwhile.
        call(Command::new("mount").args(["-o", "loop,commit=600"]).arg(&self.image).arg(&self.at))
    }

    /// What a machine finds when it starts again.
    pub(crate) fn mount_again(&self) {
        let detach = || call(Command::new("umount").arg(&self.at));
        let mut left = 100;
        while let Err(error) = detach() {
            left -= 1;
            assert!(left > 0, "{error}");
            thread::sleep(Duration::from_millis(50));
        }
        self.attach().expect("mounted before");
    }

    /// Loses what was not synced, and stops; to be called where something is written.
    pub(crate) fn cut_power(at: &Path) {
        let python = test_kit::part("venv/bin/python");
        call(Command::new(python).args(["-c", SHUT_DOWN]).arg(at)).expect("an ext4");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still works in it keeps it until then.
        drop(call(Command::new("umount").arg("--lazy").arg(&self.at)));
    }
}

/// Why no disk can be made here; `None` when it can.
pub(crate) fn cannot_mount() -> Option<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path().join("disk");
    fs::create_dir(&at).expect("a folder");
    Disk::mount(&folder.path().join("image"), &at).err()
}

fn call(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let error = || format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    output.status.success().then_some(()).ok_or_else(error)
}
