//! The proof that the checkers bite: each rule taken out of the code is found within a thousand seeds,
//! by seeds that are clean with the rule in place.

#![expect(clippy::panic, reason = "a test fails by panicking")]

use nearcache_sim::{Bug, Options, run};

const SEEDS: u64 = 1_000;

/// The first seed that finds the bug, and the rule that it names.
fn found(bug: Bug) -> (u64, &'static str) {
    let options = Options {
        bug: Some(bug),
        verbose: false,
    };
    let seed = (0..SEEDS).find_map(|seed| {
        let failure = run(seed, options).failure?;
        Some((seed, failure.violation.rule))
    });
    let (seed, rule) = seed.unwrap_or_else(|| panic!("{bug:?} was not found in {SEEDS} seeds"));
    let clean = run(seed, Options::default());
    assert!(
        clean.failure.is_none(),
        "seed {seed} fails without {bug:?} too"
    );
    (seed, rule)
}

#[test]
fn merge_without_version_check_is_found() {
    let (_, rule) = found(Bug::NoVersionCheck);
    assert!(["C2", "C4", "R1", "R2", "R3"].contains(&rule), "{rule}");
}

#[test]
fn removal_without_tombstone_is_found() {
    let (_, rule) = found(Bug::NoTombstones);
    assert!(["C2", "R1", "R2", "R3"].contains(&rule), "{rule}");
}

#[test]
fn group_invalidation_without_floor_is_found() {
    let (_, rule) = found(Bug::NoGroupFloors);
    assert!(["C4", "R1", "R2", "R3"].contains(&rule), "{rule}");
}

#[test]
fn r6_a_restarted_node_that_stamps_at_once_is_found() {
    assert_eq!(found(Bug::StampsAtOnce).1, "R6");
}
