//! `prometheus.yml` as Prometheus 3.14 reads it: strictly, with its defaults and its error texts.
//!
//! ```text
//! text -yaml-> nodes with lines -decode, by tables of fields-> records -checks-> records -typed-> Config
//!                                                                         \----render-> effective YAML
//! ```
//!
//! The file is not read by `serde`: what Prometheus says of a broken file (line, YAML tag, name of its own type,
//! which of several faults comes first) is part of its interface, and so is a scalar's spelling.
//!
//! Invariants:
//! - reading opens the included scrape configs and nothing else: rule files, certificates and secrets stay unread;
//! - the first fault returned is the text that Prometheus prints; others follow it;
//! - nothing is taken from the process's environment: variables of `external_labels` come in as a map.

mod decode;
mod http;
mod mechanisms;
mod providers;
mod render;
mod rules;
mod scalar;
mod schema;
mod sections;
mod typed;

use std::collections::BTreeMap;
use std::path::Path;

use model::number::Quoted;

pub use self::providers::{
    AttachMetadata, Cluster, DnsProvider, DnsRecord, FileProvider, HttpProvider, KubernetesProvider,
    Provider, Role, Selector,
};
use self::schema::{Kind, Record, Value};
pub use self::typed::{
    Alerting, Alertmanagers, Authorization, BasicAuth, Config, Header, Histograms, HttpClient, Job, Limits,
    Otlp, Secret, Tls,
};
use crate::target_group::TargetGroup;

/// The largest configuration or target file, in bytes.
pub const FILE_BYTES_MAX: u64 = yaml_tree::DOCUMENT_BYTES_MAX as u64;
/// How long the file with all its defaults may be, in bytes: it is sent to other services in one message.
pub const EFFECTIVE_BYTES_MAX: usize = 32 << 20;
/// How many files the patterns of `scrape_config_files` may match.
pub const INCLUDED_FILES_MAX: usize = 10_000;

/// The variables that `external_labels` may refer to.
pub type Variables = BTreeMap<String, String>;

/// Reads and checks a configuration file and the scrape configs it includes.
///
/// # Errors
/// All faults found. The first is Prometheus's, as in `parsing YAML file prometheus.yml: job_name is empty`.
pub fn check_config(path: &str, variables: &Variables) -> Result<Config, Vec<String>> {
    let text = read_file(path).map_err(|fault| vec![fault])?;
    check_text(path, &text, variables)
}

/// Checks the text of a configuration file that stands at `path`: relative paths in it start at its folder.
///
/// # Errors
/// As [`check_config`].
pub fn check_text(path: &str, text: &str, variables: &Variables) -> Result<Config, Vec<String>> {
    let mut main = decode::decode(text, &sections::CONFIG)
        .map_err(|mut faults| {
            if let Some(first) = faults.first_mut() {
                *first = format!("parsing YAML file {path}: {first}");
            }
            faults
        })?
        .unwrap_or_else(sections::empty_config);
    expand_external_labels(&mut main, variables);
    set_directory(&mut main, &parent(path));
    let yaml = render::render(&main);
    if yaml.len() > EFFECTIVE_BYTES_MAX {
        let bytes = yaml.len();
        return Err(vec![format!(
            "configuration of {bytes} bytes with its defaults: at most {EFFECTIVE_BYTES_MAX} are allowed"
        )]);
    }
    let included = read_included(&main)?;
    typed::config(&main, &included, yaml)
}

/// Reads a list of target groups in YAML, as files of `file_sd_configs` hold it. Sources are left empty.
///
/// # Errors
/// In Prometheus's words.
pub(crate) fn target_groups(text: &str) -> Result<Vec<TargetGroup>, String> {
    let items = decode::decode_list(text, &mechanisms::GROUP).map_err(|faults| faults.join("; "))?;
    items
        .iter()
        .enumerate()
        .map(|(index, item)| match item {
            Value::Record(group) => Ok(typed::target_group(group, String::new())),
            _ => Err(format!("nil target group item found (index {index})")),
        })
        .collect()
}

/// Reads a text file of bounded size.
pub(crate) fn read_file(path: &str) -> Result<String, String> {
    use std::io::Read as _;

    let fail = |error: &std::io::Error| format!("open {path}: {}", io_text(error));
    let file = std::fs::File::open(path).map_err(|error| fail(&error))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| fail(&error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("read {path}: file exceeds {FILE_BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| format!("read {path}: yaml: control characters are not allowed"))
}

/// The error's text as Go prints it for the cases that users know.
fn io_text(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::IsADirectory => "is a directory".to_owned(),
        _ => error.to_string(),
    }
}

fn parent(path: &str) -> String {
    let parent = Path::new(path).parent().and_then(Path::to_str).unwrap_or("");
    if parent.is_empty() { ".".to_owned() } else { parent.to_owned() }
}

/// Makes the paths in a section relative to where the process runs.
fn set_directory(record: &mut Record, dir: &str) {
    let kinds: Vec<Kind> = record.schema.fields().map(|field| field.kind).collect();
    for (kind, value) in kinds.into_iter().zip(&mut record.values) {
        join_paths(kind, value, dir);
    }
}

fn join_paths(kind: Kind, value: &mut Value, dir: &str) {
    match (kind, value) {
        (Kind::File, Value::Str(path)) => *path = scalar::join_dir(dir, path),
        (Kind::Files, Value::List(items)) => {
            for item in items {
                join_paths(Kind::File, item, dir);
            }
        }
        (_, Value::Record(record)) => set_directory(record, dir),
        (Kind::List(_), Value::List(items)) => {
            for item in items {
                join_paths(Kind::Any, item, dir);
            }
        }
        (Kind::Sections(_), Value::Map(pairs)) => {
            for (_, item) in pairs {
                join_paths(Kind::Any, item, dir);
            }
        }
        _ => {}
    }
}

/// Replaces `$NAME` and `${NAME}` in the values of external labels; `$$` stands for a dollar sign.
fn expand_external_labels(config: &mut Record, variables: &Variables) {
    let Some(global) = config.record_mut("global") else { return };
    let expanded = global.map("external_labels").iter().map(|(name, value)| match value {
        Value::Str(text) => (name.clone(), Value::Str(expand(text, variables))),
        other => (name.clone(), other.clone()),
    });
    let expanded: Vec<_> = expanded.collect();
    if !expanded.is_empty() {
        global.set("external_labels", Value::Map(expanded));
    }
}

fn expand(text: &str, variables: &Variables) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let (name, used) = variable_name(after);
        match name {
            Some("$") => out.push('$'),
            Some(name) => out.push_str(variables.get(name).map_or("", String::as_str)),
            // Go keeps a dollar sign that names nothing and eats a broken brace.
            None if used == 0 => out.push('$'),
            None => {}
        }
        rest = &after[used..];
    }
    out.push_str(rest);
    out
}

/// The name at the start of a text behind a dollar sign, and how many bytes it takes.
fn variable_name(text: &str) -> (Option<&str>, usize) {
    let is_special = |c: char| matches!(c, '*' | '#' | '$' | '@' | '!' | '?' | '-') || c.is_ascii_digit();
    if let Some(braced) = text.strip_prefix('{') {
        return match braced.find('}') {
            Some(0) => (None, 2),
            Some(end) => (Some(&braced[..end]), end + 2),
            None => (None, 1),
        };
    }
    if text.starts_with(is_special) {
        return (Some(&text[..1]), 1);
    }
    let length = text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    if length == 0 { (None, 0) } else { (Some(&text[..length]), length) }
}

/// Reads the jobs of the files that `scrape_config_files` names.
fn read_included(main: &Record) -> Result<Vec<Record>, Vec<String>> {
    let Some(global) = main.record("global") else { return Ok(Vec::new()) };
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for value in main.list("scrape_configs") {
        if let Value::Record(job) = value {
            names.insert(job.str("job_name").to_owned(), "main config file".to_owned());
        }
    }
    let mut jobs = Vec::new();
    let mut faults = Vec::new();
    for path in included_files(main).map_err(|fault| vec![fault])? {
        let shown = Quoted(&absolute(&path)).to_string();
        let read = read_file(&path).map_err(|fault| vec![fault]);
        let decoded = read.and_then(|text| decode::decode(&text, &sections::INCLUDED));
        let mut file = match decoded {
            Ok(Some(file)) => file,
            Ok(None) => continue,
            Err(of_file) => {
                faults.extend(of_file.into_iter().map(|fault| format!("{shown}: {fault}")));
                continue;
            }
        };
        set_directory(&mut file, &parent(&path));
        for value in file.list_mut("scrape_configs") {
            let Value::Record(job) = value else {
                faults.push(format!("{shown}: empty or null scrape config section"));
                continue;
            };
            faults.extend(sections::check_job(job, global).err().map(|fault| format!("{shown}: {fault}")));
            let name = job.str("job_name").to_owned();
            if let Some(first) = names.get(&name) {
                faults.push(format!(
                    "{shown}: found multiple scrape configs with job name {}, first found in {first}",
                    Quoted(&name)
                ));
            }
            names.insert(name, shown.clone());
            jobs.push((**job).clone());
        }
    }
    if faults.is_empty() { Ok(jobs) } else { Err(faults) }
}

fn included_files(main: &Record) -> Result<Vec<String>, String> {
    let mut files = Vec::new();
    for pattern in main.strings("scrape_config_files") {
        let fail =
            |error: String| format!("error retrieving scrape config files for {}: {error}", Quoted(&pattern));
        let matches = glob::glob(&pattern).map_err(|error| fail(error.to_string()))?;
        for path in matches {
            let path = path.map_err(|error| fail(error.to_string()))?;
            files.push(path.to_string_lossy().into_owned());
            if files.len() > INCLUDED_FILES_MAX {
                return Err(format!("scrape_config_files match more than {INCLUDED_FILES_MAX} files"));
            }
        }
    }
    Ok(files)
}

pub(crate) fn absolute(path: &str) -> String {
    std::path::absolute(path).map_or_else(|_| path.to_owned(), |path| path.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests;
