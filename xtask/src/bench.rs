//! `cargo xtask bench NAME`: builds the server and the measurements optimised, and runs them.

use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::cargo::cargo_with;
use crate::setup;
use crate::workspace::Workspace;

/// Options of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// Name of the measurement and its options; `--help` lists them.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Measurements that need the server, or Redis beside it.
const WITH_SERVERS: [&str; 6] = [
    "coherence",
    "join",
    "memory",
    "replication",
    "resp",
    "trace",
];

/// Runs one measurement. Returns whether it could be made; a missed goal is a result, not a failure.
///
/// # Errors
/// When something does not build.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> anyhow::Result<bool> {
    if args
        .words
        .first()
        .is_some_and(|name| WITH_SERVERS.contains(&name.as_str()))
    {
        for line in setup::packages_only(workspace) {
            println!("not available: {line}");
        }
        build(workspace, "nearcache-server")?;
    }
    build(workspace, "nearcache-bench")?;
    // In the folder of the caller, so that the paths among the words mean what they say.
    let program = workspace.target().join("release/nearcache-bench");
    let status = Command::new(&program).args(&args.words).status();
    let status = status.with_context(|| format!("starting {}", program.display()))?;
    Ok(status.success())
}

fn build(workspace: &Workspace, package: &str) -> anyhow::Result<()> {
    eprintln!("building {package}, optimised");
    let words = format!("build --locked --release --quiet --package {package}");
    let status = cargo_with(workspace, &words).status()?;
    ensure!(status.success(), "{package} does not build");
    Ok(())
}
