//! `file_sd_configs`: target groups out of JSON and YAML files.
//!
//! The folders of the patterns are watched, and the files are read again every `refresh_interval` in any case, since
//! watches get lost (network file systems, folders made later).
//!
//! Invariants:
//! - a file that cannot be read or parsed keeps the groups it last had; a file that is gone has none;
//! - at most [`FILES_MAX`] files of at most `FILE_BYTES_MAX` bytes each are read, and at most [`TARGETS_MAX`] targets
//!   are taken from one file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::Labels;
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use serde::Deserialize;
use tokio::sync::Notify;
use tracing::warn;

use crate::metrics::Metrics;
use crate::prometheus_config::{FileProvider, read_file, target_groups};
use crate::target_group::TargetGroup;

/// The label that names the file a target comes from.
const FILEPATH: &str = "__meta_filepath";
/// How many files one entry of `file_sd_configs` may match.
pub(crate) const FILES_MAX: usize = 10_000;
/// How many targets one file may list.
pub(crate) const TARGETS_MAX: usize = 1_000_000;

/// Target groups by the file they come from.
pub(crate) type GroupsByFile = BTreeMap<String, Vec<TargetGroup>>;

/// A group as JSON files hold it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonGroup {
    #[serde(default)]
    targets: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// Reads all files that the patterns match. `last` is what was read before.
#[must_use]
pub(crate) fn read(provider: &FileProvider, last: &GroupsByFile, metrics: &Metrics) -> GroupsByFile {
    let mut groups = GroupsByFile::new();
    for path in matching(provider, metrics) {
        match read_groups(&path) {
            Ok(found) => {
                groups.insert(path, found);
            }
            Err(error) => {
                warn!(%error, path, "keep the last targets of a file that cannot be read");
                metrics.file_read_errors.inc();
                if let Some(kept) = last.get(&path) {
                    groups.insert(path, kept.clone());
                }
            }
        }
    }
    groups
}

fn matching(provider: &FileProvider, metrics: &Metrics) -> Vec<String> {
    let mut paths = Vec::new();
    for pattern in &provider.patterns {
        let found = match glob::glob(pattern) {
            Ok(found) => found,
            Err(error) => {
                warn!(%error, pattern, "pattern of file_sd_configs cannot be used");
                metrics.file_read_errors.inc();
                continue;
            }
        };
        paths.extend(found.filter_map(Result::ok).map(|path| path.to_string_lossy().into_owned()));
    }
    paths.sort();
    paths.dedup();
    if paths.len() > FILES_MAX {
        warn!(files = paths.len(), limit = FILES_MAX, "files beyond the limit are not read");
        metrics.file_read_errors.inc();
        paths.truncate(FILES_MAX);
    }
    paths
}

fn read_groups(path: &str) -> Result<Vec<TargetGroup>, String> {
    let text = read_file(path)?;
    let groups = if path.to_ascii_lowercase().ends_with(".json") {
        json_groups(&text)?
    } else {
        target_groups(&text)?
    };
    let count: usize = groups.iter().map(|group| group.addresses.len()).sum();
    if count > TARGETS_MAX {
        return Err(format!("{path} lists {count} targets: at most {TARGETS_MAX} are allowed"));
    }
    Ok(groups.into_iter().enumerate().map(|(index, group)| located(group, path, index)).collect())
}

fn json_groups(text: &str) -> Result<Vec<TargetGroup>, String> {
    let groups: Vec<Option<JsonGroup>> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let group = |(index, group): (usize, Option<JsonGroup>)| match group {
        Some(group) => Ok(TargetGroup::new("", group.targets, group.labels)),
        None => Err(format!("nil target group item found (index {index})")),
    };
    groups.into_iter().enumerate().map(group).collect()
}

fn located(group: TargetGroup, path: &str, index: usize) -> TargetGroup {
    let labels: Labels = group.labels.with(FILEPATH, path);
    TargetGroup { source: format!("{path}:{index}"), labels, ..group }
}

/// Tells when something happens in the folders of the patterns.
pub(crate) struct FolderWatch {
    watcher: RecommendedWatcher,
    changed: Arc<Notify>,
    watched: Vec<PathBuf>,
}

impl std::fmt::Debug for FolderWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FolderWatch").field("watched", &self.watched).finish_non_exhaustive()
    }
}

impl FolderWatch {
    /// Starts a watch of nothing yet.
    ///
    /// # Errors
    /// When the system has no more watches.
    pub(crate) fn new(metrics: &Metrics) -> Result<Self, notify::Error> {
        let changed = Arc::new(Notify::new());
        let (told, errors) = (changed.clone(), metrics.file_watcher_errors.clone());
        let watcher =
            notify::recommended_watcher(move |event: Result<notify::Event, notify::Error>| match event {
                Ok(event) if is_change(event.kind) => told.notify_one(),
                Ok(_) => {}
                Err(error) => {
                    warn!(%error, "watch of file_sd_configs");
                    errors.inc();
                    told.notify_one();
                }
            })?;
        Ok(Self { watcher, changed, watched: Vec::new() })
    }

    /// Watches the folders of the patterns that are not watched yet; those that do not exist are tried again at the
    /// next call.
    pub(crate) fn cover(&mut self, patterns: &[String], metrics: &Metrics) {
        for pattern in patterns {
            let folder = match Path::new(pattern).parent() {
                Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
                _ => PathBuf::from("."),
            };
            if self.watched.contains(&folder) || !folder.is_dir() {
                continue;
            }
            match self.watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => self.watched.push(folder),
                Err(error) => {
                    warn!(%error, folder = %folder.display(), "folder of file_sd_configs cannot be watched");
                    metrics.file_watcher_errors.inc();
                }
            }
        }
    }

    /// Resolves when something changed since the last call. May be dropped at any time.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// Reading a file is an event as well, and must not lead to reading it again.
const fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests;
