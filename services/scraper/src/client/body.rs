//! Bodies in memory: how large one may be, and all of them together.

use std::io::Read as _;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};

/// The budget is counted in units of this many bytes.
const UNIT: usize = 1_024;
/// Room that is set aside for a target not seen before.
const FIRST_BYTES: usize = 64 << 10;
/// A body is decompressed in pieces of this many bytes.
const PIECE_BYTES: usize = 64 << 10;
/// What gzip may add to a body that does not compress at all, beside a 1,024th of it.
const GZIP_SLACK: usize = 4 << 10;

/// Bounds the memory that bodies take, of all targets together. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct BodyBudget {
    units: Arc<Semaphore>,
    bytes: usize,
}

impl BodyBudget {
    pub(crate) fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT).clamp(1, u32::MAX as usize);
        Self { units: Arc::new(Semaphore::new(units)), bytes }
    }

    /// Waits for room. Whoever waits holds nothing, so that nobody waits for ever.
    async fn reserve(&self, bytes: usize) -> Share {
        let units = bytes.min(self.bytes / 2).div_ceil(UNIT).max(1);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let permit = self.units.clone().acquire_many_owned(units).await;
        let permit = permit.expect("the budget is never closed");
        Share { permit, budget: self.clone() }
    }
}

/// The part of the budget that one body holds.
#[derive(Debug)]
struct Share {
    permit: OwnedSemaphorePermit,
    budget: BodyBudget,
}

impl Share {
    /// Makes room for this many bytes in all, without waiting.
    fn grow_to(&mut self, bytes: usize) -> Result<()> {
        let missing = bytes.div_ceil(UNIT).saturating_sub(self.permit.num_permits());
        if missing > 0 {
            let missing = u32::try_from(missing).unwrap_or(u32::MAX);
            let more = self.budget.units.clone().try_acquire_many_owned(missing);
            self.permit.merge(more.map_err(|_| Error::BodyBudget(self.budget.bytes))?);
        }
        Ok(())
    }
}

/// A body as it came over the wire.
#[derive(Debug)]
pub(crate) struct Body {
    wire: Vec<u8>,
    is_gzip: bool,
    bytes_max: usize,
    share: Share,
}

impl Body {
    /// Receives a body that may have less than `bytes_max` bytes.
    pub(super) async fn receive(
        mut incoming: Incoming,
        is_gzip: bool,
        bytes_max: usize,
        budget: &BodyBudget,
        expected_bytes: usize,
    ) -> Result<Self> {
        let mut share = budget.reserve(expected_bytes.max(FIRST_BYTES)).await;
        let wire_max = if is_gzip { bytes_max + bytes_max / 1_024 + GZIP_SLACK } else { bytes_max };
        let mut wire = Vec::new();
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|error| Error::Body(error.to_string()))?;
            let Ok(piece) = frame.into_data() else { continue };
            if wire.len() + piece.len() >= wire_max {
                return Err(Error::BodySize);
            }
            share.grow_to(wire.len() + piece.len())?;
            wire.extend_from_slice(&piece);
        }
        Ok(Self { wire, is_gzip, bytes_max, share })
    }

    /// Bytes that came over the wire; what comes of them takes time in proportion.
    pub(crate) fn wire_len(&self) -> usize {
        self.wire.len()
    }

    /// Says whether the body is compressed.
    pub(crate) fn is_gzip(&self) -> bool {
        self.is_gzip
    }

    /// Decompresses the body where it has to be, and hands it to `read` while the memory is accounted for.
    ///
    /// # Errors
    /// When it is too large or not what it says it is.
    pub(crate) fn with_text<T>(mut self, read: impl FnOnce(&[u8]) -> T) -> Result<T> {
        if !self.is_gzip {
            return Ok(read(&self.wire));
        }
        let mut decoder = MultiGzDecoder::new(self.wire.as_slice());
        let mut text = Vec::new();
        loop {
            let start = text.len();
            self.share.grow_to(self.wire.len() + start + PIECE_BYTES)?;
            let mut piece = decoder.by_ref().take(PIECE_BYTES as u64);
            let read = piece.read_to_end(&mut text).map_err(|error| Error::Gzip(error.to_string()))?;
            if text.len() >= self.bytes_max {
                return Err(Error::BodySize);
            }
            if read == 0 {
                break;
            }
        }
        Ok(read(&text))
    }
}
