//! Target groups to Alertmanagers: where alerts go.
//!
//! Pure functions over values, as `targets` is for what is scraped.

use std::collections::HashSet;

use model::Labels;
use model::number::Quoted;

use crate::prometheus_config::Alertmanagers;
use crate::target_group::{ADDRESS, TargetGroup};
use crate::targets::{SCHEME, url_without_params};

/// The label that holds the path at which alerts are taken.
const ALERTS_PATH: &str = "__alerts_path__";
/// What a path ends with, behind the prefix.
const API_PATH: &str = "/api/v2/alerts";
/// How many Alertmanagers one entry may have: each is sent every alert.
const ALERTMANAGERS_MAX: usize = 1_000;

/// The Alertmanagers of one entry of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Found {
    /// Where alerts go, each once, in the order found.
    pub(crate) urls: Vec<String>,
    /// Those that relabelling dropped.
    pub(crate) dropped: Vec<String>,
    /// How many targets there were.
    pub(crate) discovered: usize,
    /// Why groups of others could not be used.
    pub(crate) failures: Vec<String>,
}

/// Makes the Alertmanagers of an entry out of all groups that its providers found.
pub(crate) fn find<'a>(config: &Alertmanagers, groups: impl IntoIterator<Item = &'a TargetGroup>) -> Found {
    let mut found = Found::default();
    let mut known = HashSet::new();
    let path = alerts_path(&config.path_prefix);
    for group in groups {
        found.discovered += group.targets.len();
        match of_group(config, &path, group) {
            Ok((urls, dropped)) => {
                found.urls.extend(urls.into_iter().filter(|url| known.insert(url.clone())));
                found.dropped.extend(dropped);
            }
            // As in Prometheus, one wrong address costs its whole group.
            Err(why) => found.failures.push(format!("group {}: {why}", group.source)),
        }
    }
    if found.urls.len() > ALERTMANAGERS_MAX {
        found
            .failures
            .push(format!("{} Alertmanagers, at most {ALERTMANAGERS_MAX} are used", found.urls.len()));
        found.urls.truncate(ALERTMANAGERS_MAX);
    }
    found
}

/// The Alertmanagers of a group, and those that relabelling drops.
fn of_group(
    config: &Alertmanagers,
    path: &str,
    group: &TargetGroup,
) -> Result<(Vec<String>, Vec<String>), String> {
    let (mut urls, mut dropped) = (Vec::new(), Vec::new());
    for target in &group.targets {
        let discovered = discovered_labels(config, path, group, target);
        let Some(labels) = relabel::apply(&discovered, &config.relabel) else {
            dropped.push(url_without_params(&discovered, ALERTS_PATH));
            continue;
        };
        let address = labels.value(ADDRESS);
        if address.contains('/') {
            return Err(format!("{} is not a valid hostname", Quoted(address)));
        }
        urls.push(url_without_params(&labels, ALERTS_PATH));
    }
    Ok((urls, dropped))
}

/// The labels of an Alertmanager before relabelling.
fn discovered_labels(config: &Alertmanagers, path: &str, group: &TargetGroup, target: &Labels) -> Labels {
    let mut labels = target.to_builder();
    labels.set(SCHEME, config.scheme.as_str()).set(ALERTS_PATH, path);
    for (name, value) in &group.labels {
        if !target.has(name) {
            labels.set(name, value);
        }
    }
    labels.build()
}

/// The path at which alerts are taken behind a prefix, cleaned as Go's `path.Join` does.
fn alerts_path(prefix: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in prefix.split('/').chain(API_PATH.split('/')) {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prometheus_config::{Variables, check_text};

    fn found(entry: &str) -> Found {
        let yaml = format!("alerting: {{alertmanagers: [{entry}]}}\n");
        let config = check_text("p.yml", &yaml, &Variables::new()).expect("loads");
        let entry = &config.alerting.alertmanagers[0];
        find(entry, &entry.static_groups)
    }

    #[test]
    fn scheme_and_path_come_from_the_entry_and_from_labels() {
        for (entry, url) in [
            ("{static_configs: [{targets: ['am:9093']}]}", "http://am:9093/api/v2/alerts"),
            (
                "{scheme: https, path_prefix: /a//b/, static_configs: [{targets: [am]}]}",
                "https://am/a/b/api/v2/alerts",
            ),
            ("{path_prefix: ../x, static_configs: [{targets: [am]}]}", "http://am/x/api/v2/alerts"),
            (
                "{static_configs: [{targets: [am], labels: {__scheme__: https, __alerts_path__: p}}]}",
                "https://am/p",
            ),
            (
                "{static_configs: [{targets: [am]}], relabel_configs: [{target_label: __address__, replacement: 'other:1'}]}",
                "http://other:1/api/v2/alerts",
            ),
        ] {
            assert_eq!(found(entry).urls, [url], "{entry}");
        }
    }

    #[test]
    fn each_counts_once_and_those_dropped_are_kept_apart() {
        let found = found(
            "{static_configs: [{targets: [a, b, a]}, {targets: [b, c/d, e]}, {targets: [f]}], \
             relabel_configs: [{source_labels: [__address__], regex: b, action: drop}]}",
        );
        assert_eq!(found.urls, ["http://a/api/v2/alerts", "http://f/api/v2/alerts"]);
        assert_eq!(found.dropped, ["http://b/api/v2/alerts"]);
        assert_eq!(found.failures, ["group 1: \"c/d\" is not a valid hostname"]);
        assert_eq!(found.discovered, 7);
    }

    #[test]
    fn there_are_not_too_many() {
        let targets: Vec<String> = (0..=ALERTMANAGERS_MAX).map(|i| format!("a{i}")).collect();
        let found = found(&format!("{{static_configs: [{{targets: [{}]}}]}}", targets.join(",")));
        assert_eq!(found.urls.len(), ALERTMANAGERS_MAX);
        assert_eq!(found.failures, ["1001 Alertmanagers, at most 1000 are used"]);
    }
}
