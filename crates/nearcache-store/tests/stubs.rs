//! Entries whose value is not here: what they keep out, and how their value comes in.

#![expect(clippy::unwrap_used, reason = "tests")]

use nearcache_store::{
    Change, CoarseClock, Expiry, Known, Merged, NodeId, Scope, Store, StoreConfig, Tags, Timestamp,
    Version,
};
use proptest::prelude::*;

const START_MS: u64 = 1_000;

fn version(n: u64) -> Version {
    Version::new(Timestamp::from_parts(START_MS + n, 0), NodeId::from_u64(1))
}

fn store() -> Store<Vec<u8>> {
    let mut config = StoreConfig::new(1 << 20);
    config.digest_key = Some([7; 16]);
    Store::new(config, CoarseClock::new(START_MS)).unwrap()
}

fn put(n: u64) -> Change<Vec<u8>> {
    put_until(n, Expiry::NEVER)
}

fn put_until(n: u64, expiry: Expiry) -> Change<Vec<u8>> {
    Change::Put {
        value: vec![u8::try_from(n).unwrap(); 100],
        expiry,
        tags: Tags::new(["tag"]).unwrap(),
    }
}

fn stub() -> Change<Vec<u8>> {
    stub_until(Expiry::NEVER)
}

fn stub_until(expiry: Expiry) -> Change<Vec<u8>> {
    Change::Stub {
        placeholder: Vec::new(),
        value_bytes: 100,
        expiry,
        tags: Tags::new(["tag"]).unwrap(),
    }
}

fn merge(store: &Store<Vec<u8>>, n: u64, change: Change<Vec<u8>>) -> bool {
    store
        .merge(b"key", version(n), change)
        .unwrap()
        .is_applied()
}

/// Version, whether it is live, and the value if it is here.
fn seen(store: &Store<Vec<u8>>) -> (Version, bool, Option<Vec<u8>>) {
    let known = store.known(b"key");
    let value = known.live().filter(|entry| !entry.is_stub());
    let value = value.map(|entry| entry.value().clone());
    (known.version(), known.live().is_some(), value)
}

#[test]
fn c2_a_stub_drops_the_older_value_and_lets_nothing_older_back() {
    let store = store();
    assert!(merge(&store, 5, put(5)));
    assert!(merge(&store, 7, stub()));
    let held = store.get(b"key").unwrap();
    assert_eq!((held.version(), held.stub_bytes()), (version(7), Some(100)));
    assert!(!merge(&store, 6, put(6)));
    assert_eq!(seen(&store), (version(7), true, None));
}

#[test]
fn a_stub_is_completed_by_its_own_version_only_and_never_undone() {
    let store = store();
    assert!(merge(&store, 7, stub()));
    assert!(!merge(&store, 7, stub()));
    assert!(merge(&store, 7, put(7)));
    assert_eq!(seen(&store), (version(7), true, Some(vec![7; 100])));
    assert!(!merge(&store, 7, stub()));
    assert!(!merge(&store, 7, put(9)));
    assert_eq!(seen(&store).2, Some(vec![7; 100]));
}

#[test]
fn r11_a_store_with_the_stub_and_one_with_the_value_have_the_same_digest() {
    let (whole, stubbed) = (store(), store());
    assert!(merge(&whole, 7, put(7)));
    assert!(merge(&stubbed, 7, stub()));
    let sum = |store: &Store<Vec<u8>>| store.digest_sum(nearcache_store::LeafRange::ALL);
    assert_eq!(sum(&whole), sum(&stubbed));
    assert!(!stubbed.lacks(b"key", version(7)));
    assert!(merge(&stubbed, 7, put(7)));
    assert_eq!(sum(&whole), sum(&stubbed));
}

#[test]
fn c4_a_stub_ends_as_its_entry_does() {
    let invalidated = store();
    assert!(merge(&invalidated, 7, stub()));
    invalidated.invalidate(Scope::Tag(b"tag".as_slice().into()), version(8));
    assert!(invalidated.get(b"key").is_none());
    assert!(!merge(&invalidated, 7, put(7)) || invalidated.get(b"key").is_none());

    let expired = store();
    let expiry = Expiry::at_millis(START_MS + 50);
    assert!(merge(&expired, 7, stub_until(expiry)));
    expired.clock().set(START_MS + 60);
    assert!(matches!(expired.known(b"key"), Known::Removed(_)));
    assert!(!merge(&expired, 7, put_until(7, expiry)));
}

#[test]
fn the_expiry_of_a_value_that_is_not_here_cannot_be_changed() {
    let store = store();
    assert!(merge(&store, 7, stub()));
    let expiry = Expiry::at_millis(START_MS + 5_000);
    let merged = store.merge(b"key", version(8), Change::Expire { expiry });
    assert!(matches!(merged, Ok(Merged::Declined)));
}

#[test]
fn a_stub_counts_as_a_miss() {
    let store = store();
    assert!(merge(&store, 7, stub()));
    assert!(store.get(b"key").is_some());
    assert_eq!((store.stats().hits, store.stats().misses), (0, 1));
}

proptest! {
    /// Any stubs, values and removals, in any order and as often as you like: the newest is known, and its value is here
    /// if it ever came after what was newest then.
    #[test]
    fn c2_stubs_and_values_merge_in_any_order(steps in prop::collection::vec((1_u64..8, 0_u8..3), 1..40)) {
        let store = store();
        let kind = |n: u64| if n.is_multiple_of(4) { 2 } else { 0 };
        let mut newest = 0;
        let mut here = false;
        for (n, form) in steps {
            // A version is either a removal or an entry, which comes whole or as a stub.
            let removes = kind(n) == 2;
            let whole = form > 0;
            let change = match (removes, whole) {
                (true, _) => Change::Remove,
                (false, true) => put(n),
                (false, false) => stub(),
            };
            let _ = store.merge(b"key", version(n), change).unwrap();
            if n > newest {
                (newest, here) = (n, !removes && whole);
            } else if n == newest {
                here |= !removes && whole;
            }
            let value = here.then(|| vec![u8::try_from(newest).unwrap(); 100]);
            prop_assert_eq!(seen(&store), (version(newest), kind(newest) != 2, value));
        }
    }
}
