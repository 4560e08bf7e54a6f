//! A service's own file: YAML in, a checked value or all of its faults out.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use crate::Arguments;

/// How many faults are listed; who has more has the wrong file.
const FAULTS_MAX: usize = 100;
/// The largest config file.
const CONFIG_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a service's own file says. `Default` is the file that is empty.
pub trait Config: DeserializeOwned + Default + Send + 'static {
    /// Takes what the program was started with besides the file. Called before `validate`.
    fn override_with(&mut self, _overrides: &Overrides) {}

    /// Returns all that is wrong with the values, each with the path of its field.
    fn validate(&self) -> Vec<String>;

    /// Takes over the flags that only some roles have, before [`Config::validate`]; returns what is wrong with them.
    fn take_flags(&mut self, arguments: &Arguments) -> Vec<String> {
        let otlp = [arguments.refuse_otlp_grpc(), arguments.refuse_otlp_http()];
        otlp.into_iter().flatten().chain(arguments.refuse_web()).collect()
    }
}

/// What a program was started with that is stronger than a service's own file, or fills what it leaves open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--storage.url`.
    pub storage_url: Option<String>,
    /// Every flag, as [`parse_flags`](crate::parse_flags) shows it.
    pub flags: BTreeMap<String, String>,
    /// The environment of the process, as far as it is text.
    pub variables: BTreeMap<String, String>,
}

impl Overrides {
    /// Reads the environment.
    #[must_use]
    pub fn of_process(storage_url: Option<String>, flags: BTreeMap<String, String>) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that hands the environment on as a value"
        )]
        let variables = std::env::vars_os();
        let variables = variables.filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Self { storage_url, flags, variables: variables.collect() }
    }
}

impl Config for () {
    fn validate(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Reads a config from YAML alone and checks it.
///
/// # Errors
/// As [`read_config`].
pub fn parse_config<C: Config>(yaml: &str) -> Result<C, Vec<String>> {
    read_config(yaml, &Overrides::default())
}

/// Reads a config from YAML, takes the overrides over, and checks the result.
///
/// # Errors
/// All faults at once: unknown keys and wrong types by their paths, then whatever `validate` finds in the rest.
pub fn read_config<C: Config>(yaml: &str, overrides: &Overrides) -> Result<C, Vec<String>> {
    let validated = |config, faults| validated::<C>(config, overrides, faults);
    if yaml.len() > CONFIG_BYTES_MAX {
        return Err(vec![format!("file of {} bytes: at most {CONFIG_BYTES_MAX} are allowed", yaml.len())]);
    }
    if yaml.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return validated(C::default(), Vec::new());
    }
    match serde_saphyr::from_str::<C>(yaml) {
        Ok(config) => validated(config, Vec::new()),
        Err(error) => {
            let first = error.to_string();
            let Ok(tree) = serde_saphyr::from_str::<Value>(yaml) else { return Err(vec![first]) };
            let (rest, faults) = repaired::<C>(tree);
            // A fault that the tree no longer shows (an anchor, a duplicate key) is told in the parser's words.
            let faults = if faults.is_empty() { vec![first] } else { faults };
            validated(rest.unwrap_or_default(), faults)
        }
    }
}

fn validated<C: Config>(
    mut config: C,
    overrides: &Overrides,
    mut faults: Vec<String>,
) -> Result<C, Vec<String>> {
    config.override_with(overrides);
    faults.extend(config.validate());
    faults.truncate(FAULTS_MAX);
    if faults.is_empty() { Ok(config) } else { Err(faults) }
}

/// Reads as much of the tree as can be read: each fault is noted, what caused it is cut out, and the rest is tried
/// again. A deserializer stops at its first fault; an operator wants to see all of them.
fn repaired<C: Config>(mut tree: Value) -> (Option<C>, Vec<String>) {
    let mut faults = Vec::new();
    while faults.len() < FAULTS_MAX {
        let error = match serde_path_to_error::deserialize::<_, C>(&tree) {
            Ok(config) => return (Some(config), faults),
            Err(error) => error,
        };
        let path = error.path().clone();
        faults.push(match path.iter().next() {
            None => error.inner().to_string(),
            Some(_) => format!("{path}: {}", error.inner()),
        });
        if !cut(&mut tree, &path) {
            break;
        }
    }
    (None, faults)
}

/// Removes what the path names, or as much above it as can be removed. Returns whether anything was.
fn cut(tree: &mut Value, path: &Path) -> bool {
    let segments: Vec<&Segment> = path.iter().collect();
    (1..=segments.len()).rev().any(|depth| {
        let mut node = Some(&mut *tree);
        for segment in &segments[..depth - 1] {
            node = node.and_then(|node| match segment {
                Segment::Map { key } => node.get_mut(key.as_str()),
                Segment::Seq { index } => node.get_mut(*index),
                Segment::Enum { .. } | Segment::Unknown => None,
            });
        }
        match (node, segments[depth - 1]) {
            (Some(Value::Object(map)), Segment::Map { key }) => map.remove(key.as_str()).is_some(),
            (Some(Value::Array(list)), Segment::Seq { index }) if *index < list.len() => {
                list.remove(*index);
                true
            }
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Sample {
        name: String,
        shards: u32,
        flush: Flush,
        peers: Vec<Peer>,
    }

    #[derive(Debug, PartialEq, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Flush {
        rows: u64,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Peer {
        address: String,
    }

    impl Default for Sample {
        fn default() -> Self {
            Self { name: "x".into(), shards: 4, flush: Flush { rows: 10 }, peers: Vec::new() }
        }
    }

    impl Config for Sample {
        fn validate(&self) -> Vec<String> {
            let mut faults = Vec::new();
            if self.shards == 0 {
                faults.push("shards: want at least 1".to_owned());
            }
            if self.name.is_empty() {
                faults.push("name: must not be empty".to_owned());
            }
            faults
        }
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        for empty in ["", "\n", "# nothing\n  # at all\n"] {
            assert_eq!(parse_config::<Sample>(empty), Ok(Sample::default()));
        }
        let config = parse_config::<Sample>("shards: 2\npeers: [{address: 'h:1'}]\n").expect("good");
        let peers = vec![Peer { address: "h:1".into() }];
        assert_eq!(config, Sample { shards: 2, peers, ..Sample::default() });
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let yaml =
            "name: ''\nshards: many\nflush: {rows: -1, colour: red}\npeers: [{}, {address: a}]\nother: 1\n";
        let faults = parse_config::<Sample>(yaml).expect_err("bad");
        let starts = [
            "flush.colour: unknown field `colour`",
            "flush.rows: invalid value: integer `-1`",
            "name: must not be empty",
            "other: unknown field `other`",
            "peers[0]: missing field `address`",
            "shards: invalid type: string \"many\"",
        ];
        let mut sorted = faults.clone();
        sorted.sort();
        assert_eq!(sorted.len(), starts.len(), "{faults:#?}");
        for (fault, start) in sorted.iter().zip(starts) {
            assert!(fault.starts_with(start), "{fault} / {start}");
        }
        assert_eq!(faults.last().map(String::as_str), Some("name: must not be empty"), "values come last");
    }

    #[test]
    fn what_is_no_mapping_at_all_is_told_once() {
        for (yaml, part) in
            [("just text", "invalid type"), ("a: [", ""), ("shards: 1\nshards: 2\n", "duplicate")]
        {
            let faults = parse_config::<Sample>(yaml).expect_err(yaml);
            assert!(faults.len() == 1 && faults[0].contains(part), "{yaml:?}: {faults:?}");
        }
    }

    #[test]
    fn limits_refuse_what_is_above_them() {
        let long = "#".repeat(CONFIG_BYTES_MAX + 1);
        assert_eq!(parse_config::<Sample>(&long).expect_err("long").len(), 1);
        let many: String = (0..2 * FAULTS_MAX).map(|i| format!("k{i}: 1\n")).collect();
        assert_eq!(parse_config::<Sample>(&many).expect_err("many").len(), FAULTS_MAX);
    }
}
