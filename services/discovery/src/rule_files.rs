//! The rule files that the configuration names: found, read, and checked as Prometheus checks them.

use std::sync::Arc;

use relabel::NameValidation;
use rules::Options;

use crate::assignment::Work;
use crate::prometheus_config::{self, Config, read_file};

/// How many files the patterns of `rule_files` may match.
pub(crate) const RULE_FILES_MAX: usize = 10_000;
/// How many bytes all of them may have.
pub(crate) const RULE_BYTES_MAX: usize = 256 << 20;

/// A rule file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RuleFile {
    /// Its path, as the pattern found it.
    pub(crate) path: Arc<str>,
    /// What it holds; whoever evaluates it parses it.
    pub(crate) text: Arc<str>,
    /// The names of its groups in order.
    pub(crate) groups: Vec<Arc<str>>,
}

/// What a rule group is known by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RuleGroupId {
    /// Its file.
    pub(crate) file: Arc<str>,
    /// Its name.
    pub(crate) name: Arc<str>,
}

impl Work for RuleGroupId {
    fn work_key(&self) -> Vec<u8> {
        // No path and no name of YAML holds a zero byte, which keeps the two apart.
        [self.file.as_bytes(), &[0], self.name.as_bytes()].concat()
    }
}

/// Reads the rule files of a configuration.
///
/// # Errors
/// What is wrong with the first file that is refused, in Prometheus's words.
pub(crate) fn load(config: &Config, features: &[String]) -> Result<Arc<[RuleFile]>, String> {
    let options = Options {
        validation: if config.is_legacy_names { NameValidation::Legacy } else { NameValidation::Utf8 },
        syntax: promql_syntax::Options::from_features(features),
        ignore_unknown_fields: false,
    };
    let mut files: Vec<RuleFile> = Vec::new();
    let mut bytes = 0;
    for pattern in &config.rule_files {
        let shown = model::number::Quoted(pattern);
        let fail = |error: String| format!("error retrieving rule files for {pattern}: {error}");
        for path in glob::glob(pattern).map_err(|error| fail(error.to_string()))? {
            let path = path.map_err(|error| fail(error.to_string()))?.to_string_lossy().into_owned();
            if files.iter().any(|known| *known.path == *path) {
                continue;
            }
            let text = read_file(&path)?;
            bytes += text.len();
            if files.len() == RULE_FILES_MAX || bytes > RULE_BYTES_MAX {
                return Err(format!(
                    "rule_files match more than {RULE_FILES_MAX} files or {RULE_BYTES_MAX} bytes"
                ));
            }
            let parsed = rules::parse(&text, &options).map_err(|faults| {
                let faults: Vec<_> = faults.iter().map(|fault| format!("{path}: {fault}")).collect();
                let absolute = prometheus_config::absolute(&path);
                let file = model::number::Quoted(&absolute);
                format!("parse rules from file {file} (pattern: {shown}): {}", faults.join("\n"))
            })?;
            let groups = parsed.groups.iter().map(|group| Arc::from(group.name.as_str())).collect();
            files.push(RuleFile { path: path.into(), text: text.into(), groups });
        }
    }
    Ok(files.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prometheus_config::{Variables, check_config};

    fn loaded(config: &str, files: &[(&str, &str)]) -> Result<Vec<(String, Vec<String>)>, String> {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files.iter().chain(&[("p.yml", config)]) {
            std::fs::write(folder.path().join(name), text).expect("written");
        }
        let path = folder.path().join("p.yml").to_string_lossy().into_owned();
        let config = check_config(&path, &Variables::new()).expect("valid");
        let here = folder.path().to_string_lossy().into_owned() + "/";
        match load(&config, &[]) {
            Ok(files) => Ok(files
                .iter()
                .map(|f| (f.path.replace(&here, ""), f.groups.iter().map(|g| g.to_string()).collect()))
                .collect()),
            Err(error) => Err(error.replace(&here, "")),
        }
    }

    #[test]
    fn files_are_found_by_patterns_and_each_is_read_once() {
        let files = [
            ("a.yaml", "groups: [{name: x}, {name: y}]\n"),
            ("b.yaml", ""),
            ("c.yml", "groups: [{name: z}]\n"),
        ];
        let found = loaded("rule_files: ['*.yaml', a.yaml, c.yml, none.yml]\n", &files).expect("valid");
        let groups = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            found,
            [
                ("a.yaml".to_owned(), groups(&["x", "y"])),
                ("b.yaml".to_owned(), groups(&[])),
                ("c.yml".to_owned(), groups(&["z"]))
            ]
        );
        assert_eq!(loaded("", &[]), Ok(Vec::new()));
    }

    #[test]
    fn a_wrong_file_is_told_as_prometheus_tells_it() {
        let files = [("a.yaml", "groups: [{name: x}, {name: x}]\n")];
        let error = loaded("rule_files: ['a.yaml']\n", &files).expect_err("a name twice");
        assert_eq!(
            error,
            "parse rules from file \"a.yaml\" (pattern: \"a.yaml\"): a.yaml: 0:0: groupname: \"x\" is repeated in the same file"
        );
        let files = [("a.yaml", "groups: [{name: x, labels: {'a-b': c}}]\n")];
        let legacy = "global: {metric_name_validation_scheme: legacy}\nrule_files: ['a.yaml']\n";
        assert!(loaded("rule_files: ['a.yaml']\n", &files).is_ok());
        assert!(loaded(legacy, &files).expect_err("not a legacy name").ends_with("invalid label name: a-b"));
    }
}
