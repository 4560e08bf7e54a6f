//! The storage engine through its public face: one binary, a module a theme.

mod durability;
mod flushing;
mod ordering;
mod support;
