//! The cluster protocol of Nearcache as deterministic state machines without I/O.
//!
//! Every piece is told the time and what has arrived, and answers with what is to be done ([`machine`]). The library
//! drives the pieces with tokio, the simulator with virtual time and a seeded network.
//!
//! ```text
//! node    handshake ─ membership ─ control messages ─ frames ─ lanes
//! cache   core ─▶ mode (local | replicated) ─▶ log (own stream), progress (others' streams) ─▶ store
//!          │        └▶ message ─▶ wire ─▶ frame
//!          └▶ probe: what is served, for inspection and audit
//! load    flights ─ breaker ─ fence ─▶ store
//! write   queue ─ backoff ─ dead letters ─▶ the sink; journal records
//! ```
#![forbid(unsafe_code)]

pub mod announce;
pub mod anti_entropy;
pub mod clock;
pub mod config;
pub mod control;
pub mod core;
pub mod fetching;
pub mod frame;
pub mod fuzzing;
pub mod handshake;
pub mod identity;
pub mod ids;
pub mod lane;
pub mod load;
pub mod log;
pub mod machine;
pub mod membership;
pub mod message;
pub mod mode;
pub mod modify;
pub mod overlay;
pub mod parts;
pub mod payload;
pub mod planted;
pub mod probe;
pub mod progress;
pub mod rendezvous;
#[cfg(test)]
mod testing;
pub mod time;
pub mod update;
pub mod wire;
pub mod write;
