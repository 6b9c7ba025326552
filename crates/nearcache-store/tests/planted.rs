//! Each planted bug breaks the rule it names, and a store without it does not.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::num::NonZeroUsize;

use nearcache_store::{
    Change, CoarseClock, Expiry, NodeId, PlantedBug, Scope, Store, StoreConfig, Tags, Timestamp,
    Version,
};

type Bytes = Box<[u8]>;

fn version(n: u64) -> Version {
    Version::new(Timestamp::from_u64(n), NodeId::from_u64(1))
}

fn put(store: &Store<Bytes>, key: &[u8], n: u64) -> bool {
    let change = Change::Put {
        value: vec![0; 1000].into(),
        expiry: Expiry::NEVER,
        tags: Tags::NONE,
    };
    store.merge(key, version(n), change).unwrap().is_applied()
}

/// Does a store with `bug` take in the last update of `story`, which a sound one refuses?
fn breaks(bug: PlantedBug, story: impl Fn(&Store<Bytes>) -> bool) -> bool {
    let store = || {
        let config = StoreConfig {
            shards: NonZeroUsize::new(1),
            ..StoreConfig::new(64 << 10)
        };
        Store::new(config, CoarseClock::new(1_000)).unwrap()
    };
    let (sound, broken) = (store(), store());
    broken.plant(bug);
    !story(&sound) && story(&broken)
}

#[test]
fn no_version_check_lets_an_older_value_replace_a_newer_one() {
    assert!(breaks(PlantedBug::NoVersionCheck, |store| {
        put(store, b"k", 2);
        put(store, b"k", 1)
    }));
}

#[test]
fn no_tombstones_lets_a_removed_key_come_back() {
    assert!(breaks(PlantedBug::NoTombstones, |store| {
        put(store, b"k", 1);
        let _ = store.merge(b"k", version(3), Change::Remove).unwrap();
        put(store, b"k", 2)
    }));
}

#[test]
fn no_key_floors_lets_an_older_value_of_an_evicted_key_in() {
    assert!(breaks(PlantedBug::NoKeyFloors, |store| {
        for key in 0..200_u8 {
            put(store, &[key], 10);
        }
        let evicted = (0..200_u8)
            .find(|key| store.peek(&[*key]).is_none())
            .unwrap();
        put(store, &[evicted], 9)
    }));
}

#[test]
fn no_group_floors_lets_a_late_arrival_in() {
    assert!(breaks(PlantedBug::NoGroupFloors, |store| {
        store.invalidate(Scope::Prefix((*b"k").into()), version(5));
        put(store, b"k", 4)
    }));
}
