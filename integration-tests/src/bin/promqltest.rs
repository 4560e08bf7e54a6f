//! `promqltest DIR_OR_FILE...`: runs scripts in Prometheus's PromQL test language against our engine over a store in
//! memory. Prints one line for each file, failures with file and line, and ends with `N passed, M failed`; the exit
//! status is 0 only when nothing failed.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use integration_tests::promqltest::{InMemory, run_script};

#[expect(clippy::disallowed_methods, reason = "this is a main")]
fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let mut out = std::io::stdout().lock();
    match run_all(&arguments, &mut out) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nothing is left to do when even that cannot be printed.
            writeln!(std::io::stderr(), "promqltest: {error}").ok();
            ExitCode::from(2)
        }
    }
}

/// Runs all scripts; says whether everything passed.
fn run_all(arguments: &[PathBuf], out: &mut impl std::io::Write) -> std::io::Result<bool> {
    if arguments.is_empty() {
        return Err(std::io::Error::other("usage: promqltest DIR_OR_FILE..."));
    }
    let (mut passed, mut failed) = (0, 0);
    for file in scripts(arguments)? {
        let text = fs::read_to_string(&file)?;
        let report = run_script(&text, &mut InMemory::default());
        writeln!(out, "{}: {} passed, {} failed", file.display(), report.passed, report.failures.len())?;
        for (line, message) in &report.failures {
            writeln!(out, "  {}:{line}: {message}", file.display())?;
        }
        passed += report.passed;
        failed += report.failures.len();
    }
    writeln!(out, "{passed} passed, {failed} failed")?;
    Ok(failed == 0)
}

/// Lists the files named, and of folders the files `*.test` in them, sorted.
fn scripts(arguments: &[PathBuf]) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in arguments {
        if path.is_dir() {
            let is_script = |p: &Path| p.extension().is_some_and(|e| e == "test");
            let mut inside: Vec<PathBuf> =
                fs::read_dir(path)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
            inside.retain(|p| is_script(p));
            inside.sort();
            files.append(&mut inside);
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}
