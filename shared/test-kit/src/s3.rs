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
/// Starts a program, says its process id, and ends it when there is no more input. The first argument is its folder.
const KEEPER: &str = r#"folder=$1; shift; "$@" & echo $!; read -r _; kill -9 $!; wait $!; rm -rf "$folder""#;
/// Answers of the server's own interface are short.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

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
        while self.filer("PUT", "/ready", "x") != Some(201) || http(self.s3_port, "GET", "/", "").is_none() {
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
        let status = self.filer("POST", &format!("/buckets/{name}/"), "");
        assert_eq!(status, Some(201), "create bucket {name}:\n{}", self.output());
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
    fn filer(&self, method: &str, path: &str, body: &str) -> Option<u16> {
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

/// One request; the status of its answer, or nothing.
fn http(port: u16, method: &str, path: &str, body: &str) -> Option<u16> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(START_MAX)).ok()?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes()).ok()?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_serves_stands_still_and_ends() {
        let server = S3Server::start();
        server.create_bucket("some");
        assert_eq!(http(server.s3_port, "GET", "/some", ""), Some(403), "nothing without a signature");
        let (pid, folder) = (server.server, server.folder.clone());
        server.pause();
        server.resume();
        assert_eq!(http(server.s3_port, "GET", "/some", ""), Some(403));
        drop(server);
        assert!(kill_process(pid, Signal::CONT).is_err(), "the server has ended");
        assert!(!folder.exists(), "its folder is gone");
    }
}
