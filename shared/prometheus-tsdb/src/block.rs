//! Blocks: folders that hold some hours to some weeks of samples, never changed once they are there.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use model::Labels;
use serde::Deserialize;

use crate::chunk::{Encoding, Samples, decode};
use crate::decoder::SHORT;
use crate::error::{Error, Result};
use crate::file::Window;
use crate::index::{ChunkPlace, Index};
use crate::tombstones::{self, Tombstones, is_deleted};

const TOMBSTONES: &str = "tombstones";
const CHUNKS_MAGIC: u32 = 0x85BD_40DD;
/// Blocks are made of a tenth of what is kept at most, in milliseconds: this is a tenth of a century.
const SPAN_MS_MAX: i64 = 10 * 366 * 86_400_000;
/// Files of chunks that are open at one time.
const OPEN_FILES_MAX: usize = 4;

/// What a block says of itself in `meta.json`; fields that do not matter here are left out.
#[derive(Debug, Clone, Deserialize)]
pub struct Meta {
    /// Its name.
    pub ulid: String,
    /// No sample is older, in milliseconds.
    #[serde(rename = "minTime")]
    pub min_time: i64,
    /// All samples are older than this, in milliseconds.
    #[serde(rename = "maxTime")]
    pub max_time: i64,
    /// The version of the format: 1.
    pub version: u32,
    #[serde(default)]
    stats: Stats,
    #[serde(default)]
    compaction: Compaction,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Stats {
    #[serde(rename = "numSamples")]
    samples: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Compaction {
    parents: Option<Vec<Parent>>,
    hints: Option<Vec<String>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Parent {
    ulid: String,
}

impl Meta {
    pub(crate) fn read(block: &Path) -> Result<Self> {
        let path = block.join("meta.json");
        let text = fs::read(&path).map_err(Error::io("read", &path))?;
        let meta: Self = serde_json::from_slice(&text).map_err(|e| Error::damaged(&path, e.to_string()))?;
        if meta.version != 1 {
            let feature = format!("a block of version {}", meta.version);
            return Err(Error::Unsupported { path, feature });
        }
        let span = meta.max_time.checked_sub(meta.min_time);
        if !span.is_some_and(|span| (0..=SPAN_MS_MAX).contains(&span)) {
            let reason = format!("no block spans the time from {} to {}", meta.min_time, meta.max_time);
            return Err(Error::damaged(&path, reason));
        }
        Ok(meta)
    }

    /// How many samples it counts.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.stats.samples
    }

    /// The blocks that it was made of: they count no more when it is there.
    pub(crate) fn parents(&self) -> impl Iterator<Item = &str> {
        self.compaction.parents.iter().flatten().map(|p| p.ulid.as_str())
    }

    /// Says whether it was made of samples that came out of order.
    pub(crate) fn is_out_of_order(&self) -> bool {
        self.compaction.hints.iter().flatten().any(|hint| hint == "from-out-of-order")
    }
}

/// A block.
#[derive(Debug, Clone)]
pub struct Block {
    folder: PathBuf,
    meta: Meta,
}

impl Block {
    pub(crate) fn new(folder: PathBuf, meta: Meta) -> Self {
        Self { folder, meta }
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it says of itself.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// What was deleted from it, as it stands on disk; nothing where nothing ever was.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn deletions(&self) -> Result<Vec<u8>> {
        let path = self.folder.join(TOMBSTONES);
        match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            read => read.map_err(Error::io("read", &path)),
        }
    }

    /// Opens it to walk its series.
    ///
    /// # Errors
    /// When its index or its tombstones are damaged.
    pub fn series(&self) -> Result<SeriesReader> {
        let wrong = |reason: String| Error::damaged(&self.folder.join(TOMBSTONES), reason);
        Ok(SeriesReader {
            index: Index::open(&self.folder.join("index"))?,
            tombstones: tombstones::parse(&self.deletions()?).map_err(wrong)?,
            chunks: ChunkFiles { folder: self.folder.join("chunks"), open: HashMap::new() },
            next: 0,
        })
    }
}

/// Walks the series of a block, sorted by labels as Prometheus does.
#[derive(Debug)]
pub struct SeriesReader {
    index: Index,
    tombstones: Tombstones<u64>,
    chunks: ChunkFiles,
    next: usize,
}

impl SeriesReader {
    /// How many series the block has.
    #[must_use]
    pub fn series_count(&self) -> usize {
        self.index.len()
    }

    /// How many of them were read.
    #[must_use]
    pub fn series_read(&self) -> usize {
        self.next
    }

    /// Reads the next series and its samples within some times, without those that were deleted; `None` at the end.
    ///
    /// The samples ascend by time unless chunks overlap. What is damaged goes to `damage`; when that takes it, the
    /// damaged series or chunk is passed over.
    ///
    /// # Errors
    /// Whatever `damage` hands back.
    pub fn next_within(
        &mut self,
        times: RangeInclusive<i64>,
        damage: &mut dyn FnMut(Error) -> Result<()>,
    ) -> Result<Option<(Labels, Samples)>> {
        while self.next < self.index.len() {
            let number = self.next;
            self.next += 1;
            let series = match self.index.series(number) {
                Ok(series) => series,
                Err(error) => {
                    damage(error)?;
                    continue;
                }
            };
            let mut samples = Samples::default();
            let is_wanted = |c: &&ChunkPlace| c.min_time <= *times.end() && c.max_time >= *times.start();
            for place in series.chunks.iter().filter(is_wanted) {
                let before = (samples.floats.len(), samples.histograms.len());
                if let Err(error) = self.chunks.read(*place, &mut samples) {
                    samples.floats.truncate(before.0);
                    samples.histograms.truncate(before.1);
                    damage(error)?;
                }
            }
            let deleted = self.tombstones.of(&series.reference);
            samples.retain(|t| times.contains(&t) && !is_deleted(deleted, t));
            return Ok(Some((series.labels, samples)));
        }
        Ok(None)
    }

    /// The index, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.index.path()
    }
}

/// The files of chunks of one block.
#[derive(Debug)]
struct ChunkFiles {
    folder: PathBuf,
    open: HashMap<u64, Window>,
}

impl ChunkFiles {
    fn read(&mut self, place: ChunkPlace, into: &mut Samples) -> Result<()> {
        let (number, offset) = (place.reference >> 32, place.reference & 0xffff_ffff);
        let file = self.file(number)?;
        let (length, start) = file.uvarint(offset)?;
        let end = start.saturating_add(1).saturating_add(length);
        let path = file.path().to_owned();
        let bytes = file.checked(start, end)?;
        let (encoding, bytes) = bytes.split_first().ok_or_else(|| Error::damaged(&path, SHORT))?;
        let Some(encoding) = Encoding::of(*encoding) else {
            return Err(Error::Unsupported { path, feature: format!("a chunk of encoding {encoding}") });
        };
        let wrong = |reason| Error::damaged(&path, format!("the chunk at byte {offset}: {reason}"));
        decode(encoding, bytes, into).map_err(wrong)
    }

    fn file(&mut self, number: u64) -> Result<&mut Window> {
        if !self.open.contains_key(&number) {
            if self.open.len() == OPEN_FILES_MAX {
                self.open.clear();
            }
            let mut file = Window::open(&self.folder.join(format!("{:06}", number + 1)))?;
            let header = file.get(0, 5)?;
            if header[..4] != CHUNKS_MAGIC.to_be_bytes() {
                return Err(file.damaged("it is no file of chunks"));
            }
            let version = header[4];
            if version != 1 {
                let feature = format!("version {version} of chunks");
                return Err(Error::Unsupported { path: file.path().to_owned(), feature });
            }
            self.open.insert(number, file);
        }
        Ok(self.open.get_mut(&number).expect("it is there now"))
    }
}
