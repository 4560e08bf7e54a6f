//! The index of a block: which series it has, and where their chunks lie.

use std::collections::HashMap;
use std::path::Path;

use model::Labels;

use crate::decoder::{Decoder, NOT_SORTED};
use crate::error::{Error, Result};
use crate::file::Window;

const MAGIC: u32 = 0xBAAA_D700;
/// Six places and a checksum.
const CONTENTS_BYTES: u64 = 6 * 8 + 4;
/// Series begin at multiples of this in version 2, and are referred to by the multiple.
const ALIGNMENT: u64 = 16;

/// A chunk of a series, and which times it spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkPlace {
    /// The number of its file in the upper half, the place in it in the lower.
    pub reference: u64,
    pub min_time: i64,
    pub max_time: i64,
}

/// A series of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexSeries {
    pub reference: u64,
    pub labels: Labels,
    pub chunks: Vec<ChunkPlace>,
}

/// The open index of a block.
#[derive(Debug)]
pub(crate) struct Index {
    file: Window,
    version: u8,
    symbols: Symbols,
    /// All series in the order in which they stand.
    series: Vec<u32>,
}

/// The texts of an index, by what refers to them: their number in version 2, their place in the file in version 1.
#[derive(Debug)]
struct Symbols {
    bytes: Vec<u8>,
    ranges: Vec<(u32, u32)>,
    by_place: HashMap<u64, usize>,
}

impl Symbols {
    fn get(&self, version: u8, reference: u64) -> Option<&str> {
        let number = match version {
            1 => *self.by_place.get(&reference)?,
            _ => usize::try_from(reference).ok()?,
        };
        let (from, to) = *self.ranges.get(number)?;
        // That it is UTF-8 was checked when it was read.
        std::str::from_utf8(&self.bytes[from as usize..to as usize]).ok()
    }
}

impl Index {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut file = Window::open(path)?;
        let header = file.get(0, 5)?;
        let is_ours = header[..4] == MAGIC.to_be_bytes();
        let version = header[4];
        if !is_ours {
            return Err(file.damaged("it is no index"));
        }
        if !matches!(version, 1 | 2) {
            let feature = format!("an index of version {version}");
            return Err(Error::Unsupported { path: path.to_owned(), feature });
        }
        let contents = file.len().checked_sub(CONTENTS_BYTES);
        let contents = contents.ok_or_else(|| file.damaged("it ends too early"))?;
        let end = file.len() - 4;
        let mut places = Decoder(file.checked(contents, end)?);
        let mut place = || places.be64().expect("as many as were read");
        let (symbols, _series, _label_indices, _label_table, _postings, postings_table) =
            (place(), place(), place(), place(), place(), place());
        let symbols = read_symbols(&mut file, version, symbols)?;
        let series = read_series_list(&mut file, postings_table)?;
        Ok(Self { file, version, symbols, series })
    }

    /// How many series there are.
    pub(crate) fn len(&self) -> usize {
        self.series.len()
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Reads a series by its number.
    pub(crate) fn series(&mut self, number: usize) -> Result<IndexSeries> {
        let reference = u64::from(self.series[number]);
        let place = if self.version == 1 { reference } else { reference * ALIGNMENT };
        let (length, start) = self.file.uvarint(place)?;
        let end = start.saturating_add(length);
        let bytes = self.file.checked(start, end)?;
        let series = parse_series(bytes, |r| self.symbols.get(self.version, r));
        let (labels, chunks) = series.map_err(|reason| {
            Error::damaged(self.file.path(), format!("series at byte {place}: {reason}"))
        })?;
        Ok(IndexSeries { reference, labels, chunks })
    }
}

fn parse_series<'a>(
    bytes: &[u8],
    symbol: impl Fn(u64) -> Option<&'a str>,
) -> Result<(Labels, Vec<ChunkPlace>), String> {
    let mut d = Decoder(bytes);
    let mut pairs = Vec::new();
    for _ in 0..d.count()? {
        let mut text = || symbol(d.uvarint().ok()?);
        let (Some(name), Some(value)) = (text(), text()) else {
            return Err("a symbol is not there".to_owned());
        };
        pairs.push((name, value));
    }
    let labels = Labels::from_sorted(pairs).ok_or(NOT_SORTED)?;
    let mut chunks: Vec<ChunkPlace> = Vec::new();
    for _ in 0..d.count()? {
        // The first has its own numbers, the others what they are beyond the one before.
        let (min_time, reference) = match chunks.last() {
            None => (d.varint()?, None),
            Some(before) => {
                (before.max_time.wrapping_add(d.uvarint()?.cast_signed()), Some(before.reference))
            }
        };
        let max_time = min_time.wrapping_add(d.uvarint()?.cast_signed());
        let reference = match reference {
            None => d.uvarint()?,
            Some(before) => before.wrapping_add_signed(d.varint()?),
        };
        chunks.push(ChunkPlace { reference, min_time, max_time });
    }
    Ok((labels, chunks))
}

/// Reads the length in front of a section; returns where the section begins and ends.
fn section(file: &mut Window, place: u64) -> Result<(u64, u64)> {
    let length = Decoder(file.get(place, 4)?).be32().expect("four bytes");
    let start = place + 4;
    Ok((start, start.saturating_add(u64::from(length))))
}

fn read_symbols(file: &mut Window, version: u8, place: u64) -> Result<Symbols> {
    let (start, end) = section(file, place)?;
    let bytes = file.checked(start, end)?.to_vec();
    let parse = || {
        let mut symbols = Symbols { bytes: Vec::new(), ranges: Vec::new(), by_place: HashMap::new() };
        let mut d = Decoder(&bytes);
        let count = d.be32()?;
        for number in 0..count as usize {
            let place = start + (bytes.len() - d.0.len()) as u64;
            d.text()?;
            let to = bytes.len() - d.0.len();
            let mut head = Decoder(&bytes[usize::try_from(place - start).expect("within")..]);
            let length = head.count()?;
            let range = |n: usize| u32::try_from(n).map_err(|_| "it is too large".to_owned());
            symbols.ranges.push((range(to - length)?, range(to)?));
            if version == 1 {
                symbols.by_place.insert(place, number);
            }
        }
        Ok::<_, String>(symbols)
    };
    let mut symbols = parse().map_err(|reason| file.damaged(format!("symbols: {reason}")))?;
    symbols.bytes = bytes;
    Ok(symbols)
}

/// Reads which series there are: the list that stands below the empty label name and value.
fn read_series_list(file: &mut Window, table: u64) -> Result<Vec<u32>> {
    let (start, end) = section(file, table)?;
    let find = |bytes: &[u8]| {
        let mut d = Decoder(bytes);
        for _ in 0..d.be32()? {
            if d.uvarint()? != 2 {
                return Err("a key of the table of postings has not two parts".to_owned());
            }
            let (name, value, place) = (d.bytes()?, d.bytes()?, d.uvarint()?);
            if name.is_empty() && value.is_empty() {
                return Ok(Some(place));
            }
        }
        Ok(None)
    };
    let found = find(file.checked(start, end)?);
    let place = match found {
        Ok(Some(place)) => place,
        Ok(None) => return Ok(Vec::new()),
        Err(reason) => return Err(file.damaged(reason)),
    };
    let (start, end) = section(file, place)?;
    let mut d = Decoder(file.checked(start, end)?);
    let mut read = || {
        let count = d.be32()?;
        (0..count).map(|_| d.be32()).collect::<Result<Vec<u32>, _>>()
    };
    read().map_err(|_| file.damaged("the list of series ends too early"))
}
