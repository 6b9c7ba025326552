//! Nearcache as a server: the Redis protocol, HTTP and the command line over the library's caches.
//!
//! ```text
//! command line ── config (file < environment < flags) ── protected mode ── server
//!                                                                            │
//!                         RESP listener ──┐                                  │
//!                         HTTP listener ──┴── caches (raw bytes) ── node ── peers
//! ```
//!
//! The binary `nearcache` is a thin `main` over this crate. It is a library as well so that tests,
//! fuzz targets and measurements can drive the parts without a process; its interface is not stable.

#![forbid(unsafe_code)]

pub mod auth;
pub mod caches;
pub mod cli;
mod client;
pub mod config;
pub mod dev;
pub mod failure;
#[doc(hidden)]
pub mod fuzzing {
    //! What the fuzz targets call.
    pub use crate::config::fuzzing::*;
    pub use crate::http::fuzzing::*;
    pub use crate::resp::fuzzing::*;
}
pub mod http;
pub mod limits;
mod logging;
pub mod machine;
pub mod protected;
pub mod resp;
mod runtime;
mod seeds;
pub mod server;
