//! The rules of the reliability specification that one node's store has to hold, one test each.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nearcache_store::{
    Change, CoarseClock, Event, Expiry, Handle, Item, Known, Listener, MergeError, Merged, NodeId,
    Scope, Store, StoreConfig, Tags, Timestamp, Version, WalkCursor,
};

type Bytes = Box<[u8]>;

fn version(n: u64) -> Version {
    Version::new(Timestamp::from_parts(n, 0), NodeId::from_u64(1))
}

fn put_with(value: &[u8], expiry: Expiry, tags: &[&str]) -> Change<Bytes> {
    Change::Put {
        value: value.into(),
        expiry,
        tags: Tags::new(tags).unwrap(),
    }
}

fn put(value: &[u8]) -> Change<Bytes> {
    put_with(value, Expiry::NEVER, &[])
}

fn store_of(config: StoreConfig) -> Store<Bytes> {
    Store::new(config, CoarseClock::new(1_000)).unwrap()
}

fn store() -> Store<Bytes> {
    store_of(StoreConfig::new(4 << 20))
}

fn tick_until_done(store: &Store<Bytes>) {
    for _ in 0..100 {
        store.tick(1000);
    }
}

fn text(entry: Option<Handle<Bytes>>) -> Option<String> {
    entry.map(|e| String::from_utf8_lossy(e.value()).into_owned())
}

#[test]
fn c2_older_version_is_refused_while_the_newer_is_held() {
    let store = store();
    assert!(
        store
            .merge(b"k", version(5), put(b"new"))
            .unwrap()
            .is_applied()
    );
    let merged = store.merge(b"k", version(4), put(b"old")).unwrap();
    assert!(matches!(merged, Merged::Stale { current } if current == version(5)));
    assert_eq!(text(store.get(b"k")).as_deref(), Some("new"));
}

#[test]
fn c2_origin_decides_between_updates_of_one_timestamp() {
    let store = store();
    let at = |origin| Version::new(Timestamp::from_parts(5, 0), NodeId::from_u64(origin));
    assert!(store.merge(b"k", at(1), put(b"one")).unwrap().is_applied());
    assert!(store.merge(b"k", at(2), put(b"two")).unwrap().is_applied());
    assert!(!store.merge(b"k", at(1), put(b"one")).unwrap().is_applied());
    assert_eq!(text(store.get(b"k")).as_deref(), Some("two"));
}

#[test]
fn c2_removed_key_does_not_come_back() {
    let store = store();
    assert!(
        store
            .merge(b"k", version(5), put(b"v"))
            .unwrap()
            .is_applied()
    );
    assert!(
        store
            .merge(b"k", version(6), Change::Remove)
            .unwrap()
            .is_applied()
    );
    assert!(store.get(b"k").is_none());
    for n in 1..=6 {
        assert!(
            !store
                .merge(b"k", version(n), put(b"ghost"))
                .unwrap()
                .is_applied()
        );
    }
    assert!(matches!(store.known(b"k"), Known::Removed(v) if v == version(6)));
    assert!(
        store
            .merge(b"k", version(7), put(b"again"))
            .unwrap()
            .is_applied()
    );
    assert_eq!(store.tombstones(), 0);
}

#[test]
fn c2_removal_of_an_unknown_key_holds_too() {
    let store = store();
    assert!(
        store
            .merge(b"k", version(6), Change::Remove)
            .unwrap()
            .is_applied()
    );
    assert!(
        !store
            .merge(b"k", version(5), put(b"late"))
            .unwrap()
            .is_applied()
    );
}

#[test]
fn c2_older_version_is_refused_after_eviction_and_the_same_is_taken_back() {
    let store = store_of(StoreConfig {
        shards: NonZeroUsize::new(1),
        ..StoreConfig::new(64 << 10)
    });
    let filler = vec![0; 1000];
    for n in 0_u64..400 {
        let change = put(&filler);
        assert!(
            store
                .merge(&n.to_be_bytes(), version(100 + n), change)
                .unwrap()
                .is_applied()
        );
    }
    let gone: Vec<u64> = (0..400_u64)
        .filter(|n| store.peek(&n.to_be_bytes()).is_none())
        .collect();
    assert!(gone.len() > 300, "nothing was evicted");
    for n in gone {
        let key = n.to_be_bytes();
        assert!(
            !store
                .merge(&key, version(99), put(b"old"))
                .unwrap()
                .is_applied(),
            "{n}"
        );
        assert!(
            !store
                .merge(&key, version(99 + n), put(b"old"))
                .unwrap()
                .is_applied(),
            "{n}"
        );
    }
    let last_gone = (0..400_u64)
        .rev()
        .find(|n| store.peek(&n.to_be_bytes()).is_none())
        .unwrap();
    let again = store.merge(
        &last_gone.to_be_bytes(),
        version(100 + last_gone),
        put(&filler),
    );
    assert!(again.unwrap().is_applied());
}

#[test]
fn c2_floor_survives_when_evicted_keys_are_too_many_to_remember() {
    let store = store_of(StoreConfig {
        shards: NonZeroUsize::new(1),
        ..StoreConfig::new(64 << 10)
    });
    for n in 0_u64..5_000 {
        assert!(
            store
                .merge(&n.to_be_bytes(), version(100 + n), put(b"v"))
                .unwrap()
                .is_applied()
        );
    }
    assert!(store.stats().key_floors_folded > 0);
    for n in 0_u64..5_000 {
        let merged = store
            .merge(&n.to_be_bytes(), version(99 + n), put(b"old"))
            .unwrap();
        assert!(!merged.is_applied(), "{n}");
    }
}

#[test]
fn c3_what_was_put_is_read_at_once() {
    let store = store();
    for n in 1..100 {
        let value = n.to_string();
        assert!(
            store
                .merge(b"k", version(n), put(value.as_bytes()))
                .unwrap()
                .is_applied()
        );
        assert_eq!(text(store.get(b"k")), Some(value));
    }
}

#[test]
fn c4_tag_prefix_and_all_are_misses_at_once_and_late_arrivals_stay_out() {
    let scopes = [
        Scope::Tag((*b"t").into()),
        Scope::Prefix((*b"user:").into()),
        Scope::All,
    ];
    for scope in scopes {
        let store = store();
        let tagged = |value: &[u8]| put_with(value, Expiry::NEVER, &["t", "u"]);
        assert!(
            store
                .merge(b"user:1", version(5), tagged(b"v"))
                .unwrap()
                .is_applied()
        );
        assert!(store.get(b"user:1").is_some());
        assert!(store.invalidate(scope.clone(), version(7)));
        assert!(store.get(b"user:1").is_none(), "{scope:?}");
        assert!(store.peek(b"user:1").is_none(), "{scope:?}");
        // A load that began before, and an update that was under way.
        let _ = store.merge(b"user:1", version(6), tagged(b"late")).unwrap();
        let _ = store.merge(b"user:2", version(7), tagged(b"late")).unwrap();
        assert!(
            store.get(b"user:1").is_none() && store.get(b"user:2").is_none(),
            "{scope:?}"
        );
        tick_until_done(&store);
        assert_eq!(store.len(), 0, "{scope:?}");
        let _ = store.merge(b"user:1", version(6), tagged(b"late")).unwrap();
        assert!(store.get(b"user:1").is_none(), "{scope:?}");
        assert!(
            store
                .merge(b"user:1", version(8), tagged(b"new"))
                .unwrap()
                .is_applied()
        );
        assert_eq!(
            text(store.get(b"user:1")).as_deref(),
            Some("new"),
            "{scope:?}"
        );
    }
}

#[test]
fn c4_what_an_invalidation_does_not_cover_stays() {
    let store = store();
    assert!(
        store
            .merge(b"user:1", version(5), put_with(b"v", Expiry::NEVER, &["a"]))
            .unwrap()
            .is_applied()
    );
    assert!(
        store
            .merge(b"item:1", version(9), put_with(b"v", Expiry::NEVER, &["t"]))
            .unwrap()
            .is_applied()
    );
    store.invalidate(Scope::Tag((*b"t").into()), version(7));
    store.invalidate(Scope::Prefix((*b"item:").into()), version(8));
    tick_until_done(&store);
    assert!(store.get(b"user:1").is_some() && store.get(b"item:1").is_some());
}

#[test]
fn c2_value_without_the_tag_does_not_come_back_after_a_newer_one_was_invalidated_by_it() {
    let (swept, unswept, late) = (store(), store(), store());
    for store in [&swept, &unswept] {
        let tagged = put_with(b"newer", Expiry::NEVER, &["t"]);
        assert!(store.merge(b"k", version(5), tagged).unwrap().is_applied());
    }
    for store in [&swept, &unswept, &late] {
        store.invalidate(Scope::Tag((*b"t").into()), version(6));
    }
    tick_until_done(&swept);
    let _ = late
        .merge(b"k", version(5), put_with(b"newer", Expiry::NEVER, &["t"]))
        .unwrap();
    for store in [&swept, &unswept, &late] {
        assert!(
            !store
                .merge(b"k", version(4), put(b"older"))
                .unwrap()
                .is_applied()
        );
        assert!(store.get(b"k").is_none());
        assert!(matches!(store.known(b"k"), Known::Removed(v) if v == version(5)));
    }
}

#[test]
fn c4_all_frees_memory_at_once() {
    let store = store();
    for n in 0_u64..2000 {
        assert!(
            store
                .merge(&n.to_be_bytes(), version(n + 1), put(b"v"))
                .unwrap()
                .is_applied()
        );
    }
    store.invalidate(Scope::All, version(1500));
    assert_eq!(store.len(), 500);
    assert_eq!(store.stats().invalidations, 1500);
}

#[test]
fn c5_expired_entry_is_never_served_and_leaves_its_version() {
    let store = store();
    let short = put_with(b"v", Expiry::at_millis(1_500), &[]);
    assert!(store.merge(b"k", version(5), short).unwrap().is_applied());
    store.clock().set(1_499);
    assert!(store.get(b"k").is_some());
    store.clock().set(1_500);
    assert!(store.get(b"k").is_none() && store.peek(b"k").is_none());
    for _ in 0..2 {
        assert!(matches!(store.known(b"k"), Known::Removed(v) if v == version(5)));
        assert!(
            !store
                .merge(b"k", version(4), put(b"older"))
                .unwrap()
                .is_applied()
        );
        store.clock().set(1_600);
        tick_until_done(&store);
    }
    assert_eq!(
        (store.len(), store.tombstones(), store.stats().expirations),
        (0, 1, 1)
    );
}

#[test]
fn c5_entry_expired_on_arrival_counts_as_a_removal() {
    let store = store();
    assert!(
        store
            .merge(b"k", version(5), put(b"v"))
            .unwrap()
            .is_applied()
    );
    let expired = put_with(b"w", Expiry::at_millis(999), &[]);
    let merged = store.merge(b"k", version(6), expired).unwrap();
    assert!(matches!(
        merged,
        Merged::Applied {
            entry: None,
            replaced: Some(_)
        }
    ));
    assert!(matches!(store.known(b"k"), Known::Removed(v) if v == version(6)));
}

#[test]
fn c5_new_expiry_keeps_value_and_tags() {
    let store = store();
    let short = put_with(b"v", Expiry::at_millis(1_500), &["t"]);
    assert!(store.merge(b"k", version(5), short).unwrap().is_applied());
    let longer = Change::Expire {
        expiry: Expiry::at_millis(3_000),
    };
    assert!(
        store
            .merge(b"k", version(6), longer.clone())
            .unwrap()
            .is_applied()
    );
    store.clock().set(2_000);
    tick_until_done(&store);
    let entry = store.get(b"k").unwrap();
    assert_eq!(
        (&**entry, entry.tags().len(), entry.version()),
        (&b"v"[..], 1, version(6))
    );
    store.clock().set(3_000);
    assert!(matches!(
        store.merge(b"k", version(7), longer).unwrap(),
        Merged::Declined
    ));
}

#[test]
fn idle_entries_leave_without_a_tombstone_and_read_ones_stay() {
    let config = StoreConfig {
        time_to_idle: Some(Duration::from_millis(1_600)),
        ..StoreConfig::new(4 << 20)
    };
    let store = store_of(config);
    assert!(
        store
            .merge(b"idle", version(5), put(b"v"))
            .unwrap()
            .is_applied()
    );
    assert!(
        store
            .merge(b"read", version(5), put(b"v"))
            .unwrap()
            .is_applied()
    );
    for now_ms in (1_000..4_000).step_by(100) {
        store.clock().set(now_ms);
        store.tick(100);
        assert!(store.get(b"read").is_some(), "{now_ms}");
        // A peek is no read.
        assert_eq!(store.peek(b"idle").is_some(), now_ms < 2_700, "{now_ms}");
    }
    assert_eq!((store.len(), store.tombstones()), (1, 0));
    // As after an eviction: nothing older, but the same again.
    assert!(
        !store
            .merge(b"idle", version(4), put(b"v"))
            .unwrap()
            .is_applied()
    );
    assert!(
        store
            .merge(b"idle", version(5), put(b"v"))
            .unwrap()
            .is_applied()
    );
}

#[test]
fn c9_two_hundred_megabytes_into_a_hundred_keep_the_newest_and_hottest() {
    const MAX_BYTES: u64 = 100 << 20;
    let store = store_of(StoreConfig::new(MAX_BYTES));
    let mut random = 7_u64;
    let mut total = 0;
    let mut n = 0_u64;
    let hot: Vec<Vec<u8>> = (0..100_u64)
        .map(|h| [b"hot".as_slice(), &h.to_be_bytes()].concat())
        .collect();
    for key in &hot {
        assert!(
            store
                .merge(key, version(1), put(&[1; 1000]))
                .unwrap()
                .is_applied()
        );
    }
    while total < 200 << 20 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        // Sizes from 16 bytes to 128 KiB, small ones most often.
        let size = 16_usize << ((random >> 33) % 14);
        total += size as u64;
        n += 1;
        let value = vec![0; size];
        assert!(
            store
                .merge(&n.to_be_bytes(), version(n + 1), put(&value))
                .unwrap()
                .is_applied()
        );
        if n.is_multiple_of(64) {
            hot.iter().for_each(|key| drop(store.get(key)));
            assert!(
                store.weight_bytes() <= MAX_BYTES,
                "{}",
                store.weight_bytes()
            );
        }
    }
    assert!(
        store.weight_bytes() > MAX_BYTES / 10 * 8,
        "{}",
        store.weight_bytes()
    );
    assert!(
        hot.iter().all(|key| store.peek(key).is_some()),
        "a hot entry is gone"
    );
    let newest = (n - 100..=n)
        .filter(|n| store.peek(&n.to_be_bytes()).is_some())
        .count();
    assert!(newest >= 95, "{newest} of the newest 100 are left");
}

#[test]
fn c9_tombstones_stay_within_their_share_and_no_removal_is_refused() {
    const MAX_BYTES: u64 = 1 << 20;
    let store = store_of(StoreConfig::new(MAX_BYTES));
    for n in 0_u64..20_000 {
        assert!(
            store
                .merge(&n.to_be_bytes(), version(n + 1), Change::Remove)
                .unwrap()
                .is_applied()
        );
    }
    assert!(
        store.weight_bytes() <= MAX_BYTES / 10,
        "{}",
        store.weight_bytes()
    );
    assert!(store.stats().tombstones_folded > 0);
    for n in 0_u64..20_000 {
        assert!(
            !store
                .merge(&n.to_be_bytes(), version(n), put(b"old"))
                .unwrap()
                .is_applied()
        );
    }
}

#[test]
fn r1_when_removals_outgrow_their_room_the_newest_are_remembered_in_whatever_order_they_came() {
    let store = store_of(StoreConfig {
        shards: NonZeroUsize::new(1),
        ..StoreConfig::new(1 << 20)
    });
    let remove = |key: &str, n: u64| {
        let removed = store.merge(key.as_bytes(), version(n), Change::Remove);
        assert!(removed.unwrap().is_applied(), "{key}");
    };
    // A node that joins: what is removed now is recorded first, then come the removals of long ago.
    for n in 0..100 {
        remove(&format!("now-{n}"), 1_000_000 + n);
    }
    for n in 0..5_000 {
        remove(&format!("past-{n}"), 1 + n);
    }
    assert!(store.stats().tombstones_folded > 0);
    for n in 0..100 {
        let known = store.known(format!("now-{n}").as_bytes());
        assert!(matches!(known, Known::Removed(v) if v == version(1_000_000 + n)));
    }
    let late = store
        .merge(b"comes late", version(6_000), put(b"v"))
        .unwrap();
    assert!(late.is_applied(), "newer than any removal that was folded");
}

#[test]
fn r1_what_was_dropped_comes_back_though_the_removals_of_other_keys_outgrew_their_room() {
    let store = store_of(StoreConfig {
        shards: NonZeroUsize::new(1),
        ..StoreConfig::new(1 << 20)
    });
    let merge = |key: &str, n: u64, change| store.merge(key.as_bytes(), version(n), change);
    for n in 0..20 {
        let _ = merge(&format!("kept-{n}"), 10 + n, put(b"v")).unwrap();
    }
    for n in 0..5_000 {
        let _ = merge(&format!("gone-{n}"), 1_000 + n, Change::Remove).unwrap();
    }
    assert!(store.stats().tombstones_folded > 0);
    for n in 0..20 {
        assert!(store.forget(format!("kept-{n}").as_bytes(), version(10 + n)));
    }
    for n in 0..20 {
        let key = format!("kept-{n}");
        let older = merge(&key, 9 + n, put(b"older")).unwrap();
        assert!(!older.is_applied(), "C2");
        assert!(
            merge(&key, 10 + n, put(b"v")).unwrap().is_applied(),
            "{key}"
        );
    }
    // Removed since: it stays gone, also when its removal has made room.
    let _ = merge("kept-0", 500, Change::Remove).unwrap();
    for n in 0..5_000 {
        let _ = merge(&format!("later-{n}"), 6_000 + n, Change::Remove).unwrap();
    }
    assert!(!merge("kept-0", 10, put(b"v")).unwrap().is_applied(), "R3");
}

#[test]
fn c9_tombstones_take_room_from_entries_and_give_it_back() {
    const MAX_BYTES: u64 = 1 << 20;
    let config = StoreConfig {
        tombstone_ttl: Duration::from_secs(10),
        ..StoreConfig::new(MAX_BYTES)
    };
    let store = store_of(config);
    let fill = |from: u64| {
        for n in from..from + 20_000 {
            assert!(
                store
                    .merge(&n.to_be_bytes(), version(n), put(&[0; 200]))
                    .unwrap()
                    .is_applied()
            );
            assert!(store.weight_bytes() <= MAX_BYTES);
        }
    };
    fill(1_000_000);
    let full = store.len();
    for n in 0_u64..1_000 {
        assert!(
            store
                .merge(&n.to_be_bytes(), version(n + 2_000_000), Change::Remove)
                .unwrap()
                .is_applied()
        );
        assert!(store.weight_bytes() <= MAX_BYTES);
    }
    assert!(store.len() < full - 100, "{} {full}", store.len());
    store.clock().set(2_020_000);
    tick_until_done(&store);
    assert_eq!(store.tombstones(), 0);
    fill(3_000_000);
    assert!(store.len() >= full - 30, "{} {full}", store.len());
}

#[test]
fn k5_the_first_floors_have_room_too_when_it_is_tombstones_that_make_entries_leave() {
    const MAX_BYTES: u64 = 16 << 10;
    // However full the store is when the first tombstone comes.
    for value_bytes in 0..400 {
        let store = store_of(StoreConfig::new(MAX_BYTES));
        let value = vec![0; value_bytes];
        let mut n = 0_u64;
        let entry_bytes = 400 + value_bytes as u64;
        while store.weight_bytes() + entry_bytes <= MAX_BYTES {
            n += 1;
            let merged = store.merge(&n.to_be_bytes(), version(n), put(&value));
            assert!(merged.unwrap().is_applied());
        }
        assert_eq!(store.stats().evictions, 0);
        while store.stats().evictions == 0 && n < 1_000 {
            n += 1;
            let merged = store.merge(&n.to_be_bytes(), version(n), Change::Remove);
            assert!(merged.unwrap().is_applied());
            let weight_bytes = store.weight_bytes();
            assert!(
                weight_bytes <= MAX_BYTES,
                "{weight_bytes} bytes of {MAX_BYTES}, values of {value_bytes}"
            );
        }
    }
}

#[test]
fn entry_too_large_is_refused_by_name_and_takes_the_older_one_with_it() {
    let store = store_of(StoreConfig::new(1 << 20));
    assert!(
        store
            .merge(b"k", version(5), put(b"v"))
            .unwrap()
            .is_applied()
    );
    let large = vec![0; usize::try_from(store.max_entry_bytes()).unwrap()];
    let refused = store.merge(b"k", version(6), put(&large));
    assert!(matches!(refused, Err(MergeError::TooLargeForCache { .. })));
    assert!(store.get(b"k").is_none());
    assert!(
        !store
            .merge(b"k", version(5), put(b"v"))
            .unwrap()
            .is_applied()
    );
    // Older than what is known: not an error, and nothing changes.
    assert!(
        store
            .merge(b"k", version(7), put(b"w"))
            .unwrap()
            .is_applied()
    );
    assert!(matches!(
        store.merge(b"k", version(6), put(&large)),
        Ok(Merged::Stale { .. })
    ));
    assert!(store.get(b"k").is_some());
}

#[test]
fn largest_entry_that_is_not_refused_is_kept_even_when_tombstones_have_all_their_room() {
    let store = store_of(StoreConfig::new(1 << 20));
    for n in 0_u64..20_000 {
        assert!(
            store
                .merge(&n.to_be_bytes(), version(n + 1), Change::Remove)
                .unwrap()
                .is_applied()
        );
    }
    let mut size = usize::try_from(store.max_entry_bytes()).unwrap();
    while store
        .merge(
            b"k",
            version(50_000 - size as u64 / 100),
            put(&vec![0; size]),
        )
        .is_err()
    {
        size -= 1;
    }
    assert!(store.get(b"k").is_some());
}

#[test]
fn condition_is_evaluated_in_the_same_step() {
    let store = store();
    let if_absent = |known: &Known<Bytes>| known.live().is_none().then(|| put(b"first"));
    assert!(
        store
            .merge_if(b"k", version(5), if_absent)
            .unwrap()
            .is_applied()
    );
    assert!(matches!(
        store.merge_if(b"k", version(6), if_absent).unwrap(),
        Merged::Declined
    ));
    assert_eq!(text(store.get(b"k")).as_deref(), Some("first"));
}

#[test]
fn key_beyond_the_limit_is_refused() {
    let refused = store().merge(&vec![0; 65_537], version(5), put(b"v"));
    assert!(matches!(
        refused,
        Err(MergeError::KeyTooLong {
            len_bytes: 65_537,
            limit_bytes: 65_536
        })
    ));
}

#[test]
fn hits_and_misses_are_counted_and_peeks_are_not() {
    let store = store();
    let _ = store.merge(b"k", version(5), put(b"v")).unwrap();
    let _ = (
        store.get(b"k"),
        store.get(b"k"),
        store.get(b"absent"),
        store.peek(b"k"),
    );
    let stats = store.stats();
    assert_eq!((stats.hits, stats.misses, stats.merges_applied), (2, 1, 1));
}

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl Listener<Bytes> for Log {
    fn on_event(&self, event: Event<'_, Bytes>) {
        let line = match event {
            Event::Updated { entry, replaced } => {
                format!("updated {} {}", entry.key()[0], replaced.is_some())
            }
            Event::Removed { key, removed, .. } => {
                format!("removed {} {}", key[0], removed.is_some())
            }
            Event::Evicted(entry) => format!("evicted {}", entry.key()[0]),
            Event::Expired(entry) => format!("expired {}", entry.key()[0]),
            Event::Invalidated(entry) => format!("invalidated {}", entry.key()[0]),
            _ => "other".into(),
        };
        self.0.lock().unwrap().push(line);
    }
}

#[test]
fn listener_hears_of_update_removal_expiry_invalidation_and_eviction() {
    let store = store_of(StoreConfig {
        shards: NonZeroUsize::new(1),
        ..StoreConfig::new(64 << 10)
    });
    let log = Arc::new(Log::default());
    assert!(store.set_listener(log.clone()));
    assert!(!store.set_listener(log.clone()));
    let _ = store.merge(&[1], version(5), put(b"v"));
    let _ = store.merge(&[1], version(6), put(b"v"));
    let _ = store.merge(&[1], version(5), put(b"v"));
    let _ = store.merge(&[1], version(7), Change::Remove);
    let _ = store.merge(
        &[2],
        version(7),
        put_with(b"v", Expiry::at_millis(1_100), &[]),
    );
    store.clock().set(1_200);
    store.tick(100);
    let _ = store.merge(&[3], version(8), put(b"v"));
    store.invalidate(Scope::Prefix([3].into()), version(9));
    store.tick(100);
    let heard: Vec<String> = std::mem::take(&mut *log.0.lock().unwrap());
    assert_eq!(
        heard,
        [
            "updated 1 false",
            "updated 1 true",
            "removed 1 true",
            "updated 2 false",
            "expired 2",
            "updated 3 false",
            "invalidated 3"
        ]
    );
    for n in 10..100 {
        let _ = store.merge(&[n], version(10), put(&[0; 1000]));
    }
    let evicted = log
        .0
        .lock()
        .unwrap()
        .iter()
        .filter(|l| l.starts_with("evicted"))
        .count();
    assert_eq!(evicted + store.len(), 90);
}

#[test]
fn c12_two_stores_with_other_seeds_and_shards_hold_the_same() {
    let seeded = |hash_seed, shards| {
        store_of(StoreConfig {
            hash_seed,
            shards: NonZeroUsize::new(shards),
            ..StoreConfig::new(8 << 20)
        })
    };
    let contents = |store: &Store<Bytes>| {
        let (items, next) = store.walk(WalkCursor::START, 100_000);
        assert!(next.is_none());
        let mut all: Vec<_> = items
            .iter()
            .map(|i| (i.key().to_vec(), i.version(), matches!(i, Item::Entry(_))))
            .collect();
        all.sort();
        all
    };
    let (a, b) = (seeded(1, 1), seeded(2, 8));
    for n in 0_u64..2_000 {
        let change = |n: u64| {
            if n.is_multiple_of(5) {
                Change::Remove
            } else {
                put(&n.to_be_bytes())
            }
        };
        let _ = a.merge(
            &(n % 300).to_be_bytes(),
            version(n * 7919 % 2_003 + 1),
            change(n),
        );
        let n = 1_999 - n;
        let _ = b.merge(
            &(n % 300).to_be_bytes(),
            version(n * 7919 % 2_003 + 1),
            change(n),
        );
    }
    assert_eq!(contents(&a), contents(&b));
}
