//! `--web.config.file`: TLS, authentication and headers of a listener, by the file that Prometheus and its exporters take.
//!
//! The file, and the certificates that it names, count as they are when a connection or request comes: whoever changes
//! them need not tell the program. Whether there is TLS at all, and HTTP/2 in it, is fixed at the start.
//!
//! Invariants:
//! - a file that has become unreadable or wrong lets nobody in;
//! - a password is never kept: what is remembered of one that was checked is a digest.

mod tls;

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tracing::error;

/// The largest file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The headers that the file may set.
const HEADERS: [&str; 5] = [
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
    "Content-Security-Policy",
];
/// Checked passwords that are remembered; hashing one takes tens of milliseconds.
const REMEMBERED_MAX: usize = 100;
/// Passwords that are hashed at a time.
const HASHING_MAX: usize = 2;

/// Guards a listener by a file. Clones share what was read.
#[derive(Debug, Clone)]
pub struct WebConfig(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    is_tls: bool,
    http2: bool,
    settings: Mutex<Latest<Settings>>,
    tls: Mutex<Latest<rustls::ServerConfig>>,
    /// Whether passwords were right, by digest.
    remembered: Mutex<HashMap<Vec<u8>, bool>>,
    hashing: Semaphore,
}

/// What was made of files, and what these looked like.
type Latest<T> = Option<(Vec<Look>, Arc<T>)>;

/// What a file looks like from outside.
type Look = (u64, u64, Option<SystemTime>);

/// What the file says.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    tls_server_config: tls::Settings,
    http_server_config: Http,
    /// Hashes of passwords by user.
    basic_auth_users: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Http {
    http2: bool,
    headers: BTreeMap<String, String>,
}

impl Default for Http {
    fn default() -> Self {
        Self { http2: true, headers: BTreeMap::new() }
    }
}

impl WebConfig {
    /// Reads a file and everything it names, and checks it. Blocks.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn load(path: &Path) -> Result<Self, String> {
        let settings = read(path)?;
        let is_tls = settings.tls_server_config.is_wanted();
        let shared = Shared {
            path: path.to_owned(),
            is_tls,
            http2: settings.http_server_config.http2,
            settings: Mutex::default(),
            tls: Mutex::default(),
            remembered: Mutex::default(),
            hashing: Semaphore::new(HASHING_MAX),
        };
        if is_tls {
            shared.tls()?;
        }
        Ok(Self(Arc::new(shared)))
    }

    /// What to greet a new connection with: nothing where there is no TLS.
    pub(crate) async fn tls(&self) -> Result<Option<Arc<rustls::ServerConfig>>, String> {
        if !self.0.is_tls {
            return Ok(None);
        }
        let shared = Arc::clone(&self.0);
        let read = tokio::task::spawn_blocking(move || shared.tls()).await;
        read.map_err(|error| error.to_string())?.map(Some)
    }

    /// Answers a request by `answer` where its sender may ask, and adds the file's headers.
    pub(crate) async fn guard<B, F>(
        &self,
        request: Request<B>,
        answer: impl FnOnce(Request<B>) -> F,
    ) -> Result<Response, Infallible>
    where
        F: Future<Output = Result<Response, Infallible>>,
    {
        let settings = match self.0.settings() {
            Ok(settings) => settings,
            Err(error) => {
                error!(%error, "unable to parse configuration of the web listener");
                return Ok(plain(StatusCode::INTERNAL_SERVER_ERROR));
            }
        };
        let users = &settings.basic_auth_users;
        let mut response = if users.is_empty() || self.0.admits(users, request.headers()).await {
            answer(request).await?
        } else {
            let mut response = plain(StatusCode::UNAUTHORIZED);
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
            response
        };
        for (name, value) in settings.headers() {
            response.headers_mut().entry(name).or_insert(value);
        }
        Ok(response)
    }
}

fn plain(status: StatusCode) -> Response {
    let headers =
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    let text = format!("{}\n", status.canonical_reason().unwrap_or_default());
    (status, headers, Body::from(text)).into_response()
}

impl Settings {
    fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let parse = |(name, value): (&String, &String)| Some((name.parse().ok()?, value.parse().ok()?));
        self.http_server_config.headers.iter().filter_map(parse)
    }

    fn check(&self) -> Result<(), String> {
        for (name, value) in &self.http_server_config.headers {
            if !HEADERS.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                return Err(format!("HTTP header {name:?} can not be configured"));
            }
            if HeaderValue::from_str(value).is_err() {
                return Err(format!("HTTP header {name:?}: {value:?} is no header's value"));
            }
        }
        for (user, hash) in &self.basic_auth_users {
            if user.is_empty() || user.contains(':') {
                return Err(format!("basic_auth_users: {user:?} is no user's name"));
            }
            let parts: Result<bcrypt::HashParts, _> = hash.parse();
            parts.map_err(|error| format!("basic_auth_users: {user}: no bcrypt hash: {error}"))?;
        }
        Ok(())
    }
}

impl Shared {
    fn settings(&self) -> Result<Arc<Settings>, String> {
        refresh(&self.settings, &[&self.path], || read(&self.path))
    }

    fn tls(&self) -> Result<Arc<rustls::ServerConfig>, String> {
        let settings = self.settings()?;
        let tls = &settings.tls_server_config;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let files: Vec<PathBuf> = tls.files().map(|file| folder.join(file)).collect();
        let files: Vec<&Path> = std::iter::once(&*self.path).chain(files.iter().map(|f| &**f)).collect();
        refresh(&self.tls, &files, || {
            let mut config = tls.server_config(folder)?;
            config.alpn_protocols = match self.http2 {
                true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
                false => vec![b"http/1.1".to_vec()],
            };
            Ok(config)
        })
    }

    /// Checks user and password.
    async fn admits(&self, users: &BTreeMap<String, String>, headers: &HeaderMap) -> bool {
        let Some((user, password)) = credentials(headers) else { return false };
        // Whoever is not known takes as long to refuse as whoever is.
        let known = users.get(&user);
        let Some(hash) = known.or_else(|| users.values().next()) else { return false };
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        for part in [&user, hash, &password] {
            digest.update(&part.len().to_le_bytes());
            digest.update(part.as_bytes());
        }
        let digest = digest.finish().as_ref().to_vec();
        let remembered = self.remembered.lock().get(&digest).copied();
        if let Some(is_right) = remembered {
            return is_right;
        }
        let Ok(_place) = self.hashing.acquire().await else { return false };
        let (hash, is_known) = (hash.clone(), known.is_some());
        let checked = tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash)).await;
        let is_right = is_known && matches!(checked, Ok(Ok(true)));
        let mut remembered = self.remembered.lock();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(digest, is_right);
        is_right
    }
}

/// The user and password that a request comes with.
fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// Returns what was made of files, made anew where they have changed.
fn refresh<T>(
    latest: &Mutex<Latest<T>>,
    files: &[&Path],
    make: impl FnOnce() -> Result<T, String>,
) -> Result<Arc<T>, String> {
    let looks = files.iter().map(|file| look(file)).collect::<Result<Vec<_>, _>>()?;
    let mut latest = latest.lock();
    if let Some((of, made)) = &*latest
        && *of == looks
    {
        return Ok(Arc::clone(made));
    }
    let made = Arc::new(make()?);
    *latest = Some((looks, Arc::clone(&made)));
    Ok(made)
}

fn look(file: &Path) -> Result<Look, String> {
    let found = std::fs::metadata(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok((found.ino(), found.len(), found.modified().ok()))
}

fn read(path: &Path) -> Result<Settings, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(format!("{}: larger than {FILE_BYTES_MAX} bytes", path.display()));
    }
    let yaml = std::fs::read_to_string(path).map_err(failed)?;
    let is_empty = yaml.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
    let settings = match is_empty {
        true => Settings::default(),
        false => serde_saphyr::from_str::<Settings>(&yaml).map_err(|error| error.to_string())?,
    };
    settings.check()?;
    Ok(settings)
}

#[cfg(test)]
mod tests;
