use super::*;
use crate::prometheus_config::{Config, Variables, check_text};

fn config(yaml: &str) -> Config {
    check_text(
        "p.yml",
        &format!("global: {{scrape_interval: 15s}}\nscrape_configs:\n{yaml}"),
        &Variables::new(),
    )
    .expect("loads")
}

fn group(addresses: &[&str], labels: &[(&str, &str)]) -> TargetGroup {
    let labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    TargetGroup::new("0", addresses.iter().map(|a| (*a).to_owned()).collect(), labels)
}

fn pool(job: &str, groups: &[TargetGroup]) -> Pool {
    build_pool(&config(job).jobs[0], groups)
}

#[test]
fn labels_and_urls_follow_the_job_the_group_and_the_rules() {
    let relabel = |rules: &str| format!("- {{job_name: j, relabel_configs: [{rules}]}}\n");
    let cases: Vec<(&str, String, &str, &str)> = vec![
        ("plain", "- job_name: j\n".into(), r#"{instance="h:1", job="j", x="y"}"#, "http://h:1/metrics"),
        (
            "params, path and scheme",
            "- {job_name: j, scheme: https, metrics_path: probe, params: {b: ['1 2', é], a: ['&']}}\n".into(),
            r#"{instance="h:1", job="j", x="y"}"#,
            "https://h:1/probe?a=%26&b=1+2&b=%C3%A9",
        ),
        (
            "a parameter is overridden by its label",
            "- {job_name: j, params: {m: [a, b]}, relabel_configs: [{target_label: __param_m, replacement: c}, {target_label: __param_n, replacement: d}]}\n".into(),
            r#"{instance="h:1", job="j", x="y"}"#,
            "http://h:1/metrics?m=c&m=b&n=d",
        ),
        (
            "job and instance from rules",
            relabel("{target_label: job, replacement: k}, {target_label: instance, replacement: i}"),
            r#"{instance="i", job="k", x="y"}"#,
            "http://h:1/metrics",
        ),
        (
            "address and path from rules",
            relabel("{target_label: __address__, replacement: 'z:9'}, {target_label: __metrics_path__, replacement: '/a b?'}"),
            r#"{instance="z:9", job="j", x="y"}"#,
            "http://z:9/a%20b%3F",
        ),
        (
            "meta labels and temporary ones vanish",
            relabel("{source_labels: [__meta_m], target_label: m}, {target_label: __tmp, replacement: t}"),
            r#"{instance="h:1", job="j", m="1", x="y"}"#,
            "http://h:1/metrics",
        ),
    ];
    for (name, job, labels, url) in cases {
        let pool = pool(&job, &[group(&["h:1"], &[("x", "y"), ("__meta_m", "1")])]);
        assert_eq!(pool.failures, Vec::<String>::new(), "{name}");
        let target = &pool.targets[0];
        assert_eq!((target.labels.to_string().as_str(), target.url.as_str()), (labels, url), "{name}");
    }
}

#[test]
fn discovered_labels_are_those_before_the_rules() {
    let pool = pool(
        "- {job_name: j, params: {p: [q]}, relabel_configs: [{target_label: job, replacement: k}]}\n",
        &[group(&["h:1"], &[("__scheme__", "https"), ("__meta_m", "1")])],
    );
    assert_eq!(
        pool.targets[0].discovered_labels.to_string(),
        r#"{__address__="h:1", __meta_m="1", __metrics_path__="/metrics", __param_p="q", __scheme__="https", __scrape_interval__="15s", __scrape_timeout__="10s", job="j"}"#
    );
    assert_eq!(pool.targets[0].url, "https://h:1/metrics?p=q");
}

#[test]
fn targets_that_cannot_be_are_told_by_their_place() {
    let interval = |value: &str| {
        format!(
            "- {{job_name: j, relabel_configs: [{{target_label: __scrape_interval__, replacement: {value}}}]}}\n"
        )
    };
    for (job, address, fault) in [
        ("- job_name: j\n".to_owned(), "", "no address"),
        (
            "- {job_name: j, relabel_configs: [{target_label: x, replacement: y}]}\n".to_owned(),
            "http://h",
            "\"http://h\" is not a valid hostname",
        ),
        (interval("x"), "h", "error parsing scrape interval: not a valid duration string: \"x\""),
        (interval("0s"), "h", "scrape interval cannot be 0"),
        (interval("1s"), "h", "scrape timeout cannot be greater than scrape interval (\"10s\" > \"1s\")"),
    ] {
        let pool = pool(&job, &[group(&["good", address], &[("__scrape_timeout__", "10s")])]);
        assert!(
            pool.failures.contains(&format!("instance 1 in group 0: {fault}")),
            "{fault}: {:?}",
            pool.failures
        );
    }
}

#[test]
fn equal_targets_are_one_and_dropped_ones_are_counted() {
    let job = "- job_name: j\n  keep_dropped_targets: 2\n  relabel_configs:\n  - {source_labels: [__address__], regex: 'd.*', action: drop}\n";
    let pool = pool(job, &[group(&["a", "b", "d1"], &[]), group(&["a", "d2", "d3"], &[("__meta_x", "2")])]);
    let mut urls: Vec<_> = pool.targets.iter().map(|target| target.url.as_str()).collect();
    urls.sort_unstable();
    assert_eq!(urls, ["http://a/metrics", "http://b/metrics"], "no port is added");
    assert_eq!((pool.dropped.len(), pool.dropped_count), (2, 3));
    assert_eq!(pool.dropped[0].value("__address__"), "d1");
}

#[test]
fn above_the_limit_every_target_of_the_pool_fails() {
    for (count, error) in [(2, ""), (3, "target_limit exceeded (number of targets: 3, limit: 2)")] {
        let addresses: Vec<String> = (0..count).map(|i| format!("h{i}")).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let pool = pool("- {job_name: j, target_limit: 2}\n", &[group(&addresses, &[])]);
        assert_eq!(pool.is_limit_exceeded, !error.is_empty());
        assert!(pool.targets.iter().all(|target| target.error == error) && pool.targets.len() == count);
    }
}

#[test]
fn a_job_that_asks_for_what_is_not_built_is_not_scraped_otherwise() {
    let job = "- {job_name: j, oauth2: {client_id: i, token_url: 'http://t'}}\n";
    assert_eq!(pool(job, &[group(&["a"], &[])]).targets[0].error, "not supported yet: oauth2");
    let socket = pool("- job_name: j\n", &[group(&["a"], &[("__unix_socket__", "/run/x")])]);
    assert_eq!(socket.targets[0].error, "not supported yet: __unix_socket__");
}

#[test]
fn hashes_are_those_of_the_reference() {
    // Computed by a Python rendering of XXH64 over the encoding that the reference documents.
    let job = "- job_name: prometheus\n";
    let short = pool(job, &[group(&["localhost:9090"], &[])]);
    assert_eq!(short.targets[0].labels_hash, 5_217_725_566_448_221_429);
    let long = pool(job, &[group(&["localhost:9090"], &[("long", &"v".repeat(300))])]);
    assert_eq!(long.targets[0].labels_hash, 7_525_907_734_513_843_383);
}

#[test]
fn identity_is_job_labels_and_url() {
    let id = |job: &str, address: &str, labels: &[(&str, &str)]| {
        pool(job, &[group(&[address], labels)]).targets[0].id
    };
    let base = id("- job_name: j\n", "a", &[]);
    assert_eq!(
        base,
        id("- {job_name: j, scrape_interval: 30s}\n", "a", &[("__meta_x", "1")]),
        "neither counts"
    );
    for other in [
        id("- {job_name: k, relabel_configs: [{target_label: job, replacement: j}]}\n", "a", &[]),
        id("- job_name: j\n", "a", &[("x", "1")]),
        id("- {job_name: j, metrics_path: /m}\n", "a", &[]),
    ] {
        assert_ne!(base, other);
    }
    assert_eq!(base.to_string().len(), 32);
}
