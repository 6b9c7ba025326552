//! The fence of a load: [`Fence`] (design §6.2, C1, C4).
//!
//! A load is stamped when it begins, minus how far any other clock may be behind: whatever is written or invalidated from
//! then on, on whatever node, has a newer version and wins, before the load ends or after. On top of that the fence
//! compares what this node knew of the key when the load began with what it knows at its end, so that what has arrived
//! meanwhile wins even if its maker's clock is further behind than it may be.
//!
//! Two things that rise meanwhile are no news about the key. What a store remembers for many keys at once (C2: the floors of its
//! shards, which the removals of other keys raise) stands only against loads that are not newer than it, as it does against
//! every other update. (So of a removal by a clock too far behind nothing is left for the fence if, while the load runs, so many others
//! follow it that it is folded itself.) And what another load of the key brought is no change of the source: of two loads the newer one counts.

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
        let known = store.known(key);
        // C2: nobody waits for what would not be kept, nor for something older than what was here meanwhile.
        let beaten = known.version() > self.known && known.version() >= self.version;
        let is_news = || {
            !self.planted.joins_over_groups() && store.invalidated_since(self.generation, key, None)
        };
        !beaten && self.knew(&known) && !is_news()
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
        let at_its_end = self.planted.drops_fence()
            || self.planted.drops_fence_for_tags()
            || self.planted.ignores_groups_of_others();
        let version = if at_its_end {
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

    /// Whether nothing was written or removed of the key itself since the load began. An older load's result is neither.
    fn knew<V: Payload>(&self, known: &Known<V>) -> bool {
        let own = known.own_version();
        own <= self.known || own < self.version && is_of_load(own)
    }

    fn holds<V: Payload>(&self, store: &Store<V>, known: &Known<V>, entry: &Handle<V>) -> bool {
        self.knew(known)
            && (self.planted.drops_fence_for_tags()
                || !store.invalidated_since(self.generation, entry.key(), Some(entry.tags()))
                || self.planted.ignores_groups_of_others() && !self.is_own_group(store, entry))
    }

    /// Whether this node itself has invalidated a group with the entry in it since the load began.
    fn is_own_group<V: Payload>(&self, store: &Store<V>, entry: &Handle<V>) -> bool {
        store.floors().into_iter().any(|(scope, version)| {
            version.origin == self.version.origin
                && version > self.version
                && scope.covers(entry.key(), entry.tags())
        })
    }
}

/// Below everything that is stamped from `now` on by any clock that is behind this one by at most `clock_bound`.
pub(crate) fn just_before(clock: &Hlc, now: Time, clock_bound: Duration) -> Version {
    let bound_ms = u64::try_from(clock_bound.as_millis()).unwrap_or(u64::MAX);
    let ms = clock.physical_ms(now).saturating_sub(bound_ms);
    let time = Timestamp::from_u64(Timestamp::from_parts(ms, 0).as_u64().saturating_sub(1));
    Version::new(time, clock.origin())
}

/// Whether a version is one that loads get ([`just_before`]): no other has the last counter of its millisecond, unless 65,535 others were
/// made in it; and of such a one no more is lost than what this fence does beyond the clock bound.
pub(crate) const fn is_of_load(version: Version) -> bool {
    version.time.counter() == u16::MAX
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

    /// Removes so many other keys, at `version` each: far more than a store of a megabyte remembers one by one.
    fn remove_others(store: &Store<Text>, version: Version) {
        remove_some(store, version, 10_000);
    }

    fn remove_some(store: &Store<Text>, version: Version, count: u32) {
        for number in 0..count {
            let key = format!("other key {number} at {}", version.time.as_u64());
            let _ = store
                .merge(key.as_bytes(), version, Change::Remove)
                .unwrap();
        }
        let known = store.known(b"key");
        assert!(
            count < 10_000 || known.version() >= version,
            "it was folded"
        );
    }

    #[test]
    fn c2_removals_of_other_keys_that_no_longer_find_room_void_no_load_that_is_newer() {
        let (store, clock) = setup();
        remove_others(&store, at(-60_000));
        let fence = Fence::begin(&store, &clock, NOW, BOUND, b"key");
        remove_others(&store, at(-50_000));
        assert!(fence.is_joinable(&store, b"key"));
        let entry = fence.entry(&store, b"key", tagged("t"), &clock, NOW);
        assert!(fence.keep(&store, &entry).unwrap());
    }

    #[test]
    fn c2_a_load_that_began_before_the_shard_floor_is_neither_joined_nor_kept() {
        let (store, clock) = setup();
        let fence = Fence::begin(&store, &clock, NOW, BOUND, b"key");
        // Also when a removal of the key itself is among what was folded.
        remove(at(-500))(&store);
        remove_others(&store, at(-500));
        assert!(!fence.is_joinable(&store, b"key"));
        let entry = fence.entry(&store, b"key", tagged("t"), &clock, NOW);
        assert!(!fence.keep(&store, &entry).unwrap());
    }

    #[test]
    fn c1_a_floor_of_other_keys_hides_no_invalidation_by_a_clock_too_far_behind() {
        // With tombstones of 60 s ago that fill the store: each that comes now folds one of them.
        let (store, clock) = setup();
        remove_others(&store, at(-60_000));
        for meanwhile in [
            Box::new(remove(at(-2_000))) as Box<dyn Fn(&Store<Text>)>,
            Box::new(raise(Scope::Prefix((*b"ke").into()), at(-1_900))),
            Box::new(raise(Scope::Tag((*b"t").into()), at(-1_800))),
            Box::new(raise(Scope::All, at(-1_700))),
        ] {
            let fence = Fence::begin(&store, &clock, NOW, BOUND, b"key");
            meanwhile(&store);
            remove_some(&store, at(-50_000), 100);
            assert!(!fence.is_joinable(&store, b"key"));
            let entry = fence.entry(&store, b"key", tagged("t"), &clock, NOW);
            assert!(!fence.keep(&store, &entry).unwrap());
        }
    }

    #[test]
    fn i7_what_an_older_load_brought_voids_no_newer_one_and_the_other_way_round() {
        for newer_first in [false, true] {
            let (store, clock) = setup();
            let older = Fence::begin(&store, &clock, NOW, BOUND, b"key");
            let later = Time::from_millis(10_002);
            let newer = Fence::begin(&store, &clock, later, BOUND, b"key");
            let keep = |fence: &Fence| {
                let entry = fence.entry(&store, b"key", tagged("t"), &clock, later);
                fence.keep(&store, &entry).unwrap()
            };
            if newer_first {
                assert!(keep(&newer) && !keep(&older));
                assert!(!older.is_joinable(&store, b"key"), "C2");
            } else {
                assert!(keep(&older) && newer.is_joinable(&store, b"key"));
                assert!(keep(&newer));
            }
            let held = store.get(b"key").unwrap();
            assert_eq!(held.version(), newer.version());
        }
    }

    #[test]
    fn c1_a_write_in_mid_load_wins_by_whatever_clock_also_over_what_a_load_brought() {
        let (store, clock) = setup();
        let older = Fence::begin(&store, &clock, NOW, BOUND, b"key");
        let newer = Fence::begin(&store, &clock, Time::from_millis(10_002), BOUND, b"key");
        let entry = older.entry(&store, b"key", tagged("t"), &clock, NOW);
        assert!(older.keep(&store, &entry).unwrap());
        remove(Version::new(
            Timestamp::from_u64(older.version().time.as_u64() + 1),
            NodeId::from_u64(2),
        ))(&store);
        assert!(!newer.is_joinable(&store, b"key"));
        let entry = newer.entry(&store, b"key", tagged("t"), &clock, NOW);
        assert!(!newer.keep(&store, &entry).unwrap());
    }
}
