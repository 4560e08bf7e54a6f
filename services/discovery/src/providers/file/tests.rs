use std::time::Duration;

use super::*;

struct Files {
    folder: tempfile::TempDir,
    metrics: Metrics,
    last: GroupsByFile,
}

impl Files {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("folder"),
            metrics: Metrics::default(),
            last: GroupsByFile::new(),
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("written");
    }

    /// Reads all files and returns the addresses by file name.
    fn read(&mut self) -> Vec<(String, Vec<String>)> {
        let patterns = ["*.json", "*.yml"].map(|pattern| self.path(pattern)).to_vec();
        let provider = FileProvider { patterns, refresh_interval: Duration::from_secs(300) };
        self.last = read(&provider, &self.last, &self.metrics);
        let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        self.last
            .iter()
            .map(|(path, groups)| {
                (
                    name(path),
                    groups
                        .iter()
                        .flat_map(|g| &g.targets)
                        .map(|t| t.value("__address__").to_owned())
                        .collect(),
                )
            })
            .collect()
    }
}

fn file(name: &str, addresses: &[&str]) -> (String, Vec<String>) {
    (name.to_owned(), addresses.iter().map(|a| (*a).to_owned()).collect())
}

#[test]
fn both_formats_are_read_and_name_their_file() {
    let mut files = Files::new();
    files.write("a.json", r#"[{"targets": ["h:1", "h:2"], "labels": {"x": "1"}}, {"targets": ["h:3"]}]"#);
    files.write("b.yml", "- targets: ['h:4']\n  labels: {x: '2'}\n");
    files.write("c.txt", "not read");
    assert_eq!(files.read(), [file("a.json", &["h:1", "h:2", "h:3"]), file("b.yml", &["h:4"])]);
    let path = files.path("a.json");
    let groups = &files.last[&path];
    assert_eq!(groups[1].source, format!("{path}:1"));
    assert_eq!(groups[0].labels, Labels::from_pairs([("x", "1"), (FILEPATH, path.as_str())]));
}

#[test]
fn a_file_that_cannot_be_read_keeps_its_last_targets_until_it_is_gone() {
    let mut files = Files::new();
    files.write("a.json", r#"[{"targets": ["h:1"]}]"#);
    files.write("b.yml", "- targets: ['h:2']\n");
    let good = [file("a.json", &["h:1"]), file("b.yml", &["h:2"])];
    assert_eq!(files.read(), good);
    for (broken, errors) in
        [("[", 1), ("[null]", 2), (r#"[{"target": []}]"#, 3), (r#"[{"labels": {"a": 1}}]"#, 4)]
    {
        files.write("a.json", broken);
        assert_eq!(files.read(), good, "{broken}");
        assert_eq!(files.metrics.file_read_errors.get(), errors);
    }
    std::fs::remove_file(files.path("a.json")).expect("removed");
    assert_eq!(files.read(), [file("b.yml", &["h:2"])]);
    files.write("c.yml", "nonsense: [");
    assert_eq!(files.read(), [file("b.yml", &["h:2"])], "nothing to keep");
}

#[test]
fn a_file_with_too_many_targets_is_refused() {
    let mut files = Files::new();
    let list = |count: usize| format!("[{{\"targets\": [{}]}}]", vec!["\"h\""; count].join(","));
    files.write("a.json", &list(TARGETS_MAX + 1));
    assert!(files.read().is_empty());
    assert_eq!(files.metrics.file_read_errors.get(), 1);
    files.write("a.json", &list(TARGETS_MAX));
    assert_eq!(files.read()[0].1.len(), TARGETS_MAX);
}

#[test]
fn only_changes_wake_the_reader() {
    use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RemoveKind};
    for (kind, expected) in [
        (EventKind::Access(AccessKind::Read), false),
        (EventKind::Access(AccessKind::Open(AccessMode::Read)), false),
        (EventKind::Access(AccessKind::Close(AccessMode::Read)), false),
        (EventKind::Access(AccessKind::Close(AccessMode::Write)), true),
        (EventKind::Create(CreateKind::File), true),
        (EventKind::Modify(ModifyKind::Any), true),
        (EventKind::Remove(RemoveKind::File), true),
    ] {
        assert_eq!(is_change(kind), expected, "{kind:?}");
    }
}

#[test]
fn files_beyond_the_limit_are_not_read() {
    let mut files = Files::new();
    for i in 0..=FILES_MAX {
        files.write(&format!("{i:05}.json"), "[]");
    }
    let read = files.read();
    assert_eq!((read.len(), files.metrics.file_read_errors.get()), (FILES_MAX, 1));
    assert_eq!(read[FILES_MAX - 1].0, "09999.json");
}
