//! Imports OpenMetrics text in which every sample has a time.
//!
//! The text is read once, in pieces, and may have its samples in any order. Its name is a digest of all of it, known at
//! the end: a run that was ended while it read begins anew, one that was ended while it wrote days passes over those.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use exposition::{Entry, OpenMetricsState, Parser, Sample};
use model::{Labels, Metadata};
use ring::digest;
use tsdb::import::{ImportedDay, Importer, Unsorted};

use crate::error::{Error, Result};
use crate::progress::{Phase, Progress};
use crate::{Summary, hex};

/// Bytes of text that are parsed at a time, about.
const PIECE_BYTES: usize = 4 << 20;
/// A line longer than this is refused.
const LINE_BYTES_MAX: usize = 64 << 20;
/// Samples of one series that go on together.
const SAMPLES_AT_ONCE: usize = 1 << 16;
/// Texts of series whose labels are remembered.
const SERIES_KNOWN_MAX: usize = 200_000;

/// Imports a file (`-` is standard input) and reports each day that becomes live.
///
/// # Errors
/// In promtool's words when the text is wrong; nothing is imported then. When the store fails, days committed before
/// stay.
pub fn import_open_metrics(
    input: &Path,
    importer: &mut Importer,
    progress: &Progress,
    report: &mut dyn FnMut(&ImportedDay),
) -> Result<Summary> {
    let source = read(input, importer, progress)?;
    let days = importer.days();
    progress.begin(Phase::WriteDays, days.len() as u64);
    let mut summary = Summary::default();
    for day in days {
        match importer.commit(&source, day)? {
            Some(imported) => {
                summary.imported += 1;
                report(&imported);
            }
            None => summary.passed_over += 1,
        }
        progress.add_done(1);
    }
    Ok(summary)
}

/// Reads all of the text and returns its digest.
fn read(input: &Path, importer: &mut Importer, progress: &Progress) -> Result<String> {
    let failed = |source| Error::Input { path: input.to_owned(), source };
    let (mut file, length): (Box<dyn Read>, u64) = if input == Path::new("-") {
        (Box::new(std::io::stdin()), 0)
    } else {
        let file = File::open(input).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        (Box::new(file), length)
    };
    progress.begin(Phase::ReadText, length);
    let mut digest = digest::Context::new(&digest::SHA256);
    let mut reader =
        Reader { importer, progress, state: OpenMetricsState::default(), series: Series::default() };
    let mut text: Vec<u8> = Vec::new();
    loop {
        let before = text.len();
        let count = (&mut file).take(PIECE_BYTES as u64).read_to_end(&mut text).map_err(failed)?;
        digest.update(&text[before..]);
        progress.add_done(count);
        let is_last = count == 0;
        // A piece ends where a line does.
        let end = match text.iter().rposition(|byte| *byte == b'\n') {
            _ if is_last => text.len(),
            Some(newline) => newline + 1,
            None => 0,
        };
        let parsed = reader.parse(&text[..end], is_last)?;
        text.drain(..parsed);
        if is_last {
            break;
        }
        if text.len() > LINE_BYTES_MAX {
            let source = std::io::Error::other(format!("a line is longer than {LINE_BYTES_MAX} bytes"));
            return Err(failed(source));
        }
    }
    reader.finish()?;
    Ok(hex(digest.finish()))
}

/// What is known while text is read.
struct Reader<'a> {
    importer: &'a mut Importer,
    progress: &'a Progress,
    state: OpenMetricsState,
    series: Series,
}

/// The series that is being read, and those that were.
#[derive(Default)]
struct Series {
    known: HashMap<Box<str>, (Labels, Option<Arc<Metadata>>)>,
    /// Consecutive samples of one series go on together.
    text: String,
    labels: Option<(Labels, Option<Arc<Metadata>>)>,
    samples: Unsorted,
    family: Family,
}

/// The metric that was described last.
#[derive(Default)]
struct Family {
    name: String,
    metadata: Arc<Metadata>,
}

impl Family {
    fn change(&mut self, name: &str, change: impl FnOnce(&mut Metadata)) {
        if self.name != name {
            *self = Self { name: name.to_owned(), metadata: Arc::default() };
        }
        change(Arc::make_mut(&mut self.metadata));
    }

    fn of(&self, metric: &str) -> Option<Arc<Metadata>> {
        let is_part = !self.name.is_empty() && self.metadata.kind.is_part(metric, &self.name);
        is_part.then(|| Arc::clone(&self.metadata))
    }
}

impl Reader<'_> {
    /// Parses a piece of text and returns how much of it was taken.
    fn parse(&mut self, text: &[u8], is_last: bool) -> Result<usize> {
        let mut parser = Parser::open_metrics_piece(text, self.state);
        let mut taken = 0;
        loop {
            match parser.next() {
                // A quoted name may have a line feed in it, and go on in the next piece.
                Some(Err(_)) if !is_last && text.len() - taken < PIECE_BYTES => return Ok(taken),
                Some(entry) => self.take(entry?)?,
                None => break,
            }
            taken = parser.position();
            self.state = parser.state();
        }
        self.state = parser.state();
        Ok(text.len())
    }

    fn take(&mut self, entry: Entry<'_>) -> Result<()> {
        let family = &mut self.series.family;
        match entry {
            Entry::Sample(sample) => return self.sample(&sample),
            Entry::Comment(_) => return Ok(()),
            Entry::Type { name, kind } => family.change(&name, |m| m.kind = kind),
            Entry::Help { name, help } => family.change(&name, |m| m.help = help.as_ref().into()),
            Entry::Unit { name, unit } => family.change(&name, |m| m.unit = unit.as_ref().into()),
        }
        // A text means the same labels only as long as its family is the same.
        self.push()?;
        self.series.labels = None;
        self.series.known.clear();
        Ok(())
    }

    fn sample(&mut self, sample: &Sample<'_>) -> Result<()> {
        let text = sample.series.text();
        let Some(time) = sample.timestamp else { return Err(Error::NoTimestamp(text.to_owned())) };
        if self.series.text != text || self.series.labels.is_none() || self.series.is_full() {
            self.push()?;
            self.series.enter(sample)?;
        }
        let samples = &mut self.series.samples;
        samples.floats.push((time.millis(), sample.value));
        if let Some(exemplar) = &sample.exemplar {
            let mut exemplar = exemplar.to_exemplar()?;
            // Without a time of its own it was observed with the sample.
            exemplar.timestamp.get_or_insert(time);
            samples.exemplars.push(exemplar);
        }
        Ok(())
    }

    /// Hands on what was read of the series.
    fn push(&mut self) -> Result<()> {
        let Series { labels: Some((labels, metadata)), samples, .. } = &mut self.series else {
            return Ok(());
        };
        self.progress.add_samples(samples.floats.len());
        Ok(self.importer.push(labels, metadata.as_ref(), samples)?)
    }

    /// Says that the text is over.
    fn finish(mut self) -> Result<()> {
        self.push()?;
        Ok(self.state.finish()?)
    }
}

impl Series {
    fn is_full(&self) -> bool {
        self.samples.floats.len() >= SAMPLES_AT_ONCE
    }

    fn enter(&mut self, sample: &Sample<'_>) -> Result<()> {
        let text = sample.series.text();
        text.clone_into(&mut self.text);
        if let Some(known) = self.known.get(text) {
            self.labels = Some(known.clone());
            return Ok(());
        }
        let labels = sample.series.to_labels()?;
        let metadata = self.family.of(labels.metric_name());
        if self.known.len() >= SERIES_KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(text.into(), (labels.clone(), metadata.clone()));
        self.labels = Some((labels, metadata));
        Ok(())
    }
}
