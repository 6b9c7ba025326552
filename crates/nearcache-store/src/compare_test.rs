use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::digest::Digest;
use crate::{Change, CoarseClock, Expiry, NodeId, StoreConfig, Tags, Timestamp};

type Bytes = Box<[u8]>;

const KEY: [u8; 16] = *b"the cluster's   ";
const START_MS: u64 = 1_000_000;

/// One update, as it could reach a store.
#[derive(Clone, Debug)]
enum Update {
    Put(u8, Option<u64>, Option<u8>, usize),
    Remove(u8),
    Invalidate(Scope),
}

fn updates(max: usize) -> impl Strategy<Value = Vec<Update>> {
    let scope = prop_oneof![
        Just(Scope::All),
        (0_u8..4).prop_map(|n| Scope::Prefix([b'k', n].into())),
        (0_u8..3).prop_map(|n| Scope::Tag([n].into())),
    ];
    let update = prop_oneof![
        20 => (any::<u8>(), prop::option::weighted(0.3, 0_u64..2_000), prop::option::of(0_u8..3), 0_usize..300)
            .prop_map(|(key, ttl, tag, len)| Update::Put(key, ttl, tag, len)),
        6 => any::<u8>().prop_map(Update::Remove),
        1 => scope.prop_map(Update::Invalidate),
    ];
    prop::collection::vec(update, 0..max)
}

fn key(n: u8) -> [u8; 3] {
    [b'k', n % 4, n]
}

/// The version of the update with this number.
fn version(number: usize) -> Version {
    Version::new(
        Timestamp::from_parts(START_MS + number as u64, 0),
        NodeId::from_u64(1),
    )
}

fn store(max_bytes: u64, seed: u64, time_to_idle: Option<Duration>) -> Store<Bytes> {
    let config = StoreConfig {
        shards: NonZeroUsize::new(1),
        digest_key: Some(KEY),
        hash_seed: seed,
        time_to_idle,
        ..StoreConfig::new(max_bytes)
    };
    Store::new(config, CoarseClock::new(START_MS)).unwrap()
}

fn apply(store: &Store<Bytes>, number: usize, update: &Update) {
    let change = match update {
        Update::Put(_, ttl, tag, len) => Change::Put {
            value: vec![0; *len].into(),
            expiry: ttl.map_or(Expiry::NEVER, |ttl| Expiry::at_millis(START_MS + ttl)),
            tags: Tags::new(tag.map(|tag| [tag])).unwrap(),
        },
        Update::Remove(_) => Change::Remove,
        Update::Invalidate(scope) => {
            store.invalidate(scope.clone(), version(number));
            return;
        }
    };
    if let Update::Put(n, ..) | Update::Remove(n) = update {
        let _ = store.merge(&key(*n), version(number), change);
    }
}

/// Lets the store do all its chores.
fn settle(store: &Store<Bytes>, now_ms: u64) {
    store.clock().set(now_ms);
    for _ in 0..8 {
        store.tick(10_000);
    }
}

fn list_all(store: &Store<Bytes>) -> Vec<Listed> {
    let all = LeafSet::new(0, [0]).unwrap();
    let (mut listed, mut cursor) = (Vec::new(), Some(ListCursor::default()));
    while let Some(at) = cursor {
        let (more, next) = store.list(at, &all, 1);
        listed.extend(more);
        cursor = next;
    }
    listed
}

/// The digest that a store should have, from the list of what it knows.
fn digest_of(listed: &[Listed], max_bytes: u64) -> Vec<u64> {
    let digest = Digest::new(KEY, max_bytes);
    for one in listed {
        match one {
            Listed::Held { key, version } => digest.add(digest.hash(key), *version),
            Listed::Evicted { key_hash, version } => digest.add(*key_hash, *version),
        }
    }
    LeafRange::ALL
        .parts(8)
        .map(|leaf| digest.sum(leaf))
        .collect()
}

fn leaves(store: &Store<Bytes>) -> Vec<u64> {
    LeafRange::ALL
        .parts(8)
        .map(|leaf| store.digest_sum(leaf))
        .collect()
}

fn held(store: &Store<Bytes>) -> BTreeMap<Box<[u8]>, Version> {
    let held = list_all(store).into_iter().filter_map(|one| match one {
        Listed::Held { key, version } => Some((key, version)),
        Listed::Evicted { .. } => None,
    });
    held.collect()
}

proptest! {
    #[test]
    fn r11_digests_are_equal_if_and_only_if_the_stores_know_the_same(
        updates in updates(80),
        order in any::<prop::sample::Index>(),
        missing in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        now_ms in START_MS..START_MS + 3_000,
    ) {
        let (a, b) = (store(1 << 20, 1, None), store(1 << 20, 2, None));
        let told: Vec<_> = updates.iter().enumerate().collect();
        for (number, update) in &told {
            apply(&a, *number, update);
        }
        // In another order, some of them twice and some not at all.
        let missing: Vec<_> = missing.iter().filter(|_| !told.is_empty()).map(|n| n.index(told.len())).collect();
        let turn = if told.is_empty() { 0 } else { order.index(told.len()) };
        let rotated = told[turn..].iter().chain(&told[..turn]).rev().chain(&told[turn..]);
        for (number, update) in rotated.filter(|(number, _)| !missing.contains(number)) {
            apply(&b, *number, update);
        }
        settle(&a, now_ms);
        settle(&b, now_ms);
        let same = held(&a) == held(&b);
        prop_assert_eq!(leaves(&a) == leaves(&b), same);
        prop_assert_eq!(a.floors_digest() == b.floors_digest(), a.floors() == b.floors());
        if missing.is_empty() {
            prop_assert!(same);
        }
    }

    #[test]
    fn r10_digest_is_that_of_the_list_through_evictions_and_all_that_is_folded(
        updates in updates(600),
        ticks in prop::collection::vec(START_MS..START_MS + 3_000, 0..4),
        idle in any::<bool>(),
    ) {
        // Room for some dozens: entries are evicted, floors and tombstones folded.
        let max_bytes = StoreConfig::BYTES_MIN;
        let store = store(max_bytes, 3, idle.then_some(Duration::from_secs(1)));
        let mut now_ms = START_MS;
        let step = (updates.len() / (ticks.len() + 1)).max(1);
        for (number, update) in updates.iter().enumerate() {
            apply(&store, number, update);
            if number % step == 0 && let Some(tick) = ticks.get(number / step) {
                now_ms = now_ms.max(*tick);
                settle(&store, now_ms);
            }
        }
        settle(&store, now_ms);
        prop_assert_eq!(leaves(&store), digest_of(&list_all(&store), max_bytes));
    }
}

#[test]
fn r10_eviction_leaves_the_digest_as_it_is_while_the_floor_is_known_exactly() {
    let roomy = store(1 << 20, 1, None);
    let tight = store(64 << 10, 2, None);
    for number in 0..120 {
        let update = Update::Put(u8::try_from(number).unwrap(), None, None, 600);
        apply(&roomy, number, &update);
        apply(&tight, number, &update);
    }
    let evicted = tight.stats().evictions;
    assert!(evicted > 10, "{evicted}");
    let mut same = 0;
    for leaf in LeafRange::ALL.parts(8) {
        let equal = roomy.digest_sum(leaf) == tight.digest_sum(leaf);
        assert!(equal || tight.digest_is_lossy(leaf), "{leaf:?}");
        same += usize::from(equal);
    }
    // Few floors had to be folded: almost all leaves are equal although a tenth of the keys is gone.
    let folded = tight.stats().key_floors_folded;
    assert!(
        same as u64 >= 256 - folded,
        "{same} of 256, {folded} folded"
    );
    // And what was evicted is not asked for again, though a merge would let it in.
    for number in 0..120 {
        assert!(!tight.lacks(&key(u8::try_from(number).unwrap()), version(number)));
        assert!(tight.lacks(&key(u8::try_from(number).unwrap()), version(1_000)));
    }
}

#[test]
fn c2_what_a_peer_evicted_at_a_later_version_is_dropped() {
    let store = store(1 << 20, 1, None);
    apply(&store, 5, &Update::Put(1, None, None, 10));
    assert!(store.forget(&key(1), version(7)));
    assert!(store.get(&key(1)).is_none());
    apply(&store, 6, &Update::Put(1, None, None, 10));
    assert!(store.get(&key(1)).is_none(), "older than what the peer had");
    assert_eq!(leaves(&store), digest_of(&list_all(&store), 1 << 20));
}

#[test]
fn r4_what_is_too_old_is_neither_remembered_nor_told() {
    let store = store(1 << 20, 1, None);
    apply(&store, 1, &Update::Remove(1));
    store.invalidate(Scope::Tag([1].into()), version(1));
    assert_eq!(
        (store.tombstones(), store.remembered_floors().len()),
        (1, 1)
    );
    let ttl_ms = u64::try_from(StoreConfig::new(1 << 20).tombstone_ttl.as_millis()).unwrap();
    store.clock().set(START_MS + 1 + ttl_ms);
    assert!(list_all(&store).is_empty() && store.remembered_floors().is_empty());
    settle(&store, START_MS + 1 + ttl_ms);
    assert_eq!((store.tombstones(), store.floors().len()), (0, 0));
    // A peer whose clock is behind sends it once more.
    apply(&store, 1, &Update::Remove(1));
    assert_eq!(store.tombstones(), 0);
    assert_eq!(leaves(&store), vec![0; 256]);
}

#[test]
fn list_is_of_the_ranges_asked_for_and_of_nothing_else() {
    let store = store(1 << 20, 1, None);
    for n in 0..200 {
        apply(&store, usize::from(n), &Update::Put(n, None, None, 1));
    }
    let half = LeafSet::new(1, [1]).unwrap();
    let (listed, next) = store.list(ListCursor::default(), &half, 1 << 20);
    assert_eq!(next, None);
    let expected = (0..200).filter(|n| {
        store
            .digest_hash(&key(*n))
            .is_some_and(|hash| hash >> 63 == 1)
    });
    assert_eq!(listed.len(), expected.count());
}
