use std::num::NonZeroUsize;

use crate::{
    Change, CoarseClock, Expiry, LeafRange, LeafSet, Merged, NodeId, PartItem, PartWalk, Scope,
    Store, StoreConfig, Tags, Timestamp, Version,
};

fn version(ms: u64) -> Version {
    Version::new(Timestamp::from_parts(ms, 0), NodeId::from_u64(1))
}

fn store(max_bytes: u64) -> Store<u64> {
    let config = StoreConfig {
        shards: NonZeroUsize::new(4),
        digest_key: Some([7; 16]),
        key_floor_percent: 30,
        ..StoreConfig::new(max_bytes)
    };
    Store::new(config, CoarseClock::new(1_000)).unwrap()
}

fn put(store: &Store<u64>, n: u64, ms: u64) -> bool {
    let change = Change::Put {
        value: n,
        expiry: Expiry::NEVER,
        tags: Tags::NONE,
    };
    let merged = store.merge(&n.to_be_bytes(), version(ms), change).unwrap();
    matches!(merged, Merged::Applied { .. })
}

fn hash(store: &Store<u64>, n: u64) -> u64 {
    store.digest_hash(&n.to_be_bytes()).unwrap()
}

fn sum(store: &Store<u64>) -> u64 {
    store.digest_sum(LeafRange::ALL)
}

#[test]
fn c2_nothing_older_than_what_another_node_evicted_comes_in() {
    let store = store(1 << 20);
    store.tell_floor(hash(&store, 1), version(9));
    assert!(!put(&store, 1, 8));
    assert_eq!(store.evicted(&1_u64.to_be_bytes()), Some(version(9)));
    assert!(put(&store, 1, 9), "the evicted version itself may");
    assert!(put(&store, 2, 1), "other keys are not concerned");
    assert_eq!(store.evicted(&1_u64.to_be_bytes()), None);
}

#[test]
fn c2_an_older_entry_that_was_here_first_goes_with_the_next_ticks() {
    let store = store(1 << 20);
    (0..500).for_each(|n| assert!(put(&store, n, 5)));
    (0..100).for_each(|n| store.tell_floor(hash(&store, n), version(9)));
    (0..100).for_each(|_| store.tick(64));
    assert!((0..100_u64).all(|n| store.peek(&n.to_be_bytes()).is_none()));
    assert_eq!(store.len(), 400);
    assert!(!put(&store, 7, 8));
}

#[test]
fn r10_the_digest_of_who_was_told_is_that_of_who_evicted() {
    let (small, large) = (store(128 << 10), store(4 << 20));
    let count = (0..).find(|n| {
        assert!(put(&small, *n, 5 + n));
        small.stats().evictions >= 10
    });
    let count = count.unwrap() + 1;
    // Some of it is here already, in any order with the floors.
    (0..count)
        .filter(|n| n % 3 == 0)
        .for_each(|n| assert!(put(&large, n, 5 + n)));
    let mut walk = PartWalk::new(LeafSet::new(0, [0]).unwrap(), None);
    while !walk.is_done() {
        for item in small.walk_part(&mut walk, 100) {
            match item {
                PartItem::Evicted { key_hash, version } => large.tell_floor(key_hash, version),
                PartItem::Held(item) => {
                    let n = u64::from_be_bytes(item.key().try_into().unwrap());
                    put(&large, n, 5 + n);
                }
            }
        }
    }
    (0..200).for_each(|_| large.tick(64));
    let leaves: Vec<LeafRange> = LeafRange::ALL.parts(8).collect();
    let exact =
        |leaf: &&LeafRange| !small.digest_is_lossy(**leaf) && !large.digest_is_lossy(**leaf);
    assert!(
        leaves.iter().filter(exact).count() > 200,
        "few had to be folded"
    );
    for leaf in leaves.iter().filter(exact) {
        assert_eq!(small.digest_sum(*leaf), large.digest_sum(*leaf), "{leaf:?}");
    }
    // And again once the keys have come back.
    (0..count).for_each(|n| {
        put(&large, n, 10_000);
    });
    let reference = store(4 << 20);
    (0..count).for_each(|n| assert!(put(&reference, n, 10_000)));
    assert_eq!(sum(&large), sum(&reference));
}

#[test]
fn c9_what_was_told_counts_against_the_bound() {
    let store = store(256 << 10);
    (0..20_000).for_each(|n| store.tell_floor(hash(&store, n), version(n + 1)));
    (0..20_000).for_each(|n| {
        put(&store, n, 50_000);
    });
    assert!(
        store.weight_bytes() <= store.max_bytes(),
        "{}",
        store.weight_bytes()
    );
    // Also those that had to make room for others stand.
    (0..20_000_u64)
        .for_each(|n| assert!(store.peek(&n.to_be_bytes()).is_some() || !put(&store, n, 1)));
}

#[test]
fn a_clear_drops_what_was_told_before_it() {
    let store = store(1 << 20);
    store.tell_floor(hash(&store, 1), version(9));
    assert!(store.invalidate(Scope::All, version(10)));
    assert_eq!(store.evicted(&1_u64.to_be_bytes()), None);
    assert_eq!(sum(&store), 0);
}
