//! A toy service from its start to its end, in this process, on free ports.

mod requests;
mod start_stop;
mod toy;
