//! The cluster protocol of Nearcache as deterministic state machines without I/O.
#![forbid(unsafe_code)]

pub mod frame;
pub mod lane;
