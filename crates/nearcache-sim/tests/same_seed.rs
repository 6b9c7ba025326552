//! A seed is worth nothing if it does not bring back the run that it was printed for.

use nearcache_sim::{Options, run};

#[test]
fn same_seed_twice_is_the_same_run_to_the_last_event() {
    for seed in 0..50 {
        let (first, second) = (run(seed, Options::default()), run(seed, Options::default()));
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
        assert_eq!(first.sometimes, second.sometimes, "seed {seed}");
        assert_eq!(first.converged_after, second.converged_after, "seed {seed}");
    }
}

#[test]
fn other_seed_is_another_run() {
    let hash = |seed| run(seed, Options::default()).trace_hash;
    assert_ne!(hash(1), hash(2));
}
