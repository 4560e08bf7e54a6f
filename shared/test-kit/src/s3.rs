//! A real S3 server: SeaweedFS, on free ports of the loopback interface.
//!
//! Invariants:
//! - conditional puts are atomic, as at AWS;
//! - it ends with its value, and with the test's process however that one ends: it is started by a shell that waits
//!   for the end of its input, then ends it and removes its folder. So it may stand in a `static`, for all tests of a
//!   process.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::parts::{free_port, part};

/// How long the server may take to answer; on a busy machine it takes a few seconds.
const START_MAX: Duration = Duration::from_secs(90);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// Entries of a folder that are listed at most.
const LISTED_MAX: usize = 10_000;
/// Starts a program, says its process id, and ends it when there is no more input. The first argument is its folder.
const KEEPER: &str = r#"folder=$1; shift; "$@" & echo $!; read -r _; kill -9 $!; wait $!; rm -rf "$folder""#;
/// The largest answer of the server's own interface that is read.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// An S3 server that runs until it is dropped.
#[derive(Debug)]
pub struct S3Server {
    folder: PathBuf,
    keeper: Child,
    server: Pid,
    s3_port: u16,
    filer_port: u16,
}

impl S3Server {
    /// The key that may do everything.
    pub const ACCESS_KEY_ID: &str = "tributary";
    /// Its secret.
    pub const SECRET_ACCESS_KEY: &str = "a secret of the tests";

    /// Starts a server and waits until it takes data.
    ///
    /// # Panics
    /// When it does not get that far.
    #[must_use]
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("s3-").tempdir().expect("a temporary folder").keep();
        let identities = format!(
            r#"{{"identities": [{{"name": "tests", "actions": ["Admin"],
                "credentials": [{{"accessKey": "{}", "secretKey": "{}"}}]}}]}}"#,
            Self::ACCESS_KEY_ID,
            Self::SECRET_ACCESS_KEY
        );
        let config = folder.join("s3.json");
        fs::write(&config, identities).expect("written");
        let log = File::create(folder.join("log")).expect("a log file");
        let (s3_port, filer_port) = (free_port(), free_port());
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "sh"])
            .arg(&folder)
            .arg(part("venv/bin/weed"))
            .args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"])
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false"])
            // Each bucket has volumes of its own.
            .args(["-master.volumeSizeLimitMB=64", "-volume.max=200"])
            .arg(format!("-dir={}", folder.display()))
            .arg(format!("-s3.config={}", config.display()))
            .arg(format!("-s3.port={s3_port}"))
            .arg(format!("-filer.port={filer_port}"))
            .args(["master.port", "volume.port"].map(|name| format!("-{name}={}", free_port())))
            .args(
                ["master", "volume", "filer", "s3"].map(|name| format!("-{name}.port.grpc={}", free_port())),
            )
            // Sockets go there.
            .env("TMPDIR", &folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("a shell");
        let mut line = String::new();
        let stdout = keeper.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("the server's process id");
        let pid = line.trim().parse().ok().and_then(Pid::from_raw);
        let server = pid.unwrap_or_else(|| panic!("no process id: {line:?}"));
        let server = Self { folder, keeper, server, s3_port, filer_port };
        server.await_ready();
        server
    }

    fn await_ready(&self) {
        let started = Instant::now();
        // The first write succeeds once its parts have found each other.
        let is_ready = || {
            self.filer("PUT", "/ready", b"x").status == 201 && http(self.s3_port, "GET", "/", b"").status > 0
        };
        while !is_ready() {
            assert!(started.elapsed() < START_MAX, "no S3 server after {START_MAX:?}:\n{}", self.output());
            thread::sleep(PAUSE);
        }
    }

    /// The server's URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.s3_port)
    }

    /// Creates a bucket; nothing happens when it is there.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn create_bucket(&self, name: &str) {
        // A folder there is a bucket: no signed request is needed.
        let status = self.filer("POST", &format!("/buckets/{name}/"), b"").status;
        assert_eq!(status, 201, "create bucket {name}:\n{}", self.output());
    }

    /// The names of what lies in a folder of a bucket, `BUCKET/FOLDER`, in order.
    ///
    /// # Panics
    /// When the server refuses, or there is more than one answer holds.
    #[must_use]
    pub fn list(&self, folder: &str) -> Vec<String> {
        let answer = self.filer("GET", &format!("/buckets/{folder}/?limit={LISTED_MAX}"), b"");
        assert_eq!(answer.status, 200, "list {folder}:\n{}", self.output());
        let listed: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        let entries = listed["Entries"].as_array().map(Vec::as_slice).unwrap_or_default();
        assert!(entries.len() < LISTED_MAX, "{folder} holds more");
        let name =
            |entry: &serde_json::Value| Some(entry["FullPath"].as_str()?.rsplit_once('/')?.1.to_owned());
        entries.iter().map(|entry| name(entry).expect("a path")).collect()
    }

    /// The bytes of an object, `BUCKET/KEY`.
    ///
    /// # Panics
    /// When it is not there.
    #[must_use]
    pub fn read(&self, path: &str) -> Vec<u8> {
        let answer = self.filer("GET", &format!("/buckets/{path}"), b"");
        assert_eq!(answer.status, 200, "read {path}:\n{}", self.output());
        answer.body
    }

    /// Replaces the bytes of an object, `BUCKET/KEY`, behind the back of whoever wrote it.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn write(&self, path: &str, bytes: &[u8]) {
        let status = self.filer("PUT", &format!("/buckets/{path}"), bytes).status;
        assert_eq!(status, 201, "write {path}:\n{}", self.output());
    }

    /// What a program needs in its environment to use the server.
    #[must_use]
    pub fn variables(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", Self::ACCESS_KEY_ID.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", Self::SECRET_ACCESS_KEY.to_owned()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
        ]
    }

    /// Stops the server where it stands: connections come about, and nothing is answered.
    ///
    /// # Panics
    /// When it is gone.
    pub fn pause(&self) {
        kill_process(self.server, Signal::STOP).expect("the server runs");
    }

    /// Lets a paused server go on.
    ///
    /// # Panics
    /// When it is gone.
    pub fn resume(&self) {
        kill_process(self.server, Signal::CONT).expect("the server runs");
    }

    fn output(&self) -> String {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Asks the server's own interface.
    fn filer(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        http(self.filer_port, method, path, body)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // The end of its input is what the keeper waits for.
        drop(self.keeper.stdin.take());
        drop(self.keeper.wait());
    }
}

/// What a server says; nothing, with a status of 0, when it does not.
#[derive(Debug, Default)]
struct Answer {
    status: u16,
    body: Vec<u8>,
}

/// One request.
fn http(port: u16, method: &str, path: &str, body: &[u8]) -> Answer {
    try_http(port, method, path, body).unwrap_or_default()
}

fn try_http(port: u16, method: &str, path: &str, body: &[u8]) -> Option<Answer> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(START_MAX)).ok()?;
    let length = body.len();
    // In version 1.0 an answer ends with its connection.
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nAccept: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), body].concat()).ok()?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let status = std::str::from_utf8(&answer[..end]).ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: answer.split_off(end + 4) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_serves_stands_still_and_ends() {
        let server = S3Server::start();
        server.create_bucket("some");
        let without_signature = || http(server.s3_port, "GET", "/some", b"").status;
        assert_eq!(without_signature(), 403);
        server.write("some/folder/a", &[0, 255]);
        server.write("some/folder/a", b"\r\n\r\n\xfe");
        server.write("some/folder/b", b"");
        assert_eq!(server.list("some/folder"), ["a", "b"]);
        assert_eq!(server.read("some/folder/a"), b"\r\n\r\n\xfe");
        let (pid, folder) = (server.server, server.folder.clone());
        server.pause();
        server.resume();
        assert_eq!(without_signature(), 403);
        drop(server);
        assert!(kill_process(pid, Signal::CONT).is_err(), "the server has ended");
        assert!(!folder.exists(), "its folder is gone");
    }
}
