//! Remote write 1.0 and 2.0: what stands between an HTTP body and series.
//!
//! The way in: [`negotiate`] reads the headers, [`decompress`] the frame, [`WriteRequest::parse`] checks the message
//! and then hands out series that borrow from it. The way out: [`encode_v1`], [`encode_v2`] and [`compress`].
//!
//! Deliberately absent: HTTP, storage rules (ordering, duplicates, bounds), remote read.
#![warn(missing_docs)]

mod encode;
mod error;
mod frame;
mod histogram;
mod negotiate;
mod request;

pub use encode::{SeriesOut, encode_v1, encode_v2};
pub use error::{Error, InvalidSeries, Result};
pub use frame::{BODY_BYTES_MAX, compress, decompress};
pub use negotiate::{Version, negotiate};
pub use request::{LABELS_PER_SERIES_MAX, SYMBOLS_MAX, TimeSeries, WriteRequest};
