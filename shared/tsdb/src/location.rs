//! Where a table lies: a folder of this machine, or a bucket of an S3-compatible store.
//!
//! [`StorageSettings`] is what a service's own file, its flags and its environment say; a [`Location`] is what they
//! mean, checked. Nothing is read or written before the table is opened there.
//!
//! # Invariants
//!
//! - Every request has a deadline, and repeating it has one too.
//! - Puts are conditional, whatever the environment says: commits rest on them.
//! - No secret is in a message or in debug output.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::local::LocalFileSystem;
use object_store::{BackoffConfig, ClientConfigKey, ClientOptions, ObjectStore, RetryConfig};
use serde::Deserialize;
use url::Url;

use crate::disk;
use crate::faults::or_fault;
use crate::table::{Error, Result};

/// What a request may take, its body included: eight megabytes at 2.2 Mbit/s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// What a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a request that failed is repeated.
const RETRIES_MAX: usize = 5;
/// A request is not repeated any more when the first attempt is this old.
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest pause before a request is repeated.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Bytes that are read in the time of one request: from a local file.
const LOCAL_REQUEST_COST_BYTES: u64 = 64 << 10;
/// The same for S3: a first byte after 10 to 30 ms, then 50 to 100 MB/s.
pub(crate) const S3_REQUEST_COST_BYTES: u64 = 1 << 20;

/// Variables that hold credentials; those of a file are never mixed with these.
const CREDENTIALS: [AmazonS3ConfigKey; 3] =
    [AmazonS3ConfigKey::AccessKeyId, AmazonS3ConfigKey::SecretAccessKey, AmazonS3ConfigKey::Token];

/// Where a service keeps its table; the `storage` section of its own file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageSettings {
    /// `file:///folder` or `s3://bucket/prefix`, overridden by `--storage.url`; the service's own folder when absent.
    pub url: Option<String>,
    /// The S3 server, as `https://host:port`; AWS's own for the region when absent.
    pub endpoint: Option<String>,
    /// The bucket's region; us-east-1 when absent.
    pub region: Option<String>,
    /// Who asks. Without keys the machine's own role does (web identity, container or instance).
    pub access_key_id: Option<String>,
    /// The key's secret.
    pub secret_access_key: Option<Secret>,
    /// The token that goes with temporary keys.
    pub session_token: Option<Secret>,
    /// Whether the endpoint may be reached without TLS; false when absent.
    pub allow_http: Option<bool>,
    /// Whether the endpoint's host already names the bucket; false when absent: the bucket stands in the path.
    pub virtual_hosted_style: Option<bool>,
    /// The process's `AWS_...` variables, as the AWS tools know them: used for what the file leaves open.
    #[serde(skip)]
    pub variables: BTreeMap<String, Secret>,
}

/// A text that is not to be seen in logs.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl StorageSettings {
    /// Takes what the process was started with: a URL that overrides the file's, and variables, of which those of AWS
    /// are kept.
    pub fn override_with(&mut self, url: Option<&str>, variables: &BTreeMap<String, String>) {
        if let Some(url) = url {
            self.url = Some(url.to_owned());
        }
        let of_aws = variables.iter().filter(|(name, _)| name.starts_with("AWS_"));
        self.variables = of_aws.map(|(name, value)| (name.clone(), Secret(value.clone()))).collect();
    }

    /// Returns all that is wrong with the settings, each with the path of its field.
    #[must_use]
    pub fn validate(&self) -> Vec<String> {
        // The folder is of no account: a path is good.
        self.location(Path::new(".")).err().unwrap_or_default()
    }

    /// Where the table lies: at the URL, or in `folder` without one. Connects to nothing.
    ///
    /// # Errors
    /// All that is wrong, each with the path of its field.
    pub fn location(&self, folder: &Path) -> Result<Location, Vec<String>> {
        let Some(url) = &self.url else {
            return self.without_s3().map(|()| Location::folder(folder));
        };
        match parse(url) {
            Ok(Place::Folder(folder)) => self.without_s3().map(|()| Location::folder(&folder)),
            Ok(Place::Bucket { name, prefix }) => self.bucket(&name, &prefix),
            Err(fault) => Err(vec![format!("storage.url: {fault}")]),
        }
    }

    /// Refuses keys that would have no effect: whoever wrote them expects the samples in a bucket.
    fn without_s3(&self) -> Result<(), Vec<String>> {
        let keys = [
            ("endpoint", self.endpoint.is_some()),
            ("region", self.region.is_some()),
            ("access_key_id", self.access_key_id.is_some()),
            ("secret_access_key", self.secret_access_key.is_some()),
            ("session_token", self.session_token.is_some()),
            ("allow_http", self.allow_http.is_some()),
            ("virtual_hosted_style", self.virtual_hosted_style.is_some()),
        ];
        let fault = |name| format!("storage.{name}: only a table at an s3:// URL has it");
        let faults: Vec<String> = keys.iter().filter(|(_, is_set)| *is_set).map(|(n, _)| fault(n)).collect();
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    fn bucket(&self, name: &str, prefix: &object_store::path::Path) -> Result<Location, Vec<String>> {
        let mut faults = Vec::new();
        if self.access_key_id.is_some() != self.secret_access_key.is_some() {
            faults.push(
                "storage.access_key_id: a key needs its secret_access_key, and the other way".to_owned(),
            );
        }
        if self.session_token.is_some() && self.access_key_id.is_none() {
            faults.push("storage.session_token: a token needs its access_key_id".to_owned());
        }
        let builder = self.builder(name);
        let value = |key| builder.get_config_value(&key).unwrap_or_default();
        let endpoints = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint].map(value);
        let is_http_allowed = value(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp)) == "true";
        if let Some(endpoint) = endpoints.iter().find(|e| !e.is_empty()) {
            let scheme = Url::parse(endpoint).ok().filter(Url::has_host).map(|u| u.scheme().to_owned());
            match scheme.as_deref() {
                Some("https") => {}
                Some("http") if is_http_allowed => {}
                Some("http") => faults.push(format!(
                    "storage.endpoint: {endpoint} is not encrypted; say allow_http: true, or AWS_ALLOW_HTTP=true"
                )),
                _ => faults.push(format!("storage.endpoint: want https://host:port, not {endpoint:?}")),
            }
        }
        // The client looks its TLS provider up in the process. Whoever was first keeps his.
        drop(rustls::crypto::ring::default_provider().install_default());
        match builder.build() {
            Ok(store) if faults.is_empty() => {
                let (name, prefix) = (name.to_owned(), prefix.clone());
                Ok(Location(Kind::Bucket { name, prefix, store: Arc::new(store) }))
            }
            Ok(_) => Err(faults),
            // What the file can say wrong has been told in better words.
            Err(_) if !faults.is_empty() => Err(faults),
            Err(error) => Err(vec![format!("storage: {error}")]),
        }
    }

    /// The variables, then what the file says.
    fn builder(&self, bucket: &str) -> AmazonS3Builder {
        let client = ClientOptions::new().with_timeout(REQUEST_TIMEOUT).with_connect_timeout(CONNECT_TIMEOUT);
        let mut builder = AmazonS3Builder::new().with_client_options(client).with_retry(RetryConfig {
            backoff: BackoffConfig { max_backoff: RETRY_PAUSE_MAX, ..BackoffConfig::default() },
            max_retries: RETRIES_MAX,
            retry_timeout: RETRY_TIMEOUT,
        });
        let has_own_keys = self.access_key_id.is_some() || self.secret_access_key.is_some();
        for (name, value) in &self.variables {
            // Others (AWS_PROFILE, AWS_PAGER) are for other programs.
            let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() else { continue };
            if !(has_own_keys && CREDENTIALS.contains(&key)) {
                builder = builder.with_config(key, &value.0);
            }
        }
        let text = |value: Option<bool>| value.map(|v| v.to_string());
        let secret = |value: &Option<Secret>| value.as_ref().map(|s| s.0.clone());
        for (key, value) in [
            // Of two ways to name the endpoint, this is the stronger.
            (AmazonS3ConfigKey::S3Endpoint, self.endpoint.clone()),
            (AmazonS3ConfigKey::Region, self.region.clone()),
            (AmazonS3ConfigKey::AccessKeyId, self.access_key_id.clone()),
            (AmazonS3ConfigKey::SecretAccessKey, secret(&self.secret_access_key)),
            (AmazonS3ConfigKey::Token, secret(&self.session_token)),
            (AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp), text(self.allow_http)),
            (AmazonS3ConfigKey::VirtualHostedStyleRequest, text(self.virtual_hosted_style)),
        ] {
            if let Some(value) = value {
                builder = builder.with_config(key, value);
            }
        }
        builder.with_bucket_name(bucket).with_conditional_put(S3ConditionalPut::ETagMatch)
    }
}

/// A place that can hold a table.
#[derive(Clone)]
pub struct Location(Kind);

#[derive(Clone)]
enum Kind {
    Folder(PathBuf),
    /// The store connects at its first request.
    Bucket {
        name: String,
        prefix: object_store::path::Path,
        store: Arc<dyn ObjectStore>,
    },
}

impl Location {
    /// A folder of this machine, or one that several machines share.
    #[must_use]
    pub fn folder(path: &Path) -> Self {
        Self(Kind::Folder(path.to_owned()))
    }

    /// Makes the folder when it is not there.
    pub(crate) async fn open(&self) -> Result<Opened> {
        let folder = match &self.0 {
            Kind::Folder(folder) => folder,
            Kind::Bucket { prefix, store, .. } => {
                return Ok(Opened {
                    store: Arc::clone(store),
                    root: prefix.clone(),
                    request_cost_bytes: S3_REQUEST_COST_BYTES,
                });
            }
        };
        let new = folder.clone();
        let made = match tokio::task::spawn_blocking(move || disk::create_folders(&new)).await {
            Ok(made) => made.map_err(Into::into),
            Err(panicked) => Err(panicked.into()),
        };
        let store = made
            .map_err(|source| object_store::Error::Generic { store: "local", source })
            .and_then(|()| LocalFileSystem::new_with_prefix(folder))
            .map_err(Error::store(format!("open the folder {}", folder.display())))?;
        Ok(Opened {
            // A commit is believed to last.
            store: Arc::new(store.with_fsync(or_fault!(NoTableSync, true, false))),
            root: object_store::path::Path::default(),
            request_cost_bytes: LOCAL_REQUEST_COST_BYTES,
        })
    }
}

/// A location that can be read and written.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Its store.
    pub store: Arc<dyn ObjectStore>,
    /// The location's root in the store.
    pub root: object_store::path::Path,
    /// As in [`crate::table::TableOptions`].
    pub request_cost_bytes: u64,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Folder(folder) => write!(f, "{}", folder.display()),
            Kind::Bucket { name, prefix, .. } => write!(f, "s3://{name}/{prefix}"),
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Location({self})")
    }
}

/// What a URL names.
#[derive(Debug)]
enum Place {
    Folder(PathBuf),
    Bucket { name: String, prefix: object_store::path::Path },
}

/// Reads a URL of storage. What it says of a wrong one never repeats a password.
fn parse(text: &str) -> Result<Place, String> {
    const WANT: &str = "want file:///folder or s3://bucket/prefix";
    let url = Url::parse(text).map_err(|e| format!("{e}; {WANT}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "credentials do not belong into a URL: say access_key_id, or AWS_ACCESS_KEY_ID".to_owned()
        );
    }
    if url.query().is_some() || url.fragment().is_some() || url.port().is_some() {
        return Err(format!("a port, a query or a fragment has no meaning; {WANT}"));
    }
    match url.scheme() {
        "file" => match url.to_file_path() {
            Ok(folder) if text.to_ascii_lowercase().starts_with("file:///") => Ok(Place::Folder(folder)),
            _ => Err(format!("{text} is no absolute path; {WANT}")),
        },
        "s3" => {
            let name = url.host_str().unwrap_or_default().to_owned();
            let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            if !(3..=255).contains(&name.len()) || !name.bytes().all(is_plain) {
                return Err(format!("{name:?} is no name of a bucket; {WANT}"));
            }
            let prefix = object_store::path::Path::from_url_path(url.path().trim_end_matches('/'));
            Ok(Place::Bucket { name, prefix: prefix.map_err(|e| format!("{e}; {WANT}"))? })
        }
        scheme => Err(format!("{scheme}:// is not supported; {WANT}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> StorageSettings {
        StorageSettings { url: Some(url.to_owned()), ..StorageSettings::default() }
    }

    fn location(settings: &StorageSettings) -> String {
        settings.location(Path::new("own")).map_or_else(|faults| faults.join("\n"), |l| l.to_string())
    }

    fn with_variables(url: &str, variables: &[(&str, &str)]) -> StorageSettings {
        let mut settings = settings("s3://overridden/by-the-flag");
        let variables = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        settings.override_with(Some(url), &variables);
        settings
    }

    #[test]
    fn urls_name_a_folder_or_a_prefix_in_a_bucket() {
        assert_eq!(location(&StorageSettings::default()), "own");
        for (url, want) in [
            ("file:///var/lib/x", "/var/lib/x"),
            ("file:///with%20space/", "/with space/"),
            ("s3://metrics", "s3://metrics/"),
            ("s3://metrics/", "s3://metrics/"),
            ("s3://metrics/a/b%20c/", "s3://metrics/a/b c"),
        ] {
            assert_eq!(location(&settings(url)), want, "{url}");
        }
    }

    #[test]
    fn wrong_urls_say_what_is_wanted() {
        for (url, want) in [
            ("/var/lib/x", "relative URL without a base"),
            ("", "relative URL without a base"),
            ("file:x", "file:x is no absolute path"),
            ("file://host/x", "file://host/x is no absolute path"),
            ("gs://bucket/x", "gs:// is not supported"),
            ("s3:///x", r#""" is no name of a bucket"#),
            ("s3://a,b/x", r#""a,b" is no name of a bucket"#),
            ("s3://bucket:80/x", "a port, a query or a fragment has no meaning"),
            ("s3://bucket/x?region=y", "a port, a query or a fragment has no meaning"),
        ] {
            assert_eq!(
                location(&settings(url)),
                format!("storage.url: {want}; want file:///folder or s3://bucket/prefix")
            );
        }
        let fault = location(&settings("s3://key:hidden@bucket/x"));
        assert!(fault.contains("credentials do not belong") && !fault.contains("hidden"), "{fault}");
    }

    #[test]
    fn every_fault_is_told() {
        let half = StorageSettings {
            access_key_id: Some("key".to_owned()),
            endpoint: Some("http://127.0.0.1:1".to_owned()),
            ..settings("s3://bucket")
        };
        assert_eq!(
            half.validate(),
            [
                "storage.access_key_id: a key needs its secret_access_key, and the other way",
                "storage.endpoint: http://127.0.0.1:1 is not encrypted; say allow_http: true, or AWS_ALLOW_HTTP=true"
            ]
        );
        let token = StorageSettings { session_token: Some("t".into()), ..settings("s3://bucket") };
        assert_eq!(token.validate(), ["storage.session_token: a token needs its access_key_id"]);
        let endpoint = StorageSettings { endpoint: Some("host:1".to_owned()), ..settings("s3://bucket") };
        assert_eq!(endpoint.validate(), [r#"storage.endpoint: want https://host:port, not "host:1""#]);
    }

    #[test]
    fn keys_of_s3_are_refused_where_they_have_no_effect() {
        for url in [None, Some("file:///x".to_owned())] {
            let settings = StorageSettings {
                url,
                endpoint: Some("https://h".to_owned()),
                allow_http: Some(true),
                ..StorageSettings::default()
            };
            assert_eq!(
                settings.validate(),
                [
                    "storage.endpoint: only a table at an s3:// URL has it",
                    "storage.allow_http: only a table at an s3:// URL has it"
                ]
            );
        }
        // The environment is there for other programs as well.
        assert_eq!(location(&with_variables("file:///x", &[("AWS_REGION", "r")])), "/x");
    }

    #[test]
    fn variables_serve_for_what_the_file_leaves_open() {
        let variables = [
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "hidden"),
            ("AWS_SESSION_TOKEN", "hidden"),
            ("AWS_DEFAULT_REGION", "weaker"),
            ("AWS_REGION", "eu"),
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_CONDITIONAL_PUT", "disabled"),
            ("AWS_BUCKET", "other"),
            ("AWS_PROFILE", "someone"),
            ("HOME", "/root"),
        ];
        let mut settings = with_variables("s3://bucket/x", &variables);
        assert_eq!(location(&settings), "s3://bucket/x");
        let value = |settings: &StorageSettings, key| settings.builder("bucket").get_config_value(&key);
        assert_eq!(value(&settings, AmazonS3ConfigKey::Region).as_deref(), Some("eu"));
        assert_eq!(value(&settings, AmazonS3ConfigKey::Token).as_deref(), Some("hidden"));
        assert_eq!(value(&settings, AmazonS3ConfigKey::Bucket).as_deref(), Some("bucket"));
        assert_eq!(value(&settings, AmazonS3ConfigKey::ConditionalPut).as_deref(), Some("etag"));

        settings.access_key_id = Some("own".to_owned());
        settings.secret_access_key = Some("hidden".into());
        settings.endpoint = Some("https://own".to_owned());
        assert_eq!(value(&settings, AmazonS3ConfigKey::AccessKeyId).as_deref(), Some("own"));
        assert_eq!(value(&settings, AmazonS3ConfigKey::Token), None, "not the token of other keys");
        assert_eq!(value(&settings, AmazonS3ConfigKey::S3Endpoint).as_deref(), Some("https://own"));
        let shown = format!("{settings:?} {:?}", settings.location(Path::new("own")));
        assert!(shown.contains("AWS_SECRET_ACCESS_KEY") && !shown.contains("hidden"), "{shown}");

        let wrong = with_variables("s3://bucket/x", &[("AWS_ALLOW_HTTP", "perhaps")]).validate();
        assert!(wrong.len() == 1 && wrong[0].contains("perhaps"), "{wrong:?}");
    }
}
