//! Concurrent use of one store, under the model checker: random schedules of every lock and atomic operation.
//!
//! Run with `cargo test -p nearcache-store --features shuttle --test shuttle`. A failure prints the schedule that `shuttle::replay`
//! takes.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::num::NonZeroUsize;
use std::sync::Arc;

use nearcache_store::{
    Change, CoarseClock, Expiry, Item, Known, NodeId, Scope, Store, StoreConfig, Tags, Timestamp,
    Version, WalkCursor,
};
use shuttle::thread;

const SCHEDULES: usize = 2_000;

fn version(n: u64) -> Version {
    Version::new(Timestamp::from_u64(n), NodeId::from_u64(1))
}

fn put(value: u64) -> Change<u64> {
    let tags = Tags::new(["t"]).unwrap();
    Change::Put {
        value,
        expiry: Expiry::NEVER,
        tags,
    }
}

fn store() -> Arc<Store<u64>> {
    let config = StoreConfig {
        shards: NonZeroUsize::new(1),
        ..StoreConfig::new(1 << 20)
    };
    Arc::new(Store::new(config, CoarseClock::new(1_000)).unwrap())
}

fn check(test: impl Fn() + Send + Sync + 'static) {
    shuttle::check_random(test, SCHEDULES);
}

#[test]
fn c2_no_reader_sees_a_key_go_back_and_the_newest_wins() {
    check(|| {
        let store = store();
        let writers: Vec<_> = [[1, 4], [3, 2]]
            .into_iter()
            .map(|versions| {
                let store = Arc::clone(&store);
                thread::spawn(move || {
                    for n in versions {
                        let _ = store.merge(b"k", version(n), put(n)).unwrap();
                    }
                })
            })
            .collect();
        let mut last = 0;
        for _ in 0..4 {
            let seen = store.get(b"k").map_or(0, |e| *e);
            assert!(seen >= last, "{seen} after {last}");
            last = seen;
        }
        writers.into_iter().for_each(|w| w.join().unwrap());
        assert_eq!(store.get(b"k").map(|e| *e), Some(4));
    });
}

#[test]
fn c2_removal_wins_over_older_puts_in_every_order() {
    check(|| {
        let store = store();
        let putting = Arc::clone(&store);
        let writer = thread::spawn(move || {
            let _ = putting.merge(b"k", version(1), put(1)).unwrap();
            let _ = putting.merge(b"k", version(2), put(2)).unwrap();
        });
        let _ = store.merge(b"k", version(3), Change::Remove).unwrap();
        assert!(store.get(b"k").is_none());
        writer.join().unwrap();
        assert!(store.get(b"k").is_none());
        assert!(matches!(store.known(b"k"), Known::Removed(v) if v == version(3)));
    });
}

#[test]
fn c4_nothing_below_an_invalidation_is_served_once_it_has_returned() {
    check(|| {
        let store = store();
        let _ = store.merge(b"a", version(1), put(1)).unwrap();
        let (putting, ticking) = (Arc::clone(&store), Arc::clone(&store));
        // An update under way, a read that may remember having checked the entry, and the sweep.
        let writer = thread::spawn(move || {
            let _ = putting.merge(b"b", version(2), put(2)).unwrap();
            let _ = putting.get(b"a");
        });
        let housekeeper = thread::spawn(move || ticking.tick(1));
        store.invalidate(Scope::Tag((*b"t").into()), version(5));
        for key in [b"a", b"b"] {
            assert!(store.get(key).is_none());
        }
        writer.join().unwrap();
        housekeeper.join().unwrap();
        for key in [b"a", b"b"] {
            assert!(store.get(key).is_none() && store.peek(key).is_none());
        }
    });
}

#[test]
fn read_modify_write_loses_no_step() {
    check(|| {
        let store = store();
        let add = |store: &Store<u64>, origin| {
            for n in 0.. {
                let known = store.known(b"k");
                let next = known.live().map_or(0, |e| **e) + 1;
                let seen = known.version();
                let time = Timestamp::from_u64(seen.time.as_u64() + 1);
                let stamp = Version::new(time, NodeId::from_u64(origin));
                let merged = store
                    .merge_if(b"k", stamp, |now| {
                        (now.version() == seen).then(|| put(next))
                    })
                    .unwrap();
                if merged.is_applied() {
                    return;
                }
                assert!(n < 10, "starved");
            }
        };
        let others: Vec<_> = (1..3)
            .map(|origin| {
                let store = Arc::clone(&store);
                thread::spawn(move || add(&store, origin))
            })
            .collect();
        add(&store, 9);
        others.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(store.get(b"k").map(|e| *e), Some(3));
    });
}

#[test]
fn walk_beside_writers_returns_what_is_there_throughout() {
    check(|| {
        let store = store();
        for key in 1..4_u8 {
            let _ = store.merge(&[key], version(1), put(1)).unwrap();
        }
        let writing = Arc::clone(&store);
        let writer = thread::spawn(move || {
            let _ = writing.merge(&[2], version(2), put(2)).unwrap();
            let _ = writing.merge(&[9], version(2), put(2)).unwrap();
            let _ = writing.merge(&[9], version(3), Change::Remove).unwrap();
        });
        let mut seen = Vec::new();
        let mut cursor = Some(WalkCursor::START);
        while let Some(at) = cursor {
            let (items, next) = store.walk(at, 1);
            seen.extend(
                items
                    .iter()
                    .filter(|i| matches!(i, Item::Entry(_)))
                    .map(|i| i.key()[0]),
            );
            cursor = next;
        }
        writer.join().unwrap();
        assert!([1, 2, 3].iter().all(|key| seen.contains(key)), "{seen:?}");
    });
}

#[test]
fn c9_evictions_of_two_writers_keep_count() {
    check(|| {
        let config = StoreConfig {
            shards: NonZeroUsize::new(1),
            ..StoreConfig::new(16 << 10)
        };
        let store: Arc<Store<Box<[u8]>>> =
            Arc::new(Store::new(config, CoarseClock::new(1_000)).unwrap());
        let fill = |store: &Store<Box<[u8]>>, first: u8| {
            for key in first..first + 5 {
                let change = Change::Put {
                    value: vec![0; 3_000].into(),
                    expiry: Expiry::at_millis(2_000),
                    tags: Tags::NONE,
                };
                let _ = store
                    .merge(&[key], version(u64::from(key)), change)
                    .unwrap();
            }
        };
        let other = Arc::clone(&store);
        let writer = thread::spawn(move || fill(&other, 100));
        fill(&store, 1);
        writer.join().unwrap();
        let stats = store.stats();
        assert!(stats.weight_bytes <= 16 << 10);
        assert_eq!(stats.entries + stats.evictions, 10);
        assert_eq!(store.len() as u64, stats.entries);
    });
}

#[test]
fn c1_c4_a_load_in_whose_middle_an_invalidation_came_is_not_kept() {
    use shuttle::sync::atomic::{AtomicBool, Ordering};

    // By a clock that is ahead of the load's stamp, and by one that is so far behind that only the order of arrival tells.
    for invalidated_at in [9, 3] {
        check(move || {
            let (store, arrived) = (store(), Arc::new(AtomicBool::new(false)));
            let (generation, known) = (store.generation(), store.known(b"k").version());
            let (there, arrives) = (Arc::clone(&store), Arc::clone(&arrived));
            let invalidates = thread::spawn(move || {
                let scope = Scope::Tag((*b"t").into());
                assert!(there.invalidate(scope, version(invalidated_at)));
                arrives.store(true, Ordering::SeqCst);
            });
            let tags = Tags::new(["t"]).unwrap();
            let entry = store.entry(b"k", version(5), 5, Expiry::NEVER, tags);
            let before = arrived.load(Ordering::SeqCst);
            let merged = store.merge_entry_if(&entry, |held| {
                held.version() == known
                    && !store.invalidated_since(generation, b"k", Some(entry.tags()))
            });
            let kept = merged.unwrap().is_applied();
            assert!(!(before && kept), "it had arrived");
            invalidates.join().unwrap();
            assert!(invalidated_at == 3 || store.get(b"k").is_none());
        });
    }
}
