//! End to end: real nodes in network namespaces, real faults, recorded histories, checkers.
//!
//! ```text
//! harness ── starts ──► reaper (waits for the harness to end, however it does; then removes everything)
//!    │ makes the namespaces
//!    └─ starts itself again inside the clients' namespace ──► nodes, faults, clients ──► histories ──► checkers
//! ```
//!
//! No traffic leaves the namespaces: they have no route. Needs root, `ip`, `tc`, and for each fault what
//! `nearcache-e2e probe` names. See docs/testing.md.

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    reason = "a command line program talks on stdout"
)]

mod cache;
mod chance;
mod check;
mod cluster;
mod history;
mod hold;
mod machine;
mod plan;
mod report;
mod resp;
mod round;
mod suite;
mod work;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::history::History;
use crate::machine::ability::{self, Abilities};
use crate::machine::bite;
use crate::machine::network::Network;
use crate::machine::process::Setup;
use crate::machine::reaper::{self, Reaper};
use crate::report::Report;
use crate::suite::Rounds;

/// Longest smoke run.
const SMOKE_LIMIT: Duration = Duration::from_secs(175);
/// What a random run may take beyond its minutes: the last round, and tearing down.
const ROUND_LIMIT: Duration = Duration::from_secs(120);
/// Nodes of the smoke run.
const SMOKE_NODES: usize = 3;

/// Real nodes in network namespaces: faults, recorded histories, checkers.
#[derive(Debug, Parser)]
#[command(name = "nearcache-e2e", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Every fault once, at most three minutes
    Smoke(Where),
    /// Rounds with faults drawn from seeds
    Run(Run),
    /// Say what makes which fault on this machine
    Probe,
    /// Judge a history that a failed round left
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Inside the clients' namespace: what `smoke` and `run` are made of
    #[command(hide = true)]
    Inside(Inside),
    /// Remove namespaces once standard input ends
    #[command(hide = true)]
    Reap {
        /// Folder to remove.
        folder: PathBuf,
        /// Namespaces to remove.
        namespaces: Vec<String>,
    },
    /// Print the wall clock as a node reads it, in seconds
    #[command(hide = true)]
    Clock,
    /// Make the namespaces and wait to be killed
    #[command(hide = true)]
    Hold,
    /// Send datagrams back and accept connections at an address, until standard input ends
    #[command(hide = true)]
    Reflect {
        /// The address.
        at: SocketAddr,
    },
    /// Print what comes back from there
    #[command(hide = true)]
    Measure {
        /// The address.
        at: SocketAddr,
    },
}

#[derive(Clone, Debug, clap::Args)]
struct Where {
    /// The `nearcache` program to start; by default the one beside this program
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
    /// Where a failed round leaves its history and the nodes' logs
    #[arg(long, value_name = "FOLDER", default_value = "target/e2e")]
    keep: PathBuf,
}

#[derive(Clone, Debug, clap::Args)]
struct Run {
    #[command(flatten)]
    at: Where,
    /// Nodes of the cluster
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(3..=16))]
    nodes: u8,
    /// Seed of the first round; each further one has the next
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// Rounds at most
    #[arg(long, default_value_t = 1_000_000)]
    rounds: u64,
    /// Minutes after which no further round begins
    #[arg(long, default_value_t = 60)]
    minutes: u64,
}

#[derive(Clone, Debug, clap::Args)]
struct Inside {
    #[command(flatten)]
    run: Run,
    #[arg(long)]
    smoke: bool,
    #[arg(long)]
    owner: u32,
    #[arg(long)]
    folder: PathBuf,
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Smoke(at) => {
            let run = Run {
                at,
                nodes: 3,
                first_seed: 1,
                rounds: 0,
                minutes: 0,
            };
            outside(&run, true)
        }
        Task::Run(run) => outside(&run, false),
        Task::Probe => probe(),
        Task::Check { file } => judge(&file),
        Task::Inside(inside) => within(&inside),
        Task::Reap { folder, namespaces } => reaper::reap(&folder, &namespaces).map(|()| true),
        Task::Clock => {
            println!("{}", ability::wall_seconds());
            Ok(true)
        }
        Task::Hold => hold::wait_to_be_killed().map(|()| true),
        Task::Reflect { at } => bite::reflect(at).map(|()| true),
        Task::Measure { at } => bite::measure(at).map(|seen| {
            println!("{seen}");
            true
        }),
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

/// Makes the namespaces, has the rounds run inside, removes everything.
fn outside(run: &Run, smoke: bool) -> anyhow::Result<bool> {
    let mut report = Report::default();
    if let Some(reason) = ability::why_not() {
        report.skipped("network namespaces", &reason);
        return Ok(report.finish());
    }
    let owner = std::process::id();
    let network = Network::of(owner, usize::from(run.nodes));
    let folder = make_folder(owner)?;
    let reaper = Reaper::start(&network.namespaces(), &folder)?;
    if let Err(error) = network.build() {
        // Root, with the tools there: that nothing was tried must not look like success.
        report.failed("network namespaces", &[format!("{error:#}")]);
        return Ok(report.finish());
    }
    if smoke {
        hold::show_that_nothing_is_left(&mut report)?;
    }
    let limit = match smoke {
        true => SMOKE_LIMIT,
        false => Duration::from_secs(run.minutes * 60) + ROUND_LIMIT,
    };
    let held_inside = run_inside(run, smoke, &network, &folder, limit);
    drop(reaper);
    let inside = held_inside?;
    // A second line of totals, for what was shown out here; a reader adds them up.
    Ok(report.finish() && inside)
}

/// Starts this program again inside the clients' namespace and waits for it, for at most `limit`.
fn run_inside(
    run: &Run,
    smoke: bool,
    network: &Network,
    folder: &Path,
    limit: Duration,
) -> anyhow::Result<bool> {
    let program = std::env::current_exe()?;
    let server = match &run.at.server {
        Some(server) => server.clone(),
        None => program.with_file_name("nearcache"),
    };
    anyhow::ensure!(
        server.is_file(),
        "{} does not exist; cargo build --package nearcache-server",
        server.display()
    );
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", &network.clients()])
        .arg(program)
        .arg("inside")
        .args(["--owner", &std::process::id().to_string()])
        .arg("--folder")
        .arg(folder)
        .arg("--server")
        .arg(server)
        .arg("--keep")
        .arg(&run.at.keep)
        .args(["--nodes", &run.nodes.to_string()])
        .args(["--first-seed", &run.first_seed.to_string()])
        .args(["--rounds", &run.rounds.to_string()])
        .args(["--minutes", &run.minutes.to_string()]);
    if smoke {
        command.arg("--smoke");
    }
    let mut child = command.spawn().context("starting inside the namespace")?;
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if began.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            anyhow::bail!("not done after {} s", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The rounds.
fn within(inside: &Inside) -> anyhow::Result<bool> {
    let run = &inside.run;
    let token_file = inside.folder.join("token");
    std::fs::write(&token_file, format!("end-to-end-{:016}\n", inside.owner))?;
    std::fs::set_permissions(&token_file, std::fs::Permissions::from_mode(0o600))?;
    let setup = Setup {
        binary: run.at.server.clone().context("no --server")?,
        folder: inside.folder.clone(),
        token_file,
        clock: None,
        network: Network::of(inside.owner, usize::from(run.nodes)),
    };
    let rounds = match inside.smoke {
        true => Rounds::Smoke,
        false => Rounds::Random {
            first: run.first_seed,
            count: run.rounds,
            limit: Duration::from_secs(run.minutes * 60),
        },
    };
    let mut report = Report::default();
    suite::run(&setup, rounds, &run.at.keep, &mut report)?;
    Ok(report.finish())
}

fn probe() -> anyhow::Result<bool> {
    if let Some(reason) = ability::why_not() {
        println!("no network namespaces: {reason}");
        return Ok(true);
    }
    let owner = std::process::id();
    let network = Network::of(owner, SMOKE_NODES);
    let _reaper = Reaper::start(&network.namespaces(), &make_folder(owner)?)?;
    network.build()?;
    for line in Abilities::probe(&network)?.describe() {
        println!("{line}");
    }
    Ok(true)
}

fn judge(file: &Path) -> anyhow::Result<bool> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let found = check::all(&History::of_text(&text)?);
    for violation in &found {
        println!("{violation}");
    }
    println!("{} violations", found.len());
    Ok(found.is_empty())
}

/// A folder that only this run uses.
fn make_folder(owner: u32) -> anyhow::Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("nearcache-e2e-{owner}"));
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}
