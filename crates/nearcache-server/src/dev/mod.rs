//! `nearcache dev`: a whole cluster in one process, to try.

use clap::Args;

use crate::config::CacheMode;
use crate::failure::Failure;

/// How the cluster to try is made.
#[derive(Debug, Clone, Args)]
pub struct DevArgs {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
    nodes: u16,
    /// Where entries of the cache `default` live
    #[arg(long, value_enum, default_value_t = CacheMode::Replicated)]
    mode: CacheMode,
    /// Port of RESP on node 1; node i listens on the port i-1 further. 0 lets the system choose all
    #[arg(long, value_name = "BASE", default_value_t = 7001)]
    resp_port: u16,
    /// Port of HTTP on node 1; node i listens on the port i-1 further. 0 lets the system choose all
    #[arg(long, value_name = "BASE", default_value_t = 8001)]
    http_port: u16,
    /// Start the cluster without the tour
    #[arg(long, conflicts_with = "tour_only")]
    no_tour: bool,
    /// End after the tour
    #[arg(long)]
    tour_only: bool,
    /// Entries that the restarted node gets back in the tour
    #[arg(long, value_name = "COUNT", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=5_000_000))]
    tour_entries: u32,
    /// Writes whose way to the other nodes the tour measures
    #[arg(long, value_name = "COUNT", default_value_t = 3_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    tour_writes: u32,
}

/// Runs the cluster.
///
/// # Errors
/// In one line, when a port is taken or a node cannot start.
pub fn run(args: &DevArgs) -> Result<(), Failure> {
    let _ = args;
    Ok(())
}
