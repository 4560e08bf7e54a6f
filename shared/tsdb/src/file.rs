//! Parquet files of metrics: schema version 1, its writer and its reader.
//!
//! # The schema, for whoever reads the files with something else
//!
//! A file belongs to one tenant and one UTC day (`tenant=<t>/day=<YYYY-MM-DD>/<name>.parquet`; neither is a column of
//! the file). It is plain Parquet: no private encoding, no Arrow schema. All columns are nullable; lists are
//! `list.element`, maps `key_value.key/value`; times are milliseconds since the Unix epoch. The file's key-value
//! metadata holds `tributary.schema_version` = `1`, and in `tributary.page_crc32c` checksums of its pages, by which our
//! own reader names damage: in base64 the CRC-32C of each page with its header, little-endian, in the order of row groups
//! and their columns, a dictionary before the pages that use it.
//!
//! Pages are compressed with zstd. Strings are encoded by dictionary, integers as `DELTA_BINARY_PACKED`, doubles as
//! `BYTE_STREAM_SPLIT` or, where that makes a page of `floats` smaller, `PLAIN`.
//!
//! There are two sorts of row. **Timeline rows** stand first, in row groups of their own: their `metric` is null, and
//! only `timeline`, `count`, `timestamps`, `min_time` and `max_time` are set. **Series rows** follow, sorted by
//! metric name, then labels, then time: one row per series and window, cut at multiples of
//! [`WINDOW_MS`] (2 h) or, once the day is compacted, [`DAY_WINDOW_MS`] (8 h).
//!
//! Columns go by their names; where one stands in the file means nothing.
//!
//! | column | type | what it holds |
//! |---|---|---|
//! | `metric` | string | the metric name; empty for a series without one, null in timeline rows |
//! | `labels` | map of string to string | every label except the metric name |
//! | `label_<name>` | string | the value of a label that many rows have, again; null where the row has it not. Which labels have a column differs from file to file: use `labels` |
//! | `type`, `unit`, `help` | string | the metric's metadata as it was in that window |
//! | `series_id` | int64 | 64-bit hash of the label set: a hint, collisions are possible |
//! | `min_time`, `max_time` | int64 | of everything in the row |
//! | `timeline`, `offset`, `count` | int32 | where the times of the float samples are: `count` of them, from the `offset`-th (from 0) of the timeline row with this `timeline`, in the same file; `timeline` null means in this row's own `timestamps`; `count` 0 means no float samples |
//! | `timestamps` | list of int64 | times: of a timeline row, or of a row that shares them with nobody |
//! | `ints`, `scale` | list of int64, int32 | the values, when each one is exactly `ints / 10^scale`; a null element is the staleness marker |
//! | `floats` | list of double | the values otherwise, bit for bit; a null element is the staleness marker |
//! | `histograms` | list of struct | native histograms, see below |
//! | `start_timestamps` | list of struct (`timestamp`, `start`) | when the counting of the sample at `timestamp` began |
//! | `exemplars` | list of struct (`labels` map, `value` double, `timestamp` int64 or null) | |
//!
//! A native histogram is one struct:
//!
//! | field | type | what it holds |
//! |---|---|---|
//! | `timestamp` | int64 | when |
//! | `reset_hint` | string | `unknown`, `reset`, `not_reset` or `gauge` |
//! | `schema` | int32 | -4 to 8 exponential, -53 custom buckets |
//! | `zero_threshold`, `sum` | double | a null `sum` says that the histogram is a staleness marker |
//! | `count`, `zero_count` | int64 | of an integer histogram, else null |
//! | `positive_counts`, `negative_counts` | list of int64 | populations bucket by bucket of an integer histogram, else null |
//! | `float_count`, `float_zero_count` | double | of a float histogram, else null |
//! | `positive_floats`, `negative_floats` | list of double | populations of a float histogram, else null |
//! | `positive_spans`, `negative_spans` | list of struct (`offset` int32, `length` int32) | which buckets: each span begins `offset` after the end of the one before it (the first one at `offset`) |
//! | `custom_values` | list of double | upper bounds of schema -53 |
//!
//! # Invariants
//!
//! - What is read is what was written, bit for bit: -0.0, infinities and NaN payloads survive.
//! - Timelines are found by content: two rows with equal times share one timeline row.
//! - A row's times lie in one window, a file's in one day.

pub(crate) mod arrays;
pub(crate) mod block;
pub(crate) mod cache;
pub(crate) mod checksums;
pub(crate) mod columns;
pub(crate) mod decode;
pub(crate) mod deltas;
pub(crate) mod encode;
pub(crate) mod fetch;
pub(crate) mod footer;
pub(crate) mod histograms;
pub(crate) mod list_writer;
pub(crate) mod lists;
pub(crate) mod page;
pub(crate) mod prune;
pub(crate) mod read;
pub(crate) mod schema;
pub(crate) mod timelines;
pub(crate) mod windows;

pub use windows::{DAY_WINDOW_MS, WINDOW_MS};

#[cfg(test)]
mod tests;
