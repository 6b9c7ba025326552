use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use super::*;
use crate::{Change, CoarseClock, Expiry, NodeId, StoreConfig, Tags, Timestamp};

fn version(n: u64) -> Version {
    Version::new(Timestamp::from_u64(n), NodeId::from_u64(1))
}

fn store(max_bytes: u64) -> Store<u64> {
    let config = StoreConfig {
        shards: NonZeroUsize::new(4),
        digest_key: Some([7; 16]),
        ..StoreConfig::new(max_bytes)
    };
    Store::new(config, CoarseClock::new(1_000)).unwrap()
}

fn put(store: &Store<u64>, n: u64, v: u64) {
    let change = Change::Put {
        value: n,
        expiry: Expiry::NEVER,
        tags: Tags::NONE,
    };
    let _ = store.merge(&n.to_be_bytes(), version(v), change).unwrap();
}

fn all(store: &Store<u64>, parts: LeafSet) -> Vec<PartItem<u64>> {
    let (mut walk, mut found) = (PartWalk::new(parts, None), Vec::new());
    while !walk.is_done() {
        found.extend(store.walk_part(&mut walk, 10));
    }
    found
}

fn keys(found: &[PartItem<u64>]) -> Vec<u64> {
    let held = found.iter().filter_map(|item| match item {
        PartItem::Held(item) => Some(u64::from_be_bytes(item.key().try_into().unwrap())),
        PartItem::Evicted { .. } => None,
    });
    held.collect()
}

#[test]
fn parts_are_disjoint_and_together_everything() {
    let store = store(4 << 20);
    (0..2_000).for_each(|n| put(&store, n, 10));
    for n in 0..100_u64 {
        let _ = store
            .merge(&n.to_be_bytes(), version(20), Change::Remove)
            .unwrap();
    }
    let mut seen = BTreeMap::<u64, usize>::new();
    for part in 0..64 {
        let found = all(&store, LeafSet::new(6, [part]).unwrap());
        keys(&found)
            .into_iter()
            .for_each(|key| *seen.entry(key).or_default() += 1);
    }
    assert_eq!(seen, (0..2_000).map(|n| (n, 1)).collect());
    let found = all(&store, LeafSet::new(0, [0]).unwrap());
    assert_eq!(keys(&found).len(), 2_000);
}

#[test]
fn what_was_read_comes_first_and_once() {
    let store = store(4 << 20);
    (0..2_000).for_each(|n| put(&store, n, 10));
    let read: BTreeSet<u64> = (0..2_000).filter(|n| n % 10 == 3).collect();
    for key in &read {
        assert!(store.get(&key.to_be_bytes()).is_some());
    }
    let found = keys(&all(&store, LeafSet::new(0, [0]).unwrap()));
    assert_eq!(found.len(), 2_000);
    assert_eq!(found[..200].iter().copied().collect::<BTreeSet<_>>(), read);
}

#[test]
fn everything_present_throughout_is_found_while_others_write_and_read() {
    let store = store(4 << 20);
    (0..1_000).for_each(|n| put(&store, n, 10));
    let (mut walk, mut seen) = (
        PartWalk::new(LeafSet::new(0, [0]).unwrap(), None),
        BTreeSet::new(),
    );
    let mut round = 0;
    while !walk.is_done() {
        seen.extend(keys(&store.walk_part(&mut walk, 7)));
        put(&store, round % 1_000, 100 + round);
        let _ = store.get(&(round * 7 % 1_000).to_be_bytes());
        put(&store, 5_000 + round, 100 + round);
        let change = Change::Remove;
        let _ = store
            .merge(
                &(5_000 + round / 2).to_be_bytes(),
                version(200 + round),
                change,
            )
            .unwrap();
        round += 1;
    }
    assert!((0..1_000).all(|n| seen.contains(&n)));
}

#[test]
fn a_walk_that_goes_on_from_a_cursor_misses_nothing() {
    let store = store(4 << 20);
    (0..1_000).for_each(|n| put(&store, n, 10));
    for n in 0..300_u64 {
        let _ = store.get(&n.to_be_bytes());
    }
    let parts = || LeafSet::new(0, [0]).unwrap();
    let (mut walk, mut seen, mut round) = (PartWalk::new(parts(), None), BTreeSet::new(), 0);
    while !walk.is_done() {
        let cursor = walk.cursor();
        let found = store.walk_part(&mut walk, 50);
        round += 1;
        if round % 3 == 0 {
            // These were lost on their way.
            walk = PartWalk::new(parts(), Some(cursor));
            if round > 60 {
                round = 1;
            }
            seen.extend(keys(&store.walk_part(&mut walk, 50)));
        } else {
            seen.extend(keys(&found));
        }
    }
    assert_eq!(seen.len(), 1_000);
}

#[test]
fn a_cursor_that_no_walk_gave_out_is_harmless() {
    let store = store(4 << 20);
    put(&store, 1, 10);
    for cursor in [1, u64::MAX, 1 << 61, (2 << 61) | 99, (3 << 61) | (1 << 50)] {
        let mut walk = PartWalk::new(LeafSet::new(0, [0]).unwrap(), Some(cursor));
        while !walk.is_done() {
            store.walk_part(&mut walk, 10);
        }
    }
}

#[test]
fn floors_of_evicted_keys_come_before_all_else() {
    let store = store(64 << 10);
    (0..2_000).for_each(|n| put(&store, n, 10 + n));
    assert!(store.stats().evictions > 0);
    let found = all(&store, LeafSet::new(0, [0]).unwrap());
    let first = found
        .iter()
        .position(|item| matches!(item, PartItem::Held(_)))
        .unwrap();
    assert_eq!(first as u64, store.stats().key_floors);
}
