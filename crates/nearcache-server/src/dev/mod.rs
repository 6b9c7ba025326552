//! `nearcache dev`: a whole cluster in one process, to try, with a tour that measures it.
//!
//! ```text
//! cluster   starts N servers, each with sockets of its own; they share nothing but the network
//! tour      fills, reads, restarts and measures, through the cluster's public faces only
//! terminal  how it looks: colour and moving progress on a terminal, plain lines elsewhere
//! ```

mod cluster;
mod terminal;
mod tour;

use std::num::NonZeroUsize;

use clap::Args;

use crate::cli::StopSignals;
use crate::config::{CacheMode, LogConfig, LogFormat, shares, units};
use crate::failure::Failure;
use crate::machine::{files::OpenFiles, memory::Memory};
use crate::{cli, logging};
use cluster::Cluster;
use terminal::Terminal;

/// How the cluster to try is made.
#[derive(Debug, Clone, Args)]
pub struct DevArgs {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
    nodes: u16,
    /// Where entries of the cache `default` live
    #[arg(long, value_enum, default_value_t = CacheMode::Replicated)]
    mode: CacheMode,
    /// Port of RESP on node 1; node i listens on BASE+i-1. 0 lets the system choose every port
    #[arg(long, value_name = "BASE", default_value_t = 7001)]
    resp_port: u16,
    /// Port of HTTP on node 1; node i listens on BASE+i-1. 0 lets the system choose every port
    #[arg(long, value_name = "BASE", default_value_t = 8001)]
    http_port: u16,
    /// Start the cluster without the tour
    #[arg(long, conflicts_with = "tour_only")]
    no_tour: bool,
    /// End after the tour
    #[arg(long)]
    tour_only: bool,
    /// Entries that the restarted node gets back in the tour
    #[arg(long, value_name = "COUNT", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=2_000_000))]
    tour_entries: u32,
    /// Writes whose way to the other nodes the tour measures
    #[arg(long, value_name = "COUNT", default_value_t = 3_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    tour_writes: u32,
    /// Lowest level logged to standard error
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log_level: String,
}

/// The least a node's cache is bounded to: room for the default tour twice over.
const NODE_BYTES_MIN: u64 = 64 << 20;
/// The most: room for the longest tour.
const NODE_BYTES_MAX: u64 = 512 << 20;
/// What an entry of the tour takes, key and overhead included, with room to spare.
const TOUR_ENTRY_BYTES: u64 = 256;
/// RESP threads of each node: several nodes share this machine's processors.
const RESP_THREADS: NonZeroUsize = NonZeroUsize::MIN;

/// Runs the cluster until the tour is over or Ctrl-C.
///
/// # Errors
/// In one line, when a port is taken, a node cannot start, or the tour finds a node wanting.
pub fn run(args: &DevArgs) -> Result<(), Failure> {
    check_ports(args)?;
    logging::start(&LogConfig {
        level: args.log_level.clone(),
        format: LogFormat::Text,
    });
    let files = OpenFiles::raise();
    let memory = Memory::of_this_process();
    let bound = node_bytes(&memory, args)?;
    tracing::info!(open_files = files.limit(), max_bytes = bound, "machine");
    cli::runtime()?.block_on(async {
        let mut signals = StopSignals::catch()?;
        let terminal = Terminal::new();
        let mut cluster = Cluster::start(args, bound, &terminal).await?;
        cluster.introduce(&terminal);
        let mut outcome = Ok(());
        if !args.no_tour {
            tokio::select! {
                toured = tour::take(&mut cluster, args, &terminal) => outcome = toured,
                _ = signals.received() => {
                    terminal.line("");
                    cluster.stop().await;
                    return Ok(());
                }
            }
        }
        if outcome.is_ok() && !args.tour_only {
            terminal.line("");
            terminal.line("The cluster is up. Stop it with Ctrl-C.");
            signals.received().await;
            terminal.line("");
        }
        let stopping = terminal.progress("Stopping: the nodes leave the cluster");
        tokio::select! {
            () = cluster.stop() => {}
            _ = signals.received() => {}
        }
        stopping.clear();
        outcome
    })
}

/// Bound of each node's cache: the nodes share what one server would take, and take no more than the
/// tour has a use for.
///
/// # Errors
/// When the entries of the tour would not fit.
fn node_bytes(memory: &Memory, args: &DevArgs) -> Result<u64, Failure> {
    let share = shares::for_entries(memory) / u64::from(args.nodes);
    let bound = share.clamp(NODE_BYTES_MIN, NODE_BYTES_MAX);
    let needed = u64::from(args.tour_entries) * TOUR_ENTRY_BYTES;
    if needed > bound && !args.no_tour {
        return Err(Failure::misuse(format!(
            "--tour-entries {}: there is room for {} on each of {} nodes ({} of memory, {})",
            args.tour_entries,
            bound / TOUR_ENTRY_BYTES,
            args.nodes,
            units::show_size(memory.bytes >> 20 << 20),
            memory.source,
        )));
    }
    Ok(bound)
}

/// Refuses ranges of ports that do not exist or overlap, before anything is started.
fn check_ports(args: &DevArgs) -> Result<(), Failure> {
    for (flag, base) in [
        ("--resp-port", args.resp_port),
        ("--http-port", args.http_port),
    ] {
        if base != 0 && base.checked_add(args.nodes - 1).is_none() {
            return Err(Failure::misuse(format!(
                "{flag} {base}: {} nodes need ports up to {}, the last is 65535",
                args.nodes,
                u32::from(base) + u32::from(args.nodes) - 1
            )));
        }
    }
    let apart = args.resp_port.abs_diff(args.http_port) >= args.nodes;
    if args.resp_port != 0 && args.http_port != 0 && !apart {
        return Err(Failure::misuse(format!(
            "--resp-port {} and --http-port {}: the ports of {} nodes overlap",
            args.resp_port, args.http_port, args.nodes
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Harness {
        #[command(flatten)]
        args: DevArgs,
    }

    fn check(flags: &[&str]) -> Option<String> {
        let harness = Harness::try_parse_from([&["dev"], flags].concat()).unwrap();
        check_ports(&harness.args)
            .err()
            .map(|failure| failure.to_string())
    }

    #[test]
    fn all_nodes_together_take_no_more_than_one_server_would() {
        let args = |flags: &[&str]| {
            let harness = Harness::try_parse_from([&["dev"], flags].concat());
            harness.unwrap().args
        };
        let memory = |mib: u64| Memory {
            bytes: mib << 20,
            ..Memory::default()
        };
        let mib = |memory, flags: &[&str]| node_bytes(&memory, &args(flags)).unwrap() >> 20;
        assert_eq!(mib(memory(4_096), &[]), 1_024 / 3);
        assert_eq!(mib(memory(4_096), &["--nodes", "8"]), 128);
        assert_eq!(mib(memory(65_536), &[]), 512);
        assert_eq!(mib(memory(512), &[]), 64);
        let many = ["--tour-entries", "300000"];
        let refused = node_bytes(&memory(512), &args(&many)).unwrap_err();
        let text = refused.to_string();
        assert!(
            text.contains("room for 262144 on each of 3 nodes"),
            "{text}"
        );
        let none = [&many[..], &["--no-tour"]].concat();
        assert_eq!(mib(memory(512), &none), 64);
    }

    #[test]
    fn ports_that_overlap_or_do_not_exist_are_refused() {
        assert_eq!(check(&[]), None);
        assert_eq!(check(&["--resp-port", "0", "--http-port", "0"]), None);
        assert_eq!(check(&["--resp-port", "65533"]), None);
        assert!(check(&["--resp-port", "65534"]).unwrap().contains("65536"));
        assert!(check(&["--resp-port", "8002"]).unwrap().contains("overlap"));
        assert_eq!(check(&["--resp-port", "8004"]), None);
    }
}
