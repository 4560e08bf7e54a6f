//! Python in the venv that `parts.sh` makes.

use std::ffi::OsStr;
use std::process::Command;

use test_kit::part;

use crate::parts::repository;

/// Runs a script of `integration-tests/python/` and returns what it printed.
///
/// # Panics
/// When it fails.
#[must_use]
pub fn python<A: AsRef<OsStr>>(script: &str, arguments: impl IntoIterator<Item = A>) -> String {
    let script = repository().join("integration-tests/python").join(script);
    let output = Command::new(part("venv/bin/python"))
        .arg(&script)
        .args(arguments)
        .output()
        .unwrap_or_else(|e| panic!("start Python: {e}"));
    let (printed, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {}\n{printed}\n{errors}", script.display(), output.status);
    printed.into_owned()
}
