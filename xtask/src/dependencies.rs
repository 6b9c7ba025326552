//! What the dependency tree must not hold: sockets below the shell, and more than its budget.
//!
//! Both checks ask `cargo tree`; nothing is compiled.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};

use crate::cargo::cargo_with;
use crate::counts::Counts;
use crate::job;
use crate::steps::Outcome;
use crate::workspace::Workspace;

/// Crates that do no I/O: messages, ticks and clocks come in as arguments.
const PURE: [&str; 2] = ["nearcache-store", "nearcache-protocol"];

/// Crates that bring sockets, timers, an async runtime or an operating system's clock.
const IMPURE: [&str; 13] = [
    "async-io",
    "async-std",
    "foyer-tokio",
    "h2",
    "hyper",
    "mio",
    "nearcache",
    "quinn",
    "rustls",
    "rustix",
    "smol",
    "socket2",
    "tokio",
];

/// Most crates a package may be linked with, itself not counted; macros run at compile time and are not either.
/// The library is counted with and without its optional features (decision 0005).
const BUDGETS: [(&str, &[&str], usize); 3] = [
    ("nearcache", &["--no-default-features"], 80),
    ("nearcache", &[], 110),
    ("nearcache-server", &[], 250),
];

/// Checks that the pure crates stay pure.
///
/// # Errors
/// When one of them depends on something that is not, naming both.
pub(crate) fn check_purity(workspace: &Workspace) -> anyhow::Result<Outcome> {
    for package in PURE {
        let tree = tree_of(workspace, package, &[])?;
        let found: Vec<&str> = IMPURE
            .into_iter()
            .filter(|name| tree.contains(*name))
            .collect();
        ensure!(
            found.is_empty(),
            "{package} must do no I/O, but depends on {}",
            found.join(", ")
        );
    }
    Ok(Outcome::counted(Counts::ONE_PASSED))
}

/// Checks that the packages stay within their budget of dependencies.
///
/// # Errors
/// When one of them has more, with both figures.
pub(crate) fn check_budget(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let mut figures = Vec::new();
    for (package, flags, budget) in BUDGETS {
        let others = tree_of(workspace, package, flags)?.len().saturating_sub(1);
        ensure!(
            others <= budget,
            "{package} {} has {others} dependencies, its budget is {budget}",
            flags.join(" ")
        );
        figures.push(format!("{package} {others} of {budget}"));
    }
    Ok(Outcome {
        detail: figures.join(", "),
        ..Outcome::counted(Counts::ONE_PASSED)
    })
}

/// Names of all crates that `package` is built with on this platform, itself included.
fn tree_of(
    workspace: &Workspace,
    package: &str,
    flags: &[&str],
) -> anyhow::Result<BTreeSet<String>> {
    let flags = flags.join(" ");
    let words = format!(
        "tree --locked --package {package} --edges normal,no-proc-macro --prefix none {flags}"
    );
    let text = job::output_of(&mut cargo_with(workspace, &words))
        .with_context(|| format!("cargo {words} failed"))?;
    Ok(text
        .lines()
        .filter_map(|line| Some(line.split_once(' ')?.0.to_owned()))
        .collect())
}
