//! RESP over real sockets: limits, bad inputs, and real clients.
//!
//! Every test starts a server of its own on an ephemeral port of loopback, in this process.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests"
)]

mod bad_inputs;
mod clients;
mod commands;
mod differential;
mod fresh;
mod fuzz_seeds;
mod harness;
mod large;
mod limits;
mod replicated;
