//! Reads the data directory of a Prometheus server: its blocks, and the head as its write-ahead logs have it.
//!
//! [`Directory`] finds what there is; [`Block`] walks the series of a block, [`Head`] what no block has yet. Samples come
//! out bit for bit as Prometheus stored them, the payloads of NaNs and staleness markers included, and without what was
//! deleted.
//!
//! # Invariants
//!
//! - Nothing is written, and nothing in the directory is changed.
//! - What has a checksum is believed only when the checksum agrees; damaged bytes give an [`Error`] that names the file,
//!   never a panic and never a value.
//! - In memory are the symbols and the list of series of a block, or the labels of the head's series; samples pass
//!   through a series or a record at a time.
//!
//! Deliberately absent: writing any of these formats, queries, where samples go.
#![warn(missing_docs)]

mod bits;
mod block;
mod chunk;
mod decoder;
mod directory;
mod error;
mod file;
mod head;
mod head_chunks;
mod index;
mod record;
mod segments;
mod tombstones;

pub use block::{Block, Meta, SeriesReader};
pub use chunk::{Encoding, Samples, decode};
pub use directory::Directory;
pub use error::{Error, Result};
pub use head::{Head, HeadSample, TakeSample};
