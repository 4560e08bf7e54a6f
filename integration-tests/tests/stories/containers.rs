//! The containers of `deploy/` are started as the manifests have them, with etcd and an S3 server beside them, and every
//! check that a manifest names is waited for.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

use integration_tests::{
    Container, Engine, EtcdCluster, Http, Manifests, Runner, Running, S3Server, build_image,
    compose_containers, eventually, now_ms, onto_loopback, repository, write,
};
use model::{Labels, Timestamp};
use remote_protocol::SeriesOut;
use serde_json::{Value, json};

/// The image that runs.
const IMAGE: &str = "tributary:by-hand";
/// The image that Docker built.
const IMAGE_OF_DOCKER: &str = "tributary:by-docker";

/// One system at a time: the machine may be small.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn the_pods_of_the_example_overlay_turn_green() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (etcd, s3) = (EtcdCluster::start(1), S3Server::start());
    s3.create_bucket("example-metrics");
    let manifests = Manifests::render(&repository().join("deploy/kustomize/overlays/example"));
    // What the overlay asks a person to create.
    let keys = [
        ("AWS_ACCESS_KEY_ID".to_owned(), S3Server::ACCESS_KEY_ID.to_owned()),
        ("AWS_SECRET_ACCESS_KEY".to_owned(), S3Server::SECRET_ACCESS_KEY.to_owned()),
    ];
    let secrets = BTreeMap::from([("s3-credentials".to_owned(), keys.into())]);
    let mut containers = manifests.pods(&secrets, "127.0.0.1");
    let of_env = |name| containers.iter().find_map(|c| c.env.get(name)).expect("a variable").clone();
    let (etcd_urls, s3_url) = (of_env("ETCD_ENDPOINTS"), of_env("AWS_ENDPOINT_URL"));
    onto_loopback(&mut containers, &[(&etcd_urls, &etcd.endpoints().join(",")), (&s3_url, &s3.endpoint())]);
    let running = start(containers);

    let http = |name| named(&running, name).container().http();
    let series = SeriesOut {
        labels: Labels::from_pairs([("__name__", "deployed"), ("job", "story")]),
        floats: vec![(Timestamp(now_ms()), 42.0)],
        ..SeriesOut::default()
    };
    eventually("a sample is taken", || {
        write(&http("gateway-0"), std::slice::from_ref(&series)).filter(|reply| reply.status == 204)
    });
    eventually("the other gateway answers it", || {
        (value(&http("gateway-1"), r#"deployed{job="story"}"#)? == "42").then_some(())
    });
    stop(running);
}

#[test]
fn the_containers_of_compose_turn_healthy_and_scrape_each_other() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (etcd, s3) = (EtcdCluster::start(1), S3Server::start());
    s3.create_bucket("tributary");
    let mut containers = compose_containers(&repository().join("deploy/compose.yaml"), "tributary");
    for container in &mut containers {
        for (name, value) in s3.variables() {
            // The test's own server has its own keys.
            container.env.entry(name.to_owned()).and_modify(|own| *own = value);
        }
    }
    onto_loopback(&mut containers, &[("http://etcd:2379", &etcd.endpoints().join(","))]);
    let running = start(containers);

    let gateway = named(&running, "gateway").container().http();
    eventually("all eight are scraped", || {
        (value(&gateway, r#"sum(up{job="tributary"})"#)? == "8").then_some(())
    });
    stop(running);
}

#[test]
fn the_image_is_the_same_with_and_without_an_engine() {
    let archive = image();
    let Runner::Engine(engine) = Runner::get() else {
        // Said by the runner: there is nothing to compare with.
        let layer = Command::new("tar").args(["--list", "--file"]).arg(archive).output().expect("tar");
        assert!(String::from_utf8_lossy(&layer.stdout).contains("layer.tar"));
        return;
    };
    let _archive = build_image(Some(engine), IMAGE_OF_DOCKER, "image-by-docker");
    let config = |image| {
        let printed = engine.run(&["image", "inspect", "--format={{json .Config}}", image]);
        let config: Value = serde_json::from_str(&printed).expect("JSON");
        ["User", "WorkingDir", "Entrypoint", "Cmd", "Env", "Labels"].map(|key| config[key].clone())
    };
    let by_hand = config(IMAGE);
    assert_eq!(by_hand, config(IMAGE_OF_DOCKER));
    assert_eq!(by_hand[0], "65532:65532");
    assert_eq!(by_hand[2], json!(["/usr/bin/tributary"]));
    let by_hand = listed(engine, IMAGE);
    assert_eq!(by_hand, listed(engine, IMAGE_OF_DOCKER));

    // Besides libraries its one program is ours; there is no shell. What is empty, Docker lays into each container.
    let is_program = |line: &&String| {
        line.starts_with("-rwx") && line.split(' ').nth(2) != Some("0") && !line.contains(".so.")
    };
    let programs: Vec<&String> = by_hand.iter().filter(is_program).collect();
    assert!(matches!(programs[..], [only] if only.ends_with(" usr/bin/tributary")), "{programs:?}");
    for wanted in [" etc/passwd", " etc/ssl/certs/ca-certificates.crt", " var/lib/tributary/"] {
        assert!(by_hand.iter().any(|line| line.ends_with(wanted)), "{wanted}: {by_hand:?}");
    }
}

/// The files of an image with their modes, owners and sizes.
fn listed(engine: &Engine, image: &str) -> Vec<String> {
    let id = engine.run(&["create", image]);
    let archive = tempfile::NamedTempFile::new().expect("a file");
    let path = archive.path().display().to_string();
    engine.run(&["export", "--output", &path, id.trim()]);
    engine.run(&["rm", id.trim()]);
    let list = ["--list", "--verbose", "--numeric-owner", "--file", &path];
    let output = Command::new("tar").args(list).output().expect("tar");
    let printed = String::from_utf8(output.stdout).expect("text");
    let mut lines: Vec<String> = printed
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            // Mode, owner, size and name; not the time.
            format!("{} {} {} {}", words[0], words[1], words[2], words[5..].join(" "))
        })
        .collect();
    lines.sort();
    lines
}

/// Builds the image without an engine, once, and hands it to the engine where there is one.
fn image() -> &'static PathBuf {
    static ARCHIVE: OnceLock<PathBuf> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        let archive = build_image(None, IMAGE, "image-by-hand");
        Runner::get().load(&archive);
        archive
    })
}

/// Starts all at once, as a cluster does, and waits until all are well.
fn start(containers: Vec<Container>) -> Vec<Running> {
    image();
    let runner = Runner::get();
    let mut running: Vec<Running> = containers.into_iter().map(|c| runner.start(IMAGE, c)).collect();
    for container in &mut running {
        container.wait_well();
    }
    if let Runner::Engine(engine) = runner {
        running.iter().for_each(|container| check_rights(engine, &container.container().name));
    }
    running
}

/// What the kernel says of a container's process: it is nobody, and stays it.
fn check_rights(engine: &Engine, name: &str) {
    let pid = engine.run(&["inspect", "--format={{.State.Pid}}", name]);
    let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).expect("a process");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field");
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(field("Uid:"), "65532 65532 65532 65532", "{name}");
    assert_eq!(field("CapEff:"), "0000000000000000", "{name}");
    assert_eq!(field("NoNewPrivs:"), "1", "{name}");
    assert_eq!(field("Seccomp:"), "2", "{name}: a filter");
}

/// Stops what writes before what stores, after one more look at each.
fn stop(mut running: Vec<Running>) {
    running.iter_mut().for_each(Running::wait_well);
    running.sort_by_key(|running| running.container().args[0] == "ingester");
    running.iter_mut().for_each(Running::stop);
}

fn named<'a>(running: &'a [Running], name: &str) -> &'a Running {
    running.iter().find(|running| running.container().name == name).expect("a container")
}

/// The value of an expression that has one; `None` when it has none yet.
fn value(gateway: &Http, expression: &str) -> Option<String> {
    let reply = gateway.get("/api/v1/query", &[("query", expression)]);
    if reply.status != 200 {
        return None;
    }
    reply.data()["result"][0]["value"][1].as_str().map(ToOwned::to_owned)
}
