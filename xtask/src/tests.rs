//! The steps that run tests: those of the workspace, of its documentation, and the examples.

use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use crate::cargo::cargo_with;
use crate::counts::{Counts, is_skip};
use crate::job::{self, Finished};
use crate::setup::Tools;
use crate::steps::Outcome;
use crate::workspace::Workspace;

/// Unit, property, integration and real-client tests of all packages.
///
/// # Errors
/// When a test fails or does not compile; the message holds the failures.
pub(crate) fn run_workspace(workspace: &Workspace, tools: &Tools) -> anyhow::Result<Outcome> {
    let words = "test --locked --workspace --lib --bins --tests --examples --no-fail-fast \
                 -- --show-output";
    run_tests(workspace, tools, "tests", words)
}

/// The examples in the documentation.
///
/// # Errors
/// As [`run_workspace`].
pub(crate) fn run_doc_tests(workspace: &Workspace, tools: &Tools) -> anyhow::Result<Outcome> {
    run_tests(
        workspace,
        tools,
        "doc-tests",
        "test --locked --workspace --doc --no-fail-fast",
    )
}

/// The concurrency tests of the store and of loads over it, under a scheduler that tries many interleavings.
///
/// They need the store built with that scheduler's locks and atomics, so they are apart from the rest.
///
/// # Errors
/// As [`run_workspace`].
pub(crate) fn run_shuttle(workspace: &Workspace, tools: &Tools) -> anyhow::Result<Outcome> {
    let words = "test --locked --package nearcache-store --features shuttle --test shuttle";
    let mut outcome = run_tests(workspace, tools, "shuttle", words)?;
    let words = "test --locked --package nearcache-protocol --features shuttle,planted-bugs --lib \
                 shuttle_test";
    let of_loads = run_tests(workspace, tools, "shuttle-loads", words)?;
    outcome.counts += of_loads.counts;
    outcome.notes.extend(of_loads.notes);
    Ok(outcome)
}

/// The library's nodes and caches on a simulated network, in simulated time.
///
/// They need the library built with that network's sockets, so they are apart from the rest.
///
/// # Errors
/// As [`run_workspace`].
pub(crate) fn run_turmoil(workspace: &Workspace, tools: &Tools) -> anyhow::Result<Outcome> {
    run_tests(workspace, tools, "turmoil", TURMOIL)
}

/// How the tests on a simulated network are started.
pub(crate) const TURMOIL: &str =
    "test --locked --package nearcache --features turmoil --test turmoil -- --show-output";

fn run_tests(
    workspace: &Workspace,
    tools: &Tools,
    name: &str,
    words: &str,
) -> anyhow::Result<Outcome> {
    let mut command = cargo_with(workspace, words);
    if tools.has_clients() {
        // A test whose client is missing all the same must fail rather than skip.
        command.env("XTASK_TOOLS", "required");
    }
    if let Some(python) = &tools.python {
        command.env("XTASK_PYTHON", python);
    }
    let finished = job::run(&workspace.logs(), name, &mut command)?;
    let counts = Counts::of_test_run(finished.lines.iter().map(String::as_str));
    if !finished.success {
        bail!(
            "{counts}\n{}      complete output: {}",
            failures(&finished),
            finished.log.display()
        );
    }
    let notes = finished
        .lines
        .iter()
        .filter(|line| is_skip(line))
        .cloned()
        .collect();
    Ok(Outcome {
        counts,
        notes,
        ..Outcome::default()
    })
}

/// The reports of the failed tests, or the last lines when nothing got as far as a test.
fn failures(finished: &Finished) -> String {
    let mut text = String::new();
    let mut inside = false;
    for line in &finished.lines {
        if line == "failures:" {
            inside = true;
        } else if line.starts_with("test result:") {
            inside = false;
        } else if inside {
            text += &format!("    {line}\n");
        }
    }
    if text.is_empty() {
        finished.tail()
    } else {
        text
    }
}

/// Runs each of the library's examples to its end.
///
/// They are built with the tests; running what lies there saves building the library once more with the
/// features of a single package.
///
/// # Errors
/// When there is none, or one ends with an error.
pub(crate) fn run_examples(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let mut build = cargo_with(workspace, "build --locked --workspace --examples");
    let built = job::run(&workspace.logs(), "examples", &mut build)?;
    ensure!(
        built.success,
        "the examples do not build:\n{}",
        built.tail()
    );
    let mut outcome = Outcome::default();
    for name in example_names(workspace)? {
        let mut command = Command::new(workspace.target().join("debug/examples").join(&name));
        let finished = job::run(&workspace.logs(), &format!("example-{name}"), &mut command)?;
        ensure!(finished.success, "example {name}:\n{}", finished.tail());
        match finished.lines.iter().find(|line| is_skip(line)) {
            Some(reason) => {
                outcome.counts += Counts::ONE_SKIPPED;
                outcome.notes.push(reason.clone());
            }
            None => outcome.counts += Counts::ONE_PASSED,
        }
    }
    Ok(outcome)
}

/// Names of the library's examples, which are its files.
fn example_names(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let folder = workspace.root().join("crates/nearcache/examples");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(
                path.file_stem()
                    .map(|stem| stem.to_string_lossy().into_owned()),
            );
        }
    }
    names.sort();
    Ok(names)
}
