//! What a puller makes of several sources at once: labels that tell them apart or collide, relabelling, counts, and one
//! source that is away. Tributary and Prometheus 2.42 pull from one of each.

use std::collections::BTreeMap;

use integration_tests::{Fixture, Http, Kind, Server, eventually, free_port, now_ms, promql, write};
use model::{Labels, Timestamp};
use remote_protocol::SeriesOut;

fn series(t: i64, pairs: &[(&str, &str)], value: f64) -> SeriesOut {
    let labels = Labels::from_pairs(pairs.iter().copied());
    SeriesOut { labels, floats: vec![(Timestamp(t), value)], ..SeriesOut::default() }
}

/// What both sources hold.
fn held(t: i64) -> Vec<SeriesOut> {
    let bucket = |le, count| {
        let labels = [("__name__", "app_seconds_bucket"), ("instance", "i"), ("job", "app"), ("le", le)];
        series(t, &labels, count)
    };
    vec![
        series(t, &[("__name__", "shared"), ("pod", "p")], 5.0),
        series(t, &[("__name__", "teamed"), ("instance", "i"), ("team", "source")], 6.0),
        series(t, &[("__name__", "dropped"), ("note", "x")], 7.0),
        bucket("0.5", 2.0),
        bucket("1.0", 7.0),
        bucket("+Inf", 10.0),
    ]
}

/// Labels without the name, and the value, of each series of a metric.
fn shown(http: &Http, query: &str, at: i64) -> Vec<(BTreeMap<String, String>, f64)> {
    let answer = promql::instant(http, query, at);
    let of = |s: promql::Series| {
        let labels = s.labels.into_iter().filter(|(name, _)| name != "__name__").collect();
        (labels, s.floats[0].1)
    };
    answer.series.into_iter().map(of).collect()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A metric without labels of the scrapers, summed.
fn counted(server: &Server, metric: &str) -> f64 {
    server.scrapers().iter().map(|scraper| scraper.metric(metric)).sum()
}

#[test]
fn sources_stand_side_by_side() {
    let source = |kind, cluster: &str| {
        Server::start(kind, &format!("global:\n  external_labels:\n    cluster: {cluster}\n"))
    };
    let mut sources = [source(Kind::Tributary, "a"), source(Kind::Prometheus, "b")];
    let t = now_ms() - 60_000;
    for source in &sources {
        let reply = write(&source.http(), &held(t)).expect("an answer");
        assert!(matches!(reply.status, 200 | 204), "{}", reply.body);
    }
    let (a, b) = (sources[0].address(), sources[1].address());
    let nobody = format!("127.0.0.1:{}", free_port());
    let job = |name: &str, targets: &[&str], more: &str| {
        format!(
            "- job_name: {name}\n  metrics_path: /federate\n  params:\n    'match[]': ['{{__name__!~\"up|scrape_.*\"}}']\n{more}  \
             static_configs:\n  - targets: ['{}']\n    labels: {{team: global}}\n",
            targets.join("', '")
        )
    };
    let relabel = "  metric_relabel_configs:\n  - source_labels: [note, exported_note]\n    regex: x;\n    action: drop\n  \
                   - source_labels: [__name__]\n    regex: shared\n    target_label: __name__\n    replacement: renamed\n  \
                   - regex: pod\n    action: labeldrop\n";
    let config = format!(
        "global:\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\nstorage:\n  tsdb:\n    out_of_order_time_window: 0s\n\
         scrape_configs:\n{}{}",
        job("honored", &[&a, &b, &nobody], "  honor_labels: true\n"),
        job("own", &[&a, &b], relabel)
    );
    let pullers = [Kind::Tributary, Kind::Prometheus].map(|kind| Server::start(kind, &config));
    for puller in &pullers {
        let (kind, http) = (puller.kind(), puller.http());
        eventually("everything has arrived, and come again", || {
            let query = "min(count_over_time(up{job=~\"honored|own\"}[1m])) > 8 and count(teamed) == 4";
            promql::single(&http, query, now_ms())
        });
        // Told apart by the external label alone. What no source gives is the target's, but no instance.
        let of = |cluster| map(&[("cluster", cluster), ("job", "honored"), ("pod", "p"), ("team", "global")]);
        assert_eq!(shown(&http, "shared", t + 1), [(of("a"), 5.0), (of("b"), 5.0)], "{kind:?}");
        let of =
            |cluster| map(&[("cluster", cluster), ("instance", "i"), ("job", "honored"), ("team", "source")]);
        assert_eq!(shown(&http, "teamed{job=\"honored\"}", t + 1), [(of("a"), 6.0), (of("b"), 6.0)]);

        // Renamed behind the merge of labels: the address stands where there was no instance.
        let of = |cluster, instance: &str| {
            map(&[("cluster", cluster), ("instance", instance), ("job", "own"), ("team", "global")])
        };
        assert_eq!(shown(&http, "renamed", t + 1), [(of("a", &a), 5.0), (of("b", &b), 5.0)], "{kind:?}");
        let of = |cluster, instance: &str| {
            let mut labels = of(cluster, instance);
            labels.extend(map(&[("exported_instance", "i"), ("exported_team", "source")]));
            labels
        };
        let teamed = shown(&http, "teamed{job=\"own\"}", t + 1);
        assert_eq!(teamed, [(of("a", &a), 6.0), (of("b", &b), 6.0)], "{kind:?}");
        assert_eq!(shown(&http, "dropped{job=\"own\"}", t + 1), [], "{kind:?}");
        assert_eq!(shown(&http, "count(dropped{job=\"honored\"})", t + 1), [(map(&[]), 2.0)], "{kind:?}");

        // What is dropped counts as scraped. A busy machine may let a scrape run out of its time.
        eventually(&format!("{kind:?} has scraped both"), || {
            let query = "count(up{job=\"own\"} == 1 and scrape_samples_scraped == 6 \
                         and scrape_samples_post_metric_relabeling == 5)";
            promql::single(&http, query, now_ms()).filter(|count| *count == 2.0)
        });
        // One that is away touches no other.
        let want = BTreeMap::from([(nobody.clone(), 0.0), (a.clone(), 1.0), (b.clone(), 1.0)]);
        eventually(&format!("{kind:?} misses one of three"), || {
            let up = shown(&http, "up{job=\"honored\"}", now_ms());
            let up = up.into_iter().map(|(labels, value)| (labels["instance"].clone(), value));
            (up.collect::<BTreeMap<_, _>>() == want).then_some(())
        });

        // However often it was pulled, it is one sample, and no duplicate.
        let once = shown(&http, "max(count_over_time({cluster!=\"\"}[5m]))", now_ms());
        assert_eq!(once, [(map(&[]), 1.0)], "{kind:?}");
        for metric in ["duplicate_timestamp", "out_of_order"] {
            let name = format!("prometheus_target_scrapes_sample_{metric}_total");
            assert_eq!(counted(puller, &name), 0.0, "{kind:?} {metric}");
        }

        // Buckets come without a type, and their bounds as they were stored.
        let quantile = "histogram_quantile(0.9, app_seconds_bucket)";
        let want = promql::single(&sources[0].http(), quantile, t + 1).expect("a quantile");
        let got = shown(&http, quantile, t + 1);
        let is_same = got.len() == 4 && got.iter().all(|(_, value)| promql::is_same(*value, want));
        assert!(is_same, "{kind:?}: {got:?}, not {want}");
        let bounds = shown(&http, "count by (le) (app_seconds_bucket)", t + 1);
        assert_eq!(bounds, ["+Inf", "0.5", "1.0"].map(|le| (map(&[("le", le)]), 4.0)), "{kind:?}");
    }

    // A source that goes takes nothing along: its series have times of their own. When it is back, they go on.
    sources.iter_mut().for_each(Server::stop);
    for puller in &pullers {
        let http = puller.http();
        eventually("both are down", || {
            promql::single(&http, "sum(up{job=\"own\"})", now_ms()).filter(|up| *up == 0.0)
        });
        assert_eq!(shown(&http, "count(shared)", now_ms()), [(map(&[]), 2.0)], "{:?}", puller.kind());
    }
    sources.iter_mut().for_each(Server::start_again);
    let t = now_ms();
    for source in &sources {
        eventually("a write is taken", || {
            write(&source.http(), &held(t)).filter(|reply| matches!(reply.status, 200 | 204))
        });
    }
    for puller in &pullers {
        let http = puller.http();
        eventually("their series go on", || {
            let query = format!("count(timestamp(shared) == {})", promql::seconds(t));
            promql::single(&http, &query, now_ms()).filter(|count| *count == 2.0)
        });
    }
}

/// A source behind TLS that takes whoever shows one certificate, and one that wants a token.
#[test]
fn certificates_and_tokens_open_sources() {
    let fixture = Fixture::start();
    let identity = |name: &str| {
        let signed = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        (signed.cert.pem(), signed.signing_key.serialize_pem())
    };
    let (server_cert, server_key) = identity("127.0.0.1");
    let (client_cert, client_key) = identity("puller");
    let web = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n  \
               client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: client.crt\n";
    let files = [
        ("web.yml", web.to_owned()),
        ("server.crt", server_cert),
        ("server.key", server_key),
        ("client.crt", client_cert.clone()),
        ("client.key", client_key),
    ];
    let sources = [Kind::Tributary, Kind::Prometheus].map(|kind| {
        let config = crate::pair::config("app", &fixture.address(), "/app", "");
        Server::start_secured(kind, &config, &files)
    });
    let t = now_ms() - 30_000;
    fixture.serve("/app", format!("guarded 3 {t}\n"));
    fixture.serve_to(
        "Bearer secret",
        "/federate",
        format!("# TYPE tokened untyped\ntokened{{instance=\"\"}} 4 {t}\n"),
    );

    let job = |name: &str, target: &str, more: &str| {
        format!(
            "- job_name: {name}\n  honor_labels: true\n  metrics_path: /federate\n  params:\n    'match[]': ['guarded']\n{more}  \
             static_configs:\n  - targets: ['{target}']\n"
        )
    };
    let mut jobs = String::new();
    for (number, source) in sources.iter().enumerate() {
        let file = |name: &str| source.folder().join(name).display().to_string();
        let tls = format!("  scheme: https\n  tls_config:\n    ca_file: {}\n", file("server.crt"));
        let shown =
            format!("{tls}    cert_file: {}\n    key_file: {}\n", file("client.crt"), file("client.key"));
        jobs += &job(&format!("certified_{number}"), &source.address(), &shown);
        jobs += &job(&format!("bare_{number}"), &source.address(), &tls);
    }
    let bearer = |token: &str| format!("  authorization:\n    credentials: {token}\n");
    jobs += &job("token", &fixture.address(), &bearer("secret"));
    jobs += &job("wrong_token", &fixture.address(), &bearer("guess"));
    let config =
        format!("global:\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\nscrape_configs:\n{jobs}");
    for kind in [Kind::Tributary, Kind::Prometheus] {
        let puller = Server::start(kind, &config);
        let http = puller.http();
        eventually("all sources were asked", || {
            let targets = http.get("/api/v1/targets", &[("state", "active")]).data();
            let health = |target: &serde_json::Value| {
                let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
                (text(&target["labels"]["job"]), (text(&target["health"]), text(&target["lastError"])))
            };
            let health: BTreeMap<_, _> = targets["activeTargets"].as_array()?.iter().map(health).collect();
            let of = |job: &str| health.get(job).map(|(health, error)| (health.as_str(), error.as_str()));
            let is_open =
                ["certified_0", "certified_1", "token"].iter().all(|job| of(job) == Some(("up", "")));
            let refused = ("down", "server returned HTTP status 401 Unauthorized");
            let is_shut =
                ["bare_0", "bare_1"].iter().all(|job| of(job).is_some_and(|(health, _)| health == "down"));
            (is_open && is_shut && of("wrong_token") == Some(refused)).then_some(())
        });
        eventually("what is open has arrived", || {
            let names: Vec<_> =
                shown(&http, "count by (__name__, job) ({__name__=~\"guarded|tokened\"})", t + 1);
            (names.len() == 2).then_some(())
        });
        let values = |metric: &str| -> Vec<f64> { shown(&http, metric, t + 1).iter().map(|s| s.1).collect() };
        // Both sources know it under the labels of the leaf's job, the addresses of which are equal.
        assert_eq!((values("guarded"), values("tokened")), (vec![3.0], vec![4.0]), "{kind:?}");
    }
}
