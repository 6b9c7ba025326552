//! `cargo xtask test`: the list of steps, run in order until one fails.
//!
//! Cheap checks come first, so that a formatting slip is told in a second and not after the tests. One
//! profile and one feature set serve all steps: the dependencies are compiled once for checking and
//! once for running.

use std::process::Command;
use std::time::Instant;

use anyhow::bail;

use crate::cargo::cargo_with;
use crate::counts::Counts;
use crate::setup::{self, Need, Tools};
use crate::workspace::Workspace;
use crate::{deny, dependencies, docs, end_to_end, job, source, tests};

/// Options of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run only the steps with these names.
    #[arg(long, value_name = "STEP", num_args = 1.., value_parser = step_names())]
    only: Vec<String>,
}

/// What a step that did not fail has to tell.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Checks it made.
    pub(crate) counts: Counts,
    /// A few words for its line.
    pub(crate) detail: String,
    /// What was skipped, and why; repeated at the end.
    pub(crate) notes: Vec<String>,
}

impl Outcome {
    /// An outcome with nothing to tell but `counts`.
    pub(crate) fn counted(counts: Counts) -> Self {
        Self {
            counts,
            ..Self::default()
        }
    }

    /// A step that cannot be made here, because of `reason`.
    fn skipped(what: &str, reason: &str) -> Self {
        Self {
            counts: Counts::ONE_SKIPPED,
            detail: "skipped".to_owned(),
            notes: vec![format!("skipped: {what}: {reason}")],
        }
    }
}

/// One step: a name to call it by, what it does, what must be set up for it, and the doing.
struct Step {
    name: &'static str,
    what: &'static str,
    needs: &'static [Need],
    run: fn(&Workspace, &Tools) -> anyhow::Result<Outcome>,
}

const STEPS: [Step; 14] = [
    Step {
        name: "format",
        what: "formatting",
        needs: &[Need::Components],
        run: |workspace, _| format(workspace),
    },
    Step {
        name: "source",
        what: "every crate forbids unsafe code",
        needs: &[],
        run: |workspace, _| source::check_forbid_unsafe(workspace),
    },
    Step {
        name: "commands",
        what: "the README's commands are what CI runs",
        needs: &[],
        run: |workspace, _| docs::check_commands(workspace),
    },
    Step {
        name: "purity",
        what: "store and protocol depend on no runtime, no sockets",
        needs: &[],
        run: |workspace, _| dependencies::check_purity(workspace),
    },
    Step {
        name: "budget",
        what: "number of dependencies",
        needs: &[],
        run: |workspace, _| dependencies::check_budget(workspace),
    },
    Step {
        name: "deny",
        what: "licences, bans, sources, advisories",
        needs: &[Need::CargoDeny],
        run: deny_step,
    },
    Step {
        name: "lints",
        what: "clippy without warnings",
        needs: &[Need::Components],
        run: |workspace, _| lints(workspace),
    },
    Step {
        name: "docs",
        what: "rustdoc without warnings",
        needs: &[],
        run: |workspace, _| rustdoc(workspace),
    },
    Step {
        name: "tests",
        what: "unit, property, integration, real-client, corpus and simulator tests",
        needs: &[Need::Clients],
        run: tests::run_workspace,
    },
    Step {
        name: "doc-tests",
        what: "examples in the documentation",
        needs: &[],
        run: tests::run_doc_tests,
    },
    Step {
        name: "shuttle",
        what: "interleavings of threads in the store, and of loads and invalidations over it",
        needs: &[],
        run: tests::run_shuttle,
    },
    Step {
        name: "turmoil",
        what: "real nodes and caches on a simulated network, 100 seeds",
        needs: &[],
        run: tests::run_turmoil,
    },
    Step {
        name: "examples",
        what: "example programs run to their end",
        needs: &[],
        run: |workspace, _| tests::run_examples(workspace),
    },
    Step {
        name: "end-to-end",
        what: "real nodes in network namespaces, every fault once",
        needs: &[Need::Clients],
        run: |workspace, _| end_to_end::smoke(workspace),
    },
];

fn step_names() -> Vec<&'static str> {
    STEPS.iter().map(|step| step.name).collect()
}

/// Sets up, runs the steps and prints the counts as the last line. Returns whether all held.
///
/// # Errors
/// When the set-up cannot do without something it did not get.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> anyhow::Result<bool> {
    let started = Instant::now();
    let steps: Vec<&Step> = STEPS
        .iter()
        .filter(|step| args.only.is_empty() || args.only.iter().any(|name| name == step.name))
        .collect();
    let before = source::changed_files(workspace);
    println!("[ 0/{}] setup: what these steps need", steps.len());
    let needs: Vec<Need> = steps.iter().flat_map(|step| step.needs).copied().collect();
    let tools = setup::set_up(workspace, &needs)?;
    println!("      setup done, {:.0} s", started.elapsed().as_secs_f64());
    let mut notes: Vec<String> = tools
        .missing
        .iter()
        .map(|line| format!("not available: {line}"))
        .collect();

    let mut total = Counts::default();
    let mut failed = None;
    for (index, step) in steps.iter().enumerate() {
        println!(
            "[{:>2}/{}] {}: {}",
            index + 1,
            steps.len(),
            step.name,
            step.what
        );
        let step_started = Instant::now();
        match (step.run)(workspace, &tools) {
            Ok(outcome) => {
                let detail = [outcome.counts.to_string(), outcome.detail]
                    .into_iter()
                    .filter(|text| !text.is_empty())
                    .collect::<Vec<_>>()
                    .join(", ");
                println!(
                    "      {detail}, {:.0} s",
                    step_started.elapsed().as_secs_f64()
                );
                total += outcome.counts;
                notes.extend(outcome.notes);
            }
            Err(error) => {
                total += Counts::ONE_FAILED;
                failed = Some(step.name);
                println!("FAILED {}: {error:#}", step.name);
                break;
            }
        }
    }
    if before != source::changed_files(workspace) {
        total += Counts::ONE_FAILED;
        failed = failed.or(Some("no tracked file changes"));
        println!("FAILED: the run changed files under version control; see `git status`");
    }
    for note in &notes {
        println!("{note}");
    }
    let seconds = started.elapsed().as_secs_f64();
    match failed {
        None => println!("all {} steps done in {seconds:.0} s", steps.len()),
        Some(name) => println!(
            "stopped at {name} after {seconds:.0} s; again: cargo xtask test --only {name}"
        ),
    }
    println!("{total}");
    Ok(failed.is_none())
}

fn format(workspace: &Workspace) -> anyhow::Result<Outcome> {
    succeed(
        workspace,
        "format",
        &mut cargo_with(workspace, "fmt --all --check"),
    )
}

/// All code with every default feature, and the library without any: the one choice of features a user has.
fn lints(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    for (name, selection) in [
        ("lints", "--workspace --all-targets"),
        (
            "lints-no-features",
            "--package nearcache --lib --no-default-features",
        ),
    ] {
        let words = format!("clippy --locked {selection} -- -D warnings");
        outcome.counts += succeed(workspace, name, &mut cargo_with(workspace, &words))?.counts;
    }
    Ok(outcome)
}

fn rustdoc(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let mut command = cargo_with(workspace, "doc --locked --workspace --no-deps");
    succeed(
        workspace,
        "docs",
        command.env("RUSTDOCFLAGS", "-D warnings"),
    )
}

fn deny_step(workspace: &Workspace, tools: &Tools) -> anyhow::Result<Outcome> {
    match &tools.cargo_deny {
        Some(program) => deny::check(workspace, program),
        None => Ok(Outcome::skipped(
            "licences, bans, sources",
            "cargo-deny could not be installed",
        )),
    }
}

fn succeed(workspace: &Workspace, name: &str, command: &mut Command) -> anyhow::Result<Outcome> {
    let finished = job::run(&workspace.logs(), name, command)?;
    if !finished.success {
        bail!("{}\n{}", job::describe(command), finished.tail());
    }
    Ok(Outcome::counted(Counts::ONE_PASSED))
}
