//! The engine through its public face, over a source in memory.

#[path = "../../../../integration-tests/src/promqltest/apart.rs"]
#[expect(unreachable_pub, reason = "this file is part of a library elsewhere")]
mod apart;
mod limits;
mod model;
mod naive;
mod selections;
mod source;
mod tables;
