//! Sets up what the tests and measurements need, and tells what it installs.
//!
//! Four things: components of the Rust toolchain, Debian packages with real Redis and HTTP clients,
//! with PostgreSQL and with what makes faults (nftables, libfaketime), a Python environment with the Python Redis client, and
//! cargo-deny. What is there already is left alone. What cannot be had (no root, no Debian, no network) is
//! not an error here: the steps that need it are skipped and say why.

use std::path::PathBuf;

use crate::job::find_on_path;
use crate::workspace::Workspace;
use crate::{apt, cargo, deny, job, python};

/// Something that is set up only where it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Components of the Rust toolchain: formatting and lints.
    Components,
    /// Debian packages, with real clients and servers and what makes faults, and the Python environment.
    Clients,
    /// The cargo-deny program.
    CargoDeny,
}

impl Need {
    const ALL: [Self; 3] = [Self::Components, Self::Clients, Self::CargoDeny];
}

/// What is there after the set-up.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    /// Interpreter of the Python environment with the Redis client.
    pub(crate) python: Option<PathBuf>,
    /// The cargo-deny program.
    pub(crate) cargo_deny: Option<PathBuf>,
    /// One line for each thing that is missing, with the reason.
    pub(crate) missing: Vec<String>,
}

impl Tools {
    /// Whether the real clients of the tests are all there.
    pub(crate) fn has_clients(&self) -> bool {
        let programs = apt::PROGRAMS
            .iter()
            .all(|(program, _)| find_on_path(program).is_some());
        programs && apt::has_postgresql() && self.python.is_some()
    }
}

/// Sets up everything that `test` and `bench` need.
///
/// # Errors
/// When the Rust toolchain lacks a component and it cannot be added: nothing works without.
pub(crate) fn everything(workspace: &Workspace) -> anyhow::Result<Tools> {
    set_up(workspace, &Need::ALL)
}

/// Sets up what is in `needs` and leaves the rest alone: a step that formats does not wait for a compiler
/// that builds cargo-deny.
///
/// # Errors
/// When the Rust toolchain lacks a component and it cannot be added: nothing works without.
pub(crate) fn set_up(workspace: &Workspace, needs: &[Need]) -> anyhow::Result<Tools> {
    let mut missing = Vec::new();
    if needs.contains(&Need::Components) {
        rust_components(workspace)?;
    }
    let mut python = None;
    if needs.contains(&Need::Clients) {
        debian_packages(workspace, &mut missing);
        python = python_environment(workspace, &mut missing);
    }
    let cargo_deny = match needs.contains(&Need::CargoDeny) {
        true => cargo_deny(workspace, &mut missing),
        false => None,
    };
    Ok(Tools {
        python,
        cargo_deny,
        missing,
    })
}

/// Sets up only the Debian packages: real servers and clients to measure against.
pub(crate) fn packages_only(workspace: &Workspace) -> Vec<String> {
    let mut missing = Vec::new();
    debian_packages(workspace, &mut missing);
    missing
}

fn rust_components(workspace: &Workspace) -> anyhow::Result<()> {
    for component in ["fmt", "clippy"] {
        let probe = format!("{component} --version");
        if job::output_of(&mut cargo::cargo_with(workspace, &probe)).is_some() {
            continue;
        }
        let name = if component == "fmt" {
            "rustfmt"
        } else {
            component
        };
        println!("      installing with rustup: {name}");
        let mut command = std::process::Command::new("rustup");
        command.args(["component", "add", name]);
        let finished = job::run(&workspace.logs(), "rustup", &mut command)?;
        anyhow::ensure!(
            finished.success,
            "rustup cannot add {name}:\n{}",
            finished.tail()
        );
    }
    Ok(())
}

fn debian_packages(workspace: &Workspace, missing: &mut Vec<String>) {
    let packages = apt::missing_packages();
    if packages.is_empty() {
        println!("      present: redis-server, redis-cli, redis-benchmark, curl, python3");
        println!("      present: PostgreSQL, ip, tc, nft, libfaketime");
        return;
    }
    let names = packages.join(" ");
    if let Some(reason) = apt::cannot_install() {
        missing.push(format!("Debian packages {names}: {reason}"));
        return;
    }
    println!("      installing with apt-get: {names} (no service is started)");
    if let Err(error) = apt::install(workspace, &packages) {
        missing.push(format!("Debian packages {names}: {}", first_line(&error)));
    }
}

fn python_environment(workspace: &Workspace, missing: &mut Vec<String>) -> Option<PathBuf> {
    if let Some(python) = python::ready(workspace) {
        println!("      present: Python environment with the Redis client");
        return Some(python);
    }
    let what = python::announcement(workspace);
    println!("      installing with pip: {what}");
    python::install(workspace)
        .inspect_err(|error| missing.push(format!("{what}: {}", first_line(error))))
        .ok()
}

fn cargo_deny(workspace: &Workspace, missing: &mut Vec<String>) -> Option<PathBuf> {
    if let Some(program) = deny::ready(workspace) {
        println!("      present: {}", deny::PACKAGE);
        return Some(program);
    }
    println!(
        "      installing with cargo install: {} into {} (about two minutes)",
        deny::PACKAGE,
        workspace.tools().display()
    );
    deny::install(workspace)
        .inspect_err(|error| missing.push(format!("{}: {}", deny::PACKAGE, first_line(error))))
        .ok()
}

fn first_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let cause = text
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default();
    format!(
        "{} ({})",
        text.lines().next().unwrap_or_default(),
        cause.trim()
    )
}
