//! Dropping the copy of one key without removing the key: as an eviction would ([`Store::forget`]), or as something that this store lacks
//! from then on ([`Store::withdraw`]).

use crate::shard::{Displaced, Writer};
use crate::{Event, Store, Version, Weigh};

impl<V: Weigh> Store<V> {
    /// Drops what this store holds under `key` up to and including `version`, as an eviction would: the key is a miss here
    /// until something that is not older than `version` is merged, nothing is remembered as removed, and nothing is told
    /// to others by it. Takes the shard's lock. The first floor of a shard takes the memory of all that it may have: other entries
    /// may be evicted to make room for it.
    ///
    /// Returns false if something newer is known; nothing has changed then.
    pub fn forget(&self, key: &[u8], version: Version) -> bool {
        self.drop_copy(key, version, |writer, key_hash| {
            writer.raise_key_floor(key_hash, version);
        })
    }

    /// Drops the same as one that is to be got again: this store [lacks](Store::lacks) that very version then, and its digest differs from
    /// that of a store that holds it. What is older stays out as far as there is room to remember that: unlike an eviction this makes no other
    /// floor less exact, because a floor that stands for several keys would keep out what is to come back. Cost and locks as those of
    /// [`Store::forget`].
    ///
    /// Returns false if something newer is known; nothing has changed then.
    pub fn withdraw(&self, key: &[u8], version: Version) -> bool {
        self.drop_copy(key, version, |writer, key_hash| {
            if writer.key_floors.has_room_for(key_hash) {
                writer.raise_key_floor(key_hash, version.before());
            }
        })
    }

    /// Forgets the floors up to `version` that stand for several keys at once, which were evicted here or elsewhere: they would keep out what is
    /// to come back after much was [withdrawn](Store::withdraw). Cost: linear in the memory of floors, under one shard's lock after the other.
    pub fn drop_common_floors(&self, version: Version) {
        for shard in self.shards() {
            shard.writer.lock().key_floors.drop_common_up_to(version);
        }
        self.told.drop_common_up_to(version);
    }

    /// Drops a copy, and leaves in its place what `leave` does, by the key's hash.
    fn drop_copy(
        &self,
        key: &[u8],
        version: Version,
        leave: impl FnOnce(&mut Writer<V>, u64),
    ) -> bool {
        let hash = self.hasher.hash(key);
        let key_hash = self.key_hash(hash, key);
        let shard = self.shard(hash);
        // Declared before the lock is taken, so that what leaves is dropped after it is released.
        let mut displaced = Displaced::default();
        let held = {
            let mut writer = shard.writer.lock();
            let held = shard.table.peek(hash, key);
            let known = self
                .standing(&writer, held.as_ref(), (hash, key_hash), key)
                .known;
            if known.version() > version {
                return false;
            }
            if let Some(held) = &held {
                writer.take_out(&shard.table, held);
            }
            writer.unbury(hash, key, key_hash);
            self.drop_told_floor(key_hash);
            leave(&mut writer, key_hash);
            writer.fit(&shard.table, &mut displaced);
            held
        };
        if self.has_listener() {
            let gone = held.iter().chain(&displaced);
            gone.for_each(|entry| self.tell(Event::Evicted(entry)));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        Change, CoarseClock, Expiry, Known, Merged, NodeId, Store, StoreConfig, Tags, Timestamp,
        Version,
    };

    fn version(ms: u64) -> Version {
        Version::new(Timestamp::from_parts(ms, 0), NodeId::from_u64(1))
    }

    fn put(store: &Store<Vec<u8>>, ms: u64) -> bool {
        let change = Change::Put {
            value: vec![1],
            expiry: Expiry::NEVER,
            tags: Tags::NONE,
        };
        let merged = store.merge(b"key", version(ms), change).unwrap();
        matches!(merged, Merged::Applied { .. })
    }

    fn store() -> Store<Vec<u8>> {
        Store::new(StoreConfig::new(1 << 20), CoarseClock::new(1_000)).unwrap()
    }

    #[test]
    fn c2_what_is_forgotten_comes_back_in_its_own_version_or_a_newer_one() {
        let store = store();
        assert!(put(&store, 5));
        assert!(store.forget(b"key", version(7)));
        assert!(store.peek(b"key").is_none());
        assert!(matches!(store.known(b"key"), Known::Absent { .. }));
        assert!(!put(&store, 6));
        assert!(put(&store, 7));
    }

    #[test]
    fn c2_what_is_withdrawn_is_lacked_in_its_own_version_and_kept_out_in_an_older_one() {
        let store = store();
        assert!(put(&store, 5));
        assert!(!store.lacks(b"key", version(5)));
        assert!(store.withdraw(b"key", version(5)));
        assert!(store.peek(b"key").is_none());
        assert!(store.lacks(b"key", version(5)));
        assert!(!put(&store, 4));
        assert!(put(&store, 5));
        assert!(!store.lacks(b"key", version(5)));
        assert!(!store.withdraw(b"key", version(4)), "something newer");
    }

    #[test]
    fn all_that_is_withdrawn_comes_back_however_much_that_is() {
        let mut config = StoreConfig::new(1 << 20);
        config.digest_key = Some([7; 16]);
        let store: Store<Vec<u8>> = Store::new(config, CoarseClock::new(1_000)).unwrap();
        let put = |number: u64, ms: u64| {
            let change = Change::Put {
                value: vec![1; 32],
                expiry: Expiry::NEVER,
                tags: Tags::NONE,
            };
            let merged = store.merge(&number.to_be_bytes(), version(ms), change);
            matches!(merged, Ok(Merged::Applied { .. }))
        };
        let fill = || (1..=6_000).filter(|n| put(*n, *n)).count();
        assert_eq!(fill(), 6_000);
        // Some were evicted before, and stand in common floors.
        assert!((6_001..=20_000).all(|n| put(n, n)));
        let held = store.len();
        for number in 1..=20_000_u64 {
            store.withdraw(&number.to_be_bytes(), version(number));
        }
        store.drop_common_floors(version(20_000));
        assert!(store.is_empty() && held > 2_000);
        assert_eq!((1..=2_000).filter(|n| put(*n, *n)).count(), 2_000);
    }

    #[test]
    fn k5_the_first_floor_of_a_full_store_finds_room_within_the_bound() {
        let config = StoreConfig::new(StoreConfig::BYTES_MIN);
        let store: Store<Vec<u8>> = Store::new(config, CoarseClock::new(1_000)).unwrap();
        let mut last = store.weight_bytes();
        for key in 0_u64.. {
            let change = Change::Put {
                value: Vec::new(),
                expiry: Expiry::NEVER,
                tags: Tags::NONE,
            };
            let _ = store.merge(&key.to_be_bytes(), version(5), change).unwrap();
            let entry_bytes = store.weight_bytes() - last;
            last = store.weight_bytes();
            if last + entry_bytes > store.max_bytes() {
                break;
            }
        }
        assert_eq!(store.stats().evictions, 0, "full, and nothing had to leave");
        assert!(store.forget(&0_u64.to_be_bytes(), version(5)));
        let stats = store.stats();
        assert_eq!(stats.key_floors, 1 + stats.evictions);
        assert!(stats.weight_bytes <= store.max_bytes(), "{stats:?}");
    }

    #[test]
    fn something_newer_is_not_forgotten() {
        let store = store();
        assert!(put(&store, 5));
        assert!(!store.forget(b"key", version(4)));
        assert!(store.peek(b"key").is_some());
        let _ = store.merge(b"key", version(9), Change::Remove).unwrap();
        assert!(!store.forget(b"key", version(8)));
        assert!(matches!(store.known(b"key"), Known::Removed(_)));
    }
}
