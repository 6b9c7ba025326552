//! The project's own commands.
//!
//! `cargo xtask test` is everything continuous integration runs: it sets up what it needs
//! ([`setup`]), goes through the list of [`steps`] and stops at the first that fails. `nightly` is
//! the long volume of the same kinds of checks, `bench` starts the measurements of `bench/`.
//! Nothing here changes a file under version control; everything made lies in `target/`.

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    reason = "a command line program talks on stdout"
)]

mod apt;
mod bench;
mod cargo;
mod counts;
mod deny;
mod dependencies;
mod docs;
mod end_to_end;
mod job;
mod nightly;
mod python;
mod setup;
mod source;
mod steps;
mod tests;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// The project's own commands; run them from anywhere in the repository.
#[derive(Debug, Parser)]
#[command(
    name = "xtask",
    bin_name = "cargo xtask",
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run everything that continuous integration runs, and end with the counts.
    ///
    /// As root on Debian, what is missing is installed first (and named); elsewhere what cannot
    /// be set up is skipped, and the reason is told.
    Test(steps::Args),
    /// Run the long volume: many simulator seeds, an hour of faults on real nodes, minutes of fuzzing per target.
    Nightly(nightly::Args),
    /// Measure against peers: a table on stdout, JSON in target/bench.
    Bench(bench::Args),
    /// Take each rule out of the simulated cluster in turn and print which seed finds that it is missing.
    MutantsSim,
    /// Only set up what `test` and `bench` need.
    Setup,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let workspace = Workspace::locate();
    let done = match &cli.task {
        Task::Test(args) => steps::run(&workspace, args),
        Task::Nightly(args) => nightly::run(&workspace, args),
        Task::MutantsSim => nightly::mutants(&workspace),
        Task::Bench(args) => bench::run(&workspace, args),
        Task::Setup => setup::everything(&workspace).map(|_| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
