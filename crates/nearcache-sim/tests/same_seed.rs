//! A seed is worth nothing if it does not bring back the run that it was printed for.

use nearcache_sim::{Options, run};

/// Every kind of run, by name.
fn kinds() -> Vec<(&'static str, Options)> {
    let plain = Options::default();
    let with = |change: fn(&mut Options)| {
        let mut options = plain;
        change(&mut options);
        options
    };
    vec![
        ("replicated", plain),
        ("invalidation", with(|o| o.invalidation = true)),
        ("loads", with(|o| o.loads = true)),
        ("audit", with(|o| o.audit = true)),
        ("tree", with(|o| o.tree = true)),
        (
            "tree, invalidation",
            with(|o| (o.tree, o.invalidation) = (true, true)),
        ),
        ("tree, loads", with(|o| (o.tree, o.loads) = (true, true))),
        ("full", with(|o| o.full = true)),
        ("full, loads", with(|o| (o.full, o.loads) = (true, true))),
    ]
}

#[test]
fn k11_same_seed_twice_is_the_same_run_to_the_last_event_in_every_kind_of_run() {
    for (kind, options) in kinds() {
        let seeds = if kind == "replicated" { 50 } else { 12 };
        for seed in 0..seeds {
            let (first, second) = (run(seed, options), run(seed, options));
            assert_eq!(first.trace_hash, second.trace_hash, "{kind}, seed {seed}");
            assert_eq!(first.sometimes, second.sometimes, "{kind}, seed {seed}");
            assert_eq!(
                first.converged_after, second.converged_after,
                "{kind}, seed {seed}"
            );
        }
    }
}

#[test]
fn k11_other_seed_is_another_run_and_so_is_another_kind() {
    for (kind, options) in kinds() {
        let hash = |seed| run(seed, options).trace_hash;
        assert_ne!(hash(2), hash(4), "{kind}");
    }
}
