//! The storage engine through its public face: one binary, a module a theme.

mod committing;
mod durability;
mod flushing;
mod ordering;
mod support;
#[path = "../../src/testing.rs"]
mod testing;
mod unreliable;
