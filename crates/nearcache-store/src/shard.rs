//! A part of the store with its own lock and its own share of the bound: [`Shard`].
//!
//! Readers see the [`Table`] only. Whatever writes holds the shard's mutex, and with it the [`Writer`]: the
//! directory, the eviction policy, the timer wheel, the tombstones, the floors. The table is changed under that mutex alone, so what
//! was read from it stays true until the mutex is released. What has to be dropped or told to a
//! listener is handed to the caller, for after that.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::digest::{self, Digest};
use crate::directory::Directory;
use crate::key_floors::KeyFloors;
use crate::policy::Policy;
use crate::sync::Mutex;
use crate::table::Table;
use crate::tombstones::Tombstones;
use crate::wheel::Wheel;
use crate::{Handle, StoreConfig, Version, Weigh};

pub(crate) struct Shard<V> {
    pub(crate) table: Table<V>,
    pub(crate) writer: Mutex<Writer<V>>,
}

/// What a shard's writers share.
pub(crate) struct Writer<V> {
    pub(crate) directory: Directory<V>,
    policy: Policy,
    pub(crate) wheel: Wheel,
    pub(crate) tombstones: Tombstones,
    pub(crate) key_floors: KeyFloors,
    /// Nothing up to this is accepted for keys of which nothing is known, not even that they were evicted. Rises when tombstones have to make room.
    pub(crate) floor: Version,
    pub(crate) sweep: Sweep,
    pub(crate) counts: Counts,
    /// What all shards of the store know; off for a store that is compared with no other.
    pub(crate) digest: Option<Arc<Digest>>,
    room: Room,
}

/// How far the sweep after group invalidations has come.
#[derive(Default)]
pub(crate) struct Sweep {
    /// Next slot to look at.
    pub(crate) slot: u32,
    /// Generation that is being swept for.
    pub(crate) target: u32,
    /// Generation that the whole shard was swept for.
    pub(crate) done: u32,
}

#[derive(Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) applied: u64,
    pub(crate) stale: u64,
    pub(crate) too_large: u64,
    pub(crate) evictions: u64,
    pub(crate) expirations: u64,
    pub(crate) invalidations: u64,
    pub(crate) tombstones_folded: u64,
}

/// How a shard's share of the bound is divided.
struct Room {
    share_bytes: u64,
    tombstone_bytes_max: u64,
    /// Taken off the entries' room for tombstones and floors, in whole steps.
    reserved_bytes: u64,
    step_bytes: u64,
    /// This shard's share of the floors that other nodes told of.
    told_bytes: u64,
}

/// Handles that left the store during an operation: evicted, or replaced by a newer entry of their key. To be dropped after
/// the lock is released.
pub(crate) type Displaced<V> = SmallVec<[Handle<V>; 4]>;

/// Where a new entry goes.
pub(crate) enum Placing<'a, V> {
    /// In the place of the entry that holds its key.
    Replace(&'a Handle<V>),
    /// Besides all others; did it come back soon after its eviction?
    Add { came_back: bool },
}

impl<V: Weigh> Shard<V> {
    /// A shard with one of `shards` equal shares of what `config` allows.
    pub(crate) fn new(
        config: &StoreConfig,
        shards: usize,
        now_ms: u64,
        digest: Option<Arc<Digest>>,
    ) -> Self {
        let share_bytes = config.max_bytes / shards as u64;
        let key_floor_bytes = share_bytes / 100 * u64::from(config.key_floor_percent);
        let writer = Writer {
            directory: Directory::new(),
            policy: Policy::new(share_bytes),
            wheel: Wheel::new(now_ms),
            tombstones: Tombstones::new(),
            key_floors: KeyFloors::new(key_floor_bytes),
            floor: Version::ZERO,
            sweep: Sweep::default(),
            counts: Counts::default(),
            digest,
            room: Room {
                share_bytes,
                tombstone_bytes_max: share_bytes / 100 * u64::from(config.tombstone_percent),
                reserved_bytes: 0,
                step_bytes: (share_bytes / 64).max(1),
                told_bytes: 0,
            },
        };
        Self {
            table: Table::new(),
            writer: Mutex::new(writer),
        }
    }
}

impl<V: Weigh> Writer<V> {
    /// Puts `entry` in, whose key has `key_hash`, to be looked at again at `deadline_ms` (never, if that is the largest number).
    /// What leaves is added to `displaced`.
    #[inline]
    pub(crate) fn put(
        &mut self,
        table: &Table<V>,
        entry: &Handle<V>,
        key_hash: u64,
        placing: Placing<'_, V>,
        deadline_ms: u64,
        displaced: &mut Displaced<V>,
    ) {
        let held = match placing {
            Placing::Replace(held) => {
                if let Some(digest) = &self.digest {
                    digest.replace(key_hash, held.version(), entry.version());
                }
                entry.set_marks(held.marks());
                displaced.extend(self.directory.replace(held, entry.clone()));
                let (old, new) = (held.weight_bytes(), entry.weight_bytes());
                self.policy.reweigh(&self.directory, entry.slot(), old, new);
                Some(held)
            }
            Placing::Add { came_back } => {
                if let Some(digest) = &self.digest {
                    digest.add(key_hash, entry.version());
                }
                self.directory.add(entry.clone());
                let weight_bytes = entry.weight_bytes();
                self.policy
                    .admit(&mut self.directory, entry.slot(), weight_bytes, came_back);
                None
            }
        };
        if deadline_ms == u64::MAX {
            self.wheel.cancel(&mut self.directory, entry.slot());
        } else {
            self.wheel
                .schedule(&mut self.directory, entry.slot(), deadline_ms);
        }
        let first = displaced.len();
        self.evict(displaced);
        table.change(entry.clone(), held, &displaced[first..]);
    }

    /// Takes entries out of everything but the table until the rest has room; a floor stays of each. They are added to
    /// `displaced`.
    #[inline]
    fn evict(&mut self, displaced: &mut Displaced<V>) {
        while let Some(gone) = self.policy.victim(&mut self.directory) {
            // First, so that the cache lines of floor and slot are fetched together: giving up a handle is a barrier.
            let key_hash = self.key_hash(&gone);
            let placed = self.place_key_floor(key_hash, gone.version());
            if let Some(digest) = self.digest.as_ref().filter(|_| !placed) {
                digest.remove(key_hash, gone.version());
            }
            self.unlink(&gone);
            self.counts.evictions += 1;
            displaced.push(gone);
        }
    }

    /// The hash of the key of `entry` by which digest and floors go.
    #[inline]
    pub(crate) fn key_hash(&self, entry: &Handle<V>) -> u64 {
        digest::key_hash(self.digest.as_deref(), entry)
    }

    /// Takes the entry of a key out of everything.
    pub(crate) fn take_out(&mut self, table: &Table<V>, held: &Handle<V>) {
        if let Some(digest) = &self.digest {
            digest.remove(digest.hash(held.key()), held.version());
        }
        table.remove(std::slice::from_ref(held));
        self.unlink(held);
    }

    fn unlink(&mut self, gone: &Handle<V>) {
        self.wheel.cancel(&mut self.directory, gone.slot());
        self.policy
            .leave(&mut self.directory, gone.slot(), gone.weight_bytes());
        self.directory.remove(gone);
    }

    /// Records that a key was removed at `version`. The tombstones with the lowest versions make room by raising the shard's floor.
    pub(crate) fn bury(&mut self, hash: u64, key: &[u8], version: Version) {
        let former = self.tombstones.record(hash, key, version);
        if let Some(digest) = self.counts_tombstones() {
            let key_hash = digest.hash(key);
            if let Some(former) = former {
                digest.remove(key_hash, former);
            }
            digest.add(key_hash, version);
        }
        while self.tombstones.weight_bytes() > self.room.tombstone_bytes_max {
            let Some(folded) = self.tombstones.take_lowest() else {
                return;
            };
            self.floor = self.floor.max(folded.version);
            self.counts.tombstones_folded += 1;
            if let Some(digest) = self.counts_tombstones() {
                let key_hash = digest.hash(folded.key());
                digest.remove(key_hash, folded.version);
                digest.mark_lossy(key_hash);
            }
        }
    }

    /// An entry takes the place of the tombstone of `key`, if there is one.
    #[inline]
    pub(crate) fn unbury(&mut self, hash: u64, key: &[u8], key_hash: u64) {
        if let Some(version) = self.tombstones.drop_key(hash, key)
            && let Some(digest) = self.counts_tombstones()
        {
            digest.remove(key_hash, version);
        }
    }

    /// Drops tombstones whose version is of `before_ms` or earlier; looks at `budget` of them.
    pub(crate) fn collect_tombstones(&mut self, before_ms: u64, budget: usize) {
        let digest = self
            .digest
            .as_deref()
            .filter(|d| !d.planted().leaves_out_tombstones());
        self.tombstones.collect(before_ms, budget, |tombstone| {
            if let Some(digest) = digest {
                digest.remove(digest.hash(tombstone.key()), tombstone.version);
            }
        });
    }

    /// Drops the tombstones that `is_covered` says yes to. Cost: linear.
    pub(crate) fn drop_covered_tombstones(&mut self, is_covered: impl Fn(&[u8], Version) -> bool) {
        let digest = self
            .digest
            .as_deref()
            .filter(|d| !d.planted().leaves_out_tombstones());
        self.tombstones.drop_covered(|tombstone| {
            let covered = is_covered(tombstone.key(), tombstone.version);
            if let Some(digest) = digest.filter(|_| covered) {
                digest.remove(digest.hash(tombstone.key()), tombstone.version);
            }
            covered
        });
    }

    /// The digest, unless it is told to leave out tombstones.
    #[inline]
    fn counts_tombstones(&self) -> Option<&Digest> {
        let digest = self.digest.as_deref();
        digest.filter(|digest| !digest.planted().leaves_out_tombstones())
    }

    /// Remembers that nothing older than `version` may come back for `key_hash`, of which nothing else is known any more.
    pub(crate) fn raise_key_floor(&mut self, key_hash: u64, version: Version) {
        if self.place_key_floor(key_hash, version)
            && let Some(digest) = &self.digest
        {
            digest.add(key_hash, version);
        }
    }

    /// Raises the floor; whether it is known exactly now. Counts what made room for it, but not itself.
    #[inline]
    fn place_key_floor(&mut self, key_hash: u64, version: Version) -> bool {
        let raised = self.key_floors.raise(key_hash, version);
        if let Some(digest) = &self.digest {
            if let Some(gone) = raised.gone {
                digest.remove(gone.hash, gone.version);
            }
            if let Some(folded) = raised.folded {
                digest.mark_lossy(folded);
            }
            if digest.planted().leaves_out_evicted() && raised.placed {
                // Found again by a peer, sent again, evicted again.
                self.key_floors.drop_hash(key_hash);
                return false;
            }
        }
        raised.placed
    }

    /// An entry or a tombstone takes the place of the floor of a key. Whether there was one.
    #[inline]
    pub(crate) fn drop_key_floor(&mut self, key_hash: u64) -> bool {
        let dropped = self.key_floors.drop_hash(key_hash);
        if let (Some(version), Some(digest)) = (dropped, &self.digest) {
            digest.remove(key_hash, version);
        }
        dropped.is_some()
    }

    /// Drops all floors of evicted keys up to `version`. Cost: linear.
    pub(crate) fn drop_key_floors(&mut self, version: Version) {
        let digest = self.digest.as_deref();
        self.key_floors.drop_up_to(version, |floor| {
            if let Some(digest) = digest {
                digest.remove(floor.hash, floor.version);
            }
        });
    }

    /// Gives the entries the room that tombstones and floors leave. In steps, and shrinking sooner than growing, so that
    /// few writes pay for it.
    #[inline]
    pub(crate) fn fit(&mut self, table: &Table<V>, displaced: &mut Displaced<V>) {
        // Entries that make room leave floors, and the first floor of a shard takes the memory of all: at most one more round.
        while self.reserve(table, displaced) {}
    }

    /// Sets aside what tombstones and floors need now; whether anything had to change.
    #[inline]
    fn reserve(&mut self, table: &Table<V>, displaced: &mut Displaced<V>) -> bool {
        let Room {
            share_bytes,
            step_bytes,
            reserved_bytes,
            ..
        } = self.room;
        let needed = self.aside_bytes();
        if needed <= reserved_bytes && needed + 2 * step_bytes > reserved_bytes {
            return false;
        }
        let reserved = needed.next_multiple_of(step_bytes).min(share_bytes);
        if reserved == reserved_bytes {
            return false;
        }
        self.room.reserved_bytes = reserved;
        self.policy.set_capacity(share_bytes - reserved);
        let first = displaced.len();
        self.evict(displaced);
        table.remove(&displaced[first..]);
        true
    }

    /// Bytes counted against the bound: entries, tombstones and floors.
    pub(crate) fn weight_bytes(&self) -> u64 {
        self.policy.weight_bytes() + self.aside_bytes()
    }

    /// Bytes of tombstones and floors.
    pub(crate) fn aside_bytes(&self) -> u64 {
        self.tombstones.weight_bytes() + self.key_floors.weight_bytes() + self.room.told_bytes
    }

    /// Floors that other nodes told of take so many bytes of this shard's room.
    pub(crate) fn set_told_bytes(&mut self, bytes: u64) {
        self.room.told_bytes = bytes;
    }
}
