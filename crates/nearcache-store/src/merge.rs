//! Merging: the only way into a store ([`Store::merge`]), and what it is compared with ([`Store::known`]).
//!
//! An update is compared, in this order, with
//! 1. the floors of group invalidations that cover the whole key,
//! 2. the entry held, if it is live (or, expired or invalidated by a tag, its version),
//! 3. the tombstone of the key,
//! 4. the floor of the key, if it was evicted and that is known exactly, else the floor of the shard;
//!
//! and applied if it is newer, or brings the value of a stub in the stub's own version. An update that is dead on arrival, because it has expired or one of its tags was
//! invalidated at a later version, is applied as a removal at its version: it still supersedes what is older. That is what
//! makes merging commutative (any two stores that saw the same updates know the same), associative and idempotent.

use crate::shard::{Displaced, Placing, Shard, Writer};
use crate::sync::Ordering;
use crate::{
    Change, Event, Expiry, Handle, Known, MergeError, Merged, Store, Tags, Version, Weigh,
};

/// Longest key: the hard maximum of reliability §3.1.
const KEY_BYTES_MAX: usize = 64 << 10;

/// What an update is compared with.
pub(crate) struct Standing<V> {
    pub(crate) known: Known<V>,
    /// Updates up to this version lose.
    beaten_up_to: Version,
    /// Updates below this version lose: that of an evicted entry, which may itself come back.
    beaten_below: Version,
}

/// A change made ready to be applied: the new entry in its place in memory.
enum Prepared<V> {
    Put(Handle<V>),
    Expire(Expiry),
    Remove,
}

impl<V: Weigh> Store<V> {
    /// What the store knows of `key`: what a merge would be compared with. Takes the shard's lock.
    pub fn known(&self, key: &[u8]) -> Known<V> {
        self.stands(key).known
    }

    /// Would a merge at `version` change what the store knows of `key`? Unlike a merge, which lets an evicted entry back in
    /// at its own version, this says no to what was evicted: anti-entropy must not bring it back (R10). Takes the shard's lock.
    pub fn lacks(&self, key: &[u8], version: Version) -> bool {
        version > self.stands(key).current()
    }

    /// The version that `key` had when it was evicted, if that is still known exactly. Takes the shard's lock.
    pub fn evicted(&self, key: &[u8]) -> Option<Version> {
        let hash = self.hasher.hash(key);
        let key_hash = self.key_hash(hash, key);
        let own = self.shard(hash).writer.lock().key_floors.exact(key_hash);
        own.max(self.told.exact(key_hash))
    }

    fn stands(&self, key: &[u8]) -> Standing<V> {
        let hash = self.hasher.hash(key);
        let key_hash = self.key_hash(hash, key);
        let shard = self.shard(hash);
        let writer = shard.writer.lock();
        let held = shard.table.peek(hash, key);
        self.standing(&writer, held.as_ref(), (hash, key_hash), key)
    }

    /// The hash by which digest and floors go, of a key whose hash in the table is `hash`.
    #[inline]
    pub(crate) fn key_hash(&self, hash: u64, key: &[u8]) -> u64 {
        self.digest.as_ref().map_or(hash, |digest| digest.hash(key))
    }

    /// Merges one update: the only way in. One atomic step per key, under the shard's lock.
    ///
    /// # Errors
    /// [`MergeError`]; each variant says what changed.
    pub fn merge(
        &self,
        key: &[u8],
        version: Version,
        change: Change<V>,
    ) -> Result<Merged<V>, MergeError> {
        let hash = self.hash_of(key)?;
        // Before the lock is taken: what is made ready is wasted only if the update turns out to be stale.
        let prepared = prepare(key, hash, version, change);
        self.merge_prepared(key, hash, version, |_| Some(prepared))
    }

    /// Merges what `decide` makes of what is known, in the same atomic step; nothing if it says `None`. The
    /// update's version is fixed before: if what is known turns out to be as new, the answer is [`Merged::Stale`].
    ///
    /// `decide` runs under the shard's lock: keep it short, and do not call the store.
    ///
    /// # Errors
    /// As [`Store::merge`].
    pub fn merge_if(
        &self,
        key: &[u8],
        version: Version,
        decide: impl FnOnce(&Known<V>) -> Option<Change<V>>,
    ) -> Result<Merged<V>, MergeError> {
        let hash = self.hash_of(key)?;
        self.merge_prepared(key, hash, version, |known| {
            Some(prepare(key, hash, version, decide(known)?))
        })
    }

    /// An entry for [`merge_entry_if`](Self::merge_entry_if), in no store yet.
    pub fn entry(
        &self,
        key: &[u8],
        version: Version,
        value: V,
        expiry: Expiry,
        tags: Tags,
    ) -> Handle<V> {
        new_entry(key, self.hasher.hash(key), version, expiry, tags, value)
    }

    /// Merges an entry that this store [made](Self::entry) if `decide` agrees, in the same atomic step. Whatever comes of it,
    /// the caller still has the entry, with its value.
    ///
    /// `decide` runs under the shard's lock, as that of [`merge_if`](Self::merge_if).
    ///
    /// # Errors
    /// As [`Store::merge`].
    pub fn merge_entry_if(
        &self,
        entry: &Handle<V>,
        decide: impl FnOnce(&Known<V>) -> bool,
    ) -> Result<Merged<V>, MergeError> {
        let (key, version) = (entry.key(), entry.version());
        let hash = self.hash_of(key)?;
        debug_assert_eq!(hash, entry.record().hash, "an entry of this store");
        self.merge_prepared(key, hash, version, |known| {
            decide(known).then(|| Prepared::Put(entry.clone()))
        })
    }

    /// The hash of a key that is not too long.
    #[inline]
    fn hash_of(&self, key: &[u8]) -> Result<u64, MergeError> {
        if key.len() > KEY_BYTES_MAX {
            let (len_bytes, limit_bytes) = (key.len(), KEY_BYTES_MAX);
            return Err(MergeError::KeyTooLong {
                len_bytes,
                limit_bytes,
            });
        }
        Ok(self.hasher.hash(key))
    }

    #[inline]
    fn merge_prepared(
        &self,
        key: &[u8],
        hash: u64,
        version: Version,
        decide: impl FnOnce(&Known<V>) -> Option<Prepared<V>>,
    ) -> Result<Merged<V>, MergeError> {
        let shard = self.shard(hash);
        let key_hash = self.key_hash(hash, key);
        // Declared before the lock is taken, so that what leaves is dropped after it is released.
        let mut displaced = Displaced::default();
        let held;
        let merged = {
            let mut writer = shard.writer.lock();
            // Read before the group floors: an entry made now is held against every later invalidation.
            let generation = self.generation.load(Ordering::Acquire);
            held = shard.table.peek(hash, key);
            let standing = self.standing(&writer, held.as_ref(), (hash, key_hash), key);
            let Some(prepared) = decide(&standing.known) else {
                return Ok(Merged::Declined);
            };
            if standing.beats(version)
                && !completes(&standing.known, version, &prepared)
                && !self.planted.ignores_versions()
            {
                writer.counts.stale += 1;
                return Ok(Merged::Stale {
                    current: standing.current(),
                });
            }
            let Some(applying) = self.resolve(key, hash, version, prepared, &standing.known) else {
                return Ok(Merged::Declined);
            };
            let has_key_floor = standing.beaten_below != Version::ZERO;
            let replaced = match standing.known {
                Known::Live(entry) => Some(entry),
                Known::Removed(_) | Known::Absent { .. } => None,
            };
            let held = held.as_ref();
            let update = Update {
                hash,
                key_hash,
                key,
                version,
                generation,
                held,
                has_key_floor,
            };
            let entry = self.apply(shard, &mut writer, &update, applying, &mut displaced);
            writer.fit(&shard.table, &mut displaced);
            entry.map(|entry| Merged::Applied { entry, replaced })
        };
        self.tell_merged(key, version, &merged, held.as_ref(), &displaced);
        merged
    }

    /// Compares everything that is known of a key. Under the shard's lock.
    pub(crate) fn standing(
        &self,
        writer: &Writer<V>,
        held: Option<&Handle<V>>,
        (hash, key_hash): (u64, u64),
        key: &[u8],
    ) -> Standing<V> {
        let whole_key = if self.planted.forgets_group_floors() {
            Version::ZERO
        } else {
            self.whole_key_floor(key)
        };
        if let Some(entry) = held.filter(|e| e.version() > whole_key) {
            let version = entry.version();
            if self.is_live(entry) {
                return Standing::exact(Known::Live(entry.clone()), version);
            }
            if !self.is_idle(entry) || entry.expiry().is_expired(self.clock.now_ms()) {
                return Standing::exact(Known::Removed(version), version);
            }
            // Idle is this node's own affair, as an eviction is.
            return Standing::absent(whole_key, version, whole_key.max(version));
        }
        match writer.tombstones.get(hash, key).filter(|v| *v > whole_key) {
            Some(version) => Standing::exact(Known::Removed(version), version),
            None if self.planted.forgets_key_floors() => {
                Standing::absent(whole_key, Version::ZERO, whole_key)
            }
            None => {
                let own = writer.key_floors.find(key_hash);
                let evicted = own.max(self.told.find(key_hash));
                // What has a floor of its own was held later than it was ever removed, or no such floor would be left of it: what
                // became of the removals of other keys says nothing about it.
                let removed = if own.exact == Version::ZERO {
                    writer.floor
                } else {
                    Version::ZERO
                };
                Standing::absent(
                    whole_key.max(removed),
                    evicted.floor,
                    whole_key.max(evicted.exact),
                )
            }
        }
    }

    /// What an update comes to now: the entry to be put, or a removal (the inner `None`); nothing if it changes the
    /// expiry of nothing.
    fn resolve(
        &self,
        key: &[u8],
        hash: u64,
        version: Version,
        prepared: Prepared<V>,
        known: &Known<V>,
    ) -> Option<Option<Handle<V>>> {
        let entry = match prepared {
            Prepared::Put(entry) => entry,
            Prepared::Expire(expiry) => {
                let entry = known.live().filter(|entry| !entry.is_stub())?;
                let (value, tags) = (entry.value().clone(), entry.tags().clone());
                new_entry(key, hash, version, expiry, tags, value)
            }
            Prepared::Remove => return Some(None),
        };
        let invalidated = !entry.tags().is_empty()
            && !self.planted.forgets_group_floors()
            && version <= self.groups.read().of_tags(entry.tags());
        let expiry = entry.expiry();
        let expired = !expiry.is_never() && expiry.is_expired(self.clock.now_ms());
        Some((!invalidated && !expired).then_some(entry))
    }

    /// Applies an update that has won.
    fn apply(
        &self,
        shard: &Shard<V>,
        writer: &mut Writer<V>,
        update: &Update<'_, V>,
        applying: Option<Handle<V>>,
        displaced: &mut Displaced<V>,
    ) -> Result<Option<Handle<V>>, MergeError> {
        let &Update {
            hash,
            key_hash,
            key,
            version,
            generation,
            held,
            ..
        } = update;
        let Some(entry) = applying else {
            if let Some(held) = held {
                writer.take_out(&shard.table, held);
            }
            writer.drop_key_floor(key_hash);
            self.drop_told_floor(key_hash);
            if !self.planted.forgets_tombstones() {
                self.bury(writer, hash, key, version);
            }
            writer.counts.applied += 1;
            return Ok(None);
        };
        writer.unbury(hash, key, key_hash);
        let weight_bytes = entry.weight_bytes();
        if weight_bytes > self.max_entry_bytes {
            if let Some(held) = held {
                writer.take_out(&shard.table, held);
            }
            self.drop_told_floor(key_hash);
            writer.raise_key_floor(key_hash, version);
            writer.counts.too_large += 1;
            let limit_bytes = self.max_entry_bytes;
            return Err(MergeError::TooLargeForCache {
                weight_bytes,
                limit_bytes,
            });
        }
        entry
            .record()
            .checked_generation
            .store(generation, Ordering::Relaxed);
        if let Some(idle) = &self.idle {
            let stamp = idle.stamp(self.clock.now_ms());
            entry.record().last_access.store(stamp, Ordering::Relaxed);
        }
        // Who has a floor of its own was here not long ago.
        let came_back = update.has_key_floor && writer.drop_key_floor(key_hash);
        if update.has_key_floor {
            self.drop_told_floor(key_hash);
        }
        let deadline_ms = self.deadline_ms(&entry);
        let placed = match held {
            Some(held) => Placing::Replace(held),
            None => Placing::Add { came_back },
        };
        writer.put(
            &shard.table,
            &entry,
            key_hash,
            placed,
            deadline_ms,
            displaced,
        );
        writer.counts.applied += 1;
        Ok(Some(entry))
    }

    /// When an entry has to be looked at again if it is not read before.
    pub(crate) fn deadline_ms(&self, entry: &Handle<V>) -> u64 {
        let idle = self.idle.as_ref().map_or(u64::MAX, |idle| {
            let last = entry.record().last_access.load(Ordering::Relaxed);
            idle.deadline_ms(last, self.clock.now_ms())
        });
        self.collected_ms(entry).min(idle)
    }

    /// Tells the listener, after all locks are released.
    fn tell_merged(
        &self,
        key: &[u8],
        version: Version,
        merged: &Result<Merged<V>, MergeError>,
        held: Option<&Handle<V>>,
        displaced: &Displaced<V>,
    ) {
        if !self.has_listener() {
            return;
        }
        match merged {
            Ok(Merged::Applied {
                entry: Some(entry),
                replaced,
            }) => {
                self.tell(Event::Updated {
                    entry,
                    replaced: replaced.as_ref(),
                });
            }
            Ok(Merged::Applied {
                entry: None,
                replaced,
            }) => {
                self.tell(Event::Removed {
                    key,
                    version,
                    removed: replaced.as_ref(),
                });
            }
            Ok(Merged::Stale { .. } | Merged::Declined) => {}
            Err(_) => {
                if let Some(held) = held {
                    self.tell(Event::Evicted(held));
                }
            }
        }
        for gone in displaced
            .iter()
            .filter(|d| !held.is_some_and(|h| h.same_as(d)))
        {
            self.tell(Event::Evicted(gone));
        }
    }
}

fn prepare<V: Weigh>(key: &[u8], hash: u64, version: Version, change: Change<V>) -> Prepared<V> {
    match change {
        Change::Put {
            value,
            expiry,
            tags,
        } => Prepared::Put(new_entry(key, hash, version, expiry, tags, value)),
        Change::Stub {
            placeholder,
            value_bytes,
            expiry,
            tags,
        } => {
            let entry = new_entry(key, hash, version, expiry, tags, placeholder);
            Prepared::Put(entry.without_value(value_bytes))
        }
        Change::Expire { expiry } => Prepared::Expire(expiry),
        Change::Remove => Prepared::Remove,
    }
}

/// Does the update bring the value that the entry held lacks?
fn completes<V>(known: &Known<V>, version: Version, prepared: &Prepared<V>) -> bool {
    let Prepared::Put(entry) = prepared else {
        return false;
    };
    let held = known.live();
    held.is_some_and(|held| held.version() == version && held.is_stub()) && !entry.is_stub()
}

/// A record that no store holds yet. Weights are kept in 32 bits: larger is larger than any shard accepts.
#[inline]
fn new_entry<V: Weigh>(
    key: &[u8],
    hash: u64,
    version: Version,
    expiry: Expiry,
    tags: Tags,
    value: V,
) -> Handle<V> {
    let weight = Handle::weight_of(key.len(), &value, &tags);
    let weight = u32::try_from(weight).unwrap_or(u32::MAX);
    Handle::new(key, hash, version, expiry, tags, value, weight)
}

/// An update on its way in, and the entry physically held for its key.
struct Update<'a, V> {
    hash: u64,
    /// By which digest and floors go.
    key_hash: u64,
    key: &'a [u8],
    version: Version,
    generation: u32,
    held: Option<&'a Handle<V>>,
    has_key_floor: bool,
}

impl<V> Standing<V> {
    fn exact(known: Known<V>, version: Version) -> Self {
        Self {
            known,
            beaten_up_to: version,
            beaten_below: Version::ZERO,
        }
    }

    fn absent(beaten_up_to: Version, beaten_below: Version, own: Version) -> Self {
        let floor = beaten_up_to.max(beaten_below);
        Self {
            known: Known::Absent { floor, own },
            beaten_up_to,
            beaten_below,
        }
    }

    /// Does this stand against an update of `version`?
    fn beats(&self, version: Version) -> bool {
        version <= self.beaten_up_to || version < self.beaten_below
    }

    fn current(&self) -> Version {
        self.beaten_up_to.max(self.beaten_below)
    }
}
