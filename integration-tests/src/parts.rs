//! Where the programs lie that the tests run.

use std::path::{Path, PathBuf};

use test_kit::part;

/// The repository's root.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository").to_path_buf()
}

/// Debian's promtool.
#[must_use]
pub fn promtool() -> PathBuf {
    part("prometheus/usr/bin/promtool")
}

/// Debian's `node_exporter`.
#[must_use]
pub fn node_exporter() -> PathBuf {
    part("prometheus-node-exporter/usr/bin/prometheus-node-exporter")
}

/// kubectl.
#[must_use]
pub fn kubectl() -> PathBuf {
    part("venv/bin/kubectl")
}
