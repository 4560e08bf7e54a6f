//! The crate through its public face: conformance bodies, real scrapes, and what is written read back.

mod conformance;
mod real_scrapes;
mod round_trip;

use std::path::{Path, PathBuf};

/// Finds a folder of shared test data beside the repository. Where it is absent the test prints that it is skipped,
/// but fails where `CI=true` asks for everything to run.
fn shared_folder(kind: &str, path: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(path);
    if folder.is_dir() {
        return Some(folder);
    }
    #[expect(clippy::disallowed_methods, reason = "tests may read the environment")]
    let must_run = std::env::var("CI").is_ok_and(|v| v == "true");
    assert!(!must_run, "{} is absent", folder.display());
    #[expect(clippy::print_stdout, reason = "a skipped test must say so")]
    {
        println!("SKIPPED {kind} ({} is absent)", folder.display());
    }
    None
}
