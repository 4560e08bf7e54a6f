//! Cross-service federation: a team's server takes a selection of the infrastructure's, in TLS and by a password, and one
//! query joins both.

use integration_tests::{Fixture, Kind, Server, eventually, promql};

use crate::pair::{self, family, serve_step, wait_for_step};

const INTERVAL_MS: i64 = 2_000;
const STEPS: usize = 4;
/// A pod of the shop.
struct Pod {
    name: &'static str,
    /// Requests a second.
    requests: f64,
    /// Seconds of CPU a second.
    cpu: f64,
    /// Bytes of memory.
    memory: f64,
}

const PODS: [Pod; 3] = [
    Pod { name: "cart-1", requests: 5.0, cpu: 0.25, memory: 1000.0 },
    Pod { name: "cart-2", requests: 10.0, cpu: 1.25, memory: 4000.0 },
    Pod { name: "pay-1", requests: 2.5, cpu: 0.0625, memory: 500.0 },
];

type OfPod = fn(&Pod) -> f64;

/// What joins the service's own series with the infrastructure's, and what comes out for a pod. All counters begin at
/// zero and grow evenly, so that what a rate makes of the edges of its range cancels out.
const JOINS: [(&str, OfPod); 3] = [
    ("irate(http_requests_total[1m]) / on (pod) container_memory_bytes", |pod| pod.requests / pod.memory),
    ("rate(http_requests_total[5m]) / on (pod) rate(container_cpu_usage_seconds_total[5m])", |pod| {
        pod.requests / pod.cpu
    }),
    ("irate(container_cpu_usage_seconds_total[1m]) and on (pod) rate(http_requests_total[5m]) > 0", |pod| {
        pod.cpu
    }),
];
/// TLS, and a user whose password is `secret`.
const WEB: &str = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\nbasic_auth_users:\n  \
                   shop: $2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";

#[test]
fn one_query_joins_two_servers() {
    let fixture = Fixture::start();
    let identity = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let files = [
        ("web.yml", WEB.to_owned()),
        ("server.crt", identity.cert.pem()),
        ("server.key", identity.signing_key.serialize_pem()),
    ];
    let config = pair::config("cadvisor", &fixture.address(), "/infra", "");
    let infrastructure = Server::start_secured(Kind::Tributary, &config, &files);
    let federate = |job: &str, password: &str| {
        format!(
            "- job_name: {job}\n  scheme: https\n  tls_config:\n    ca_file: {}\n  basic_auth:\n    username: shop\n    password: {password}\n  \
             honor_labels: true\n  metrics_path: /federate\n  params:\n    'match[]':\n    - '{{__name__=~\"container_.*\",namespace=\"shop\"}}'\n    - 'fixture_step'\n  \
             static_configs:\n  - targets: ['{}']\n",
            infrastructure.folder().join("server.crt").display(),
            infrastructure.address()
        )
    };
    let jobs = federate("infra", "secret") + &federate("locked_out", "guess");
    let config = pair::config("shop", &fixture.address(), "/service", &jobs);
    // Both take from the same infrastructure.
    let services = [Kind::Tributary, Kind::Prometheus].map(|kind| Server::start(kind, &config));

    let base = pair::base_ms(60_000);
    let mut at = base;
    for step in 0..STEPS {
        at = base + INTERVAL_MS * i64::try_from(step).expect("small");
        let seconds = INTERVAL_MS as f64 / 1000.0 * step as f64;
        let mut infra = String::new();
        let mut containers = |metric: &str, kind: &str, value: fn(&Pod, f64) -> f64| {
            let series =
                |namespace: &str, pod: &str| format!("{metric}{{namespace=\"{namespace}\",pod=\"{pod}\"}}");
            let mut samples: Vec<_> =
                PODS.iter().map(|pod| (series("shop", pod.name), value(pod, seconds))).collect();
            samples.push((series("other", "x"), 7.0));
            family(&mut infra, metric, kind, at, &samples);
        };
        containers("container_cpu_usage_seconds_total", "counter", |pod, seconds| pod.cpu * seconds);
        containers("container_memory_bytes", "gauge", |pod, _| pod.memory);
        family(&mut infra, "node_load", "gauge", at, &[("node_load".to_owned(), 1.0)]);
        serve_step(&fixture, "/infra", step, at, &infra);
        let mut own = String::new();
        let requests: Vec<_> = PODS
            .iter()
            .map(|pod| (format!("http_requests_total{{pod=\"{}\"}}", pod.name), pod.requests * seconds))
            .collect();
        family(&mut own, "http_requests_total", "counter", at, &requests);
        serve_step(&fixture, "/service", step, at, &own);
        for service in &services {
            wait_for_step(service, "shop", step, at);
            wait_for_step(service, "cadvisor", step, at);
        }
    }

    for service in &services {
        let http = service.http();
        for (join, value) in JOINS {
            let answer = promql::instant(&http, join, at + 1);
            let got: Vec<_> = answer.series.iter().map(|s| (&*s.labels["pod"], s.floats[0].1)).collect();
            assert_eq!(got.len(), PODS.len(), "{join}: {got:?}");
            for ((name, got), pod) in got.into_iter().zip(&PODS) {
                let want = value(pod);
                assert!(name == pod.name && promql::is_same(got, want), "{join}: {name} {got}, not {want}");
            }
        }

        // The selection alone arrived, under the names that the infrastructure gave it.
        let arrived = promql::instant(&http, "{job=\"cadvisor\",__name__!=\"fixture_step\"}", at + 1);
        let arrived: Vec<_> =
            arrived.series.iter().map(|s| (&*s.labels["__name__"], &*s.labels["pod"])).collect();
        let metrics = ["container_cpu_usage_seconds_total", "container_memory_bytes"];
        let want: Vec<_> =
            metrics.iter().flat_map(|metric| PODS.iter().map(|pod| (*metric, pod.name))).collect();
        assert_eq!(arrived, want);

        // Who has no password gets nothing, and is told why; the other job does not feel it.
        let refused = "server returned HTTP status 401 Unauthorized";
        eventually("the refusal is seen", || {
            let targets = http.get("/api/v1/targets", &[("state", "active")]).data();
            let of = |job: &str| {
                let targets = targets["activeTargets"].as_array()?;
                let target = targets.iter().find(|target| target["labels"]["job"] == job)?;
                Some((target["health"].as_str()?.to_owned(), target["lastError"].as_str()?.to_owned()))
            };
            let is_refused = of("locked_out")? == ("down".to_owned(), refused.to_owned());
            (is_refused && of("infra")? == ("up".to_owned(), String::new())).then_some(())
        });
    }
}
