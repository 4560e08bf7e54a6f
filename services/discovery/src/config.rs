//! What the service's own file says.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use service_runtime::ConfigDuration;

use crate::prometheus_config::check_config;

/// The longest that changes of targets may be held back.
const TARGET_UPDATE_INTERVAL_MAX: Duration = Duration::from_secs(3600);

/// The service's own file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Path of `prometheus.yml`.
    pub config_file: String,
    /// What `$NAME` stands for in `global.external_labels`. Whoever starts the service may put the environment of the
    /// process here; the service itself never looks there.
    pub environment: BTreeMap<String, String>,
    /// PromQL features that are on, by the names of `--enable-feature`: rule files may use them.
    pub features: Vec<String>,
    /// How far apart scrapers are told of targets that came and went; a reload is told at once.
    pub target_update_interval: ConfigDuration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            config_file: "prometheus.yml".to_owned(),
            environment: BTreeMap::new(),
            features: Vec::new(),
            target_update_interval: ConfigDuration::from_secs(5),
        }
    }
}

impl service_runtime::Config for Config {
    /// Checks the configuration file as well: a broken one is told, with all its faults, before anything starts.
    fn validate(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.target_update_interval.0 > TARGET_UPDATE_INTERVAL_MAX {
            faults.push("target_update_interval: want at most 1h".to_owned());
        }
        faults.extend(check_config(&self.config_file, &self.environment).err().unwrap_or_default());
        faults
    }
}

#[cfg(test)]
mod tests {
    use service_runtime::{Config as _, parse_config};

    use super::*;

    #[test]
    fn the_defaults_are_these() {
        let defaults = format!("{:#?}\n", Config::default());
        test_kit::golden(env!("CARGO_MANIFEST_DIR"), "default-config.txt", &defaults);
    }

    #[test]
    fn the_default_is_as_documented() {
        assert_eq!(
            format!("{:?}", Config::default()),
            r#"Config { config_file: "prometheus.yml", environment: {}, features: [], target_update_interval: 5s }"#
        );
    }

    #[test]
    fn a_broken_file_is_found_before_the_start() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("p.yml");
        std::fs::write(&path, "scrape_configs:\n- job_name: ''\n").expect("written");
        let yaml = format!("config_file: {}\ntarget_update_interval: 2h\n", path.display());
        let expected = vec![
            "target_update_interval: want at most 1h".to_owned(),
            format!("parsing YAML file {}: job_name is empty", path.display()),
        ];
        assert_eq!(parse_config::<Config>(&yaml), Err(expected));
        std::fs::write(&path, "").expect("written");
        let config = Config { config_file: path.display().to_string(), ..Config::default() };
        assert!(config.validate().is_empty());
    }
}
