//! What a server says of itself: features, flags, notifications.

use integration_tests::{Kind, Server, eventually};
use serde_json::{Value, json};

#[test]
fn features_are_those_of_a_default_prometheus() {
    let Some(path) = crate::conformance("api/features.json") else { return };
    let text = std::fs::read_to_string(path).expect("the file");
    let want: Value = serde_json::from_str(&text).expect("JSON");
    let server = Server::start(Kind::Tributary, "");
    let got = server.http().get("/api/v1/features", &[]).data();
    for category in ["promql", "promql_functions", "promql_operators"] {
        assert_eq!(got[category], want[category], "{category}");
    }
    // The rest is not all built; what is there has Prometheus's names.
    for (category, features) in got.as_object().expect("categories") {
        for name in features.as_object().expect("features").keys() {
            assert!(want[category].get(name).is_some(), "{category}.{name}");
        }
    }
    let flags = server.http().get("/api/v1/status/flags", &[]).data();
    assert_eq!(flags["web.listen-address"], json!(server.address()));
    assert_eq!(flags["log.format"], "logfmt", "a default");
}

#[test]
fn a_refused_reload_is_a_notification() {
    let server = Server::start(Kind::Tributary, "");
    let http = server.http();
    let notifications = || http.get("/api/v1/notifications", &[]).data();
    assert_eq!(notifications(), json!([]));
    server.write_config("scrape_configs: 5\n");
    assert_eq!(http.post_form("/-/reload", &[]).status, 500);
    let shown =
        eventually("a notification", || notifications().as_array().and_then(|list| list.first().cloned()));
    assert_eq!(
        (&shown["text"], &shown["active"]),
        (&json!("Configuration reload has failed."), &json!(true))
    );
    server.write_config("");
    assert_eq!(http.post_form("/-/reload", &[]).status, 200);
    eventually("no notification", || (notifications() == json!([])).then_some(()));
}
