//! The services of a compose file that run Tributary, as `docker compose` would start them.
//!
//! A field that is not understood here is a panic, not left out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::container::{Check, Container, Contents, Mount};

/// Fields of a service that say when it is started and stopped, or who reaches it from outside.
const NOT_OF_THE_CONTAINER: [&str; 4] = ["depends_on", "ports", "restart", "stop_grace_period"];

/// The containers of a file whose image is of a name.
///
/// # Panics
/// When it is not a compose file, or has something that is not understood.
#[must_use]
pub fn compose_containers(file: &Path, image: &str) -> Vec<Container> {
    let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("read {}: {e}", file.display()));
    let file_value: Value = serde_saphyr::from_str(&text).expect("YAML");
    let volumes = file_value["volumes"].as_object().expect("volumes");
    let folder = file.parent().expect("a folder");
    let services = file_value["services"].as_object().expect("services");
    let wanted = services.iter().filter(|(_, service)| {
        let named = service["image"].as_str().unwrap_or_default();
        named.split_once(':').is_some_and(|(name, _)| name == image)
    });
    let mount = |text: &str| mount(text, folder, |volume| volumes.contains_key(volume));
    wanted.map(|(name, service)| container(name, service, mount)).collect()
}

fn container(name: &str, service: &Value, mount: impl Fn(&str) -> Mount) -> Container {
    let mut container = Container {
        name: name.to_owned(),
        image: String::new(),
        args: Vec::new(),
        env: BTreeMap::new(),
        mounts: Vec::new(),
        checks: Vec::new(),
        user: None,
        has_read_only_root: false,
        dropped_capabilities: Vec::new(),
        has_no_new_privileges: false,
        memory: None,
    };
    for (key, value) in service.as_object().expect("fields") {
        match key.as_str() {
            "image" => container.image = text(value),
            "command" => container.args = texts(value),
            "environment" => {
                let variables = value.as_object().expect("variables");
                container.env = variables.iter().map(|(name, value)| (name.clone(), text(value))).collect();
            }
            "volumes" => container.mounts = texts(value).iter().map(|text| mount(text)).collect(),
            "healthcheck" => {
                let mut words = texts(&value["test"]);
                assert_eq!(words.remove(0), "CMD", "{name}: the image has no shell");
                container.checks = vec![Check::Command(words)];
            }
            "read_only" => container.has_read_only_root = value == true,
            "cap_drop" => container.dropped_capabilities = texts(value),
            "security_opt" => {
                assert_eq!(texts(value), ["no-new-privileges:true"], "{name}");
                container.has_no_new_privileges = true;
            }
            key => assert!(NOT_OF_THE_CONTAINER.contains(&key), "{name}: {key} is not understood"),
        }
    }
    container
}

/// Reads `./file:path:ro` or `volume:path`.
fn mount(text: &str, folder: &Path, is_volume: impl Fn(&str) -> bool) -> Mount {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, path, is_read_only) = match parts[..] {
        [source, path] => (source, path, false),
        [source, path, "ro"] => (source, path, true),
        _ => panic!("not understood: {text}"),
    };
    let contents = if is_volume(source) {
        Contents::Volume
    } else {
        assert!(source.starts_with("./"), "no volume {source}");
        let read = fs::read_to_string(folder.join(source));
        Contents::File(read.unwrap_or_else(|e| panic!("{source}: {e}")))
    };
    Mount { path: path.to_owned(), contents, is_read_only }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().unwrap_or_else(|| panic!("no list: {value}")).iter().map(text).collect()
}
