//! The store: [`Store`], its reads and its readings. Writing is in `merge`, housekeeping in `tick`, walking in `walk`.

use std::fmt;
use std::sync::{Arc, OnceLock};

use crossbeam_utils::CachePadded;

use crate::digest::Digest;
use crate::group_floors::GroupFloors;
use crate::hash::KeyHasher;
use crate::idle::Idle;
use crate::planted::Planted;
use crate::reads::ReadCounters;
use crate::shard::Shard;
use crate::sync::{AtomicU32, Ordering, RwLock};
use crate::told_floors::ToldFloors;
use crate::{
    CoarseClock, ConfigError, Event, Handle, Listener, Scope, StoreConfig, StoreStats, Tags,
    Version, Weigh,
};

/// A bounded, concurrent map of versioned entries. Share it as `Arc<Store<V>>`.
///
/// ```
/// use nearcache_store::{Change, CoarseClock, Expiry, NodeId, Store, StoreConfig, Tags, Timestamp, Version};
///
/// let store: Store<Box<[u8]>> = Store::new(StoreConfig::new(1 << 20), CoarseClock::new(1_000))?;
/// let version = |ms| Version::new(Timestamp::from_parts(ms, 0), NodeId::from_u64(1));
/// let put = |value: &str| Change::Put {
///     value: value.as_bytes().into(),
///     expiry: Expiry::NEVER,
///     tags: Tags::NONE,
/// };
/// assert!(store.merge(b"key", version(1_001), put("new"))?.is_applied());
/// assert!(!store.merge(b"key", version(1_000), put("old"))?.is_applied());
/// assert_eq!(store.get(b"key").as_deref().map(|value| &value[..]), Some(&b"new"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Store<V> {
    // What every read touches comes first.
    pub(crate) hasher: KeyHasher,
    shards: Box<[CachePadded<Shard<V>>]>,
    /// Number of group invalidations so far, modulo 2^32. An entry remembers the one that it was last held against.
    pub(crate) generation: AtomicU32,
    pub(crate) clock: CoarseClock,
    pub(crate) idle: Option<Idle>,
    reads: ReadCounters,
    pub(crate) groups: RwLock<GroupFloors>,
    pub(crate) config: StoreConfig,
    pub(crate) max_entry_bytes: u64,
    pub(crate) digest: Option<Arc<Digest>>,
    /// Of keys that other nodes have evicted.
    pub(crate) told: ToldFloors,
    pub(crate) planted: Planted,
    listener: OnceLock<Arc<dyn Listener<V>>>,
}

impl<V: Weigh> Store<V> {
    /// An empty store that goes by `clock`.
    ///
    /// # Errors
    /// [`ConfigError`] if the settings contradict each other.
    pub fn new(config: StoreConfig, clock: CoarseClock) -> Result<Self, ConfigError> {
        config.validate()?;
        let shards = config.shard_count();
        let now_ms = clock.now_ms();
        let digest = config
            .digest_key
            .map(|key| Arc::new(Digest::new(key, config.max_bytes)));
        Ok(Self {
            hasher: KeyHasher::new(config.hash_seed),
            shards: (0..shards)
                .map(|_| CachePadded::new(Shard::new(&config, shards, now_ms, digest.clone())))
                .collect(),
            generation: AtomicU32::new(0),
            clock,
            idle: config.time_to_idle.map(Idle::new),
            reads: ReadCounters::new(),
            groups: RwLock::new(GroupFloors::new(config.effective_group_floors_max())),
            max_entry_bytes: config.entry_bytes_limit(),
            told: ToldFloors::new(&config),
            config,
            digest,
            planted: Planted::default(),
            listener: OnceLock::new(),
        })
    }

    /// The entry of `key`, if it is live: not expired, not idle for too long, not invalidated. It may be a
    /// [stub](Handle::is_stub), which counts as a miss.
    ///
    /// Counted in [`StoreStats`], and marks the entry as used. Takes one shared lock for the length of the look-up and
    /// allocates nothing.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Option<Handle<V>> {
        let hash = self.hasher.hash(key);
        let entry = self
            .shard(hash)
            .table
            .get(hash, key)
            .filter(|e| self.is_live(e));
        if let (Some(entry), Some(idle)) = (&entry, &self.idle) {
            idle.touch(&entry.record().last_access, self.clock.now_ms());
        }
        let hit = entry.as_ref().is_some_and(|entry| !entry.is_stub());
        self.reads.count(hit);
        entry
    }

    /// Marks the entry of `key` as used, as [`Store::get`] does, and counts nothing: it stays longer than what nobody reads.
    pub fn mark_used(&self, key: &[u8]) {
        let hash = self.hasher.hash(key);
        self.shard(hash).table.get(hash, key);
    }

    /// Like [`Store::get`], but neither counted nor marking the entry as used.
    pub fn peek(&self, key: &[u8]) -> Option<Handle<V>> {
        let hash = self.hasher.hash(key);
        self.shard(hash)
            .table
            .peek(hash, key)
            .filter(|e| self.is_live(e))
    }

    /// May this entry be served now? One load for an entry that never expires, a second for one that does.
    #[inline]
    pub(crate) fn is_live(&self, entry: &Handle<V>) -> bool {
        let expiry = entry.expiry();
        if !expiry.is_never()
            && expiry.is_expired(self.clock.now_ms())
            && !self.planted.leaves_expiry_to_the_sweeper()
        {
            return false;
        }
        // Acquire: who sees the number of an invalidation also sees its floor.
        let generation = self.generation.load(Ordering::Acquire);
        if entry.record().checked_generation.load(Ordering::Relaxed) != generation
            && !self.survives_groups(entry, generation)
        {
            return false;
        }
        !self.is_idle(entry)
    }

    /// Was the entry not read for longer than the time to idle?
    #[inline]
    pub(crate) fn is_idle(&self, entry: &Handle<V>) -> bool {
        self.idle.as_ref().is_some_and(|idle| {
            idle.is_over(
                entry.record().last_access.load(Ordering::Relaxed),
                self.clock.now_ms(),
            )
        })
    }

    /// Holds an entry against the group invalidations and remembers if it survives those up to `generation`.
    #[cold]
    pub(crate) fn survives_groups(&self, entry: &Handle<V>, generation: u32) -> bool {
        let groups = self.groups.read();
        let survives = entry.version() > groups.of_key(entry.key())
            && entry.version() > groups.of_tags(entry.tags());
        drop(groups);
        if survives {
            entry
                .record()
                .checked_generation
                .store(generation, Ordering::Relaxed);
        }
        survives
    }

    /// The highest group floor that covers all of `key`, whatever its tags.
    pub(crate) fn whole_key_floor(&self, key: &[u8]) -> Version {
        if self.generation.load(Ordering::Acquire) == 0 {
            return Version::ZERO;
        }
        self.groups.read().of_key(key)
    }

    /// How many group invalidations there were, modulo 2^32: what was read elsewhere before the last of them may be stale.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// Was anything that covers `key` invalidated by group since there were `generation` invalidations? `tags` are those of
    /// the entry in question; while they are not known yet (`None`), every tag counts. Says yes where it no longer knows:
    /// 256 invalidations are remembered one by one. Cost: a shared lock if there was any, and a look at each of those since.
    #[must_use]
    pub fn invalidated_since(&self, generation: u32, key: &[u8], tags: Option<&Tags>) -> bool {
        if self.generation.load(Ordering::Acquire) == generation {
            return false;
        }
        let groups = self.groups.read();
        let count = self
            .generation
            .load(Ordering::Acquire)
            .wrapping_sub(generation);
        groups.covered_by_last(count, key, tags)
    }

    /// The version of the newest invalidation by tag that this store has heard of.
    #[must_use]
    pub fn highest_tag_floor(&self) -> Version {
        if self.generation.load(Ordering::Acquire) == 0 {
            return Version::ZERO;
        }
        self.groups.read().highest_tag()
    }

    /// The floors of group invalidations in force, in a fixed order: a joining node needs them as much as the entries.
    pub fn floors(&self) -> Vec<(Scope, Version)> {
        self.groups.read().to_vec()
    }

    /// Sets who hears of changes; false if somebody does already.
    pub fn set_listener(&self, listener: Arc<dyn Listener<V>>) -> bool {
        self.listener.set(listener).is_ok()
    }

    pub(crate) fn has_listener(&self) -> bool {
        self.listener.get().is_some()
    }

    pub(crate) fn tell(&self, event: Event<'_, V>) {
        if let Some(listener) = self.listener.get() {
            listener.on_event(event);
        }
    }

    /// Number of entries held (expired and invalidated ones included until they are collected). Cost: a lock per shard.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|s| s.table.len()).sum()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of tombstones held. Cost: a lock per shard.
    pub fn tombstones(&self) -> usize {
        self.shards
            .iter()
            .map(|s| s.writer.lock().tombstones.len())
            .sum()
    }

    /// Bytes counted against the bound: entries, tombstones and floors. Cost: a lock per shard.
    pub fn weight_bytes(&self) -> u64 {
        self.shards
            .iter()
            .map(|s| s.writer.lock().weight_bytes())
            .sum()
    }

    /// The bound, in bytes.
    pub fn max_bytes(&self) -> u64 {
        self.config.max_bytes
    }

    /// The most one entry may weigh, in bytes; more is [`crate::MergeError::TooLargeForCache`].
    pub fn max_entry_bytes(&self) -> u64 {
        self.max_entry_bytes
    }

    /// The clock this store goes by.
    pub fn clock(&self) -> &CoarseClock {
        &self.clock
    }

    /// Number of shards. Each has an equal share of the bound.
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// A reading of the counters. Cost: a lock per shard.
    pub fn stats(&self) -> StoreStats {
        let (hits, misses) = self.reads.totals();
        let mut stats = StoreStats {
            hits,
            misses,
            group_floors: self.groups.read().len() as u64,
            ..StoreStats::default()
        };
        for shard in &self.shards {
            let writer = shard.writer.lock();
            stats.merges_applied += writer.counts.applied;
            stats.merges_stale += writer.counts.stale;
            stats.merges_too_large += writer.counts.too_large;
            stats.evictions += writer.counts.evictions;
            stats.expirations += writer.counts.expirations;
            stats.invalidations += writer.counts.invalidations;
            stats.tombstones_folded += writer.counts.tombstones_folded;
            stats.key_floors_folded += writer.key_floors.folded();
            stats.entries += writer.directory.len() as u64;
            stats.tombstones += writer.tombstones.len() as u64;
            stats.key_floors += writer.key_floors.len() as u64;
            stats.weight_bytes += writer.weight_bytes();
        }
        stats
    }

    /// Tells this store to break a rule, for those who show that they would notice.
    #[cfg(feature = "planted-bugs")]
    pub fn plant(&self, bug: crate::PlantedBug) {
        self.planted.plant(bug);
        if let Some(digest) = &self.digest {
            digest.plant(bug);
        }
    }

    /// The shard of a key: bits from the middle of its hash, because the table uses both ends.
    #[inline]
    pub(crate) fn shard(&self, hash: u64) -> &Shard<V> {
        &self.shards[(hash >> 32) as usize & (self.shards.len() - 1)]
    }

    pub(crate) fn shards(&self) -> impl Iterator<Item = &Shard<V>> {
        self.shards.iter().map(|s| &**s)
    }
}

impl<V> fmt::Debug for Store<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("max_bytes", &self.config.max_bytes)
            .field("shards", &self.shards.len())
            .finish_non_exhaustive()
    }
}
