//! What discovery sends, as values of the domain.
//!
//! A job that this build cannot do is not an error of the message: its targets stay listed and are shown as down
//! with the reason. A setting that only adds to what is scraped is named in a warning instead.

use std::time::Duration;

use exposition::{EscapingScheme, ScrapeProtocol};
use http_client::HttpSettings;
use relabel::NameValidation;
use rpc::pb::discovery as pb;
use rpc::{Error, Result};

use crate::job::{HistogramRules, Job, LabelLimits, SampleRules};
use crate::targets::{Removal, Target, Update};

/// Targets that one delta may hold.
const TARGETS_MAX: usize = 2_000_000;

/// Puts a delta together that comes in several messages.
#[derive(Debug)]
pub(crate) struct Parts {
    gathered: Update,
    targets_max: usize,
}

impl Default for Parts {
    fn default() -> Self {
        Self::with_limit(TARGETS_MAX)
    }
}

impl Parts {
    fn with_limit(targets_max: usize) -> Self {
        Self { gathered: Update::default(), targets_max }
    }

    /// Takes a message; returns the delta with its last part.
    pub(crate) fn add(&mut self, message: pb::WatchTargetsResponse) -> Result<Option<Update>> {
        let all = &mut self.gathered;
        all.revision = message.revision;
        all.is_snapshot |= message.is_snapshot;
        all.jobs.extend(message.jobs.into_iter().map(job));
        all.removed_jobs.extend(message.removed_jobs);
        let most = self.targets_max;
        if all.targets.len() + message.targets.len() > most {
            return Err(Error::invalid("targets", format!("more than {most} in one delta")));
        }
        for message in message.targets {
            all.targets.push(target(message)?);
        }
        all.removed.extend(message.removed.into_iter().map(removed));
        if let Some(labels) = &message.external_labels {
            all.external_labels = Some(labels.try_into()?);
        }
        Ok((!message.is_partial).then(|| std::mem::take(all)))
    }
}

fn target(message: pb::Target) -> Result<Target> {
    if message.scrape_interval_ms == 0 {
        return Err(Error::invalid("target.scrape_interval_ms", "is 0"));
    }
    Ok(Target {
        labels: rpc::convert::labels(message.labels.as_ref())?,
        discovered_labels: rpc::convert::labels(message.discovered_labels.as_ref())?,
        id: message.id,
        job: message.job,
        url: message.url,
        interval: Duration::from_millis(message.scrape_interval_ms),
        timeout: Duration::from_millis(message.scrape_timeout_ms),
        epoch: message.epoch,
        error: message.error,
        labels_hash: message.labels_hash,
    })
}

fn removed(message: pb::RemovedTarget) -> (String, Removal, u64) {
    let reason = match message.reason() {
        pb::removed_target::Reason::Gone => Removal::Gone,
        pb::removed_target::Reason::Moved | pb::removed_target::Reason::Unspecified => Removal::Moved,
    };
    (message.id, reason, message.epoch)
}

/// What keeps a job from being scraped, and what is left out of it.
#[derive(Default)]
struct Faults {
    refusal: Option<String>,
    ignored: Vec<&'static str>,
}

impl Faults {
    /// Takes a part of the job, or refuses the job with the reason there is none.
    fn take<T>(&mut self, part: std::result::Result<T, impl ToString>) -> Option<T> {
        match part {
            Ok(part) => Some(part),
            Err(error) => {
                self.refusal.get_or_insert(error.to_string());
                None
            }
        }
    }

    fn ignore(&mut self, setting: &'static str, is_set: bool) {
        if is_set {
            self.ignored.push(setting);
        }
    }
}

fn job(message: pb::ScrapeJob) -> Job {
    let mut faults = Faults::default();
    let histograms = HistogramRules {
        scrapes_native: message.scrape_native_histograms,
        converts_classic: message.convert_classic_histograms_to_nhcb,
        keeps_classic: message.always_scrape_classic_histograms,
        ..HistogramRules::default()
    };
    let histograms = histograms
        .with_limits(message.native_histogram_bucket_limit, message.native_histogram_min_bucket_factor);
    let protocols = protocols(&message, &mut faults);
    let names = if message.is_legacy_names { NameValidation::Legacy } else { NameValidation::Utf8 };
    let rule = |message: pb::RelabelRule| {
        config_watch::relabel_rule(message, names).map_err(|e| format!("metric_relabel_configs: {e}"))
    };
    let relabel = message.metric_relabel.into_iter().map(rule).collect::<std::result::Result<_, _>>();
    let fallback = Some(message.fallback_scrape_protocol).filter(|name| !name.is_empty());
    let fallback = fallback.map(|name| name.parse::<ScrapeProtocol>()).transpose();
    let escaping: std::result::Result<EscapingScheme, _> = message.escaping_scheme.parse();
    Job {
        name: message.name.into(),
        rules: SampleRules {
            honor_labels: message.honor_labels,
            honor_timestamps: message.honor_timestamps,
            track_timestamps_staleness: message.track_timestamps_staleness,
            relabel: faults.take(relabel).unwrap_or_default(),
            names,
            sample_limit: message.sample_limit,
            label_limits: LabelLimits {
                count: message.label_limit,
                name_len: message.label_name_length_limit,
                value_len: message.label_value_length_limit,
            },
            histograms,
        },
        protocols,
        fallback: faults.take(fallback).flatten(),
        escaping: faults.take(escaping).unwrap_or_default(),
        is_compressed: message.enable_compression,
        body_size_limit: message.body_size_limit,
        has_extra_metrics: message.extra_scrape_metrics,
        http: http_settings(message.http.unwrap_or_default(), &mut faults),
        refusal: faults.refusal,
        ignored: faults.ignored,
    }
}

/// The formats to ask for.
fn protocols(message: &pb::ScrapeJob, faults: &mut Faults) -> Vec<ScrapeProtocol> {
    let parsed =
        message.scrape_protocols.iter().map(|name| name.parse()).collect::<std::result::Result<_, _>>();
    let protocols: Vec<ScrapeProtocol> = faults.take(parsed).unwrap_or_default();
    match protocols.is_empty() {
        true if message.scrape_native_histograms => ScrapeProtocol::DEFAULT_WITH_PROTO.to_vec(),
        true => ScrapeProtocol::DEFAULT.to_vec(),
        false => protocols,
    }
}

fn http_settings(message: pb::HttpClient, faults: &mut Faults) -> HttpSettings {
    if !message.proxy_url.is_empty() {
        faults.refusal.get_or_insert("proxy_url: scraping through a proxy is not built yet".to_owned());
    }
    let min = message.tls.as_ref().map_or("", |tls| &tls.min_version);
    faults.ignore("tls_config: min_version below TLS12", matches!(min, "TLS10" | "TLS11"));
    faults.take(HttpSettings::from_message(message)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
