//! Decodes the pages of a column: headers, levels, and the encodings that our files use.
//!
//! Rather than the decoder of the `parquet` crate, which makes Arrow arrays of whole selections, this one leaves a page
//! as it lies, finds any value in it, and tells strings by their codes. It knows what `schema.rs` writes (pages of
//! version 1; zstd; plain, dictionary, delta and byte-stream-split encodings) and refuses everything else by name.
//!
//! # Invariants
//!
//! - Whatever the bytes are, the result is an error or values: no panic, and no more memory than the footer promises.

use std::ops::Range;

use parquet::basic::Compression;
use parquet::file::metadata::ColumnChunkMetaData;

use super::arrays::ShapeError;

type Result<T> = std::result::Result<T, ShapeError>;

/// Zeros behind packed numbers, so that each can be read as a word.
const PADDING: usize = 16;
/// Numbers of a block of deltas at most; writers take 128 or 256.
const DELTA_BLOCK_MAX: usize = 1 << 16;

/// What the footer says about the pages of one column of one row group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunk {
    is_zstd: bool,
    /// Of one page at most, since it is of all together.
    bytes_max: usize,
    /// Of one page at most.
    values_max: usize,
    rep_max: i16,
    def_max: i16,
}

impl Chunk {
    /// Takes what matters from the footer.
    pub(crate) fn new(chunk: &ColumnChunkMetaData) -> Result<Self> {
        let size = |n: i64| usize::try_from(n).map_err(|_| format!("a column of {n} bytes or values"));
        let is_zstd = match chunk.compression() {
            Compression::UNCOMPRESSED => false,
            Compression::ZSTD(_) => true,
            other => return Err(format!("compression {other} is not supported")),
        };
        Ok(Self {
            is_zstd,
            bytes_max: size(chunk.uncompressed_size())?,
            values_max: size(chunk.num_values())?,
            rep_max: chunk.column_descr().max_rep_level(),
            def_max: chunk.column_descr().max_def_level(),
        })
    }

    fn decompress(&self, header: &Header, bytes: &[u8]) -> Result<Vec<u8>> {
        if header.bytes > self.bytes_max || header.values > self.values_max {
            return Err("a page is larger than its column".to_owned());
        }
        let body = bytes.get(header.length..).and_then(|b| b.get(..header.compressed_bytes));
        let body = body.ok_or("a page is cut short")?;
        let body = match self.is_zstd {
            // The dictionary of a column that has nothing but nulls.
            _ if header.bytes == 0 => Vec::new(),
            true => zstd::bulk::decompress(body, header.bytes)
                .map_err(|e| format!("a page cannot be decompressed: {e}"))?,
            false => body.to_vec(),
        };
        if body.len() == header.bytes { Ok(body) } else { Err("a page has another length".to_owned()) }
    }

    /// Decodes a data page up to its values.
    pub(crate) fn data_page(&self, bytes: &[u8]) -> Result<DataPage> {
        let header = Header::read(bytes)?;
        if header.kind != DATA_PAGE {
            return Err(format!("a page of type {} where one of values belongs", header.kind));
        }
        let mut body = self.decompress(&header, bytes)?;
        let mut at = 0;
        let reps = levels(&body, &mut at, self.rep_max, header.values)?;
        let defs = levels(&body, &mut at, self.def_max, header.values)?;
        body.drain(..at);
        let top = u8::try_from(self.def_max).unwrap_or(u8::MAX);
        let filled =
            if self.def_max == 0 { header.values } else { defs.iter().filter(|d| **d == top).count() };
        Ok(DataPage { encoding: header.encoding, reps, defs, top, filled, values: header.values, data: body })
    }

    /// Decodes a dictionary page.
    pub(crate) fn dictionary(&self, bytes: &[u8]) -> Result<Dictionary> {
        let header = Header::read(bytes)?;
        if header.kind != DICTIONARY_PAGE {
            return Err(format!("a page of type {} where a dictionary belongs", header.kind));
        }
        let data = self.decompress(&header, bytes)?;
        let ranges = plain_strings(&data, header.values)?;
        Ok(Dictionary { data, ranges })
    }
}

/// A page, decompressed.
#[derive(Debug)]
pub(crate) struct DataPage {
    encoding: u32,
    /// Repetition levels; empty in a column that is in no list.
    pub(crate) reps: Vec<u8>,
    /// Definition levels; empty in a column without nulls.
    pub(crate) defs: Vec<u8>,
    /// The definition level of a value that is there.
    pub(crate) top: u8,
    /// Values that are there.
    pub(crate) filled: usize,
    /// Values, nulls and empty lists included.
    pub(crate) values: usize,
    data: Vec<u8>,
}

impl DataPage {
    /// The numbers that are there.
    pub(crate) fn into_numbers(self) -> Result<Deltas> {
        if self.filled == 0 {
            return Ok(Deltas::default());
        }
        match self.encoding {
            DELTA_BINARY_PACKED => Deltas::new(self.data, self.filled),
            other => Err(unsupported(other)),
        }
    }

    /// The doubles that are there.
    pub(crate) fn into_doubles(self) -> Result<Doubles> {
        if self.filled == 0 {
            return Ok(Doubles::default());
        }
        let is_split = match self.encoding {
            BYTE_STREAM_SPLIT => true,
            PLAIN => false,
            other => return Err(unsupported(other)),
        };
        if self.data.len() != self.filled.saturating_mul(8) {
            return Err("a page of doubles has another length".to_owned());
        }
        Ok(Doubles { data: self.data, count: self.filled, is_split })
    }

    /// The strings that are there, as `code` numbers them.
    pub(crate) fn codes(
        &self,
        dictionary: Option<&Dictionary>,
        mut code: impl FnMut(Text<'_>) -> Result<u32>,
    ) -> Result<Vec<u32>> {
        if self.filled == 0 {
            return Ok(Vec::new());
        }
        match self.encoding {
            PLAIN => {
                let ranges = plain_strings(&self.data, self.filled)?;
                ranges.into_iter().map(|r| code(Text { of_dictionary: None, bytes: &self.data[r] })).collect()
            }
            RLE_DICTIONARY | PLAIN_DICTIONARY => {
                let dictionary = dictionary.ok_or("a page needs a dictionary and there is none")?;
                let width = *self.data.first().ok_or("a page of codes is empty")?;
                let codes = hybrid(&self.data[1..], width, self.filled)?;
                codes.into_iter().map(|c| code(dictionary.text(c)?)).collect()
            }
            other => Err(unsupported(other)),
        }
    }
}

fn unsupported(encoding: u32) -> ShapeError {
    format!("encoding {encoding} is not supported here")
}

/// A string of a page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text<'a> {
    /// Its number in the dictionary, where it stands there.
    pub(crate) of_dictionary: Option<u32>,
    /// The string, not yet known to be UTF-8.
    pub(crate) bytes: &'a [u8],
}

/// The distinct strings of a column of a row group.
#[derive(Debug)]
pub(crate) struct Dictionary {
    data: Vec<u8>,
    ranges: Vec<Range<usize>>,
}

impl Dictionary {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }

    fn text(&self, code: u32) -> Result<Text<'_>> {
        let range = self.ranges.get(code as usize).cloned();
        let range = range.ok_or_else(|| format!("code {code} is not in the dictionary"))?;
        Ok(Text { of_dictionary: Some(code), bytes: &self.data[range] })
    }
}

/// Finds strings that stand one behind the other, each after its length.
fn plain_strings(data: &[u8], count: usize) -> Result<Vec<Range<usize>>> {
    let short = || "strings are cut short".to_owned();
    // Each has a length of four bytes at least.
    if count > data.len() / 4 {
        return Err(short());
    }
    let mut ranges = Vec::with_capacity(count);
    let mut at = 0;
    for _ in 0..count {
        let length = data.get(at..).and_then(|d| d.first_chunk::<4>()).ok_or_else(short)?;
        let start = at + 4;
        let end = start.checked_add(u32::from_le_bytes(*length) as usize).filter(|e| *e <= data.len());
        at = end.ok_or_else(short)?;
        ranges.push(start..at);
    }
    Ok(ranges)
}

const DATA_PAGE: u32 = 0;
const DICTIONARY_PAGE: u32 = 2;
const PLAIN: u32 = 0;
const PLAIN_DICTIONARY: u32 = 2;
const DELTA_BINARY_PACKED: u32 = 5;
const RLE_DICTIONARY: u32 = 8;
const BYTE_STREAM_SPLIT: u32 = 9;

/// Finds how long the page is that bytes begin with, header included.
pub(crate) fn page_length(bytes: &[u8]) -> Result<usize> {
    let header = Header::read(bytes)?;
    header.length.checked_add(header.compressed_bytes).ok_or_else(|| "a page without an end".to_owned())
}

/// What stands before a page, in Thrift's compact protocol: `PageHeader` of the Parquet specification.
#[derive(Debug, Default)]
struct Header {
    kind: u32,
    bytes: usize,
    compressed_bytes: usize,
    values: usize,
    encoding: u32,
    /// Of the header itself.
    length: usize,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self> {
        let mut input = Thrift { bytes, at: 0 };
        let mut header = Self::default();
        let mut field = 0;
        while let Some(kind) = input.field(&mut field)? {
            match (field, kind) {
                (1, I32) => header.kind = input.unsigned()?,
                (2, I32) => header.bytes = input.unsigned()? as usize,
                (3, I32) => header.compressed_bytes = input.unsigned()? as usize,
                // DataPageHeader and DictionaryPageHeader begin alike.
                (5 | 7, STRUCT) => {
                    let mut inner = 0;
                    while let Some(kind) = input.field(&mut inner)? {
                        match (inner, kind) {
                            (1, I32) => header.values = input.unsigned()? as usize,
                            (2, I32) => header.encoding = input.unsigned()?,
                            _ => input.skip(kind, 0)?,
                        }
                    }
                }
                _ => input.skip(kind, 0)?,
            }
        }
        header.length = input.at;
        Ok(header)
    }
}

const BOOL_TRUE: u8 = 1;
const BOOL_FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const STRUCT: u8 = 12;
/// Structs within structs at most; a page header has two.
const DEPTH_MAX: usize = 4;

struct Thrift<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Thrift<'_> {
    fn byte(&mut self) -> Result<u8> {
        let byte = self.bytes.get(self.at).copied().ok_or("the header of a page is cut short")?;
        self.at += 1;
        Ok(byte)
    }

    fn unsigned(&mut self) -> Result<u32> {
        let value = unzigzag(varint(self.bytes, &mut self.at)?);
        u32::try_from(value).map_err(|_| format!("{value} in the header of a page"))
    }

    /// Reads the beginning of a field: its type, or nothing at the end of the struct.
    fn field(&mut self, number: &mut i64) -> Result<Option<u8>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Ok(None);
        }
        *number = match byte >> 4 {
            0 => unzigzag(varint(self.bytes, &mut self.at)?),
            delta => number.saturating_add(i64::from(delta)),
        };
        Ok(Some(byte & 0x0f))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Result<()> {
        match kind {
            BOOL_TRUE | BOOL_FALSE => {}
            BYTE => drop(self.byte()?),
            I16 | I32 | I64 => drop(varint(self.bytes, &mut self.at)?),
            DOUBLE => self.at = self.at.saturating_add(8),
            BINARY => {
                let length = varint(self.bytes, &mut self.at)?;
                self.at = self.at.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
            }
            STRUCT if depth < DEPTH_MAX => {
                let mut field = 0;
                while let Some(kind) = self.field(&mut field)? {
                    self.skip(kind, depth + 1)?;
                }
            }
            other => return Err(format!("type {other} in the header of a page")),
        }
        Ok(())
    }
}

fn varint(bytes: &[u8], at: &mut usize) -> Result<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = bytes.get(*at).copied().ok_or("a number is cut short")?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("a number is too long".to_owned())
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

/// Reads levels of a page of version 1: their length in bytes, then runs.
fn levels(body: &[u8], at: &mut usize, max: i16, count: usize) -> Result<Vec<u8>> {
    if max == 0 {
        return Ok(Vec::new());
    }
    let length = body.get(*at..).and_then(|b| b.first_chunk::<4>()).ok_or("levels are cut short")?;
    let start = *at + 4;
    let end = start.checked_add(u32::from_le_bytes(*length) as usize).ok_or("levels are cut short")?;
    let bytes = body.get(start..end).ok_or("levels are cut short")?;
    *at = end;
    let width = 16 - max.leading_zeros();
    let levels = hybrid(bytes, u8::try_from(width).unwrap_or(u8::MAX), count)?;
    let is_sound = levels.iter().all(|l| i64::from(*l) <= i64::from(max));
    if !is_sound {
        return Err("a level is too high".to_owned());
    }
    Ok(levels.into_iter().map(|l| u8::try_from(l).unwrap_or(u8::MAX)).collect())
}

/// Reads a number of values as runs, each of one value repeated or of values packed.
fn hybrid(bytes: &[u8], width: u8, count: usize) -> Result<Vec<u32>> {
    if width > 32 {
        return Err(format!("codes of {width} bits"));
    }
    let width = usize::from(width);
    let mut values: Vec<u32> = Vec::with_capacity(count);
    let mut at = 0;
    while values.len() < count {
        let header = varint(bytes, &mut at)?;
        let left = count - values.len();
        let run = usize::try_from(header >> 1).unwrap_or(usize::MAX);
        if header & 1 == 0 {
            let stored = bytes.get(at..at + width.div_ceil(8)).ok_or("a run is cut short")?;
            let mut value = [0; 4];
            value[..stored.len()].copy_from_slice(stored);
            at += stored.len();
            values.resize(values.len() + run.min(left), u32::from_le_bytes(value));
        } else {
            let taken = run.saturating_mul(8).min(left);
            let packed = bytes.get(at..).ok_or("a run is cut short")?;
            if packed.len() < (taken * width).div_ceil(8) {
                return Err("a run is cut short".to_owned());
            }
            let mask = (1_u64 << width) - 1;
            for i in 0..taken {
                let bit = i * width;
                let word = word_at(packed, bit / 8);
                #[expect(clippy::cast_possible_truncation, reason = "a width of 32 bits at most")]
                values.push(((word >> (bit % 8)) & mask) as u32);
            }
            at = at.saturating_add(run.saturating_mul(width));
        }
    }
    Ok(values)
}

/// Eight bytes as a word; what lies behind the end counts as zero.
fn word_at(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).unwrap_or_default();
    match rest.first_chunk::<8>() {
        Some(word) => u64::from_le_bytes(*word),
        None => rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

/// Numbers stored as differences, of which any run can be read.
#[derive(Debug, Default)]
pub(crate) struct Deltas {
    /// As they lie in the page, padded.
    data: Vec<u8>,
    count: usize,
    first: i64,
    block: usize,
    miniblock: usize,
    /// For each block where it begins in `data` and the value before it.
    blocks: Vec<(u32, i64)>,
}

impl Deltas {
    /// Goes through all of it once: what is found sound here needs no check when it is read.
    fn new(mut data: Vec<u8>, count: usize) -> Result<Self> {
        let mut at = 0;
        let mut number = || varint(&data, &mut at).map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let (block, miniblocks, total) = (number()?, number()?, number()?);
        let first = unzigzag(varint(&data, &mut at)?);
        if total != count {
            return Err(format!("{total} numbers where {count} belong"));
        }
        let is_sound = miniblocks > 0
            && block <= DELTA_BLOCK_MAX
            && block % miniblocks == 0
            && block > 0
            && (block / miniblocks) % 8 == 0;
        if !is_sound {
            return Err(format!("blocks of {block} numbers in {miniblocks} parts"));
        }
        let length = data.len();
        data.resize(length + PADDING, 0);
        let mut deltas =
            Self { data, count, first, block, miniblock: block / miniblocks, blocks: Vec::new() };
        let mut value = first;
        let mut left = count.saturating_sub(1);
        while left > 0 {
            let start = u32::try_from(at).map_err(|_| "a page is too long".to_owned())?;
            let taken = left.min(block);
            at = deltas.check_block(at, taken, length)?;
            deltas.blocks.push((start, value));
            deltas.each_of_block(start as usize, value, taken, |v| value = v);
            left -= taken;
        }
        Ok(deltas)
    }

    /// Checks that a block lies within the data; returns where it ends.
    fn check_block(&self, mut at: usize, count: usize, length: usize) -> Result<usize> {
        varint(&self.data[..length], &mut at)?;
        let widths = at..at + self.block / self.miniblock;
        at = widths.end;
        let widths = self.data[..length].get(widths).ok_or("numbers are cut short")?;
        for (i, width) in widths.iter().enumerate() {
            let taken = count.saturating_sub(i * self.miniblock).min(self.miniblock);
            if taken == 0 {
                break;
            }
            let width = usize::from(*width);
            if width > 64 || at + (taken * width).div_ceil(8) > length {
                return Err("numbers are cut short".to_owned());
            }
            // The last one need not be filled up.
            at = (at + self.miniblock * width / 8).min(length);
        }
        Ok(at)
    }

    /// Gives the first numbers of a block that was found sound.
    #[inline]
    fn each_of_block(&self, mut at: usize, mut value: i64, count: usize, mut give: impl FnMut(i64)) {
        let min = unzigzag(varint(&self.data, &mut at).unwrap_or_default());
        let widths = at;
        at += self.block / self.miniblock;
        let mut done = 0;
        let mut miniblock = 0;
        while done < count {
            let width = usize::from(self.data[widths + miniblock]);
            let taken = (count - done).min(self.miniblock);
            let packed = &self.data[at..];
            match width {
                0 => {
                    for _ in 0..taken {
                        value = value.wrapping_add(min);
                        give(value);
                    }
                }
                1..=56 => {
                    let mask = (1_u64 << width) - 1;
                    let packed = &packed[..(taken * width) / 8 + 8];
                    for i in 0..taken {
                        let bit = i * width;
                        let word = packed[bit / 8..].first_chunk::<8>().copied().unwrap_or_default();
                        let delta = (u64::from_le_bytes(word) >> (bit % 8)) & mask;
                        value = value.wrapping_add(min).wrapping_add(delta.cast_signed());
                        give(value);
                    }
                }
                _ => {
                    let mask = u64::MAX >> (64 - width);
                    for i in 0..taken {
                        let bit = i * width;
                        let word = packed[bit / 8..].first_chunk::<16>().copied().unwrap_or_default();
                        #[expect(clippy::cast_possible_truncation, reason = "masked to 64 bits")]
                        let delta = (u128::from_le_bytes(word) >> (bit % 8)) as u64 & mask;
                        value = value.wrapping_add(min).wrapping_add(delta.cast_signed());
                        give(value);
                    }
                }
            }
            at += self.miniblock * width / 8;
            done += taken;
            miniblock += 1;
        }
    }

    /// Gives the numbers of a range, which has to lie within what there is.
    #[inline]
    pub(crate) fn each(&self, range: Range<usize>, mut give: impl FnMut(i64)) {
        let mut next = range.start;
        if next == 0 && range.end > 0 {
            give(self.first);
            next = 1;
        }
        while next < range.end {
            // The first number stands before the blocks.
            let block = (next - 1) / self.block;
            let begin = 1 + block * self.block;
            let end = range.end.min(begin + self.block);
            let (at, value) = self.blocks[block];
            let mut skipped = next - begin;
            self.each_of_block(at as usize, value, end - begin, |v| {
                if skipped == 0 {
                    give(v);
                } else {
                    skipped -= 1;
                }
            });
            next = end;
        }
    }

    /// All numbers.
    pub(crate) fn to_vec(&self) -> Vec<i64> {
        let mut all = Vec::with_capacity(self.count);
        self.each(0..self.count, |v| all.push(v));
        all
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.data.capacity() + self.blocks.capacity() * size_of::<(u32, i64)>()
    }
}

/// Doubles one behind the other, or with their bytes apart: all first ones, all second ones, and so on.
#[derive(Debug, Default)]
pub(crate) struct Doubles {
    data: Vec<u8>,
    count: usize,
    is_split: bool,
}

impl Doubles {
    /// Gives the doubles of a range, which has to lie within what there is.
    pub(crate) fn each(&self, range: Range<usize>, mut give: impl FnMut(f64)) {
        if !self.is_split {
            let (doubles, _) = self.data[range.start * 8..range.end * 8].as_chunks::<8>();
            return doubles.iter().for_each(|bytes| give(f64::from_le_bytes(*bytes)));
        }
        let streams: [&[u8]; 8] =
            std::array::from_fn(|k| &self.data[k * self.count + range.start..k * self.count + range.end]);
        (0..range.len()).for_each(|i| give(f64::from_le_bytes(std::array::from_fn(|k| streams[k][i]))));
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.data.capacity()
    }
}

#[cfg(test)]
mod tests;
