//! A write request, walked in place.
//!
//! Invariants:
//! - [`WriteRequest::parse`] has walked the whole message, so iterating cannot fail, and a request that is malformed
//!   anywhere is refused before any of it is stored;
//! - series, labels and samples borrow from the body; only histograms and label sets are built, one at a time.

use model::labels::METRIC_NAME;
use model::{Exemplar, Histogram, Labels, Metadata, MetricType, Timestamp};
use prometheus_proto::label;
use prometheus_proto::prometheus as pb;
use prometheus_proto::wire::{Fields, Malformed, Payload, read_varint};
use prost::Message as _;

use crate::error::{Error, InvalidSeries, Result};
use crate::frame::BODY_BYTES_MAX;
use crate::histogram::from_message;
use crate::negotiate::Version;

/// Labels of one series; one with more is invalid.
pub const LABELS_PER_SERIES_MAX: usize = 4096;

/// Symbols of one request of version 2.0.
pub const SYMBOLS_MAX: usize = 1 << 20;

/// Series of one request; senders have some thousands. A series can be told in a few bytes, so that a small body could
/// hold millions.
pub const SERIES_MAX: usize = 1 << 17;

/// Samples, exemplars among them, of one request: many more than any sender has by default.
pub const SAMPLES_MAX: usize = 1 << 18;

/// Bytes that all references of one request of version 2.0 may stand for: as many as a request of 1.0 can have. A long
/// symbol may be referred to often, so that a small body could stand for terabytes.
pub const REFERRED_BYTES_MAX: usize = BODY_BYTES_MAX;

/// A request whose structure has been checked.
///
/// ```
/// use model::{Labels, Timestamp};
/// use remote_protocol::{SeriesOut, Version, WriteRequest, compress, decompress, encode_v1};
///
/// let labels = Labels::from_pairs([("__name__", "up")]);
/// let sent = SeriesOut { labels, floats: vec![(Timestamp(5), 1.0)], ..Default::default() };
/// let body = compress(&encode_v1(&[sent], &[]))?;
///
/// let message = decompress(&body)?;
/// let request = WriteRequest::parse(Version::V1, &message)?;
/// for series in request.series() {
///     match series.to_labels() {
///         Ok(labels) => assert_eq!(labels.metric_name(), "up"),
///         Err(invalid) => panic!("skipped: {invalid}"),
///     }
///     let samples: Vec<_> = series.floats().map(|s| (s.timestamp, s.value)).collect();
///     assert_eq!(samples, [(Timestamp(5), 1.0)]);
/// }
/// # Ok::<(), remote_protocol::Error>(())
/// ```
#[derive(Debug)]
pub struct WriteRequest<'a> {
    version: Version,
    message: &'a [u8],
    series: Vec<Span<'a>>,
    /// Of version 2.0.
    symbols: Vec<&'a [u8]>,
}

/// Where a series lies in the message.
#[derive(Debug, Clone, Copy)]
struct Span<'a> {
    message: &'a [u8],
    /// How much of it the labels take that it begins with.
    labels_len: usize,
    /// Whether there are more labels behind other fields.
    is_mixed: bool,
}

/// Field numbers that differ between the versions.
struct Layout {
    series: u64,
    histograms: u64,
    exemplars: u64,
}

impl Version {
    const fn layout(self) -> Layout {
        match self {
            Self::V1 => Layout { series: 1, histograms: 4, exemplars: 3 },
            Self::V2 => Layout { series: 5, histograms: 3, exemplars: 4 },
        }
    }
}

/// Field numbers of both versions.
const LABELS: u64 = 1;
const SAMPLES: u64 = 2;
/// Of version 1.0.
const FAMILIES: u64 = 3;
/// Of version 2.0.
const SYMBOLS: u64 = 4;
const METADATA: u64 = 5;
/// Within metadata.
const HELP: u64 = 3;
const UNIT: u64 = 4;
/// Of version 2.0, before samples had it.
const CREATED: u64 = 6;

impl<'a> WriteRequest<'a> {
    /// Checks a decompressed message.
    ///
    /// # Errors
    /// When it is malformed anywhere, has too many series, samples or symbols, or says too much by references.
    pub fn parse(version: Version, message: &'a [u8]) -> Result<Self> {
        let layout = version.layout();
        let (mut series, mut symbols) = (Vec::new(), Vec::new());
        let mut samples = 0;
        for field in Fields::new(message) {
            let (number, payload) = field?;
            if number == layout.series {
                if series.len() == SERIES_MAX {
                    return Err(Error::TooMany { what: "series", max: SERIES_MAX });
                }
                let (span, count) = check_series(version, payload.expect_bytes()?)?;
                series.push(span);
                samples += count;
                if samples > SAMPLES_MAX {
                    return Err(Error::TooMany { what: "samples", max: SAMPLES_MAX });
                }
            } else if version == Version::V2 && number == SYMBOLS {
                if symbols.len() == SYMBOLS_MAX {
                    return Err(Error::TooMany { what: "symbols", max: SYMBOLS_MAX });
                }
                symbols.push(payload.expect_bytes()?);
            } else if version == Version::V1 && number == FAMILIES {
                pb::MetricMetadata::decode(payload.expect_bytes()?).map_err(decode_error)?;
            }
        }
        let request = Self { version, message, series, symbols };
        if request.referred_bytes() > REFERRED_BYTES_MAX {
            let what = "bytes that its references stand for";
            return Err(Error::TooMany { what, max: REFERRED_BYTES_MAX });
        }
        Ok(request)
    }

    /// Bytes of the symbols that are referred to, each as often as it is.
    fn referred_bytes(&self) -> usize {
        // In version 1.0 nothing can refer to anything.
        if self.symbols.is_empty() {
            return 0;
        }
        let of_series = |series: &Span<'a>| {
            let exemplars = bytes_of(series.message, self.version.layout().exemplars);
            let labels = exemplars.chain([series.message]).flat_map(references);
            let metadata = bytes_of(series.message, METADATA).flat_map(metadata_references);
            labels.chain(metadata).filter_map(|n| self.symbol(n).ok()).map(<[u8]>::len).sum::<usize>()
        };
        self.series.iter().map(of_series).sum()
    }

    /// Returns the version of the message.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Iterates over the series in the order of the request; one label set may come more than once.
    pub fn series(&self) -> impl Iterator<Item = TimeSeries<'_>> {
        self.series.iter().map(|span| TimeSeries { request: self, span: *span })
    }

    /// Iterates over the metadata of families, which version 1.0 sends apart from the series.
    pub fn families(&self) -> impl Iterator<Item = (String, Metadata)> {
        let is_v1 = self.version == Version::V1;
        bytes_of(self.message, FAMILIES).filter(move |_| is_v1).filter_map(|bytes| {
            let message = pb::MetricMetadata::decode(bytes).ok()?;
            let metadata = Metadata {
                kind: metric_type(message.r#type),
                unit: message.unit.into(),
                help: message.help.into(),
            };
            Some((message.metric_family_name, metadata))
        })
    }

    fn symbol(&self, reference: u64) -> std::result::Result<&'a [u8], InvalidSeries> {
        let size = self.symbols.len();
        usize::try_from(reference)
            .ok()
            .and_then(|i| self.symbols.get(i).copied())
            .ok_or(InvalidSeries::UnknownSymbol { reference, size })
    }
}

/// One sample of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample<V> {
    /// When.
    pub timestamp: Timestamp,
    /// What.
    pub value: V,
    /// When its counting started, where that is said.
    pub start: Option<Timestamp>,
}

/// One series of a request.
#[derive(Debug, Clone, Copy)]
pub struct TimeSeries<'a> {
    request: &'a WriteRequest<'a>,
    span: Span<'a>,
}

impl<'a> TimeSeries<'a> {
    /// The labels as bytes that no other label set has: as [`label::put`] writes them one after the other, where they
    /// come as Prometheus sends them. Costs a fraction of building the labels, and checks less than
    /// [`TimeSeries::to_labels`]. `None` where the labels do not lie together or cannot be read; `scratch` is room.
    pub fn label_bytes<'b>(&self, scratch: &'b mut Vec<u8>) -> Option<&'b [u8]>
    where
        'a: 'b,
    {
        if self.request.version == Version::V1 {
            return (!self.span.is_mixed).then(|| &self.span.message[..self.span.labels_len]);
        }
        scratch.clear();
        let put = |name, value| {
            label::put(name, value, scratch);
            Ok(())
        };
        each_label(self.request, self.span.message, put).ok()?;
        Some(scratch)
    }

    /// Builds the label set.
    ///
    /// # Errors
    /// When the series cannot be stored: see [`InvalidSeries`] for what that means for the request.
    pub fn to_labels(&self) -> std::result::Result<Labels, InvalidSeries> {
        let labels = build_labels(self.request, self.span.message)?;
        let has_empty_name = labels.iter().any(|(name, _)| name.is_empty());
        if has_empty_name || !labels.has(METRIC_NAME) {
            return Err(InvalidSeries::Name(labels));
        }
        Ok(labels)
    }

    /// What stands behind the labels.
    fn rest(&self) -> &'a [u8] {
        &self.span.message[self.span.labels_len..]
    }

    /// Iterates over the float samples.
    pub fn floats(&self) -> impl Iterator<Item = Sample<f64>> + 'a {
        let start_of = self.start_of();
        bytes_of(self.rest(), SAMPLES).map(move |message| {
            let (value, timestamp) = value_and_time(message, 1, 2);
            Sample { timestamp, value, start: start_of(message, 3) }
        })
    }

    /// Iterates over the native histograms. Schemas of 9 to 52 are reduced to 8; other rules are the store's to check.
    pub fn histograms(&self) -> impl Iterator<Item = Sample<Histogram>> + 'a {
        let start_of = self.start_of();
        bytes_of(self.rest(), self.request.version.layout().histograms).filter_map(move |message| {
            let (timestamp, value) = from_message(pb::Histogram::decode(message).ok()?);
            Some(Sample { timestamp, value, start: start_of(message, 17) })
        })
    }

    /// Finds when the counting of a sample started, which version 2.0 says with each sample, and said with the series
    /// in its drafts.
    fn start_of(&self) -> impl Fn(&[u8], u64) -> Option<Timestamp> + use<> {
        let is_v2 = self.request.version == Version::V2;
        let number_of = |message: &[u8], field: u64| {
            let numbers = Fields::checked(message).filter(|(number, _)| *number == field);
            numbers.filter_map(|(_, payload)| payload.int64()).last().filter(|t| *t != 0).map(Timestamp)
        };
        let of_series = if is_v2 { number_of(self.rest(), CREATED) } else { None };
        move |message, field| if is_v2 { number_of(message, field).or(of_series) } else { None }
    }

    /// Counts the samples of both sorts: what is lost with a series that is skipped.
    #[must_use]
    pub fn sample_count(&self) -> usize {
        let histograms = self.request.version.layout().histograms;
        Fields::checked(self.rest()).filter(|(number, _)| *number == SAMPLES || *number == histograms).count()
    }

    /// Iterates over the exemplars; a broken one is no reason to refuse anything else.
    pub fn exemplars(&self) -> impl Iterator<Item = std::result::Result<Exemplar, InvalidSeries>> + 'a {
        let request = self.request;
        bytes_of(self.rest(), request.version.layout().exemplars).map(move |message| {
            let labels = build_labels(request, message)?;
            let (value, timestamp) = value_and_time(message, 2, 3);
            Ok(Exemplar { labels, value, timestamp: Some(timestamp).filter(|t| *t != Timestamp(0)) })
        })
    }

    /// Returns what series of one request with the same metadata have in common; `None` in version 1.0, and where
    /// nothing is said.
    #[must_use]
    pub fn metadata_key(&self) -> Option<&'a [u8]> {
        let is_v2 = self.request.version == Version::V2;
        bytes_of(self.rest(), METADATA).filter(|_| is_v2).last()
    }

    /// Returns type, unit and help, which version 2.0 sends with each series; `None` in version 1.0.
    #[must_use]
    pub fn metadata(&self) -> Option<Metadata> {
        let message = self.metadata_key()?;
        let mut metadata = Metadata::default();
        for (number, payload) in Fields::checked(message) {
            let Payload::Varint(n) = payload else {
                continue;
            };
            // A reference that leads nowhere or to what is not UTF-8 is as good as none.
            let text =
                || self.request.symbol(n).ok().and_then(|s| str::from_utf8(s).ok()).unwrap_or_default();
            match number {
                1 => metadata.kind = metric_type(i32::try_from(n).unwrap_or_default()),
                HELP => metadata.help = text().into(),
                UNIT => metadata.unit = text().into(),
                _ => {}
            }
        }
        Some(metadata)
    }
}

impl From<Malformed> for Error {
    fn from(Malformed(what): Malformed) -> Self {
        Self::Message(what.to_owned())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "fits map_err")]
fn decode_error(error: prost::DecodeError) -> Error {
    Error::Message(error.to_string())
}

/// The length-delimited fields of one number in a checked message.
fn bytes_of(message: &[u8], number: u64) -> impl Iterator<Item = &[u8]> {
    Fields::checked(message).filter(move |(n, _)| *n == number).filter_map(|(_, payload)| payload.bytes())
}

/// Checks a series and counts what it has of samples and exemplars.
fn check_series(version: Version, message: &[u8]) -> Result<(Span<'_>, usize)> {
    let layout = version.layout();
    let (mut labels_len, mut is_mixed) = (0, false);
    let mut samples = 0;
    let mut fields = Fields::new(message);
    loop {
        let at = message.len() - fields.rest().len();
        let Some(field) = fields.next() else {
            return Ok((Span { message, labels_len, is_mixed }, samples));
        };
        let (number, payload) = field?;
        samples += usize::from([SAMPLES, layout.histograms, layout.exemplars].contains(&number));
        if number == LABELS {
            check_labels(version, payload)?;
            if at == labels_len {
                labels_len = message.len() - fields.rest().len();
            } else {
                is_mixed = true;
            }
        } else if number == SAMPLES {
            check_numbers(payload.expect_bytes()?, 1, 2)?;
        } else if number == layout.histograms {
            pb::Histogram::decode(payload.expect_bytes()?).map_err(decode_error)?;
        } else if number == layout.exemplars {
            let exemplar = payload.expect_bytes()?;
            check_numbers(exemplar, 2, 3)?;
            for field in Fields::new(exemplar) {
                if let (LABELS, payload) = field? {
                    check_labels(version, payload)?;
                }
            }
        } else if version == Version::V2 && number == METADATA {
            for field in Fields::new(payload.expect_bytes()?) {
                field?;
            }
        }
    }
}

/// Checks a label of version 1.0 or references of version 2.0 (packed, or one by one).
fn check_labels(version: Version, payload: Payload<'_>) -> Result<()> {
    if version == Version::V2 {
        let Payload::Bytes(mut packed) = payload else {
            return match payload {
                Payload::Varint(_) => Ok(()),
                _ => Err(Malformed("fixed-size number where a reference belongs").into()),
            };
        };
        while !packed.is_empty() {
            read_varint(&mut packed)?;
        }
        return Ok(());
    }
    label::read(payload.expect_bytes()?)?;
    Ok(())
}

/// Checks that a message's value and time have the right wire types.
fn check_numbers(message: &[u8], value: u64, time: u64) -> Result<()> {
    for field in Fields::new(message) {
        let (number, payload) = field?;
        if (number == value && payload.double().is_none()) || (number == time && payload.int64().is_none()) {
            return Err(Malformed("value or timestamp of another type").into());
        }
    }
    Ok(())
}

fn value_and_time(message: &[u8], value_number: u64, time_number: u64) -> (f64, Timestamp) {
    let (mut value, mut time) = (0.0, 0);
    for (number, payload) in Fields::checked(message) {
        if number == value_number {
            value = payload.double().unwrap_or_default();
        } else if number == time_number {
            time = payload.int64().unwrap_or_default();
        }
    }
    (value, Timestamp(time))
}

/// Builds the labels of a series or exemplar, which may come in any order.
fn build_labels<'a>(
    request: &WriteRequest<'a>,
    message: &'a [u8],
) -> std::result::Result<Labels, InvalidSeries> {
    let mut pairs = Vec::with_capacity(16);
    each_label(request, message, |name, value| {
        pairs.push((utf8(name)?, utf8(value)?));
        Ok(())
    })?;
    pairs.sort_unstable_by_key(|(name, _)| *name);
    if let Some(twice) = pairs.windows(2).find(|w| w[0].0 == w[1].0) {
        return Err(InvalidSeries::DuplicateLabel(twice[0].0.to_owned()));
    }
    Ok(Labels::from_sorted(pairs).expect("sorted and unique"))
}

/// Hands out the labels of a series or exemplar as they come.
fn each_label<'a>(
    request: &WriteRequest<'a>,
    message: &'a [u8],
    mut take: impl FnMut(&'a [u8], &'a [u8]) -> std::result::Result<(), InvalidSeries>,
) -> std::result::Result<(), InvalidSeries> {
    match request.version {
        Version::V1 => {
            for (i, bytes) in bytes_of(message, LABELS).enumerate() {
                if i == LABELS_PER_SERIES_MAX {
                    return Err(InvalidSeries::TooManyLabels);
                }
                let (name, value) = label::read(bytes).expect("checked with the request");
                take(name, value)?;
            }
        }
        Version::V2 => {
            let count = references(message).take(2 * LABELS_PER_SERIES_MAX + 1).count();
            if count > 2 * LABELS_PER_SERIES_MAX {
                return Err(InvalidSeries::TooManyLabels);
            }
            if !count.is_multiple_of(2) {
                return Err(InvalidSeries::OddReferences(count));
            }
            let mut references = references(message);
            while let (Some(name), Some(value)) = (references.next(), references.next()) {
                take(request.symbol(name)?, request.symbol(value)?)?;
            }
        }
    }
    Ok(())
}

/// The references to help and unit in metadata of version 2.0.
fn metadata_references(message: &[u8]) -> impl Iterator<Item = u64> {
    Fields::checked(message).filter_map(|(number, payload)| match (number, payload) {
        (HELP | UNIT, Payload::Varint(reference)) => Some(reference),
        _ => None,
    })
}

/// The references to names and values of a series or exemplar of version 2.0, packed or one by one.
fn references(message: &[u8]) -> impl Iterator<Item = u64> {
    Fields::checked(message).filter(|(number, _)| *number == LABELS).flat_map(|(_, payload)| {
        let (one, mut packed): (_, &[u8]) = match payload {
            Payload::Varint(reference) => (Some(reference), &[]),
            Payload::Bytes(packed) => (None, packed),
            Payload::Fixed32(_) | Payload::Fixed64(_) => (None, &[]),
        };
        one.into_iter().chain(std::iter::from_fn(move || read_varint(&mut packed).ok()))
    })
}

fn utf8(bytes: &[u8]) -> std::result::Result<&str, InvalidSeries> {
    str::from_utf8(bytes).map_err(|_| InvalidSeries::NotUtf8(String::from_utf8_lossy(bytes).into_owned()))
}

/// The numbers of the types are the same in both versions.
fn metric_type(number: i32) -> MetricType {
    use pb::metric_metadata::MetricType as Wire;
    match Wire::try_from(number).unwrap_or(Wire::Unknown) {
        Wire::Unknown => MetricType::Unknown,
        Wire::Counter => MetricType::Counter,
        Wire::Gauge => MetricType::Gauge,
        Wire::Histogram => MetricType::Histogram,
        Wire::Gaugehistogram => MetricType::GaugeHistogram,
        Wire::Summary => MetricType::Summary,
        Wire::Info => MetricType::Info,
        Wire::Stateset => MetricType::StateSet,
    }
}

#[cfg(test)]
mod tests;
