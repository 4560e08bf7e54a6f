//! What a scrape loop remembers of its target, and how a body becomes samples.
//!
//! [`ScrapeCache`] maps the exposed text of a series to its member number in the target's scrape group, so that a
//! scrape of a target that exposes what it did before builds no labels, runs no rules and allocates nothing per
//! sample: one look-up of the text and one store of the value.
//!
//! One scrape is: [`ScrapeCache::read`] (or [`ScrapeCache::skip`] when there is no body), [`ScrapeCache::close`],
//! and [`ScrapeCache::settle`] once it is known whether the writer took the batch.
//!
//! Invariants:
//! - one scrape is one append at one timestamp, report series included; samples with timestamps of their own follow,
//!   one append for each distinct timestamp;
//! - a scrape that fails leaves no sample, and every series that was there before goes stale;
//! - a batch that the writer did not take changes nothing: the markers it held are due again at the next scrape;
//! - a text is forgotten when a scrape that went well does not expose it; a member lives as long as a text or a due
//!   marker refers to it, and a new group is made when too many are dead.

mod bits;
mod exposed;
mod families;
mod members;
mod pass;
mod series_labels;

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;

use exposition::protobuf;
use exposition::{CustomBuckets, Entry, Format, OwnedSample, Parser, Series};
use group_writer::{Batch, GroupIdentity};
use model::histogram::SCHEMA_MIN;
use model::{Exemplar, Histogram, Labels, Timestamp, Value, stale_nan};

use crate::error::{Error, Result};
use crate::job::{HistogramRules, SampleRules};
use bits::Bits;
use exposed::{Exemplars, Exposed};
pub(crate) use families::MetadataList;
use families::{Fact, Families};
use members::Members;
pub(crate) use members::Report;
use pass::Pass;
use series_labels::series_labels;

/// Seeded differently in each process, so that a target cannot choose texts that collide.
type FastHash = rapidhash::fast::RandomState;

/// Texts beyond twice those of the last good scrape that failing scrapes may add before the cache is emptied.
const FAILED_TEXTS_SLACK: usize = 1_000;

/// Stands for the member of a text whose series relabelling drops.
const DROPPED: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Text {
    member: u32,
    /// The scrape that exposed it last.
    last_scrape: u64,
}

/// What is known about an exposed series.
enum Found {
    /// Relabelling drops it.
    Dropped,
    /// This body had it before, and neither sample has a time of its own.
    Repeated,
    Known(u32),
    New(Labels),
}

/// What a body held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    /// Samples in the body.
    pub(crate) scraped: u64,
    /// Samples after relabelling, refused ones included.
    pub(crate) post_relabel: u64,
    /// Series that were not known by this text.
    pub(crate) series_added: u64,
    /// Samples dropped since their series was there already.
    pub(crate) duplicates: u64,
    /// Samples dropped since they lie too far ahead.
    pub(crate) out_of_bounds: u64,
    /// Samples with a timestamp of their own.
    pub(crate) timestamped: u64,
    /// Exemplars dropped since they break OpenMetrics's rules.
    pub(crate) exemplars_dropped: u64,
    /// Samples that count for `sample_limit`.
    counted: u64,
    /// Native histograms dropped since they have too many buckets.
    over_bucket_limit: u64,
}

/// When a scrape happens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// The timestamp of samples that have none of their own.
    pub(crate) at: Timestamp,
    /// The latest timestamp that a sample may have.
    pub(crate) latest: Timestamp,
}

/// How a body is read, and what came of it so far.
struct Reading<'a> {
    rules: &'a SampleRules,
    times: Times,
    tally: Tally,
    /// Where classic histograms are converted.
    custom_buckets: Option<CustomBuckets>,
}

/// The memory of one target's scrape loop.
#[derive(Debug)]
pub(crate) struct ScrapeCache {
    members: Members,
    texts: HashMap<Box<str>, Text, FastHash>,
    families: Families,
    /// Members that go stale when they are not exposed again.
    tracked: Bits,
    /// A hash of the exemplar that a member had last: the same one is not sent again.
    last_exemplars: HashMap<u32, u64, FastHash>,
    exemplar_hash: FastHash,
    /// Number of the scrape, from 1.
    scrape: u64,
    /// Texts and families at the last scrape that went well.
    successful_len: usize,
    pass: Pass,
}

impl ScrapeCache {
    /// Starts without knowing anything; `identity.key` are the target's labels.
    pub(crate) fn new(identity: GroupIdentity) -> Self {
        Self {
            members: Members::new(identity),
            texts: HashMap::default(),
            families: Families::default(),
            tracked: Bits::default(),
            last_exemplars: HashMap::default(),
            exemplar_hash: FastHash::default(),
            scrape: 0,
            successful_len: 0,
            pass: Pass::default(),
        }
    }

    /// The identity of the target's group.
    pub(crate) fn identity(&self) -> &GroupIdentity {
        self.members.identity()
    }

    /// Begins a scrape with a body. When it fails, nothing of the body is kept and the tally says how far it came.
    pub(crate) fn read(
        &mut self,
        body: &[u8],
        format: Format,
        rules: &SampleRules,
        times: Times,
    ) -> (Tally, Result<()>) {
        self.begin();
        let custom_buckets = rules.histograms.converts_classic.then(CustomBuckets::default);
        let mut reading = Reading { rules, times, tally: Tally::default(), custom_buckets };
        let mut outcome = match Parser::new(body, format) {
            Some(parser) => self.read_text(parser, &mut reading),
            None => self.read_protobuf(body, &mut reading),
        };
        let tally = reading.tally;
        if outcome.is_ok() && rules.sample_limit > 0 && tally.counted > rules.sample_limit {
            outcome = Err(Error::SampleLimit);
        }
        if outcome.is_ok() && tally.over_bucket_limit > 0 {
            outcome = Err(Error::BucketLimit);
        }
        match outcome {
            Ok(()) => {
                self.pass.is_complete = true;
                if self.families.has_changed() {
                    self.members.update_metadata(|metric| self.families.changed_for(metric).cloned());
                    self.families.mark_told();
                }
            }
            Err(_) => self.pass.clear(),
        }
        (tally, outcome)
    }

    /// Begins a scrape that failed before there was a body, or whose body was empty.
    pub(crate) fn skip(&mut self) {
        self.begin();
    }

    /// Ends a scrape that was begun: adds markers and report series, and returns all of it.
    pub(crate) fn close(&mut self, at: Timestamp, report: &Report) -> Batch {
        let report = self.members.report(report);
        let Self { pass, tracked, members, .. } = self;
        for (member, value) in report {
            pass.set(member, Value::Float(value));
        }
        pass.end_missing(tracked);
        Batch { appends: pass.take_appends(members.group(), at, members.len()), is_atomic: false }
    }

    /// Ends every series of the target: those that are tracked, and the report series.
    pub(crate) fn end(&mut self, at: Timestamp) -> Batch {
        self.begin();
        let Self { pass, tracked, members, .. } = self;
        for member in tracked.iter().chain(members.report_members()) {
            pass.set(member, Value::Float(stale_nan()));
        }
        Batch { appends: pass.take_appends(members.group(), at, members.len()), is_atomic: false }
    }

    /// Draws the consequences of a scrape that was closed; returns whether the cache had to be emptied because
    /// scrapes that failed filled it.
    pub(crate) fn settle(&mut self, is_stored: bool) -> bool {
        let len = self.texts.len() + self.families.len();
        let is_good = self.pass.is_complete && is_stored;
        let is_overfull = !is_good && len > 2 * self.successful_len + FAILED_TEXTS_SLACK;
        if is_good {
            self.successful_len = len;
            self.families.expire(self.scrape);
        }
        if is_good || is_overfull {
            self.forget_unexposed();
        }
        if is_stored {
            std::mem::swap(&mut self.tracked, &mut self.pass.tracked);
            self.last_exemplars.extend(self.pass.exemplar_hashes.drain(..));
        }
        self.pass.clear();
        if self.members.has_too_many_dead() {
            self.renew_group();
        }
        is_overfull
    }

    /// Goes on under another assignment epoch.
    pub(crate) fn set_epoch(&mut self, epoch: u64) {
        if self.members.set_epoch(epoch) {
            self.renew_group();
        }
    }

    /// Forgets which series the texts stand for, since the job's rules changed. Series that are not exposed any
    /// more under the new rules go stale at the next scrape.
    pub(crate) fn forget_texts(&mut self) {
        for (_, text) in self.texts.drain() {
            self.members.release(text.member);
        }
    }

    /// Returns the metadata of all metrics when it changed since this was called last.
    pub(crate) fn take_new_metadata(&mut self) -> Option<MetadataList> {
        self.families.take_new_list()
    }

    fn begin(&mut self) {
        self.scrape += 1;
        self.families.begin();
        self.pass.clear();
    }

    fn read_text(&mut self, parser: Parser<'_>, reading: &mut Reading<'_>) -> Result<()> {
        for entry in parser {
            match entry? {
                Entry::Sample(sample) => self.take(Exposed::from(sample), reading)?,
                Entry::Type { name, kind } => {
                    let ended = reading.custom_buckets.as_mut().and_then(|all| all.begin_family(&name, kind));
                    self.take_ended(ended, reading)?;
                    self.families.learn(&name, Fact::Kind(kind), self.scrape);
                }
                Entry::Help { name, help } => self.families.learn(&name, Fact::Help(&help), self.scrape),
                Entry::Unit { name, unit } => self.families.learn(&name, Fact::Unit(&unit), self.scrape),
                Entry::Comment(_) => {}
            }
        }
        let ended = reading.custom_buckets.as_mut().and_then(CustomBuckets::end);
        self.take_ended(ended, reading)
    }

    fn read_protobuf(&mut self, body: &[u8], reading: &mut Reading<'_>) -> Result<()> {
        let HistogramRules { scrapes_native, keeps_classic, .. } = reading.rules.histograms;
        let options =
            protobuf::Options { native_histograms: scrapes_native, classic_histograms_too: keeps_classic };
        for family in protobuf::Families::new(body) {
            let family = family?;
            let (name, kind) = (family.name(), family.kind());
            let ended = reading.custom_buckets.as_mut().and_then(|all| all.begin_family(name, kind));
            self.take_ended(ended, reading)?;
            self.families.learn(name, Fact::Kind(kind), self.scrape);
            let (help, unit) = (family.help(), family.unit());
            for (text, fact) in [(help, Fact::Help(help)), (unit, Fact::Unit(unit))] {
                if !text.is_empty() {
                    self.families.learn(name, fact, self.scrape);
                }
            }
            for metric in family.metrics() {
                for sample in family.samples(&metric?, options)? {
                    self.take(Exposed::from(&sample), reading)?;
                }
            }
        }
        let ended = reading.custom_buckets.as_mut().and_then(CustomBuckets::end);
        self.take_ended(ended, reading)
    }

    /// Takes one sample, or puts it aside where it is part of a histogram to be converted.
    fn take(&mut self, sample: Exposed<'_>, reading: &mut Reading<'_>) -> Result<()> {
        let Some(all) = &mut reading.custom_buckets else { return self.take_sample(sample, reading) };
        let (ended, is_part) = match sample.value {
            Value::Float(value) => {
                let exemplars = sample.exemplars.to_exemplars();
                let taken = all.take(&sample.series, value, sample.timestamp, exemplars);
                (taken.ended, taken.is_part)
            }
            Value::Histogram(_) => (all.pass_native(&sample.series), false),
        };
        self.take_ended(ended, reading)?;
        if is_part && !reading.rules.histograms.keeps_classic {
            return Ok(());
        }
        self.take_sample(sample, reading)
    }

    /// Takes a histogram that was converted.
    fn take_ended(&mut self, ended: Option<OwnedSample>, reading: &mut Reading<'_>) -> Result<()> {
        ended.map_or(Ok(()), |sample| self.take_sample(Exposed::from(&sample), reading))
    }

    /// Takes one sample. The order of checks is that of Prometheus's `scrapeLoop.append`, since the report series
    /// show how far each sample came.
    fn take_sample(&mut self, sample: Exposed<'_>, reading: &mut Reading<'_>) -> Result<()> {
        let Reading { rules, times, tally, .. } = reading;
        tally.scraped += 1;
        let own_time = sample.timestamp.filter(|_| rules.honor_timestamps);
        let found = self.find(&sample.series, own_time.is_some(), rules)?;
        if let Found::Dropped = found {
            return Ok(());
        }
        tally.post_relabel += 1;
        if let Found::Repeated = found {
            tally.duplicates += 1;
            return Ok(());
        }
        let Some(value) = within_limits(sample.value, rules.histograms)? else {
            tally.over_bucket_limit += 1;
            return Ok(());
        };
        tally.counted += 1;
        if rules.sample_limit > 0 && tally.counted > rules.sample_limit {
            // The rest is still counted, so that the report series say by how much the limit is exceeded.
            return Ok(());
        }
        if own_time.is_some_and(|t| t > times.latest) {
            tally.out_of_bounds += 1;
            return Ok(());
        }
        let member = match found {
            Found::Known(member) => member,
            Found::New(labels) => {
                tally.series_added += 1;
                let metadata = self.families.of_new_series(labels.metric_name());
                let member = self.members.add(labels, metadata);
                self.remember(sample.series.text(), member);
                member
            }
            Found::Dropped | Found::Repeated => return Ok(()),
        };

        match own_time {
            Some(time) => {
                tally.timestamped += 1;
                self.pass.timestamped.push((time, member, value));
            }
            None => self.pass.set(member, value),
        }
        if own_time.is_none() || rules.track_timestamps_staleness {
            self.pass.tracked.insert(member);
        }
        tally.exemplars_dropped += self.take_exemplars(member, own_time, &sample.exemplars, times.at);
        Ok(())
    }

    /// Finds out which series a text stands for, and notes that it was exposed.
    fn find(&mut self, series: &Series<'_>, has_own_time: bool, rules: &SampleRules) -> Result<Found> {
        if let Some(text) = self.texts.get_mut(series.text()) {
            let is_repeated = std::mem::replace(&mut text.last_scrape, self.scrape) == self.scrape;
            if !is_repeated {
                self.pass.texts += 1;
            }
            return Ok(match text.member {
                DROPPED => Found::Dropped,
                _ if is_repeated && !has_own_time => Found::Repeated,
                member => Found::Known(member),
            });
        }
        match series_labels(series, self.members.target(), rules)? {
            Some(labels) => Ok(Found::New(labels)),
            None => {
                self.remember(series.text(), DROPPED);
                Ok(Found::Dropped)
            }
        }
    }

    /// Takes exemplars unless they are those that the series had before; returns how many break a rule.
    fn take_exemplars(
        &mut self,
        member: u32,
        own_time: Option<Timestamp>,
        exemplars: &Exemplars<'_>,
        at: Timestamp,
    ) -> u64 {
        if exemplars.len() == 0 {
            return 0;
        }
        let mut hasher = self.exemplar_hash.build_hasher();
        exemplars.hash(&mut hasher);
        let hash = hasher.finish();
        if self.last_exemplars.get(&member) == Some(&hash) {
            return 0;
        }
        let copies = exemplars.to_exemplars();
        let dropped = exemplars.len() - copies.len();
        for copy in copies {
            let timestamp = copy.timestamp.or(own_time).or(Some(at));
            self.pass.exemplars.push((own_time, member, Exemplar { timestamp, ..copy }));
        }
        self.pass.exemplar_hashes.push((member, hash));
        dropped as u64
    }

    fn remember(&mut self, text: &str, member: u32) {
        self.texts.insert(text.into(), Text { member, last_scrape: self.scrape });
        self.pass.texts += 1;
    }

    /// Forgets the texts that this scrape did not expose.
    fn forget_unexposed(&mut self) {
        if self.pass.texts == self.texts.len() {
            return;
        }
        let Self { texts, members, scrape, .. } = self;
        texts.retain(|_, text| {
            let is_exposed = text.last_scrape == *scrape;
            if !is_exposed {
                members.release(text.member);
            }
            is_exposed
        });
    }

    /// Makes a new group of the members that are alive and renumbers what refers to them.
    fn renew_group(&mut self) {
        let numbers = self.members.renew(&self.tracked);
        for text in self.texts.values_mut().filter(|text| text.member != DROPPED) {
            text.member = numbers[text.member as usize].expect("a text keeps its member alive");
        }
        let mut tracked = Bits::default();
        for member in self.tracked.iter().filter_map(|old| numbers[old as usize]) {
            tracked.insert(member);
        }
        self.tracked = tracked;
        let exemplars = std::mem::take(&mut self.last_exemplars);
        self.last_exemplars =
            exemplars.into_iter().filter_map(|(old, hash)| Some((numbers[old as usize]?, hash))).collect();
    }
}

/// Reduces the resolution of a native histogram to what the job allows; `None` when that is not enough.
///
/// # Errors
/// When it breaks a rule of its format.
fn within_limits(value: Value, rules: HistogramRules) -> Result<Option<Value>> {
    let Value::Histogram(histogram) = value else { return Ok(Some(value)) };
    histogram.validate()?;
    let fits = |histogram: &Histogram| histogram.bucket_count() <= rules.bucket_limit;
    if histogram.schema() <= rules.schema_max && fits(&histogram) {
        return Ok(Some(Value::Histogram(histogram)));
    }
    let mut reduced = Arc::unwrap_or_clone(histogram).reduced(rules.schema_max);
    while !fits(&reduced) {
        // Custom buckets have no coarser ones.
        if reduced.schema() <= SCHEMA_MIN {
            return Ok(None);
        }
        let coarser = reduced.schema() - 1;
        reduced = reduced.reduced(coarser);
    }
    Ok(Some(Value::Histogram(reduced.into())))
}

#[cfg(test)]
mod tests;
