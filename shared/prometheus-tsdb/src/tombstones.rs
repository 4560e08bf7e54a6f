//! What was deleted: spans of time of series.

use std::collections::HashMap;
use std::hash::Hash;

use crate::decoder::Decoder;

const MAGIC: u32 = 0x0130_BA30;
const VERSION: u8 = 1;

/// Spans of time, first and last millisecond, by series.
#[derive(Debug, Clone)]
pub(crate) struct Tombstones<K>(HashMap<K, Vec<(i64, i64)>>);

impl<K> Default for Tombstones<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Tombstones<K> {
    pub(crate) fn add(&mut self, series: K, min_time: i64, max_time: i64) {
        self.0.entry(series).or_default().push((min_time, max_time));
    }

    /// The spans of a series.
    pub(crate) fn of(&self, series: &K) -> &[(i64, i64)] {
        self.0.get(series).map_or(&[], Vec::as_slice)
    }
}

/// Says whether an instant lies in any of the spans.
pub(crate) fn is_deleted(spans: &[(i64, i64)], time: i64) -> bool {
    spans.iter().any(|(min, max)| (*min..=*max).contains(&time))
}

/// Reads what the file of a block holds; nothing where it is missing.
pub(crate) fn parse(bytes: &[u8]) -> Result<Tombstones<u64>, String> {
    if bytes.is_empty() {
        return Ok(Tombstones::default());
    }
    let mut d = Decoder(bytes);
    if d.be32() != Ok(MAGIC) {
        return Err("it is no file of tombstones".to_owned());
    }
    let version = d.byte()?;
    let stones = d.take(d.0.len().checked_sub(4).ok_or("it ends too early")?)?;
    if d.be32()? != crc32c::crc32c(stones) {
        return Err("its checksum is wrong".to_owned());
    }
    if version != VERSION {
        return Err(format!("version {version} of tombstones is not known"));
    }
    let mut d = Decoder(stones);
    let mut tombstones = Tombstones::default();
    while !d.is_empty() {
        tombstones.add(d.uvarint()?, d.varint()?, d.varint()?);
    }
    Ok(tombstones)
}
