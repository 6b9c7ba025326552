//! `cargo xtask nightly`: the long volume of what `test` runs briefly.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use crate::cargo::cargo_with;
use crate::tests::TURMOIL;
use crate::workspace::Workspace;
use crate::{end_to_end, job, setup};

/// So many seeds of a full mesh for each along a tree, which costs a few times as much.
const TREE_SEEDS_SHARE: u64 = 10;

/// So many seeds with ordinary faults for each with faults at full strength.
const FULL_SEEDS_SHARE: u64 = 5;

/// Options of `cargo xtask nightly`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Simulator seeds to run.
    #[arg(long, default_value_t = 100_000)]
    seeds: u64,
    /// Seeds of real nodes on a simulated network.
    #[arg(long, default_value_t = 20_000)]
    turmoil_seeds: u64,
    /// First seed; by default one that differs from night to night.
    #[arg(long)]
    first_seed: Option<u64>,
    /// Minutes of faults on real nodes in network namespaces; 0 leaves them out.
    #[arg(long, default_value_t = 60)]
    end_to_end_minutes: u64,
    /// Minutes of fuzzing for each target; 0 leaves fuzzing out. Without cargo-fuzz and a nightly compiler
    /// the seeds are changed at random instead.
    #[arg(long, default_value_t = 10)]
    fuzz_minutes: u64,
}

/// Runs everything, goes on after a failure, and returns whether all held.
///
/// # Errors
/// When a program cannot be started.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> anyhow::Result<bool> {
    let mut all_held = simulate(workspace, args)?;
    all_held &= run_turmoil(workspace, args)?;
    if args.end_to_end_minutes > 0 {
        for missing in setup::packages_only(workspace) {
            println!("not available: {missing}");
        }
        let mut command = end_to_end::random(workspace, first_seed(args), args.end_to_end_minutes)?;
        all_held &= tell(workspace, "nightly-end-to-end", &mut command)?;
    }
    if args.fuzz_minutes > 0 {
        match why_no_fuzzing(workspace) {
            Some(reason) => {
                println!("without coverage guidance: {reason}");
                all_held &= drive_on_stable(workspace, args.fuzz_minutes)?;
            }
            None => {
                for target in fuzz_targets(workspace)? {
                    all_held &= fuzz(workspace, &target, args.fuzz_minutes)?;
                }
            }
        }
    }
    Ok(all_held)
}

/// Without a choice, nights differ: each starts at the second it began in, well apart.
fn first_seed(args: &Args) -> u64 {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    args.first_seed.unwrap_or(seconds << 20)
}

/// What the simulator runs by night: a name, its options, and how many seeds of a full mesh one of these costs.
const SIMULATIONS: [(&str, &str, u64); 8] = [
    ("replicated", "--mode replicated", 1),
    ("invalidation", "--mode invalidation", 1),
    ("loads", "--loads", 1),
    ("tree", "--tree", TREE_SEEDS_SHARE),
    // Faults as long and as strong as they get: such a seed has more to do.
    (
        "replicated-full",
        "--mode replicated --full",
        FULL_SEEDS_SHARE,
    ),
    (
        "invalidation-full",
        "--mode invalidation --full",
        FULL_SEEDS_SHARE,
    ),
    ("loads-full", "--loads --full", FULL_SEEDS_SHARE),
    (
        "tree-full",
        "--tree --full",
        FULL_SEEDS_SHARE * TREE_SEEDS_SHARE,
    ),
];

/// Plans of failing seeds are kept in a folder for each, with the commit that they failed at.
fn simulate(workspace: &Workspace, args: &Args) -> anyhow::Result<bool> {
    let first = first_seed(args);
    let mut git = std::process::Command::new("git");
    let commit = job::output_of(
        git.args(["rev-parse", "HEAD"])
            .current_dir(workspace.root()),
    );
    let mut all_held = true;
    for (name, options, costs) in SIMULATIONS {
        let range = format!("{first}..{}", first.saturating_add(args.seeds / costs));
        let keep = workspace.root().join("target/simulator").join(name);
        std::fs::create_dir_all(&keep).with_context(|| keep.display().to_string())?;
        std::fs::write(keep.join("commit"), commit.as_deref().unwrap_or("unknown"))?;
        let run = format!("run --locked --release --package nearcache-sim -- {options}");
        let mut command = cargo_with(workspace, &run);
        command.args(["--seeds", &range, "--keep"]).arg(&keep);
        all_held &= tell(
            workspace,
            &format!("nightly-simulator-{name}"),
            &mut command,
        )?;
    }
    Ok(all_held)
}

fn run_turmoil(workspace: &Workspace, args: &Args) -> anyhow::Result<bool> {
    let first = first_seed(args);
    let range = format!("{first}..{}", first.saturating_add(args.turmoil_seeds));
    let tree_seeds = args.turmoil_seeds / TREE_SEEDS_SHARE;
    let tree_range = format!("{first}..{}", first.saturating_add(tree_seeds));
    let mut command = cargo_with(workspace, TURMOIL);
    command.env("NEARCACHE_TURMOIL_SEEDS", range);
    command.env("NEARCACHE_TURMOIL_TREE_SEEDS", tree_range);
    tell(workspace, "nightly-turmoil", &mut command)
}

/// Every planted bug must be found within a thousand seeds that are clean without it. About a minute.
pub(crate) fn mutants(workspace: &Workspace) -> anyhow::Result<bool> {
    let mut command = cargo_with(
        workspace,
        "run --locked --release --package nearcache-sim -- --seeds 0..1000 --mutants",
    );
    Ok(command.status()?.success())
}

/// Why fuzzing cannot be done here, or `None` when it can: it needs a nightly compiler and cargo-fuzz.
fn why_no_fuzzing(workspace: &Workspace) -> Option<&'static str> {
    if job::output_of(std::process::Command::new("cargo").args(["+nightly", "--version"])).is_none()
    {
        return Some("no nightly toolchain (rustup toolchain install nightly)");
    }
    job::output_of(&mut cargo_with(workspace, "fuzz --version"))
        .is_none()
        .then_some("no cargo-fuzz (cargo install cargo-fuzz)")
}

/// Names of the fuzz targets, which are the files that hold them.
fn fuzz_targets(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let folder = workspace.root().join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        names.extend(
            path.file_stem()
                .map(|stem| stem.to_string_lossy().into_owned()),
        );
    }
    names.sort();
    Ok(names)
}

fn fuzz(workspace: &Workspace, target: &str, minutes: u64) -> anyhow::Result<bool> {
    let mut command = std::process::Command::new("cargo");
    command
        .current_dir(workspace.root())
        .env("CARGO_TERM_COLOR", "never");
    // The corpus grows in fuzz/corpus, which is not under version control; the seeds stay as they are.
    let corpus = format!("fuzz/corpus/{target}");
    std::fs::create_dir_all(workspace.root().join(&corpus))?;
    command.args([
        "+nightly",
        "fuzz",
        "run",
        target,
        &corpus,
        &format!("fuzz/seeds/{target}"),
    ]);
    command.args(["--", &format!("-max_total_time={}", minutes * 60)]);
    tell(workspace, &format!("fuzz-{target}"), &mut command)
}

/// Changes the seeds at random, as the ordinary tests do, for `minutes` per target; the crates' tests know
/// their targets.
fn drive_on_stable(workspace: &Workspace, minutes: u64) -> anyhow::Result<bool> {
    let mut all_held = true;
    for (package, tests) in [
        ("nearcache-protocol", "corpus"),
        ("nearcache-server", "resp"),
    ] {
        let words = format!("test --locked --release --package {package} --test {tests} -- fuzz_");
        let mut command = cargo_with(workspace, &words);
        command.args(["--nocapture", "--test-threads=1"]);
        command.env("NEARCACHE_TEST_FUZZ_SECONDS", (minutes * 60).to_string());
        all_held &= tell(workspace, &format!("fuzz-{package}"), &mut command)?;
    }
    Ok(all_held)
}

fn tell(
    workspace: &Workspace,
    name: &str,
    command: &mut std::process::Command,
) -> anyhow::Result<bool> {
    println!("{name}: {}", job::describe(command));
    let started = Instant::now();
    let finished = job::run(&workspace.logs(), name, command)?;
    let seconds = started.elapsed().as_secs_f64();
    if finished.success {
        println!("      done, {seconds:.0} s");
    } else {
        println!("FAILED {name} after {seconds:.0} s:\n{}", finished.tail());
    }
    Ok(finished.success)
}
