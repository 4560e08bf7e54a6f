//! Texts that a change must not alter unseen.

use std::path::Path;

/// Set while golden files are written anew (`make golden`).
const REWRITE: &str = "TRIBUTARY_GOLDEN";

/// Compares a text with the file of this name in a crate's `testdata/`, or writes the file anew under `make golden`.
///
/// # Panics
/// When they differ, or the file cannot be read or written.
#[track_caller]
pub fn golden(crate_folder: &str, name: &str, text: &str) {
    let path = Path::new(crate_folder).join("testdata").join(name);
    #[expect(clippy::disallowed_methods, reason = "how the tests are run is said by who runs them")]
    let is_rewritten = std::env::var_os(REWRITE).is_some();
    if is_rewritten {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder for golden files");
        std::fs::write(&path, text).expect("a golden file");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(text, kept, "{} differs; `make golden` writes it anew", path.display());
}
