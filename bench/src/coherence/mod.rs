//! What coherence costs and what disturbs it: perf-B1, B2, B4, B6 and rule R1. Each has a file of its own.

mod anti_entropy;
mod freshness;
mod healing;
mod invalidation;
mod isolation;
mod slow_link;

use std::time::Duration;

pub(crate) use slow_link::SlowLink;

use self::isolation::Trouble;
use crate::rounds::DEFAULT_ROUNDS;
use crate::table::Table;

/// Options of `bench coherence`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Measure these only.
    #[arg(long, value_name = "ROWS", num_args = 1.., value_parser = ["invalidation", "isolation", "anti-entropy", "freshness", "healing"])]
    only: Vec<String>,
    /// Invalidation: pairs of interleaved rounds. Healing: netsplits.
    #[arg(long, default_value_t = DEFAULT_ROUNDS)]
    rounds: usize,
    /// Invalidation: values written, one after the other, in a round.
    #[arg(long, default_value_t = 2_000)]
    writes: u64,
    /// Isolation: numbers of nodes.
    #[arg(long, num_args = 1.., default_values_t = [3, 5])]
    nodes: Vec<usize>,
    /// Isolation: seconds for which a node is paused, and before that the cluster is measured whole.
    #[arg(long, default_value_t = 30)]
    pause: u64,
    /// Anti-entropy: entries that both nodes hold.
    #[arg(long, default_value_t = 1_000_000)]
    entries: u64,
    /// Anti-entropy: entries of which they hold different versions.
    #[arg(long, default_value_t = 100)]
    differences: u64,
}

/// Measures and returns the table.
///
/// # Errors
/// When a cluster cannot be started, or stops doing what is measured.
pub(crate) fn run(args: &Args) -> anyhow::Result<Table> {
    let mut table = Table::new("coherence");
    let wants = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    if wants("invalidation") {
        invalidation::run(&mut table, args)?;
    }
    if wants("isolation") {
        let lasts = Duration::from_secs(args.pause);
        for nodes in &args.nodes {
            isolation::run(&mut table, *nodes, &Trouble::Paused, lasts)?;
        }
        match SlowLink::make() {
            Ok(link) => isolation::run(&mut table, 3, &Trouble::Slow(link), lasts)?,
            Err(error) => table.note(format!("no peer at 10 kB/s: {error:#}")),
        }
    }
    if wants("anti-entropy") {
        anti_entropy::run(&mut table, args)?;
    }
    if wants("healing") {
        healing::run(&mut table, args)?;
    }
    if wants("freshness") {
        table.rows.push(freshness::row()?);
    }
    Ok(table)
}
