//! The binary from outside: flags, configuration, HTTP, protected mode, signals, whole clusters.
//!
//! Every test runs real processes with ports the system chose, and is bounded in time. One test binary,
//! because linking it once is what takes longest.

mod check;
mod cli;
mod cluster;
mod dev;
mod http_clients;
mod http_entries;
mod http_hostile;
mod memory;
mod process;
mod protected;
mod shutdown;
