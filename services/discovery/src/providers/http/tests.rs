//! The provider against a server on a free port.

use http_client::{HttpSettings, Roots};
use model::Labels;
use test_kit::{Answer, FakeTarget};

use super::*;

fn provider(url: String) -> HttpProvider {
    HttpProvider { url, refresh_interval: Duration::from_millis(7_500), http: Box::default() }
}

fn json(body: &str) -> Answer {
    Answer::ok("application/json; charset=utf-8", body.to_owned())
}

async fn ask_once(server: &FakeTarget) -> Result<Vec<TargetGroup>, String> {
    let client = Client::new(HttpSettings::default(), Roots::default());
    refresh(&provider(server.url("/sd?x=1")), &client).await
}

#[tokio::test]
async fn groups_name_the_url_they_come_from() {
    let body =
        r#"[{"targets": ["a:1", "b:2"], "labels": {"__meta_datacenter": "bru1"}}, {"targets": ["c:3"]}, {}]"#;
    let server = FakeTarget::start(json(body)).await;
    let groups = ask_once(&server).await.expect("answered");
    let url = server.url("/sd?x=1");
    let target = |address: &str| Labels::from_pairs([("__address__", address)]);
    assert_eq!(groups.len(), 3);
    assert_eq!(groups[0].source, format!("{url}:0"));
    assert_eq!(groups[0].targets, [target("a:1"), target("b:2")]);
    assert_eq!(
        groups[0].labels,
        Labels::from_pairs([("__meta_datacenter", "bru1"), ("__meta_url", url.as_str())])
    );
    assert_eq!((groups[1].source.as_str(), &groups[1].targets), (&*format!("{url}:1"), &vec![target("c:3")]));
    assert!(groups[2].targets.is_empty());
    let seen = &server.seen()[0];
    for (name, expected) in [
        ("accept", "application/json"),
        ("user-agent", "Prometheus/3.14.0"),
        ("x-prometheus-refresh-interval-seconds", "7.5"),
    ] {
        assert_eq!(seen.header(name), expected, "{name}");
    }
}

#[tokio::test]
async fn answers_that_are_no_groups_are_refused() {
    let server = FakeTarget::start(Answer::status(503)).await;
    for (answer, error) in [
        (Answer::status(503), "server returned HTTP status 503 Service Unavailable"),
        (
            Answer::ok("text/plain; charset=utf-8", "[]"),
            r#"unsupported content type "text/plain; charset=utf-8""#,
        ),
        (json("[{\"targets\": [\"a\"]}, null]"), "nil target group item found"),
    ] {
        server.answer(answer);
        assert_eq!(ask_once(&server).await, Err(error.to_owned()));
    }
    for (body, part) in [
        ("{}", "expected a sequence"),
        (r#"[{"targets": ["a"], "label": {}}]"#, "unknown field `label`"),
        (r#"[{"targets": "a"}]"#, "expected a sequence"),
        (r#"[{"targets": ["a"]"#, "EOF while parsing"),
    ] {
        server.answer(json(body));
        let error = ask_once(&server).await.expect_err(body);
        assert!(error.contains(part), "{error}");
    }
    server.answer(json("[]").after(Duration::from_secs(60)));
    let short = HttpProvider { refresh_interval: Duration::from_millis(50), ..provider(server.url("/")) };
    let client = Client::new(HttpSettings::default(), Roots::default());
    let error = refresh(&short, &client).await.expect_err("late");
    assert_eq!(error, format!("Get \"{}\": context deadline exceeded", server.url("/")));
}

#[test]
fn json_is_told_by_its_content_type() {
    for (text, expected) in [
        ("application/json", true),
        ("application/JSON;charset=utf-8", true),
        ("application/json; charset=\"UTF-8\"", true),
        ("application/json; charset=latin1", false),
        ("application/json;", false),
        ("application/jsonl", false),
        ("text/json", false),
        ("", false),
    ] {
        assert_eq!(is_json(text), expected, "{text}");
    }
}
