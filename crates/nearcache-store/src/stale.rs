//! Reading past the expiry: [`Store::peek_stale`].
//!
//! An expired entry that is still in memory is worth a tombstone of its version to everybody: to merges, walks, digests
//! and other nodes. With [`stale_for`](crate::StoreConfig::stale_for) it merely stays in memory longer, so nothing that
//! nodes must agree on depends on that setting. It goes at the latest when a tombstone of its version would be forgotten:
//! were it counted in the digest for longer, nodes with different settings would never agree.

use std::time::Duration;

use crate::{Handle, Store, Weigh};

impl<V: Weigh> Store<V> {
    /// The entry of `key`, also if it expired less than `stale_max` ago, but never if anything newer is known of the key or
    /// it was invalidated. Not counted as a read.
    pub fn peek_stale(&self, key: &[u8], stale_max: Duration) -> Option<Handle<V>> {
        let hash = self.hasher.hash(key);
        let entry = self.shard(hash).table.peek(hash, key)?;
        let stale_ms = u64::try_from(stale_max.as_millis()).unwrap_or(u64::MAX);
        let until_ms = entry.expiry().as_millis().saturating_add(stale_ms);
        let in_time = entry.expiry().is_never() || self.clock.now_ms() < until_ms;
        let in_time = in_time || self.planted.serves_any_stale();
        let generation = self.generation();
        (in_time && self.survives_groups(&entry, generation) && !self.is_idle(&entry))
            .then_some(entry)
    }

    /// When an entry leaves the memory because of its expiry.
    pub(crate) fn collected_ms(&self, entry: &Handle<V>) -> u64 {
        let expiry_ms = entry.expiry().as_millis();
        if self.config.stale_for.is_zero() || entry.expiry().is_never() {
            return expiry_ms;
        }
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let forgotten_ms = entry
            .version()
            .time
            .millis()
            .saturating_add(ms(self.config.tombstone_ttl));
        let kept_ms = expiry_ms.saturating_add(ms(self.config.stale_for));
        // Beyond the end of time an entry never expires.
        kept_ms.min(forgotten_ms).max(expiry_ms).min(u64::MAX - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Change, CoarseClock, Expiry, Known, LeafRange, NodeId, Scope, StoreConfig, Tags, Timestamp,
        Version,
    };

    const STALE: Duration = Duration::from_millis(1_000);

    fn version(ms: u64) -> Version {
        Version::new(Timestamp::from_parts(ms, 0), NodeId::from_u64(1))
    }

    /// A store at 1,000 ms that keeps what has expired for `stale_for`, with an entry tagged `t` that expires at 2,000 ms.
    fn store(stale_for: Duration, tombstone_ttl: Duration) -> Store<Vec<u8>> {
        let config = StoreConfig {
            stale_for,
            tombstone_ttl,
            digest_key: Some([7; 16]),
            ..StoreConfig::new(1 << 20)
        };
        let store = Store::new(config, CoarseClock::new(1_000)).unwrap();
        let change = Change::Put {
            value: vec![1],
            expiry: Expiry::at_millis(2_000),
            tags: Tags::new([b"t"]).unwrap(),
        };
        assert!(
            store
                .merge(b"key", version(900), change)
                .unwrap()
                .is_applied()
        );
        store
    }

    fn at(store: &Store<Vec<u8>>, ms: u64) {
        store.clock().set(ms);
        store.tick(1_000);
    }

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn c5_an_expired_entry_is_a_miss_for_everybody_but_who_asks_for_a_stale_one() {
        let store = store(STALE, DAY);
        at(&store, 2_500);
        assert!(store.get(b"key").is_none() && store.peek(b"key").is_none());
        assert!(matches!(store.known(b"key"), Known::Removed(v) if v == version(900)));
        assert!(store.peek_stale(b"key", STALE).is_some());
        assert!(
            store
                .peek_stale(b"key", Duration::from_millis(500))
                .is_none()
        );
        at(&store, 3_000);
        assert!(
            store.peek_stale(b"key", STALE).is_none(),
            "beyond its limit"
        );
        at(&store, 3_100);
        assert_eq!((store.len(), store.tombstones()), (0, 1));
    }

    #[test]
    fn c4_what_was_invalidated_or_removed_is_not_served_stale() {
        let tagged = store(STALE, DAY);
        at(&tagged, 2_100);
        assert!(tagged.invalidate(Scope::Tag((*b"t").into()), version(2_050)));
        assert!(tagged.peek_stale(b"key", STALE).is_none());
        let removed = store(STALE, DAY);
        at(&removed, 2_100);
        let _ = removed
            .merge(b"key", version(2_050), Change::Remove)
            .unwrap();
        assert!(removed.peek_stale(b"key", STALE).is_none());
    }

    #[test]
    fn r11_keeping_the_expired_changes_no_digest() {
        for tombstone_ttl in [DAY, Duration::from_millis(1_500)] {
            let (without, with) = (
                store(Duration::ZERO, tombstone_ttl),
                store(STALE, tombstone_ttl),
            );
            for ms in (1_000..4_000).step_by(50) {
                at(&without, ms);
                at(&with, ms);
                // The wheel is coarse: compare where no tick is due in between.
                let sums = |store: &Store<Vec<u8>>| store.digest_sum(LeafRange::ALL);
                if ms % 100 == 0 && ms.abs_diff(2_400) > 100 {
                    assert_eq!(sums(&without), sums(&with), "at {ms} ms");
                }
            }
        }
    }

    #[test]
    fn c1_what_was_invalidated_since_is_known_by_scope() {
        let store = store(Duration::ZERO, DAY);
        let before = store.generation();
        let tags = Tags::new([b"t"]).unwrap();
        let since = |tags| store.invalidated_since(before, b"key", tags);
        assert!(!since(None) && !since(Some(&tags)));
        store.invalidate(Scope::Tag((*b"other").into()), version(2_000));
        assert!(since(None) && !since(Some(&tags)));
        store.invalidate(Scope::Prefix((*b"x").into()), version(2_001));
        assert!(!since(Some(&tags)));
        store.invalidate(Scope::Tag((*b"t").into()), version(2_002));
        assert!(since(Some(&tags)));
        let between = store.generation();
        for number in 0..300_u64 {
            let tag = number.to_string().into_bytes().into();
            store.invalidate(Scope::Tag(tag), version(3_000 + number));
        }
        assert!(
            store.invalidated_since(between, b"key", Some(&tags)),
            "no longer known"
        );
    }
}
