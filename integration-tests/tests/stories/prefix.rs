//! Behind a proxy that hands on a path: every route lies below it, as Prometheus has it.

use std::process::Command;

use integration_tests::{Http, Kind, Server, eventually, now_ms, promql, promtool};

use crate::pair;

const PREFIX: &str = "/team/metrics";

/// What a browser sees first: a status, and where it is sent.
fn first(http: &Http, path: &str) -> (u16, Option<String>) {
    let reply = http.root().raw("GET", path, &[], b"").expect("an answer");
    (reply.status, reply.header("location").map(str::to_owned))
}

#[test]
fn every_route_lies_below_the_prefix() {
    let fixture = integration_tests::Fixture::start();
    fixture.serve(pair::PATH, "# TYPE shown gauge\nshown{l=\"1\"} 7\n");
    let config = pair::config("fixture", &fixture.address(), pair::PATH, "");
    let server = Server::start_below(Kind::Tributary, &config, PREFIX);
    let http = server.http();
    eventually("the fixture is scraped", || {
        promql::single(&http, "shown", now_ms()).filter(|value| *value == 7.0)
    });
    // Where Prometheus of this version leads to, and what it does not know.
    let theirs = Server::start_below(Kind::Prometheus3, "", PREFIX);
    for path in [
        "/",
        PREFIX,
        "/team/metrics/",
        "/team/metrics/graph?g0.expr=up",
        "/team/metrics/-/healthy",
        "/team/metrics/-/ready",
        "/team/metrics/metrics",
        "/team/metrics/version",
        "/team/metrics/api/v1/query?query=1&time=1",
        "/team/metrics/api/v1/nothing",
        "/team/metrics/federate",
        "/team/metricsx",
        "/team",
        "/-/healthy",
        "/metrics",
        "/federate",
        "/api/v1/query?query=1&time=1",
        "/team/metrics//api/v1/query?query=1",
    ] {
        assert_eq!(first(&http, path), first(&theirs.http(), path), "{path}");
    }

    // What Grafana asks first, and what it asks by POST.
    assert_eq!(http.post_form("/api/v1/query", &[("query", "1+1")]).data()["result"][1], "2");
    assert_eq!(http.get("/api/v1/label/__name__/values", &[("match[]", "shown")]).data()[0], "shown");
    assert_eq!(http.get("/federate", &[("match[]", "shown")]).status, 200);
    assert_eq!(http.post_form("/-/reload", &[]).status, 200);
    let targets = http.get("/api/v1/targets", &[]).data();
    let port = fixture.address().rsplit(':').next().expect("a port").to_owned();
    let global = targets["activeTargets"][0]["globalUrl"].as_str().expect("a URL").to_owned();
    assert!(global.ends_with(&format!(":{port}{}", pair::PATH)) && !global.contains("127.0.0.1"), "{global}");
    let run = |arguments: &[&str]| {
        let output = Command::new(promtool()).args(arguments).output().expect("promtool starts");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let url = http.url("");
    // A scrape that runs out of its time on a busy machine ends the series until the next one.
    eventually("promtool finds the series", || {
        run(&["query", "instant", &url, "shown"]).contains("shown{instance=").then_some(())
    });
    assert!(run(&["query", "series", "--match=shown", &url]).contains("shown"));
    // Ours asks as promtool of later versions does.
    for what in ["healthy", "ready"] {
        let checked = Command::new(Kind::Tributary.binary())
            .args(["check", what, &format!("--url={url}")])
            .status()
            .expect("it starts");
        assert!(checked.success(), "check {what}");
    }
}

#[test]
fn the_url_from_outside_is_the_prefix_unless_another_is_told() {
    let server = Server::stopped(Kind::Tributary, "");
    for (flags, healthy, root) in [
        (&["--web.external-url=https://example.org/prom/"][..], "/prom/-/healthy", "/prom"),
        (
            &["--web.external-url=https://example.org/prom", "--web.route-prefix=/"],
            "/-/healthy",
            "/prom/query",
        ),
    ] {
        let mut command = server.command();
        command.args(flags);
        let mut child =
            integration_tests::Child::spawn("Tributary", &mut command, &server.folder().join("log"));
        let http = server.http();
        child.wait_for("is healthy", || {
            http.try_get(healthy, &[]).filter(|reply| reply.status == 200).map(drop)
        });
        assert_eq!(first(&http, "/"), (302, Some(root.to_owned())), "{flags:?}");
        child.stop();
    }
}
