//! Expressions shown without being evaluated: `/api/v1/format_query`, `/api/v1/parse_query`, `tributary promql format`.

use std::process::Command;

use integration_tests::{Kind, Server};

const CONFIG: &str = "global:\n  scrape_interval: 15s\n";

#[test]
fn expressions_are_formatted_as_prometheus_formats_them() {
    let servers = [Server::start(Kind::Tributary, CONFIG), Server::start(Kind::Prometheus, CONFIG)];
    let long = "some_metric_with_a_name{label_one=\"value\",label_two=~\"other.*\"}";
    for query in [
        "sum(rate(a{b='c'}[5m]))by(d)",
        "a+on(b)group_left(c)d",
        "-(a+b  offset   5m)",
        &format!("sum by(x)(rate({long}[5m]))/on(x)group_left sum by(x)(rate({long}[1h] offset 1d))"),
        &format!("topk(5, label_replace({long}, 'a', '$1', 'b', '(.*)')) or vector(1)"),
        &format!("max_over_time(({long} > bool 0)[1h:5m] @ end())"),
        "a @ 1.5",
        "'<&>'",
    ] {
        let form = [("query", query)];
        let [ours, theirs] = servers.each_ref().map(|s| s.http().get("/api/v1/format_query", &form));
        assert_eq!((ours.status, &ours.body), (200, &theirs.body), "{query}");
        assert_eq!(ours.content_type, theirs.content_type);
        let posted = servers[0].http().post_form("/api/v1/format_query", &form);
        assert_eq!(posted.body, ours.body, "{query}");
        let printed = Command::new(Kind::Tributary.binary()).args(["promql", "format", query]).output();
        let printed = String::from_utf8(printed.expect("it runs").stdout).expect("UTF-8");
        assert_eq!(printed.trim_end_matches('\n'), ours.data().as_str().expect("a text"), "{query}");
    }
}

#[test]
fn what_does_not_parse_is_said_in_prometheus_words() {
    let servers = [Server::start(Kind::Tributary, CONFIG), Server::start(Kind::Prometheus, CONFIG)];
    for query in ["sum(", "a{", "nope(a)"] {
        let form = [("query", query)];
        let [ours, theirs] = servers.each_ref().map(|s| s.http().get("/api/v1/format_query", &form));
        assert_eq!((ours.status, &ours.body), (400, &theirs.body), "{query}");
        let parsed = servers[0].http().post_form("/api/v1/parse_query", &form);
        assert_eq!((parsed.status, parsed.body), (400, ours.body), "{query}");
    }
    let failed = Command::new(Kind::Tributary.binary()).args(["promql", "format", "sum("]).output();
    let failed = failed.expect("it runs");
    assert_eq!(failed.status.code(), Some(1));
    assert!(failed.stdout.is_empty());
    let text = String::from_utf8_lossy(&failed.stderr);
    assert_eq!(text.trim_end(), "1:5: parse error: unclosed left parenthesis");
}

#[test]
fn trees_are_json() {
    let server = Server::start(Kind::Tributary, CONFIG);
    let tree =
        server.http().get("/api/v1/parse_query", &[("query", "sum by (job) (rate(up[5m])) > 0")]).data();
    assert_eq!(tree["type"], "binaryExpr");
    assert_eq!(tree["rhs"], serde_json::json!({"type": "numberLiteral", "val": "0"}));
    let call = &tree["lhs"]["expr"];
    assert_eq!((&call["func"]["name"], &call["args"][0]["range"]), (&"rate".into(), &300_000.into()));
    // Experimental syntax has to be switched on, here as for queries.
    let refused = server.http().get("/api/v1/parse_query", &[("query", "limitk(1, up)")]);
    assert_eq!(refused.status, 400, "{}", refused.body);
}
