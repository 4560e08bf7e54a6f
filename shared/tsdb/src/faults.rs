//! What tests do to the storage engine from inside: see `tests/faults`.
//!
//! [`site!`] names a place where bytes become durable, visible or gone, so that a test can end the process right before
//! or right behind it. [`or_fault!`] names a fault beside the right expression, so that a test can show that it would be
//! noticed. Without the feature `planted-faults`, which only these tests turn on, both macros are what they wrap and
//! nothing else.

/// An expression that changes what is stored, and the name of the place.
#[cfg(not(feature = "planted-faults"))]
macro_rules! site {
    ($name:literal, $change:expr) => {
        $change
    };
}

/// An expression that changes what is stored, and the name of the place.
#[cfg(feature = "planted-faults")]
macro_rules! site {
    ($name:literal, $change:expr) => {{
        crate::faults::reach(concat!("before ", $name));
        let changed = $change;
        crate::faults::reach(concat!("after ", $name));
        changed
    }};
}

/// The right expression, or the wrong one where this fault is planted.
#[cfg(not(feature = "planted-faults"))]
macro_rules! or_fault {
    ($fault:ident, $right:expr, $wrong:expr) => {
        $right
    };
}

/// The right expression, or the wrong one where this fault is planted.
#[cfg(feature = "planted-faults")]
macro_rules! or_fault {
    ($fault:ident, $right:expr, $wrong:expr) => {
        if crate::faults::is_planted(crate::faults::Fault::$fault) { $wrong } else { $right }
    };
}

pub(crate) use {or_fault, site};

#[cfg(feature = "planted-faults")]
pub use planted::{Durable, Fault, durable, on_reach, plant};
#[cfg(feature = "planted-faults")]
pub(crate) use planted::{disk, is_planted, reach};

#[cfg(feature = "planted-faults")]
mod planted {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};
    use std::sync::OnceLock;

    use parking_lot::Mutex;

    /// What can be made wrong.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Fault {
        /// A segment in a file is acknowledged before it is on the disk.
        NoSync,
        /// A new log file is used before its name is on the disk.
        NoFolderSync,
        /// A place that is taken counts as written, whoever took it.
        NoSealCheck,
        /// A segment is acknowledged before those in front of it.
        AcknowledgedOutOfOrder,
        /// A flush is committed wherever the table stands.
        NoBaseCheck,
        /// The part of a log behind a flush does not begin with declarations.
        NotDeclaredAgain,
        /// Files are replaced that somebody else has replaced meanwhile.
        NoInputCheck,
        /// Segments go as soon as they are in the table.
        DeletedAtOnce,
        /// What is put into a folder is not synced.
        NoTableSync,
        /// No fault, but rare otherwise: a file is uploaded in several parts, however small they are.
        SmallParts,
    }

    impl Fault {
        /// All that a simulation has to notice; [`Fault::NoTableSync`] takes a disk that loses power.
        pub const ALL: [Self; 8] = [
            Self::NoSync,
            Self::NoFolderSync,
            Self::NoSealCheck,
            Self::AcknowledgedOutOfOrder,
            Self::NoBaseCheck,
            Self::NotDeclaredAgain,
            Self::NoInputCheck,
            Self::DeletedAtOnce,
        ];
    }

    static PLANTED: Mutex<Option<Fault>> = Mutex::new(None);

    /// Plants a fault in all storages of the process from now on, or none.
    pub fn plant(fault: Option<Fault>) {
        *PLANTED.lock() = fault;
    }

    pub(crate) fn is_planted(fault: Fault) -> bool {
        *PLANTED.lock() == Some(fault)
    }

    type OnReach = Box<dyn Fn(&'static str) + Send + Sync>;

    static ON_REACH: OnceLock<OnReach> = OnceLock::new();

    /// Calls back whenever the process gets to a site, with `before` or `after` and its name; once in a process.
    ///
    /// # Panics
    /// When it was called before.
    pub fn on_reach(call: impl Fn(&'static str) + Send + Sync + 'static) {
        assert!(ON_REACH.set(Box::new(call)).is_ok(), "one callback a process");
    }

    pub(crate) fn reach(site: &'static str) {
        if let Some(call) = ON_REACH.get() {
            call(site);
        }
    }

    /// What of a file or folder outlives a power cut.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Durable {
        /// Whether its name does.
        pub name: bool,
        /// How many of its bytes do.
        pub bytes: u64,
    }

    static DISK: Mutex<BTreeMap<PathBuf, Durable>> = Mutex::new(BTreeMap::new());

    /// Says what of a file or folder that this process made outlives a power cut; `None` for others.
    #[must_use]
    pub fn durable(path: &Path) -> Option<Durable> {
        DISK.lock().get(path).copied()
    }

    /// Keeps account of what was synced.
    pub(crate) mod disk {
        use super::{DISK, Durable, Path};

        pub(crate) fn created(path: &Path) {
            DISK.lock().entry(path.to_owned()).or_insert(Durable { name: false, bytes: 0 });
        }

        pub(crate) fn synced(path: &Path) {
            let bytes = path.metadata().map_or(0, |m| m.len());
            if let Some(file) = DISK.lock().get_mut(path) {
                file.bytes = bytes;
            }
        }

        pub(crate) fn synced_folder(folder: &Path) {
            let mut all = DISK.lock();
            all.iter_mut().filter(|(path, _)| path.parent() == Some(folder)).for_each(|(_, d)| d.name = true);
        }
    }
}
