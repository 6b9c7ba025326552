//! The proof that the checkers bite: each rule taken out of the code is found within a thousand seeds, by a checker of a rule that is
//! about it, in seeds that are clean with the rule in place.

use nearcache_sim::{Bug, Options, hunt, run};

const SEEDS: u64 = 1_000;

#[test]
fn every_planted_bug_is_found_by_a_rule_about_it_in_a_seed_that_is_clean_without_it() {
    for (name, bug) in Bug::ALL {
        let found = hunt(*bug, 0..SEEDS);
        let found = found.unwrap_or_else(|others| {
            panic!("{name} was not found in {SEEDS} seeds, but these: {others:?}")
        });
        let clean = Options {
            bug: None,
            ..Options::hunting(*bug)
        };
        let clean = run(found.seed, clean);
        assert!(
            clean.failure.is_none(),
            "seed {} fails without {name} too",
            found.seed
        );
    }
}
