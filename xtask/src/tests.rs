//! The steps that run tests: the workspace's, the simulator's seeds and the examples.

use anyhow::bail;

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
/// # Errors
/// When one does not build or ends with an error.
pub(crate) fn run_examples(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    for example in ["embedded", "two_nodes"] {
        let words = format!("run --locked --package nearcache --example {example}");
        let name = format!("example-{example}");
        let finished = job::run(&workspace.logs(), &name, &mut cargo_with(workspace, &words))?;
        if !finished.success {
            bail!("example {example}:\n{}", finished.tail());
        }
        outcome.counts += Counts::ONE_PASSED;
    }
    Ok(outcome)
}
