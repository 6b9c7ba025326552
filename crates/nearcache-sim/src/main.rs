//! Runs seeds of the simulator by hand and by night.
//!
//! ```text
//! cargo run -p nearcache-sim -- --seed 42 --verbose
//! cargo run -p nearcache-sim -- --seeds 0..100000
//! cargo run -p nearcache-sim -- --seeds 0..1000 --bug no-tombstones
//! cargo run -p nearcache-sim -- --seeds 0..1000 --loads
//! cargo run -p nearcache-sim -- --seeds 0..1000 --mutants
//! cargo run -p nearcache-sim -- --plan FILE --verbose
//! ```
//!
//! Exit code 0 if every seed is clean, 1 if one is not (the first is told in full), 2 for a wrong command.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a program for people")]

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nearcache_sim::{
    Bug, Failure, Find, Options, Place, Report, Row, Scale, Sometimes, hunt, judge, measure, run,
    run_text, to_json,
};

const USAGE: &str = "usage: nearcache-sim (--seed N | --seeds A..B | --seeds COUNT | --plan FILE) \
                     [--verbose] [--mode replicated|invalidation | --loads] [--tree] [--audit] [--full] [--bug NAME | --mutants] [--keep FOLDER]\n\
                     or: nearcache-sim scale [--json FILE] [--origins N] [SIZE | mesh:SIZE]...";

const HELP: &str = "
What to run
  --seed N            one seed, and the hash of its trace
  --seeds A..B        these seeds, B not among them
  --seeds COUNT       the first so many
  --plan FILE         a plan that was kept, to the letter
  scale [SIZE]...     what so many nodes cost, and whether that is as it should be; mesh:SIZE without the tree
  --origins N         of scale: at most so many nodes write; all, unless told otherwise

What it is like
  --mode MODE         replicated (unless told otherwise) or invalidation
  --loads             read and written through the cache: loaders, sinks, outages
  --tree              more members than a full mesh may have
  --full              faults at full strength, and as long as they take
  --audit             every node audits in the end, and must find all coherent
  --bug NAME          with a planted bug, which some seed should find
  --mutants           every planted bug in turn

What is told and kept
  --verbose           every step
  --keep FOLDER       plans of failing seeds
  --json FILE         the figures of scale

Exit code: 0 if every seed is clean, 1 if one is not (the first is told in full), 2 for a wrong command.";

/// The sizes that docs/scale.md tells of.
const SHOWN: [usize; 4] = [10, 60, 200, 1_000];

/// How often progress is told.
const PROGRESS_SEEDS: u64 = 500;

fn main() -> ExitCode {
    if std::env::args()
        .skip(1)
        .any(|arg| arg == "--help" || arg == "-h")
    {
        println!("{USAGE}\n{HELP}");
        return ExitCode::SUCCESS;
    }
    if std::env::args().nth(1).as_deref() == Some("scale") {
        return scale(std::env::args().skip(2));
    }
    let (seeds, options) = match parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(why) => {
            println!("{why}\n{USAGE}\n--help tells more");
            return ExitCode::from(2);
        }
    };
    if options.mutants {
        return mutants(seeds);
    }
    let keep = options.keep;
    if let Some(file) = options.plan {
        return replay(&file, options.options);
    }
    let options = options.options;
    let alone = seeds.end - seeds.start == 1;
    let (mut total, mut failed) = (Total::default(), 0);
    for seed in seeds.clone() {
        let report = run(seed, options);
        total.add(&report);
        if let Some(failure) = &report.failure {
            failed += 1;
            keep_plan(keep.as_deref(), seed, failure);
            // The first in full, of the others enough to see whether they are the same.
            match failed {
                1 => println!("{failure}"),
                _ => println!("seed {seed}: {}", failure.violation),
            }
        }
        let done = seed + 1 - seeds.start;
        if done % PROGRESS_SEEDS == 0 {
            println!(
                "{done} of {} seeds, {failed} failed",
                seeds.end - seeds.start
            );
        }
        if alone {
            println!("trace {:016x}", report.trace_hash);
        }
    }
    total.print();
    if failed > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Carries out a plan that was written down.
fn replay(file: &Path, options: Options) -> ExitCode {
    let text = std::fs::read_to_string(file).map_err(|why| why.to_string());
    match text.and_then(|text| run_text(&text, options)) {
        Ok(report) => {
            println!("trace {:016x}", report.trace_hash);
            match report.failure {
                Some(failure) => {
                    println!("{}", failure.violation);
                    ExitCode::FAILURE
                }
                None => ExitCode::SUCCESS,
            }
        }
        Err(why) => {
            println!("{}: {why}", file.display());
            ExitCode::from(2)
        }
    }
}

/// Writes down what a failing run was to do.
fn keep_plan(folder: Option<&Path>, seed: u64, failure: &Failure) {
    let Some(folder) = folder else {
        return;
    };
    let text = format!("# {}\n{}", failure.violation, failure.plan());
    let file = folder.join(format!("seed-{seed}.plan"));
    let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&file, text));
    match written {
        Ok(()) => println!("kept as {}", file.display()),
        Err(why) => println!("cannot write {}: {why}", file.display()),
    }
}

/// Prints what many nodes cost, and what of it is as it should be: `scale [--json FILE] [--origins N] [SIZE | mesh:SIZE]...`.
fn scale(words: impl Iterator<Item = String>) -> ExitCode {
    let (mut words, mut sizes, mut json) = (words, Vec::new(), None);
    let mut origins_max = usize::MAX;
    while let Some(word) = words.next() {
        if word == "--json" {
            json = words.next().map(PathBuf::from);
            continue;
        }
        if word == "--origins" {
            let Some(max) = words.next().and_then(|max| max.parse().ok()) else {
                println!("--origins wants a number of nodes");
                return ExitCode::from(2);
            };
            origins_max = max;
            continue;
        }
        let mesh_only = word.strip_prefix("mesh:");
        let Ok(nodes) = mesh_only.unwrap_or(&word).parse() else {
            println!("{word:?} is no number of nodes");
            return ExitCode::from(2);
        };
        let scale = Scale::shipped(nodes);
        sizes.push(if mesh_only.is_some() {
            scale.without_tree()
        } else {
            scale
        });
    }
    if sizes.is_empty() {
        sizes = SHOWN.map(Scale::shipped).to_vec();
    }
    let (begun, mut rows) = (Instant::now(), Vec::new());
    println!("{}", Row::HEAD);
    for scale in sizes {
        let scale = Scale {
            origins_max,
            ..scale
        };
        match measure(scale, &mut |line| eprintln!("{line}")) {
            Ok(row) => {
                println!("{row}");
                rows.push(row);
            }
            Err(why) => {
                println!("{} nodes: {why}", scale.nodes);
                return ExitCode::FAILURE;
            }
        }
    }
    println!();
    for verdict in judge(&rows) {
        println!("{verdict}");
    }
    println!("simulated in {:.0} s", begun.elapsed().as_secs_f64());
    if let Some(file) = json {
        let folder = file.parent().unwrap_or(Path::new("."));
        let written = std::fs::create_dir_all(folder);
        if let Err(why) = written.and_then(|()| std::fs::write(&file, to_json(&rows))) {
            println!("{}: {why}", file.display());
            return ExitCode::FAILURE;
        }
        println!("written to {}", file.display());
    }
    ExitCode::SUCCESS
}

/// Looks for every planted bug, and prints what found it.
fn mutants(seeds: Range<u64>) -> ExitCode {
    let mut missed = 0;
    println!(
        "| planted bug | found by seed | rule | other rules broken before | clean without it |\n|---|---|---|---|---|"
    );
    for (name, bug) in Bug::ALL {
        let clean = Options {
            bug: None,
            ..Options::hunting(*bug)
        };
        let told = |rules: &BTreeSet<&str>| rules.iter().copied().collect::<Vec<_>>().join(", ");
        match hunt(*bug, seeds.clone()) {
            Ok(Find { seed, rule, others }) => {
                let clean = (seeds.start..=seed).all(|seed| run(seed, clean).failure.is_none());
                missed += usize::from(!clean);
                let clean = if clean { "yes" } else { "NO" };
                println!("| {name} | {seed} | {rule} | {} | {clean} |", told(&others));
            }
            Err(others) => {
                missed += 1;
                let rules = bug.rules().join(", ");
                println!("| {name} | NOT FOUND by {rules} | | {} | |", told(&others));
            }
        }
    }
    if missed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What a command line asks for.
#[derive(Default)]
struct Command {
    options: Options,
    /// All planted bugs, one after the other.
    mutants: bool,
    /// A plan to carry out instead of seeds.
    plan: Option<PathBuf>,
    /// Where plans of failing runs are kept.
    keep: Option<PathBuf>,
}

/// What all runs came to.
#[derive(Default)]
struct Total {
    sometimes: Sometimes,
    operations: usize,
    succeeded: usize,
    converged_after: Vec<Duration>,
    detected: Vec<Duration>,
    mixed: usize,
    void: usize,
}

impl Total {
    fn add(&mut self, report: &Report) {
        self.sometimes.add(&report.sometimes);
        self.operations += report.operations;
        self.succeeded += report.succeeded;
        self.converged_after.push(report.converged_after);
        self.detected.extend(&report.detected);
        self.mixed += usize::from(report.kinds_at_once >= 3);
        self.void += usize::from(report.is_void());
    }

    fn print(mut self) {
        let seeds = self.converged_after.len();
        println!(
            "{seeds} seeds, {} of {} operations took effect; {} void, {} with three kinds of faults at once",
            self.succeeded, self.operations, self.void, self.mixed
        );
        percentiles("agreed after the healing", &mut self.converged_after);
        percentiles("a death was noticed after", &mut self.detected);
        for place in Place::ALL {
            println!("{:>10} {place:?}", self.sometimes.count(*place));
        }
    }
}

fn percentiles(what: &str, times: &mut [Duration]) {
    times.sort();
    let last = times.len().saturating_sub(1);
    let at = |percent: usize| times.get((times.len() * percent / 100).min(last));
    if let (Some(p50), Some(p99), Some(max)) = (at(50), at(99), at(100)) {
        println!(
            "{what}: p50 {p50:?}, p99 {p99:?}, max {max:?} of {}",
            times.len()
        );
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<(Range<u64>, Command), String> {
    let (mut seeds, mut options) = (None, Command::default());
    while let Some(flag) = args.next() {
        let mut value = || args.next().ok_or(format!("{flag} needs a value"));
        match flag.as_str() {
            "--seed" => {
                let seed = number(&value()?)?;
                seeds = Some(seed..seed + 1);
            }
            "--seeds" => seeds = Some(range(&value()?)?),
            "--mode" => match value()?.as_str() {
                "invalidation" => options.options.invalidation = true,
                "replicated" => options.options.invalidation = false,
                other => return Err(format!("no mode {other:?}")),
            },
            "--loads" => options.options.loads = true,
            "--tree" => options.options.tree = true,
            "--full" => options.options.full = true,
            "--audit" => options.options.audit = true,
            "--verbose" => options.options.verbose = true,
            "--plan" => options.plan = Some(value()?.into()),
            "--keep" => options.keep = Some(value()?.into()),
            "--mutants" => options.mutants = true,
            "--bug" => {
                let name = value()?;
                options.options.bug = Some(Bug::by_name(&name).ok_or(format!("no bug {name:?}"))?);
            }
            _ => return Err(format!("unknown argument {flag:?}")),
        }
    }
    if options.plan.is_some() {
        return Ok((0..1, options));
    }
    let seeds = seeds
        .filter(|seeds| !seeds.is_empty())
        .ok_or("which seeds?")?;
    Ok((seeds, options))
}

fn range(text: &str) -> Result<Range<u64>, String> {
    match text.split_once("..") {
        Some((from, to)) => Ok(number(from)?..number(to)?),
        None => Ok(0..number(text)?),
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}
