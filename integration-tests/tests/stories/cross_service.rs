//! Cross-service federation: a team's server takes a selection of the infrastructure's, in TLS and by a password, and one
//! query joins both.

use integration_tests::{Fixture, Kind, Server, eventually, promql};

use crate::pair::{self, family, serve_step, wait_for_step};

const INTERVAL_MS: i64 = 2_000;
const STEPS: usize = 4;
/// Requests a second, and bytes of memory, of each pod of the shop.
const PODS: [(&str, f64, f64); 3] =
    [("cart-1", 5.0, 1000.0), ("cart-2", 10.0, 4000.0), ("pay-1", 2.5, 500.0)];
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
        let mut infra = String::new();
        let mut memory: Vec<_> = PODS
            .iter()
            .map(|(pod, _, bytes)| {
                (format!("container_memory_bytes{{namespace=\"shop\",pod=\"{pod}\"}}"), *bytes)
            })
            .collect();
        memory.push(("container_memory_bytes{namespace=\"other\",pod=\"x\"}".to_owned(), 7.0));
        family(&mut infra, "container_memory_bytes", "gauge", at, &memory);
        family(&mut infra, "node_load", "gauge", at, &[("node_load".to_owned(), 1.0)]);
        serve_step(&fixture, "/infra", step, at, &infra);
        let mut own = String::new();
        let seconds = INTERVAL_MS as f64 / 1000.0 * step as f64;
        let requests: Vec<_> = PODS
            .iter()
            .map(|(pod, rate, _)| (format!("http_requests_total{{pod=\"{pod}\"}}"), rate * seconds))
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
        let join = "irate(http_requests_total[1m]) / on (pod) container_memory_bytes";
        let answer = promql::instant(&http, join, at + 1);
        let got: Vec<_> = answer.series.iter().map(|s| (s.labels["pod"].as_str(), s.floats[0].1)).collect();
        let want: Vec<_> = PODS.iter().map(|(pod, rate, bytes)| (*pod, rate / bytes)).collect();
        assert_eq!(got.len(), want.len(), "{got:?}");
        for ((pod, value), (name, expected)) in got.iter().zip(&want) {
            assert!(
                pod == name && promql::is_same(*value, *expected),
                "{pod} {value}, not {name} {expected}"
            );
        }

        // The selection alone arrived, under the names that the infrastructure gave it.
        let arrived = promql::instant(&http, "{job=\"cadvisor\",__name__!=\"fixture_step\"}", at + 1);
        let arrived: Vec<_> =
            arrived.series.iter().map(|s| (&*s.labels["__name__"], &*s.labels["pod"])).collect();
        assert_eq!(arrived, PODS.map(|(pod, ..)| ("container_memory_bytes", pod)));

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
