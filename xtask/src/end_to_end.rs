//! Real nodes in network namespaces: the smoke run for `test`, the long one for `nightly`.
//!
//! The harness is `e2e/`; it finds out what the machine can do, prints it, and says what it skips.

use std::process::Command;

use anyhow::{bail, ensure};

use crate::cargo::cargo_with;
use crate::counts::{Counts, is_skip};
use crate::job;
use crate::steps::Outcome;
use crate::workspace::Workspace;

/// Every fault once, in at most three minutes.
///
/// # Errors
/// When something does not build, or a checker complains.
pub(crate) fn smoke(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let mut command = harness(workspace, "smoke")?;
    let finished = job::run(&workspace.logs(), "end-to-end", &mut command)?;
    let lines = || finished.lines.iter();
    // What was skipped is in the totals already; its lines are for people.
    let totals = lines().filter(|line| line.starts_with("test result: "));
    let counts = Counts::of_test_run(totals.map(String::as_str));
    if !finished.success {
        bail!("{counts}\n{}", finished.tail());
    }
    Ok(Outcome {
        counts,
        notes: lines().filter(|line| is_skip(line)).cloned().collect(),
        ..Outcome::default()
    })
}

/// The command for rounds of faults drawn from `first_seed` on, for so many minutes.
///
/// # Errors
/// When something does not build.
pub(crate) fn random(
    workspace: &Workspace,
    first_seed: u64,
    minutes: u64,
) -> anyhow::Result<Command> {
    let mut command = harness(workspace, "run")?;
    command
        .args(["--first-seed", &first_seed.to_string()])
        .args(["--minutes", &minutes.to_string()]);
    Ok(command)
}

/// The harness with a server beside it, both built as the other steps build them.
fn harness(workspace: &Workspace, task: &str) -> anyhow::Result<Command> {
    let mut build = cargo_with(workspace, "build --locked --workspace --bins --examples");
    let built = job::run(&workspace.logs(), "end-to-end-build", &mut build)?;
    ensure!(built.success, "it does not build:\n{}", built.tail());
    let mut command = Command::new(workspace.target().join("debug/nearcache-e2e"));
    command
        .current_dir(workspace.root())
        .arg(task)
        .arg("--keep")
        .arg(workspace.target().join("e2e"));
    Ok(command)
}
