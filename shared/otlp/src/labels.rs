//! Labels of a series, from the attributes of its resource, scope and data point.
//!
//! Of several sources of one label, the stronger wins: what the translation itself sets (`__name__`, `le`), `job` and
//! `instance`, the scope's, the data point's, promoted attributes of the resource. Two attributes of a data point
//! that are one label after translation are joined by `;` in the order of their keys.

use std::borrow::Cow;

use model::Labels;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::ScopeMetrics;

use crate::names::label_name;
use crate::rejections::Reason;
use crate::settings::{Limits, Settings};
use crate::value_text::text;

pub(crate) const SERVICE_NAMESPACE: &str = "service.namespace";
pub(crate) const SERVICE_NAME: &str = "service.name";
pub(crate) const SERVICE_INSTANCE_ID: &str = "service.instance.id";

/// Why a data point is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) reason: Reason,
    pub(crate) text: String,
}

impl Fault {
    pub(crate) fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }
}

/// A label that is yet to be part of a set.
pub(crate) type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// What every series of a resource and a scope has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shared<'a> {
    /// `job` and `instance`, and what the scope gives.
    strong: Vec<Pair<'a>>,
    /// Promoted attributes of the resource.
    weak: Vec<Pair<'a>>,
}

impl<'a> Shared<'a> {
    /// What the series of a resource have.
    pub(crate) fn of_resource(attributes: &'a [KeyValue], settings: &Settings) -> Result<Self, Fault> {
        check_count(attributes, &settings.limits)?;
        let promoted = attributes.iter().filter(|a| settings.promotion.takes(&a.key));
        let mut weak = translated(promoted, settings)?;
        // Of two that are one label the first in the order of keys is kept.
        weak.dedup_by(|later, earlier| later.0 == earlier.0);
        Ok(Self { strong: identity(attributes, &settings.limits)?, weak })
    }

    /// The same without promoted attributes: what `target_info` has besides the attributes themselves.
    pub(crate) fn identity_only(&self) -> Self {
        Self { strong: self.strong.clone(), weak: Vec::new() }
    }

    pub(crate) fn has_identity(&self) -> bool {
        !self.strong.is_empty()
    }

    /// Adds what a scope gives to the resource's.
    pub(crate) fn with_scope(&self, metrics: &'a ScopeMetrics, settings: &Settings) -> Result<Self, Fault> {
        let mut shared = self.clone();
        let Some(scope) = metrics.scope.as_ref().filter(|scope| !scope.name.is_empty()) else {
            return Ok(shared);
        };
        if !settings.promotes_scope {
            return Ok(shared);
        }
        check_count(&scope.attributes, &settings.limits)?;
        let mut add = |name: Cow<'a, str>, value: Cow<'a, str>| {
            if !shared.strong.iter().any(|(known, _)| *known == name) {
                shared.strong.push((name, value));
            }
        };
        // An attribute takes the place of a field, and the later of two the earlier's.
        for attribute in scope.attributes.iter().rev() {
            let name = format!("otel_scope_{}", attribute.key);
            let name = label_name(&name, settings).map_err(|e| Fault::new(Reason::InvalidName, e))?;
            add(Cow::Owned(name.into_owned()), value(attribute, &settings.limits)?);
        }
        for (name, value) in [
            ("otel_scope_name", &scope.name),
            ("otel_scope_version", &scope.version),
            ("otel_scope_schema_url", &metrics.schema_url),
        ] {
            add(Cow::Borrowed(name), Cow::Borrowed(value));
        }
        Ok(shared)
    }

    /// The labels of a data point but for those that [`labels`] adds, sorted by name and unique.
    pub(crate) fn with_attributes(
        &self,
        attributes: impl Iterator<Item = &'a KeyValue> + Clone,
        settings: &Settings,
    ) -> Result<Vec<Pair<'a>>, Fault> {
        let own = translated(attributes, settings)?;
        // Sorted by name, the strongest of a name first.
        let ranked = |pairs: &[Pair<'a>], rank: u8| -> Vec<(Pair<'a>, u8)> {
            pairs.iter().map(|pair| (pair.clone(), rank)).collect()
        };
        let mut all = ranked(&self.strong, 0);
        all.extend(own.into_iter().map(|pair| (pair, 1)));
        all.extend(ranked(&self.weak, 2));
        all.sort_by(|((a, _), a_rank), ((b, _), b_rank)| a.cmp(b).then(a_rank.cmp(b_rank)));
        let mut labels: Vec<Pair<'a>> = Vec::with_capacity(all.len());
        let (mut bytes, mut last_rank) = (0, 0);
        for (pair, rank) in all {
            match labels.last_mut() {
                Some((name, value)) if *name == pair.0 => {
                    if (last_rank, rank) == (1, 1) {
                        let value = value.to_mut();
                        value.push(';');
                        value.push_str(&pair.1);
                    }
                }
                _ => {
                    last_rank = rank;
                    labels.push(pair);
                }
            }
        }
        for (name, value) in &labels {
            check_label(name, value, &settings.limits)?;
            bytes += name.len() + value.len();
        }
        if bytes > settings.limits.series_bytes {
            let max = settings.limits.series_bytes;
            return Err(Fault::new(
                Reason::Limit,
                format!("labels of {bytes} bytes: at most {max} are allowed"),
            ));
        }
        Ok(labels)
    }
}

/// Puts a series' labels together; `extra` wins over `base`.
pub(crate) fn labels(base: &[Pair<'_>], name: &str, extra: Option<(&str, &str)>) -> Labels {
    let own = [(model::labels::METRIC_NAME, name)].into_iter().chain(extra);
    let is_own = |label: &str| own.clone().any(|(name, _)| name == label);
    let mut pairs: Vec<(&str, &str)> =
        base.iter().map(|(n, v)| (&**n, &**v)).filter(|(n, _)| !is_own(n)).collect();
    pairs.extend(own.clone());
    pairs.sort_unstable_by_key(|(name, _)| *name);
    Labels::from_sorted(pairs).expect("base is unique and has none of the extra names")
}

/// `job` and `instance` of a resource.
fn identity<'a>(attributes: &'a [KeyValue], limits: &Limits) -> Result<Vec<Pair<'a>>, Fault> {
    let get = |name| first(attributes, name).map(|a| value(a, limits)).transpose();
    let mut pairs = Vec::new();
    if let Some(name) = get(SERVICE_NAME)? {
        let job = match get(SERVICE_NAMESPACE)? {
            Some(namespace) => Cow::Owned(format!("{namespace}/{name}")),
            None => name,
        };
        pairs.push((Cow::Borrowed(model::labels::JOB), job));
    }
    if let Some(instance) = get(SERVICE_INSTANCE_ID)? {
        pairs.push((Cow::Borrowed(model::labels::INSTANCE), instance));
    }
    Ok(pairs)
}

/// The first attribute of a name, as a look-up in the reference finds it.
pub(crate) fn first<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a KeyValue> {
    attributes.iter().find(|attribute| attribute.key == name)
}

/// Attributes as labels, in the order of label names, and of keys where those are equal.
fn translated<'a>(
    attributes: impl Iterator<Item = &'a KeyValue>,
    settings: &Settings,
) -> Result<Vec<Pair<'a>>, Fault> {
    let mut sorted: Vec<&KeyValue> = attributes.collect();
    sorted.sort_by(|a, b| a.key.cmp(&b.key));
    let mut pairs = Vec::with_capacity(sorted.len());
    for attribute in sorted {
        let name = label_name(&attribute.key, settings).map_err(|e| Fault::new(Reason::InvalidName, e))?;
        pairs.push((name, value(attribute, &settings.limits)?));
    }
    pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(pairs)
}

fn value<'a>(attribute: &'a KeyValue, limits: &Limits) -> Result<Cow<'a, str>, Fault> {
    text(attribute.value.as_ref(), limits.value_depth).map_err(|_| {
        let (key, max) = (&attribute.key, limits.value_depth);
        Fault::new(Reason::Limit, format!("attribute {key:?} nests deeper than {max} levels"))
    })
}

/// Checks how many attributes something has, before they are looked at one by one.
pub(crate) fn check_count(attributes: &[KeyValue], limits: &Limits) -> Result<(), Fault> {
    let (count, max) = (attributes.len(), limits.attributes);
    if count > max {
        return Err(Fault::new(Reason::Limit, format!("{count} attributes: at most {max} are allowed")));
    }
    Ok(())
}

fn check_label(name: &str, value: &str, limits: &Limits) -> Result<(), Fault> {
    let (bytes, max) = (name.len().max(value.len()), limits.label_bytes);
    if bytes > max {
        let name = &name[..name.floor_char_boundary(64)];
        let text = format!("label {name:?} with {bytes} bytes: at most {max} are allowed");
        return Err(Fault::new(Reason::Limit, text));
    }
    Ok(())
}
