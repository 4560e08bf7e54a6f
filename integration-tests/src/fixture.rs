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

/// What a path answers.
#[derive(Debug, Clone)]
struct Page {
    content_type: String,
    body: Vec<u8>,
    /// The `Authorization` that is asked for.
    authorization: Option<String>,
}

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Debug, Default)]
struct Shared {
    pages: Mutex<HashMap<String, Page>>,
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
        self.serve_as(path, TEXT, body.into());
    }

    /// Sets the body of a path, and the format it is in.
    pub fn serve_as(&self, path: &str, content_type: &str, body: impl Into<Vec<u8>>) {
        self.set(
            path,
            Page { content_type: content_type.to_owned(), body: body.into(), authorization: None },
        );
    }

    /// Sets the body of a path, in the text format, for those alone who send this `Authorization`.
    pub fn serve_to(&self, authorization: &str, path: &str, body: impl Into<String>) {
        let (content_type, body) = (TEXT.to_owned(), body.into().into_bytes());
        self.set(path, Page { content_type, body, authorization: Some(authorization.to_owned()) });
    }

    fn set(&self, path: &str, page: Page) {
        let mut pages = self.shared.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.insert(path.to_owned(), page);
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
        let Some(head) = read_head(&mut reader)? else { return Ok(()) };
        let page = shared.pages.lock().unwrap_or_else(PoisonError::into_inner).get(&head.path).cloned();
        let (status, content_type, body) = match page {
            Some(page) if page.authorization.is_some() && page.authorization != head.authorization => {
                ("401 Unauthorized", TEXT.to_owned(), Vec::new())
            }
            Some(page) => ("200 OK", page.content_type, page.body),
            None => ("404 Not Found", TEXT.to_owned(), Vec::new()),
        };
        let mut answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        answer.extend(body);
        (&mut &*connection).write_all(&answer)?;
    }
    Ok(())
}

struct Head {
    path: String,
    authorization: Option<String>,
}

/// Reads a request's head; `None` at the end of the connection.
fn read_head(reader: &mut BufReader<&TcpStream>) -> std::io::Result<Option<Head>> {
    let mut head = reader.by_ref().take(HEAD_BYTES_MAX);
    let mut first = String::new();
    head.read_line(&mut first)?;
    let target = first.split_whitespace().nth(1).unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let (mut line, mut authorization) = (String::new(), None);
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if line.trim_end().is_empty() {
            return Ok(Some(Head { path, authorization }));
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("authorization")
        {
            authorization = Some(value.trim().to_owned());
        }
    }
}
