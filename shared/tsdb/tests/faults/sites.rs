//! The places where something stored changes: read from the source, so that none is left out.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Calls that change what is stored. Each stands in a named place.
const CHANGES: [&str; 20] = [
    ".sync_data()",
    ".sync_all()",
    ".write_all(",
    ".write_at(",
    ".set_len(",
    "fs::rename(",
    "fs::copy(",
    "fs::hard_link(",
    "fs::create_dir",
    "fs::remove_",
    "fs::write(",
    "File::create",
    "File::options",
    "OpenOptions::new()",
    "store.put",
    "store.copy",
    "store.rename",
    "store.delete",
    ".put_part(",
    ".complete()",
];
/// How many lines a name may be away from the call: the call may be begun before it is awaited.
const LINES_BETWEEN: usize = 7;
/// Calls that change nothing that was stored: a file that is there to be locked, an import's scratch folder.
const NO_CHANGES: [&str; 4] = [
    "local.rs: let file = OpenOptions::new()",
    "import.rs: let make = |folder: &Path| std::fs::create_dir_all(folder)",
    "import.rs: std::fs::remove_dir_all(&folder)",
    "import.rs: drop(std::fs::remove_",
];

/// The names of all places, before and after.
pub(crate) fn all() -> BTreeSet<String> {
    let names = sources().into_iter().flat_map(|(_, text)| names(&text)).collect::<Vec<_>>();
    let distinct: BTreeSet<&String> = names.iter().collect();
    assert_eq!(distinct.len(), names.len(), "a name stands for one place: {names:?}");
    names.iter().flat_map(|name| [format!("before {name}"), format!("after {name}")]).collect()
}

fn names(text: &str) -> Vec<String> {
    let parts = text.split("site!(").skip(1);
    parts
        .filter_map(|rest| Some(rest.trim_start().strip_prefix('"')?.split_once('"')?.0.to_owned()))
        .collect()
}

/// The engine's sources without their tests.
fn sources() -> Vec<(PathBuf, String)> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut all = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if !["tests.rs", "testing.rs", "conformance.rs", "golden.rs", "faults.rs"]
                .contains(&&*name)
            {
                let text = fs::read_to_string(&path).expect("a source");
                let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
                all.push((path, text));
            }
        }
    }
    all
}

/// The lines of a source, with calls beside what they are made on.
fn lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        match lines.last_mut() {
            Some(last) if line.trim_start().starts_with('.') => last.push_str(line.trim_start()),
            _ => lines.push(line.to_owned()),
        }
    }
    lines
}

#[test]
fn whatever_changes_what_is_stored_is_a_named_place() {
    let (mut unnamed, mut named) = (Vec::new(), 0);
    for (path, text) in sources() {
        let lines = lines(&text);
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        for (number, line) in lines.iter().enumerate() {
            let is_comment = line.trim_start().starts_with("//");
            // By this name its calls are known above.
            let has_name = !line.contains("dyn ObjectStore") || line.contains("store: ");
            assert!(has_name, "{}: a store of another name: {line}", path.display());
            let is_other =
                NO_CHANGES.iter().any(|known| format!("{file}: {}", line.trim()).starts_with(known));
            if is_comment || is_other || !CHANGES.iter().any(|call| line.contains(call)) {
                continue;
            }
            let around = &lines[number..lines.len().min(number + LINES_BETWEEN)];
            if around.iter().any(|line| line.contains("site!(")) {
                named += 1;
            } else {
                unnamed.push(format!("{}: {}", path.display(), line.trim()));
            }
        }
    }
    assert_eq!(unnamed, [""; 0]);
    assert!(named > 20, "{named}: the sources are read");
}
