//! Configuration files that Prometheus loads or refuses, kept outside the repository.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use discovery::prometheus_config::{Variables, check_config};

/// Files whose outcome is known to differ. A file that comes out right must leave this list.
const KNOWN_TO_DIFFER: [&str; 0] = [];

/// Plain `.yml` files load, but for this one: Prometheus 3 knows no other Alertmanager API than v2.
const REFUSED_WITHOUT_SAYING_SO: [&str; 1] = ["config_with_deprecated_am_api_config.yml"];

/// Files that are refused when their includes are read, as their names say.
fn is_refused(name: &str) -> bool {
    name.ends_with(".bad.yml")
        || name.ends_with(".incompatible.yml")
        || REFUSED_WITHOUT_SAYING_SO.contains(&name)
}

#[expect(clippy::print_stdout, reason = "a skipped test says so")]
fn folder() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance/config");
    if folder.is_dir() {
        return Some(folder);
    }
    #[expect(clippy::disallowed_methods, reason = "a test asks whether it may be skipped")]
    let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!is_ci, "conformance data is missing: {}", folder.display());
    println!("SKIPPED conformance (no {})", folder.display());
    None
}

/// The texts that load errors contain, by file; paths in them name the folder of the reference's own test.
fn expected_errors(folder: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(folder.join("expected-errors.tsv")).expect("table of errors");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once('\t'))
        .map(|(file, error)| (file.to_owned(), error.replace("testdata/", &format!("{}/", folder.display()))))
        .collect()
}

fn outcome(path: &Path, name: &str, expected: Option<&String>) -> Result<(), String> {
    let variables = Variables::from([("TEST".to_owned(), "value".to_owned())]);
    match (check_config(&path.to_string_lossy(), &variables), is_refused(name)) {
        (Ok(_), false) => Ok(()),
        (Ok(_), true) => Err("loaded, should be refused".to_owned()),
        (Err(faults), false) => Err(format!("should load: {faults:?}")),
        (Err(faults), true) => match expected {
            Some(text) if !faults[0].contains(text.as_str()) => {
                Err(format!("said {:?}, should contain {text:?}", faults[0]))
            }
            _ => Ok(()),
        },
    }
}

#[test]
fn files_load_and_are_refused_as_by_prometheus() {
    let Some(folder) = folder() else { return };
    let expected = expected_errors(&folder);
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .expect("folder can be listed")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".yml"))
        .collect();
    names.sort();
    let mut differing = BTreeSet::new();
    for name in &names {
        match outcome(&folder.join(name), name, expected.get(name)) {
            Ok(()) => println!("ok     {name}"),
            Err(why) => {
                println!("DIFFER {name}: {why}");
                differing.insert(name.as_str());
            }
        }
    }
    println!("{} passed, {} failed", names.len() - differing.len(), differing.len());
    assert!(names.len() > 150 && expected.len() > 80, "the corpus is not complete");
    assert_eq!(differing, BTreeSet::from(KNOWN_TO_DIFFER), "differing files against the list of known ones");
}
