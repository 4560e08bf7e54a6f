//! One role of Tributary as a process of its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::child::Child;
use crate::http::Http;
use crate::server::Kind;

/// A role that runs in a folder of its own until it is dropped.
#[derive(Debug)]
pub struct Role {
    folder: TempDir,
    port: u16,
    child: Child,
}

impl Role {
    /// Starts `tributary <role>` on a port with the text of its own file, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not get ready.
    #[must_use]
    pub fn start(
        role: &str,
        port: u16,
        config: &str,
        flags: &[String],
        variables: &[(&str, String)],
    ) -> Self {
        let folder =
            tempfile::Builder::new().prefix("tributary-role-").tempdir().expect("a temporary folder");
        let file = folder.path().join("role.yml");
        fs::write(&file, config).expect("a config file");
        let mut command = Command::new(Kind::Tributary.binary());
        command
            .arg(role)
            .arg(format!("--service.config={}", file.display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(flags)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .current_dir(folder.path());
        let mut child = Child::spawn(role, &mut command, &folder.path().join("log"));
        let http = Http::new(format!("http://127.0.0.1:{port}"));
        child.wait_for("gets ready", || http.try_get("/-/ready", &[]).filter(|reply| reply.status == 200));
        Self { folder, port, child }
    }

    /// A client of the default tenant.
    #[must_use]
    pub fn http(&self) -> Http {
        Http::new(format!("http://127.0.0.1:{}", self.port))
    }

    /// The folder that it works in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Stops in order.
    pub fn stop(mut self) {
        self.child.stop();
    }
}
