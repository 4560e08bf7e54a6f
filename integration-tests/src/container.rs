//! Containers as manifests describe them, started with exactly these arguments, variables and mounts: by a Docker engine
//! where one can be had, else as the plain binary.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use regex::Regex;
use tempfile::TempDir;
use test_kit::{free_port, target_folder};

use crate::child::Child;
use crate::engine::Engine;
use crate::http::Http;
use crate::parts::repository;
use crate::server::Kind;

/// The program within the image.
const PROGRAM: &str = "/usr/bin/tributary";
/// The user of the image.
const USER: u32 = 65532;

/// A container to be started.
#[derive(Debug, Clone)]
pub struct Container {
    /// A name no other has.
    pub name: String,
    /// Which image, as the manifest names it.
    pub image: String,
    /// Behind the image's own entry point.
    pub args: Vec<String>,
    /// All variables.
    pub env: BTreeMap<String, String>,
    /// What is mounted where.
    pub mounts: Vec<Mount>,
    /// What says whether it is well.
    pub checks: Vec<Check>,
    /// Who it runs as, if not who the image says.
    pub user: Option<u64>,
    /// Whether it can write to mounts alone.
    pub has_read_only_root: bool,
    /// What its root user would have been allowed.
    pub dropped_capabilities: Vec<String>,
    /// Whether programs in it never get more rights than it has.
    pub has_no_new_privileges: bool,
    /// The most memory it may take, as Docker writes it.
    pub memory: Option<String>,
}

/// A mount of a container.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Where, in the container.
    pub path: String,
    /// What.
    pub contents: Contents,
    /// Whether it cannot be written to.
    pub is_read_only: bool,
}

/// What is mounted.
#[derive(Debug, Clone)]
pub enum Contents {
    /// A folder with these files.
    Files(BTreeMap<String, String>),
    /// One file.
    File(String),
    /// A folder to write to, empty at first.
    Folder,
    /// A volume to write to, which begins as the folder of the image there.
    Volume,
}

/// What says whether a container is well.
#[derive(Debug, Clone)]
pub enum Check {
    /// GET answers with success.
    Get {
        /// Its name.
        what: &'static str,
        /// At which port of the container.
        port: u16,
        /// Which path.
        path: String,
    },
    /// A command within the container ends with success.
    Command(Vec<String>),
}

/// Puts containers onto the machine's loopback interface, which they share. This is all that differs from what a
/// manifest says:
///
/// - a port that a container listens on, on all addresses, becomes a free one of 127.0.0.1, in whatever names it: its
///   arguments, files and checks, and those of the others that name it by the address it advertises;
/// - what runs `elsewhere` (etcd, the S3 server) is the test's own: its URL is replaced in arguments and variables.
///
/// # Panics
/// When a URL of what runs elsewhere does not occur.
pub fn onto_loopback(containers: &mut [Container], elsewhere: &[(&str, &str)]) {
    for (url, _) in elsewhere {
        let mut texts = containers.iter().flat_map(|c| c.args.iter().chain(c.env.values()));
        assert!(texts.any(|text| text.contains(url)), "nobody uses {url}");
    }
    let listening = Regex::new(r"=0\.0\.0\.0:(\d+)$").expect("a pattern");
    let advertised = Regex::new(r"^--cluster\.advertise-address=(.+):(\d+)$").expect("a pattern");
    let mut shared: Vec<(String, String)> =
        elsewhere.iter().map(|(url, own)| ((*url).to_owned(), (*own).to_owned())).collect();
    for container in &mut *containers {
        let ports: BTreeMap<String, u16> = container
            .args
            .iter()
            .filter_map(|argument| Some((listening.captures(argument)?[1].to_owned(), free_port())))
            .collect();
        let mut own = Vec::new();
        for (port, free) in &ports {
            own.push((format!("0.0.0.0:{port}"), format!("127.0.0.1:{free}")));
            own.push((format!("127.0.0.1:{port}"), format!("127.0.0.1:{free}")));
        }
        if let Some(found) = container.args.iter().find_map(|argument| advertised.captures(argument))
            && let Some(free) = ports.get(&found[2])
            && &found[1] != "127.0.0.1"
        {
            shared.push((format!("{}:{}", &found[1], &found[2]), format!("127.0.0.1:{free}")));
        }
        for check in &mut container.checks {
            if let Check::Get { port, .. } = check {
                *port = ports[&port.to_string()];
            }
        }
        container.replace(&own);
    }
    for container in containers {
        container.replace(&shared);
    }
}

impl Container {
    fn replace(&mut self, replacements: &[(String, String)]) {
        let replace = |text: &mut String| {
            for (old, new) in replacements {
                *text = text.replace(old, new);
            }
        };
        self.args.iter_mut().for_each(replace);
        self.env.values_mut().for_each(replace);
        for mount in &mut self.mounts {
            match &mut mount.contents {
                Contents::Files(files) => files.values_mut().for_each(replace),
                Contents::File(text) => replace(text),
                Contents::Folder | Contents::Volume => {}
            }
        }
        for check in &mut self.checks {
            if let Check::Command(words) = check {
                words.iter_mut().for_each(replace);
            }
        }
    }

    /// The client of the port that is listened on.
    ///
    /// # Panics
    /// When none is.
    #[must_use]
    pub fn http(&self) -> Http {
        let mut addresses = self.args.iter().filter_map(|a| a.strip_prefix("--web.listen-address="));
        Http::new(format!("http://{}", addresses.next().expect("an address")))
    }
}

/// What starts containers.
#[derive(Debug)]
pub enum Runner {
    /// A Docker engine, from the image `tributary.tar`.
    Engine(Engine),
    /// Nothing: the binary is started as it is, and sees the whole machine.
    Plain {
        /// Why there is no engine.
        cause: String,
    },
}

/// A container that runs until it is dropped.
#[derive(Debug)]
pub struct Running {
    container: Container,
    child: Child,
    /// Replaced in words that name a path in the container.
    paths: Vec<(String, String)>,
    runner: &'static Runner,
    _folder: TempDir,
}

impl Runner {
    /// What starts the containers of all tests. Says which it is.
    pub fn get() -> &'static Self {
        static RUNNER: OnceLock<Runner> = OnceLock::new();
        RUNNER.get_or_init(|| {
            let runner = match Engine::start() {
                Ok(engine) => Self::Engine(engine),
                Err(cause) => Self::Plain { cause },
            };
            let text = match &runner {
                Self::Engine(_) => "containers: run by a Docker engine".to_owned(),
                Self::Plain { cause } => format!("containers: run as the PLAIN BINARY, for {cause}"),
            };
            // Past the test harness, which keeps what tests that pass print.
            drop(writeln!(std::io::stderr(), "{text}"));
            runner
        })
    }

    /// Loads the image of an archive.
    ///
    /// # Panics
    /// When the engine refuses it.
    pub fn load(&self, archive: &Path) {
        if let Self::Engine(engine) = self {
            engine.run(&["load", "--quiet", "--input", &archive.display().to_string()]);
        }
    }

    /// Starts a container from an image.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(&'static self, image: &str, container: Container) -> Running {
        let folder = tempfile::Builder::new().prefix("container-").tempdir().expect("a temporary folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("readable");
        let sources: Vec<PathBuf> =
            (0..container.mounts.len()).map(|index| folder.path().join(index.to_string())).collect();
        let (mut command, paths) = match self {
            Self::Engine(engine) => {
                fill(&container, &sources, &[]);
                (in_engine(engine, image, &container, &sources), Vec::new())
            }
            Self::Plain { .. } => {
                let paths: Vec<(String, String)> = container
                    .mounts
                    .iter()
                    .zip(&sources)
                    .map(|(mount, source)| (mount.path.clone(), source.display().to_string()))
                    .collect();
                fill(&container, &sources, &paths);
                let mut command = Command::new(Kind::Tributary.binary());
                command.args(container.args.iter().map(|argument| moved(argument, &paths)));
                command.env_clear().envs(&container.env).current_dir(folder.path());
                (command, paths)
            }
        };
        let child = Child::spawn(&container.name, &mut command, &folder.path().join("log"));
        Running { container, child, paths, runner: self, _folder: folder }
    }
}

impl Running {
    /// What it was started as.
    #[must_use]
    pub fn container(&self) -> &Container {
        &self.container
    }

    /// Waits until all checks have been passed.
    ///
    /// # Panics
    /// When they are not in time.
    pub fn wait_well(&mut self) {
        for check in &self.container.checks {
            let is_passed = || is_passed(check, &self.container.name, &self.paths, self.runner);
            self.child.wait_for(&format!("passes {check:?}"), || is_passed().then_some(()));
        }
    }

    /// Stops in order.
    ///
    /// # Panics
    /// When it does not.
    pub fn stop(&mut self) {
        self.child.stop();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Runner::Engine(engine) = self.runner {
            // Whoever has stopped is gone already.
            drop(engine.docker(&["rm", "--force", "--volumes", &self.container.name]).output());
        }
    }
}

fn is_passed(check: &Check, name: &str, paths: &[(String, String)], runner: &Runner) -> bool {
    match (check, runner) {
        (Check::Get { port, path, .. }, _) => {
            let reply = Http::new(format!("http://127.0.0.1:{port}")).try_get(path, &[]);
            reply.is_some_and(|reply| (200..400).contains(&reply.status))
        }
        (Check::Command(words), Runner::Engine(engine)) => {
            let mut command = engine.docker(&["exec", name]);
            command.args(words).output().expect("docker").status.success()
        }
        (Check::Command(words), Runner::Plain { .. }) => {
            let program = Kind::Tributary.binary().display().to_string();
            let paths = [paths, &[(PROGRAM.to_owned(), program)]].concat();
            let words: Vec<String> = words.iter().map(|word| moved(word, &paths)).collect();
            Command::new(&words[0]).args(&words[1..]).output().expect("a program").status.success()
        }
    }
}

/// Lays what is mounted where it is mounted from.
fn fill(container: &Container, sources: &[PathBuf], paths: &[(String, String)]) {
    for (mount, source) in container.mounts.iter().zip(sources) {
        match &mount.contents {
            Contents::Files(files) => {
                fs::create_dir(source).expect("a folder");
                for (name, text) in files {
                    fs::write(source.join(name), moved(text, paths)).expect("written");
                }
            }
            Contents::File(text) => fs::write(source, moved(text, paths)).expect("written"),
            Contents::Folder | Contents::Volume => {
                fs::create_dir(source).expect("a folder");
                // Only root can give it away, and only root has to.
                if rustix::process::geteuid().is_root() {
                    chown(source, Some(USER), Some(USER)).expect("given away");
                }
            }
        }
    }
}

fn in_engine(engine: &Engine, image: &str, container: &Container, sources: &[PathBuf]) -> Command {
    let mut command = engine.docker(&["run", "--rm", "--network=host", "--pull=never"]);
    command.arg(format!("--name={}", container.name));
    if let Some(user) = container.user {
        command.arg(format!("--user={user}:{user}"));
    }
    if container.has_read_only_root {
        command.arg("--read-only");
    }
    command.args(container.dropped_capabilities.iter().map(|name| format!("--cap-drop={name}")));
    if container.has_no_new_privileges {
        command.arg("--security-opt=no-new-privileges");
    }
    command.args(container.memory.iter().map(|bytes| format!("--memory={bytes}")));
    command.args(container.env.iter().map(|(name, value)| format!("--env={name}={value}")));
    for (mount, source) in container.mounts.iter().zip(sources) {
        let mode = if mount.is_read_only { "ro" } else { "rw" };
        command.arg(match mount.contents {
            Contents::Volume => format!("--volume={}", mount.path),
            _ => format!("--volume={}:{}:{mode}", source.display(), mount.path),
        });
    }
    command.arg(image).args(&container.args);
    command
}

fn moved(text: &str, paths: &[(String, String)]) -> String {
    paths.iter().fold(text.to_owned(), |text, (old, new)| text.replace(old, new))
}

/// Builds the image with `deploy/image.sh` from the binary that was built along with the tests, into a folder below the
/// target folder; with an engine or without one. Returns the archive.
///
/// # Panics
/// When it fails.
pub fn build_image(engine: Option<&Engine>, image: &str, folder: &str) -> PathBuf {
    let out = target_folder().join(folder);
    let mut command = Command::new(repository().join("deploy/image.sh"));
    if let Some(engine) = engine {
        command = engine.environment(command);
    } else {
        // Wherever the machine's own engine may be, it is not there.
        command.env("DOCKER_HOST", "unix:///nowhere");
    }
    let output = command
        .env("BINARY", Kind::Tributary.binary())
        .env("IMAGE", image)
        .env("OUT", &out)
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .output()
        .expect("deploy/image.sh");
    assert!(output.status.success(), "deploy/image.sh: {}", String::from_utf8_lossy(&output.stderr));
    out.join("tributary.tar")
}
