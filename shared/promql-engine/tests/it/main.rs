//! The engine through its public face, over a source in memory.

mod limits;
mod model;
mod naive;
mod source;
mod tables;
