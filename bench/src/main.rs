//! `cargo xtask bench NAME`: measurements of Nearcache against its peers.
//!
//! Each measurement is one module with `run(&Args) -> Table`: it prepares both sides, measures
//! them in interleaved rounds ([`rounds`]) and returns a [`table::Table`]; this file prints it and
//! writes it as JSON ([`json`]).

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    reason = "the table on stdout is what the program is for"
)]

mod belady;
mod caches;
mod cluster;
mod coherence;
mod cpu;
mod hit_ratio;
mod join;
mod json;
mod large;
mod latency;
mod loading;
mod memory;
mod redis_benchmark;
mod replication;
mod replication_library;
mod requests;
mod resp;
mod resp_client;
mod rounds;
mod servers;
mod store;
mod table;
mod trace;
mod traces;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Measures Nearcache against its peers; prints a table and writes it as JSON.
#[derive(Debug, Parser)]
#[command(name = "bench", bin_name = "cargo xtask bench")]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
    /// Folder for the JSON file.
    #[arg(long, global = true, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench"))]
    out: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Reads and writes of the store in this process (perf-A1, A2, A5).
    Store(store::Args),
    /// Hit ratio over recorded traces, as share of Belady's optimum (perf-A3).
    HitRatio(hit_ratio::Args),
    /// Memory per entry (perf-A4).
    Memory(memory::Args),
    /// The Redis protocol against Redis (perf-A6, A7, A8).
    Resp(resp::Args),
    /// A replicated cluster against Redis with two replicas (perf-A9, A10, A11).
    Replication(replication::Args),
    /// Invalidation, isolation of a paused node, comparing replicas (perf-B1, B2, B4).
    Coherence(coherence::Args),
    /// Long values beside small updates.
    Large(large::Args),
    /// A node that joins a full cluster, against Redis's full sync (perf-B3).
    Join(join::Args),
    /// Reading through the cache: hits, cold keys, outages (perf-C4, perf-C6, O11).
    Loading(loading::Args),
    /// A recorded trace through a running three-node cluster.
    Trace(trace::Args),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let table = match &cli.bench {
        Bench::Store(args) => store::run(args),
        Bench::HitRatio(args) => hit_ratio::run(args),
        Bench::Memory(args) => memory::run(args),
        Bench::Resp(args) => resp::run(args),
        Bench::Replication(args) => replication::run(args),
        Bench::Coherence(args) => coherence::run(args),
        Bench::Large(args) => large::run(args),
        Bench::Join(args) => join::run(args),
        Bench::Loading(args) => loading::run(args),
        Bench::Trace(args) => trace::run(args),
    }?;
    print!("{}", table.render());
    let path = json::write(&cli.out, &table)?;
    println!("written to {}", path.display());
    Ok(())
}
