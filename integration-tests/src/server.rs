//! Tributary and Prometheus, started and stopped the same way.
//!
//! With `TRIBUTARY_SHAPE=cluster` in the environment a Tributary is a cluster of five roles instead of one process:
//! the stories run unchanged, and nobody can tell the difference from outside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use test_kit::{free_port, part, profile_folder};

use crate::child::Child;
use crate::cluster::{Cluster, Store};
use crate::http::Http;

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `tributary`, all five services in one process.
    Tributary,
    /// Debian's Prometheus 2.42.
    Prometheus,
    /// The Prometheus 3.x of Debian 14: 3.5 or later.
    Prometheus3,
}

impl Kind {
    /// The program. `make test` builds Tributary beside the tests; `cargo test` alone does not.
    ///
    /// # Panics
    /// When it is not there.
    #[must_use]
    pub fn binary(self) -> PathBuf {
        match self {
            Self::Tributary => {
                let binary = profile_folder().join("tributary");
                assert!(binary.exists(), "{} is not built: run `make test`", binary.display());
                binary
            }
            Self::Prometheus => part("prometheus/usr/bin/prometheus"),
            Self::Prometheus3 => part("prometheus-3/usr/bin/prometheus"),
        }
    }

    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Tributary => &["--log.level=info", "--enable-feature=search-api"],
            Self::Prometheus => &["--enable-feature=native-histograms,exemplar-storage"],
            Self::Prometheus3 => &[
                "--enable-feature=native-histograms,exemplar-storage",
                "--web.remote-write-receiver.accepted-protobuf-messages=prometheus.WriteRequest",
                "--web.remote-write-receiver.accepted-protobuf-messages=io.prometheus.write.v2.Request",
            ],
        }
    }
}

/// A server with a port and a folder of its own, both kept over restarts.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    port: u16,
    /// Of one process; the ingesters of a cluster have ports of their own.
    otlp_port: u16,
    processes: Processes,
    /// Whether `web.yml` in its folder guards it.
    is_secured: bool,
    /// What the paths of its web listener begin with.
    prefix: String,
    /// Whether independent rules of a group are evaluated at the same time.
    has_concurrent_rules: bool,
    /// Behind what works in it.
    folder: TempDir,
}

/// What a server consists of.
#[derive(Debug)]
enum Processes {
    One(Option<Child>),
    Cluster(Box<Cluster>),
}

impl Server {
    /// Starts a server with the text of a `prometheus.yml`, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not get ready.
    #[must_use]
    pub fn start(kind: Kind, config: &str) -> Self {
        let mut server = Self::stopped(kind, config);
        server.start_again();
        server
    }

    /// Starts a server behind a `web.yml`, which is one of the files that are put into its folder, and waits until it
    /// takes connections. [`Server::http`] does not reach it: it speaks no TLS and has no password.
    ///
    /// # Panics
    /// When it does not get that far.
    #[must_use]
    pub fn start_secured(kind: Kind, config: &str, files: &[(&str, String)]) -> Self {
        let mut server = Self::stopped(kind, config);
        for (name, text) in files {
            fs::write(server.folder().join(name), text).expect("a file");
        }
        server.is_secured = true;
        if let Processes::Cluster(cluster) = &mut server.processes {
            cluster.secure();
        }
        server.start_again();
        server
    }

    /// Starts a server whose paths all begin with a prefix, as those of [`Server::http`] then do, and waits until it is
    /// ready.
    ///
    /// # Panics
    /// When it does not get ready.
    #[must_use]
    pub fn start_below(kind: Kind, config: &str, prefix: &str) -> Self {
        let mut server = Self::stopped(kind, config);
        prefix.clone_into(&mut server.prefix);
        if let Processes::Cluster(cluster) = &mut server.processes {
            cluster.below(prefix);
        }
        server.start_again();
        server
    }

    /// Starts a server that evaluates independent rules of a group at the same time, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not get ready.
    #[must_use]
    pub fn start_with_concurrent_rules(kind: Kind, config: &str) -> Self {
        let mut server = Self::stopped(kind, config);
        server.has_concurrent_rules = true;
        if let Processes::Cluster(cluster) = &mut server.processes {
            cluster.evaluate_concurrently();
        }
        server.start_again();
        server
    }

    /// Prepares a server without starting it.
    ///
    /// # Panics
    /// When its folder cannot be made.
    #[must_use]
    pub fn stopped(kind: Kind, config: &str) -> Self {
        let is_cluster = kind == Kind::Tributary && shape() == Shape::Cluster;
        Self::prepare(kind, config, is_cluster.then_some(Store::Folder))
    }

    /// Prepares a server; as a cluster where it says where the table is to lie.
    fn prepare(kind: Kind, config: &str, cluster: Option<Store>) -> Self {
        let folder =
            tempfile::Builder::new().prefix("tributary-story-").tempdir().expect("a temporary folder");
        let port = free_port();
        let processes = match cluster {
            Some(store) => Processes::Cluster(Box::new(Cluster::prepare(folder.path(), port, store))),
            None => Processes::One(None),
        };
        let otlp_port = free_port();
        let server = Self {
            kind,
            port,
            otlp_port,
            processes,
            is_secured: false,
            prefix: String::new(),
            has_concurrent_rules: false,
            folder,
        };
        server.write_config(config);
        server
    }

    /// Starts a Tributary as a cluster, whatever the shape of others, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not get ready.
    #[must_use]
    pub fn start_cluster(config: &str, store: Store) -> Self {
        let mut server = Self::stopped_cluster(config, store);
        server.start_again();
        server
    }

    /// Prepares a cluster, whatever the shape of others, without starting its members.
    ///
    /// # Panics
    /// When its folder cannot be made.
    #[must_use]
    pub fn stopped_cluster(config: &str, store: Store) -> Self {
        Self::prepare(Kind::Tributary, config, Some(store))
    }

    /// The members of a cluster.
    ///
    /// # Panics
    /// When it is none.
    pub fn cluster(&mut self) -> &mut Cluster {
        match &mut self.processes {
            Processes::Cluster(cluster) => cluster,
            Processes::One(_) => panic!("the server is one process"),
        }
    }

    /// Starts the stopped server on its own data.
    ///
    /// # Panics
    /// When it does not get ready.
    pub fn start_again(&mut self) {
        let (http, mut command) = (self.http(), self.command());
        match &mut self.processes {
            Processes::Cluster(cluster) => cluster.start(),
            Processes::One(running) => {
                let log = self.folder.path().join("log");
                let mut child = Child::spawn(&format!("{:?}", self.kind), &mut command, &log);
                let is_ready = || match self.is_secured {
                    true => takes_connections(self.port).then_some(()),
                    false => http.try_get("/-/ready", &[]).filter(|reply| reply.status == 200).map(drop),
                };
                child.wait_for("gets ready", is_ready);
                *running = Some(child);
            }
        }
    }

    /// How the server is started.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(self.kind.binary());
        command
            .arg(format!("--config.file={}", self.config_file().display()))
            .arg(format!("--storage.tsdb.path={}", self.data_folder().display()))
            .arg(format!("--web.listen-address=127.0.0.1:{}", self.port))
            .args(["--web.enable-lifecycle", "--web.enable-admin-api", "--web.enable-remote-write-receiver"])
            .args(self.kind.flags())
            .args(self.otlp_flag())
            .args(self.has_concurrent_rules.then_some("--enable-feature=concurrent-rule-eval"))
            .args((!self.prefix.is_empty()).then(|| format!("--web.route-prefix={}", self.prefix)))
            .args(self.is_secured.then(|| format!("--web.config.file={}/web.yml", self.folder().display())))
            .current_dir(self.folder.path());
        command
    }

    /// Prometheus takes no OTLP over gRPC.
    fn otlp_flag(&self) -> Option<String> {
        let flag = || format!("--otlp.grpc-address=127.0.0.1:{}", self.otlp_port);
        (self.kind == Kind::Tributary).then(flag)
    }

    /// Where a Tributary takes OTLP over gRPC, as `host:port`; any ingester of a cluster takes anything.
    #[must_use]
    pub fn otlp_address(&self) -> String {
        match &self.processes {
            Processes::One(_) => format!("127.0.0.1:{}", self.otlp_port),
            Processes::Cluster(cluster) => cluster.otlp_address("ingester-1"),
        }
    }

    /// Stops in order and starts again.
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Stops in order.
    ///
    /// # Panics
    /// When it does not run.
    pub fn stop(&mut self) {
        match &mut self.processes {
            Processes::One(child) => child.take().expect("the server runs").stop(),
            Processes::Cluster(cluster) => cluster.stop(),
        }
    }

    /// Ends every process as a crash does.
    pub fn kill_9(&mut self) {
        match &mut self.processes {
            Processes::One(child) => drop(child.take()),
            Processes::Cluster(cluster) => cluster.kill_9(),
        }
    }

    /// The process, where the server is one and runs.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        match &self.processes {
            Processes::One(child) => child.as_ref().map(Child::id),
            Processes::Cluster(_) => None,
        }
    }

    /// A client of the default tenant.
    #[must_use]
    pub fn http(&self) -> Http {
        Http::new(format!("http://{}{}", self.address(), self.prefix))
    }

    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Which program it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Replaces the config file; the server reads it at a start or a reload.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_config(&self, text: &str) {
        fs::write(self.config_file(), text).expect("a config file");
    }

    /// The config file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("prometheus.yml")
    }

    /// `--storage.tsdb.path`.
    #[must_use]
    pub fn data_folder(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The table of a Tributary.
    #[must_use]
    pub fn table(&self) -> PathBuf {
        self.data_folder().join("tributary/metrics")
    }

    /// The server's own folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes everything acknowledged to the table.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn flush(&self) {
        let reply = self.http().post_form("/api/v1/admin/tsdb/flush", &[]);
        assert_eq!(reply.status, 200, "{}", reply.body);
    }

    /// How long the server has kept processors busy, in seconds.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn cpu_seconds(&self) -> f64 {
        match &self.processes {
            Processes::One(child) => child.as_ref().expect("the server runs").cpu_seconds(),
            Processes::Cluster(cluster) => cluster.cpu_seconds(),
        }
    }

    /// What evaluates queries: the process, or the queriers of a cluster.
    #[must_use]
    pub fn queriers(&self) -> Vec<Http> {
        match &self.processes {
            Processes::One(_) => vec![self.http()],
            Processes::Cluster(cluster) => ["querier-0", "querier-1"].map(|name| cluster.http(name)).into(),
        }
    }

    /// What stores: the process, or the ingesters of a cluster.
    #[must_use]
    pub fn ingesters(&self) -> Vec<Http> {
        match &self.processes {
            Processes::One(_) => vec![self.http()],
            Processes::Cluster(cluster) => ["ingester-0", "ingester-1"].map(|name| cluster.http(name)).into(),
        }
    }

    /// What scrapes: the process, or the scrapers of a cluster.
    #[must_use]
    pub fn scrapers(&self) -> Vec<Http> {
        match &self.processes {
            Processes::One(_) => vec![self.http()],
            Processes::Cluster(cluster) => ["scraper-0", "scraper-1"].map(|name| cluster.http(name)).into(),
        }
    }

    /// Does something, and returns by how many bytes the memory of what answers HTTP grew at most meanwhile.
    ///
    /// # Panics
    /// When the server does not run.
    pub fn growth_during(&self, work: impl FnOnce()) -> u64 {
        let child = match &self.processes {
            Processes::One(child) => child.as_ref(),
            Processes::Cluster(cluster) => cluster.child("gateway-0"),
        };
        child.expect("the server runs").growth_during(work)
    }

    /// Everything that the server has printed in all its lives.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn whole_output(&self) -> String {
        let logs = fs::read_dir(self.folder.path()).expect("a folder").map(|e| e.expect("an entry").path());
        let logs = logs.filter(|path| path.ends_with("log") || path.extension().is_some_and(|e| e == "log"));
        logs.map(|path| String::from_utf8_lossy(&fs::read(path).expect("a log")).into_owned()).collect()
    }

    /// Does something, and returns by how many bytes the memory of what answers HTTP, or of an ingester, grew at most
    /// meanwhile.
    ///
    /// # Panics
    /// When the server does not run.
    pub fn growth_of_each_during(&self, work: impl FnOnce()) -> u64 {
        let mut growth = 0;
        match &self.processes {
            Processes::One(_) => growth = self.growth_during(work),
            Processes::Cluster(cluster) => {
                let ingester = |name| cluster.child(name).expect("the server runs");
                let [first, second] = ["ingester-0", "ingester-1"].map(ingester);
                let (mut of_first, mut of_second) = (0, 0);
                let within = || of_second = second.growth_during(|| growth = self.growth_during(work));
                of_first += first.growth_during(within);
                growth = growth.max(of_first).max(of_second);
            }
        }
        growth
    }

    /// The end of what the server printed.
    #[must_use]
    pub fn output(&self) -> String {
        match &self.processes {
            Processes::One(child) => child.as_ref().map(Child::output).unwrap_or_default(),
            Processes::Cluster(cluster) => cluster.output(),
        }
    }
}

/// Whether somebody listens at a port of loopback.
pub(crate) fn takes_connections(port: u16) -> bool {
    std::net::TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// What a Tributary of the stories is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    One,
    Cluster,
}

fn shape() -> Shape {
    #[expect(clippy::disallowed_methods, reason = "how the tests are run is said by who runs them")]
    match std::env::var("TRIBUTARY_SHAPE").as_deref() {
        Ok("cluster") => Shape::Cluster,
        Ok(other) => panic!("TRIBUTARY_SHAPE={other}: want cluster, or nothing"),
        Err(_) => Shape::One,
    }
}
