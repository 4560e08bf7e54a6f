//! A real etcd cluster on loopback, whose members a test kills, pauses and starts again.
//!
//! Invariants: no member outlives its value, whatever the test did; every wait has a deadline and says what it waited
//! for. The calls block: a test in an async runtime makes them on a thread of several, or before its tasks matter.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{free_port, part};

/// How long anything is waited for.
const DEADLINE: Duration = Duration::from_secs(90);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a member may take to answer a question of the test itself.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of a log that a failure shows.
const SHOWN_BYTES: usize = 3_000;

/// A cluster that runs until it is dropped. Its members are counted from 0.
#[derive(Debug)]
pub struct EtcdCluster {
    program: PathBuf,
    flags: Vec<String>,
    folder: tempfile::TempDir,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    client_port: u16,
    peer_port: u16,
    process: Option<Child>,
}

impl EtcdCluster {
    /// Starts Debian's etcd with `size` members and waits until every one of them answers.
    ///
    /// # Panics
    /// When it is not there or does not start.
    #[must_use]
    pub fn start(size: usize) -> Self {
        Self::start_with(size, &[])
    }

    /// As [`EtcdCluster::start`], with further flags for each member.
    ///
    /// # Panics
    /// As [`EtcdCluster::start`].
    #[must_use]
    pub fn start_with(size: usize, flags: &[&str]) -> Self {
        let member = |_| Member { client_port: free_port(), peer_port: free_port(), process: None };
        let mut cluster = Self {
            program: part("etcd-server/usr/bin/etcd"),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            folder: tempfile::tempdir().expect("a folder"),
            members: (0..size).map(member).collect(),
        };
        cluster.start_all();
        cluster
    }

    /// How many members it was started with.
    #[must_use]
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// The URL of each member, as clients are given it.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        (0..self.size()).map(|index| self.endpoint(index)).collect()
    }

    /// The member that leads the cluster.
    ///
    /// # Panics
    /// When nobody does in time.
    #[must_use]
    pub fn leader(&self) -> usize {
        self.eventually("a leader", || {
            (0..self.size()).find(|index| {
                let status = self.try_call(*index, "maintenance/status", &json!({}));
                status.is_some_and(|status| {
                    let own = status["header"]["member_id"].as_str();
                    own.is_some() && own == status["leader"].as_str()
                })
            })
        })
    }

    /// Ends a member at once, as a crash does.
    pub fn kill(&mut self, index: usize) {
        if let Some(mut process) = self.members[index].process.take() {
            // Fails only when the process has ended already.
            drop(process.kill());
            drop(process.wait());
        }
    }

    /// Starts a member that was killed on what it has on disk, and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn start_again(&mut self, index: usize) {
        self.spawn(index);
        self.wait_for(index);
    }

    /// Stops a member's clock: it holds its connections and answers nobody.
    pub fn pause(&self, index: usize) {
        self.signal(index, Signal::STOP);
    }

    /// Lets a paused member go on.
    pub fn resume(&self, index: usize) {
        self.signal(index, Signal::CONT);
    }

    /// Ends all members at once.
    pub fn kill_all(&mut self) {
        (0..self.size()).for_each(|index| self.kill(index));
    }

    /// Starts all members that do not run, and waits until every one of them answers.
    ///
    /// # Panics
    /// When they do not.
    pub fn start_all(&mut self) {
        (0..self.size()).for_each(|index| self.spawn(index));
        (0..self.size()).for_each(|index| self.wait_for(index));
    }

    /// Replaces the cluster by an empty one under the same addresses.
    ///
    /// # Panics
    /// When it does not start.
    pub fn lose_everything(&mut self) {
        self.kill_all();
        for index in 0..self.size() {
            std::fs::remove_dir_all(self.member_folder(index)).expect("a member's folder");
        }
        self.start_all();
    }

    /// Revokes every lease there is, and returns how many there were.
    ///
    /// # Panics
    /// When etcd refuses.
    pub fn revoke_all_leases(&self) -> usize {
        let leases = self.leases();
        for lease in &leases {
            let body = json!({ "ID": lease });
            // One that ran out meanwhile is refused for ever.
            self.eventually("lease/revoke", || {
                let mut members = 0..self.size();
                let is_revoked = members.any(|index| self.try_call(index, "lease/revoke", &body).is_some());
                (is_revoked || !self.leases().contains(lease)).then_some(())
            });
        }
        leases.len()
    }

    fn leases(&self) -> Vec<Value> {
        let listed = self.call("lease/leases", &json!({}));
        let leases = listed["leases"].as_array().cloned().unwrap_or_default();
        leases.into_iter().map(|lease| lease["ID"].clone()).collect()
    }

    /// Forgets all changes before a revision.
    ///
    /// # Panics
    /// When etcd refuses.
    pub fn compact(&self, revision: u64) {
        self.call("kv/compaction", &json!({ "revision": revision.to_string(), "physical": true }));
    }

    /// Writes a key past every client of the test.
    ///
    /// # Panics
    /// When etcd refuses.
    pub fn put(&self, key: &[u8], value: &[u8]) {
        self.call("kv/put", &json!({ "key": base64(key), "value": base64(value) }));
    }

    fn endpoint(&self, index: usize) -> String {
        format!("http://127.0.0.1:{}", self.members[index].client_port)
    }

    fn member_folder(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("m{index}"))
    }

    fn log(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("m{index}.log"))
    }

    fn spawn(&mut self, index: usize) {
        if self.members[index].process.is_some() {
            return;
        }
        let peer = |member: &Member| format!("http://127.0.0.1:{}", member.peer_port);
        let peers: Vec<String> =
            self.members.iter().enumerate().map(|(i, member)| format!("m{i}={}", peer(member))).collect();
        let (own, client) = (peer(&self.members[index]), self.endpoint(index));
        let log = File::options().create(true).append(true).open(self.log(index)).expect("a log file");
        let process = Command::new(&self.program)
            .arg(format!("--name=m{index}"))
            .arg(format!("--data-dir={}", self.member_folder(index).display()))
            .arg(format!("--listen-peer-urls={own}"))
            .arg(format!("--initial-advertise-peer-urls={own}"))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--initial-cluster={}", peers.join(",")))
            // What a test kills is the process, never the machine.
            .arg("--unsafe-no-fsync")
            .args(["--logger=zap", "--log-level=warn"])
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("start {}: {error}", self.program.display()));
        self.members[index].process = Some(process);
    }

    /// Waits until a member answers for the whole cluster.
    fn wait_for(&self, index: usize) {
        let read = json!({ "key": base64(b"ready?") });
        self.eventually(&format!("member {index} answers"), || self.try_call(index, "kv/range", &read));
    }

    fn signal(&self, index: usize, signal: Signal) {
        let process = self.members[index].process.as_ref().expect("a member that runs");
        let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).unwrap_or_else(|error| panic!("signal member {index}: {error}"));
    }

    /// Calls etcd's JSON gateway on whichever member answers.
    fn call(&self, method: &str, body: &Value) -> Value {
        self.eventually(method, || (0..self.size()).find_map(|index| self.try_call(index, method, body)))
    }

    fn try_call(&self, index: usize, method: &str, body: &Value) -> Option<Value> {
        self.members[index].process.as_ref()?;
        post(self.members[index].client_port, &format!("/v3/{method}"), &body.to_string()).ok()
    }

    fn eventually<T>(&self, what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = attempt() {
                return found;
            }
            if start.elapsed() > DEADLINE {
                let logs: Vec<String> = (0..self.size()).map(|index| tail(&self.log(index))).collect();
                panic!("etcd: gave up after {DEADLINE:?}: {what}\n{}", logs.join("\n---\n"));
            }
            thread::sleep(PAUSE);
        }
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        self.kill_all();
    }
}

/// One HTTP/1.0 exchange, so that the body is never chunked.
fn post(port: u16, path: &str, body: &str) -> std::io::Result<Value> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    write!(stream, "POST {path} HTTP/1.0\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    if head.split(' ').nth(1) != Some("200") {
        return Err(std::io::Error::other(answer));
    }
    Ok(serde_json::from_str(body)?)
}

fn tail(log: &Path) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    let start = text.char_indices().rev().nth(SHOWN_BYTES).map_or(0, |(at, _)| at);
    text[start..].to_owned()
}

/// Base64, as the JSON gateway wants bytes.
fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
