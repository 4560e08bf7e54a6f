//! The storage engine through its public face: one binary, a module a theme.

mod committing;
mod durability;
mod flushing;
mod gated;
mod ordering;
mod support;
mod taking_over;
#[path = "../../src/testing.rs"]
mod testing;
mod unreliable;
