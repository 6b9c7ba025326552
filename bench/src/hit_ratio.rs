//! Hit ratio over recorded traces, as share of Belady's optimum (perf-A3).

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
