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
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::Labels;
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tracing::{error, warn};

use super::{Feed, REFRESH_INTERVAL_MIN, TARGETS_MAX, Unwanted};
use crate::metrics::Metrics;
use crate::prometheus_config::{FileProvider, read_file, target_groups};
use crate::target_group::{TargetGroup, json_groups};

/// The label that names the file a target comes from.
const FILEPATH: &str = "__meta_filepath";
/// How many files one entry of `file_sd_configs` may match.
const FILES_MAX: usize = 10_000;

/// Target groups by the file they come from.
type GroupsByFile = BTreeMap<String, Vec<TargetGroup>>;

/// Reads the files whenever they change, for good.
pub(super) async fn follow(
    provider: &FileProvider,
    mut feed: Feed,
    metrics: &Metrics,
) -> Result<Infallible, Unwanted> {
    let mut folders = FolderWatch::new(metrics)
        .inspect_err(|error| {
            warn!(%error, "folders cannot be watched, files are read at intervals only");
            metrics.file_watcher_errors.inc();
        })
        .ok();
    let interval = provider.refresh_interval.max(REFRESH_INTERVAL_MIN);
    let mut groups = GroupsByFile::new();
    loop {
        if let Some(folders) = &mut folders {
            folders.cover(&provider.patterns, metrics);
        }
        // Read after the watch began, so that nothing is missed between the two.
        groups = read_blocking(provider, groups, metrics).await;
        feed.offer(groups.values().flatten().cloned().collect()).await?;
        let changed = async {
            match &folders {
                Some(folders) => folders.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep(interval) => {}
        }
    }
}

async fn read_blocking(provider: &FileProvider, last: GroupsByFile, metrics: &Metrics) -> GroupsByFile {
    let (provider, metrics) = (provider.clone(), metrics.clone());
    let kept = last.clone();
    let reading = tokio::task::spawn_blocking(move || read(&provider, &last, &metrics)).await;
    reading.unwrap_or_else(|error| {
        error!(%error, "target files could not be read, the last targets stay");
        kept
    })
}

/// Reads all files that the patterns match. `last` is what was read before.
fn read(provider: &FileProvider, last: &GroupsByFile, metrics: &Metrics) -> GroupsByFile {
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
        let found = json_groups(text.as_bytes())?.into_iter().enumerate();
        let group = |(index, group): (usize, Option<TargetGroup>)| {
            group.ok_or_else(|| format!("nil target group item found (index {index})"))
        };
        found.map(group).collect::<Result<_, _>>()?
    } else {
        target_groups(&text)?
    };
    let count: usize = groups.iter().map(|group| group.targets.len()).sum();
    if count > TARGETS_MAX {
        return Err(format!("{path} lists {count} targets: at most {TARGETS_MAX} are allowed"));
    }
    Ok(groups.into_iter().enumerate().map(|(index, group)| located(group, path, index)).collect())
}

fn located(group: TargetGroup, path: &str, index: usize) -> TargetGroup {
    let labels: Labels = group.labels.with(FILEPATH, path);
    TargetGroup { source: format!("{path}:{index}"), labels, ..group }
}

/// Tells when something happens in the folders of the patterns.
struct FolderWatch {
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
    fn new(metrics: &Metrics) -> Result<Self, notify::Error> {
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
    fn cover(&mut self, patterns: &[String], metrics: &Metrics) {
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
    async fn changed(&self) {
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
