//! A scrape target whose bodies the test sets.
//!
//! It serves the same body to whoever asks until the test sets the next: with explicit timestamps in the body, every
//! server that scrapes it holds the same samples, however often and however late it scrapes.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long a connection waits for its next request.
const IDLE: Duration = Duration::from_secs(30);
/// The largest request head.
const HEAD_BYTES_MAX: u64 = 64 << 10;

/// A target that runs until it is dropped.
#[derive(Debug)]
pub struct Fixture {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    bodies: Mutex<HashMap<String, String>>,
    is_stopped: AtomicBool,
}

impl Fixture {
    /// Starts a target without any body: every path answers 404.
    ///
    /// # Panics
    /// When no port is to be had.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let shared = Arc::new(Shared::default());
        let accepting = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Self { address, shared, accepting: Some(accepting) }
    }

    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Sets the body of a path, in the text format.
    pub fn serve(&self, path: &str, body: impl Into<String>) {
        let mut bodies = self.shared.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        bodies.insert(path.to_owned(), body.into());
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::Relaxed);
        // Wakes the accept loop; when the connection fails, the loop is gone already.
        drop(TcpStream::connect(self.address));
        if let Some(accepting) = self.accepting.take() {
            // A panic over there has been printed.
            drop(accepting.join());
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for connection in listener.incoming() {
        if shared.is_stopped.load(Ordering::Relaxed) {
            return;
        }
        let Ok(connection) = connection else { continue };
        let shared = Arc::clone(shared);
        // One thread a scraper, and only the stories' own servers scrape.
        thread::spawn(move || {
            // The scraper went away, which is its right.
            drop(answer_all(&connection, &shared));
        });
    }
}

/// Answers one request after the other on a connection.
fn answer_all(connection: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    connection.set_read_timeout(Some(IDLE))?;
    let mut reader = BufReader::new(connection);
    while !shared.is_stopped.load(Ordering::Relaxed) {
        let Some(path) = read_head(&mut reader)? else { return Ok(()) };
        let body = shared.bodies.lock().unwrap_or_else(PoisonError::into_inner).get(&path).cloned();
        let (status, body) = match body {
            Some(body) => ("200 OK", body),
            None => ("404 Not Found", String::new()),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        (&mut &*connection).write_all((head + &body).as_bytes())?;
    }
    Ok(())
}

/// Reads a request's head and returns its path; `None` at the end of the connection.
fn read_head(reader: &mut BufReader<&TcpStream>) -> std::io::Result<Option<String>> {
    let mut head = reader.by_ref().take(HEAD_BYTES_MAX);
    let mut first = String::new();
    head.read_line(&mut first)?;
    let target = first.split_whitespace().nth(1).unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let mut line = String::new();
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if line.trim_end().is_empty() {
            return Ok(Some(path));
        }
    }
}
