//! Memory per entry, before and after churn (perf-A4).

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
