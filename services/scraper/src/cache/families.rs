//! What a target says about its metrics: `# TYPE`, `# HELP`, `# UNIT`.
//!
//! Invariants: a family is kept until 10 scrapes after it was last mentioned; a published list holds what the last
//! stored scrape knew.

use std::collections::HashMap;
use std::sync::Arc;

use model::{Metadata, MetricType};

use super::FastHash;

/// Scrapes for which a family outlives its last mention.
const KEPT_SCRAPES: u64 = 10;

/// Metric names with what is known about them, sorted by name.
pub(crate) type MetadataList = Arc<[(Arc<str>, Arc<Metadata>)]>;

#[derive(Debug)]
struct Family {
    name: Arc<str>,
    metadata: Arc<Metadata>,
    last_scrape: u64,
    /// The metadata changed since members were told.
    is_changed: bool,
}

/// The families of one target.
#[derive(Debug, Default)]
pub(super) struct Families {
    by_name: HashMap<Arc<str>, Family, FastHash>,
    /// The family that was mentioned last: samples behind it belong to it if their names fit.
    current: Option<Arc<str>>,
    /// One of the families changed since members were told.
    has_changed: bool,
    is_list_old: bool,
}

/// One fact about a family.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fact<'a> {
    Kind(MetricType),
    Help(&'a str),
    Unit(&'a str),
}

impl Families {
    /// Begins a scrape.
    pub(super) fn begin(&mut self) {
        self.current = None;
    }

    /// Takes a fact; in the steady state nothing is allocated.
    pub(super) fn learn(&mut self, name: &str, fact: Fact<'_>, scrape: u64) {
        if !self.by_name.contains_key(name) {
            let name: Arc<str> = Arc::from(name);
            let family = Family {
                name: name.clone(),
                metadata: Arc::default(),
                last_scrape: scrape,
                is_changed: false,
            };
            self.by_name.insert(name, family);
            self.is_list_old = true;
        }
        let family = self.by_name.get_mut(name).expect("inserted above");
        family.last_scrape = scrape;
        let known = &family.metadata;
        let is_new = match fact {
            Fact::Kind(kind) => known.kind != kind,
            Fact::Help(help) => *known.help != *help,
            Fact::Unit(unit) => *known.unit != *unit,
        };
        if is_new {
            let mut metadata = Metadata::clone(known);
            match fact {
                Fact::Kind(kind) => metadata.kind = kind,
                Fact::Help(help) => metadata.help = Arc::from(help),
                Fact::Unit(unit) => metadata.unit = Arc::from(unit),
            }
            family.metadata = Arc::new(metadata);
            family.is_changed = true;
            self.has_changed = true;
            self.is_list_old = true;
        }
        if self.current.as_deref() != Some(name) {
            self.current = Some(family.name.clone());
        }
    }

    /// Returns the metadata of a new series, if it belongs to the family that was mentioned last.
    pub(super) fn of_new_series(&self, metric: &str) -> Option<Arc<Metadata>> {
        let family = self.by_name.get(self.current.as_ref()?)?;
        family.metadata.kind.is_part(metric, &family.name).then(|| family.metadata.clone())
    }

    /// Says whether any metadata changed since [`Families::mark_told`].
    pub(super) fn has_changed(&self) -> bool {
        self.has_changed
    }

    /// Notes that all members know the metadata as it is.
    pub(super) fn mark_told(&mut self) {
        self.has_changed = false;
        self.by_name.values_mut().for_each(|family| family.is_changed = false);
    }

    /// Returns the changed metadata that a known series belongs to.
    pub(super) fn changed_for(&self, metric: &str) -> Option<&Arc<Metadata>> {
        let stems = ["", "_total", "_bucket", "_sum", "_count", "_gsum", "_gcount", "_info"];
        stems.iter().find_map(|suffix| {
            let stem = metric.strip_suffix(suffix)?;
            let family = self.by_name.get(stem)?;
            (family.is_changed && family.metadata.kind.is_part(metric, stem)).then_some(&family.metadata)
        })
    }

    /// Forgets families that were not mentioned for long.
    pub(super) fn expire(&mut self, scrape: u64) {
        let before = self.by_name.len();
        self.by_name.retain(|_, family| scrape.saturating_sub(family.last_scrape) <= KEPT_SCRAPES);
        self.is_list_old |= self.by_name.len() != before;
    }

    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Returns the list of all families when it changed since this was called last.
    pub(super) fn take_new_list(&mut self) -> Option<MetadataList> {
        if !std::mem::take(&mut self.is_list_old) {
            return None;
        }
        let mut list: Vec<_> = self.by_name.values().map(|f| (f.name.clone(), f.metadata.clone())).collect();
        list.sort_by(|a, b| a.0.cmp(&b.0));
        Some(list.into())
    }
}
