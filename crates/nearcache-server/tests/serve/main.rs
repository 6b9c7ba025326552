//! The binary from outside: flags, configuration, HTTP, protected mode, signals, whole clusters.
//!
//! Every test runs real processes with ports the system chose, and is bounded in time. One test binary,
//! because linking it once is what takes longest.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on fails; what is skipped is told on standard output"
)]

#[path = "../../../nearcache/tests/common/authority.rs"]
mod authority;
mod check;
mod cli;
mod cluster;
mod dev;
mod hostile_peers;
mod http_clients;
mod http_entries;
mod http_hostile;
mod memory;
mod open_files;
mod process;
mod protected;
#[path = "../../../nearcache/tests/common/raw_peer.rs"]
mod raw_peer;
mod shutdown;
mod tls;
#[path = "../../../nearcache/tests/common/tls_client.rs"]
mod tls_client;
