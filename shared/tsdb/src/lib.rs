//! Placeholder.

pub mod catalogue;
pub mod file;
pub mod merge;
pub mod series;
pub mod table;
