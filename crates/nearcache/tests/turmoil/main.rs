//! The real asynchronous shell (nodes, caches, sessions, timers) on turmoil's simulated network and time.
//!
//! What the protocol's own simulator leaves out is what this layer is for: tasks, connections, deadlines, and what falls between
//! them. Needs the feature `turmoil`: `cargo xtask test --only turmoil`. One seed again, with all that happens:
//!
//! ```sh
//! NEARCACHE_TURMOIL_SEEDS=7..8 NEARCACHE_TURMOIL_TRACE=1 \
//!     cargo test -p nearcache --features turmoil --test turmoil seeds -- --nocapture
//! ```

#![expect(
    clippy::print_stdout,
    reason = "what a failed seed broke, and its trace"
)]

mod history;
mod host;
mod plan;
mod run;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::history::Broken;
use crate::plan::Plan;
use crate::run::Bug;

/// Seeds of the test command.
const SEEDS: u64 = 100;

/// The same of runs along a tree, each of which costs as much as a few others.
const TREE_SEEDS: u64 = 30;

fn seeds_asked_for(variable: &str, seeds: u64) -> Range<u64> {
    let asked = std::env::var(variable).ok();
    let range = asked.as_deref().and_then(|text| text.split_once(".."));
    let range = range.and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    range.unwrap_or(0..seeds)
}

/// Runs the seeds on all processors; returns those that broke a rule, with the rule. With a planted bug one of them is enough.
fn play(seeds: Range<u64>, bug: Bug, draw: fn(u64) -> Plan) -> Vec<(u64, Broken)> {
    let next = AtomicU64::new(seeds.start);
    let found = Mutex::new(Vec::new());
    let slowest = Mutex::new(Duration::ZERO);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let is_enough = bug != Bug::None && !found.lock().is_empty();
            if seed >= seeds.end || is_enough {
                return;
            }
            match run::run(draw(seed), bug) {
                Ok(report) => {
                    assert!(
                        report.ended > 50 && report.hits > 1_000,
                        "{report:?} is no run"
                    );
                    let mut slowest = slowest.lock();
                    *slowest = report.agreed_after.max(*slowest);
                }
                Err(broken) => found.lock().push((seed, broken)),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..processors {
            scope.spawn(work);
        }
    });
    if bug == Bug::None {
        println!(
            "the nodes agreed after {:?} at the latest",
            slowest.into_inner()
        );
    }
    let mut found = found.into_inner();
    found.sort_by_key(|(seed, _)| *seed);
    found
}

#[test]
fn seeds_hold_every_rule() {
    let variable = "NEARCACHE_TURMOIL_SEEDS";
    judge(
        variable,
        "seeds",
        seeds_asked_for(variable, SEEDS),
        Plan::draw,
    );
}

#[test]
fn seeds_along_the_tree_hold_every_rule() {
    let variable = "NEARCACHE_TURMOIL_TREE_SEEDS";
    let seeds = seeds_asked_for(variable, TREE_SEEDS);
    judge(variable, "seeds_along", seeds, Plan::draw_tree);
}

fn judge(variable: &str, filter: &str, seeds: Range<u64>, draw: fn(u64) -> Plan) {
    let broken = play(seeds, Bug::None, draw);
    for (seed, broken) in &broken {
        println!("seed {seed} breaks {}: {}", broken.rule, broken.what);
        println!("    {:?}", draw(*seed).faults);
        println!(
            "    again: {variable}={seed}..{} NEARCACHE_TURMOIL_TRACE=1 \
             cargo test -p nearcache --features turmoil --test turmoil {filter} -- --nocapture",
            seed + 1
        );
    }
    assert!(broken.is_empty(), "{} seeds broke a rule", broken.len());
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let repeatable = |seed: &u64| Plan::draw(*seed).is_repeatable();
    for seed in (0..SEEDS).filter(repeatable).take(6) {
        let runs = [(); 2].map(|()| run::run(Plan::draw(seed), Bug::None).ok());
        assert_eq!(runs[0], runs[1], "seed {seed}");
    }
}

/// The seeds are clean without them, as the test above shows. The protocol's other bugs need gaps, which connections that keep order
/// do not have: `nearcache-sim` finds those.
#[test]
fn planted_bugs_are_found() {
    for bug in [Bug::Tombstones, Bug::Silence] {
        let found = play(0..SEEDS, bug, Plan::draw);
        for (seed, broken) in &found {
            println!("{bug:?} breaks {} with seed {seed}", broken.rule);
        }
        assert!(!found.is_empty(), "{bug:?} is not found");
    }
}
