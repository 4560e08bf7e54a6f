use std::time::Duration;

use model::Labels;

use super::*;

fn check(text: &str) -> Result<Config, Vec<String>> {
    check_text("p.yml", text, &Variables::new())
}

fn job(config: &Config) -> &Job {
    &config.jobs[0]
}

#[test]
fn refusals_have_prometheus_texts() {
    for (text, fault) in [
        (
            "global:\n  scrape_intervall: 5s\n",
            "yaml: unmarshal errors:\n  line 2: field scrape_intervall not found in type config.plain",
        ),
        (
            "a: 1\nb: 2\n",
            "yaml: unmarshal errors:\n  line 1: field a not found in type config.plain\n  line 2: field b not found in type config.plain",
        ),
        (
            "global:\n  sample_limit: many\n",
            "yaml: unmarshal errors:\n  line 2: cannot unmarshal !!str `many` into uint",
        ),
        (
            "global:\n  sample_limit: [1]\n",
            "yaml: unmarshal errors:\n  line 2: cannot unmarshal !!seq into uint",
        ),
        (
            "scrape_configs:\n- job_name: a\n  honor_labels: 'true'\n",
            "yaml: unmarshal errors:\n  line 3: cannot unmarshal !!str `true` into bool",
        ),
        (
            "scrape_configs:\n- job_name: a\n  params: a-long-string\n",
            "yaml: unmarshal errors:\n  line 3: cannot unmarshal !!str `a-long-...` into map[string][]string",
        ),
        (
            "scrape_configs:\n- job: a\n",
            "yaml: unmarshal errors:\n  line 2: field job not found in type config.ScrapeConfig",
        ),
        ("global: {scrape_interval: 5}\n", "not a valid duration string: \"5\""),
        (
            "global: {scrape_interval: 5s, scrape_timeout: 6s}\n",
            "global scrape timeout greater than scrape interval",
        ),
        ("global: {external_labels: {'': x}}\n", "\"\" is not a valid label name"),
        (
            "global: {external_labels: {a: x, a: y}}\n",
            "yaml: unmarshal errors:\n  line 1: key \"a\" already set in map",
        ),
        ("global: {scrape_protocols: []}\n", "scrape_protocols cannot be empty for global config"),
        ("scrape_configs:\n- scheme: http\n", "job_name is empty"),
        (
            "scrape_configs: [{job_name: a, scrape_interval: 1s, scrape_timeout: 2s}]\n",
            "scrape timeout greater than scrape interval for scrape config with job name \"a\"",
        ),
        (
            "scrape_configs: [{job_name: a, metric_name_escaping_scheme: x}]\n",
            "unknown scrape config name escaping method specified, must be one of 'allow-utf-8', 'underscores', 'dots', or 'values', got \"x\"",
        ),
        (
            "scrape_configs: [{job_name: a, metric_name_validation_scheme: legacy, metric_name_escaping_scheme: allow-utf-8}]\n",
            "utf8 metric names requested but validation scheme is not set to UTF8",
        ),
        (
            "scrape_configs: [{job_name: a, static_configs: [null]}]\n",
            "empty or null section in static_configs",
        ),
        (
            "scrape_configs: [{job_name: a, file_sd_configs: [{files: []}]}]\n",
            "file service discovery config must contain at least one path name",
        ),
        (
            "scrape_configs: [{job_name: a, file_sd_configs: [{files: ['a/*/b.json']}]}]\n",
            "path name \"a/*/b.json\" is not valid for file discovery",
        ),
        (
            "scrape_configs: [{job_name: a, tls_config: {cert_file: c}}]\n",
            "exactly one of key or key_file must be configured when a client certificate is configured",
        ),
        (
            "scrape_configs: [{job_name: a, http_headers: {host: {values: [x]}}}]\n",
            "setting header \"Host\" is not allowed",
        ),
        (
            "scrape_configs: [{job_name: a, no_proxy: x}]\n",
            "if no_proxy is configured, proxy_url must also be configured",
        ),
        (
            "scrape_configs: [{job_name: a, relabel_configs: [{action: explode}]}]\n",
            "unknown relabel action \"explode\"",
        ),
        ("rule_files: ['a/*/b']\n", "invalid rule file path \"a/*/b\""),
        (
            "remote_write: [{url: 'http://a', basic_auth: {username: u}, sigv4: {}}]\n",
            "at most one of basic_auth, authorization, oauth2, sigv4, azuread or google_iam must be configured. Currently configured: [basic_auth sigv4]",
        ),
        (
            "otlp: {promote_all_resource_attributes: true, promote_resource_attributes: [a]}\n",
            "'promote_all_resource_attributes' and 'promote_resource_attributes' cannot be configured simultaneously",
        ),
        ("tracing: {client_type: grpc}\n", "tracing endpoint must be set"),
    ] {
        let faults = check(text).expect_err(text);
        assert_eq!(faults[0], format!("parsing YAML file p.yml: {fault}"), "{text}");
    }
}

#[test]
fn further_faults_follow_the_one_prometheus_stops_at() {
    let text = "global: {nonsense: 1}\nscrape_configs:\n- job_name: a\n  scheme: [x]\n- job_name: ''\n- job_name: b\n  scrape_timeout: 3x\n";
    assert_eq!(
        check(text).expect_err("refused"),
        [
            "parsing YAML file p.yml: job_name is empty",
            "unknown unit \"x\" in duration \"3x\"",
            "line 1: field nonsense not found in type config.plain",
            "line 4: cannot unmarshal !!seq into string",
        ]
    );
    let text = "scrape_configs:\n- {job_name: a, scrape_protocols: [x]}\n- {job_name: b}\n- {job_name: b}\n";
    assert_eq!(check(text).expect_err("refused").len(), 2);
}

#[test]
fn a_missing_or_unreadable_file_is_named() {
    assert_eq!(
        check_config("/nonexistent/p.yml", &Variables::new()).expect_err("refused"),
        ["open /nonexistent/p.yml: no such file or directory"]
    );
}

#[test]
fn jobs_inherit_from_global() {
    let config = check(
        "global:\n  scrape_interval: 5s\n  sample_limit: 7\n  body_size_limit: 1MB\n  target_limit: 3\n  keep_dropped_targets: 2\n  scrape_native_histograms: true\n  metric_name_validation_scheme: legacy\nscrape_configs:\n- job_name: a\n- job_name: b\n  scrape_interval: 1m\n  sample_limit: 9\n  scrape_native_histograms: false\n  metric_name_validation_scheme: utf8\n",
    )
    .expect("loads");
    let [a, b] = [&config.jobs[0], &config.jobs[1]];
    assert_eq!((a.scrape_interval, a.scrape_timeout), (Duration::from_secs(5), Duration::from_secs(5)));
    assert_eq!((b.scrape_interval, b.scrape_timeout), (Duration::from_secs(60), Duration::from_secs(5)));
    assert_eq!((a.limits.samples, a.limits.body_bytes, a.limits.targets), (7, 1 << 20, 3));
    assert_eq!((b.limits.samples, b.limits.kept_dropped_targets), (9, 2));
    assert_eq!(a.scrape_protocols[0], "PrometheusProto");
    assert_eq!(b.scrape_protocols[0], "OpenMetricsText1.0.0");
    assert_eq!((a.escaping_scheme.as_str(), b.escaping_scheme.as_str()), ("underscores", "allow-utf-8"));
}

#[test]
fn the_effective_file_shows_defaults_and_no_secrets() {
    let text = "global: {external_labels: {zone: eu, n: '1'}}
scrape_configs:
- job_name: node
  params: {'match[]': ['{a=\"b\"}', c]}
  basic_auth: {username: u, password: p}
  http_headers: {X-A: {values: [v], secrets: [s]}}
  relabel_configs:
  - {source_labels: [a, 'b,c'], target_label: d, replacement: r}
  static_configs:
  - targets: ['h:1']
    labels: {x: \"on\", m: \"1\\n 2\\n\", n: \"1\\n\\n2\", o: \"1\\n\\n\"}
remote_write: [{url: 'http://u:pw@r/w', bearer_token: t}]
";
    let expected = r#"global:
  scrape_interval: 1m
  scrape_timeout: 10s
  evaluation_interval: 1m
  external_labels:
    "n": "1"
    zone: eu
  metric_name_validation_scheme: utf8
  scrape_native_histograms: false
runtime:
  gogc: 75
scrape_configs:
- job_name: node
  honor_timestamps: true
  track_timestamps_staleness: false
  params:
    match[]:
    - '{a="b"}'
    - c
  scrape_interval: 1m
  scrape_timeout: 10s
  scrape_protocols:
  - OpenMetricsText1.0.0
  - OpenMetricsText0.0.1
  - PrometheusText1.0.0
  - PrometheusText0.0.4
  scrape_native_histograms: false
  always_scrape_classic_histograms: false
  convert_classic_histograms_to_nhcb: false
  metrics_path: /metrics
  scheme: http
  enable_compression: true
  metric_name_validation_scheme: utf8
  metric_name_escaping_scheme: allow-utf-8
  extra_scrape_metrics: false
  basic_auth:
    username: u
    password: <secret>
  follow_redirects: true
  enable_http2: true
  http_headers:
    X-A:
      values:
      - v
      secrets:
      - <secret>
  relabel_configs:
  - source_labels: [a, 'b,c']
    separator: ;
    target_label: d
    replacement: r
    action: replace
  static_configs:
  - targets:
    - h:1
    labels:
      m: |
        1
         2
      "n": |-
        1

        2
      o: |+
        1

      x: "on"
remote_write:
- url: http://u:xxxxx@r/w
  remote_timeout: 30s
  protobuf_message: prometheus.WriteRequest
  authorization:
    type: Bearer
    credentials: <secret>
  follow_redirects: true
  enable_http2: false
  queue_config:
    capacity: 10000
    max_shards: 50
    min_shards: 1
    max_samples_per_send: 2000
    batch_send_deadline: 5s
    min_backoff: 30ms
    max_backoff: 5s
  metadata_config:
    send: true
    send_interval: 1m
    max_samples_per_send: 2000
otlp:
  translation_strategy: UnderscoreEscapingWithSuffixes
  label_name_underscore_sanitization: true
  label_name_preserve_multiple_underscores: true
"#;
    let config = check(text).expect("loads");
    assert_eq!(config.yaml, expected);
    // What is shown can be read back and shows the same.
    assert_eq!(check(&config.yaml).expect("loads").yaml, expected);
    assert_eq!(job(&config).http.basic_auth.as_ref().map(|basic| basic.password.expose()), Some("p"));
    assert_eq!(job(&config).http.headers[0].values, [Secret::from("v"), Secret::from("s")]);
    assert!(!format!("{:?}", job(&config).http).contains("\"p\""), "not in logs either");
}

#[test]
fn variables_are_replaced_in_external_labels_only() {
    let variables = Variables::from([("A".to_owned(), "x".to_owned()), ("A_B".to_owned(), "y".to_owned())]);
    for (text, expanded) in [
        ("$A-${A_B}", "x-y"),
        ("$A_B", "y"),
        ("a$$A", "a$A"),
        ("a$", "a$"),
        ("${NONE}z", "z"),
        ("${}b", "b"),
        ("${Ab", "Ab"),
        ("$1c", "c"),
        ("$.d", "$.d"),
    ] {
        assert_eq!(expand(text, &variables), expanded, "{text}");
    }
    let text = "global: {external_labels: {a: $A, gone: $NONE}}\nscrape_configs: [{job_name: $A}]\n";
    let config = check_text("p.yml", text, &variables).expect("loads");
    assert_eq!(config.external_labels.to_string(), r#"{a="x"}"#);
    assert_eq!(job(&config).name, "$A");
}

#[test]
fn sections_that_are_not_built_are_named() {
    let text = "rule_files: [a.yml]\nremote_write: [{url: 'http://a'}]\nstorage: {tsdb: {out_of_order_time_window: 5m, retention: {time: 1d, size: 1GB, percentage: 5}}}\nscrape_configs:\n- job_name: a\n  oauth2: {client_id: i, token_url: 'http://t'}\n  consul_sd_configs: [{server: x}]\n  file_sd_configs: [{files: [f.json]}]\n  http_sd_configs: [{url: 'http://h', proxy_url: 'http://p'}, {url: 'http://i'}]\n";
    let config = check(text).expect("loads");
    assert_eq!(
        config.ignored_sections,
        [
            "remote_write",
            "scrape_configs.consul_sd_configs",
            "scrape_configs.http_sd_configs.proxy_url",
            "scrape_configs.oauth2",
            "storage.tsdb.retention.percentage"
        ]
    );
    assert_eq!((config.retention_time, config.retention_size_bytes), (Duration::from_secs(86_400), 1 << 30));
    assert_eq!(config.out_of_order_time_window, Some(Duration::from_secs(300)));
    let zero = check("storage: {tsdb: {out_of_order_time_window: 0s}}\n").expect("valid");
    assert_eq!(zero.out_of_order_time_window, Some(Duration::ZERO), "zero is not the same as unset");
    assert_eq!(job(&config).unsupported, ["oauth2"]);
    assert_eq!(job(&config).providers.len(), 2, "an entry that needs a proxy is left out");
    let text = "alerting:\n  alertmanagers:\n  - {sigv4: {}, static_configs: [{targets: [a]}]}\n  - {consul_sd_configs: [{server: x}], timeout: 3s}\n  - {proxy_url: 'http://p'}\n";
    let alerting = check(text).expect("loads");
    assert_eq!(
        alerting.ignored_sections,
        [
            "alerting.alertmanagers.consul_sd_configs",
            "alerting.alertmanagers.proxy_url",
            "alerting.alertmanagers.sigv4"
        ]
    );
    let timeouts = alerting.alerting.alertmanagers.iter().map(|entry| entry.timeout.as_secs());
    assert_eq!(timeouts.collect::<Vec<_>>(), [3], "what would be sent in another way is not sent");
    let plain = check("scrape_configs: [{job_name: a, static_configs: [{targets: [x]}]}]\n").expect("loads");
    assert!(plain.ignored_sections.is_empty() && plain.out_of_order_time_window.is_none());
}

#[test]
fn empty_files_are_the_defaults() {
    for text in ["", "# nothing\n", "global:\n", "runtime:\n"] {
        let config = check(text).expect(text);
        assert!(config.jobs.is_empty());
        assert_eq!(config.evaluation_interval, Duration::from_secs(60));
        assert!(config.yaml.starts_with("global:\n  scrape_interval: 1m\n"), "{}", config.yaml);
    }
}

#[test]
fn anchors_and_merges_are_followed() {
    let text = "scrape_configs:\n- &base\n  job_name: a\n  scrape_interval: 7s\n- <<: *base\n  job_name: b\n";
    let config = check(text).expect("loads");
    let jobs: Vec<_> =
        config.jobs.iter().map(|job| (job.name.as_str(), job.scrape_interval.as_secs())).collect();
    assert_eq!(jobs, [("a", 7), ("b", 7)]);
    let mut bomb = String::from(
        "scrape_configs:\n- job_name: a\n  params:\n    a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n",
    );
    bomb.push_str("x: &b0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n");
    for i in 1..10 {
        let many = vec![format!("*b{}", i - 1); 10].join(", ");
        bomb.push_str(&format!("x{i}: &b{i} [{many}]\n"));
    }
    bomb.push_str("remote_write:\n- url: http://a\n  failed_request_logging: *b9\n");
    let faults = check(&bomb).expect_err("refused");
    assert!(faults[0].ends_with("yaml: document contains excessive aliasing"), "{}", faults[0]);
}

#[test]
fn included_files_add_jobs_with_paths_of_their_own() {
    let folder = tempfile::tempdir().expect("folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    std::fs::create_dir(path("more")).expect("created");
    let write = |name: &str, text: &str| std::fs::write(path(name), text).expect("written");
    write(
        "p.yml",
        "scrape_config_files: ['more/*.yml']\nscrape_configs: [{job_name: a, basic_auth: {username: u, password_file: s}}]\n",
    );
    write("more/b.yml", "scrape_configs: [{job_name: b, basic_auth: {username: u, password_file: s}}]\n");
    let config = check_config(&path("p.yml"), &Variables::new()).expect("loads");
    let files: Vec<_> = config
        .jobs
        .iter()
        .filter_map(|job| Some(job.http.basic_auth.as_ref()?.password_file.clone()))
        .collect();
    assert_eq!(files, [path("s"), path("more/s")]);
    assert!(!config.yaml.contains("job_name: b"), "the main file's jobs only");

    write("more/c.yml", "scrape_configs: [{job_name: b}, {job_name: c, sample_limit: x}]\n");
    write("more/d.yml", "scrape_configs: [{job_name: b}]\n");
    assert_eq!(
        check_config(&path("p.yml"), &Variables::new()).expect_err("refused"),
        [
            format!(
                "\"{}\": yaml: unmarshal errors:\n  line 1: cannot unmarshal !!str `x` into uint",
                path("more/c.yml")
            ),
            format!(
                "\"{}\": found multiple scrape configs with job name \"b\", first found in \"{}\"",
                path("more/d.yml"),
                path("more/b.yml")
            ),
        ]
    );
}

#[test]
fn kubernetes_providers_say_whom_to_ask_for_what() {
    let providers = |entry: &str| {
        let text = format!("scrape_configs: [{{job_name: a, kubernetes_sd_configs: [{entry}]}}]\n");
        let config = check(&text).expect("loads");
        match &job(&config).providers[..] {
            [Provider::Kubernetes(kubernetes)] => kubernetes.clone(),
            other => panic!("{other:?}"),
        }
    };
    let plain = providers("{role: node}");
    assert_eq!((plain.cluster, plain.role, plain.own_namespace), (Cluster::Own, Role::Node, false));
    assert!(plain.namespaces.is_empty() && plain.selectors.is_empty());
    let file = providers("{role: ingress, kubeconfig_file: k, namespaces: {names: [a, b]}}");
    assert_eq!(file.cluster, Cluster::Kubeconfig("k".to_owned()));
    assert_eq!((file.role, file.namespaces), (Role::Ingress, vec!["a".to_owned(), "b".to_owned()]));
    let server = providers(
        "{role: endpointslice, api_server: 'https://k:6443', bearer_token: t, attach_metadata: {node: true, cronjob: true}, selectors: [{role: pod, label: a=b}, {role: service, field: metadata.name=c}]}",
    );
    let Cluster::Server { url, http } = server.cluster else { panic!("a server") };
    assert_eq!((url.as_str(), http.authorization.is_some()), ("https://k:6443", true));
    let selector = |label: &str, field: &str| Selector { label: label.to_owned(), field: field.to_owned() };
    let expected = [(Role::Pod, selector("a=b", "")), (Role::Service, selector("", "metadata.name=c"))];
    assert_eq!(server.selectors, expected.into());
    let attach = AttachMetadata { node: true, cronjob: true, ..AttachMetadata::default() };
    assert_eq!((server.role, server.attach), (Role::EndpointSlice, attach));
    assert!(providers("{role: pod, namespaces: {own_namespace: true}}").own_namespace);
}

#[test]
fn target_groups_are_lists() {
    let groups = target_groups("- targets: ['a:1']\n  labels: {x: '1'}\n- targets: [b]\n").expect("reads");
    assert_eq!(groups[0].targets, [Labels::from_pairs([("__address__", "a:1")])]);
    assert_eq!(groups[0].labels.to_string(), r#"{x="1"}"#);
    for (text, error) in [
        ("- targets: [a]\n- null\n", "nil target group item found (index 1)"),
        ("- target: [a]\n", "field target not found"),
        ("targets: [a]\n", "cannot unmarshal !!map into []*targetgroup.Group"),
    ] {
        let found = target_groups(text).expect_err(text);
        assert!(found.contains(error), "{found}");
    }
    assert!(target_groups("").expect("empty").is_empty());
}

#[test]
fn files_beyond_the_limits_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let large = std::fs::File::create(path("large.yml")).expect("created");
    large.set_len(FILE_BYTES_MAX + 1).expect("sized");
    let faults = check_config(&path("large.yml"), &Variables::new()).expect_err("refused");
    assert_eq!(faults, [format!("read {}: file exceeds {FILE_BYTES_MAX} bytes", path("large.yml"))]);

    std::fs::create_dir(path("many")).expect("created");
    for i in 0..=INCLUDED_FILES_MAX {
        std::fs::write(path(&format!("many/{i}.yml")), "").expect("written");
    }
    std::fs::write(path("p.yml"), "scrape_config_files: ['many/*.yml']\n").expect("written");
    let faults = check_config(&path("p.yml"), &Variables::new()).expect_err("refused");
    assert_eq!(faults, ["scrape_config_files match more than 10000 files"]);

    let name = "n".repeat(EFFECTIVE_BYTES_MAX);
    let faults = check(&format!("scrape_configs: [{{job_name: '{name}'}}]\n")).expect_err("refused");
    assert!(faults[0].ends_with("with its defaults: at most 33554432 are allowed"), "{}", faults[0]);
}

#[test]
fn the_otlp_section_is_read_with_its_defaults() {
    let default = Otlp {
        translation_strategy: "UnderscoreEscapingWithSuffixes".to_owned(),
        label_name_underscore_sanitization: true,
        label_name_preserve_multiple_underscores: true,
        ..Otlp::default()
    };
    for text in ["", "scrape_configs: []\n", "otlp: {}\n"] {
        assert_eq!(check(text).expect("loads").otlp, default, "{text:?}");
    }
    // The reference's YAML library empties a struct that is null, whatever was in it before.
    assert_eq!(check("otlp:\n").expect("loads").otlp, Otlp::default());
    let text = "otlp:\n  translation_strategy: NoTranslation\n  promote_all_resource_attributes: true\n  ignore_resource_attributes: [' a ', b.c]\n  keep_identifying_resource_attributes: true\n  convert_histograms_to_nhcb: true\n  promote_scope_metadata: true\n  label_name_underscore_sanitization: false\n  label_name_preserve_multiple_underscores: false\n";
    let config = check(text).expect("loads");
    let expected = Otlp {
        translation_strategy: "NoTranslation".to_owned(),
        promotes_all_resource_attributes: true,
        ignored_resource_attributes: vec!["a".to_owned(), "b.c".to_owned()],
        keep_identifying_resource_attributes: true,
        convert_histograms_to_nhcb: true,
        promote_scope_metadata: true,
        ..Otlp::default()
    };
    assert_eq!(config.otlp, expected);
    assert!(config.ignored_sections.is_empty(), "{:?}", config.ignored_sections);
    let promoting = check("otlp: {promote_resource_attributes: [x]}\n").expect("loads");
    assert_eq!(promoting.otlp.promoted_resource_attributes, ["x"]);
}
