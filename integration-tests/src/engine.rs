//! A Docker engine of the tests' own: Debian's, run from where `parts.sh` unpacks it, on a socket and folders of its own.
//!
//! Invariants:
//! - it has no bridge and no rule of the firewall: containers share the machine's loopback interface, and what the engine
//!   would leave behind in the FORWARD chain never comes about;
//! - it ends with the test's process however that one ends, and its containers before it: it is started by a shell that
//!   waits for the end of its input. So it may stand in a `static`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use test_kit::part;

/// How long the engine may take to answer.
const START_MAX: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// Starts a program and ends it when there is no more input. The first argument is its folder.
const KEEPER: &str = r#"
    folder=$1; shift
    "$@" & engine=$!
    read -r _
    docker ps --all --quiet | xargs --no-run-if-empty docker rm --force >/dev/null
    kill $engine; wait $engine
    umount "$folder"/exec/netns/* 2>/dev/null
    rm -rf "$folder""#;

/// An engine that runs until it is dropped.
#[derive(Debug)]
pub struct Engine {
    folder: PathBuf,
    path: String,
    keeper: Child,
}

impl Engine {
    /// Starts an engine and waits until it answers.
    ///
    /// # Errors
    /// Why this machine cannot have one.
    ///
    /// # Panics
    /// When its parts are not there.
    pub fn start() -> Result<Self, String> {
        let path = ["docker.io/usr/sbin", "docker.io/usr/bin", "containerd/usr/bin", "runc/usr/sbin"]
            .map(|folder| part(folder).display().to_string())
            .join(":");
        if !rustix::process::geteuid().is_root() {
            return Err("an engine is started by root alone".to_owned());
        }
        let folder = tempfile::Builder::new().prefix("docker-").tempdir().expect("a temporary folder").keep();
        let log = File::create(folder.join("log")).expect("a log file");
        let path = format!("{path}:/usr/sbin:/usr/bin:/sbin:/bin");
        let keeper = with_engine(Command::new("sh"), &folder, &path)
            .args(["-c", KEEPER, "sh"])
            .arg(&folder)
            .args(["dockerd", "--bridge=none", "--iptables=false", "--ip6tables=false"])
            .args(["--ip-forward=false", "--ip-masq=false", "--userland-proxy=false"])
            .arg(format!("--host={}", socket(&folder)))
            .arg(format!("--data-root={}", folder.join("data").display()))
            .arg(format!("--exec-root={}", folder.join("exec").display()))
            .arg(format!("--pidfile={}", folder.join("pid").display()))
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("a shell");
        let engine = Self { folder, path, keeper };
        let started = Instant::now();
        while !engine.docker(&["version"]).output().expect("docker").status.success() {
            if started.elapsed() > START_MAX {
                return Err(format!("no engine after {START_MAX:?}:\n{}", engine.output()));
            }
            thread::sleep(PAUSE);
        }
        Ok(engine)
    }

    /// The command `docker`, told to use this engine.
    #[must_use]
    pub fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = self.environment(Command::new("docker"));
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// A command that finds this engine.
    #[must_use]
    pub fn environment(&self, command: Command) -> Command {
        with_engine(command, &self.folder, &self.path)
    }

    /// Runs `docker` and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.docker(arguments).output().expect("docker");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker {arguments:?}: {}\n{errors}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn output(&self) -> String {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The end of its input is what the keeper waits for.
        drop(self.keeper.stdin.take());
        drop(self.keeper.wait());
    }
}

fn with_engine(mut command: Command, folder: &Path, path: &str) -> Command {
    command.env("PATH", path).env("DOCKER_HOST", socket(folder)).env("DOCKER_CONFIG", folder.join("client"));
    command
}

fn socket(folder: &Path) -> String {
    format!("unix://{}", folder.join("sock").display())
}
