//! The fence of a load: [`Fence`] (design §6.2, C1, C4).
//!
//! A load is stamped when it begins, minus how far any other clock may be behind: whatever is written or invalidated from
//! then on, on whatever node, has a newer version and wins, before the load ends or after. On top of that the fence
//! compares what this node knew of the key when the load began with what it knows at its end, so that what has arrived
//! meanwhile wins even if its maker's clock is further behind than it may be.

use std::time::Duration;

use nearcache_store::{Expiry, Handle, Known, MergeError, Merged, Store, Tags, Timestamp, Version};

use crate::clock::Hlc;
use crate::payload::Payload;
use crate::planted::PlantedBug;
use crate::time::Time;

/// What was known of a key when its load began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    version: Version,
    known: Version,
    generation: u32,
    planted: PlantedBug,
}

impl Fence {
    /// A load of `key` begins at `now`. `clock_bound` is that of the cache's machine
    /// ([`CacheCore::clock_bound`](crate::core::CacheCore::clock_bound)). Takes the shard's lock for a moment.
    pub fn begin<V: Payload>(
        store: &Store<V>,
        clock: &Hlc,
        now: Time,
        clock_bound: Duration,
        key: &[u8],
    ) -> Self {
        // Before the clock is read: what comes in between is newer than the stamp.
        let generation = store.generation();
        let known = store.known(key).version();
        Self {
            version: just_before(clock, now, clock_bound),
            known,
            generation,
            planted: PlantedBug::None,
        }
    }

    /// The same with a rule broken on purpose; without the feature `planted-bugs` it is obeyed all the same.
    #[doc(hidden)]
    #[must_use]
    pub fn planted(mut self, bug: PlantedBug, clock: &Hlc, now: Time) -> Self {
        self.planted = bug;
        if bug.ignores_clock_bound() {
            self.version = just_before(clock, now, Duration::ZERO);
        }
        self
    }

    /// The version that the loaded value gets.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// May somebody who asks for `key` now wait for this load? Not if anything that may concern its result was written or
    /// invalidated since it began; while its tags are not known, that is any tag.
    pub fn is_joinable<V: Payload>(&self, store: &Store<V>, key: &[u8]) -> bool {
        store.known(key).version() == self.known
            && !store.invalidated_since(self.generation, key, None)
    }

    /// How many bytes [`to_bytes`](Self::to_bytes) makes.
    pub const BYTES: usize = 36;

    /// Its bytes, for callers outside the process: version, what was known, generation.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..16].copy_from_slice(&self.version.to_bytes());
        bytes[16..32].copy_from_slice(&self.known.to_bytes());
        bytes[32..].copy_from_slice(&self.generation.to_be_bytes());
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote. Any bytes are some fence.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let part = |at: usize| {
            let part = bytes.get(at..).and_then(<[u8]>::first_chunk::<16>);
            Version::from_bytes(part.copied().unwrap_or_default())
        };
        let generation = bytes.last_chunk::<4>().copied().unwrap_or_default();
        Self {
            version: part(0),
            known: part(16),
            generation: u32::from_be_bytes(generation),
            planted: PlantedBug::None,
        }
    }

    /// What the load brought, as an entry for [`keep`](Self::keep). `now` is when the load ended.
    pub fn entry<V: Payload>(
        &self,
        store: &Store<V>,
        key: &[u8],
        (value, expiry, tags): (V, Expiry, Tags),
        clock: &Hlc,
        now: Time,
    ) -> Handle<V> {
        let version = if self.planted.drops_fence() || self.planted.drops_fence_for_tags() {
            just_before(clock, now, Duration::ZERO)
        } else {
            self.version
        };
        store.entry(key, version, value, expiry, tags)
    }

    /// Keeps what the load brought, if nothing that concerns it was written or invalidated meanwhile. Whether it is kept.
    ///
    /// # Errors
    /// As [`Store::merge`].
    pub fn keep<V: Payload>(
        &self,
        store: &Store<V>,
        entry: &Handle<V>,
    ) -> Result<bool, MergeError> {
        let merged = store.merge_entry_if(entry, |known| {
            self.planted.drops_fence() || self.holds(store, known, entry)
        })?;
        Ok(matches!(merged, Merged::Applied { entry: Some(_), .. }))
    }

    fn holds<V: Payload>(&self, store: &Store<V>, known: &Known<V>, entry: &Handle<V>) -> bool {
        known.version() == self.known
            && (self.planted.drops_fence_for_tags()
                || !store.invalidated_since(self.generation, entry.key(), Some(entry.tags())))
    }
}

/// Below everything that is stamped from `now` on by any clock that is behind this one by at most `clock_bound`.
pub(crate) fn just_before(clock: &Hlc, now: Time, clock_bound: Duration) -> Version {
    let bound_ms = u64::try_from(clock_bound.as_millis()).unwrap_or(u64::MAX);
    let ms = clock.physical_ms(now).saturating_sub(bound_ms);
    let time = Timestamp::from_u64(Timestamp::from_parts(ms, 0).as_u64().saturating_sub(1));
    Version::new(time, clock.origin())
}

#[cfg(test)]
mod tests {
    use nearcache_store::{Change, CoarseClock, NodeId, Scope, StoreConfig};

    use super::*;
    use crate::testing::Text;

    const NOW: Time = Time::from_millis(10_000);
    const BOUND: Duration = Duration::from_millis(500);

    fn setup() -> (Store<Text>, Hlc) {
        let clock = Hlc::new(NodeId::from_u64(1), 1_000_000, Hlc::DEFAULT_MAX_DRIFT);
        let coarse = CoarseClock::new(clock.physical_ms(NOW));
        let store = Store::new(StoreConfig::new(1 << 20), coarse).unwrap();
        (store, clock)
    }

    fn tagged(tag: &str) -> (Text, Expiry, Tags) {
        (
            Text::new("loaded"),
            Expiry::NEVER,
            Tags::new([tag]).unwrap(),
        )
    }

    /// The version of somebody else's invalidation, so many milliseconds after (or before) the load began by our clock.
    fn at(after_ms: i64) -> Version {
        let ms = 1_010_000_u64.saturating_add_signed(after_ms);
        Version::new(Timestamp::from_parts(ms, 0), NodeId::from_u64(2))
    }

    /// Whether a load is kept whose key meets `meanwhile` before it ends, and `afterwards` after that.
    fn is_there(meanwhile: impl Fn(&Store<Text>), afterwards: impl Fn(&Store<Text>)) -> bool {
        let (store, clock) = setup();
        let fence = Fence::begin(&store, &clock, NOW, BOUND, b"key");
        meanwhile(&store);
        let entry = fence.entry(&store, b"key", tagged("t"), &clock, NOW);
        let kept = fence.keep(&store, &entry).unwrap();
        afterwards(&store);
        let there = store.get(b"key").is_some();
        assert!(kept || !there);
        assert_eq!(entry.value().bytes(), b"loaded", "its caller has it");
        there
    }

    fn remove(version: Version) -> impl Fn(&Store<Text>) {
        move |store| {
            let _ = store.merge(b"key", version, Change::Remove).unwrap();
        }
    }

    fn raise(scope: Scope, version: Version) -> impl Fn(&Store<Text>) {
        move |store| {
            store.invalidate(scope.clone(), version);
        }
    }

    #[test]
    fn c1_whatever_covers_the_key_wins_in_mid_load_and_after_it_also_by_a_clock_that_is_behind() {
        let nothing = |_: &Store<Text>| {};
        assert!(is_there(nothing, nothing));
        // A clock that is behind by as much as it may be: the same instant, and later ones.
        for after_ms in [-500, -1, 0, 700] {
            assert!(!is_there(remove(at(after_ms)), nothing), "{after_ms}");
            assert!(!is_there(nothing, remove(at(after_ms))), "{after_ms}");
            for scope in [
                Scope::All,
                Scope::Prefix((*b"ke").into()),
                Scope::Tag((*b"t").into()),
            ] {
                assert!(!is_there(raise(scope.clone(), at(after_ms)), nothing));
                assert!(!is_there(nothing, raise(scope, at(after_ms))));
            }
        }
        // By one that is behind by more than it may be: in mid-load all the same.
        assert!(!is_there(remove(at(-2_000)), nothing));
        assert!(!is_there(
            raise(Scope::Tag((*b"t").into()), at(-2_000)),
            nothing
        ));
    }

    #[test]
    fn what_does_not_cover_the_key_voids_no_load() {
        let nothing = |_: &Store<Text>| {};
        for scope in [
            Scope::Prefix((*b"x").into()),
            Scope::Tag((*b"other").into()),
        ] {
            assert!(is_there(raise(scope, at(1)), nothing));
        }
    }

    #[test]
    fn c1_nobody_joins_a_load_that_began_before_an_invalidation() {
        let (store, clock) = setup();
        let begin = || Fence::begin(&store, &clock, NOW, BOUND, b"key");
        let joinable = |fence: &Fence| fence.is_joinable(&store, b"key");
        let first = begin();
        assert!(joinable(&first));
        remove(at(1))(&store);
        assert!(!joinable(&first));
        let second = begin();
        assert!(joinable(&second));
        raise(Scope::Prefix((*b"x").into()), at(2))(&store);
        assert!(joinable(&second), "another key's");
        raise(Scope::Tag((*b"any").into()), at(2))(&store);
        assert!(!joinable(&second), "its tags are not known yet");
    }
}
