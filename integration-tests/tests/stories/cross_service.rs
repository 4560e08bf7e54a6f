//! Cross-service federation: a team's server takes a selection of the infrastructure's, and one query joins both.

use integration_tests::{Fixture, Kind, Server, promql};

use crate::pair::{self, family, serve_step, wait_for_step};

const INTERVAL_MS: i64 = 2_000;
const STEPS: usize = 4;
/// Requests a second, and bytes of memory, of each pod of the shop.
const PODS: [(&str, f64, f64); 3] =
    [("cart-1", 5.0, 1000.0), ("cart-2", 10.0, 4000.0), ("pay-1", 2.5, 500.0)];

#[test]
fn one_query_joins_two_servers() {
    let fixture = Fixture::start();
    let infrastructure =
        Server::start(Kind::Tributary, &pair::config("cadvisor", &fixture.address(), "/infra", ""));
    let federate = format!(
        "- job_name: infra\n  honor_labels: true\n  metrics_path: /federate\n  params:\n    'match[]':\n    - '{{__name__=~\"container_.*\",namespace=\"shop\"}}'\n    - 'fixture_step'\n  static_configs:\n  - targets: ['{}']\n",
        infrastructure.address()
    );
    let service =
        Server::start(Kind::Tributary, &pair::config("shop", &fixture.address(), "/service", &federate));

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
        wait_for_step(&service, "shop", step, at);
        wait_for_step(&service, "cadvisor", step, at);
    }

    let http = service.http();
    let join = "irate(http_requests_total[1m]) / on (pod) container_memory_bytes";
    let answer = promql::instant(&http, join, at + 1);
    let got: Vec<_> = answer.series.iter().map(|s| (s.labels["pod"].as_str(), s.floats[0].1)).collect();
    let want: Vec<_> = PODS.iter().map(|(pod, rate, bytes)| (*pod, rate / bytes)).collect();
    assert_eq!(got.len(), want.len(), "{got:?}");
    for ((pod, value), (name, expected)) in got.iter().zip(&want) {
        assert!(pod == name && promql::is_same(*value, *expected), "{pod} {value}, not {name} {expected}");
    }

    // The selection alone arrived, under the names that the infrastructure gave it.
    let arrived = promql::instant(&http, "{job=\"cadvisor\",__name__!=\"fixture_step\"}", at + 1);
    let arrived: Vec<_> =
        arrived.series.iter().map(|s| (&*s.labels["__name__"], &*s.labels["pod"])).collect();
    assert_eq!(arrived, PODS.map(|(pod, ..)| ("container_memory_bytes", pod)));
    let own = promql::single(
        &infrastructure.http(),
        "count({job=\"cadvisor\",__name__!=\"fixture_step\"})",
        at + 1,
    );
    assert_eq!(own, Some(5.0), "the infrastructure keeps its own");
}
