use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use super::*;
use crate::{Change, CoarseClock, Expiry, NodeId, StoreConfig, Tags, Timestamp};

fn version(n: u64) -> Version {
    Version::new(Timestamp::from_u64(n), NodeId::from_u64(1))
}

fn store() -> Store<u64> {
    let config = StoreConfig {
        shards: NonZeroUsize::new(4),
        ..StoreConfig::new(4 << 20)
    };
    Store::new(config, CoarseClock::new(1_000)).unwrap()
}

fn put(store: &Store<u64>, n: u64, v: u64) {
    let change = Change::Put {
        value: n,
        expiry: Expiry::NEVER,
        tags: Tags::NONE,
    };
    assert!(
        store
            .merge(&n.to_be_bytes(), version(v), change)
            .unwrap()
            .is_applied()
    );
}

fn keys_of(items: &[Item<u64>]) -> impl Iterator<Item = u64> {
    items
        .iter()
        .map(|i| u64::from_be_bytes(i.key().try_into().unwrap()))
}

#[test]
fn walk_returns_everything_present_throughout_while_others_write() {
    let store = store();
    (0..1000).for_each(|n| put(&store, n, 10));
    (1000_u64..1100).for_each(|n| {
        let _ = store
            .merge(&n.to_be_bytes(), version(10), Change::Remove)
            .unwrap();
    });
    let mut seen = BTreeSet::new();
    let mut cursor = Some(WalkCursor::START);
    let mut round = 0_u64;
    while let Some(at) = cursor {
        let (items, next) = store.walk(at, 7);
        assert!(items.len() <= 7);
        seen.extend(keys_of(&items));
        // Newer versions, keys that come and go, tombstones that come and go.
        put(&store, round % 1000, 100 + round);
        put(&store, 5_000 + round, 100 + round);
        let _ = store.merge(
            &(5_000 + round / 2).to_be_bytes(),
            version(200 + round),
            Change::Remove,
        );
        round += 1;
        cursor = next;
    }
    assert!(
        (0..1100).all(|n| seen.contains(&n)),
        "missing: {:?}",
        (0..1100).find(|n| !seen.contains(n))
    );
}

#[test]
fn walk_without_writers_returns_each_item_once() {
    let store = store();
    (0..500).for_each(|n| put(&store, n, 10));
    let _ = store
        .merge(&7_u64.to_be_bytes(), version(11), Change::Remove)
        .unwrap();
    let (mut all, mut cursor) = (Vec::new(), Some(WalkCursor::START));
    while let Some(at) = cursor {
        let (items, next) = store.walk(at, 100);
        all.extend(keys_of(&items));
        cursor = next;
    }
    all.sort_unstable();
    assert_eq!(all, (0..500).collect::<Vec<_>>());
}

#[test]
fn cursor_that_no_walk_gave_out_is_harmless() {
    let store = store();
    put(&store, 1, 10);
    for cursor in [1, 1 << 47, (1 << 47) + 99, 1 << 48, u64::MAX, 3 << 48] {
        let (items, _) = store.walk(WalkCursor::from_u64(cursor), 10);
        assert!(items.len() <= 1);
    }
}

#[test]
fn empty_store_is_walked_at_once() {
    let (items, next) = store().walk(WalkCursor::START, 10);
    assert!(items.is_empty() && next.is_none());
}
