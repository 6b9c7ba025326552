//! cargo-deny: licences, bans and sources always, advisories where their database can be reached.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;

use crate::cargo::cargo_with;
use crate::counts::Counts;
use crate::job;
use crate::steps::Outcome;
use crate::workspace::Workspace;

/// The program as `cargo install` names it.
pub(crate) const PACKAGE: &str = concat!("cargo-deny@", "0.20.2");

/// The program, if the wanted version is installed.
pub(crate) fn ready(workspace: &Workspace) -> Option<PathBuf> {
    let program = program(workspace);
    let version = job::output_of(Command::new(&program).arg("--version"))?;
    (version.replace(' ', "@") == PACKAGE).then_some(program)
}

/// Compiles and installs the program into the tools folder.
///
/// Unoptimised: that takes half the time to compile, and a check still takes two seconds.
///
/// # Errors
/// When the registry cannot be reached or the compilation fails.
pub(crate) fn install(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let build = workspace.tools().join("build");
    let mut command = cargo_with(workspace, "install --locked --debug --force");
    command.arg("--root").arg(workspace.tools());
    command.arg("--target-dir").arg(&build).arg(PACKAGE);
    command.env("CARGO_PROFILE_DEV_DEBUG", "false");
    let finished = job::run(&workspace.logs(), "install-cargo-deny", &mut command)?;
    ensure!(
        finished.success,
        "{} failed:\n{}",
        job::describe(&command),
        finished.tail()
    );
    // Hundreds of megabytes that nothing needs again.
    let _ = std::fs::remove_dir_all(build);
    Ok(program(workspace))
}

/// Checks the dependency tree against `deny.toml`.
///
/// # Errors
/// When the program cannot be run or a check fails.
pub(crate) fn check(workspace: &Workspace, program: &Path) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    for what in ["licenses", "bans", "sources"] {
        let finished = check_one(workspace, program, what)?;
        ensure!(
            finished.success,
            "cargo deny check {what}:\n{}",
            finished.tail()
        );
        outcome.counts += Counts::ONE_PASSED;
    }
    let advisories = check_one(workspace, program, "advisories")?;
    if advisories.success {
        outcome.counts += Counts::ONE_PASSED;
    } else if advisories
        .lines
        .iter()
        .any(|line| line.contains("failed to fetch advisory"))
    {
        outcome.notes.push(
            "advisories were not checked: their database, github.com/RustSec/advisory-db, \
             cannot be reached"
                .to_owned(),
        );
    } else {
        anyhow::bail!("cargo deny check advisories:\n{}", advisories.tail());
    }
    Ok(outcome)
}

fn check_one(workspace: &Workspace, program: &Path, what: &str) -> anyhow::Result<job::Finished> {
    let mut command = Command::new(program);
    command
        .current_dir(workspace.root())
        .env("CARGO_TERM_COLOR", "never");
    // Without a network, git must fail rather than ask for a name.
    command.env("GIT_TERMINAL_PROMPT", "0");
    command.args(["--locked", "check", "--hide-inclusion-graph", what]);
    job::run(&workspace.logs(), &format!("deny-{what}"), &mut command)
}

fn program(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("bin/cargo-deny")
}
