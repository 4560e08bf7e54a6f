//! Our own scripts notice what goes wrong: with one fault after the other planted in the engine, the runner that passes
//! them all otherwise fails.
//!
//! The runner's files are those of `promqltest`; no crate below the tests' own could hold them for both.
#![expect(unreachable_pub, reason = "these files are part of a library elsewhere")]

#[path = "../../../integration-tests/src/promqltest/apart.rs"]
mod apart;
#[path = "../../../integration-tests/src/promqltest/compare.rs"]
mod compare;
#[path = "../../../integration-tests/src/promqltest/run.rs"]
mod run;
#[path = "../../../integration-tests/src/promqltest/script.rs"]
mod script;
#[path = "../../../integration-tests/src/promqltest/store.rs"]
mod store;

use std::fs;
use std::path::Path;

use promql_engine::faults::{Fault, plant};
use run::{InMemory, Report, run_script};

/// Runs all scripts with a fault; returns how many evals passed, and what failed as `file:line: message`.
fn run_all(fault: Option<Fault>) -> (usize, Vec<String>) {
    plant(fault);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let (mut passed, mut failures) = (0, Vec::new());
    for entry in fs::read_dir(folder).expect("the folder of our scripts") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("a script");
        let Report { passed: more, failures: failed } = run_script(&text, &mut InMemory::default());
        passed += more;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        failures.extend(failed.iter().map(|(line, message)| format!("{name}:{line}: {message}")));
    }
    plant(None);
    (passed, failures)
}

#[test]
fn every_planted_fault_is_noticed() {
    let (passed, failures) = run_all(None);
    assert_eq!(failures, [""; 0], "without a fault everything passes");
    let mut unnoticed = Vec::new();
    for fault in Fault::ALL {
        let (still_passed, failures) = run_all(Some(fault));
        assert_eq!(passed, still_passed + failures.len(), "{fault:?}: every eval passes or fails");
        if failures.is_empty() {
            unnoticed.push(fault);
        }
    }
    assert_eq!(unnoticed, [], "of {} faults", Fault::ALL.len());
}
