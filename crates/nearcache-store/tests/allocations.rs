//! A read allocates nothing (ARCHITECTURE.md, invariants): counted by the allocator itself, by thread.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::hint::black_box;

use allocation_counter::measure;
use nearcache_store::{
    Change, CoarseClock, Expiry, Merged, NodeId, Store, StoreConfig, Tags, Timestamp, Version,
    Weigh,
};

const KEYS: u16 = 1_000;

#[derive(Clone)]
struct Bytes(Vec<u8>);

impl Weigh for Bytes {
    fn weight(&self) -> usize {
        self.0.len()
    }
}

fn version(counter: u16) -> Version {
    Version::new(Timestamp::from_parts(1_000, counter), NodeId::from_u64(1))
}

fn filled() -> Store<Bytes> {
    let store = Store::new(StoreConfig::new(64 << 20), CoarseClock::new(1_000)).unwrap();
    for key in 0..KEYS {
        let change = Change::Put {
            value: Bytes(vec![1; 100]),
            expiry: Expiry::at_millis(1_000_000),
            tags: Tags::new(["even", "odd"]).unwrap(),
        };
        let merged = store
            .merge(&key.to_be_bytes(), version(key + 1), change)
            .unwrap();
        assert!(matches!(merged, Merged::Applied { .. }));
    }
    store
}

#[test]
fn the_counter_counts() {
    let counted = measure(|| drop(black_box(Vec::<u8>::with_capacity(100))));
    assert_eq!((counted.count_total, counted.bytes_total), (1, 100));
}

#[test]
fn reads_of_the_store_allocate_nothing() {
    let store = filled();
    let counted = measure(|| {
        for key in 0..2 * KEYS {
            let key = key.to_be_bytes();
            black_box(store.get(&key).map(|entry| entry.version()));
            black_box(store.peek(&key).map(|entry| entry.expiry()));
        }
    });
    assert_eq!(counted.count_total, 0, "{counted:?}");
}
