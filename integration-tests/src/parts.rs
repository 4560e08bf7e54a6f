//! Where the programs lie that the tests run.

use std::path::{Path, PathBuf};

/// The repository's root.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository").to_path_buf()
}

/// Cargo's target folder: the test runs from `<target>/<profile>/deps/`.
///
/// # Panics
/// When the test binary was moved away from there.
#[must_use]
pub fn target_folder() -> PathBuf {
    profile_folder().parent().expect("a profile lies in the target folder").to_path_buf()
}

/// The folder of the binaries that were built along with the test.
pub(crate) fn profile_folder() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    test.ancestors().nth(2).expect("the test lies in <target>/<profile>/deps").to_path_buf()
}

/// A part that `integration-tests/parts.sh` unpacks.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn part(path: &str) -> PathBuf {
    let parts = target_folder().join("parts");
    let part = parts.join(path);
    assert!(
        part.exists(),
        "{} is not there: run `make test`, or `integration-tests/parts.sh {} all`",
        part.display(),
        parts.display()
    );
    part
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
