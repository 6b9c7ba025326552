//! The proof that the checkers bite: each rule taken out of the code is found within a thousand seeds,
//! by seeds that are clean with the rule in place.

use nearcache_sim::{Bug, Options, run};

const SEEDS: u64 = 1_000;

#[test]
fn every_planted_bug_is_found_by_a_seed_that_is_clean_without_it() {
    for (name, bug) in Bug::ALL {
        let options = Options::hunting(*bug);
        let clean = Options {
            bug: None,
            ..options
        };
        let found = (0..SEEDS).find(|seed| run(*seed, options).failure.is_some());
        let seed = found.unwrap_or_else(|| panic!("{name} was not found in {SEEDS} seeds"));
        let clean = run(seed, clean);
        assert!(
            clean.failure.is_none(),
            "seed {seed} fails without {name} too"
        );
    }
}
