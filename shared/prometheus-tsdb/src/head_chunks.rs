//! Chunks of the head that Prometheus keeps in files, which it maps into memory.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::chunk::{Encoding, Samples, decode};
use crate::error::{Error, Result};
use crate::file::Window;

const MAGIC: u32 = 0x0130_BC91;
const FILE_HEADER_BYTES: u64 = 8;
/// The series, the first and the last time.
const PLACE_BYTES: u64 = 3 * 8;
/// Set in the encoding where the chunk's samples came out of order.
const OUT_OF_ORDER: u8 = 0b1000_0000;

/// A chunk of a series of the head.
#[derive(Debug)]
pub(crate) struct HeadChunk {
    pub series: u64,
    pub max_time: i64,
    pub is_out_of_order: bool,
    pub samples: Samples,
}

/// Hands each chunk of a file to `take`.
///
/// # Errors
/// Where a chunk is damaged, since then nobody knows where the next one begins; and whatever `take` fails with.
pub(crate) fn read(
    path: &Path,
    bytes_read: &AtomicU64,
    take: &mut dyn FnMut(HeadChunk) -> Result<()>,
) -> Result<()> {
    let mut file = Window::open(path)?;
    if file.len() == 0 {
        // Made just before the server was killed.
        return Ok(());
    }
    let header = file.get(0, 5)?;
    if header[..4] != MAGIC.to_be_bytes() {
        return Err(file.damaged("it is no file of chunks of the head"));
    }
    let version = header[4];
    if version != 1 {
        let feature = format!("version {version} of chunks of the head");
        return Err(Error::Unsupported { path: path.to_owned(), feature });
    }
    let mut offset = FILE_HEADER_BYTES;
    while offset < file.len() {
        let counted = bytes_read.load(Ordering::Relaxed);
        // Files are longer than what stands in them while they are written.
        let left = (file.len() - offset).min(PLACE_BYTES);
        if file.get(offset, left)?.iter().all(|b| *b == 0) {
            break;
        }
        let place = offset;
        let (length, start) = file.uvarint(offset + PLACE_BYTES + 1)?;
        let end = start.saturating_add(length);
        let in_front = usize::try_from(start - offset).expect("some bytes");
        let bytes = file.checked(offset, end)?;
        let number =
            |i: usize| u64::from_be_bytes(bytes[8 * i..8 * (i + 1)].try_into().expect("eight bytes"));
        let (series, max_time, encoding) = (number(0), number(2).cast_signed(), bytes[24]);
        let mut samples = Samples::default();
        let Some(known) = Encoding::of(encoding & !OUT_OF_ORDER) else {
            let feature = format!("a chunk of encoding {encoding}");
            return Err(Error::Unsupported { path: path.to_owned(), feature });
        };
        let wrong = |reason| Error::damaged(path, format!("the chunk at byte {place}: {reason}"));
        decode(known, &bytes[in_front..], &mut samples).map_err(wrong)?;
        take(HeadChunk { series, max_time, is_out_of_order: encoding & OUT_OF_ORDER != 0, samples })?;
        bytes_read.store(counted + (end + 4 - offset), Ordering::Relaxed);
        offset = end + 4;
    }
    Ok(())
}
