//! Debian's Alertmanager, and the webhook that it notifies.

use std::fmt;
use std::fs;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use test_kit::{Answer, FakeTarget, free_port, part};
use tokio::runtime::Runtime;

use crate::child::Child;
use crate::http::Http;

/// An Alertmanager that notifies as soon as it may: at once of a new group, and of a change within a second.
pub struct Alertmanager {
    port: u16,
    /// Behind what works in it.
    _process: Child,
    webhook: FakeTarget,
    _runtime: Runtime,
    _folder: TempDir,
}

/// What the webhook was told of a group of alerts.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// `firing`, or `resolved` when all of its alerts are.
    pub status: String,
    /// The labels that the group has in common.
    pub group: Value,
    /// The alerts, as in the webhook's message.
    pub alerts: Vec<Value>,
}

impl fmt::Debug for Alertmanager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alertmanager").field("port", &self.port).finish_non_exhaustive()
    }
}

impl Alertmanager {
    /// Starts an Alertmanager that groups by these labels, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not get ready.
    #[must_use]
    pub fn start(group_by: &[&str]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let webhook = runtime.block_on(FakeTarget::start(Answer::status(200)));
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("alertmanager.yml");
        let text = format!(
            "route: {{receiver: hook, group_by: [{}], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}}\n\
             receivers: [{{name: hook, webhook_configs: [{{url: '{}', send_resolved: true}}]}}]\n",
            group_by.join(", "),
            webhook.url("/")
        );
        fs::write(&config, text).expect("a config file");
        let port = free_port();
        // Debian's looks for its templates in `/usr/share` and nowhere else: in a mount namespace of its own they are there.
        let mut command = Command::new("unshare");
        command
            .args([
                "--map-root-user",
                "--mount",
                "--",
                "sh",
                "-c",
                "mount --bind \"$0\" /usr/share && exec \"$@\"",
            ])
            .arg(part("prometheus-alertmanager/usr/share"))
            .arg(part("prometheus-alertmanager/usr/bin/prometheus-alertmanager"))
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=");
        let mut process = Child::spawn("Alertmanager", &mut command, &folder.path().join("log"));
        let http = Http::new(format!("http://127.0.0.1:{port}"));
        process.wait_for("gets ready", || http.try_get("/-/ready", &[]).filter(|reply| reply.status == 200));
        Self { port, _process: process, webhook, _runtime: runtime, _folder: folder }
    }

    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What the webhook was told, in order.
    ///
    /// # Panics
    /// When that is no message of a webhook.
    #[must_use]
    pub fn notices(&self) -> Vec<Notice> {
        let notice = |body: &[u8]| {
            let mut message: Value = serde_json::from_slice(body).expect("JSON");
            Notice {
                status: message["status"].as_str().expect("a status").to_owned(),
                group: message["groupLabels"].take(),
                alerts: message["alerts"].as_array_mut().map(std::mem::take).expect("alerts"),
            }
        };
        self.webhook.seen().iter().map(|seen| notice(&seen.body)).collect()
    }
}
