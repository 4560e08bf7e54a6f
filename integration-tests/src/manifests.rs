//! What `kubectl kustomize` makes of a folder, and what its pods are to run.
//!
//! [`Manifests::pods`] does what the kubelet does: it fills environment and arguments from ConfigMaps, Secrets and the
//! pod's own fields. A field of a pod that matters to a container and is not understood here is a panic, not left out.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use regex::{Captures, Regex};
use serde_json::Value;
use test_kit::part;

use crate::container::{Check, Container, Contents, Mount};
use crate::parts::kubectl;

/// Secrets by their names, as a cluster has them.
pub type Secrets = BTreeMap<String, BTreeMap<String, String>>;

/// The objects of a folder.
#[derive(Debug)]
pub struct Manifests {
    text: String,
    objects: Vec<Value>,
}

impl Manifests {
    /// Renders a folder.
    ///
    /// # Panics
    /// When it cannot be rendered.
    #[must_use]
    pub fn render(folder: &Path) -> Self {
        let output = Command::new(kubectl()).arg("kustomize").arg(folder).output().expect("kubectl");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl kustomize {}: {errors}", folder.display());
        // What kustomize has to say is about fields that will go away.
        assert_eq!(errors, "", "kubectl kustomize {}", folder.display());
        let text = String::from_utf8(output.stdout).expect("text");
        let objects = serde_saphyr::from_multiple(&text).expect("YAML");
        Self { text, objects }
    }

    /// The text that `kubectl apply` would be given.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The objects of a kind.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> + use<'_> {
        let kind = kind.to_owned();
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    /// An object.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn get(&self, kind: &str, name: &str) -> &Value {
        let found = self.of_kind(kind).find(|object| object["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    /// Deployments and StatefulSets.
    pub fn workloads(&self) -> impl Iterator<Item = &Value> {
        self.of_kind("Deployment").chain(self.of_kind("StatefulSet"))
    }

    /// The containers of all pods of all workloads, as a kubelet would start them at an address.
    ///
    /// # Panics
    /// When a pod has something that is not understood here, or refers to something that is not there.
    #[must_use]
    pub fn pods(&self, secrets: &Secrets, pod_ip: &str) -> Vec<Container> {
        let mut containers = Vec::new();
        for workload in self.workloads() {
            for index in 0..workload["spec"]["replicas"].as_u64().expect("a number of replicas") {
                let name = format!("{}-{index}", text(&workload["metadata"]["name"]));
                let fields = BTreeMap::from([("metadata.name", name.as_str()), ("status.podIP", pod_ip)]);
                containers.push(self.container(&workload["spec"], &fields, secrets));
            }
        }
        containers
    }

    fn container(&self, spec: &Value, fields: &BTreeMap<&str, &str>, secrets: &Secrets) -> Container {
        let pod = &spec["template"]["spec"];
        let [container] = list(&pod["containers"]) else { panic!("want one container: {pod}") };
        let env = self.environment(container, fields, secrets);
        let args = list(&container["args"]).iter().map(|a| expanded(text(a), &env)).collect();
        assert!(container["command"].is_null(), "the image says what runs");
        let mounts = list(&container["volumeMounts"]).iter().map(|mount| {
            let name = text(&mount["name"]);
            let contents = self.volume(spec, name);
            let is_read_only = mount["readOnly"] == true;
            Mount { path: text(&mount["mountPath"]).to_owned(), contents, is_read_only }
        });
        let checks = ["startupProbe", "livenessProbe", "readinessProbe"].map(|kind| {
            let probe = &container[kind]["httpGet"];
            let port = list(&container["ports"]).iter().find(|port| port["name"] == probe["port"]);
            let port = port.unwrap_or_else(|| panic!("{kind}: no such port: {probe}"));
            let port = port["containerPort"].as_u64().and_then(|p| u16::try_from(p).ok()).expect("a port");
            Check::Get { what: kind, port, path: text(&probe["path"]).to_owned() }
        });
        let security = &container["securityContext"];
        Container {
            name: fields["metadata.name"].to_owned(),
            image: text(&container["image"]).to_owned(),
            args,
            env,
            mounts: mounts.collect(),
            checks: checks.into(),
            user: pod["securityContext"]["runAsUser"].as_u64(),
            has_read_only_root: security["readOnlyRootFilesystem"] == true,
            dropped_capabilities: list(&security["capabilities"]["drop"])
                .iter()
                .map(|c| text(c).to_owned())
                .collect(),
            has_no_new_privileges: security["allowPrivilegeEscalation"] == false,
            memory: Some(text(&container["resources"]["limits"]["memory"]).replace('i', "").to_lowercase()),
        }
    }

    fn environment(
        &self,
        container: &Value,
        fields: &BTreeMap<&str, &str>,
        secrets: &Secrets,
    ) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        for source in list(&container["envFrom"]) {
            match (&source["configMapRef"]["name"], &source["secretRef"]["name"]) {
                (Value::String(name), _) => env.extend(self.config_map(name)),
                (_, Value::String(name)) => {
                    let secret = secrets.get(name).unwrap_or_else(|| panic!("no Secret {name}"));
                    env.extend(secret.clone());
                }
                _ => panic!("not understood: {source}"),
            }
        }
        for variable in list(&container["env"]) {
            let from = &variable["valueFrom"];
            let value = match (&from["fieldRef"]["fieldPath"], &from["configMapKeyRef"]) {
                (Value::String(path), _) => fields[path.as_str()].to_owned(),
                (_, Value::Object(key)) => self.config_map(text(&key["name"]))[text(&key["key"])].clone(),
                _ => panic!("not understood: {variable}"),
            };
            env.insert(text(&variable["name"]).to_owned(), value);
        }
        env
    }

    fn volume(&self, spec: &Value, name: &str) -> Contents {
        let has_name = |volume: &&Value| volume["name"] == name;
        if let Some(volume) = list(&spec["template"]["spec"]["volumes"]).iter().find(has_name) {
            return Contents::Files(self.config_map(text(&volume["configMap"]["name"])));
        }
        let mut claims = list(&spec["volumeClaimTemplates"]).iter().map(|claim| &claim["metadata"]);
        assert!(claims.any(|claim| claim["name"] == name), "no volume {name}");
        Contents::Folder
    }

    /// The entries of a ConfigMap.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn config_map(&self, name: &str) -> BTreeMap<String, String> {
        let entries = self.get("ConfigMap", name)["data"].as_object().expect("entries");
        entries.iter().map(|(key, value)| (key.clone(), text(value).to_owned())).collect()
    }
}

/// Replaces `$(NAME)` where the variable is there, as the kubelet does.
fn expanded(argument: &str, env: &BTreeMap<String, String>) -> String {
    let reference = Regex::new(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)").expect("a pattern");
    let value =
        |found: &Captures<'_>| env.get(&found[1]).unwrap_or_else(|| panic!("no {}", &found[0])).clone();
    reference.replace_all(argument, value).into_owned()
}

/// What `kubernetes-validate` says against in manifests, strictly: unknown fields as well. `None` when nothing.
///
/// # Panics
/// When it cannot be asked.
#[must_use]
pub fn kubernetes_faults(manifests: &Path, version: &str) -> Option<String> {
    let output = Command::new(part("venv/bin/kubernetes-validate"))
        .args(["--strict", "--kubernetes-version", version])
        .arg(manifests)
        .output()
        .expect("kubernetes-validate");
    let printed = [output.stdout, output.stderr].concat();
    (!output.status.success()).then(|| String::from_utf8_lossy(&printed).into_owned())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
