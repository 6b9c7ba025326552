//! Reads and writes of the store in this process against moka, quick_cache and foyer (perf-A1, A2, A5).

use crate::table::Table;

/// Options of the measurement.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Measures and returns the table.
///
/// # Errors
/// When a side cannot be set up.
pub(crate) fn run(_args: &Args) -> anyhow::Result<Table> {
    anyhow::bail!("not measured yet")
}
