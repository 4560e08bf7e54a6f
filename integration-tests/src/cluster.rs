//! A Tributary as five roles in eight processes, coordinated by a real etcd of three members: what `make cluster`
//! starts, on ports and folders of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use test_kit::{EtcdCluster, S3Server, free_port};

use crate::child::Child;
use crate::http::Http;
use crate::server::{Kind, takes_connections};

/// The bucket that a cluster on S3 keeps its table in.
const BUCKET: &str = "metrics";

/// The members in the order in which they are started.
const MEMBERS: [(&str, &str); 8] = [
    ("discovery-0", "discovery"),
    ("ingester-0", "ingester"),
    ("ingester-1", "ingester"),
    ("querier-0", "querier"),
    ("querier-1", "querier"),
    ("gateway-0", "gateway"),
    ("scraper-0", "scraper"),
    ("scraper-1", "scraper"),
];
/// A second gateway, which is started by name alone: the one that takes over while the first is replaced.
const NEXT_GATEWAY: (&str, &str) = ("gateway-1", "gateway");

/// Where the table lies, and where the ingesters' logs do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// In a folder that all members share; each log on a disk of its own.
    Folder,
    /// In a `SeaweedFS`; each log on a disk of its own.
    S3,
    /// Both in a folder that all members share.
    FolderWithLogs,
    /// Both in a `SeaweedFS`.
    S3WithLogs,
}

impl Store {
    fn is_s3(self) -> bool {
        matches!(self, Self::S3 | Self::S3WithLogs)
    }

    fn has_logs(self) -> bool {
        matches!(self, Self::FolderWithLogs | Self::S3WithLogs)
    }
}

/// The processes of a cluster, and what they stand on. What runs is ended when the value is dropped.
#[derive(Debug)]
pub struct Cluster {
    members: BTreeMap<&'static str, Member>,
    folder: PathBuf,
    /// Its etcd.
    pub etcd: EtcdCluster,
    s3: Option<S3Server>,
    store: Store,
    /// Whether `web.yml` in the folder guards the gateway.
    is_secured: bool,
    /// What the paths of the gateway's routes begin with.
    prefix: String,
    /// Whether queriers evaluate independent rules of a group at the same time.
    has_concurrent_rules: bool,
}

#[derive(Debug)]
struct Member {
    role: &'static str,
    port: u16,
    /// Where an ingester takes OTLP.
    otlp_port: u16,
    child: Option<Child>,
}

impl Cluster {
    /// Starts etcd and, where the table is to lie there, S3; the members are yet to be started. Files go below `folder`,
    /// which holds the `prometheus.yml`; the gateway answers HTTP at `port`.
    ///
    /// # Panics
    /// When they do not start.
    #[must_use]
    pub fn prepare(folder: &Path, port: u16, store: Store) -> Self {
        let s3 = store.is_s3().then(S3Server::start);
        if let Some(s3) = &s3 {
            s3.create_bucket(BUCKET);
        }
        let member = |(name, role): (&'static str, &'static str)| {
            let port = if name == "gateway-0" { port } else { free_port() };
            (name, Member { role, port, otlp_port: free_port(), child: None })
        };
        let members = MEMBERS.into_iter().chain([NEXT_GATEWAY]).map(member).collect();
        Self {
            members,
            folder: folder.to_path_buf(),
            etcd: EtcdCluster::start(3),
            s3,
            store,
            is_secured: false,
            prefix: String::new(),
            has_concurrent_rules: false,
        }
    }

    /// Puts the gateway's routes below a prefix.
    pub(crate) fn below(&mut self, prefix: &str) {
        prefix.clone_into(&mut self.prefix);
    }

    /// Puts the gateway behind the `web.yml` in the folder.
    pub(crate) fn secure(&mut self) {
        self.is_secured = true;
    }

    /// Has independent rules of a group evaluated at the same time.
    pub(crate) fn evaluate_concurrently(&mut self) {
        self.has_concurrent_rules = true;
    }

    /// Starts every member that does not run, and waits until all are ready.
    ///
    /// # Panics
    /// When one is not in time.
    pub fn start(&mut self) {
        for (name, _) in MEMBERS {
            if self.members[name].child.is_none() {
                self.spawn(name);
            }
        }
        for (name, _) in MEMBERS {
            self.wait_until_ready(name);
        }
    }

    /// Starts one member on its own data, and waits until it is ready.
    ///
    /// # Panics
    /// When it is not in time.
    pub fn start_member(&mut self, name: &str) {
        self.spawn(name);
        self.wait_until_ready(name);
    }

    /// Stops all members in order: what writes before what stores.
    pub fn stop(&mut self) {
        for (name, _) in [NEXT_GATEWAY].iter().chain(MEMBERS.iter().rev()) {
            self.stop_member(name);
        }
    }

    /// Stops one member in order.
    ///
    /// # Panics
    /// When it does not stop well.
    pub fn stop_member(&mut self, name: &str) {
        if let Some(mut child) = self.member(name).child.take() {
            child.stop();
        }
    }

    /// Ends all members at once, as a power cut does.
    pub fn kill_9(&mut self) {
        for member in self.members.values_mut() {
            member.child = None;
        }
    }

    /// Ends one member at once, as a crash does.
    pub fn kill_9_member(&mut self, name: &str) {
        self.member(name).child = None;
    }

    /// Stops a member's clock: it holds its connections and answers nobody.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pause(&self, name: &str) {
        self.members[name].child.as_ref().expect("it runs").pause();
    }

    /// Lets a paused member go on.
    ///
    /// # Panics
    /// When it does not run.
    pub fn resume(&self, name: &str) {
        self.members[name].child.as_ref().expect("it runs").resume();
    }

    /// A client of one member.
    #[must_use]
    pub fn http(&self, name: &str) -> Http {
        let Member { role, port, .. } = &self.members[name];
        let prefix = if *role == "gateway" { self.prefix.as_str() } else { "" };
        Http::new(format!("http://127.0.0.1:{port}{prefix}"))
    }

    /// Its S3 server, where it has one.
    #[must_use]
    pub fn s3(&self) -> Option<&S3Server> {
        self.s3.as_ref()
    }

    /// Where an ingester takes OTLP over gRPC, as `host:port`.
    #[must_use]
    pub fn otlp_address(&self, name: &str) -> String {
        format!("127.0.0.1:{}", self.members[name].otlp_port)
    }

    /// How long all members have kept processors busy, in seconds.
    #[must_use]
    pub fn cpu_seconds(&self) -> f64 {
        self.members.values().filter_map(|member| Some(member.child.as_ref()?.cpu_seconds())).sum()
    }

    /// The end of what all members printed.
    #[must_use]
    pub fn output(&self) -> String {
        let members = self.members.iter();
        let of = |(name, member): (&&str, &Member)| {
            member.child.as_ref().map(|child| format!("== {name}\n{}", child.output()))
        };
        members.filter_map(of).collect()
    }

    /// How a member is started.
    ///
    /// # Panics
    /// When its own file cannot be written.
    #[must_use]
    pub fn command(&self, name: &str) -> Command {
        let Member { role, port, otlp_port, .. } = &self.members[name];
        let file = self.folder.join(format!("{name}.yml"));
        fs::write(&file, self.settings(name, role)).expect("a service's own file");
        let mut command = Command::new(Kind::Tributary.binary());
        command
            .arg(role)
            .arg(format!("--service.config={}", file.display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg(format!("--cluster.member-name={name}"))
            .arg(format!("--etcd.endpoints={}", self.etcd.endpoints().join(",")))
            .current_dir(&self.folder);
        if *role == "gateway" && self.is_secured {
            command.arg(format!("--web.config.file={}/web.yml", self.folder.display()));
        }
        if *role == "gateway" && !self.prefix.is_empty() {
            command.arg(format!("--web.route-prefix={}", self.prefix));
        }
        if *role == "ingester" {
            command.arg(format!("--otlp.grpc-address=127.0.0.1:{otlp_port}"));
        }
        if matches!(*role, "ingester" | "querier") {
            command.arg(format!("--storage.url={}", self.storage_url()));
            command.envs(self.s3.iter().flat_map(S3Server::variables));
        }
        command
    }

    fn storage_url(&self) -> String {
        match &self.s3 {
            Some(_) => format!("s3://{BUCKET}/table"),
            None => format!("file://{}/data/tributary", self.folder.display()),
        }
    }

    fn settings(&self, name: &str, role: &str) -> String {
        let folder = self.folder.display();
        match role {
            "discovery" => format!("config_file: {folder}/prometheus.yml\n"),
            // A path at which nothing can be written.
            "ingester" if self.store.has_logs() => {
                "path: /proc/no-disk\nlog: {store: object_store}\n".to_owned()
            }
            "ingester" => format!("path: {folder}/{name}\n"),
            "querier" => {
                let concurrent_rules = self.has_concurrent_rules;
                format!("external_url: {}\nconcurrent_rules: {concurrent_rules}\n", self.external_url())
            }
            "gateway" => {
                "enable_lifecycle: true\nenable_admin_api: true\nfeatures: [search-api]\n".to_owned()
            }
            _ => String::new(),
        }
    }

    /// What a single process takes for its own URL.
    fn external_url(&self) -> String {
        let host = rustix::system::uname();
        format!("http://{}:{}", host.nodename().to_string_lossy(), self.members["gateway-0"].port)
    }

    /// A member that runs.
    pub(crate) fn child(&self, name: &str) -> Option<&Child> {
        self.members.get(name).and_then(|member| member.child.as_ref())
    }

    fn spawn(&mut self, name: &str) {
        let mut command = self.command(name);
        let log = self.folder.join(format!("{name}.log"));
        self.member(name).child = Some(Child::spawn(name, &mut command, &log));
    }

    fn wait_until_ready(&mut self, name: &str) {
        let (http, is_secured) = (self.http(name), self.is_secured);
        let Member { role, port, child, .. } = self.member(name);
        let (is_secured, port) = (is_secured && *role == "gateway", *port);
        let child = child.as_mut().expect("it was started");
        child.wait_for("gets ready", || match is_secured {
            true => takes_connections(port).then_some(()),
            false => http.try_get("/-/ready", &[]).filter(|reply| reply.status == 200).map(drop),
        });
    }

    fn member(&mut self, name: &str) -> &mut Member {
        self.members.get_mut(name).unwrap_or_else(|| panic!("no member {name}"))
    }
}
