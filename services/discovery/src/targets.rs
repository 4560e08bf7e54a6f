//! Target groups to targets: the labels a target gets, what relabelling makes of them, and the URL to scrape.
//!
//! Pure functions over values, so that what Prometheus does here is pinned down by tables.
//!
//! Invariants of a [`Pool`]: targets are sorted by id and unique; labels of a target hold none that begins with `__`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use model::labels::{INSTANCE, JOB};
use model::number::Quoted;
use model::time::{PrometheusDuration, parse_duration};
use model::{Labels, LabelsBuilder};
use xxhash_rust::xxh64::{Xxh64, xxh64};

use crate::assignment::Work;
use crate::prometheus_config::Job;
use crate::target_group::{ADDRESS, TargetGroup};

pub(crate) const SCHEME: &str = "__scheme__";
const METRICS_PATH: &str = "__metrics_path__";
const SCRAPE_INTERVAL: &str = "__scrape_interval__";
const SCRAPE_TIMEOUT: &str = "__scrape_timeout__";
const PARAM_PREFIX: &str = "__param_";
const UNIX_SOCKET: &str = "__unix_socket__";
const META_PREFIX: &str = "__meta_";
const RESERVED_PREFIX: &str = "__";

/// The seeds of the two halves of a [`TargetId`].
const ID_SEEDS: [u64; 2] = [0x7472_6962_5461_7267, 0x7472_6962_4964_656e];

/// What a target is known by over all changes: made of its job, its labels and its URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetId(u128);

impl fmt::Display for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Work for TargetId {
    fn work_key(&self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }
}

impl TargetId {
    fn new(job: &str, labels: &Labels, url: &str) -> Self {
        let half = |seed| {
            let mut hasher = Xxh64::new(seed);
            for part in [job, labels.as_encoded(), url] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part.as_bytes());
            }
            u128::from(hasher.digest())
        };
        Self((half(ID_SEEDS[0]) << 64) | half(ID_SEEDS[1]))
    }
}

/// Something to scrape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// What it is known by.
    pub id: TargetId,
    /// The job it belongs to.
    pub job: String,
    /// Its labels, those beginning with `__` removed.
    pub labels: Labels,
    /// Its labels before relabelling.
    pub discovered_labels: Labels,
    /// What to scrape, with parameters.
    pub url: String,
    /// How often.
    pub scrape_interval: Duration,
    /// How long a scrape may take.
    pub scrape_timeout: Duration,
    /// Why it cannot be scraped; empty when it can.
    pub error: String,
    /// Prometheus's hash of its labels, those beginning with `__` (but not `__meta_`) included: part of the offset.
    pub labels_hash: u64,
}

/// The targets of a job.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    /// Those to scrape.
    pub targets: Vec<Arc<Target>>,
    /// Labels before relabelling of those that relabelling dropped, as many as the job keeps.
    pub dropped: Vec<Labels>,
    /// How many relabelling dropped.
    pub dropped_count: u64,
    /// Why others could not be made.
    pub failures: Vec<String>,
    /// Whether there are more than `target_limit`.
    pub is_limit_exceeded: bool,
}

/// Makes the targets of a job out of all groups that its providers found.
#[must_use]
pub fn build_pool<'a>(job: &Job, groups: impl IntoIterator<Item = &'a TargetGroup>) -> Pool {
    let mut pool = Pool::default();
    let mut targets: Vec<Target> = Vec::new();
    for group in groups {
        for (index, found) in group.targets.iter().enumerate() {
            let discovered = discovered_labels(job, group, found);
            match target(job, discovered.clone()) {
                Ok(Some(target)) => targets.push(target),
                Ok(None) => {
                    pool.dropped_count += 1;
                    let kept = job.limits.kept_dropped_targets;
                    if kept == 0 || (pool.dropped.len() as u64) < kept {
                        pool.dropped.push(discovered);
                    }
                }
                Err(why) => pool.failures.push(format!("instance {index} in group {}: {why}", group.source)),
            }
        }
    }
    // Stable, so that of two equal targets the first found stays, as in Prometheus.
    targets.sort_by_key(|target| target.id);
    targets.dedup_by_key(|target| target.id);
    let (count, limit) = (targets.len() as u64, job.limits.targets);
    pool.is_limit_exceeded = limit > 0 && count > limit;
    let error = if pool.is_limit_exceeded {
        format!("target_limit exceeded (number of targets: {count}, limit: {limit})")
    } else if job.unsupported.is_empty() {
        String::new()
    } else {
        format!("not supported yet: {}", job.unsupported.join(", "))
    };
    for target in targets.iter_mut().filter(|target| target.error.is_empty() || pool.is_limit_exceeded) {
        target.error.clone_from(&error);
    }
    pool.targets = targets.into_iter().map(Arc::new).collect();
    pool
}

/// The labels of a target before relabelling.
fn discovered_labels(job: &Job, group: &TargetGroup, found: &Labels) -> Labels {
    let mut labels = group.labels.to_builder();
    for (name, value) in found {
        labels.set(name, value);
    }
    let of_job = [
        (JOB, job.name.clone()),
        (SCRAPE_INTERVAL, PrometheusDuration(job.scrape_interval).to_string()),
        (SCRAPE_TIMEOUT, PrometheusDuration(job.scrape_timeout).to_string()),
        (METRICS_PATH, job.metrics_path.clone()),
        (SCHEME, job.scheme.clone()),
    ];
    for (name, value) in of_job {
        if labels.get(name).is_none() {
            labels.set(name, value);
        }
    }
    for (name, values) in &job.params {
        let label = format!("{PARAM_PREFIX}{name}");
        if let (Some(first), None) = (values.first(), labels.get(&label)) {
            labels.set(label, first.as_str());
        }
    }
    labels.build()
}

/// Relabels and checks one target; `None` when a rule drops it.
fn target(job: &Job, discovered_labels: Labels) -> Result<Option<Target>, String> {
    let Some(relabelled) = relabel::apply(&discovered_labels, &job.relabel).filter(|l| !l.is_empty()) else {
        return Ok(None);
    };
    let address = relabelled.value(ADDRESS);
    if address.is_empty() {
        return Err("no address".to_owned());
    }
    if address.contains('/') {
        return Err(format!("{} is not a valid hostname", Quoted(address)));
    }
    let (scrape_interval, scrape_timeout) = interval_and_timeout(&relabelled)?;
    let mut labels: LabelsBuilder = relabelled.filtered(|name| !name.starts_with(META_PREFIX)).to_builder();
    if labels.get(INSTANCE).is_none() {
        labels.set(INSTANCE, address);
    }
    let all = labels.build();
    let url = url(job, &all);
    let labels = all.filtered(|name| !name.starts_with(RESERVED_PREFIX));
    Ok(Some(Target {
        id: TargetId::new(&job.name, &labels, &url),
        job: job.name.clone(),
        labels,
        discovered_labels,
        url,
        scrape_interval,
        scrape_timeout,
        // Scraping the address instead of the socket would be something else than asked for.
        error: if all.has(UNIX_SOCKET) { format!("not supported yet: {UNIX_SOCKET}") } else { String::new() },
        labels_hash: labels_hash(&all),
    }))
}

fn interval_and_timeout(labels: &Labels) -> Result<(Duration, Duration), String> {
    let read = |label, what| {
        let text = labels.value(label);
        let duration =
            parse_duration(text).map_err(|error| format!("error parsing scrape {what}: {error}"))?;
        if duration.is_zero() { Err(format!("scrape {what} cannot be 0")) } else { Ok(duration) }
    };
    let interval = read(SCRAPE_INTERVAL, "interval")?;
    let timeout = read(SCRAPE_TIMEOUT, "timeout")?;
    if timeout > interval {
        return Err(format!(
            "scrape timeout cannot be greater than scrape interval ({} > {})",
            Quoted(labels.value(SCRAPE_TIMEOUT)),
            Quoted(labels.value(SCRAPE_INTERVAL))
        ));
    }
    Ok((interval, timeout))
}

/// Prometheus's `Labels.Hash`: XXH64 over names and values, each preceded by its length in one byte, or by 255 and
/// three bytes.
fn labels_hash(labels: &Labels) -> u64 {
    let mut bytes = Vec::with_capacity(labels.byte_len());
    for (name, value) in labels {
        for text in [name, value] {
            match u8::try_from(text.len()) {
                Ok(length) if length < 255 => bytes.push(length),
                _ => {
                    bytes.push(255);
                    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes()[..3]);
                }
            }
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    xxh64(&bytes, 0)
}

/// The URL of a target, put together and escaped as Go's `url.URL` does.
fn url(job: &Job, labels: &Labels) -> String {
    let mut params: Vec<(String, Vec<String>)> = job.params.clone();
    for (name, value) in labels {
        let Some(param) = name.strip_prefix(PARAM_PREFIX) else { continue };
        match params.iter_mut().find(|(known, _)| known == param) {
            Some((_, values)) if !values.is_empty() => value.clone_into(&mut values[0]),
            Some((_, values)) => values.push(value.to_owned()),
            None => params.push((param.to_owned(), vec![value.to_owned()])),
        }
    }
    params.sort();
    let mut url = url_without_params(labels, METRICS_PATH);
    let mut separator = '?';
    for (name, value) in params.iter().flat_map(|(name, values)| values.iter().map(move |v| (name, v))) {
        url.push(separator);
        separator = '&';
        escape_query(&mut url, name);
        url.push('=');
        escape_query(&mut url, value);
    }
    url
}

/// The URL that labels name: scheme, address, and the path that the given label holds.
pub(crate) fn url_without_params(labels: &Labels, path_label: &str) -> String {
    let mut url = String::new();
    let scheme = labels.value(SCHEME);
    if !scheme.is_empty() {
        url.push_str(scheme);
        url.push(':');
    }
    url.push_str("//");
    escape(&mut url, labels.value(ADDRESS), b"!$&'()*+,;=:[]<>\"");
    let path = labels.value(path_label);
    if !path.is_empty() && !path.starts_with('/') {
        url.push('/');
    }
    escape(&mut url, path, b"$&+,/:;=@");
    url
}

fn escape_query(out: &mut String, text: &str) {
    for (i, part) in text.split(' ').enumerate() {
        if i > 0 {
            out.push('+');
        }
        escape(out, part, b"");
    }
}

/// Percent-encodes all but unreserved characters and those given.
fn escape(out: &mut String, text: &str, allowed: &[u8]) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || allowed.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests;
