//! `cargo xtask bench NAME`: builds the server and the measurements optimised, and runs them. `bench scale [--origins N] [SIZE | mesh:SIZE]...` is a run of
//! the simulator.

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
    if let Some(("scale", sizes)) =
        (args.words.split_first()).map(|(name, rest)| (name.as_str(), rest))
    {
        build(workspace, "nearcache-sim")?;
        let json = workspace.target().join("bench").join("scale.json");
        let json = json.display().to_string();
        return carry_out(
            workspace,
            "nearcache-sim",
            &[&["scale".to_owned(), "--json".to_owned(), json], sizes].concat(),
        );
    }
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
    carry_out(workspace, "nearcache-bench", &args.words)
}

/// Runs a program that was built, in the folder of the caller, so that the paths among the words mean what they say.
fn carry_out(workspace: &Workspace, name: &str, words: &[String]) -> anyhow::Result<bool> {
    let program = workspace.target().join("release").join(name);
    let status = Command::new(&program).args(words).status();
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
