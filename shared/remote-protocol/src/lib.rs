//! Remote write 1.0 and 2.0, and remote read: what stands between an HTTP body and series.
//!
//! The way in: [`negotiate`] reads the headers, [`decompress`] the frame, [`WriteRequest::parse`] checks the message
//! and then hands out series that borrow from it. The way out: [`encode_v1`], [`encode_v2`] and [`compress`]. A read is
//! asked for by a [`ReadRequest`], and answered by a [`SamplesAnswer`] or by [`SeriesFrames`].
//!
//! Deliberately absent: HTTP, storage rules (ordering, duplicates, bounds), reading chunks.
#![warn(missing_docs)]

mod chunk;
mod encode;
mod error;
mod frame;
mod histogram;
mod negotiate;
mod read;
mod request;

pub use encode::{SeriesOut, encode_v1, encode_v2};
pub use error::{Error, InvalidSeries, Result};
pub use frame::{BODY_BYTES_MAX, compress, decompress};
pub use negotiate::{Version, negotiate};
pub use read::{
    MATCHERS_MAX, QUERIES_MAX, ReadQuery, ReadRequest, ResponseType, SamplesAnswer, SeriesFrames,
    with_external_labels, without_external_labels,
};
pub use request::{
    LABELS_PER_SERIES_MAX, REFERRED_BYTES_MAX, SAMPLES_MAX, SERIES_MAX, SYMBOLS_MAX, Sample, TimeSeries,
    WriteRequest,
};
